//! A host's request inside the engine.

use bdev::{Buf, BufMut, Data, Instant, Op, Request, Status};
use wal::Lsn;

use crate::device::BLOCK;
use crate::limits::{ATOMIC_BLOCKS_MAX, ATOMIC_BYTES};

/// What a range without a buffer writes between its edges.
static ZEROES: [u8; ATOMIC_BLOCKS_MAX * BLOCK] = [0; ATOMIC_BLOCKS_MAX * BLOCK];

/// An operation that a host waits for.
#[derive(Debug)]
pub(crate) struct HostOp {
    pub(crate) request: Request,
    pub(crate) queue: u32,
    pub(crate) volume: u32,
    /// The 4 KiB blocks it touches.
    pub(crate) first: u64,
    pub(crate) blocks: u64,
    /// Bytes of the first block before the range.
    pub(crate) skip: usize,
    /// Bytes of the range; meaningful for operations with data.
    pub(crate) bytes: usize,
    /// Blocks handed on so far, of a write.
    pub(crate) cursor: u64,
    /// Requests and log records that it waits for.
    pub(crate) pending: u32,
    /// The first thing that went wrong.
    pub(crate) status: Status,
    /// It has waited before: the counters know it.
    pub(crate) waited: bool,
    /// It stands in a waiting line.
    pub(crate) parked: bool,
    /// A read must start over.
    pub(crate) again: bool,
    /// When a read found its first blocks: the number of the next record to become durable, and
    /// how many checkpoints there had been.
    pub(crate) seen: (u64, u64),
    pub(crate) attempts: u8,
    /// Times that a block failed its checksum although it had not moved.
    pub(crate) suspicions: u8,
    pub(crate) stage: Stage,
    /// Its slot in the table of locks.
    pub(crate) lock: Option<u32>,
    /// The first and the last block, when the range covers them in part.
    pub(crate) edges: [Edge; 2],
    /// When it was taken.
    pub(crate) arrived: Instant,
    /// The soft watermark has delayed it: the counters know it.
    pub(crate) delayed: bool,
    /// The first part of it was taken.
    pub(crate) admitted: bool,
    /// The hard watermark has held it: the counters know it.
    pub(crate) held: bool,
    /// It waits for space.
    pub(crate) space_wait: Option<SpaceWait>,
    /// Since when a direct write waits for extents that are about to be free.
    pub(crate) waits_for_returns: Option<Instant>,
}

/// Where things stood when an operation began to wait for space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpaceWait {
    /// Checkpoints done by then.
    pub(crate) checkpoints: u64,
    /// Records with this LSN and later ones were not in the log, nor on their way.
    pub(crate) head: Lsn,
}

/// How far an operation that changes blocks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It changes nothing yet, and waits until it may. Reads stay here.
    Waiting,
    /// A compare-and-write that reads.
    Comparing,
    Writing,
}

/// A block that a write covers in part.
#[derive(Debug, Default)]
pub(crate) enum Edge {
    /// The range covers the block whole.
    #[default]
    None,
    /// Its old content is needed and not yet asked for.
    Wanted,
    /// It is being read.
    Reading,
    /// Old content and new data together.
    Ready(Buf),
}

impl HostOp {
    /// Lays `request`, already checked, out on 4 KiB blocks.
    pub(crate) fn new(request: Request, queue: u32, volume: u32, lba_bytes: u32) -> HostOp {
        let (op, lba, count) = (request.op, request.lba.0, u64::from(request.blocks));
        let block = BLOCK as u64;
        let lba_bytes = u64::from(lba_bytes);
        let (mut start, mut end) = (lba * lba_bytes, (lba + count) * lba_bytes);
        if op == Op::Deallocate {
            // What does not fill a block may keep its data.
            start = start.next_multiple_of(block);
            end = (end / block * block).max(start);
        }
        let first = start / block;
        let blocks = end.div_ceil(block).saturating_sub(first);
        let skip = usize::try_from(start % block).expect("below a block");
        let mut edges = [Edge::None, Edge::None];
        if matches!(op, Op::Write | Op::WriteZeroes | Op::CompareAndWrite) {
            let tail = !end.is_multiple_of(block);
            if skip != 0 || (tail && blocks == 1) {
                edges[0] = Edge::Wanted;
            }
            if tail && blocks > 1 {
                edges[1] = Edge::Wanted;
            }
        }
        HostOp {
            request,
            queue,
            volume,
            first,
            blocks,
            skip,
            bytes: usize::try_from(end - start).unwrap_or(usize::MAX),
            cursor: 0,
            pending: 0,
            status: Status::Ok,
            waited: false,
            parked: false,
            again: false,
            seen: (0, 0),
            attempts: 0,
            suspicions: 0,
            stage: Stage::Waiting,
            lock: None,
            edges,
            arrived: Instant::ZERO,
            delayed: false,
            admitted: false,
            held: false,
            space_wait: None,
            waits_for_returns: None,
        }
    }

