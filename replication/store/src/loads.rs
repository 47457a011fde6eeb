//! Loading pages of the volumes' trees on demand.

use bdev::{Buffers, Completion, Data, Fifo, Request};

use crate::cache::FrameState;
use crate::format::{Kind, NodeId, Page, PageFault, PagePtr};
use crate::limits::{EXTENT_BLOCKS, LOAD_ATTEMPTS_MAX, LOADS_MAX, PAGE_BYTES};
use crate::repair::{Copy, Repair};
use crate::space::SpaceMap;
use crate::{Damage, ExtentState, Store, VolumeId};

impl Store {
    /// Asks for the page of `node`. Nothing happens when every frame is pinned: some load is then
    /// in flight, and its end makes the caller ask again.
    pub(crate) fn start_load(&mut self, node: NodeId, ptr: PagePtr) {
        let record = self.catalog.find(VolumeId(node.owner)).expect("walks start at a record");
        let family = record.family.get();
        let Some(frame) = self.cache.take(node, ptr, FrameState::Loading) else { return };
        self.cache.frame_mut(frame).family = family;
        assert!(self.load_queue.push(frame).is_ok(), "one place for each frame");
    }

    pub(crate) fn poll_loads(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        while self.loads_in_flight < LOADS_MAX && !requests.is_full() {
            let Some(&frame) = self.load_queue.front() else { return };
            let Some(buf) = pool.take(PAGE_BYTES) else { return };
            let at = self.cache.frame(frame);
            let (_, page) = copy_to_read(&at.ptr, at.attempts).expect("it is read once more");
            let request = self.geometry.read(frame, page, 1, buf);
            assert!(requests.push(request).is_ok(), "room was checked");
            self.load_queue.pop();
            self.loads_in_flight += 1;
        }
    }

    pub(crate) fn on_load(&mut self, frame: u32, completion: Completion) {
        self.loads_in_flight -= 1;
        let at = *self.cache.frame(frame);
        assert_eq!(at.state, FrameState::Loading);
        let checked = match completion.data {
            Data::Into(buf) if completion.status.is_ok() => {
                let page = Page::from_bytes(&buf.bytes()[..PAGE_BYTES]);
                let header = NodeId { owner: at.family, ..at.node };
                let checked = check_page(page, header, &at.ptr, &self.superblock.uuid, &self.space)
                    .and_then(|mapped| self.check_extents(page, at.node).map(|()| mapped));
                if checked.is_ok() {
                    self.cache.page_mut(frame).0.copy_from_slice(&page.0);
                }
                checked
            }
            _ => Err(PageFault::Unreadable),
        };
        match checked {
            Ok(mapped) => self.end_load(frame, Some(mapped)),
            Err(fault) => {
                let slot = self.cache.frame_mut(frame);
                slot.fault.get_or_insert(fault);
                slot.unreadable |= fault == PageFault::Unreadable;
                slot.attempts += 1;
                if copy_to_read(&at.ptr, at.attempts + 1).is_some() {
                    assert!(self.load_queue.push(frame).is_ok(), "one place for each frame");
                } else {
                    self.end_load(frame, None);
                }
            }
        }
    }

    /// A page is in memory, or none of its copies can be used.
    fn end_load(&mut self, frame: u32, mapped: Option<u8>) {
        self.loads += 1;
        let slot = self.cache.frame_mut(frame);
        slot.state = if mapped.is_some() { FrameState::Ready } else { FrameState::Damaged };
        slot.mapped = mapped.unwrap_or(0);
        let at = *slot;
        let Some(fault) = at.fault else { return };
        match copy_to_read(&at.ptr, at.attempts) {
            Some((Copy::First, _)) => {} // A bad transfer, that is all.
            Some((Copy::Second, _)) => self.mend(at.node, at.ptr, Copy::First, fault),
            None => self.lost(at.node, &at.ptr, fault),
        }
    }

    /// Notes a damaged copy of a page whose other copy is whole.
    pub(crate) fn mend(&mut self, node: NodeId, ptr: PagePtr, bad: Copy, fault: PageFault) {
        self.damaged += 1;
        self.repairs.push(Repair { header: self.catalog.header_node(node), ptr, bad });
        let page = bad.page(&ptr).expect("a copy that was read is there");
        self.report(Damage { page, node: node.to_string(), fault, healed: true });
    }

    /// Notes a page that is lost.
    pub(crate) fn lost(&mut self, node: NodeId, ptr: &PagePtr, fault: PageFault) {
        self.damaged += 1;
        let (page, healed) = (ptr.number(), false);
        self.report(Damage { page, node: node.to_string(), fault, healed });
    }

    /// A leaf that is read back was written by a checkpoint whose space map has its extents.
    fn check_extents(&self, page: &Page, node: NodeId) -> Result<(), PageFault> {
        if node.kind() != Kind::Leaf {
            return Ok(());
        }
        let mut extents = page.leaf().entries.iter().filter_map(|entry| entry.extent());
        let fits =
            |extent| self.space.state(extent) == ExtentState::Mapped && !self.meta.contains(extent);
        if extents.all(fits) { Ok(()) } else { Err(PageFault::Contents) }
    }
}

/// Which copy of a page is read, and where it is, after `attempts` that failed. `None` when both
/// copies were read often enough.
pub(crate) fn copy_to_read(ptr: &PagePtr, attempts: u8) -> Option<(Copy, u64)> {
    match attempts / LOAD_ATTEMPTS_MAX {
        0 => Some((Copy::First, ptr.number())),
        1 => Some((Copy::Second, ptr.twin()?)),
        _ => None,
    }
}

/// Checks a page of a tree; returns how many of its entries are mapped (leaves only).
pub(crate) fn check_page(
    page: &Page,
    node: NodeId,
    ptr: &PagePtr,
    uuid: &[u8; 16],
    space: &SpaceMap,
) -> Result<u8, PageFault> {
    page.verify(node, ptr, uuid)?;
    match node.kind() {
        Kind::Leaf => {
            let numbers = || page.leaf().entries.iter().map(|entry| entry.extent_number());
            if numbers().any(|number| number != 0 && !space.contains(number)) {
                return Err(PageFault::Contents);
            }
            // Nothing is younger than the page that speaks of it: ownership relies on that.
            if !page.leaf().is_born_by(ptr.birth.get()) {
                return Err(PageFault::Contents);
            }
            Ok(page.leaf().mapped())
        }
        Kind::Inner => {
            let mut children = page.inner().children.iter();
            // Nothing is younger than the page that speaks of it.
            let born = |child: &PagePtr| child.birth.get() <= ptr.birth.get();
            let fits = children.all(|c| c.is_none() || (is_inside(c, space) && born(c)));
            if fits { Ok(0) } else { Err(PageFault::Contents) }
        }
        Kind::Catalog | Kind::Space => Ok(0),
    }
}

/// True when both copies of a page lie in the area.
pub(crate) fn is_inside(ptr: &PagePtr, space: &SpaceMap) -> bool {
    let inside = |page: u64| space.contains(page / EXTENT_BLOCKS as u64);
    inside(ptr.number()) && ptr.twin().is_none_or(inside)
}
