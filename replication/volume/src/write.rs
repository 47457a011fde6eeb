//! The write path: small and unaligned writes through the log, whole extents around it.

use bdev::{Data, Flags, Op, Status};
use store::{Extent, Lookup, VolumeId};
use wal::{AppendError, Record};

use crate::commit::{Pending, What};
use crate::core::Core;
use crate::device::{BLOCK, Io, Purpose};
use crate::limits::{SPACE_CHECKPOINTS_MAX, ZERO_BLOCKS_MAX};
use crate::op::{Edge, SpaceWait};
use crate::overlay::Place;

/// Blocks in an extent.
pub(crate) const EXTENT_BLOCKS: u64 = store::EXTENT_BLOCKS as u64;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It was taken; there may be another.
    Done,
    /// It has to wait for something that a later turn may find.
    Wait,
    /// It cannot be taken.
    Fail(Status),
    /// Somebody else goes on with it.
    Handed,
}

/// Whether a write may go into the log as far as space is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    /// Yes; a bit for each block that sets an extent aside.
    Granted(u64),
    Wait,
    Full,
    Damaged,
}

/// Extents that the exact accounting leaves alone, so that it is asked rarely.
const SPACE_MARGIN: u64 = 8;

/// Pages that zeroing a range changes at most without removing them: the paths to its two ends.
const ZERO_PAGES_MAX: u64 = 2 * store::PATH_PAGES_MAX;

/// Extents that are gone when `extents` have been mapped: each may add a leaf and an inner page to
/// the metadata, in two copies, because a page that a snapshot shares is not given back when it
/// is changed. Four pages are a quarter of an extent.
fn with_pages(extents: u64) -> u64 {
    extents + extents.div_ceil(4)
}

impl Core {
    /// Takes a write, deallocate or write-zeroes as far as it goes now.
    pub(crate) fn try_write(&mut self, key: u32) {
        loop {
            let op = self.ops.get(key).expect("the caller holds the operation");
            if op.cursor == op.blocks || !op.status.is_ok() {
                return self.settle(key);
            }
            match self.write_step(key) {
                Step::Done => {}
                Step::Handed => return,
                Step::Wait => match self.is_given_up(key) {
                    None => return self.park_write(key),
                    Some(status) => self.ops.get_mut(key).expect("held").fail(status),
                },
                Step::Fail(status) => {
                    self.ops.get_mut(key).expect("held").fail(status);
                }
            }
            let op = self.ops.get(key).expect("held");
            if op.edges.iter().any(|edge| matches!(edge, Edge::Reading)) {
                return; // The end of the read goes on with it.
            }
        }
    }

    /// Puts a write at the end of the line.
    pub(crate) fn park_write(&mut self, key: u32) {
        let op = self.ops.get_mut(key).expect("held");
        self.stats.parked_writes += u64::from(!op.waited);
        (op.parked, op.waited) = (true, true);
        let pushed = self.parked_writes.push(key);
        assert!(pushed.is_ok(), "as many places as operations");
    }

    fn write_step(&mut self, key: u32) -> Step {
        if let Some(status) = self.failed {
            return Step::Fail(status);
        }
        if !self.is_due(key) || !self.may_start(key) {
            return Step::Wait;
        }
        if self.is_comparing(key) {
            self.try_read(key);
            return Step::Handed;
        }
        for last in [false, true] {
            let op = self.ops.get(key).expect("held");
            if matches!(op.edges[usize::from(last)], Edge::Wanted) && !self.read_edge(key, last) {
                return Step::Wait;
            }
        }
        let op = self.ops.get(key).expect("held");
        if !op.status.is_ok() || op.edges.iter().any(|edge| matches!(edge, Edge::Reading)) {
            return Step::Done;
        }
        let (cursor, last) = (op.cursor, op.blocks - 1);
        let edged = op.edges.iter().any(|edge| matches!(edge, Edge::Ready(_)));
        let through_log = match op.request.op {
            Op::Write => edged || !op.is_extent(),
            Op::CompareAndWrite => true,
            _ => edged,
        };
        if through_log && op.is_atomic() {
            if bdev::planted(bdev::Planted::AtomicSplit) && cursor == 0 && last > 0 {
                let first = self.log_piece(key, op.blocks / 2);
                return if first == Step::Done { Step::Wait } else { first };
            }
            return self.log_piece(key, op.blocks - cursor);
        }
        if cursor == 0 && matches!(op.edges[0], Edge::Ready(_)) {
            return self.log_piece(key, 1);
        }
        if cursor == last && matches!(op.edges[1], Edge::Ready(_)) {
            return self.log_piece(key, 1);
        }
        match op.request.op {
            Op::Write => self.write_middle(key),
            _ => self.zero_middle(key),
        }
    }

