//! From the log to the map: windows of the log, sorted, coalesced, paced.
//!
//! ```text
//!  Idle --window--> Reading --log blocks read--> Applying --all edited and written--> Idle
//!    |                 (no log data: straight to)   ^
//!    `--zeroed range--> Zeroing ------- unmapped ---'----------------------------------^
//! ```
//!
//! Only this machine changes leaves. A block is written in place when its extent is mapped: the log
//! still holds it until a checkpoint with the new checksum is durable, so a crash at any point is
//! repaired by doing it again. Reads keep going to the log until then.

use std::ops::Range;

use bdev::{Buf, BufMut, Flags, Status};
use store::{Edit, LeafEntry, Unmap, VolumeId};

use crate::core::Core;
use crate::device::{BLOCK, Io, Purpose};
use crate::error::Damaged;
use crate::journal::{Entry, Kind};
use crate::limits::{
    CANDIDATES_MAX, DESTAGE_ATTEMPTS_MAX, DESTAGE_FULL, DESTAGE_GENTLE, DESTAGE_START, LOG_SOFT,
    WINDOW_BLOCKS, ZERO_BLOCKS_MAX,
};
use crate::write::EXTENT_BLOCKS;

/// One block, or one directly written extent, on its way into the map.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    volume: u32,
    block: u64,
    lsn: u64,
    crc: u32,
    what: Move,
    done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Move {
    /// The extent of a direct write becomes the extent of the map.
    Adopt { extent: u64, owned: bool },
    /// A block is copied from this position of the log.
    Copy(u64),
    /// A block becomes zero.
    Clear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Reading,
    Applying,
    Zeroing,
}

/// The destager.
#[derive(Debug)]
pub(crate) struct Destage {
    phase: Phase,
    /// Destaging until the log is well below where it started.
    active: bool,
    /// The window's segment while nothing is in it.
    free: Option<BufMut>,
    /// The window's log blocks, from `start` on.
    data: Option<Buf>,
    start: u64,
    blocks: u64,
    candidates: Vec<Candidate>,
    /// Journal entries that the window covers.
    entries: u64,
    attempts: u32,
    pub(crate) in_flight: u32,
    /// What is left of a zeroed range: whole extents, and the extents at its edges.
    zeroing: Range<u64>,
    edges: [Option<u64>; 2],
}

