//! Files and block devices through `io_uring`, and a plain `pread`/`pwrite` backend.
//!
//! A [`FileDisk`] is a file or block device, claimed exclusively and opened with `O_DIRECT` where
//! the file system allows it. Each shard's queue to it is one of two:
//!
//! - **io_uring**: one ring for each queue, created disabled, restricted to six operations, with
//!   the pool's memory and the file registered; one system call for each kick. Where the device has
//!   poll queues the ring polls (`IOPOLL`), with a second ring for what such a ring rejects.
//! - **standard**: `pread`, `pwrite`, `fdatasync` and `fallocate` on the shard's own thread, a
//!   bounded number for each kick. For kernels and containers that forbid `io_uring`: correct,
//!   slow, and it blocks the shard.
//!
//! [`IoBackend`] chooses: `auto` prefers `io_uring` and falls back, saying so once in the
//! [`Selection`]; `io_uring` fails to open when it cannot be had.
//!
//! # Durability
//!
//! A completed write is in the device's cache: [`bdev::Info::volatile_cache`] is true for files and
//! for devices with a write-back cache. A flush is one `fdatasync`, issued after it was submitted,
//! so it covers all writes that completed before. A write with [`bdev::Flags::FUA`] is a write with
//! an `fdatasync` linked to it (cheaper here than `RWF_DSYNC`: ADR 0042), left out where there is
//! no volatile cache.
//!
//! **What it deliberately is not.** No cache, no read-ahead, no scheduler; no compare operation
//! (the layer above has the data). Short transfers and temporary errors are continued here and
//! never seen above.
//!
//! # Example
//!
//! ```
//! use bdev::{Bdev, Fifo, Lba, Pool, PoolConfig, QueueCx, Request, Status, Tag};
//! use bdev_uring::{Allocation, FileDisk, FileOptions, create_file};
//!
//! let folder = tempfile::tempdir().expect("a temporary folder");
//! let path = folder.path().join("disk");
//! create_file(&path, 1 << 20, Allocation::Sparse).expect("room for a megabyte");
//! let disk = FileDisk::open(&path, &FileOptions::default()).expect("nobody else has it");
//! println!("{}", disk.selection());
//!
//! let pool = Pool::new(&PoolConfig::tiny()).expect("a small pool");
//! let mut queue = disk.open(&QueueCx::new(&pool)).expect("the backend was chosen already");
//! let mut requests = Fifo::new(1);
//! let block = pool.take(4096).expect("a fresh pool").freeze();
//! requests.push(Request::write(Tag(1), Lba(0), 1, block)).expect("an empty FIFO");
//! let mut completions = Fifo::new(1);
//! while completions.is_empty() {
//!     queue.submit(&mut requests);
//!     queue.kick();
//!     queue.poll(&mut completions);
//! }
//! assert_eq!(completions.pop().expect("just seen").status, Status::Ok);
//! ```

mod backend;
mod counters;
mod disk;
mod errno;
mod limits;
mod ring;
mod standard_queue;
mod sysfs;
mod system;
mod uring_queue;

pub use backend::{Backend, IoBackend, Notice, Selection};
pub use counters::IoCounts;
pub use disk::{Allocation, FileDisk, FileOptions, create_file};
pub use limits::{CLAIM_WAIT_DEFAULT, STANDARD_PER_KICK};
