//! The log as its users see it: what was appended comes back, what was damaged does not.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test: a panic is how it fails, and its numbers are small"
)]

use bdev::{Completion, Data, Fifo, Op, Pool, PoolConfig, Request, Rng, Status};
use wal::{
    AppendError, BLOCK_BYTES, Config, Event, Lsn, Point, Record, Replay, Scan, ScanError, ScanStep,
    Wal, crc32c,
};

const BLOCKS: u64 = 170;
const STORE: [u8; 16] = [7; 16];

fn config(epoch: u64) -> Config {
    Config { group_bytes: wal::GROUP_BYTES_MIN, ..Config::new(STORE, epoch, 8192, BLOCKS) }
}

fn pool() -> Pool {
    Pool::new(&PoolConfig { segments: [8, 0, 0, 8, 2], huge_pages: false }).unwrap()
}

/// A record as the tests remember it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    lsn: u64,
    volume: u32,
    block: u64,
    data: Vec<u8>,
}

/// A disk that executes what it is told to, when it is told to.
struct Disk {
    bytes: Vec<u8>,
}

impl Disk {
    fn new() -> Disk {
        Disk { bytes: vec![0; 8192 + BLOCKS as usize * BLOCK_BYTES] }
    }

    fn run(&mut self, request: Request) -> Completion {
        let sectors = request.blocks as usize * 8;
        self.run_part(request, sectors)
    }

    /// Executes only the first `sectors` sectors of a write.
    fn run_part(&mut self, mut request: Request, sectors: usize) -> Completion {
        let at = usize::try_from(request.lba.byte_offset(4096)).unwrap();
        let len = request.blocks as usize * BLOCK_BYTES;
        match (request.op, &mut request.data) {
            (Op::Read, Data::Into(buf)) => {
                buf.bytes_mut()[..len].copy_from_slice(&self.bytes[at..at + len]);
            }
            (Op::Write, Data::From(buf)) => {
                let len = len.min(sectors * 512);
                self.bytes[at..at + len].copy_from_slice(&buf.bytes()[..len]);
            }
            _ => panic!("the log only reads and writes"),
        }
        request.complete(Status::Ok)
    }

    fn byte_of(position: u64) -> usize {
        8192 + usize::try_from(position % BLOCKS).unwrap() * BLOCK_BYTES
    }
}

fn append(log: &mut Wal, volume: u32, block: u64, data: &[u8]) -> Result<Lsn, AppendError> {
    let crcs: Vec<u32> = data.chunks(BLOCK_BYTES).map(crc32c).collect();
    log.append(&Record::Write { volume, block, crcs: &crcs }, &[data])
}

