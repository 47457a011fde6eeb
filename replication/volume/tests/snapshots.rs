//! What snapshots, clones and restores promise, one claim a test.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use bdev::{Bdev, Data, Fifo, Instant, Lba, Op, Pool, PoolConfig, Queue, QueueCx, RamDisk};
use bdev::{Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, Image, SimDisk};
use store::VolumeError;
use support::forest::{BLOCKS, Forest, content, refused, uuid};
use support::{Rig, options};
use volume::{
    Change, ChangeKind, ControlError, Damaged, Engine, Event, FormatOptions, NewClone, NewSnapshot,
    NewVolume, Options, SNAPSHOT_GROUP_MAX, Shrink, VolumeId, VolumeQueue,
};

const MIB: u64 = 1 << 20;
const EXTENT: u64 = 64 << 10;

fn rig() -> (Rig, Forest, VolumeId) {
    let disk = SimDisk::new(4096, 24 * 256, FaultPlan::power_cuts(3));
    let mut rig = Rig::create(disk, MIB, &options());
    let mut forest = Forest::default();
    let volume = forest.create(&mut rig);
    (rig, forest, volume)
}

fn reopen(rig: &Rig) -> Rig {
    Rig::open(rig.disk.crash(), FaultPlan::power_cuts(4), &options()).unwrap()
}

/// Everything in the map, the log empty, every snapshot materialised.
fn settle(rig: &mut Rig) {
    rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
}

fn free(rig: &Rig) -> u64 {
    rig.engine.borrow().stats().free_bytes
}

/// Shuts down, and proves that the store is in order.
fn close(mut rig: Rig) {
    rig.close();
    let report = Rig::check(rig.disk.image(), true);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// Where in the image these bytes are.
fn find(image: &Image, bytes: &[u8]) -> Vec<u64> {
    let mut page = vec![0; 4096];
    let pages = (0..image.byte_len() / 4096).map(|at| at * 4096);
    pages
        .filter(|&at| {
            image.read(at, &mut page);
            page == bytes
        })
        .collect()
}

#[test]
fn a_snapshot_does_not_change_under_a_write_storm() {
    let (mut rig, mut forest, volume) = rig();
    let mut rng = Rng::new(1);
    for first in (0..BLOCKS).step_by(16) {
        forest.write(&mut rig, volume, first, 16, false);
    }
    let mut snapshots = Vec::new();
    for round in 0..4 {
        snapshots.extend(forest.snapshot(&mut rig, &[volume]));
        for _ in 0..60 {
            let count = rng.between(1, 3);
            forest.write(&mut rig, volume, rng.below(BLOCKS - 3), count, round % 2 == 1);
        }
        // In the log, half-way in the map, and in the map.
        (0..round * 40).for_each(|_| rig.turn());
        forest.verify(&mut rig).unwrap();
    }
    settle(&mut rig);
    forest.verify(&mut rig).unwrap();
    let seen = rig.engine.borrow().snapshots();
    assert!(seen.iter().all(|snapshot| snapshot.materialised && snapshot.volume == volume));
    assert_eq!(seen.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), snapshots);
    let mut rig = reopen(&rig);
    forest.verify(&mut rig).unwrap();
    close(rig);
}

