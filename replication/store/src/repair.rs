//! Rewriting a damaged copy of a metadata page from the other copy.
//!
//! ```text
//!   queued --> Reading the good copy --whole--> Writing the bad one --> done
//!                 `--bad, or no longer the page: dropped
//! ```
//!
//! Both copies are the same bytes, and the good one stays untouched meanwhile: a crash at any point
//! leaves what was there before. A page can become somebody else's when a checkpoint is durable,
//! and only then: no repair begins while a checkpoint runs, and a checkpoint does not end while one
//! is in flight. What waited for longer is verified against its pointer again when the good copy is
//! read.

use bdev::{Buf, Buffers, Completion, Data, Fifo, Request};

use crate::Store;
use crate::format::{NodeId, Page, PagePtr};
use crate::io::KEY_REPAIR;
use crate::limits::{PAGE_BYTES, REPAIRS_MAX};

/// One of the two copies of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    First,
    Second,
}

impl Copy {
    pub(crate) fn other(self) -> Copy {
        match self {
            Copy::First => Copy::Second,
            Copy::Second => Copy::First,
        }
    }

    /// The page that this copy is in, if there is this copy.
    pub(crate) fn page(self, ptr: &PagePtr) -> Option<u64> {
        match self {
            Copy::First => Some(ptr.number()),
            Copy::Second => ptr.twin(),
        }
    }
}

/// A copy to be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    /// What its header says that it is.
    pub(crate) header: NodeId,
    pub(crate) ptr: PagePtr,
    pub(crate) bad: Copy,
}

/// What waits to be rewritten, and what is being rewritten.
pub(crate) struct Repairs {
    queue: Fifo<Repair>,
    step: Step,
    healed: u64,
}

enum Step {
    Idle,
    Reading,
    /// The good copy, on its way to the bad place.
    Read(Buf),
    Writing,
}

impl Repairs {
    pub(crate) fn new() -> Repairs {
        Repairs { queue: Fifo::new(REPAIRS_MAX), step: Step::Idle, healed: 0 }
    }

    /// Copies that were rewritten.
    pub(crate) fn healed(&self) -> u64 {
        self.healed
    }

    /// True while the front of the queue is being read or written.
    pub(crate) fn in_flight(&self) -> bool {
        !matches!(self.step, Step::Idle)
    }

    /// True when nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Notes a damaged copy. No effect when it is noted already, or when too many are.
    pub(crate) fn push(&mut self, repair: Repair) {
        if !self.queue.iter().any(|known| *known == repair) {
            let _ = self.queue.push(repair);
        }
    }

    fn finish(&mut self) {
        self.queue.pop();
        self.step = Step::Idle;
    }
}

impl Store {
    /// True while damaged copies of metadata wait to be rewritten.
    pub fn is_repairing(&self) -> bool {
        !self.repairs.is_idle()
    }

    pub(crate) fn poll_repairs(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        let Some(&repair) = self.repairs.queue.front() else { return };
        if requests.is_full() {
            return;
        }
        match std::mem::replace(&mut self.repairs.step, Step::Idle) {
            // What a failed checkpoint left behind stays as it is.
            Step::Idle if self.checkpoint.blocks_edits() => {}
            Step::Idle => {
                let good = repair.bad.other().page(&repair.ptr);
                let Some(good) = good.filter(|_| self.meta.is_used(repair.ptr.place())) else {
                    return self.repairs.finish();
                };
                let Some(buf) = pool.take(PAGE_BYTES) else { return };
                let request = self.geometry.read(KEY_REPAIR, good, 1, buf);
                assert!(requests.push(request).is_ok(), "room was checked");
                self.repairs.step = Step::Reading;
            }
            Step::Read(good) => {
                let bad = repair.bad.page(&repair.ptr).expect("a copy that was read is there");
                let request = self.geometry.write(KEY_REPAIR, bad, 1, good);
                assert!(requests.push(request).is_ok(), "room was checked");
                self.repairs.step = Step::Writing;
            }
            waiting => self.repairs.step = waiting,
        }
    }

    pub(crate) fn on_repair(&mut self, completion: Completion) {
        let repair = *self.repairs.queue.front().expect("a repair stays until it ends");
        let whole = completion.status.is_ok();
        match (&self.repairs.step, completion.data) {
            (Step::Reading, Data::Into(buf)) if whole => {
                let page = Page::from_bytes(&buf.bytes()[..PAGE_BYTES]);
                if page.verify(repair.header, &repair.ptr, &self.superblock.uuid).is_ok() {
                    self.repairs.step = Step::Read(buf.freeze());
                } else {
                    self.repairs.finish();
                }
            }
            (Step::Writing, _) => {
                self.repairs.healed += u64::from(whole);
                self.repairs.finish();
            }
            _ => self.repairs.finish(),
        }
    }
}
