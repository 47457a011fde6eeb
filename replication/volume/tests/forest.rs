//! Volumes, snapshots, clones and restores at random, with crashes, compared with a model.
//!
//! `FUZZ_SEED` is the first seed, `FUZZ_ROUNDS` how many.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::Rng;
use bdev_sim::{FaultPlan, SimDisk};
use support::forest::Forest;
use support::{Rig, env, options};

const LOG_BYTES: u64 = 1 << 20;

fn live(seed: u64, lives: u32, steps: u32) {
    let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume forest");
    let mut rng = Rng::new(seed);
    let blocks = if seed % 3 == 2 { 2600 } else { 8192 };
    let disk = SimDisk::new(4096, blocks, FaultPlan::power_cuts(seed));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let mut forest = Forest::default();
    forest.create(&mut rig);
    forest.create(&mut rig);
    let mut copied = 0;
    for life in 0..lives {
        for _ in 0..steps {
            forest.step(&mut rig, &mut rng);
        }
        copied += rig.engine.borrow().stats().copied_extents;
        let image = if rng.chance(1, 3) {
            rig.close();
            let report = Rig::check(rig.disk.image(), true);
            assert!(report.findings.is_empty(), "{label}: life {life}: {:?}", report.findings);
            rig.disk.image()
        } else {
            rig.disk.crash()
        };
        rig = Rig::open(image, FaultPlan::power_cuts(rng.next_u64()), &options())
            .unwrap_or_else(|error| panic!("{label}: life {life}: {error}"));
        forest.verify(&mut rig).unwrap_or_else(|what| panic!("{label}: life {life}: {what}"));
    }
    assert!(copied > 0, "{label}: nothing was copied on write");
}

/// Some change, then whatever goes on behind it; cut before some of the writes that this takes.
fn change_and_cut(rig: &mut Rig, forest: &mut Forest, rng: &mut Rng, cuts: u64, label: &str) {
    let before = forest.clone();
    rig.disk.record_crash_points();
    drop(rig.disk.take_crash_points());
    forest.change(rig, rng);
    let changed = rig.disk.boundaries();
    let turns = rng.below(600);
    (0..turns).for_each(|_| rig.turn());
    let points = rig.disk.take_crash_points();
    for point in &points {
        if !rng.chance(cuts, points.len() as u64) {
            continue;
        }
        let cut = point.boundary;
        let label = format!("{label}: cut before write {cut}, changed before {changed}");
        let image = match rng.below(4) {
            0 => point.image_without_unflushed(),
            1 => point.image_with_everything(),
            _ => point.image(rng.next_u64()),
        };
        let plan = FaultPlan::power_cuts(rng.next_u64());
        let mut rig = Rig::open(image, plan, &options()).unwrap_or_else(|e| panic!("{label}: {e}"));
        let new = forest.clone().verify(&mut rig);
        let old = if cut < changed { before.clone().verify(&mut rig) } else { new.clone() };
        assert!(old.is_ok() || new.is_ok(), "{label}: neither before {old:?} nor after {new:?}");
        rig.close();
        let report = Rig::check(rig.disk.image(), true);
        assert!(report.findings.is_empty(), "{label}: {:?}", report.findings);
    }
}

#[test]
fn every_change_is_whole_or_not_at_all_across_a_crash_at_any_write() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 2));
    let cuts = env("CRASH_POINTS", 2);
    for seed in seed..seed + rounds {
        let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume forest");
        let mut rng = Rng::new(seed).fork("changes");
        let disk = SimDisk::new(4096, 8192, FaultPlan::power_cuts(seed));
        let mut rig = Rig::create(disk, LOG_BYTES, &options());
        let mut forest = Forest::default();
        forest.create(&mut rig);
        for _ in 0..12 {
            for _ in 0..rng.below(5) {
                forest.step(&mut rig, &mut rng);
            }
            change_and_cut(&mut rig, &mut forest, &mut rng, cuts, &label);
        }
    }
}

#[test]
fn every_node_holds_what_the_model_says_through_crashes() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 2));
    for seed in seed..seed + rounds {
        live(seed, 4, 50);
    }
}
