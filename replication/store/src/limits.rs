//! The named limits of a store, and what happens at each.

/// Bytes in a metadata page and in a block that has a checksum of its own.
pub const PAGE_BYTES: usize = 4096;

/// Bytes in an extent, the unit of thin allocation.
pub const EXTENT_BYTES: u64 = 64 << 10;

/// Blocks (and metadata pages) in an extent.
pub const EXTENT_BLOCKS: usize = 16;

/// Largest device, in extents: 256 TiB. Extent numbers fit 32 bits in memory.
///
/// [`crate::Format`] refuses larger devices with [`crate::FormatError::TooLarge`].
pub const DEVICE_EXTENTS_MAX: u64 = 1 << 32;

/// Fewest extents that a new store must have left for data and metadata: 4 MiB.
///
/// [`crate::Format`] refuses smaller devices with [`crate::FormatError::TooSmall`].
pub const AREA_EXTENTS_MIN: u64 = 64;

/// Smallest log region that can be asked for, in bytes. Smaller is [`crate::FormatError::LogSize`].
pub const LOG_BYTES_MIN: u64 = 1 << 20;

/// The highest number of a record, and block of log, that a store may have got to: at a million a
/// second, in 36,000 years. More is [`crate::MountError::Geometry`].
pub(crate) const LOG_COUNT_MAX: u64 = 1 << 60;

/// Smallest log region that is chosen by default, in bytes.
pub const LOG_BYTES_DEFAULT_MIN: u64 = 16 << 20;

/// Largest log region that is chosen by default, in bytes (an eighth of the device otherwise).
pub const LOG_BYTES_DEFAULT_MAX: u64 = 1 << 30;

/// Most volumes in a store, deleted ones that are still being reclaimed included.
///
/// [`crate::Store::create_volume`] and [`crate::Store::create_clone`] fail with
/// [`crate::VolumeError::TooMany`] beyond it.
pub const VOLUMES_MAX: usize = 1024;

/// Most nodes of the forest: volumes, snapshots, and those of both that are being deleted. As many
/// as the catalog holds below one root page; costs 2 MiB of memory and a reserve of 1 MiB on the
/// device.
///
/// What would make one more fails with [`crate::VolumeError::TooMany`].
pub const NODES_MAX: usize = 3780;

/// Most snapshots of one volume, those being deleted not included.
///
/// [`crate::Store::stage_snapshot`] fails with [`crate::VolumeError::TooManySnapshots`] beyond it.
pub const SNAPSHOTS_MAX: usize = 256;

/// Most snapshots and restores that wait for one checkpoint.
///
/// Staging one more fails with [`crate::VolumeError::Staged`]: a checkpoint makes room.
pub const STAGED_MAX: usize = 64;

/// Longest volume name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;

/// Largest volume, in bytes: 1 PiB, so that a leaf's index fits 29 bits.
///
/// [`crate::Store::create_volume`] fails with [`crate::VolumeError::Size`] beyond it.
pub const VOLUME_BYTES_MAX: u64 = 1 << 50;

/// Page cache when nothing else is asked for, in frames of 4 KiB: 64 MiB.
pub const FRAMES_DEFAULT: u32 = 16 << 10;

/// Smallest page cache, in frames: one deepest path being edited and one being loaded, twice.
///
/// [`crate::Options`] with fewer are rounded up.
pub const FRAMES_MIN: u32 = 24;

/// Largest page cache, in frames: 16 GiB. A frame's number is part of a request's tag.
pub const FRAMES_MAX: u32 = 1 << 22;

/// Most requests that a store has in flight for loading pages; more loads wait their turn.
pub(crate) const LOADS_MAX: usize = 64;

/// Most requests that a checkpoint has in flight; it goes on as they complete.
pub(crate) const WRITES_MAX: usize = 16;

/// Most pages that a checkpoint seals in one call of `poll_requests`, so that a turn stays short.
pub(crate) const SEAL_PAGES_MAX: usize = 64;

/// Deepest tree: 252^4 leaves of 3 MiB hold more than [`VOLUME_BYTES_MAX`].
pub(crate) const DEPTH_MAX: u8 = 4;

/// Pages from the root to a leaf at most.
pub const PATH_PAGES_MAX: u64 = DEPTH_MAX as u64 + 1;

/// How often a metadata write is tried before the checkpoint fails.
pub(crate) const WRITE_ATTEMPTS_MAX: u32 = 3;

/// How often a copy of a page is read before it counts as damaged: one bad transfer is not rot.
pub(crate) const LOAD_ATTEMPTS_MAX: u8 = 3;

/// Metadata extents that the table has room for before it must grow (1 MiB; 2 GiB of metadata,
/// both copies counted: the maps of about 0.75 TiB of data). It doubles beyond that, at the start
/// of a checkpoint.
pub(crate) const META_EXTENTS_START: usize = 32 << 10;

/// Damaged copies of pages that wait to be rewritten from the other copy. Further ones are left as
/// they are until they are read, or scrubbed, again.
pub(crate) const REPAIRS_MAX: usize = 64;

/// Pages of which a check reads both copies at one time. A scrub reads one page at a time.
pub(crate) const PATROLS_MAX: usize = 8;

/// Requests that a mounted store has in flight at most: loads, writes of a checkpoint and its
/// superblock, both copies of the pages of a patrol, and a repair.
pub const REQUESTS_MAX: usize = LOADS_MAX + WRITES_MAX + 1 + 2 * PATROLS_MAX + 1;

/// Steps that a patrol goes in one turn.
pub(crate) const PATROL_STEPS_MAX: usize = 64;

/// Damaged pages that are reported one by one; more at a time are only counted.
pub(crate) const EVENTS_MAX: usize = 16;

/// Most findings that [`crate::check`] lists; the rest are counted.
pub const FINDINGS_MAX: usize = 1000;
