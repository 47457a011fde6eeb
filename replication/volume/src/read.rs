//! The read path: overlay, layer by layer, then map; every block is checked against its checksum.
//!
//! Reads take no lock and pin nothing. A block may move while it is being read (destaged, trimmed,
//! its extent reused); then it does not match the checksum that the read began with, and the read
//! starts over. Damage is a block that fails its checksum twice without having moved.

use bdev::{BufMut, Op, Status};
use store::{Lookup, VolumeId};

use crate::core::Core;
use crate::device::{BLOCK, Io, Purpose};
use crate::error::{Damaged, Event};
use crate::limits::{READ_ATTEMPTS_MAX, RUN_BLOCKS_MAX};
use crate::op::Edge;
use crate::overlay::Place;

/// Where a block is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Device byte, or [`Source::ZERO`].
    pub(crate) byte: u64,
    pub(crate) crc: u32,
    pub(crate) in_log: bool,
}

impl Source {
    const NOWHERE: u64 = u64::MAX;
    const ZERO: Source = Source { byte: Source::NOWHERE, crc: 0, in_log: false };

    fn is_zero(self) -> bool {
        self.byte == Source::NOWHERE
    }
}

/// Why a block's place is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// A page is being loaded.
    Pending,
    /// A page of the map is damaged.
    Damaged(u64),
}

const BLOCK_BYTES: u64 = BLOCK as u64;
const EXTENT_BLOCKS: u64 = store::EXTENT_BLOCKS as u64;

impl Core {
    /// Starts, or starts over, a read or compare; parks it when something is missing.
    pub(crate) fn try_read(&mut self, key: u32) {
        let op = self.ops.get_mut(key).expect("the caller holds the operation");
        if op.again {
            if op.pending > 0 {
                return; // The last of its requests starts it over.
            }
            (op.cursor, op.again, op.status) = (0, false, Status::Ok);
        }
        if !op.status.is_ok() && op.status != Status::Miscompare {
            return self.settle(key);
        }
        if !self.is_one_moment(key) {
            return self.start_over(key);
        }
        let op = self.ops.get(key).expect("the caller holds the operation");
        let (volume, first, blocks) = (op.volume, op.first + op.cursor, op.blocks - op.cursor);
        match self.locate(volume, first, blocks) {
            Ok(()) => self.read_sources(key),
            Err(Unknown::Pending) => self.park_read(key),
            Err(Unknown::Damaged(page)) => {
                self.report_damage(volume, first, Damaged::Map, page * BLOCK_BYTES);
                let op = self.ops.get_mut(key).expect("the caller holds the operation");
                op.fail(Status::Integrity);
                self.settle(key);
            }
        }
    }

    /// A read that waited half-way goes on only if nothing was written to its blocks meanwhile:
    /// what it returns is what all of them were at one moment, so no half of a write is ever seen.
    fn is_one_moment(&mut self, key: u32) -> bool {
        let now = (self.wal.durable().lsn.0, self.stats.checkpoints);
        let op = self.ops.get_mut(key).expect("the caller holds the operation");
        if op.cursor == 0 {
            op.seen = now;
            return true;
        }
        let (seen, volume, blocks) = (op.seen, op.volume, op.first..op.first + op.blocks);
        let chain = self.layers.chain(volume);
        let is_newer = |block| {
            let mut versions = chain.layers().iter().map(|&layer| self.overlay.find(layer, block));
            versions.any(|version| version.is_some_and(|version| version.lsn >= seen.0))
        };
        // A checkpoint may have taken what was newer out of the overlay.
        seen == now || (seen.1 == now.1 && !blocks.into_iter().any(is_newer))
    }

    /// Starts a read over, when its requests are back.
    fn start_over(&mut self, key: u32) {
        let op = self.ops.get_mut(key).expect("the caller holds the operation");
        op.attempts += 1;
        if op.attempts >= READ_ATTEMPTS_MAX {
            op.status = Status::Retry; // Even of a compare: it has not seen one moment.
            return self.settle(key);
        }
        op.again = true;
        self.try_read(key);
    }

    fn park_read(&mut self, key: u32) {
        self.ops.get_mut(key).expect("the caller holds the operation").parked = true;
        let pushed = self.parked_reads.push(key);
        assert!(pushed.is_ok(), "as many places as operations");
    }

    /// Finds where blocks are, into `self.sources`.
    fn locate(&mut self, volume: u32, first: u64, blocks: u64) -> Result<(), Unknown> {
        self.sources.clear();
        let chain = self.layers.chain(volume);
        let mut extent = None;
        for block in first..first + blocks {
            let mut layers = chain.layers().iter();
            let source = match layers.find_map(|&layer| self.overlay.find(layer, block)) {
                Some(version) => match version.place {
                    Place::Log(position) => {
                        Source { byte: self.wal.byte_of(position), crc: version.crc, in_log: true }
                    }
                    Place::Device(at) => {
                        Source { byte: at * BLOCK_BYTES, crc: version.crc, in_log: false }
                    }
                    Place::Zero => Source::ZERO,
                },
                None => {
                    let index = block / EXTENT_BLOCKS;
                    let known = extent.filter(|&(at, _)| at == index);
                    let (_, lookup) = match known {
                        Some(known) => known,
                        None => (index, self.store.lookup(VolumeId(chain.tree), index)),
                    };
                    extent = Some((index, lookup));
                    in_map(&lookup, block)?
                }
            };
            self.sources.push(source);
        }
        Ok(())
    }

