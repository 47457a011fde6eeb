//! Pages with wrong contents and right checksums: refused or answered, never a panic.

use bdev::{Pool, Rng};
use store::{
    Diff, Edit, LogTail, Lookup, NodeKind, Scan, Store, Unique, Unmap, VolumeId, VolumeRecord, turn,
};

use crate::pages::{Copies, all_pages, mend, metadata_pages};
use crate::rig::{Disk, Rig, check_disk, fuzz, mount};

const SMALLEST: usize = (128 << 10) + (1 << 20) + (64 << 16);

/// Looks everywhere, edits everywhere, deletes everything it can.
fn use_everything(disk: &Disk, pool: &Pool) {
    check_disk(disk, pool, true);
    let Ok(mounted) = mount(disk, pool, 64) else { return };
    let mut store = mounted.store;
    let nodes: Vec<u32> = store.nodes().map(|v| v.id.get()).collect();
    for id in nodes.into_iter().map(VolumeId) {
        for index in [0, 1, 48 * 300, 48 * 252 * 252, 1 << 33] {
            while store.lookup(id, index) == Lookup::Pending {
                turn(&mut store, &mut disk.clone(), pool);
            }
        }
        walk_everything(&mut store, id, disk, pool);
        let is_volume = |v: &VolumeRecord| v.is_active() && v.kind() == NodeKind::Volume;
        if store.volume(id).is_some_and(is_volume) {
            while matches!(store.edit(id, 48 * 300), Edit::Pending) {
                turn(&mut store, &mut disk.clone(), pool);
            }
        }
        store.delete_volume(id);
    }
    loop {
        match store.reclaim() {
            Unmap::More | Unmap::Pending | Unmap::Damaged(_) => {
                turn(&mut store, &mut disk.clone(), pool);
            }
            Unmap::Busy if store.begin_checkpoint(LogTail::START) => {
                while store.is_checkpointing() {
                    turn(&mut store, &mut disk.clone(), pool);
                }
                while store.poll_event().is_some() {}
            }
            Unmap::Busy | Unmap::Done => return,
        }
    }
}

/// Goes through what a node maps, and what it shares with the first one.
fn walk_everything(store: &mut Store, id: VolumeId, disk: &Disk, pool: &Pool) {
    let mut from = 0;
    loop {
        from = match store.scan(id, from) {
            Scan::Entry { index, .. } => index + 1,
            Scan::Skip(next) | Scan::Damaged { next, .. } => next,
            Scan::End => break,
            Scan::Pending => from,
        };
        turn(store, &mut disk.clone(), pool);
    }
    from = 0;
    loop {
        from = match store.diff(Some(VolumeId(1)), id, from) {
            Diff::Changed { index, .. } => index + 1,
            Diff::Skip(next) | Diff::Damaged { next, .. } => next,
            Diff::End => break,
            Diff::Pending => from,
        };
        turn(store, &mut disk.clone(), pool);
    }
    from = 0;
    loop {
        from = match store.unique(id, from) {
            Unique::Counted { next, .. } | Unique::Damaged { next, .. } => next,
            Unique::End => break,
            Unique::Pending => from,
        };
        turn(store, &mut disk.clone(), pool);
    }
}

/// Snapshots, clones, and a deletion that stopped midway.
fn shared_nodes(rig: &mut Rig, volume: VolumeId) {
    let first = rig.snapshot(volume);
    rig.checkpoint();
    assert!(rig.write(volume, 0, 1, 2));
    let second = rig.snapshot(volume);
    rig.checkpoint();
    let clone = rig.clone_of(first);
    assert!(rig.write(clone, 48 * 300, 2, 3) && rig.write(volume, 1, 0, 4));
    rig.checkpoint();
    rig.delete(second);
    for _ in 0..5 {
        rig.store.reclaim();
        rig.turn();
    }
    assert!(rig.store.volume(second).is_some_and(|record| record.cut.get() > 0));
    rig.checkpoint();
    rig.delete(first);
    rig.checkpoint();
}

