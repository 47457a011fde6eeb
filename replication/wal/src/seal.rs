//! Filling a group in its staging segment, and sealing it.

use bdev::{Buf, BufMut};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::layout::{BLOCK_BYTES, ENTRY_LEN, GroupHeader, HEADER_LEN, KIND_RECORDS, MAGIC, crc32c};
use crate::limits::HEADER_BLOCKS_MAX;
use crate::{Lsn, Point, Record};

/// Where the payload starts in a staging segment: behind the largest header. The header is moved
/// up against it when the group is sealed, so that both are one contiguous write.
const PAYLOAD_AT: usize = HEADER_BLOCKS_MAX * BLOCK_BYTES;

/// A group that is being filled.
#[derive(Debug)]
pub(crate) struct OpenGroup {
    segment: BufMut,
    /// Bytes of the segment that the group may use.
    len: usize,
    /// Bytes of header and entries so far.
    header: usize,
    /// Payload blocks so far.
    payload: usize,
    records: u16,
}

/// What sealing needs to know about the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    pub(crate) store: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) durable: Lsn,
    pub(crate) at: Point,
}

/// A group ready to be written.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// The whole staging segment.
    pub(crate) origin: Buf,
    /// Where in it the group starts, in bytes.
    pub(crate) offset: usize,
    /// Header and payload, in blocks.
    pub(crate) blocks: usize,
    pub(crate) header_blocks: usize,
    pub(crate) records: u16,
    pub(crate) crc: u32,
}

impl OpenGroup {
    /// An empty group in the first `len` bytes of `segment`.
    pub(crate) fn new(segment: BufMut, len: usize) -> OpenGroup {
        assert!(len > PAYLOAD_AT);
        assert!(len <= segment.capacity());
        OpenGroup { segment, len, header: HEADER_LEN, payload: 0, records: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(crate) fn records(&self) -> u16 {
        self.records
    }

    pub(crate) fn payload_blocks(&self) -> usize {
        self.payload
    }

    /// True when records with so many bytes of entries and blocks of payload still fit.
    pub(crate) fn has_room(&self, entries_len: usize, payload_blocks: usize) -> bool {
        self.header + entries_len <= PAYLOAD_AT
            && PAYLOAD_AT + (self.payload + payload_blocks) * BLOCK_BYTES <= self.len
            && usize::from(u16::MAX - self.records) > entries_len / ENTRY_LEN
    }

    /// The group's size in blocks, were they in it too.
    pub(crate) fn blocks_after(&self, entries_len: usize, payload_blocks: usize) -> usize {
        (self.header + entries_len).div_ceil(BLOCK_BYTES) + self.payload + payload_blocks
    }

    /// The group's size in blocks as it is now.
    pub(crate) fn blocks(&self) -> usize {
        self.header.div_ceil(BLOCK_BYTES) + self.payload
    }

    /// Adds a record that fits.
    pub(crate) fn push(&mut self, record: &Record<'_>, parts: &[&[u8]]) {
        assert!(self.has_room(record.entry_len(), record.payload_blocks()));
        let start = PAYLOAD_AT + self.payload * BLOCK_BYTES;
        let end = start + record.payload_blocks() * BLOCK_BYTES;
        let bytes = self.segment.bytes_mut();
        let mut at = start;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        assert_eq!(at, end, "a record's payload has one block for each CRC");
        record.encode(&mut bytes[self.header..PAYLOAD_AT]);
        self.header += record.entry_len();
        self.payload += record.payload_blocks();
        self.records += 1;
    }

    /// Ends the group: writes its header, against the payload.
    pub(crate) fn seal(mut self, seal: &Seal) -> Sealed {
        assert!(self.records > 0);
        let header_blocks = self.header.div_ceil(BLOCK_BYTES);
        let header_len = header_blocks * BLOCK_BYTES;
        let offset = PAYLOAD_AT - header_len;
        let mut header = header_of(seal, KIND_RECORDS, header_blocks, self.payload);
        header.records = U16::new(self.records);
        let entries = u32::try_from(self.header - HEADER_LEN).expect("four blocks at most");
        header.entries_len = U32::new(entries);
        let bytes = self.segment.bytes_mut();
        bytes[self.header..header_len].fill(0);
        bytes.copy_within(HEADER_LEN..header_len, offset + HEADER_LEN);
        let crc = finish(&mut bytes[offset..PAYLOAD_AT], header);
        let blocks = header_blocks + self.payload;
        let records = self.records;
        Sealed { origin: self.segment.freeze(), offset, blocks, header_blocks, records, crc }
    }
}

/// A group of one block that leads from `seal.at` to the start of the ring, `blocks` further on.
pub(crate) fn seal_skip(mut segment: BufMut, seal: &Seal, kind: u16, blocks: usize) -> Sealed {
    let bytes = &mut segment.bytes_mut()[..BLOCK_BYTES];
    bytes.fill(0);
    let crc = finish(bytes, header_of(seal, kind, 1, blocks - 1));
    let origin = segment.freeze();
    Sealed { origin, offset: 0, blocks, header_blocks: 1, records: 0, crc }
}

fn header_of(seal: &Seal, kind: u16, header_blocks: usize, payload_blocks: usize) -> GroupHeader {
    let small = |n: usize| U16::new(u16::try_from(n).expect("a group has at most 1 MiB"));
    GroupHeader {
        crc: U32::ZERO,
        chain: U32::new(seal.at.chain),
        magic: MAGIC,
        store: seal.store,
        position: U64::new(seal.at.position),
        lsn: U64::new(seal.at.lsn.0),
        durable: U64::new(seal.durable.0),
        epoch: U64::new(seal.epoch),
        kind: U16::new(kind),
        header_blocks: small(header_blocks),
        payload_blocks: small(payload_blocks),
        records: U16::ZERO,
        entries_len: U32::ZERO,
        reserved: [0; 20],
    }
}

/// Puts `header` before its entries and the CRC before both.
fn finish(bytes: &mut [u8], header: GroupHeader) -> u32 {
    bytes[..HEADER_LEN].copy_from_slice(header.as_bytes());
    let crc = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    crc
}
