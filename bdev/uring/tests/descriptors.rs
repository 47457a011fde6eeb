//! Rings and files are closed when disks are dropped. Alone in its program, because it counts the
//! descriptors of the process.

#![allow(clippy::unwrap_used, reason = "the steps of a test must succeed")]

use std::path::Path;
use std::time::Duration;

use bdev::{Bdev, Fifo, Lba, Pool, PoolConfig, QueueCx, Request, Tag};
use bdev_uring::{Allocation, FileDisk, FileOptions, IoBackend, create_file};

fn open_disk(path: &Path, backend: IoBackend) -> FileDisk {
    let claim_wait = Duration::ZERO;
    FileDisk::open(path, &FileOptions { backend, claim_wait, ..FileOptions::default() }).unwrap()
}

#[test]
fn dropped_disks_leave_no_descriptor_open() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    create_file(&path, 1 << 20, Allocation::Sparse).unwrap();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for backend in [IoBackend::IoUring, IoBackend::Standard] {
        for _ in 0..5 {
            let disk = open_disk(&path, backend);
            let pool = Pool::new(&PoolConfig::tiny()).unwrap();
            let mut queue = disk.open(&QueueCx::new(&pool)).unwrap();
            let mut fifo = Fifo::new(1);
            let buf = pool.take(4096).unwrap().freeze();
            fifo.push(Request::write(Tag(0), Lba(0), 1, buf)).unwrap();
            queue.submit(&mut fifo);
            queue.kick();
            drop(queue);
            assert_eq!(pool.stats().taken(), 0, "what was in flight came home");
        }
    }
    assert_eq!(descriptors(), before);
}
