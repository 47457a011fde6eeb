//! Header and data digests: CRC32C, as iSCSI has it.

use crc_fast::{CrcAlgorithm, Digest};

/// The digest of `bytes`, in the order of the wire.
//= NVMe-TCP 1.1 §3.6.1.2
//# digests are CRC32C, stored with the least significant byte first
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    narrow(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// A digest that grows as bytes arrive. Eight bytes of state, no allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc32c(u64);

impl Crc32c {
    pub(crate) fn new() -> Crc32c {
        Crc32c(Digest::new(CrcAlgorithm::Crc32Iscsi).get_state())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, self.0);
        digest.update(bytes);
        self.0 = digest.get_state();
    }

    pub(crate) fn finish(self) -> u32 {
        narrow(Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, self.0).finalize())
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
