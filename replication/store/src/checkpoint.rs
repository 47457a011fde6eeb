//! Checkpoints: the changed pages to fresh places, then the superblock, then reuse.
//!
//! ```text
//!   Idle --begin--> Trees --> Flat --> Super --> Idle (CheckpointDone)
//!                     |         |        |
//!                     `---------'--------'--> Failed
//! ```
//!
//! - *Trees*: dirty pages of the volumes, leaves first. Each gets a fresh page, its checksum goes
//!   into its parent, its old page is freed (for the time after this checkpoint).
//! - *Flat*: snapshots and restores that were staged take effect, then the catalog and the space
//!   map are written. Choosing pages for the space map changes the space map:
//!   places are chosen for all of it, in a loop that ends because a page gets dirty once, before
//!   any of it is written.
//! - *Super*: flush, one copy, flush, the other copy, flush.
//!
//! Edits wait meanwhile (they are `Busy`); lookups and tentative allocations do not.

use bdev::{Buffers, Completion, Fifo, Request, Status};
use zerocopy::FromZeros;

use crate::catalog::CATALOG_PAGES;
use crate::flat::{FlatTree, Mark};
use crate::format::{NodeId, Page, PagePtr, Superblock};
use crate::io::{Geometry, SuperStep, SuperWriter, Writer};
use crate::limits::SEAL_PAGES_MAX;
use crate::tree::{EDIT_PAGES_MAX, RECLAIM_PAGES};
use crate::{Event, LogTail, Store, VolumeId};

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Trees,
    Flat { tree: usize, level: usize, index: usize },
    Drain,
    Super,
    Failed,
}

/// The checkpoint machine of a store.
pub(crate) struct Checkpoint {
    phase: Phase,
    tail: LogTail,
    generation: u64,
    /// The dirty frames, leaves first, and how many are sealed.
    work: Vec<u32>,
    sealed: usize,
    writer: Writer,
    pair: SuperWriter,
    /// The superblock on its way; the store's own is the durable one.
    staged: Superblock,
    scratch: Box<Page>,
}

impl Checkpoint {
    pub(crate) fn new(geometry: Geometry, frames: u32) -> Checkpoint {
        Checkpoint {
            phase: Phase::Idle,
            tail: LogTail::START,
            generation: 0,
            work: Vec::with_capacity(frames as usize),
            sealed: 0,
            writer: Writer::new(geometry),
            pair: SuperWriter::new(geometry),
            staged: Superblock::new_zeroed(),
            scratch: Box::new(Page::zeroed()),
        }
    }

    /// True while a checkpoint runs, and for ever after one failed.
    pub(crate) fn blocks_edits(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// Pages and requests written so far.
    pub(crate) fn written(&self) -> (u64, u64) {
        (self.writer.pages, self.writer.requests)
    }

    pub(crate) fn on_super(&mut self, status: Status) {
        self.pair.on_completion(status);
    }

    pub(crate) fn on_write(&mut self, key: u32, completion: Completion) {
        self.writer.on_completion(key, completion);
    }
}

impl Store {
    /// Starts to make everything since the last checkpoint durable, with `tail` as the place where
    /// replay starts from then on. False when a checkpoint is running already (or its event
    /// was not polled yet), when one failed, or when claimed extents left no room for it.
    pub fn begin_checkpoint(&mut self, tail: LogTail) -> bool {
        if self.checkpoint.blocks_edits() || self.checkpoint_event.is_some() {
            return false;
        }
        let need = self.checkpoint_pages_most(u64::from(self.cache.dirty()));
        let keep = self.checkpoint_pages_most(EDIT_PAGES_MAX + RECLAIM_PAGES);
        if !self.meta.prepare(need, keep, &mut self.space) {
            // Edits and allocations leave the pages that a checkpoint needs; extents that a replay
            // claims may not. Reads go on; abandoned extents make room again.
            self.meta.unprepare(&mut self.space);
            return false;
        }
        let mut work = std::mem::take(&mut self.checkpoint.work);
        work.clear();
        self.cache.collect_dirty(&mut work);
        work.sort_unstable_by_key(|&frame| {
            let node = self.cache.frame(frame).node;
            (node.level, node.owner, node.index)
        });
        self.checkpoint.work = work;
        self.checkpoint.sealed = 0;
        self.catalog.staged_begun = self.catalog.staged.len();
        self.checkpoint.tail = tail;
        self.checkpoint.generation = self.generation() + 1;
        self.checkpoint.phase = Phase::Trees;
        true
    }

