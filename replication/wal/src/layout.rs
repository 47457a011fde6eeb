//! The bytes of a group's header, as `docs/formats/log.md` specifies them.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The log's block: payload CRCs, positions and sizes count in these. Bytes.
pub const BLOCK_BYTES: usize = 4096;

/// First bytes of every group after its CRC and chain value.
pub(crate) const MAGIC: [u8; 8] = *b"HFLOG\0\0\x01";

/// A group that carries records.
pub(crate) const KIND_RECORDS: u16 = 1;
/// A group that only leads to the start of the ring.
pub(crate) const KIND_SKIP: u16 = 2;

/// The start of a group. The entries follow it, and go on in further header blocks.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct GroupHeader {
    /// CRC32C of all header blocks from the next field on; the next group's `chain`.
    pub(crate) crc: U32,
    /// `crc` of the group before this one.
    pub(crate) chain: U32,
    pub(crate) magic: [u8; 8],
    /// The store that this log belongs to.
    pub(crate) store: [u8; 16],
    /// Where the group starts, in blocks of log since the store was created.
    pub(crate) position: U64,
    /// Number of the first record.
    pub(crate) lsn: U64,
    /// Every record below this number was durable when this group was sealed.
    pub(crate) durable: U64,
    /// The mount that wrote it.
    pub(crate) epoch: U64,
    pub(crate) kind: U16,
    pub(crate) header_blocks: U16,
    pub(crate) payload_blocks: U16,
    pub(crate) records: U16,
    /// Bytes of entries after this structure.
    pub(crate) entries_len: U32,
    /// Zero. Room for the commit index of a replicated volume.
    pub(crate) reserved: [u8; 20],
}

/// The fixed part of a record; `words` four-byte words follow it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct EntryHead {
    pub(crate) kind: u8,
    /// Zero. An unknown flag is an unknown record.
    pub(crate) flags: u8,
    /// Four-byte words that follow: CRCs, or the body.
    pub(crate) words: U16,
    pub(crate) volume: U32,
    /// First 4 KiB block of the volume, or the new size of a resized one.
    pub(crate) block: U64,
    pub(crate) blocks: U64,
    /// Where the data of a direct record is.
    pub(crate) extent: U64,
}

pub(crate) const HEADER_LEN: usize = size_of::<GroupHeader>();
pub(crate) const ENTRY_LEN: usize = size_of::<EntryHead>();

const _: () = assert!(HEADER_LEN == 96);
const _: () = assert!(ENTRY_LEN == 32);
const _: () = assert!(std::mem::offset_of!(GroupHeader, magic) == 8);
const _: () = assert!(std::mem::offset_of!(GroupHeader, store) == 16);
const _: () = assert!(std::mem::offset_of!(GroupHeader, position) == 32);
const _: () = assert!(std::mem::offset_of!(GroupHeader, epoch) == 56);
const _: () = assert!(std::mem::offset_of!(GroupHeader, kind) == 64);
const _: () = assert!(std::mem::offset_of!(GroupHeader, entries_len) == 72);
const _: () = assert!(std::mem::offset_of!(GroupHeader, reserved) == 76);
const _: () = assert!(std::mem::offset_of!(EntryHead, volume) == 4);
const _: () = assert!(std::mem::offset_of!(EntryHead, extent) == 24);

/// CRC32C (Castagnoli), the checksum of everything that Holdfast stores.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
