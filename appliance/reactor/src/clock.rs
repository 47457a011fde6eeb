//! The real clock, for those who may read it.

use bdev::Instant;

use crate::system;

/// The system's monotonic clock (`CLOCK_MONOTONIC`), the same for every thread and process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The time now; 16 ns.
    pub fn now(self) -> Instant {
        system::monotonic_now()
    }
}
