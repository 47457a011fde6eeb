//! Giving back the space of deleted nodes, in any order of deletion.
//!
//! A walk over what the node owns (subtrees of its ancestors are left out) compares, place by
//! place, with its **children**, the nodes whose parent it is:
//!
//! - *No child*: everything owned is released.
//! - *One child*: what the child has at the same place becomes the child's, the rest is released,
//!   and the node's tree loses both. `cut` in the record says how far that is: below it the child
//!   owns what this node owned. At the end the child moves up to this node's parent.
//! - *Several*: what no child has is released, the rest stays. A node that has nothing left of
//!   its own then hands over as above; another one waits until its children change: until one
//!   goes, or as many pages were replaced as looking once more costs steps.
//!
//! Each step is one edit, so it is in the next checkpoint as a whole or happens again after a
//! crash. While a node hands over, its tree holds less than its child's: the nodes above and below
//! it wait (they compare with its tree, or it with theirs). So one node is done before the next
//! begins.

use crate::compare::Comparer;
use crate::format::catalog::STATE_DELETING;
use crate::format::{LEAF_ENTRIES, NodeId, PagePtr};
use crate::limits::NODES_MAX;
use crate::tree::{Path, Walk, capacity, first_extent};
use crate::{ExtentState, Store, Unmap, VolumeId};

/// How far the reclaiming of deleted nodes is.
pub(crate) struct Reclaim {
    /// The node in work; 0 for none.
    node: u32,
    /// Extents before this are done.
    cursor: u64,
    /// Something of its own was left because several children share it.
    kept: bool,
    /// It hands over what it has: it has at most one child, or nothing of its own.
    hands_over: bool,
    comparer: Comparer,
    /// By slot: nothing can be done for now.
    rests: Vec<Option<Rest>>,
    /// Steps of the walks that ended with nodes waiting for their children, and pages that
    /// volumes have replaced since which they had shared.
    waiting_steps: u64,
    replaced: u64,
    /// A volume has replaced a page or an extent that it had shared since they began to wait.
    stirred: bool,
    steps: u64,
}

/// Pages that are replaced at least before deleted snapshots are looked at once more.
const REPLACED_MIN: u64 = 16;

/// Why a deleted node is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Its children share what it has. One of them must go first.
    Children,
    /// A page is damaged: the space stays in use.
    Damage,
}

impl Reclaim {
    pub(crate) fn new() -> Reclaim {
        Reclaim {
            node: 0,
            cursor: 0,
            kept: false,
            hands_over: false,
            comparer: Comparer::new(),
            rests: vec![None; NODES_MAX],
            waiting_steps: 0,
            replaced: 0,
            stirred: false,
            steps: 0,
        }
    }

    /// A volume replaces a page that it shares.
    pub(crate) fn note_replaced(&mut self) {
        self.replaced += 1;
        self.stirred = true;
    }

    /// An extent that a volume shares fell out of its map.
    pub(crate) fn note_dropped(&mut self) {
        self.stirred = true;
    }

    /// Nodes that wait for their children are looked at once more.
    fn look_again(&mut self) {
        (self.waiting_steps, self.replaced, self.stirred) = (0, 0, false);
        let waits = |rest: &&mut Option<Rest>| **rest == Some(Rest::Children);
        self.rests.iter_mut().filter(waits).for_each(|rest| *rest = None);
    }

    fn begin(&mut self, node: u32, cut: u64) {
        (self.node, self.cursor, self.kept, self.steps) = (node, cut, false, 0);
        self.hands_over = cut > 0;
    }
}

