//! The record of one node of the forest in the catalog: a volume, or a snapshot.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::PagePtr;
use crate::VolumeId;

/// What the catalog says of a volume or a snapshot: 256 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VolumeRecord {
    /// Never used twice within a store, volumes and snapshots together; zero is none.
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
    /// Stamp of the pages and extents that it writes; below the birth of all its children.
    pub birth: U32,
    /// Of a snapshot: the volume it was taken of. Of a clone: that of its snapshot. Else zero.
    pub origin: U32,
    /// Of a clone: the snapshot it was cloned from. Else zero.
    pub origin_snapshot: U32,
    /// 1 volume, 2 snapshot, 3 what a restored volume was before.
    pub kind: u8,
    /// Zero.
    pub reserved0: [u8; 3],
    /// UTF-8, `name_len` bytes, then zeroes.
    pub name: [u8; 64],
    /// Extents mapped by the tree.
    pub mapped: U64,
    /// The snapshot that it continues from: what its tree holds that is not younger is not its own.
    pub parent: U32,
    /// The first volume of the lineage: the owner in the headers of its pages.
    pub family: U32,
    /// Every log record of the volume below this number is in its tree, or void.
    pub floor_lsn: U64,
    /// Of a node being deleted: what it owned below this extent is its only child's by now.
    pub cut: U64,
    /// Zero.
    pub reserved: [u8; 88],
}

const _: () = assert!(std::mem::offset_of!(VolumeRecord, uuid) == 16);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, root) == 32);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, birth) == 56);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, name) == 72);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, mapped) == 136);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, parent) == 144);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, floor_lsn) == 152);
const _: () = assert!(std::mem::offset_of!(VolumeRecord, reserved) == 168);

/// `VolumeRecord::state` of a slot that is not used.
pub(crate) const STATE_UNUSED: u8 = 0;
/// `VolumeRecord::state` of a volume that serves I/O, or a snapshot that can be read.
pub(crate) const STATE_ACTIVE: u8 = 1;
/// `VolumeRecord::state` of a node whose space is being reclaimed.
pub(crate) const STATE_DELETING: u8 = 2;

/// What a node of the forest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A volume: a leaf of the forest, the only kind that is written.
    Volume,
    /// A snapshot: what a volume was at one moment.
    Snapshot,
    /// What a volume was before it was restored; being deleted from the start.
    Remains,
}

impl NodeKind {
    pub(crate) fn from_raw(raw: u8) -> Option<NodeKind> {
        match raw {
            1 => Some(NodeKind::Volume),
            2 => Some(NodeKind::Snapshot),
            3 => Some(NodeKind::Remains),
            _ => None,
        }
    }

    pub(crate) fn raw(self) -> u8 {
        match self {
            NodeKind::Volume => 1,
            NodeKind::Snapshot => 2,
            NodeKind::Remains => 3,
        }
    }
}

impl VolumeRecord {
    /// A record that is not used.
    pub(crate) fn unused() -> VolumeRecord {
        VolumeRecord::new_zeroed()
    }

    /// The volume's id.
    pub fn volume_id(&self) -> VolumeId {
        VolumeId(self.id.get())
    }

    /// What it is. (The mount refuses records of unknown kinds.)
    pub fn kind(&self) -> NodeKind {
        NodeKind::from_raw(self.kind).unwrap_or(NodeKind::Remains)
    }

    /// The snapshot that it continues from.
    pub fn parent(&self) -> Option<VolumeId> {
        (self.parent.get() != 0).then(|| VolumeId(self.parent.get()))
    }

    /// The first volume of its lineage: nodes of one family may share pages and extents.
    pub fn family(&self) -> VolumeId {
        VolumeId(self.family.get())
    }

    /// Of a snapshot: the volume that it was taken of. Of a clone: that of its snapshot.
    pub fn origin(&self) -> Option<VolumeId> {
        (self.origin.get() != 0).then(|| VolumeId(self.origin.get()))
    }

    /// Of a clone: the snapshot that it was cloned from (which may be gone since).
    pub fn origin_snapshot(&self) -> Option<VolumeId> {
        (self.origin_snapshot.get() != 0).then(|| VolumeId(self.origin_snapshot.get()))
    }

    /// Every log record of the volume with a lower number is in its tree, or void for it.
    pub fn floor_lsn(&self) -> u64 {
        self.floor_lsn.get()
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

    /// True for a volume that serves I/O and for a snapshot that can be read; false while the
    /// space is being reclaimed.
    pub fn is_active(&self) -> bool {
        self.state == STATE_ACTIVE
    }
}