#[test]
fn wrong_contents_with_right_checksums_do_not_panic() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 45);
    for index in [0, 48 * 300, 48 * 252 * 252] {
        assert!(rig.write(volume, index, 0, 1));
    }
    let doomed = rig.create(1 << 30);
    assert!(rig.write(doomed, 7, 7, 7));
    rig.delete(doomed);
    rig.checkpoint();
    shared_nodes(&mut rig, volume);
    let image = rig.disk.view();
    let (pool, _) = rig.power_off();
    let pages = all_pages(&image);
    assert!(pages.len() >= 14);
    let (first, rounds) = fuzz(60);
    for seed in first..first + rounds {
        eprintln!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p store wrong_contents");
        let mut rng = Rng::new(seed);
        let page = pages[rng.index(pages.len()).unwrap()];
        let mut image = image.clone();
        for _ in 0..rng.between(1, 3) {
            // Fields, not the header's magic and checksum; a bit, a byte or a word.
            let at = page.at(usize::try_from(rng.between(12, 400)).unwrap());
            match rng.below(3) {
                0 => image[at] ^= 1 << rng.below(8),
                1 => image[at] = 0xff,
                _ => rng.fill(&mut image[at..at + 8]),
            }
        }
        mend(&mut image, &pages, page);
        use_everything(&Disk::from_image(4096, image), &pool);
    }
}

#[test]
fn extent_referenced_twice_is_found() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    assert!(rig.write(volume, 0, 0, 1));
    assert!(rig.write(volume, 1, 0, 1));
    rig.checkpoint();
    let mut image = rig.disk.view();
    let pages = all_pages(&image);
    let leaf = metadata_pages(&image).into_iter().find(|leaf| image[leaf.at(8)] == 2).unwrap();
    let at = leaf.at(64);
    image.copy_within(at..at + 8, at + 80);
    mend(&mut image, &pages, leaf);
    let disk = Disk::from_image(4096, image);
    let report = check_disk(&disk, &rig.pool, false);
    let texts: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "extent 18 is referenced again by volume 1");
    assert!(texts[1].ends_with("in use in the space map but not referenced"));
    assert_eq!((texts.len(), report.leaked), (2, 1));
}

#[test]
fn entry_with_a_free_extent_is_damage() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    assert!(rig.write(volume, 0, 0, 1));
    rig.checkpoint();
    let mut image = rig.disk.view();
    let pages = all_pages(&image);
    let leaf = metadata_pages(&image).into_iter().find(|leaf| image[leaf.at(8)] == 2).unwrap();
    image[leaf.at(64)] += 9;
    mend(&mut image, &pages, leaf);
    let disk = Disk::from_image(4096, image);
    let report = check_disk(&disk, &rig.pool, false);
    let texts: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "extent 27 is referenced but free in the space map");
    assert_eq!(texts[1], "extent 18 is in use in the space map but not referenced");
    let mut store = mount(&disk, &rig.pool, 64).unwrap().store;
    let answer = loop {
        match store.lookup(volume, 0) {
            Lookup::Pending => turn(&mut store, &mut disk.clone(), &rig.pool),
            answer => break answer,
        };
    };
    assert_eq!(answer, Lookup::Damaged(leaf.first as u64));
}

#[test]
fn page_that_the_parent_does_not_have_is_found() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    for index in [0, 48] {
        assert!(rig.write(volume, index, 0, 1));
    }
    rig.snapshot(volume);
    rig.checkpoint();
    assert!(rig.write(volume, 1, 0, 1));
    rig.checkpoint();
    let clean = check_disk(&rig.disk, &rig.pool, false);
    assert!(clean.is_clean() && (clean.volumes, clean.snapshots) == (1, 1), "{clean:?}");
    let mut image = rig.disk.view();
    let pages = all_pages(&image);
    // The snapshot's leaf for extent 0, which the volume has replaced by its own.
    let is_old = |leaf: &Copies| image[leaf.at(8)] == 2 && image[leaf.at(56)] == 1;
    let old = |leaf: &Copies| is_old(leaf) && image[leaf.at(16)] == 0;
    let leaf = metadata_pages(&image).into_iter().find(old).unwrap();
    image[leaf.at(64)..][..16].fill(0);
    mend(&mut image, &pages, leaf);
    let disk = Disk::from_image(4096, image);
    let report = check_disk(&disk, &rig.pool, false);
    let texts: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let wanted = "extent 18 (volume 1, extent 0 of it) is shared, but not with its parent";
    assert!(texts.iter().any(|text| text == wanted), "{texts:?}");
}
