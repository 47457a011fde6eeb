//! The named limits of the bench, and what happens at each.

use std::time::Duration;

/// Operations that one job keeps in flight at most; more are refused when the job is made.
pub const DEPTH_MAX: u32 = 1024;

/// A run in which nothing completes for this long fails instead of hanging.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Draws that look for a block without I/O in flight (verification only); the slot stays idle for a
/// turn when none finds one.
pub(crate) const PICKS_MAX: u32 = 8;

/// Jobs (connections) of one run; more are refused by the command line. A controller has no more
/// I/O queues.
pub const JOBS_MAX: u32 = 64;

/// Setting up a target's queues takes this long at most, all of them together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections of a world in memory; more are refused.
pub(crate) const WORLD_CONNECTIONS_MAX: usize = 8;

/// Runs under callgrind at the same time; the rest waits. The count does not depend on it.
pub(crate) const CALLGRIND_AT_ONCE: usize = 2;

/// Socket events taken in one poll; the rest waits for the next.
pub(crate) const EVENTS_PER_POLL: usize = 256;

/// Pieces of one send: header and payload of as many writes as a queue holds.
pub(crate) const BATCH_PIECES: usize = 256;

/// Header bytes of one send: a command capsule takes 80 with both digests.
pub(crate) const BATCH_SCRATCH: usize = 32 << 10;

const _: () = assert!(BATCH_PIECES <= net::BATCH_PIECES_MAX);
const _: () = assert!(BATCH_SCRATCH <= net::BATCH_SCRATCH_MAX);
const _: () = assert!(JOBS_MAX <= nvmf::IO_QUEUES_MAX as u32);
const _: () = assert!(DEPTH_MAX <= bdev::QUEUE_DEPTH_MAX);
