//! Writes of up to 64 KiB are atomic: for reads, for other writes, and across a power cut.
//!
//! Many of them overlap, each marked in every sector. What reads see, and what is there after a
//! cut, must be explained by one order of all writes that also agrees with time.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Data, Fifo, Lba, Op, Queue, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, Image, SimDisk};
use support::{Rig, env, options};
use volume::{ATOMIC_BYTES, NewSnapshot, VolumeQueue};

const SECTOR: usize = 512;
const SECTORS: usize = 384;
const ATOMIC: usize = ATOMIC_BYTES as usize / SECTOR;

/// A write: sectors, and when it was known to have happened. Time counts events of
/// the host; `cut` counts writes of the disk.
#[derive(Clone, Debug)]
struct Write {
    start: usize,
    end: usize,
    known: Option<u64>,
    known_cut: Option<u64>,
}

/// All writes, and what must come before what. Write 0 is the empty volume.
#[derive(Clone, Debug, Default)]
struct History {
    writes: Vec<Write>,
    before: Vec<Vec<usize>>,
}

impl History {
    fn new() -> History {
        let (known, known_cut) = (Some(0), Some(0));
        let empty = Write { start: 0, end: SECTORS, known, known_cut };
        History { writes: vec![empty], before: vec![Vec::new()] }
    }

    fn begin(&mut self, start: usize, end: usize, now: u64) -> usize {
        let overlaps = |w: &Write| w.start < end && start < w.end;
        let earlier = |w: &Write| overlaps(w) && w.known.is_some_and(|at| at <= now);
        let before = (0..self.writes.len()).filter(|&w| earlier(&self.writes[w])).collect();
        self.writes.push(Write { start, end, known: None, known_cut: None });
        self.before.push(before);
        self.writes.len() - 1
    }

    fn know(&mut self, write: usize, now: u64, cut: u64) {
        let write = &mut self.writes[write];
        write.known.get_or_insert(now);
        write.known_cut.get_or_insert(cut);
    }

    /// Takes in what a look at the sectors from `start` on has seen; `happened` are writes that
    /// were known before the look began.
    fn see(&mut self, start: usize, seen: &[usize], happened: &[usize]) -> Result<(), String> {
        let mut there: Vec<usize> = seen.iter().chain(happened).copied().collect();
        there.sort_unstable();
        there.dedup();
        let mut at = start;
        for run in seen.chunk_by(|a, b| a == b) {
            let (visible, end) = (run[0], at + run.len());
            let write = &self.writes[visible];
            if at < write.start || write.end < end {
                return Err(format!("sector {at} has data of another place: {write:?}"));
            }
            let hidden = |&&other: &&usize| {
                let under = &self.writes[other];
                other != visible && under.start < end && at < under.end
            };
            self.before[visible].extend(there.iter().filter(hidden));
            at = end;
        }
        Ok(())
    }

    /// Fails when no order of the writes explains everything.
    fn check(&mut self) -> Result<(), String> {
        let mut state = vec![0u8; self.writes.len()];
        for list in &mut self.before {
            list.sort_unstable();
            list.dedup();
        }
        for write in 0..self.writes.len() {
            self.visit(write, &mut state)?;
        }
        Ok(())
    }

    fn visit(&self, write: usize, state: &mut [u8]) -> Result<(), String> {
        match state[write] {
            1 => return Err(format!("torn: write {write} is before and after another")),
            2 => return Ok(()),
            _ => {}
        }
        state[write] = 1;
        for &other in &self.before[write] {
            self.visit(other, state)?;
        }
        state[write] = 2;
        Ok(())
    }

    fn known_at(&self, now: u64) -> Vec<usize> {
        let known = |w: &Write| w.known.is_some_and(|at| at <= now);
        (0..self.writes.len()).filter(|&w| known(&self.writes[w])).collect()
    }

    fn known_at_cut(&self, cut: u64) -> Vec<usize> {
        let known = |w: &Write| w.known_cut.is_some_and(|at| at <= cut);
        (0..self.writes.len()).filter(|&w| known(&self.writes[w])).collect()
    }
}

