//! How fast a job may go.

use bdev::Instant;

use crate::limits::PACE_BURST_PS;

/// How fast a run may go, all its jobs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Operations a second.
    Operations(u64),
    /// Bytes a second.
    Bytes(u64),
}

impl Rate {
    /// The pace of one of `jobs` jobs with operations of `bytes`.
    pub fn pace(self, jobs: u32, bytes: u32) -> Pace {
        let second = 1_000_000_000_000_u128 * u128::from(jobs);
        Pace::new(match self {
            Rate::Operations(count) => second / u128::from(count.max(1)),
            Rate::Bytes(count) => second * u128::from(bytes) / u128::from(count.max(1)),
        })
    }
}

/// Says when the next operation is due. An operation that could not be started in time (all of the
/// depth was in flight) is started late; what is later than a hundredth of a second is given up.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    step_ps: u128,
    due_ps: Option<u128>,
}

impl Pace {
    fn new(step_ps: u128) -> Pace {
        Pace { step_ps, due_ps: None }
    }

    /// Whether an operation may be started now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.due_ps.is_none_or(|due| due <= picoseconds(now))
    }

    /// An operation was started.
    pub(crate) fn started(&mut self, now: Instant) {
        let now = picoseconds(now);
        let due = self.due_ps.unwrap_or(now) + self.step_ps;
        self.due_ps = Some(due.max(now.saturating_sub(PACE_BURST_PS)));
    }
}

fn picoseconds(now: Instant) -> u128 {
    u128::from(now.as_ns()) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations that are started from `from` to `to`, looked at each microsecond.
    fn started(pace: &mut Pace, from: u64, to: u64) -> u64 {
        let mut count = 0;
        for us in from..to {
            let now = Instant::from_ns(us * 1000);
            while pace.allows(now) {
                pace.started(now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn rates_are_kept_to_the_operation() {
        for (rate, jobs, bytes, expected) in [
            (Rate::Operations(1000), 1, 4096, 1000),
            (Rate::Operations(3_000_000), 1, 4096, 3_000_000),
            (Rate::Operations(1000), 4, 4096, 250),
            (Rate::Bytes(1 << 20), 1, 4096, 256),
            (Rate::Bytes(1), 1, 4096, 1),
        ] {
            let mut pace = rate.pace(jobs, bytes);
            let count = started(&mut pace, 5, 1_000_005);
            assert!(count.abs_diff(expected) <= 3, "{rate:?} {jobs}: {count}");
        }
    }

    #[test]
    fn a_pause_is_caught_up_with_only_a_little() {
        let mut pace = Rate::Operations(10_000).pace(1, 4096);
        started(&mut pace, 0, 1000);
        let burst = started(&mut pace, 5_000_000, 5_000_001);
        assert!((100..=102).contains(&burst), "{burst}");
    }
}