    /// A step through the blocks that the range covers whole.
    fn write_middle(&mut self, key: u32) -> Step {
        let op = self.ops.get(key).expect("held");
        let at = op.first + op.cursor;
        let left = op.whole_end() - op.cursor;
        let direct = op.skip == 0 && left >= EXTENT_BLOCKS;
        if direct && at.is_multiple_of(EXTENT_BLOCKS) {
            return self.write_direct(key, left / EXTENT_BLOCKS);
        }
        let to_extent = at.next_multiple_of(EXTENT_BLOCKS) - at;
        let most = if direct { to_extent } else { left };
        self.log_piece(key, most.min(self.piece_blocks))
    }

    /// Whole extents: data to fresh places first; the records follow when it is durable.
    fn write_direct(&mut self, key: u32, extents: u64) -> Step {
        if self.device.room() == 0 {
            return Step::Wait;
        }
        if !self.admits(key) || !self.has_room(store::EXTENT_BLOCKS, 0, store::EXTENT_BLOCKS) {
            self.log_blocked = true;
            return Step::Wait;
        }
        let most = u32::try_from(extents.min(self.direct_room())).unwrap_or(u32::MAX);
        // Who waits for space comes before second copies.
        let none = most == 0 || self.space_waiters > 0;
        let run = if none { None } else { self.store.allocate_run(most) };
        let Some((extent, count)) = run else {
            if self.space_waiters == 0 && self.waits_for_returns(key) {
                return Step::Wait;
            }
            // No room for a second copy: through the log, and over the old one in place.
            return self.log_piece(key, EXTENT_BLOCKS.min(self.piece_blocks));
        };
        let op = self.ops.get_mut(key).expect("held");
        let Data::From(buf) = &op.request.data else { panic!("a write has a buffer") };
        let offset = usize::try_from(op.cursor).expect("a short range") * BLOCK;
        let slice = if offset == 0 { buf.clone() } else { buf.slice(offset) };
        let first = u32::try_from(op.cursor).expect("a short range");
        let purpose = Purpose::Direct { extent: extent.number(), extents: count, first, logged: 0 };
        let blocks = count * u32::try_from(EXTENT_BLOCKS).expect("16");
        op.cursor += u64::from(blocks);
        op.pending += 1;
        self.directs += 1;
        let io = Io::new(purpose, key, extent.byte_offset(), blocks);
        self.device.write(io, slice, Flags::NONE);
        self.count_admitted(key);
        Step::Done
    }

    /// The data of a direct write is on the device, or failed.
    pub(crate) fn on_direct(&mut self, io_key: u32, status: Status) {
        if !status.is_ok() {
            self.drop_direct(io_key, Status::Io);
        } else if self.device.volatile_cache && !bdev::planted(bdev::Planted::DirectBeforeFlush) {
            let pushed = self.unflushed.push(io_key);
            assert!(pushed.is_ok(), "as many places as requests");
        } else {
            self.log_direct(io_key);
        }
    }

    /// One flush for all direct writes whose data has arrived since the last.
    pub(crate) fn flush_directs(&mut self) {
        if self.flushing == 0 && !self.unflushed.is_empty() && self.device.room() > 0 {
            self.flushing = self.unflushed.len();
            self.device.flush();
        }
    }

    /// The data of the direct writes that the flush covered is durable.
    ///
    /// A flush that failed may have cost what the destager wrote too, so the engine stops writing:
    /// the next mount repeats it from the log.
    pub(crate) fn on_flushed(&mut self, status: Status) {
        if !status.is_ok() && !bdev::planted(bdev::Planted::FlushErrorIgnored) {
            self.fail("flushing the device", status);
        }
        let covered = std::mem::take(&mut self.flushing);
        let later = bdev::planted(bdev::Planted::FlushCoversLater);
        let covered = if later { self.unflushed.len() } else { covered };
        for _ in 0..covered {
            let io_key = self.unflushed.pop().expect("covered by the flush");
            self.log_direct(io_key);
        }
    }

    /// Gives back the extents of a direct write that have no record, and fails the operation.
    fn drop_direct(&mut self, io_key: u32, status: Status) {
        let io = self.device.ios.remove(io_key).expect("held");
        self.directs -= 1;
        let Purpose::Direct { extent, extents, logged, .. } = io.purpose else {
            panic!("a direct write")
        };
        let logged = if bdev::planted(bdev::Planted::DirectLeaked) { extents } else { logged };
        for index in logged..extents {
            self.store.abandon(self.extent(extent + u64::from(index)));
        }
        let op = self.ops.get_mut(io.op).expect("an operation outlives its requests");
        op.fail(status);
        op.pending -= 1;
        self.settle(io.op);
    }

