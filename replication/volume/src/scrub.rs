//! Scrub: everything that is written is read in the background and compared with its checksums.
//!
//! ```text
//!  Waiting --due--> Running --both copies of all metadata, all data--> Waiting
//!     ^                | ^
//!     `-- off ---------' `--- held while a check runs
//! ```
//!
//! Metadata is patrolled by the store, which heals what has a second copy. Data is read here,
//! an extent at a time: a block that does not match is looked up again, as a read of a host would
//! do, and is damage when it fails twice without having changed. Blocks that the overlay holds are
//! left out: their extents may be in the middle of being written, and the log has the data.
//!
//! A scrub reads one extent at a time, at most as fast as its rate, and only when nothing waits for
//! the device. Where it is goes into each checkpoint, so a restart goes on from there.

use std::time::Duration;

use bdev::{BufMut, Buffers, Instant, Status};
use store::{Lookup, ScrubEntry, ScrubRecord};

use crate::core::Core;
use crate::device::{BLOCK, Io, Purpose};
use crate::error::Damaged;
use crate::limits::{
    SCRUB_ATTEMPTS_MAX, SCRUB_BURST_BYTES, SCRUB_DELAY_NS, SCRUB_INTERVAL_NS, SCRUB_SAVE_BYTES,
};

/// What the scrub of a store does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes that it may read in a second; 0 when it is off.
    pub bytes_per_second: u64,
    /// A pass is under way.
    pub running: bool,
    /// Bytes that this pass has covered: extents of data as a whole, and both copies of metadata.
    pub covered_bytes: u64,
    /// Bytes that there are to be covered, as of now.
    pub total_bytes: u64,
    /// Damaged blocks and (copies of) metadata pages that this pass has found.
    pub found: u64,
    /// Those of them that were healed.
    pub healed: u64,
    /// When this pass will be over if it goes on like this.
    pub remaining: Option<Duration>,
    /// Passes that came to their end, since the store was created.
    pub passes: u64,
    /// When the last one did, in seconds since 1970, if that is known.
    pub finished_unix: Option<u64>,
    /// What the last one found.
    pub last_found: u64,
    /// How much of that was healed.
    pub last_healed: u64,
    /// Time until the next pass begins by itself, when none is under way.
    pub next_pass: Option<Duration>,
}

/// The scrub of an engine.
#[derive(Debug)]
pub(crate) struct Scrub {
    rate: u64,
    phase: Phase,
    /// Bytes that may be read now; negative after a large read.
    tokens: i64,
    refilled: Option<Instant>,
    /// Metadata that the store has read for this pass and that is paid for.
    paid: u64,
    /// This pass until the patrol at hand began, and all that was found in data.
    record: ScrubRecord,
    /// When it was saved, by the bytes covered.
    saved: u64,
    data: Option<Reading>,
    in_flight: bool,
    /// When this pass began or went on, and what it had covered then.
    since: (Instant, u64),
    /// A moment, and what time it was.
    unix: Option<(Instant, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not before the first turn, and then not before this.
    Waiting(Option<Instant>),
    /// The pass goes on when nothing holds it.
    Held,
    Running,
}

/// An extent whose data is being read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    entry: ScrubEntry,
    /// Blocks that are to be compared.
    mask: u16,
    attempts: u8,
    checkpoints: u64,
}

impl Scrub {
    pub(crate) fn new(rate: u64, record: ScrubRecord) -> Scrub {
        Scrub {
            rate,
            phase: Phase::Waiting(None),
            tokens: 0,
            refilled: None,
            paid: 0,
            saved: record.covered,
            record,
            data: None,
            in_flight: false,
            since: (Instant::ZERO, 0),
            unix: None,
        }
    }

    fn refill(&mut self, now: Instant) {
        let before = self.refilled.replace(now).unwrap_or(now);
        let ns = u64::try_from(now.saturating_since(before).as_nanos()).unwrap_or(u64::MAX);
        let bytes = u128::from(ns) * u128::from(self.rate) / 1_000_000_000;
        if bytes == 0 {
            self.refilled = Some(before); // Turns are short: let the time add up.
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(bytes).min(SCRUB_BURST_BYTES);
    }

    fn pay(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// When it has something to do by itself. `None`: nothing, or a completion comes first.
    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            _ if self.rate == 0 => None,
            Phase::Waiting(due) => Some(due.unwrap_or(now)),
            Phase::Held => Some(now.saturating_add(SOON)),
            Phase::Running if self.tokens > 0 => Some(now.saturating_add(SOON)),
            Phase::Running => {
                // Half a burst at a time: a few wake-ups a second at the default rate.
                let bytes = u64::try_from(SCRUB_BURST_BYTES / 2 - self.tokens).unwrap_or(0);
                let ns = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
                let wait = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
                Some(self.refilled.unwrap_or(now).saturating_add(wait))
            }
        }
    }
}

