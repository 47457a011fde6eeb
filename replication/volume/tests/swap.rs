//! Compare-and-write is atomic: no increment of many competing loops is lost, whatever else goes on
//! beside them and wherever the power fails.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Data, Fifo, Lba, Op, Queue, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, SimDisk};
use support::{Rig, env, options};
use volume::{ATOMIC_BYTES, VolumeQueue};

const SECTOR: usize = 512;
const LOOPS: usize = 6;
const COUNTERS: usize = 2;

/// Counters lie next to each other, each `len` bytes long with its value in every sector.
struct Counters {
    block_bytes: usize,
    len: usize,
}

impl Counters {
    fn blocks(&self) -> u32 {
        u32::try_from(self.len / self.block_bytes).unwrap()
    }

    /// On volumes with small blocks counters begin inside a block of 4 KiB.
    fn lba(&self, counter: usize) -> Lba {
        Lba((3 + counter * self.len / self.block_bytes) as u64)
    }

    /// Blocks before and behind the counters, some in the same blocks of 4 KiB.
    fn beside(&self, rng: &mut Rng) -> Lba {
        let end = self.lba(COUNTERS).0;
        Lba([0, 1, 2, end, end + 1, end + 2][rng.index(6).unwrap()])
    }
}

fn value_of(bytes: &[u8]) -> u64 {
    let value = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    for (at, sector) in bytes.chunks_exact(SECTOR).enumerate() {
        assert_eq!(sector[..8], value.to_le_bytes(), "sector {at} of a counter is torn");
    }
    value
}

fn fill(bytes: &mut [u8], value: u64) {
    bytes.fill(0);
    for sector in bytes.chunks_exact_mut(SECTOR) {
        sector[..8].copy_from_slice(&value.to_le_bytes());
    }
}

/// An increment that was submitted: to which value, and how many disk writes there were when it
/// succeeded.
#[derive(Clone, Copy, Debug)]
struct Increment {
    counter: usize,
    to: u64,
    done: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    Reading(usize),
    Swapping(usize),
    Writing,
}

/// Runs the loops until each has made `rounds` increments.
fn run(
    rig: &mut Rig,
    queue: &mut VolumeQueue,
    of: &Counters,
    seed: u64,
    rounds: u32,
) -> Vec<Increment> {
    let mut rng = Rng::new(seed).fork("loops");
    let mut states = [State::Idle; LOOPS + 2];
    let mut left = [rounds; LOOPS];
    let mut increments: Vec<Increment> = Vec::new();
    let (mut requests, mut done) = (Fifo::new(1), Fifo::new(16));
    let idle = |state: &State| matches!(state, State::Idle);
    while left.iter().any(|&left| left > 0) || !states.iter().all(idle) {
        let over = left.iter().all(|&left| left == 0);
        for index in 0..states.len() {
            if over || !idle(&states[index]) || !rng.chance(1, 2) {
                continue;
            }
            let tag = Tag(u32::try_from(index).unwrap());
            let request = if index >= LOOPS {
                let buf = rig.buffer(&vec![7; of.block_bytes]);
                states[index] = State::Writing;
                Request::write(tag, of.beside(&mut rng), 1, buf)
            } else if left[index] > 0 {
                let counter = rng.index(COUNTERS).unwrap();
                states[index] = State::Reading(counter);
                Request::read(tag, of.lba(counter), of.blocks(), rig.pool.take(of.len).unwrap())
            } else {
                continue;
            };
            requests.push(request).unwrap();
            queue.submit(&mut requests);
        }
        rig.turn();
        queue.poll(&mut done);
        while let Some(done) = done.pop() {
            let index = done.tag.0 as usize;
            let state = std::mem::replace(&mut states[index], State::Idle);
            match (state, done.data) {
                (State::Reading(counter), Data::Into(buf)) => {
                    let value = value_of(&buf.bytes()[..of.len]);
                    let mut both = rig.pool.take(2 * of.len).unwrap();
                    let (old, new) = both.bytes_mut()[..2 * of.len].split_at_mut(of.len);
                    fill(old, value);
                    fill(new, value + 1);
                    let (lba, both) = (of.lba(counter), both.freeze());
                    let swap = Request::compare_and_write(done.tag, lba, of.blocks(), both);
                    states[index] = State::Swapping(increments.len());
                    increments.push(Increment { counter, to: value + 1, done: None });
                    requests.push(swap).unwrap();
                    queue.submit(&mut requests);
                }
                (State::Swapping(increment), _) if done.status.is_ok() => {
                    increments[increment].done = Some(rig.disk.boundaries());
                    left[index] -= 1;
                }
                (State::Swapping(_), _) => assert_eq!(done.status, Status::Miscompare),
                (State::Writing, _) => assert_eq!(done.status, Status::Ok),
                other => panic!("{other:?}"),
            }
        }
    }
    increments
}

fn read(rig: &mut Rig, queue: &mut VolumeQueue, of: &Counters, counter: usize) -> u64 {
    let bytes = rig.read(queue, of.lba(counter).0, of.blocks()).unwrap();
    value_of(&bytes)
}

