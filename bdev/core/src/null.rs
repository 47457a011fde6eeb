//! A device that does nothing, quickly: what a layer costs with no storage behind it.

use crate::{Bdev, Completion, Fifo, Info, OpenError, Queue, QueueCx, Request, Status};

/// Takes every write and forgets it; reads leave the buffer as it is.
#[derive(Clone, Debug)]
pub struct NullDisk {
    info: Info,
}

impl NullDisk {
    /// A disk of `blocks` blocks of `block_size` (512 or 4096) bytes.
    ///
    /// # Panics
    /// When the block size is neither 512 nor 4096.
    pub fn new(block_size: u32, blocks: u64) -> NullDisk {
        NullDisk { info: Info::new(block_size, blocks) }
    }
}

impl Bdev for NullDisk {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self, cx: &QueueCx<'_>) -> Result<Box<dyn Queue>, OpenError> {
        Ok(Box::new(NullQueue { info: self.info.clone(), done: Fifo::new(cx.depth as usize) }))
    }
}

struct NullQueue {
    info: Info,
    done: Fifo<Completion>,
}

impl Queue for NullQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        while !self.done.is_full() {
            let Some(request) = requests.pop() else { return };
            let status = self.info.check(&request).err().unwrap_or(Status::Ok);
            let pushed = self.done.push(request.complete(status));
            assert!(pushed.is_ok(), "room was checked");
        }
    }

    fn kick(&mut self) {}

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        self.done.move_into(completions);
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.done.len()).expect("bounded by the queue depth")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Fixture, Stores};

    fn fixture() -> Fixture {
        Fixture::new(NullDisk::new(4096, 512)).stores(Stores::Nothing)
    }

    crate::conformance_suite!(null, fixture());
}
