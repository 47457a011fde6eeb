//! The two traits of the contract: what a device is, and one shard's queue to it.

use std::fmt;
use std::os::fd::RawFd;

use crate::limits::{QUEUE_DEPTH_DEFAULT, QUEUE_DEPTH_MAX, REQUEST_BYTES_MAX};
use crate::{BlockCount, Completion, Data, Fifo, Lba, Op, Pool, Request, Status};

/// A block device. Shared by all shards; holds no I/O state.
pub trait Bdev: Send + Sync {
    /// What the device is.
    fn info(&self) -> &Info;

    /// One shard's queue to the device; it never leaves the thread that opened it.
    ///
    /// # Errors
    /// When the backend cannot be had: see [`OpenError`].
    fn open(&self, cx: &QueueCx<'_>) -> Result<Box<dyn Queue>, OpenError>;
}

/// One shard's submission and completion queue. Not `Send`.
///
/// The crate documentation lists the contract. Dropping a queue with I/O in flight leaks those
/// segments rather than reuse memory that a device may still write.
pub trait Queue {
    /// Takes requests from the front while there is room. What stays in `requests` is the
    /// back-pressure.
    fn submit(&mut self, requests: &mut Fifo<Request>);

    /// Makes everything submitted visible to the device: one doorbell, or one `io_uring_enter`.
    fn kick(&mut self);

    /// Appends finished requests while there is room. Never blocks.
    fn poll(&mut self, completions: &mut Fifo<Completion>);

    /// Requests taken and not yet handed back by `poll`.
    fn in_flight(&self) -> u32;

    /// A descriptor that turns readable when `poll` may find something, for a reactor that wants to
    /// sleep. `None` when there is none: the sleeper must then wake by time.
    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}

/// What a device is: geometry, guarantees and operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Bytes in a block: 512 or 4096.
    pub block_size: u32,
    /// Blocks on the device.
    pub blocks: BlockCount,
    /// Blocks that are written all or not at all across a power failure; at least one.
    pub atomic_blocks: u32,
    /// Most blocks in one request that carries data.
    pub blocks_max: u32,
    /// True when a completed write may be lost at a power failure until a flush.
    pub volatile_cache: bool,
    /// The operations that do not complete with [`Status::Unsupported`].
    pub ops: OpSet,
}

impl Info {
    /// A device with the plain operations: read, write and flush, single-block atomicity, no cache.
    ///
    /// # Panics
    /// When `block_size` is neither 512 nor 4096.
    pub fn new(block_size: u32, blocks: u64) -> Info {
        assert!(block_size == 512 || block_size == 4096, "block size must be 512 or 4096");
        Info {
            block_size,
            blocks: BlockCount(blocks),
            atomic_blocks: 1,
            blocks_max: REQUEST_BYTES_MAX / block_size,
            volatile_cache: false,
            ops: OpSet::of(&[Op::Read, Op::Write, Op::Flush]),
        }
    }

    /// The size of the device in bytes; saturates at the end of 64 bits.
    pub fn byte_len(&self) -> u64 {
        self.blocks.byte_len(self.block_size).map_or(u64::MAX, |len| len.0)
    }

    /// What is wrong with `request` before any I/O: every backend answers malformed requests alike.
    ///
    /// # Errors
    /// The status to complete the request with.
    pub fn check(&self, request: &Request) -> Result<(), Status> {
        if !self.ops.contains(request.op) {
            return Err(Status::Unsupported);
        }
        if request.op == Op::Flush {
            return Ok(());
        }
        let most = match request.op {
            Op::CompareAndWrite => self.atomic_blocks.min(self.blocks_max / 2),
            _ => self.blocks_max,
        };
        if request.blocks == 0 || !data_fits(request, self.block_size, most) {
            return Err(Status::Invalid);
        }
        self.check_range(request.lba, request.blocks)
    }

    fn check_range(&self, lba: Lba, blocks: u32) -> Result<(), Status> {
        match lba.checked_add(BlockCount(u64::from(blocks))) {
            Some(end) if end.0 <= self.blocks.0 => Ok(()),
            _ => Err(Status::OutOfRange),
        }
    }
}