#[test]
fn snapshot_create_stalls_no_write_longer_than_a_turn() {
    // A RAM disk does what it is asked for in the same turn, so turns are the engine's own. Writes
    // go on while snapshots are made, materialised and copied on write.
    let pool = Rc::new(Pool::new(&PoolConfig::for_bytes(32 << 20)).unwrap());
    let disk = RamDisk::new(4096, 256 * 256).unwrap();
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let format = FormatOptions { uuid: [7; 16], log_bytes: Some(4 << 20), overwrite: false };
    let engine = Engine::create(queue, disk.info(), &pool, &format, &options()).unwrap();
    let engine = Rc::new(RefCell::new(engine));
    let mut now = 0;
    let mut turn = || {
        now += 1_000_000;
        engine.borrow_mut().drive(Instant::from_ns(now));
    };
    while !engine.borrow().is_ready() {
        turn();
    }
    let new = NewVolume { uuid: [1; 16], name: "v", size: 16 * MIB, block_bytes: 4096 };
    engine.borrow_mut().create_volume(&new).unwrap();
    while engine.borrow().volumes().is_empty() {
        turn();
    }
    let volume = engine.borrow().volumes()[0].id;
    let mut queue = VolumeQueue::open(&engine, volume, 4).unwrap();
    let mut rng = Rng::new(2);
    let mut most = [0; 2];
    for round in 0..3000u64 {
        let snapshots = round >= 1000;
        if snapshots && round % 20 == 0 {
            let name = format!("round {round}");
            let new = NewSnapshot { volume, uuid: uuid(&name), name: &name };
            engine.borrow_mut().create_snapshots(&[new]).unwrap();
            while engine.borrow_mut().poll_event().is_some() {}
        }
        let (mut requests, mut completions) = (Fifo::new(1), Fifo::new(1));
        let buf = pool.take(4096).unwrap().freeze();
        requests.push(Request::write(Tag(1), Lba(rng.below(4096)), 1, buf)).unwrap();
        let mut turns = 0u32;
        while completions.is_empty() {
            queue.submit(&mut requests);
            turn();
            queue.poll(&mut completions);
            turns += 1;
        }
        let most = &mut most[usize::from(snapshots)];
        *most = turns.max(*most);
        assert_eq!(completions.pop().map(|done| done.status), Some(Status::Ok));
    }
    let stats = engine.borrow().stats();
    assert!(stats.copied_extents > 100, "{stats:?}");
    assert!(engine.borrow().snapshots().len() > 50);
    assert!(most[1] <= most[0] + 1, "{} turns, {} without snapshots", most[1], most[0]);
}

#[test]
fn a_group_snapshot_is_one_moment() {
    let (mut rig, mut forest, a) = rig();
    let b = forest.create(&mut rig);
    // The number n is written to the first volume, then to the second: at any one moment the first
    // is as far as the second, or one ahead.
    let mut queues = [rig.queue(a, 2), rig.queue(b, 2)];
    let mut tokens = Vec::new();
    for n in 1..=40u8 {
        for (at, queue) in queues.iter_mut().enumerate() {
            let (mut requests, mut completions) = (Fifo::new(1), Fifo::new(1));
            let buf = rig.buffer(&[n; 4096]);
            requests.push(Request::write(Tag(0), Lba(3), 1, buf)).unwrap();
            queue.submit(&mut requests);
            if n % 8 == u8::try_from(at).unwrap() {
                let names = [format!("a{n}"), format!("b{n}")];
                let new = |volume, name| NewSnapshot { volume, uuid: uuid(name), name };
                let group = [new(a, &names[0]), new(b, &names[1])];
                tokens.push(rig.engine.borrow_mut().create_snapshots(&group).unwrap());
            }
            rig.until("a write ends", |_| {
                queue.poll(&mut completions);
                !completions.is_empty()
            });
        }
    }
    for token in tokens {
        let first = rig.control_result(token).unwrap();
        let mut seen = [first, VolumeId(first.0 + 1)].map(|id| {
            let mut queue = rig.queue(id, 2);
            rig.read(&mut queue, 3, 1).unwrap()[0]
        });
        seen.reverse();
        assert!(seen[1] == seen[0] || seen[1] == seen[0] + 1, "{seen:?}");
    }
    // Of one group a crash keeps all or none: the records share a group of the log.
    let there = reopen(&rig).engine.borrow().snapshots().len();
    assert_eq!(there, rig.engine.borrow().snapshots().len());
}

#[test]
fn restore_is_all_or_nothing_across_a_crash_at_every_write() {
    let (mut rig, mut forest, volume) = rig();
    for first in (0..BLOCKS).step_by(8) {
        forest.write(&mut rig, volume, first, 8, false);
    }
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    for first in (0..BLOCKS).step_by(5) {
        forest.write(&mut rig, volume, first, 2, first % 3 == 0);
    }
    let before = forest.clone();
    rig.disk.record_crash_points();
    forest.restore(&mut rig, volume, snapshot);
    let restored = rig.disk.boundaries();
    settle(&mut rig);
    let mut seen = [false; 2];
    for point in rig.disk.take_crash_points() {
        let cut = point.boundary;
        let mut rig = Rig::open(point.image(cut), FaultPlan::power_cuts(cut), &options()).unwrap();
        let old = before.clone().verify(&mut rig);
        let new = forest.clone().verify(&mut rig);
        assert!(old.is_ok() != new.is_ok(), "cut {cut}: {old:?} {new:?}");
        seen[usize::from(new.is_ok())] = true;
        assert!(cut < restored || new.is_ok(), "it was acknowledged: {new:?}");
        close(rig);
    }
    assert_eq!(seen, [true; 2], "both outcomes were met");
}