impl Core {
    /// When the scrub has something to do even if nothing completes until then.
    pub(crate) fn scrub_timeout(&self) -> Option<Instant> {
        let stopped = self.failed.is_some() || self.draining;
        if stopped { None } else { self.scrub.next_timeout(self.now) }
    }

    /// A bounded step of the scrub. True when something moved.
    pub(crate) fn scrub_step(&mut self) -> bool {
        self.store.let_patrol(false);
        let scrub = &mut self.scrub;
        if scrub.rate == 0 || self.failed.is_some() || self.draining {
            return false;
        }
        match scrub.phase {
            Phase::Waiting(None) => {
                let delay = Duration::from_nanos(self.scrub_delay());
                self.scrub.phase = Phase::Waiting(Some(self.now.saturating_add(delay)));
                false
            }
            Phase::Waiting(Some(due)) if self.now < due => false,
            Phase::Waiting(Some(_)) | Phase::Held if self.checking.is_on() => {
                self.scrub.phase = Phase::Held;
                false
            }
            Phase::Waiting(Some(_)) | Phase::Held => {
                self.run_scrub();
                true
            }
            Phase::Running => self.scrub_on(),
        }
    }

    /// A pass that was interrupted goes on soon, the next one after its time.
    fn scrub_delay(&self) -> u64 {
        let record = self.scrub.record;
        let Some((at, unix)) = self.scrub.unix else { return SCRUB_DELAY_NS };
        if record.covered > 0 || record.finished_unix == 0 {
            return SCRUB_DELAY_NS;
        }
        let unix = unix + self.now.saturating_since(at).as_secs();
        let passed = unix.saturating_sub(record.finished_unix).saturating_mul(1_000_000_000);
        SCRUB_INTERVAL_NS.saturating_sub(passed).max(SCRUB_DELAY_NS)
    }

    fn run_scrub(&mut self) {
        if self.store.is_patrolling() || self.scrub.in_flight {
            return; // What was interrupted is still coming in.
        }
        let scrub = &mut self.scrub;
        (scrub.phase, scrub.paid, scrub.data) = (Phase::Running, 0, None);
        (scrub.tokens, scrub.refilled) = (0, Some(self.now));
        scrub.since = (self.now, scrub.record.covered);
        self.store.begin_scrub(scrub.record.place);
    }

    fn scrub_on(&mut self) -> bool {
        let read = self.store.patrolled().bytes;
        self.scrub.refill(self.now);
        self.scrub.pay(read - self.scrub.paid);
        self.scrub.paid = read;
        let record = self.scrub_record();
        let soon = record.covered >= self.scrub.saved + SCRUB_SAVE_BYTES;
        if soon {
            self.scrub.saved = record.covered;
        }
        self.store.set_scrub_record(record, soon);
        if self.scrub.tokens <= 0 || !self.device.is_relaxed() || self.scrub.in_flight {
            return false;
        }
        if self.scrub.data.is_some() || self.next_scrub_data() {
            return self.read_scrub_data();
        }
        if self.store.patrolled().ended {
            self.end_scrub_pass();
            return true;
        }
        self.store.let_patrol(true);
        false
    }

    /// This pass as it is now.
    fn scrub_record(&self) -> ScrubRecord {
        let mut record = self.scrub.record;
        if self.scrub.phase == Phase::Running {
            let done = self.store.patrolled();
            record.place = done.place;
            record.covered += done.bytes;
            record.found += done.found;
            record.healed += done.healed;
        }
        record
    }

