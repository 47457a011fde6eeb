//! What cannot be seen from outside: the second ring, waiting, results that real disks rarely give.
//!
//! # Safety argument
//!
//! The only unsafe call waits for one descriptor and is given a local of the true size.

use super::*;
use bdev::conformance::Fixture;
use bdev::{Bdev, Info, Lba, OpenError, Pool, PoolConfig, Tag};

use crate::{FileDisk, FileOptions, IoBackend};

/// A disk whose queues have a second ring, as on a device that is polled (which no test machine
/// has), though none of the two polls.
struct Split(FileDisk);

impl Bdev for Split {
    fn info(&self) -> &Info {
        self.0.info()
    }

    fn open(&self, cx: &QueueCx<'_>) -> Result<Box<dyn Queue>, OpenError> {
        let queue = UringQueue::with_rings(Arc::clone(&self.0.shared), cx, false, true);
        Ok(Box::new(queue.map_err(|source| OpenError::System { what: "rings".into(), source })?))
    }
}

fn disk() -> FileDisk {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 20).unwrap();
    FileDisk::open(file.path(), &FileOptions::default()).unwrap()
}

bdev::conformance_suite!(two_rings, Fixture::new(Split(disk())));

fn write(pool: &Pool, blocks: u32) -> Request {
    let buf = pool.take(blocks as usize * 4096).unwrap().freeze();
    Request::write(Tag(1), Lba(0), blocks, buf)
}

#[test]
fn wait_fd_is_readable_when_poll_has_something() {
    let disk = disk();
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let mut queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let mut fifo = Fifo::new(1);
    let mut completions = Fifo::new(1);
    for _ in 0..20 {
        fifo.push(write(&pool, 1).with_flags(Flags::FUA)).unwrap();
        queue.submit(&mut fifo);
        queue.kick();
        while completions.is_empty() {
            let fd = queue.wait_fd().unwrap();
            let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, which outlives the call.
            let ready = unsafe { libc::poll(&raw mut entry, 1, 10_000) };
            assert_eq!(ready, 1, "it would sleep for ever");
            queue.poll(&mut completions);
        }
        completions.clear();
    }
}

#[test]
fn a_sync_that_failed_fails_every_later_one() {
    for backend in [IoBackend::IoUring, IoBackend::Standard] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        let options = FileOptions { backend, ..FileOptions::default() };
        let disk = FileDisk::open(file.path(), &options).unwrap();
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let mut queue = disk.open(&QueueCx::new(&pool)).unwrap();
        let mut run = |request: Request| {
            let (mut fifo, mut completions) = (Fifo::new(1), Fifo::new(1));
            fifo.push(request).unwrap();
            queue.submit(&mut fifo);
            queue.kick();
            while completions.is_empty() {
                queue.poll(&mut completions);
            }
            completions.pop().unwrap().status
        };
        assert_eq!(run(Request::flush(Tag(1))), Status::Ok);
        disk.shared.fail_syncs();
        assert_eq!(run(Request::flush(Tag(1))), Status::Io);
        assert_eq!(run(write(&pool, 1).with_flags(Flags::FUA)), Status::Io);
        assert_eq!(run(write(&pool, 1)), Status::Ok);
    }
}

/// What becomes of a request of `blocks` blocks when the kernel answers `results`.
fn outcome(blocks: u32, flags: Flags, results: &[(bool, i32)]) -> (Option<Status>, usize, bool) {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let mut flight = Flight::new(write(&pool, blocks).with_flags(flags), true);
    for &(is_sync, result) in results {
        if is_sync {
            flight.on_sync(result);
        } else {
            flight.on_data(result, 4096);
        }
    }
    (flight.failed, flight.moved, flight.moved_all && !flight.sync_due)
}

#[test]
fn short_transfers_go_on_at_a_block() {
    assert_eq!(outcome(4, Flags::NONE, &[(false, 16384)]), (None, 16384, true));
    assert_eq!(outcome(4, Flags::NONE, &[(false, 8192)]), (None, 8192, false));
    assert_eq!(outcome(4, Flags::NONE, &[(false, 5000)]), (None, 4096, false));
    assert_eq!(outcome(4, Flags::NONE, &[(false, 5000), (false, 12288)]), (None, 16384, true));
    assert_eq!(outcome(4, Flags::NONE, &[(false, 0)]), (Some(Status::Io), 0, false));
}

#[test]
fn errors_fail_and_not_now_does_not() {
    assert_eq!(outcome(1, Flags::NONE, &[(false, -libc::EAGAIN)]), (None, 0, false));
    assert_eq!(outcome(1, Flags::NONE, &[(false, -libc::EIO)]).0, Some(Status::Io));
    assert_eq!(outcome(1, Flags::NONE, &[(false, -libc::ENOSPC)]).0, Some(Status::NoSpace));
}

#[test]
fn fua_needs_the_whole_write_and_then_the_sync() {
    let fua = |results: &[(bool, i32)]| outcome(2, Flags::FUA, results);
    assert_eq!(fua(&[(false, 8192)]), (None, 8192, false));
    assert_eq!(fua(&[(false, 8192), (true, 0)]), (None, 8192, true));
    // A short write breaks the link: the sync is cancelled and due again.
    assert_eq!(fua(&[(false, 4096), (true, -libc::ECANCELED)]), (None, 4096, false));
    assert_eq!(fua(&[(false, 4096), (true, 0), (false, 4096)]), (None, 8192, false));
    assert_eq!(fua(&[(false, 8192), (true, -libc::EIO)]).0, Some(Status::Io));
}
