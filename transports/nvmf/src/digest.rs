//! Header and data digests: CRC32C, as iSCSI has it.

use bdev::{Buf, CHECKSUM_BYTES, join_checksums};
use crc_fast::{CrcAlgorithm, Digest};

use crate::limits::H2C_DATA_MAX;

/// The digest of `bytes`, in the order of the wire.
//= NVMe-TCP 1.1 §3.6.1.2
//# digests are CRC32C, stored with the least significant byte first
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The digest of the first `len` bytes of a buffer, joined from the checksums that it carries as
/// far as it does.
pub(crate) fn of_buffer(buf: &Buf, len: usize) -> u32 {
    let (mut whole, mut start) = (0, 0);
    while start < len {
        let end = len.min(start + CHECKSUM_BYTES);
        let known = buf.checksum(start / CHECKSUM_BYTES).filter(|_| end - start == CHECKSUM_BYTES);
        let part = known.unwrap_or_else(|| crc32c(&buf.bytes()[start..end]));
        whole = join_checksums(whole, part, end - start);
        start = end;
    }
    whole
}

/// The digest of a PDU's data, that grows as bytes arrive, and the digests of its blocks of 4 KiB.
#[derive(Debug)]
pub(crate) struct PduDigests {
    len: usize,
    /// Of the blocks that are complete.
    whole: u32,
    /// Of what there is of the next one.
    part: u32,
    blocks: [u32; BLOCKS_MAX],
}

/// Blocks of one PDU whose digests are kept: the largest that a host may send.
const BLOCKS_MAX: usize = H2C_DATA_MAX as usize / CHECKSUM_BYTES;

impl PduDigests {
    pub(crate) fn new() -> PduDigests {
        PduDigests { len: 0, whole: 0, part: 0, blocks: [0; BLOCKS_MAX] }
    }

    /// Starts over for the next PDU.
    pub(crate) fn clear(&mut self) {
        (self.len, self.whole, self.part) = (0, 0, 0);
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = CHECKSUM_BYTES - self.len % CHECKSUM_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.part = grow(self.part, self.len.is_multiple_of(CHECKSUM_BYTES), now);
            self.len += now.len();
            if self.len.is_multiple_of(CHECKSUM_BYTES) {
                self.whole = join_checksums(self.whole, self.part, CHECKSUM_BYTES);
                if let Some(place) = self.blocks.get_mut(self.len / CHECKSUM_BYTES - 1) {
                    *place = self.part;
                }
            }
            bytes = later;
        }
    }

    /// The digest of all bytes so far.
    pub(crate) fn finish(&self) -> u32 {
        match self.len % CHECKSUM_BYTES {
            0 => self.whole,
            rest => join_checksums(self.whole, self.part, rest),
        }
    }

    /// The digests of the complete blocks, as far as they are kept.
    pub(crate) fn blocks(&self) -> &[u32] {
        &self.blocks[..BLOCKS_MAX.min(self.len / CHECKSUM_BYTES)]
    }
}

/// The digest `before` of some bytes, none when they are the `first`, grown by more.
fn grow(before: u32, first: bool, bytes: &[u8]) -> u32 {
    if first {
        return crc32c(bytes);
    }
    let state = u64::from(!before);
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, state);
    digest.update(bytes);
    u32::try_from(digest.finalize()).expect("a 32-bit checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_check_value_of_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn grows_to_the_same_value_in_pieces() {
        let bytes: Vec<u8> = (0..=255).cycle().take(9000).collect();
        let mut digests = PduDigests::new();
        for cut in [0, 1, 7, 64, 4096, 5000, 8192, 9000] {
            digests.clear();
            digests.update(&bytes[..cut]);
            digests.update(&bytes[cut..]);
            assert_eq!(digests.finish(), crc32c(&bytes));
            let blocks = [crc32c(&bytes[..4096]), crc32c(&bytes[4096..8192])];
            assert_eq!(digests.blocks(), blocks);
        }
    }

    #[test]
    fn digest_of_a_buffer_is_joined_from_what_it_carries() {
        let pool = bdev::Pool::new(&bdev::PoolConfig::tiny()).unwrap();
        for carried in 0..=3 {
            let mut buf = pool.take(16384).unwrap();
            bdev::Rng::new(5).fill(buf.bytes_mut());
            let expected = [9000, 12288].map(|len| crc32c(&buf.bytes()[..len]));
            for block in 0..carried {
                let crc = crc32c(&buf.bytes()[block * 4096..(block + 1) * 4096]);
                buf.note_checksum(block, crc);
            }
            buf.mark_summed(carried);
            let buf = buf.freeze();
            assert_eq!([9000, 12288].map(|len| of_buffer(&buf, len)), expected);
        }
    }
}
