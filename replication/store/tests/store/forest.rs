//! Snapshots, clones, restores and deletions in any order, against a model, through crashes.

use std::collections::BTreeSet;

use bdev::Rng;
use store::{
    CheckReport, Diff, Edit, Extent, Finding, LeafEntry, Lookup, NODES_MAX, NodeKind, NodeSpec,
    SNAPSHOTS_MAX, STAGED_MAX, Scan, Unique, Unmap, VOLUMES_MAX, VolumeError, VolumeId,
    VolumeRecord,
};

use crate::rig::{ModelVolume, Rig, UUID, check_disk, fuzz};

const DEVICE: usize = (128 << 10) + (1 << 20) + (16 << 20);

/// What waits for the next checkpoint in the model.
#[derive(Clone)]
pub(crate) enum Plan {
    Snapshot { volume: u32, id: u32 },
    Restore { volume: u32, to: ModelVolume },
}

fn uuid(id: VolumeId) -> [u8; 16] {
    let mut uuid = UUID;
    uuid[..4].copy_from_slice(&id.0.to_le_bytes());
    uuid
}

impl Rig {
    pub(crate) fn snapshot(&mut self, volume: VolumeId) -> VolumeId {
        let id = self.store.next_volume_id();
        let spec = NodeSpec { id, uuid: uuid(id), name: &format!("snapshot-{id}") };
        self.store.stage_snapshot(volume, &spec, 7).unwrap();
        self.plans.push(Plan::Snapshot { volume: volume.0, id: id.0 });
        id
    }

    pub(crate) fn restore(&mut self, volume: VolumeId, snapshot: VolumeId) {
        let id = self.store.next_volume_id();
        self.store.stage_restore(volume, snapshot, id, 7).unwrap();
        let to = self.model[&snapshot.0].clone();
        self.plans.push(Plan::Restore { volume: volume.0, to });
    }

    pub(crate) fn clone_of(&mut self, snapshot: VolumeId) -> VolumeId {
        let id = self.store.next_volume_id();
        let spec = NodeSpec { id, uuid: uuid(id), name: &format!("clone-{id}") };
        self.store.create_clone(snapshot, &spec, 7).unwrap();
        let volume = self.model[&snapshot.0].clone();
        self.model.insert(id.0, ModelVolume { writable: true, ..volume });
        id
    }

    /// What is staged takes effect in the checkpoint that begins.
    pub(crate) fn carry_out_plans(&mut self) {
        for plan in std::mem::take(&mut self.plans) {
            match plan {
                Plan::Snapshot { volume, id } => {
                    let volume = self.model[&volume].clone();
                    self.model.insert(id, ModelVolume { writable: false, ..volume });
                }
                Plan::Restore { volume, to } => {
                    let volume = self.model.get_mut(&volume).unwrap();
                    volume.size = volume.size.max(to.size);
                    volume.map = to.map;
                }
            }
        }
    }

    fn pick(&self, rng: &mut Rng, writable: bool) -> Option<VolumeId> {
        let fits = self.model.iter().filter(|(_, v)| v.writable == writable);
        let ids: Vec<u32> = fits.map(|(&id, _)| id).collect();
        Some(VolumeId(ids[rng.index(ids.len())?]))
    }

    /// Goes on with a walk until it has an answer that is not "later".
    fn settle<T>(&mut self, mut step: impl FnMut(&mut Rig) -> Option<T>) -> T {
        loop {
            let before = self.store.loads();
            if let Some(answer) = step(self) {
                return answer;
            }
            while self.store.loads() == before {
                self.turn();
            }
        }
    }