#[test]
fn restore_lets_requests_in_flight_end_and_holds_new_ones() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 64, false);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    settle(&mut rig);
    let mut queue = rig.queue(volume, 64);
    let mut requests = Fifo::new(32);
    for lba in 0..32 {
        let buf = rig.buffer(&content(1000 + lba));
        requests.push(Request::write(Tag(u32::try_from(lba).unwrap()), Lba(lba), 1, buf)).unwrap();
    }
    queue.submit(&mut requests);
    assert!(requests.is_empty());
    let token = rig.engine.borrow_mut().restore_volume(volume, snapshot).unwrap();
    rig.turn();
    // These wait outside until the volume is restored, and are newer than it.
    let buf = rig.buffer(&content(7777));
    requests.push(Request::write(Tag(99), Lba(40), 1, buf)).unwrap();
    queue.submit(&mut requests);
    assert_eq!(requests.len(), 1, "the volume takes nothing new");
    let (mut completions, mut ended) = (Fifo::new(64), 0);
    rig.until("everything ends", |_| {
        queue.submit(&mut requests);
        queue.poll(&mut completions);
        while let Some(done) = completions.pop() {
            assert_eq!(done.status, Status::Ok);
            assert!(matches!(done.data, Data::From(_)));
            assert!(ended < 32 || done.tag == Tag(99), "it was taken after the others ended");
            ended += 1;
        }
        ended == 33
    });
    assert_eq!(rig.control_result(token), Ok(volume));
    let expected = forest.node(snapshot).blocks.clone();
    let node = forest.nodes.iter_mut().find(|node| node.id == volume).unwrap();
    node.blocks = expected;
    node.blocks[40] = 7777;
    drop(queue);
    forest.verify(&mut rig).unwrap();
    let mut rig = reopen(&rig);
    forest.verify(&mut rig).unwrap();
}

#[test]
fn clones_diverge() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 100, false);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    let clones = [forest.clone_of(&mut rig, snapshot), forest.clone_of(&mut rig, snapshot)];
    let used = free(&rig);
    for (index, id) in (0u64..).zip([volume, clones[0], clones[1]]) {
        forest.write(&mut rig, id, 10 + index * 3, 5, false);
        forest.write(&mut rig, id, 60 + index, 20, true);
    }
    forest.verify(&mut rig).unwrap();
    settle(&mut rig);
    forest.verify(&mut rig).unwrap();
    assert!(used - free(&rig) <= 16 * EXTENT, "what did not change is shared");
    let second = forest.snapshot(&mut rig, &[clones[0]])[0];
    forest.write(&mut rig, clones[0], 0, 8, false);
    let grandchild = forest.clone_of(&mut rig, second);
    forest.write(&mut rig, grandchild, 4, 8, false);
    forest.restore(&mut rig, clones[0], second);
    forest.verify(&mut rig).unwrap();
    let engine = rig.engine.borrow();
    assert_eq!(engine.volume(grandchild).unwrap().cloned_from, Some(second));
    drop(engine);
    let mut rig = reopen(&rig);
    forest.verify(&mut rig).unwrap();
    close(rig);
}

