//! The monotonic clock of the initiator.

use bdev::Instant;

/// Reads the monotonic clock of the system, from an arbitrary start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the bench is what stands outside and measures")]
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant::from_ns(crate::report::nanoseconds(self.start.elapsed()))
    }
}
