//! A volume's queue: the engine as a block device.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use bdev::{Completion, Fifo, Info, Queue, Request};
use store::VolumeId;

use crate::engine::Engine;
use crate::error::ControlError;

/// A queue to one volume of an engine on the same shard. Its requests move when the engine is
/// driven. Dropping it lets what is in flight end unseen.
#[derive(Debug)]
pub struct VolumeQueue {
    engine: Rc<RefCell<Engine>>,
    key: u32,
}

impl VolumeQueue {
    /// Opens a queue for at most `depth` requests in flight.
    ///
    /// # Errors
    /// When the engine is not ready, or there is no such volume, or there are
    /// [`crate::QUEUES_MAX`] queues.
    pub fn open(
        engine: &Rc<RefCell<Engine>>,
        volume: VolumeId,
        depth: u32,
    ) -> Result<VolumeQueue, ControlError> {
        let key = engine.borrow_mut().open_queue(volume, depth)?;
        Ok(VolumeQueue { engine: Rc::clone(engine), key })
    }

    /// What the volume is now; its size may have grown since the queue was opened. `None` after
    /// the engine was closed.
    pub fn info(&self) -> Option<Info> {
        self.engine.borrow().queue(self.key).map(|queue| queue.info.clone())
    }
}

impl Queue for VolumeQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        self.engine.borrow_mut().submit(self.key, requests);
    }

    /// Nothing to do: the engine's next turn kicks its device.
    fn kick(&mut self) {}

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        self.engine.borrow_mut().poll(self.key, completions);
    }

    fn in_flight(&self) -> u32 {
        self.engine.borrow().queue(self.key).map_or(0, |queue| queue.in_flight)
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.engine.borrow().wait_fd()
    }
}

impl Drop for VolumeQueue {
    fn drop(&mut self) {
        if let Ok(mut engine) = self.engine.try_borrow_mut() {
            engine.close_queue(self.key);
        }
    }
}