    /// Takes the next extent that has something to compare. False when the patrol must go on first.
    fn next_scrub_data(&mut self) -> bool {
        while let Some(entry) = self.store.scrub_entry() {
            self.scrub.record.covered += store::EXTENT_BYTES;
            let mut mask = entry.entry.written();
            for block in blocks_of(mask) {
                let at = entry.index * EXTENT_BLOCKS + u64::from(block);
                if self.is_in_log(entry.volume.0, at) {
                    mask &= !(1 << block);
                }
            }
            if mask != 0 {
                let checkpoints = self.stats.checkpoints;
                self.scrub.data = Some(Reading { entry, mask, attempts: 0, checkpoints });
                return true;
            }
        }
        false
    }

    fn read_scrub_data(&mut self) -> bool {
        let reading = self.scrub.data.expect("the caller has one");
        let extent = reading.entry.entry.extent().expect("mapped entries are handed out");
        let (first, end) = span(reading.mask);
        let bytes = u64::from(end - first) * BLOCK as u64;
        if self.device.room() == 0 {
            return false;
        }
        let Some(buf) = self.reserve.take(usize::try_from(bytes).expect("an extent")) else {
            return false;
        };
        let byte = extent.byte_offset() + u64::from(first) * BLOCK as u64;
        self.device.read(Io::new(Purpose::Scrub, 0, byte, end - first), buf);
        self.scrub.in_flight = true;
        self.scrub.pay(bytes);
        true
    }

    /// The blocks of an extent are here.
    pub(crate) fn on_scrub_read(&mut self, status: Status, buf: &BufMut) {
        self.scrub.in_flight = false;
        let Some(mut reading) = self.scrub.data.take() else { return };
        let (first, _) = span(reading.mask);
        let entry = reading.entry.entry;
        let differs = |block: &u32| {
            let at = (block - first) as usize * BLOCK;
            let crc = entry.block_crc(*block as usize);
            !status.is_ok() || crc != Some(wal::crc32c(&buf.bytes()[at..at + BLOCK]))
        };
        let suspects = blocks_of(reading.mask).filter(differs).fold(0, |mask, b| mask | 1 << b);
        reading.mask = suspects;
        let mut sure = true;
        for block in blocks_of(suspects) {
            match self.is_still(&reading, block) {
                Some(true) => {}
                Some(false) => reading.mask &= !(1 << block),
                None => sure = false,
            }
        }
        if reading.mask == 0 {
            return;
        }
        reading.attempts += u8::from(sure);
        if reading.attempts < SCRUB_ATTEMPTS_MAX {
            self.scrub.data = Some(reading);
            return;
        }
        let extent = entry.extent().expect("mapped entries are handed out");
        for block in blocks_of(reading.mask) {
            let byte = extent.byte_offset() + u64::from(block) * BLOCK as u64;
            let at = reading.entry.index * EXTENT_BLOCKS + u64::from(block);
            self.scrub.record.found += 1;
            self.report_damage(reading.entry.volume.0, at, Damaged::Extent, byte);
        }
    }

    /// Whether a reader would find the block in the overlay.
    fn is_in_log(&self, volume: u32, block: u64) -> bool {
        let chain = self.layers.chain(volume);
        chain.layers().iter().any(|&layer| self.overlay.find(layer, block).is_some())
    }

    /// Whether a block still is what it was when its checksum was read; `None` when a page must be
    /// loaded to know.
    fn is_still(&mut self, reading: &Reading, block: u32) -> Option<bool> {
        let ScrubEntry { volume, index, entry } = reading.entry;
        let at = index * EXTENT_BLOCKS + u64::from(block);
        if self.is_in_log(volume.0, at) {
            return Some(false);
        }
        if !self.is_alive(volume.0) {
            // Nobody writes to it; its extents are others' after a checkpoint at the earliest.
            return Some(reading.checkpoints == self.stats.checkpoints);
        }
        let block = block as usize;
        match self.store.lookup(volume, index) {
            Lookup::Entry(now) => Some(
                now.extent() == entry.extent() && now.block_crc(block) == entry.block_crc(block),
            ),
            Lookup::Pending => None,
            Lookup::Unmapped | Lookup::Damaged(_) => Some(false),
        }
    }

