//! Single numbers of the engine: write amplification, recovery, opening.

use std::time::Duration;

use bdev::Bdev;
use load::{Clock, Job, JobPlan, Rw, Timeline, Workload, nanoseconds, run, show_size};

use crate::counted::Counted;
use crate::direct::{BLOCK_SIZE, fill};
use crate::engine::{Rig, Scratch, device_bytes, memory};
use crate::error::BenchError;
use crate::options::Options;
use crate::report::Fact;

/// How often the volume is overwritten.
const ROUNDS: u64 = 6;

/// Share of the log, in percent, that is filled before the kill. A store in memory is filled faster
/// than it destages, up to where writers are slowed down.
const FULL_PERCENT: u64 = 60;

/// Seconds after which a log that does not get full is taken as it is.
const FILL_TIME: Duration = Duration::from_secs(10);

/// The log of the recovery that is measured in memory, and the volume that fills it.
const LARGE_LOG_BYTES: u64 = 1 << 30;
const LARGE_VOLUME_BYTES: u64 = 1 << 30;

/// A workload whose write amplification is measured.
pub struct Amplified {
    /// What is written.
    pub rw: Rw,
    /// Bytes of a write; several share the depth.
    pub sizes: &'static [u32],
    /// The volume is so many times the log: the larger, the fewer writes meet in the log.
    pub by_log: u64,
    /// The volume takes nine tenths of the store, not two thirds.
    pub crowded: bool,
}

impl Amplified {
    /// What the report calls it.
    pub fn name(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(|&size| show_size(size.into())).collect();
        let (sizes, rw, by_log) = (sizes.join(" + "), self.rw, self.by_log);
        let crowded = if self.crowded { ", store 90 % full" } else { "" };
        format!("write amplification, {sizes} {rw} qd32, volume {by_log} times the log{crowded}")
    }

    /// Size of the device under a volume of `bytes`.
    fn device_bytes(&self, bytes: u64, log_bytes: u64) -> u64 {
        match self.crowded {
            false => device_bytes(bytes, log_bytes),
            // The log and the superblocks are no part of what is full.
            true => (bytes / 9 * 10 + log_bytes + (1 << 20)).next_multiple_of(1 << 20),
        }
    }
}

/// Bytes written to the device for each byte from the host, over a run that overwrites the volume
/// several times, until everything is in its place and checkpointed. Counted at the device, which
/// is in memory: the number does not depend on how fast it is.
///
/// # Errors
/// An engine or a run that failed.
pub fn amplification(options: &Options, measured: &Amplified) -> Result<Vec<Fact>, BenchError> {
    let Amplified { rw, sizes, by_log, .. } = *measured;
    let log_bytes = options.size / by_log;
    let device = Counted::new(memory(measured.device_bytes(options.size, log_bytes))?);
    let rig = Rig::create(&device, options.size, log_bytes)?;
    let blocks = options.size / u64::from(BLOCK_SIZE);
    fill(rig.queue(8)?, rig.pool(), BLOCK_SIZE, blocks)?;
    let (device_before, before) = (device.written_bytes(), rig.stats());
    let host = || rig.stats().host_written_bytes - before.host_written_bytes;
    let enough = || host() >= options.size * ROUNDS;
    write(&rig, Writes { rw, sizes, blocks, ios: u64::MAX, seed: options.seed }, enough)?;
    let after = rig.shutdown();
    let host = after.host_written_bytes - before.host_written_bytes;
    let name = measured.name();
    let fact = |of: &str, written: u64| {
        let milli = written.saturating_mul(1000).checked_div(host).unwrap_or(0);
        Fact::new(&format!("{name}{of}"), milli, "bytes/byte")
    };
    Ok(vec![
        fact("", device.written_bytes() - device_before),
        fact(": log", after.log_written_bytes - before.log_written_bytes),
        fact(": extents", after.data_written_bytes - before.data_written_bytes),
        fact(": metadata", after.metadata_written_bytes - before.metadata_written_bytes),
    ])
}

