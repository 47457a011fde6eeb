//! Offline verification: everything that the newest superblock reaches, against the space map.
//! Each page and each extent must have exactly one owner, a volume or a snapshot, and what others
//! share must be what their parents have at the same place.
//!
//! It reads only, drives the queue itself and allocates as it likes: no store may be mounted on the
//! device meanwhile. What is checked is the last durable checkpoint. Data blocks that were destaged
//! in place after it differ from the checksums in it until the log is replayed, so their checksums
//! are only worth checking ([`CheckOptions::data`]) when the store was shut down with an empty log.

mod lineage;

use std::collections::HashSet;
use std::fmt;

use bdev::{Data, Fifo, Info, Pool, Queue, Request, Status};

use crate::format::{
    InnerPage, Kind, NodeId, NodeKind, Page, PageFault, PagePtr, SlotFault, Superblock, crc32c,
};
use crate::io::{Geometry, slot_page};
use crate::limits::{EXTENT_BLOCKS, FINDINGS_MAX, FRAMES_MIN, PAGE_BYTES};
use crate::loads::{check_page, is_inside};
use crate::mount::check_superblock;
use crate::tree::first_extent;
use crate::{Damage, Extent, MountError, Options, Store, VolumeId};

/// What to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Read every written block and compare it with its checksum.
    pub data: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A copy of the superblock (0 or 1) cannot be used.
    Superblock {
        /// Which copy.
        slot: u32,
        /// What is wrong with it.
        fault: SlotFault,
    },
    /// The store cannot be mounted at all.
    Unusable(MountError),
    /// A metadata page cannot be used; everything below it is unknown.
    Page(Damage),
    /// One of the two copies of a metadata page cannot be used. Nothing is lost.
    Copy(Damage),
    /// Two places reference the same metadata page.
    PageTwice {
        /// The page.
        page: u64,
    },
    /// Two places reference the same extent.
    ExtentTwice {
        /// The extent.
        extent: u64,
        /// The second volume that references it, or none for metadata.
        volume: Option<u32>,
    },
    /// An extent is referenced, but free in the space map.
    NotAllocated {
        /// The extent.
        extent: u64,
    },
    /// An extent is in use in the space map, but nothing references it.
    Leaked {
        /// The extent.
        extent: u64,
    },
    /// A node references a page of an ancestor that its parent does not reference there.
    NotShared {
        /// Which page of which node it should be, for people.
        node: String,
        /// The page.
        page: u64,
    },
    /// A node references an extent of an ancestor that its parent does not reference there.
    ExtentNotShared {
        /// The volume or snapshot.
        volume: u32,
        /// The extent's index in it.
        index: u64,
        /// The extent.
        extent: u64,
    },
    /// A block does not match its checksum, or cannot be read.
    Block {
        /// The volume.
        volume: u32,
        /// Block of 4 KiB in the volume.
        block: u64,
        /// Extent that holds it.
        extent: u64,
        /// How the read ended: [`Status::Integrity`] for a mismatch.
        status: Status,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Superblock { slot, fault } => write!(f, "superblock copy {slot}: {fault}"),
            Finding::Unusable(error) => write!(f, "{error}"),
            Finding::Page(damage) => write!(f, "damaged metadata: {damage}"),
            Finding::Copy(damage) => write!(f, "damaged copy of metadata: {damage}"),
            Finding::PageTwice { page } => write!(f, "page {page} is referenced twice"),
            Finding::ExtentTwice { extent, volume: Some(volume) } => {
                write!(f, "extent {extent} is referenced again by volume {volume}")
            }
            Finding::ExtentTwice { extent, volume: None } => {
                write!(f, "extent {extent} is referenced again by metadata")
            }
            Finding::NotAllocated { extent } => {
                write!(f, "extent {extent} is referenced but free in the space map")
            }
            Finding::Leaked { extent } => {
                write!(f, "extent {extent} is in use in the space map but not referenced")
            }
            Finding::NotShared { node, page } => {
                write!(f, "page {page} ({node}) is shared, but not with its parent")
            }
            Finding::ExtentNotShared { volume, index, extent } => {
                write!(f, "extent {extent} (volume {volume}, extent {index} of it) is shared, ")?;
                f.write_str("but not with its parent")
            }
            Finding::Block { volume, block, extent, status } => {
                write!(f, "volume {volume} block {block} (extent {extent}): {status:?}")
            }
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// What is wrong; at most [`crate::FINDINGS_MAX`], `dropped` counts the rest.
    pub findings: Vec<Finding>,
    /// Findings beyond the limit.
    pub dropped: u64,
    /// Extents in use that nothing references; zero when damage hides part of the map.
    pub leaked: u64,
    /// Volumes, those being deleted and the remains of restored ones included.
    pub volumes: u64,
    /// Snapshots, those being deleted included.
    pub snapshots: u64,
    /// Metadata pages referenced, second copies included.
    pub pages: u64,
    /// Data extents referenced.
    pub extents: u64,
    /// Data blocks that were read.
    pub blocks: u64,
    /// Generation of the checkpoint that was checked.
    pub generation: u64,
}

