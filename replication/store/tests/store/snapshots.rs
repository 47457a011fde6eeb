//! Single claims about snapshots, clones and restores: what they cost, refuse, replay and keep.

use store::{
    Edit, Lookup, NODES_MAX, NodeKind, NodeSpec, SNAPSHOTS_MAX, STAGED_MAX, Unmap, VOLUMES_MAX,
    VolumeError, VolumeId, VolumeRecord,
};

use crate::forest::uuid;
use crate::rig::{Rig, check_disk};

const DEVICE: usize = (128 << 10) + (1 << 20) + (16 << 20);

#[test]
fn snapshot_keeps_what_the_volume_had_and_costs_nothing() {
    let mut rig = Rig::new(4096, DEVICE, 64);
    let volume = rig.create(1 << 30);
    for index in 0..10 {
        assert!(rig.write(volume, index, 0, 1));
    }
    rig.checkpoint();
    let before = rig.store.stats();
    let snapshot = rig.snapshot(volume);
    assert!(rig.store.volume(snapshot).is_none() && rig.store.has_staged());
    rig.checkpoint();
    let pages = rig.store.stats().pages_written - before.pages_written;
    assert!(pages <= 6, "records, the catalog's root, a page of the space map; twice each");
    assert!(!rig.store.has_staged());
    let Lookup::Entry(entry) = rig.lookup(volume, 3) else { panic!("it is mapped") };
    assert!(!rig.store.is_owned(volume, 3, &entry));
    assert_eq!((rig.unique(snapshot), rig.unique(volume)), (0, 0));
    assert!(rig.write(volume, 3, 1, 2));
    rig.unmap(volume, 5, 6);
    assert_eq!(rig.diff(Some(snapshot), volume), [3, 5]);
    rig.checkpoint();
    assert_eq!((rig.unique(snapshot), rig.unique(volume)), (2, 1));
    rig.verify();
    let report = rig.verify_space();
    assert_eq!(report.extents, 11);
    rig.delete(snapshot);
    rig.reclaim();
    rig.checkpoint();
    let Lookup::Entry(entry) = rig.lookup(volume, 0) else { panic!("it is mapped") };
    assert!(rig.store.is_owned(volume, 0, &entry), "nobody else has it any more");
    assert_eq!(rig.verify_space().extents, 9);
}

/// As many edits of leaves, 48 extents apart, as there is room for, checkpoints included.
fn edit_until_stuck(rig: &mut Rig, volume: VolumeId, leaves: u64) -> u64 {
    for leaf in 0..leaves {
        loop {
            match rig.store.edit(volume, leaf * 48) {
                Edit::Entry(entry) => {
                    entry.set_block(1, 9);
                    break;
                }
                Edit::Pending => rig.turn(),
                Edit::Busy => {
                    if !rig.store.is_dirty() {
                        return leaf;
                    }
                    rig.checkpoint();
                }
                Edit::Damaged(page) => panic!("page {page} is damaged"),
            }
        }
    }
    leaves
}

#[test]
fn store_full_of_shared_pages_gets_room_when_a_snapshot_goes() {
    for frames in [24, 4096] {
        let mut rig = Rig::new(4096, (128 << 10) + (1 << 20) + (4 << 20), frames);
        let volume = rig.create(1 << 40);
        let mut leaves = 0;
        while rig.write(volume, leaves * 48, 0, 7) {
            leaves += 1;
        }
        // Each edit after a snapshot takes a page and frees none.
        let mut snapshots = Vec::new();
        loop {
            snapshots.push(rig.snapshot(volume));
            rig.checkpoint();
            if edit_until_stuck(&mut rig, volume, leaves) < leaves {
                break;
            }
        }
        assert!(!snapshots.is_empty() && rig.store.allocate().is_none());
        for snapshot in snapshots {
            rig.delete(snapshot);
        }
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 10_000, "it never gets room");
            match rig.store.reclaim() {
                Unmap::Busy => rig.checkpoint(),
                Unmap::Done => break,
                _ => rig.turn(),
            }
        }
        rig.checkpoint();
        assert_eq!(edit_until_stuck(&mut rig, volume, leaves), leaves);
        rig.checkpoint();
        let report = check_disk(&rig.disk, &rig.pool, false);
        assert!(report.is_clean(), "{:?}", report.findings);
        assert_eq!(report.snapshots, 0);
    }
}

