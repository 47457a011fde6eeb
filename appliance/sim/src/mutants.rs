//! The mutation list: the bugs of [`Planted`], and within how many seeds each is caught.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bdev::Planted;

/// Seeds of bare engines, from 1 on, within which the simulator catches each bug. Most need a
/// handful; which seeds the rare ones need changes with every change of the engine.
pub const MUTANT_SEEDS: u64 = 1000;

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which.
    pub bug: Planted,
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
                while let Some(&bug) = Planted::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seeds = MUTANT_SEEDS.to_string();
                    let name = format!("{bug:?}");
                    let args = ["--bare", "--planted", &name, "--seeds", &seeds];
                    let run = Command::new(program).args(args).env("RUST_BACKTRACE", "0").output();
                    let verdict = run.map(|output| Verdict {
                        bug,
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
