//! The contract and the promises of file disks, on both backends.

#![allow(clippy::unwrap_used, reason = "the steps of a test must succeed")]

use std::io;
use std::path::Path;

use bdev::conformance::{DEPTH, Fixture};
use bdev::{
    Bdev, BlockCount, Completion, Data, Fifo, Flags, Lba, Op, OpenError, Pool, PoolConfig, Queue,
    QueueCx, Request, Status, Tag,
};
use bdev_uring::{
    Allocation, Backend, FileDisk, FileOptions, IoBackend, IoCounts, STANDARD_PER_KICK, create_file,
};
use tempfile::TempDir;

const BYTES: u64 = 4 << 20;

/// A folder on the disk that the project is built on: a RAM disk in `/tmp` would not do direct I/O.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn at_once() -> FileOptions {
    FileOptions { claim_wait: std::time::Duration::ZERO, ..FileOptions::default() }
}

/// Nobody waits in these tests: a disk must be free as soon as it is dropped.
fn options(backend: IoBackend, block_size: u32) -> FileOptions {
    FileOptions { backend, block_size: Some(block_size), ..at_once() }
}

fn disk_in(folder: &Path, options: &FileOptions) -> FileDisk {
    let path = folder.join("disk");
    if !path.exists() {
        create_file(&path, BYTES, Allocation::Sparse).unwrap();
    }
    FileDisk::open(&path, options).unwrap()
}

fn fixture(options: &FileOptions) -> Fixture {
    let folder = folder();
    let fixture = Fixture::new(disk_in(folder.path(), options));
    // The open file outlives its name.
    fixture.pump(std::thread::yield_now)
}

bdev::conformance_suite!(uring_4096, fixture(&options(IoBackend::IoUring, 4096)));
bdev::conformance_suite!(uring_512, fixture(&options(IoBackend::IoUring, 512)));
bdev::conformance_suite!(standard_4096, fixture(&options(IoBackend::Standard, 4096)));
bdev::conformance_suite!(standard_512, fixture(&options(IoBackend::Standard, 512)));
bdev::conformance_suite!(
    unregistered,
    fixture(&FileOptions { register_buffers: false, ..options(IoBackend::IoUring, 4096) })
);
bdev::conformance_suite!(
    buffered,
    fixture(&FileOptions { direct: false, ..options(IoBackend::IoUring, 512) })
);

fn no_ring() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(1))
}

#[test]
fn auto_falls_back_and_says_so_once() {
    let folder = folder();
    let options = FileOptions { probe: no_ring, ..at_once() };
    let disk = disk_in(folder.path(), &options);
    let selection = disk.selection();
    assert_eq!(selection.selected, Backend::Standard);
    assert!(selection.is_fallback());
    assert_eq!(
        selection.to_string(),
        "io backend: requested auto, selected standard (io_uring cannot be had: Operation not \
         permitted (os error 1))"
    );
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    assert!(disk.open(&QueueCx::new(&pool)).is_ok());
}

#[test]
fn required_ring_that_cannot_be_had_fails_to_open() {
    let folder = folder();
    drop(disk_in(folder.path(), &at_once()));
    let backend = IoBackend::IoUring;
    let options = FileOptions { probe: no_ring, backend, ..at_once() };
    let error = FileDisk::open(&folder.path().join("disk"), &options).unwrap_err();
    assert!(matches!(error, OpenError::System { .. }));
    assert!(error.to_string().contains("io_uring"), "{error}");
}

#[test]
fn auto_prefers_the_ring() {
    let folder = folder();
    let disk = disk_in(folder.path(), &at_once());
    assert!(!disk.selection().is_fallback());
    assert_eq!(disk.selection().selected, Backend::IoUring);
    assert!(disk.info().volatile_cache, "a file's writes are volatile until a flush");
    assert_eq!(disk.info().block_size, 4096);
    assert_eq!(disk.info().blocks, BlockCount(BYTES / 4096));
}

#[test]
fn disk_is_claimed_once() {
    let folder = folder();
    let disk = disk_in(folder.path(), &at_once());
    let again = || FileDisk::open(&folder.path().join("disk"), &at_once());
    assert!(matches!(again().unwrap_err(), OpenError::Unavailable(_)));
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    drop(disk);
    assert!(again().is_err(), "its queue still has it");
    drop(queue);
    assert!(again().is_ok());
}

#[test]
fn what_is_no_disk_is_refused() {
    let folder = folder();
    let open = |path: &Path| FileDisk::open(path, &at_once()).unwrap_err();
    assert!(matches!(open(folder.path()), OpenError::Unavailable(_)));
    assert!(matches!(open(Path::new("/dev/null")), OpenError::Unavailable(_)));
    assert!(matches!(open(&folder.path().join("nothing")), OpenError::System { .. }));
    let path = folder.path().join("disk");
    create_file(&path, BYTES, Allocation::Full).unwrap();
    assert!(create_file(&path, BYTES, Allocation::Full).is_err(), "there is a file already");
    let odd = FileOptions { block_size: Some(1024), ..at_once() };
    assert!(FileDisk::open(&path, &odd).is_err());
}

