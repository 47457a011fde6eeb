//! Offline verification: everything that the newest superblock reaches, against the space map.
//! Each page and each extent must have exactly one owner, a volume or a snapshot, and what others
//! share must be what their parents have at the same place.
//!
//! It reads only, drives the queue itself and allocates as it likes: no store may be mounted on the
//! device meanwhile. What is checked is the last durable checkpoint. Data blocks that were destaged
//! in place after it differ from the checksums in it until the log is replayed, so their checksums
//! are only worth checking ([`CheckOptions::data`]) when the store was shut down with an empty log.

mod lineage;

use bdev::{Data, Fifo, Info, Pool, Queue, Request, Status};

use crate::format::{
    InnerPage, Kind, NodeId, Page, PageFault, PagePtr, SlotFault, Superblock, crc32c,
};
use crate::io::{Geometry, slot_page};
use crate::ledger::{CheckReport, Finding, Ledger, damage_of};
use crate::limits::{EXTENT_BLOCKS, FRAMES_MIN, META_EXTENTS_START, PAGE_BYTES};
use crate::loads::{check_page, is_inside};
use crate::mount::check_superblock;
use crate::tree::first_extent;
use crate::{Extent, MountError, Options, Store, VolumeId};

/// What to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Read every written block and compare it with its checksum.
    pub data: bool,
}

/// Checks the store on a device whose queue nobody else uses.
pub fn check(
    queue: &mut dyn Queue,
    info: &Info,
    pool: &Pool,
    options: &CheckOptions,
) -> CheckReport {
    let reader = Reader { queue, pool, geometry: Geometry::new(info) };
    let mut check = Check { reader, ledger: Ledger::new(0, 0) };
    if let Some(superblock) = check.superblock(info.byte_len()) {
        check.run(superblock, options);
    }
    check.ledger.report
}

struct Check<'a> {
    reader: Reader<'a>,
    ledger: Ledger,
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
                Err(fault) => self.ledger.find(Finding::Superblock { slot, fault }),
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
            self.ledger.find(Finding::Unusable(error));
            return None;
        }
        Some(newest)
    }

    fn run(&mut self, superblock: Superblock, options: &CheckOptions) {
        let report = std::mem::take(&mut self.ledger.report);
        self.ledger = Ledger::new(superblock.area_end.get(), META_EXTENTS_START);
        self.ledger.report = report;
        self.ledger.report.generation = superblock.generation.get();
        let (catalog, space) = (superblock.catalog, superblock.space);
        let options_small = Options { frames: FRAMES_MIN };
        let mut store = Store::empty(superblock, self.reader.geometry, &options_small);
        let nodes = (store.catalog_tree.root_node(), store.space_tree.root_node());
        self.walk(&mut store, space, nodes.1, options);
        self.walk(&mut store, catalog, nodes.0, options);
        if let Err((what, id)) = store.catalog.check_forest() {
            let at = u64::from(id);
            return self.ledger.find(Finding::Unusable(MountError::Inconsistent { what, at }));
        }
        let nodes: Vec<_> = store.catalog.iter().copied().collect();
        self.ledger.count_nodes(nodes.iter());
        for record in nodes {
            let node = NodeId { owner: record.id.get(), level: record.depth, index: 0 };
            self.walk(&mut store, record.root, node, options);
        }
        self.lineage(&store);
        self.ledger.compare(&store.space, |_| {});
    }

    /// Walks everything below a root.
    fn walk(&mut self, store: &mut Store, root: PagePtr, node: NodeId, options: &CheckOptions) {
        let mut todo = vec![(node, root)];
        while let Some((node, ptr)) = todo.pop() {
            if ptr.is_none() {
                continue;
            }
            if let Err(fault) = self.visit(store, node, &ptr, &mut todo, options) {
                self.ledger.lost(damage_of(node, ptr.number(), fault, false));
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
        let slot = store.catalog.slot(VolumeId(node.owner));
        if slot.is_some_and(|slot| !store.owns(slot, node, ptr.birth.get())) {
            return Ok(());
        }
        if !is_inside(ptr, &store.space) {
            return Err(PageFault::Contents);
        }
        if !self.ledger.page(ptr) {
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
        self.ledger.find(Finding::Copy(damage_of(node, page, fault, false)));
        Ok(whole)
    }

    fn leaf(&mut self, store: &Store, node: NodeId, page: &Page, options: &CheckOptions) {
        let leaf = page.leaf();
        let slot = store.catalog.slot(VolumeId(node.owner)).expect("its tree is walked");
        let bound = store.catalog.bound(slot, first_extent(node));
        for (i, entry) in leaf.entries.iter().enumerate() {
            let owned = entry.extent().filter(|_| entry.birth() > bound);
            let Some(extent) = owned else { continue };
            if !self.ledger.extent(node.owner, extent) {
                continue;
            }
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
            self.ledger.report.blocks += 1;
            let status = match &read {
                Ok(bytes) => {
                    let data = &bytes[block * PAGE_BYTES..(block + 1) * PAGE_BYTES];
                    if crc32c(data) == expected { continue } else { Status::Integrity }
                }
                Err(status) => *status,
            };
            let (block, extent) = (first + block as u64, extent.number());
            self.ledger.find(Finding::Block { volume, block, extent, status });
        }
    }
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
