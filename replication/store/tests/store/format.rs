//! What is on the device: golden bytes, refusals, damage.

use bdev::{Pool, Rng, Status};
use store::format::Superblock;
use store::{
    AREA_EXTENTS_MIN, Event, Finding, FormatError, FormatOptions, Lookup, MountError, Mounted,
    Store, VolumeId, turn,
};

use crate::pages::{Copies, metadata_pages};
use crate::rig::{Disk, LOG_BYTES, Rig, UUID, check_disk, format, mount, options, pool};

const EXTENT: usize = 64 << 10;
const SMALLEST: usize = 2 * EXTENT + (1 << 20) + 64 * EXTENT;
const _: () = assert!(AREA_EXTENTS_MIN == 64);

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Sets bytes of both superblocks and mends their checksums.
fn patch(disk: &Disk, at: usize, bytes: &[u8]) -> Disk {
    let mut image = disk.view();
    for start in [0, EXTENT] {
        image[start + at..start + at + bytes.len()].copy_from_slice(bytes);
        let crc = crc32c(&image[start + 12..start + 4096]);
        image[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    }
    Disk::from_image(4096, image)
}

#[test]
fn fresh_superblocks_have_the_documented_bytes() {
    let (disk, pool) = (Disk::new(4096, SMALLEST), pool());
    format(&disk, &pool, options(LOG_BYTES)).unwrap();
    let image = disk.view();
    for (slot, copy) in [&image[..4096], &image[EXTENT..EXTENT + 4096]].into_iter().enumerate() {
        assert_eq!(&copy[..8], b"HOLDFAST");
        assert_eq!(u32_at(copy, 8), crc32c(&copy[12..]));
        assert_eq!((u32_at(copy, 12), u64_at(copy, 16)), (1, 0));
        assert_eq!((u64_at(copy, 24), u64_at(copy, 32)), (0, 0));
        assert_eq!(copy[40..56], UUID);
        assert_eq!((u64_at(copy, 56), u64_at(copy, 64)), (1, 0));
        assert_eq!((u32_at(copy, 72), u32_at(copy, 76)), (4096, 65536));
        assert_eq!(u64_at(copy, 80), SMALLEST as u64);
        assert_eq!((u64_at(copy, 88), u64_at(copy, 96)), (131_072, LOG_BYTES));
        assert_eq!((u64_at(copy, 104), u64_at(copy, 112)), (18, 82));
        assert_eq!((u64_at(copy, 120), u64_at(copy, 128)), (0, 1));
        assert!(copy[136..232].iter().all(|&byte| byte == 0));
        assert_eq!(u32_at(copy, 232), 1);
        assert_eq!(u32_at(copy, 236) as usize, slot);
        assert!(copy[240..].iter().all(|&byte| byte == 0));
    }
    let rest = [&image[4096..EXTENT], &image[EXTENT + 4096..]];
    assert!(rest.iter().all(|part| part.iter().all(|&byte| byte == 0)));
}

#[test]
fn mapped_volume_has_the_documented_bytes() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    assert!(rig.write(volume, 5, 3, 0xdead_beef));
    rig.checkpoint();
    let image = rig.disk.view();
    let page = |number: u64| &image[usize::try_from(number).unwrap() * 4096..][..4096];
    let follow = |from: &[u8], at: usize, kind: u8, level: u8, owner: u32| {
        let pointer = u64_at(from, at);
        let (number, distance) = (pointer & 0xffff_ffff_ffff, pointer >> 48);
        let found = page(number);
        assert!(distance > 0 && page(number + distance * 16) == found, "both copies are the same");
        assert_eq!(&found[..4], b"HFPG");
        assert_eq!(u32_at(found, 4), crc32c(&found[8..]));
        assert_eq!(u32_at(found, 4), u32_at(from, at + 8), "the parent knows the checksum");
        assert_eq!((found[8], found[9], u32_at(found, 12)), (kind, level, owner));
        assert_eq!((u64_at(found, 16), u64_at(found, 24)), (0, 3));
        assert_eq!((u64_at(found, 32), &found[40..56]), (number, &UUID[..]));
        found
    };
    let superblock = page(0);
    assert_eq!((u64_at(superblock, 56), u64_at(superblock, 64)), (3, 1));
    let catalog = follow(follow(superblock, 152, 1, 1, u32::MAX), 64, 3, 0, u32::MAX);
    let record = &catalog[64..320];
    assert_eq!((u32_at(record, 0), record[4], record[5], record[6], record[7]), (1, 1, 0, 12, 8));
    assert_eq!((u64_at(record, 8), &record[72..80]), (1 << 30, &b"volume-1"[..]));
    assert_eq!(u64_at(record, 136), 1);
    let leaf = follow(record, 32, 2, 0, 1);
    let entry = &leaf[64 + 5 * 80..][..80];
    assert_eq!((u64_at(entry, 0), entry[12], u32_at(entry, 16 + 12)), (18, 8, 0xdead_beef));
    let bits = follow(superblock, 168, 4, 0, u32::MAX - 1);
    // One data extent, one for all five pages of metadata, one for their second copies.
    assert_eq!(bits[64..].iter().map(|byte| byte.count_ones()).sum::<u32>(), 3);
    assert_eq!(u64_at(superblock, 240), 3);
}

