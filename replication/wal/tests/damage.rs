//! Logs that are damaged inside, and rings of garbage: what is replayed is verified or named, and
//! recovery ends.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test: a panic is how it fails, and its numbers are small"
)]

mod support;

use bdev::{Fifo, Pool, Rng};
use support::{BLOCKS, Disk, Seen, append, block_of, config, env, pool, recover, settle};
use wal::{BLOCK_BYTES, Event, Lsn, Point, Record, ScanError, ScanStep, Wal, crc32c};

/// Four groups of 17 blocks (a header and sixteen) that were in flight together, of which `durable`
/// were done before the next of one block was sealed, if it was sealed at all.
fn flight(pool: &Pool, durable: Option<usize>) -> (Disk, Vec<Seen>) {
    let mut disk = Disk::new();
    let mut log = Wal::new(config(1), Point::START, Point::START, pool).unwrap();
    let (mut requests, mut seen) = (Fifo::new(8), Vec::new());
    let mut write = |log: &mut Wal, blocks| {
        let (block, data) = (seen.len() as u64 * 100, block_of(seen.len() as u64, blocks));
        let lsn = append(log, 1, block, &data).unwrap().0;
        seen.push(Seen { lsn, volume: 1, block, data, damaged: 0 });
    };
    for _ in 0..4 {
        write(&mut log, 16);
        log.poll_requests(&mut requests);
    }
    assert_eq!(requests.len(), 4);
    for index in 0..4 {
        if durable.is_some_and(|durable| index == durable) {
            while let Some(Event::Durable(_)) = log.poll_event() {}
            write(&mut log, 16);
            log.poll_requests(&mut requests);
        }
        let done = disk.run(requests.pop().unwrap());
        log.on_completion(done);
    }
    while let Some(request) = requests.pop() {
        disk.run(request);
    }
    (disk, seen)
}

fn flip(disk: &mut Disk, position: u64) {
    disk.bytes[Disk::byte_of(position) + 77] ^= 4;
}

#[test]
fn damaged_group_is_replayed_only_if_a_later_one_says_that_it_was_durable() {
    let pool = pool();
    for (durable, damaged) in [(None, 0), (None, 2), (Some(1), 0), (Some(3), 2), (Some(2), 2)] {
        let (mut disk, seen) = flight(&pool, durable);
        // The third payload block of that group.
        flip(&mut disk, damaged * 17 + 3);
        let (replayed, step) = recover(&mut disk, &pool, Point::START);
        let proven = durable.is_some_and(|durable| damaged < durable as u64);
        if !proven {
            assert_eq!(replayed, seen[..damaged as usize], "{durable:?} {damaged}");
            let ScanStep::Done(end) = step else { panic!("{step:?}") };
            assert_eq!(end.lsn, Lsn(1 + damaged), "{durable:?} {damaged}");
            continue;
        }
        assert!(matches!(step, ScanStep::Done(end) if end.lsn == Lsn(6)), "{step:?}");
        for (index, (replayed, seen)) in replayed.iter().zip(&seen).enumerate() {
            let bit = if index as u64 == damaged { 1 << 2 } else { 0 };
            assert_eq!((replayed.lsn, replayed.damaged), (seen.lsn, bit));
            assert_eq!(replayed.data == seen.data, bit == 0);
        }
    }
}

#[test]
fn several_damaged_groups_and_blocks_are_all_named() {
    let pool = pool();
    let (mut disk, seen) = flight(&pool, Some(3));
    for position in [1, 16, 17 + 4, 34 + 1, 34 + 2] {
        flip(&mut disk, position);
    }
    let (replayed, step) = recover(&mut disk, &pool, Point::START);
    assert!(matches!(step, ScanStep::Done(end) if end.lsn == Lsn(6)), "{step:?}");
    let damaged: Vec<_> = replayed.iter().map(|seen| seen.damaged).collect();
    assert_eq!(damaged, [1 | 1 << 15, 1 << 3, 3, 0, 0]);
    assert_eq!(replayed[3..], seen[3..]);
}

