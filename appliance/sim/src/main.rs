//! `sim`: runs seeds until one fails.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use sim::{Plan, run};

const USAGE: &str =
    "usage: sim [--seed FIRST] [--seeds COUNT] [--small] [--errors] [--ram] [--trace] [-v]
  --seed FIRST   the first seed (default 1)
  --seeds COUNT  how many seeds, one after the other (default 1)
  --small        short ones
  --errors       disks that fail often
  --ram          volumes in memory: network faults only
  --trace        what happens to the node and the disks
  -v             the plan and the outcome of each seed
";

struct Options {
    first: u64,
    count: u64,
    small: bool,
    errors: bool,
    ram: bool,
    trace: bool,
    verbose: bool,
}

impl Options {
    /// The one line that does it again.
    fn reproduction(&self, seed: u64) -> String {
        let flags = [(self.small, " --small"), (self.errors, " --errors"), (self.ram, " --ram")];
        let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag).collect();
        format!("reproduce: cargo run -p sim --profile sim -- --seed {seed}{flags}")
    }
}

fn options() -> Option<Options> {
    let mut options = Options {
        first: 1,
        count: 1,
        small: false,
        errors: false,
        ram: false,
        trace: false,
        verbose: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" => options.first = words.next()?.parse().ok()?,
            "--seeds" => options.count = words.next()?.parse().ok()?,
            "--small" => options.small = true,
            "--trace" => options.trace = true,
            "--errors" => options.errors = true,
            "--ram" => options.ram = true,
            "-v" => options.verbose = true,
            _ => return None,
        }
    }
    Some(options)
}

#[expect(clippy::disallowed_methods, reason = "only to tell how fast the simulation was")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let started = now();
    let (mut simulated, mut done, mut crashes, mut early, mut steps) = (0.0, 0, 0, 0, 0);
    for seed in options.first..options.first.saturating_add(options.count) {
        let plan = Plan::new(seed);
        let plan = Plan { trace: options.trace, ..plan };
        let plan = if options.small { plan.small() } else { plan };
        let plan = if options.errors { plan.with_errors() } else { plan };
        let plan = if options.ram { plan.in_ram() } else { plan };
        if options.verbose {
            println!("seed {seed}: {plan:#?}");
        }
        let default = std::panic::take_hook();
        let again = options.reproduction(seed);
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("{info}");
            eprintln!("{again}");
        }));
        let outcome = run(&plan);
        std::panic::set_hook(default);
        match outcome {
            Ok(report) => {
                if options.verbose || options.count == 1 {
                    println!("seed {seed}: {report:?}");
                }
                simulated += report.time.as_secs_f64();
                done += report.done;
                crashes += report.crashes;
                early += report.crashes_early;
                steps += report.steps;
            }
            Err(failure) => {
                eprintln!("{failure}");
                eprintln!("{}", options.reproduction(seed));
                return ExitCode::FAILURE;
            }
        }
    }
    let took = started.elapsed().as_secs_f64();
    println!(
        "{} seeds, {done} requests, {crashes} crashes ({early} while starting), {steps} steps, \
         {simulated:.1} simulated seconds in {took:.1} s: {:.1} per second",
        options.count,
        simulated / took
    );
    ExitCode::SUCCESS
}
