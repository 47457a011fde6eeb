//! What the tests of the log share: a disk in memory that stops where it is told to, and recovery.

#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "each test binary uses its part, and numbers are small"
)]

use bdev::{Completion, Data, Fifo, Op, Pool, PoolConfig, Request, Rng, Status};
use wal::{
    AppendError, BLOCK_BYTES, Config, Event, Lsn, Point, Record, Replay, Scan, ScanStep, Wal,
    crc32c,
};

pub(crate) const BLOCKS: u64 = 170;
pub(crate) const STORE: [u8; 16] = [7; 16];

pub(crate) fn config(epoch: u64) -> Config {
    Config { group_bytes: wal::GROUP_BYTES_MIN, ..Config::new(STORE, epoch, 8192, BLOCKS) }
}

pub(crate) fn pool() -> Pool {
    Pool::new(&PoolConfig { segments: [8, 0, 0, 8, 2], huge_pages: false }).unwrap()
}

/// A record as the tests remember it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) lsn: u64,
    pub(crate) volume: u32,
    pub(crate) block: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) damaged: u64,
}

/// A disk that executes what it is told to, when it is told to.
pub(crate) struct Disk {
    pub(crate) bytes: Vec<u8>,
}

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk { bytes: vec![0; 8192 + BLOCKS as usize * BLOCK_BYTES] }
    }

    pub(crate) fn run(&mut self, request: Request) -> Completion {
        self.tear(request, |_| true)
    }

    /// Executes a write on the sectors of 512 bytes that `keeps` chooses.
    pub(crate) fn tear(
        &mut self,
        mut request: Request,
        mut keeps: impl FnMut(usize) -> bool,
    ) -> Completion {
        let at = usize::try_from(request.lba.byte_offset(4096)).unwrap();
        let len = request.blocks as usize * BLOCK_BYTES;
        match (request.op, &mut request.data) {
            (Op::Read, Data::Into(buf)) => {
                buf.bytes_mut()[..len].copy_from_slice(&self.bytes[at..at + len]);
            }
            (Op::Write, Data::From(buf)) => {
                let sectors = self.bytes[at..at + len].chunks_exact_mut(512);
                for (number, (old, new)) in sectors.zip(buf.bytes().chunks_exact(512)).enumerate() {
                    if keeps(number) {
                        old.copy_from_slice(new);
                    }
                }
            }
            _ => panic!("the log only reads and writes"),
        }
        request.complete(Status::Ok)
    }

    pub(crate) fn byte_of(position: u64) -> usize {
        8192 + usize::try_from(position % BLOCKS).unwrap() * BLOCK_BYTES
    }
}

pub(crate) fn append(
    log: &mut Wal,
    volume: u32,
    block: u64,
    data: &[u8],
) -> Result<Lsn, AppendError> {
    let crcs: Vec<u32> = data.chunks(BLOCK_BYTES).map(crc32c).collect();
    log.append(&Record::Write { volume, block, crcs: &crcs }, &[data])
}

/// Writes everything out and returns the groups that became durable.
pub(crate) fn settle(log: &mut Wal, disk: &mut Disk) -> Vec<wal::Group> {
    let mut groups = Vec::new();
    let mut requests = Fifo::new(8);
    while !log.is_idle() {
        log.poll_requests(&mut requests);
        while let Some(request) = requests.pop() {
            log.on_completion(disk.run(request));
        }
        while let Some(Event::Durable(group)) = log.poll_event() {
            groups.push(group);
        }
    }
    groups
}

/// What recovery replays, and how it ends.
pub(crate) fn recover(disk: &mut Disk, pool: &Pool, tail: Point) -> (Vec<Seen>, ScanStep) {
    try_recover(disk, pool, tail, |disk, request| Ok(disk.run(request))).expect("no power cut")
}

/// Recovery whose write `on_write` executes, or cuts the power at.
pub(crate) fn try_recover(
    disk: &mut Disk,
    pool: &Pool,
    tail: Point,
    mut on_write: impl FnMut(&mut Disk, Request) -> Result<Completion, PowerCut>,
) -> Result<(Vec<Seen>, ScanStep), PowerCut> {
    let mut scan = Scan::new(config(999), tail, pool.take(Scan::SEGMENT_BYTES).unwrap());
    let mut requests = Fifo::new(1);
    let mut seen = Vec::new();
    for _ in 0..STEPS_MAX {
        scan.poll_requests(&mut requests);
        if let Some(request) = requests.pop() {
            let reads = request.op == Op::Read;
            let done = if reads { disk.run(request) } else { on_write(disk, request)? };
            scan.on_completion(done);
        }
        let step = scan.step(|replay| {
            let Replay::Record { lsn, record, payload, damaged } = replay else { return };
            let (volume, block, blocks) = match record {
                Record::Write { volume, block, crcs } => (volume, block, crcs.len()),
                Record::Zero { volume, block, .. } => (volume, block, 0),
                _ => return,
            };
            let at = Disk::byte_of(payload);
            let data = disk.bytes[at..at + blocks * BLOCK_BYTES].to_vec();
            seen.push(Seen { lsn: lsn.0, volume, block, data, damaged });
        });
        if step != ScanStep::Pending {
            return Ok((seen, step));
        }
    }
    panic!("a scan of {BLOCKS} blocks does not end");
}

#[derive(Debug)]
pub(crate) struct PowerCut;

/// Far more than a scan of so small a ring takes: each block read once, some headers more often.
const STEPS_MAX: u32 = 100_000;

pub(crate) fn block_of(seed: u64, blocks: usize) -> Vec<u8> {
    let mut data = vec![0; blocks * BLOCK_BYTES];
    Rng::new(seed).fill(&mut data);
    data
}

pub(crate) fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
