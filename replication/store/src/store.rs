//! A mounted store: the public interface over map, allocator, catalog and checkpoint.

use std::ops::Range;

use bdev::{Completion, Fifo, Pool, Request};

use crate::format::VolumeRecord;
use crate::{
    Edit, Event, Extent, ExtentState, LogRegion, LogTail, Lookup, Unmap, VolumeError, VolumeId,
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

/// A mounted store.
pub struct Store {
    log: LogRegion,
}

impl Store {
    /// The store's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        [0; 16]
    }

    /// This mount's epoch: larger than that of every earlier mount, and durable.
    pub fn epoch(&self) -> u64 {
        0
    }

    /// Where the log region is.
    pub fn log_region(&self) -> LogRegion {
        self.log
    }

    /// The log tail of the newest durable checkpoint.
    pub fn log_tail(&self) -> LogTail {
        LogTail::START
    }

    /// Where extent `extent_index` of `volume` is. Never blocks: a page that is not in memory is
    /// requested, and the answer is [`Lookup::Pending`].
    pub fn lookup(&mut self, volume: VolumeId, extent_index: u64) -> Lookup {
        let _ = (volume, extent_index);
        Lookup::Unmapped
    }

    /// Page loads that have ended so far, well or badly.
    pub fn loads(&self) -> u64 {
        0
    }

    /// The entry of extent `extent_index` of `volume`, to be changed; the pages on the way are
    /// made when they are missing and stay in memory until the next checkpoint.
    pub fn edit(&mut self, volume: VolumeId, extent_index: u64) -> Edit<'_> {
        let _ = (volume, extent_index);
        Edit::Busy
    }

    /// True when so many pages are dirty that edits may soon be [`Edit::Busy`] until a checkpoint.
    pub fn needs_checkpoint(&self) -> bool {
        false
    }

    /// True when a checkpoint would change anything but the log tail.
    pub fn is_dirty(&self) -> bool {
        false
    }

    /// Unmaps extents of `volume` from the front of `range`, a bounded step at a time; `range`
    /// shrinks as it goes. What was never mapped is skipped without touching it.
    pub fn unmap(&mut self, volume: VolumeId, range: &mut Range<u64>) -> Unmap {
        let _ = (volume, range);
        Unmap::Done
    }

    /// Takes one step in giving back the space of deleted volumes.
    pub fn reclaim(&mut self) -> Unmap {
        Unmap::Done
    }

    /// A free extent for data, tentatively: [`Store::commit`] or [`Store::abandon`] follows.
    /// `None` when only the reserve for metadata is left.
    pub fn allocate(&mut self) -> Option<Extent> {
        None
    }

    /// A run of at least one and at most `most` free extents that follow each other, as its first
    /// extent and its length. `None` as for [`Store::allocate`].
    pub fn allocate_run(&mut self, most: u32) -> Option<(Extent, u32)> {
        let _ = most;
        None
    }

    /// A tentative extent was entered into the map (in an entry that [`Store::edit`] gave).
    pub fn commit(&mut self, extent: Extent) {
        let _ = extent;
    }

    /// A tentative extent is not needed; it is free at once.
    pub fn abandon(&mut self, extent: Extent) {
        let _ = extent;
    }

    /// A mapped extent was taken out of the map. It is free after the next checkpoint.
    pub fn release(&mut self, extent: Extent) {
        let _ = extent;
    }

    /// Makes a free extent tentative, because a log record that is replayed says that it holds
    /// data. Returns what it was before: anything but `Free` is left as it is.
    pub fn claim(&mut self, extent: Extent) -> ExtentState {
        self.extent_state(extent)
    }

    /// What an extent is used for.
    pub fn extent_state(&self, extent: Extent) -> ExtentState {
        let _ = extent;
        ExtentState::Free
    }

    /// The extent with this number, if it lies in the pool.
    pub fn extent(&self, number: u64) -> Option<Extent> {
        Extent::from_raw(number)
    }

    /// Extents that [`Store::allocate`] can still give, the reserve for metadata not counted.
    pub fn free_extents(&self) -> u64 {
        0
    }

    /// Extents of the pool.
    pub fn total_extents(&self) -> u64 {
        0
    }

    /// Every volume, those being deleted included.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeRecord> {
        [].iter()
    }

    /// The volume with this id, also while it is being deleted.
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeRecord> {
        let _ = id;
        None
    }

    /// The id for the next volume.
    pub fn next_volume_id(&self) -> VolumeId {
        VolumeId(1)
    }

    /// Enters a volume into the catalog; the next checkpoint makes it durable. Replaying the
    /// creation of a volume that exists, or existed, changes nothing and is no error.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn create_volume(&mut self, spec: &VolumeSpec<'_>) -> Result<(), VolumeError> {
        let _ = spec;
        Ok(())
    }

    /// Marks a volume as being deleted: lookups find nothing, and [`Store::reclaim`] gives its
    /// space back. No effect when there is no such volume.
    pub fn delete_volume(&mut self, id: VolumeId) {
        let _ = id;
    }

    /// Changes a volume's size. Extents beyond a smaller size must be unmapped by the caller.
    ///
    /// # Errors
    /// [`VolumeError::Unknown`] and [`VolumeError::Size`].
    pub fn resize_volume(&mut self, id: VolumeId, size: u64) -> Result<(), VolumeError> {
        let _ = (id, size);
        Ok(())
    }

    /// Starts to make everything since the last checkpoint durable, with `tail` as the place where
    /// replay starts from then on. False when a checkpoint is running already, or one failed.
    pub fn begin_checkpoint(&mut self, tail: LogTail) -> bool {
        let _ = tail;
        false
    }

    /// True between [`Store::begin_checkpoint`] and its event.
    pub fn is_checkpointing(&self) -> bool {
        false
    }

    /// Appends the requests that are due, while there is room and the pool has buffers.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &Pool) {
        let _ = (requests, pool);
    }

    /// Takes the end of one of this store's requests.
    pub fn on_completion(&mut self, completion: Completion) {
        drop(completion);
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
}
