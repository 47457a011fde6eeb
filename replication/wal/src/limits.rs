//! The named limits of the log, and what happens at each.

/// Header blocks of one group. A record that does not fit the open group's header starts the next.
pub const HEADER_BLOCKS_MAX: usize = 4;

/// Payload blocks of one record: 256 KiB. The caller splits longer writes; beyond it
/// [`crate::Wal::append`] panics, because no bytes from outside reach it unsplit.
pub const RECORD_BLOCKS_MAX: usize = 64;

/// Smallest size that groups may be limited to, in bytes: the largest header and 17 payload blocks,
/// so that a write of 64 KiB is one record of one group wherever in a block it starts. With
/// [`RING_GROUPS_MIN`] it sets the smallest ring: 672 KiB. Opening a smaller one fails.
pub const GROUP_BYTES_MIN: usize = (HEADER_BLOCKS_MAX + 17) * 4096;

/// Bytes in the body of a control record (volume create). Longer ones panic, as above.
pub const RECORD_BODY_MAX: usize = 512;

/// Groups that are being filled, sealed or written at one time, each in a staging segment of its
/// own. When all are taken, [`crate::AppendError::Busy`]: retry after the next completion.
pub const GROUPS_MAX: usize = 4;

/// Requests that a log has in flight at most: its groups, and a skip.
pub const REQUESTS_MAX: usize = GROUPS_MAX + 1;

/// A ring holds at least this many of the largest groups, so that at most one skip is in flight.
pub const RING_GROUPS_MIN: u64 = 8;

/// Groups behind a damaged one whose headers recovery asks whether it was durable. Each says so
/// unless it was sealed while the damaged one was in flight: [`GROUPS_MAX`] at most, skips
/// included. Beyond it the log counts as torn there, unless a header anywhere in the ring proves
/// otherwise: then recovery fails.
pub(crate) const PROOF_GROUPS_MAX: u32 = 16;

/// Payload blocks at which a group is sealed although another is still being written. Below it
/// the group waits for company: each group costs a header block, 1/16 at this size.
pub(crate) const SEAL_BLOCKS: usize = 16;

/// Times that a group is written before the log fails; every later append is refused.
pub const ATTEMPTS_MAX: u8 = 3;

/// The class of this machine's tags: the top four bits of [`bdev::Tag`].
pub const TAG_CLASS: u32 = 1;

const _: () = assert!(RECORD_BLOCKS_MAX * 4 <= 4096 - 96 - 32);
const _: () = assert!(RECORD_BODY_MAX.is_multiple_of(4));
const _: () = assert!(PROOF_GROUPS_MAX as usize > GROUPS_MAX + 1);
// One skip at most among the groups in flight.
const _: () = assert!(RING_GROUPS_MIN > GROUPS_MAX as u64 + 1);
