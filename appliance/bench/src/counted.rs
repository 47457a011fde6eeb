//! A device that counts the bytes that are written to it: write amplification is measured where it
//! hurts, not where the engine says it happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bdev::{Bdev, Completion, Fifo, Info, Op, OpenError, Queue, QueueCx, Request};

/// Passes everything on to another device.
pub(crate) struct Counted {
    device: Arc<dyn Bdev>,
    written: Arc<AtomicU64>,
}

impl Counted {
    /// Nothing has been counted yet.
    pub(crate) fn new(device: Arc<dyn Bdev>) -> Counted {
        Counted { device, written: Arc::default() }
    }

    /// Bytes of all writes that the device has taken.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Bdev for Counted {
    fn info(&self) -> &Info {
        self.device.info()
    }

    fn open(&self, cx: &QueueCx<'_>) -> Result<Box<dyn Queue>, OpenError> {
        let (queue, written) = (self.device.open(cx)?, Arc::clone(&self.written));
        let block_size = u64::from(self.info().block_size);
        Ok(Box::new(CountedQueue { queue, written, block_size }))
    }
}

struct CountedQueue {
    queue: Box<dyn Queue>,
    written: Arc<AtomicU64>,
    block_size: u64,
}

impl Queue for CountedQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        let written = |requests: &Fifo<Request>| -> u64 {
            let writes = requests.iter().filter(|request| request.op == Op::Write);
            writes.map(|write| u64::from(write.blocks)).sum()
        };
        let before = written(requests);
        self.queue.submit(requests);
        let taken = before - written(requests);
        self.written.fetch_add(taken * self.block_size, Ordering::Relaxed);
    }

    fn kick(&mut self) {
        self.queue.kick();
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        self.queue.poll(completions);
    }

    fn in_flight(&self) -> u32 {
        self.queue.in_flight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdev::{Lba, NullDisk, Pool, PoolConfig, Tag};

    #[test]
    fn only_writes_that_were_taken_are_counted() {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let device = Counted::new(Arc::new(NullDisk::new(512, 100)));
        let mut queue = device.open(&QueueCx::new(&pool).depth(2)).unwrap();
        let mut requests = Fifo::new(4);
        for tag in 0..3 {
            let buffer = pool.take(1024).unwrap().freeze();
            requests.push(Request::write(Tag(tag), Lba(0), 2, buffer)).unwrap();
        }
        requests.push_front(Request::flush(Tag(9))).unwrap();
        queue.submit(&mut requests);
        let taken = 3 - u64::try_from(requests.len()).unwrap();
        assert!((1..3).contains(&taken), "the depth is two, with the flush");
        assert_eq!(device.written_bytes(), taken * 1024);
    }
}
