//! The mutation list: the bugs of [`Planted`], and within how many seeds each is caught.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bdev::Planted;

/// A bug, and the seeds (from 1 on, of bare engines) within which the simulator catches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The bug.
    pub bug: Planted,
    /// The seeds.
    pub seeds: u64,
}

/// Those that are caught.
pub const MUTANTS: &[Mutant] = &[
    Mutant { bug: Planted::AckBeforeDurable, seeds: 100 },
    Mutant { bug: Planted::AnsweredTwice, seeds: 100 },
    Mutant { bug: Planted::ClaimForgotten, seeds: 100 },
    Mutant { bug: Planted::DeleteNotLogged, seeds: 100 },
    Mutant { bug: Planted::DeleteNotReplayed, seeds: 100 },
    Mutant { bug: Planted::DirectBeforeFlush, seeds: 100 },
    Mutant { bug: Planted::EdgeNotMerged, seeds: 100 },
    Mutant { bug: Planted::ExtentLeak, seeds: 100 },
    Mutant { bug: Planted::ExtentReusedAtOnce, seeds: 100 },
    Mutant { bug: Planted::ForgetsNewer, seeds: 100 },
    Mutant { bug: Planted::LogWithoutFua, seeds: 100 },
    Mutant { bug: Planted::LostWakeup, seeds: 100 },
    Mutant { bug: Planted::NoPayloadCheck, seeds: 100 },
    Mutant { bug: Planted::NothingSetAside, seeds: 100 },
    Mutant { bug: Planted::RangeForgotten, seeds: 100 },
    Mutant { bug: Planted::ResizeNotApplied, seeds: 100 },
    Mutant { bug: Planted::ResizeNotReplayed, seeds: 100 },
    Mutant { bug: Planted::StaleTail, seeds: 100 },
    Mutant { bug: Planted::SuperBeforePages, seeds: 100 },
    Mutant { bug: Planted::TailTooFar, seeds: 100 },
    Mutant { bug: Planted::NoLock, seeds: 100 },
    Mutant { bug: Planted::WriterForgotten, seeds: 100 },
    Mutant { bug: Planted::ZeroNotLogged, seeds: 100 },
    Mutant { bug: Planted::CloneInPlace, seeds: 100 },
    Mutant { bug: Planted::DeleteFreesShared, seeds: 100 },
    Mutant { bug: Planted::DiffForgets, seeds: 400 },
    Mutant { bug: Planted::RestoreBesideIo, seeds: 100 },
    Mutant { bug: Planted::SharedFreed, seeds: 100 },
    Mutant { bug: Planted::SharedInPlace, seeds: 100 },
    Mutant { bug: Planted::SnapshotMissesWrite, seeds: 100 },
    Mutant { bug: Planted::SnapshotSeesLater, seeds: 100 },
    Mutant { bug: Planted::SwapUnlocked, seeds: 100 },
];

/// Bugs that can be planted and have outlived seventy seeds: how many it takes is not known yet.
pub const SURVIVORS: &[Planted] = &[
    Planted::CheckpointUnderWrites,
    Planted::DeadDirectAdopted,
    Planted::DirectReusedAtOnce,
    Planted::DoubleFree,
    Planted::EdgeUnchecked,
    Planted::EndNotBlanked,
    Planted::FirstCopyNotFlushed,
    Planted::FlushErrorIgnored,
    Planted::LogIgnoresErrors,
    Planted::NoChainCheck,
    Planted::NoHeaderCheck,
    Planted::ReadErrorIgnored,
    Planted::ReadUnchecked,
    Planted::ReservationLeak,
    Planted::TornIsDamage,
];

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which.
    pub mutant: Mutant,
    /// What the simulator said; `None` when it survived.
    pub caught: Option<String>,
}

/// The bug with this name.
pub fn bug_named(name: &str) -> Option<Planted> {
    Planted::ALL.iter().copied().find(|bug| format!("{bug:?}") == name)
}

/// Runs every mutant in a process of its own, which may abort, `jobs` at a time.
///
/// # Errors
/// When this program cannot be run again.
pub fn run_mutants(jobs: usize, mut told: impl FnMut(&Verdict)) -> std::io::Result<Vec<Verdict>> {
    let program = std::env::current_exe()?;
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, program) = (sender.clone(), &next, &program);
            scope.spawn(move || {
                while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seeds = mutant.seeds.to_string();
                    let name = format!("{:?}", mutant.bug);
                    let args = ["--bare", "--planted", &name, "--seeds", &seeds];
                    let run = Command::new(program).args(args).env("RUST_BACKTRACE", "0").output();
                    let verdict = run.map(|output| Verdict {
                        mutant: *mutant,
                        caught: (!output.status.success()).then(|| last_words(&output.stderr)),
                    });
                    if sender.send(verdict).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut verdicts = Vec::new();
        for verdict in receiver {
            let verdict = verdict?;
            told(&verdict);
            verdicts.push(verdict);
        }
        Ok(verdicts)
    })
}

/// The lines that tell the seed and what was wrong.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let is_word = |line: &&str| !line.is_empty() && !line.starts_with("note:");
    let mut lines: Vec<&str> = text.lines().filter(is_word).collect();
    let seed = lines.pop().and_then(|line| line.split("--seed ").nth(1)).unwrap_or("?");
    let seed = seed.split_whitespace().next().unwrap_or("?");
    let what: String = lines.pop().unwrap_or("").chars().take(100).collect();
    format!("seed {seed}: {what}")
}
