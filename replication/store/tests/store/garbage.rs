//! Pages with wrong contents and right checksums: refused or answered, never a panic.

use bdev::{Pool, Rng};
use store::{Edit, Lookup, Unmap, VolumeId, turn};

use crate::pages::{all_pages, mend, metadata_pages};
use crate::rig::{Disk, Rig, check_disk, fuzz, mount};

const SMALLEST: usize = (128 << 10) + (1 << 20) + (64 << 16);

/// Looks everywhere, edits everywhere, deletes everything it can.
fn use_everything(disk: &Disk, pool: &Pool) {
    check_disk(disk, pool, true);
    let Ok(mounted) = mount(disk, pool, 64) else { return };
    let mut store = mounted.store;
    let volumes: Vec<u32> = store.volumes().map(|v| v.id.get()).collect();
    for id in volumes.into_iter().map(VolumeId) {
        for index in [0, 1, 48 * 300, 48 * 252 * 252, 1 << 33] {
            while store.lookup(id, index) == Lookup::Pending {
                turn(&mut store, &mut disk.clone(), pool);
            }
        }
        if store.volume(id).is_some_and(|v| v.is_active()) {
            while matches!(store.edit(id, 48 * 300), Edit::Pending) {
                turn(&mut store, &mut disk.clone(), pool);
            }
            store.delete_volume(id);
        }
    }
    while let Unmap::More | Unmap::Pending = store.reclaim() {
        turn(&mut store, &mut disk.clone(), pool);
    }
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
