//! The power fails while damaged metadata is rewritten, or while a scrub meets nodes that are being
//! deleted.
//!
//! `FUZZ_SEED` is the first seed, `FUZZ_ROUNDS` how many, `CRASH_POINTS` how many cuts are tried of
//! each run.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::Rng;
use bdev_sim::{CrashPoint, FaultPlan, Image, SimDisk};
use support::forest::Forest;
use support::{Rig, env, options};
use volume::Event;

const LOG_BYTES: u64 = 1 << 20;
const FAST: u64 = 1 << 30;

/// A pass of scrub, whatever happens meanwhile; how much damage it found.
fn scrub(rig: &mut Rig, rate: u64) -> u64 {
    let status = |rig: &Rig| rig.engine.borrow().scrub_status().unwrap();
    let passes = status(rig).passes;
    rig.engine.borrow_mut().scrub_start(rate).unwrap();
    rig.until("the pass ends", |rig| status(rig).passes > passes);
    status(rig).last_found
}

/// Snapshots and clones of some age, all of it in the map.
fn grown(seed: u64, rng: &mut Rng) -> (Rig, Forest) {
    let disk = SimDisk::new(4096, 8192, FaultPlan::power_cuts(seed));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let mut forest = Forest::default();
    forest.create(&mut rig);
    for _ in 0..30 {
        forest.step(&mut rig, rng);
    }
    settle(&mut rig);
    (rig, forest)
}

fn settle(rig: &mut Rig) {
    rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
}

/// What was found is rewritten, one copy after the other.
fn mend(rig: &mut Rig) {
    (0..3000).for_each(|_| rig.turn());
    settle(rig);
}

fn image(point: &CrashPoint, rng: &mut Rng) -> Image {
    match rng.below(4) {
        0 => point.image_without_unflushed(),
        1 => point.image_with_everything(),
        _ => point.image(rng.next_u64()),
    }
}

/// Opens what a cut left.
fn reopen(image: Image, rng: &mut Rng, label: &str) -> Rig {
    let plan = FaultPlan::power_cuts(rng.next_u64());
    Rig::open(image, plan, &options()).unwrap_or_else(|error| panic!("{label}: {error}"))
}

/// Nothing is lost, and nothing is wrong after an orderly end.
fn assert_whole(rig: &mut Rig, label: &str) {
    let lost = |event: &&Event| match event {
        Event::Integrity { .. } => true,
        Event::Metadata(damage) => !damage.healed,
        _ => false,
    };
    assert_eq!(rig.events.iter().find(lost), None, "{label}");
    rig.close();
    let report = Rig::check(rig.disk.image(), true);
    assert!(report.findings.is_empty(), "{label}: {:?}", report.findings);
}

/// Damages one copy of most metadata pages; how many.
fn damage(rig: &Rig, rng: &mut Rng) -> u64 {
    let (image, mut hit) = (rig.disk.image(), 0);
    let page = |at: u64| {
        let mut page = vec![0; 4096];
        image.read(at, &mut page);
        page
    };
    for second in (0..image.byte_len()).step_by(4096) {
        let bytes = page(second);
        if !bytes.starts_with(b"HFPG") {
            continue;
        }
        // Both copies carry the number of the first. Pairs that are free by now do not matter.
        let first = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) * 4096;
        if first != second && page(first) == bytes && rng.chance(3, 4) {
            let at = if rng.chance(1, 2) { first } else { second };
            rig.disk.rot(at + rng.below(4096), 4);
            hit += 1;
        }
    }
    hit
}

#[test]
fn power_cut_while_copies_are_rewritten_loses_neither() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 2));
    for seed in seed..seed + rounds {
        let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume mending");
        let mut rng = Rng::new(seed).fork("mending");
        let (mut rig, forest) = grown(seed, &mut rng);
        assert!(damage(&rig, &mut rng) > 2, "{label}");
        rig.disk.record_crash_points();
        let found = scrub(&mut rig, FAST);
        assert!(found > 0, "{label}: found {found}");
        mend(&mut rig);
        let points = rig.disk.take_crash_points();
        let healed = rig.engine.borrow().stats().healed_pages;
        assert!(healed > 0, "{label}: {healed} of {found}");
        for point in &points {
            if !rng.chance(env("CRASH_POINTS", 8), points.len() as u64) {
                continue;
            }
            let label = format!("{label}: cut before write {}", point.boundary);
            let mut rig = reopen(image(point, &mut rng), &mut rng, &label);
            forest.clone().verify(&mut rig).unwrap_or_else(|what| panic!("{label}: {what}"));
            scrub(&mut rig, FAST);
            mend(&mut rig);
            assert_eq!(scrub(&mut rig, FAST), 0, "{label}: all is healed");
            assert_whole(&mut rig, &label);
        }
        forest.clone().verify(&mut rig).unwrap();
        assert_whole(&mut rig, &label);
    }
}

#[test]
fn scrub_meets_nodes_that_are_being_deleted_and_finds_nothing_wrong() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 2));
    for seed in seed..seed + rounds {
        let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume mending");
        let mut rng = Rng::new(seed).fork("deleted");
        let (mut rig, mut forest) = grown(seed, &mut rng);
        for round in 0..4 {
            for _ in 0..4 {
                forest.step(&mut rig, &mut rng);
            }
            let volume = forest.volumes().next().unwrap().1.id;
            forest.snapshot(&mut rig, &[volume]);
            let rate = [4 << 20, 64 << 20, FAST][rng.index(3).unwrap()];
            rig.engine.borrow_mut().scrub_start(rate).unwrap();
            (0..rng.below(200)).for_each(|_| rig.turn());

            let before = forest.clone();
            rig.disk.record_crash_points();
            drop(rig.disk.take_crash_points());
            let snapshots: Vec<_> = forest.snapshots().map(|(_, node)| node.id).collect();
            forest.delete(&mut rig, snapshots[rng.index(snapshots.len()).unwrap()]);
            let deleted = rig.disk.boundaries();
            assert_eq!(scrub(&mut rig, rate), 0, "{label}");
            let points = rig.disk.take_crash_points();
            for point in &points {
                if !rng.chance(env("CRASH_POINTS", 2), points.len() as u64) {
                    continue;
                }
                let cut = point.boundary;
                let label = format!("{label}: round {round}, cut {cut}, deleted before {deleted}");
                let mut rig = reopen(image(point, &mut rng), &mut rng, &label);
                let new = forest.clone().verify(&mut rig);
                let old = if cut < deleted { before.clone().verify(&mut rig) } else { new.clone() };
                assert!(old.is_ok() || new.is_ok(), "{label}: neither {old:?} nor {new:?}");
                assert_eq!(scrub(&mut rig, FAST), 0, "{label}");
                assert_whole(&mut rig, &label);
            }
        }
        forest.verify(&mut rig).unwrap();
        assert_whole(&mut rig, &label);
    }
}
