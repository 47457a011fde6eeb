//! Every use the lab makes of the `holdfast` command line, so that a renamed word is one change.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The tool, pointed at one node.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    program: PathBuf,
    server: String,
}

impl Cli {
    pub(crate) fn new(program: &Path, socket: &Path) -> Self {
        Self { program: program.to_owned(), server: format!("unix:{}", socket.display()) }
    }

    pub(crate) fn store_init(&self, store: &str, device: &Path, size: &str) -> Result<()> {
        let device = device.display().to_string();
        self.run(&["store", "init", store, "--device", &device, "--size", size]).map(drop)
    }

    pub(crate) fn volume_create(
        &self,
        volume: &str,
        store: &str,
        bytes: u64,
        block_size: u32,
    ) -> Result<()> {
        let (size, block_size) = (bytes.to_string(), block_size.to_string());
        let options = ["--store", store, "--size", &size, "--block-size", &block_size];
        self.run(&[&["volume", "create", volume], &options[..]].concat()).map(drop)
    }

    pub(crate) fn volume_resize(&self, volume: &str, bytes: u64) -> Result<()> {
        self.run(&["volume", "resize", volume, "--size", &bytes.to_string()]).map(drop)
    }

    pub(crate) fn export_add(&self, volume: &str, host: Option<&str>) -> Result<()> {
        let access = host.map_or(vec!["--allow-any-host"], |host| vec!["--host", host]);
        self.run(&[&["export", "add", volume], &access[..]].concat()).map(drop)
    }

    /// Exports a volume as a further namespace of a subsystem.
    pub(crate) fn export_into(&self, volume: &str, nqn: &str, host: &str) -> Result<()> {
        self.run(&["export", "add", volume, "--nqn", nqn, "--host", host]).map(drop)
    }

    pub(crate) fn export_remove(&self, volume: &str) -> Result<()> {
        self.run(&["export", "remove", volume, "--yes"]).map(drop)
    }

    pub(crate) fn host_add(&self, volume: &str, host: &str) -> Result<()> {
        self.run(&["export", "hosts", "add", volume, host]).map(drop)
    }

    pub(crate) fn host_remove(&self, volume: &str, host: &str) -> Result<()> {
        self.run(&["export", "hosts", "remove", volume, host, "--yes"]).map(drop)
    }

    pub(crate) fn set_ana_state(&self, volume: &str, state: &str, listener: &str) -> Result<()> {
        self.run(&["export", "set-ana-state", volume, state, "--listener", listener]).map(drop)
    }

    /// The subsystem name and namespace number a volume is exported under.
    pub(crate) fn export_of(&self, volume: &str) -> Result<(String, u32)> {
        let text = self.run(&["export", "list", "-o", "json"])?;
        let value: Value = serde_json::from_str(&text).context("export list is not JSON")?;
        let exports = value.as_array().or_else(|| value["exports"].as_array());
        let export = exports
            .into_iter()
            .flatten()
            .find(|export| export["volume"] == volume)
            .with_context(|| format!("{volume} is not exported: {text}"))?;
        let nqn = export["nqn"].as_str().context("an export without nqn")?.to_owned();
        let nsid = export["nsid"].as_u64().context("an export without nsid")?;
        Ok((nqn, u32::try_from(nsid)?))
    }

    /// How many sessions hosts have open.
    pub(crate) fn session_count(&self) -> Result<usize> {
        let text = self.run(&["session", "list", "-o", "json"])?;
        let value: Value = serde_json::from_str(&text).context("session list is not JSON")?;
        let sessions = value.as_array().or_else(|| value["sessions"].as_array());
        Ok(sessions.context("session list is no list")?.len())
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(["--server", &self.server])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot start holdfast")?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("holdfast {} ({}): {complaint}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
