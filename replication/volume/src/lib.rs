//! Composes the log and the store into thin volumes that are block devices.
//!
//! An [`Engine`] serves the volumes of one store: it owns the queue to the device, the log
//! (`wal`), the map (`store`), and between them the *overlay*, an index in RAM of everything that
//! is in the log and not yet in the map. A [`VolumeQueue`] is one shard-local queue to one volume,
//! an ordinary [`bdev::Queue`]. The engine is passive: its owner calls [`Engine::drive`] once a
//! turn, and everything moves in there.
//!
//! ```text
//!            write                                  read
//!   small, unaligned | whole extents                  |
//!          |         |      |                overlay first, else map
//!          |         | data to fresh extents          |
//!          v         v      v                         v
//!   log: one group a turn  (records, data)     device, checked against CRC32C
//!          | durable: acknowledge
//!          v
//!   overlay + journal --- destage windows ---> extents and leaves --- checkpoint ---> trim log
//!
//!   Opening (format | mount, scan log) --> Running --> draining --> Closed
//!        `--> Failed                          `--> degraded: device failed, reads only
//! ```
//!
//! **What it promises.** A completed write survives a kill and a power cut. A read returns the last
//! completed write or an error, never anything else: every block is checked on every read. A
//! `Flush` has nothing to do. Writes wait when the log is nearly full and fail with
//! [`bdev::Status::NoSpace`] when the store is; reads never wait for either. A crash at any point
//! loses nothing acknowledged, leaks nothing and frees nothing twice.
//!
//! **Snapshots.** One log record makes one, without a wait for anybody: it closes a layer of the
//! overlay (`layers.rs`). When the destager gets to it (`barrier.rs`) a checkpoint gives it the
//! volume's map. Until then it is read through its layers; it is always read-only. What it shares
//! with its volume is copied by the destager before it changes (`cow.rs`).
//!
//! **What it deliberately is not.** It does not replicate, and knows no transport. It has no clock:
//! [`Engine::drive`] is handed the time. After it is ready it allocates nothing but the answers to
//! control operations.
//!
//! # Example
//!
//! ```
//! use std::cell::RefCell;
//! use std::rc::Rc;
//!
//! use bdev::{Bdev, Data, Fifo, Instant, Lba, Pool, PoolConfig, QueueCx, RamDisk, Request, Tag};
//! use bdev::{Queue, Status};
//! use volume::{Engine, Event, FormatOptions, NewVolume, Options, VolumeQueue};
//!
//! let pool = Rc::new(Pool::new(&PoolConfig::for_bytes(32 << 20)).expect("32 MiB"));
//! let disk = RamDisk::new(4096, 16384).expect("64 MiB");
//! let queue = disk.open(&QueueCx::new(&pool)).expect("a RAM disk always opens");
//! let format = FormatOptions { uuid: [7; 16], log_bytes: Some(16 << 20), overwrite: false };
//! let engine = Engine::create(queue, disk.info(), &pool, &format, &Options::default());
//! let engine = Rc::new(RefCell::new(engine.expect("64 MiB are enough")));
//! let turn = || engine.borrow_mut().drive(Instant::ZERO);
//! while !engine.borrow().is_ready() {
//!     turn();
//! }
//!
//! let new = NewVolume { uuid: [1; 16], name: "v", size: 1 << 40, block_bytes: 4096 };
//! engine.borrow_mut().create_volume(&new).expect("the engine is ready");
//! let id = loop {
//!     turn();
//!     let event = engine.borrow_mut().poll_event();
//!     if let Some(Event::Control { result, .. }) = event {
//!         break result.expect("a good name and size");
//!     }
//! };
//!
//! let mut volume = VolumeQueue::open(&engine, id, 32).expect("it was just created");
//! let (mut requests, mut completions) = (Fifo::new(1), Fifo::new(1));
//! let block = pool.take(4096).expect("a fresh pool has room").freeze();
//! requests.push(Request::write(Tag(5), Lba(1 << 20), 1, block)).expect("room for one");
//! volume.submit(&mut requests);
//! while completions.is_empty() {
//!     turn();
//!     volume.poll(&mut completions);
//! }
//! assert_eq!(completions.pop().map(|done| done.status), Some(Status::Ok));
//! ```

#![forbid(unsafe_code)]

mod admission;
mod apply;
mod barrier;
mod checking;
mod checkpoint;
mod commit;
mod control;
mod core;
mod cow;
mod destage;
mod details;
mod device;
mod engine;
mod error;
mod exclusive;
mod health;
mod journal;
mod latency;
mod layers;
mod limits;
mod line;
mod lock;
mod logdamage;
mod op;
mod opening;
mod overlay;
mod pacing;
mod qos;
mod queue;
mod read;
mod replay;
mod reserve;
mod resize;
mod scrub;
mod snapshot;
mod space;
mod stats;
mod walk;
mod write;
mod zeroing;

pub use admission::{LogStatus, Pressure};
pub use checking::{CheckAborted, CheckStatus};
pub use control::{NewVolume, Shrink};
pub use engine::{Engine, Volume};
pub use error::{ControlError, Damaged, Event, OpenError, Token};
pub use health::{Health, HealthStatus};
pub use latency::Latency;
pub use limits::{
    ADMISSION_DEADLINE_NS, ATOMIC_BYTES, CHANGES_MAX, CONTROLS_MAX, DEVICE_DEADLINE_NS, EVENTS_MAX,
    FLOWS_MAX, OPS_MAX, QUEUES_MAX, SCRUB_BYTES_PER_SECOND, SNAPSHOT_GROUP_MAX, SPACE_LOW_PERCENT,
};
pub use opening::Options;
pub use qos::{Qos, QosStatus};
pub use queue::VolumeQueue;
pub use scrub::ScrubStatus;
pub use snapshot::{NewClone, NewSnapshot, Snapshot};
pub use space::SpaceState;
pub use stats::Stats;
pub use store::{CheckReport, Finding, FormatOptions, VolumeId};
pub use walk::{Change, ChangeKind, DiffStep, SpaceStep};
