//! The table: every row that `make bench` measures, device by device.

use load::Rw;
use node::{Format, StoreSpec};

use crate::beside::beside_raw;
use crate::callgrind;
use crate::engine::{Scratch, UUID, device_bytes, memory};
use crate::error::BenchError;
use crate::idle::idle_cpu;
use crate::measures::{Amplified, amplification, large_recovery, recovery};
use crate::network::{Site, fill_site, plan, row};
use crate::options::{Device, Options};
use crate::ram::memory_use;
use crate::report::{Fact, Report, Row};
use crate::shape::Shape;
use crate::steady::steadiness;
use crate::target::LocalTarget;

/// Depths of the small rows.
const DEPTHS: [u32; 3] = [1, 32, 128];

/// What write amplification is measured of; see [`Amplified`].
const AMPLIFIED: [(Rw, &[u32], u64, bool); 11] = [
    (Rw::RandWrite, &[4096], 4, false),
    (Rw::RandWrite, &[4096], 16, false),
    (Rw::RandWrite, &[4096], 64, false),
    (Rw::ZipfWrite, &[4096], 4, false),
    (Rw::RandWrite, &[64 << 10], 4, false),
    (Rw::Write, &[128 << 10], 4, false),
    (Rw::RandWrite, &[1 << 20], 4, false),
    (Rw::RandWrite, &[4096, 64 << 10], 4, false),
    (Rw::RandWrite, &[64 << 10], 4, true),
    (Rw::RandWrite, &[128 << 10], 4, true),
    (Rw::RandWrite, &[64 << 10, 256 << 10, 1 << 20], 4, true),
];

/// The rows of a device that does nothing: the ceiling of the protocol.
fn ceiling_shapes() -> Vec<Shape> {
    let small = |rw, depth| Shape { rw, bytes: 4096, depth, jobs: 1, digests: false };
    let reads = DEPTHS.map(|depth| small(Rw::RandRead, depth));
    reads.into_iter().chain([small(Rw::RandWrite, 32)]).collect()
}

/// The rows of the engine without a disk: what it adds to a device in memory.
fn engine_shapes() -> Vec<Shape> {
    let small = |rw| Shape { rw, bytes: 4096, depth: 32, jobs: 1, digests: false };
    [Rw::RandRead, Rw::RandWrite, Rw::RandRw].map(small).to_vec()
}

/// The rows of a device that stores what it is given.
fn storage_shapes() -> Vec<Shape> {
    let small = |rw, depth, digests| Shape { rw, bytes: 4096, depth, jobs: 1, digests };
    let kinds = [Rw::RandRead, Rw::RandWrite, Rw::RandRw];
    let mut shapes = Vec::new();
    for rw in kinds {
        shapes.extend(DEPTHS.map(|depth| small(rw, depth, false)));
        shapes.push(small(rw, 32, true));
    }
    let large = |rw| Shape { rw, bytes: 128 << 10, depth: 8, jobs: 1, digests: false };
    shapes.extend([Rw::Read, Rw::Write].map(large));
    shapes
}

/// Measures all rows of a device.
fn device_rows(
    options: &Options,
    device: &Device,
    shapes: Vec<Shape>,
    report: &mut Report,
) -> Result<(), BenchError> {
    let name = device.to_string();
    let wanted = |shape: &Shape| options.wants(&format!("{name} {shape}"));
    let shapes: Vec<Shape> = shapes.into_iter().filter(wanted).collect();
    if shapes.is_empty() {
        return Ok(());
    }
    let (store, _scratch) = store(options, device)?;
    let target = LocalTarget::start(plan(options, store))?;
    let site = Site::local(&name, &target);
    fill_site(options, &site)?;
    let first = report.rows.len();
    for shape in &shapes {
        let row = row(options, &site, *shape)?;
        progress(options, &row);
        report.rows.push(row);
    }
    target.shutdown()?;
    instructions(options, device, &shapes, first, report)
}

