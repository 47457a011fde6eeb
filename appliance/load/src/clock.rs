//! The monotonic clock of a host, and arithmetic with what it measured.

use std::time::Duration;

use bdev::Instant;

/// Reads the monotonic clock of the system, from an arbitrary start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "what measures stands outside")]
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant::from_ns(nanoseconds(self.start.elapsed()))
    }
}

/// `time` in nanoseconds; what does not fit is the largest number.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `count` in `elapsed`, per second; zero when no time has passed.
pub fn per_second(count: u64, elapsed: Duration) -> u64 {
    let ns = elapsed.as_nanos();
    let per_second = (u128::from(count) * 1_000_000_000).checked_div(ns).unwrap_or(0);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_divide_by_the_time_that_passed() {
        assert_eq!(per_second(2000, Duration::from_millis(500)), 4000);
        assert_eq!(per_second(1, Duration::ZERO), 0);
        assert_eq!(nanoseconds(Duration::MAX), u64::MAX);
    }
}
