//! Stores that are full, with snapshots that share what volumes zero.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Fifo, Instant, Lba, Op, Queue, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, Image, SimDisk};
use support::{Rig, env, options};
use volume::{NewClone, NewSnapshot, VolumeId, VolumeQueue};

const MIB: u64 = 1 << 20;

/// Blocks of 4 KiB in what one leaf of the map speaks of: 48 extents.
const LEAF_BLOCKS: u64 = 48 * 16;

static EXTENT: [u8; 65536] = [7; 65536];

/// A volume and what each of its scattered places holds: `0` for zeroes.
struct Scattered {
    rig: Rig,
    id: VolumeId,
    queue: VolumeQueue,
    places: Vec<u8>,
    snapshots: Vec<VolumeId>,
}

impl Scattered {
    fn new(seed: u64, mib: u64) -> Scattered {
        let disk = SimDisk::new(4096, mib * 256, FaultPlan::power_cuts(seed));
        let mut rig = Rig::create(disk, MIB, &options());
        let id = rig.create_volume("v", 1 << 40, 4096);
        let queue = rig.queue(id, 64);
        Scattered { rig, id, queue, places: Vec::new(), snapshots: Vec::new() }
    }

    /// Writes two blocks in each leaf until the store is full.
    fn fill(&mut self) {
        loop {
            let place = self.places.len() as u64;
            let value = u8::try_from(place % 250).unwrap() + 1;
            match self.rig.write(&mut self.queue, place * LEAF_BLOCKS + 3, &[value; 8192]) {
                Status::Ok => self.places.push(value),
                Status::NoSpace => return,
                other => panic!("{other:?}"),
            }
        }
    }

    fn snapshot(&mut self) {
        let number = u8::try_from(self.snapshots.len()).unwrap();
        let name = format!("s{number}");
        let group = [NewSnapshot { volume: self.id, uuid: [100 + number; 16], name: &name }];
        let token = self.rig.engine.borrow_mut().create_snapshots(&group).unwrap();
        self.snapshots.push(self.rig.control_result(token).unwrap());
    }

    fn delete(&mut self, snapshot: VolumeId) {
        let token = self.rig.engine.borrow_mut().delete_volume(snapshot).unwrap();
        self.rig.control_result(token).unwrap();
    }

    /// Zeroes the second block of these places, some at a time; how each ended.
    fn zero(&mut self, op: Op, places: &[usize]) -> Vec<Status> {
        let (mut requests, mut completions) = (Fifo::new(1), Fifo::new(16));
        let mut statuses = vec![None; places.len()];
        let (mut next, mut left, since) = (0, places.len(), self.rig.disk.now());
        while left > 0 {
            while next < places.len() && self.queue.in_flight() < 16 {
                let lba = Lba(places[next] as u64 * LEAF_BLOCKS + 4);
                let tag = Tag(u32::try_from(next).unwrap());
                requests.push(Request::range(tag, op, lba, 1)).unwrap();
                self.queue.submit(&mut requests);
                next += 1;
            }
            self.rig.turn();
            self.queue.poll(&mut completions);
            while let Some(done) = completions.pop() {
                statuses[done.tag.0 as usize] = Some(done.status);
                left -= 1;
            }
            let took = self.rig.disk.now().saturating_since(since);
            assert!(took.as_secs() < 10, "{left} wait: {:?}", self.rig.engine.borrow());
        }
        statuses.into_iter().flatten().collect()
    }

    /// Both blocks of every place, now or in a snapshot.
    fn check(&mut self, zeroed: &[bool]) {
        for (place, &value) in self.places.iter().enumerate() {
            let lba = place as u64 * LEAF_BLOCKS + 3;
            let read = self.rig.read(&mut self.queue, lba, 2).unwrap();
            assert_eq!(read[0], value, "place {place}");
            assert_eq!(read[4096], if zeroed[place] { 0 } else { value }, "place {place}");
            assert!(read[..4096].iter().all(|&byte| byte == read[0]));
            assert!(read[4096..].iter().all(|&byte| byte == read[4096]));
        }
    }