    /// Logs the extents of a direct write, one record each; parks it when the log has no room.
    pub(crate) fn log_direct(&mut self, io_key: u32) {
        loop {
            let io = *self.device.ios.get(io_key).expect("held until all is logged");
            let Purpose::Direct { extent, extents, first, logged } = io.purpose else {
                panic!("a direct write")
            };
            if logged == extents {
                self.device.ios.remove(io_key);
                self.directs -= 1;
                let op = self.ops.get_mut(io.op).expect("an operation outlives its requests");
                op.pending -= 1;
                return self.settle(io.op);
            }
            if let Some(status) = self.failed {
                return self.drop_direct(io_key, status);
            }
            let at = u64::from(first) + u64::from(logged) * EXTENT_BLOCKS;
            match self.log_extent(io.op, at, extent + u64::from(logged)) {
                Step::Done => {
                    let io = self.device.ios.get_mut(io_key).expect("held");
                    io.purpose = Purpose::Direct { extent, extents, first, logged: logged + 1 };
                }
                Step::Wait => {
                    if let Some(status) = self.is_given_up(io.op) {
                        return self.drop_direct(io_key, status);
                    }
                    let pushed = self.parked_directs.push(io_key);
                    assert!(pushed.is_ok(), "as many places as requests");
                    return;
                }
                Step::Fail(status) => return self.drop_direct(io_key, status),
                Step::Handed => panic!("nobody goes on with a record"),
            }
        }
    }

    fn log_extent(&mut self, key: u32, at: u64, extent: u64) -> Step {
        let count = store::EXTENT_BLOCKS;
        // The extents are taken already: only the very end of the log is closed to them.
        if !self.has_room(count, 0, count) {
            return Step::Wait;
        }
        let op = self.ops.get(key).expect("held");
        let mut crcs = [0; store::EXTENT_BLOCKS];
        let payload = op.payload(at, at + EXTENT_BLOCKS);
        self.stats.summed_bytes += op.checksums(at, &[payload], &mut crcs);
        let (volume, block) = (op.volume, op.first + at);
        let record = Record::Direct { volume, block, extent, crcs: &crcs };
        let what = What::Direct { extent };
        let pending = Pending { op: key, volume, block, blocks: EXTENT_BLOCKS, what };
        let appended = self.wal.append(&record, &[]);
        self.appended(appended, pending, &crcs)
    }

    /// Logs the next `blocks` blocks of a write.
    fn log_piece(&mut self, key: u32, blocks: u64) -> Step {
        let op = self.ops.get(key).expect("held");
        let (volume, cursor, first) = (op.volume, op.cursor, op.first + op.cursor);
        let count = usize::try_from(blocks).expect("a piece is short");
        if !self.admits(key) || !self.has_room(count, 0, count) {
            self.log_blocked = true;
            return Step::Wait;
        }
        let reserve = match self.space_for(volume, first, blocks) {
            Space::Granted(reserve) => {
                self.end_space_wait(key);
                reserve
            }
            Space::Damaged => return Step::Fail(Status::Integrity),
            Space::Wait => return Step::Wait,
            Space::Full => return self.wait_for_space(key),
        };
        let op = self.ops.get(key).expect("held");
        let parts = op.parts(cursor, cursor + blocks);
        let mut crcs = [0; wal::RECORD_BLOCKS_MAX];
        self.stats.summed_bytes += op.checksums(cursor, &parts, &mut crcs);
        let crcs = &crcs[..count];
        let record = Record::Write { volume, block: first, crcs };
        let what = What::Write { reserve };
        let pending = Pending { op: key, volume, block: first, blocks, what };
        let appended = self.wal.append(&record, &parts);
        let step = self.appended(appended, pending, crcs);
        if step == Step::Done {
            self.reserved += u64::from(reserve.count_ones());
            self.ops.get_mut(key).expect("held").cursor += blocks;
        }
        step
    }