#[test]
fn sizes_are_refused_with_what_is_needed() {
    let refused = |bytes: usize, log| {
        let (disk, pool) = (Disk::new(4096, bytes), pool());
        format(&disk, &pool, options(log)).unwrap_err()
    };
    let (bytes, needed) = (SMALLEST as u64 - 4096, SMALLEST as u64);
    assert_eq!(refused(SMALLEST - 4096, LOG_BYTES), FormatError::TooSmall { bytes, needed });
    assert_eq!(refused(SMALLEST, LOG_BYTES - 65536), FormatError::LogSize { bytes: 983_040 });
    assert_eq!(refused(SMALLEST, LOG_BYTES + 1), FormatError::LogSize { bytes: 1_048_577 });
    let most = 1 << 48;
    let mut info = Disk::new(4096, 4096).info();
    info.blocks.0 = (most >> 12) + 1;
    let error = store::Format::new(&info, &options(LOG_BYTES)).err();
    assert_eq!(error, Some(FormatError::TooLarge { bytes: most + 4096, most }));
    info.blocks.0 = most >> 12;
    assert!(store::Format::new(&info, &options(LOG_BYTES)).is_ok());
    let error = store::Format::new(&info, &options(u64::MAX - 65535)).err();
    assert!(matches!(error, Some(FormatError::TooSmall { .. })));
}

#[test]
fn devices_with_data_are_refused_unless_told_so() {
    let (disk, pool) = (Disk::new(512, SMALLEST), pool());
    disk.flip(1080);
    let error = format(&disk, &pool, options(LOG_BYTES));
    assert_eq!(error, Err(FormatError::NotEmpty { offset: 1080 }));
    let told = FormatOptions { overwrite: true, ..options(LOG_BYTES) };
    format(&disk, &pool, told).unwrap();
    let error = format(&disk, &pool, options(LOG_BYTES)).unwrap_err();
    assert_eq!(error, FormatError::Store { uuid: UUID });
    assert!(error.to_string().ends_with("30313233-3435-3637-3839-616263646566"), "{error}");
}

#[test]
fn unknown_features_and_impossible_layouts_are_refused() {
    let (disk, pool) = (Disk::new(4096, SMALLEST), pool());
    assert!(matches!(mount(&disk, &pool, 64).err(), Some(MountError::NoStore)));
    format(&disk, &pool, options(LOG_BYTES)).unwrap();
    let refused = |at, bytes: &[u8]| mount(&patch(&disk, at, bytes), &pool, 64).err().unwrap();
    let error = refused(32, &0x8001u64.to_le_bytes());
    assert_eq!(error, MountError::Incompatible { bits: 0x8001 });
    assert!(error.to_string().contains("incompat bit 0, incompat bit 15"), "{error}");
    assert_eq!(refused(24, &[2]), MountError::ReadOnly { bits: 2 });
    assert_eq!(refused(12, &[2]), MountError::Version { found: 2 });
    assert_eq!(refused(73, &[2]), MountError::Geometry { what: "block size" });
    assert_eq!(refused(76, &[1]), MountError::Geometry { what: "extent size" });
    assert_eq!(refused(112, &[83]), MountError::Geometry { what: "area of extents" });
    assert_eq!(refused(104, &[83]), MountError::Geometry { what: "area of extents" });
    assert_eq!(refused(88, &[1]), MountError::Geometry { what: "log region" });
    assert_eq!(refused(232, &[0]), MountError::Geometry { what: "next volume id" });
    assert_eq!(refused(128, &[0]), MountError::Geometry { what: "tail of the log" });
    assert_eq!(refused(127, &[17]), MountError::Geometry { what: "tail of the log" });
    assert_eq!(refused(135, &[17]), MountError::Geometry { what: "tail of the log" });
    assert!(mount(&patch(&disk, 16, &[1]), &pool, 64).is_ok(), "compat bits may be ignored");
    let smaller = Disk::from_image(4096, disk.view()[..SMALLEST - EXTENT].to_vec());
    let (found, needed) = ((SMALLEST - EXTENT) as u64, SMALLEST as u64);
    let error = mount(&smaller, &pool, 64).err().unwrap();
    assert_eq!(error, MountError::DeviceSize { found, needed });
    assert!(mount(&Disk::new(4096, 4096), &pool, 64).is_err());
}

