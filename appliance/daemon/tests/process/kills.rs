//! kill -9 at any moment under many requests at once, also while the daemon recovers: each block
//! holds what was acknowledged, or what was sent after it, and from then on the same. Meanwhile an
//! operator takes, deletes, clones and restores snapshots, resizes and scrubs: what was answered is
//! done, and a snapshot holds what the volume did at a moment between command and answer.
//!
//! `KILLS=200 FUZZ_SEED=1` says how often, and draws what is done; `make crash KILLS=200`.

use std::path::Path;
use std::time::{Duration, Instant};

use bdev::{Bdev, Completion, Data, Fifo, Lba, Op, Pool, PoolConfig, QueueCx, Request, Rng, Tag};
use bdev_uring::{FileDisk, FileOptions};

use crate::host::{BLOCK, BLOCKS, Host, address};
use crate::ledger::Ledger;
use crate::operator::Operator;
use crate::stand::{Process, command, dir, start, start_with_volume};

/// How often the daemon is killed when nobody asks for more.
const KILLS_DEFAULT: u64 = 6;
/// Requests in flight.
const DEPTH: usize = 16;
/// Requests that are answered between two kills, at most.
const ANSWERS_MAX: u64 = 300;
/// Longest time that a daemon which is killed while it starts is left running.
const START_MS_MAX: u64 = 250;
/// Largest request in blocks: large writes do not go through the log.
const LARGE: u64 = 32;

#[test]
fn any_number_of_kills_loses_nothing_that_was_acknowledged() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let (kills, seed) = (number("KILLS", KILLS_DEFAULT), number("FUZZ_SEED", 1));
    let dir = dir();
    let dir = dir.path();
    let mut process = start_with_volume(dir);
    let mut load = Load::new(seed, dir);
    let began = Instant::now();
    for kill in 1..=kills {
        let mut host = Host::connect(address(dir)).unwrap();
        load.read_all(&mut host);
        let answers = load.rng.below(ANSWERS_MAX);
        load.run(&mut host, answers);
        process.child.kill().unwrap();
        load.crashed(&mut host);
        load.operator.crashed(&mut load.ledger);
        process.wait();
        let mut starts = 0;
        while load.rng.chance(1, 3) {
            starts += 1;
            kill_while_it_starts(dir, load.rng.below(START_MS_MAX));
        }
        assert_clean(dir, false);
        process = start(dir);
        load.operator.look();
        load.operator.read(&mut load.rng, false);
        println!("kill {kill} after {answers} answers, then {starts} while it started");
    }
    let mut host = Host::connect(address(dir)).unwrap();
    load.read_all(&mut host);
    drop(host);
    load.operator.read(&mut load.rng, true);
    process.signal("-TERM");
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{}", log.join("\n"));
    assert_clean(dir, true);
    let Load { written, checked, operator, .. } = load;
    let [snapshots, deletions, clones, restores, resizes, scrubs] = operator.done;
    let seconds = began.elapsed().as_secs();
    println!(
        "{kills} kills, seed {seed}, {seconds} s: {written} blocks acknowledged, {checked} read; \
         {snapshots} snapshots, {deletions} deletions, {clones} clones, {restores} restores, \
         {resizes} resizes, {scrubs} scrubs answered"
    );
    assert!(kills < 6 || snapshots > 0, "the operator works");
}

fn kill_while_it_starts(dir: &Path, ms: u64) {
    let mut process = Process::spawn(command(dir));
    let ended = process.run_for(Duration::from_millis(ms));
    assert!(!ended, "holdfastd does not start:\n{}", process.log.join("\n"));
    process.child.kill().unwrap();
    process.wait();
}

/// The store as it is on its file: nothing leaked, nothing twice, and with `data` every block as
/// its checksum says.
fn assert_clean(dir: &Path, data: bool) {
    let disk = FileDisk::open(&dir.join("disk"), &FileOptions::default()).unwrap();
    let pool = Pool::new(&PoolConfig::for_bytes(16 << 20)).unwrap();
    let mut queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let options = store::CheckOptions { data };
    let report = store::check(&mut *queue, disk.info(), &pool, &options);
    assert!(report.is_clean(), "{report:?}");
}

/// A host with many requests at once, and what it knows.
struct Load {
    rng: Rng,
    ledger: Ledger,
    operator: Operator,
    /// The operator gives commands.
    is_operated: bool,
    /// What is in flight, by tag.
    sent: Vec<Option<(Op, u64, u64)>>,
    written: u64,
    checked: u64,
}

impl Load {
    fn new(seed: u64, dir: &Path) -> Load {
        let (rng, ledger, sent) = (Rng::new(seed), Ledger::new(BLOCKS), vec![None; DEPTH]);
        let (operator, is_operated) = (Operator::new(dir), false);
        Load { rng, ledger, operator, is_operated, sent, written: 0, checked: 0 }
    }

    /// Reads and judges the whole volume.
    fn read_all(&mut self, host: &mut Host) {
        let mut at = 0;
        self.drive(host, u64::MAX, |_| {
            at += LARGE;
            (at <= BLOCKS).then_some((Op::Read, at - LARGE, LARGE))
        });
    }