/// Writes everything out and returns the groups that became durable.
fn settle(log: &mut Wal, disk: &mut Disk) -> Vec<wal::Group> {
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

fn recover(disk: &mut Disk, pool: &Pool, tail: Point) -> (Vec<Seen>, ScanStep) {
    let mut scan = Scan::new(config(9), tail, pool.take(Scan::SEGMENT_BYTES).unwrap());
    let mut requests = Fifo::new(1);
    let mut seen = Vec::new();
    loop {
        scan.poll_requests(&mut requests);
        if let Some(request) = requests.pop() {
            scan.on_completion(disk.run(request));
        }
        let step = scan.step(|replay| {
            let Replay::Record { lsn, record, payload } = replay else { return };
            let Record::Write { volume, block, crcs } = record else { return };
            let at = Disk::byte_of(payload);
            let data = disk.bytes[at..at + crcs.len() * BLOCK_BYTES].to_vec();
            seen.push(Seen { lsn: lsn.0, volume, block, data });
        });
        if step != ScanStep::Pending {
            return (seen, step);
        }
    }
}

fn block_of(seed: u64, blocks: usize) -> Vec<u8> {
    let mut data = vec![0; blocks * BLOCK_BYTES];
    Rng::new(seed).fill(&mut data);
    data
}

/// Three groups of one, three and one blocks; returns the disk, the groups and what was appended.
fn three_groups(pool: &Pool) -> (Disk, Vec<wal::Group>, Vec<Seen>) {
    let mut disk = Disk::new();
    let mut log = Wal::new(config(1), Point::START, Point::START, pool).unwrap();
    let mut groups = Vec::new();
    let mut seen = Vec::new();
    for (index, blocks) in [1usize, 3, 1].into_iter().enumerate() {
        let data = block_of(index as u64, blocks);
        let lsn = append(&mut log, 5, index as u64 * 10, &data).unwrap();
        seen.push(Seen { lsn: lsn.0, volume: 5, block: index as u64 * 10, data });
        groups.extend(settle(&mut log, &mut disk));
    }
    (disk, groups, seen)
}

#[test]
fn what_was_appended_is_replayed() {
    let pool = pool();
    let (mut disk, groups, seen) = three_groups(&pool);
    let (replayed, step) = recover(&mut disk, &pool, Point::START);
    assert_eq!(replayed, seen);
    assert_eq!(step, ScanStep::Done(groups[2].end));
    let (replayed, step) = recover(&mut disk, &pool, groups[0].end);
    assert_eq!(replayed, seen[1..]);
    assert_eq!(step, ScanStep::Done(groups[2].end));
}

#[test]
fn every_flipped_byte_is_detected() {
    let pool = pool();
    let (mut disk, groups, seen) = three_groups(&pool);
    let (second, third) = (groups[0].end.position, groups[1].end.position);
    let end = groups[2].end.position;
    for at in Disk::byte_of(second)..Disk::byte_of(end) {
        // All of the headers, and a sample of the payload, whose CRC sees every byte alike.
        let header = [second, third]
            .iter()
            .any(|&p| (Disk::byte_of(p)..Disk::byte_of(p) + BLOCK_BYTES).contains(&at));
        if (header && at % 3 != 0 && at % 4096 > 300) || (!header && at % 61 != 0) {
            continue;
        }
        disk.bytes[at] ^= 1 << (at % 8);
        let (replayed, step) = recover(&mut disk, &pool, Point::START);
        if at < Disk::byte_of(third) {
            // The third group says that the second was durable.
            let ScanStep::Failed(ScanError::Corrupt { first, next, .. }) = step else {
                panic!("byte {at}: {step:?}");
            };
            assert_eq!((first, next), (Lsn(2), Lsn(3)));
            assert_eq!(replayed, seen[..1]);
        } else {
            assert_eq!(step, ScanStep::Done(groups[1].end), "byte {at}");
            assert_eq!(replayed, seen[..2]);
        }
        disk.bytes[at] ^= 1 << (at % 8);
    }
}

#[test]
fn torn_group_is_not_replayed() {
    let pool = pool();
    for torn in 0..32 {
        let mut disk = Disk::new();
        let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
        append(&mut log, 1, 0, &block_of(1, 1)).unwrap();
        settle(&mut log, &mut disk);
        append(&mut log, 1, 1, &block_of(2, 3)).unwrap();
        let mut requests = Fifo::new(4);
        log.poll_requests(&mut requests);
        disk.run_part(requests.pop().unwrap(), torn);
        let (replayed, step) = recover(&mut disk, &pool, Point::START);
        assert_eq!(replayed.len(), 1, "{torn} of 32 sectors written");
        assert_eq!(step, ScanStep::Done(log.durable()));
    }
}

#[test]
fn group_behind_a_lost_one_is_not_replayed() {
    let pool = pool();
    let mut disk = Disk::new();
    let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
    append(&mut log, 1, 0, &block_of(1, 9)).unwrap();
    append(&mut log, 1, 9, &block_of(2, 9)).unwrap();
    append(&mut log, 1, 18, &block_of(3, 9)).unwrap();
    let mut requests = Fifo::new(4);
    log.poll_requests(&mut requests);
    assert_eq!(requests.len(), 2, "a full group does not wait, the open one does");
    requests.pop();
    log.on_completion(disk.run(requests.pop().unwrap()));
    assert_eq!(log.poll_event(), None, "durable in order only");
    let (replayed, step) = recover(&mut disk, &pool, Point::START);
    assert_eq!((replayed, step), (vec![], ScanStep::Done(Point::START)));

    // The next incarnation fills the gap with a group of the same size; the old second group then
    // lies exactly where the next is expected, with the right number, and is not replayed.
    drop((log, requests));
    let mut log = Wal::new(config(2), Point::START, Point::START, &pool).unwrap();
    append(&mut log, 1, 0, &block_of(4, 9)).unwrap();
    settle(&mut log, &mut disk);
    let (replayed, step) = recover(&mut disk, &pool, Point::START);
    assert_eq!(replayed.len(), 1);
    assert_eq!(step, ScanStep::Done(log.durable()));
}

#[test]
fn records_kept_together_are_one_group_however_full_it_was() {
    let pool = pool();
    for before in 0..14usize {
        let mut disk = Disk::new();
        let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
        for index in 0..before {
            append(&mut log, 5, index as u64, &block_of(index as u64, 1)).unwrap();
            // Header space runs out as well as payload.
            log.append(&Record::Create { volume: 1, body: &[7; 512] }, &[]).unwrap();
        }
        let body = [1; 96];
        let record = |snapshot| Record::Snapshot { volume: 5, snapshot, body: &body };
        log.keep_together(64 * record(0).entry_len(), 0).unwrap();
        let lsns: Vec<_> = (0..64).map(|id| log.append(&record(id), &[]).unwrap()).collect();
        let groups = settle(&mut log, &mut disk);
        let home = |lsn: &Lsn| {
            let holds = |group: &wal::Group| {
                (group.first.0..group.first.0 + u64::from(group.records)).contains(&lsn.0)
            };
            groups.iter().position(holds).unwrap()
        };
        assert!(lsns.iter().all(|lsn| home(lsn) == home(&lsns[0])), "after {before}");
    }
}

#[test]
fn full_ring_is_back_pressure() {
    let pool = pool();
    let mut disk = Disk::new();
    let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
    let data = block_of(1, 4);
    let mut points = Vec::new();
    loop {
        match append(&mut log, 1, 0, &data) {
            Ok(_) => points.extend(settle(&mut log, &mut disk)),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                break;
            }
        }
    }
    assert_eq!(log.used_blocks(), BLOCKS, "five blocks a group");
    let next = log.next_lsn();
    assert_eq!(append(&mut log, 1, 0, &data), Err(AppendError::Full));
    log.trim(points[0].end);
    assert_eq!(append(&mut log, 1, 0, &data), Ok(next));
    settle(&mut log, &mut disk);
    let (replayed, step) = recover(&mut disk, &pool, points[0].end);
    assert_eq!(replayed.len(), points.len());
    assert_eq!(step, ScanStep::Done(log.durable()));
}

