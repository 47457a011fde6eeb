//! Recovery: walk the groups from the tail, tell a torn tail from an interior corruption.

use std::fmt;

use bdev::{BufMut, Completion, Data, Fifo, Request, Status, Tag};
use zerocopy::FromBytes;

use crate::layout::{BLOCK_BYTES, GroupHeader, HEADER_LEN, KIND_RECORDS, KIND_SKIP, MAGIC, crc32c};
use crate::limits::{ATTEMPTS_MAX, HEADER_BLOCKS_MAX, RECORD_BLOCKS_MAX, TAG_CLASS};
use crate::{Config, Lsn, Point, Record};

/// What a scan finds, in LSN order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay<'a> {
    /// A record of a group that is whole and verified.
    Record {
        /// Its number.
        lsn: Lsn,
        /// What happened.
        record: Record<'a>,
        /// The position of its first payload block.
        payload: u64,
    },
    /// The end of a group.
    Boundary(Point),
}

/// How far a scan is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanStep {
    /// It waits for its read, or wants to be called again.
    Pending,
    /// Everything durable was replayed; appending goes on at this point.
    Done(Point),
    /// The log is damaged, or could not be read. What was replayed so far is valid.
    Failed(ScanError),
}

/// Why a log could not be recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanError {
    /// A record is unreadable that a later, valid group says was durable.
    Corrupt {
        /// The first record that is missing.
        first: Lsn,
        /// The first record that is readable again, as far as is known.
        next: Lsn,
        /// Where the damage starts, in bytes from the start of the device.
        byte: u64,
    },
    /// The device failed a read.
    Device {
        /// Where, in bytes from the start of the device.
        byte: u64,
        /// How.
        status: Status,
    },
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanError::Corrupt { first, next, byte } => write!(
                f,
                "the log is corrupt: records {first} up to {next} were durable and cannot be \
                 read, damage starts at device byte {byte}"
            ),
            ScanError::Device { byte, status } => {
                write!(f, "reading the log at device byte {byte}: {status:?}")
            }
        }
    }
}

impl std::error::Error for ScanError {}

/// The recovery scanner: a machine that reads the ring through one segment of 1 MiB.
#[derive(Debug)]
pub struct Scan {
    config: Config,
    /// The first position that cannot belong to this lap.
    limit: u64,
    /// Behind the last verified group.
    at: Point,
    epoch: u64,
    segment: Option<BufMut>,
    /// What the segment holds, or will: first position and blocks.
    window: (u64, usize),
    state: State,
    /// `Some` when the end was seen and the rest of the ring is searched for proof of damage.
    searching: bool,
    attempts: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Ask,
    Reading,
    Loaded,
    Ended(ScanStep),
}

enum Parsed {
    /// A whole group: how many blocks it has, header blocks among them.
    Valid(GroupHeader, usize),
    /// The window ends before the group does.
    Short,
    Invalid,
}

impl Scan {
    /// A scan from `tail` through `segment`, which must have [`Scan::SEGMENT_BYTES`].
    ///
    /// # Panics
    /// When the segment is too small.
    pub fn new(config: Config, tail: Point, segment: BufMut) -> Scan {
        assert!(segment.capacity() >= Scan::SEGMENT_BYTES);
        let limit = tail.position.saturating_add(config.blocks);
        let mut scan = Scan {
            config,
            limit,
            at: tail,
            epoch: 0,
            segment: Some(segment),
            window: (0, 0),
            state: State::Ask,
            searching: false,
            attempts: 0,
        };
        scan.look_at(tail.position);
        scan
    }

    /// The segment a scan needs: the largest group that any configuration writes.
    pub const SEGMENT_BYTES: usize = 1 << 20;

    /// The highest epoch among the groups replayed so far.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many blocks of log were replayed or searched so far, of how many in the ring.
    pub fn progress(&self) -> (u64, u64) {
        let done = self.window.0 + self.config.blocks - self.limit;
        (done.min(self.config.blocks), self.config.blocks)
    }

