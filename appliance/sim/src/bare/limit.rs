//! What a limited volume may be used for, counted apart from the engine.

use bdev::{Instant, Op};
use volume::Qos;

/// The limits of a volume, and what went through it since they were set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    qos: Qos,
    since: Instant,
    requests: u64,
    bytes: u64,
}

impl Limit {
    /// Limits that were set between two turns, the first of which was at `since`.
    pub(crate) fn new(qos: Qos, since: Instant) -> Limit {
        Limit { qos, since, requests: 0, bytes: 0 }
    }

    /// A request was taken, at `now` at the latest.
    ///
    /// # Errors
    /// When it came too early.
    pub(crate) fn take(&mut self, op: Op, bytes: u64, now: Instant) -> Result<(), String> {
        if op == Op::Flush {
            return Ok(());
        }
        let passed = now.saturating_since(self.since).as_nanos();
        // What is taken may leave a debt: only what was there before it counts.
        let Qos { iops, iops_burst, bytes_per_second, bytes_burst } = self.qos;
        let early = exceeds(self.requests, iops, iops_burst, passed)
            || exceeds(self.bytes, bytes_per_second, bytes_burst, passed);
        self.requests += 1;
        if matches!(op, Op::Read | Op::Write | Op::Compare | Op::CompareAndWrite) {
            self.bytes += bytes;
        }
        match early {
            true => Err(format!("a limited volume takes too much after {passed} ns: {self:?}")),
            false => Ok(()),
        }
    }
}

/// Whether more was taken than a bucket gives that was full at first.
fn exceeds(taken: u64, rate: u64, burst: u64, passed: u128) -> bool {
    let burst = if burst == 0 { rate / 10 } else { burst }.max(1);
    rate > 0
        && u128::from(taken) > u128::from(burst) + u128::from(rate) * passed / 1_000_000_000 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let qos = Qos { iops: 1000, iops_burst: 2, ..Qos::default() };
        let mut limit = Limit::new(qos, Instant::ZERO);
        let mut take = |ns| limit.take(Op::Read, 4096, Instant::from_ns(ns)).is_ok();
        assert!((0..4).all(|_| take(0)), "the burst, one of a debt, one of rounding");
        assert!(!take(1000));
        assert!(take(10_000_000));
    }
}