    /// Where one block is.
    pub(crate) fn locate_one(&mut self, volume: u32, block: u64) -> Result<Source, Unknown> {
        self.locate(volume, block, 1)?;
        Ok(self.sources[0])
    }

    /// Asks the device for the runs in `self.sources`, and fills in the zeroes.
    fn read_sources(&mut self, key: u32) {
        let sources = std::mem::take(&mut self.sources);
        self.read_runs(key, &sources);
        self.sources = sources;
        self.settle(key);
    }

    fn read_runs(&mut self, key: u32, sources: &[Source]) {
        let op = self.ops.get_mut(key).expect("the caller holds the operation");
        let run = run_len(sources);
        let base = op.cursor;
        let aligned = op.skip == 0 && op.bytes == sources.len() * BLOCK && base == 0;
        if run == sources.len() && aligned && !sources[0].is_zero() && op.request.op == Op::Read {
            // The host's buffer is filled by the device itself.
            if self.device.room() == 0 {
                return self.park_read(key);
            }
            let bdev::Data::Into(buf) = std::mem::take(&mut op.request.data) else {
                panic!("a read has a buffer");
            };
            (op.pending, op.cursor) = (1, op.blocks);
            self.device.read(Io::of(Purpose::Read { first: 0, whole: true }, key, sources), buf);
            return;
        }
        let mut at = 0;
        while at < sources.len() {
            let run = run_len(&sources[at..]);
            if sources[at].is_zero() {
                for index in at..at + run {
                    let op = self.ops.get_mut(key).expect("held");
                    if !op.deliver(base + index as u64, None) {
                        op.fail(Status::Miscompare);
                    }
                    op.note_read(base + index as u64, bdev::CHECKSUM_OF_ZEROES);
                }
                at += run;
            } else {
                let read = self.read_run(key, base + at as u64, &sources[at..at + run]);
                if read == 0 {
                    return self.park_read(key); // Out of buffers or slots: the rest later.
                }
                at += read;
            }
            self.ops.get_mut(key).expect("held").cursor = base + at as u64;
        }
    }

    /// Asks for a run, or for its first part when buffers are short; how many blocks.
    fn read_run(&mut self, key: u32, at: u64, sources: &[Source]) -> usize {
        if self.device.room() == 0 {
            return 0;
        }
        let Some(buf) = self.reserve.take_read(sources.len() * BLOCK) else { return 0 };
        let sources = &sources[..sources.len().min(buf.capacity() / BLOCK)];
        let first = u32::try_from(at).expect("a short range");
        self.device.read(Io::of(Purpose::Read { first, whole: false }, key, sources), buf);
        self.ops.get_mut(key).expect("held").pending += 1;
        sources.len()
    }

    /// The device has read a run.
    pub(crate) fn on_read(
        &mut self,
        io: &Io,
        first: u32,
        whole: bool,
        status: Status,
        buf: BufMut,
    ) {
        let key = io.op;
        let (volume, start) = {
            let op = self.ops.get(key).expect("an operation outlives its requests");
            (op.volume, op.first + u64::from(first))
        };
        if status.is_ok() {
            for (index, block) in (0u64..).zip(buf.bytes().chunks_exact(BLOCK)) {
                let Some(&crc) = io.crcs[..io.blocks as usize].get(index_of(index)) else { break };
                if wal::crc32c(block) != crc && !bdev::planted(bdev::Planted::ReadUnchecked) {
                    let source = (io.byte + index * BLOCK_BYTES, crc);
                    self.on_mismatch(key, volume, start + index, source);
                } else if !whole {
                    let op = self.ops.get_mut(key).expect("held");
                    if !op.deliver(u64::from(first) + index, Some(block)) {
                        op.fail(Status::Miscompare);
                    }
                    op.note_read(u64::from(first) + index, crc);
                }
            }
        }
        let op = self.ops.get_mut(key).expect("held");
        if whole {
            op.request.data = bdev::Data::Into(buf);
            for (index, &crc) in (0u64..).zip(&io.crcs[..io.blocks as usize]) {
                op.note_read(index, crc);
            }
        } else {
            self.reserve.put_read(buf);
        }
        let op = self.ops.get_mut(key).expect("held");
        if !status.is_ok() && !bdev::planted(bdev::Planted::ReadErrorIgnored) {
            op.fail(Status::Io);
        }
        op.pending -= 1;
        if op.pending > 0 || op.parked {
            return;
        }
        if op.again && (op.status.is_ok() || op.status == Status::Miscompare) {
            self.try_read(key);
        } else {
            op.again = false;
            self.settle(key);
        }
    }

