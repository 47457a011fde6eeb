//! The lab's scratch directory, and the promise that nothing is left behind.
//!
//! Every process the lab starts is started through [`guarded`], so the kernel ends it when the lab
//! dies of whatever cause. The directory is removed on drop and on a signal; one that a killed lab
//! left is removed by the next run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A directory of this run only.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    /// Creates `base/run-PID`, and removes what earlier runs left.
    pub(crate) fn create(base: &Path) -> Result<Self> {
        fs::create_dir_all(base).with_context(|| format!("cannot create {}", base.display()))?;
        for entry in fs::read_dir(base)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = name.strip_prefix("run-") else { continue };
            if !Path::new("/proc").join(pid).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let base = base.canonicalize()?;
        let path = base.join(format!("run-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on a panic, SIGINT, SIGTERM and SIGHUP remove the directory and end the process;
    /// the kernel then ends the guarded children.
    pub(crate) fn remove_whatever_happens(&self) -> Result<()> {
        let path = self.path.clone();
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = fs::remove_dir_all(&path);
            report(panic);
        }));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let path = self.path.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("lab: interrupted");
                let _ = fs::remove_dir_all(&path);
                std::process::exit(128 + signal);
            }
        })?;
        Ok(())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A command that dies with the thread that spawns it (so: spawn it from the main thread).
pub(crate) fn guarded(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