#[test]
fn damaged_superblock_copy_is_noticed_and_healed() {
    let (disk, pool) = (Disk::new(4096, SMALLEST), pool());
    format(&disk, &pool, options(LOG_BYTES)).unwrap();
    let image = disk.view();
    for byte in 0..4096 {
        // Unit tests flip every byte; whole mounts take longer.
        if byte % 397 != 0 && byte != 8 && byte != 236 {
            continue;
        }
        let slot = byte % 2;
        let damaged = Disk::from_image(4096, image.clone());
        damaged.flip(slot * EXTENT + byte);
        let mounted = mount(&damaged, &pool, 24).unwrap();
        assert_eq!(
            mounted.healed_superblock.map(|d| d.page),
            Some(slot as u64 * 16),
            "byte {byte}"
        );
        assert!(check_disk(&damaged, &pool, false).is_clean());
    }
    disk.flip(0);
    disk.flip(EXTENT + 99);
    assert!(matches!(mount(&disk, &pool, 24).err(), Some(MountError::Superblocks { .. })));
}

#[test]
fn either_superblock_copy_alone_is_enough_once_a_checkpoint_is_done() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    for round in 0..6 {
        assert!(rig.write(volume, round % 3, 0, u32::try_from(round).unwrap()));
        rig.checkpoint();
        for slot in [0, EXTENT] {
            let mut image = rig.disk.cut();
            image[slot..slot + 4096].fill(0xee);
            let disk = Disk::from_image(4096, image);
            let mut alone = Rig::mounted(disk, pool(), 64).unwrap();
            assert_eq!(alone.durable_lsn, rig.durable_lsn);
            alone.model = rig.model.clone();
            alone.verify();
        }
    }
}

/// A store with pages of every kind, and where they are.
fn full_of_pages() -> (Rig, Vec<u8>, Vec<Copies>) {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 40);
    for index in PLACES {
        assert!(rig.write(volume, index, 0, 1));
    }
    rig.checkpoint();
    let image = rig.disk.view();
    let pages = metadata_pages(&image);
    // Leaves, levels 1 to 3; catalog and its root; space map.
    assert_eq!(pages.len(), 3 + 3 + 2 + 1 + 2 + 1);
    (rig, image, pages)
}

const PLACES: [u64; 3] = [0, 48 * 300, 48 * 252 * 252];

/// Looks everywhere; the pages that lookups named as damaged.
fn look_around(store: &mut Store, disk: &Disk, pool: &Pool) -> Vec<u64> {
    let mut named = Vec::new();
    for index in PLACES {
        loop {
            match store.lookup(VolumeId(1), index) {
                Lookup::Pending => _ = turn(store, &mut disk.clone(), pool),
                Lookup::Damaged(at) => break named.push(at),
                _ => break,
            }
        }
    }
    named
}

#[test]
fn page_with_both_copies_damaged_is_named_by_mount_or_lookup() {
    let (rig, image, pages) = full_of_pages();
    let mut rng = Rng::new(5);
    for &Copies { first, second } in &pages {
        for _ in 0..4 {
            let disk = Disk::from_image(4096, image.clone());
            disk.flip(first * 4096 + rng.index(4096).unwrap());
            disk.flip(second * 4096 + rng.index(4096).unwrap());
            let report = check_disk(&disk, &rig.pool, false);
            let hit = |f: &Finding| matches!(f, Finding::Page(d) if d.page == first as u64);
            assert!(report.findings.iter().any(hit), "page {first}: {:?}", report.findings);
            match mount(&disk, &rig.pool, 64) {
                Err(error) => {
                    let named = matches!(&error, MountError::Page(d) if d.page == first as u64);
                    assert!(named, "page {first}: {error}");
                }
                Ok(Mounted { mut store, .. }) => {
                    let named = look_around(&mut store, &disk, &rig.pool);
                    assert!(!named.is_empty() && named.iter().all(|&page| page == first as u64));
                    let event = store.poll_event();
                    assert!(matches!(event, Some(Event::Damaged(d)) if !d.healed));
                }
            }
        }
    }
}

