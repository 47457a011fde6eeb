//! Space: exhaustion, the reserve, tentative extents, volume records.

use store::{
    Edit, Extent, ExtentState, LogTail, Lookup, Unmap, VOLUME_BYTES_MAX, VOLUMES_MAX, VolumeError,
    VolumeId, VolumeSpec,
};

use crate::rig::{Rig, UUID, check_disk};

const SMALLEST: usize = (128 << 10) + (1 << 20) + (64 << 16);

#[test]
fn full_store_still_checkpoints_overwrites_and_recovers() {
    for frames in [24, 4096] {
        let mut rig = Rig::new(4096, SMALLEST, frames);
        let volume = rig.create(1 << 40);
        let mut written = 0;
        // The worst case: each extent needs a leaf and an inner page of its own.
        while rig.write(volume, written * 48 * 252, 0, 7) {
            written += 1;
        }
        assert!(written > 20, "the reserve is small: {written} extents were written");
        assert_eq!((rig.store.free_extents(), rig.store.allocate()), (0, None));
        for round in 0..4 {
            for index in 0..written {
                assert!(rig.write(volume, index * 48 * 252, 1, round));
            }
            rig.checkpoint();
        }
        let report = check_disk(&rig.disk, &rig.pool, false);
        assert!(report.is_clean(), "{:?}", report.findings);
        assert_eq!(report.extents, written);
        let mut rig = rig.remount().unwrap();
        rig.verify();
        rig.unmap(volume, 0, u64::MAX);
        rig.checkpoint();
        assert!(rig.store.free_extents() + 36 > rig.store.total_extents());
        assert_eq!(check_disk(&rig.disk, &rig.pool, false).extents, 0);
        assert!(rig.write(volume, 3, 0, 1));
    }
}

#[test]
fn tentative_extents_are_forgotten_by_a_crash() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let before = rig.store.free_extents();
    let run = rig.store.allocate_run(16).unwrap();
    assert_eq!(run.1, 16);
    rig.checkpoint();
    assert_eq!(rig.store.extent_state(run.0), ExtentState::Tentative);
    let report = check_disk(&rig.disk, &rig.pool, false);
    assert!(report.is_clean());
    let mut rig = rig.remount().unwrap();
    assert_eq!(rig.store.free_extents(), before);
    // Replay of the log claims what it says is in use.
    let extent = rig.store.extent(run.0.number()).unwrap();
    assert_eq!(rig.store.claim(extent), ExtentState::Free);
    assert_eq!(rig.store.claim(extent), ExtentState::Tentative);
    assert_ne!(rig.store.allocate(), Some(extent));
    rig.store.abandon(extent);
    assert_eq!(rig.store.extent_state(extent), ExtentState::Free);
    let none = [0, 17, 82, u64::MAX].map(|number| rig.store.extent(number));
    assert_eq!(none, [None; 4]);
}

#[test]
fn released_extents_are_reused_only_after_the_checkpoint() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    assert!(rig.write(volume, 0, 0, 1));
    rig.checkpoint();
    let Lookup::Entry(entry) = rig.lookup(volume, 0) else { panic!("just written") };
    let old = entry.extent().unwrap();
    let new = rig.store.allocate().unwrap();
    let birth = rig.store.birth(volume);
    let Edit::Entry(entry) = rig.store.edit(volume, 0) else { panic!("in memory") };
    entry.set_extent(new, birth);
    rig.store.commit(new);
    rig.store.release(old);
    assert_eq!(rig.store.extent_state(old), ExtentState::Released);
    let others: Vec<Extent> = std::iter::from_fn(|| rig.store.allocate()).collect();
    assert!(!others.contains(&old));
    others.into_iter().for_each(|extent| rig.store.abandon(extent));
    rig.begin();
    while rig.store.is_checkpointing() {
        assert_eq!(rig.store.extent_state(old), ExtentState::Released);
        assert!(!rig.store.begin_checkpoint(LogTail::START), "one at a time");
        assert!(matches!(rig.store.edit(volume, 0), Edit::Busy));
        assert_eq!(rig.store.unmap(volume, &mut (0..1)), Unmap::Busy);
        rig.turn();
    }
    assert_eq!(rig.store.extent_state(old), ExtentState::Free);
}

fn spec(id: u32, name: &str) -> VolumeSpec<'_> {
    let mut uuid = UUID;
    uuid[..4].copy_from_slice(&id.to_le_bytes());
    VolumeSpec { id: VolumeId(id), uuid, name, size: 4096, block_bytes: 512 }
}

