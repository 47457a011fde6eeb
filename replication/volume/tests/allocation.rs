//! After an engine is ready, submitting, driving and polling allocate nothing.
//!
//! # Safety argument
//!
//! The only `unsafe` here is a global allocator that counts and passes every call on, unchanged, to
//! the system's, whose contract it so inherits.

#![allow(unsafe_code, reason = "a counting allocator")]
#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bdev::{Bdev, Data, Fifo, Instant, Lba, Op, Pool, PoolConfig, Queue, QueueCx, RamDisk};
use bdev::{Request, Rng, Tag};
use volume::{
    Engine, Event, FormatOptions, NewSnapshot, NewVolume, Options, VolumeId, VolumeQueue,
};

struct Counting;

thread_local! {
    // Of this thread: what the test harness does beside it is not counted.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to `System` with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is this one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above, for `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn engine(pool: &Rc<Pool>) -> Rc<RefCell<Engine>> {
    let disk = RamDisk::new(4096, (256 << 20) / 4096).unwrap();
    let queue = disk.open(&QueueCx::new(pool)).unwrap();
    let format = FormatOptions { uuid: [7; 16], log_bytes: Some(4 << 20), overwrite: false };
    let options = Options { frames: 64, idle_ns: 1_000_000, ..Options::default() };
    let engine = Engine::create(queue, disk.info(), pool, &format, &options).unwrap();
    let engine = Rc::new(RefCell::new(engine));
    while !engine.borrow().is_ready() {
        engine.borrow_mut().drive(Instant::ZERO);
    }
    engine
}

fn create(engine: &Rc<RefCell<Engine>>, name: &str, block_bytes: u32) -> VolumeQueue {
    let uuid = [u8::try_from(block_bytes >> 8).unwrap(); 16];
    let new = NewVolume { uuid, name, size: 96 << 20, block_bytes };
    engine.borrow_mut().create_volume(&new).unwrap();
    loop {
        engine.borrow_mut().drive(Instant::ZERO);
        let event = engine.borrow_mut().poll_event();
        if let Some(Event::Control { result, .. }) = event {
            return VolumeQueue::open(engine, result.unwrap(), 32).unwrap();
        }
    }
}

#[test]
fn steady_state_allocates_nothing() {
    let pool = Rc::new(Pool::new(&PoolConfig::for_bytes(64 << 20)).unwrap());
    let engine = engine(&pool);
    let mut queues = [create(&engine, "a", 4096), create(&engine, "b", 512)];
    let volumes = [VolumeId(1), VolumeId(2)];
    let mut rng = Rng::new(1);
    let mut requests = Fifo::new(32);
    let mut completions = Fifo::new(32);
    let mut finished = 0u64;
    let mut turn = |now: u64, rng: &mut Rng| {
        for (queue, unit) in queues.iter_mut().zip([4096u64, 512]) {
            while requests.room() > 0 && queue.in_flight() < 32 {
                let Some(request) = request(&pool, rng, unit) else { break };
                requests.push(request).unwrap();
                queue.submit(&mut requests);
            }
            while let Some(request) = requests.pop() {
                drop(request);
            }
            queue.kick();
        }
        engine.borrow_mut().drive(Instant::from_ns(now));
        for queue in &mut queues {
            queue.poll(&mut completions);
            while let Some(done) = completions.pop() {
                assert!(done.status.is_ok(), "{:?}", done.status);
                if let Data::Into(buf) = &done.data {
                    assert!(buf.capacity() > 0);
                }
                finished += 1;
            }
        }
    };
    for step in 0..300 {
        turn(step * 1000, &mut rng);
    }
    let before = (ALLOCATIONS.get(), engine.borrow().stats());
    for step in 300..800 {
        if step % 100 == 50 {
            snapshot(&engine, &volumes, step);
        }
        // Pauses now and then, so that idle destaging and checkpoints take part.
        turn(step * if step % 100 == 0 { 10_000 } else { 1000 }, &mut rng);
    }
    let after = (ALLOCATIONS.get(), engine.borrow().stats());
    assert!(after.1.checkpoints > before.1.checkpoints, "checkpoints took part");
    assert!(after.1.destaged_blocks > before.1.destaged_blocks, "destaging took part");
    assert!(after.1.copied_extents > before.1.copied_extents, "copying on write took part");
    assert!(finished > 3_000);
    assert_eq!(after.0 - before.0, 0, "allocations in steady state");
}

/// A snapshot of both volumes, under a name of its own.
fn snapshot(engine: &RefCell<Engine>, volumes: &[VolumeId; 2], step: u64) {
    const NAMES: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];
    let number = usize::try_from(step / 100).unwrap();
    let mut uuid = [[0xee; 16]; 2];
    for (which, uuid) in (0u8..).zip(&mut uuid) {
        (uuid[0], uuid[1]) = (u8::try_from(number).unwrap(), which);
    }
    let new = |which: usize| NewSnapshot {
        volume: volumes[which],
        uuid: uuid[which],
        name: NAMES[number],
    };
    let mut engine = engine.borrow_mut();
    engine.create_snapshots(&[new(0), new(1)]).unwrap();
    while let Some(event) = engine.poll_event() {
        assert!(matches!(event, Event::Control { result: Ok(_), .. }), "{event:?}");
    }
}

fn request(pool: &Pool, rng: &mut Rng, unit: u64) -> Option<Request> {
    let blocks = (96 << 20) / unit;
    let count = if rng.chance(1, 8) { rng.between(1, (256 << 10) / unit) } else { 1 };
    let lba = Lba(rng.below(blocks - count));
    let tag = Tag(1);
    let len = usize::try_from(count * unit).unwrap();
    let count = u32::try_from(count).unwrap();
    Some(match rng.below(20) {
        0 => Request::range(tag, Op::WriteZeroes, lba, count),
        1 => Request::range(tag, Op::Deallocate, lba, count),
        2 => Request::flush(tag),
        3..8 => Request::read(tag, lba, count, pool.take(len)?),
        _ => Request::write(tag, lba, count, pool.take(len)?.freeze()),
    })
}