#[test]
fn delete_in_any_order_gives_back_everything() {
    for seed in 0..3 {
        let (mut rig, mut forest, volume) = rig();
        settle(&mut rig);
        let empty = free(&rig);
        let mut rng = Rng::new(seed);
        for _ in 0..3 {
            for _ in 0..12 {
                let count = rng.between(1, 40);
                forest.write(&mut rig, volume, rng.below(BLOCKS - 40), count, false);
            }
            let snapshot = forest.snapshot(&mut rig, &[volume])[0];
            let clone = forest.clone_of(&mut rig, snapshot);
            forest.write(&mut rig, clone, rng.below(BLOCKS - 9), 9, false);
            forest.snapshot(&mut rig, &[clone]);
        }
        while let Some(at) = rng.index(forest.nodes.len()) {
            let id = forest.nodes[at].id;
            forest.delete(&mut rig, id);
            if rng.chance(1, 3) {
                rig = reopen(&rig);
                forest.verify(&mut rig).unwrap();
            }
        }
        settle(&mut rig);
        rig.until("all space is back", |rig| free(rig) >= empty);
        close(rig);
    }
}

#[test]
fn snapshots_are_read_only_queues() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 4, false);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    for _ in 0..2 {
        let mut queue = rig.queue(snapshot, 4);
        assert_eq!(rig.write(&mut queue, 0, &content(9)), Status::WriteProtected);
        for op in [Op::Deallocate, Op::WriteZeroes] {
            let range = Request::range(Tag(1), op, Lba(0), 1);
            assert_eq!(rig.run(&mut queue, range).status, Status::WriteProtected);
        }
        let mut swap = Request::write(Tag(1), Lba(0), 1, rig.buffer(&[0; 8192]));
        swap.op = Op::CompareAndWrite;
        assert_eq!(rig.run(&mut queue, swap).status, Status::WriteProtected);
        let mut compare = Request::write(Tag(1), Lba(1), 1, rig.buffer(&content(3)));
        compare.op = Op::Compare;
        assert_eq!(rig.run(&mut queue, compare).status, Status::Ok, "block 1 has stamp 3");
        assert_eq!(rig.run(&mut queue, Request::flush(Tag(1))).status, Status::Ok);
        let token = rig.engine.borrow_mut().delete_volume(snapshot);
        assert_eq!(refused(&mut rig, token), Some(ControlError::InUse));
        settle(&mut rig); // Once more when it is materialised.
    }
    forest.verify(&mut rig).unwrap();
}

#[test]
fn a_group_with_one_bad_member_takes_none_and_a_name_is_free_after_deletion() {
    let (mut rig, mut forest, volume) = rig();
    let other = forest.create(&mut rig);
    forest.write(&mut rig, volume, 0, 4, false);
    let of = |volume, name: &'static str, id: u8| NewSnapshot { volume, uuid: [id; 16], name };
    let snapshot = |rig: &mut Rig, group: &[NewSnapshot<'_>]| {
        let token = rig.engine.borrow_mut().create_snapshots(group);
        refused(rig, token)
    };
    let unknown = Some(ControlError::Volume(VolumeError::Unknown));
    let bad = [of(volume, "g", 1), of(other, "g", 2), of(VolumeId(99), "g", 3)];
    assert_eq!(snapshot(&mut rig, &bad), unknown);
    assert_eq!(snapshot(&mut rig, &[of(volume, "a", 4)]), None);
    let exists = Some(ControlError::Volume(VolumeError::Exists));
    let bad = [of(other, "a", 5), of(volume, "a", 6)];
    assert_eq!(snapshot(&mut rig, &bad), exists, "the second has it already");
    let names = |rig: &Rig| rig.engine.borrow().snapshots().len();
    assert_eq!(names(&rig), 1, "all or none");
    let first = rig.engine.borrow().snapshots()[0].id;
    let token = rig.engine.borrow_mut().delete_volume(first).unwrap();
    rig.control_result(token).unwrap();
    assert_eq!(snapshot(&mut rig, &[of(volume, "a", 7)]), None, "the name is free again");
    let second = rig.engine.borrow().snapshots()[0].id;
    assert!(second > first, "and its id is another one");
    settle(&mut rig);
    close(rig);
}

