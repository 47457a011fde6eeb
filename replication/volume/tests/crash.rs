//! The crash proof: the production engine on a disk that loses, tears and reorders whatever was not
//! made durable, cut before every write of random workloads.
//!
//! `FUZZ_SEED` is the first seed, `FUZZ_ROUNDS` how many, `CRASH_POINTS` how many cuts of each run
//! are tried (all, when larger than the run).

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::Rng;
use bdev_sim::{CrashPoint, FaultPlan, Image, SimDisk};
use store::Finding;
use support::model::VolumeModel;
use support::workload::{Guest, Workload};
use support::{Rig, env, options};

const LOG_BYTES: u64 = 1 << 20;

/// Blocks of the disk: ample, or hardly enough for what the volumes map.
fn disk_blocks(seed: u64) -> u64 {
    if seed % 3 == 2 { 1376 } else { 5120 }
}

fn plan(seed: u64) -> FaultPlan {
    match seed % 4 {
        0 => FaultPlan::reliable(seed),
        1 => FaultPlan { cache_bytes_max: 256 << 10, ..FaultPlan::power_cuts(seed) },
        _ => FaultPlan::power_cuts(seed),
    }
}

/// Runs a workload and returns every moment at which the power may fail.
fn run(rig: &mut Rig, workload: &mut Workload, ops: u32) -> Vec<CrashPoint> {
    rig.disk.record_crash_points();
    workload.run(rig, ops);
    rig.disk.take_crash_points()
}

/// Checks one outcome of one power cut: the map, then every sector, then the map again.
fn check_cut(
    image: Image,
    models: &[VolumeModel],
    guests: &[Guest],
    cut: u64,
    seed: u64,
) -> Result<(), String> {
    let report = Rig::check(image.clone(), false);
    let serious = |finding: &&Finding| !matches!(finding, Finding::Superblock { .. });
    if let Some(finding) = report.findings.iter().find(serious) {
        return Err(format!("right after the cut: {finding}"));
    }
    let mut models = models.to_vec();
    let mut rig = open_through_cuts(image, seed)?;
    Workload::verify_guests(&rig, guests, cut)?;
    Workload::verify(&mut rig, &mut models, cut)?;
    rig.close();
    let report = Rig::check(rig.disk.image(), true);
    if let Some(finding) = report.findings.first() {
        return Err(format!("after recovery and shutdown: {finding}"));
    }
    let plan = FaultPlan::reliable(seed);
    let mut rig = Rig::open(rig.disk.image(), plan, &options()).map_err(|e| e.to_string())?;
    if rig.engine.borrow().stats().replayed_records > 0 {
        return Err("a clean shutdown left records in the log".to_owned());
    }
    Workload::verify(&mut rig, &mut models, 0)
}

/// Opens the store; sometimes the power fails during recovery too, and again.
fn open_through_cuts(mut image: Image, seed: u64) -> Result<Rig, String> {
    let mut rng = Rng::new(seed).fork("cuts");
    for _ in 0..rng.below(3) {
        let crash_at_write = Some(rng.below(12));
        let plan = FaultPlan { crash_at_write, ..FaultPlan::power_cuts(rng.next_u64()) };
        let mut rig = Rig::begin_open(image, plan, &options());
        rig.until_open().map_err(|error| error.to_string())?;
        // Recovery goes on with destaging.
        for _ in 0..rng.below(200) {
            rig.turn();
        }
        image = rig.disk.crash();
    }
    Rig::open(image, plan(seed), &options()).map_err(|error| error.to_string())
}

fn survive(seed: u64, points_max: u64, ops: u32) {
    let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume crash");
    let mut rng = Rng::new(seed).fork("points");
    let disk = SimDisk::new(4096, disk_blocks(seed), plan(seed));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let mut workload = Workload::create(&mut rig, seed, &label);
    for life in 0..3 {
        let points = run(&mut rig, &mut workload, ops);
        let (models, guests) = (workload.models(), workload.guests());
        let total = points.len() as u64;
        for (index, point) in (0u64..).zip(&points) {
            if !rng.chance(points_max, total.max(1)) {
                continue;
            }
            let outcome = rng.next_u64();
            let image = match rng.below(8) {
                0 => point.image_without_unflushed(),
                1 => point.image_with_everything(),
                _ => point.image(outcome),
            };
            if let Err(what) = check_cut(image, &models, &guests, point.boundary, outcome) {
                panic!("{label}: life {life}, cut {index} of {total}: {what}");
            }
        }
        // The next life begins in one of the crashes.
        let Some(at) = rng.index(points.len()) else { return };
        let image = points[at].image(rng.next_u64());
        let cut = points[at].boundary;
        let mut models = models;
        drop(workload);
        rig = Rig::open(image, plan(seed), &options()).unwrap_or_else(|e| panic!("{label}: {e}"));
        Workload::verify(&mut rig, &mut models, cut).unwrap_or_else(|e| panic!("{label}: {e}"));
        workload = Workload::reopen(&rig, models, seed + 1000 * (life + 1), &label);
    }
}

#[test]
fn every_acknowledged_write_survives_a_crash_at_any_write() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 3));
    let points = env("CRASH_POINTS", 3);
    for seed in seed..seed + rounds {
        survive(seed, points, 250);
    }
}