fn data_fits(request: &Request, block_size: u32, blocks_max: u32) -> bool {
    let halves = if request.op == Op::CompareAndWrite { 2 } else { 1 };
    let needed = request.blocks as usize * block_size as usize * halves;
    let capacity = match (request.op, &request.data) {
        (Op::Read, Data::Into(buf)) => buf.capacity(),
        (Op::Write | Op::Compare | Op::CompareAndWrite, Data::From(buf)) => buf.capacity(),
        (Op::Deallocate | Op::WriteZeroes, Data::None) => return true,
        _ => return false,
    };
    request.blocks <= blocks_max && needed <= capacity
}

/// A set of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpSet(u8);

impl OpSet {
    /// The set of these operations.
    pub const fn of(ops: &[Op]) -> OpSet {
        let (mut bits, mut i) = (0, 0);
        while i < ops.len() {
            bits |= 1 << ops[i] as u8;
            i += 1;
        }
        OpSet(bits)
    }

    /// True when `op` is in the set.
    pub const fn contains(self, op: Op) -> bool {
        self.0 & (1 << op as u8) != 0
    }
}

impl FromIterator<Op> for OpSet {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> OpSet {
        OpSet(ops.into_iter().fold(0, |bits, op| bits | 1 << op as u8))
    }
}

/// What a device needs to know to open a queue for a shard.
#[derive(Debug)]
pub struct QueueCx<'a> {
    /// The pool whose segments most requests will carry, to register it with the device. Segments
    /// of other pools (a store's reserve) are served too, if slower.
    pub pool: &'a Pool,
    /// Requests in flight that the queue must take.
    pub depth: u32,
    /// Which shard opens it, for names and placement.
    pub shard: u16,
}

impl<'a> QueueCx<'a> {
    /// A queue of the default depth for shard 0, with buffers from `pool`.
    pub fn new(pool: &'a Pool) -> QueueCx<'a> {
        QueueCx { pool, depth: QUEUE_DEPTH_DEFAULT, shard: 0 }
    }

    /// The same with another depth, clamped to `1..=QUEUE_DEPTH_MAX`.
    #[must_use]
    pub fn depth(mut self, depth: u32) -> QueueCx<'a> {
        self.depth = depth.clamp(1, QUEUE_DEPTH_MAX);
        self
    }

    /// The same for another shard.
    #[must_use]
    pub fn shard(mut self, shard: u16) -> QueueCx<'a> {
        self.shard = shard;
        self
    }
}

/// Why a queue could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system refused: what was tried, and its error.
    System {
        /// What was tried, such as `io_uring_setup` or the path that was opened.
        what: String,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The device is in use or gone.
    Unavailable(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::System { what, source } => write!(f, "{what}: {source}"),
            OpenError::Unavailable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::System { source, .. } => Some(source),
            OpenError::Unavailable(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PoolConfig, Tag};

    #[test]
    fn malformed_requests_are_told_apart() {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let info = Info::new(4096, 8);
        let read = |lba, blocks, len| {
            info.check(&Request::read(Tag(0), Lba(lba), blocks, pool.take(len).unwrap()))
        };
        assert_eq!(read(0, 1, 4096), Ok(()));
        assert_eq!(read(7, 1, 4096), Ok(()));
        assert_eq!(read(7, 2, 8192), Err(Status::OutOfRange));
        assert_eq!(read(u64::MAX, 2, 8192), Err(Status::OutOfRange));
        assert_eq!(read(0, 0, 4096), Err(Status::Invalid));
        assert_eq!(read(0, 5, 16384), Err(Status::Invalid));
        let mut both = Info { atomic_blocks: 2, ..info.clone() };
        both.ops = OpSet::of(&Op::ALL);
        let swap = |blocks, len| {
            let buf = pool.take(len).unwrap().freeze();
            both.check(&Request::compare_and_write(Tag(0), Lba(0), blocks, buf))
        };
        assert_eq!(swap(2, 16384), Ok(()));
        assert_eq!(swap(1, 4096), Err(Status::Invalid), "half a buffer");
        assert_eq!(swap(3, 65536), Err(Status::Invalid), "more than is atomic");
        let trim = Request::range(Tag(0), Op::Deallocate, Lba(0), 1);
        assert_eq!(info.check(&trim), Err(Status::Unsupported));
        let empty = Request::range(Tag(0), Op::Read, Lba(0), 1);
        assert_eq!(info.check(&empty), Err(Status::Invalid));
        assert_eq!(info.check(&Request::flush(Tag(0))), Ok(()));
    }
}
