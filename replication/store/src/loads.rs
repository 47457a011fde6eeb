//! Loading pages of the volumes' trees on demand.

use bdev::{Completion, Data, Fifo, Pool, Request};

use crate::cache::FrameState;
use crate::format::{Kind, NodeId, Page, PageFault, PagePtr};
use crate::limits::{EXTENT_BLOCKS, LOAD_ATTEMPTS_MAX, LOADS_MAX, PAGE_BYTES};
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

    pub(crate) fn poll_loads(&mut self, requests: &mut Fifo<Request>, pool: &Pool) {
        while self.loads_in_flight < LOADS_MAX && !requests.is_full() {
            let Some(&frame) = self.load_queue.front() else { return };
            let Some(buf) = pool.take(PAGE_BYTES) else { return };
            let page = self.cache.frame(frame).ptr.page.get();
            let request = self.geometry.read(frame, page, 1, buf);
            assert!(requests.push(request).is_ok(), "room was checked");
            self.load_queue.pop();
            self.loads_in_flight += 1;
        }
    }

    pub(crate) fn on_load(&mut self, frame: u32, completion: Completion) {
        self.loads_in_flight -= 1;
        let (node, ptr) = (self.cache.frame(frame).node, self.cache.frame(frame).ptr);
        assert_eq!(self.cache.frame(frame).state, FrameState::Loading);
        let checked = match completion.data {
            Data::Into(buf) if completion.status.is_ok() => {
                let page = Page::from_bytes(&buf.bytes()[..PAGE_BYTES]);
                let header = NodeId { owner: self.cache.frame(frame).family, ..node };
                let checked = check_page(page, header, &ptr, &self.superblock.uuid, &self.space)
                    .and_then(|mapped| self.check_extents(page, node).map(|()| mapped));
                if checked.is_ok() {
                    self.cache.page_mut(frame).0.copy_from_slice(&page.0);
                }
                checked
            }
            _ => Err(PageFault::Unreadable),
        };
        let attempts = self.cache.frame(frame).attempts + 1;
        if checked.is_err() && attempts < LOAD_ATTEMPTS_MAX {
            self.cache.frame_mut(frame).attempts = attempts;
            assert!(self.load_queue.push(frame).is_ok(), "one place for each frame");
            return;
        }
        self.loads += 1;
        match checked {
            Ok(mapped) => {
                self.cache.frame_mut(frame).state = FrameState::Ready;
                self.cache.frame_mut(frame).mapped = mapped;
            }
            Err(fault) => {
                self.cache.frame_mut(frame).state = FrameState::Damaged;
                self.damaged += 1;
                let damage = Damage { page: ptr.page.get(), node: node.to_string(), fault };
                self.report(damage);
            }
        }
    }
}

impl Store {
    /// A leaf that is read back was written by a checkpoint whose space map has its extents.
    fn check_extents(&self, page: &Page, node: NodeId) -> Result<(), PageFault> {
        if node.kind() != Kind::Leaf {
            return Ok(());
        }
        let mut extents = page.leaf().entries.iter().filter_map(|entry| entry.extent());
        let all = extents.all(|extent| self.space.state(extent) == ExtentState::Mapped);
        if all { Ok(()) } else { Err(PageFault::Contents) }
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
            Ok(page.leaf().mapped())
        }
        Kind::Inner => {
            let pages = || page.inner().children.iter().map(|child| child.page.get());
            let inside = |page: u64| space.contains(page / EXTENT_BLOCKS as u64);
            if pages().any(|page| page != 0 && !inside(page)) {
                return Err(PageFault::Contents);
            }
            Ok(0)
        }
        Kind::Catalog | Kind::Space => Ok(0),
    }
}