impl Store {
    /// Takes one step in giving back the space of deleted volumes and snapshots. `Done` when
    /// nothing can be done for now: snapshots whose data several others share stay until one of
    /// these goes.
    pub fn reclaim(&mut self) -> Unmap {
        let Some(slot) = self.pick_deleted() else { return Unmap::Done };
        if self.has_staged() || !self.may_reclaim() {
            return Unmap::Busy; // What is staged may name the node.
        }
        let mut comparer = std::mem::take(&mut self.reclaim.comparer);
        self.find_children(&mut comparer, slot);
        self.reclaim.hands_over |= comparer.children().len() < 2;
        self.reclaim.comparer = comparer;
        let end = capacity(self.catalog.record(slot).depth) * LEAF_ENTRIES as u64;
        let has_tree = !self.is_treeless(slot);
        if has_tree && self.reclaim.cursor < end {
            self.reclaim.steps += 1;
            let step = self.reclaim_step(slot);
            if let Unmap::Damaged(_) = step {
                self.reclaim.rests[slot] = Some(Rest::Damage);
                self.reclaim.node = 0;
            }
            return step;
        }
        self.end_pass(slot);
        if self.pick_deleted().is_some() { Unmap::More } else { Unmap::Done }
    }

    /// True when [`Store::reclaim`] may find something to do. That changes with deletions, and when
    /// volumes have replaced what they shared with a snapshot that is being deleted.
    pub fn wants_reclaim(&mut self) -> bool {
        let Reclaim { waiting_steps, replaced, .. } = self.reclaim;
        // Looking once more costs as many steps: not before as many pages were replaced.
        if waiting_steps > 0 && replaced >= waiting_steps + REPLACED_MIN {
            self.reclaim.look_again();
        }
        self.pick_deleted().is_some()
    }

    /// True when a deleted snapshot waits for those that share its data, and a volume has replaced
    /// some of what it shared meanwhile: [`Store::reclaim_again`] may find that it is the last.
    pub fn may_reclaim_again(&self) -> bool {
        self.reclaim.stirred && self.reclaim.waiting_steps > 0
    }

    /// Lets [`Store::reclaim`] look at every deleted snapshot once more, however little changed:
    /// for times when there is nothing else to do.
    pub fn reclaim_again(&mut self) {
        self.reclaim.look_again();
    }

    /// An extent of a volume that is not its own fell out of its map.
    pub fn drop_shared(&mut self) {
        self.reclaim.note_dropped();
    }

    /// The node in work, or the next one: one that already hands over, else the youngest, whose
    /// children are done before.
    fn pick_deleted(&mut self) -> Option<usize> {
        if self.reclaim.node != 0 {
            return Some(self.catalog.slot(VolumeId(self.reclaim.node)).expect("it is in work"));
        }
        if self.catalog.deleting() == 0 {
            return None;
        }
        let mut best: Option<((bool, u32), usize)> = None;
        for (slot, record) in self.catalog.records.iter().enumerate() {
            if record.state != STATE_DELETING || self.reclaim.rests[slot].is_some() {
                continue;
            }
            let rank = (record.cut.get() > 0, record.birth.get());
            if best.is_none_or(|(than, _)| rank > than) && !self.is_blocked(slot) {
                best = Some((rank, slot));
            }
        }
        let (_, slot) = best?;
        let record = self.catalog.record(slot);
        self.reclaim.begin(record.id.get(), record.cut.get());
        Some(slot)
    }

    /// True when a node next to this one hands over and cannot go on.
    fn is_blocked(&self, slot: usize) -> bool {
        let record = self.catalog.record(slot);
        let handing = |id: VolumeId| self.catalog.find(id).is_some_and(|r| r.cut.get() > 0);
        let id = Some(record.volume_id());
        let mut children = self.catalog.iter().filter(|child| child.parent() == id).peekable();
        let has_children = children.peek().is_some();
        children.any(|child| child.cut.get() > 0)
            || (has_children && record.parent().is_some_and(handing))
    }

    /// True when nothing is mapped below the root.
    fn is_treeless(&mut self, slot: usize) -> bool {
        let record = self.catalog.record(slot);
        let root = NodeId { owner: record.id.get(), level: record.depth, index: 0 };
        record.root.is_none() && self.dirty_frame(root).is_none()
    }

