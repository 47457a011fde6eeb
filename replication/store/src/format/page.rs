//! Metadata pages: the common header, and the four bodies that follow it.

use std::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{VolumeRecord, crc32c};
use crate::Extent;
use crate::limits::{DEVICE_EXTENTS_MAX, EXTENT_BLOCKS, PAGE_BYTES};

/// Where a metadata page is, and what it must say. All zero: there is no such page, and everything
/// below it is unmapped.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct PagePtr {
    /// Number of the page, in 4 KiB from the start of the device, in the lower 48 bits. The top 16
    /// bits say how many extents further on its second copy is; zero for none.
    pub page: U64,
    /// The page's checksum.
    pub crc: U32,
    /// Snapshot generation at which the page was written.
    pub birth: U32,
}

impl PagePtr {
    /// No page.
    pub const NONE: PagePtr = PagePtr { page: U64::new(0), crc: U32::new(0), birth: U32::new(0) };

    /// In memory only: the page is new, dirty in the cache, and has no place yet.
    pub(crate) const NEW: PagePtr =
        PagePtr { page: U64::new(u64::MAX), crc: U32::new(0), birth: U32::new(0) };

    /// True when there is no page.
    pub fn is_none(&self) -> bool {
        self.page.get() == 0
    }

    /// The page's number: where its first copy is.
    pub fn number(&self) -> u64 {
        self.place().number()
    }

    /// Number of the page that holds the second copy, if there is one.
    pub fn twin(&self) -> Option<u64> {
        self.place().twin()
    }

    pub(crate) fn place(&self) -> Place {
        Place(self.page.get())
    }
}

/// Where both copies of a page are, as a pointer says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    /// Page `number`, and its second copy `distance` extents further on (0 for none).
    pub(crate) fn new(number: u64, distance: u16) -> Place {
        assert!(number < 1 << NUMBER_BITS);
        Place(u64::from(distance) << NUMBER_BITS | number)
    }

    pub(crate) fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }

    pub(crate) fn distance(self) -> u16 {
        u16::try_from(self.0 >> NUMBER_BITS).expect("16 bits are left")
    }

    pub(crate) fn twin(self) -> Option<u64> {
        let pages = u64::from(self.distance()) * EXTENT_BLOCKS as u64;
        (pages > 0).then(|| self.number() + pages)
    }

    /// The place of the page that follows, when it has as many copies as this one.
    pub(crate) fn after(self, pages: u32) -> Place {
        Place(self.0 + u64::from(pages))
    }

    pub(crate) fn raw(self) -> u64 {
        self.0
    }
}

/// Bits of a pointer's `page` that are the number of the page.
const NUMBER_BITS: u32 = 48;
const _: () = assert!(DEVICE_EXTENTS_MAX * EXTENT_BLOCKS as u64 + (1 << 20) < 1 << NUMBER_BITS);

/// The first 64 bytes of every metadata page.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct PageHeader {
    /// "HFPG".
    pub magic: [u8; 4],
    /// CRC32C of the bytes from 8 to the end of the page.
    pub crc: U32,
    /// What the page holds: 1 inner, 2 leaf, 3 catalog, 4 space map.
    pub kind: u8,
    /// Height above the leaves of its tree.
    pub level: u8,
    /// Zero.
    pub reserved0: U16,
    /// Whose tree: a volume id, or one of the reserved owners.
    pub owner: U32,
    /// Position among the pages of this level of this tree.
    pub index: U64,
    /// Checkpoint generation that wrote it.
    pub generation: U64,
    /// Number of this very page (of its first copy): a misdirected write is noticed.
    pub page: U64,
    /// The store that it belongs to.
    pub uuid: [u8; 16],
    /// Snapshot generation at which it was written.
    pub birth: U32,
    /// Zero.
    pub reserved1: U32,
}

/// Where one extent (64 KiB) of a volume is, which of its blocks hold data, and their checksums.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct LeafEntry {
    extent: U64,
    birth: U32,
    written: U16,
    flags: U16,
    crc: [U32; EXTENT_BLOCKS],
}