fn spec(id: VolumeId, name: &str) -> NodeSpec<'_> {
    NodeSpec { id, uuid: uuid(id), name }
}

#[test]
fn limits_of_snapshots_are_refused_one_beyond() {
    let mut rig = Rig::new(4096, DEVICE, 64);
    let (volume, other) = (rig.create(1 << 30), rig.create(1 << 30));
    let mut taken = 0;
    while taken < SNAPSHOTS_MAX {
        for _ in 0..STAGED_MAX.min(SNAPSHOTS_MAX - taken) {
            rig.snapshot(volume);
            taken += 1;
        }
        let id = rig.store.next_volume_id();
        let answer = rig.store.stage_snapshot(volume, &spec(id, "more"), 0);
        let full = taken == SNAPSHOTS_MAX;
        let error = if full { VolumeError::TooManySnapshots } else { VolumeError::Staged };
        assert_eq!(answer, Err(error));
        let snapshot = rig.store.snapshots().next().map(|record| record.volume_id());
        let staged = snapshot.map(|s| rig.store.stage_restore(volume, s, id, 0));
        assert!(staged.is_none_or(|answer| answer == Err(VolumeError::Staged)));
        assert_eq!(rig.store.next_volume_id(), id, "nothing was staged");
        rig.checkpoint();
    }
    // Another volume has its own, until the catalog is full.
    let origin = rig.snapshot(other);
    rig.checkpoint();
    let mut volumes = 2;
    while volumes < VOLUMES_MAX {
        rig.clone_of(origin);
        volumes += 1;
    }
    let id = rig.store.next_volume_id();
    assert_eq!(rig.store.create_clone(origin, &spec(id, "c"), 0), Err(VolumeError::TooMany));
    let clones: Vec<u32> = rig.model.keys().copied().filter(|&id| id > origin.0).collect();
    let mut at = 0;
    while rig.store.nodes().count() < NODES_MAX {
        for _ in 0..STAGED_MAX.min(NODES_MAX - rig.store.nodes().count()) {
            rig.snapshot(VolumeId(clones[at % clones.len()]));
            at += 1;
        }
        rig.checkpoint();
    }
    let id = rig.store.next_volume_id();
    assert_eq!(rig.store.stage_snapshot(other, &spec(id, "s"), 0), Err(VolumeError::TooMany));
    assert_eq!(rig.store.stage_restore(other, origin, id, 0), Err(VolumeError::TooMany));
    let mut rig = rig.remount().unwrap();
    assert_eq!(rig.store.nodes().count(), NODES_MAX);
    rig.delete(VolumeId(clones[0]));
    rig.reclaim();
    assert_eq!(rig.store.stage_restore(other, origin, id, 0), Ok(()));
    rig.checkpoint();
    assert!(check_disk(&rig.disk, &rig.pool, false).is_clean());
}

