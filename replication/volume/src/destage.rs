//! From the log to the map: windows of the log, sorted, coalesced, paced.
//!
//! ```text
//!  Idle --window--> Reading --log blocks read--> Applying --all edited and written--> Idle
//!    |                 (no log data: straight to)   ^
//!    |--zeroed range--> Zeroing ------- unmapped ---'----------------------------------|
//!    `--barrier------> Barrier ------- a checkpoint has what it asks for --------------'
//! ```
//!
//! Only this machine changes leaves. A block is written in place when its extent is mapped: the log
//! still holds it until a checkpoint with the new checksum is durable, so a crash at any point is
//! repaired by doing it again. Reads keep going to the log until then. An extent that a snapshot
//! shares is not written: the whole extent is copied (`cow.rs`). A window never crosses a barrier
//! (`barrier.rs`), so all of its blocks of one volume are of one layer.

use std::ops::Range;

use bdev::{Buf, BufMut, Flags, Status};
use store::{NodeKind, VolumeId, VolumeRecord};

use crate::core::Core;
use crate::cow::Cow;
use crate::device::{Io, Purpose};
use crate::journal::{Entry, Kind};
use crate::limits::{
    CANDIDATES_MAX, DESTAGE_ATTEMPTS_MAX, DESTAGE_FULL, DESTAGE_GENTLE, DESTAGE_LATER_MAX,
    WINDOW_BLOCKS, ZERO_BLOCKS_MAX,
};
use crate::pacing;
use crate::write::EXTENT_BLOCKS;

/// One block, or one directly written extent, on its way into the map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) volume: u32,
    pub(crate) layer: u32,
    pub(crate) block: u64,
    pub(crate) lsn: u64,
    pub(crate) crc: u32,
    pub(crate) what: Move,
    pub(crate) done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Move {
    /// The extent of a direct write becomes the extent of the map.
    Adopt { extent: u64, owned: bool },
    /// A block is copied from this position of the log.
    Copy(u64),
    /// A block becomes zero.
    Clear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Reading,
    Applying,
    Zeroing,
    /// Barriers at the head of the journal are in the store, for the next checkpoint.
    Barrier {
        count: usize,
    },
}

/// The destager.
#[derive(Debug)]
pub(crate) struct Destage {
    pub(crate) phase: Phase,
    /// The window's segment while nothing is in it.
    free: Option<BufMut>,
    /// The window's log blocks, from `start` on.
    pub(crate) data: Option<Buf>,
    pub(crate) start: u64,
    blocks: u64,
    candidates: Vec<Candidate>,
    /// The first candidate that may not be done: those before it are not looked at every turn.
    first_open: usize,
    /// Journal entries that the window covers.
    pub(crate) entries: u64,
    attempts: u32,
    pub(crate) in_flight: u32,
    /// Extents that are being copied because they are shared.
    pub(crate) cow: Cow,
    /// What is left of a zeroed range: whole extents, and the extents at its edges.
    pub(crate) zeroing: Range<u64>,
    pub(crate) edges: [Option<u64>; 2],
}

impl Destage {
    pub(crate) fn new(segment: BufMut, cow: Cow) -> Destage {
        Destage {
            phase: Phase::Idle,
            free: Some(segment),
            data: None,
            start: 0,
            blocks: 0,
            candidates: Vec::with_capacity(CANDIDATES_MAX),
            first_open: 0,
            entries: 0,
            attempts: 0,
            in_flight: 0,
            cow,
            zeroing: 0..0,
            edges: [None; 2],
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }
}

/// What became of one extent of a window.
pub(crate) enum Applied {
    Done,
    /// A page, a buffer or a slot is missing; later.
    Later,
    /// Nothing more can be edited before a checkpoint.
    Busy,
}

impl Core {
    /// A bounded step of destaging. True when something moved.
    pub(crate) fn destage_step(&mut self) -> bool {
        match self.destage.phase {
            Phase::Idle => self.begin_window(),
            Phase::Reading => self.read_window(),
            Phase::Applying => self.apply_window(),
            Phase::Zeroing => self.zero_step(),
            Phase::Barrier { .. } => false, // The next checkpoint moves it on.
        }
    }

    /// Destage writes that may be in flight now.
    fn destage_depth(&self) -> u32 {
        let returns = self.journal.directs() > 0 && self.wants_returns();
        if self.wants_all() || self.is_scarce() || self.layers.is_waiting() || returns {
            return DESTAGE_FULL;
        }
        pacing::destage_depth(self.not_moved())
    }

