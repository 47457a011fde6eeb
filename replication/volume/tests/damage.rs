//! One thing is damaged at a time: what opening, reading, scrub and check say of it,
//! and what heals.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Lba, Op, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, Image, SimDisk};
use support::{Rig, options};
use volume::{CheckStatus, Event, OpenError, VolumeId, VolumeQueue};

const MIB: u64 = 1 << 20;
/// The volume's data is here; the blocks between two of them need leaves of their own.
const BLOCKS: [u64; 3] = [3, 48 * 16 * 5, 48 * 16 * 300];
/// Two further blocks are in the log only.
const LOGGED: [u64; 2] = [4, 9];

/// What a damaged image answers, in the order of the table.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    open: String,
    reads: String,
    scrub: String,
    check: String,
    /// What the offline check finds at the end.
    left: usize,
}

fn block(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

fn page(image: &Image, at: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    image.read(at, &mut page);
    page
}

fn find(image: &Image, matches: impl Fn(&[u8]) -> bool) -> u64 {
    let mut places = (0..image.byte_len() / 4096).map(|at| at * 4096);
    places.rfind(|&at| matches(&page(image, at))).unwrap()
}

/// Both copies of the metadata page of this kind, level and owner with the highest generation.
fn copies(image: &Image, kind: u8, level: u8, owner: u32) -> [u64; 2] {
    let mut newest = (0, [0; 2]);
    for at in (0..image.byte_len()).step_by(4096) {
        let bytes = page(image, at);
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let is = bytes.starts_with(b"HFPG")
            && (bytes[8], bytes[9], &bytes[12..16]) == (kind, level, &owner.to_le_bytes()[..]);
        if !is || number(16) != 0 {
            continue;
        }
        let (generation, first) = (number(24), number(32) * 4096);
        if first != at && generation >= newest.0 {
            newest = (generation, [first, at]);
        }
    }
    assert!(newest.1[1] > 0, "kind {kind} level {level}");
    newest.1
}

/// A store with data in extents of a volume whose tree has inner pages, and two records in the log.
fn image() -> (Image, VolumeId) {
    let disk = SimDisk::new(4096, 32 * 256, FaultPlan::power_cuts(3));
    let mut rig = Rig::create(disk, MIB, &options());
    let id = rig.create_volume("v", 1 << 40, 4096);
    let mut queue = rig.queue(id, 8);
    for lba in BLOCKS {
        assert_eq!(rig.write(&mut queue, lba, &block(lba)), Status::Ok);
    }
    rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
    for lba in LOGGED {
        assert_eq!(rig.write(&mut queue, lba, &block(lba)), Status::Ok);
    }
    (rig.disk.crash(), id)
}

fn read_all(rig: &mut Rig, queue: &mut VolumeQueue) -> String {
    let mut bad = Vec::new();
    for lba in BLOCKS.into_iter().chain(LOGGED) {
        match rig.read(queue, lba, 1) {
            Ok(bytes) if bytes == block(lba) => {}
            Ok(bytes) if bytes == vec![0; 4096] => bad.push(format!("{lba} gone")),
            Ok(_) => panic!("block {lba} reads as something else"),
            Err(status) => bad.push(format!("{lba} {status:?}")),
        }
    }
    if bad.is_empty() { "all".to_string() } else { bad.join(", ") }
}

/// Opens a damaged image and asks everything of it.
fn ask(image: Image, id: VolumeId, fail: Option<u64>) -> Answers {
    let mut rig = Rig::begin_open(image, FaultPlan::power_cuts(7), &options());
    if let Some(at) = fail {
        rig.disk.fail_range(Op::Read, at / 4096..=at / 4096);
    }
    if let Err(error) = rig.until_open() {
        let open = match error {
            OpenError::Mount(store::MountError::Page(damage)) => format!("refused: {damage}"),
            OpenError::Mount(error) => format!("refused: {error}"),
            OpenError::Log(_) => "refused: log".to_string(),
            other => panic!("{other}"),
        };
        let none = String::new;
        return Answers { open, reads: none(), scrub: none(), check: none(), left: 0 };
    }
    rig.turn();
    let healed = |rig: &Rig| {
        let healed = |event: &&Event| matches!(event, Event::Metadata(d) if d.healed);
        rig.events.iter().filter(healed).count()
    };
    let open = format!("open, healed {}", healed(&rig));
    let mut queue = rig.queue(id, 8);
    let reads = read_all(&mut rig, &mut queue);
    let reads = format!("{reads}, healed {}", healed(&rig));
    rig.engine.borrow_mut().scrub_start(1 << 30).unwrap();
    let done = |rig: &mut Rig| rig.engine.borrow().scrub_status().unwrap().passes > 0;
    rig.until("the pass ends", done);
    let found = rig.engine.borrow().scrub_status().unwrap().last_found;
    let scrub = format!("found {found}, healed {}", healed(&rig));
    rig.disk.heal();
    rig.engine.borrow_mut().check_start().unwrap();
    rig.until("the check ends", |rig| {
        !matches!(rig.engine.borrow().check_status(), CheckStatus::Running { .. })
    });
    let CheckStatus::Done(report) = rig.engine.borrow().check_status() else { panic!("done") };
    let check = format!("found {}", report.findings.len());
    drop(queue);
    rig.close();
    let left = Rig::check(rig.disk.image(), true).findings.len();
    Answers { open, reads, scrub, check, left }
}

fn answers(open: &str, reads: &str, scrub: &str, check: &str, left: usize) -> Answers {
    let [open, reads, scrub, check] = [open, reads, scrub, check].map(String::from);
    Answers { open, reads, scrub, check, left }
}

/// Nothing is lost: the copy that is bad was healed by opening (1), reading (2) or scrub (3).
fn healed_by(step: usize) -> Answers {
    let count = |at: usize| usize::from(step <= at);
    Answers {
        open: format!("open, healed {}", count(1)),
        reads: format!("all, healed {}", count(2)),
        scrub: format!("found {}, healed {}", usize::from(step == 3), count(3)),
        check: "found 0".to_string(),
        left: 0,
    }
}

fn rot(image: &Image, at: &[u64]) -> Image {
    let mut image = image.clone();
    at.iter().for_each(|&at| image.flip(at, 0x10));
    image
}

#[test]
fn intact_image_has_nothing_to_heal() {
    let (image, id) = image();
    assert_eq!(ask(image, id, None), healed_by(9));
}

#[test]
fn each_copy_of_the_superblock_is_healed_by_the_other() {
    let (image, id) = image();
    for at in [0, 65536] {
        // Opening writes both.
        assert_eq!(ask(rot(&image, &[at + 200]), id, None), healed_by(1));
    }
    let answer = ask(rot(&image, &[200, 65736]), id, None);
    assert!(answer.open.starts_with("refused: both superblocks are unusable"), "{answer:?}");
}

#[test]
fn each_copy_of_each_kind_of_page_is_healed_by_the_other() {
    let (image, id) = image();
    // Who meets the first copy of: an inner page, the catalog, its root and the space map, when
    // opening; a leaf, when reading. The second copy is met by scrub.
    let pages = [
        ("inner page", copies(&image, 1, 1, id.0), 1),
        ("leaf", copies(&image, 2, 0, id.0), 2),
        ("catalog", copies(&image, 3, 0, u32::MAX), 1),
        ("root of the catalog", copies(&image, 1, 1, u32::MAX), 1),
        ("space map", copies(&image, 4, 0, u32::MAX - 1), 1),
    ];
    for (name, [first, second], step) in pages {
        for offset in [5, 40, 100, 4095] {
            assert_eq!(ask(rot(&image, &[first + offset]), id, None), healed_by(step), "{name}");
        }
        assert_eq!(ask(rot(&image, &[second + 77]), id, None), healed_by(3), "{name}");
        let answer = ask(rot(&image, &[first + 88, second + 99]), id, None);
        let lost = if step == 1 {
            answer.open.starts_with(&format!("refused: page {} (", first / 4096))
                && answer.open.ends_with("checksum mismatch")
        } else {
            answer.reads.contains("Integrity") && answer.left > 0
        };
        assert!(lost, "{name}: {answer:?}");
    }
}

#[test]
fn lost_leaf_hides_what_is_below_it_and_nothing_else() {
    let (image, id) = image();
    let [first, second] = copies(&image, 2, 0, id.0);
    let answer = ask(rot(&image, &[first + 88, second + 99]), id, None);
    // Blocks 3, 4 and 9 share the leaf; the log still has two of them, and cannot be destaged.
    assert_eq!(answer.reads, "3 Integrity, healed 0");
    assert!(answer.open == "open, healed 0" && answer.left > 0, "{answer:?}");
}

#[test]
fn lost_leaf_does_not_keep_the_rest_of_a_range_from_being_zeroed() {
    let (image, id) = image();
    let [first, second] = copies(&image, 2, 0, id.0);
    let image = rot(&image, &[first + 88, second + 99]);
    let mut rig = Rig::open(image, FaultPlan::power_cuts(7), &options()).unwrap();
    let mut queue = rig.queue(id, 8);
    let blocks = u32::try_from(BLOCKS[2] + 1).unwrap();
    let zero = Request::range(Tag(1), Op::WriteZeroes, Lba(0), blocks);
    assert_eq!(rig.run(&mut queue, zero).status, Status::Ok);
    rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
    let rest = "3 Integrity, 3840 gone, 230400 gone, 4 Integrity, 9 Integrity";
    assert_eq!(read_all(&mut rig, &mut queue), rest);
}

#[test]
fn torn_lost_misdirected_and_unreadable_copies_are_healed_like_rotten_ones() {
    let (image, id) = image();
    let [leaf, twin] = copies(&image, 2, 0, id.0);
    let inner = copies(&image, 1, 1, id.0)[0];
    let mut torn = image.clone();
    torn.zero(leaf, 512); // Only the first sector of this leaf holds anything.
    assert_eq!(ask(torn, id, None), healed_by(2));
    let mut lost = image.clone();
    lost.zero(leaf, 4096);
    assert_eq!(ask(lost, id, None), healed_by(2));
    let mut misdirected = image.clone();
    misdirected.write(leaf, &page(&image, inner));
    assert_eq!(ask(misdirected, id, None), healed_by(2));
    // Unreadable for good: the second copy serves, and scrub meets the first again.
    let answer = ask(image.clone(), id, Some(leaf));
    assert_eq!(answer.reads, "all, healed 1");
    assert_eq!((answer.check.as_str(), answer.left), ("found 0", 0), "{answer:?}");
    let answer = ask(image.clone(), id, Some(twin));
    assert_eq!((answer.reads.as_str(), answer.left), ("all, healed 0", 0), "{answer:?}");
    assert!(answer.scrub.starts_with("found 1"), "{answer:?}");
}

#[test]
fn rotten_data_without_another_copy_stays_an_error_and_is_named() {
    let (image, id) = image();
    let data = find(&image, |bytes| bytes == block(BLOCKS[1]));
    let answer = ask(rot(&image, &[data + 9]), id, None);
    let text = format!("{} Integrity, healed 0", BLOCKS[1]);
    // The check is of the map; the offline one reads the data too.
    let expected = answers("open, healed 0", &text, "found 1, healed 0", "found 0", 1);
    assert_eq!(answer, expected);
}

#[test]
fn damaged_block_of_the_log_costs_that_block_and_nothing_else() {
    let (image, id) = image();
    let data = find(&image, |bytes| bytes == block(LOGGED[0]));
    let text = format!("{} Integrity, healed 0", LOGGED[0]);
    // It goes to its extent with the checksum that it should have: the last check finds it there.
    let expected = answers("open, healed 0", &text, "found 0, healed 0", "found 0", 1);
    assert_eq!(ask(rot(&image, &[data + 7]), id, None), expected);
}

#[test]
fn lost_header_of_the_log_is_refused_unless_it_is_the_torn_end() {
    let (image, id) = image();
    let header = |lba: u64| find(&image, |bytes| bytes == block(lba)) - 4096;
    for at in [9, 200] {
        let answer = ask(rot(&image, &[header(LOGGED[0]) + at]), id, None);
        assert_eq!(answer.open, "refused: log", "byte {at}");
    }
    // Nothing says that the last group was durable: it looks like one that was being written.
    for at in [9, 200, 4096 + 7] {
        let answer = ask(rot(&image, &[header(LOGGED[1]) + at]), id, None);
        assert_eq!(answer.open, "open, healed 0", "byte {at}");
        assert_eq!(answer.reads, format!("{} gone, healed 0", LOGGED[1]), "byte {at}");
    }
}