    pub(crate) fn unique(&mut self, volume: VolumeId) -> u64 {
        let (mut from, mut sum) = (0, 0);
        loop {
            match self.settle(|rig| match rig.store.unique(volume, from) {
                Unique::Pending => None,
                other => Some(other),
            }) {
                Unique::Counted { extents, next } => {
                    assert!(next > from);
                    (from, sum) = (next, sum + extents);
                }
                Unique::End => return sum,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn scan(&mut self, volume: VolumeId) -> Vec<(u64, LeafEntry)> {
        let (mut from, mut found) = (0, Vec::new());
        loop {
            match self.settle(|rig| match rig.store.scan(volume, from) {
                Scan::Pending => None,
                other => Some(other),
            }) {
                Scan::Entry { index, entry } => {
                    found.push((index, entry));
                    from = index + 1;
                }
                Scan::Skip(next) => {
                    assert!(next > from);
                    from = next;
                }
                Scan::End => return found,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn diff(&mut self, base: Option<VolumeId>, of: VolumeId) -> Vec<u64> {
        let (mut from, mut found) = (0, Vec::new());
        loop {
            match self.settle(|rig| match rig.store.diff(base, of, from) {
                Diff::Pending => None,
                other => Some(other),
            }) {
                Diff::Changed { index, base, entry } => {
                    assert!(base != entry);
                    found.push(index);
                    from = index + 1;
                }
                Diff::Skip(next) => {
                    assert!(next > from);
                    from = next;
                }
                Diff::End => return found,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Scans, differences and sums, against the model.
    fn verify_walks(&mut self, rng: &mut Rng) {
        let ids: Vec<u32> = self.model.keys().copied().collect();
        let Some(at) = rng.index(ids.len()) else { return };
        let (of, base) = (ids[at], ids[rng.index(ids.len()).unwrap()]);
        let model = self.model.clone();
        let found: Vec<_> = self
            .scan(VolumeId(of))
            .into_iter()
            .map(|(index, entry)| (index, entry.extent().unwrap(), entry.written()))
            .collect();
        let wanted: Vec<_> = model[&of].map.iter().map(|(&i, &(e, w, _))| (i, e, w)).collect();
        assert_eq!(found, wanted);
        let (a, b) = (&model[&base].map, &model[&of].map);
        let all: BTreeSet<u64> = a.keys().chain(b.keys()).copied().collect();
        let wanted: Vec<u64> = all.into_iter().filter(|i| a.get(i) != b.get(i)).collect();
        assert_eq!(self.diff(Some(VolumeId(base)), VolumeId(of)), wanted);
        assert_eq!(self.diff(None, VolumeId(of)), b.keys().copied().collect::<Vec<_>>());
        if self.store.nodes().all(|node| node.is_active()) {
            let others = model.iter().filter(|(id, _)| **id != of);
            let others: BTreeSet<Extent> = others.flat_map(|(_, v)| extents(v)).collect();
            let alone = extents(&model[&of]).filter(|extent| !others.contains(extent)).count();
            assert_eq!(self.unique(VolumeId(of)), alone as u64);
        }
    }

    /// The check is clean, and without deleted nodes exactly what the model has is in use.
    pub(crate) fn verify_space(&mut self) -> CheckReport {
        let report = check_disk(&self.disk, &self.pool, false);
        assert!(report.is_clean(), "{:?}", report.findings);
        let used: BTreeSet<Extent> = self.model.values().flat_map(extents).collect();
        if self.store.nodes().all(|node| node.is_active()) {
            assert_eq!(report.extents, used.len() as u64);
            for (&id, volume) in &self.model {
                let record = self.store.volume(VolumeId(id)).unwrap();
                assert_eq!(record.mapped.get(), volume.map.len() as u64);
            }
        } else {
            assert!(report.extents >= used.len() as u64);
        }
        report
    }
}

fn extents(volume: &ModelVolume) -> impl Iterator<Item = Extent> {
    volume.map.values().map(|&(extent, ..)| extent)
}

fn index(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.below(10),
        1 => rng.below(48 * 4),
        2 => rng.below(3) * 48 * 251,
        _ => 48 * 252 * 252 + rng.below(3),
    }
}

/// A random operation. A full store gets room by deleting.
fn act(rig: &mut Rig, rng: &mut Rng, pace: u64) {
    if rng.chance(1, pace) {
        rig.checkpoint();
    }
    if rig.model.values().filter(|volume| volume.writable).count() == 0 {
        rig.create(1 << 40);
    }
    let volume = rig.pick(rng, true).unwrap();
    let snapshot = rig.pick(rng, false);
    match (rng.below(24), snapshot) {
        (0, _) if rig.model.len() < 10 => {
            rig.create((1 << 40) + rng.below(4) * 4096);
        }
        (1, _) => {
            let from = index(rng);
            rig.unmap(volume, from, from + rng.below(300));
        }
        (2, _) if rng.chance(1, 4) => rig.unmap(volume, 0, u64::MAX),
        (3 | 4, _) if rig.model.len() < 14 => {
            rig.snapshot(volume);
        }
        (5, Some(snapshot)) if rig.model.len() < 14 => {
            rig.clone_of(snapshot);
        }
        (6, Some(snapshot)) => {
            let record = |id| rig.store.volume(id).unwrap();
            if record(snapshot).family() == record(volume).family() {
                rig.restore(volume, snapshot);
            }
        }
        (7 | 8, Some(snapshot)) => rig.delete(snapshot),
        (9, _) if rng.chance(1, 3) && rig.plans.is_empty() => rig.delete(volume),
        (10, _) => rig.reclaim(),
        (11..14, _) => {
            for _ in 0..rng.below(12) {
                if rig.store.reclaim() == Unmap::Pending {
                    rig.turn();
                }
            }
        }
        _ => {
            let (at, block) = (index(rng), rng.index(16).unwrap());
            let crc = u32::try_from(rng.next_u64() >> 32).unwrap();
            if !rig.write(volume, at, block, crc) {
                rig.checkpoint();
                let all: Vec<u32> = rig.model.keys().copied().collect();
                all.into_iter().take(3).for_each(|id| rig.delete(VolumeId(id)));
                rig.reclaim();
                rig.checkpoint();
            }
        }
    }
}

/// Deletes every node in a random order; nothing may be left.
fn delete_all(rig: &mut Rig, rng: &mut Rng) {
    rig.checkpoint(); // What is staged happens first.
    while !rig.model.is_empty() {
        let ids: Vec<u32> = rig.model.keys().copied().collect();
        rig.delete(VolumeId(ids[rng.index(ids.len()).unwrap()]));
        if rng.chance(1, 2) {
            rig.reclaim();
        }
        if rng.chance(1, 3) {
            rig.checkpoint();
            rig.verify();
            rig.verify_space();
        }
    }
    rig.reclaim();
    rig.checkpoint();
    let report = rig.verify_space();
    assert_eq!((report.extents, report.volumes), (0, 0));
    assert_eq!(rig.store.nodes().count(), 0);
}

#[test]
fn every_node_keeps_its_contents_and_space_is_exact() {
    let (first, rounds) = fuzz(6);
    for seed in first..first + rounds {
        eprintln!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p store every_node_keeps");
        let mut rng = Rng::new(seed);
        let frames = [24, 40, 4096][rng.index(3).unwrap()];
        let mut rig = Rig::new(4096, DEVICE, frames);
        for _ in 0..4 {
            for _ in 0..60 {
                act(&mut rig, &mut rng, 20);
            }
            rig.checkpoint();
            rig.verify();
            rig.verify_walks(&mut rng);
            rig.reclaim();
            rig.checkpoint();
            rig.verify();
            rig.verify_walks(&mut rng);
            rig.verify_space();
            if rng.chance(1, 2) {
                rig = rig.remount().unwrap();
                rig.verify();
            }
        }
        delete_all(&mut rig, &mut rng);
    }
}

#[test]
fn crash_at_any_write_loses_leaks_and_shares_nothing_wrongly() {
    let (first, rounds) = fuzz(8);
    for seed in first..first + rounds {
        eprintln!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p store crash_at_any");
        // Each seed has its own operations and kill points: a thorough run takes many of them.
        for writes in (seed * 7 % 31..).step_by(31) {
            let mut rng = Rng::new(seed);
            let mut rig = Rig::new(4096, DEVICE, 40);
            rig.disk.kill_after(writes);
            for _ in 0..60 {
                if !rig.disk.is_dead() {
                    act(&mut rig, &mut rng, 4);
                }
            }
            if !rig.disk.is_dead() {
                assert!(writes > 31, "the workload writes");
                break;
            }
            let (durable, begun) = (rig.durable_lsn, rig.next_lsn - 1);
            let disk = rig.disk.crashed(&mut Rng::new(seed ^ writes));
            let (pool, checkpoints) = rig.power_off();
            let report = check_disk(&disk, &pool, false);
            let only_supers = |f: &Finding| matches!(f, Finding::Superblock { .. });
            assert!(report.findings.iter().all(only_supers), "{:?}", report.findings);
            let mut rig = Rig::mounted(disk, pool, 40).unwrap();
            assert!((durable..=begun).contains(&rig.durable_lsn));
            rig.model = checkpoints[&rig.durable_lsn].clone();
            rig.verify();
            for _ in 0..10 {
                act(&mut rig, &mut rng, 4);
            }
            rig.checkpoint();
            rig.verify();
            rig.verify_space();
            delete_all(&mut rig, &mut rng);
        }
    }
}

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