fn fill(bytes: &mut [u8], start: usize, write: usize) {
    for (sector, bytes) in (start..).zip(bytes.chunks_exact_mut(SECTOR)) {
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            let value = [write, sector, write ^ sector][index % 3] as u64;
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Which write each sector shows.
fn marks(bytes: &[u8], start: usize) -> Result<Vec<usize>, String> {
    let mut seen = Vec::new();
    for (sector, bytes) in (start..).zip(bytes.chunks_exact(SECTOR)) {
        let write = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let mut expected = [0; SECTOR];
        if write != 0 {
            fill(&mut expected, sector, write);
        }
        if bytes != expected {
            return Err(format!("sector {sector} is torn itself"));
        }
        seen.push(write);
    }
    Ok(seen)
}

/// What is in flight: a write, or a read with its sectors and what was known when it began.
enum Flight {
    Write(usize),
    Read(usize, usize, Vec<usize>),
}

/// Runs overlapping writes and reads, checks every read, and returns the history.
fn run(rig: &mut Rig, queue: &mut VolumeQueue, rng: &mut Rng, writes: u32) -> History {
    let unit = queue.info().unwrap().block_size as usize / SECTOR;
    let mut history = History::new();
    let mut flights: Vec<Option<Flight>> = (0..16).map(|_| None).collect();
    let (mut left, mut now) = (writes, 0);
    let mut requests = Fifo::new(1);
    while left > 0 || flights.iter().any(Option::is_some) {
        now += 1;
        let slot = flights.iter().position(Option::is_none);
        if let (Some(slot), true) = (slot, left > 0 && rng.chance(3, 4)) {
            let len = (1 + rng.index(ATOMIC / unit).unwrap()) * unit;
            let start = rng.index((SECTORS - len) / unit + 1).unwrap() * unit;
            let (lba, blocks) = (Lba((start / unit) as u64), u32::try_from(len / unit).unwrap());
            let (tag, mut buf) = (Tag(u32::try_from(slot).unwrap()), rig.pool.take(64 << 10));
            let Some(mut buf) = buf.take() else { continue };
            let request = if rng.chance(1, 3) {
                flights[slot] = Some(Flight::Read(start, len, history.known_at(now)));
                Request::read(tag, lba, blocks, buf)
            } else {
                left -= 1;
                let write = history.begin(start, start + len, now);
                fill(&mut buf.bytes_mut()[..len * SECTOR], start, write);
                flights[slot] = Some(Flight::Write(write));
                Request::write(tag, lba, blocks, buf.freeze())
            };
            requests.push(request).unwrap();
            queue.submit(&mut requests);
        }
        if rng.chance(1, 2) || left == 0 {
            rig.turn();
        }
        let mut done = Fifo::new(16);
        queue.poll(&mut done);
        while let Some(done) = done.pop() {
            assert_eq!(done.status, Status::Ok);
            let cut = rig.disk.boundaries();
            match flights[done.tag.0 as usize].take().unwrap() {
                Flight::Write(write) => history.know(write, now, cut),
                Flight::Read(start, len, happened) => {
                    let Data::Into(buf) = done.data else { panic!("a read has a buffer") };
                    let seen = marks(&buf.bytes()[..len * SECTOR], start).unwrap();
                    history.see(start, &seen, &happened).unwrap();
                    seen.iter().for_each(|&write| history.know(write, now, cut));
                }
            }
        }
    }
    history.check().unwrap();
    history
}

fn check_cut(image: Image, history: &History, cut: u64) -> Result<(), String> {
    let plan = FaultPlan::reliable(cut);
    let mut rig = Rig::open(image, plan, &options()).map_err(|error| error.to_string())?;
    let id = rig.engine.borrow().volume_by_name("v").ok_or("the volume is gone")?.id;
    let mut queue = rig.queue(id, 1);
    let unit = queue.info().unwrap().block_size as usize;
    let blocks = u32::try_from(SECTORS * SECTOR / unit).unwrap();
    let bytes = rig.read(&mut queue, 0, blocks).map_err(|status| format!("{status:?}"))?;
    let seen = marks(&bytes, 0)?;
    let mut history = history.clone();
    history.see(0, &seen, &history.known_at_cut(cut))?;
    history.check()
}

fn survive(seed: u64, block_bytes: u32, writes: u32) {
    let mut rng = Rng::new(seed).fork("atomic");
    let plan = FaultPlan::power_cuts(seed);
    let mut rig = Rig::create(SimDisk::new(4096, 4096, plan), 1 << 20, &options());
    let id = rig.create_volume("v", (SECTORS * SECTOR) as u64, block_bytes);
    let mut queue = rig.queue(id, 16);
    rig.disk.record_crash_points();
    let history = run(&mut rig, &mut queue, &mut rng, writes);
    let points = rig.disk.take_crash_points();
    assert!(points.len() as u64 > u64::from(writes) / 8, "groups of a few writes each");
    for (index, point) in points.iter().enumerate() {
        let image = match rng.below(6) {
            0 => point.image_without_unflushed(),
            1 => point.image_with_everything(),
            _ => point.image(rng.next_u64()),
        };
        if let Err(what) = check_cut(image, &history, point.boundary) {
            panic!("FUZZ_SEED={seed} FUZZ_ROUNDS=1: {block_bytes}, cut {index}: {what}");
        }
    }
}

#[test]
fn overlapping_writes_of_64_kib_are_whole_or_not_there_after_a_cut_at_any_write() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 1));
    for seed in seed..seed + rounds {
        survive(seed, 4096, 40);
        survive(seed, 512, 40);
    }
}

