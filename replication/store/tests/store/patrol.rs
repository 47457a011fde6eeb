//! Patrols: the check of a mounted store, against maps that contradict themselves.

use bdev::{Fifo, Queue};
use store::{CheckReport, Edit, PatrolPlace, Store, VolumeId, turn};

use crate::pages::{Copies, all_pages, mend, metadata_pages};
use crate::rig::{Disk, Rig, check_disk, mount};

const SMALLEST: usize = (128 << 10) + (1 << 20) + (128 << 16);

/// A store with three extents of two volumes, and its pages.
fn two_volumes() -> (Rig, Vec<u8>, Vec<Copies>) {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    for index in [0, 48 * 300] {
        let volume = rig.create(1 << 40);
        assert!(rig.write(volume, index, 0, 1) && rig.write(volume, index + 1, 0, 1));
    }
    rig.checkpoint();
    let image = rig.disk.view();
    let pages = all_pages(&image);
    (rig, image, pages)
}

fn page_of(image: &[u8], kind: u8) -> Copies {
    metadata_pages(image).into_iter().find(|page| image[page.at(8)] == kind).unwrap()
}

/// Runs the check of a mounted store to its end.
fn check_mounted(store: &mut Store, disk: &Disk, rig: &Rig) -> CheckReport {
    store.begin_check();
    store.let_patrol(true);
    while !store.patrolled().ended {
        turn(store, &mut disk.clone(), &rig.pool);
    }
    store.finish_check()
}

#[test]
fn clean_store_is_found_to_be_clean() {
    let (rig, image, _) = two_volumes();
    let disk = Disk::from_image(4096, image);
    let mut store = mount(&disk, &rig.pool, 64).unwrap().store;
    let online = check_mounted(&mut store, &disk, &rig);
    let mut offline = check_disk(&disk, &rig.pool, false);
    offline.generation = online.generation;
    assert_eq!(online, offline, "both see the same");
    assert!(online.is_clean() && online.extents == 4);
}

#[test]
fn leaked_extents_are_named_and_given_back() {
    let (rig, mut image, pages) = two_volumes();
    // Extent 100 (and 101) in use, and nobody's.
    let bits = page_of(&image, 4);
    image[bits.at(64 + 12)] |= 0x30;
    mend(&mut image, &pages, bits);
    let disk = Disk::from_image(4096, image);
    let mut store = mount(&disk, &rig.pool, 64).unwrap().store;
    let report = check_mounted(&mut store, &disk, &rig);
    assert_eq!((report.leaked, report.freed, report.findings.len()), (2, 2, 2));
    let text = report.findings[0].to_string();
    assert_eq!(text, "extent 100 is in use in the space map but not referenced");
    assert!(store.begin_checkpoint(store.log_tail()));
    while store.is_checkpointing() {
        turn(&mut store, &mut disk.clone(), &rig.pool);
    }
    for number in [100, 101] {
        let extent = store.extent(number).unwrap();
        assert_eq!(store.extent_state(extent), store::ExtentState::Free);
    }
    assert!(check_disk(&disk, &rig.pool, false).is_clean());
    assert!(check_mounted(&mut store, &disk, &rig).is_clean());
}

#[test]
fn what_cannot_be_mended_is_named_and_left() {
    let (rig, mut image, pages) = two_volumes();
    let leaf = page_of(&image, 2);
    // The second entry names the extent of the first: one is referenced twice, one leaks.
    let at = leaf.at(64);
    image.copy_within(at..at + 8, at + 80);
    mend(&mut image, &pages, leaf);
    let disk = Disk::from_image(4096, image);
    let mut store = mount(&disk, &rig.pool, 64).unwrap().store;
    let report = check_mounted(&mut store, &disk, &rig);
    let texts: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("is referenced again by volume"), "{texts:?}");
    assert_eq!((texts.len(), report.freed), (2, 1));
}

#[test]
fn nothing_is_given_back_while_damage_hides_part_of_the_map() {
    let (rig, mut image, pages) = two_volumes();
    let leaf = page_of(&image, 2);
    for copy in [leaf.first, leaf.second] {
        image[copy * 4096 + 70] ^= 1;
    }
    let bits = page_of(&image, 4);
    image[bits.at(64 + 12)] |= 0x10;
    mend(&mut image, &pages, bits);
    let disk = Disk::from_image(4096, image);
    let mut store = mount(&disk, &rig.pool, 64).unwrap().store;
    let report = check_mounted(&mut store, &disk, &rig);
    assert_eq!((report.leaked, report.freed, report.findings.len()), (0, 0, 1));
    assert!(report.findings[0].to_string().contains("checksum mismatch"));
}

#[test]
fn scrub_looks_again_at_pages_that_a_checkpoint_replaced() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 40);
    for index in 0..6 {
        assert!(rig.write(volume, index * 48, 0, 1));
    }
    rig.checkpoint();
    rig.store.begin_scrub(store::PatrolPlace::default());
    let mut entries = 0;
    for round in 0..4000u32 {
        rig.store.let_patrol(true);
        while rig.store.scrub_entry().is_some() {
            entries += 1;
        }
        if round % 5 == 0 {
            let Edit::Entry(_) = rig.store.edit(VolumeId(1), u64::from(round % 6) * 48) else {
                rig.turn();
                continue;
            };
            rig.checkpoint();
        }
        rig.turn();
        if rig.store.patrolled().ended {
            break;
        }
    }
    let done = rig.store.patrolled();
    assert!(done.ended && entries >= 6, "{done:?}, {entries}");
    assert_eq!((done.found, rig.store.stats().damaged), (0, 0));
}

#[test]
fn page_of_a_snapshot_that_is_forgotten_while_it_is_read_is_not_damaged() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    assert!(rig.write(volume, 0, 0, 1));
    let snapshot = rig.snapshot(volume);
    rig.checkpoint();
    assert!(rig.write(volume, 0, 0, 2));
    rig.checkpoint();
    rig.store.begin_scrub(PatrolPlace { tree: snapshot.0, index: 0 });
    rig.store.let_patrol(true);
    let mut requests = Fifo::new(4);
    rig.store.poll_requests(&mut requests, &rig.pool);
    assert_eq!(requests.len(), 2, "both copies of its leaf");
    rig.delete(snapshot);
    rig.reclaim();
    assert!(rig.store.volume(snapshot).is_none());
    rig.disk.submit(&mut requests);
    while !rig.store.patrolled().ended {
        while rig.store.scrub_entry().is_some() {}
        rig.turn();
    }
    assert_eq!((rig.store.patrolled().found, rig.store.stats().damaged), (0, 0));
}

#[test]
fn page_that_a_deleted_snapshot_handed_over_is_referenced_once() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    assert!(rig.write(volume, 0, 0, 1));
    let snapshot = rig.snapshot(volume);
    rig.checkpoint();
    rig.lookup(snapshot, 0);
    rig.lookup(volume, 0);
    rig.delete(snapshot);
    assert_eq!(rig.store.reclaim(), store::Unmap::More, "its root is the volume's now");
    rig.checkpoint();
    assert!(rig.store.volume(snapshot).is_some());
    let disk = rig.disk.clone();
    rig.store.begin_check();
    rig.store.let_patrol(true);
    while !rig.store.patrolled().ended {
        turn(&mut rig.store, &mut disk.clone(), &rig.pool);
    }
    let report = rig.store.finish_check();
    assert!(report.is_clean(), "{:?}", report.findings);
}