    /// Works until so many requests have been answered; as many as fit are in flight then.
    fn run(&mut self, host: &mut Host, answers: u64) {
        self.is_operated = true;
        self.drive(host, answers, |rng| {
            let small = 1 + rng.below(8);
            let (op, blocks) = match rng.below(20) {
                0..12 => (Op::Write, small),
                12..15 => (Op::Write, LARGE / 2 * (1 + rng.below(2))),
                15 => (Op::WriteZeroes, small * 8),
                16 => (Op::Deallocate, small * 8),
                17 => (Op::Flush, 0),
                _ => (Op::Read, small),
            };
            Some((op, rng.below(BLOCKS - blocks), blocks))
        });
        self.is_operated = false;
    }

    /// Sends what `draw` says until `answers` have come, or it says no more and all have.
    fn drive(
        &mut self,
        host: &mut Host,
        answers: u64,
        mut draw: impl FnMut(&mut Rng) -> Option<(Op, u64, u64)>,
    ) {
        let (pool, queue) = host.parts();
        let (mut requests, mut completions) = (Fifo::new(DEPTH), Fifo::new(DEPTH));
        let (mut answered, mut over) = (0, false);
        while answered < answers {
            let idle = self.sent.iter().position(Option::is_none);
            if let (false, Some(tag)) = (over || requests.is_full(), idle) {
                match draw(&mut self.rng) {
                    Some(drawn) => self.send(tag, drawn, pool, &mut requests),
                    None => over = true,
                }
                continue;
            }
            queue.submit(&mut requests);
            queue.kick();
            queue.poll(&mut completions);
            while let Some(completion) = completions.pop() {
                assert!(completion.status.is_ok(), "{:?}", completion.status);
                self.answered(completion);
                answered += 1;
            }
            if over && self.sent.iter().all(Option::is_none) {
                return;
            }
            if self.is_operated {
                self.operator.step(&mut self.ledger, &mut self.rng);
            }
        }
        queue.submit(&mut requests);
        queue.kick();
    }

    fn send(
        &mut self,
        tag: usize,
        (op, lba, blocks): (Op, u64, u64),
        pool: &Pool,
        requests: &mut Fifo<Request>,
    ) {
        let range = range(lba, blocks);
        if !self.ledger.begin(range.clone()) {
            return;
        }
        self.sent[tag] = Some((op, lba, blocks));
        let (tag, count) = (Tag(u32::try_from(tag).unwrap()), u32::try_from(blocks).unwrap());
        let len = range.len() * BLOCK;
        let request = match op {
            Op::Read => Request::read(tag, Lba(lba), count, pool.take(len).unwrap()),
            Op::Write => {
                let versions = self.ledger.send(range.clone());
                self.operator.sent(range, &versions);
                let mut buffer = pool.take(len).unwrap();
                let chunks = buffer.bytes_mut()[..len].chunks_mut(BLOCK);
                for (chunk, (block, version)) in chunks.zip((lba..).zip(versions)) {
                    chunk.copy_from_slice(&crate::host::content(block, version));
                }
                Request::write(tag, Lba(lba), count, buffer.freeze())
            }
            Op::Flush => Request::flush(tag),
            _ => {
                let zeroes = self.ledger.send_zeroes(range.clone());
                self.operator.sent(range, &zeroes);
                Request::range(tag, op, Lba(lba), count)
            }
        };
        assert!(requests.push(request).is_ok(), "room was checked");
    }

    fn answered(&mut self, completion: Completion) {
        let Completion { tag, data, status } = completion;
        let sent = self.sent[usize::try_from(tag.0).unwrap()].take();
        let (op, lba, blocks) = sent.expect("one answer for each request");
        let range = range(lba, blocks);
        match (op, data) {
            _ if !status.is_ok() => {}
            (Op::Read, Data::Into(buffer)) => {
                self.ledger.judge(range.start, &buffer.bytes()[..range.len() * BLOCK]);
                self.checked += blocks;
            }
            // A deallocated block may keep what it held.
            (Op::Write | Op::WriteZeroes, _) => {
                self.ledger.acknowledge(range.clone());
                self.written += blocks;
            }
            _ => {}
        }
        self.ledger.end(range);
    }

    /// The daemon is gone: what it answered before is taken, the rest was sent and no more.
    fn crashed(&mut self, host: &mut Host) {
        let (_, queue) = host.parts();
        let (mut none, mut completions) = (Fifo::new(1), Fifo::new(DEPTH));
        while self.sent.iter().any(Option::is_some) {
            queue.submit(&mut none);
            queue.kick();
            queue.poll(&mut completions);
            while let Some(completion) = completions.pop() {
                self.answered(completion);
            }
        }
        self.ledger.crashed();
    }
}

fn range(lba: u64, blocks: u64) -> std::ops::Range<usize> {
    usize::try_from(lba).unwrap()..usize::try_from(lba + blocks).unwrap()
}