#[test]
fn no_read_sees_half_of_a_write() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 1));
    for seed in seed..seed + rounds {
        for block_bytes in [512, 4096] {
            println!("FUZZ_SEED={seed} FUZZ_ROUNDS=1, blocks of {block_bytes}");
            let plan = FaultPlan::power_cuts(seed);
            let mut rig = Rig::create(SimDisk::new(4096, 4096, plan), 1 << 20, &options());
            let id = rig.create_volume("v", (SECTORS * SECTOR) as u64, block_bytes);
            let mut queue = rig.queue(id, 16);
            let mut rng = Rng::new(seed).fork("reads");
            // So few small buffers that reads of scattered blocks wait half-way.
            let held: Vec<_> = (0..506).map(|_| rig.pool.take(4096).unwrap()).collect();
            let more: Vec<_> = (0..92).map(|_| rig.pool.take(16384).unwrap()).collect();
            run(&mut rig, &mut queue, &mut rng, 200);
            drop((held, more));
        }
    }
}

/// A read of eight scattered blocks that waits half-way while a write of all of them completes.
#[test]
fn read_that_waits_half_way_starts_over_when_its_blocks_are_written() {
    let plan = FaultPlan::power_cuts(3);
    let mut rig = Rig::create(SimDisk::new(4096, 4096, plan), 1 << 20, &options());
    let id = rig.create_volume("v", 1 << 20, 4096);
    let mut queue = rig.queue(id, 16);
    for lba in [6, 1, 4, 7, 0, 3, 5, 2] {
        assert_eq!(rig.write(&mut queue, lba, &[1; 4096]), Status::Ok);
    }
    // What is written from here on is in another layer than what is there.
    let new = NewSnapshot { volume: id, uuid: [9; 16], name: "s" };
    let token = rig.engine.borrow_mut().create_snapshots(&[new]).unwrap();
    rig.control_result(token).unwrap();
    let (read, write) = (rig.pool.take(32 << 10).unwrap(), rig.buffer(&[2; 8 * 4096]));
    let mut held = Vec::new();
    while let Some(buf) = rig.pool.take(4096) {
        held.push(buf);
    }
    held.pop();
    let (mut requests, mut done) = (Fifo::new(2), Fifo::new(2));
    requests.push(Request::read(Tag(1), Lba(0), 8, read)).unwrap();
    requests.push(Request::write(Tag(2), Lba(0), 8, write)).unwrap();
    rig.until("the write ends", |_| {
        queue.submit(&mut requests);
        queue.poll(&mut done);
        !done.is_empty()
    });
    assert_eq!(done.pop().map(|done| done.tag), Some(Tag(2)), "the read has one buffer for eight");
    held.clear();
    rig.until("the read ends", |_| {
        queue.poll(&mut done);
        !done.is_empty()
    });
    let Data::Into(buf) = done.pop().unwrap().data else { panic!("a read has a buffer") };
    assert_eq!(&buf.bytes()[..8 * 4096], &[2; 8 * 4096]);
}

/// Partly covered blocks at both ends are in the same record as what is between them.
#[test]
fn zeroing_and_writing_parts_of_blocks_takes_one_record() {
    let plan = FaultPlan::power_cuts(3);
    let mut rig = Rig::create(SimDisk::new(4096, 4096, plan), 1 << 20, &options());
    let id = rig.create_volume("v", 1 << 20, 512);
    let mut queue = rig.queue(id, 16);
    assert_eq!(rig.write(&mut queue, 3, &[7; 64 << 10]), Status::Ok);
    let zero = Request::range(Tag(1), Op::WriteZeroes, Lba(5), 120);
    assert_eq!(rig.run(&mut queue, zero).status, Status::Ok);
    let mut rig = Rig::open(rig.disk.crash(), FaultPlan::reliable(1), &options()).unwrap();
    assert_eq!(rig.engine.borrow().stats().replayed_records, 3, "a volume and two writes");
    let mut queue = rig.queue(id, 16);
    let mut expected = vec![0; 3 * SECTOR];
    expected.resize(5 * SECTOR, 7);
    expected.resize(125 * SECTOR, 0);
    expected.resize(131 * SECTOR, 7);
    assert_eq!(rig.read(&mut queue, 0, 131), Ok(expected));
}
