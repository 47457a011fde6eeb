//! The named limits of a measuring host, and what happens at each.

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

/// Blocks of the device that one run verifies at most: each takes nine bytes of memory. A larger
/// region is refused.
pub const VERIFIED_BLOCKS_MAX: u64 = 32 << 20;

/// Records of a discovery log that are looked at; those behind are not seen.
pub const DISCOVERY_RECORDS_MAX: u64 = 1 << 16;

/// Records of the discovery log that one command reads.
pub(crate) const DISCOVERY_RECORDS_PER_READ: u64 = 63;

/// How often the discovery log is read again because it changed meanwhile; then what was read
/// last counts.
pub(crate) const DISCOVERY_TRIES: u32 = 3;

/// How much of its rate a paced job may catch up with after a pause, in picoseconds.
pub(crate) const PACE_BURST_PS: u128 = 10_000_000_000;

/// Socket events taken in one poll; the rest waits for the next.
pub(crate) const EVENTS_PER_POLL: usize = 256;

/// Pieces of one send: header and payload of as many writes as a queue holds.
pub const BATCH_PIECES: usize = 256;

/// Header bytes of one send: a command capsule takes 80 with both digests.
pub(crate) const BATCH_SCRATCH: usize = 32 << 10;

const _: () = assert!(BATCH_PIECES <= net::BATCH_PIECES_MAX);
const _: () = assert!(BATCH_SCRATCH <= net::BATCH_SCRATCH_MAX);
const _: () = assert!(JOBS_MAX <= nvmf::IO_QUEUES_MAX as u32);
const _: () = assert!(DEPTH_MAX <= bdev::QUEUE_DEPTH_MAX);
const _: () = assert!((DISCOVERY_RECORDS_PER_READ + 1) * 1024 <= nvmf::TRANSFER_MAX as u64);
