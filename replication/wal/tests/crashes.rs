//! Power cuts, one after the other: what a recovery has found stays found, what it has not found
//! never comes back.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Fifo, Pool, Request, Rng, Status};
use support::{
    BLOCKS, Disk, PowerCut, Seen, append, block_of, config, env, pool, recover, settle, try_recover,
};
use wal::{AppendError, BLOCK_BYTES, Event, Point, Record, ScanError, ScanStep, Wal};

/// A ring full of the remains of something else.
fn used_disk(seed: u64) -> Disk {
    let mut disk = Disk::new();
    Rng::new(seed).fill(&mut disk.bytes);
    disk
}

/// A record without payload: its group is one block, and all it says is in the first sector.
fn append_zero(log: &mut Wal, block: u64) {
    log.append(&Record::Zero { volume: 1, block, blocks: 1 }, &[]).unwrap();
}

/// Seals what is open; the writes that are due.
fn requests_of(log: &mut Wal) -> Fifo<Request> {
    let mut requests = Fifo::new(8);
    log.poll_requests(&mut requests);
    requests
}

fn blocks_of(replayed: &[Seen]) -> Vec<u64> {
    replayed.iter().map(|seen| seen.block).collect()
}

fn done(step: ScanStep) -> Point {
    let ScanStep::Done(head) = step else { panic!("{step:?}") };
    head
}

/// The first life tears a group so that `first` of its sectors are written, the second life tears
/// the group that it writes there so that the others are: together they would be the first group.
#[test]
fn two_torn_groups_never_make_one_whole() {
    let (pool, used) = (pool(), used_disk(1));
    for first in 0..255u32 {
        let mut disk = Disk { bytes: used.bytes.clone() };
        let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
        append_zero(&mut log, 10);
        settle(&mut log, &mut disk);
        append_zero(&mut log, 20);
        disk.tear(requests_of(&mut log).pop().unwrap(), |sector| first >> sector & 1 == 1);
        drop(log);
        let (replayed, step) = recover(&mut disk, &pool, Point::START);
        assert_eq!(blocks_of(&replayed), [10], "sectors {first:#b}");

        let mut log = Wal::new(config(2), Point::START, done(step), &pool).unwrap();
        append_zero(&mut log, 30);
        disk.tear(requests_of(&mut log).pop().unwrap(), |sector| first >> sector & 1 == 0);
        drop(log);
        let (replayed, _) = recover(&mut disk, &pool, Point::START);
        assert_ne!(blocks_of(&replayed), [10, 20], "sectors {first:#b}");
    }
}

/// Four groups in flight, the first of them torn: none of the others ever joins a later life,
/// wherever its groups end and wherever its tail is.
#[test]
fn whole_groups_behind_a_torn_one_never_come_back() {
    let pool = pool();
    for blocks in [9, 16] {
        let mut disk = used_disk(1);
        let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
        let mut requests = Fifo::new(8);
        for block in [10, 20, 30, 40] {
            append(&mut log, 1, block, &block_of(block, 16)).unwrap();
            log.poll_requests(&mut requests);
        }
        assert_eq!(requests.len(), 4);
        disk.tear(requests.pop().unwrap(), |sector| sector < 9);
        while let Some(request) = requests.pop() {
            disk.run(request);
        }
        let (replayed, mut step) = recover(&mut disk, &pool, Point::START);
        assert_eq!(replayed, []);
        let (mut tail, mut expected) = (Point::START, Vec::new());
        for (epoch, block) in (2..).zip([50, 60, 70, 80]) {
            let mut log = Wal::new(config(epoch), tail, done(step), &pool).unwrap();
            append(&mut log, 1, block, &block_of(block, blocks)).unwrap();
            settle(&mut log, &mut disk);
            expected.push(block);
            if epoch == 3 {
                // Nothing is left of the chain before this point but its value.
                (tail, expected) = (log.durable(), Vec::new());
            }
            let (replayed, end) = recover(&mut disk, &pool, tail);
            assert_eq!(blocks_of(&replayed), expected);
            step = end;
        }
    }
}

