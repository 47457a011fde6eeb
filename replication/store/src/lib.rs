//! Where blocks live on one device: superblocks, maps, allocation, checkpoints. Sans-IO.
//!
//! A store turns one device into a pool of 64 KiB extents and holds the maps of many thin volumes:
//! which extent holds which 64 KiB of which volume, which of its blocks were written, and their
//! checksums. The map is a copy-on-write tree per volume; a checkpoint writes what changed to fresh
//! pages and then moves the superblock, so the device always holds one whole, consistent map.
//!
//! ```text
//!   Format --> | superblock A | superblock B | log ring (crate wal) | extents: data and metadata |
//!
//!   Mount --> Store:  lookup / edit / unmap      the map (pages are loaded on demand)
//!                     allocate / commit / ...    extents
//!                     create_volume / ...        the catalog
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
//! **Crash safety.** Nothing that the newest durable superblock reaches is overwritten in place:
//! changed pages go to fresh places, and pages and extents that fell out of the map are reused only
//! when the superblock without them is durable (in both copies). Tentative extents are not
//! persisted at all, so a crash leaks nothing.
//!
//! **Memory.** Fixed at mount: the page cache (64 MiB by default), 4 MiB per TiB of device for the
//! allocator, 256 KiB for the catalog. A thin volume costs nothing until it is written.

#![forbid(unsafe_code)]

mod cache;
mod catalog;
mod check;
mod checkpoint;
mod create;
mod drive;
mod error;
mod flat;
pub mod format;
mod io;
mod limits;
mod loads;
mod meta;
mod mount;
mod space;
mod store;
mod table;
mod tree;
mod types;

pub use check::{CheckOptions, CheckReport, Finding, check};
pub use create::{Format, FormatOptions, Formatted};
pub use drive::{Machine, turn};
pub use error::{FormatError, MountError, VolumeError};
pub use format::{LeafEntry, VolumeRecord};
pub use limits::{
    DEVICE_EXTENTS_MAX, EXTENT_BLOCKS, EXTENT_BYTES, FINDINGS_MAX, FRAMES_DEFAULT, FRAMES_MAX,
    FRAMES_MIN, LOG_BYTES_DEFAULT_MAX, LOG_BYTES_DEFAULT_MIN, LOG_BYTES_MIN, NAME_BYTES_MAX,
    PAGE_BYTES, POOL_EXTENTS_MIN, VOLUME_BYTES_MAX, VOLUMES_MAX,
};
pub use mount::{Mount, Mounted};
pub use store::{Store, StoreStats, VolumeSpec};
pub use types::{
    Damage, Edit, Event, Extent, ExtentState, LogRegion, LogTail, Lookup, Options, TAG_CLASS,
    Unmap, VolumeId,
};
