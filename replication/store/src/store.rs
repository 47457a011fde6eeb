//! A mounted store: the public interface over map, allocator, catalog and checkpoint.

use bdev::{Buffers, Completion, Fifo, Request};

use crate::cache::Cache;
use crate::catalog::{CATALOG_PAGES, Catalog};
use crate::checkpoint::Checkpoint;
use crate::compare::Comparer;
use crate::flat::FlatTree;
use crate::format::{NodeKind, OWNER_CATALOG, OWNER_SPACE, Superblock, VolumeRecord};
use crate::io::{Geometry, KEY_PATROL, KEY_REPAIR, KEY_SUPER, KEY_WRITE, key_of};
use crate::limits::{
    DEPTH_MAX, EVENTS_MAX, EXTENT_BLOCKS, FRAMES_MAX, FRAMES_MIN, LOADS_MAX, META_EXTENTS_START,
};
use crate::meta::MetaSpace;
use crate::patrol::Patrol;
use crate::reclaim::Reclaim;
use crate::repair::Repairs;
use crate::space::SpaceMap;
use crate::tree::{EDIT_PAGES_MAX, RECLAIM_PAGES};
use crate::{
    Damage, Event, Extent, ExtentState, LogRegion, LogTail, Options, ScrubRecord, VolumeError,
    VolumeId,
};

/// What a new volume is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSpec<'a> {
    /// Its id: [`Store::next_volume_id`], or the one in the log record that is replayed.
    pub id: VolumeId,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its name.
    pub name: &'a str,
    /// Its size in bytes; a multiple of 4 KiB.
    pub size: u64,
    /// Bytes in a logical block: 512 or 4096.
    pub block_bytes: u32,
}

/// Counters of a store, since the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Page loads that ended.
    pub loads: u64,
    /// Metadata pages that checkpoints wrote: each copy counts, superblocks do not.
    pub pages_written: u64,
    /// Requests that they were written with.
    pub page_writes: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Damaged pages that loads found, those that a second copy replaced included.
    pub damaged: u64,
    /// Copies of pages that were rewritten from the other copy.
    pub healed: u64,
    /// Dirty pages now.
    pub dirty_pages: u32,
    /// Metadata pages in use now; second copies are not counted.
    pub metadata_pages: u64,
    /// Those of them that have no second copy, because there was no space for it.
    pub single_pages: u64,
}

/// A mounted store. The crate documentation draws how its parts hang together.
pub struct Store {
    pub(crate) superblock: Superblock,
    /// The slot that the next checkpoint writes first.
    pub(crate) next_slot: u32,
    pub(crate) geometry: Geometry,
    pub(crate) cache: Cache,
    pub(crate) space: SpaceMap,
    pub(crate) meta: MetaSpace,
    pub(crate) catalog: Catalog,
    pub(crate) catalog_tree: FlatTree,
    pub(crate) space_tree: FlatTree,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) repairs: Repairs,
    pub(crate) patrol: Patrol,
    pub(crate) scrub: ScrubRecord,
    pub(crate) load_queue: Fifo<u32>,
    pub(crate) loads_in_flight: usize,
    pub(crate) loads: u64,
    pub(crate) damaged: u64,
    pub(crate) checkpoints: u64,
    pub(crate) reclaim: Reclaim,
    /// For counting what is a node's alone.
    pub(crate) comparer: Comparer,
    /// How the last checkpoint ended, until it is polled: never lost among reports of damage.
    pub(crate) checkpoint_event: Option<Event>,
    pub(crate) events: Fifo<Event>,
}

impl Store {
    /// The parts for the store that `superblock` describes, with nothing loaded yet.
    pub(crate) fn empty(superblock: Superblock, geometry: Geometry, options: &Options) -> Store {
        let frames = options.frames.clamp(FRAMES_MIN, FRAMES_MAX);
        let first = u32::try_from(superblock.area_first.get()).expect("checked by the mount");
        let space = SpaceMap::new(first, superblock.area_end.get());
        let space_tree = FlatTree::new(OWNER_SPACE, space.pages());
        let catalog_tree = FlatTree::new(OWNER_CATALOG, CATALOG_PAGES);
        let catalog = Catalog::new(superblock.next_volume.get());
        let pages_most = frames as usize + space_tree.page_count() + catalog_tree.page_count();
        let fresh = pages_most.div_ceil(EXTENT_BLOCKS) + 1;
        Store {
            scrub: superblock.scrub(),
            superblock,
            next_slot: 0,
            geometry,
            cache: Cache::new(frames),
            space,
            meta: MetaSpace::new(META_EXTENTS_START, fresh),
            catalog,
            catalog_tree,
            space_tree,
            checkpoint: Checkpoint::new(geometry, frames),
            repairs: Repairs::new(),
            patrol: Patrol::new(),
            load_queue: Fifo::new(frames as usize),
            loads_in_flight: 0,
            loads: 0,
            damaged: 0,
            checkpoints: 0,
            reclaim: Reclaim::new(),
            comparer: Comparer::new(),
            checkpoint_event: None,
            events: Fifo::new(EVENTS_MAX),
        }
    }

