//! From pages to requests: addresses, coalesced page writes with retry, the superblock pair.

use bdev::{Buf, BufMut, Buffers, Completion, Data, Fifo, Info, Lba, Request, Slots, Status, Tag};
use zerocopy::IntoBytes;

use crate::TAG_CLASS;
use crate::format::{Page, Place, Superblock};
use crate::limits::{EXTENT_BLOCKS, PAGE_BYTES, WRITE_ATTEMPTS_MAX, WRITES_MAX};

/// How the device counts.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    /// Device blocks in a page.
    blocks_per_page: u32,
    /// Most pages in one request.
    pages_max: u32,
}

impl Geometry {
    pub(crate) fn new(info: &Info) -> Geometry {
        let blocks_per_page = u32::try_from(PAGE_BYTES).expect("4096") / info.block_size;
        Geometry { blocks_per_page, pages_max: (info.blocks_max / blocks_per_page).max(1) }
    }

    pub(crate) fn lba(self, page: u64) -> Lba {
        Lba(page * u64::from(self.blocks_per_page))
    }

    pub(crate) fn read(self, key: u32, page: u64, pages: u32, into: BufMut) -> Request {
        Request::read(tag(key), self.lba(page), pages * self.blocks_per_page, into)
    }

    pub(crate) fn write(self, key: u32, page: u64, pages: u32, from: Buf) -> Request {
        Request::write(tag(key), self.lba(page), pages * self.blocks_per_page, from)
    }
}

/// Keys below this are page loads, by frame.
pub(crate) const KEY_WRITE: u32 = 1 << 24;
/// Keys from this on are the superblock pair's.
pub(crate) const KEY_SUPER: u32 = 2 << 24;
/// Keys from this on are repairs of damaged copies.
pub(crate) const KEY_REPAIR: u32 = 3 << 24;
/// Keys from this on are reads of patrols.
pub(crate) const KEY_PATROL: u32 = 4 << 24;

pub(crate) fn tag(key: u32) -> Tag {
    assert!(key < 1 << 28);
    Tag(TAG_CLASS << 28 | key)
}

pub(crate) fn key_of(tag: Tag) -> u32 {
    assert_eq!(tag.0 >> 28, TAG_CLASS, "completions are routed by their class");
    tag.0 & ((1 << 28) - 1)
}

/// Writes pages, adjacent ones together, each to both of its places, and again when the device
/// failed them.
pub(crate) struct Writer {
    geometry: Geometry,
    run: Option<Run>,
    flights: Slots<Flight>,
    again: Fifo<(u32, Buf)>,
    failed: Option<Status>,
    /// Pages (each copy counts) and requests since the mount.
    pub(crate) pages: u64,
    pub(crate) requests: u64,
}

/// Copies of a page.
const COPIES: usize = 2;

/// Adjacent pages that are being gathered.
struct Run {
    buf: BufMut,
    first: Place,
    pages: u32,
}

/// A write in flight.
#[derive(Debug)]
struct Flight {
    first: u64,
    pages: u32,
    attempts: u32,
}

impl Writer {
    pub(crate) fn new(geometry: Geometry) -> Writer {
        Writer {
            geometry,
            run: None,
            flights: Slots::new(WRITES_MAX),
            again: Fifo::new(WRITES_MAX),
            failed: None,
            pages: 0,
            requests: 0,
        }
    }

    /// How the first write that failed for good ended.
    pub(crate) fn failed(&self) -> Option<Status> {
        self.failed
    }

    /// True when everything that was pushed is on the device.
    pub(crate) fn is_idle(&self) -> bool {
        self.run.is_none() && self.flights.is_empty()
    }

    /// Resubmits what failed. Comes first in each turn.
    pub(crate) fn poll_again(&mut self, requests: &mut Fifo<Request>) {
        while !requests.is_full() {
            let Some((slot, buf)) = self.again.pop() else { return };
            let flight = self.flights.get(slot).expect("failed writes keep their slot");
            let request = self.geometry.write(KEY_WRITE | slot, flight.first, flight.pages, buf);
            assert!(requests.push(request).is_ok(), "room was checked");
        }
    }

    /// Makes sure that the next page can be pushed. False: try again next turn.
    pub(crate) fn ready(
        &mut self,
        place: Place,
        requests: &mut Fifo<Request>,
        pool: &dyn Buffers,
    ) -> bool {
        let joins = self.run.as_ref().is_some_and(|run| {
            let room = (run.buf.capacity() / PAGE_BYTES).min(EXTENT_BLOCKS);
            let most = u32::try_from(room).expect("at most 16").min(self.geometry.pages_max);
            run.first.after(run.pages) == place && run.pages < most
        });
        if joins {
            return true;
        }
        if !self.flush_run(requests) || self.flights.is_full() {
            return false;
        }
        let large = EXTENT_BLOCKS * PAGE_BYTES;
        let Some(buf) = pool.take(large).or_else(|| pool.take(PAGE_BYTES)) else { return false };
        self.run = Some(Run { buf, first: place, pages: 0 });
        true
    }

    /// Appends the page that [`Writer::ready`] was asked for.
    pub(crate) fn push(&mut self, page: &Page) {
        let run = self.run.as_mut().expect("ready came first");
        let at = run.pages as usize * PAGE_BYTES;
        run.buf.bytes_mut()[at..at + PAGE_BYTES].copy_from_slice(&page.0);
        run.pages += 1;
    }

