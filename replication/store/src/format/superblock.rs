//! The superblock: where everything else starts. Two copies, in pages 0 and 16.

use std::fmt;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{PageFault, PagePtr, crc32c};
use crate::limits::PAGE_BYTES;
use crate::{LogTail, PatrolPlace, ScrubRecord};

/// The first page of a store: 4096 bytes.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Superblock {
    /// "HOLDFAST".
    pub magic: [u8; 8],
    /// CRC32C of the bytes from 12 to the end of the page.
    pub crc: U32,
    /// Format version: 1.
    pub version: U32,
    /// Features that older code may ignore.
    pub compat: U64,
    /// Features that older code may ignore when it does not write.
    pub ro_compat: U64,
    /// Features that older code must refuse.
    pub incompat: U64,
    /// The store's UUID.
    pub uuid: [u8; 16],
    /// Grows with each checkpoint.
    pub generation: U64,
    /// Grows with each mount.
    pub epoch: U64,
    /// 4096.
    pub block_bytes: U32,
    /// 65536.
    pub extent_bytes: U32,
    /// Bytes of the device that the store uses.
    pub device_bytes: U64,
    /// First byte of the log region.
    pub log_start: U64,
    /// Bytes in the log region.
    pub log_bytes: U64,
    /// First extent of the area for data and metadata.
    pub area_first: U64,
    /// The extent after the area.
    pub area_end: U64,
    /// Where replay starts, in 4 KiB blocks of log since the store was created.
    pub tail_position: U64,
    /// Sequence number of the first record there.
    pub tail_lsn: U64,
    /// Zero.
    pub reserved1: U64,
    /// Chain value that the group there must carry.
    pub tail_chain: U32,
    /// Zero.
    pub reserved0: U32,
    /// Root of the catalog.
    pub catalog: PagePtr,
    /// Root of the space map.
    pub space: PagePtr,
    /// Reserved: reservation table.
    pub reservations: PagePtr,
    /// Reserved: resync bitmap.
    pub resync: PagePtr,
    /// Reserved: snapshot map.
    pub snapshots: PagePtr,
    /// The next volume gets this id.
    pub next_volume: U32,
    /// 0 for the copy in page 0, 1 for the copy in page 16.
    pub slot: U32,
    /// Extents in use at this generation, metadata included.
    pub used_extents: U64,
    /// Where the scrub goes on: the leaf.
    pub scrub_index: U64,
    /// Where the scrub goes on: the tree.
    pub scrub_tree: U32,
    /// Zero.
    pub reserved2: U32,
    /// Bytes that this scrub pass has covered.
    pub scrub_covered: U64,
    /// Damage that this scrub pass has found.
    pub scrub_found: U64,
    /// How much of it was healed.
    pub scrub_healed: U64,
    /// Scrub passes that came to their end.
    pub scrub_passes: U64,
    /// When the last one did, in seconds since 1970; zero when not known.
    pub scrub_finished: U64,
    /// What it found.
    pub scrub_last_found: U64,
    /// How much of that was healed.
    pub scrub_last_healed: U64,
    /// Zero.
    pub reserved: [u8; 3776],
}

const _: () = assert!(size_of::<Superblock>() == PAGE_BYTES);
const _: () = assert!(std::mem::offset_of!(Superblock, version) == CRC_START);
const _: () = assert!(std::mem::offset_of!(Superblock, uuid) == 40);
const _: () = assert!(std::mem::offset_of!(Superblock, device_bytes) == 80);
const _: () = assert!(std::mem::offset_of!(Superblock, tail_position) == 120);
const _: () = assert!(std::mem::offset_of!(Superblock, catalog) == 152);
const _: () = assert!(std::mem::offset_of!(Superblock, next_volume) == 232);
const _: () = assert!(std::mem::offset_of!(Superblock, scrub_index) == 248);
const _: () = assert!(std::mem::offset_of!(Superblock, reserved) == 320);

