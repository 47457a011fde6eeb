//! What an engine promises its owner, one claim a test.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Data, Fifo, Lba, Op, Queue, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, Image, SimDisk};
use support::{Rig, options};
use volume::{ControlError, Damaged, Event, OpenError, Shrink, VolumeId, VolumeQueue};

const MIB: u64 = 1 << 20;

fn disk(mib: u64) -> SimDisk {
    SimDisk::new(4096, mib * 256, FaultPlan::power_cuts(3))
}

fn rig(mib: u64) -> Rig {
    Rig::create(disk(mib), MIB, &options())
}

fn rig_with_volume(mib: u64, size: u64, block_bytes: u32) -> (Rig, VolumeQueue, VolumeId) {
    let mut rig = rig(mib);
    let id = rig.create_volume("v", size, block_bytes);
    let queue = rig.queue(id, 64);
    (rig, queue, id)
}

fn block(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

/// Where in the image these bytes are.
fn find(image: &Image, bytes: &[u8]) -> Vec<u64> {
    let mut page = vec![0; 4096];
    (0..image.byte_len() / 4096)
        .map(|at| at * 4096)
        .filter(|&at| {
            image.read(at, &mut page);
            page == bytes
        })
        .collect()
}

/// Everything in the map, the log empty.
fn settle(rig: &mut Rig) {
    rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
}

fn reopen(rig: &Rig) -> Rig {
    Rig::open(rig.disk.crash(), FaultPlan::power_cuts(4), &options()).unwrap()
}

#[test]
fn flipped_byte_in_an_extent_is_reported_and_never_returned() {
    let (mut rig, mut queue, id) = rig_with_volume(24, 8 * MIB, 4096);
    for lba in 5..8 {
        assert_eq!(rig.write(&mut queue, lba, &block(lba)), Status::Ok);
    }
    settle(&mut rig);
    let places = find(&rig.disk.image(), &block(6));
    let extent = *places.last().unwrap();
    rig.disk.rot(extent + 77, 0x10);
    assert_eq!(rig.read(&mut queue, 6, 1), Err(Status::Integrity));
    assert_eq!(rig.read(&mut queue, 4, 4), Err(Status::Integrity), "in the middle of a run");
    let reported = Event::Integrity { volume: id, block: 6, place: Damaged::Extent, byte: extent };
    assert!(rig.events.contains(&reported), "{:?}", rig.events);
    assert_eq!(rig.engine.borrow().stats().integrity_errors, 2);
    assert_eq!(rig.read(&mut queue, 5, 1), Ok(block(5)));
    // Writing the block again heals it.
    assert_eq!(rig.write(&mut queue, 6, &block(9)), Status::Ok);
    assert_eq!(rig.read(&mut queue, 6, 1), Ok(block(9)));
}

/// A checksum that came with the buffer, from the wire, is the one that the block is stored with.
#[test]
fn byte_flipped_between_wire_and_log_is_caught_and_never_returned() {
    for blocks in [2, 16] {
        let (mut rig, mut queue, id) = rig_with_volume(24, 8 * MIB, 4096);
        let mut buf = rig.pool.take(blocks * 4096).unwrap();
        Rng::new(3).fill(&mut buf.bytes_mut()[..blocks * 4096]);
        let sums: Vec<u32> = buf.bytes().chunks(4096).map(wal::crc32c).collect();
        buf.bytes_mut()[4096 + 55] ^= 4;
        sums.iter().take(blocks).enumerate().for_each(|(at, &sum)| buf.note_checksum(at, sum));
        buf.mark_summed(blocks);
        let count = u32::try_from(blocks).unwrap();
        let write = Request::write(Tag(1), Lba(16), count, buf.freeze());
        assert_eq!(rig.run(&mut queue, write).status, Status::Ok);
        assert_eq!(rig.engine.borrow().stats().summed_bytes, 0, "nothing is summed twice");
        for _ in 0..2 {
            assert_eq!(rig.read(&mut queue, 17, 1), Err(Status::Integrity));
            assert!(rig.read(&mut queue, 16, 1).is_ok());
            settle(&mut rig);
        }
        let reported = |event: &Event| matches!(event, Event::Integrity { block: 17, .. });
        assert!(rig.events.iter().any(reported), "volume {id:?}: {:?}", rig.events);
    }
}

#[test]
fn what_is_read_carries_the_checksums_that_it_was_checked_with() {
    for block_bytes in [4096, 512] {
        let (mut rig, mut queue, _) = rig_with_volume(24, 8 * MIB, block_bytes);
        let per_block = u64::from(4096 / block_bytes);
        for block in [0, 1, 5, 2] {
            assert_eq!(rig.write(&mut queue, block * per_block, &self::block(block)), Status::Ok);
        }
        for (first, blocks) in [(0, 2), (0, 8), (7, 1)] {
            let into = rig.pool.take(blocks * 4096).unwrap();
            let count = u32::try_from(blocks as u64 * per_block).unwrap();
            let read = Request::read(Tag(1), Lba(first * per_block), count, into);
            let Data::Into(buf) = rig.run(&mut queue, read).data else { panic!("a read") };
            let buf = buf.freeze();
            for (at, block) in buf.bytes()[..blocks * 4096].chunks(4096).enumerate() {
                assert_eq!(buf.checksum(at), Some(wal::crc32c(block)), "block {at} of {blocks}");
            }
            assert_eq!(buf.checksum(blocks), None);
        }
    }
}

#[test]
fn block_that_rots_in_the_log_is_never_returned_even_after_destaging() {
    let (mut rig, mut queue, id) = rig_with_volume(24, 8 * MIB, 4096);
    assert_eq!(rig.write(&mut queue, 5, &block(5)), Status::Ok);
    let place = find(&rig.disk.image(), &block(5))[0];
    rig.disk.rot(place, 1);
    assert_eq!(rig.read(&mut queue, 5, 1), Err(Status::Integrity));
    settle(&mut rig);
    assert_eq!(rig.read(&mut queue, 5, 1), Err(Status::Integrity));
    let in_log = |e: &Event| match e {
        Event::Integrity { volume, block: 5, place: Damaged::Log, .. } => *volume == id,
        _ => false,
    };
    assert!(rig.events.iter().any(in_log), "{:?}", rig.events);
}

#[test]
fn damaged_payload_in_the_log_is_named_and_the_rest_is_served() {
    let (mut rig, mut queue, id) = rig_with_volume(24, 8 * MIB, 4096);
    let many: Vec<u8> = (10..18).flat_map(block).collect();
    assert_eq!(rig.write(&mut queue, 10, &many), Status::Ok);
    for lba in [1, 2, 12, 3] {
        assert_eq!(rig.write(&mut queue, lba, &block(lba + 20 * (lba / 10))), Status::Ok);
    }
    let mut image = rig.disk.crash();
    let places = [1, 12, 15].map(|seed| find(&image, &block(seed))[0]);
    places.iter().for_each(|&place| image.flip(place + 99, 1));
    let mut rig = Rig::open(image, FaultPlan::power_cuts(2), &options()).unwrap();
    rig.turn();
    // Block 12 was written again: nothing is lost with its first version.
    let lost = |block, byte| Event::Integrity { volume: id, block, place: Damaged::Log, byte };
    let Event::LogDamaged { first, last, blocks: 3 } = rig.events[0] else {
        panic!("{:?}", rig.events)
    };
    assert_eq!(last - first, 1, "the records of the first two writes");
    assert_eq!(rig.events[1..], [lost(15, places[2]), lost(1, places[0])]);
    assert_eq!(rig.engine.borrow().stats().integrity_errors, 2);

    let mut queue = rig.queue(id, 4);
    for settled in [false, true] {
        for lba in (10..18).chain([1, 2, 3]) {
            let read = rig.read(&mut queue, lba, 1);
            match lba {
                1 | 15 => assert_eq!(read, Err(Status::Integrity), "{lba}"),
                12 => assert_eq!(read, Ok(block(32))),
                _ => assert_eq!(read, Ok(block(lba)), "{lba}"),
            }
        }
        if !settled {
            settle(&mut rig);
        }
    }
    assert_eq!(rig.write(&mut queue, 15, &block(15)), Status::Ok);
    assert_eq!(rig.read(&mut queue, 15, 1), Ok(block(15)), "overwriting heals");
}

#[test]
fn lost_header_in_the_log_refuses_to_open() {
    let (mut rig, mut queue, _) = rig_with_volume(24, 8 * MIB, 4096);
    for lba in 0..4 {
        assert_eq!(rig.write(&mut queue, lba, &block(lba)), Status::Ok);
    }
    let mut image = rig.disk.crash();
    let place = find(&image, &block(1))[0] - 4096;
    image.flip(place, 1);
    match Rig::open(image, FaultPlan::reliable(1), &options()) {
        Err(OpenError::Log(wal::ScanError::Corrupt { first, next, byte })) => {
            assert_eq!((next.0 - first.0, byte), (1, place));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("an acknowledged write was dropped silently"),
    }
}

#[test]
fn full_store_refuses_writes_serves_reads_and_recovers() {
    let (mut rig, mut queue, _) = rig_with_volume(16, 64 * MIB, 4096);
    let extent: Vec<u8> = (0..16).flat_map(block).collect();
    let mut written = 0;
    loop {
        match rig.write(&mut queue, written * 16, &extent) {
            Status::Ok => written += 1,
            status => {
                assert_eq!(status, Status::NoSpace);
                break;
            }
        }
    }
    assert!(written > 160, "most of 16 MiB was usable: {written} extents");
    for index in 0..written {
        assert_eq!(rig.read(&mut queue, index * 16, 16), Ok(extent.clone()));
    }
    // A small write to a new place finds no room either, one to an old place does.
    assert_eq!(rig.write(&mut queue, 4096, &block(1)), Status::NoSpace);
    assert_eq!(rig.write(&mut queue, 3, &block(99)), Status::Ok);
    assert_eq!(rig.write(&mut queue, 16, &extent), Status::Ok, "in place, through the log");
    let free = Request::range(Tag(1), Op::Deallocate, Lba(32), 160);
    assert_eq!(rig.run(&mut queue, free).status, Status::Ok);
    assert_eq!(rig.write(&mut queue, 4096, &block(1)), Status::Ok);
    assert_eq!(rig.read(&mut queue, 32, 1), Ok(vec![0; 4096]));
    assert_eq!(rig.read(&mut queue, 3, 1), Ok(block(99)));
    rig.close();
    assert!(Rig::check(rig.disk.image(), true).is_clean());
}

#[test]
fn deleted_volume_gives_its_space_back() {
    let mut rig = rig(32);
    let id = rig.create_volume("v", 16 * MIB, 4096);
    settle(&mut rig);
    rig.turn();
    let free = rig.engine.borrow().stats().free_bytes;
    let mut queue = rig.queue(id, 4);
    let extent = vec![5; 65536];
    for index in 0..100 {
        assert_eq!(rig.write(&mut queue, index * 16, &extent), Status::Ok);
    }
    assert_eq!(rig.write(&mut queue, 2000, &block(1)), Status::Ok);
    assert_eq!(rig.engine.borrow_mut().delete_volume(id).map(drop), Ok(()));
    rig.until("refused while it is open", |rig| {
        rig.events
            .iter()
            .any(|e| matches!(e, Event::Control { result: Err(ControlError::InUse), .. }))
    });
    drop(queue);
    let token = rig.engine.borrow_mut().delete_volume(id).unwrap();
    assert_eq!(rig.control_result(token), Ok(id));
    assert_eq!(rig.engine.borrow().volume(id), None);
    rig.until("space is back", |rig| {
        let stats = rig.engine.borrow().stats();
        stats.log_used_bytes == 0 && stats.free_bytes + (2 << 16) >= free
    });
    let other = rig.create_volume("v", 16 * MIB, 4096);
    assert_ne!(other, id, "ids are not used twice");
    let mut queue = rig.queue(other, 4);
    assert_eq!(rig.read(&mut queue, 0, 1), Ok(vec![0; 4096]));
    drop(queue);
    rig.close();
    assert!(Rig::check(rig.disk.image(), true).is_clean());
}

#[test]
fn volume_made_anew_under_the_same_uuid_survives_a_cut() {
    for turns in [0, 3, 10, 40] {
        let mut rig = rig(32);
        let first = rig.create_volume("v", MIB, 4096);
        let token = rig.engine.borrow_mut().delete_volume(first).unwrap();
        assert_eq!(rig.control_result(token), Ok(first));
        let second = rig.create_volume("v", 2 * MIB, 4096);
        assert_ne!(first, second);
        for _ in 0..turns {
            rig.turn();
        }
        let rig = reopen(&rig);
        assert_eq!(rig.engine.borrow().volume_by_name("v").map(|v| v.size), Some(2 * MIB));
        assert_eq!(rig.engine.borrow().volumes().len(), 1);
    }
}

#[test]
fn clean_shutdown_leaves_nothing_to_replay_and_a_cut_does() {
    let (mut rig, mut queue, _) = rig_with_volume(24, 8 * MIB, 4096);
    assert_eq!(rig.write(&mut queue, 1, &block(1)), Status::Ok);
    drop(queue);
    let after_cut = reopen(&rig);
    assert!(after_cut.engine.borrow().stats().replayed_records > 0);
    let mut rig = after_cut;
    rig.close();
    let mut rig = reopen(&rig);
    assert_eq!(rig.engine.borrow().stats().replayed_records, 0);
    let id = rig.engine.borrow().volume_by_name("v").unwrap().id;
    let mut queue = rig.queue(id, 4);
    assert_eq!(rig.read(&mut queue, 1, 1), Ok(block(1)));
}

#[test]
fn grown_volume_is_seen_by_its_queues_and_after_a_crash() {
    let (mut rig, mut queue, id) = rig_with_volume(24, MIB, 512);
    assert_eq!(rig.write(&mut queue, 2048, &[1; 512]), Status::OutOfRange);
    let token = rig.engine.borrow_mut().resize_volume(id, 2 * MIB, Shrink::Refuse).unwrap();
    assert_eq!(rig.control_result(token), Ok(id));
    assert_eq!(queue.info().unwrap().blocks.0, 4096);
    assert_eq!(rig.write(&mut queue, 2048, &[1; 512]), Status::Ok);
    let token = rig.engine.borrow_mut().resize_volume(id, MIB, Shrink::Refuse).unwrap();
    assert_eq!(rig.control_result(token), Err(ControlError::Shrink));
    drop(queue);
    let mut rig = reopen(&rig);
    assert_eq!(rig.engine.borrow().volume(id).unwrap().size, 2 * MIB);
    let mut queue = rig.queue(id, 4);
    assert_eq!(rig.read(&mut queue, 2048, 1), Ok(vec![1; 512]));
}

#[test]
fn bad_control_operations_are_refused_with_the_reason() {
    let (mut rig, _queue, _) = rig_with_volume(24, MIB, 4096);
    let mut create = |name: &str, uuid, size, block_bytes| {
        let new = volume::NewVolume { uuid: [uuid; 16], name, size, block_bytes };
        let token = rig.engine.borrow_mut().create_volume(&new)?;
        rig.control_result(token)
    };
    let refused = |error| Err(ControlError::Volume(error));
    assert_eq!(create("v", 1, MIB, 4096), refused(store::VolumeError::Exists));
    assert_eq!(create("", 1, MIB, 4096), refused(store::VolumeError::Name));
    assert_eq!(create(&"n".repeat(65), 1, MIB, 4096), refused(store::VolumeError::Name));
    assert_eq!(create("w", 1, MIB + 1, 4096), refused(store::VolumeError::Size));
    assert_eq!(create("w", 1, 0, 4096), refused(store::VolumeError::Size));
    assert_eq!(create("w", 1, MIB, 1024), refused(store::VolumeError::BlockSize));
    assert!(create("w", 1, MIB, 512).is_ok());
    assert_eq!(create("x", 1, MIB, 512), refused(store::VolumeError::Exists), "the uuid");
    let none = rig.engine.borrow_mut().delete_volume(VolumeId(77)).unwrap();
    assert_eq!(rig.control_result(none), refused(store::VolumeError::Unknown));
}

#[test]
fn huge_volume_costs_nothing_until_it_is_written() {
    let (mut rig, mut queue, _) = rig_with_volume(24, 1 << 44, 4096);
    let last = (1 << 32) - 1;
    assert_eq!(rig.read(&mut queue, last, 1), Ok(vec![0; 4096]));
    let before = rig.engine.borrow().stats();
    assert_eq!(rig.write(&mut queue, last, &block(1)), Status::Ok);
    settle(&mut rig);
    assert_eq!(rig.read(&mut queue, last, 1), Ok(block(1)));
    let used = before.free_bytes - rig.engine.borrow().stats().free_bytes;
    assert!(used <= 4 * 65536, "{used} bytes for one block and its path");
    // Deallocating all of it takes one record and gives the extent back.
    let all = Request::range(Tag(1), Op::Deallocate, Lba(0), u32::MAX);
    assert_eq!(rig.run(&mut queue, all).status, Status::Ok);
    let rest = Request::range(Tag(1), Op::WriteZeroes, Lba(last), 1);
    assert_eq!(rig.run(&mut queue, rest).status, Status::Ok);
    settle(&mut rig);
    assert_eq!(rig.read(&mut queue, last, 1), Ok(vec![0; 4096]));
}

#[test]
fn volume_uses_the_extents_that_it_maps() {
    let (mut rig, mut queue, _) = rig_with_volume(24, 8 * MIB, 4096);
    let used = |rig: &Rig| rig.engine.borrow().volumes()[0].used_bytes;
    assert_eq!(used(&rig), 0);
    assert_eq!(rig.write(&mut queue, 1, &block(1)), Status::Ok);
    assert_eq!(rig.write(&mut queue, 100, &block(1)), Status::Ok);
    settle(&mut rig);
    assert_eq!(used(&rig), 2 * store::EXTENT_BYTES);
    let zero = Request::range(Tag(1), Op::Deallocate, Lba(0), 16);
    assert_eq!(rig.run(&mut queue, zero).status, Status::Ok);
    settle(&mut rig);
    assert_eq!(used(&rig), store::EXTENT_BYTES);
}

#[test]
fn failed_log_stops_writes_and_leaves_reads() {
    let (mut rig, mut queue, _) = rig_with_volume(24, 8 * MIB, 4096);
    assert_eq!(rig.write(&mut queue, 1, &block(1)), Status::Ok);
    settle(&mut rig);
    rig.disk.fail_range(Op::Write, 0..=u64::MAX);
    assert_eq!(rig.write(&mut queue, 2, &block(2)), Status::Io);
    assert!(rig.engine.borrow().is_degraded());
    assert_eq!(rig.write(&mut queue, 3, &block(3)), Status::Io);
    assert_eq!(rig.read(&mut queue, 1, 1), Ok(block(1)));
    assert!(rig.events.iter().any(|e| matches!(e, Event::Failed { .. })));
    assert!(rig.engine.borrow_mut().delete_volume(VolumeId(1)).is_err());
}

#[test]
fn transient_device_errors_are_not_seen_by_hosts() {
    let (mut rig, mut queue, _) = rig_with_volume(24, 8 * MIB, 4096);
    rig.disk.fail_next(Op::Write, Status::Io);
    assert_eq!(rig.write(&mut queue, 1, &block(1)), Status::Ok, "the log writes again");
    settle(&mut rig);
    assert_eq!(rig.read(&mut queue, 1, 1), Ok(block(1)));
    assert!(!rig.engine.borrow().is_degraded());
}

#[test]
fn log_never_exceeds_its_hard_watermark_and_everything_completes() {
    let (mut rig, mut queue, _) = rig_with_volume(64, 32 * MIB, 4096);
    let mut rng = Rng::new(5);
    let (mut requests, mut completions) = (Fifo::new(64), Fifo::new(64));
    let (mut submitted, mut done) = (0u32, 0u32);
    while done < 6000 {
        while submitted < 6000 && queue.in_flight() + 1 < 64 && !requests.is_full() {
            let Some(buf) = rig.pool.take(4096) else { break };
            let lba = Lba(rng.below(8192));
            requests.push(Request::write(Tag(submitted), lba, 1, buf.freeze())).unwrap();
            queue.submit(&mut requests);
            submitted += 1;
        }
        rig.turn();
        queue.poll(&mut completions);
        while let Some(completion) = completions.pop() {
            assert_eq!(completion.status, Status::Ok);
            assert!(matches!(completion.data, Data::From(_)));
            done += 1;
        }
        let stats = rig.engine.borrow().stats();
        let hard = stats.log_bytes * 90 / 100 + (64 << 10);
        assert!(stats.log_used_bytes <= hard, "{stats:?}");
    }
    assert!(rig.engine.borrow().stats().parked_writes > 0, "the watermark was reached");
}

#[test]
fn write_amplification_stays_within_its_bounds() {
    // A log of 8 MiB: metadata weighs less in the larger logs of real stores.
    let options = volume::Options { frames: 2048, ..options() };
    for (bytes, depth, bound) in [(4096usize, 32, 2.2), (128 << 10, 8, 1.1)] {
        let mut rig = Rig::create(disk(128), 8 * MIB, &options);
        let id = rig.create_volume("v", 48 * MIB, 4096);
        let mut queue = rig.queue(id, 32);
        let blocks = (bytes / 4096) as u64;
        let count = 40 * MIB / bytes as u64;
        let mut rng = Rng::new(9);
        let (mut requests, mut completions) = (Fifo::new(1), Fifo::new(64));
        let (mut submitted, mut done) = (0, 0);
        while done < count {
            while submitted < count && queue.in_flight() < depth {
                let Some(buf) = rig.pool.take(bytes) else { break };
                let lba = Lba(rng.below(48 * MIB / bytes as u64) * blocks);
                let count = u32::try_from(blocks).unwrap();
                requests.push(Request::write(Tag(1), lba, count, buf.freeze())).unwrap();
                queue.submit(&mut requests);
                submitted += 1;
            }
            rig.turn();
            queue.poll(&mut completions);
            while let Some(completion) = completions.pop() {
                assert_eq!(completion.status, Status::Ok);
                done += 1;
            }
        }
        drop(queue);
        rig.close();
        let stats = rig.engine.borrow().stats();
        let amplification = stats.write_amplification();
        println!("{bytes} bytes at depth {depth}: {amplification:.3}; {stats:?}");
        assert!(amplification <= bound, "{amplification} > {bound}: {stats:?}");
    }
}

#[test]
fn compare_and_flush_see_what_was_written() {
    let (mut rig, mut queue, _) = rig_with_volume(24, MIB, 512);
    assert_eq!(rig.write(&mut queue, 3, &[7; 1536]), Status::Ok);
    for (byte, status) in [(7, Status::Ok), (8, Status::Miscompare)] {
        let mut compare = Request::write(Tag(1), Lba(4), 2, rig.buffer(&[byte; 1024]));
        compare.op = Op::Compare;
        assert_eq!(rig.run(&mut queue, compare).status, status);
    }
    assert_eq!(rig.run(&mut queue, Request::flush(Tag(1))).status, Status::Ok);
}