impl LeafEntry {
    /// The extent that holds the data, or `None` when nothing is mapped here.
    ///
    /// Store code hands out entries with extents inside the area only (pages are checked when they
    /// are loaded).
    pub fn extent(&self) -> Option<Extent> {
        Extent::from_raw(self.extent.get())
    }

    pub(crate) fn extent_number(&self) -> u64 {
        self.extent.get()
    }

    /// Maps `extent`, allocated now for the volume with this [`crate::Store::birth`]. The blocks
    /// and their checksums stay as they are.
    pub fn set_extent(&mut self, extent: Extent, birth: u32) {
        self.extent.set(extent.number());
        self.birth.set(birth);
    }

    /// Unmaps: the whole entry is cleared.
    pub fn clear(&mut self) {
        *self = LeafEntry::default();
    }

    /// Snapshot generation at which the extent was allocated.
    pub fn birth(&self) -> u32 {
        self.birth.get()
    }

    /// The blocks that hold data, bit 0 for the first. Blocks whose bit is clear read as zeroes.
    pub fn written(&self) -> u16 {
        self.written.get()
    }

    /// The checksum (CRC32C) of the data of `block`, or `None` when it reads as zeroes.
    ///
    /// # Panics
    /// When `block` is 16 or more.
    pub fn block_crc(&self, block: usize) -> Option<u32> {
        (self.written.get() >> block & 1 == 1).then(|| self.crc[block].get())
    }

    /// Records that `block` holds data with this checksum.
    ///
    /// # Panics
    /// When `block` is 16 or more.
    pub fn set_block(&mut self, block: usize, crc: u32) {
        self.crc[block].set(crc);
        self.written.set(self.written.get() | 1 << block);
    }

    /// Records that `block` reads as zeroes.
    ///
    /// # Panics
    /// When `block` is 16 or more.
    pub fn clear_block(&mut self, block: usize) {
        self.crc[block].set(0);
        self.written.set(self.written.get() & !(1 << block));
    }
}

/// Entries in a leaf page.
pub(crate) const LEAF_ENTRIES: usize = 48;
/// Children of an inner page.
pub(crate) const INNER_CHILDREN: usize = 252;
/// Volume records in a catalog page.
pub(crate) const RECORDS_PER_PAGE: usize = 15;
/// 64-bit words in a space map page.
pub(crate) const WORDS_PER_PAGE: usize = 504;
/// Extents that a space map page speaks of.
pub(crate) const BITS_PER_PAGE: usize = WORDS_PER_PAGE * 64;

/// A leaf: 48 consecutive extents (3 MiB) of a volume.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LeafPage {
    /// The common header.
    pub header: PageHeader,
    /// Extent `i` of the volume is entry `i % 48` of leaf `i / 48`.
    pub entries: [LeafEntry; LEAF_ENTRIES],
    /// Zero.
    pub spare: [u8; 192],
}

/// An inner page: pointers to 252 consecutive pages of the level below.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InnerPage {
    /// The common header.
    pub header: PageHeader,
    /// Page `i` of the level below is child `i % 252` of inner page `i / 252`.
    pub children: [PagePtr; INNER_CHILDREN],
}

/// A page of the catalog: 15 volume records.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CatalogPage {
    /// The common header.
    pub header: PageHeader,
    /// Records; those in state 0 are unused.
    pub records: [VolumeRecord; RECORDS_PER_PAGE],
    /// Zero.
    pub spare: [u8; 192],
}

/// A page of the space map: one bit for each of 32256 extents.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BitsPage {
    /// The common header.
    pub header: PageHeader,
    /// Bit `i % 64` of word `i / 64` is set when extent `i` (of this page) is in use.
    pub words: [U64; WORDS_PER_PAGE],
}

impl LeafPage {
    /// True when every extent has a birth, and none above `birth`.
    pub(crate) fn is_born_by(&self, birth: u32) -> bool {
        let mut mapped = self.entries.iter().filter(|entry| entry.extent.get() != 0);
        mapped.all(|entry| (1..=birth).contains(&entry.birth()))
    }

    /// How many entries are mapped.
    pub(crate) fn mapped(&self) -> u8 {
        let mapped = self.entries.iter().filter(|entry| entry.extent.get() != 0).count();
        u8::try_from(mapped).expect("at most 48")
    }
}