    /// The store's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.uuid
    }

    /// This mount's epoch: larger than that of every earlier mount, and durable.
    pub fn epoch(&self) -> u64 {
        self.superblock.epoch.get()
    }

    /// Generation of the newest checkpoint.
    pub fn generation(&self) -> u64 {
        self.superblock.generation.get()
    }

    /// Where the log region is.
    pub fn log_region(&self) -> LogRegion {
        LogRegion { start: self.superblock.log_start.get(), bytes: self.superblock.log_bytes.get() }
    }

    /// The log tail of the newest durable checkpoint.
    pub fn log_tail(&self) -> LogTail {
        self.superblock.tail()
    }

    /// Page loads that have ended so far, well or badly.
    pub fn loads(&self) -> u64 {
        self.loads
    }

    /// Counters.
    pub fn stats(&self) -> StoreStats {
        let (pages_written, page_writes) = self.checkpoint.written();
        StoreStats {
            loads: self.loads,
            pages_written,
            page_writes,
            checkpoints: self.checkpoints,
            damaged: self.damaged,
            healed: self.repairs.healed(),
            dirty_pages: self.cache.dirty(),
            metadata_pages: self.meta.used(),
            single_pages: self.meta.single(),
        }
    }

    /// A free extent for data, tentatively: [`Store::commit`] or [`Store::abandon`] follows.
    /// `None` when only the reserve for metadata is left; while a checkpoint runs that may be
    /// temporary.
    pub fn allocate(&mut self) -> Option<Extent> {
        if self.free_extents() == 0 { None } else { self.space.take() }
    }

    /// Like [`Store::allocate`], for data that an extent was promised to. The reserve for metadata
    /// grows with volumes and snapshots, over what was promised before: so this takes from it, as
    /// long as the next checkpoint, what is tentative, and two more edits find pages for one copy.
    pub fn allocate_promised(&mut self) -> Option<Extent> {
        let more = 2 * (self.space.tentative() + 1) + EDIT_PAGES_MAX + RECLAIM_PAGES;
        let rest = self.space.free().saturating_sub(1);
        if self.free_extents() > 0 || self.has_pages_for(more, rest) {
            return self.space.take();
        }
        None
    }

    /// A run of at least one and at most `most` (up to 16) free extents that follow each other, as
    /// its first extent and its length. `None` as for [`Store::allocate`].
    pub fn allocate_run(&mut self, most: u32) -> Option<(Extent, u32)> {
        let room = u32::try_from(self.free_extents()).unwrap_or(u32::MAX);
        if room == 0 {
            return None;
        }
        self.space.take_run(most.min(room))
    }

    /// A tentative extent was entered into the map (in an entry that [`Store::edit`] gave).
    ///
    /// # Panics
    /// When it is not tentative, or a checkpoint is running.
    pub fn commit(&mut self, extent: Extent) {
        assert!(!self.is_checkpointing(), "the map does not change during a checkpoint");
        self.space.commit(extent);
    }

    /// A tentative extent is not needed; it is free at once.
    ///
    /// # Panics
    /// When it is not tentative.
    pub fn abandon(&mut self, extent: Extent) {
        self.space.abandon(extent);
    }

    /// A mapped extent of the volume's own was taken out of the map. It is free after the next
    /// checkpoint.
    ///
    /// # Panics
    /// When it is not mapped, or a checkpoint is running.
    pub fn release(&mut self, extent: Extent) {
        assert!(!self.is_checkpointing(), "the map does not change during a checkpoint");
        self.space.release(extent);
    }

    /// Makes a free extent tentative, because a log record that is replayed says that it holds
    /// data. Returns what it was before: anything but `Free` is left as it is.
    pub fn claim(&mut self, extent: Extent) -> ExtentState {
        let state = self.space.state(extent);
        if state == ExtentState::Free {
            self.space.hold(extent);
        }
        state
    }

    /// What an extent is used for.
    pub fn extent_state(&self, extent: Extent) -> ExtentState {
        self.space.state(extent)
    }

    /// The extent with this number, if it lies in the area.
    pub fn extent(&self, number: u64) -> Option<Extent> {
        Extent::from_raw(number).filter(|_| self.space.contains(number))
    }

    /// Extents that [`Store::allocate`] can still give, the reserve for metadata not counted.
    ///
    /// The reserve lets a full checkpoint be written, every tentative extent be mapped, each with
    /// a leaf and an inner page of its own, deleted snapshots be reclaimed, and two copies of each
    /// page. Where snapshots or clones share pages, a leaf that is changed takes fresh pages and
    /// frees none: who plans changes counts them ([`Store::is_sharing`]).
    pub fn free_extents(&self) -> u64 {
        let some = 2 * self.space.tentative() + 2 + RECLAIM_PAGES;
        let all = self.checkpoint_pages_most(self.dirty_max()) + some;
        let reserve = 2 * all.saturating_sub(self.meta.free_paired()).div_ceil(PAGES);
        self.space.free().saturating_sub(reserve)
    }

    /// True when some volume may share pages with a snapshot, or will when what is staged is done.
    pub fn is_sharing(&self) -> bool {
        self.catalog.is_sharing()
    }

    /// Extents that were taken, and neither mapped nor given back yet.
    pub fn tentative_extents(&self) -> u64 {
        self.space.tentative()
    }

    /// Extents that fell out of the map and are free after the next checkpoint.
    pub fn released_extents(&self) -> u64 {
        self.space.released()
    }

    /// Extents that hold nothing, the reserve for metadata included.
    pub fn unused_extents(&self) -> u64 {
        self.space.free()
    }

    /// Extents of the area.
    pub fn total_extents(&self) -> u64 {
        self.space.total()
    }

    /// Every volume, those being deleted included.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.catalog.iter().filter(|record| record.kind() == NodeKind::Volume)
    }

    /// The volume or snapshot with this id, also while it is being deleted.
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeRecord> {
        self.catalog.find(id)
    }

    /// The id for the next volume or snapshot.
    pub fn next_volume_id(&self) -> VolumeId {
        VolumeId(self.catalog.next_id())
    }

    /// Enters a volume into the catalog; the next checkpoint makes it durable. Replaying the
    /// creation of a volume that exists, or existed, changes nothing and is no error. Not while a
    /// checkpoint runs.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn create_volume(&mut self, spec: &VolumeSpec<'_>) -> Result<(), VolumeError> {
        self.catalog.create(spec)
    }

    /// Marks a volume or a snapshot as being deleted; [`Store::reclaim`] gives back the space that
    /// nobody shares. The caller stops its I/O first. No effect when there is no such node.
    pub fn delete_volume(&mut self, id: VolumeId) {
        self.catalog.delete(id);
    }

    /// Changes a volume's size. Extents beyond a smaller size must be unmapped by the caller.
    ///
    /// # Errors
    /// [`VolumeError::Unknown`] and [`VolumeError::Size`].
    pub fn resize_volume(&mut self, id: VolumeId, size: u64) -> Result<(), VolumeError> {
        self.catalog.resize(id, size)
    }

    /// Appends the requests that are due, while there is room and the pool has buffers.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        // A checkpoint needs no page that is not in memory, and it ends: it goes before loads, of
        // which there may always be more.
        self.poll_checkpoint(requests, pool);
        self.poll_loads(requests, pool);
        self.poll_repairs(requests, pool);
        self.poll_patrol(requests, pool);
    }

    /// Takes the end of one of this store's requests.
    ///
    /// # Panics
    /// When the tag is not of this store's class.
    pub fn on_completion(&mut self, completion: Completion) {
        let key = key_of(completion.tag);
        if key >= KEY_PATROL {
            self.on_patrol(key, completion);
        } else if key >= KEY_REPAIR {
            self.on_repair(completion);
        } else if key >= KEY_SUPER {
            self.checkpoint.on_super(completion.status);
        } else if key >= KEY_WRITE {
            self.checkpoint.on_write(key, completion);
        } else {
            self.on_load(key, completion);
        }
        self.advance_checkpoint();
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.checkpoint_event.take().or_else(|| self.events.pop())
    }

    /// Most pages that may be dirty at a time: three quarters of the cache, and no more than what a
    /// small store can spare for the reserve.
    pub(crate) fn dirty_max(&self) -> u64 {
        let cached = u64::from(self.cache.capacity()) * 3 / 4;
        let pages = self.space.total() * EXTENT_BLOCKS as u64;
        cached.min((pages / 64).max(DIRTY_MIN))
    }

    /// Most pages that a checkpoint with `dirty` dirty pages of volumes writes.
    pub(crate) fn checkpoint_pages_most(&self, dirty: u64) -> u64 {
        let inner = self.catalog_tree.page_count() - CATALOG_PAGES;
        dirty + (self.space_tree.page_count() + inner + self.catalog.pages_most()) as u64
    }

    pub(crate) fn report(&mut self, damage: Damage) {
        // A full queue of damage reports loses further reports; `stats().damaged` counts all.
        let _ = self.events.push(Event::Damaged(damage));
    }
}

const PAGES: u64 = EXTENT_BLOCKS as u64;

/// Dirty pages that even the smallest store can write: three longest paths and a little.
const DIRTY_MIN: u64 = 32;
const _: () = assert!(DIRTY_MIN > 3 * 2 * (DEPTH_MAX as u64 + 1));
const _: () = assert!(LOADS_MAX > 0);
const _: () = assert!(FRAMES_MAX <= KEY_WRITE);
