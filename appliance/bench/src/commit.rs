//! Group commit as a database does it: what a drive gives to random writes that must be durable.
//!
//! Requests go to the device as they come, each write to its own place. Writes that the device has
//! completed are acknowledged together, after one flush (`fdatasync` of a file) that was submitted
//! when all of them were complete. While it runs the next group is written. There are no headers,
//! checksums, maps or second writes.

use bdev::{Completion, Fifo, Op, Queue, Request, Tag};

/// Writes of a group, unless fewer are under way. Of 1, 8, 16 and 32 this gave the drive's best
/// rate (`docs/performance.md`): the engine is held against that.
const GROUP: usize = 32;

/// The tag of the flush; those of other requests pass through and are below it.
const FLUSH_TAG: Tag = Tag(1 << 31);

/// A queue whose writes are durable when they complete.
pub struct CommitQueue {
    inner: Box<dyn Queue>,
    requests: Fifo<Request>,
    finished: Fifo<Completion>,
    /// Writes that the device has not completed.
    writing: usize,
    /// Writes that it has, and no flush covers yet.
    written: Fifo<Completion>,
    /// Writes that the flush in flight covers.
    covered: Fifo<Completion>,
    flushing: bool,
    done: Fifo<Completion>,
    in_flight: u32,
}

impl CommitQueue {
    /// A queue over `inner` for `depth` requests.
    pub fn new(inner: Box<dyn Queue>, depth: u32) -> CommitQueue {
        let depth = depth as usize;
        CommitQueue {
            inner,
            requests: Fifo::new(depth + 1),
            finished: Fifo::new(depth + 1),
            writing: 0,
            written: Fifo::new(depth),
            covered: Fifo::new(depth),
            flushing: false,
            done: Fifo::new(depth),
            in_flight: 0,
        }
    }

    fn commit(&mut self) {
        let due = self.written.len() >= GROUP || self.writing == 0;
        if self.flushing || self.written.is_empty() || !due {
            return;
        }
        self.written.move_into(&mut self.covered);
        self.requests.push(Request::flush(FLUSH_TAG)).expect("a place is kept for it");
        self.flushing = true;
    }

    fn on_flushed(&mut self, flush: &Completion) {
        self.flushing = false;
        while let Some(mut write) = self.covered.pop() {
            if write.status.is_ok() {
                write.status = flush.status;
            }
            self.done.push(write).expect("as deep as the queue");
        }
    }
}

impl Queue for CommitQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        while (self.in_flight as usize) < self.done.capacity() {
            let Some(request) = requests.pop() else { return };
            self.writing += usize::from(request.op == Op::Write);
            self.requests.push(request).expect("as deep as the queue");
            self.in_flight += 1;
        }
    }

    fn kick(&mut self) {
        self.commit();
        self.inner.submit(&mut self.requests);
        self.inner.kick();
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        self.inner.poll(&mut self.finished);
        while let Some(completion) = self.finished.pop() {
            if completion.tag == FLUSH_TAG {
                self.on_flushed(&completion);
            } else if matches!(completion.data, bdev::Data::From(_)) {
                self.writing -= 1;
                self.written.push(completion).expect("as deep as the queue");
            } else {
                self.done.push(completion).expect("as deep as the queue");
            }
        }
        let before = self.done.len();
        self.done.move_into(completions);
        self.in_flight -= u32::try_from(before - self.done.len()).expect("a depth");
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use bdev::{Bdev, Lba, Pool, PoolConfig, QueueCx, RamDisk};

    use super::*;

    /// Notes the operations that it passes on, and completes those before it takes more.
    struct Noting {
        inner: Box<dyn Queue>,
        seen: Rc<RefCell<Vec<Op>>>,
    }

    impl Queue for Noting {
        fn submit(&mut self, requests: &mut Fifo<Request>) {
            self.seen.borrow_mut().extend(requests.iter().map(|request| request.op));
            self.inner.submit(requests);
        }

        fn kick(&mut self) {
            self.inner.kick();
        }

        fn poll(&mut self, completions: &mut Fifo<Completion>) {
            self.inner.poll(completions);
        }

        fn in_flight(&self) -> u32 {
            self.inner.in_flight()
        }
    }

    #[test]
    fn writes_complete_after_a_flush_that_followed_them() {
        let pool = Pool::new(&PoolConfig::for_bytes(16 << 20)).unwrap();
        let disk = RamDisk::new(4096, 64).unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let inner = disk.open(&QueueCx::new(&pool)).unwrap();
        let noting = Noting { inner, seen: Rc::clone(&seen) };
        let mut queue = CommitQueue::new(Box::new(noting), 32);
        let (mut requests, mut done) = (Fifo::new(100), Fifo::new(100));
        for tag in 0..100 {
            let buf = pool.take(4096).unwrap();
            let request = match tag % 4 {
                0 => Request::read(Tag(tag), Lba(u64::from(tag % 64)), 1, buf),
                _ => Request::write(Tag(tag), Lba(u64::from(tag % 64)), 1, buf.freeze()),
            };
            requests.push(request).unwrap();
        }
        let mut polls = 0;
        while !done.is_full() {
            queue.submit(&mut requests);
            assert!(queue.in_flight() <= 32);
            queue.kick();
            queue.poll(&mut done);
            let writes = done.iter().filter(|done| done.tag.0 % 4 != 0).count();
            let seen = seen.borrow();
            let last = seen.iter().rposition(|op| *op == Op::Flush).unwrap_or(0);
            let before = seen[..last].iter().filter(|op| **op == Op::Write).count();
            assert!(writes <= before, "{writes} acknowledged, {before} before the last flush");
            polls += 1;
            assert!(polls < 1000);
        }
        assert_eq!(queue.in_flight(), 0);
        let flushes = seen.borrow().iter().filter(|op| **op == Op::Flush).count();
        assert!((75 / 32..=75 / GROUP + 1).contains(&flushes), "{flushes} flushes for 75 writes");
    }
}