#[test]
fn catalog_refuses_what_it_cannot_hold_and_replays_what_it_has() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let store = &mut rig.store;
    let long = "n".repeat(65);
    let bad = [
        (VolumeSpec { name: "", ..spec(1, "") }, VolumeError::Name),
        (spec(1, &long), VolumeError::Name),
        (VolumeSpec { size: 0, ..spec(1, "a") }, VolumeError::Size),
        (VolumeSpec { size: 4097, ..spec(1, "a") }, VolumeError::Size),
        (VolumeSpec { size: VOLUME_BYTES_MAX + 4096, ..spec(1, "a") }, VolumeError::Size),
        (VolumeSpec { block_bytes: 1024, ..spec(1, "a") }, VolumeError::BlockSize),
        (spec(0, "a"), VolumeError::Id),
        (spec(u32::MAX, "a"), VolumeError::Id),
    ];
    for (spec, error) in bad {
        assert_eq!(store.create_volume(&spec), Err(error));
    }
    assert_eq!(store.create_volume(&spec(1, "a")), Ok(()));
    assert_eq!(store.create_volume(&spec(1, "a")), Ok(()), "replayed");
    assert_eq!(store.create_volume(&spec(2, "a")), Err(VolumeError::Exists));
    store.delete_volume(VolumeId(1));
    assert_eq!(store.create_volume(&spec(2, "a")), Ok(()), "the name is free again");
    assert_eq!(store.reclaim(), Unmap::Done);
    assert!(store.volume(VolumeId(1)).is_none());
    assert_eq!(store.create_volume(&spec(1, "a")), Ok(()), "replayed, deleted since");
    assert!(store.volume(VolumeId(1)).is_none());
    assert_eq!(store.resize_volume(VolumeId(1), 8192), Err(VolumeError::Unknown));
    assert_eq!(store.resize_volume(VolumeId(2), 8191), Err(VolumeError::Size));
    let most = u32::try_from(VOLUMES_MAX).unwrap();
    for id in 3..most + 2 {
        assert_eq!(store.create_volume(&spec(id, &format!("v{id}"))), Ok(()));
    }
    let next = store.next_volume_id();
    assert_eq!(store.create_volume(&spec(next.0, "more")), Err(VolumeError::TooMany));
    rig.checkpoint();
    let disk = rig.disk.clone();
    let mut rig = Rig::mounted(disk, rig.power_off().0, 64).unwrap();
    assert_eq!(rig.store.volumes().count(), VOLUMES_MAX);
    assert_eq!(rig.store.next_volume_id(), next);
    assert_eq!(rig.store.volume(VolumeId(2)).unwrap().name_str(), "a");
    assert_eq!(rig.store.volume(VolumeId(2)).unwrap().block_bytes(), 512);
    rig.store.delete_volume(VolumeId(9));
    rig.reclaim();
    assert_eq!(rig.store.create_volume(&spec(next.0, "more")), Ok(()));
    rig.checkpoint();
    assert!(check_disk(&rig.disk, &rig.pool, false).is_clean());
}

#[test]
fn deletion_goes_on_after_a_crash() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 40);
    for index in 0..12 {
        assert!(rig.write(volume, index * 48 * 252, 0, 1));
    }
    rig.delete(volume);
    rig.checkpoint();
    for _ in 0..5 {
        rig.store.reclaim();
        rig.turn();
    }
    rig.checkpoint();
    let left = check_disk(&rig.disk, &rig.pool, false);
    assert!(left.is_clean() && left.extents < 12 && left.volumes == 1, "{left:?}");
    let mut rig = rig.remount().unwrap();
    rig.reclaim();
    rig.checkpoint();
    let done = check_disk(&rig.disk, &rig.pool, false);
    assert!(done.is_clean() && done.extents == 0 && done.volumes == 0, "{done:?}");
}

#[test]
fn page_that_was_given_for_editing_is_given_until_the_checkpoint() {
    let mut rig = Rig::new(4096, SMALLEST, 24);
    let volume = rig.create(1 << 40);
    let mut given = Vec::new();
    for index in (0..).step_by(48) {
        match rig.store.edit(volume, index) {
            Edit::Entry(_) => given.push(index),
            Edit::Busy => break,
            other => panic!("nothing is loaded from a new volume: {other:?}"),
        }
        assert!(matches!(rig.store.edit(volume, index + 1), Edit::Entry(_)));
    }
    assert!(given.len() > 4 && rig.store.needs_checkpoint());
    let all = |rig: &mut Rig| {
        given.iter().all(|&index| matches!(rig.store.edit(volume, index), Edit::Entry(_)))
    };
    assert!(all(&mut rig));
    rig.begin();
    assert!(matches!(rig.store.edit(volume, 0), Edit::Busy));
    rig.turn();
}

#[test]
fn each_change_of_a_volume_is_in_the_next_checkpoint() {
    let mut rig = Rig::new(4096, SMALLEST, 64);
    let volume = rig.create(1 << 30);
    rig.checkpoint();
    rig.store.resize_volume(volume, 2 << 30).unwrap();
    rig.model.get_mut(&volume.0).unwrap().size = 2 << 30;
    rig.checkpoint();
    let mut rig = rig.remount().unwrap();
    rig.verify();
    rig.delete(volume);
    rig.checkpoint();
    let mut rig = rig.remount().unwrap();
    rig.verify();
    assert!(rig.store.volume(volume).is_some_and(|volume| !volume.is_active()));
}
