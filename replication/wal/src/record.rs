//! Records, and how they become the entries of a group's header.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::layout::{ENTRY_LEN, EntryHead};
use crate::limits::{RECORD_BLOCKS_MAX, RECORD_BODY_MAX};

/// One thing that happened to a volume. Blocks are 4 KiB, counted from the volume's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// `crcs.len()` blocks were written; the data is this record's payload.
    Write {
        /// The volume.
        volume: u32,
        /// The first block.
        block: u64,
        /// CRC32C of each block.
        crcs: &'a [u32],
    },
    /// A whole extent was written; the data is already there, durable, at `extent`.
    Direct {
        /// The volume.
        volume: u32,
        /// The first block.
        block: u64,
        /// The extent of the store that holds the data.
        extent: u64,
        /// CRC32C of each block.
        crcs: &'a [u32],
    },
    /// A range now reads as zeroes.
    Zero {
        /// The volume.
        volume: u32,
        /// The first block.
        block: u64,
        /// How many blocks.
        blocks: u64,
    },
    /// A volume exists from here on. The log does not look into `body`.
    Create {
        /// Its number, never used before.
        volume: u32,
        /// What it is, as the store's catalog writes it; a multiple of four bytes.
        body: &'a [u8],
    },
    /// A volume is gone with all its data.
    Delete {
        /// The volume.
        volume: u32,
    },
    /// A volume has a new size.
    Resize {
        /// The volume.
        volume: u32,
        /// Its size from here on, in bytes.
        bytes: u64,
    },
    /// The content of a volume at this place of the log is kept. The log does not look into `body`.
    Snapshot {
        /// The volume.
        volume: u32,
        /// The snapshot's number, never used before.
        snapshot: u32,
        /// What it is, laid out as the body of a creation; a multiple of four bytes.
        body: &'a [u8],
    },
    /// A volume exists from here on with the content of a snapshot.
    Clone {
        /// Its number, never used before.
        volume: u32,
        /// The snapshot.
        snapshot: u32,
        /// What it is, laid out as the body of a creation; a multiple of four bytes.
        body: &'a [u8],
    },
    /// A volume has the content of a snapshot from here on.
    Restore {
        /// The volume.
        volume: u32,
        /// The snapshot.
        snapshot: u32,
        /// A number, never used before, for what the volume was until here.
        former: u32,
    },
}

const WRITE: u8 = 1;
const DIRECT: u8 = 2;
const ZERO: u8 = 3;
const CREATE: u8 = 4;
const DELETE: u8 = 5;
const RESIZE: u8 = 6;
const SNAPSHOT: u8 = 7;
const CLONE: u8 = 8;
const RESTORE: u8 = 9;