    /// The block behind its last.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.blocks
    }

    /// True when nothing keeps the operation from ending.
    pub(crate) fn is_over(&self) -> bool {
        self.pending == 0
            && !self.parked
            && !self.again
            && (self.cursor == self.blocks || !self.status.is_ok())
    }

    /// Keeps the first error.
    pub(crate) fn fail(&mut self, status: Status) {
        if self.status.is_ok() {
            self.status = status;
        }
    }

    /// The host's bytes of blocks `from..to` of this operation, none of them an edge; zeroes when
    /// it has no buffer.
    pub(crate) fn payload(&self, from: u64, to: u64) -> &[u8] {
        let index = |block: u64| usize::try_from(block).expect("a short range") * BLOCK;
        match &self.request.data {
            Data::From(buf) => {
                let bytes = &buf.bytes()[self.new_at()..];
                &bytes[index(from) - self.skip..index(to) - self.skip]
            }
            _ => &ZEROES[..index(to - from)],
        }
    }

    /// The content of blocks `from..to` as it goes into the log: an edge, what the host's bytes
    /// cover whole, an edge.
    pub(crate) fn parts(&self, from: u64, to: u64) -> [&[u8]; 3] {
        let first = match &self.edges[0] {
            Edge::Ready(buf) if from == 0 => &buf.bytes()[..BLOCK],
            _ => &[],
        };
        let last = match &self.edges[1] {
            Edge::Ready(buf) if to == self.blocks => &buf.bytes()[..BLOCK],
            _ => &[],
        };
        let (from, to) = (from + u64::from(!first.is_empty()), to - u64::from(!last.is_empty()));
        let middle = if from < to { self.payload(from, to) } else { &[] };
        [first, middle, last]
    }

    /// The checksums of the blocks in `parts`, the first of which is block `from`: those that came
    /// with the buffer, the others computed. Returns for how many bytes they were.
    pub(crate) fn checksums(&self, from: u64, parts: &[&[u8]], crcs: &mut [u32]) -> u64 {
        let mut summed = 0;
        let blocks = parts.iter().flat_map(|part| part.chunks_exact(BLOCK));
        for ((index, crc), block) in (from..).zip(crcs).zip(blocks) {
            *crc = self.known_checksum(index).unwrap_or_else(|| {
                summed += BLOCK as u64;
                wal::crc32c(block)
            });
        }
        summed
    }

    /// The checksum of a block that came with the buffer. Only blocks that lie in the buffer as
    /// they lie on the volume have one.
    fn known_checksum(&self, index: u64) -> Option<u32> {
        let edge = index + 1 == self.blocks && !matches!(self.edges[1], Edge::None);
        let Data::From(buf) = &self.request.data else { return None };
        if self.request.op != Op::Write
            || self.skip != 0
            || edge
            || !matches!(self.edges[0], Edge::None)
        {
            return None;
        }
        buf.checksum(usize::try_from(index).expect("a short range"))
    }

    /// Notes the checksum of a block with the buffer that it is read into, when it lies in it as
    /// it lies on the volume.
    pub(crate) fn note_read(&mut self, index: u64, crc: u32) {
        if let (0, Data::Into(buf)) = (self.skip, &mut self.request.data) {
            buf.note_checksum(usize::try_from(index).expect("a short range"), crc);
        }
    }

    /// All of a read is in its buffer, and the checksum of each block was noted.
    pub(crate) fn end_read(&mut self) {
        let whole = self.skip == 0 && self.bytes.is_multiple_of(BLOCK);
        if let (true, Data::Into(buf)) = (whole, &mut self.request.data) {
            buf.mark_summed(self.bytes / BLOCK);
        }
    }

    /// Where in the buffer the new data starts: behind what it is compared with, if it is.
    fn new_at(&self) -> usize {
        if self.request.op == Op::CompareAndWrite { self.bytes } else { 0 }
    }

    /// True when the operation is so short that it must be atomic.
    pub(crate) fn is_atomic(&self) -> bool {
        self.bytes <= ATOMIC_BYTES as usize
    }

    /// Hands block `index` of a read to the host: copies it, or compares it. `None` is zeroes.
    /// Returns false when a compare found a difference.
    pub(crate) fn deliver(&mut self, index: u64, block: Option<&[u8]>) -> bool {
        let start = usize::try_from(index).expect("a short range") * BLOCK;
        let from = start.max(self.skip);
        let to = (start + BLOCK).min(self.skip + self.bytes);
        let (host, part) = (from - self.skip..to - self.skip, from - start..to - start);
        match (&mut self.request.data, block) {
            (Data::Into(buf), Some(block)) => {
                buf.bytes_mut()[host].copy_from_slice(&block[part]);
                true
            }
            (Data::Into(buf), None) => {
                buf.bytes_mut()[host].fill(0);
                true
            }
            (Data::From(buf), Some(block)) => buf.bytes()[host] == block[part],
            (Data::From(buf), None) => buf.bytes()[host].iter().all(|&byte| byte == 0),
            (Data::None, _) => panic!("a read has a buffer"),
        }
    }

    /// Lays the new data over the old content of an edge block.
    pub(crate) fn merge(&self, last: bool, old: &mut BufMut) {
        if bdev::planted(bdev::Planted::EdgeNotMerged) {
            old.bytes_mut()[..BLOCK].fill(0);
        }
        let start = if last { (self.blocks - 1) * BLOCK as u64 } else { 0 };
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let from = start.max(self.skip);
        let to = start.saturating_add(BLOCK).min(self.skip.saturating_add(self.bytes));
        let target = &mut old.bytes_mut()[from - start..to - start];
        match &self.request.data {
            Data::From(buf) => {
                let bytes = &buf.bytes()[self.new_at()..];
                target.copy_from_slice(&bytes[from - self.skip..to - self.skip]);
            }
            _ => target.fill(0),
        }
    }

    /// True when the range is whole extents.
    pub(crate) fn is_extent(&self) -> bool {
        let extent = store::EXTENT_BLOCKS as u64;
        self.skip == 0
            && self.first.is_multiple_of(extent)
            && self.blocks.is_multiple_of(extent)
            && matches!(self.edges[1], Edge::None)
    }

    /// Blocks before the last edge: what is written or zeroed as a whole.
    pub(crate) fn whole_end(&self) -> u64 {
        match self.edges[1] {
            Edge::None => self.blocks,
            _ => self.blocks - 1,
        }
    }
}