    /// The walk came to its end.
    fn end_pass(&mut self, slot: usize) {
        let id = self.catalog.record(slot).id.get();
        if !self.reclaim.hands_over {
            if self.reclaim.kept {
                if self.reclaim.waiting_steps == 0 {
                    (self.reclaim.replaced, self.reclaim.stirred) = (0, false);
                }
                self.reclaim.waiting_steps += self.reclaim.steps + 1;
                self.reclaim.rests[slot] = Some(Rest::Children);
                self.reclaim.node = 0;
            } else {
                self.reclaim.begin(id, 0);
                self.reclaim.hands_over = true;
            }
            if !self.is_treeless(slot) {
                return;
            }
        }
        if !self.is_treeless(slot) {
            // Nobody makes a tree with pages below the cut; a damaged device may have one.
            self.reclaim.rests[slot] = Some(Rest::Damage);
            self.reclaim.node = 0;
            return;
        }
        let parent = self.catalog.record(slot).parent.get();
        for &child in self.reclaim.comparer.children() {
            self.catalog.adopt(child, parent);
        }
        self.catalog.forget(VolumeId(id));
        self.reclaim.rests[slot] = None;
        self.reclaim.node = 0;
        if let Some(parent) = self.catalog.slot(VolumeId(parent)) {
            let rest = &mut self.reclaim.rests[parent];
            *rest = rest.filter(|rest| *rest == Rest::Damage);
        }
    }

    /// One page on the way down to the cursor is looked at, or one leaf is done.
    fn reclaim_step(&mut self, slot: usize) -> Unmap {
        let record = self.catalog.record(slot);
        let (owner, depth, mut ptr) = (record.id.get(), record.depth, record.root);
        let leaf = NodeId { owner, level: 0, index: self.reclaim.cursor / LEAF_ENTRIES as u64 };
        let mut path = Path::new();
        for level in (0..=depth).rev() {
            let node = leaf.ancestor(level);
            if self.dirty_frame(node).is_none() {
                if ptr.is_none() {
                    return self.skip_absent(slot, &path, node);
                }
                if !self.owns(slot, node, ptr.birth.get()) {
                    if self.reclaim.hands_over {
                        self.unlink(slot, &path, node);
                    }
                    return self.go_on(slot, node);
                }
                match self.compare_page(node, ptr) {
                    Ok(false) => {}
                    Ok(true) => {
                        self.reclaim.kept = true;
                        if self.reclaim.hands_over {
                            self.unlink(slot, &path, node);
                        }
                        return self.go_on(slot, node);
                    }
                    Err(walk) => return stopped(walk),
                }
            }
            let Some(frame) = self.cache.find(node) else {
                self.start_load(node, ptr);
                return Unmap::Pending;
            };
            match self.judge(frame) {
                Walk::At(frame) => path.push(frame),
                walk => return stopped(walk),
            }
            if level > 0 {
                let slot = leaf.ancestor(level - 1).child_slot();
                ptr = self.cache.page(frame).inner().children[slot];
            }
        }
        self.reclaim_leaf(slot, &path, leaf)
    }

    /// What the page of `node` covers is done.
    fn go_on(&mut self, slot: usize, node: NodeId) -> Unmap {
        let next = first_extent(NodeId { index: node.index + 1, ..node });
        self.reclaim.cursor = next;
        if self.reclaim.hands_over && !self.reclaim.comparer.children().is_empty() {
            self.catalog.change(slot).cut.set(next);
        }
        Unmap::More
    }

    /// Goes on after `node` and those that follow it, none of which exists.
    fn skip_absent(&mut self, slot: usize, path: &Path, node: NodeId) -> Unmap {
        let Some(frame) = path.last() else { return self.go_on(slot, node) };
        let rest = &self.cache.page(frame).inner().children[node.child_slot()..];
        let absent = rest.iter().take_while(|child| child.is_none()).count() as u64;
        self.prune_if_empty(slot, path);
        self.go_on(slot, NodeId { index: node.index + absent - 1, ..node })
    }