#[test]
fn damaged_group_before_a_lost_header_is_refused_with_the_range() {
    let pool = pool();
    let (mut disk, _) = flight(&pool, Some(3));
    flip(&mut disk, 5);
    flip(&mut disk, 17);
    let (replayed, step) = recover(&mut disk, &pool, Point::START);
    assert_eq!(replayed, [], "what was durable ends here");
    let byte = Disk::byte_of(0) as u64;
    let error = ScanError::Corrupt { first: Lsn(1), next: Lsn(5), byte };
    assert_eq!(step, ScanStep::Failed(error));
}

#[test]
fn refused_log_is_left_as_it_is() {
    let pool = pool();
    let (mut disk, _) = flight(&pool, Some(3));
    flip(&mut disk, 17);
    let before = disk.bytes.clone();
    let (_, step) = recover(&mut disk, &pool, Point::START);
    assert!(matches!(step, ScanStep::Failed(ScanError::Corrupt { .. })), "{step:?}");
    assert!(disk.bytes == before, "somebody may repair it");
}

/// Rings of groups whose headers are made up, of bits flipped and blocks moved: recovery ends, and
/// what it says can be appended to.
#[test]
fn garbage_neither_panics_nor_holds_recovery_up() {
    let seed = env("FUZZ_SEED", 1);
    let pool = pool();
    let rings: Vec<_> = [None, Some(1), Some(2), Some(3)].map(|d| flight(&pool, d).0).into();
    for seed in seed..seed + env("FUZZ_ROUNDS", 300) {
        println!("reproduce with FUZZ_SEED={seed} FUZZ_ROUNDS=1");
        let mut rng = Rng::new(seed);
        let mut disk = Disk { bytes: rings[rng.index(rings.len()).unwrap()].bytes.clone() };
        for _ in 0..rng.between(1, 40) {
            meddle(&mut disk, &mut rng);
        }
        let tail = match rng.below(4) {
            0 => Point { position: rng.next_u64() >> rng.between(2, 60), ..Point::START },
            1 => Point { lsn: Lsn(rng.next_u64() >> rng.between(2, 60)), ..Point::START },
            _ => Point::START,
        };
        let (_, step) = recover(&mut disk, &pool, tail);
        let ScanStep::Done(head) = step else { continue };
        let mut log = Wal::new(config(u64::MAX), tail, head, &pool).unwrap();
        if log.append(&Record::Delete { volume: 1 }, &[]).is_ok() {
            settle(&mut log, &mut disk);
            let (_, step) = recover(&mut disk, &pool, tail);
            assert_eq!(step, ScanStep::Done(log.durable()), "FUZZ_SEED={seed}");
        }
    }
}

/// Flips a bit, moves a block, fills one, or writes a field of a header and makes its CRC right.
fn meddle(disk: &mut Disk, rng: &mut Rng) {
    let at = Disk::byte_of(rng.below(BLOCKS));
    let other = Disk::byte_of(rng.below(BLOCKS));
    match rng.below(8) {
        0 => disk.bytes[at + rng.index(BLOCK_BYTES).unwrap()] ^= 1 << rng.below(8),
        1 => disk.bytes.copy_within(other..other + BLOCK_BYTES, at),
        2 => rng.fill(&mut disk.bytes[at..at + BLOCK_BYTES]),
        _ => {
            // Mostly a header of the flight, and nothing but its fields and its first entry.
            let at = if rng.chance(3, 4) { Disk::byte_of(rng.below(5) * 17) } else { at };
            let bytes = &mut disk.bytes[at..at + BLOCK_BYTES];
            let field = rng.index(128).unwrap();
            let small = [0, 1, 2, 17, 0xff][rng.index(5).unwrap()];
            bytes[field] = if rng.chance(1, 2) { small } else { rng.next_u64() as u8 };
            if rng.chance(1, 8) {
                bytes[field..field + 8].fill(0xff);
            }
            let crc = crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
}
