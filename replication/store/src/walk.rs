//! Walks over the map, a bounded step at a time: what is mapped, what differs, what is whose own.
//!
//! A walk is a position, an extent's index, and nothing else: "what is next from here?". It goes
//! through the page cache like a lookup, so it lives with edits and checkpoints between its
//! steps; what changed behind it is not seen again.

use crate::compare::Comparer;
use crate::format::{INNER_CHILDREN, LEAF_ENTRIES, LeafEntry, NodeId, PagePtr};
use crate::tree::{LEAVES_MAX, Path, Walk, first_extent};
use crate::{Store, VolumeId};

/// The answer of [`Store::scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The next mapped extent. Go on behind it.
    Entry {
        /// Its index in the volume.
        index: u64,
        /// Where it is.
        entry: LeafEntry,
    },
    /// Nothing is mapped before this extent: go on from here.
    Skip(u64),
    /// Nothing more is mapped.
    End,
    /// A page is being loaded: ask again when [`Store::loads`] has changed.
    Pending,
    /// A page is damaged.
    Damaged {
        /// Its number.
        page: u64,
        /// The first extent behind those that it hides.
        next: u64,
    },
}

/// The answer of [`Store::diff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diff {
    /// The next extent (64 KiB) that is not the same in both. Go on behind it.
    Changed {
        /// Its index.
        index: u64,
        /// What the first has there.
        base: Option<LeafEntry>,
        /// What the second has there.
        entry: Option<LeafEntry>,
    },
    /// Nothing differs before this extent: go on from here.
    Skip(u64),
    /// Nothing more differs.
    End,
    /// A page is being loaded: ask again when [`Store::loads`] has changed.
    Pending,
    /// A page is damaged: whether something differs below it is unknown.
    Damaged {
        /// Its number.
        page: u64,
        /// The first extent behind those that it hides.
        next: u64,
    },
}

/// The answer of [`Store::unique`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unique {
    /// So many extents before `next` belong to the node alone. Go on from `next`.
    Counted {
        /// Extents since the position that was asked for.
        extents: u64,
        /// Where to go on.
        next: u64,
    },
    /// There is nothing more.
    End,
    /// A page is being loaded: ask again when [`Store::loads`] has changed.
    Pending,
    /// A page is damaged: what is below it is not counted.
    Damaged {
        /// Its number.
        page: u64,
        /// The first extent behind those that it hides.
        next: u64,
    },
}

/// What one of two trees has at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Nothing.
    Absent,
    /// The tree is not so high, and is all below.
    Below,
    /// This page, unchanged.
    Page(PagePtr),
    /// A page that was changed since the last checkpoint.
    Dirty,
}

impl Store {
    /// The next mapped extent of a volume or snapshot from `from` on.
    pub fn scan(&mut self, volume: VolumeId, from: u64) -> Scan {
        let Some(slot) = self.catalog.slot(volume) else { return Scan::End };
        let Some(leaf) = leaf_of(volume, from) else { return Scan::End };
        let (walk, path) = self.descend(slot, leaf);
        match walk {
            Walk::At(frame) => {
                let entries = &self.cache.page(frame).leaf().entries;
                let mapped = entries.iter().zip(first_extent(leaf)..);
                let mut mapped = mapped.filter(|(e, at)| *at >= from && e.extent().is_some());
                match mapped.next() {
                    Some((&entry, index)) => Scan::Entry { index, entry },
                    None => Scan::Skip(behind(leaf)),
                }
            }
            Walk::Absent(level) => match path.last() {
                Some(frame) => Scan::Skip(self.next_present(frame, leaf.ancestor(level))),
                None => Scan::End,
            },
            Walk::Pending => Scan::Pending,
            Walk::Damaged(page) => {
                Scan::Damaged { page, next: behind(leaf.ancestor(hidden_by(&path, self, slot))) }
            }
        }
    }