    /// Logs that the rest of the range, up to its last edge, is zero.
    fn zero_middle(&mut self, key: u32) -> Step {
        let op = self.ops.get(key).expect("held");
        let (volume, block) = (op.volume, op.first + op.cursor);
        let blocks = op.whole_end() - op.cursor;
        let ranged = blocks > ZERO_BLOCKS_MAX;
        let slots = if ranged { 0 } else { usize::try_from(blocks).expect("small") };
        if !self.admits(key) || !self.has_room(slots, usize::from(ranged), 0) {
            self.log_blocked = true;
            return Step::Wait;
        }
        if bdev::planted(bdev::Planted::ZeroNotLogged) {
            self.ops.get_mut(key).expect("held").cursor += blocks;
            return Step::Done;
        }
        if !self.has_pages_for_zeroes(volume, block, blocks) {
            return self.wait_for_space(key);
        }
        self.end_space_wait(key);
        let record = Record::Zero { volume, block, blocks };
        let what = if ranged { What::ZeroRange } else { What::Zero };
        let pending = Pending { op: key, volume, block, blocks, what };
        let appended = self.wal.append(&record, &[]);
        let step = self.appended(appended, pending, &[]);
        if step == Step::Done {
            self.ops.get_mut(key).expect("held").cursor += blocks;
        }
        step
    }

    /// True when a record of this size fits every table that it will pass through.
    pub(crate) fn has_room(&self, blocks: usize, ranges: usize, crcs: usize) -> bool {
        self.overlay.room() >= self.pledged_blocks + blocks
            && self.overlay.range_room() >= self.pledged_ranges + ranges
            && !self.pending.is_full()
            && self.journal.room() > self.pending.len()
            && self.crcs.room() >= crcs
    }

    fn appended(
        &mut self,
        appended: Result<wal::Lsn, AppendError>,
        pending: Pending,
        crcs: &[u32],
    ) -> Step {
        match appended {
            Ok(_) if bdev::planted(bdev::Planted::AckBeforeDurable) => {
                self.pend(Pending { op: crate::commit::NO_OP, ..pending }, crcs);
                Step::Done
            }
            Ok(_) => {
                self.ops.get_mut(pending.op).expect("held").pending += 1;
                self.count_admitted(pending.op);
                self.pend(pending, crcs);
                Step::Done
            }
            Err(AppendError::Full | AppendError::Busy) => {
                self.log_blocked = true;
                Step::Wait
            }
            Err(AppendError::Failed) => Step::Fail(self.failed.unwrap_or(Status::Io)),
        }
    }

    /// Sets extents aside for blocks that may need them.
    fn space_for(&mut self, volume: u32, first: u64, blocks: u64) -> Space {
        if bdev::planted(bdev::Planted::NothingSetAside) {
            return Space::Granted(0);
        }
        let free = self.store.free_extents();
        if free >= self.spoken_for(blocks, 0) + SPACE_MARGIN {
            return Space::Granted(u64::MAX >> (64 - blocks));
        }
        let (mut block, mut reserve) = (first, 0u64);
        while block < first + blocks {
            let index = block / EXTENT_BLOCKS;
            match self.needs_extent(volume, index) {
                Ok(true) => reserve |= 1 << (block - first),
                Ok(false) => {}
                Err(space) => return space,
            }
            block = (index + 1) * EXTENT_BLOCKS;
        }
        // What goes over its old place needs nothing, however full the store is.
        if reserve == 0 || free >= self.spoken_for(u64::from(reserve.count_ones()), 0) {
            Space::Granted(reserve)
        } else {
            Space::Full
        }
    }

    /// Extents that must be free for what is on its way into the map and for so many further blocks
    /// and zeroed ranges: with the pages that they add, where no page is given back for them.
    pub(crate) fn spoken_for(&self, blocks: u64, zeroes: u64) -> u64 {
        let zeroes = if self.is_sharing() {
            self.pending_zeroes + self.journal.zeroes() + zeroes
        } else {
            0
        };
        with_pages(self.reserved + blocks) + (zeroes * ZERO_PAGES_MAX).div_ceil(EXTENT_BLOCKS)
    }

    /// True when pages of some volume's map are a snapshot's too, or will be soon.
    fn is_sharing(&self) -> bool {
        self.store.is_sharing() || self.layers.is_waiting()
    }

    /// Whether the pages are there that zeroing this range takes: clearing an entry of a page that
    /// a snapshot shares replaces that page and frees none.
    fn has_pages_for_zeroes(&mut self, volume: u32, block: u64, blocks: u64) -> bool {
        let needed = self.spoken_for(0, 1);
        if !self.is_sharing() || self.store.free_extents() >= needed + SPACE_MARGIN {
            return true;
        }
        // In the middle of a long range whole pages go; only at its ends others are changed.
        let ends = [block / EXTENT_BLOCKS, (block + blocks - 1) / EXTENT_BLOCKS];
        let shares = |index| self.store.replaces_shared(VolumeId(volume), index);
        let takes_pages = self.layers.will_share(volume) || ends.into_iter().any(shares);
        !takes_pages || self.store.free_extents() >= needed
    }

