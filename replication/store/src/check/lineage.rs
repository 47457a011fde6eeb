//! That what a node shares is still there: in its parent's tree, at the same place.
//!
//! The walk over a node's own pages has shown that each page and extent has one owner. What a node
//! references with an older birth must be what its parent references at the same place. Deleting
//! relies on that: it compares a node with its children alone. By induction the owner above still
//! references it too.

use super::{Check, Finding};
use crate::Store;
use crate::format::{INNER_CHILDREN, NodeId, Page, PagePtr, VolumeRecord};
use crate::tree::first_extent;

/// A place in two trees: a page of the child's own, and what the parent has there.
type Pair = (NodeId, PagePtr, PagePtr);

impl Check<'_> {
    /// Compares every node with its parent.
    pub(super) fn lineage(&mut self, store: &Store) {
        for (slot, record) in store.catalog.iter_slots() {
            // A parent that hands over speaks for what is behind its cut, the one above for the
            // rest.
            let (mut end, mut parent) = (u64::MAX, record.parent());
            while let Some(above) = parent.and_then(|id| store.catalog.find(id)) {
                self.compare_with(store, slot, above, end);
                end = above.cut.get();
                parent = above.parent().filter(|_| end > 0);
            }
        }
    }

    /// Compares a node's own pages with the parent's, between the parent's cut and `end`.
    fn compare_with(&mut self, store: &Store, slot: usize, above: &VolumeRecord, end: u64) {
        let record = store.catalog.record(slot);
        let places = above.cut.get()..end;
        let root = |level| NodeId { owner: record.id.get(), level, index: 0 };
        let mut todo: Vec<Pair> = Vec::new();
        // The child's tree may have grown above the parent's root.
        let (mut level, mut ptr) = (record.depth, record.root);
        while level > above.depth && store.owns(slot, root(level), ptr.birth.get()) {
            let Some(page) = self.quietly(store, root(level), ptr) else { return };
            let others = page.inner().children.iter().zip(0..).skip(1);
            todo.extend(others.map(|(&ptr, index)| {
                (NodeId { level: level - 1, index, ..root(level) }, ptr, PagePtr::NONE)
            }));
            (level, ptr) = (level - 1, page.inner().children[0]);
        }
        let over = if level == above.depth { above.root } else { PagePtr::NONE };
        todo.push((root(level), ptr, over));
        while let Some((node, ptr, over)) = todo.pop() {
            if ptr.is_none() {
                continue;
            }
            if !store.owns(slot, node, ptr.birth.get()) {
                if places.contains(&first_extent(node)) && ptr != over {
                    let page = ptr.number();
                    self.ledger.find(Finding::NotShared { node: node.to_string(), page });
                }
                continue;
            }
            let Some(page) = self.quietly(store, node, ptr) else { continue };
            let has_over = !over.is_none();
            let over = self.quietly(store, NodeId { owner: above.id.get(), ..node }, over);
            if has_over && over.is_none() {
                continue;
            }
            if node.level == 0 {
                let bound = store.catalog.bound(slot, first_extent(node));
                self.compare_leaves(node, bound, &places, &page, over.as_deref());
                continue;
            }
            for at in 0..INNER_CHILDREN {
                let over = over.as_ref().map_or(PagePtr::NONE, |page| page.inner().children[at]);
                todo.push((node.child(at), page.inner().children[at], over));
            }
        }
    }

    fn compare_leaves(
        &mut self,
        leaf: NodeId,
        bound: u32,
        places: &std::ops::Range<u64>,
        page: &Page,
        over: Option<&Page>,
    ) {
        for (i, entry) in page.leaf().entries.iter().enumerate() {
            let index = first_extent(leaf) + i as u64;
            let shared = entry.extent().filter(|_| entry.birth() <= bound);
            let Some(extent) = shared.filter(|_| places.contains(&index)) else { continue };
            if over.and_then(|over| over.leaf().entries[i].extent()) != Some(extent) {
                let (volume, extent) = (leaf.owner, extent.number());
                self.ledger.find(Finding::ExtentNotShared { volume, index, extent });
            }
        }
    }

    /// A page that was read before: what is wrong with it was found then.
    fn quietly(&mut self, store: &Store, node: NodeId, ptr: PagePtr) -> Option<Box<Page>> {
        if ptr.is_none() {
            return None;
        }
        let header = store.catalog.header_node(node);
        [Some(ptr.number()), ptr.twin()].into_iter().flatten().find_map(|number| {
            let bytes = self.reader.read(number, 1).ok()?;
            let page = Page::from_bytes(&bytes);
            page.verify(header, &ptr, &store.superblock.uuid).ok()?;
            Some(Box::new(page.clone()))
        })
    }
}