#[test]
fn a_restore_never_makes_a_volume_smaller() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 4, false);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    let before = rig.engine.borrow().volume(volume).unwrap().size;
    let token = rig.engine.borrow_mut().resize_volume(volume, 2 * before, Shrink::Refuse).unwrap();
    rig.control_result(token).unwrap();
    let mut queue = rig.queue(volume, 4);
    let beyond = before / 4096 + 3;
    assert_eq!(rig.write(&mut queue, beyond, &content(77)), Status::Ok);
    let token = rig.engine.borrow_mut().restore_volume(volume, snapshot).unwrap();
    rig.control_result(token).unwrap();
    assert_eq!(rig.engine.borrow().volume(volume).unwrap().size, 2 * before);
    let bytes = rig.read(&mut queue, beyond, 1).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0), "what was behind its end is gone");
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let (mut rig, mut forest, volume) = rig();
    let other = forest.create(&mut rig);
    let of = |volume, name| NewSnapshot { volume, uuid: uuid(name), name };
    let snapshot = |rig: &mut Rig, group: &[NewSnapshot<'_>]| {
        let token = rig.engine.borrow_mut().create_snapshots(group);
        refused(rig, token)
    };
    let taken = |error| Some(ControlError::Volume(error));
    assert_eq!(snapshot(&mut rig, &[]), Some(ControlError::Group));
    let twice = [of(volume, "x"), of(volume, "y")];
    assert_eq!(snapshot(&mut rig, &twice), Some(ControlError::Group));
    let many = [of(volume, "x"); SNAPSHOT_GROUP_MAX + 1];
    assert_eq!(snapshot(&mut rig, &many), Some(ControlError::Group));
    assert_eq!(snapshot(&mut rig, &[of(volume, "")]), taken(VolumeError::Name));
    assert_eq!(snapshot(&mut rig, &[of(VolumeId(99), "x")]), taken(VolumeError::Unknown));
    assert_eq!(snapshot(&mut rig, &[of(volume, "x")]), None);
    assert_eq!(snapshot(&mut rig, &[of(volume, "x")]), taken(VolumeError::Exists));
    let again = NewSnapshot { uuid: [8; 16], ..of(volume, "x") };
    assert_eq!(snapshot(&mut rig, &[again]), taken(VolumeError::Exists), "the name");
    let again = NewSnapshot { uuid: [8; 16], ..of(other, "x") };
    assert_eq!(snapshot(&mut rig, &[again]), None, "a name of another volume's snapshot");
    let (first, second) = {
        let snapshots = rig.engine.borrow().snapshots();
        (snapshots[0].id, snapshots[1].id)
    };
    assert_eq!(snapshot(&mut rig, &[of(first, "z")]), taken(VolumeError::Unknown));
    let new = NewClone { uuid: [3; 16], name: "c" };
    let token = rig.engine.borrow_mut().clone_snapshot(volume, &new);
    assert_eq!(refused(&mut rig, token), taken(VolumeError::Unknown), "volumes are not cloned");
    let token = rig.engine.borrow_mut().restore_volume(volume, second);
    assert_eq!(refused(&mut rig, token), taken(VolumeError::NotRelated));
    let token = rig.engine.borrow_mut().restore_volume(first, first);
    assert_eq!(refused(&mut rig, token), taken(VolumeError::Unknown));
    assert_eq!(rig.engine.borrow_mut().diff(None, volume, 0).err(), taken(VolumeError::Unknown));
    let diff = rig.engine.borrow_mut().diff(Some(first), second, 0);
    assert_eq!(diff.err(), taken(VolumeError::NotRelated));
    settle(&mut rig);
    forest.write(&mut rig, volume, 0, 1, false);
}

#[test]
fn many_snapshots_in_a_row_wait_for_the_destager_and_all_come() {
    let (mut rig, mut forest, volume) = rig();
    let mut tokens = Vec::new();
    let mut expected = Vec::new();
    for n in 1..=30u64 {
        forest.write(&mut rig, volume, n % 7, 2, false);
        let name = format!("n{n}");
        let new = NewSnapshot { volume, uuid: uuid(&name), name: &name };
        let made = rig.engine.borrow_mut().create_snapshots(&[new]);
        tokens.push(made.unwrap());
        rig.until("it is made", |rig| rig.engine.borrow().snapshots().len() as u64 == n);
        expected.push(forest.node(volume).blocks[..16].to_vec());
    }
    for (token, blocks) in tokens.into_iter().zip(expected) {
        let id = rig.control_result(token).unwrap();
        let mut queue = rig.queue(id, 4);
        let read = rig.read(&mut queue, 0, 16).unwrap();
        let expected: Vec<u8> = blocks.iter().flat_map(|&stamp| content(stamp)).collect();
        assert_eq!(read, expected, "snapshot {id}");
    }
}

