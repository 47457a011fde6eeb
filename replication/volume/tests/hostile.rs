//! On a disk that fails, rots, loses and misdirects, requests may fail; none returns anything that
//! was not written, and nothing panics.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::Rng;
use bdev_sim::{FaultPlan, PerMillion, SimDisk};
use support::workload::Workload;
use support::{Rig, env, options};

fn plan(seed: u64) -> FaultPlan {
    let mut rng = Rng::new(seed).fork("plan");
    let mut some = |most: u64| match rng.below(3) {
        0 => PerMillion::NEVER,
        _ => PerMillion(u32::try_from(rng.below(most)).unwrap()),
    };
    FaultPlan {
        read_error: some(20_000),
        write_error: some(20_000),
        flush_error: some(50_000),
        lost_write: some(10_000),
        misdirected_write: some(10_000),
        rot: some(10_000),
        stall: some(20_000),
        ..FaultPlan::power_cuts(seed)
    }
}

fn endure(seed: u64) {
    let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume hostile");
    let disk = SimDisk::new(4096, 5120, FaultPlan::power_cuts(seed));
    let mut rig = Rig::create(disk, 1 << 20, &options());
    let mut workload = Workload::create(&mut rig, seed, &label);
    workload.tolerant = true;
    workload.run(&mut rig, 100);
    let hostile = plan(seed);
    rig.disk.replan(|plan| *plan = hostile);
    workload.run(&mut rig, 400);
    // A mount of what is left succeeds or says why not; what it serves is checked again.
    let mut models = workload.models();
    drop(workload);
    rig.disk.replan(|plan| *plan = FaultPlan::power_cuts(seed));
    if let Ok(rig) = Rig::open(rig.disk.image(), FaultPlan::reliable(seed), &options()) {
        for model in &mut models {
            // Lost writes make old versions legal; garbage never is.
            for sector in &mut model.sectors {
                for version in sector.iter_mut() {
                    (version.acknowledged, version.submitted) = (None, 0);
                }
                sector[0].acknowledged = Some(0);
            }
            model.writes.clear();
        }
        let mut rig = rig;
        match Workload::verify(&mut rig, &mut models, 0) {
            Ok(()) => {}
            Err(what) if what.contains("Integrity") || what.contains("is gone") => {}
            Err(what) => panic!("{label}: {what}"),
        }
    }
}

#[test]
fn hostile_disk_never_makes_garbage() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 6));
    for seed in seed..seed + rounds {
        endure(seed);
    }
}