    /// Submits what was gathered. False when there was no room for it.
    pub(crate) fn flush_run(&mut self, requests: &mut Fifo<Request>) -> bool {
        if self.run.as_ref().is_none_or(|run| run.pages == 0) {
            self.run = None;
            return true;
        }
        if requests.room() < COPIES || self.flights.capacity() - self.flights.len() < COPIES {
            return false;
        }
        let Run { buf, first, pages } = self.run.take().expect("just seen");
        let buf = buf.freeze();
        let twin = first.twin().filter(|_| !bdev::planted(bdev::Planted::SecondCopyNotWritten));
        if let Some(twin) = twin {
            self.write(twin, pages, buf.clone(), requests);
        }
        self.write(first.number(), pages, buf, requests);
        true
    }

    fn write(&mut self, first: u64, pages: u32, buf: Buf, requests: &mut Fifo<Request>) {
        let flight = Flight { first, pages, attempts: 1 };
        let slot = self.flights.insert(flight).expect("room was checked");
        let request = self.geometry.write(KEY_WRITE | slot, first, pages, buf);
        assert!(requests.push(request).is_ok(), "room was checked");
        self.requests += 1;
        self.pages += u64::from(pages);
    }

    pub(crate) fn on_completion(&mut self, key: u32, completion: Completion) {
        let slot = key & (KEY_WRITE - 1);
        let flight = self.flights.get_mut(slot).expect("completions name a write in flight");
        if completion.status.is_ok() || bdev::planted(bdev::Planted::PageErrorIgnored) {
            self.flights.remove(slot);
            return;
        }
        match completion.data {
            Data::From(buf) if flight.attempts < WRITE_ATTEMPTS_MAX => {
                flight.attempts += 1;
                assert!(self.again.push((slot, buf)).is_ok(), "one place for each flight");
            }
            _ => {
                self.flights.remove(slot);
                self.failed = self.failed.or(Some(completion.status));
            }
        }
    }
}

/// Writes both copies of a superblock, one after the other: at each moment one copy on the device
/// is whole, and afterwards both say the same.
pub(crate) struct SuperWriter {
    geometry: Geometry,
    step: SuperStep,
    waiting: bool,
    attempts: u32,
    first_slot: u32,
}

/// Where the pair is. `FlushBefore` makes the pages durable that the superblock points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuperStep {
    Idle,
    FlushBefore,
    First,
    FlushFirst,
    Second,
    FlushSecond,
    Done,
    Failed(Status),
}

impl SuperWriter {
    pub(crate) fn new(geometry: Geometry) -> SuperWriter {
        SuperWriter { geometry, step: SuperStep::Idle, waiting: false, attempts: 0, first_slot: 0 }
    }

    /// Starts to write, to `first_slot` first: the slot whose copy is not the newest.
    pub(crate) fn start(&mut self, first_slot: u32) {
        assert!(matches!(self.step, SuperStep::Idle | SuperStep::Done));
        self.step = SuperStep::FlushBefore;
        self.first_slot = first_slot;
        self.attempts = 0;
    }

    pub(crate) fn step(&self) -> SuperStep {
        self.step
    }

    /// Submits the next request, when none is in flight.
    pub(crate) fn poll_requests(
        &mut self,
        superblock: &mut Superblock,
        requests: &mut Fifo<Request>,
        pool: &dyn Buffers,
    ) {
        if self.waiting || requests.is_full() {
            return;
        }
        self.step = match self.step {
            SuperStep::FlushBefore if bdev::planted(bdev::Planted::SuperBeforePages) => {
                SuperStep::First
            }
            SuperStep::FlushFirst if bdev::planted(bdev::Planted::FirstCopyNotFlushed) => {
                SuperStep::Second
            }
            step => step,
        };
        let request = match self.step {
            SuperStep::Idle | SuperStep::Done | SuperStep::Failed(_) => return,
            SuperStep::FlushBefore | SuperStep::FlushFirst | SuperStep::FlushSecond => {
                Request::flush(tag(KEY_SUPER))
            }
            SuperStep::First | SuperStep::Second => {
                let Some(mut buf) = pool.take(PAGE_BYTES) else { return };
                let other = u32::from(self.step == SuperStep::Second);
                let slot = self.first_slot ^ other;
                superblock.seal(slot);
                buf.bytes_mut()[..PAGE_BYTES].copy_from_slice(superblock.as_bytes());
                self.geometry.write(KEY_SUPER, slot_page(slot), 1, buf.freeze())
            }
        };
        assert!(requests.push(request).is_ok(), "room was checked");
        self.waiting = true;
    }

    pub(crate) fn on_completion(&mut self, status: Status) {
        assert!(self.waiting);
        self.waiting = false;
        if !status.is_ok() {
            self.attempts += 1;
            // A flush that failed may have lost what it was to make durable, and the next would
            // succeed without it: only a write is worth another attempt.
            let is_write = matches!(self.step, SuperStep::First | SuperStep::Second);
            if !is_write || self.attempts >= WRITE_ATTEMPTS_MAX {
                self.step = SuperStep::Failed(status);
            }
            return;
        }
        self.step = match self.step {
            SuperStep::FlushBefore => SuperStep::First,
            SuperStep::First => SuperStep::FlushFirst,
            SuperStep::FlushFirst => SuperStep::Second,
            SuperStep::Second => SuperStep::FlushSecond,
            SuperStep::FlushSecond => SuperStep::Done,
            idle => panic!("no request is in flight in {idle:?}"),
        };
    }
}

/// The page of a copy of the superblock.
pub(crate) fn slot_page(slot: u32) -> u64 {
    u64::from(slot) * EXTENT_BLOCKS as u64
}