#[test]
fn staging_segments_all_in_flight_is_back_pressure() {
    let pool = pool();
    let mut disk = Disk::new();
    let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
    let data = block_of(1, 17);
    let mut requests = Fifo::new(8);
    for _ in 0..4 {
        append(&mut log, 1, 0, &data).unwrap();
        log.poll_requests(&mut requests);
    }
    assert_eq!(append(&mut log, 1, 0, &data), Err(AppendError::Busy));
    while let Some(request) = requests.pop() {
        log.on_completion(disk.run(request));
    }
    while log.poll_event().is_some() {}
    append(&mut log, 1, 0, &data).unwrap();
}

#[test]
fn failing_device_is_retried_and_then_said() {
    let pool = pool();
    let mut disk = Disk::new();
    let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
    append(&mut log, 1, 0, &block_of(1, 1)).unwrap();
    let mut requests = Fifo::new(8);
    log.poll_requests(&mut requests);
    log.on_completion(requests.pop().unwrap().complete(Status::Io));
    assert_eq!(settle(&mut log, &mut disk).len(), 1, "the second attempt succeeds");
    append(&mut log, 1, 0, &block_of(2, 1)).unwrap();
    for _ in 0..wal::ATTEMPTS_MAX {
        assert_eq!(log.poll_event(), None);
        log.poll_requests(&mut requests);
        log.on_completion(requests.pop().unwrap().complete(Status::Io));
    }
    assert_eq!(log.poll_event(), Some(Event::Failed(Status::Io)));
    assert_eq!(log.poll_event(), None);
    assert_eq!(append(&mut log, 1, 0, &block_of(3, 1)), Err(AppendError::Failed));
}

#[test]
fn log_of_another_store_is_empty() {
    let pool = pool();
    let (mut disk, ..) = three_groups(&pool);
    let at = Disk::byte_of(0) + 16;
    for group in 0..BLOCKS as usize {
        disk.bytes[at + group * BLOCK_BYTES] ^= 1;
    }
    let (replayed, step) = recover(&mut disk, &pool, Point::START);
    assert_eq!((replayed, step), (vec![], ScanStep::Done(Point::START)));
}

