//! Single numbers of the engine: write amplification, recovery, opening.

use std::time::Duration;

use bdev::Bdev;

use crate::clock::Clock;
use crate::direct::BLOCK_SIZE;
use crate::engine::{Rig, Scratch, device_bytes, memory};
use crate::error::BenchError;
use crate::job::{Job, JobPlan, Timeline, run};
use crate::options::Options;
use crate::report::{Fact, nanoseconds};
use crate::size::show_size;
use crate::workload::{Rw, Workload};

/// Log of the stores whose amplification is measured: small, so that it goes round many times.
const LOG_BYTES: u64 = 64 << 20;

/// How often the volume is overwritten.
const ROUNDS: u64 = 4;

/// Share of the log, in percent, that is filled before the kill. The engine starts to destage
/// before that; a store in memory is filled faster than it destages.
const FULL_PERCENT: u64 = 60;

/// Seconds after which a log that does not get full is taken as it is.
const FILL_TIME: Duration = Duration::from_secs(10);

/// Bytes written to the device for each byte from the host, from the first write until everything
/// is in its place and checkpointed. On a disk in memory: the number does not depend on the disk.
///
/// # Errors
/// An engine or a run that failed.
pub fn amplification(options: &Options, rw: Rw, bytes: u32) -> Result<Fact, BenchError> {
    let device = memory(device_bytes(options.size, LOG_BYTES))?;
    let rig = Rig::create(device.as_ref(), options.size, LOG_BYTES)?;
    let ios = options.size * ROUNDS / u64::from(bytes);
    write(&rig, options, rw, bytes, ios, || false)?;
    let stats = rig.shutdown();
    let device = stats.log_written_bytes + stats.data_written_bytes + stats.metadata_written_bytes;
    let milli = device.saturating_mul(1000).checked_div(stats.host_written_bytes).unwrap_or(0);
    let size = show_size(u64::from(bytes));
    Ok(Fact::new(&format!("write amplification, {size} {rw}"), milli, "bytes/byte"))
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
    let rig = Rig::create(device.as_ref(), options.size, log_bytes)?;
    let clock = Clock::start();
    let full = || {
        let late = clock.now().as_ns() > nanoseconds(FILL_TIME);
        late || rig.stats().log_used_bytes * 100 >= log_bytes * FULL_PERCENT
    };
    write(&rig, options, Rw::RandWrite, BLOCK_SIZE, u64::MAX, full)?;
    let used = rig.stats().log_used_bytes;
    drop(rig);
    let (rig, time) = timed_open(device.as_ref())?;
    let records = rig.stats().replayed_records;
    rig.shutdown();
    let (rig, clean) = timed_open(device.as_ref())?;
    rig.shutdown();
    let milli = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Ok(vec![
        Fact::new("recovery after a kill", milli(time), "ms"),
        Fact::new("log in use at the kill", (used >> 10).saturating_mul(1000) >> 10, "MiB"),
        Fact::new("records replayed", records.saturating_mul(1000), "records"),
        Fact::new("open after a clean shutdown", milli(clean), "ms"),
    ])
}

fn timed_open(device: &dyn Bdev) -> Result<(Rig, Duration), BenchError> {
    let clock = Clock::start();
    let rig = Rig::open(device)?;
    Ok((rig, Duration::from_nanos(clock.now().as_ns())))
}

/// Writes `ios` times, or until `enough`, which is asked now and then.
fn write(
    rig: &Rig,
    options: &Options,
    rw: Rw,
    bytes: u32,
    ios: u64,
    enough: impl Fn() -> bool,
) -> Result<(), BenchError> {
    const SLICE: u64 = 4096;
    let blocks = bytes / BLOCK_SIZE;
    let len = options.size / u64::from(BLOCK_SIZE);
    let workload = Workload { rw, blocks, read_percent: 0, first: 0, len };
    let seed = options.seed;
    let plan = JobPlan { workload, depth: 32, block_size: BLOCK_SIZE, seed, verify: false };
    let mut jobs = [Job::new(rig.queue(plan.depth)?, rig.pool(), &plan)?];
    let clock = Clock::start();
    let mut done = 0;
    while done < ios && !enough() {
        let timeline = Timeline {
            warm: Duration::ZERO,
            measured: Duration::from_secs(3600),
            counted: Duration::ZERO,
            ios_max: SLICE.min(ios - done),
        };
        done += run(&mut jobs, &timeline, &mut || clock.now(), &mut ())?.total_ios;
    }
    Ok(())
}
