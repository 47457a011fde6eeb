//! Snapshots, clones, restores and deletions in any order, against a model, through crashes.

use std::collections::BTreeSet;

use bdev::Rng;
use store::{
    CheckReport, Diff, Extent, Finding, LeafEntry, NodeSpec, Scan, Unique, Unmap, VolumeId,
};

use crate::rig::{ModelVolume, Rig, UUID, check_disk, fuzz};

const DEVICE: usize = (128 << 10) + (1 << 20) + (16 << 20);

/// What waits for the next checkpoint in the model.
#[derive(Clone)]
pub(crate) enum Plan {
    Snapshot { volume: u32, id: u32 },
    Restore { volume: u32, to: ModelVolume },
}

pub(crate) fn uuid(id: VolumeId) -> [u8; 16] {
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