/// [`recovery`] of a large log, in memory: what it costs beside reading the log.
///
/// # Errors
/// An engine or a run that failed.
pub fn large_recovery(options: &Options) -> Result<Vec<Fact>, BenchError> {
    let device = memory(device_bytes(LARGE_VOLUME_BYTES, LARGE_LOG_BYTES))?;
    let (volume, log) = (LARGE_VOLUME_BYTES, LARGE_LOG_BYTES);
    recovered(options, device.as_ref(), volume, log, "log of 1 GiB in memory")
}

/// Fills the log, drops the engine as a kill would, and times the next open. Then times an open
/// after a clean shutdown.
///
/// # Errors
/// An engine or a run that failed.
pub fn recovery(options: &Options) -> Result<Vec<Fact>, BenchError> {
    let log_bytes = options.log_size;
    let scratch = Scratch::create(&options.folder, device_bytes(options.size, log_bytes))?;
    let device = scratch.open()?;
    let name = format!("log of {}", show_size(log_bytes));
    recovered(options, device.as_ref(), options.size, log_bytes, &name)
}

fn recovered(
    options: &Options,
    device: &dyn Bdev,
    volume_bytes: u64,
    log_bytes: u64,
    name: &str,
) -> Result<Vec<Fact>, BenchError> {
    let rig = Rig::create(device, volume_bytes, log_bytes)?;
    let clock = Clock::start();
    let full = || {
        let late = clock.now().as_ns() > nanoseconds(FILL_TIME);
        late || rig.stats().log_used_bytes * 100 >= log_bytes * FULL_PERCENT
    };
    let (rw, blocks) = (Rw::RandWrite, volume_bytes / u64::from(BLOCK_SIZE));
    let writes = Writes { rw, sizes: &[BLOCK_SIZE], blocks, ios: u64::MAX, seed: options.seed };
    write(&rig, writes, full)?;
    let used = rig.stats().log_used_bytes;
    drop(rig);
    let (rig, time) = timed_open(device)?;
    let records = rig.stats().replayed_records;
    rig.shutdown();
    let (rig, clean) = timed_open(device)?;
    rig.shutdown();
    let milli = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Ok(vec![
        Fact::new(&format!("recovery after a kill, {name}"), milli(time), "ms"),
        Fact::new(
            &format!("log in use at the kill, {name}"),
            used.saturating_mul(1000) >> 20,
            "MiB",
        ),
        Fact::new(&format!("records replayed, {name}"), records.saturating_mul(1000), "records"),
        Fact::new(&format!("open after a clean shutdown, {name}"), milli(clean), "ms"),
    ])
}

fn timed_open(device: &dyn Bdev) -> Result<(Rig, Duration), BenchError> {
    let clock = Clock::start();
    let rig = Rig::open(device)?;
    Ok((rig, Duration::from_nanos(clock.now().as_ns())))
}

/// What is written at depth 32.
pub(crate) struct Writes {
    pub(crate) rw: Rw,
    /// Bytes of a write; several share the depth.
    pub(crate) sizes: &'static [u32],
    /// Blocks of the volume that are used.
    pub(crate) blocks: u64,
    pub(crate) ios: u64,
    pub(crate) seed: u64,
}

/// Writes so often, or until `enough`, which is asked now and then.
pub(crate) fn write(
    rig: &Rig,
    writes: Writes,
    enough: impl Fn() -> bool,
) -> Result<(), BenchError> {
    const SLICE: u64 = 1024;
    let Writes { rw, sizes, blocks: len, ios, seed } = writes;
    let depth = 32 / u32::try_from(sizes.len()).unwrap_or(32);
    let mut jobs = Vec::with_capacity(sizes.len());
    for bytes in sizes {
        let workload = Workload { rw, blocks: bytes / BLOCK_SIZE, read_percent: 0, first: 0, len };
        let plan = JobPlan { workload, depth, block_size: BLOCK_SIZE, seed, verify: false };
        jobs.push(Job::new(rig.queue(depth)?, rig.pool(), &plan)?);
    }
    let clock = Clock::start();
    let mut done = 0;
    while done < ios && !enough() {
        let timeline = Timeline {
            warm: Duration::ZERO,
            measured: Duration::from_secs(3600),
            counted: Duration::ZERO,
            tick: Duration::ZERO,
            ios_max: SLICE.min(ios - done),
        };
        done += run(&mut jobs, &timeline, &mut || clock.now(), &mut ())?.total_ios;
    }
    Ok(())
}
