//! `holdfastd demo` (what `make run` starts): a new user types the line it prints.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::case::Case;
use crate::lab::{Backend, Lab, Target};
use crate::node::ADDRESS;
use crate::wait;
use crate::workdir::guarded;

const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("demo/the_printed_connect_line_works", printed_line).on_daemon()]
}

fn printed_line(lab: &mut Lab) -> Result<()> {
    let Backend::Daemon(programs) = lab.backend.clone() else { bail!("needs holdfastd") };
    let directory = lab.scratch().join("demo");
    fs::create_dir_all(&directory)?;
    let printed = directory.join("printed");
    let mut demo = Demo(
        guarded(&programs.daemon)
            .args(["demo", "--listen", ADDRESS, "--state-dir"])
            .arg(directory.join("state"))
            .stdin(Stdio::null())
            .stdout(File::create(&printed)?)
            .stderr(File::create(directory.join("log"))?)
            .spawn()
            .context("cannot start holdfastd demo")?,
    );
    let text = wait::until(START_TIMEOUT, "holdfastd demo prints how to connect", || {
        let text = fs::read_to_string(&printed)?;
        if let Some(status) = demo.0.try_wait()? {
            bail!("it ended ({status}): {}", fs::read_to_string(directory.join("log"))?);
        }
        Ok(text.contains("Ctrl-C").then_some(text))
    })?;
    let line = text.lines().map(str::trim).find(|line| line.starts_with("nvme connect "));
    let line = line.with_context(|| format!("no nvme connect line in:\n{text}"))?;
    fs::write(lab.share().join("connect-line"), line)?;
    let mut words = line.split_whitespace();
    let mut after = |option: &str| words.find(|word| *word == option).and_then(|_| words.next());
    let port = after("-s").context("no -s in the line")?.parse()?;
    let nqn = after("-n").context("no -n in the line")?.to_owned();
    let target = Target {
        address: ADDRESS.to_owned(),
        port,
        discovery_port: port,
        nqn,
        nsid: 1,
        volume: "demo".to_owned(),
        node: None,
    };
    lab.script("demo.sh", &target, &[]).map(drop)
}

/// Ends with the case.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
