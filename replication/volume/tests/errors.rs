//! A device that fails requests of each kind, one after the other and all at once: nothing
//! acknowledged is lost, nobody waits for ever, and the outcome is the documented one.
//!
//! `FUZZ_SEED` is the first seed, `FUZZ_ROUNDS` how many.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Op, Rng};
use bdev_sim::{FaultPlan, SimDisk};
use support::faulty::{Fate, Fault, Faults, Kind};
use support::marks::Marks;
use support::workload::Workload;
use support::{Rig, env, options};
use volume::{Event, NewSnapshot};

const LOG_BYTES: u64 = 1 << 20;

/// Kinds of requests that there are while a store is served.
const TARGETS: [(Kind, Op); 8] = [
    (Kind::Log, Op::Write),
    (Kind::Superblock, Op::Write),
    (Kind::Page, Op::Read),
    (Kind::Page, Op::Write),
    (Kind::Page, Op::Flush),
    (Kind::Data, Op::Read),
    (Kind::Data, Op::Write),
    (Kind::Data, Op::Flush),
];

/// How the engine came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It repeated what failed, or told the host who had asked.
    Serves,
    /// It refuses writes from then on, and says so.
    ReadsOnly,
}

/// Runs a workload with a snapshot in the middle while the fault lasts; then everything is read
/// from the disk as a crash leaves it, and checked.
fn run(seed: u64, fault: Fault) -> (Outcome, u64) {
    let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume errors");
    let faults = Faults::default();
    let disk = SimDisk::new(4096, 5120, FaultPlan::power_cuts(seed));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let mut workload = Workload::create(&mut rig, seed, &label);
    workload.tolerant = true;
    workload.run(&mut rig, 60);
    let mut models = workload.models();
    drop(workload);
    Workload::verify(&mut rig, &mut models, u64::MAX).unwrap();
    rig.close();
    // Opened again, so that pages of the map are read while it runs.
    let (image, plan) = (rig.disk.image(), FaultPlan::power_cuts(seed));
    let mut rig = Rig::begin_open_faulty(image, plan, &options(), &faults);
    rig.until_open().unwrap();
    let mut workload = Workload::reopen(&rig, models, Marks::default(), seed, &label);
    workload.tolerant = true;
    faults.set(Some(fault.clone()));
    workload.run(&mut rig, 60);
    let of = workload.targets[0].open.as_ref().unwrap().0;
    let group = [NewSnapshot { volume: of, uuid: [8; 16], name: "s" }];
    let started = rig.engine.borrow_mut().create_snapshots(&group);
    if let Ok(token) = started {
        let _ = rig.control_result(token); // Answered, however.
    }
    workload.run(&mut rig, 120);
    // Idle: everything is destaged, and a checkpoint made, if that is still possible.
    let settled = |rig: &mut Rig| {
        let engine = rig.engine.borrow();
        engine.is_degraded() || engine.stats().log_used_bytes == 0
    };
    rig.until("it settles or gives up", settled);
    let hit = faults.hit();
    faults.set(None);
    let failed = |event: &Event| matches!(event, Event::Failed { .. });
    let degraded = rig.engine.borrow().is_degraded();
    assert_eq!(rig.events.iter().any(failed), degraded, "{label}: {fault:?}: it says so");
    let outcome = if degraded { Outcome::ReadsOnly } else { Outcome::Serves };
    // Nothing that was acknowledged is missing after a power cut.
    let cut = rig.disk.boundaries();
    let mut models = workload.models();
    drop(workload);
    let image = rig.disk.crash();
    drop(rig);
    let mut rig = Rig::open(image, FaultPlan::reliable(seed), &options())
        .unwrap_or_else(|error| panic!("{label}: {fault:?}: {error}"));
    Workload::verify(&mut rig, &mut models, cut)
        .unwrap_or_else(|what| panic!("{label}: {fault:?}: {what}"));
    rig.close();
    let report = Rig::check(rig.disk.image(), true);
    assert!(report.is_clean(), "{label}: {fault:?}: {:?}", report.findings);
    (outcome, hit)
}

/// What is documented: a request that fails three times, or a flush that fails once, ends writing;
/// what failed once is repeated; reads and direct writes of hosts are answered with the error.
fn allowed(fault: &Fault) -> &'static [Outcome] {
    let once = fault.numbers.end - fault.numbers.start == 1;
    match (fault.kind, fault.op) {
        // The destager reads the log and shared extents, but tries again; hosts are told.
        (Kind::Data, Op::Read) if once => &[Outcome::Serves],
        (_, Op::Write) if once => &[Outcome::Serves],
        (Kind::Page, Op::Read) if once => &[Outcome::Serves],
        (_, Op::Flush) => &[Outcome::ReadsOnly],
        _ => &[Outcome::ReadsOnly, Outcome::Serves],
    }
}

#[test]
fn every_kind_of_request_may_fail_at_any_time_and_nothing_acknowledged_is_lost() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 1));
    for seed in seed..seed + rounds {
        let mut rng = Rng::new(seed).fork("errors");
        let mut hits = 0;
        for (kind, op) in TARGETS {
            for count in [1, 3, u64::MAX / 2] {
                let first = if kind == Kind::Page { rng.below(3) } else { rng.below(12) };
                let fate = if rng.chance(1, 2) { Fate::Fail } else { Fate::FailAfter };
                let fault = Fault { kind, op, numbers: first..first + count, fate };
                let (outcome, hit) = run(seed, fault.clone());
                println!("{fault:?}: {outcome:?}, {hit} hit");
                assert!(hit == 0 || allowed(&fault).contains(&outcome), "{fault:?}: {outcome:?}");
                hits += u64::from(hit > 0);
            }
        }
        assert!(hits > 15, "most kinds were hit: {hits}");
    }
}

/// The same while a store is opened: it opens, or says why not, and changes nothing for the worse.
#[test]
fn store_whose_device_fails_while_it_is_opened_opens_or_says_why_not() {
    let label = "opening";
    let disk = SimDisk::new(4096, 5120, FaultPlan::power_cuts(5));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let mut workload = Workload::create(&mut rig, 5, label);
    workload.tolerant = true;
    workload.run(&mut rig, 150);
    let (cut, models) = (rig.disk.boundaries(), workload.models());
    drop(workload);
    let image = rig.disk.crash();
    let mut failed = 0;
    for kind in Kind::ALL {
        for op in [Op::Read, Op::Write, Op::Flush] {
            for (first, count) in [(0, 1), (1, 1), (0, 3), (2, 3), (0, u64::MAX / 2)] {
                let faults = Faults::default();
                let numbers = first..first + count;
                faults.set(Some(Fault { kind, op, numbers, fate: Fate::Fail }));
                let plan = FaultPlan::power_cuts(first);
                let mut rig = Rig::begin_open_faulty(image.clone(), plan, &options(), &faults);
                match rig.until_open() {
                    Ok(()) => {}
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        failed += 1;
                    }
                }
                faults.set(None);
                let image = rig.disk.crash();
                let mut rig = Rig::open(image, FaultPlan::reliable(1), &options()).unwrap();
                let mut models = models.clone();
                Workload::verify(&mut rig, &mut models, cut).unwrap();
            }
        }
    }
    assert!(failed > 4, "some of these cannot be opened with: {failed}");
}
