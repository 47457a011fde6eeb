//! A real `holdfastd` in a temporary directory.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{Builder, JoinHandle};

use tempfile::TempDir;

/// A running `holdfastd`, killed when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) log: Vec<String>,
    /// Reads the rest of the log, so that the daemon does not block on a full pipe.
    rest: Option<JoinHandle<Vec<String>>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    let text = format!(
        "node_name = \"test\"\nstate_dir = \"{path}/state\"\n\
         [nvme_tcp]\nlisten = [\"127.0.0.1:0\"]\ndiscovery = [\"127.0.0.1:0\"]\n\
         [management]\nsocket = \"{path}/s\"\n[memory]\nbuffers_per_core = \"64MiB\"\n"
    );
    std::fs::write(dir.path().join("holdfastd.toml"), text).unwrap();
    dir
}

/// Starts the daemon; ready when it says that it listens.
pub(crate) fn start(dir: &Path) -> Process {
    start_with(dir, None)
}

pub(crate) fn start_with(dir: &Path, notify: Option<&Path>) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
    if let Some(path) = notify {
        command.env("NOTIFY_SOCKET", path);
        command.env("WATCHDOG_USEC", "100000");
    }
    let mut child = command
        .arg("--config")
        .arg(dir.join("holdfastd.toml"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut process = Process { child, log: Vec::new(), rest: None };
    let mut lines = stderr.lines();
    for line in &mut lines {
        let line = line.unwrap();
        let ready = line.contains("INFO listening ");
        process.log.push(line);
        if ready {
            let rest = Builder::new().spawn(move || lines.map_while(Result::ok).collect());
            process.rest = Some(rest.unwrap());
            return process;
        }
    }
    panic!("holdfastd did not start:\n{}", process.log.join("\n"));
}

impl Process {
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for the end; the exit code, and the whole log.
    pub(crate) fn wait(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.wait().unwrap();
        let mut log = std::mem::take(&mut self.log);
        log.extend(self.rest.take().unwrap().join().unwrap());
        (status.code(), log)
    }
}

/// Runs a command line; its exit code and what it printed.
pub(crate) fn holdfast(dir: &Path, line: &str) -> (u8, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal =
        cli::Terminal { out: &mut out, err: &mut err, input: &mut &b""[..], interactive: false };
    let path = dir.display().to_string();
    let mut args = vec!["holdfast".to_owned(), format!("--server=unix:{path}/s")];
    args.extend(line.split_whitespace().map(|word| word.replace("DIR", &path)));
    let code = cli::run(args, &mut terminal);
    out.extend(err);
    (code, String::from_utf8(out).unwrap())
}

pub(crate) fn ok(dir: &Path, line: &str) -> String {
    let (code, text) = holdfast(dir, line);
    assert_eq!(code, 0, "{line}: {text}");
    text
}
