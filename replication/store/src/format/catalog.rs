//! The record of one volume in the catalog.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::PagePtr;
use crate::VolumeId;

/// What the catalog says of a volume: 256 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VolumeRecord {
    /// Never used twice within a store; zero is no volume.
    pub id: U32,
    /// 0 unused, 1 active, 2 being deleted.
    pub state: u8,
    /// Height of the root page above the leaves.
    pub depth: u8,
    /// 9 for logical blocks of 512 bytes, 12 for 4096.
    pub lba_shift: u8,
    /// Bytes of `name` that are used.
    pub name_len: u8,
    /// Size in bytes.
    pub size: U64,
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// Root page of its tree.
    pub root: PagePtr,
    /// Attributes; all bits are reserved in v1.
    pub attributes: U64,
    /// Snapshot generation: entries born at or before the newest snapshot are shared.
    pub birth: U32,
    /// Volume id of the volume that this one was cloned from; zero for none.
    pub origin: U32,
    /// Snapshot id of the lineage; zero for none.
    pub origin_snapshot: U32,
    /// Zero.
    pub reserved0: U32,
    /// UTF-8, `name_len` bytes, then zeroes.
    pub name: [u8; 64],
    /// Bytes of extents mapped by the tree, in extents; a hint for listings.
    pub mapped: U64,
    /// Zero.
    pub reserved: [u8; 112],
}

const _: () = assert!(std::mem::offset_of!(VolumeRecord, uuid) == 16);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, root) == 32);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, birth) == 56);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, name) == 72);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, mapped) == 136);

/// `VolumeRecord::state` of a slot that is not used.
pub(crate) const STATE_UNUSED: u8 = 0;
/// `VolumeRecord::state` of a volume that serves I/O.
pub(crate) const STATE_ACTIVE: u8 = 1;
/// `VolumeRecord::state` of a volume whose space is being reclaimed.
pub(crate) const STATE_DELETING: u8 = 2;

impl VolumeRecord {
    /// A record that is not used.
    pub(crate) fn unused() -> VolumeRecord {
        VolumeRecord::new_zeroed()
    }

    /// The volume's id.
    pub fn volume_id(&self) -> VolumeId {
        VolumeId(self.id.get())
    }

    /// The volume's name.
    pub fn name_str(&self) -> &str {
        let len = usize::from(self.name_len).min(self.name.len());
        std::str::from_utf8(&self.name[..len]).unwrap_or("")
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size.get()
    }

    /// Bytes in a logical block: 512 or 4096.
    pub fn block_bytes(&self) -> u32 {
        1 << u32::from(self.lba_shift).min(31)
    }

    /// True when the volume serves I/O; false while its space is being reclaimed.
    pub fn is_active(&self) -> bool {
        self.state == STATE_ACTIVE
    }
}
