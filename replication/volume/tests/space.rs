//! Stores that are nearly full, and full.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Fifo, Lba, Queue, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, SimDisk};
use support::{Rig, env, options};
use volume::{Options, VolumeQueue};

const MIB: u64 = 1 << 20;
const EXTENT_BLOCKS: u64 = 16;

fn rig(mib: u64, size: u64) -> (Rig, VolumeQueue) {
    let disk = SimDisk::new(4096, mib * 256, FaultPlan::power_cuts(3));
    let mut rig = Rig::create(disk, MIB, &options());
    let id = rig.create_volume("v", size, 4096);
    let queue = rig.queue(id, 64);
    (rig, queue)
}

/// Writes whole extents to new places until the store is full; how many there were.
fn fill(rig: &mut Rig, queue: &mut VolumeQueue) -> u64 {
    let extent = vec![7; 65536];
    let mut written = 0;
    loop {
        match rig.write(queue, written * EXTENT_BLOCKS, &extent) {
            Status::Ok => written += 1,
            Status::NoSpace => return written,
            other => panic!("{other:?}"),
        }
    }
}

/// Runs `count` writes that `next` places, `depth` at a time; the statuses that were not Ok.
fn write_many(
    rig: &mut Rig,
    queue: &mut VolumeQueue,
    (count, depth): (u32, u32),
    mut next: impl FnMut(u32) -> (u64, u32),
) -> Vec<Status> {
    let (mut requests, mut completions) = (Fifo::new(1), Fifo::new(64));
    let (mut submitted, mut done, mut bad) = (0, 0, Vec::new());
    let mut turns = 0;
    while done < count {
        turns += 1;
        assert!(turns < 50_000, "{done} of {count}: {:?}", rig.engine.borrow());
        while submitted < count && queue.in_flight() < depth {
            let (lba, blocks) = next(submitted);
            let Some(buf) = rig.pool.take(blocks as usize * 4096) else { break };
            requests.push(Request::write(Tag(submitted), Lba(lba), blocks, buf.freeze())).unwrap();
            queue.submit(&mut requests);
            submitted += 1;
        }
        rig.turn();
        queue.poll(&mut completions);
        while let Some(completion) = completions.pop() {
            if completion.status != Status::Ok {
                bad.push(completion.status);
            }
            done += 1;
        }
    }
    bad
}

/// Overwrites of whole extents hold two copies of each until a checkpoint; that is no reason to
/// say that the store is full.
#[test]
fn overwrites_at_depth_in_a_nearly_full_store_never_lack_space() {
    for seed in 1..=env("FUZZ_ROUNDS", 2) {
        let (mut rig, mut queue) = rig(20, 64 * MIB);
        let full = fill(&mut rig, &mut queue);
        // Some room comes back, for a few of the second copies that the writes in flight hold.
        let spare = 8 * seed;
        let (from, blocks) = ((full - spare) * EXTENT_BLOCKS, spare * EXTENT_BLOCKS);
        let blocks = u32::try_from(blocks).unwrap();
        let free = Request::range(Tag(1), bdev::Op::Deallocate, Lba(from), blocks);
        assert_eq!(rig.run(&mut queue, free).status, Status::Ok);
        let mut rng = Rng::new(seed);
        let places = (full - spare) / 2;
        let bad = write_many(&mut rig, &mut queue, (400, 32), |_| {
            let extent = rng.below(places) * 2;
            (extent * EXTENT_BLOCKS, if rng.chance(1, 4) { 8 } else { 32 })
        });
        assert_eq!(bad, [], "seed {seed}");
    }
}

