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

#[test]
fn every_node_holds_what_the_model_says_through_crashes() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 2));
    for seed in seed..seed + rounds {
        live(seed, 4, 50);
    }
}