/// Submits all of `requests` and polls until all are through.
fn run(queue: &mut dyn Queue, requests: Vec<Request>) -> Vec<Completion> {
    let count = requests.len();
    let mut fifo = Fifo::new(count);
    for request in requests {
        fifo.push(request).unwrap();
    }
    let mut completions = Fifo::new(count);
    while !completions.is_full() {
        queue.submit(&mut fifo);
        queue.kick();
        queue.poll(&mut completions);
    }
    std::iter::from_fn(|| completions.pop()).collect()
}

fn write(pool: &Pool, tag: u32, lba: u64, byte: u8) -> Request {
    let mut buf = pool.take(4096).unwrap();
    buf.bytes_mut().fill(byte);
    Request::write(Tag(tag), Lba(lba), 1, buf.freeze())
}

#[test]
fn batch_larger_than_the_ring_completes() {
    let folder = folder();
    for backend in [IoBackend::IoUring, IoBackend::Standard] {
        let disk = disk_in(folder.path(), &options(backend, 512));
        let segments = [5000, 1, 1, 1, 1];
        let pool = Pool::new(&PoolConfig { segments, huge_pages: false }).unwrap();
        // More at once than the submission queue holds, and more than the standard queue does in
        // one kick.
        let mut queue = disk.open(&QueueCx::new(&pool).depth(2048)).unwrap();
        let count = 4500;
        assert!(count as usize > STANDARD_PER_KICK);
        let requests = (0..count).map(|tag| write(&pool, tag, u64::from(tag), 7)).collect();
        let done = run(&mut *queue, requests);
        let mut tags: Vec<_> = done.iter().map(|done| done.tag.0).collect();
        tags.sort_unstable();
        assert!(done.iter().all(|done| done.status == Status::Ok));
        assert_eq!(tags, (0..count).collect::<Vec<_>>());
    }
}

/// Both backends ask the system for the same number of syncs and transfers.
#[test]
fn syncs_are_the_same_on_both_backends() {
    let counts = [IoBackend::IoUring, IoBackend::Standard].map(|backend| {
        let folder = folder();
        let disk = disk_in(folder.path(), &options(backend, 4096));
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let mut queue = disk.open(&QueueCx::new(&pool)).unwrap();
        let mut requests: Vec<_> = (0..10).map(|i| write(&pool, i, i.into(), 1)).collect();
        requests.extend((10..13).map(|i| write(&pool, i, i.into(), 1).with_flags(Flags::FUA)));
        requests.extend((20..24).map(|i| Request::flush(Tag(i))));
        requests.push(Request::range(Tag(30), Op::WriteZeroes, Lba(40), 3));
        requests.push(Request::range(Tag(31), Op::Deallocate, Lba(50), 3));
        let fua = Request::range(Tag(32), Op::WriteZeroes, Lba(60), 3);
        requests.push(fua.with_flags(Flags::FUA));
        let read = Request::read(Tag(40), Lba(1), 1, pool.take(4096).unwrap());
        requests.push(read.with_flags(Flags::FUA));
        let done = run(&mut *queue, requests);
        assert!(done.iter().all(|done| done.status == Status::Ok), "{done:?}");
        disk.counts()
    });
    assert_eq!(counts[0], IoCounts { reads: 1, writes: 13, syncs: 8, fallocates: 3 });
    assert_eq!(counts[0], counts[1]);
}

#[test]
fn file_that_became_shorter_fails_and_does_not_hang() {
    let folder = folder();
    for backend in [IoBackend::IoUring, IoBackend::Standard] {
        let disk = disk_in(folder.path(), &options(backend, 4096));
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let mut queue = disk.open(&QueueCx::new(&pool)).unwrap();
        let path = folder.path().join("disk");
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(6 * 4096).unwrap();
        // Of the first read half is there, of the second nothing.
        let reads = vec![
            Request::read(Tag(1), Lba(4), 4, pool.take(16384).unwrap()),
            Request::read(Tag(2), Lba(100), 1, pool.take(4096).unwrap()),
        ];
        let done = run(&mut *queue, reads);
        assert!(done.iter().all(|done| done.status == Status::Io), "{done:?}");
        assert!(done.iter().all(|done| matches!(done.data, Data::Into(_))));
        file.set_len(BYTES).unwrap();
    }
}

#[test]
fn other_shards_see_what_was_written() {
    let folder = folder();
    let disk = disk_in(folder.path(), &at_once());
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let mut first = disk.open(&QueueCx::new(&pool).depth(DEPTH)).unwrap();
    let mut second = disk.open(&QueueCx::new(&pool).depth(1).shard(1)).unwrap();
    run(&mut *first, vec![write(&pool, 1, 3, 0xab)]);
    let read = Request::read(Tag(2), Lba(3), 1, pool.take(4096).unwrap());
    let done = run(&mut *second, vec![read]).remove(0);
    let Data::Into(buf) = done.data else { panic!("a read gives its buffer back") };
    assert!(buf.bytes().iter().all(|&byte| byte == 0xab));
}