/// Replaced extents come back with a checkpoint only, and writes that hardly fill the log ask for
/// none: without room for second copies all of them would go through the log.
#[test]
fn large_overwrites_of_a_nearly_full_store_bypass_the_log() {
    let disk = SimDisk::new(4096, 72 * 256, FaultPlan::reliable(5));
    let mut rig = Rig::create(disk, 4 * MIB, &options());
    let id = rig.create_volume("v", 64 * MIB, 4096);
    let mut queue = rig.queue(id, 64);
    let extents = rig.engine.borrow().stats().free_bytes / store::EXTENT_BYTES * 8 / 10;
    for extent in 0..extents {
        assert_eq!(rig.write(&mut queue, extent * EXTENT_BLOCKS, &[3; 65536]), Status::Ok);
    }
    let before = rig.engine.borrow().stats();
    let mut rng = Rng::new(1);
    let bad = write_many(&mut rig, &mut queue, (2000, 16), |index| {
        let count = 1 + index % 2;
        let at = rng.below(extents - u64::from(count)) * EXTENT_BLOCKS;
        (at, count * 16)
    });
    assert_eq!(bad, []);
    let after = rig.engine.borrow().stats();
    let host = after.host_written_bytes - before.host_written_bytes;
    assert_eq!(after.data_written_bytes - before.data_written_bytes, host, "each byte once");
    let log = after.log_written_bytes - before.log_written_bytes;
    assert!(log * 50 < host, "{log} of {host} bytes went to the log");
    let metadata = after.metadata_written_bytes - before.metadata_written_bytes;
    assert!(metadata * 10 < host, "checkpoints wrote {metadata} for {host} bytes");
}

/// Few pages may be dirty here, so checkpoints come often, and the first ones cover only records
/// that give nothing back: waiting for two of them is not enough.
#[test]
fn write_waits_for_every_record_that_may_give_space_back() {
    let disk = SimDisk::new(4096, 32 * 256, FaultPlan::reliable(1));
    let mut rig = Rig::create(disk, 8 * MIB, &options());
    let id = rig.create_volume("v", 1 << 40, 4096);
    let mut queue = rig.queue(id, 64);
    // Small writes, each with a leaf of its own; then one extent over and over.
    let scattered = |index| (u64::from(index) << 16, 1);
    assert_eq!(write_many(&mut rig, &mut queue, (250, 1), scattered), []);
    let extents = rig.engine.borrow().stats().free_bytes / store::EXTENT_BYTES;
    let many = u32::try_from(extents).unwrap();
    assert_eq!(write_many(&mut rig, &mut queue, (many, 1), |_| (0, 16)), []);
}

/// More leaves than the cache holds, all wanted by one window of the destager.
#[test]
fn window_with_more_leaves_than_frames_makes_progress() {
    let disk = SimDisk::new(4096, 48 * 256, FaultPlan::reliable(1));
    let mut rig = Rig::create(disk, 4 * MIB, &Options { frames: 64, ..options() });
    let id = rig.create_volume("v", 1 << 40, 4096);
    let mut queue = rig.queue(id, 64);
    for _ in 0..3 {
        let scattered = |index| (u64::from(index) << 16, 1);
        assert_eq!(write_many(&mut rig, &mut queue, (200, 32), scattered), []);
        rig.until("all is in the map", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
    }
}

/// A direct write is superseded by small ones after the destager took it up. In a full store those
/// count on the extent that the map has: it must not be replaced by one that nobody needs.
#[test]
fn direct_write_overtaken_by_small_ones_leaves_the_map_its_extent() {
    for seed in 1..=env("FUZZ_ROUNDS", 2) {
        let disk = SimDisk::new(4096, 16 * 256, FaultPlan::reliable(seed));
        // Never busy enough to wait: every record is destaged as soon as it is durable.
        let mut rig = Rig::create(disk, MIB, &Options { idle_ns: 1, ..options() });
        let id = rig.create_volume("v", 64 * MIB, 4096);
        let mut queue = rig.queue(id, 64);
        let full = fill(&mut rig, &mut queue);
        let last = Lba((full - 1) * EXTENT_BLOCKS);
        let free = Request::range(Tag(1), bdev::Op::Deallocate, last, 16);
        assert_eq!(rig.run(&mut queue, free).status, Status::Ok);
        let mut rng = Rng::new(seed);
        let bad = write_many(&mut rig, &mut queue, (2000, 8), |_| {
            let extent = rng.below(3) * EXTENT_BLOCKS;
            match rng.below(4) {
                0 => (extent, 16),
                1 => (extent, 8),
                2 => (extent + 8, 8),
                _ => (rng.below((full - 1) * EXTENT_BLOCKS), 1),
            }
        });
        assert_eq!(bad, [], "seed {seed}");
    }
}
