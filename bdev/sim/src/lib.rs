//! A disk that tears, loses, misdirects, rots, stalls and runs full, from a seed.
//!
//! A [`SimDisk`] is a [`bdev::Bdev`] for the code under test and, through another clone of the same
//! handle, a set of controls for the test. It is passive: it has a virtual clock that the test
//! moves ([`SimDisk::advance_to`], [`SimDisk::step`]), and everything random comes from the seed of
//! its [`FaultPlan`], one stream for each concern. The same seed and the same calls give the same
//! history ([`SimDisk::event_hash`]).
//!
//! ```text
//!            kick: fate and time drawn             poll, once due
//!  staged ----------------------------> arriving -----------------> cached -----> durable
//!                                           |                          |   flush,
//!              power cut: each write whole, torn at sectors, or lost --'   FUA, full cache
//! ```
//!
//! **The cache.** With [`FaultPlan::volatile_cache`] a completed write is visible to reads, and
//! lost, torn or kept at a power cut until a flush that was submitted after it, FUA, or the
//! pressure of a full cache makes it durable. A flush that fails drops the cache: what it held is
//! as after a power cut, and later flushes do not bring it back. Without a cache a completed write
//! is durable; one in flight may still be torn.
//!
//! **Crashing everywhere.** Images are sparse and copied on write, so a [`CrashPoint`] is cheap:
//! record one before each write of a run ([`SimDisk::record_crash_points`]), then draw as many
//! outcomes from each as wanted and start the code under test on [`SimDisk::with_image`].
//!
//! **What it deliberately is not.** Not a model of time on real drives, and not fast enough to
//! measure anything. It allocates freely.
//!
//! # Example
//!
//! ```
//! use bdev::{Bdev, Fifo, Lba, Pool, PoolConfig, QueueCx, Request, Tag};
//! use bdev_sim::{FaultPlan, SimDisk};
//!
//! let pool = Pool::new(&PoolConfig::tiny()).expect("a small pool");
//! let disk = SimDisk::new(4096, 1 << 30, FaultPlan::power_cuts(1));
//! let mut queue = disk.open(&QueueCx::new(&pool)).expect("the disk is on");
//! let mut block = pool.take(4096).expect("a fresh pool has room");
//! block.bytes_mut().fill(7);
//! let mut requests = Fifo::new(1);
//! requests.push(Request::write(Tag(0), Lba(5), 1, block.freeze())).expect("room for one");
//! queue.submit(&mut requests);
//! queue.kick();
//! assert!(disk.step(), "time moves on to the end of the write");
//! let mut completions = Fifo::new(1);
//! queue.poll(&mut completions);
//! assert_eq!(completions.len(), 1);
//!
//! // Completed, not flushed: it may be gone.
//! let lost = disk.crash_point().image_without_unflushed();
//! assert_eq!(lost.allocated_bytes(), 0);
//! ```

#![forbid(unsafe_code)]

mod core;
mod disk;
mod image;
mod limits;
mod medium;
mod plan;
mod queue;

pub use disk::{Fault, FaultKind, SimDisk, Stats};
pub use image::Image;
pub use limits::{CACHE_BYTES_DEFAULT, FAULTS_KEPT_MAX};
pub use medium::CrashPoint;
pub use plan::{FaultPlan, PerMillion};