    /// The next extent from `from` on that two nodes do not share: what was written, unmapped or
    /// zeroed in `of` since they parted from each other, or in `base`. Without a base: what is
    /// mapped. Only pages that differ are looked at.
    pub fn diff(&mut self, base: Option<VolumeId>, of: VolumeId, from: u64) -> Diff {
        let Some(leaf) = leaf_of(of, from) else { return Diff::End };
        let slots = [base.and_then(|id| self.catalog.slot(id)), self.catalog.slot(of)];
        let depth = |slot: Option<usize>| slot.map_or(0, |slot| self.catalog.record(slot).depth);
        let top = depth(slots[0]).max(depth(slots[1]));
        if leaf.ancestor(top).index > 0 {
            return Diff::End;
        }
        let mut frames = [None; 2];
        for level in (0..=top).rev() {
            let node = leaf.ancestor(level);
            let (mut sides, mut same) = ([Side::Absent; 2], node.index);
            loop {
                let place = NodeId { index: same, ..node };
                sides[0] = self.side(slots[0], frames[0], place);
                sides[1] = self.side(slots[1], frames[1], place);
                let equal =
                    sides[0] == sides[1] && matches!(sides[0], Side::Absent | Side::Page(_));
                if !equal {
                    break;
                }
                same += 1;
                if level == top || same.is_multiple_of(INNER_CHILDREN as u64) {
                    break;
                }
            }
            if same > node.index {
                let next = first_extent(NodeId { index: same, ..node });
                return if level == top { Diff::End } else { Diff::Skip(next) };
            }
            for (which, side) in sides.into_iter().enumerate() {
                frames[which] = match (slots[which], side) {
                    (None, _) | (_, Side::Absent | Side::Below) => None,
                    (Some(slot), side) => match self.open(slot, node, side) {
                        Ok(frame) => Some(frame),
                        Err(Walk::Damaged(page)) => {
                            return Diff::Damaged { page, next: behind(node) };
                        }
                        Err(_) => return Diff::Pending,
                    },
                };
            }
        }
        self.diff_leaves(frames, leaf, from)
    }

    /// How many extents from `from` on belong to a node alone: what deleting it now would give
    /// back. The sum over a walk is exact when nothing changes meanwhile.
    pub fn unique(&mut self, volume: VolumeId, from: u64) -> Unique {
        let Some(slot) = self.catalog.slot(volume) else { return Unique::End };
        let Some(leaf) = leaf_of(volume, from) else { return Unique::End };
        let mut comparer = std::mem::take(&mut self.comparer);
        self.find_children(&mut comparer, slot);
        let step = self.unique_step(slot, leaf, from, &mut comparer);
        self.comparer = comparer;
        step
    }

    fn unique_step(
        &mut self,
        slot: usize,
        leaf: NodeId,
        from: u64,
        comparer: &mut Comparer,
    ) -> Unique {
        let depth = self.catalog.record(slot).depth;
        if leaf.ancestor(depth).index > 0 {
            return Unique::End;
        }
        let mut above = None;
        for level in (0..=depth).rev() {
            let node = leaf.ancestor(level);
            let side = self.side(Some(slot), above, node);
            let stopped = |walk| match walk {
                Walk::Damaged(page) => Unique::Damaged { page, next: behind(node) },
                _ => Unique::Pending,
            };
            let counted = |next| Unique::Counted { extents: 0, next };
            match side {
                Side::Absent | Side::Below => match above {
                    Some(frame) => return counted(self.next_present(frame, node)),
                    None => return Unique::End,
                },
                Side::Page(ptr) if !self.owns(slot, node, ptr.birth.get()) => {
                    return counted(behind(node));
                }
                Side::Page(ptr) => match self.is_page_shared(comparer, node, ptr) {
                    Ok(true) => return counted(behind(node)),
                    Ok(false) => {}
                    Err(walk) => return stopped(walk),
                },
                Side::Dirty => {}
            }
            match self.open(slot, node, side) {
                Ok(frame) => above = Some(frame),
                Err(walk) => return stopped(walk),
            }
        }
        let frame = above.expect("the loop ends with the leaf");
        let kept = match self.shared_entries(comparer, leaf, frame) {
            Ok(kept) => kept,
            Err(Walk::Damaged(page)) => return Unique::Damaged { page, next: behind(leaf) },
            Err(_) => return Unique::Pending,
        };
        let (first, bound) = (first_extent(leaf), self.catalog.bound(slot, first_extent(leaf)));
        let entries = self.cache.page(frame).leaf().entries.iter().zip(0..);
        let alone = entries.filter(|(entry, at)| {
            let counts = first + *at >= from && kept >> *at & 1 == 0;
            counts && entry.extent().is_some() && entry.birth() > bound
        });
        Unique::Counted { extents: alone.count() as u64, next: behind(leaf) }
    }

