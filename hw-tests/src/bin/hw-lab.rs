//! `hw-lab`: runs the VM lab, or (in the guest) one of its workloads.
#![allow(clippy::disallowed_methods, reason = "a black-box harness finds its own place")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use hw_tests::{Ledger, Options};

/// Real kernels as initiators: boots a virtual machine and runs cases in it.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    workload: Option<Workload>,
    #[command(flatten)]
    lab: Lab,
}

#[derive(Args)]
struct Lab {
    /// Run only the cases whose names contain one of these words
    words: Vec<String>,
    /// Where holdfastd and holdfast are [default: next to this program]
    #[arg(long, value_name = "DIRECTORY")]
    programs: Option<PathBuf>,
    /// Use the guest kernel's own target instead of holdfastd, to test the lab itself
    #[arg(long)]
    stand_in: bool,
    /// Cut the power of a guest this often, instead of running cases
    #[arg(long, value_name = "CYCLES", conflicts_with_all = ["words", "stand_in", "list"])]
    power_cuts: Option<u64>,
    /// Draws when the power is cut and what is lost
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Fail, rather than skip, when QEMU or the kernel cannot be had
    #[arg(long)]
    require: bool,
    /// Where unpacked kernels are kept [default: holdfast-lab in the user's cache directory]
    #[arg(long, value_name = "DIRECTORY", env = "HOLDFAST_LAB_CACHE")]
    cache: Option<PathBuf>,
    /// Scratch space and report [default: hw-lab next to the build's profile directory]
    #[arg(long, value_name = "DIRECTORY")]
    work: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Workload {
    /// Numbered records with fsync, and their verification
    Ledger {
        #[command(subcommand)]
        verb: LedgerVerb,
    },
}

#[derive(Subcommand)]
enum LedgerVerb {
    /// Write records
    Write {
        #[command(flatten)]
        place: Place,
        /// How many
        #[arg(long)]
        records: u64,
        /// Records per fsync
        #[arg(long)]
        batch: u64,
    },
    /// Check that every durable record is there
    Verify {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
struct Place {
    /// The file or device that holds the records
    #[arg(long)]
    path: PathBuf,
    /// The file that says which records are durable
    #[arg(long)]
    state: PathBuf,
    /// Number of 4 KiB slots
    #[arg(long)]
    slots: u64,
    /// What tells this ledger's records from another's
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Through the page cache, so that an fsync sends many requests at once
    #[arg(long)]
    buffered: bool,
}

impl From<Place> for Ledger {
    fn from(place: Place) -> Self {
        let Place { path, state, slots, seed, buffered } = place;
        Self { path, state, slots, seed, direct: !buffered }
    }
}

fn main() -> ExitCode {
    let command = Command::parse();
    let result = match command.workload {
        Some(Workload::Ledger { verb }) => ledger(verb),
        None => options(command.lab).and_then(|options| hw_tests::run(&options)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hw-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn ledger(verb: LedgerVerb) -> Result<bool> {
    match verb {
        LedgerVerb::Write { place, records, batch } => {
            let progress = Ledger::from(place).write(records, batch)?;
            println!("{} records are durable", progress.durable);
        }
        LedgerVerb::Verify { place } => {
            let held = Ledger::from(place).verify()?;
            println!("{held} slots hold what they must");
        }
    }
    Ok(true)
}

fn options(lab: Lab) -> Result<Options> {
    let program = std::env::current_exe()?;
    let profile = program.parent().context("this program is nowhere")?;
    let target = profile.parent().unwrap_or(profile);
    let cache = || -> Option<PathBuf> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        Some(cache?.join("holdfast-lab"))
    };
    Ok(Options {
        words: lab.words,
        programs: lab.programs.unwrap_or_else(|| profile.to_owned()),
        stand_in: lab.stand_in,
        power_cuts: lab.power_cuts,
        seed: lab.seed,
        list: lab.list,
        cache: lab.cache.or_else(cache).context("no HOME: name a --cache directory")?,
        work: lab.work.unwrap_or_else(|| target.join("hw-lab")),
        require: lab.require,
    })
}
