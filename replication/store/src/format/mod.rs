//! Format v1 as Rust types; `docs/formats/store.md` says the same byte by byte.
//!
//! All integers are little endian and all structs are byte-aligned views (`zerocopy`), so a page
//! that was read is looked at in place. Sizes and offsets are asserted at compile time.

pub(crate) mod catalog;
mod page;
mod superblock;

pub use catalog::VolumeRecord;
pub use page::PageFault;
pub use page::{BitsPage, CatalogPage, InnerPage, LeafEntry, LeafPage, PageHeader, PagePtr};
pub use superblock::{SlotFault, Superblock};

pub(crate) use page::{
    BITS_PER_PAGE, INNER_CHILDREN, LEAF_ENTRIES, Page, RECORDS_PER_PAGE, WORDS_PER_PAGE,
};
pub(crate) use page::{Kind, NodeId, OWNER_CATALOG, OWNER_SPACE};
pub(crate) use superblock::{INCOMPAT_KNOWN, RO_COMPAT_KNOWN, SUPERBLOCK_MAGIC, VERSION};

/// CRC32C (Castagnoli) of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let wide = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(wide).expect("a 32-bit checksum")
}
