//! Groups as recovery reads them: nothing that the bytes say is believed before it was verified.

use zerocopy::FromBytes;

use crate::layout::{BLOCK_BYTES, GroupHeader, HEADER_LEN, MAGIC, crc32c};
use crate::limits::{HEADER_BLOCKS_MAX, RECORD_BLOCKS_MAX};
use crate::{Point, Record};

/// What the front of some bytes is.
pub(crate) enum Front {
    /// A header of this store whose CRC is right.
    Header(GroupHeader),
    /// It looks like one and goes on behind the bytes.
    Short,
    Nothing,
}

/// What the entries and the payload behind a right header are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// All that was written.
    Whole,
    /// The records can be read; blocks of their payload do not match their CRCs.
    Damaged,
    /// Not records of this format.
    Nonsense,
}

/// The header at the front of `bytes`.
pub(crate) fn header_at(bytes: &[u8], store: &[u8; 16]) -> Front {
    let Ok((header, _)) = GroupHeader::read_from_prefix(bytes) else { return Front::Nothing };
    let blocks = usize::from(header.header_blocks.get());
    let known = header.magic == MAGIC && header.store == *store;
    if !known || !(1..=HEADER_BLOCKS_MAX).contains(&blocks) {
        return Front::Nothing;
    }
    let Some(whole) = bytes.get(..blocks * BLOCK_BYTES) else { return Front::Short };
    if crc32c(&whole[4..]) == header.crc.get() || bdev::planted(bdev::Planted::NoHeaderCheck) {
        Front::Header(header)
    } else {
        Front::Nothing
    }
}

/// Blocks of a group, header and payload.
pub(crate) fn blocks_of(header: &GroupHeader) -> usize {
    usize::from(header.header_blocks.get()) + usize::from(header.payload_blocks.get())
}

/// The boundary behind the group that starts at `start`; `None` at the end of 64 bits.
pub(crate) fn end_of(header: &GroupHeader, start: Point) -> Option<Point> {
    Some(Point {
        position: start.position.checked_add(blocks_of(header) as u64)?,
        lsn: crate::Lsn(start.lsn.0.checked_add(u64::from(header.records.get()))?),
        chain: header.crc.get(),
    })
}

/// Checks what is behind a right header; `bytes` hold the whole group.
pub(crate) fn body_of(header: &GroupHeader, bytes: &[u8]) -> Body {
    let start = usize::from(header.header_blocks.get()) * BLOCK_BYTES;
    let Some(payload) = bytes.get(start..blocks_of(header) * BLOCK_BYTES) else {
        return Body::Nonsense;
    };
    let mut rest = payload;
    let mut damaged = 0;
    let readable = for_each_record(header, bytes, |record| match split_payload(&record, rest) {
        Some((own, behind)) => {
            rest = behind;
            damaged |= damage_of(&record, own);
            true
        }
        None => false,
    });
    match (readable && rest.is_empty(), damaged) {
        (false, _) => Body::Nonsense,
        (true, 0) => Body::Whole,
        (true, _) => Body::Damaged,
    }
}

/// The payload of a record at the front of `payload`, and what is behind it.
fn split_payload<'a>(record: &Record<'_>, payload: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    payload.split_at_checked(record.payload_blocks() * BLOCK_BYTES)
}

/// A bit for each block of a record's payload that does not match its CRC.
fn damage_of(record: &Record<'_>, payload: &[u8]) -> u64 {
    let Record::Write { crcs, .. } = record else { return 0 };
    let mut damaged = 0;
    for (index, (block, &crc)) in payload.chunks_exact(BLOCK_BYTES).zip(*crcs).enumerate() {
        let wrong = crc32c(block) != crc && !bdev::planted(bdev::Planted::NoPayloadCheck);
        damaged |= u64::from(wrong) << index;
    }
    damaged
}

/// Calls `each` for each record of a group whose body is not nonsense, with the position of its
/// payload within the group in blocks, and a bit for each block of it that is damaged.
pub(crate) fn for_each_checked(
    header: &GroupHeader,
    bytes: &[u8],
    body: Body,
    mut each: impl FnMut(Record<'_>, u64, u64),
) {
    let mut at = usize::from(header.header_blocks.get());
    for_each_record(header, bytes, |record| {
        let damaged = match body {
            Body::Whole => 0, // It was looked at a moment ago.
            _ => damage_of(&record, bytes.get(at * BLOCK_BYTES..).unwrap_or_default()),
        };
        each(record, at as u64, damaged);
        at += record.payload_blocks();
        true
    });
}

/// Calls `each` for each record until it says no. False when it did, or when the entries are not
/// exactly `header.records` records of this format.
fn for_each_record(
    header: &GroupHeader,
    bytes: &[u8],
    mut each: impl FnMut(Record<'_>) -> bool,
) -> bool {
    let Ok(len) = usize::try_from(header.entries_len.get()) else { return false };
    let end = usize::from(header.header_blocks.get()) * BLOCK_BYTES;
    let Some(mut rest) = bytes.get(HEADER_LEN..end).and_then(|area| area.get(..len)) else {
        return false;
    };
    for _ in 0..header.records.get() {
        let mut words = [0; RECORD_BLOCKS_MAX];
        let Some((record, len)) = Record::decode(rest, &mut words) else { return false };
        if !each(record) {
            return false;
        }
        rest = &rest[len..];
    }
    rest.is_empty()
}

const _: () = assert!(RECORD_BLOCKS_MAX <= u64::BITS as usize);
