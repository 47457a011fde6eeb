//! A shard's pool that hosts have filled: the engine goes on, and with it everybody.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bdev::{Bdev, Completion, Fifo, Lba, Pool, PoolConfig, Queue, QueueCx, Request};
use bdev::{Rng, Status, Tag};
use bdev_sim::{FaultPlan, SimDisk};
use support::{Rig, env, options};
use volume::{Engine, FormatOptions, NewSnapshot, Options, VolumeQueue};

const MIB: u64 = 1 << 20;

/// A fresh store with these buffers.
fn rig(disk: SimDisk, pool: &Rc<Pool>, options: &Options) -> Rig {
    let queue = disk.open(&QueueCx::new(pool)).unwrap();
    let format = FormatOptions { uuid: [7; 16], log_bytes: Some(MIB), overwrite: false };
    let engine = Engine::create(queue, disk.info(), pool, &format, options).unwrap();
    let engine = Rc::new(RefCell::new(engine));
    let mut rig = Rig { disk, pool: Rc::clone(pool), engine, events: Vec::new() };
    rig.until_open().unwrap();
    rig
}

fn pool(segments: [u32; 5]) -> Rc<Pool> {
    Rc::new(Pool::new(&PoolConfig { segments, huge_pages: false }).unwrap())
}

/// What is submitted and not answered, and how everything was answered.
struct Load {
    queue: VolumeQueue,
    requests: Fifo<Request>,
    completions: Fifo<Completion>,
    submitted: u32,
    statuses: Vec<Status>,
}

impl Load {
    fn new(rig: &Rig, id: volume::VolumeId) -> Load {
        let (requests, completions) = (Fifo::new(1024), Fifo::new(64));
        Load { queue: rig.queue(id, 1024), requests, completions, submitted: 0, statuses: vec![] }
    }

    fn push(&mut self, request: Request) {
        self.requests.push(request).unwrap();
        self.submitted += 1;
    }

    fn poll(&mut self) {
        self.queue.submit(&mut self.requests);
        self.queue.poll(&mut self.completions);
        while let Some(completion) = self.completions.pop() {
            self.statuses.push(completion.status);
        }
    }

    fn waits(&self) -> bool {
        self.statuses.len() < self.submitted as usize
    }
}

/// Takes every buffer of the pool for requests: mostly writes that begin and end inside of blocks,
/// so that they need buffers of the engine before the log can take them, and reads of what lies
/// scattered.
fn fill_pool(rig: &Rig, load: &mut Load, rng: &mut Rng, lbas: u64) {
    for bytes in [1 << 20, 256 << 10, 64 << 10, 16 << 10, 4096] {
        while rig.pool.stats().free[class_of(bytes)] > 0 {
            let buf = rig.pool.take(bytes).unwrap();
            let blocks = u32::try_from(bytes / 512).unwrap().min(96);
            let lba = Lba(rng.below(lbas - u64::from(blocks)) | 1);
            let tag = Tag(load.submitted);
            let request = match rng.below(8) {
                0 => Request::read(tag, lba, blocks - 1, buf),
                _ => Request::write(tag, lba, blocks, buf.freeze()),
            };
            load.push(request);
        }
    }
    assert!(rig.pool.take(1).is_none(), "nothing is left");
}

fn class_of(bytes: usize) -> usize {
    [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20].iter().position(|&c| c == bytes).unwrap()
}

/// A volume of which every block was written, and a snapshot that shares all of it.
fn shared_volume(rig: &mut Rig, bytes: u64) -> volume::VolumeId {
    let id = rig.create_volume("v", bytes, 512);
    let mut queue = rig.queue(id, 8);
    for extent in 0..bytes / 65536 {
        assert_eq!(rig.write(&mut queue, extent * 128, &[7; 65536]), Status::Ok);
    }
    let group = [NewSnapshot { volume: id, uuid: [9; 16], name: "s" }];
    let token = rig.engine.borrow_mut().create_snapshots(&group).unwrap();
    rig.control_result(token).unwrap();
    id
}

/// Every buffer is with a write or a read at the engine, the log is far too small for them, few
/// pages of the map are in memory, and what they overwrite must be copied: everybody is answered,
/// soon.
#[test]
fn pool_full_of_waiting_writes_drains_and_everybody_is_answered() {
    for seed in 1..=env("FUZZ_ROUNDS", 2) {
        let disk = SimDisk::new(4096, 96 * 256, FaultPlan::power_cuts(seed));
        let pool = pool([96, 24, 20, 6, 2]);
        let mut rig = rig(disk, &pool, &Options { frames: 24, ..options() });
        let size = 8 * MIB;
        let id = shared_volume(&mut rig, size);
        let (mut load, mut rng) = (Load::new(&rig, id), Rng::new(seed));
        for round in 0..3 {
            fill_pool(&rig, &mut load, &mut rng, size / 512);
            let since = rig.disk.now();
            let mut turns = 0;
            while load.waits() {
                load.poll();
                rig.turn();
                turns += 1;
                assert!(turns < 400_000, "seed {seed}, round {round}: {:?}", rig.engine.borrow());
            }
            let took = rig.disk.now().saturating_since(since);
            println!("{turns} turns, {took:?}, {} requests", load.submitted);
            assert!(took < Duration::from_secs(2), "seed {seed}, round {round}: {took:?}");
            assert!(load.statuses.iter().all(|status| status.is_ok()), "{:?}", load.statuses);
        }
        assert!(rig.engine.borrow().stats().copied_extents > 0);
        drop(load);
        rig.close();
        assert!(Rig::check(rig.disk.image(), true).is_clean());
    }
}

