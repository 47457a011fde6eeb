//! The named limits of the bench, and what happens at each.

use std::time::Duration;

/// Operations that one job keeps in flight at most; more are refused when the job is made.
pub const DEPTH_MAX: u32 = 1024;

/// A run in which nothing completes for this long fails instead of hanging.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Draws that look for a block without I/O in flight (verification only); the slot stays idle for a
/// turn when none finds one.
pub(crate) const PICKS_MAX: u32 = 8;

/// Jobs (connections) of one run; more are refused by the command line.
pub const JOBS_MAX: u32 = 256;

const _: () = assert!(DEPTH_MAX <= bdev::QUEUE_DEPTH_MAX);
