//! The engine beside the drive that it stands on, in this process and through the same ring.
//!
//! The drive of a shared machine is not the same from one second to the next, so what is compared
//! is measured in turns, several times, and the median run of each counts.

use std::time::Duration;

use load::{Clock, Rw};

use crate::direct::{BLOCK_SIZE, Raw, fill, jobs_row};
use crate::engine::{Rig, Scratch, device_bytes};
use crate::error::BenchError;
use crate::measures::{Writes, write};
use crate::options::{Device, Options};
use crate::report::{Fact, Row};
use crate::shape::Shape;

/// Runs of each; odd, for the median.
const ROUNDS: usize = 3;

/// The log of the bursts: three of them leave it below where destaging starts.
const BURST_LOG_BYTES: u64 = 2 << 30;
const BURST_TIME: Duration = Duration::from_millis(400);
const BURST_WARM: Duration = Duration::from_millis(100);

/// Share of the log, in percent, from which the destager has its steady work, and how long filling
/// it takes at most.
const STEADY_PERCENT: u64 = 60;
const STEADY_TIME: Duration = Duration::from_secs(10);

/// A store in a file of its own, filled.
struct Stored {
    rig: Rig,
    _scratch: Scratch,
}

impl Stored {
    /// The store's whole file was written before, as one's is that has been in use for a while.
    fn new(options: &Options) -> Result<Stored, BenchError> {
        let bytes = device_bytes(options.size, options.log_size);
        let scratch = Scratch::create(&options.folder, bytes)?;
        let device = scratch.open_written()?;
        let rig = Rig::create(device.as_ref(), options.size, options.log_size)?;
        let len = options.size / u64::from(BLOCK_SIZE);
        fill(rig.queue(8)?, rig.pool(), BLOCK_SIZE, len)?;
        Ok(Stored { rig, _scratch: scratch })
    }

    /// Writes until the log is as full as it will be.
    fn settle(&self, options: &Options) -> Result<(), BenchError> {
        let clock = Clock::start();
        let full = || {
            let late = clock.now().as_ns() > load::nanoseconds(STEADY_TIME);
            late || self.rig.stats().log_used_bytes * 100 >= options.log_size * STEADY_PERCENT
        };
        let blocks = options.size / u64::from(BLOCK_SIZE);
        let (rw, sizes, seed) = (Rw::RandWrite, &[BLOCK_SIZE], options.seed);
        write(&self.rig, Writes { rw, sizes, blocks, ios: u64::MAX, seed }, full)
    }

    fn row(&self, options: &Options, shape: Shape) -> Result<Row, BenchError> {
        jobs_row(options, shape, self.rig.pool(), &|| self.rig.queue(shape.depth))
    }
}

/// Reads and durable writes at depth 32 of the drive and of a store on it: the rows, then what the
/// store gives of what the drive gives.
///
/// # Errors
/// A file, an engine or a run that failed.
pub(crate) fn beside_raw(options: &Options) -> Result<(Vec<Row>, Vec<Fact>), BenchError> {
    let (mut rows, mut facts) = (Vec::new(), Vec::new());
    let shape = |rw| Shape { rw, bytes: 4096, depth: 32, jobs: 1, digests: false };
    for shape in [Rw::RandRead, Rw::RandWrite].map(shape) {
        if !options.wants(&format!("raw {shape}")) {
            continue;
        }
        let (raw, stored) = (Raw::new(options)?, Stored::new(options)?);
        if shape.rw.writes() {
            stored.settle(options)?;
        }
        add(options, shape, "store", (&raw, &stored), (&mut rows, &mut facts))?;
        stored.rig.shutdown();
    }
    let burst = shape(Rw::RandWrite);
    if options.wants(&format!("raw {burst}")) {
        let log_size = BURST_LOG_BYTES;
        let (time, warm) = (BURST_TIME, BURST_WARM);
        let options = Options { log_size, time, warm, ..options.clone() };
        let (raw, stored) = (Raw::new(&options)?, Stored::new(&options)?);
        add(&options, burst, "store-burst", (&raw, &stored), (&mut rows, &mut facts))?;
    }
    Ok((rows, facts))
}

/// Measures the drive and the store in turns.
fn add(
    options: &Options,
    shape: Shape,
    name: &str,
    (raw, stored): (&Raw, &Stored),
    (rows, facts): (&mut Vec<Row>, &mut Vec<Fact>),
) -> Result<(), BenchError> {
    let (mut random, mut appended, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    let with = |device| Options { device, ..options.clone() };
    for _ in 0..ROUNDS {
        random.push(raw.row(&with(Device::Raw), shape, false)?);
        if shape.rw.writes() {
            appended.push(raw.row(&with(Device::RawLog), shape, true)?);
        }
        engine.push(Row { device: format!("{name} direct"), ..stored.row(options, shape)? });
    }
    let engine = median(engine);
    for drive in [random, appended].into_iter().filter(|runs| !runs.is_empty()) {
        let drive = median(drive);
        let of = drive.device.trim_end_matches(" direct");
        let percent_milli = engine.iops * 100_000 / drive.iops.max(1);
        facts.push(Fact::new(&format!("{name} of {of}, {shape}"), percent_milli, "%"));
        if name == "store" {
            rows.push(drive);
        }
    }
    rows.push(engine);
    Ok(())
}

/// The run with the median rate.
fn median(mut runs: Vec<Row>) -> Row {
    runs.sort_by_key(|row| row.iops);
    runs.swap_remove(runs.len() / 2)
}

const _: () = assert!(ROUNDS % 2 == 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_run_is_the_one_in_the_middle() {
        let row = |iops| Row { iops, ..Row::default() };
        assert_eq!(median([3, 1, 2].map(row).to_vec()).iops, 2);
        assert_eq!(median(vec![row(7)]).iops, 7);
    }
}