fn compete(block_bytes: u32, len: usize, seed: u64, rounds: u32) {
    println!("FUZZ_SEED={seed} FUZZ_ROUNDS=1: blocks of {block_bytes}, counters of {len}");
    let plan = FaultPlan::power_cuts(seed);
    let mut rig = Rig::create(SimDisk::new(4096, 4096, plan), 1 << 20, &options());
    let id = rig.create_volume("v", 1 << 20, block_bytes);
    let mut queue = rig.queue(id, 16);
    let of = Counters { block_bytes: block_bytes as usize, len };
    rig.disk.record_crash_points();
    let increments = run(&mut rig, &mut queue, &of, seed, rounds);
    let points = rig.disk.take_crash_points();
    for counter in 0..COUNTERS {
        let mine = |i: &&Increment| i.counter == counter && i.done.is_some();
        let mut made: Vec<u64> = increments.iter().filter(mine).map(|i| i.to).collect();
        made.sort_unstable();
        let expected: Vec<u64> = (1..=made.len() as u64).collect();
        assert_eq!(made, expected, "each value is reached once, and none is left out");
        assert_eq!(read(&mut rig, &mut queue, &of, counter), made.len() as u64);
    }
    for point in points {
        let image = point.image(seed ^ point.boundary);
        let mut rig = Rig::open(image, FaultPlan::reliable(1), &options()).unwrap();
        let mut queue = rig.queue(id, 16);
        for counter in 0..COUNTERS {
            let mine = increments.iter().filter(|i| i.counter == counter);
            let (mut least, mut most) = (0, 0);
            for Increment { to, done, .. } in mine {
                most = most.max(*to);
                least =
                    least.max(if done.is_some_and(|at| at <= point.boundary) { *to } else { 0 });
            }
            let value = read(&mut rig, &mut queue, &of, counter);
            assert!((least..=most).contains(&value), "{least} <= {value} <= {most}");
        }
    }
}

#[test]
fn competing_loops_lose_no_increment_wherever_the_power_fails() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 1));
    for seed in seed..seed + rounds {
        compete(4096, 4096, seed, 4);
        compete(512, 512, seed, 4);
        compete(4096, ATOMIC_BYTES as usize, seed, 2);
        compete(512, ATOMIC_BYTES as usize, seed, 2);
    }
}

#[test]
fn earlier_writes_come_before_a_compare_and_write_and_later_ones_after_it() {
    for block_bytes in [4096, 512] {
        let disk = SimDisk::new(4096, 4096, FaultPlan::power_cuts(5));
        let mut rig = Rig::create(disk, 1 << 20, &options());
        let id = rig.create_volume("v", 1 << 20, block_bytes);
        let mut queue = rig.queue(id, 16);
        let bytes = block_bytes as usize;
        let both = |old: u8, new: u8| [vec![old; bytes], vec![new; bytes]].concat();
        let (mut requests, mut done) = (Fifo::new(8), Fifo::new(8));
        let swap = |tag, bytes: Vec<u8>| {
            Request::compare_and_write(Tag(tag), Lba(9), 1, rig.buffer(&bytes))
        };
        let write = Request::write(Tag(0), Lba(8), 3, rig.buffer(&vec![1; 3 * bytes]));
        requests.push(write).unwrap();
        requests.push(swap(1, both(1, 2))).unwrap();
        requests.push(swap(2, both(1, 3))).unwrap();
        requests.push(swap(3, both(2, 4))).unwrap();
        requests.push(Request::range(Tag(4), Op::WriteZeroes, Lba(9), 2)).unwrap();
        requests.push(swap(5, both(0, 6))).unwrap();
        rig.until("all end", |_| {
            queue.submit(&mut requests);
            queue.poll(&mut done);
            done.len() == 6
        });
        while let Some(done) = done.pop() {
            let expected = if done.tag.0 == 2 { Status::Miscompare } else { Status::Ok };
            assert_eq!(done.status, expected, "{:?}", done.tag);
        }
        let expected = [vec![1; bytes], vec![6; bytes], vec![0; bytes]].concat();
        assert_eq!(rig.read(&mut queue, 8, 3), Ok(expected));
    }
}

/// Everything overlaps everything: what waits must never wait in a circle, also with a full log.
#[test]
fn overlapping_writes_and_compare_and_writes_all_end() {
    for block_bytes in [4096, 512] {
        let disk = SimDisk::new(4096, 4096, FaultPlan::power_cuts(7));
        let mut rig = Rig::create(disk, 1 << 20, &options());
        let id = rig.create_volume("v", 1 << 20, block_bytes);
        let mut queue = rig.queue(id, 64);
        let mut rng = Rng::new(11);
        let (mut requests, mut completions) = (Fifo::new(1), Fifo::new(64));
        let (mut submitted, mut ended) = (0, 0);
        while ended < 600 {
            if requests.is_empty() && submitted < 600 {
                let blocks = [1, 3, 8, 16][rng.index(4).unwrap()];
                let bytes = blocks as usize * block_bytes as usize;
                let (tag, lba) = (Tag(submitted), Lba(rng.below(24)));
                if let Some(buf) = rig.pool.take(2 * bytes) {
                    let request = match rng.below(3) {
                        0 => Request::compare_and_write(tag, lba, blocks, buf.freeze()),
                        1 => Request::range(tag, Op::WriteZeroes, lba, blocks),
                        _ => Request::write(tag, lba, blocks, buf.freeze()),
                    };
                    requests.push(request).unwrap();
                    submitted += 1;
                }
            }
            queue.submit(&mut requests);
            if rng.chance(1, 3) || submitted == 600 {
                rig.turn();
            }
            queue.poll(&mut completions);
            while let Some(done) = completions.pop() {
                assert!(matches!(done.status, Status::Ok | Status::Miscompare));
                ended += 1;
            }
        }
    }
}