const _: () = assert!(size_of::<PagePtr>() == 16);
const _: () = assert!(size_of::<PageHeader>() == 64);
const _: () = assert!(size_of::<LeafEntry>() == 80);
const _: () = assert!(size_of::<VolumeRecord>() == 256);
const _: () = assert!(size_of::<LeafPage>() == PAGE_BYTES);
const _: () = assert!(size_of::<InnerPage>() == PAGE_BYTES);
const _: () = assert!(size_of::<CatalogPage>() == PAGE_BYTES);
const _: () = assert!(size_of::<BitsPage>() == PAGE_BYTES);
const _: () = assert!(std::mem::offset_of!(PageHeader, kind) == CRC_START);
const _: () = assert!(std::mem::offset_of!(PageHeader, index) == 16);
const _: () = assert!(std::mem::offset_of!(PageHeader, page) == 32);
const _: () = assert!(std::mem::offset_of!(PageHeader, uuid) == 40);
const _: () = assert!(std::mem::offset_of!(LeafEntry, crc) == 16);
const _: () = assert!(std::mem::offset_of!(LeafPage, entries) == 64);
const _: () = assert!(std::mem::offset_of!(InnerPage, children) == 64);

/// "HFPG".
pub(crate) const PAGE_MAGIC: [u8; 4] = *b"HFPG";
/// First byte of a page that its checksum covers.
pub(crate) const CRC_START: usize = 8;
/// The owner of the catalog's pages.
pub(crate) const OWNER_CATALOG: u32 = u32::MAX;
/// The owner of the space map's pages.
pub(crate) const OWNER_SPACE: u32 = u32::MAX - 1;

/// What a metadata page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Inner = 1,
    Leaf = 2,
    Catalog = 3,
    Space = 4,
}

/// A node of one of the trees: whose, how high, and which one at that height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId {
    pub(crate) owner: u32,
    pub(crate) level: u8,
    pub(crate) index: u64,
}

impl NodeId {
    pub(crate) fn kind(self) -> Kind {
        match (self.level, self.owner) {
            (0, OWNER_CATALOG) => Kind::Catalog,
            (0, OWNER_SPACE) => Kind::Space,
            (0, _) => Kind::Leaf,
            _ => Kind::Inner,
        }
    }

    pub(crate) fn parent(self) -> NodeId {
        NodeId { level: self.level + 1, index: self.index / INNER_CHILDREN as u64, ..self }
    }

    /// Which child of its parent this is.
    pub(crate) fn child_slot(self) -> usize {
        usize::try_from(self.index % INNER_CHILDREN as u64).expect("below 252")
    }

    pub(crate) fn child(self, slot: usize) -> NodeId {
        assert!(self.level > 0);
        NodeId {
            level: self.level - 1,
            index: self.index * INNER_CHILDREN as u64 + slot as u64,
            ..self
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            0 => return f.write_str("superblock"),
            OWNER_CATALOG => write!(f, "catalog")?,
            OWNER_SPACE => write!(f, "space map")?,
            volume => write!(f, "volume {volume}")?,
        }
        write!(f, " level {} index {}", self.level, self.index)
    }
}

/// 4 KiB of metadata in memory.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub(crate) struct Page(pub(crate) [u8; PAGE_BYTES]);

/// Why a page that was read is not the page that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// The device failed the read.
    Unreadable,
    /// It does not start with the magic of a metadata page.
    Magic,
    /// Its contents do not match its own checksum.
    Checksum,
    /// Its checksum is right but not the one that its parent expects: an older version.
    Stale,
    /// It is a page of another store, place or tree.
    Identity,
    /// It holds values that cannot be, such as an extent outside the device.
    Contents,
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageFault::Unreadable => "the device failed the read",
            PageFault::Magic => "not a metadata page",
            PageFault::Checksum => "checksum mismatch",
            PageFault::Stale => "an older version of the page",
            PageFault::Identity => "a page of another place",
            PageFault::Contents => "impossible contents",
        })
    }
}

impl Page {
    pub(crate) fn zeroed() -> Page {
        Page([0; PAGE_BYTES])
    }