    fn diff_leaves(&self, frames: [Option<u32>; 2], leaf: NodeId, from: u64) -> Diff {
        let first = first_extent(leaf);
        let at = |frame: Option<u32>, i: usize| {
            let entry = frame.map(|frame| self.cache.page(frame).leaf().entries[i]);
            entry.filter(|entry| entry.extent().is_some())
        };
        let start = usize::try_from(from - first).expect("inside the leaf");
        for i in start..LEAF_ENTRIES {
            let (base, entry) = (at(frames[0], i), at(frames[1], i));
            if base != entry {
                return Diff::Changed { index: first + i as u64, base, entry };
            }
        }
        Diff::Skip(behind(leaf))
    }

    /// What a tree has at the place of `node`; `above` is the frame of the page over it.
    fn side(&mut self, slot: Option<usize>, above: Option<u32>, node: NodeId) -> Side {
        let Some(slot) = slot else { return Side::Absent };
        let record = self.catalog.record(slot);
        let node = NodeId { owner: record.id.get(), ..node };
        if node.level > record.depth {
            return if node.index == 0 { Side::Below } else { Side::Absent };
        }
        let root = (node.level == record.depth && node.index == 0).then_some(record.root);
        let child = above.map(|frame| self.cache.page(frame).inner().children[node.child_slot()]);
        let Some(ptr) = root.or(child.filter(|_| node.level < record.depth)) else {
            return Side::Absent;
        };
        if self.dirty_frame(node).is_some() {
            return Side::Dirty;
        }
        if ptr.is_none() { Side::Absent } else { Side::Page(ptr) }
    }

    /// The frame of a page that a tree has.
    fn open(&mut self, slot: usize, node: NodeId, side: Side) -> Result<u32, Walk> {
        let node = NodeId { owner: self.catalog.record(slot).id.get(), ..node };
        match (self.cache.find(node), side) {
            (Some(frame), _) => match self.judge(frame) {
                Walk::At(frame) => Ok(frame),
                other => Err(other),
            },
            (None, Side::Page(ptr)) => {
                self.start_load(node, ptr);
                Err(Walk::Pending)
            }
            (None, _) => panic!("dirty pages are in memory"),
        }
    }

    /// The first extent of the next page beside `node`, which does not exist, below the same page.
    pub(crate) fn next_present(&self, above: u32, node: NodeId) -> u64 {
        let rest = &self.cache.page(above).inner().children[node.child_slot()..];
        let absent = rest.iter().take_while(|child| child.is_none()).count() as u64;
        first_extent(NodeId { index: node.index + absent.max(1), ..node })
    }
}

/// The level of the page that could not be read at the end of a path.
fn hidden_by(path: &Path, store: &Store, slot: usize) -> u8 {
    let seen = u8::try_from(path.frames().len()).expect("a few levels");
    store.catalog.record(slot).depth - seen
}

fn leaf_of(volume: VolumeId, extent_index: u64) -> Option<NodeId> {
    let index = extent_index / LEAF_ENTRIES as u64;
    (index < LEAVES_MAX).then_some(NodeId { owner: volume.0, level: 0, index })
}

/// The first extent behind a page.
fn behind(node: NodeId) -> u64 {
    first_extent(NodeId { index: node.index + 1, ..node })
}
