//! Header and data digests: CRC32C, as iSCSI has it.

use crc_fast::{CrcAlgorithm, Digest};

/// The digest of `bytes`, in the order of the wire.
//= NVMe-TCP 1.1 §3.6.1.2
//# digests are CRC32C, stored with the least significant byte first
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// A digest that grows as bytes arrive: the digest of the bytes so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc32c(u32);

impl Crc32c {
    pub(crate) fn new() -> Crc32c {
        Crc32c(0)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0 = match self.0 {
            // Nothing so far, or as good as nothing: the quick way.
            0 => crc32c(bytes),
            before => {
                let state = u64::from(!before);
                let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, state);
                digest.update(bytes);
                narrow(digest.finalize())
            }
        };
    }

    pub(crate) fn finish(self) -> u32 {
        self.0
    }
}

fn narrow(crc: u64) -> u32 {
    u32::try_from(crc).expect("a 32-bit checksum")
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
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for cut in [0, 1, 7, 64, 4096, 5000] {
            let mut crc = Crc32c::new();
            crc.update(&bytes[..cut]);
            crc.update(&bytes[cut..]);
            assert_eq!(crc.finish(), crc32c(&bytes));
        }
    }
}
