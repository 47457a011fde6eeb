//! The named limits of an engine, and what happens at each.

use std::time::Duration;

/// Host requests in an engine at one time, over all its queues. A queue takes no more requests
/// while it is full: they stay with the caller, which is back-pressure.
pub const OPS_MAX: usize = 1024;

/// Requests to the device for reads and direct writes at one time; beyond it operations wait.
pub(crate) const IOS_MAX: usize = 1024;

/// Queues to volumes of one engine. [`crate::VolumeQueue::open`] fails beyond it.
pub const QUEUES_MAX: usize = 1024;

/// Buffers of 4, 16 and 64 KiB that an engine has for itself, 704 KiB of memory: for the destager,
/// checkpoints, scrub and recovery when the shard's pool is empty. They wait when these are taken
/// too, which the device's answers end.
pub(crate) const RESERVE_SEGMENTS: [u32; 5] = [16, 8, 8, 0, 0];

/// Buffers of the reserve that are lent to hosts' reads at one time; further reads wait.
pub(crate) const RESERVE_READS_MAX: usize = 2;

/// Blocks of one read from the device: 128 KiB. Longer runs take several.
pub(crate) const RUN_BLOCKS_MAX: usize = 32;

/// Blocks of one request at most: 1 MiB, and one more when it is not aligned.
pub(crate) const OP_BLOCKS_MAX: usize = 257;

/// Bytes of a write that is atomic, whatever it overlaps and wherever it starts: it is one record
/// of the log, so it survives a crash wholly or not at all, and reads see all of it or nothing.
/// Longer writes are taken apart and promise this for each block.
pub const ATOMIC_BYTES: u32 = 64 << 10;

/// Blocks that a write of [`ATOMIC_BYTES`] touches at most: one more when it is not aligned.
pub(crate) const ATOMIC_BLOCKS_MAX: usize = ATOMIC_BYTES as usize / 4096 + 1;

/// Blocks from which a zeroed range is kept as one range rather than block by block.
pub(crate) const ZERO_BLOCKS_MAX: u64 = 64;

/// Fewest blocks that an overlay indexes, as far as sixteen times the log's blocks allow: direct
/// writes take little log and sixteen blocks of overlay. Beyond it writes wait for a checkpoint.
pub(crate) const OVERLAY_BLOCKS_MIN: usize = 32 << 10;

/// Zeroed ranges in the overlay. Further ones wait for the next checkpoint.
pub(crate) const RANGES_MAX: usize = 64;

/// Longest delay of a write between the watermarks, in nanoseconds: at the hard one.
pub(crate) const DELAY_MAX_NS: u64 = 100_000_000;

/// How long a write may wait for log, space, a lock or a page before it is given back with a
/// status that says "again". Hosts give up after 30 s.
pub const ADMISSION_DEADLINE_NS: u64 = 20_000_000_000;

/// How long the device may take for a request before it is quarantined, when nothing else is asked
/// for. Hosts give up after 30 s.
pub const DEVICE_DEADLINE_NS: u64 = 15_000_000_000;

/// How many deadlines a request may be late while others come back, before it counts as lost.
pub(crate) const DEVICE_LATE_FACTOR: u32 = 2;

/// Errors in a row, of whatever requests, after which the device is quarantined.
pub(crate) const DEVICE_ERRORS_MAX: u32 = 32;

/// Longest step of the clock that the device is judged by: more than that was a pause of ours.
pub(crate) const DEVICE_STEP: Duration = Duration::from_secs(1);

/// How often the oldest request is looked for.
pub(crate) const DEVICE_LOOK: Duration = Duration::from_millis(100);

/// Requests of the log and the store that are watched at one time: all that they ever have. A mount
/// may have more; its further ones are not watched.
pub(crate) const DEVICE_MACHINES_MAX: usize = 128;
const _: () = assert!(wal::REQUESTS_MAX + store::REQUESTS_MAX <= DEVICE_MACHINES_MAX);

/// How much of a device's latency is judged at once, in how many windows in a row, and from how
/// many requests on.
pub(crate) const SLOW_WINDOW: Duration = Duration::from_secs(10);
pub(crate) const SLOW_WINDOWS: u32 = 3;
pub(crate) const SLOW_REQUESTS_MIN: u64 = 32;

/// 99th percentile of a window that is slow on any device, in nanoseconds.
pub(crate) const SLOW_NS: u64 = 500_000_000;

