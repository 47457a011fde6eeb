//! Small values of the public interface.

use std::fmt;

use bdev::Lba;

use crate::format::{LeafEntry, PageFault};
use crate::limits::{DEVICE_EXTENTS_MAX, EXTENT_BYTES, FRAMES_DEFAULT};

/// Requests of a store, of [`crate::Format`] and of [`crate::Mount`] carry tags whose top four bits
/// are this; who multiplexes a device's queue routes completions by it.
pub const TAG_CLASS: u32 = 2;

/// An extent of the device: 64 KiB, numbered from the start of the device.
///
/// Number zero is the first superblock, so it never holds data: on disk it means "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent(u32);

impl Extent {
    pub(crate) const fn new(number: u32) -> Extent {
        Extent(number)
    }

    /// From a number on disk: `None` for zero and for numbers that no device has.
    pub(crate) fn from_raw(number: u64) -> Option<Extent> {
        (number > 0 && number < DEVICE_EXTENTS_MAX)
            .then(|| Extent(u32::try_from(number).expect("just checked")))
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// Its number on the device.
    pub fn number(self) -> u64 {
        u64::from(self.0)
    }

    /// Its first byte on the device.
    pub fn byte_offset(self) -> u64 {
        u64::from(self.0) * EXTENT_BYTES
    }

    /// Its first block on a device with blocks of `block_size` bytes.
    pub fn lba(self, block_size: u32) -> Lba {
        Lba(self.byte_offset() / u64::from(block_size))
    }

    /// The extent `count` places further on.
    ///
    /// # Panics
    /// Past the largest device.
    #[must_use]
    pub fn after(self, count: u32) -> Extent {
        Extent(self.0.checked_add(count).expect("extents of one run lie on the device"))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an extent is used for at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentState {
    /// Nothing: it can be allocated.
    Free,
    /// Allocated, not (yet) part of the map. A crash forgets the allocation.
    Tentative,
    /// Part of the map, or of the metadata.
    Mapped,
    /// No longer part of the map; free as soon as the next checkpoint is durable.
    Released,
}

/// A volume of a store. Ids are never used twice within a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u32);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the log ends for the map: everything before it is in the map, replay starts here.
///
/// The store keeps it in the superblock and does not look inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogTail {
    /// 4 KiB blocks of log written since the store was created.
    pub position: u64,
    /// Number of the first record to replay.
    pub lsn: u64,
    /// Chain value before that record.
    pub chain: u32,
}

impl LogTail {
    /// The tail of an empty log.
    pub const START: LogTail = LogTail { position: 0, lsn: 1, chain: 0 };
}

/// Where the log region is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRegion {
    /// Its first byte; a multiple of 64 KiB.
    pub start: u64,
    /// Its size in bytes; a multiple of 64 KiB.
    pub bytes: u64,
}

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Page cache in frames of 4 KiB; clamped to [`crate::FRAMES_MIN`]`..=`[`crate::FRAMES_MAX`].
    pub frames: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { frames: FRAMES_DEFAULT }
    }
}

/// A metadata page, or a copy of one, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the (copy of the) page, in 4 KiB from the start of the device.
    pub page: u64,
    /// Which page of which tree it should be, for people.
    pub node: String,
    /// What is wrong with it.
    pub fault: PageFault,
    /// The other copy is whole: nothing is lost, and this one is rewritten from it.
    pub healed: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} ({}): {}", self.page, self.node, self.fault)?;
        if self.healed { f.write_str(", healed from its other copy") } else { Ok(()) }
    }
}

/// The answer of [`crate::Store::lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The extent's entry. Blocks that are not written read as zeroes.
    Entry(LeafEntry),
    /// Nothing is mapped: the whole extent reads as zeroes.
    Unmapped,
    /// The page is being loaded: ask again when [`crate::Store::loads`] has changed.
    Pending,
    /// A metadata page on the way is damaged (its number): the mapping is unknown.
    Damaged(u64),
}

/// The answer of [`crate::Store::edit`].
#[derive(Debug)]
pub enum Edit<'a> {
    /// The entry, to be changed in place before the next call.
    Entry(&'a mut LeafEntry),
    /// The page is being loaded: ask again when [`crate::Store::loads`] has changed.
    Pending,
    /// Not now: a checkpoint is running, or one is needed first (see
    /// [`crate::Store::needs_checkpoint`]).
    Busy,
    /// A metadata page on the way is damaged (its number).
    Damaged(u64),
}

/// The answer of [`crate::Store::unmap`] and [`crate::Store::reclaim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap {
    /// The range is unmapped (or nothing is left to reclaim).
    Done,
    /// A step was taken: call again, now or next turn.
    More,
    /// A page is being loaded: call again when [`crate::Store::loads`] has changed.
    Pending,
    /// Not now: a checkpoint is running, or one is needed first.
    Busy,
    /// A metadata page on the way is damaged (its number). A range goes on behind all that the page
    /// speaks of.
    Damaged(u64),
}

/// What [`crate::Store::poll_event`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The checkpoint is durable: the log before this tail may be reused.
    CheckpointDone(LogTail),
    /// A checkpoint could not be written. The map on the device is the last durable one; edits and
    /// checkpoints are refused from now on.
    CheckpointFailed(bdev::Status),
    /// A metadata page that was read is damaged; lost, or healed from its other copy.
    Damaged(Damage),
}
