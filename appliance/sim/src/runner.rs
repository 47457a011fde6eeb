//! Many seeds, on several threads.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::bare::{BarePlan, run_bare};
use crate::plan::Plan;
use crate::world::{Failure, Report, run};

/// What a seed runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Engines on disks, and every sixteenth seed a whole node: the default.
    Mixed,
    /// An engine on a disk.
    Bare,
    /// A whole node and its hosts, short.
    Node,
    /// A whole node and its hosts, ten times as long.
    Large,
}

/// How seeds are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What a seed runs.
    pub profile: Profile,
    /// Disks of nodes fail often.
    pub errors: bool,
    /// Nodes keep their volumes in memory: network faults only.
    pub ram: bool,
    /// Print what happens.
    pub trace: bool,
}

/// Of so many seeds of the mixed profile, one is a whole node.
const NODES_EVERY: u64 = 16;

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// The seed that this thread is running: for a panic's message.
pub fn current_seed() -> u64 {
    CURRENT.get()
}

/// Runs one seed.
///
/// # Errors
/// What was wrong.
pub fn run_seed(seed: u64, options: &Options) -> Result<Report, Failure> {
    CURRENT.set(seed);
    let bare = match options.profile {
        Profile::Bare => true,
        Profile::Mixed => !seed.is_multiple_of(NODES_EVERY),
        Profile::Node | Profile::Large => false,
    };
    if bare {
        return run_bare(&BarePlan { trace: options.trace, ..BarePlan::new(seed) });
    }
    let plan = Plan { trace: options.trace, ..Plan::new(seed) };
    let plan = if options.profile == Profile::Large { plan } else { plan.small() };
    let plan = if options.errors { plan.with_errors() } else { plan };
    run(&if options.ram { plan.in_ram() } else { plan })
}

/// What many seeds came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Seeds that ended well.
    pub seeds: u64,
    /// A digest of all their events, whatever their order.
    pub hash: u64,
    /// Virtual time in all.
    pub time: Duration,
    /// Requests that were answered.
    pub requests: u64,
    /// Power cuts and kills.
    pub crashes: u64,
    /// Those that hit a start.
    pub crashes_early: u64,
    /// Requests that a full store refused.
    pub no_space: u64,
    /// Operations of the operator.
    pub changes: u64,
    /// Seeds in which a damaged store was refused.
    pub refused: u64,
}

impl Summary {
    /// Adds the outcome of a seed.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.hash = self.hash.wrapping_add(report.hash);
        self.time += report.time;
        self.requests += report.done + report.errors;
        self.crashes += report.crashes;
        self.crashes_early += report.crashes_early;
        self.no_space += report.no_space;
        self.changes += report.changes;
        self.refused += u64::from(report.refused);
    }
}

/// Runs seeds on `jobs` threads until one fails; `progress` sees the sums after each.
///
/// # Errors
/// The first failure.
pub fn run_seeds(
    seeds: Range<u64>,
    jobs: usize,
    options: &Options,
    mut progress: impl FnMut(&Summary),
) -> Result<Summary, Failure> {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, failed) = (sender.clone(), &next, &failed);
            let end = seeds.end;
            scope.spawn(move || {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let result = run_seed(seed, options);
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    if sender.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut failure = None;
        for result in receiver {
            match result {
                Ok(report) => {
                    summary.add(&report);
                    progress(&summary);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(summary), Err)
    })
}
