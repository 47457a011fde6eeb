//! The record format and the log ring: append, group commit, recovery. Sans-IO.
//!
//! Everything a host is told is durable was first written here: the log is a ring of 4 KiB blocks
//! on the device, written sequentially, one *group* at a time. A group is one to four header blocks
//! (records, and the CRC32C of each payload block) followed by the payload, written by **one**
//! contiguous device write with forced unit access. Everything appended while groups are in flight
//! joins the next one: that is group commit.
//!
//! ```text
//!          append            poll_requests        on_completion         poll_event
//!  record --------> open group --------> sealed, written --------> durable (in order) -> Durable
//!                       ^                      |  device error
//!     Full / Busy: back-pressure               `--> rewritten, ATTEMPTS_MAX times --> Failed
//!
//!  ring:  ... free | tail ######## durable ######## head (sealed) | open | free ...
//!                   `-- trim(point) moves it, after a checkpoint made the records redundant
//! ```
//!
//! **Recovery** ([`Scan`]) walks the groups from the tail that the superblock names. A group counts
//! when its magic, store, position, CRC, LSN, epoch and *chain value* (the CRC of the group before
//! it) are right and every payload block matches its CRC. Where one does not, what later headers
//! say *was durable* tells damage from a torn tail. Of a group with a right header that was durable
//! all records are replayed, and the damaged blocks named; a missing header whose records were
//! durable is an error with their LSN range; otherwise the log is cut there, and the block at the
//! cut is zeroed so that what lies there never comes to life. The chain value makes the remains of
//! earlier laps and earlier incarnations unreplayable.
//!
//! **What it deliberately is not.** It does not know what a record means for a volume, keeps no
//! index of what it holds, and decides nothing about when to trim. It has no clock.
//!
//! One damage looks like a torn tail: rot in the last durable groups, when no later header says so
//! (`docs/adr/0074-*`). The engine keeps that window short by checkpointing when it is idle.
//!
//! The bytes are specified in `docs/formats/log.md`.
//!
//! # Example
//!
//! ```
//! use bdev::{Bdev, Fifo, Pool, PoolConfig, QueueCx, RamDisk};
//! use wal::{Config, Event, Point, Record, Wal, crc32c};
//!
//! let pool = Pool::new(&PoolConfig::for_bytes(8 << 20)).expect("8 MiB");
//! let disk = RamDisk::new(4096, 1024).expect("4 MiB");
//! let mut queue = disk.open(&QueueCx::new(&pool)).expect("a RAM disk always opens");
//! let config = Config { group_bytes: 128 << 10, ..Config::new([7; 16], 1, 0, 1024) };
//! let mut log = Wal::new(config, Point::START, Point::START, &pool).expect("the pool has room");
//!
//! let block = [0xab; 4096];
//! let crcs = [crc32c(&block)];
//! let record = Record::Write { volume: 1, block: 9, crcs: &crcs };
//! let lsn = log.append(&record, &[&block]).expect("an empty log has room");
//! let (mut requests, mut completions) = (Fifo::new(8), Fifo::new(8));
//! let event = loop {
//!     log.poll_requests(&mut requests);
//!     queue.submit(&mut requests);
//!     queue.kick();
//!     queue.poll(&mut completions);
//!     while let Some(completion) = completions.pop() {
//!         log.on_completion(completion);
//!     }
//!     if let Some(event) = log.poll_event() {
//!         break event;
//!     }
//! };
//! let Event::Durable(group) = event else { panic!("a RAM disk does not fail") };
//! assert_eq!((group.first, group.records), (lsn, 1));
//! ```

#![forbid(unsafe_code)]

mod group;
mod layout;
mod limits;
mod point;
mod record;
mod ring;
mod scan;
mod seal;

pub use layout::{BLOCK_BYTES, crc32c};
pub use limits::{
    ATTEMPTS_MAX, GROUP_BYTES_MIN, GROUPS_MAX, HEADER_BLOCKS_MAX, RECORD_BLOCKS_MAX,
    RECORD_BODY_MAX, REQUESTS_MAX, RING_GROUPS_MIN, TAG_CLASS,
};
pub use point::{Lsn, Point};
pub use record::Record;
pub use ring::{AppendError, Config, Event, Group, OpenError, Stats, Wal};
pub use scan::{Replay, Scan, ScanError, ScanStep};