impl Destage {
    pub(crate) fn new(segment: BufMut) -> Destage {
        Destage {
            phase: Phase::Idle,
            active: false,
            free: Some(segment),
            data: None,
            start: 0,
            blocks: 0,
            candidates: Vec::with_capacity(CANDIDATES_MAX),
            entries: 0,
            attempts: 0,
            in_flight: 0,
            zeroing: 0..0,
            edges: [None; 2],
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }
}

/// What became of one extent of a window.
enum Applied {
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
        }
    }

    fn wants_window(&mut self) -> bool {
        if self.nothing_to_destage() {
            self.destage.active = false;
            return false;
        }
        let used = self.wal.used_blocks() * 100 / self.wal.ring_blocks();
        let pressed = used >= DESTAGE_START || self.is_scarce();
        self.destage.active = pressed || (self.destage.active && used >= DESTAGE_START / 2);
        self.destage.active || self.wants_all()
    }

    fn begin_window(&mut self) -> bool {
        if !self.wants_window() || self.checkpoint.wanted {
            return false;
        }
        self.destage.candidates.clear();
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
            if !self.collect(&entry) {
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
        let alive = self.is_alive(entry.volume);
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
                let live = blocks.clone().any(|b| self.is_newest(entry.volume, b, entry.lsn));
                if live && alive {
                    let what = Move::Adopt { extent, owned };
                    let Entry { lsn, volume, block, .. } = *entry;
                    let crc = 0;
                    let done = false;
                    self.destage.candidates.push(Candidate { volume, block, lsn, crc, what, done });
                } else if owned {
                    // Free after the next checkpoint: until then a replay may ask for it.
                    let extent = self.extent(extent);
                    self.store.commit(extent);
                    self.store.release(extent);
                }
            }
            Kind::ZeroRange => panic!("zeroed ranges have windows of their own"),
        }
        true
    }

    fn collect_blocks(&mut self, entry: &Entry, alive: bool) -> u64 {
        let mut found = 0;
        for index in 0..entry.blocks {
            let (volume, block, lsn) = (entry.volume, entry.block + index, entry.lsn);
            if !alive || !self.is_newest(volume, block, lsn) {
                self.reserved -= u64::from(self.overlay.unreserve(volume, block, lsn));
                continue;
            }
            let version = self.overlay.find_block(volume, block).expect("just seen");
            let what = match entry.kind {
                Kind::Write { position } => Move::Copy(position + index),
                _ => Move::Clear,
            };
            let crc = version.crc;
            self.destage.candidates.push(Candidate { volume, block, lsn, crc, what, done: false });
            found += 1;
        }
        found
    }

    fn is_alive(&self, volume: u32) -> bool {
        self.store.volume(VolumeId(volume)).is_some_and(|volume| volume.is_active())
    }

    /// True when the record with this LSN is the last that touched the block.
    fn is_newest(&self, volume: u32, block: u64, lsn: u64) -> bool {
        self.overlay.find(volume, block).is_some_and(|version| version.lsn == lsn)
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
        let soft = self.wal.used_blocks() * 100 >= self.wal.ring_blocks() * LOG_SOFT;
        let most = if soft || self.wants_all() { DESTAGE_FULL } else { DESTAGE_GENTLE };
        let candidates = std::mem::take(&mut self.destage.candidates);
        let (mut at, mut left, mut moved) = (0, false, false);
        let mut candidates = candidates;
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
            if self.destage.in_flight >= most {
                left = true;
                break;
            }
            match self.apply_extent(&candidates[group.clone()]) {
                Applied::Done => {
                    candidates[group].iter_mut().for_each(|c| c.done = true);
                    moved = true;
                }
                Applied::Later => left = true,
                Applied::Busy => {
                    self.checkpoint.wanted = true;
                    left = true;
                    break;
                }
            }
        }
        self.destage.candidates = candidates;
        if !left && self.destage.in_flight == 0 {
            self.end_window();
            return true;
        }
        moved
    }

    fn end_window(&mut self) {
        if let Some(data) = self.destage.data.take() {
            let segment = data.try_unique().expect("every slice came back with its completion");
            self.destage.free = Some(segment);
        }
        self.journal.advance(self.destage.entries);
        self.destage.phase = Phase::Idle;
    }

    /// Brings one extent of the map up to date.
    fn apply_extent(&mut self, group: &[Candidate]) -> Applied {
        let (volume, index) = (VolumeId(group[0].volume), group[0].block / EXTENT_BLOCKS);
        if !self.is_alive(volume.0) {
            return self.drop_extent(group);
        }
        let copies = group.iter().any(|c| matches!(c.what, Move::Copy(_)));
        if self.device.room() < group.len() {
            return Applied::Later;
        }
        let mut entry = match self.store.edit(volume, index) {
            Edit::Entry(entry) => *entry,
            Edit::Pending => return Applied::Later,
            Edit::Busy => return Applied::Busy,
            Edit::Damaged(page) => return self.skip_damaged(group, page),
        };
        let before = entry.extent();
        if let Move::Adopt { extent, .. } = group[0].what {
            self.adopt(&mut entry, &group[0], extent);
        }
        let mut fresh = None;
        if copies && entry.extent().is_none() {
            fresh = self.store.allocate();
            if fresh.is_none() {
                // Accounting keeps this from happening; if it does, space must come first.
                self.space_wanted = true;
                self.checkpoint.wanted = self.store.is_dirty();
                return Applied::Later;
            }
            entry.set_extent(fresh);
        }
        if copies && !self.write_blocks(group, &entry) {
            if let Some(fresh) = fresh {
                self.store.abandon(fresh);
            }
            return Applied::Later;
        }
        self.edit_blocks(group, &mut entry);
        let Edit::Entry(place) = self.store.edit(volume, index) else {
            panic!("the page was here a moment ago");
        };
        *place = entry;
        if let Some(fresh) = fresh {
            self.store.commit(fresh);
        }
        if let Move::Adopt { extent, owned: true } = group[0].what {
            let extent = self.extent(extent);
            self.store.commit(extent);
            if entry.extent() != Some(extent) {
                self.store.release(extent);
            }
        }
        if let Some(before) = before.filter(|&before| entry.extent() != Some(before)) {
            self.store.release(before);
        }
        Applied::Done
    }

    /// The volume was deleted under the window: what it owned is given back.
    fn drop_extent(&mut self, group: &[Candidate]) -> Applied {
        for candidate in group {
            let Candidate { volume, block, lsn, .. } = *candidate;
            self.reserved -= u64::from(self.overlay.unreserve(volume, block, lsn));
            if let Move::Adopt { extent, owned: true } = candidate.what {
                let extent = self.extent(extent);
                self.store.commit(extent);
                self.store.release(extent);
            }
        }
        Applied::Done
    }

    /// The map of these blocks is lost. They stay lost: reads say so.
    fn skip_damaged(&mut self, group: &[Candidate], page: u64) -> Applied {
        let byte = page * BLOCK as u64;
        self.report_damage(group[0].volume, group[0].block, Damaged::Map, byte);
        self.drop_extent(group)
    }

    /// Maps the extent of a direct write, with the checksums of its blocks that are still newest.
    fn adopt(&self, entry: &mut LeafEntry, candidate: &Candidate, number: u64) {
        let extent = self.extent(number);
        if entry.extent() != Some(extent) {
            entry.set_extent(None);
            entry.set_extent(Some(extent));
        }
        for index in 0..EXTENT_BLOCKS {
            let version = self.overlay.find(candidate.volume, candidate.block + index);
            let Some(version) = version.filter(|version| version.lsn == candidate.lsn) else {
                continue;
            };
            entry.set_block(usize::try_from(index).expect("below 16"), version.crc);
        }
    }

    /// Enters the new checksums, and releases what was set aside.
    fn edit_blocks(&mut self, group: &[Candidate], entry: &mut LeafEntry) {
        for candidate in group {
            let Candidate { volume, block, lsn, crc, what, .. } = *candidate;
            let within = usize::try_from(block % EXTENT_BLOCKS).expect("below 16");
            match what {
                Move::Copy(_) => {
                    entry.set_block(within, crc);
                    self.reserved -= u64::from(self.overlay.unreserve(volume, block, lsn));
                    self.stats.destaged_blocks += 1;
                }
                Move::Clear => entry.clear_block(within),
                Move::Adopt { .. } => {}
            }
        }
        if entry.written() == 0 {
            entry.set_extent(None);
        }
    }

    /// Starts the writes of a group's blocks, neighbours together. False when buffers are short:
    /// then nothing was started.
    fn write_blocks(&mut self, group: &[Candidate], entry: &LeafEntry) -> bool {
        let extent = entry.extent().expect("mapped or just allocated");
        let mut buffers: [Option<Buf>; store::EXTENT_BLOCKS] = [const { None }; 16];
        let copies = &group[group.iter().take_while(|c| rank(c.what) == 0).count()..];
        let mut runs = 0;
        let mut at = 0;
        while at < copies.len() {
            let run = run_len(&copies[at..]);
            if run == 0 {
                at += 1;
                continue;
            }
            let Some(buffer) = self.gather(&copies[at..at + run]) else { return false };
            buffers[runs] = Some(buffer);
            runs += 1;
            at += run;
        }
        at = 0;
        for buffer in buffers.iter_mut().take(runs) {
            while run_len(&copies[at..]) == 0 {
                at += 1;
            }
            let run = run_len(&copies[at..]);
            let byte = extent.byte_offset() + copies[at].block % EXTENT_BLOCKS * BLOCK as u64;
            let blocks = u32::try_from(run).expect("at most 16");
            let io = Io::new(Purpose::Destage { attempts: 0 }, 0, byte, blocks);
            let from = buffer.take().expect("gathered above");
            self.device.write(io, from, Flags::NONE);
            self.destage.in_flight += 1;
            at += run;
        }
        true
    }

    /// The data of neighbouring blocks in one buffer: part of the window if it lies there in one
    /// piece, otherwise a copy. What rotted in the log is passed on with the checksum it should
    /// have, so that no read ever returns it.
    fn gather(&mut self, run: &[Candidate]) -> Option<Buf> {
        let start = self.destage.start;
        let offset = |candidate: &Candidate| match candidate.what {
            Move::Copy(position) => usize::try_from(position - start).expect("inside") * BLOCK,
            _ => panic!("only copies have data"),
        };
        let data = self.destage.data.clone().expect("the window was read");
        for candidate in run {
            let at = offset(candidate);
            if wal::crc32c(&data.bytes()[at..at + BLOCK]) != candidate.crc {
                let byte = self.wal.byte_of(start) + at as u64;
                self.report_damage(candidate.volume, candidate.block, Damaged::Log, byte);
            }
        }
        let first = offset(&run[0]);
        let in_place = run.iter().enumerate().all(|(i, c)| offset(c) == first + i * BLOCK);
        if in_place {
            return Some(if first == 0 { data } else { data.slice(first) });
        }
        let mut copy = self.pool.take(run.len() * BLOCK)?;
        for (target, candidate) in copy.bytes_mut().chunks_exact_mut(BLOCK).zip(run) {
            let at = offset(candidate);
            target.copy_from_slice(&data.bytes()[at..at + BLOCK]);
        }
        Some(copy.freeze())
    }

    /// A destage write ended.
    pub(crate) fn on_destaged(&mut self, key: u32, status: Status, buf: Buf) {
        let io = self.device.ios.get_mut(key).expect("held");
        let Purpose::Destage { attempts } = io.purpose else { panic!("a destage write") };
        if !status.is_ok() && attempts + 1 < DESTAGE_ATTEMPTS_MAX {
            io.purpose = Purpose::Destage { attempts: attempts + 1 };
            return self.device.write_again(key, buf, Flags::NONE);
        }
        drop(buf);
        self.device.ios.remove(key);
        self.destage.in_flight -= 1;
        if !status.is_ok() {
            self.fail("writing to an extent", status);
        }
    }

    fn begin_zeroing(&mut self, entry: &Entry) {
        let (start, end) = (entry.block, entry.block + entry.blocks);
        let whole = start.div_ceil(EXTENT_BLOCKS)..end / EXTENT_BLOCKS;
        let head = (!start.is_multiple_of(EXTENT_BLOCKS)).then_some(start / EXTENT_BLOCKS);
        let tail = (!end.is_multiple_of(EXTENT_BLOCKS)).then_some(end / EXTENT_BLOCKS);
        self.destage.edges = [head, tail.filter(|_| tail != head)];
        self.destage.zeroing = whole.start..whole.end.max(whole.start);
        self.destage.entries = 1;
        self.destage.phase = Phase::Zeroing;
    }

    /// A step of a zeroed range: its edges block by block, then whole extents.
    fn zero_step(&mut self) -> bool {
        let entry = *self.journal.peek(0).expect("the range that is being zeroed");
        if !self.is_alive(entry.volume) {
            self.end_window();
            return true;
        }
        for edge in 0..2 {
            let Some(index) = self.destage.edges[edge] else { continue };
            match self.zero_edge(&entry, index) {
                Applied::Done => self.destage.edges[edge] = None,
                Applied::Later => return false,
                Applied::Busy => {
                    self.checkpoint.wanted = true;
                    return false;
                }
            }
        }
        if self.destage.zeroing.is_empty() {
            self.end_window();
            return true;
        }
        match self.store.unmap(VolumeId(entry.volume), &mut self.destage.zeroing) {
            Unmap::More => true,
            Unmap::Done => {
                self.end_window();
                true
            }
            Unmap::Pending => false,
            Unmap::Busy => {
                self.checkpoint.wanted = true;
                false
            }
            Unmap::Damaged(page) => {
                let byte = page * BLOCK as u64;
                self.report_damage(entry.volume, entry.block, Damaged::Map, byte);
                self.end_window();
                true
            }
        }
    }

    fn zero_edge(&mut self, range: &Entry, index: u64) -> Applied {
        let volume = VolumeId(range.volume);
        match self.store.lookup(volume, index) {
            store::Lookup::Unmapped => return Applied::Done,
            store::Lookup::Pending => return Applied::Later,
            _ => {}
        }
        let entry = match self.store.edit(volume, index) {
            Edit::Entry(entry) => entry,
            Edit::Pending => return Applied::Later,
            Edit::Busy => return Applied::Busy,
            Edit::Damaged(page) => {
                let byte = page * BLOCK as u64;
                self.report_damage(range.volume, range.block, Damaged::Map, byte);
                return Applied::Done;
            }
        };
        let first = index * EXTENT_BLOCKS;
        for within in 0..EXTENT_BLOCKS {
            if (range.block..range.block + range.blocks).contains(&(first + within)) {
                entry.clear_block(usize::try_from(within).expect("below 16"));
            }
        }
        let extent = entry.extent();
        if entry.written() == 0 {
            entry.set_extent(None);
            if let Some(extent) = extent {
                self.store.release(extent);
            }
        }
        Applied::Done
    }
}

/// Adopting comes first, then copies and clears by block.
fn rank(what: Move) -> u8 {
    match what {
        Move::Adopt { .. } => 0,
        Move::Copy(_) | Move::Clear => 1,
    }
}

/// How many copies from the front are neighbours in the extent; zero when the first is no copy.
fn run_len(group: &[Candidate]) -> usize {
    let next = |(index, c): &(u64, &Candidate)| {
        matches!(c.what, Move::Copy(_)) && c.block == group[0].block + index
    };
    (0u64..).zip(group).take_while(next).count()
}
