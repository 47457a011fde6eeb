//! A queue does not allocate once it is open.
//!
//! # Safety argument
//!
//! The counting allocator passes every call on to the system's, unchanged.

#![allow(clippy::unwrap_used, reason = "the steps of a test must succeed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bdev::{Bdev, Data, Fifo, Flags, Lba, Op, Pool, PoolConfig, QueueCx, Request, Tag};
use bdev_uring::{Allocation, FileDisk, FileOptions, IoBackend, create_file};

struct Counting;

thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });

// SAFETY: see the safety argument.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn open_queue_does_not_allocate() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    create_file(&path, 1 << 20, Allocation::Sparse).unwrap();
    for backend in [IoBackend::IoUring, IoBackend::Standard] {
        let options = FileOptions { backend, ..FileOptions::default() };
        let disk = FileDisk::open(&path, &options).unwrap();
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let mut queue = disk.open(&QueueCx::new(&pool).depth(8)).unwrap();
        let (mut requests, mut completions) = (Fifo::new(32), Fifo::new(32));
        let before = COUNT.with(Cell::get);
        for round in 0..30 {
            for i in 0..8 {
                let (tag, lba) = (Tag(i), Lba(u64::from(round + i)));
                let buf = pool.take(8192).unwrap();
                let request = match i % 4 {
                    0 => Request::read(tag, lba, 2, buf),
                    1 => Request::write(tag, lba, 1, buf.freeze()).with_flags(Flags::FUA),
                    2 => Request::range(tag, Op::WriteZeroes, lba, 3),
                    _ => Request::read(tag, Lba(u64::MAX), 1, buf),
                };
                requests.push(request).unwrap();
            }
            while !requests.is_empty() || queue.in_flight() > 0 {
                queue.submit(&mut requests);
                queue.kick();
                queue.poll(&mut completions);
                while let Some(done) = completions.pop() {
                    assert_eq!(matches!(done.data, Data::None), done.tag.0 % 4 == 2);
                }
            }
        }
        assert_eq!(COUNT.with(Cell::get), before, "{backend}");
    }
}