impl Record<'_> {
    /// How many payload blocks the record has in the log.
    pub fn payload_blocks(&self) -> usize {
        match self {
            Record::Write { crcs, .. } => crcs.len(),
            _ => 0,
        }
    }

    /// Bytes that the record takes in a header.
    pub fn entry_len(&self) -> usize {
        ENTRY_LEN
            + match self {
                Record::Write { crcs, .. } | Record::Direct { crcs, .. } => crcs.len() * 4,
                Record::Create { body, .. }
                | Record::Snapshot { body, .. }
                | Record::Clone { body, .. } => body.len(),
                _ => 0,
            }
    }

    /// Writes the record to the front of `out`.
    ///
    /// # Panics
    /// When the record exceeds the limits, or `out` is shorter than `entry_len`.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let mut head = EntryHead::default();
        let len = self.entry_len();
        head.words = U16::new(u16::try_from((len - ENTRY_LEN) / 4).expect("checked below"));
        let (kind, volume) = match *self {
            Record::Write { volume, block, crcs } => {
                assert!((1..=RECORD_BLOCKS_MAX).contains(&crcs.len()));
                (head.block, head.blocks) = (U64::new(block), U64::new(crcs.len() as u64));
                encode_words(crcs, &mut out[ENTRY_LEN..len]);
                (WRITE, volume)
            }
            Record::Direct { volume, block, extent, crcs } => {
                assert!((1..=RECORD_BLOCKS_MAX).contains(&crcs.len()));
                (head.block, head.blocks) = (U64::new(block), U64::new(crcs.len() as u64));
                head.extent = U64::new(extent);
                encode_words(crcs, &mut out[ENTRY_LEN..len]);
                (DIRECT, volume)
            }
            Record::Zero { volume, block, blocks } => {
                (head.block, head.blocks) = (U64::new(block), U64::new(blocks));
                (ZERO, volume)
            }
            Record::Create { volume, body } => {
                encode_body(body, &mut out[ENTRY_LEN..len]);
                (CREATE, volume)
            }
            Record::Delete { volume } => (DELETE, volume),
            Record::Resize { volume, bytes } => {
                head.block = U64::new(bytes);
                (RESIZE, volume)
            }
            Record::Snapshot { volume, snapshot, body } => {
                head.block = U64::new(u64::from(snapshot));
                encode_body(body, &mut out[ENTRY_LEN..len]);
                (SNAPSHOT, volume)
            }
            Record::Clone { volume, snapshot, body } => {
                head.block = U64::new(u64::from(snapshot));
                encode_body(body, &mut out[ENTRY_LEN..len]);
                (CLONE, volume)
            }
            Record::Restore { volume, snapshot, former } => {
                head.block = U64::new(u64::from(snapshot));
                head.extent = U64::new(u64::from(former));
                (RESTORE, volume)
            }
        };
        head.kind = kind;
        head.volume = U32::new(volume);
        out[..ENTRY_LEN].copy_from_slice(head.as_bytes());
    }

    /// Reads the record at the front of `bytes` and returns it with its length. CRCs are unpacked
    /// into `words`. `None` when it is not a record of this format.
    pub(crate) fn decode<'a>(
        bytes: &'a [u8],
        words: &'a mut [u32; RECORD_BLOCKS_MAX],
    ) -> Option<(Record<'a>, usize)> {
        let (head, rest) = EntryHead::read_from_prefix(bytes).ok()?;
        let count = usize::from(head.words.get());
        let body = rest.get(..count * 4)?;
        let (volume, block, blocks) = (head.volume.get(), head.block.get(), head.blocks.get());
        if head.flags != 0 || block.checked_add(blocks).is_none() {
            return None;
        }
        let record = match head.kind {
            WRITE | DIRECT => {
                let crcs = words.get_mut(..count)?;
                if crcs.is_empty() || blocks != count as u64 {
                    return None;
                }
                for (crc, bytes) in crcs.iter_mut().zip(body.chunks_exact(4)) {
                    *crc = U32::read_from_bytes(bytes).ok()?.get();
                }
                let crcs: &[u32] = crcs;
                match head.kind {
                    WRITE => Record::Write { volume, block, crcs },
                    _ => Record::Direct { volume, block, extent: head.extent.get(), crcs },
                }
            }
            ZERO if count == 0 => Record::Zero { volume, block, blocks },
            CREATE if body.len() <= RECORD_BODY_MAX => Record::Create { volume, body },
            DELETE if count == 0 => Record::Delete { volume },
            RESIZE if count == 0 => Record::Resize { volume, bytes: block },
            SNAPSHOT | CLONE if body.len() <= RECORD_BODY_MAX => {
                let snapshot = u32::try_from(block).ok()?;
                match head.kind {
                    SNAPSHOT => Record::Snapshot { volume, snapshot, body },
                    _ => Record::Clone { volume, snapshot, body },
                }
            }
            RESTORE if count == 0 => {
                let snapshot = u32::try_from(block).ok()?;
                let former = u32::try_from(head.extent.get()).ok()?;
                Record::Restore { volume, snapshot, former }
            }
            _ => return None,
        };
        Some((record, ENTRY_LEN + count * 4))
    }
}

fn encode_body(body: &[u8], out: &mut [u8]) {
    assert!(body.len() <= RECORD_BODY_MAX);
    assert!(body.len().is_multiple_of(4));
    out.copy_from_slice(body);
}

fn encode_words(words: &[u32], out: &mut [u8]) {
    for (word, bytes) in words.iter().zip(out.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_round_trips() {
        let crcs: Vec<u32> = (0u32..).take(RECORD_BLOCKS_MAX).map(|i| i * 77).collect();
        let body = [9u8; RECORD_BODY_MAX];
        let records = [
            Record::Write { volume: 1, block: u64::MAX - 64, crcs: &crcs },
            Record::Direct { volume: 2, block: 16, extent: u64::MAX, crcs: &crcs[..16] },
            Record::Zero { volume: 3, block: 1, blocks: 1 << 40 },
            Record::Create { volume: 4, body: &body },
            Record::Delete { volume: u32::MAX },
            Record::Resize { volume: 6, bytes: 1 << 50 },
            Record::Snapshot { volume: 7, snapshot: u32::MAX, body: &body[..96] },
            Record::Clone { volume: u32::MAX, snapshot: 8, body: &body },
            Record::Restore { volume: 9, snapshot: u32::MAX, former: u32::MAX },
        ];
        for record in records {
            let mut bytes = vec![0xee; record.entry_len() + 3];
            record.encode(&mut bytes);
            let mut words = [0; RECORD_BLOCKS_MAX];
            let decoded = Record::decode(&bytes, &mut words);
            assert_eq!(decoded, Some((record, bytes.len() - 3)));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut rng = bdev::Rng::new(3);
        let mut bytes = [0u8; 300];
        for _ in 0..20_000 {
            rng.fill(&mut bytes);
            bytes[0] %= 11;
            bytes[1] = 0;
            bytes[3] = 0;
            let len = rng.index(bytes.len()).unwrap_or(0);
            let _ = Record::decode(&bytes[..len], &mut [0; RECORD_BLOCKS_MAX]);
        }
    }
}
