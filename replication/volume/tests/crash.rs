//! The crash proof: the production engine on a disk that loses, tears and reorders whatever was not
//! made durable, cut before every write of random workloads: hosts with requests in flight, and
//! snapshots, clones, restores and deletions meanwhile.
//!
//! `FUZZ_SEED` is the first seed, `FUZZ_ROUNDS` how many, `CRASH_POINTS` how many cuts of each run
//! are tried (all, when larger than the run).

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::Rng;
use bdev_sim::{CrashPoint, FaultPlan, Image, SimDisk};
use store::Finding;
use support::marks::Marks;
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

/// What must be there after a cut.
#[derive(Clone)]
struct Truth {
    models: Vec<VolumeModel>,
    guests: Vec<Guest>,
    marks: Marks,
}

impl Truth {
    /// Reads everything; then knows what is there, and no more.
    fn verify(&mut self, rig: &mut Rig, cut: u64) -> Result<(), String> {
        Workload::verify_guests(rig, &self.guests, cut)?;
        let before = self.models.clone();
        Workload::verify(rig, &mut self.models, cut)?;
        self.marks.verify(rig, &before, cut)
    }
}

/// Runs a workload: every moment at which the power may fail, and what is true then.
fn run(rig: &mut Rig, workload: &mut Workload, ops: u32) -> (Vec<CrashPoint>, Truth) {
    rig.disk.record_crash_points();
    workload.run(rig, ops);
    let points = rig.disk.take_crash_points();
    let (models, guests) = (workload.models(), workload.guests());
    workload.marks.observe_all(rig, &workload.targets);
    (points, Truth { models, guests, marks: workload.marks.clone() })
}

/// Checks one outcome of one power cut: the map, then every sector, then the map again.
fn check_cut(image: Image, truth: &Truth, cut: u64, seed: u64) -> Result<(), String> {
    let report = Rig::check(image.clone(), false);
    let serious = |finding: &&Finding| !matches!(finding, Finding::Superblock { .. });
    if let Some(finding) = report.findings.iter().find(serious) {
        return Err(format!("right after the cut: {finding}"));
    }
    let mut truth = truth.clone();
    let mut rig = open_through_cuts(image, seed)?;
    truth.verify(&mut rig, cut)?;
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
    truth.guests.clear();
    truth.verify(&mut rig, 0)
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

/// How many snapshots, clones, restores and deletions there were.
fn survive(seed: u64, points_max: u64, ops: u32) -> [u64; 5] {
    let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume crash");
    let mut rng = Rng::new(seed).fork("points");
    let disk = SimDisk::new(4096, disk_blocks(seed), plan(seed));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let mut workload = Workload::create(&mut rig, seed, &label);
    for life in 0..3 {
        let (points, mut truth) = run(&mut rig, &mut workload, ops);
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
            if let Err(what) = check_cut(image, &truth, point.boundary, outcome) {
                panic!("{label}: life {life}, cut {index} of {total}: {what}");
            }
        }
        // The next life begins in one of the crashes.
        let at = rng.index(points.len()).expect("a workload writes");
        let image = points[at].image(rng.next_u64());
        let cut = points[at].boundary;
        drop(workload);
        rig = Rig::open(image, plan(seed), &options()).unwrap_or_else(|e| panic!("{label}: {e}"));
        truth.verify(&mut rig, cut).unwrap_or_else(|e| panic!("{label}: {e}"));
        let Truth { models, marks, .. } = truth;
        workload = Workload::reopen(&rig, models, marks, seed + 1000 * (life + 1), &label);
    }
    workload.marks.done
}

#[test]
fn every_acknowledged_write_survives_a_crash_at_any_write() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 3));
    let points = env("CRASH_POINTS", 3);
    let mut done = [0; 5];
    for seed in seed..seed + rounds {
        let more = survive(seed, points, 250);
        done = std::array::from_fn(|kind| done[kind] + more[kind]);
    }
    assert!(rounds < 3 || done.iter().all(|done| *done > 0), "{done:?}");
    println!("{done:?} snapshots, clones, restores, deletions");
}