/// Nobody waits at the engine, but the pool is empty all the time: what is in the log gets into the
/// map, and reads that need buffers of the engine are answered.
#[test]
fn engine_without_a_single_buffer_of_the_pool_still_does_everything() {
    let disk = SimDisk::new(4096, 96 * 256, FaultPlan::power_cuts(3));
    let mut rig = Rig::create(disk, MIB, &Options { frames: 24, ..options() });
    let id = shared_volume(&mut rig, 8 * MIB);
    let mut load = Load::new(&rig, id);
    let mut mine: Vec<_> = (0..40).map(|_| rig.pool.take(4096).unwrap()).collect();
    let mut large: Vec<_> = (0..4).map(|_| rig.pool.take(65536).unwrap()).collect();
    let _all: Vec<_> = std::iter::from_fn(|| rig.pool.take(1)).collect();
    let mut rng = Rng::new(5);
    while let Some(buf) = mine.pop() {
        let tag = Tag(load.submitted);
        load.push(Request::write(tag, Lba(rng.below(16000) | 1), 7, buf.freeze()));
    }
    while let Some(buf) = large.pop() {
        let tag = Tag(load.submitted);
        load.push(Request::read(tag, Lba(rng.below(16000) | 1), 125, buf));
    }
    // What comes back is taken again at once.
    let mut held = Vec::new();
    rig.until("all is answered and in the map", |rig| {
        load.poll();
        held.extend(std::iter::from_fn(|| rig.pool.take(1)));
        !load.waits() && rig.engine.borrow().stats().log_used_bytes == 0
    });
    assert!(load.statuses.iter().all(|status| status.is_ok()), "{:?}", load.statuses);
    let snapshot = rig.engine.borrow().snapshots()[0].id;
    let token = rig.engine.borrow_mut().delete_volume(snapshot).unwrap();
    rig.control_result(token).unwrap();
    rig.engine.borrow_mut().check_start().unwrap();
    rig.until("the check ends", |rig| {
        matches!(rig.engine.borrow().check_status(), volume::CheckStatus::Done(_))
    });
    drop(load);
    rig.close();
}

/// Two engines share a pool. The device of one does not answer, and its hosts hold every buffer:
/// the other one still writes, reads and destages what its hosts have given it.
#[test]
fn engine_whose_device_hangs_does_not_starve_another_one() {
    let pool = pool([128, 32, 32, 12, 3]);
    let disks = [1, 2].map(|seed| SimDisk::new(4096, 24 * 256, FaultPlan::reliable(seed)));
    let mut rigs = disks.map(|disk| rig(disk, &pool, &options()));
    let ids = [0, 1].map(|at: usize| rigs[at].create_volume("v", 8 * MIB, 512));
    let mut served = Load::new(&rigs[1], ids[1]);
    for tag in 0..30 {
        let buf = pool.take(4096).unwrap().freeze();
        served.push(Request::write(Tag(tag), Lba(u64::from(tag) * 64 + 1), 7, buf));
    }
    rigs[0].disk.stall_for(Duration::from_secs(3600));
    let mut stuck = Load::new(&rigs[0], ids[0]);
    fill_pool(&rigs[0], &mut stuck, &mut Rng::new(1), 8 * MIB / 512);
    stuck.poll();
    // Reads of what was never written were answered at once: what they gave back is taken too.
    stuck.poll();
    let _rest: Vec<_> = std::iter::from_fn(|| pool.take(1)).collect();
    rigs[0].engine.borrow_mut().drive(rigs[0].disk.now());
    rigs[1].until("the other one has done its work", |rig| {
        served.poll();
        !served.waits() && rig.engine.borrow().stats().log_used_bytes == 0
    });
    assert!(served.statuses.iter().all(|status| status.is_ok()));
    assert!(stuck.waits(), "the pool was never free");
}

/// A store is opened, and its log recovered page by page, while hosts of another hold the pool: all
/// that it takes for good is there, and not one buffer more.
#[test]
fn store_is_opened_with_what_it_takes_for_good() {
    let disk = SimDisk::new(4096, 24 * 256, FaultPlan::reliable(1));
    let mut rig = Rig::create(disk, MIB, &options());
    let id = rig.create_volume("v", 8 * MIB, 4096);
    let mut queue = rig.queue(id, 8);
    for block in 0..100 {
        assert_eq!(rig.write(&mut queue, block * 3, &[5; 4096]), Status::Ok);
    }
    drop(queue);
    let disk = SimDisk::with_image(4096, rig.disk.crash(), FaultPlan::reliable(2));
    // The window of the scan, four groups, a skip, one buffer for copies.
    let pool = pool([1, 0, 1, 4, 1]);
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let engine = Engine::open(queue, disk.info(), &pool, &options());
    let engine = Rc::new(RefCell::new(engine));
    let mut rig = Rig { disk, pool, engine, events: Vec::new() };
    rig.until_open().unwrap();
    assert!(rig.pool.take(1).is_none());
    rig.close();
}