impl CheckReport {
    /// True when nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Checks the store on a device whose queue nobody else uses.
pub fn check(
    queue: &mut dyn Queue,
    info: &Info,
    pool: &Pool,
    options: &CheckOptions,
) -> CheckReport {
    let reader = Reader { queue, pool, geometry: Geometry::new(info) };
    let mut check = Check {
        reader,
        report: CheckReport::default(),
        pages: HashSet::new(),
        data: Vec::new(),
        incomplete: false,
    };
    if let Some(superblock) = check.superblock(info.byte_len()) {
        check.run(superblock, options);
    }
    check.report
}

struct Check<'a> {
    reader: Reader<'a>,
    report: CheckReport,
    pages: HashSet<u64>,
    /// One bit for each extent: referenced as data.
    data: Vec<u64>,
    incomplete: bool,
}

impl Check<'_> {
    fn superblock(&mut self, device_bytes: u64) -> Option<Superblock> {
        let mut newest: Option<Superblock> = None;
        for slot in 0..2 {
            let found = match self.reader.read(slot_page(slot), 1) {
                Ok(bytes) => Superblock::parse(&bytes, slot),
                Err(_) => Err(SlotFault::Unreadable),
            };
            match found {
                Err(fault) => self.find(Finding::Superblock { slot, fault }),
                Ok(copy) => {
                    let generation = |s: &Superblock| s.generation.get();
                    if newest.as_ref().is_none_or(|old| generation(old) < generation(&copy)) {
                        newest = Some(copy);
                    }
                }
            }
        }
        let newest = newest?;
        if let Err(error) = check_superblock(&newest, device_bytes) {
            self.find(Finding::Unusable(error));
            return None;
        }
        Some(newest)
    }

    fn run(&mut self, superblock: Superblock, options: &CheckOptions) {
        self.report.generation = superblock.generation.get();
        let (catalog, space) = (superblock.catalog, superblock.space);
        let words = usize::try_from(superblock.area_end.get().div_ceil(64)).expect("in memory");
        self.data = vec![0; words];
        let options_small = Options { frames: FRAMES_MIN };
        let mut store = Store::empty(superblock, self.reader.geometry, &options_small);
        let nodes = (store.catalog_tree.root_node(), store.space_tree.root_node());
        self.walk(&mut store, space, nodes.1, options);
        self.walk(&mut store, catalog, nodes.0, options);
        if let Err((what, id)) = store.catalog.check_forest() {
            let at = u64::from(id);
            return self.find(Finding::Unusable(MountError::Inconsistent { what, at }));
        }
        let nodes: Vec<_> = store.catalog.iter().copied().collect();
        let snapshots = nodes.iter().filter(|node| node.kind() == NodeKind::Snapshot).count();
        self.report.snapshots = snapshots as u64;
        self.report.volumes = (nodes.len() - snapshots) as u64;
        for record in nodes {
            let node = NodeId { owner: record.id.get(), level: record.depth, index: 0 };
            self.walk(&mut store, record.root, node, options);
        }
        self.lineage(&store);
        self.report.pages = self.pages.len() as u64;
        self.compare(&store);
    }

    /// Walks everything below a root.
    fn walk(&mut self, store: &mut Store, root: PagePtr, node: NodeId, options: &CheckOptions) {
        let mut todo = vec![(node, root)];
        while let Some((node, ptr)) = todo.pop() {
            if ptr.is_none() {
                continue;
            }
            if let Err(fault) = self.visit(store, node, &ptr, &mut todo, options) {
                self.incomplete = true;
                self.find(Finding::Page(damage_of(node, ptr.number(), fault)));
            }
        }
    }

    fn visit(
        &mut self,
        store: &mut Store,
        node: NodeId,
        ptr: &PagePtr,
        todo: &mut Vec<(NodeId, PagePtr)>,
        options: &CheckOptions,
    ) -> Result<(), PageFault> {
        let number = ptr.number();
        let slot = store.catalog.slot(VolumeId(node.owner));
        if slot.is_some_and(|slot| !store.owns(slot, node, ptr.birth.get())) {
            return Ok(());
        }
        if !is_inside(ptr, &store.space) {
            return Err(PageFault::Contents);
        }
        let twice = [Some(number), ptr.twin()].into_iter().flatten().any(|p| !self.pages.insert(p));
        if twice {
            self.find(Finding::PageTwice { page: number });
            return Ok(());
        }
        let bytes = self.copies(store, node, ptr)?;
        let page = Page::from_bytes(&bytes);
        let index = usize::try_from(node.index).map_err(|_| PageFault::Contents)?;
        let sane = match node.kind() {
            Kind::Inner => {
                push_children(node, page.inner(), todo);
                true
            }
            Kind::Catalog => store.catalog.read_page(index, page.catalog()),
            Kind::Space => {
                index < store.space.pages() && store.space.read_page(index, &page.bits().words)
            }
            Kind::Leaf => {
                self.leaf(store, node, page, options);
                true
            }
        };
        if sane { Ok(()) } else { Err(PageFault::Contents) }
    }

    /// Reads both copies of a page; names one that is bad while the other is whole.
    fn copies(&mut self, store: &Store, node: NodeId, ptr: &PagePtr) -> Result<Vec<u8>, PageFault> {
        let header = store.catalog.header_node(node);
        let mut read = |page| {
            let bytes = self.reader.read(page, 1).map_err(|_| PageFault::Unreadable)?;
            let uuid = &store.superblock.uuid;
            check_page(Page::from_bytes(&bytes), header, ptr, uuid, &store.space).map(|_| bytes)
        };
        let first = read(ptr.number());
        let Some(twin) = ptr.twin() else { return first };
        let (whole, page, fault) = match (first, read(twin)) {
            (Ok(first), Ok(_)) => return Ok(first),
            (Err(fault), Err(_)) => return Err(fault),
            (Ok(first), Err(fault)) => (first, twin, fault),
            (Err(fault), Ok(second)) => (second, ptr.number(), fault),
        };
        self.find(Finding::Copy(damage_of(node, page, fault)));
        Ok(whole)
    }

    fn leaf(&mut self, store: &Store, node: NodeId, page: &Page, options: &CheckOptions) {
        let leaf = page.leaf();
        let slot = store.catalog.slot(VolumeId(node.owner)).expect("its tree is walked");
        let bound = store.catalog.bound(slot, first_extent(node));
        for (i, entry) in leaf.entries.iter().enumerate() {
            let owned = entry.extent().filter(|_| entry.birth() > bound);
            let Some(extent) = owned else { continue };
            let (word, mask) = (extent.index() / 64, 1 << (extent.index() % 64));
            if self.data[word] & mask != 0 {
                let volume = Some(node.owner);
                self.find(Finding::ExtentTwice { extent: extent.number(), volume });
                continue;
            }
            self.data[word] |= mask;
            self.report.extents += 1;
            if options.data && entry.written() != 0 {
                let first =
                    (node.index * leaf.entries.len() as u64 + i as u64) * EXTENT_BLOCKS as u64;
                self.blocks(node.owner, first, extent, |block| entry.block_crc(block));
            }
        }
    }

    fn blocks(
        &mut self,
        volume: u32,
        first: u64,
        extent: Extent,
        crc: impl Fn(usize) -> Option<u32>,
    ) {
        let pages = u32::try_from(EXTENT_BLOCKS).expect("16");
        let read = self.reader.read(extent.number() * EXTENT_BLOCKS as u64, pages);
        for block in 0..EXTENT_BLOCKS {
            let Some(expected) = crc(block) else { continue };
            self.report.blocks += 1;
            let status = match &read {
                Ok(bytes) => {
                    let data = &bytes[block * PAGE_BYTES..(block + 1) * PAGE_BYTES];
                    if crc32c(data) == expected { continue } else { Status::Integrity }
                }
                Err(status) => *status,
            };
            let (block, extent) = (first + block as u64, extent.number());
            self.find(Finding::Block { volume, block, extent, status });
        }
    }

    /// Compares what is referenced with the space map, 64 extents at a time.
    fn compare(&mut self, store: &Store) {
        let mut meta = vec![0u64; self.data.len()];
        for extent in self.pages.iter().map(|page| page / EXTENT_BLOCKS as u64) {
            let at = usize::try_from(extent / 64).expect("pages were checked to lie in the area");
            meta[at] |= 1 << (extent % 64);
        }
        for (word, meta) in meta.into_iter().enumerate() {
            let (data, mapped) = (self.data[word], store.space.mapped_word(word));
            for extent in bits(word, data & meta) {
                self.find(Finding::ExtentTwice { extent, volume: None });
            }
            for extent in bits(word, (data | meta) & !mapped) {
                self.find(Finding::NotAllocated { extent });
            }
            if self.incomplete {
                continue; // What hides below the damage may well be referenced.
            }
            for extent in bits(word, mapped & !(data | meta)) {
                self.report.leaked += 1;
                self.find(Finding::Leaked { extent });
            }
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else {
            self.report.dropped += 1;
        }
    }
}