#[test]
fn ring_too_small_for_its_groups_is_refused() {
    let pool = pool();
    let small = Config { blocks: 167, ..config(1) };
    let error = Wal::new(small, Point::START, Point::START, &pool).unwrap_err();
    assert_eq!(error, wal::OpenError::RingTooSmall { blocks: 167, min: 168 });
    let odd = Config { group_bytes: wal::GROUP_BYTES_MIN + 1, ..config(1) };
    assert!(Wal::new(odd, Point::START, Point::START, &pool).is_err());
    let tiny = Config { group_bytes: wal::GROUP_BYTES_MIN - BLOCK_BYTES, ..config(1) };
    assert!(Wal::new(tiny, Point::START, Point::START, &pool).is_err());
}

#[test]
fn smallest_ring_takes_a_write_of_64_kib_that_starts_inside_a_block() {
    let pool = pool();
    let mut disk = Disk::new();
    let config = Config { blocks: 168, ..config(1) };
    let mut log = Wal::new(config, Point::START, Point::START, &pool).unwrap();
    let data = block_of(1, 17);
    let (edges, middle) = data.split_at(BLOCK_BYTES);
    let crcs: Vec<u32> = data.chunks(BLOCK_BYTES).map(crc32c).collect();
    let record = Record::Write { volume: 1, block: 0, crcs: &crcs };
    log.append(&record, &[edges, middle, &[]]).unwrap();
    let groups = settle(&mut log, &mut disk);
    assert_eq!((groups.len(), groups[0].records), (1, 1));
    let (replayed, _) = recover(&mut disk, &pool, Point::START);
    assert_eq!(replayed.len(), 1);
}

/// Laps of the ring with random groups, trims and power cuts: what is replayed is always a prefix
/// of what was appended, and never shorter than what was durable.
#[test]
fn random_laps_and_crashes_keep_every_durable_record() {
    let seed = env("FUZZ_SEED", 1);
    let pool = pool();
    for seed in seed..seed + env("FUZZ_ROUNDS", 12) {
        println!("reproduce with FUZZ_SEED={seed} FUZZ_ROUNDS=1");
        laps(&pool, seed);
    }
}

fn laps(pool: &Pool, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut disk = Disk::new();
    let (mut tail, mut head) = (Point::START, Point::START);
    let mut live: Vec<Seen> = Vec::new();
    for epoch in 1..12 {
        let mut log = Wal::new(config(epoch), tail, head, pool).unwrap();
        let mut requests = Fifo::new(8);
        let mut ends = vec![tail, head];
        for _ in 0..rng.between(1, 120) {
            let data = block_of(rng.next_u64(), 1 + rng.index(12).unwrap());
            let block = rng.below(1000);
            match append(&mut log, 3, block, &data) {
                Ok(lsn) => live.push(Seen { lsn: lsn.0, volume: 3, block, data }),
                Err(AppendError::Full) => {
                    tail = ends[rng.index(ends.len()).unwrap()];
                    if tail.position >= log.tail().position {
                        log.trim(tail);
                    }
                    tail = log.tail();
                    live.retain(|seen| seen.lsn >= tail.lsn.0);
                }
                Err(error) => assert_eq!(error, AppendError::Busy),
            }
            log.poll_requests(&mut requests);
            while rng.chance(2, 3) {
                // Completions come in any order.
                for _ in 0..rng.below(3) {
                    if let Some(request) = requests.pop() {
                        requests.push(request).unwrap();
                    }
                }
                let Some(request) = requests.pop() else { break };
                log.on_completion(disk.run(request));
            }
            while let Some(Event::Durable(group)) = log.poll_event() {
                ends.push(group.end);
            }
        }
        let durable = log.durable();
        // Power cut: what is in flight is written in part, or not.
        while let Some(request) = requests.pop() {
            let sectors = usize::try_from(rng.below(130)).unwrap();
            disk.run_part(request, sectors);
        }
        let (replayed, step) = recover(&mut disk, pool, tail);
        let ScanStep::Done(end) = step else { panic!("FUZZ_SEED={seed}: {step:?}") };
        assert!(end.lsn >= durable.lsn, "FUZZ_SEED={seed}");
        assert!(replayed.len() <= live.len(), "FUZZ_SEED={seed}");
        assert_eq!(replayed, live[..replayed.len()], "FUZZ_SEED={seed}");
        assert_eq!(end.lsn.0, tail.lsn.0 + replayed.len() as u64, "FUZZ_SEED={seed}");
        live = replayed;
        head = end;
    }
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
