//! The engine's side of its device: outboxes, the table of its own requests, byte counters.

use std::time::Duration;

use bdev::{Buf, BufMut, Completion, Fifo, Flags, Info, Lba, Queue, Request, Slots, Tag};

use crate::health::Watch;
use crate::limits::{IOS_MAX, RUN_BLOCKS_MAX};
use crate::read::Source;

/// The class of the engine's own tags, beside those of the log and the store.
pub(crate) const TAG_CLASS: u32 = 3;

const _: () = assert!(TAG_CLASS != wal::TAG_CLASS && TAG_CLASS != store::TAG_CLASS);

/// Bytes of a block of the engine: what has a checksum.
pub(crate) const BLOCK: usize = wal::BLOCK_BYTES;

/// What a request of the engine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Data for a host's read or compare; with `whole`, straight into its buffer.
    Read {
        /// The first block of the run within the operation.
        first: u32,
        whole: bool,
    },
    /// The old content of a block that a host writes in part: the first or the last of its range.
    Edge { last: bool },
    /// A host's data on its way to fresh extents.
    Direct { extent: u64, extents: u32, first: u32, logged: u32 },
    /// The flush that makes the data of direct writes durable.
    Flush,
    /// The log blocks of a destage window.
    WindowRead,
    /// The old content of an extent that is copied, and what it was tried already.
    CopyRead { slot: usize, attempts: u32 },
    /// Written blocks of an extent, to be compared with their checksums.
    Scrub,
    /// Blocks on their way from the log to their extent, with old ones if they are a copy's.
    Destage { attempts: u32, copy: Option<usize> },
}

/// A request of the engine in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Io {
    pub(crate) purpose: Purpose,
    /// The operation it belongs to; unused by the destager.
    pub(crate) op: u32,
    pub(crate) byte: u64,
    pub(crate) blocks: u32,
    /// What a read expects.
    pub(crate) crcs: [u32; RUN_BLOCKS_MAX],
}

/// Bytes written to the device, by what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) log: u64,
    pub(crate) metadata: u64,
    pub(crate) data: u64,
    pub(crate) read: u64,
}

/// The queue to the device and what is about to go there.
pub(crate) struct Device {
    queue: Box<dyn Queue>,
    pub(crate) block_bytes: u32,
    /// A completed write may be lost until a flush.
    pub(crate) volatile_cache: bool,
    /// Requests of the log and of the store.
    pub(crate) machines: Fifo<Request>,
    /// The engine's own requests: at most one for each slot of `ios`.
    own: Fifo<Request>,
    pub(crate) ios: Slots<Io>,
    pub(crate) done: Fifo<Completion>,
    pub(crate) written: Written,
    /// When each of the engine's own requests was handed over, as long as the device has it.
    began: Box<[Option<Duration>]>,
    pub(crate) watch: Watch,
}

impl Device {
    pub(crate) fn new(queue: Box<dyn Queue>, info: &Info, deadline_ns: u64) -> Device {
        Device {
            queue,
            block_bytes: info.block_size,
            volatile_cache: info.volatile_cache,
            machines: Fifo::new(64),
            own: Fifo::new(IOS_MAX),
            ios: Slots::new(IOS_MAX),
            done: Fifo::new(256),
            written: Written::default(),
            began: vec![None; IOS_MAX].into(),
            watch: Watch::new(deadline_ns),
        }
    }

