//! What the children of a node have at the same place of their trees.
//!
//! Pages of the children are loaded one after the other, and what was found is remembered: a
//! snapshot with a thousand clones is compared with a cache of a few pages. That is safe because a
//! child may lose what it shares at any time, but never gets it back; who finds out later that it
//! lost something has waited a little longer.

use crate::Store;
use crate::VolumeId;
use crate::cache::FrameState;
use crate::format::{LEAF_ENTRIES, LeafPage, NodeId, PagePtr};
use crate::limits::{DEPTH_MAX, NODES_MAX};
use crate::tree::Walk;

/// A comparison of one node with its children, along a walk over its tree.
pub(crate) struct Comparer {
    node: u32,
    /// Slots of its children, as of this shape of the catalog.
    children: Vec<usize>,
    shape: u64,
    /// By level: the page on the way that is in no child's tree. It never will be.
    alone: [Option<u64>; DEPTH_MAX as usize + 1],
    /// The page that is being compared, how many children were asked, and which entries of the
    /// leaf one of them has.
    at: NodeId,
    asked: usize,
    kept: u64,
}

const NOTHING: NodeId = NodeId { owner: 0, level: 0, index: 0 };
const _: () = assert!(LEAF_ENTRIES <= 64);

impl Comparer {
    pub(crate) fn new() -> Comparer {
        let children = Vec::with_capacity(NODES_MAX);
        Comparer { children, ..Comparer::default() }
    }

    pub(crate) fn children(&self) -> &[usize] {
        &self.children
    }

    fn start(&mut self, at: NodeId) {
        if self.at != at {
            (self.at, self.asked, self.kept) = (at, 0, 0);
        }
    }
}

/// For taking one out of the store while it is used: it has no room for children.
impl Default for Comparer {
    fn default() -> Comparer {
        Comparer {
            node: 0,
            children: Vec::new(),
            shape: 0,
            alone: [None; DEPTH_MAX as usize + 1],
            at: NOTHING,
            asked: 0,
            kept: 0,
        }
    }
}

impl Store {
    /// Makes sure that the children are those of the node in `slot`, as they are now.
    pub(crate) fn find_children(&self, comparer: &mut Comparer, slot: usize) {
        let id = self.catalog.record(slot).id.get();
        let shape = self.catalog.shape();
        if (comparer.node, comparer.shape) == (id, shape) {
            return;
        }
        let Comparer { mut children, .. } = std::mem::take(comparer);
        children.clear();
        let all = self.catalog.iter_slots().filter(|(_, r)| r.parent() == Some(VolumeId(id)));
        children.extend(all.map(|(slot, _)| slot));
        *comparer = Comparer { node: id, children, shape, ..Comparer::default() };
    }

    /// Whether a child has the very page `ptr` at the place of `node`.
    pub(crate) fn is_page_shared(
        &mut self,
        comparer: &mut Comparer,
        node: NodeId,
        ptr: PagePtr,
    ) -> Result<bool, Walk> {
        let level = usize::from(node.level);
        if comparer.alone[level] == Some(node.index) {
            return Ok(false);
        }
        comparer.start(node);
        while let Some(&child) = comparer.children.get(comparer.asked) {
            let place = NodeId { owner: self.catalog.record(child).id.get(), ..node };
            if self.dirty_frame(place).is_none() && self.pointer(child, place)? == ptr {
                return Ok(true);
            }
            comparer.asked += 1;
        }
        comparer.alone[level] = Some(node.index);
        comparer.at = NOTHING;
        Ok(false)
    }

    /// The entries of the leaf in `frame` that some child has at the same place, as bits.
    pub(crate) fn shared_entries(
        &mut self,
        comparer: &mut Comparer,
        leaf: NodeId,
        frame: u32,
    ) -> Result<u64, Walk> {
        comparer.start(leaf);
        while let Some(&child) = comparer.children.get(comparer.asked) {
            let place = NodeId { owner: self.catalog.record(child).id.get(), ..leaf };
            match self.descend(child, place).0 {
                Walk::At(other) => {
                    let (ours, other) = (self.cache.page(frame), self.cache.page(other));
                    comparer.kept |= same_extents(ours.leaf(), other.leaf());
                }
                Walk::Absent(_) => {}
                walk => return Err(walk),
            }
            comparer.asked += 1;
        }
        comparer.at = NOTHING;
        Ok(comparer.kept)
    }

    /// The frame of a page that is dirty.
    pub(crate) fn dirty_frame(&mut self, node: NodeId) -> Option<u32> {
        let frame = self.cache.find(node)?;
        (self.cache.frame(frame).state == FrameState::Dirty).then_some(frame)
    }
}

/// The entries of two leaves of the same place that name the same extent, as bits.
fn same_extents(a: &LeafPage, b: &LeafPage) -> u64 {
    let both = a.entries.iter().zip(&b.entries).zip(0..);
    let same =
        both.filter(|((a, b), _)| a.extent().is_some() && a.extent_number() == b.extent_number());
    same.fold(0, |bits, (_, at)| bits | 1 << at)
}
