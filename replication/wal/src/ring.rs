//! The log ring: append, group commit, ordered durability, space.

use std::collections::VecDeque;
use std::fmt;

use bdev::{BufMut, Completion, Data, Fifo, Flags, Lba, Pool, Request, Status, Tag};

use crate::layout::{BLOCK_BYTES, KIND_SKIP};
use crate::limits::{
    ATTEMPTS_MAX, GROUP_BYTES_MIN, GROUPS_MAX, RING_GROUPS_MIN, SEAL_BLOCKS, TAG_CLASS,
};
use crate::seal::{OpenGroup, Seal, Sealed, seal_skip};
use crate::{Lsn, Point, Record};

/// Where the log is and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The store that the log belongs to.
    pub store: [u8; 16],
    /// The mount that appends; persisted in the superblock before the first append.
    pub epoch: u64,
    /// Where the ring starts on the device, in bytes; a multiple of 4 KiB.
    pub first_byte: u64,
    /// Size of the ring in blocks of 4 KiB.
    pub blocks: u64,
    /// The device's block size in bytes: 512 or 4096.
    pub device_block: u32,
    /// Largest group in bytes: [`GROUP_BYTES_MIN`] to 1 MiB, the size of a staging segment.
    pub group_bytes: usize,
}

impl Config {
    /// A ring on a device with 4 KiB blocks, with groups of up to 1 MiB.
    pub fn new(store: [u8; 16], epoch: u64, first_byte: u64, blocks: u64) -> Config {
        Config { store, epoch, first_byte, blocks, device_block: 4096, group_bytes: 1 << 20 }
    }

    /// Blocks of the largest group.
    pub(crate) fn group_blocks(&self) -> u64 {
        (self.group_bytes / BLOCK_BYTES) as u64
    }

    /// Where the block at `position` is on the device, in bytes.
    pub(crate) fn byte_of(&self, position: u64) -> u64 {
        self.first_byte + position % self.blocks * BLOCK_BYTES as u64
    }

    /// Blocks from `position` to the end of the ring, where a write must stop.
    pub(crate) fn ring_left(&self, position: u64) -> u64 {
        self.blocks - position % self.blocks
    }

    /// A device address and a length in the device's own blocks.
    pub(crate) fn device_range(&self, position: u64, blocks: usize) -> (Lba, u32) {
        let lba = Lba(self.byte_of(position) / u64::from(self.device_block));
        let count = blocks * BLOCK_BYTES / self.device_block as usize;
        (lba, u32::try_from(count).expect("a request is at most 1 MiB"))
    }

    fn check(&self) -> Result<(), OpenError> {
        let sizes = GROUP_BYTES_MIN..=bdev::REQUEST_BYTES_MAX as usize;
        if !sizes.contains(&self.group_bytes) || !self.group_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(OpenError::GroupSize { bytes: self.group_bytes });
        }
        let min = RING_GROUPS_MIN * self.group_blocks();
        if self.blocks < min {
            return Err(OpenError::RingTooSmall { blocks: self.blocks, min });
        }
        Ok(())
    }
}

/// Why a log could not be made ready for appending.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The group size is not [`GROUP_BYTES_MIN`] to 1 MiB in whole blocks.
    GroupSize {
        /// What was asked for.
        bytes: usize,
    },
    /// The ring is too small for the group size.
    RingTooSmall {
        /// What there is.
        blocks: u64,
        /// What it takes.
        min: u64,
    },
    /// The pool has no free segments for staging.
    NoBuffers,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::GroupSize { bytes } => write!(f, "log groups of {bytes} bytes"),
            OpenError::RingTooSmall { blocks, min } => {
                write!(f, "a log of {blocks} blocks: it takes at least {min}")
            }
            OpenError::NoBuffers => f.write_str("no free buffers to stage the log in"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a record was not taken. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The ring has no room until it is trimmed.
    Full,
    /// Every staging segment is in use until a write completes.
    Busy,
    /// The device failed the log; nothing can be appended until the store is opened again.
    Failed,
}

