//! Blocks that know who wrote them: what `--verify` writes, and how it judges what it reads.
//!
//! ```text
//! 0        8        16           24          24 + body   end - 4
//! | magic  | lba    | generation | seeded body ......... | crc32c |
//! ```
//!
//! A [`Verifier`] remembers the generation of each block of its region that was last acknowledged,
//! and keeps I/O to one block apart, so that a read has exactly one right answer.

use bdev::Rng;
use crc_fast::{CrcAlgorithm, checksum};
use thiserror::Error;

const MAGIC: u64 = 0x6863_6e65_6274_6668; // "hftbench" in the order of memory.
const CRC_LEN: usize = 4;

/// How a block that was read is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The block was never written by us, or its bytes were changed.
    #[error("block {lba}: the checksum does not match")]
    Checksum {
        /// The device block.
        lba: u64,
    },
    /// The block is one of ours, but of another address.
    #[error("block {lba}: holds the contents of block {found}")]
    Misdirected {
        /// The device block that was read.
        lba: u64,
        /// The device block that it was written to.
        found: u64,
    },
    /// The block is an older or a newer one than the last that was acknowledged.
    #[error("block {lba}: generation {found}, acknowledged was {expected}")]
    Stale {
        /// The device block.
        lba: u64,
        /// The generation that was acknowledged.
        expected: u64,
        /// The generation that was read.
        found: u64,
    },
}

/// Fills `block` for its address and generation.
pub(crate) fn fill(block: &mut [u8], seed: u64, lba: u64, generation: u64) {
    let body_end = block.len() - CRC_LEN;
    block[..8].copy_from_slice(&MAGIC.to_le_bytes());
    block[8..16].copy_from_slice(&lba.to_le_bytes());
    block[16..24].copy_from_slice(&generation.to_le_bytes());
    let mut rng = Rng::new(seed ^ lba.rotate_left(32) ^ generation);
    rng.fill(&mut block[24..body_end]);
    let crc = crc32c(&block[..body_end]);
    block[body_end..].copy_from_slice(&crc.to_le_bytes());
}

/// Judges a block that was read.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(block: &[u8], lba: u64, expected: u64) -> Result<(), Mismatch> {
    let (body, crc) = block.split_at(block.len() - CRC_LEN);
    if crc32c(body).to_le_bytes() != crc || number(body, 0) != MAGIC {
        return Err(Mismatch::Checksum { lba });
    }
    match (number(body, 8), number(body, 16)) {
        (found, _) if found != lba => Err(Mismatch::Misdirected { lba, found }),
        (_, found) if found != expected => Err(Mismatch::Stale { lba, expected, found }),
        _ => Ok(()),
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("a 32-bit checksum")
}

/// What is known of each block of a region.
#[derive(Debug)]
pub(crate) struct Verifier {
    seed: u64,
    first: u64,
    block_size: usize,
    /// The acknowledged generation of each block; zero is unknown and is not judged.
    acknowledged: Box<[u64]>,
    busy: Box<[bool]>,
    generation: u64,
    checked: u64,
}

impl Verifier {
    /// Nothing is known of the `len` blocks from `first` on.
    pub(crate) fn new(seed: u64, block_size: u32, first: u64, len: u64) -> Verifier {
        let len = usize::try_from(len).expect("a region that is verified fits memory");
        Verifier {
            seed,
            first,
            block_size: block_size as usize,
            acknowledged: vec![0; len].into(),
            busy: vec![false; len].into(),
            generation: 0,
            checked: 0,
        }
    }

    /// Reserves the blocks; false when I/O to one of them is in flight.
    pub(crate) fn begin(&mut self, lba: u64, blocks: u32) -> bool {
        let range = self.range(lba, blocks);
        if self.busy[range.clone()].contains(&true) {
            return false;
        }
        self.busy[range].fill(true);
        true
    }

    /// Whether it is known what one of the blocks holds.
    pub(crate) fn knows(&self, lba: u64, blocks: u32) -> bool {
        self.acknowledged[self.range(lba, blocks)].iter().any(|&generation| generation != 0)
    }

