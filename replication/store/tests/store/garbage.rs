//! Pages with wrong contents and right checksums: refused or answered, never a panic.

use bdev::{Pool, Rng};
use store::{Edit, Lookup, Unmap, VolumeId, turn};

use crate::rig::{Disk, Rig, check_disk, fuzz, mount};

const SMALLEST: usize = (128 << 10) + (1 << 20) + (64 << 16);

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).unwrap()
}

/// Gives a changed page its checksum, and every pointer to it, up to the superblocks.
fn mend(image: &mut [u8], pages: &[usize], page: usize) {
    let at = page * 4096;
    if image[at..].starts_with(b"HOLDFAST") {
        let crc = crc32c(&image[at + 12..at + 4096]);
        image[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        return;
    }
    let old = image[at + 4..at + 8].to_vec();
    let new = crc32c(&image[at + 8..at + 4096]).to_le_bytes();
    image[at + 4..at + 8].copy_from_slice(&new);
    let mut pointer = (page as u64).to_le_bytes().to_vec();
    pointer.extend(&old);
    for &parent in pages {
        let start = parent * 4096;
        let found = |i: &usize| image[i + start..].starts_with(&pointer);
        if let Some(found) = (0..4096 - 16).step_by(4).find(found) {
            image[start + found + 8..start + found + 12].copy_from_slice(&new);
            mend(image, pages, parent);
        }
    }
}

fn metadata_pages(image: &[u8]) -> Vec<usize> {
    let is_page = |page: &usize| {
        let bytes = &image[page * 4096..];
        bytes.starts_with(b"HFPG") || bytes.starts_with(b"HOLDFAST")
    };
    (0..image.len() / 4096).filter(is_page).collect()
}

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
    let pages = metadata_pages(&image);
    assert!(pages.len() > 14);
    let (first, rounds) = fuzz(60);
    for seed in first..first + rounds {
        eprintln!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p store wrong_contents");
        let mut rng = Rng::new(seed);
        let page = pages[rng.index(pages.len()).unwrap()];
        let mut image = image.clone();
        for _ in 0..rng.between(1, 3) {
            // Fields, not the header's magic and checksum; a bit, a byte or a word.
            let at = page * 4096 + usize::try_from(rng.between(12, 400)).unwrap();
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
    let leaf = (0..image.len() / 4096)
        .find(|page| image[page * 4096..].starts_with(b"HFPG") && image[page * 4096 + 8] == 2);
    let at = leaf.unwrap() * 4096 + 64;
    image.copy_within(at..at + 8, at + 80);
    let pages = metadata_pages(&image);
    mend(&mut image, &pages, leaf.unwrap());
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
    let pages = metadata_pages(&image);
    let leaf = *pages.iter().find(|&page| image[page * 4096 + 8] == 2).unwrap();
    image[leaf * 4096 + 64] += 9;
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
    assert_eq!(answer, Lookup::Damaged(leaf as u64));
}