    /// True between [`Store::begin_checkpoint`] and its event.
    pub fn is_checkpointing(&self) -> bool {
        !matches!(self.checkpoint.phase, Phase::Idle | Phase::Failed)
    }

    /// Ends a running checkpoint and refuses every later one: the device has lost writes that it
    /// had completed, so what is durable is the last checkpoint, and nothing may follow it.
    pub fn halt(&mut self, status: Status) {
        if self.is_checkpointing() {
            self.fail_checkpoint(status);
        }
        self.checkpoint.phase = Phase::Failed;
    }

    /// True when a checkpoint failed: the map on the device is the last durable one, and nothing
    /// can be changed until the store is mounted again.
    pub fn has_failed(&self) -> bool {
        self.checkpoint.phase == Phase::Failed
    }

    pub(crate) fn poll_checkpoint(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        if !self.is_checkpointing() {
            return;
        }
        self.checkpoint.writer.poll_again(requests);
        for _ in 0..SEAL_PAGES_MAX {
            let went_on = match self.checkpoint.phase {
                Phase::Trees => self.seal_tree_page(requests, pool),
                Phase::Flat { tree, level, index } => {
                    self.seal_flat_page(tree, level, index, requests, pool)
                }
                Phase::Idle | Phase::Drain | Phase::Super | Phase::Failed => false,
            };
            if !went_on {
                break;
            }
        }
        if self.checkpoint.phase == Phase::Drain {
            self.checkpoint.writer.flush_run(requests);
        }
        self.advance_checkpoint();
        if self.checkpoint.phase == Phase::Super {
            let Checkpoint { pair, staged, .. } = &mut self.checkpoint;
            pair.poll_requests(staged, requests, pool);
        }
    }

    /// Goes on when what was waited for has happened.
    pub(crate) fn advance_checkpoint(&mut self) {
        if !self.is_checkpointing() {
            return;
        }
        if let Some(status) = self.checkpoint.writer.failed() {
            return self.fail_checkpoint(status);
        }
        if self.checkpoint.phase == Phase::Drain && self.checkpoint.writer.is_idle() {
            self.stage_superblock();
            self.checkpoint.pair.start(self.next_slot);
            self.checkpoint.phase = Phase::Super;
        }
        if self.checkpoint.phase == Phase::Super {
            match self.checkpoint.pair.step() {
                // A page that is being mended must not become somebody else's meanwhile.
                SuperStep::Done if self.repairs.in_flight() => {}
                SuperStep::Done => self.finish_checkpoint(),
                SuperStep::Failed(status) => self.fail_checkpoint(status),
                _ => {}
            }
        }
    }

    /// Seals and writes the next dirty page of a volume. False when it must wait.
    fn seal_tree_page(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) -> bool {
        let Some(&frame) = self.checkpoint.work.get(self.checkpoint.sealed) else {
            self.place_flat_trees();
            self.checkpoint.phase = Phase::Flat { tree: 0, level: 0, index: 0 };
            return true;
        };
        let next = self.meta.peek();
        if !self.checkpoint.writer.ready(next, requests, pool) {
            return false;
        }
        let place = self.meta.allocate(&mut self.space);
        assert_eq!(place, next);
        let at = *self.cache.frame(frame);
        let slot = self.catalog.slot(VolumeId(at.node.owner)).expect("volumes outlive their pages");
        self.count_mapped(slot, frame);
        let record = self.catalog.record(slot);
        let (birth, header) =
            (record.birth.get(), NodeId { owner: record.family.get(), ..at.node });
        assert!(at.node.level > 0 || self.cache.page(frame).leaf().is_born_by(birth));
        let uuid = self.superblock.uuid;
        let generation = self.checkpoint.generation;
        let ptr = self.cache.page_mut(frame).seal(header, place, generation, &uuid, birth);
        self.checkpoint.writer.push(self.cache.page(frame));
        self.free_tree_page(at.ptr);
        self.cache.frame_mut(frame).ptr = ptr;
        self.point_at(slot, at.node, ptr);
        self.checkpoint.sealed += 1;
        true
    }

    /// Enters the new place of a page into its parent, which is dirty too, or into the catalog.
    fn point_at(&mut self, slot: usize, node: NodeId, ptr: PagePtr) {
        if node.level == self.catalog.record(slot).depth {
            self.catalog.change(slot).root = ptr;
            return;
        }
        let parent = self.cache.find(node.parent()).expect("parents of dirty pages are in memory");
        self.cache.page_mut(parent).inner_mut().children[node.child_slot()] = ptr;
    }

