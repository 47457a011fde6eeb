//! `sim`: runs seeds until one fails.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use sim::{BarePlan, Options, Plan, Profile, Summary, current_seed, run_seed, run_seeds};

const USAGE: &str = "usage: sim [--seed FIRST] [--seeds COUNT] [--jobs N] [PROFILE] [--trace] [-v]
  --seed FIRST   the first seed (default 1)
  --seeds COUNT  how many seeds (default 1)
  --jobs N       on so many threads (default 1); the outcome is the same
  --trace        what happens to the node and the disks
  -v             the plan and the outcome of each seed
profiles:
  (default)      engines on disks, small and nasty; every sixteenth seed a whole node
  --bare         only engines on disks
  --node         only whole nodes with their hosts and networks, short
  --large        only whole nodes, long
  --errors       disks of nodes that fail often
  --ram          nodes with volumes in memory: network faults only
";

struct Args {
    first: u64,
    count: u64,
    jobs: usize,
    options: Options,
    verbose: bool,
    #[cfg(feature = "planted")]
    mutants: bool,
}

/// The one line that does it again.
fn reproduction(seed: u64, options: &Options) -> String {
    let profile = match options.profile {
        Profile::Mixed => "",
        Profile::Bare => " --bare",
        Profile::Node => " --node",
        Profile::Large => " --large",
    };
    let errors = if options.errors { " --errors" } else { "" };
    let ram = if options.ram { " --ram" } else { "" };
    format!("reproduce: cargo run -p sim --profile sim -- --seed {seed}{profile}{errors}{ram}")
}

fn args() -> Option<Args> {
    let options = Options { profile: Profile::Mixed, errors: false, ram: false, trace: false };
    let mut args = Args {
        first: 1,
        count: 1,
        jobs: 1,
        options,
        verbose: false,
        #[cfg(feature = "planted")]
        mutants: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" => args.first = words.next()?.parse().ok()?,
            "--seeds" => args.count = words.next()?.parse().ok()?,
            "--jobs" => args.jobs = words.next()?.parse().ok()?,
            "--bare" => args.options.profile = Profile::Bare,
            "--node" => args.options.profile = Profile::Node,
            "--large" => args.options.profile = Profile::Large,
            "--trace" => args.options.trace = true,
            "--errors" => args.options.errors = true,
            "--ram" => args.options.ram = true,
            "-v" => args.verbose = true,
            #[cfg(feature = "planted")]
            "--planted" => bdev::plant(Some(sim::bug_named(&words.next()?)?)),
            #[cfg(feature = "planted")]
            "--mutants" => args.mutants = true,
            _ => return None,
        }
    }
    Some(args)
}

#[expect(clippy::disallowed_methods, reason = "only to tell how fast the simulation was")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn main() -> ExitCode {
    let Some(args) = args() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    #[cfg(feature = "planted")]
    if args.mutants {
        return mutants(args.jobs);
    }
    let options = args.options;
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        eprintln!("{}", reproduction(current_seed(), &options));
    }));
    let started = now();
    let seeds = args.first..args.first.saturating_add(args.count);
    let outcome = if args.verbose || args.count == 1 {
        one_by_one(seeds, &args)
    } else {
        let mut told = 0;
        run_seeds(seeds, args.jobs, &options, |summary| {
            let seconds = started.elapsed().as_secs() / 10;
            if seconds > told {
                told = seconds;
                eprintln!("{}", rates(summary, started.elapsed().as_secs_f64()));
            }
        })
    };
    match outcome {
        Ok(summary) => {
            println!("{}", rates(&summary, started.elapsed().as_secs_f64()));
            println!("digest {:016x}", summary.hash);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            eprintln!("{}", reproduction(failure.seed, &options));
            ExitCode::FAILURE
        }
    }
}

/// Proves that every planted bug is found.
#[cfg(feature = "planted")]
fn mutants(jobs: usize) -> ExitCode {
    let verdicts = sim::run_mutants(jobs, |verdict| {
        let caught = verdict.caught.as_deref().unwrap_or("SURVIVED");
        println!("{:<22}  {caught}", format!("{:?}", verdict.bug));
    });
    let verdicts = match verdicts {
        Ok(verdicts) => verdicts,
        Err(error) => {
            eprintln!("running a mutant: {error}");
            return ExitCode::FAILURE;
        }
    };
    let survivors = verdicts.iter().filter(|verdict| verdict.caught.is_none()).count();
    let (count, seeds) = (verdicts.len(), sim::MUTANT_SEEDS);
    println!("{count} planted bugs, {survivors} survived {seeds} seeds");
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same with every plan and report.
fn one_by_one(seeds: std::ops::Range<u64>, args: &Args) -> Result<Summary, sim::Failure> {
    let mut summary = Summary::default();
    for seed in seeds {
        if args.verbose {
            println!("seed {seed}: {:#?}\n{:#?}", BarePlan::new(seed), Plan::new(seed));
        }
        let report = run_seed(seed, &args.options)?;
        println!("seed {seed}: {report:?}");
        summary.add(&report);
    }
    Ok(summary)
}

fn rates(summary: &Summary, seconds: f64) -> String {
    let Summary { seeds, requests, crashes, crashes_early, changes, no_space, refused, .. } =
        summary;
    let hours = summary.time.as_secs_f64() / 3600.0;
    format!(
        "{seeds} seeds, {requests} requests ({no_space} without space), {crashes} crashes \
         ({crashes_early} while starting), {changes} changes, {refused} refused; {:.1} seeds and \
         {:.4} simulated hours per second",
        *seeds as f64 / seconds,
        hours / seconds
    )
}
