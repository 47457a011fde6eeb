//! `holdfast-bench`: a polled initiator, a target beside it, and the table that they fill.
//!
//! ```text
//!   core 1                                   core 0
//!  +----------------------------+           +---------------------------------+
//!  | job: generator, histogram  |           | reactor: turn, turn, turn ...   |
//!  |   |  bdev::Queue           |  TCP over |   shard: net, connections,      |
//!  | initiator queue (nvmf, net)|<-loopback>|          volume or RAM disk     |
//!  +----------------------------+           +---------------------------------+
//!        reads the meter of the target's thread at both ends of the measured window
//! ```
//!
//! A job drives a [`bdev::Queue`] and does not know what is behind it. The initiator is such a
//! queue: the same codec as the target's tests, over the same sockets as the target's. With
//! `--direct` the device's own queue is driven, with no network between, to profile a device or the
//! engine.
//!
//! **What it deliberately is not.** Not a load generator for a cluster, and not a judge: no test
//! fails because a number is low. It prints ratios to the recorded table in `docs/performance.md`;
//! people judge.
//!
//! # Example
//!
//! ```
//! use bdev::{Bdev, Instant, NullDisk, Pool, PoolConfig, QueueCx};
//! use bench::job::{Job, JobPlan, Timeline, run};
//! use bench::workload::{Rw, Workload};
//! use std::time::Duration;
//!
//! let pool = Pool::new(&PoolConfig::tiny()).expect("a small pool");
//! let disk = NullDisk::new(4096, 1000);
//! let queue = disk.open(&QueueCx::new(&pool)).expect("a null disk always opens");
//! let workload = Workload { rw: Rw::RandRead, blocks: 1, read_percent: 0, first: 0, len: 1000 };
//! let plan = JobPlan { workload, depth: 4, block_size: 4096, seed: 1, verify: false };
//! let mut jobs = [Job::new(queue, &pool, &plan).expect("four buffers are free")];
//!
//! let timeline = Timeline {
//!     warm: Duration::ZERO,
//!     measured: Duration::from_millis(1),
//!     counted: Duration::ZERO,
//!     ios_max: 0,
//! };
//! let mut ns = 0;
//! let mut clock = || { ns += 100; Instant::from_ns(ns) };
//! let outcome = run(&mut jobs, &timeline, &mut clock, &mut ()).expect("a null disk never fails");
//! assert!(outcome.ios > 0 && outcome.latency.count() > 0);
//! ```

#![forbid(unsafe_code)]

pub mod append;
mod beside;
pub mod callgrind;
pub mod client;
pub mod clock;
pub mod commit;
mod counted;
pub mod direct;
pub mod engine;
mod error;
mod histogram;
pub mod idle;
pub mod job;
mod limits;
pub mod machine;
pub mod measures;
pub mod meter;
pub mod network;
mod options;
pub mod pipe;
mod ram;
pub mod report;
mod shape;
mod size;
mod steady;
pub mod suite;
pub mod table;
pub mod target;
pub mod verify;
pub mod workload;
mod zipf;

pub use error::BenchError;
pub use histogram::Histogram;
pub use limits::{CONNECT_TIMEOUT, DEPTH_MAX, JOBS_MAX, STALL_TIMEOUT};
pub use options::{Device, IdleChoice, Options};
pub use shape::Shape;
pub use size::{parse_size, parse_time, show_size};