/// How many times the best window it must be to be an outlier, and how much at least.
pub(crate) const SLOW_FACTOR: u64 = 20;
pub(crate) const SLOW_FLOOR_NS: u64 = 50_000_000;

/// Volumes with queues or limits of one engine. Opening a queue, or setting a limit, fails beyond.
pub const FLOWS_MAX: usize = 2048;

/// Blocks of the log that a volume may take in a round while others wait.
pub(crate) const FAIR_QUANTUM_BLOCKS: i64 = 256;

/// Rounds in one turn; the next turn goes on.
pub(crate) const FAIR_ROUNDS_MAX: u32 = 16;

/// Operations that each volume may have however busy the others are, as far as there are places.
pub(crate) const OPS_SHARE_MIN: u64 = 16;

/// What a bucket without a stated burst holds, in milliseconds of its rate.
pub(crate) const QOS_BURST_MS: u64 = 100;

/// Percent of a store from which its space is low, when nothing else is asked for.
pub const SPACE_LOW_PERCENT: u64 = 80;

/// Percent by which it must fall below that to be ample again.
pub(crate) const SPACE_LOW_HYSTERESIS: u64 = 5;

/// Percent of a store that must be free before it is no longer full.
pub(crate) const SPACE_FULL_LEAVE: u64 = 2;

/// Checkpoints after which a write that waits for space is refused in any case. It is refused when
/// nothing is left that could give space back, which takes a few; this bounds the wait while others
/// keep taking what comes.
pub(crate) const SPACE_CHECKPOINTS_MAX: u64 = 64;

/// Records appended and not yet durable; beyond it writes wait.
pub(crate) const PENDING_MAX: usize = 4096;

/// Checksums of records appended and not yet durable; beyond it writes wait.
pub(crate) const PENDING_CRCS_MAX: usize = 16384;

/// Control operations (create, delete, snapshot ...) in flight; beyond it they are refused.
pub const CONTROLS_MAX: usize = 16;

/// Volumes that one consistent snapshot covers at most; larger groups are refused. All records of a
/// group share one group of the log.
pub const SNAPSHOT_GROUP_MAX: usize = 64;

/// Snapshots and restores whose records the overlay knows; the next one waits for a checkpoint.
pub(crate) const BARRIERS_MAX: usize = 2 * SNAPSHOT_GROUP_MAX;

/// Layers of one volume; at this many a further snapshot or restore of it waits for the destager. A
/// read looks into each.
pub(crate) const LAYERS_MAX: usize = 8;

/// Extents that are being copied at one time because a snapshot shares them, each in a buffer of
/// 64 KiB that is taken when the engine is opened. Fewer when the pool is small, at least one.
pub(crate) const COPIES_MAX: usize = 8;

/// Steps of a walk over the map (a page each, at most) that one call or turn takes; the walk goes
/// on with the next.
pub(crate) const WALK_STEPS_MAX: usize = 64;

/// Changes that one step of [`crate::Engine::diff`] lists.
pub const CHANGES_MAX: usize = 64;

/// Damaged blocks of the log that recovery reports one by one; further ones are only counted, and
/// reported when they are read or destaged.
pub(crate) const LOG_DAMAGE_MAX: usize = 1024;

/// Events kept for [`crate::Engine::poll_event`]; further integrity reports are only counted.
pub const EVENTS_MAX: usize = 64;

/// Share of the log, in percent, at which destaging starts: what is left meets overwrites there.
pub(crate) const DESTAGE_START: u64 = 20;

/// Share of the log, in percent, from which destaging goes at full speed and writers are delayed
/// (the soft watermark).
pub(crate) const LOG_SOFT: u64 = 70;

/// Share of the log, in percent, from which new writes wait (the hard watermark).
pub(crate) const LOG_HARD: u64 = 90;

/// Share of the log, in percent, that is worth a checkpoint when it can be given back. Each writes
/// every page that its share of the log touched, twice: the larger, the more blocks share a page.
pub(crate) const CHECKPOINT_SHARE: u64 = 50;

/// The same from the soft watermark on.
pub(crate) const PRESSED_SHARE: u64 = 10;

/// Fewest extents that are worth a checkpoint because it gives them back: 4 MiB. As many as are
/// free are always worth one.
pub(crate) const RETURNS_MIN: u64 = 64;

/// How long a direct write waits for them before it goes through the log. Nanoseconds.
pub(crate) const RETURNS_WAIT_NS: u64 = 50_000_000;

/// Without a write for so long, everything is destaged and checkpointed. Nanoseconds.
pub(crate) const IDLE_NS: u64 = 500_000_000;

