//! Latency over time: whether writes pay for the destager now and then, or a little all the time.

use std::time::Duration;

use load::{Clock, Job, JobPlan, Rw, Timeline, Workload, nanoseconds, run};

use crate::direct::{BLOCK_SIZE, fill};
use crate::engine::{Rig, Scratch, device_bytes};
use crate::error::BenchError;
use crate::options::Options;
use crate::report::Fact;

/// Small, so that it goes round a few times.
const LOG_BYTES: u64 = 32 << 20;

/// Seconds that are measured, after some in which the log gets full.
const SECONDS: usize = 12;
const WARM_SECONDS: usize = 3;

/// The 99th percentile of each second of uniform 4 KiB writes at depth 32 to a store in a file: the
/// median, and how far the worst second is above it.
///
/// # Errors
/// An engine or a run that failed.
pub(crate) fn steadiness(options: &Options) -> Result<Vec<Fact>, BenchError> {
    let scratch = Scratch::create(&options.folder, device_bytes(options.size, LOG_BYTES))?;
    let device = scratch.open()?;
    let rig = Rig::create(device.as_ref(), options.size, LOG_BYTES)?;
    let len = options.size / u64::from(BLOCK_SIZE);
    fill(rig.queue(8)?, rig.pool(), BLOCK_SIZE, len)?;
    let workload = Workload { rw: Rw::RandWrite, blocks: 1, read_percent: 0, first: 0, len };
    let seed = options.seed;
    let plan = JobPlan { workload, depth: 32, block_size: BLOCK_SIZE, seed, verify: false };
    let mut jobs = [Job::new(rig.queue(plan.depth)?, rig.pool(), &plan)?];
    let second = Timeline {
        warm: Duration::ZERO,
        measured: Duration::from_secs(1),
        counted: Duration::ZERO,
        tick: Duration::ZERO,
        ios_max: 0,
    };
    let clock = Clock::start();
    let mut p99 = Vec::with_capacity(SECONDS);
    for number in 0..WARM_SECONDS + SECONDS {
        let outcome = run(&mut jobs, &second, &mut || clock.now(), &mut ())?;
        if number >= WARM_SECONDS {
            p99.push(nanoseconds(outcome.latency().percentile(9900)));
        }
    }
    drop(jobs);
    rig.shutdown();
    let (median, worst_milli) = summary(&mut p99);
    Ok(vec![
        Fact::new("p99 of a second, 4 KiB randwrite qd32, median", median, "us"),
        Fact::new("p99 of the worst second by the median", worst_milli, "us/us"),
    ])
}

/// The median, and the largest as thousandths of it.
fn summary(p99: &mut [u64]) -> (u64, u64) {
    p99.sort_unstable();
    let median = p99[p99.len() / 2];
    let worst = p99.last().copied().unwrap_or_default();
    (median, worst.saturating_mul(1000).checked_div(median).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saw_tooth_shows_as_a_worst_second() {
        assert_eq!(summary(&mut [100, 110, 90]), (100, 1100));
        assert_eq!(summary(&mut [100, 900, 100, 100]), (100, 9000));
        assert_eq!(summary(&mut [0]), (0, 0));
    }
}
