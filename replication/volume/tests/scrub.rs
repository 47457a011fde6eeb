//! What scrub and the check of a served store promise, one claim a test.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use std::time::Duration;

use bdev::{Lba, Queue, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, Image, SimDisk};
use support::{Rig, options};
use volume::{
    CheckAborted, CheckStatus, ControlError, Damaged, Event, Options, ScrubStatus, VolumeId,
    VolumeQueue,
};

const MIB: u64 = 1 << 20;
const FAST: u64 = 1 << 30;

fn block(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

fn settle(rig: &mut Rig) {
    rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
}

/// A volume with `extents` extents of data, one block in every second and all of the others, in
/// the map.
fn filled(extents: u64) -> (Rig, VolumeQueue, VolumeId) {
    let disk = SimDisk::new(4096, 64 * 256, FaultPlan::power_cuts(3));
    let mut rig = Rig::create(disk, MIB, &options());
    let id = rig.create_volume("v", 1 << 30, 4096);
    let mut queue = rig.queue(id, 64);
    for extent in 0..extents {
        let lba = extent * 16 * 37;
        if extent % 2 == 0 {
            assert_eq!(rig.write(&mut queue, lba + 5, &block(lba + 5)), Status::Ok);
        } else {
            let all: Vec<u8> = (lba..lba + 16).flat_map(block).collect();
            assert_eq!(rig.write(&mut queue, lba, &all), Status::Ok);
        }
    }
    settle(&mut rig);
    (rig, queue, id)
}

fn status(rig: &Rig) -> ScrubStatus {
    rig.engine.borrow().scrub_status().unwrap()
}

/// Runs one pass; what it found and healed.
fn scrub(rig: &mut Rig) -> u64 {
    let passes = status(rig).passes;
    rig.engine.borrow_mut().scrub_start(FAST).unwrap();
    rig.until("the pass ends", |rig| status(rig).passes > passes);
    status(rig).last_found
}

/// Where in the image these bytes are, the last time.
fn find(image: &Image, bytes: &[u8]) -> u64 {
    let mut page = vec![0; 4096];
    let mut places = (0..image.byte_len() / 4096).map(|at| at * 4096);
    let found = places.rfind(|&at| {
        image.read(at, &mut page);
        page == bytes
    });
    found.unwrap()
}

/// The bytes where metadata pages that the last checkpoint wrote or kept start, both copies.
fn metadata(rig: &Rig) -> Vec<u64> {
    let (image, mut page) = (rig.disk.image(), vec![0; 4096]);
    let mut found = Vec::new();
    for at in (0..image.byte_len()).step_by(4096) {
        image.read(at, &mut page);
        if page.starts_with(b"HFPG") {
            found.push(at);
        }
    }
    found
}

#[test]
fn rotten_block_is_found_once_a_pass_and_named() {
    let (mut rig, mut queue, id) = filled(9);
    assert_eq!(scrub(&mut rig), 0);
    let lba = 37 * 16 * 3 + 7;
    let byte = find(&rig.disk.image(), &block(lba));
    rig.disk.rot(byte + 99, 1);
    assert_eq!(scrub(&mut rig), 1);
    let damage = Event::Integrity { volume: id, block: lba, place: Damaged::Extent, byte };
    assert_eq!(rig.events.iter().filter(|event| **event == damage).count(), 1);
    assert_eq!(rig.read(&mut queue, lba, 1), Err(Status::Integrity));
    assert_eq!(rig.write(&mut queue, lba, &block(1)), Status::Ok);
    settle(&mut rig);
    assert_eq!(scrub(&mut rig), 0);
    let status = status(&rig);
    assert_eq!((status.passes, status.running, status.covered_bytes), (3, false, 0));
}

#[test]
fn rotten_copies_of_metadata_are_found_and_healed() {
    let (mut rig, _queue, _) = filled(9);
    let report = Rig::check(rig.disk.image(), true);
    assert!(report.is_clean(), "{:?}", report.findings);
    let mut rng = Rng::new(4);
    // One copy of each: what is not the other's twin.
    let pages = metadata(&rig);
    let mut hit = 0;
    for &at in &pages {
        let (image, mut page) = (rig.disk.image(), vec![0; 4096]);
        image.read(at, &mut page);
        let first = u64::from_le_bytes(page[32..40].try_into().unwrap()) * 4096;
        if (first == at) == (first / 4096 % 2 == 0) {
            rig.disk.rot(at + rng.below(4096), 4);
            hit += 1;
        }
    }
    rig.disk.rot(16 * 4096 + 100, 1);
    assert!(hit > 4);
    let found = scrub(&mut rig);
    assert!(found > 4, "{found}");
    rig.until("all is mended", |rig| {
        let engine = rig.engine.borrow();
        engine.stats().healed_pages == found - 1 && engine.stats().log_used_bytes == 0
    });
    assert_eq!(rig.engine.borrow().stats().integrity_errors, 0, "nothing is lost");
    let healed = |event: &&Event| matches!(event, Event::Metadata(damage) if damage.healed);
    assert_eq!(rig.events.iter().filter(healed).count() as u64, found);
    assert_eq!(scrub(&mut rig), 0);
    rig.close();
    let report = Rig::check(rig.disk.image(), true);
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn scrub_keeps_to_its_rate_and_to_its_place() {
    let (mut rig, _queue, _) = filled(64);
    let before = rig.disk.now();
    rig.engine.borrow_mut().scrub_start(256 << 10).unwrap();
    rig.until("a third is covered", |rig| status(rig).covered_bytes > 20 * 65536);
    let time = rig.disk.now().saturating_since(before);
    // Every second extent is read in full; the first burst is free.
    assert!(time > Duration::from_secs(2), "{time:?}");
    assert!(status(&rig).remaining.is_some());
    rig.engine.borrow_mut().scrub_pause().unwrap();
    let paused = status(&rig);
    assert!(!paused.running && paused.bytes_per_second == 0);
    settle(&mut rig);
    for _ in 0..5000 {
        rig.turn();
    }
    let stopped = status(&rig);
    assert_eq!(stopped.covered_bytes, paused.covered_bytes);
    let mut rig = Rig::open(rig.disk.crash(), FaultPlan::power_cuts(4), &options()).unwrap();
    assert_eq!(status(&rig).covered_bytes, paused.covered_bytes, "it is remembered");
    let read = rig.engine.borrow().stats().device_read_bytes;
    assert_eq!(scrub(&mut rig), 0);
    let rest = rig.engine.borrow().stats().device_read_bytes - read;
    assert_eq!(scrub(&mut rig), 0);
    let whole = rig.engine.borrow().stats().device_read_bytes - read - rest;
    assert!(rest < whole * 4 / 5, "what was scrubbed before is not read again: {rest} of {whole}");
}

#[test]
fn scrub_begins_by_itself_and_not_at_all_when_it_is_off() {
    let disk = |seed| SimDisk::new(4096, 16 * 256, FaultPlan::power_cuts(seed));
    let mut rig = Rig::create(disk(1), MIB, &options());
    rig.until("a pass ends", |rig| status(rig).passes == 1);
    assert!(rig.disk.now().as_ns() > 60_000_000_000);
    assert!(status(&rig).next_pass.unwrap() > Duration::from_secs(6 * 86_400));
    let off = Options { scrub_bytes_per_second: 0, ..options() };
    let mut rig = Rig::create(disk(2), MIB, &off);
    rig.disk.advance_to(bdev::Instant::from_ns(90_000_000_000));
    for _ in 0..1000 {
        rig.turn();
    }
    let status = status(&rig);
    assert_eq!((status.running, status.passes, status.next_pass), (false, 0, None));
}

#[test]
fn time_of_the_last_pass_is_remembered_when_it_is_known() {
    let (mut rig, _queue, _) = filled(2);
    rig.engine.borrow_mut().set_unix_time(1_800_000_000);
    assert_eq!(scrub(&mut rig), 0);
    let finished = status(&rig).finished_unix.unwrap();
    assert!((1_800_000_000..1_800_000_010).contains(&finished), "{finished}");
    rig.close();
    let mut rig = Rig::open(rig.disk.image(), FaultPlan::power_cuts(4), &options()).unwrap();
    rig.turn();
    rig.engine.borrow_mut().set_unix_time(finished + 86_400);
    rig.turn();
    rig.turn();
    let status = status(&rig);
    assert_eq!((status.passes, status.finished_unix), (1, Some(finished)));
    let next = status.next_pass.unwrap().as_secs();
    assert!((6 * 86_400 - 10..=6 * 86_400).contains(&next), "{next}");
}

#[test]
fn a_clock_that_is_told_again_does_not_put_off_a_pass() {
    let (mut rig, _queue, _) = filled(2);
    rig.engine.borrow_mut().set_scrub_rate(FAST).unwrap();
    let next = |rig: &mut Rig, unix| {
        rig.engine.borrow_mut().set_unix_time(unix);
        rig.turn();
        rig.turn();
        status(rig).next_pass.map(|next| next.as_secs())
    };
    let never = next(&mut rig, 1_800_000_000).unwrap();
    rig.disk.advance_to(bdev::Instant::from_ns(30_000_000_000));
    rig.turn();
    let later = next(&mut rig, 1_800_000_030).unwrap();
    assert!(later <= never - 25, "{never} s, half a minute later {later} s");
    // A pass that was asked for begins whatever time it is.
    rig.engine.borrow_mut().scrub_start(FAST).unwrap();
    assert_eq!(next(&mut rig, 1_800_000_031), None);
    rig.until("the pass ends", |rig| status(rig).passes == 1);
}

#[test]
fn a_rate_is_set_without_starting_a_pass_and_zero_holds_it() {
    let (mut rig, _queue, _) = filled(2);
    rig.engine.borrow_mut().set_scrub_rate(FAST).unwrap();
    rig.turn();
    let waiting = status(&rig);
    assert_eq!((waiting.running, waiting.bytes_per_second), (false, FAST));
    assert!(waiting.next_pass.is_some());
    rig.engine.borrow_mut().set_scrub_rate(0).unwrap();
    rig.turn();
    assert_eq!((status(&rig).running, status(&rig).next_pass), (false, None));
}

#[test]
fn blocks_that_are_written_while_they_are_scrubbed_are_not_damage() {
    let (mut rig, mut queue, _) = filled(24);
    rig.engine.borrow_mut().scrub_start(FAST).unwrap();
    let mut rng = Rng::new(8);
    for round in 0..600 {
        let lba = rng.below(24) * 16 * 37 + rng.below(16);
        assert_eq!(rig.write(&mut queue, lba, &block(round)), Status::Ok);
        rig.engine.borrow_mut().scrub_start(FAST).unwrap();
    }
    settle(&mut rig);
    assert!(status(&rig).passes > 2, "{:?}", status(&rig));
    assert_eq!(rig.engine.borrow().stats().integrity_errors, 0, "{:?}", rig.events);
    assert_eq!(scrub(&mut rig), 0);
}

fn check_ends(rig: &mut Rig) -> CheckStatus {
    rig.until("the check ends", |rig| {
        !matches!(rig.engine.borrow().check_status(), CheckStatus::Running { .. })
    });
    rig.engine.borrow().check_status()
}

#[test]
fn check_of_a_served_store_sees_all_of_it_and_lets_hosts_go_on() {
    let (mut rig, mut queue, _) = filled(24);
    assert_eq!(rig.engine.borrow().check_status(), CheckStatus::Never);
    for round in 0..8 {
        rig.engine.borrow_mut().check_start().unwrap();
        assert_eq!(rig.engine.borrow_mut().check_start(), Err(ControlError::Busy));
        for lba in round * 5..round * 5 + 3 {
            assert_eq!(rig.write(&mut queue, lba * 100, &block(lba)), Status::Ok);
            assert_eq!(rig.read(&mut queue, lba * 100, 1), Ok(block(lba)));
        }
        let CheckStatus::Done(report) = check_ends(&mut rig) else { panic!("it gave way") };
        assert!(report.is_clean(), "{:?}", report.findings);
        settle(&mut rig);
        let offline = Rig::check(rig.disk.image(), false);
        assert!(report.extents >= 24 && report.extents <= offline.extents);
    }
}

#[test]
fn check_heals_copies_and_names_what_is_lost() {
    let (mut rig, _queue, _) = filled(9);
    let mut leaves = metadata(&rig);
    let image = rig.disk.image();
    leaves.retain(|&at| {
        let mut page = vec![0; 4096];
        image.read(at, &mut page);
        page[8] == 2
    });
    for at in leaves {
        rig.disk.rot(at + 1000, 8);
    }
    rig.disk.rot(3, 1);
    rig.engine.borrow_mut().check_start().unwrap();
    let CheckStatus::Done(report) = check_ends(&mut rig) else { panic!("it gave way") };
    let texts: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("page 0 (superblock)") && texts[0].contains("healed"), "{texts:?}");
    assert!(texts[1..].iter().all(|text| text.contains("checksum mismatch")), "{texts:?}");
    assert!(texts.len() > 1 && report.leaked == 0, "{texts:?}");
}

#[test]
fn check_gives_way_to_hosts_that_fill_the_log() {
    let (mut rig, mut queue, _) = filled(2);
    // A check whose reads never come back: hosts fill the log meanwhile.
    rig.disk.replan(|plan| plan.read_ns = 60_000_000_000..=60_000_000_000);
    rig.engine.borrow_mut().check_start().unwrap();
    let (mut requests, mut completions) = (bdev::Fifo::new(1), bdev::Fifo::new(64));
    let mut lba = 0;
    rig.until("it gives way", |rig| {
        queue.poll(&mut completions);
        while completions.pop().is_some() {}
        while queue.in_flight() < 16 {
            lba += 17;
            let data = rig.buffer(&block(lba));
            requests.push(Request::write(Tag(1), Lba(lba), 1, data)).unwrap();
            queue.submit(&mut requests);
        }
        matches!(rig.engine.borrow().check_status(), CheckStatus::Aborted(_) | CheckStatus::Done(_))
    });
    let status = rig.engine.borrow().check_status();
    assert_eq!(status, CheckStatus::Aborted(CheckAborted::LogPressure));
    rig.disk.replan(|plan| plan.read_ns = 5_000..=15_000);
    rig.until("hosts are served", |_| {
        queue.poll(&mut completions);
        while completions.pop().is_some() {}
        queue.in_flight() == 0
    });
    settle(&mut rig);
    rig.engine.borrow_mut().check_start().unwrap();
    let CheckStatus::Done(report) = check_ends(&mut rig) else { panic!("it gave way") };
    assert!(report.is_clean(), "{:?}", report.findings);
}