#[test]
fn rot_in_a_shared_block_is_carried_on_and_never_laundered() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 16, false);
    settle(&mut rig);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    let stamp = forest.node(volume).blocks[5];
    let place = *find(&rig.disk.image(), &content(stamp)).last().unwrap();
    rig.disk.rot(place + 100, 4);
    // The extent is copied because block 2 is written.
    forest.write(&mut rig, volume, 2, 1, false);
    settle(&mut rig);
    assert_eq!(rig.engine.borrow().stats().copied_extents, 1);
    let reported = |rig: &Rig| {
        let is = |event: &&Event| {
            matches!(event, Event::Integrity { block: 5, place: Damaged::Extent, .. })
        };
        rig.events.iter().filter(is).count()
    };
    assert!(reported(&rig) > 0, "{:?}", rig.events);
    for id in [volume, snapshot] {
        let mut queue = rig.queue(id, 4);
        assert_eq!(rig.read(&mut queue, 5, 1), Err(Status::Integrity), "node {id}");
        let blocks = forest.node(id).blocks.clone();
        for block in [2, 4, 6] {
            let at = usize::try_from(block).unwrap();
            assert_eq!(rig.read(&mut queue, block, 1), Ok(content(blocks[at])), "node {id}");
        }
    }
}

#[test]
fn old_blocks_are_read_while_their_extent_is_copied() {
    let disk = SimDisk::new(4096, 24 * 256, FaultPlan::power_cuts(3));
    let soon = Options { idle_ns: 1_000_000, ..options() };
    let mut rig = Rig::create(disk, MIB, &soon);
    let mut forest = Forest::default();
    let volume = forest.create(&mut rig);
    for first in (0..BLOCKS).step_by(16) {
        forest.write(&mut rig, volume, first, 16, false);
    }
    forest.snapshot(&mut rig, &[volume]);
    settle(&mut rig);
    for first in (0..BLOCKS).step_by(16) {
        forest.write(&mut rig, volume, first + 2, 1, false);
    }
    let blocks = forest.node(volume).blocks.clone();
    let mut queue = rig.queue(volume, 1);
    let mut block = 5;
    // Reads go on all the time, whatever the destager is at.
    while rig.engine.borrow().stats().log_used_bytes > 0 {
        let expected = content(blocks[usize::try_from(block).unwrap()]);
        assert_eq!(rig.read(&mut queue, block, 1), Ok(expected), "block {block}");
        block = (block + 16) % BLOCKS;
    }
    let stats = rig.engine.borrow().stats();
    assert_eq!((stats.copied_extents, stats.integrity_errors), (BLOCKS / 16, 0));
}

#[test]
fn device_errors_of_a_copy_are_told_and_stop_nothing_else() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 16, false);
    forest.write(&mut rig, volume, 32, 16, false);
    settle(&mut rig);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    let stamp = forest.node(volume).blocks[5];
    let place = *find(&rig.disk.image(), &content(stamp)).last().unwrap();
    // A sector that cannot be read any more: what is copied from it reads as damaged, for ever.
    rig.disk.fail_range(Op::Read, place / 4096..=place / 4096);
    forest.write(&mut rig, volume, 2, 1, false);
    forest.write(&mut rig, volume, 33, 1, false);
    settle(&mut rig);
    assert!(!rig.engine.borrow().is_degraded());
    let mut queue = rig.queue(volume, 4);
    assert_eq!(rig.read(&mut queue, 5, 1), Err(Status::Integrity));
    let stamp = forest.node(volume).blocks[34];
    assert_eq!(rig.read(&mut queue, 34, 1), Ok(content(stamp)));
    let mut queue = rig.queue(snapshot, 4);
    assert_eq!(rig.read(&mut queue, 5, 1), Err(Status::Io));
}