/// How long deleted snapshots that wait for others rest at least between two looks at them that
/// nothing but an idle store gives reason for: each is a walk over their maps.
pub(crate) const RECLAIM_AGAIN: Duration = Duration::from_secs(10);

/// Blocks of log that one destage window covers: one read of 1 MiB.
pub(crate) const WINDOW_BLOCKS: u64 = 256;

/// Blocks (and direct extents) that one destage window works on.
pub(crate) const CANDIDATES_MAX: usize = 1024;

/// Destage writes in flight where destaging starts, so that hosts feel little of them.
pub(crate) const DESTAGE_GENTLE: u32 = 4;

/// Destage writes in flight from the soft watermark on.
pub(crate) const DESTAGE_FULL: u32 = 256;

/// Extents of a window that wait for their leaf at one time. Pages beyond it are not asked for yet:
/// in a small cache they would push out those that were, before they are used.
pub(crate) const DESTAGE_LATER_MAX: u32 = 8;

/// Blocks that are forgotten in one turn after a checkpoint.
pub(crate) const FORGET_BLOCKS: u64 = 2048;

/// Boundaries of the log that are remembered as places where it can be trimmed.
pub(crate) const MARKS_MAX: usize = 4096;

/// Times that a read is started over because its blocks moved under it.
pub(crate) const READ_ATTEMPTS_MAX: u8 = 16;

/// How fast a scrub reads when nothing else is asked for, in bytes a second: a TiB in 36 hours.
pub const SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;

/// How soon after it was opened a store is scrubbed. Nanoseconds.
pub(crate) const SCRUB_DELAY_NS: u64 = 60 * 1_000_000_000;

/// How long after the end of a scrub the next one begins. Nanoseconds: a week.
pub(crate) const SCRUB_INTERVAL_NS: u64 = 7 * 86_400 * 1_000_000_000;

/// Bytes that a scrub may read at once after a time without reading.
pub(crate) const SCRUB_BURST_BYTES: i64 = 1 << 20;

/// A scrub saves where it is after so many bytes (and with each checkpoint that there is anyway).
pub(crate) const SCRUB_SAVE_BYTES: u64 = 1 << 30;

/// Times that a scrub reads an extent before blocks that do not match count as damaged.
pub(crate) const SCRUB_ATTEMPTS_MAX: u8 = 3;

/// Times that a destage write is repeated when the device fails it.
pub(crate) const DESTAGE_ATTEMPTS_MAX: u32 = 3;

const _: () = assert!(DESTAGE_START < LOG_SOFT);
// A destager that keeps up leaves the log below the soft watermark.
const _: () = assert!(DESTAGE_START + CHECKPOINT_SHARE <= LOG_SOFT);
// A checkpoint under pressure gives back less than the band between the watermarks.
const _: () = assert!(PRESSED_SHARE < LOG_HARD - LOG_SOFT);
const _: () = assert!(FLOWS_MAX >= QUEUES_MAX);
const _: () = assert!(LOG_SOFT < LOG_HARD);
const _: () = assert!(RUN_BLOCKS_MAX * 4096 <= 1 << 20);
// An atomic write fits one record, one group of the smallest size, and an extent's accounting.
const _: () = assert!(ATOMIC_BLOCKS_MAX <= wal::RECORD_BLOCKS_MAX);
const _: () = assert!((wal::HEADER_BLOCKS_MAX + ATOMIC_BLOCKS_MAX) * 4096 <= wal::GROUP_BYTES_MIN);
const _: () = assert!(ATOMIC_BYTES as u64 == store::EXTENT_BYTES);
// The smallest log that a store may have is large enough for groups of that size.
const _: () = assert!(store::LOG_BYTES_MIN >= wal::RING_GROUPS_MIN * wal::GROUP_BYTES_MIN as u64);
// The checksums of a whole extent fit a request's.
const _: () = assert!(RUN_BLOCKS_MAX >= store::EXTENT_BLOCKS);
// A group's records (32 + 96 bytes each) fit the header of one group of the log, and the store
// takes all of them into one checkpoint.
const _: () = assert!(SNAPSHOT_GROUP_MAX * 128 + 4096 <= wal::HEADER_BLOCKS_MAX * wal::BLOCK_BYTES);
const _: () = assert!(SNAPSHOT_GROUP_MAX <= store::STAGED_MAX);
// Every destage write has a slot beside those of hosts.
const _: () = assert!(DESTAGE_FULL as usize <= IOS_MAX / 2);