/// The group that only leads to the start of the ring is torn, and the group there is whole.
#[test]
fn torn_skip_never_comes_back() {
    let (pool, used) = (pool(), used_disk(1));
    for first in 0..255u32 {
        let mut disk = Disk { bytes: used.bytes.clone() };
        // Four blocks before the end of the ring, everything before is trimmed.
        let start = Point { position: BLOCKS - 4, ..Point::START };
        let mut log = Wal::new(config(1), start, start, &pool).unwrap();
        append(&mut log, 1, 10, &block_of(1, 8)).unwrap();
        let mut requests = requests_of(&mut log);
        assert_eq!(requests.len(), 2);
        disk.tear(requests.pop().unwrap(), |sector| first >> sector & 1 == 1);
        disk.run(requests.pop().unwrap());
        drop(log);
        let (replayed, step) = recover(&mut disk, &pool, start);
        assert_eq!(replayed, []);

        let mut log = Wal::new(config(2), start, done(step), &pool).unwrap();
        append_zero(&mut log, 20);
        disk.tear(requests_of(&mut log).pop().unwrap(), |sector| first >> sector & 1 == 0);
        drop(log);
        let (replayed, _) = recover(&mut disk, &pool, start);
        assert_ne!(blocks_of(&replayed), [10], "sectors {first:#b}");
    }
}

#[test]
fn full_ring_loses_nothing_to_recovery() {
    let pool = pool();
    let mut disk = used_disk(1);
    let mut log = Wal::new(config(1), Point::START, Point::START, &pool).unwrap();
    let mut groups = 0;
    while append(&mut log, 1, groups, &block_of(groups, 4)) != Err(AppendError::Full) {
        settle(&mut log, &mut disk);
        groups += 1;
    }
    assert_eq!(log.used_blocks(), BLOCKS, "the next group goes where the first one is");
    for _ in 0..2 {
        let (replayed, step) = recover(&mut disk, &pool, Point::START);
        assert_eq!(replayed.len() as u64, groups);
        assert_eq!(done(step), log.durable());
    }
}

#[test]
fn end_of_the_log_that_cannot_be_written_is_tried_again_and_then_said() {
    let pool = pool();
    let mut disk = used_disk(1);
    for (failures, fails) in [(wal::ATTEMPTS_MAX - 1, false), (wal::ATTEMPTS_MAX, true)] {
        let mut left = failures;
        let (_, step) = try_recover(&mut disk, &pool, Point::START, |disk, request| {
            if left == 0 {
                return Ok(disk.run(request));
            }
            left -= 1;
            Ok(request.complete(Status::Io))
        })
        .unwrap();
        let error = ScanError::Blank { byte: Disk::byte_of(0) as u64, status: Status::Io };
        let failed = ScanStep::Failed(error);
        assert_eq!(step, if fails { failed } else { ScanStep::Done(Point::START) });
    }
}

/// Laps of the ring with random groups, trims and power cuts, also while recovering: what is
/// replayed is always a prefix of what the last recovery replayed and was appended since, and never
/// shorter than what was durable.
#[test]
fn random_laps_and_crashes_keep_every_durable_record() {
    let seed = env("FUZZ_SEED", 1);
    let pool = pool();
    for seed in seed..seed + env("FUZZ_ROUNDS", 6) {
        println!("reproduce with FUZZ_SEED={seed} FUZZ_ROUNDS=1");
        let mut laps = Laps {
            pool: &pool,
            rng: Rng::new(seed),
            disk: Disk::new(),
            tail: Point::START,
            live: Vec::new(),
            label: format!("FUZZ_SEED={seed}"),
        };
        let mut head = Point::START;
        for epoch in 1..24 {
            let log = Wal::new(config(epoch), laps.tail, head, &pool).unwrap();
            let durable = laps.life(log);
            head = laps.recover(durable);
        }
    }
}