#[test]
fn a_failing_log_fails_the_snapshot_and_keeps_the_rest() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 16, false);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    settle(&mut rig);
    rig.disk.fail_range(Op::Write, 0..=u64::MAX);
    let new = NewSnapshot { volume, uuid: [4; 16], name: "late" };
    let token = rig.engine.borrow_mut().create_snapshots(&[new]);
    assert_eq!(refused(&mut rig, token), Some(ControlError::Device(Status::Io)));
    let token = rig.engine.borrow_mut().restore_volume(volume, snapshot);
    assert_eq!(refused(&mut rig, token), Some(ControlError::NotReady));
    forest.verify(&mut rig).unwrap();
}

#[test]
fn closing_with_snapshots_under_way_leaves_a_clean_store() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 50, false);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    forest.write(&mut rig, volume, 20, 50, false);
    // All of these are asked for and nobody waits.
    let new = NewSnapshot { volume, uuid: [4; 16], name: "last" };
    rig.engine.borrow_mut().create_snapshots(&[new]).unwrap();
    rig.engine.borrow_mut().restore_volume(volume, snapshot).unwrap();
    rig.engine.borrow_mut().delete_volume(snapshot).unwrap();
    rig.close();
    let report = Rig::check(rig.disk.image(), true);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let rig = Rig::open(rig.disk.image(), FaultPlan::reliable(1), &options()).unwrap();
    assert_eq!(rig.engine.borrow().stats().replayed_records, 0);
    let names: Vec<_> = rig.engine.borrow().snapshots().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["last"]);
}

/// All steps of a walk over what differs.
fn diff(rig: &mut Rig, base: Option<VolumeId>, of: VolumeId) -> Vec<Change> {
    let (mut changes, mut from): (Vec<Change>, _) = (Vec::new(), Some(0));
    rig.until("the walk ends", |rig| {
        let Some(at) = from else { return true };
        let step = rig.engine.borrow_mut().diff(base, of, at).unwrap();
        changes.extend(step.changes);
        from = step.next;
        from.is_none()
    });
    changes
}

fn unique(rig: &mut Rig, id: VolumeId) -> (u64, u64) {
    let (mut unique, mut referenced, mut from) = (0, 0, Some(0));
    rig.until("the walk ends", |rig| {
        let Some(at) = from else { return true };
        let step = rig.engine.borrow_mut().space_of(id, at).unwrap();
        unique += step.unique_bytes;
        referenced = step.referenced_bytes;
        from = step.next;
        from.is_none()
    });
    (unique, referenced)
}

#[test]
fn diff_names_what_changed_and_nothing_else() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 64, false);
    let first = forest.snapshot(&mut rig, &[volume])[0];
    forest.write(&mut rig, volume, 17, 1, false);
    forest.write(&mut rig, volume, 48, 16, true);
    forest.write(&mut rig, volume, 100, 1, false);
    let second = forest.snapshot(&mut rig, &[volume])[0];
    forest.write(&mut rig, volume, 0, 200, false);
    let change = |extent: u64, extents: u64, kind| {
        let (start, bytes) = (extent * EXTENT, extents * EXTENT);
        Change { start, bytes, kind }
    };
    let all = [change(0, 4, ChangeKind::Written)];
    assert_eq!(diff(&mut rig, None, first), all, "it waits until it is materialised");
    let (written, cleared) = (ChangeKind::Written, ChangeKind::Cleared);
    let expected = [change(1, 1, written), change(3, 1, cleared), change(6, 1, written)];
    assert_eq!(diff(&mut rig, Some(first), second), expected);
    let back = [change(1, 1, written), change(3, 1, written), change(6, 1, cleared)];
    assert_eq!(diff(&mut rig, Some(second), first), back);
    assert_eq!(diff(&mut rig, Some(first), first), []);
}