    /// Fills `data` for a write of reserved blocks, and returns its generation.
    pub(crate) fn fill(&mut self, data: &mut [u8], lba: u64) -> u64 {
        self.generation += 1;
        for (block, at) in data.chunks_exact_mut(self.block_size).zip(lba..) {
            fill(block, self.seed, at, self.generation);
        }
        self.generation
    }

    /// A write of reserved blocks has ended: `generation` when it succeeded; otherwise nothing is
    /// known of the blocks any more.
    pub(crate) fn end_write(&mut self, lba: u64, blocks: u32, generation: Option<u64>) {
        let range = self.range(lba, blocks);
        self.acknowledged[range.clone()].fill(generation.unwrap_or(0));
        self.busy[range].fill(false);
    }

    /// A read of reserved blocks has ended with `data`, or failed.
    ///
    /// # Errors
    /// What is wrong with the first wrong block.
    pub(crate) fn end_read(
        &mut self,
        lba: u64,
        blocks: u32,
        data: Option<&[u8]>,
    ) -> Result<(), Mismatch> {
        let range = self.range(lba, blocks);
        self.busy[range.clone()].fill(false);
        let Some(data) = data else { return Ok(()) };
        let known = self.acknowledged[range].iter().zip(lba..);
        for (block, (&generation, at)) in data.chunks_exact(self.block_size).zip(known) {
            if generation != 0 {
                check(block, at, generation)?;
                self.checked += 1;
            }
        }
        Ok(())
    }

    /// Bytes in a block.
    pub(crate) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks that were read and found right.
    pub(crate) fn checked(&self) -> u64 {
        self.checked
    }

    fn range(&self, lba: u64, blocks: u32) -> std::ops::Range<usize> {
        let start = usize::try_from(lba - self.first).expect("inside the region");
        start..start + blocks as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_damage_is_told_apart() {
        let mut block = vec![0; 512];
        fill(&mut block, 7, 40, 3);
        assert_eq!(check(&block, 40, 3), Ok(()));
        assert_eq!(check(&block, 41, 3), Err(Mismatch::Misdirected { lba: 41, found: 40 }));
        let stale = Mismatch::Stale { lba: 40, expected: 4, found: 3 };
        assert_eq!(check(&block, 40, 4), Err(stale));
        for at in [0, 8, 100, 511] {
            let mut bad = block.clone();
            bad[at] ^= 1;
            assert_eq!(check(&bad, 40, 3), Err(Mismatch::Checksum { lba: 40 }));
        }
        assert_eq!(check(&[0; 512], 40, 3), Err(Mismatch::Checksum { lba: 40 }));
    }

    #[test]
    fn reads_are_judged_by_what_was_acknowledged() {
        let mut verifier = Verifier::new(1, 512, 10, 8);
        let mut data = vec![0; 1024];
        assert!(verifier.begin(12, 2));
        assert!(!verifier.begin(13, 1), "in flight");
        let generation = verifier.fill(&mut data, 12);
        verifier.end_write(12, 2, Some(generation));
        assert!(verifier.begin(12, 2));
        assert_eq!(verifier.end_read(12, 2, Some(&data)), Ok(()));
        assert_eq!(verifier.checked(), 2);
        let mut lost = data.clone();
        verifier.begin(12, 2);
        let newer = verifier.fill(&mut lost, 12);
        verifier.end_write(12, 2, Some(newer));
        verifier.begin(12, 2);
        assert!(matches!(verifier.end_read(12, 2, Some(&data)), Err(Mismatch::Stale { .. })));
    }

    #[test]
    fn failed_write_leaves_its_blocks_unjudged() {
        let mut verifier = Verifier::new(1, 512, 0, 4);
        assert!(verifier.begin(0, 1));
        verifier.end_write(0, 1, None);
        assert!(verifier.begin(0, 1));
        assert_eq!(verifier.end_read(0, 1, Some(&[9; 512])), Ok(()));
        assert_eq!(verifier.checked(), 0);
    }
}