/// "HOLDFAST".
pub(crate) const SUPERBLOCK_MAGIC: [u8; 8] = *b"HOLDFAST";
/// Format version that this code reads and writes.
pub(crate) const VERSION: u32 = 1;
/// Features that must be understood to read the store.
pub(crate) const INCOMPAT_KNOWN: u64 = 0;
/// Features that must be understood to write the store.
pub(crate) const RO_COMPAT_KNOWN: u64 = 0;
const CRC_START: usize = 12;

/// What is wrong with one copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotFault {
    /// The device failed the read.
    Unreadable,
    /// There is no store here: the magic is missing.
    Magic,
    /// It does not match its checksum.
    Checksum,
    /// It is the other copy, written to the wrong place.
    Slot,
}

impl fmt::Display for SlotFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SlotFault::Unreadable => "the device failed the read",
            SlotFault::Magic => "no superblock magic",
            SlotFault::Checksum => "checksum mismatch",
            SlotFault::Slot => "the copy of the other slot",
        })
    }
}

impl From<SlotFault> for PageFault {
    fn from(fault: SlotFault) -> PageFault {
        match fault {
            SlotFault::Unreadable => PageFault::Unreadable,
            SlotFault::Magic => PageFault::Magic,
            SlotFault::Checksum => PageFault::Checksum,
            SlotFault::Slot => PageFault::Identity,
        }
    }
}

impl Superblock {
    /// Reads the copy for `slot` (0 or 1) out of a page.
    ///
    /// # Errors
    /// What is wrong with it: magic, checksum, or the other slot's copy.
    ///
    /// # Panics
    /// When `bytes` are fewer than a page.
    pub fn parse(bytes: &[u8], slot: u32) -> Result<Superblock, SlotFault> {
        let (superblock, _) = Superblock::read_from_prefix(bytes).expect("a page was read");
        if superblock.magic != SUPERBLOCK_MAGIC {
            return Err(SlotFault::Magic);
        }
        if superblock.crc.get() != crc32c(&superblock.as_bytes()[CRC_START..]) {
            return Err(SlotFault::Checksum);
        }
        if superblock.slot.get() != slot {
            return Err(SlotFault::Slot);
        }
        Ok(superblock)
    }

    /// Sets slot and checksum; the bytes are then ready to be written.
    pub(crate) fn seal(&mut self, slot: u32) {
        self.slot.set(slot);
        let crc = crc32c(&self.as_bytes()[CRC_START..]);
        self.crc.set(crc);
    }

    /// Where replay of the log starts.
    pub fn tail(&self) -> LogTail {
        LogTail {
            position: self.tail_position.get(),
            lsn: self.tail_lsn.get(),
            chain: self.tail_chain.get(),
        }
    }

    /// How far the scrub is.
    pub(crate) fn scrub(&self) -> ScrubRecord {
        ScrubRecord {
            place: PatrolPlace { tree: self.scrub_tree.get(), index: self.scrub_index.get() },
            covered: self.scrub_covered.get(),
            found: self.scrub_found.get(),
            healed: self.scrub_healed.get(),
            passes: self.scrub_passes.get(),
            finished_unix: self.scrub_finished.get(),
            last_found: self.scrub_last_found.get(),
            last_healed: self.scrub_last_healed.get(),
        }
    }

    pub(crate) fn set_scrub(&mut self, scrub: &ScrubRecord) {
        self.scrub_tree.set(scrub.place.tree);
        self.scrub_index.set(scrub.place.index);
        self.scrub_covered.set(scrub.covered);
        self.scrub_found.set(scrub.found);
        self.scrub_healed.set(scrub.healed);
        self.scrub_passes.set(scrub.passes);
        self.scrub_finished.set(scrub.finished_unix);
        self.scrub_last_found.set(scrub.last_found);
        self.scrub_last_healed.set(scrub.last_healed);
    }

    pub(crate) fn set_tail(&mut self, tail: LogTail) {
        self.tail_position.set(tail.position);
        self.tail_lsn.set(tail.lsn);
        self.tail_chain.set(tail.chain);
    }
}
