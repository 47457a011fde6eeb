//! Runs the cases and writes the report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::case::{Case, selected};
use crate::cases;
use crate::kernel::Kernel;
use crate::lab::{Backend, Lab};
use crate::node::Programs;
use crate::power;
use crate::report::{Report, Verdict};
use crate::tools;
use crate::workdir::WorkDir;

/// What to run, and where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only cases whose names contain one of these words; all when empty.
    pub words: Vec<String>,
    /// Where `holdfastd` and `holdfast` are.
    pub programs: PathBuf,
    /// Test the cases against the guest kernel's own target instead of `holdfastd`.
    pub stand_in: bool,
    /// Cut the power of a guest this often instead of running cases.
    pub power_cuts: Option<u64>,
    /// Draws when, and what is lost.
    pub seed: u64,
    /// Print the cases and do nothing.
    pub list: bool,
    /// Where unpacked kernels are kept from run to run.
    pub cache: PathBuf,
    /// Scratch space, and the place of the JUnit file.
    pub work: PathBuf,
    /// Fail instead of skipping when QEMU or the kernel cannot be had.
    pub require: bool,
}

/// Runs the lab; true when no case failed.
///
/// # Errors
/// When the lab itself cannot work: bad options, no scratch space.
pub fn run(options: &Options) -> Result<bool> {
    let cases = selected(cases::all(), &options.words)?;
    if options.list {
        for case in &cases {
            println!("{}", case.name);
        }
        return Ok(true);
    }
    let backend = if options.stand_in {
        Backend::StandIn
    } else {
        let programs = Programs::in_directory(&options.programs);
        let place = options.programs.display();
        Backend::Daemon(programs.with_context(|| format!("no holdfastd or holdfast in {place}"))?)
    };
    if let Some(cycles) = options.power_cuts {
        return cut_power(options, cycles, &backend);
    }
    let mut report = Report::default();
    let start = Instant::now();
    match kernel(&options.cache) {
        Ok(kernel) => run_cases(options, &cases, kernel, backend, &mut report)?,
        Err(error) if options.require => return Err(error),
        Err(error) => {
            println!("lab: NOT RUN: {error:#}");
            for case in &cases {
                let why = Verdict::Skipped(format!("{error:#}"));
                report.add(case.name, why, std::time::Duration::ZERO);
            }
        }
    }
    let junit = options.work.join("junit.xml");
    report.write_junit(&junit)?;
    let (passed, failed, skipped) = report.counts();
    println!("lab: {:.0} s, report in {}", start.elapsed().as_secs_f64(), junit.display());
    println!("lab: {passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

fn cut_power(options: &Options, cycles: u64, backend: &Backend) -> Result<bool> {
    let Backend::Daemon(programs) = backend else { bail!("a stand-in has no store") };
    let kernel = match kernel(&options.cache) {
        Err(error) if !options.require => {
            println!("power: NOT RUN: {error:#}");
            println!("power: 0 passed, 0 failed, 1 skipped");
            return Ok(true);
        }
        kernel => kernel?,
    };
    let work = WorkDir::create(&options.work)?;
    work.remove_whatever_happens()?;
    let plan = power::Plan { cycles, seed: options.seed };
    let done = power::run(&plan, &kernel, programs, &options.cache, work.path());
    if let Err(error) = &done {
        println!("power: {error:#}");
    }
    let (passed, failed) = if done.is_ok() { (1, 0) } else { (0, 1) };
    println!("power: {passed} passed, {failed} failed, 0 skipped");
    Ok(done.is_ok())
}

fn kernel(cache: &Path) -> Result<Kernel> {
    let missing = tools::missing_packages();
    if !missing.is_empty() {
        bail!("packages are missing: {}", missing.join(" "));
    }
    Kernel::obtain(cache).context("no kernel")
}

fn run_cases(
    options: &Options,
    cases: &[Case],
    kernel: Kernel,
    backend: Backend,
    report: &mut Report,
) -> Result<()> {
    let work = WorkDir::create(&options.work)?;
    work.remove_whatever_happens()?;
    println!("lab: kernel {}, {} cases", kernel.release, cases.len());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut lab = Lab::new(kernel, &manifest.join("guest"), work.path(), backend);
    lab.vm().context("the guest cannot be booted")?;
    for case in cases {
        let (verdict, took) = case.judge(&mut lab);
        report.add(case.name, verdict, took);
    }
    Ok(())
}
