//! Where blocks live on one device: superblocks, maps, allocation, checkpoints. Sans-IO.
//!
//! A store turns one device into 64 KiB extents and holds the maps of many thin volumes:
//! which extent holds which 64 KiB of which volume, which of its blocks were written, and their
//! checksums. The map is a copy-on-write tree per volume; a checkpoint writes what changed to fresh
//! pages and then moves the superblock, so the device always holds one whole, consistent map.
//!
//! ```text
//!   Format --> | superblock A | superblock B | log ring (crate wal) | extents: data and metadata |
//!
//!   Mount --> Store:  lookup / edit / unmap      the map (pages are loaded on demand)
//!                     scan / diff / unique       walks over it, a bounded step at a time
//!                     allocate / commit / ...    extents
//!                     create_volume / ...        the catalog
//!                     stage_snapshot / ...       snapshots, restores and clones
//!                     delete_volume / reclaim    volumes and snapshots, in any order
//!                     begin_checkpoint ... CheckpointDone
//!
//!   an extent:  Free --allocate--> Tentative --commit--> Mapped --release--> Released
//!                 ^------abandon------'                                         |
//!                 ^------------------- checkpoint is durable -------------------'
//! ```
//!
//! **What it deliberately is not.** It moves no data of volumes and knows no requests of hosts: the
//! engine (`volume`) writes data into extents, and decides what is destaged and when to
//! checkpoint. It has no clock and no threads; it speaks through `poll_requests` and
//! `on_completion` like every machine.
//!
//! **Sharing.** Volumes and snapshots form a forest (`forest.rs`). Each page and extent carries the
//! birth of who wrote it; it says who may overwrite or release it, and nothing is counted.
//! Deleting compares the deleted one with its children, place by place (`reclaim.rs`).
//!
//! **Crash safety.** Nothing that the newest durable superblock reaches is overwritten in place:
//! changed pages go to fresh places, and pages and extents that fell out of the map are reused only
//! when the superblock without them is durable (in both copies). Tentative extents are not
//! persisted at all, so a crash leaks nothing.
//!
//! # Example
//!
//! ```
//! use bdev::{Bdev, Pool, PoolConfig, QueueCx, RamDisk};
//! use store::{
//!     Edit, Event, Format, FormatOptions, LogTail, Lookup, Mount, Options, VolumeSpec, turn,
//! };
//!
//! let pool = Pool::new(&PoolConfig::for_bytes(4 << 20)).expect("4 MiB");
//! let disk = RamDisk::new(4096, 8192).expect("32 MiB");
//! let mut queue = disk.open(&QueueCx::new(&pool)).expect("a RAM disk always opens");
//! let queue = queue.as_mut();
//!
//! let options = FormatOptions { uuid: [7; 16], log_bytes: None, overwrite: false };
//! let mut format = Format::new(disk.info(), &options).expect("32 MiB are enough");
//! while format.take_result().is_none() {
//!     turn(&mut format, queue, &pool);
//! }
//! let mut mount = Mount::new(disk.info(), &Options::default());
//! let mut store = loop {
//!     turn(&mut mount, queue, &pool);
//!     if let Some(result) = mount.take_result() {
//!         break result.expect("just formatted").store;
//!     }
//! };
//!
//! let id = store.next_volume_id();
//! let spec = VolumeSpec { id, uuid: [1; 16], name: "db", size: 1 << 40, block_bytes: 4096 };
//! store.create_volume(&spec).expect("there is room");
//! let extent = store.allocate().expect("there is space");
//! let birth = store.birth(id);
//! let Edit::Entry(entry) = store.edit(id, 12) else { panic!("nothing needs to be loaded") };
//! entry.set_extent(extent, birth);
//! entry.set_block(3, 0x1234_5678);
//! store.commit(extent);
//!
//! assert!(store.begin_checkpoint(LogTail::START));
//! let done = loop {
//!     turn(&mut store, queue, &pool);
//!     if let Some(event) = store.poll_event() {
//!         break event;
//!     }
//! };
//! assert_eq!(done, Event::CheckpointDone(LogTail::START));
//! assert!(matches!(store.lookup(id, 12), Lookup::Entry(_)));
//! assert_eq!(store.lookup(id, 13), Lookup::Unmapped);
//! ```
//!
//! # Memory
//!
//! Fixed at mount, and touched only as far as it is used: the page cache (64 MiB by default) and
//! its bookkeeping (1.2 MiB), 4 MiB per TiB of device for the allocator, 1 MiB for the table of
//! metadata extents (it doubles when 1.5 TiB are mapped), 1.9 MiB for the catalog. A thin volume
//! costs its record until it is written. `tests/no_alloc.rs` shows that nothing is allocated later.

#![forbid(unsafe_code)]

mod cache;
mod catalog;
mod check;
mod checkpoint;
mod compare;
mod create;
mod drive;
mod error;
mod flat;
mod forest;
pub mod format;
mod io;
mod ledger;
mod limits;
mod loads;
mod meta;
mod mount;
mod patrol;
mod reclaim;
mod repair;
mod space;
mod store;
mod table;
mod tree;
mod types;
mod walk;

pub use check::{CheckOptions, check};
pub use create::{Format, FormatOptions, Formatted};
pub use drive::{Machine, turn};
pub use error::{FormatError, MountError, VolumeError};
pub use forest::NodeSpec;
pub use format::{LeafEntry, NodeKind, VolumeRecord};
pub use ledger::{CheckReport, Finding};
pub use limits::{
    AREA_EXTENTS_MIN, DEVICE_EXTENTS_MAX, EXTENT_BLOCKS, EXTENT_BYTES, FINDINGS_MAX,
    FRAMES_DEFAULT, FRAMES_MAX, FRAMES_MIN, LOG_BYTES_DEFAULT_MAX, LOG_BYTES_DEFAULT_MIN,
    LOG_BYTES_MIN, NAME_BYTES_MAX, NODES_MAX, PAGE_BYTES, PATH_PAGES_MAX, REQUESTS_MAX,
    SNAPSHOTS_MAX, STAGED_MAX, VOLUME_BYTES_MAX, VOLUMES_MAX,
};
pub use mount::{Mount, Mounted};
pub use patrol::{PatrolPlace, Patrolled, ScrubEntry, ScrubRecord};
pub use store::{Store, StoreStats, VolumeSpec};
pub use types::{
    Damage, Edit, Event, Extent, ExtentState, LogRegion, LogTail, Lookup, Options, TAG_CLASS,
    Unmap, VolumeId,
};
pub use walk::{Diff, Scan, Unique};
