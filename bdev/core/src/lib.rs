//! The vocabulary of block I/O, and the contract that every device obeys.
//!
//! Everything that stores or moves blocks in Holdfast meets at two traits: a [`Bdev`] is what all
//! shards share (what the device *is*), and a [`Queue`] is one shard's private pair of submission
//! and completion queues (what the device *does*). A RAM disk, a file behind `io_uring`, a
//! simulated faulty disk, a hop to another core and a thin replicated volume are all the same
//! thing to whoever sits above them.
//!
//! ```text
//!            submit            kick              poll
//!  Request ---------> staged --------> in flight -------> Completion
//!     |                                                       |
//!     `-- Data::{Into(BufMut), From(Buf)} moves in ... and comes back, on errors too
//! ```
//!
//! **What it deliberately is not.** There are no threads here, no clock, no futures and no
//! callbacks: a queue is passive and is *polled*. There is no error type on the hot path either: a
//! [`Completion`] carries a one-byte [`Status`].
//!
//! # The contract
//!
//! Each line is a case of the [`conformance`] suite, which every backend and every layer passes.
//!
//! 1. Exactly one completion for each request that was taken from the FIFO.
//! 2. Nothing completes inside `submit` or `kick`; completions come out of `poll` only.
//! 3. No order is promised between requests in flight.
//! 4. `Flush` covers every write that *completed* before the flush was submitted.
//! 5. Buffers come back with the completion, on errors too, and the device keeps no clone.
//! 6. A request that is malformed completes with an error [`Status`]; it never panics.
//! 7. What `submit` does not take stays in the FIFO: that is the back-pressure.
//!
//! # Example
//!
//! ```
//! use bdev::{Bdev, Data, Fifo, Lba, Pool, PoolConfig, QueueCx, RamDisk, Request, Status, Tag};
//!
//! let pool = Pool::new(&PoolConfig::tiny()).expect("a small pool");
//! let disk = RamDisk::new(4096, 256).expect("one MiB");
//! let mut queue = disk.open(&QueueCx::new(&pool)).expect("a RAM disk always opens");
//!
//! let mut block = pool.take(4096).expect("a fresh pool has room");
//! block.bytes_mut()[..4].copy_from_slice(b"hold");
//! let mut requests = Fifo::new(4);
//! let write = Request::write(Tag(7), Lba(3), 1, block.freeze());
//! requests.push(write).expect("the FIFO is empty");
//! queue.submit(&mut requests);
//! queue.kick();
//!
//! let mut completions = Fifo::new(4);
//! while completions.is_empty() {
//!     queue.poll(&mut completions);
//! }
//! let done = completions.pop().expect("just seen");
//! assert_eq!((done.tag, done.status), (Tag(7), Status::Ok));
//! assert!(matches!(done.data, Data::From(_)));
//! ```

pub mod buckets;
mod buffers;
mod checksum;
pub mod conformance;
mod device;
mod fifo;
mod limits;
mod null;
mod planted;
mod pool;
mod ram;
mod request;
pub mod ring;
mod rng;
mod slots;
mod status;
mod units;

pub use buffers::Buffers;
pub use checksum::{CHECKSUM_BYTES, CHECKSUM_OF_ZEROES, join_checksums};
pub use device::{Bdev, Info, OpSet, OpenError, Queue, QueueCx};
pub use fifo::Fifo;
pub use limits::{
    POOLS_MAX, QUEUE_DEPTH_DEFAULT, QUEUE_DEPTH_MAX, REQUEST_BYTES_MAX, SEGMENT_ALIGN,
};
pub use null::NullDisk;
#[cfg(feature = "planted")]
pub use planted::plant;
pub use planted::{Planted, planted};
pub use pool::{Backing, Buf, BufMut, Parcel, Pool, PoolConfig, PoolError, PoolStats};
pub use ram::RamDisk;
pub use request::{Client, Completion, Data, Flags, Op, Request};
pub use rng::Rng;
pub use slots::Slots;
pub use status::Status;
pub use units::{BlockCount, ByteLen, Instant, Lba, Tag};