    fn end_scrub_pass(&mut self) {
        let mut record = self.scrub_record();
        self.store.end_patrol();
        record.passes += 1;
        (record.last_found, record.last_healed) = (record.found, record.healed);
        let unix =
            self.scrub.unix.map_or(0, |(at, unix)| unix + self.now.saturating_since(at).as_secs());
        record.finished_unix = unix;
        (record.place, record.covered) = (store::PatrolPlace::default(), 0);
        (record.found, record.healed) = (0, 0);
        self.store.set_scrub_record(record, true);
        self.scrub.record = record;
        self.scrub.saved = 0;
        let next = self.now.saturating_add(Duration::from_nanos(SCRUB_INTERVAL_NS));
        self.scrub.phase = Phase::Waiting(Some(next));
    }

    /// Makes room for a check. True when nothing of the scrub is in flight any more.
    pub(crate) fn hold_scrub(&mut self) -> bool {
        if self.scrub.phase == Phase::Running {
            let record = self.scrub_record();
            self.scrub.record = record;
            self.store.set_scrub_record(record, false);
            self.store.end_patrol();
            self.scrub.phase = Phase::Held;
            self.scrub.data = None;
        }
        !self.store.is_patrolling() && !self.scrub.in_flight
    }

    /// Goes on at this rate, if it is time for that.
    pub(crate) fn set_scrub_rate(&mut self, rate: u64) {
        self.scrub.rate = rate;
    }

    /// Starts a pass now, or goes on with the one that was interrupted, at this rate.
    pub(crate) fn start_scrub(&mut self, rate: u64) {
        self.scrub.rate = rate;
        if matches!(self.scrub.phase, Phase::Waiting(_)) {
            self.scrub.phase = Phase::Waiting(Some(self.now));
        }
    }

    /// Stops the scrub where it is.
    pub(crate) fn pause_scrub(&mut self) {
        self.hold_scrub();
        self.scrub.rate = 0;
        let record = self.scrub.record;
        self.store.set_scrub_record(record, true);
    }

    /// Takes the time of day. The first one decides when the next pass begins; a later one, from a
    /// clock that was set meanwhile, only makes it earlier: neither puts off what was asked for.
    pub(crate) fn set_unix_time(&mut self, seconds: u64) {
        let first = self.scrub.unix.replace((self.now, seconds)).is_none();
        if self.scrub.record.covered == 0
            && let Phase::Waiting(Some(due)) = self.scrub.phase
            && due > self.now
        {
            let delay = Duration::from_nanos(self.scrub_delay());
            let judged = self.now.saturating_add(delay);
            let due = if first { judged } else { judged.min(due) };
            self.scrub.phase = Phase::Waiting(Some(due));
        }
    }

    pub(crate) fn scrub_status(&self) -> ScrubStatus {
        let record = self.scrub_record();
        let running = matches!(self.scrub.phase, Phase::Running | Phase::Held);
        let used = self.store.total_extents() - self.store.unused_extents();
        let total_bytes = (used * store::EXTENT_BYTES).max(record.covered);
        let (since, before) = self.scrub.since;
        let covered = record.covered - before.min(record.covered);
        let time = self.now.saturating_since(since).as_secs_f64();
        let left = total_bytes - record.covered;
        // Bytes below 2^53 are exact in a float.
        let remaining = (running && self.scrub.rate > 0 && covered > 0 && time > 0.0)
            .then(|| Duration::try_from_secs_f64(left as f64 * time / covered as f64).ok())
            .flatten();
        let next_pass = match self.scrub.phase {
            Phase::Waiting(Some(due)) if self.scrub.rate > 0 => {
                Some(due.saturating_since(self.now))
            }
            _ => None,
        };
        ScrubStatus {
            bytes_per_second: self.scrub.rate,
            running: running && self.scrub.rate > 0,
            covered_bytes: record.covered,
            total_bytes,
            found: record.found,
            healed: record.healed,
            remaining,
            passes: record.passes,
            finished_unix: (record.finished_unix > 0).then_some(record.finished_unix),
            last_found: record.last_found,
            last_healed: record.last_healed,
            next_pass,
        }
    }
}

/// The numbers of the bits that are set.
fn blocks_of(mask: u16) -> impl Iterator<Item = u32> {
    (0..16).filter(move |block| mask >> block & 1 == 1)
}

/// The first block of a mask, and the one behind its last.
fn span(mask: u16) -> (u32, u32) {
    (mask.trailing_zeros(), 16 - mask.leading_zeros())
}

const EXTENT_BLOCKS: u64 = store::EXTENT_BLOCKS as u64;

/// How soon to look again when the device was busy.
const SOON: Duration = Duration::from_millis(1);
