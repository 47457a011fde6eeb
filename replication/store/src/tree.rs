//! The volumes' trees: looking up, editing, unmapping.

use std::ops::Range;

use crate::cache::{Frame, FrameState};
use crate::format::{INNER_CHILDREN, LEAF_ENTRIES, LeafEntry, NodeId, NodeKind, PagePtr};
use crate::limits::{DEPTH_MAX, PATH_PAGES_MAX};
use crate::{Edit, ExtentState, Lookup, Store, Unmap, VolumeId};

/// Where the walk towards a node ended.
pub(crate) enum Walk {
    /// The node is in this frame.
    At(u32),
    /// There is no page at this height, so nothing below it is mapped.
    Absent(u8),
    /// Something on the way is being loaded.
    Pending,
    /// Something on the way is damaged.
    Damaged(u64),
}

/// The frames from the root down to where a walk ended.
pub(crate) struct Path {
    frames: [u32; DEPTH_MAX as usize + 1],
    len: usize,
}

impl Path {
    pub(crate) fn new() -> Path {
        Path { frames: [0; DEPTH_MAX as usize + 1], len: 0 }
    }

    /// The frame of the page where it ends.
    pub(crate) fn last(&self) -> Option<u32> {
        self.frames().last().copied()
    }

    pub(crate) fn frames(&self) -> &[u32] {
        &self.frames[..self.len]
    }

    pub(crate) fn push(&mut self, frame: u32) {
        self.frames[self.len] = frame;
        self.len += 1;
    }
}

impl NodeId {
    /// The page at height `level` above this one.
    pub(crate) fn ancestor(self, level: u8) -> NodeId {
        NodeId { level, index: self.index / capacity(level - self.level), ..self }
    }
}

impl Store {
    /// Where extent `extent_index` of `volume` is. Never blocks: a page that is not in memory is
    /// requested, and the answer is [`Lookup::Pending`].
    pub fn lookup(&mut self, volume: VolumeId, extent_index: u64) -> Lookup {
        let (leaf, entry) = place(volume, extent_index);
        // The common case is one probe: no need to know the volume.
        let walk = match in_range(leaf).then(|| self.cache.find(leaf)).flatten() {
            Some(frame) => self.judge(frame),
            None => self.climb(volume, leaf),
        };
        match walk {
            Walk::At(frame) => {
                let entry = self.cache.page(frame).leaf().entries[entry];
                if entry.extent().is_some() { Lookup::Entry(entry) } else { Lookup::Unmapped }
            }
            Walk::Absent(_) => Lookup::Unmapped,
            Walk::Pending => Lookup::Pending,
            Walk::Damaged(page) => Lookup::Damaged(page),
        }
    }