    /// Whether a child has the very page of the node in work.
    fn compare_page(&mut self, node: NodeId, ptr: PagePtr) -> Result<bool, Walk> {
        if self.reclaim.hands_over && self.reclaim.comparer.children().len() > 1 {
            return Ok(false); // Nothing of its own is left but the way down.
        }
        let mut comparer = std::mem::take(&mut self.reclaim.comparer);
        let shared = self.is_page_shared(&mut comparer, node, ptr);
        self.reclaim.comparer = comparer;
        shared
    }

    /// Releases what no child has of a leaf, and hands over the rest or keeps it.
    fn reclaim_leaf(&mut self, slot: usize, path: &Path, leaf: NodeId) -> Unmap {
        let frame = path.last().expect("the walk ended at a leaf");
        let mut comparer = std::mem::take(&mut self.reclaim.comparer);
        let kept = self.shared_entries(&mut comparer, leaf, frame);
        let several = comparer.children().len() > 1;
        self.reclaim.comparer = comparer;
        let kept = match kept {
            Ok(kept) => kept,
            Err(walk) => return stopped(walk),
        };
        let hands_over = self.reclaim.hands_over;
        let bound = self.catalog.bound(slot, first_extent(leaf));
        let entries = self.cache.page(frame).leaf().entries;
        let goes = |i: usize| hands_over || kept >> i & 1 == 0;
        let released = |i: usize| {
            let kept = kept >> i & 1 == 1 && !bdev::planted(bdev::Planted::DeleteFreesShared);
            let owned = entries[i].birth() > bound && !kept;
            entries[i].extent().filter(|_| owned && !(hands_over && several))
        };
        let mut all = (0..LEAF_ENTRIES).filter_map(released);
        if all.any(|extent| self.space.state(extent) != ExtentState::Mapped) {
            return Unmap::Damaged(self.cache.frame(frame).ptr.number());
        }
        let mapped = |i: &usize| entries[*i].extent().is_some();
        if hands_over || (0..LEAF_ENTRIES).filter(mapped).any(goes) {
            self.dirty_path(slot, path);
            for i in 0..LEAF_ENTRIES {
                if let Some(extent) = released(i) {
                    self.space.release(extent);
                }
                if goes(i) {
                    self.cache.page_mut(frame).leaf_mut().entries[i].clear();
                }
            }
        }
        let stays = |i: usize| entries[i].birth() > bound && !goes(i);
        self.reclaim.kept |= (0..LEAF_ENTRIES).filter(mapped).any(stays);
        if self.cache.page(frame).leaf().mapped() == 0 {
            self.dirty_path(slot, path);
            self.prune(slot, path);
        }
        self.go_on(slot, leaf)
    }

    /// Takes the pointer to `node` out of the page at the end of `path`; what it points to is an
    /// ancestor's, or the child's from now on.
    fn unlink(&mut self, slot: usize, path: &Path, node: NodeId) {
        let Some(parent) = path.last() else {
            self.catalog.change(slot).root = PagePtr::NONE;
            return;
        };
        self.dirty_path(slot, path);
        self.cache.page_mut(parent).inner_mut().children[node.child_slot()] = PagePtr::NONE;
        self.prune_if_empty(slot, path);
    }

    /// Removes the page at the end of `path` if nothing is below it.
    fn prune_if_empty(&mut self, slot: usize, path: &Path) {
        let Some(frame) = path.last() else { return };
        if self.cache.page(frame).inner().children.iter().all(PagePtr::is_none) {
            self.dirty_path(slot, path);
            self.prune(slot, path);
        }
    }
}

/// Why a walk could not go on.
fn stopped(walk: Walk) -> Unmap {
    match walk {
        Walk::Damaged(page) => Unmap::Damaged(page),
        Walk::At(_) | Walk::Absent(_) | Walk::Pending => Unmap::Pending,
    }
}