    /// Pushes the read that is due, if there is room.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>) {
        if self.state != State::Ask || requests.is_full() {
            return;
        }
        let segment = self.segment.take().expect("it is here unless a read is in flight");
        let (lba, count) = self.config.device_range(self.window.0, self.window.1);
        let pushed = requests.push(Request::read(Tag(TAG_CLASS << 28), lba, count, segment));
        assert!(pushed.is_ok(), "room was checked");
        self.state = State::Reading;
    }

    /// Takes the completion of the read.
    ///
    /// # Panics
    /// When none was in flight.
    pub fn on_completion(&mut self, completion: Completion) {
        assert_eq!(self.state, State::Reading);
        let Data::Into(segment) = completion.data else { panic!("a read gives its buffer back") };
        self.segment = Some(segment);
        if completion.status.is_ok() {
            self.attempts = 0;
            self.state = State::Loaded;
            return;
        }
        self.attempts += 1;
        self.state = State::Ask;
        if self.attempts >= ATTEMPTS_MAX {
            let byte = self.config.byte_of(self.window.0);
            let error = ScanError::Device { byte, status: completion.status };
            self.state = State::Ended(ScanStep::Failed(error));
        }
    }

    /// Works through what was read (at most 1 MiB) and hands each record to `replay`.
    pub fn step(&mut self, replay: impl FnMut(Replay<'_>)) -> ScanStep {
        match &self.state {
            State::Ended(end) => return end.clone(),
            State::Ask | State::Reading => return ScanStep::Pending,
            State::Loaded => {}
        }
        let segment = self.segment.take().expect("it was loaded");
        let bytes = &segment.bytes()[..self.window.1 * BLOCK_BYTES];
        if self.searching {
            self.search(bytes)
        } else {
            self.follow(bytes, replay)
        }
        self.segment = Some(segment);
        match &self.state {
            State::Ended(end) => end.clone(),
            _ => ScanStep::Pending,
        }
    }

    /// The segment, when the scan is over.
    pub fn into_segment(self) -> Option<BufMut> {
        self.segment
    }

    /// Replays the groups in the window; ends in a new window, or in the search.
    fn follow(&mut self, bytes: &[u8], mut replay: impl FnMut(Replay<'_>)) {
        loop {
            if self.at.position == self.limit {
                self.state = State::Ended(ScanStep::Done(self.at));
                return;
            }
            let from = usize::try_from(self.at.position - self.window.0).expect("in the window");
            if from >= self.window.1 {
                self.look_at(self.at.position);
                return;
            }
            match self.parse(&bytes[from * BLOCK_BYTES..]) {
                Parsed::Valid(header, blocks) => {
                    self.replay_group(&header, &bytes[from * BLOCK_BYTES..], &mut replay);
                    self.epoch = header.epoch.get();
                    self.at = Point {
                        position: self.at.position + blocks as u64,
                        lsn: self.at.lsn.after(u64::from(header.records.get())),
                        chain: header.crc.get(),
                    };
                    replay(Replay::Boundary(self.at));
                }
                Parsed::Short if from > 0 => {
                    self.look_at(self.at.position);
                    return;
                }
                Parsed::Short | Parsed::Invalid => {
                    self.searching = true;
                    self.look_at(self.at.position);
                    return;
                }
            }
        }
    }

    fn replay_group(
        &self,
        header: &GroupHeader,
        bytes: &[u8],
        replay: &mut impl FnMut(Replay<'_>),
    ) {
        let header_blocks = u64::from(header.header_blocks.get());
        let mut payload = self.at.position + header_blocks;
        let mut lsn = self.at.lsn;
        for_each_record(header, bytes, |record| {
            replay(Replay::Record { lsn, record, payload });
            payload += record.payload_blocks() as u64;
            lsn = lsn.after(1);
            true
        });
    }

    /// The group at the front of `bytes`, if it is the one that follows `self.at`.
    fn parse(&self, bytes: &[u8]) -> Parsed {
        let header = match header_at(bytes, &self.config.store) {
            Some(Ok(header)) => header,
            Some(Err(())) => return Parsed::Short,
            None => return Parsed::Invalid,
        };
        let (header_blocks, payload) = (header.header_blocks.get(), header.payload_blocks.get());
        let total = usize::from(header_blocks) + usize::from(payload);
        let left = self.config.ring_left(self.at.position);
        let expected = header.position.get() == self.at.position
            && header.lsn.get() == self.at.lsn.0
            && (header.chain.get() == self.at.chain || bdev::planted(bdev::Planted::NoChainCheck))
            && header.epoch.get() >= self.epoch
            && header.durable.get() <= header.lsn.get()
            && total as u64 <= left
            && self.at.position + total as u64 <= self.limit;
        if !expected && !bdev::planted(bdev::Planted::StaleTail) {
            return Parsed::Invalid;
        }
        match header.kind.get() {
            KIND_SKIP if header.records.get() == 0 && total as u64 == left => {
                Parsed::Valid(header, total)
            }
            KIND_RECORDS if total * BLOCK_BYTES > bytes.len() => Parsed::Short,
            KIND_RECORDS if group_is_whole(&header, bytes) => Parsed::Valid(header, total),
            _ => Parsed::Invalid,
        }
    }

    /// Looks for a group that proves that the record after `self.at` was durable.
    fn search(&mut self, bytes: &[u8]) {
        let (start, blocks) = self.window;
        for index in 0..blocks {
            let position = start + index as u64;
            if position == self.at.position {
                continue;
            }
            let Some(Ok(header)) = header_at(&bytes[index * BLOCK_BYTES..], &self.config.store)
            else {
                continue;
            };
            let here = header.position.get() % self.config.blocks == position % self.config.blocks;
            if here && header.durable.get() > self.at.lsn.0 {
                let error = ScanError::Corrupt {
                    first: self.at.lsn,
                    next: Lsn(header.lsn.get()),
                    byte: self.config.byte_of(self.at.position),
                };
                self.state = State::Ended(ScanStep::Failed(error));
                return;
            }
        }
        let end = start + blocks as u64;
        if end >= self.limit {
            self.state = State::Ended(ScanStep::Done(self.at));
        } else if end.is_multiple_of(self.config.blocks) {
            self.look_at(end);
        } else {
            // A header may cross the end of the window: the next one starts a little before it.
            self.look_at(end - (HEADER_BLOCKS_MAX as u64 - 1));
        }
    }

    /// Asks for the window that starts at `position`.
    fn look_at(&mut self, position: u64) {
        let most = (Scan::SEGMENT_BYTES / BLOCK_BYTES) as u64;
        let blocks = most.min(self.config.ring_left(position)).min(self.limit - position);
        self.window = (position, usize::try_from(blocks).expect("a segment at most"));
        self.state = State::Ask;
    }
}

/// The header at the front of `bytes`, when there is one of this store with a right CRC.
/// `Some(Err(()))` when it looks like one and goes on behind `bytes`.
fn header_at(bytes: &[u8], store: &[u8; 16]) -> Option<Result<GroupHeader, ()>> {
    let (header, _) = GroupHeader::read_from_prefix(bytes).ok()?;
    if header.magic != MAGIC || header.store != *store {
        return None;
    }
    let blocks = usize::from(header.header_blocks.get());
    if !(1..=HEADER_BLOCKS_MAX).contains(&blocks) {
        return None;
    }
    let Some(whole) = bytes.get(..blocks * BLOCK_BYTES) else { return Some(Err(())) };
    let matches = crc32c(&whole[4..]) == header.crc.get();
    (matches || bdev::planted(bdev::Planted::NoHeaderCheck)).then_some(Ok(header))
}

/// True when the entries are records of this format and every payload block matches its CRC.
fn group_is_whole(header: &GroupHeader, bytes: &[u8]) -> bool {
    let start = usize::from(header.header_blocks.get()) * BLOCK_BYTES;
    let end = start + usize::from(header.payload_blocks.get()) * BLOCK_BYTES;
    let Some(payload) = bytes.get(start..end) else { return false };
    let mut blocks = payload.chunks_exact(BLOCK_BYTES);
    let complete = for_each_record(header, bytes, |record| match record {
        Record::Write { crcs, .. } => crcs.iter().all(|&crc| {
            blocks.next().is_some_and(|block| {
                crc32c(block) == crc || bdev::planted(bdev::Planted::NoPayloadCheck)
            })
        }),
        _ => true,
    });
    complete && blocks.next().is_none()
}

/// Calls `each` for each record until it says no. False when it did, or when the entries are not
/// exactly `header.records` records of this format.
fn for_each_record(
    header: &GroupHeader,
    bytes: &[u8],
    mut each: impl FnMut(Record<'_>) -> bool,
) -> bool {
    let Ok(len) = usize::try_from(header.entries_len.get()) else { return false };
    let end = usize::from(header.header_blocks.get()) * BLOCK_BYTES;
    let Some(mut rest) = bytes.get(HEADER_LEN..end).and_then(|area| area.get(..len)) else {
        return false;
    };
    for _ in 0..header.records.get() {
        let mut words = [0; RECORD_BLOCKS_MAX];
        let Some((record, len)) = Record::decode(rest, &mut words) else { return false };
        if !each(record) {
            return false;
        }
        rest = &rest[len..];
    }
    rest.is_empty()
}