    /// True when destaging a block of this extent may take a free extent that nobody set aside.
    fn needs_extent(&mut self, volume: u32, index: u64) -> Result<bool, Space> {
        let (start, end) = (index * EXTENT_BLOCKS, (index + 1) * EXTENT_BLOCKS);
        let layer = self.layers.newest(volume);
        if self.is_doubtful(volume, start, end) || self.overlay.range_touches(layer, start, end) {
            return Ok(true); // What is on its way may unmap the extent, or undo a reservation.
        }
        if !self.overlay.has_zeroes()
            && !self.layers.will_share(volume)
            && let Lookup::Entry(entry) = self.store.lookup(VolumeId(volume), index)
            && self.store.is_owned(VolumeId(volume), index, &entry)
        {
            return Ok(false); // Nothing unmaps it before: no need to look at its neighbours.
        }
        let mut zeroes = false;
        for block in start..end {
            match self.overlay.find_block(layer, block) {
                Some(version) if version.reserved => return Ok(false),
                Some(version) => zeroes |= version.place == Place::Zero,
                None => {}
            }
        }
        if self.layers.will_share(volume) {
            return Ok(true); // By the time it is destaged a snapshot has what is mapped now.
        }
        // Zeroes may unmap the extent before this write is destaged.
        match self.store.lookup(VolumeId(volume), index) {
            Lookup::Entry(entry) => {
                Ok(zeroes || !self.store.is_owned(VolumeId(volume), index, &entry))
            }
            Lookup::Unmapped => Ok(true),
            Lookup::Pending => Err(Space::Wait),
            Lookup::Damaged(_) => Err(Space::Damaged),
        }
    }

    /// True when a record that is not yet durable may unmap this extent of a volume, or undo what
    /// was set aside for it.
    fn is_doubtful(&self, volume: u32, start: u64, end: u64) -> bool {
        let touches = |pending: &Pending| {
            pending.what.is_doubt()
                && pending.volume == volume
                && pending.block < end
                && pending.block + pending.blocks > start
        };
        self.pending_doubts > 0 && self.pending.iter().any(touches)
    }

    /// Waits until a checkpoint covers everything that was in the log, or on its way there, when
    /// the wait began: what can be given back has been given back by then. If that was not enough,
    /// the store is full.
    fn wait_for_space(&mut self, key: u32) -> Step {
        let quiet = self.nothing_to_destage()
            && self.directs == 0
            && self.pending.is_empty()
            && !self.store.is_dirty()
            && !self.store.is_checkpointing()
            && !self.is_forgetting()
            && !self.is_reclaiming()
            && !self.store.may_reclaim_again();
        let (checkpoints, head) = (self.stats.checkpoints, self.wal.next_lsn());
        let op = self.ops.get_mut(key).expect("held");
        self.space_waiters += u32::from(op.space_wait.is_none());
        let wait = op.space_wait.get_or_insert(SpaceWait { checkpoints, head });
        if self.directs > 0 {
            // Each may replace an extent. None is begun while anybody waits, so this ends.
            wait.head = head;
        }
        let passed = checkpoints - wait.checkpoints;
        let covered = self.wal.tail().lsn >= wait.head && passed >= 2;
        if quiet || covered || passed >= SPACE_CHECKPOINTS_MAX {
            return Step::Fail(Status::NoSpace);
        }
        self.space_wanted = true;
        Step::Wait
    }

    /// The operation does not wait for space any more.
    pub(crate) fn end_space_wait(&mut self, key: u32) {
        let op = self.ops.get_mut(key).expect("held");
        self.space_waiters -= u32::from(op.space_wait.take().is_some());
    }

    /// A block does not need the extent that was set aside for it. A neighbour may have counted on
    /// it and inherits it; otherwise it is given back.
    pub(crate) fn unreserve(&mut self, layer: u32, block: u64) {
        let start = block / EXTENT_BLOCKS * EXTENT_BLOCKS;
        for neighbour in (start..start + EXTENT_BLOCKS).filter(|&other| other != block) {
            let Some(version) = self.overlay.find(layer, neighbour) else { continue };
            if matches!(version.place, Place::Log(_)) && !version.reserved {
                return self.overlay.reserve(layer, neighbour);
            }
        }
        self.reserved -= u64::from(!bdev::planted(bdev::Planted::ReservationLeak));
    }

    /// An extent by its number.
    pub(crate) fn extent(&self, number: u64) -> Extent {
        self.store.extent(number).expect("the store gave this extent out")
    }
}