/// Counts the instructions of the rows from `first` on, where the processor did not.
fn instructions(
    options: &Options,
    device: &Device,
    shapes: &[Shape],
    first: usize,
    report: &mut Report,
) -> Result<(), BenchError> {
    let rows = &mut report.rows[first..];
    if rows.iter().all(|row| row.instructions.is_some()) {
        return Ok(());
    }
    if let Err(why) = callgrind::available() {
        let why = format!("the processor has no counter here, and {why}");
        eprintln!("{device:6} instructions: {why}");
        report.context.uncounted = Some(why);
        return Ok(());
    }
    callgrind::count(options, device, shapes, rows)?;
    for Row { workload, instructions, .. } in rows {
        if let (false, Some(count)) = (options.json, instructions) {
            eprintln!("{device:6} {workload:28} {count:?} instructions");
        }
    }
    Ok(())
}

/// Shows a row as soon as it is there.
fn progress(options: &Options, row: &Row) {
    if !options.json {
        let Row { device, workload, iops, p50_ns, .. } = row;
        eprintln!("{device:6} {workload:28} {iops:>9} IOPS  p50 {} us", p50_ns / 1000);
    }
}

/// Measures the whole table.
///
/// # Errors
/// The first target or run that failed.
pub fn measure(options: &Options, report: &mut Report) -> Result<(), BenchError> {
    device_rows(options, &Device::Ram, storage_shapes(), report)?;
    device_rows(options, &Device::Null, ceiling_shapes(), report)?;
    device_rows(options, &Device::Store, storage_shapes(), report)?;
    device_rows(options, &Device::StoreRam, engine_shapes(), report)?;
    let (rows, facts_beside) = beside_raw(options)?;
    rows.iter().for_each(|row| progress(options, row));
    facts_beside.iter().for_each(|fact| progress_fact(options, fact));
    report.rows.extend(rows);
    report.facts.extend(facts_beside);
    facts(options, report)
}

fn facts(options: &Options, report: &mut Report) -> Result<(), BenchError> {
    let mut add = |facts: Vec<Fact>| {
        facts.iter().for_each(|fact| progress_fact(options, fact));
        report.facts.extend(facts);
    };
    for (rw, sizes, by_log, crowded) in AMPLIFIED {
        let measured = Amplified { rw, sizes, by_log, crowded };
        if options.wants(&measured.name()) {
            add(amplification(options, &measured)?);
        }
    }
    if options.wants("recovery") {
        add(recovery(options)?);
        add(large_recovery(options)?);
    }
    if options.wants("p99 of a second") {
        add(steadiness(options)?);
    }
    if options.wants("RAM") {
        add(memory_use(options)?);
    }
    if options.wants("idle CPU") {
        add(idle_cpu(options)?);
    }
    Ok(())
}

fn progress_fact(options: &Options, fact: &Fact) {
    if !options.json {
        let Fact { name, value_milli, unit } = fact;
        eprintln!("{name:42} {}.{:03} {unit}", value_milli / 1000, value_milli % 1000);
    }
}

/// Measures one workload on a device of a target in this process.
///
/// # Errors
/// A target or a run that failed.
pub fn single(options: &Options, shape: Shape) -> Result<Row, BenchError> {
    let (store, _scratch) = store(options, &options.device)?;
    let target = LocalTarget::start(plan(options, store))?;
    let site = Site::local(&options.device.to_string(), &target);
    fill_site(options, &site)?;
    let row = row(options, &site, shape)?;
    target.shutdown()?;
    Ok(row)
}

/// What is behind the volume, and the file that it needs.
fn store(options: &Options, device: &Device) -> Result<(StoreSpec, Option<Scratch>), BenchError> {
    let bytes = device_bytes(options.size, options.log_size);
    let format = Some(Format { uuid: UUID, log_bytes: Some(options.log_size) });
    match device {
        Device::Ram => Ok((StoreSpec::Ram { bytes: options.size }, None)),
        Device::Null => Ok((StoreSpec::Null { bytes: options.size }, None)),
        Device::Store => {
            let scratch = Scratch::create(&options.folder, bytes)?;
            Ok((StoreSpec::Device { device: scratch.open()?, format }, Some(scratch)))
        }
        Device::StoreRam => Ok((StoreSpec::Device { device: memory(bytes)?, format }, None)),
        other => Err(BenchError::Usage(format!("no target for {other}"))),
    }
}