    fn begin_window(&mut self) -> bool {
        if self.nothing_to_destage() || self.checkpoint.wanted || self.destage_depth() == 0 {
            return false;
        }
        if self.journal.peek(0).is_some_and(|entry| entry.kind == Kind::Barrier) {
            return self.begin_barrier();
        }
        self.destage.candidates.clear();
        self.destage.first_open = 0;
        self.destage.entries = 0;
        self.destage.blocks = 0;
        self.stats.destage_windows += 1;
        while let Some(entry) = self.journal.peek(self.destage.entries).copied() {
            if entry.kind == Kind::ZeroRange {
                if self.destage.entries == 0 {
                    self.begin_zeroing(&entry);
                    return true;
                }
                break;
            }
            if entry.kind == Kind::Barrier || !self.collect(&entry) {
                break;
            }
            self.destage.entries += 1;
        }
        let order = |c: &Candidate| (c.volume, c.block / EXTENT_BLOCKS, rank(c.what), c.block);
        self.destage.candidates.sort_unstable_by_key(order);
        self.destage.phase = if self.destage.blocks > 0 { Phase::Reading } else { Phase::Applying };
        self.read_window();
        true
    }

    /// Adds what is still newest of an entry to the window. False when it does not fit.
    fn collect(&mut self, entry: &Entry) -> bool {
        let room = self.destage.candidates.capacity() - self.destage.candidates.len();
        if room < usize::try_from(ZERO_BLOCKS_MAX).expect("small") {
            return false;
        }
        let alive = self.is_writable(entry.volume);
        match entry.kind {
            Kind::Write { position } => {
                let end = position + entry.blocks;
                if self.destage.blocks == 0 {
                    self.destage.start = position;
                }
                let fits = end - self.destage.start <= WINDOW_BLOCKS
                    && self.destage.start % self.wal.ring_blocks()
                        <= position % self.wal.ring_blocks();
                if self.destage.blocks > 0 && !fits {
                    return false;
                }
                if self.collect_blocks(entry, alive) > 0 {
                    self.destage.blocks = end - self.destage.start;
                }
            }
            Kind::Zero => {
                self.collect_blocks(entry, alive);
            }
            Kind::Direct { extent, owned } => {
                let blocks = entry.block..entry.block + entry.blocks;
                let live = blocks.clone().any(|b| self.is_newest(entry.layer, b, entry.lsn));
                if live && alive {
                    let what = Move::Adopt { extent, owned };
                    let Entry { lsn, volume, layer, block, .. } = *entry;
                    let (crc, done) = (0, false);
                    let candidate = Candidate { volume, layer, block, lsn, crc, what, done };
                    self.destage.candidates.push(candidate);
                } else if owned {
                    // Free after the next checkpoint: until then a replay may ask for it.
                    let extent = self.extent(extent);
                    self.store.commit(extent);
                    self.store.release(extent);
                }
            }
            Kind::ZeroRange | Kind::Barrier => panic!("they have windows of their own"),
        }
        true
    }

    fn collect_blocks(&mut self, entry: &Entry, alive: bool) -> u64 {
        let mut found = 0;
        for index in 0..entry.blocks {
            let Entry { volume, layer, lsn, .. } = *entry;
            let block = entry.block + index;
            let missed = bdev::planted(bdev::Planted::SnapshotMissesWrite)
                && self.layers.newest(volume) != layer
                && self.overlay.find_block(self.layers.newest(volume), block).is_some();
            if !alive || missed || !self.is_newest(layer, block, lsn) {
                if self.overlay.unreserve(layer, block, lsn) {
                    self.unreserve(layer, block);
                }
                continue;
            }
            let version = self.overlay.find_block(layer, block).expect("just seen");
            let what = match entry.kind {
                Kind::Write { position } => Move::Copy(position + index),
                _ => Move::Clear,
            };
            let (crc, done) = (version.crc, false);
            let candidate = Candidate { volume, layer, block, lsn, crc, what, done };
            self.destage.candidates.push(candidate);
            found += 1;
        }
        found
    }

    pub(crate) fn is_alive(&self, node: u32) -> bool {
        self.store.volume(VolumeId(node)).is_some_and(|node| node.is_active())
    }

    /// True for a volume that was not deleted. A forged log may name what becomes a snapshot.
    pub(crate) fn is_writable(&self, node: u32) -> bool {
        let is = |node: &VolumeRecord| node.is_active() && node.kind() == NodeKind::Volume;
        self.store.volume(VolumeId(node)).is_some_and(is)
    }

