//! Requests and completions: plain values of 32 and 16 bytes.

use crate::{Buf, BufMut, Lba, Status, Tag};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Read `blocks` blocks from `lba` into the buffer.
    Read = 0,
    /// Write `blocks` blocks from the buffer at `lba`.
    Write = 1,
    /// Make every write that completed before this request durable. Range and data are ignored.
    Flush = 2,
    /// The contents of the range are no longer needed; later reads return zeroes or the old data,
    /// the same each time until the next write.
    Deallocate = 3,
    /// Later reads of the range return zeroes. With [`Flags::UNMAP`] the space may be given back.
    WriteZeroes = 4,
    /// Compare the range with the buffer; [`Status::Miscompare`] when they differ.
    Compare = 5,
    /// Compare the range with the first half of the buffer and, when they are equal, write the
    /// second half to it; [`Status::Miscompare`] when they differ, and nothing changes. Nothing
    /// else writes any block of the range between the two. The buffer has twice the bytes of the
    /// range, which is at most [`crate::Info::atomic_blocks`] long.
    CompareAndWrite = 6,
    /// Change or report who may use the device, when several hosts share it. The buffer holds a
    /// command, and what is answered comes back in it (crate `reservation`). Devices do not know
    /// it: who owns a volume does it in front of the device.
    Reserve = 7,
}

impl Op {
    /// Every operation that a device may know, in the order of its number.
    pub const ALL: [Op; 7] = [
        Op::Read,
        Op::Write,
        Op::Flush,
        Op::Deallocate,
        Op::WriteZeroes,
        Op::Compare,
        Op::CompareAndWrite,
    ];

    /// True when the operation carries a buffer.
    pub const fn has_data(self) -> bool {
        matches!(self, Op::Read | Op::Write | Op::Compare | Op::CompareAndWrite | Op::Reserve)
    }
}

/// Modifiers of a request: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No modifier.
    pub const NONE: Flags = Flags(0);
    /// Force unit access: this write is durable before it completes.
    pub const FUA: Flags = Flags(1);
    /// [`Op::WriteZeroes`] may deallocate, as long as reads return zeroes.
    pub const UNMAP: Flags = Flags(2);

    /// True when every bit of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// Who asks, by the number that its transport gave it while it is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client(pub u16);

impl Client {
    /// The node itself: nothing is reserved from it.
    pub const NODE: Client = Client(0);
}

/// The buffer of a request. It moves in with the request and comes back with the completion.
#[derive(Debug, Default)]
pub enum Data {
    /// No buffer (flush, deallocate, write zeroes).
    #[default]
    None,
    /// The device fills this one (read).
    Into(BufMut),
    /// The device only reads this one (write, compare, both).
    From(Buf),
}

/// One operation on one contiguous range of blocks.
#[derive(Debug)]
pub struct Request {
    /// The first block.
    pub lba: Lba,
    /// Comes back in the completion.
    pub tag: Tag,
    /// How many blocks. The first `blocks * block_size` bytes of the buffer are used, twice as many
    /// by [`Op::CompareAndWrite`].
    pub blocks: u32,
    /// The buffer.
    pub data: Data,
    /// What to do.
    pub op: Op,
    /// How to do it.
    pub flags: Flags,
    /// Who asks.
    pub client: Client,
}

impl Request {
    /// A read of `blocks` blocks from `lba` into `into`.
    pub fn read(tag: Tag, lba: Lba, blocks: u32, into: BufMut) -> Request {
        Request::new(tag, Op::Read, lba, blocks, Data::Into(into))
    }

    /// A write of `blocks` blocks at `lba` from `from`.
    pub fn write(tag: Tag, lba: Lba, blocks: u32, from: Buf) -> Request {
        Request::new(tag, Op::Write, lba, blocks, Data::From(from))
    }

    /// A compare of `blocks` blocks at `lba` with the first half of `from`, and a write of its
    /// second half when they are equal.
    pub fn compare_and_write(tag: Tag, lba: Lba, blocks: u32, from: Buf) -> Request {
        Request::new(tag, Op::CompareAndWrite, lba, blocks, Data::From(from))
    }

    /// A flush of everything completed so far.
    pub fn flush(tag: Tag) -> Request {
        Request::new(tag, Op::Flush, Lba(0), 0, Data::None)
    }

    /// A request without a buffer on a range: deallocate or write zeroes.
    pub fn range(tag: Tag, op: Op, lba: Lba, blocks: u32) -> Request {
        Request::new(tag, op, lba, blocks, Data::None)
    }

    /// A reservation command, which `buffer` holds.
    pub fn reserve(tag: Tag, buffer: BufMut) -> Request {
        Request::new(tag, Op::Reserve, Lba(0), 0, Data::Into(buffer))
    }

    fn new(tag: Tag, op: Op, lba: Lba, blocks: u32, data: Data) -> Request {
        Request { lba, tag, blocks, data, op, flags: Flags::NONE, client: Client::NODE }
    }

    /// The same request, asked by `client`.
    #[must_use]
    pub fn with_client(mut self, client: Client) -> Request {
        self.client = client;
        self
    }

    /// The same request with `flags` added.
    #[must_use]
    pub fn with_flags(mut self, flags: Flags) -> Request {
        self.flags = self.flags.union(flags);
        self
    }

    /// Ends this request with `status`, giving its buffer back.
    pub fn complete(self, status: Status) -> Completion {
        Completion { tag: self.tag, data: self.data, status }
    }
}

/// The end of a request.
#[derive(Debug)]
pub struct Completion {
    /// The tag of the request.
    pub tag: Tag,
    /// The buffer of the request. After [`Op::Read`] with [`Status::Ok`] it holds the data.
    pub data: Data,
    /// How it ended.
    pub status: Status,
}

// A request is half a cache line and a completion a quarter: rings of them stay in L1.
const _: () = assert!(size_of::<Data>() == 8);
const _: () = assert!(size_of::<Request>() == 32);
const _: () = assert!(size_of::<Completion>() == 16);