    /// When the oldest of the engine's own requests was handed over.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.began.iter().flatten().min().copied()
    }

    /// A request has come back.
    pub(crate) fn end(&mut self, completion: &Completion) {
        let tag = completion.tag;
        let own = tag.0 >> 28 == TAG_CLASS;
        let began = own.then(|| self.began[(tag.0 & KEY_MASK) as usize].take()).flatten();
        self.watch.end(tag, began, completion.status);
    }

    /// Free slots for the engine's own requests.
    pub(crate) fn room(&self) -> usize {
        self.ios.capacity() - self.ios.len()
    }

    /// Hands over what is waiting, and collects what is finished. True when something moved.
    pub(crate) fn turn(&mut self) -> bool {
        let before = self.machines.len() + self.own.len();
        self.queue.submit(&mut self.machines);
        self.queue.submit(&mut self.own);
        self.queue.kick();
        self.queue.poll(&mut self.done);
        before > self.machines.len() + self.own.len() || !self.done.is_empty()
    }

    /// True when nothing waits for the device to take it.
    pub(crate) fn is_relaxed(&self) -> bool {
        self.machines.is_empty() && self.own.is_empty()
    }

    /// Requests that the device has.
    pub(crate) fn in_flight(&self) -> u32 {
        self.queue.in_flight()
    }

    /// The device's wake-up descriptor.
    pub(crate) fn wait_fd(&self) -> Option<std::os::fd::RawFd> {
        self.queue.wait_fd()
    }

    /// Starts a read. The caller checked that there is room.
    pub(crate) fn read(&mut self, io: Io, into: BufMut) -> u32 {
        let (lba, blocks) = self.range(&io);
        self.written.read += u64::from(io.blocks) * BLOCK as u64;
        let key = self.ios.insert(io).expect("the caller checked for room");
        self.push(Request::read(tag(key), lba, blocks, into));
        key
    }

    /// Starts a write. The caller checked that there is room.
    pub(crate) fn write(&mut self, io: Io, from: Buf, flags: Flags) -> u32 {
        let key = self.ios.insert(io).expect("the caller checked for room");
        self.write_again(key, from, flags);
        key
    }

    /// Starts a flush. The caller checked that there is room.
    pub(crate) fn flush(&mut self) {
        let io = Io::new(Purpose::Flush, 0, 0, 0);
        let key = self.ios.insert(io).expect("the caller checked for room");
        self.push(Request::flush(tag(key)));
    }

    /// Sends the write of a slot to the device, for the first time or once more.
    pub(crate) fn write_again(&mut self, key: u32, from: Buf, flags: Flags) {
        let io = self.ios.get(key).expect("the caller holds the slot");
        let (lba, blocks) = self.range(io);
        self.written.data += u64::from(io.blocks) * BLOCK as u64;
        self.push(Request::write(tag(key), lba, blocks, from).with_flags(flags));
    }

    /// Counts the bytes of the machines' requests that were pushed since there were `before`.
    pub(crate) fn count_machines(&mut self, before: usize) {
        for request in self.machines.iter().skip(before) {
            self.watch.begin_machine(request.tag);
            let bytes = u64::from(request.blocks) * u64::from(self.block_bytes);
            match (request.op, request.tag.0 >> 28) {
                (bdev::Op::Write, wal::TAG_CLASS) => self.written.log += bytes,
                (bdev::Op::Write, _) => self.written.metadata += bytes,
                (bdev::Op::Read, _) => self.written.read += bytes,
                _ => {}
            }
        }
    }

    fn push(&mut self, request: Request) {
        self.began[(request.tag.0 & KEY_MASK) as usize] = Some(self.watch.clock());
        let pushed = self.own.push(request);
        assert!(pushed.is_ok(), "one request for each slot");
    }

    fn range(&self, io: &Io) -> (Lba, u32) {
        let per_block = u32::try_from(BLOCK).expect("4096") / self.block_bytes;
        (Lba(io.byte / u64::from(self.block_bytes)), io.blocks * per_block)
    }
}

impl Io {
    /// A request without checksums.
    pub(crate) fn new(purpose: Purpose, op: u32, byte: u64, blocks: u32) -> Io {
        Io { purpose, op, byte, blocks, crcs: [0; RUN_BLOCKS_MAX] }
    }

    /// A read of what `sources` say.
    pub(crate) fn of(purpose: Purpose, op: u32, sources: &[Source]) -> Io {
        let blocks = u32::try_from(sources.len()).expect("a run is short");
        let mut io = Io::new(purpose, op, sources[0].byte, blocks);
        for (crc, source) in io.crcs.iter_mut().zip(sources) {
            *crc = source.crc;
        }
        io
    }
}

/// The part of a tag that says which slot.
const KEY_MASK: u32 = 0x0fff_ffff;

fn tag(key: u32) -> Tag {
    Tag(TAG_CLASS << 28 | key)
}
