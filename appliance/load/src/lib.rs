//! A polled host that measures: what `holdfast bench` and the project's own table have in common.
//!
//! ```text
//!  +---------------------------------------+
//!  | Session: plan, checks, one run        |      read-back of what was written (verify)
//!  |  run(jobs): windows, histograms       |
//!  |   Job: generator, pace, verifier      |  <-- drives any bdev::Queue
//!  +----------------- bdev::Queue ---------+
//!  | Client: a controller, its I/O queues  |      discover(): who is there
//!  |  hub: one Net for all connections     |
//!  +----- nvmf::initiator, net-uring ------+
//! ```
//!
//! A [`Job`] keeps operations in flight and does not know what is behind its queue: a namespace
//! over the network ([`Client`]), or a device of this process (the crate `bench`). [`Session`] is a
//! whole measurement of a target elsewhere: connect, look at the namespace, run, read back.
//!
//! One thread polls everything. It needs no privileges and no kernel module: sockets are ordinary
//! ones, and the protocol is the target's own codec.
//!
//! **What it deliberately is not.** No target, no table, no opinion about numbers (that is
//! `bench`), and no command line (that is `cli`): it prints nothing and asks nobody.
//!
//! # Example
//!
//! ```
//! use bdev::{Bdev, Instant, NullDisk, Pool, PoolConfig, QueueCx};
//! use load::{Job, JobPlan, Rw, Timeline, Workload, run};
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
//!     tick: Duration::ZERO,
//!     ios_max: 0,
//! };
//! let mut ns = 0;
//! let mut clock = || { ns += 100; Instant::from_ns(ns) };
//! let outcome = run(&mut jobs, &timeline, &mut clock, &mut ()).expect("a null disk never fails");
//! assert!(outcome.ios > 0 && outcome.latency().count() > 0);
//! ```

#![forbid(unsafe_code)]

mod client;
mod clock;
mod discover;
mod histogram;
mod hub;
mod job;
mod limits;
mod pace;
mod session;
mod size;
mod verify;
mod workload;
mod zipf;

pub use client::{Client, ConnectError, Destination, Host};
pub use clock::{Clock, nanoseconds, per_second};
pub use discover::{Found, discover};
pub use histogram::Histogram;
pub use job::{Job, JobPlan, Observer, Outcome, RunError, Timeline, run};
pub use limits::{
    BATCH_PIECES, CONNECT_TIMEOUT, DEPTH_MAX, DISCOVERY_RECORDS_MAX, JOBS_MAX, STALL_TIMEOUT,
    VERIFIED_BLOCKS_MAX,
};
pub use nvmf::{Digests, Nqn};
pub use pace::{Pace, Rate};
pub use session::{Plan, Session, SessionError, Summary, pool, sockets};
pub use size::{parse_size, parse_time, show_size};
pub use verify::Mismatch;
pub use workload::{Generator, Io, Rw, Workload};