    /// Chooses new places for every dirty page of the catalog and of the space map.
    fn place_flat_trees(&mut self) {
        self.apply_staged();
        self.catalog.freeze();
        for page in 0..CATALOG_PAGES {
            if self.catalog.take_dirty(page) {
                self.catalog_tree.touch(page);
            }
        }
        place_dirty(&mut self.catalog_tree, &mut self.meta, &mut self.space);
        while self.space.any_dirty() {
            for page in 0..self.space.pages() {
                if self.space.is_dirty(page) {
                    self.space.clear_dirty(page);
                    self.space_tree.touch(page);
                }
            }
            place_dirty(&mut self.space_tree, &mut self.meta, &mut self.space);
        }
    }

    /// Seals and writes one page of the catalog (tree 0) or the space map (tree 1), if it is dirty.
    /// False when it must wait.
    fn seal_flat_page(
        &mut self,
        tree: usize,
        level: usize,
        index: usize,
        requests: &mut Fifo<Request>,
        pool: &dyn Buffers,
    ) -> bool {
        let flat = if tree == 0 { &mut self.catalog_tree } else { &mut self.space_tree };
        let next = (index..flat.len(level)).find(|&i| flat.mark(level, i) == Mark::Placed);
        if let Some(index) = next {
            let place = flat.ptr(level, index).place();
            if !self.checkpoint.writer.ready(place, requests, pool) {
                return false;
            }
            let scratch = &mut *self.checkpoint.scratch;
            scratch.clear();
            match (tree, level) {
                (0, 0) => self.catalog.write_page(index, scratch.catalog_mut()),
                (_, 0) => self.space.write_page(index, &mut scratch.bits_mut().words),
                _ => flat.fill(level, index, &mut scratch.inner_mut().children),
            }
            let node = flat.node(level, index);
            let generation = self.checkpoint.generation;
            let ptr = scratch.seal(node, place, generation, &self.superblock.uuid, 0);
            flat.seal(level, index, ptr);
            self.checkpoint.writer.push(scratch);
        }
        self.checkpoint.phase = if let Some(index) = next {
            Phase::Flat { tree, level, index: index + 1 }
        } else if level + 1 < flat.levels() {
            Phase::Flat { tree, level: level + 1, index: 0 }
        } else if tree == 0 {
            Phase::Flat { tree: 1, level: 0, index: 0 }
        } else {
            Phase::Drain
        };
        true
    }

    fn stage_superblock(&mut self) {
        let superblock = &mut self.checkpoint.staged;
        superblock.clone_from(&self.superblock);
        superblock.generation.set(self.checkpoint.generation);
        superblock.catalog = self.catalog_tree.root();
        superblock.space = self.space_tree.root();
        superblock.next_volume.set(self.catalog.frozen_next_id());
        superblock.used_extents.set(self.space.mapped());
        superblock.set_tail(self.checkpoint.tail);
        superblock.set_scrub(&self.scrub);
    }

    fn finish_checkpoint(&mut self) {
        self.next_slot ^= 1;
        self.superblock.clone_from(&self.checkpoint.staged);
        for &frame in &self.checkpoint.work {
            self.cache.clean(frame);
        }
        self.meta.settle();
        self.space.settle();
        self.meta.unprepare(&mut self.space);
        self.checkpoints += 1;
        self.patrol.mend_superblock = false;
        self.patrol.save_soon = false;
        self.checkpoint.phase = Phase::Idle;
        self.checkpoint_event = Some(Event::CheckpointDone(self.checkpoint.tail));
    }

    fn fail_checkpoint(&mut self, status: Status) {
        self.checkpoint.phase = Phase::Failed;
        self.checkpoint_event = Some(Event::CheckpointFailed(status));
    }
}

/// Gives every dirty page of a tree its place.
fn place_dirty(
    tree: &mut FlatTree,
    meta: &mut crate::meta::MetaSpace,
    space: &mut crate::space::SpaceMap,
) {
    for level in 0..tree.levels() {
        for index in 0..tree.len(level) {
            if tree.mark(level, index) != Mark::Dirty {
                continue;
            }
            let old = tree.ptr(level, index);
            if !old.is_none() {
                meta.free_page(old.place(), space);
            }
            tree.place(level, index, meta.allocate(space));
        }
    }
}