    /// The entry of extent `extent_index` of `volume`, to be changed; the pages on the way are
    /// made when they are missing and stay in memory until the next checkpoint.
    ///
    /// A page that was given once is given again, without `Busy`, until the next checkpoint. The
    /// caller pairs changes of the entry's extent with [`Store::commit`] and, when it was
    /// the volume's own ([`Store::is_owned`]), [`Store::release`].
    ///
    /// # Panics
    /// When there is no such active volume, or the index lies beyond the largest volume.
    pub fn edit(&mut self, volume: VolumeId, extent_index: u64) -> Edit<'_> {
        let (leaf, entry) = place(volume, extent_index);
        assert!(in_range(leaf), "the engine checks the volume's size");
        let slot = self.catalog.slot(volume).expect("the engine edits volumes that exist");
        let record = self.catalog.record(slot);
        assert!(record.is_active(), "deleted volumes are not written");
        assert!(record.kind() == NodeKind::Volume, "snapshots are not written");
        if let Some(frame) = self.dirty_leaf(leaf) {
            return Edit::Entry(&mut self.cache.page_mut(frame).leaf_mut().entries[entry]);
        }
        if !self.may_edit() {
            return Edit::Busy;
        }
        while leaf.index >= capacity(self.catalog.record(slot).depth) {
            if !self.grow(slot, volume) {
                return Edit::Busy;
            }
        }
        let (walk, path) = self.descend(slot, leaf);
        let frame = match walk {
            Walk::At(frame) => frame,
            Walk::Absent(level) => match self.create_below(slot, &path, level, leaf) {
                Some(frame) => frame,
                None => return Edit::Pending,
            },
            Walk::Pending => return Edit::Pending,
            Walk::Damaged(page) => return Edit::Damaged(page),
        };
        self.dirty_path(slot, &path);
        Edit::Entry(&mut self.cache.page_mut(frame).leaf_mut().entries[entry])
    }

    /// True when a page that was found damaged could not be read at all, one copy at least: it may
    /// be whole, and what it is to say must not be given up.
    pub fn is_unreadable(&self, page: u64) -> bool {
        self.cache.is_unreadable(page)
    }

    /// True when clearing an entry at this place replaces a page that the volume shares, which
    /// takes a page and frees none; also as long as that is not known, because the page is being
    /// loaded.
    pub fn replaces_shared(&mut self, volume: VolumeId, extent_index: u64) -> bool {
        let Some(slot) = self.catalog.slot(volume) else { return false };
        let (leaf, _) = place(volume, extent_index);
        if leaf.index >= capacity(self.catalog.record(slot).depth) {
            return false; // Nothing is mapped there.
        }
        match self.descend(slot, leaf).0 {
            Walk::At(frame) => {
                let Frame { node, ptr, state, .. } = *self.cache.frame(frame);
                state != FrameState::Dirty && !self.owns(slot, node, ptr.birth.get())
            }
            Walk::Absent(_) => false,
            Walk::Pending | Walk::Damaged(_) => true,
        }
    }

    /// True when so many pages are dirty that edits may soon be [`Edit::Busy`] until a checkpoint.
    pub fn needs_checkpoint(&self) -> bool {
        let dirty = u64::from(self.cache.dirty());
        dirty > 0 && (dirty + EDIT_PAGES_MAX > self.dirty_max() / 8 * 7 || !self.may_edit())
    }

    /// True when a checkpoint would change anything but the log tail.
    pub fn is_dirty(&self) -> bool {
        self.patrol.mend_superblock
            || self.patrol.save_soon
            || self.cache.dirty() > 0
            || self.catalog.is_dirty()
            || self.space.any_dirty()
    }

    /// Unmaps extents of `volume` from the front of `range`, a bounded step at a time; `range`
    /// shrinks as it goes. What was never mapped is skipped without touching it; what is shared
    /// stays where it is.
    pub fn unmap(&mut self, volume: VolumeId, range: &mut Range<u64>) -> Unmap {
        let Some(slot) = self.catalog.slot(volume) else {
            range.start = range.end;
            return Unmap::Done;
        };
        if range.is_empty() {
            return Unmap::Done;
        }
        if !self.may_edit() {
            return Unmap::Busy;
        }
        let (leaf, _) = place(volume, range.start);
        if leaf.index >= capacity(self.catalog.record(slot).depth) {
            range.start = range.end;
            return Unmap::Done;
        }
        let (walk, path) = self.descend(slot, leaf);
        let (level, damaged) = match walk {
            Walk::At(frame) if self.unmap_in_leaf(slot, &path, frame, range) => (0, None),
            Walk::At(frame) => (0, Some(self.cache.frame(frame).ptr.number())),
            Walk::Absent(_) if path.len == 0 => {
                range.start = range.end; // There is no tree at all.
                return Unmap::Done;
            }
            Walk::Absent(level) => (level, None),
            Walk::Pending => return Unmap::Pending,
            Walk::Damaged(page) => {
                let above = u8::try_from(path.len).expect("a tree is shallow");
                (self.catalog.record(slot).depth - above, Some(page))
            }
        };
        let span = capacity(level) * LEAF_ENTRIES as u64;
        range.start = ((range.start / span + 1) * span).min(range.end);
        if let Some(page) = damaged {
            return Unmap::Damaged(page);
        }
        if range.is_empty() { Unmap::Done } else { Unmap::More }
    }

    /// The frame of a leaf that is dirty already, and so all the way up to the root.
    fn dirty_leaf(&mut self, leaf: NodeId) -> Option<u32> {
        let frame = self.cache.find(leaf)?;
        let dirty = self.cache.frame(frame).state == FrameState::Dirty;
        (dirty && !self.checkpoint.blocks_edits()).then_some(frame)
    }

    /// False while the map must stay as it is, or when the next checkpoint could not be written.
    pub(crate) fn may_edit(&self) -> bool {
        let free = self.space.free();
        self.may_reclaim() && self.has_pages_for(EDIT_PAGES_MAX + RECLAIM_PAGES, free)
    }

    /// Like `may_edit`, for what gives space back: it may use what edits must leave.
    pub(crate) fn may_reclaim(&self) -> bool {
        !self.checkpoint.blocks_edits()
            && u64::from(self.cache.dirty()) + EDIT_PAGES_MAX <= self.dirty_max()
            && self.has_pages_for(EDIT_PAGES_MAX, self.space.free())
    }

    /// True when a checkpoint with `more` further dirty pages finds fresh pages for all, with this
    /// many free extents.
    pub(crate) fn has_pages_for(&self, more: u64, extents: u64) -> bool {
        let needed = self.checkpoint_pages_most(u64::from(self.cache.dirty()) + more);
        needed <= self.meta.free() + extents * crate::limits::EXTENT_BLOCKS as u64
    }

    pub(crate) fn judge(&self, frame: u32) -> Walk {
        let at = self.cache.frame(frame);
        match at.state {
            FrameState::Ready | FrameState::Dirty => Walk::At(frame),
            FrameState::Loading => Walk::Pending,
            FrameState::Damaged => Walk::Damaged(at.ptr.number()),
            FrameState::Empty => panic!("the index names no empty frame"),
        }
    }

    /// From a leaf that is not in memory up to the first page that is, and one load back down.
    fn climb(&mut self, volume: VolumeId, leaf: NodeId) -> Walk {
        let Some(record) = self.catalog.find(volume).filter(|record| record.is_active()) else {
            return Walk::Absent(0);
        };
        let (root, depth) = (record.root, record.depth);
        if leaf.index >= capacity(depth) {
            return Walk::Absent(depth);
        }
        let mut node = leaf;
        let ptr = loop {
            if node.level == depth {
                break root;
            }
            let parent = node.parent();
            if let Some(frame) = self.cache.find(parent) {
                match self.judge(frame) {
                    Walk::At(_) => {
                        break self.cache.page(frame).inner().children[node.child_slot()];
                    }
                    other => return other,
                }
            }
            node = parent;
        };
        if ptr.is_none() {
            return Walk::Absent(node.level);
        }
        self.start_load(node, ptr);
        Walk::Pending
    }

    /// From the root down to the page of `to`, remembering the frames.
    pub(crate) fn descend(&mut self, slot: usize, to: NodeId) -> (Walk, Path) {
        let (mut ptr, depth) = {
            let record = self.catalog.record(slot);
            (record.root, record.depth)
        };
        let mut path = Path::new();
        if to.level > depth || to.ancestor(depth).index > 0 {
            return (Walk::Absent(depth), path);
        }
        for level in (to.level..=depth).rev() {
            let node = to.ancestor(level);
            let Some(frame) = self.cache.find(node) else {
                if ptr.is_none() {
                    return (Walk::Absent(level), path);
                }
                assert!(ptr != PagePtr::NEW, "new pages are in memory");
                self.start_load(node, ptr);
                return (Walk::Pending, path);
            };
            let Walk::At(frame) = self.judge(frame) else { return (self.judge(frame), path) };
            path.push(frame);
            if level > to.level {
                let child = to.ancestor(level - 1).child_slot();
                ptr = self.cache.page(frame).inner().children[child];
            }
        }
        (Walk::At(path.frames[path.len - 1]), path)
    }

    /// The pointer to the page of `node`, from the page above it. The page itself may be dirty.
    pub(crate) fn pointer(&mut self, slot: usize, node: NodeId) -> Result<PagePtr, Walk> {
        let record = self.catalog.record(slot);
        if node.level >= record.depth {
            let is_root = node.level == record.depth && node.index == 0;
            return Ok(if is_root { record.root } else { PagePtr::NONE });
        }
        match self.descend(slot, node.parent()) {
            (Walk::At(frame), _) => Ok(self.cache.page(frame).inner().children[node.child_slot()]),
            (Walk::Absent(_), _) => Ok(PagePtr::NONE),
            (other, _) => Err(other),
        }
    }

    /// Makes the missing pages from `level` down to `leaf`. `None` when frames are short: all that
    /// are not dirty are being loaded.
    fn create_below(&mut self, slot: usize, path: &Path, level: u8, leaf: NodeId) -> Option<u32> {
        self.dirty_path(slot, path); // Pinned, so that taking frames does not evict them.
        let mut made = Path::new();
        for level in (0..=level).rev() {
            let node = leaf.ancestor(level);
            match self.cache.take(node, PagePtr::NONE, FrameState::Dirty) {
                Some(frame) => made.push(frame),
                None => {
                    made.frames().iter().for_each(|&frame| self.cache.remove(frame));
                    return None;
                }
            }
        }
        let mut parent = path.frames().last().copied();
        for &frame in made.frames() {
            if let Some(parent) = parent {
                let slot = self.cache.frame(frame).node.child_slot();
                self.cache.page_mut(parent).inner_mut().children[slot] = PagePtr::NEW;
            }
            parent = Some(frame);
        }
        parent
    }

    /// Makes the tree one level higher.
    fn grow(&mut self, slot: usize, volume: VolumeId) -> bool {
        let (root, depth) = {
            let record = self.catalog.record(slot);
            (record.root, record.depth)
        };
        assert!(depth < DEPTH_MAX, "the largest volume fits the deepest tree");
        let old = NodeId { owner: volume.0, level: depth, index: 0 };
        let cached = self.cache.find(old);
        if !root.is_none() || cached.is_some() {
            // Whoever finds the old root dirty finds its parent dirty too: both stay in memory.
            let node = old.parent();
            let Some(frame) = self.cache.take(node, PagePtr::NONE, FrameState::Dirty) else {
                return false;
            };
            let never_written = root.is_none();
            let child = if never_written { PagePtr::NEW } else { root };
            self.cache.page_mut(frame).inner_mut().children[0] = child;
        }
        self.catalog.change(slot).depth = depth + 1;
        true
    }

    /// Makes a path dirty. What is an ancestor's is not freed when the pages are written.
    pub(crate) fn dirty_path(&mut self, slot: usize, path: &Path) {
        for &frame in path.frames() {
            let Frame { node, ptr, state, .. } = *self.cache.frame(frame);
            let owned = self.owns(slot, node, ptr.birth.get());
            if state == FrameState::Ready && !owned {
                self.reclaim.note_replaced();
            }
            self.cache.touch_dirty(frame, owned);
        }
    }

    /// Unmaps what the range covers of one leaf, and removes pages that became empty. False when
    /// another leaf must have given back one of the extents: the map was wrong on the device.
    fn unmap_in_leaf(&mut self, slot: usize, path: &Path, leaf: u32, range: &Range<u64>) -> bool {
        let first = self.cache.frame(leaf).node.index * LEAF_ENTRIES as u64;
        let covered = |i: usize| range.contains(&(first + i as u64));
        let entries = &self.cache.page(leaf).leaf().entries;
        let mapped = |entry: &LeafEntry| entry.extent().is_some();
        let any = entries.iter().enumerate().any(|(i, entry)| mapped(entry) && covered(i));
        if !any && entries.iter().any(mapped) {
            return true; // A leaf that was emptied by edits goes, one that holds other data stays.
        }
        let bound = self.catalog.bound(slot, first);
        let owned = |entry: &LeafEntry| entry.extent().filter(|_| entry.birth() > bound);
        let extents = entries.iter().enumerate().filter(|&(i, _)| covered(i));
        let mut extents = extents.filter_map(|(_, entry)| owned(entry));
        if extents.any(|extent| self.space.state(extent) != ExtentState::Mapped) {
            return false;
        }
        self.dirty_path(slot, path);
        for i in (0..LEAF_ENTRIES).filter(|&i| covered(i)) {
            let entry = &mut self.cache.page_mut(leaf).leaf_mut().entries[i];
            let extent = owned(entry);
            entry.clear();
            if let Some(extent) = extent {
                self.space.release(extent);
            } else {
                self.reclaim.note_dropped();
            }
        }
        if self.cache.page(leaf).leaf().mapped() == 0 {
            self.prune(slot, path);
        }
        true
    }

    /// Removes the leaf at the end of `path`, and every page above it that has no other child.
    pub(crate) fn prune(&mut self, slot: usize, path: &Path) {
        for (depth, &frame) in path.frames().iter().enumerate().rev() {
            let at = *self.cache.frame(frame);
            if at.node.level > 0 {
                let children = &self.cache.page(frame).inner().children;
                if children.iter().any(|child| !child.is_none()) {
                    return;
                }
            }
            self.count_mapped(slot, frame);
            self.free_tree_page(at.ptr);
            self.cache.remove(frame);
            match depth.checked_sub(1) {
                Some(above) => {
                    let parent = self.cache.page_mut(path.frames[above]).inner_mut();
                    parent.children[at.node.child_slot()] = PagePtr::NONE;
                }
                None => self.catalog.change(slot).root = PagePtr::NONE,
            }
        }
    }

    /// Frees the page that a dirty one replaces. A page that no walk of the mount came by is left
    /// alone: only a device that lies makes it a node's own.
    pub(crate) fn free_tree_page(&mut self, ptr: PagePtr) {
        if !ptr.is_none() && self.meta.may_free(ptr.place()) {
            self.meta.free_page(ptr.place(), &mut self.space);
        }
    }

    /// Brings the volume's count of mapped extents up to date with one of its leaves.
    pub(crate) fn count_mapped(&mut self, slot: usize, frame: u32) {
        if self.cache.frame(frame).node.level > 0 {
            return;
        }
        let now = self.cache.page(frame).leaf().mapped();
        let before = std::mem::replace(&mut self.cache.frame_mut(frame).mapped, now);
        if now != before {
            let mapped = &mut self.catalog.change(slot).mapped;
            // The count is a hint for listings; damage may have made it wrong, never fatal.
            mapped.set((mapped.get() + u64::from(now)).saturating_sub(u64::from(before)));
        }
    }
}

