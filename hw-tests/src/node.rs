//! One `holdfastd` on the host: configured, started, killed, started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::holdfast::Cli;
use crate::wait;
use crate::workdir::guarded;

/// The address the node listens on. Not 127.0.0.1, which is the guest's own: `guest/network.sh`
/// makes this one mean the host in the guest too.
pub(crate) const ADDRESS: &str = "127.0.0.2";

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the programs under test are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) daemon: PathBuf,
    pub(crate) cli: PathBuf,
}

impl Programs {
    /// `holdfastd` and `holdfast` in `directory`, if both are there.
    pub(crate) fn in_directory(directory: &Path) -> Option<Self> {
        let programs =
            Self { daemon: directory.join("holdfastd"), cli: directory.join("holdfast") };
        (programs.daemon.is_file() && programs.cli.is_file()).then_some(programs)
    }
}

/// The ports a node took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// The NVMe/TCP port for I/O.
    pub(crate) nvme_port: u16,
    /// Another one, on nodes that have two.
    pub(crate) second_port: Option<u16>,
    /// The discovery port.
    pub(crate) discovery_port: u16,
}

impl Endpoints {
    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let port = |key: &str, place: usize| -> Result<u16> {
            let address = &value[key][place];
            let address = address.as_str().with_context(|| format!("no {key} in {text}"))?;
            let (_, port) = address.rsplit_once(':').context("an address without a port")?;
            Ok(port.parse()?)
        };
        Ok(Self {
            nvme_port: port("nvme_tcp", 0)?,
            second_port: port("nvme_tcp", 1).ok(),
            discovery_port: port("discovery", 0)?,
        })
    }
}

/// A node and everything it owns.
#[derive(Debug)]
pub(crate) struct Node {
    programs: Programs,
    directory: PathBuf,
    process: Option<Child>,
    /// How many listeners for I/O it has: one or two.
    listeners: usize,
    /// The ports; the same after every restart.
    pub(crate) endpoints: Endpoints,
}

impl Node {
    /// Starts a node with fresh state in `directory`, and so many listeners for I/O.
    pub(crate) fn create(programs: &Programs, directory: &Path, listeners: usize) -> Result<Self> {
        fs::create_dir_all(directory.join("state"))?;
        let mut node = Self {
            programs: programs.clone(),
            directory: directory.to_owned(),
            process: None,
            listeners,
            endpoints: Endpoints::default(),
        };
        node.start()?;
        Ok(node)
    }

    /// Starts the daemon and waits until it serves. A restart takes the ports it had before, so
    /// that a host that reconnects finds it.
    pub(crate) fn start(&mut self) -> Result<()> {
        let endpoints_file = self.directory.join("state/endpoints.json");
        let _ = fs::remove_file(&endpoints_file);
        let config = self.directory.join("holdfastd.toml");
        fs::write(&config, self.config())?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let process = guarded(&self.programs.daemon)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start holdfastd")?;
        self.process = Some(process);
        self.endpoints = wait::until(START_TIMEOUT, "holdfastd serves", || {
            let text = fs::read_to_string(&endpoints_file).unwrap_or_default();
            if let Ok(endpoints) = Endpoints::parse(&text) {
                return Ok(Some(endpoints));
            }
            match self.exited()? {
                Some(status) => bail!("holdfastd ended at start-up ({status})"),
                None => Ok(None),
            }
        })
        .with_context(|| self.log_tail())?;
        Ok(())
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("holdfastd does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end; returns how long it took.
    pub(crate) fn stop(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let pid = self.process.as_ref().context("holdfastd does not run")?.id();
        std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
        let status = wait::until(STOP_TIMEOUT, "holdfastd stops on SIGTERM", || self.exited())
            .with_context(|| self.log_tail())?;
        self.process = None;
        ensure!(status.success(), "{status} on SIGTERM:\n{}", self.log_tail());
        Ok(start.elapsed())
    }

    /// Fails when the daemon has died by itself.
    pub(crate) fn assert_alive(&mut self) -> Result<()> {
        if self.process.is_none() {
            return Ok(());
        }
        match self.exited()? {
            Some(status) => bail!("holdfastd died ({status}):\n{}", self.log_tail()),
            None => Ok(()),
        }
    }

    /// The command line tool, pointed at this node.
    pub(crate) fn cli(&self) -> Cli {
        Cli::new(&self.programs.cli, &self.socket())
    }

    /// A path for a file that belongs to this node.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("holdfastd.log")
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("holdfastd.sock")
    }

    fn exited(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.process.as_mut().map(Child::try_wait).transpose()?.flatten())
    }

    fn config(&self) -> String {
        let Endpoints { nvme_port, second_port, discovery_port } = self.endpoints;
        let ports = [nvme_port, second_port.unwrap_or(0)];
        let ports = ports.iter().take(self.listeners);
        let listen: Vec<_> = ports.map(|port| format!("\"{ADDRESS}:{port}\"")).collect();
        let listen = listen.join(", ");
        let directory = self.directory.display();
        format!(
            "state_dir = \"{directory}/state\"\n\
             [nvme_tcp]\nlisten = [{listen}]\n\
             discovery = [\"{ADDRESS}:{discovery_port}\"]\n\
             [management]\nsocket = \"{}\"\n",
            self.socket().display()
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_from_the_file_the_daemon_writes() {
        let text = r#"{"nvme_tcp":["127.0.0.2:41234"],"discovery":["127.0.0.2:8009"],"http":"x"}"#;
        let expected = Endpoints { nvme_port: 41234, second_port: None, discovery_port: 8009 };
        assert_eq!(Endpoints::parse(text).unwrap(), expected);
        let text = r#"{"nvme_tcp":["a:1","a:2"],"discovery":["a:3"]}"#;
        assert_eq!(Endpoints::parse(text).unwrap().second_port, Some(2));
        assert!(Endpoints::parse("{").is_err(), "half a file is not yet an answer");
        assert!(Endpoints::parse("{}").is_err());
    }
}
