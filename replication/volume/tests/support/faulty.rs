//! A device that fails, or loses, chosen requests.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use bdev::{Completion, Fifo, Op, Queue, Request, Status, Tag};

/// What requests are for, as far as the device can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A group of the log, or the log as recovery reads it.
    Log,
    /// A copy of the superblock.
    Superblock,
    /// A page of metadata.
    Page,
    /// Data in extents, and the log as the destager reads it.
    Data,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Log, Kind::Superblock, Kind::Page, Kind::Data];

    fn of(request: &Request) -> Kind {
        let superblock = matches!(request.lba.0, 0 | 16) && request.op != Op::Flush;
        match request.tag.0 >> 28 {
            wal::TAG_CLASS => Kind::Log,
            store::TAG_CLASS if superblock => Kind::Superblock,
            store::TAG_CLASS => Kind::Page,
            _ => Kind::Data,
        }
    }
}

/// What becomes of a chosen request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing happens, and it fails.
    Fail,
    /// It happens, and is said to have failed.
    FailAfter,
    /// It is never heard of again.
    Lose,
}

/// Which requests: of this kind and operation, those with these numbers, counted from 0.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) op: Op,
    pub(crate) numbers: Range<u64>,
    pub(crate) fate: Fate,
}

/// The test's hand on a faulty queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    fault: Rc<RefCell<Option<Fault>>>,
    /// Requests that the fault is about, hit or not, since it was set.
    seen: Rc<Cell<u64>>,
    hit: Rc<Cell<u64>>,
}

impl Faults {
    /// From now on this, and nothing else.
    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.fault.borrow_mut() = fault;
        self.seen.set(0);
        self.hit.set(0);
    }

    /// How many requests the fault was about since it was set.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.get()
    }

    /// How many it has hit.
    pub(crate) fn hit(&self) -> u64 {
        self.hit.get()
    }

    fn fate(&self, request: &Request) -> Option<Fate> {
        let fault = self.fault.borrow();
        let fault = fault.as_ref()?;
        if (Kind::of(request), request.op) != (fault.kind, fault.op) {
            return None;
        }
        let number = self.seen.replace(self.seen.get() + 1);
        if !fault.numbers.contains(&number) {
            return None;
        }
        self.hit.set(self.hit.get() + 1);
        Some(fault.fate)
    }

    /// `queue` with these faults.
    pub(crate) fn wrap(&self, queue: Box<dyn Queue>) -> Box<dyn Queue> {
        let (failed, passing) = (Fifo::new(1024), Fifo::new(1));
        let (after, lost) = (Vec::new(), Vec::new());
        Box::new(FaultyQueue { faults: self.clone(), queue, failed, passing, after, lost })
    }
}

struct FaultyQueue {
    faults: Faults,
    queue: Box<dyn Queue>,
    failed: Fifo<Completion>,
    passing: Fifo<Request>,
    /// Requests whose answers are to be errors.
    after: Vec<Tag>,
    lost: Vec<Request>,
}

impl Queue for FaultyQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        while !self.failed.is_full() {
            if self.passing.is_empty() {
                let Some(request) = requests.pop() else { return };
                match self.faults.fate(&request) {
                    Some(Fate::Fail) => {
                        self.failed.push(request.complete(Status::Io)).unwrap();
                        continue;
                    }
                    Some(Fate::Lose) => {
                        self.lost.push(request);
                        continue;
                    }
                    Some(Fate::FailAfter) => self.after.push(request.tag),
                    None => {}
                }
                self.passing.push(request).unwrap();
            }
            self.queue.submit(&mut self.passing);
            if !self.passing.is_empty() {
                return;
            }
        }
    }

    fn kick(&mut self) {
        self.queue.kick();
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        while !completions.is_full() {
            let Some(failed) = self.failed.pop() else { break };
            completions.push(failed).unwrap();
        }
        let mut one = Fifo::new(1);
        while !completions.is_full() {
            self.queue.poll(&mut one);
            let Some(mut completion) = one.pop() else { return };
            if let Some(at) = self.after.iter().position(|&tag| tag == completion.tag) {
                self.after.swap_remove(at);
                completion.status = Status::Io;
            }
            completions.push(completion).unwrap();
        }
    }

    fn in_flight(&self) -> u32 {
        let own = self.failed.len() + self.passing.len() + self.lost.len();
        self.queue.in_flight() + u32::try_from(own).unwrap()
    }
}