/// A group that became durable, in LSN order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The number of its first record.
    pub first: Lsn,
    /// How many records it has.
    pub records: u32,
    /// The position of its first payload block; the payloads of its records follow each other.
    pub payload: u64,
    /// The boundary behind it.
    pub end: Point,
}

/// What the log has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The records of this group are durable, and so are all before them.
    Durable(Group),
    /// The device failed a group for good, with this status. Said once.
    Failed(Status),
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups written, skips included.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes sent to the device, headers and rewrites included.
    pub bytes: u64,
    /// Groups written again after a device error.
    pub rewrites: u64,
}

/// The log of one store. See the crate documentation.
#[derive(Debug)]
pub struct Wal {
    config: Config,
    tail: Point,
    durable: Point,
    /// Behind the last sealed group.
    head: Point,
    open: Option<OpenGroup>,
    flying: VecDeque<Flying>,
    staging: Vec<BufMut>,
    skip: Option<BufMut>,
    serial: u32,
    failed: Option<Status>,
    failure_told: bool,
    stats: Stats,
}

/// A sealed group on its way to the device.
#[derive(Debug)]
struct Flying {
    sealed: Sealed,
    start: Point,
    end: Point,
    serial: u32,
    attempts: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Writing,
    Written,
}

impl Wal {
    /// A log whose live records lie between `tail` and `head`: both [`Point::START`] for a new
    /// one, otherwise the superblock's tail and what [`crate::Scan`] found. Takes its staging
    /// segments from `pool` for good.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn new(config: Config, tail: Point, head: Point, pool: &Pool) -> Result<Wal, OpenError> {
        config.check()?;
        assert!(tail.position <= head.position && head.position - tail.position <= config.blocks);
        let mut staging = Vec::with_capacity(GROUPS_MAX);
        for _ in 0..GROUPS_MAX {
            staging.push(pool.take(config.group_bytes).ok_or(OpenError::NoBuffers)?);
        }
        let skip = Some(pool.take(BLOCK_BYTES).ok_or(OpenError::NoBuffers)?);
        Ok(Wal {
            config,
            tail,
            durable: head,
            head,
            open: None,
            flying: VecDeque::with_capacity(GROUPS_MAX + 1),
            staging,
            skip,
            serial: 0,
            failed: None,
            failure_told: false,
            stats: Stats::default(),
        })
    }

    /// Adds a record, with one block of payload for each CRC of a write; the payload may come in
    /// several `parts`. The number it returns is durable when a [`Event::Durable`] covers it.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was kept, the caller tries again later.
    ///
    /// # Panics
    /// When the record exceeds the limits or its payload does not match it.
    pub fn append(&mut self, record: &Record<'_>, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        self.keep_together(record.entry_len(), record.payload_blocks())?;
        let open = self.open.as_mut().expect("just opened");
        open.push(record, parts);
        Ok(self.head.lsn.after(u64::from(open.records()) - 1))
    }

    /// Makes sure that the next records go into one group, so that a crash keeps all of them or
    /// none: those whose [`Record::entry_len`] is at most `entries_len` and whose payload is at
    /// most `payload_blocks` together. Nothing else may be appended, and nothing polled, before
    /// them.
    ///
    /// # Errors
    /// See [`AppendError`]; the caller tries again later.
    ///
    /// # Panics
    /// When no group is large enough.
    pub fn keep_together(
        &mut self,
        entries_len: usize,
        payload_blocks: usize,
    ) -> Result<(), AppendError> {
        if self.failed.is_some() {
            return Err(AppendError::Failed);
        }
        let fits = |open: &OpenGroup| open.has_room(entries_len, payload_blocks);
        if self.open.as_ref().is_some_and(|open| !fits(open)) {
            self.seal();
        }
        if self.open.is_none() {
            let segment = self.staging.pop().ok_or(AppendError::Busy)?;
            self.open = Some(OpenGroup::new(segment, self.config.group_bytes));
        }
        let open = self.open.as_ref().expect("opened above");
        assert!(fits(open), "more than a group holds");
        self.check_room(open.blocks_after(entries_len, payload_blocks) as u64)
    }

    /// Whether an open group of `blocks` fits the ring.
    fn check_room(&self, blocks: u64) -> Result<(), AppendError> {
        let skip = skip_before(&self.config, self.head.position, blocks);
        if self.head.position + skip + blocks - self.tail.position > self.config.blocks {
            return Err(AppendError::Full);
        }
        Ok(())
    }

    /// Pushes the writes that are due, while there is room: sealing the open group when no other is
    /// in flight or when it is large enough not to wait for company.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>) {
        if self.failed.is_some() {
            return;
        }
        if let Some(open) = &self.open {
            let due = self.flying.is_empty() || open.payload_blocks() >= SEAL_BLOCKS;
            if due && !open.is_empty() {
                self.seal();
            }
        }
        for group in &mut self.flying {
            if group.state != State::Ready || requests.is_full() {
                continue;
            }
            let blocks =
                if group.is_skip() { group.sealed.header_blocks } else { group.sealed.blocks };
            let (lba, count) = self.config.device_range(group.start.position, blocks);
            let from = group.sealed.origin.slice(group.sealed.offset);
            let tag = Tag(TAG_CLASS << 28 | group.serial);
            let lazy = bdev::planted(bdev::Planted::LogWithoutFua);
            let flags = if lazy { Flags::NONE } else { Flags::FUA };
            let write = Request::write(tag, lba, count, from).with_flags(flags);
            let pushed = requests.push(write);
            assert!(pushed.is_ok(), "room was checked");
            group.state = State::Writing;
            self.stats.groups += 1;
            self.stats.bytes += (blocks * BLOCK_BYTES) as u64;
        }
    }

    /// Takes the completion of a request from [`Wal::poll_requests`].
    ///
    /// # Panics
    /// When the log made no such request.
    pub fn on_completion(&mut self, completion: Completion) {
        let Completion { tag, data, status } = completion;
        assert!(matches!(data, Data::From(_)), "a write gives its buffer back");
        drop(data);
        let serial = tag.0 & SERIAL_MASK;
        let group = self.flying.iter_mut().find(|group| group.serial == serial);
        let group = group.expect("a completion belongs to a group in flight");
        assert_eq!(group.state, State::Writing);
        if status.is_ok() || bdev::planted(bdev::Planted::LogIgnoresErrors) {
            group.state = State::Written;
            return;
        }
        group.attempts += 1;
        group.state = State::Ready;
        self.stats.rewrites += 1;
        if group.attempts >= ATTEMPTS_MAX {
            self.failed = Some(status);
        }
    }

    /// Ends the log: the device has lost writes that it had completed, so no group that is still in
    /// flight may be believed. [`Event::Failed`] follows, and nothing becomes durable any more.
    pub fn halt(&mut self, status: Status) {
        self.failed.get_or_insert(status);
    }

    /// What happened since the last call, in LSN order.
    pub fn poll_event(&mut self) -> Option<Event> {
        while self.failed.is_none()
            && self.flying.front().is_some_and(|group| group.state == State::Written)
        {
            let group = self.flying.pop_front().expect("just seen");
            assert_eq!(group.start, self.durable, "groups become durable in order");
            self.durable = group.end;
            let is_skip = group.is_skip();
            let payload = group.start.position + group.sealed.header_blocks as u64;
            let records = u32::from(group.sealed.records);
            self.stats.records += u64::from(records);
            let segment = group.sealed.origin.try_unique();
            let segment = segment.expect("the request's slice was dropped with its completion");
            if is_skip {
                self.skip = Some(segment);
                continue;
            }
            self.staging.push(segment);
            let first = group.start.lsn;
            return Some(Event::Durable(Group { first, records, payload, end: group.end }));
        }
        match self.failed {
            Some(status) if !self.failure_told => {
                self.failure_told = true;
                Some(Event::Failed(status))
            }
            _ => None,
        }
    }

    /// Gives the space before `point` back.
    ///
    /// # Panics
    /// When `point` does not lie between the tail and what is durable.
    pub fn trim(&mut self, point: Point) {
        assert!(self.tail.position <= point.position && self.tail.lsn <= point.lsn);
        assert!(point.position <= self.durable.position && point.lsn <= self.durable.lsn);
        self.tail = point;
    }

    /// Where the live records start.
    pub fn tail(&self) -> Point {
        self.tail
    }

    /// The boundary up to which everything is durable.
    pub fn durable(&self) -> Point {
        self.durable
    }

    /// The number that the next appended record gets.
    pub fn next_lsn(&self) -> Lsn {
        self.head.lsn.after(self.open.as_ref().map_or(0, |open| u64::from(open.records())))
    }

    /// Blocks of the ring in use, the open group included.
    pub fn used_blocks(&self) -> u64 {
        let open = self.open.as_ref().filter(|open| !open.is_empty());
        self.head.position - self.tail.position + open.map_or(0, |open| open.blocks() as u64)
    }

    /// Size of the ring in blocks.
    pub fn ring_blocks(&self) -> u64 {
        self.config.blocks
    }

    /// Where the block at `position` is on the device, in bytes.
    pub fn byte_of(&self, position: u64) -> u64 {
        self.config.byte_of(position)
    }

    /// Blocks from `position` to the end of the ring, where one read must stop.
    pub fn ring_left(&self, position: u64) -> u64 {
        self.config.ring_left(position)
    }

    /// True when nothing is open, sealed or in flight: every appended record is durable and told.
    pub fn is_idle(&self) -> bool {
        self.flying.is_empty() && self.open.as_ref().is_none_or(OpenGroup::is_empty)
    }

    /// Why the log refuses appends, if it does.
    pub fn failed(&self) -> Option<Status> {
        self.failed
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Seals the open group, with a skip before it when it does not fit before the ring's end.
    fn seal(&mut self) {
        let open = self.open.take().expect("the caller saw one");
        if open.is_empty() {
            self.open = Some(open);
            return;
        }
        let blocks = open.blocks() as u64;
        let skip = skip_before(&self.config, self.head.position, blocks);
        if skip > 0 {
            let segment = self.skip.take().expect("a ring holds RING_GROUPS_MIN groups");
            let skip = usize::try_from(skip).expect("less than a group");
            let sealed = seal_skip(segment, &self.seal_values(), KIND_SKIP, skip);
            self.fly(sealed);
        }
        let sealed = open.seal(&self.seal_values());
        self.fly(sealed);
    }

    fn seal_values(&self) -> Seal {
        let Config { store, epoch, .. } = self.config;
        let overstated = bdev::planted(bdev::Planted::DurableOverstated);
        let durable = if overstated { self.head.lsn } else { self.durable.lsn };
        Seal { store, epoch, durable, at: self.head }
    }

    fn fly(&mut self, sealed: Sealed) {
        let start = self.head;
        let end = Point {
            position: start.position + sealed.blocks as u64,
            lsn: start.lsn.after(u64::from(sealed.records)),
            chain: sealed.crc,
        };
        assert!(end.position - self.tail.position <= self.config.blocks);
        self.head = end;
        self.serial = (self.serial + 1) & SERIAL_MASK;
        let (serial, state) = (self.serial, State::Ready);
        assert!(self.flying.len() < self.flying.capacity(), "one segment each");
        self.flying.push_back(Flying { sealed, start, end, serial, attempts: 0, state });
    }
}

impl Flying {
    fn is_skip(&self) -> bool {
        self.sealed.records == 0
    }
}

/// Blocks to skip so that a group of `blocks` does not cross the ring's end.
fn skip_before(config: &Config, position: u64, blocks: u64) -> u64 {
    let left = config.ring_left(position);
    if left < blocks && !bdev::planted(bdev::Planted::WrapIgnored) { left } else { 0 }
}

/// The part of a tag that is ours.
const SERIAL_MASK: u32 = (1 << 28) - 1;