#[test]
fn forest_refuses_what_does_not_belong_together_and_replays_what_it_has() {
    let mut rig = Rig::new(4096, DEVICE, 64);
    let (a, b) = (rig.create(1 << 30), rig.create(1 << 30));
    let snapshot = rig.snapshot(a);
    rig.checkpoint();
    let store = &mut rig.store;
    let unknown = Err(VolumeError::Unknown);
    let next = store.next_volume_id();
    assert_eq!(store.stage_restore(b, snapshot, next, 0), Err(VolumeError::NotRelated));
    assert_eq!(store.stage_restore(a, b, next, 0), unknown, "no snapshot");
    assert_eq!(store.stage_restore(snapshot, snapshot, next, 0), unknown, "no volume");
    assert_eq!(store.stage_restore(a, snapshot, VolumeId(0), 0), Err(VolumeError::Id));
    assert_eq!(store.create_clone(a, &spec(next, "c"), 0), unknown, "no snapshot");
    assert_eq!(store.stage_snapshot(snapshot, &spec(next, "s"), 0), unknown, "no volume");
    assert_eq!(store.resize_volume(snapshot, 4096), unknown);
    let taken = NodeSpec { id: next, uuid: uuid(a), name: "new" };
    assert_eq!(store.create_clone(snapshot, &taken, 0), Err(VolumeError::Exists));
    let name = format!("snapshot-{snapshot}");
    assert_eq!(store.stage_snapshot(a, &spec(next, &name), 0), Err(VolumeError::Exists));
    assert_eq!(store.stage_snapshot(b, &spec(next, &name), 0), Ok(()), "of another volume");
    let after = store.next_volume_id();
    assert_eq!(store.stage_snapshot(b, &spec(after, &name), 0), Err(VolumeError::Exists));
    assert!(store.has_staged() && store.is_dirty());
    rig.checkpoint();
    let store = &mut rig.store;
    assert_eq!(store.volume(next).unwrap().parent(), None);
    assert_eq!(store.volume(b).unwrap().parent(), Some(next));
    assert_eq!(store.volume(next).unwrap().kind(), NodeKind::Snapshot);
    assert_eq!(store.snapshots().count(), 2);
    // All of it once more, as a replay would.
    let shape: Vec<VolumeRecord> = store.nodes().copied().collect();
    assert_eq!(store.stage_snapshot(b, &spec(next, &name), 9), Ok(()));
    assert_eq!(store.stage_restore(a, snapshot, next, 9), Ok(()), "an old id");
    assert!(!store.has_staged());
    assert_eq!(store.nodes().copied().collect::<Vec<_>>(), shape);
    store.delete_volume(next);
    assert_eq!(store.snapshots().count(), 1);
    rig.reclaim();
    let store = &mut rig.store;
    assert!(store.volume(next).is_none() && store.volume(b).unwrap().parent().is_none());
    assert_eq!(store.stage_snapshot(b, &spec(next, &name), 9), Ok(()), "it was deleted since");
    assert!(!store.has_staged());
}

#[test]
fn restored_volume_is_what_the_snapshot_was_and_later_snapshots_stay() {
    let mut rig = Rig::new(4096, DEVICE, 64);
    let volume = rig.create(1 << 30);
    for index in 0..60 {
        assert!(rig.write(volume, index, 0, 1));
    }
    let old = rig.snapshot(volume);
    rig.checkpoint();
    assert!(rig.write(volume, 3, 1, 2));
    let new = rig.snapshot(volume);
    rig.checkpoint();
    assert!(rig.write(volume, 4, 1, 3) && rig.write(volume, 500, 1, 3));
    rig.store.resize_volume(volume, 2 << 30).unwrap();
    rig.model.get_mut(&volume.0).unwrap().size = 2 << 30;
    rig.restore(volume, old);
    rig.checkpoint();
    let floor = |rig: &Rig, id| rig.store.volume(id).unwrap().floor_lsn();
    assert_eq!((floor(&rig, volume), floor(&rig, new)), (7, 7));
    rig.verify();
    assert_eq!(rig.diff(Some(old), volume), []);
    assert_eq!(rig.diff(Some(new), volume), [3]);
    assert_eq!(rig.lookup(volume, 500), Lookup::Unmapped);
    assert!(rig.store.nodes().any(|node| node.kind() == NodeKind::Remains));
    rig.reclaim();
    rig.checkpoint();
    assert_eq!(rig.verify_space().extents, 61);
    assert!(rig.write(volume, 4, 2, 4));
    rig.restore(volume, new);
    rig.checkpoint();
    let mut rig = rig.remount().unwrap();
    rig.verify();
    assert_eq!(rig.diff(Some(new), volume), []);
}

