//! The log as its users see it: what was appended comes back, what was damaged does not.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test: a panic is how it fails, and its numbers are small"
)]

mod support;

use bdev::{Fifo, Pool, Status};
use support::{BLOCKS, Disk, Seen, append, block_of, config, pool, recover, settle};
use wal::{
    AppendError, BLOCK_BYTES, Config, Event, Lsn, Point, Record, ScanError, ScanStep, Wal, crc32c,
};

/// Three groups of one, three and one blocks; returns the disk, the groups and what was appended.
fn three_groups(pool: &Pool) -> (Disk, Vec<wal::Group>, Vec<Seen>) {
    let mut disk = Disk::new();
    let mut log = Wal::new(config(1), Point::START, Point::START, pool).unwrap();
    let mut groups = Vec::new();
    let mut seen = Vec::new();
    for (index, blocks) in [1usize, 3, 1].into_iter().enumerate() {
        let data = block_of(index as u64, blocks);
        let lsn = append(&mut log, 5, index as u64 * 10, &data).unwrap();
        let block = index as u64 * 10;
        seen.push(Seen { lsn: lsn.0, volume: 5, block, data, damaged: 0 });
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
        let mut disk = Disk { bytes: disk.bytes.clone() };
        disk.bytes[at] ^= 1 << (at % 8);
        let (replayed, step) = recover(&mut disk, &pool, Point::START);
        if at >= Disk::byte_of(third) {
            assert_eq!(step, ScanStep::Done(groups[1].end), "byte {at}");
            assert_eq!(replayed, seen[..2]);
        } else if header {
            // The third group says that the second was durable.
            let ScanStep::Failed(ScanError::Corrupt { first, next, .. }) = step else {
                panic!("byte {at}: {step:?}");
            };
            assert_eq!((first, next), (Lsn(2), Lsn(3)));
            assert_eq!(replayed, seen[..1]);
        } else {
            // Only that block is damaged, and is said to be.
            let block = (at - Disk::byte_of(second)) / BLOCK_BYTES - 1;
            assert_eq!(step, ScanStep::Done(groups[2].end), "byte {at}");
            assert_eq!(replayed[1].damaged, 1 << block, "byte {at}");
            assert_eq!((&replayed[0], &replayed[2]), (&seen[0], &seen[2]));
        }
    }
    let (replayed, _) = recover(&mut disk, &pool, Point::START);
    assert_eq!(replayed, seen);
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
        disk.tear(requests.pop().unwrap(), |sector| sector < torn);
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