fn damage_of(node: NodeId, page: u64, fault: PageFault) -> Damage {
    Damage { page, node: node.to_string(), fault, healed: false }
}

/// The numbers of the extents whose bits are set in a word.
fn bits(word: usize, mut bits: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| u64::from(bits.trailing_zeros()))?;
        bits &= bits - 1;
        Some(word as u64 * 64 + bit)
    })
}

fn push_children(node: NodeId, inner: &InnerPage, todo: &mut Vec<(NodeId, PagePtr)>) {
    for (slot, ptr) in inner.children.iter().enumerate().filter(|(_, ptr)| !ptr.is_none()) {
        todo.push((node.child(slot), *ptr));
    }
}

/// One read at a time.
struct Reader<'a> {
    queue: &'a mut dyn Queue,
    pool: &'a Pool,
    geometry: Geometry,
}

impl Reader<'_> {
    fn read(&mut self, page: u64, pages: u32) -> Result<Vec<u8>, Status> {
        let bytes = pages as usize * PAGE_BYTES;
        let buf = self.pool.take(bytes).ok_or(Status::Retry)?;
        let mut requests: Fifo<Request> = Fifo::new(1);
        let request = self.geometry.read(0, page, pages, buf);
        assert!(requests.push(request).is_ok(), "it is empty");
        let mut completions = Fifo::new(1);
        loop {
            self.queue.submit(&mut requests);
            self.queue.kick();
            self.queue.poll(&mut completions);
            let Some(completion) = completions.pop() else { continue };
            return match completion.data {
                Data::Into(buf) if completion.status.is_ok() => Ok(buf.bytes()[..bytes].to_vec()),
                _ if completion.status.is_ok() => Err(Status::Io),
                _ => Err(completion.status),
            };
        }
    }
}