struct Laps<'a> {
    pool: &'a Pool,
    rng: Rng,
    disk: Disk,
    tail: Point,
    /// What is in the log, if nothing is lost.
    live: Vec<Seen>,
    label: String,
}

impl Laps<'_> {
    /// Appends until the power fails; what was durable then.
    fn life(&mut self, mut log: Wal) -> Point {
        let mut requests = Fifo::new(8);
        let mut ends = vec![log.tail(), log.durable()];
        let most = if self.rng.chance(1, 2) { 120 } else { 3 };
        for _ in 0..self.rng.between(1, most) {
            self.append(&mut log, &ends);
            log.poll_requests(&mut requests);
            while self.rng.chance(2, 3) {
                // Completions come in any order.
                for _ in 0..self.rng.below(3) {
                    if let Some(request) = requests.pop() {
                        requests.push(request).unwrap();
                    }
                }
                let Some(request) = requests.pop() else { break };
                log.on_completion(self.disk.run(request));
            }
            while let Some(Event::Durable(group)) = log.poll_event() {
                ends.push(group.end);
            }
        }
        while let Some(request) = requests.pop() {
            self.tear(request);
        }
        log.durable()
    }

    fn append(&mut self, log: &mut Wal, ends: &[Point]) {
        // Few different contents: a host that got no answer writes the same again.
        let blocks = self.rng.index(12).unwrap();
        let data = block_of(self.rng.below(2), blocks);
        let (volume, block) = (3, self.rng.below(1000));
        let appended = match blocks {
            0 => log.append(&Record::Zero { volume, block, blocks: 1 }, &[]),
            _ => append(log, volume, block, &data),
        };
        match appended {
            Ok(lsn) => self.live.push(Seen { lsn: lsn.0, volume, block, data, damaged: 0 }),
            Err(AppendError::Full) => {
                let point = ends[self.rng.index(ends.len()).unwrap()];
                if point.position >= log.tail().position {
                    log.trim(point);
                }
                self.tail = log.tail();
                self.live.retain(|seen| seen.lsn >= self.tail.lsn.0);
            }
            Err(error) => assert_eq!(error, AppendError::Busy),
        }
    }

    /// What is in flight when the power fails is written in part, or not.
    fn tear(&mut self, request: Request) {
        let rng = &mut self.rng;
        let (style, few) = (rng.below(5), rng.index(3).unwrap());
        let some = rng.index(130).unwrap();
        self.disk.tear(request, |sector| match style {
            0 => true,
            1 => sector < some,
            2 => sector < few,
            3 => sector >= few,
            _ => rng.chance(1, 2),
        });
    }

    /// Recovers, sometimes through further power cuts, and compares; where the log ends.
    fn recover(&mut self, durable: Point) -> Point {
        let mut cuts = self.rng.below(3);
        let (replayed, step) = loop {
            let rng = &mut self.rng;
            let cut = cuts > 0;
            let recovered = try_recover(&mut self.disk, self.pool, self.tail, |disk, request| {
                if cut {
                    disk.tear(request, |_| rng.chance(1, 2));
                    return Err(PowerCut);
                }
                Ok(disk.run(request))
            });
            match recovered {
                Ok(recovered) => break recovered,
                Err(PowerCut) => cuts -= 1,
            }
        };
        let (label, end) = (&self.label, done(step));
        assert!(end.lsn >= durable.lsn, "{label}");
        assert!(replayed.len() <= self.live.len(), "{label}");
        assert_eq!(replayed, self.live[..replayed.len()], "{label}");
        assert_eq!(end.lsn.0, self.tail.lsn.0 + replayed.len() as u64, "{label}");
        self.live = replayed;
        end
    }
}

const _: () = assert!(BLOCK_BYTES == 8 * 512);