    fn settle(&mut self) {
        self.rig.until("all is in the map", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
    }
}

/// A page that a snapshot shares is replaced by a fresh one when an entry of it is cleared, so
/// zeroing takes space too. In a full store it is done or refused, at once, and nothing is stuck:
/// deleting a snapshot brings everything back.
#[test]
fn zeroing_shared_blocks_of_a_full_store_is_done_or_refused_and_nothing_is_stuck() {
    for seed in 1..=env("FUZZ_ROUNDS", 2) {
        let mut all = Scattered::new(seed, 28);
        all.fill();
        let mut rng = Rng::new(seed);
        let count = all.places.len();
        let (mut zeroed, mut refused) = (vec![false; count], 0);
        for _ in 0..4 {
            all.snapshot();
            let mut order: Vec<usize> = (0..count).collect();
            for at in (1..count).rev() {
                order.swap(at, rng.index(at + 1).unwrap());
            }
            let op = if rng.chance(1, 2) { Op::Deallocate } else { Op::WriteZeroes };
            let statuses = all.zero(op, &order);
            for (&place, status) in order.iter().zip(statuses) {
                match status {
                    Status::Ok => zeroed[place] = true,
                    Status::NoSpace => refused += 1,
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            all.settle();
        }
        assert!(refused > 0, "the store never was full");
        all.check(&zeroed);
        for snapshot in std::mem::take(&mut all.snapshots) {
            all.delete(snapshot);
        }
        all.settle();
        let order: Vec<usize> = (0..count).collect();
        assert!(all.zero(Op::WriteZeroes, &order).iter().all(|status| status.is_ok()));
        all.check(&vec![true; count]);
        let Scattered { mut rig, queue, .. } = all;
        drop(queue);
        rig.close();
        assert!(Rig::check(rig.disk.image(), true).is_clean());
    }
}

/// Extents of the volume that the forests are made of.
const EXTENTS: u64 = 8;

fn write_extents(rig: &mut Rig, volume: &str, extents: &[u64]) {
    let id = rig.engine.borrow().volume_by_name(volume).unwrap().id;
    let mut queue = rig.queue(id, 4);
    for extent in extents {
        assert_eq!(rig.write(&mut queue, extent * 16, &EXTENT), Status::Ok);
    }
}

fn snapshot_of(rig: &mut Rig, volume: &str, name: &str) -> VolumeId {
    let volume = rig.engine.borrow().volume_by_name(volume).unwrap().id;
    let group = [NewSnapshot { volume, uuid: uuid(name), name }];
    let token = rig.engine.borrow_mut().create_snapshots(&group).unwrap();
    rig.control_result(token).unwrap()
}

fn clone_of(rig: &mut Rig, snapshot: VolumeId, name: &str) {
    let clone = NewClone { uuid: uuid(name), name };
    let token = rig.engine.borrow_mut().clone_snapshot(snapshot, &clone).unwrap();
    rig.control_result(token).unwrap();
}

fn uuid(name: &str) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid[..name.len()].copy_from_slice(name.as_bytes());
    uuid
}

fn delete(rig: &mut Rig, name: &str) {
    let id = {
        let engine = rig.engine.borrow();
        let snapshots = engine.snapshots();
        let snapshot = snapshots.iter().find(|snapshot| snapshot.name == name);
        snapshot.map_or_else(|| engine.volume_by_name(name).unwrap().id, |snapshot| snapshot.id)
    };
    let token = rig.engine.borrow_mut().delete_volume(id).unwrap();
    rig.control_result(token).unwrap();
}

/// Time passes, and nobody writes.
fn rest(rig: &mut Rig) {
    for _ in 0..4 {
        rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
        rig.disk.advance_to(Instant::from_ns(rig.disk.now().as_ns() + 11_000_000_000));
        (0..200).for_each(|_| rig.turn());
    }
}

/// Extents that the store holds for data, after a look at everything.
fn data_extents(rig: &Rig) -> u64 {
    let report = Rig::check(rig.disk.image(), true);
    assert!(report.is_clean(), "{:?}", report.findings);
    report.extents
}

/// `v` with snapshots `s1` and `s2`; clones `a` and `b` of the one and `c` of the other; everybody
/// has changed some.
fn bushy() -> Image {
    let disk = SimDisk::new(4096, 24 * 256, FaultPlan::reliable(3));
    let mut rig = Rig::create(disk, MIB, &options());
    rig.create_volume("v", EXTENTS << 16, 4096);
    write_extents(&mut rig, "v", &[0, 1, 2, 3, 4, 5, 6, 7]);
    let first = snapshot_of(&mut rig, "v", "s1");
    rest(&mut rig);
    clone_of(&mut rig, first, "a");
    clone_of(&mut rig, first, "b");
    write_extents(&mut rig, "v", &[0, 1]);
    write_extents(&mut rig, "a", &[0, 2]);
    write_extents(&mut rig, "b", &[1, 2, 5]);
    let second = snapshot_of(&mut rig, "v", "s2");
    rest(&mut rig);
    clone_of(&mut rig, second, "c");
    write_extents(&mut rig, "v", &[3]);
    write_extents(&mut rig, "c", &[0, 3]);
    rest(&mut rig);
    // 8, and what each has changed: v 2 + 1, a 2, b 3, c 2.
    assert_eq!(data_extents(&rig), 18);
    rig.close();
    rig.disk.image()
}

fn permutations(of: &[&'static str]) -> Vec<Vec<&'static str>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, &first) in of.iter().enumerate() {
        let mut rest = of.to_vec();
        rest.remove(at);
        for mut order in permutations(&rest) {
            order.insert(0, first);
            all.push(order);
        }
    }
    all
}

/// In whatever order a forest is deleted, what is left afterwards is what the last volume has, and
/// nobody had to write or restart for it.
#[test]
fn deleting_a_bushy_forest_in_any_order_gives_back_all_but_what_is_left() {
    let image = bushy();
    let mut free = None;
    for order in permutations(&["s1", "s2", "a", "b", "c"]) {
        let mut rig = Rig::open(image.clone(), FaultPlan::reliable(1), &options()).unwrap();
        for name in &order {
            delete(&mut rig, name);
        }
        rest(&mut rig);
        assert_eq!(data_extents(&rig), EXTENTS, "{order:?}");
        let now = rig.engine.borrow().stats().free_bytes;
        assert_eq!(*free.get_or_insert(now), now, "{order:?}");
    }
}

/// A snapshot that is deleted while several share its data keeps it for them. When the last of
/// them has replaced an extent, that comes back, however few pages changed.
#[test]
fn deleted_snapshot_gives_back_what_its_children_replace_one_after_the_other() {
    let image = bushy();
    for order in permutations(&["v", "a", "b", "c"]) {
        let mut rig = Rig::open(image.clone(), FaultPlan::reliable(1), &options()).unwrap();
        delete(&mut rig, "s1");
        delete(&mut rig, "s2");
        rest(&mut rig);
        // Twice: the second time the leaves are the volumes' own already.
        for extents in [&[0, 1, 2, 3, 4][..], &[5, 6, 7]] {
            for name in &order {
                write_extents(&mut rig, name, extents);
            }
            rest(&mut rig);
            let left = if extents[0] == 0 { 4 * 5 + 3 + 1 } else { 4 * EXTENTS };
            assert_eq!(data_extents(&rig), left, "{order:?}");
        }
    }
}

/// Leaves go with the last extent that they speak of, and where nothing is written none are made.
#[test]
fn deallocating_piece_by_piece_gives_back_the_map_too() {
    let mut all = Scattered::new(3, 28);
    let free = all.rig.engine.borrow().stats().free_bytes;
    let count = 200;
    all.zero(Op::Deallocate, &(0..count).collect::<Vec<_>>());
    all.settle();
    assert_eq!(all.rig.engine.borrow().stats().free_bytes, free, "nothing was there");
    for place in 0..count as u64 {
        assert_eq!(all.rig.write(&mut all.queue, place * LEAF_BLOCKS + 4, &[1; 4096]), Status::Ok);
    }
    all.settle();
    assert!(all.rig.engine.borrow().stats().free_bytes < free - (count << 16) as u64);
    all.zero(Op::Deallocate, &(0..count).collect::<Vec<_>>());
    all.settle();
    rest(&mut all.rig);
    let left = all.rig.engine.borrow().stats().free_bytes;
    assert!(left + (4 << 16) >= free, "{left} of {free}");
}

/// A snapshot costs next to nothing: it does not make the store look fuller.
#[test]
fn snapshot_does_not_make_a_store_look_fuller() {
    let disk = SimDisk::new(4096, 64 * 256, FaultPlan::reliable(3));
    let mut rig = Rig::create(disk, MIB, &options());
    rig.create_volume("v", 8 << 20, 4096);
    write_extents(&mut rig, "v", &[0, 1, 2, 3]);
    rest(&mut rig);
    let before = rig.engine.borrow().stats();
    snapshot_of(&mut rig, "v", "s");
    rest(&mut rig);
    let after = rig.engine.borrow().stats();
    assert!(after.free_bytes + (2 << 16) >= before.free_bytes, "{before:?} {after:?}");
}

/// Deallocating gives room to writes that come right behind it, by themselves, whatever is left of
/// the store when it is full: what was promised to a write in the log is not given to a direct one.
#[test]
fn full_store_takes_writes_again_after_half_of_it_was_deallocated() {
    for mib in 20..32 {
        let disk = SimDisk::new(4096, mib * 256, FaultPlan::reliable(1));
        let mut rig = Rig::create(disk, MIB, &options());
        let id = rig.create_volume("v", 64 << 20, 4096);
        let mut queue = rig.queue(id, 64);
        let mut written = 0;
        while rig.write(&mut queue, written * 16, &EXTENT) == Status::Ok {
            written += 1;
        }
        let half = u32::try_from(written / 2 * 16).unwrap();
        let free = Request::range(Tag(1), Op::Deallocate, Lba(0), half);
        assert_eq!(rig.run(&mut queue, free).status, Status::Ok);
        let status = rig.write(&mut queue, written * 16, &EXTENT);
        assert_eq!(status, Status::Ok, "{mib} MiB: {:?}", rig.engine.borrow());
    }
}

/// The reserve for metadata grows with volumes and snapshots, also over extents that writes in the
/// log were promised: they get them all the same, and the log is emptied.
#[test]
fn snapshots_and_volumes_of_a_full_store_do_not_take_what_the_log_was_promised() {
    for mib in 6..14 {
        let disk = SimDisk::new(4096, mib * 256, FaultPlan::reliable(1));
        let mut rig = Rig::create(disk, MIB, &options());
        let id = rig.create_volume("v", 1 << 40, 4096);
        let mut queue = rig.queue(id, 64);
        let mut written = 0;
        while rig.write(&mut queue, written * LEAF_BLOCKS, &EXTENT[..4096]) == Status::Ok {
            written += 1;
        }
        for number in 0..24 {
            snapshot_of(&mut rig, "v", &format!("s{number}"));
            rig.create_volume(&format!("w{number}"), MIB, 4096);
        }
        rest(&mut rig);
        for place in 0..written {
            assert_eq!(rig.read(&mut queue, place * LEAF_BLOCKS, 1).unwrap()[0], 7, "{mib} MiB");
        }
    }
}