#[test]
fn deleted_snapshot_gives_back_what_its_children_have_replaced() {
    let mut rig = Rig::new(4096, DEVICE, 64);
    let volume = rig.create(1 << 30);
    for leaf in 0..40 {
        assert!(rig.write(volume, leaf * 48, 0, 1));
    }
    let snapshot = rig.snapshot(volume);
    rig.checkpoint();
    let clone = rig.clone_of(snapshot);
    rig.delete(snapshot);
    rig.reclaim();
    rig.checkpoint();
    assert_eq!(check_disk(&rig.disk, &rig.pool, false).extents, 40);
    assert!(!rig.store.wants_reclaim(), "both children share all of it");
    for leaf in 0..40 {
        assert!(rig.write(volume, leaf * 48, 1, 2) && rig.write(clone, leaf * 48, 1, 3));
    }
    rig.checkpoint();
    assert_eq!(check_disk(&rig.disk, &rig.pool, false).extents, 120);
    assert!(rig.store.wants_reclaim());
    rig.reclaim();
    rig.checkpoint();
    rig.verify();
    assert_eq!(rig.verify_space().extents, 80);
    assert_eq!(rig.store.nodes().count(), 2, "nothing of its own was left");
}

/// Reclaims so many steps, mounts again from the checkpoint behind them, and reclaims the rest.
/// False when the last of the steps found nothing to do.
fn interrupted_reclaim(mut rig: Rig, steps: u32) -> (bool, Rig) {
    let mut more = true;
    for _ in 0..steps {
        more = rig.store.reclaim() != Unmap::Done;
        rig.turn();
    }
    rig.checkpoint();
    let report = check_disk(&rig.disk, &rig.pool, false);
    assert!(report.is_clean(), "{steps} steps: {:?}", report.findings);
    let mut rig = rig.remount().unwrap();
    rig.reclaim();
    rig.checkpoint();
    rig.verify();
    (more, rig)
}

#[test]
fn handing_over_goes_on_where_a_checkpoint_left_it() {
    for steps in 0.. {
        let mut rig = Rig::new(4096, DEVICE, 64);
        let volume = rig.create(1 << 30);
        let mut snapshots = Vec::new();
        for round in 0..3u64 {
            for leaf in 0..6 {
                // Some places are written in each round, some in the first alone.
                if round == 0 || (leaf + round) % 3 != 0 {
                    assert!(rig.write(volume, leaf * 48 + round, 0, 1));
                }
            }
            snapshots.push(rig.snapshot(volume));
            rig.checkpoint();
        }
        assert!(rig.write(volume, 1, 0, 9));
        for &snapshot in &snapshots {
            rig.delete(snapshot);
        }
        let (more, mut rig) = interrupted_reclaim(rig, steps);
        let report = rig.verify_space();
        assert_eq!((report.snapshots, rig.store.nodes().count()), (0, 1), "{steps} steps");
        if !more {
            assert!(steps > 12, "there was something to do: {steps} steps");
            return;
        }
    }
}

#[test]
fn node_with_nothing_of_its_own_goes_on_handing_over_to_several_children() {
    for steps in 0.. {
        let mut rig = Rig::new(4096, DEVICE, 64);
        let volume = rig.create(1 << 30);
        for leaf in 0..6 {
            assert!(rig.write(volume, leaf * 48, 0, 1));
        }
        let base = rig.snapshot(volume);
        rig.checkpoint();
        assert!(rig.write(volume, 0, 0, 2) && rig.write(volume, 4 * 48, 0, 2));
        let snapshot = rig.snapshot(volume);
        rig.checkpoint();
        let clone = rig.clone_of(snapshot);
        for child in [volume, clone] {
            assert!(rig.write(child, 0, 0, 3) && rig.write(child, 4 * 48, 0, 3));
        }
        rig.delete(snapshot);
        rig.checkpoint();
        let (more, mut rig) = interrupted_reclaim(rig, steps);
        let report = rig.verify_space();
        assert_eq!((report.snapshots, report.extents), (1, 10), "{steps} steps");
        assert!(rig.store.volume(base).is_some() && rig.store.volume(snapshot).is_none());
        if !more {
            assert!(steps > 8, "there was something to do: {steps} steps");
            return;
        }
    }
}