    /// A block did not match: it moved meanwhile, or it is damaged.
    fn on_mismatch(&mut self, key: u32, volume: u32, block: u64, source: (u64, u32)) {
        let now = self.locate_one(volume, block);
        let op = self.ops.get_mut(key).expect("held");
        op.attempts += 1;
        let in_log = match now {
            Ok(now) if (now.byte, now.crc) == source => {
                op.suspicions += 1;
                now.in_log
            }
            _ => false,
        };
        if op.suspicions >= 2 || bdev::planted(bdev::Planted::MovedIsDamaged) {
            op.fail(Status::Integrity);
            let place = if in_log { Damaged::Log } else { Damaged::Extent };
            self.report_damage(volume, block, place, source.0);
        } else if op.attempts >= READ_ATTEMPTS_MAX {
            op.fail(Status::Retry);
        } else {
            op.again = true;
        }
    }

    /// Counts and reports damaged data.
    pub(crate) fn report_damage(&mut self, volume: u32, block: u64, place: Damaged, byte: u64) {
        self.stats.integrity_errors += 1;
        self.report(Event::Integrity { volume: VolumeId(volume), block, place, byte });
    }

    /// Starts to read the old content of an edge. False when it has to wait.
    pub(crate) fn read_edge(&mut self, key: u32, last: bool) -> bool {
        let op = self.ops.get(key).expect("held");
        let block = if last { op.first + op.blocks - 1 } else { op.first };
        let volume = op.volume;
        let source = match self.locate_one(volume, block) {
            Ok(source) => source,
            Err(Unknown::Pending) => return false,
            Err(Unknown::Damaged(page)) => {
                self.report_damage(volume, block, Damaged::Map, page * BLOCK_BYTES);
                self.ops.get_mut(key).expect("held").fail(Status::Integrity);
                return true;
            }
        };
        if self.device.room() == 0 {
            return false;
        }
        let Some(mut buf) = self.reserve.take_edge(key, BLOCK) else { return false };
        let op = self.ops.get_mut(key).expect("held");
        if source.is_zero() {
            buf.bytes_mut()[..BLOCK].fill(0);
            op.merge(last, &mut buf);
            op.edges[usize::from(last)] = Edge::Ready(buf.freeze());
            return true;
        }
        op.edges[usize::from(last)] = Edge::Reading;
        op.pending += 1;
        self.device.read(Io::of(Purpose::Edge { last }, key, &[source]), buf);
        true
    }

    /// The old content of an edge is here.
    pub(crate) fn on_edge(&mut self, io: &Io, last: bool, status: Status, mut buf: BufMut) {
        let key = io.op;
        let matches = status.is_ok()
            && (wal::crc32c(&buf.bytes()[..BLOCK]) == io.crcs[0]
                || bdev::planted(bdev::Planted::EdgeUnchecked));
        let op = self.ops.get_mut(key).expect("an operation outlives its requests");
        let (volume, first, blocks) = (op.volume, op.first, op.blocks);
        op.pending -= 1;
        let edge = usize::from(last);
        if matches {
            op.merge(last, &mut buf);
            op.edges[edge] = Edge::Ready(buf.freeze());
        } else if status.is_ok() {
            op.edges[edge] = Edge::Wanted;
            let block = if last { first + blocks - 1 } else { first };
            self.on_mismatch(key, volume, block, (io.byte, io.crcs[0]));
            self.ops.get_mut(key).expect("held").again = false;
        } else {
            op.fail(Status::Io);
        }
        let op = self.ops.get(key).expect("held");
        if op.pending == 0 && !op.parked {
            self.try_write(key); // One that waits for the other edge is in the line already.
        }
    }
}

fn index_of(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// How many sources from the front are one request: neighbours on the device, or all zero.
fn run_len(sources: &[Source]) -> usize {
    let first = sources[0];
    let same = |(index, source): &(u64, &Source)| {
        if first.is_zero() {
            source.is_zero()
        } else {
            source.byte == first.byte.wrapping_add(index * BLOCK_BYTES) && !source.is_zero()
        }
    };
    let most = if first.is_zero() { sources.len() } else { RUN_BLOCKS_MAX };
    (0u64..).zip(sources).take(most).take_while(same).count()
}

/// Where a block is by what the map says of its extent.
fn in_map(lookup: &Lookup, block: u64) -> Result<Source, Unknown> {
    match lookup {
        Lookup::Unmapped => Ok(Source::ZERO),
        Lookup::Pending => Err(Unknown::Pending),
        Lookup::Damaged(page) => Err(Unknown::Damaged(*page)),
        Lookup::Entry(entry) => {
            let within = block % EXTENT_BLOCKS;
            let crc = entry.block_crc(usize::try_from(within).expect("below 16"));
            Ok(match (crc, entry.extent()) {
                (Some(crc), Some(extent)) => {
                    Source { byte: extent.byte_offset() + within * BLOCK_BYTES, crc, in_log: false }
                }
                _ => Source::ZERO,
            })
        }
    }
}
