//! The map against a model: random edits, tiny caches, remounts, power failures.

use crate::rig::{Rig, check_disk, fuzz};
use bdev::Rng;
use store::{Lookup, VolumeId};

const DEVICE: usize = (128 << 10) + (1 << 20) + (8 << 20);

fn index(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.below(20),
        1 => rng.below(48 * 10),
        2 => rng.below(5) * 48 * 251,
        _ => rng.below(4) * 48 * 252 * 252 + rng.below(3),
    }
}

/// Random operations with a checkpoint about every `pace` of them; stops when the disk dies.
fn churn(rig: &mut Rig, rng: &mut Rng, steps: u64, pace: u64) {
    let mut volumes: Vec<u32> = rig.model.keys().copied().collect();
    for _ in 0..steps {
        if rig.disk.is_dead() {
            return;
        }
        if volumes.is_empty() || (volumes.len() < 4 && rng.chance(1, 30)) {
            volumes.push(rig.create(1 << 40).0);
        }
        let volume = VolumeId(volumes[rng.index(volumes.len()).unwrap()]);
        if rng.chance(1, pace) {
            rig.checkpoint();
        }
        match rng.below(20) {
            1 => {
                let from = index(rng);
                rig.unmap(volume, from, from + rng.below(400));
            }
            2 => rig.unmap(volume, 0, u64::MAX),
            3 => {
                let size = (1 << 40) + rng.below(8) * 4096;
                rig.store.resize_volume(volume, size).unwrap();
                rig.model.get_mut(&volume.0).unwrap().size = size;
            }
            4 if rng.chance(1, 3) => {
                rig.delete(volume);
                volumes.retain(|&id| id != volume.0);
                if rng.chance(1, 2) {
                    rig.reclaim();
                }
            }
            _ => {
                let (at, block) = (index(rng), rng.index(16).unwrap());
                let crc = u32::try_from(rng.next_u64() >> 32).unwrap();
                if !rig.write(volume, at, block, crc) {
                    rig.unmap(volume, 0, u64::MAX);
                    rig.reclaim();
                    rig.checkpoint();
                }
            }
        }
    }
}

#[test]
fn random_edits_match_a_model_across_remounts() {
    let (first, rounds) = fuzz(4);
    for seed in first..first + rounds {
        eprintln!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p store random_edits");
        let mut rng = Rng::new(seed);
        let frames = [24, 40, 4096][rng.index(3).unwrap()];
        let block_size = [512, 4096][rng.index(2).unwrap()];
        let mut rig = Rig::new(block_size, DEVICE, frames);
        for _ in 0..4 {
            churn(&mut rig, &mut rng, 120, 20);
            rig.verify();
            if rng.chance(1, 2) {
                rig.checkpoint();
                let report = check_disk(&rig.disk, &rig.pool, false);
                assert!(report.is_clean(), "{:?}", report.findings);
            }
            rig = rig.remount().unwrap();
            rig.verify();
        }
        let volumes: Vec<u32> = rig.model.keys().copied().collect();
        for id in volumes {
            rig.delete(VolumeId(id));
        }
        rig.reclaim();
        rig.checkpoint();
        let report = check_disk(&rig.disk, &rig.pool, false);
        assert!(report.is_clean(), "{:?}", report.findings);
        assert_eq!((report.extents, report.volumes), (0, 0));
    }
}

#[test]
fn power_failure_at_every_write_leaves_the_last_durable_map() {
    let (first, rounds) = fuzz(1);
    for seed in first..first + rounds {
        eprintln!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p store power_failure");
        for writes in 0.. {
            let mut rng = Rng::new(seed);
            let mut rig = Rig::new(4096, DEVICE, 40);
            rig.disk.kill_after(writes);
            churn(&mut rig, &mut rng, 40, 4);
            if !rig.disk.is_dead() {
                assert!(writes > 10, "the workload writes");
                break;
            }
            let (durable, begun) = (rig.durable_lsn, rig.next_lsn - 1);
            let disk = rig.disk.crashed(&mut Rng::new(seed ^ writes));
            let (pool, checkpoints) = rig.power_off();
            let report = check_disk(&disk, &pool, false);
            let only_supers = |f: &store::Finding| matches!(f, store::Finding::Superblock { .. });
            assert!(report.findings.iter().all(only_supers), "{:?}", report.findings);
            assert_eq!(report.leaked, 0);
            let mut rig = Rig::mounted(disk, pool, 40).unwrap();
            assert!((durable..=begun).contains(&rig.durable_lsn));
            rig.model = checkpoints[&rig.durable_lsn].clone();
            rig.verify();
            churn(&mut rig, &mut rng, 10, 5);
            rig.checkpoint();
            let report = check_disk(&rig.disk, &rig.pool, false);
            assert!(report.is_clean(), "{:?}", report.findings);
        }
    }
}

#[test]
fn untouched_volume_costs_no_page() {
    let mut rig = Rig::new(4096, DEVICE, 64);
    let volume = rig.create(16 << 40);
    assert_eq!(rig.lookup(volume, 200_000_000), Lookup::Unmapped);
    rig.unmap(volume, 0, 1 << 28);
    rig.checkpoint();
    assert_eq!(rig.store.stats().loads, 0);
    let report = check_disk(&rig.disk, &rig.pool, false);
    assert!(report.is_clean());
    // Catalog page and its root, one page of the space map; two copies of each.
    assert_eq!((report.pages, report.extents, report.volumes), (6, 0, 1));
}