#[test]
fn space_of_a_snapshot_is_what_its_deletion_gives_back() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 160, false);
    let first = forest.snapshot(&mut rig, &[volume])[0];
    forest.write(&mut rig, volume, 0, 64, false);
    let second = forest.snapshot(&mut rig, &[volume])[0];
    forest.write(&mut rig, volume, 32, 64, false);
    settle(&mut rig);
    assert_eq!(unique(&mut rig, first), (4 * EXTENT, 10 * EXTENT));
    assert_eq!(unique(&mut rig, second), (2 * EXTENT, 10 * EXTENT));
    assert_eq!(unique(&mut rig, volume), (4 * EXTENT, 10 * EXTENT));
    let before = free(&rig);
    forest.delete(&mut rig, second);
    settle(&mut rig);
    // Two extents, less the one in nine that a store with snapshots keeps for pages.
    rig.until("its space is back", |rig| free(rig) > before);
    // What the deleted one shared with the first alone is the first's now.
    assert_eq!(unique(&mut rig, first), (6 * EXTENT, 10 * EXTENT));
    assert_eq!(unique(&mut rig, volume), (6 * EXTENT, 10 * EXTENT));
}

#[test]
fn a_volume_shrinks_only_over_nothing() {
    let (mut rig, mut forest, volume) = rig();
    forest.write(&mut rig, volume, 0, 40, false);
    let snapshot = forest.snapshot(&mut rig, &[volume])[0];
    forest.write(&mut rig, volume, 100, 3, false);
    let resize = |rig: &mut Rig, blocks: u64, shrink| {
        let token = rig.engine.borrow_mut().resize_volume(volume, blocks * 4096, shrink);
        refused(rig, token)
    };
    let mut queue = rig.queue(volume, 4);
    assert_eq!(resize(&mut rig, 64, Shrink::Refuse), Some(ControlError::Shrink));
    assert_eq!(resize(&mut rig, 102, Shrink::IfEmpty), Some(ControlError::NotEmpty));
    assert_eq!(rig.write(&mut queue, 103, &content(5)), Status::Ok, "as large as ever");
    let zero = Request::range(Tag(1), Op::WriteZeroes, Lba(100), 4);
    assert_eq!(rig.run(&mut queue, zero).status, Status::Ok);
    assert_eq!(resize(&mut rig, 39, Shrink::IfEmpty), Some(ControlError::NotEmpty));
    assert_eq!(resize(&mut rig, 40, Shrink::IfEmpty), None);
    assert_eq!(rig.write(&mut queue, 40, &content(5)), Status::OutOfRange);
    assert_eq!(queue.info().unwrap().blocks.0, 40);
    drop(queue);
    let mut rig = reopen(&rig);
    assert_eq!(rig.engine.borrow().volume(volume).unwrap().size, 40 * 4096);
    assert_eq!(rig.engine.borrow().snapshot(snapshot).unwrap().size, BLOCKS * 4096);
    // A restore does not cut the snapshot off.
    forest.restore(&mut rig, volume, snapshot);
    assert_eq!(rig.engine.borrow().volume(volume).unwrap().size, BLOCKS * 4096);
    forest.verify(&mut rig).unwrap();
    let mut rig = reopen(&rig);
    assert_eq!(rig.engine.borrow().volume(volume).unwrap().size, BLOCKS * 4096);
    forest.verify(&mut rig).unwrap();
    close(rig);
}

#[test]
fn a_full_store_refuses_what_it_cannot_copy_and_keeps_every_snapshot() {
    let disk = SimDisk::new(4096, 1376, FaultPlan::power_cuts(3));
    let mut rig = Rig::create(disk, MIB, &options());
    let mut forest = Forest::default();
    let volume = forest.create(&mut rig);
    forest.write(&mut rig, volume, 0, 208, false);
    let mut rng = Rng::new(4);
    let mut snapshots = Vec::new();
    let mut full = false;
    for round in 0..10 {
        snapshots.extend(forest.snapshot(&mut rig, &[volume]));
        for _ in 0..20 {
            full |= !forest.write(&mut rig, volume, rng.below(BLOCKS - 16), 1 + round, false);
        }
    }
    assert!(full, "the store got full");
    forest.verify(&mut rig).unwrap();
    let mut rig = reopen(&rig);
    forest.verify(&mut rig).unwrap();
    for snapshot in snapshots {
        forest.delete(&mut rig, snapshot);
    }
    settle(&mut rig);
    assert!(forest.write(&mut rig, volume, 0, 64, false), "space came back");
    forest.verify(&mut rig).unwrap();
    close(rig);
}
