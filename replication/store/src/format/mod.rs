//! Format v1 as Rust types; `docs/formats/store.md` says the same byte by byte.
//!
//! All integers are little endian and all structs are byte-aligned views (`zerocopy`), so a page
//! that was read is looked at in place. Sizes and offsets are asserted at compile time.

pub(crate) mod catalog;
mod page;
mod superblock;

pub use catalog::{NodeKind, VolumeRecord};
pub use page::PageFault;
pub use page::{BitsPage, CatalogPage, InnerPage, LeafEntry, LeafPage, PageHeader, PagePtr};
pub use superblock::{SlotFault, Superblock};

pub(crate) use page::{
    BITS_PER_PAGE, INNER_CHILDREN, LEAF_ENTRIES, Page, RECORDS_PER_PAGE, WORDS_PER_PAGE,
};
pub(crate) use page::{Kind, NodeId, OWNER_CATALOG, OWNER_SPACE, Place};
pub(crate) use superblock::{INCOMPAT_KNOWN, RO_COMPAT_KNOWN, SUPERBLOCK_MAGIC, VERSION};

/// CRC32C (Castagnoli) of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let wide = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(wide).expect("a 32-bit checksum")
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    #[test]
    fn every_flipped_bit_of_a_superblock_is_noticed() {
        let mut superblock = Superblock::new_zeroed();
        superblock.magic = SUPERBLOCK_MAGIC;
        superblock.seal(1);
        let mut bytes = superblock.as_bytes().to_vec();
        assert_eq!(Superblock::parse(&bytes, 1), Ok(superblock));
        assert_eq!(Superblock::parse(&bytes, 0), Err(SlotFault::Slot));
        for byte in 0..bytes.len() {
            let mask = 1 << (byte % 8);
            bytes[byte] ^= mask;
            let expected = if byte < 8 { SlotFault::Magic } else { SlotFault::Checksum };
            assert_eq!(Superblock::parse(&bytes, 1), Err(expected), "byte {byte}");
            bytes[byte] ^= mask;
        }
    }

    #[test]
    fn every_flipped_bit_of_a_page_is_noticed() {
        let (node, uuid) = (NodeId { owner: 7, level: 0, index: 9 }, [3; 16]);
        let mut page = Page::zeroed();
        page.leaf_mut().entries[4].set_block(2, 99);
        let ptr = page.seal(node, Place::new(1234, 9), 5, &uuid, 0);
        assert_eq!((ptr.number(), ptr.twin()), (1234, Some(1234 + 9 * 16)));
        assert_eq!(page.verify(node, &ptr, &uuid), Ok(()));
        for byte in 0..page.0.len() {
            let mask = 1 << (byte % 8);
            page.0[byte] ^= mask;
            assert!(page.verify(node, &ptr, &uuid).is_err(), "byte {byte}");
            page.0[byte] ^= mask;
        }
        let other = NodeId { index: 10, ..node };
        assert_eq!(page.verify(other, &ptr, &uuid), Err(PageFault::Identity));
        assert_eq!(page.verify(node, &ptr, &[4; 16]), Err(PageFault::Identity));
        let moved = PagePtr { page: Place::new(1235, 9).raw().into(), ..ptr };
        assert_eq!(page.verify(node, &moved, &uuid), Err(PageFault::Identity));
        let newer = PagePtr { crc: 1.into(), ..ptr };
        assert_eq!(page.verify(node, &newer, &uuid), Err(PageFault::Stale));
    }
}
