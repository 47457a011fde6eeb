//! Power cuts whose every sector is chosen: what hosts have read once stays so.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Lba, Op, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, Image, SimDisk};
use support::{Rig, options};
use volume::{OpenError, VolumeId};

const LOG_START: u64 = 131_072;
const LOG_BYTES: u64 = 1 << 20;
const SUPERBLOCKS: [u64; 2] = [0, 65_536];

fn block(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

fn bytes_of(image: &Image, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    image.read(at, &mut bytes);
    bytes
}

fn open(image: &Image) -> Rig {
    Rig::open(image.clone(), FaultPlan::reliable(1), &options()).unwrap()
}

/// A volume with one block of data, and a log in which only remains of earlier laps are.
fn used_store() -> (Image, VolumeId) {
    let disk = SimDisk::new(4096, 32 * 256, FaultPlan::reliable(3));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let id = rig.create_volume("v", 1 << 30, 4096);
    let mut queue = rig.queue(id, 8);
    assert_eq!(rig.write(&mut queue, 5, &block(5)), Status::Ok);
    drop(queue);
    rig.close();
    let mut image = rig.disk.image();
    let remains = (0..LOG_BYTES / 4096).flat_map(|at| block(1000 + at)).collect::<Vec<_>>();
    image.write(LOG_START, &remains);
    (image, id)
}

/// Deallocates a block: one record without payload. The disk before and after.
fn deallocate(rig: &mut Rig, id: VolumeId, lba: u64) -> (Image, Image) {
    let before = rig.disk.image();
    let mut queue = rig.queue(id, 8);
    let request = Request::range(Tag(1), Op::Deallocate, Lba(lba), 1);
    assert_eq!(rig.run(&mut queue, request).status, Status::Ok);
    (before, rig.disk.image())
}

/// The only block of the log in which two images differ.
fn written_block(before: &Image, after: &Image) -> u64 {
    let blocks = (LOG_START..LOG_START + LOG_BYTES).step_by(4096);
    let differs = |&at: &u64| bytes_of(before, at, 4096) != bytes_of(after, at, 4096);
    let written: Vec<u64> = blocks.filter(differs).collect();
    assert_eq!(written.len(), 1, "a group of one block");
    written[0]
}

/// The power fails while `at` is written: those of its sectors that `keeps` chooses are.
fn torn(before: &Image, after: &Image, at: u64, keeps: impl Fn(u64) -> bool) -> Image {
    let mut image = before.clone();
    for sector in (0..8).filter(|&sector| keeps(sector)) {
        image.write(at + sector * 512, &bytes_of(after, at + sector * 512, 512));
    }
    image
}

fn has(rig: &mut Rig, id: VolumeId, lba: u64) -> bool {
    let mut queue = rig.queue(id, 8);
    rig.read(&mut queue, lba, 1).unwrap() == block(lba)
}

#[test]
fn operation_that_a_crash_undid_does_not_come_true_after_the_next() {
    let (image, id) = used_store();
    for head in 1..8 {
        let mut rig = open(&image);
        deallocate(&mut rig, id, 8); // To where recovery ended; the next is among the remains.
        let (before, after) = deallocate(&mut rig, id, 5);
        let at = written_block(&before, &after);
        let first_cut = torn(&before, &after, at, |sector| sector < head);

        let mut rig = open(&first_cut);
        assert!(has(&mut rig, id, 5), "it was not acknowledged, and did not happen");
        let (before, after) = deallocate(&mut rig, id, 9);
        assert_eq!(written_block(&before, &after), at, "the next group goes to the same place");
        let second_cut = torn(&before, &after, at, |sector| sector >= head);

        let mut rig = open(&second_cut);
        assert!(has(&mut rig, id, 5), "a host has read this, {head} sectors");
    }
}

/// The device lost the superblocks of some mounts, and with them the epochs of what the log holds.
#[test]
fn log_of_later_epochs_than_the_superblock_knows_is_appended_to() {
    let (image, id) = used_store();
    let mut rig = open(&image);
    let old = SUPERBLOCKS.map(|at| bytes_of(&rig.disk.image(), at, 4096));
    for lba in 20..24 {
        let (_, after) = deallocate(&mut rig, id, lba);
        rig = open(&after);
    }
    let mut image = rig.disk.image();
    for (at, old) in SUPERBLOCKS.into_iter().zip(&old) {
        image.write(at, old);
    }
    let mut rig = open(&image);
    let mut queue = rig.queue(id, 8);
    assert_eq!(rig.write(&mut queue, 6, &block(6)), Status::Ok);
    let mut rig = open(&rig.disk.image());
    assert!(has(&mut rig, id, 6));
    assert!(has(&mut rig, id, 5));
}

/// The device takes what opening writes but the block that ends the log.
#[test]
fn store_whose_log_cannot_be_ended_does_not_open() {
    let (image, id) = used_store();
    let mut rig = Rig::begin_open(image, FaultPlan::reliable(1), &options());
    rig.disk.fail_range(Op::Write, LOG_START / 4096..=(LOG_START + LOG_BYTES) / 4096 - 1);
    match rig.until_open() {
        Err(OpenError::Log(wal::ScanError::Blank { byte, status: Status::Io })) => {
            assert!((LOG_START..LOG_START + LOG_BYTES).contains(&byte));
        }
        other => panic!("{other:?}"),
    }
    assert!(has(&mut open(&rig.disk.image()), id, 5), "nothing was lost by it");
}