    /// True when the record with this LSN is the last of its layer that touched the block.
    pub(crate) fn is_newest(&self, layer: u32, block: u64, lsn: u64) -> bool {
        self.overlay.find(layer, block).is_some_and(|version| version.lsn == lsn)
    }

    fn read_window(&mut self) -> bool {
        if self.destage.phase != Phase::Reading || self.device.room() == 0 {
            return false;
        }
        let Some(segment) = self.destage.free.take() else { return false };
        let byte = self.wal.byte_of(self.destage.start);
        let blocks = u32::try_from(self.destage.blocks).expect("a window is 1 MiB");
        self.device.read(Io::new(Purpose::WindowRead, 0, byte, blocks), segment);
        true
    }

    /// The window's log blocks are here.
    pub(crate) fn on_window_read(&mut self, status: Status, segment: BufMut) {
        if status.is_ok() {
            self.destage.data = Some(segment.freeze());
            self.destage.attempts = 0;
            self.destage.phase = Phase::Applying;
            return;
        }
        self.destage.free = Some(segment);
        self.destage.attempts += 1;
        if self.destage.attempts >= DESTAGE_ATTEMPTS_MAX {
            self.fail("reading the log to destage it", status);
        }
    }

    /// Edits leaves and writes data, extent by extent, as far as pages and buffers go.
    fn apply_window(&mut self) -> bool {
        // A window that was begun goes on, if slowly.
        let most = self.destage_depth().max(DESTAGE_GENTLE);
        let mut candidates = std::mem::take(&mut self.destage.candidates);
        let (mut at, mut left, mut moved) = (self.destage.first_open, 0, false);
        while at < candidates.len() {
            let first = candidates[at];
            let same = |c: &&Candidate| {
                c.volume == first.volume && c.block / EXTENT_BLOCKS == first.block / EXTENT_BLOCKS
            };
            let group = at..at + candidates[at..].iter().take_while(same).count();
            at = group.end;
            if first.done {
                continue;
            }
            if self.destage.in_flight >= most || left >= DESTAGE_LATER_MAX {
                left += 1;
                break;
            }
            match self.apply_extent(&candidates[group.clone()]) {
                Applied::Done => {
                    candidates[group].iter_mut().for_each(|c| c.done = true);
                    moved = true;
                }
                Applied::Later => left += 1,
                Applied::Busy => {
                    self.checkpoint.wanted = true;
                    left += 1;
                    break;
                }
            }
        }
        self.destage.candidates = candidates;
        let done = |c: &&Candidate| c.done;
        let open = &self.destage.candidates[self.destage.first_open..];
        self.destage.first_open += open.iter().take_while(done).count();
        if left == 0 && self.destage.in_flight == 0 {
            self.end_window();
            return true;
        }
        moved
    }

    pub(crate) fn end_window(&mut self) {
        if let Some(data) = self.destage.data.take() {
            let segment = data.try_unique().expect("every slice came back with its completion");
            self.destage.free = Some(segment);
        }
        while let Some(fresh) = self.destage.cow.abandon_one() {
            self.store.abandon(fresh);
        }
        self.journal.advance(self.destage.entries);
        self.covered();
        self.destage.phase = Phase::Idle;
    }

    /// A destage write ended.
    pub(crate) fn on_destaged(&mut self, key: u32, status: Status, buf: Buf) {
        let io = self.device.ios.get_mut(key).expect("held");
        let Purpose::Destage { attempts, copy } = io.purpose else { panic!("a destage write") };
        let ignored = bdev::planted(bdev::Planted::DestageErrorIgnored);
        let status = if ignored { Status::Ok } else { status };
        if !status.is_ok() && attempts + 1 < DESTAGE_ATTEMPTS_MAX {
            io.purpose = Purpose::Destage { attempts: attempts + 1, copy };
            return self.device.write_again(key, buf, Flags::NONE);
        }
        drop(buf);
        if let Some(slot) = copy {
            self.destage.cow.written(slot);
        }
        self.device.ios.remove(key);
        self.destage.in_flight -= 1;
        if !status.is_ok() {
            self.fail("writing to an extent", status);
        }
    }
}

/// Adopting comes first, then copies and clears by block.
pub(crate) fn rank(what: Move) -> u8 {
    match what {
        Move::Adopt { .. } => 0,
        Move::Copy(_) | Move::Clear => 1,
    }
}
