//! After the mount, looking up, editing, allocating and checkpointing do not allocate memory.

#![allow(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use bdev::{Bdev, Fifo, Pool, PoolConfig, Queue, QueueCx, RamDisk};
use store::{
    Edit, Format, FormatOptions, LogTail, Lookup, Mount, Options, Store, Unmap, VolumeId,
    VolumeSpec, turn,
};

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

struct Rig {
    store: Store,
    queue: Box<dyn Queue>,
    requests: Fifo<bdev::Request>,
    completions: Fifo<bdev::Completion>,
    pool: Pool,
}

impl Rig {
    fn turn(&mut self) {
        self.store.poll_requests(&mut self.requests, &self.pool);
        self.queue.submit(&mut self.requests);
        self.queue.kick();
        self.queue.poll(&mut self.completions);
        while let Some(completion) = self.completions.pop() {
            self.store.on_completion(completion);
        }
        while self.store.poll_event().is_some() {}
    }

    fn checkpoint(&mut self) {
        assert!(self.store.begin_checkpoint(LogTail::START));
        while self.store.is_checkpointing() {
            self.turn();
        }
    }

    fn write(&mut self, volume: VolumeId, index: u64) {
        loop {
            let mapped = match self.store.lookup(volume, index) {
                Lookup::Pending => {
                    self.turn();
                    continue;
                }
                Lookup::Entry(entry) => entry.extent(),
                Lookup::Unmapped => None,
                Lookup::Damaged(page) => panic!("page {page} is damaged"),
            };
            let fresh = if mapped.is_none() { self.store.allocate() } else { None };
            let birth = self.store.birth(volume);
            match self.store.edit(volume, index) {
                Edit::Entry(entry) => {
                    entry.set_block(0, 1);
                    if let Some(extent) = fresh {
                        entry.set_extent(extent, birth);
                        self.store.commit(extent);
                    }
                    return;
                }
                Edit::Pending => self.turn(),
                Edit::Busy => self.checkpoint(),
                Edit::Damaged(page) => panic!("page {page} is damaged"),
            }
            if let Some(extent) = fresh {
                self.store.abandon(extent);
            }
        }
    }

    fn churn(&mut self, volume: VolumeId) {
        for round in 0..4 {
            for index in 0..200 {
                self.write(volume, index * 37 + round);
            }
            self.checkpoint();
            let mut range = 0..2000;
            while self.store.unmap(volume, &mut range) != Unmap::Done {
                self.turn();
                if self.store.needs_checkpoint() {
                    self.checkpoint();
                }
            }
        }
    }
}

#[test]
fn steady_state_allocates_nothing() {
    let pool = Pool::new(&PoolConfig::for_bytes(8 << 20)).unwrap();
    let disk = RamDisk::new(4096, 16384).unwrap();
    let mut queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let options = FormatOptions { uuid: [1; 16], log_bytes: Some(1 << 20), overwrite: false };
    let mut format = Format::new(disk.info(), &options).unwrap();
    while format.take_result().is_none() {
        turn(&mut format, queue.as_mut(), &pool);
    }
    let mut mount = Mount::new(disk.info(), &Options { frames: 64 });
    let store = loop {
        turn(&mut mount, queue.as_mut(), &pool);
        if let Some(mounted) = mount.take_result() {
            break mounted.unwrap().store;
        }
    };
    let (requests, completions) = (Fifo::new(64), Fifo::new(64));
    let mut rig = Rig { store, queue, requests, completions, pool };
    let volume = VolumeId(1);
    let spec = VolumeSpec { id: volume, uuid: [2; 16], name: "v", size: 1 << 40, block_bytes: 512 };
    rig.store.create_volume(&spec).unwrap();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    rig.churn(volume);
    rig.store.delete_volume(volume);
    while rig.store.reclaim() != Unmap::Done {
        rig.turn();
        if rig.store.needs_checkpoint() {
            rig.checkpoint();
        }
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    assert!(rig.store.stats().checkpoints > 4 && rig.store.stats().loads > 0);
}
