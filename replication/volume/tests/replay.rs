//! What is in the log and, partly, in the map already when an engine starts.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Fifo, Lba, Op, Queue, Request, Tag};
use bdev_sim::{FaultPlan, SimDisk};
use support::{Rig, options};
use volume::NewSnapshot;

const EXTENT: u64 = 16;

/// A direct write, and some turns later a zeroed range over it and a snapshot of another volume,
/// then a power cut at a write.
fn cut(range_after: usize, snapshot_after: usize, cut_after: u64) -> (Rig, bool) {
    let disk = SimDisk::new(4096, 6144, FaultPlan::power_cuts(1));
    let mut rig = Rig::create(disk, 1 << 20, &options());
    let ids = ["a", "b"].map(|name| rig.create_volume(name, 1 << 20, 4096));
    let mut queues = ids.map(|id| rig.queue(id, 8));
    let (mut requests, mut done) = (Fifo::new(8), Fifo::new(8));
    let at = rig.disk.boundaries() + cut_after;
    rig.disk.replan(|plan| plan.crash_at_write = Some(at));
    let direct = rig.buffer(&vec![7; 2 * 65536]);
    requests.push(Request::write(Tag(0), Lba(EXTENT), 32, direct)).unwrap();
    queues[0].submit(&mut requests);
    for turn in 0..range_after + 60 {
        if turn < range_after {
            let small = rig.buffer(&[9; 4096]);
            requests.push(Request::write(Tag(9), Lba(turn as u64 % 64), 1, small)).unwrap();
            queues[1].submit(&mut requests);
            requests.clear();
        }
        if turn == range_after {
            requests.push(Request::range(Tag(1), Op::WriteZeroes, Lba(0), 96)).unwrap();
            queues[0].submit(&mut requests);
        }
        if turn == range_after + snapshot_after {
            let new = NewSnapshot { volume: ids[1], uuid: [3; 16], name: "s" };
            rig.engine.borrow_mut().create_snapshots(&[new]).unwrap();
        }
        rig.turn();
        queues.iter_mut().for_each(|queue| queue.poll(&mut done));
        done.clear();
        if rig.disk.is_off() {
            break;
        }
    }
    let off = rig.disk.is_off();
    drop(queues);
    (rig, off)
}

#[test]
fn zeroed_range_leaves_the_extent_of_a_later_direct_write_that_is_in_the_map() {
    for range_after in 15..19 {
        for snapshot_after in 1..4 {
            for cut_after in 10..20 {
                let (rig, off) = cut(range_after, snapshot_after, cut_after);
                if !off {
                    break;
                }
                rig.disk.power_off();
                let image = rig.disk.image();
                drop(rig);
                let mut rig = Rig::open(image, FaultPlan::reliable(1), &options()).unwrap();
                rig.close();
                let report = Rig::check(rig.disk.image(), true);
                let when = (range_after, snapshot_after, cut_after);
                assert!(report.is_clean(), "{when:?}: {:?}", report.findings);
            }
        }
    }
}