/// Leaves that a tree with its root at height `depth` reaches.
pub(crate) fn capacity(depth: u8) -> u64 {
    (INNER_CHILDREN as u64).pow(u32::from(depth))
}

/// The leaf that speaks of an extent of a volume, and the entry in it.
fn place(volume: VolumeId, extent_index: u64) -> (NodeId, usize) {
    let index = extent_index / LEAF_ENTRIES as u64;
    let entry = usize::try_from(extent_index % LEAF_ENTRIES as u64).expect("below 48");
    (NodeId { owner: volume.0, level: 0, index }, entry)
}

/// The first extent of a volume that a page speaks of.
pub(crate) fn first_extent(node: NodeId) -> u64 {
    node.index * capacity(node.level) * LEAF_ENTRIES as u64
}

/// True for leaves of the largest volume; others would not fit a key of the cache.
fn in_range(leaf: NodeId) -> bool {
    leaf.owner != 0 && leaf.index < LEAVES_MAX
}

/// Most pages that one edit makes dirty: a path to the root, and a new root for each level that the
/// tree grows by.
pub(crate) const EDIT_PAGES_MAX: u64 = 2 * PATH_PAGES_MAX;

/// Pages that edits leave for reclaiming, which needs some before it gives any back: changed pages
/// that a snapshot shares take fresh pages and free none. Two edits are enough, each with its
/// checkpoint.
pub(crate) const RECLAIM_PAGES: u64 = 2 * EDIT_PAGES_MAX;

pub(crate) const LEAVES_MAX: u64 =
    crate::limits::VOLUME_BYTES_MAX.div_ceil(LEAF_ENTRIES as u64 * crate::limits::EXTENT_BYTES);
const _: () = assert!(LEAVES_MAX < 1 << 29);
const _: () = assert!(LEAVES_MAX < 252u64.pow(DEPTH_MAX as u32));
