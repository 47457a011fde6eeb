//! After the mount, looking up, editing, allocating and checkpointing do not allocate memory.

#![allow(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bdev::{Bdev, Fifo, Pool, PoolConfig, Queue, QueueCx, RamDisk};
use store::{
    Diff, Edit, Format, FormatOptions, LogTail, Lookup, Mount, NodeSpec, Options, Store, Unique,
    Unmap, VolumeId, VolumeSpec, turn,
};

/// Counts allocations.
struct Counting;

thread_local! {
    // Of this thread: what the test harness does beside it is not counted.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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
            let owned = match self.store.lookup(volume, index) {
                Lookup::Pending => {
                    self.turn();
                    continue;
                }
                Lookup::Entry(entry) => self.store.is_owned(volume, index, &entry),
                Lookup::Unmapped => false,
                Lookup::Damaged(page) => panic!("page {page} is damaged"),
            };
            let fresh = if owned { None } else { self.store.allocate() };
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

impl Rig {
    /// Snapshots, a clone, a restore, walks over them, and deletion in another order.
    fn share(&mut self, volume: VolumeId) {
        let mut ids = [VolumeId(0); 3];
        let mut uuid = [3; 16];
        for (round, id) in (0u8..).zip(&mut ids) {
            *id = self.store.next_volume_id();
            uuid[0] = round;
            let name = ["a", "b", "c"][usize::from(round)];
            let spec = NodeSpec { id: *id, uuid, name };
            self.store.stage_snapshot(volume, &spec, 0).expect("there is room");
            self.checkpoint();
            for index in 0..60 {
                self.write(volume, index * 31);
            }
        }
        let clone = self.store.next_volume_id();
        let spec = NodeSpec { id: clone, uuid: [9; 16], name: "clone" };
        self.store.create_clone(ids[0], &spec, 0).expect("there is room");
        self.write(clone, 31);
        let hidden = self.store.next_volume_id();
        self.store.stage_restore(volume, ids[1], hidden, 0).expect("there is room");
        self.checkpoint();
        assert!(self.walk(clone, ids[2]) > 0);
        for id in [ids[1], clone, ids[0], ids[2]] {
            self.store.delete_volume(id);
            self.reclaim();
        }
    }

    /// Counts what differs and what is unique; damage there is none.
    fn walk(&mut self, base: VolumeId, of: VolumeId) -> u64 {
        let (mut from, mut count) = (0, 0);
        loop {
            match self.store.diff(Some(base), of, from) {
                Diff::Changed { index, .. } => (from, count) = (index + 1, count + 1),
                Diff::Skip(next) => from = next,
                Diff::End => break,
                _ => self.turn(),
            }
        }
        from = 0;
        loop {
            match self.store.unique(of, from) {
                Unique::Counted { extents, next } => (from, count) = (next, count + extents),
                Unique::End => return count,
                _ => self.turn(),
            }
        }
    }

    fn reclaim(&mut self) {
        loop {
            match self.store.reclaim() {
                Unmap::Done => return,
                Unmap::Busy => self.checkpoint(),
                _ => self.turn(),
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
    let before = ALLOCATIONS.get();
    rig.churn(volume);
    rig.share(volume);
    rig.store.delete_volume(volume);
    rig.reclaim();
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(rig.store.nodes().count(), 0);
    assert!(rig.store.stats().checkpoints > 4 && rig.store.stats().loads > 0);
}
