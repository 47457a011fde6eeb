//! One shard's queue to a simulated disk.

use std::collections::BTreeMap;

use bdev::{Completion, Fifo, Queue, Request};

use crate::core::Due;
use crate::disk::SimDisk;

pub(crate) struct SimQueue {
    disk: SimDisk,
    life: u64,
    depth: usize,
    /// Taken and not kicked.
    staged: Fifo<Request>,
    /// On the disk, in the order in which they will end.
    flying: BTreeMap<Due, Request>,
    /// Reached the disk after the power failed: never heard of again.
    lost: Vec<Request>,
}

impl SimQueue {
    pub(crate) fn new(disk: SimDisk, depth: usize) -> SimQueue {
        let life = disk.core().life;
        let (staged, flying) = (Fifo::new(depth), BTreeMap::new());
        SimQueue { disk, life, depth, staged, flying, lost: Vec::new() }
    }

    fn len(&self) -> usize {
        self.staged.len() + self.flying.len() + self.lost.len()
    }
}

impl Queue for SimQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        while self.len() < self.depth {
            let Some(request) = requests.pop() else { return };
            let pushed = self.staged.push(request);
            assert!(pushed.is_ok(), "staged holds a whole queue");
        }
    }

    fn kick(&mut self) {
        let mut core = self.disk.core();
        while let Some(request) = self.staged.pop() {
            let due = if core.life == self.life { core.arrive(&request) } else { None };
            match due {
                Some(due) => {
                    let before = self.flying.insert(due, request);
                    assert!(before.is_none(), "ids are unique");
                }
                None => self.lost.push(request),
            }
        }
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        let mut core = self.disk.core();
        if core.life != self.life {
            return;
        }
        while !completions.is_full() {
            match self.flying.first_key_value() {
                Some((due, _)) if core.is_due(due) => {}
                _ => return,
            }
            let (due, mut request) = self.flying.pop_first().expect("just seen");
            let status = core.finish(due, &mut request);
            let pushed = completions.push(request.complete(status));
            assert!(pushed.is_ok(), "room was checked");
        }
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.len()).expect("bounded by the queue depth")
    }
}

impl Drop for SimQueue {
    fn drop(&mut self) {
        let mut core = self.disk.core();
        if core.life == self.life && !core.off {
            core.abandon(self.flying.keys().copied());
        }
    }
}
