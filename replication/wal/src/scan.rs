//! Recovery: walk the groups from the tail, tell a torn tail from damage, and end the log for good.
//!
//! ```text
//!            ,--- proven: replay it, its damaged blocks named ---.
//!            v                                                   |
//!  Follow --payload damaged--> Prove --no header says it was durable--> Search --> Blank --> Done
//!    |  |                                                        ^       |
//!    |  `------------------ no group here -----------------------'       `--> Failed (Corrupt)
//!    `-- the ring is full: Done
//! ```
//!
//! **Blank.** The group at which the scan ends was perhaps written in part, by a life that died of
//! it. The next group goes to the same place. Were that torn too, the other way round, the sectors
//! of both might be the old group, whole: an operation that nobody saw would come true under those
//! who have read since. So the block at the end is zeroed, durably, before anybody is served. From
//! then on the header of no earlier life is there, nor ever will be: what is written there now has
//! the epoch of this life or a later one, and behind a group of this life no group of a lower epoch
//! is followed. A cut while it is being zeroed may complete the old group: nobody was served yet.

use std::fmt;

use bdev::{Buf, BufMut, Completion, Data, Fifo, Flags, Request, Status, Tag};

use crate::group::{Body, Front, blocks_of, body_of, end_of, for_each_checked, header_at};
use crate::layout::{BLOCK_BYTES, GroupHeader, KIND_RECORDS, KIND_SKIP};
use crate::limits::{ATTEMPTS_MAX, HEADER_BLOCKS_MAX, PROOF_GROUPS_MAX, TAG_CLASS};
use crate::{Config, Lsn, Point, Record};

/// What a scan finds, in LSN order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay<'a> {
    /// A record that was written: it is verified, and so is its payload but for `damaged`.
    Record {
        /// Its number.
        lsn: Lsn,
        /// What happened.
        record: Record<'a>,
        /// The position of its first payload block.
        payload: u64,
        /// A bit for each payload block that was durable once and does not match its CRC now, the
        /// first block in the lowest bit.
        damaged: u64,
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
    /// A group's header is unreadable, and a later group says that its records were durable.
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
    /// The device failed the write that ends the log.
    Blank {
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
            ScanError::Blank { byte, status } => {
                write!(f, "writing the end of the log at device byte {byte}: {status:?}")
            }
        }
    }
}

impl std::error::Error for ScanError {}

/// The recovery scanner: a machine that reads the ring through one segment of 1 MiB, and writes one
/// block of it.
#[derive(Debug)]
pub struct Scan {
    config: Config,
    /// The first position that cannot belong to this lap.
    limit: u64,
    /// Behind the last group that was replayed.
    at: Point,
    epoch: u64,
    /// Every record below it was durable: a header behind it in the chain says so.
    proven: Lsn,
    segment: Option<BufMut>,
    /// What the segment holds, or will: first position and blocks.
    window: (u64, usize),
    state: State,
    phase: Phase,
    attempts: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Ask,
    Asked,
    Loaded,
    Ended(ScanStep),
}

/// What is done with what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Groups are replayed.
    Follow,
    /// The group at `at` is damaged. The headers behind it are asked whether it was durable.
    Prove(Proof),
    /// The log ends at `at`, unless the rest of the ring proves that more was durable.
    Search,
    /// It does.
    Blank,
}

/// How far the headers behind a damaged group were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proof {
    /// The number behind the group's last record.
    end: Lsn,
    /// Where the next header is, and what it has to say.
    next: Point,
    epoch: u64,
    /// How many more are asked.
    left: u32,
}