    /// Looks at 4 KiB as a page.
    pub(crate) fn from_bytes(bytes: &[u8]) -> &Page {
        Page::ref_from_bytes(bytes).expect("the caller cut 4 KiB")
    }

    /// Looks at 4 KiB as a page.
    pub(crate) fn from_bytes_mut(bytes: &mut [u8]) -> &mut Page {
        Page::mut_from_bytes(bytes).expect("the caller cut 4 KiB")
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    pub(crate) fn header(&self) -> &PageHeader {
        PageHeader::ref_from_prefix(&self.0).expect("a page is larger than its header").0
    }

    pub(crate) fn leaf(&self) -> &LeafPage {
        LeafPage::ref_from_bytes(&self.0).expect("a leaf fills a page")
    }

    pub(crate) fn leaf_mut(&mut self) -> &mut LeafPage {
        LeafPage::mut_from_bytes(&mut self.0).expect("a leaf fills a page")
    }

    pub(crate) fn inner(&self) -> &InnerPage {
        InnerPage::ref_from_bytes(&self.0).expect("an inner page fills a page")
    }

    pub(crate) fn inner_mut(&mut self) -> &mut InnerPage {
        InnerPage::mut_from_bytes(&mut self.0).expect("an inner page fills a page")
    }

    pub(crate) fn catalog(&self) -> &CatalogPage {
        CatalogPage::ref_from_bytes(&self.0).expect("a catalog page fills a page")
    }

    pub(crate) fn catalog_mut(&mut self) -> &mut CatalogPage {
        CatalogPage::mut_from_bytes(&mut self.0).expect("a catalog page fills a page")
    }

    pub(crate) fn bits(&self) -> &BitsPage {
        BitsPage::ref_from_bytes(&self.0).expect("a space map page fills a page")
    }

    pub(crate) fn bits_mut(&mut self) -> &mut BitsPage {
        BitsPage::mut_from_bytes(&mut self.0).expect("a space map page fills a page")
    }

    /// Writes the header for a page at `place` and the checksum; returns the pointer to it. Both
    /// copies are the same bytes: the header has the number of the first.
    pub(crate) fn seal(
        &mut self,
        node: NodeId,
        place: Place,
        generation: u64,
        uuid: &[u8; 16],
        birth: u32,
    ) -> PagePtr {
        let header = PageHeader {
            magic: PAGE_MAGIC,
            crc: U32::new(0),
            kind: node.kind() as u8,
            level: node.level,
            reserved0: U16::new(0),
            owner: U32::new(node.owner),
            index: U64::new(node.index),
            generation: U64::new(generation),
            page: U64::new(place.number()),
            uuid: *uuid,
            birth: U32::new(birth),
            reserved1: U32::new(0),
        };
        self.0[..size_of::<PageHeader>()].copy_from_slice(header.as_bytes());
        let crc = crc32c(&self.0[CRC_START..]);
        self.0[4..8].copy_from_slice(&crc.to_le_bytes());
        PagePtr { page: U64::new(place.raw()), crc: U32::new(crc), birth: U32::new(birth) }
    }

    /// Checks that this is the page that `ptr` points to, as `node` of store `uuid`.
    pub(crate) fn verify(
        &self,
        node: NodeId,
        ptr: &PagePtr,
        uuid: &[u8; 16],
    ) -> Result<(), PageFault> {
        let header = self.header();
        if header.magic != PAGE_MAGIC {
            return Err(PageFault::Magic);
        }
        let matches = header.crc.get() == crc32c(&self.0[CRC_START..]);
        if !matches && !bdev::planted(bdev::Planted::PageUnchecked) {
            return Err(PageFault::Checksum);
        }
        let same = header.uuid == *uuid
            && header.page.get() == ptr.number()
            && header.kind == node.kind() as u8
            && header.level == node.level
            && header.owner.get() == node.owner
            && header.index.get() == node.index;
        if !same {
            return Err(PageFault::Identity);
        }
        if header.crc != ptr.crc || header.birth != ptr.birth {
            return Err(PageFault::Stale);
        }
        Ok(())
    }
}