#[test]
fn page_with_one_damaged_copy_is_read_and_healed() {
    let (rig, image, pages) = full_of_pages();
    let mut rng = Rng::new(6);
    for &Copies { first, second } in &pages {
        let disk = Disk::from_image(4096, image.clone());
        let at = first * 4096 + rng.index(4096).unwrap();
        disk.flip(at);
        let report = check_disk(&disk, &rig.pool, false);
        let hit = |f: &Finding| matches!(f, Finding::Copy(d) if d.page == first as u64);
        assert!(report.findings.len() == 1 && hit(&report.findings[0]), "{:?}", report.findings);
        let mut store = mount(&disk, &rig.pool, 64).unwrap().store;
        assert_eq!(look_around(&mut store, &disk, &rig.pool), []);
        let event = store.poll_event();
        assert!(
            matches!(&event, Some(Event::Damaged(d)) if d.healed && d.page == first as u64),
            "{event:?}"
        );
        while store.is_repairing() {
            turn(&mut store, &mut disk.clone(), &rig.pool);
        }
        assert_eq!((store.stats().damaged, store.stats().healed), (1, 1));
        assert_eq!(disk.view()[at], image[at]);
        let report = check_disk(&disk, &rig.pool, false);
        assert!(report.is_clean(), "{:?}", report.findings);
        // Nobody reads the second copy while the first is whole; the check does.
        let disk = Disk::from_image(4096, image.clone());
        disk.flip(second * 4096 + rng.index(4096).unwrap());
        let report = check_disk(&disk, &rig.pool, false);
        let hit = |f: &Finding| matches!(f, Finding::Copy(d) if d.page == second as u64);
        assert!(report.findings.len() == 1 && hit(&report.findings[0]), "{:?}", report.findings);
        let mut store = mount(&disk, &rig.pool, 64).unwrap().store;
        assert_eq!(look_around(&mut store, &disk, &rig.pool), []);
        assert_eq!(store.poll_event(), None);
    }
}

#[test]
fn copies_of_a_page_are_never_in_one_extent() {
    let (_, _, pages) = full_of_pages();
    for Copies { first, second } in pages {
        assert!(first / 16 != second / 16 && first % 16 == second % 16, "{first} and {second}");
    }
}

#[test]
fn older_version_of_a_page_is_not_taken_for_the_current_one() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 20);
    assert!(rig.write(volume, 0, 0, 1));
    rig.checkpoint();
    let old = rig.disk.view();
    let leaf_of = |image: &[u8]| {
        let is_leaf = |page: &Copies| image[page.at(8)] == 2;
        metadata_pages(image).into_iter().filter(is_leaf).collect::<Vec<_>>()
    };
    let place = leaf_of(&old)[0];
    while rig.store.generation() < 40 {
        assert!(rig.write(volume, 0, 0, 2));
        rig.checkpoint();
        let mut image = rig.disk.view();
        let now = leaf_of(&image).into_iter().find(|leaf| leaf.first == place.first);
        let bytes = |page: usize| page * 4096..page * 4096 + 4096;
        let again = |leaf: &Copies| image[bytes(leaf.first)] != old[bytes(place.first)];
        let Some(now) = now.filter(again) else { continue };
        // Both writes of this page were lost: the old leaf is still there, whole, with its CRC.
        image[bytes(now.first)].copy_from_slice(&old[bytes(place.first)]);
        image[bytes(now.second)].copy_from_slice(&old[bytes(place.first)]);
        let disk = Disk::from_image(4096, image);
        let report = check_disk(&disk, &rig.pool, false);
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        assert!(report.findings[0].to_string().ends_with("an older version of the page"));
        return;
    }
    panic!("the place is used again within a few checkpoints");
}

#[test]
fn failed_checkpoint_is_reported_and_leaves_the_last_map() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    assert!(rig.write(volume, 1, 1, 1));
    rig.checkpoint();
    assert!(rig.write(volume, 2, 2, 2));
    rig.disk.fail(u32::MAX);
    rig.begin();
    let mut failed = None;
    while failed.is_none() {
        store::turn(&mut rig.store, &mut rig.disk.clone(), &rig.pool);
        failed = rig.store.poll_event();
    }
    assert_eq!(failed, Some(Event::CheckpointFailed(Status::Io)));
    assert!(rig.store.has_failed());
    assert!(matches!(rig.store.edit(volume, 0), store::Edit::Busy));
    assert!(matches!(rig.lookup(volume, 2), Lookup::Entry(_)), "reads go on");
    rig.disk.fail(0);
    let mut rig = rig.remount().unwrap();
    rig.verify();
}

#[test]
fn passing_device_errors_are_retried() {
    let mut rig = Rig::new(4096, SMALLEST, 24);
    let volume = rig.create(1 << 40);
    for failing in [1, 2] {
        assert!(rig.write(volume, 48 * u64::from(failing), 1, 1));
        rig.disk.fail(failing);
        rig.checkpoint();
        assert_eq!(rig.store.stats().checkpoints, u64::from(failing));
    }
    let mut rig = rig.remount().unwrap();
    rig.disk.fail(2);
    rig.verify();
    rig.disk.fail(4);
    let mut rig = rig.remount().unwrap();
    rig.verify();
    rig.disk.fail(6);
    let unreadable = [store::format::SlotFault::Unreadable; 2];
    assert_eq!(rig.remount().err(), Some(MountError::Superblocks { faults: unreadable }));
}

#[test]
fn superblock_type_is_public_for_tools() {
    assert_eq!(size_of::<Superblock>(), 4096);
}