enum Parsed {
    /// The group that follows, and the boundary behind it.
    Group(GroupHeader, Point, Body),
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
            proven: Lsn(0),
            segment: Some(segment),
            window: (0, 0),
            state: State::Ask,
            phase: Phase::Follow,
            attempts: 0,
        };
        scan.look_at(tail.position);
        scan
    }

    /// The segment a scan needs: the largest group that any configuration writes.
    pub const SEGMENT_BYTES: usize = 1 << 20;

    /// The epoch with which to append now: that of the mount. It is above that of every group,
    /// unless the device lost the superblock that said so; then one above those that were replayed.
    pub fn next_epoch(&self) -> u64 {
        self.config.epoch.max(self.epoch.saturating_add(1))
    }

    /// How many blocks of log were replayed or searched so far, of how many in the ring.
    pub fn progress(&self) -> (u64, u64) {
        let at = match self.phase {
            Phase::Blank => self.limit,
            Phase::Prove(_) => self.at.position,
            Phase::Follow | Phase::Search => self.window.0,
        };
        let left = self.limit - at;
        (self.config.blocks.saturating_sub(left), self.config.blocks)
    }

    /// Pushes the request that is due, if there is room.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>) {
        if self.state != State::Ask || requests.is_full() {
            return;
        }
        let mut segment = self.segment.take().expect("it is here unless a request is in flight");
        let (lba, count) = self.config.device_range(self.window.0, self.window.1);
        let tag = Tag(TAG_CLASS << 28);
        let request = if self.phase == Phase::Blank {
            segment.bytes_mut()[..BLOCK_BYTES].fill(0);
            Request::write(tag, lba, count, segment.freeze()).with_flags(Flags::FUA)
        } else {
            Request::read(tag, lba, count, segment)
        };
        let pushed = requests.push(request);
        assert!(pushed.is_ok(), "room was checked");
        self.state = State::Asked;
    }

    /// Takes the completion of the request.
    ///
    /// # Panics
    /// When none was in flight.
    pub fn on_completion(&mut self, completion: Completion) {
        assert_eq!(self.state, State::Asked);
        self.segment = Some(match completion.data {
            Data::Into(segment) => segment,
            Data::From(segment) => Buf::try_unique(segment).expect("nobody else has it"),
            Data::None => panic!("a request gives its buffer back"),
        });
        if completion.status.is_ok() {
            self.attempts = 0;
            self.state = match self.phase {
                Phase::Blank => State::Ended(ScanStep::Done(self.at)),
                _ => State::Loaded,
            };
            return;
        }
        self.attempts += 1;
        self.state = State::Ask;
        if self.attempts >= ATTEMPTS_MAX {
            let (byte, status) = (self.config.byte_of(self.window.0), completion.status);
            let error = match self.phase {
                Phase::Blank => ScanError::Blank { byte, status },
                _ => ScanError::Device { byte, status },
            };
            self.state = State::Ended(ScanStep::Failed(error));
        }
    }

    /// Works through what was read (at most 1 MiB) and hands each record to `replay`.
    pub fn step(&mut self, replay: impl FnMut(Replay<'_>)) -> ScanStep {
        match &self.state {
            State::Ended(end) => return end.clone(),
            State::Ask | State::Asked => return ScanStep::Pending,
            State::Loaded => {}
        }
        let segment = self.segment.take().expect("it was loaded");
        let bytes = &segment.bytes()[..self.window.1 * BLOCK_BYTES];
        match self.phase {
            Phase::Follow => self.follow(bytes, replay),
            Phase::Prove(proof) => self.prove(bytes, proof),
            Phase::Search => self.search(bytes),
            Phase::Blank => panic!("nothing is read any more"),
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

    /// Replays the groups in the window; ends in a new window, or in the next phase.
    fn follow(&mut self, bytes: &[u8], mut replay: impl FnMut(Replay<'_>)) {
        loop {
            if self.at.position == self.limit {
                self.state = State::Ended(ScanStep::Done(self.at));
                return;
            }
            let from = usize::try_from(self.at.position - self.window.0).expect("in the window");
            if from >= self.window.1 {
                return self.look_at(self.at.position);
            }
            let bytes = &bytes[from * BLOCK_BYTES..];
            match self.parse(bytes) {
                Parsed::Group(header, end, Body::Damaged)
                    if end.lsn > self.proven && !bdev::planted(bdev::Planted::TornIsDamage) =>
                {
                    let (epoch, left) = (header.epoch.get(), PROOF_GROUPS_MAX);
                    return self.ask(Proof { end: end.lsn, next: end, epoch, left });
                }
                Parsed::Group(header, end, body) => {
                    self.replay_group(&header, bytes, body, &mut replay);
                    self.epoch = header.epoch.get();
                    self.at = end;
                    replay(Replay::Boundary(end));
                }
                Parsed::Short if from > 0 => return self.look_at(self.at.position),
                Parsed::Short | Parsed::Invalid => return self.begin_search(),
            }
        }
    }

    fn replay_group(
        &self,
        header: &GroupHeader,
        bytes: &[u8],
        body: Body,
        replay: &mut impl FnMut(Replay<'_>),
    ) {
        let mut lsn = self.at.lsn;
        for_each_checked(header, bytes, body, |record, block, damaged| {
            let payload = self.at.position + block;
            replay(Replay::Record { lsn, record, payload, damaged });
            lsn = lsn.after(1);
        });
    }

    /// The boundary behind a group, if its header says that it follows `at`.
    fn follows(&self, header: &GroupHeader, at: Point, epoch: u64) -> Option<Point> {
        let end = end_of(header, at)?;
        let blocks = blocks_of(header) as u64;
        let left = self.config.ring_left(at.position);
        let chained = header.chain.get() == at.chain && header.epoch.get() >= epoch;
        let same_mount = epoch == 0 || header.epoch.get() == epoch;
        let expected = header.position.get() == at.position
            && header.lsn.get() == at.lsn.0
            && (chained || bdev::planted(bdev::Planted::NoChainCheck))
            && (same_mount || !bdev::planted(bdev::Planted::LaterMountForgotten))
            && header.durable.get() <= header.lsn.get();
        let inside = blocks <= left && end.position <= self.limit;
        let of_kind = match header.kind.get() {
            KIND_SKIP => header.records.get() == 0 && blocks == left,
            kind => kind == KIND_RECORDS,
        };
        let any = bdev::planted(bdev::Planted::StaleTail);
        ((expected || any) && inside && of_kind).then_some(end)
    }

    /// The group at the front of `bytes`, if it is the one that follows `self.at`.
    fn parse(&self, bytes: &[u8]) -> Parsed {
        let header = match header_at(bytes, &self.config.store) {
            Front::Header(header) => header,
            Front::Short => return Parsed::Short,
            Front::Nothing => return Parsed::Invalid,
        };
        let Some(end) = self.follows(&header, self.at, self.epoch) else {
            return Parsed::Invalid;
        };
        if header.kind.get() == KIND_SKIP {
            return Parsed::Group(header, end, Body::Whole);
        }
        if blocks_of(&header) * BLOCK_BYTES > bytes.len() {
            return Parsed::Short;
        }
        match body_of(&header, bytes) {
            Body::Nonsense => Parsed::Invalid,
            body => Parsed::Group(header, end, body),
        }
    }

    /// Asks the next header whether the damaged group at `self.at` was durable.
    fn ask(&mut self, proof: Proof) {
        if proof.left == 0 || proof.next.position == self.limit {
            return self.begin_search();
        }
        self.phase = Phase::Prove(proof);
        self.look_at(proof.next.position);
        self.window.1 = self.window.1.min(HEADER_BLOCKS_MAX);
    }

    /// A header in the chain behind a damaged group is here. A group is torn only while it is in
    /// flight, and none of the few that are sealed meanwhile says that it is durable.
    fn prove(&mut self, bytes: &[u8], proof: Proof) {
        let Front::Header(header) = header_at(bytes, &self.config.store) else {
            return self.begin_search();
        };
        let Some(next) = self.follows(&header, proof.next, proof.epoch) else {
            return self.begin_search();
        };
        let durable = Lsn(header.durable.get());
        if durable < proof.end {
            let (epoch, left) = (header.epoch.get(), proof.left - 1);
            return self.ask(Proof { next, epoch, left, ..proof });
        }
        self.proven = durable;
        self.phase = Phase::Follow;
        self.look_at(self.at.position);
    }

    fn begin_search(&mut self) {
        self.phase = Phase::Search;
        self.look_at(self.at.position);
    }

    /// The log ends at `self.at`, where there is room for another group.
    fn blank(&mut self) {
        self.phase = Phase::Blank;
        self.window = (self.at.position, 1);
        self.state = State::Ask;
    }

    /// Looks for a group that proves that the record after `self.at` was durable.
    fn search(&mut self, bytes: &[u8]) {
        let (start, blocks) = self.window;
        for index in 0..blocks {
            let position = start + index as u64;
            if position == self.at.position {
                continue;
            }
            let bytes = &bytes[index * BLOCK_BYTES..];
            let Front::Header(header) = header_at(bytes, &self.config.store) else { continue };
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
            self.blank();
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
