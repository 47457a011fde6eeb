//! A real `holdfastd` in a temporary directory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A running `holdfastd`, killed when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) log: Vec<String>,
    /// The rest of the log; a thread reads it, so that the daemon does not block on a full pipe.
    rest: Receiver<String>,
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
         [management]\nsocket = \"{path}/s\"\nhttp = \"127.0.0.1:0\"\n\
         [memory]\nbuffers_per_core = \"64MiB\"\n"
    );
    std::fs::write(dir.path().join("holdfastd.toml"), text).unwrap();
    dir
}

/// Starts the daemon; ready when it says that it listens.
pub(crate) fn start(dir: &Path) -> Process {
    start_with(dir, None)
}

/// Starts the daemon with a fresh store and a volume `db` of 8 MiB that any host may use.
pub(crate) fn start_with_volume(dir: &Path) -> Process {
    let process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 256MiB");
    ok(dir, "volume create db --size 8MiB");
    ok(dir, "export add db --allow-any-host");
    process
}

/// The daemon with the configuration of a directory, not started yet.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
    command.arg("--config").arg(dir.join("holdfastd.toml"));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Puts a line before the configuration of a directory.
pub(crate) fn configure(dir: &Path, line: &str) {
    let file = dir.join("holdfastd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{line}\n{text}")).unwrap();
}

pub(crate) fn start_with(dir: &Path, notify: Option<&Path>) -> Process {
    let mut command = command(dir);
    if let Some(path) = notify {
        command.env("NOTIFY_SOCKET", path);
        command.env("WATCHDOG_USEC", "100000");
    }
    let mut process = Process::spawn(command);
    process.wait_for("INFO listening ");
    process
}

impl Process {
    /// Starts the daemon and waits for nothing.
    pub(crate) fn spawn(mut command: Command) -> Process {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, rest) = channel();
        let read =
            move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line));
        Builder::new().spawn(read).unwrap();
        Process { child, log: Vec::new(), rest }
    }

    /// Reads the log for a while; true when it ended by itself.
    pub(crate) fn run_for(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            match self.rest.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for a log line that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while let Ok(line) = self.rest.recv() {
            let found = line.contains(text);
            self.log.push(line);
            if found {
                return;
            }
        }
        panic!("holdfastd ended without {text:?}:\n{}", self.log.join("\n"));
    }

    /// Waits for the end; the exit code, and the whole log.
    pub(crate) fn wait(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.wait().unwrap();
        let mut log = std::mem::take(&mut self.log);
        log.extend(self.rest.iter());
        (status.code(), log)
    }
}

/// What a command line printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command line.
pub(crate) fn run(dir: &Path, line: &str) -> Printed {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal =
        cli::Terminal { out: &mut out, err: &mut err, input: &mut &b""[..], interactive: false };
    let path = dir.display().to_string();
    let mut args = vec!["holdfast".to_owned(), format!("--server=unix:{path}/s")];
    args.extend(line.split_whitespace().map(|word| word.replace("DIR", &path)));
    let code = cli::run(args, &mut terminal);
    let [out, err] = [out, err].map(|bytes| String::from_utf8(bytes).unwrap());
    Printed { code, out, err }
}

/// Runs a command line; its exit code and what somebody at a terminal reads.
pub(crate) fn holdfast(dir: &Path, line: &str) -> (u8, String) {
    let Printed { code, out, err } = run(dir, line);
    (code, out + &err)
}

/// Runs a command line that prints JSON; its progress, if it says any, is not part of that.
pub(crate) fn json(dir: &Path, line: &str) -> (u8, Value) {
    let printed = run(dir, &format!("{line} -o json"));
    let value = serde_json::from_str(&printed.out);
    (printed.code, value.unwrap_or_else(|error| panic!("{line}: {error}: {printed:?}")))
}

/// The metrics of the node, as text.
pub(crate) fn metrics(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("state/endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_str(&text).unwrap();
    let mut stream = TcpStream::connect(endpoints["http"].as_str().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A number among the metrics of the node, by its name with its labels.
pub(crate) fn metric(dir: &Path, name: &str) -> f64 {
    let text = metrics(dir);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

pub(crate) fn ok(dir: &Path, line: &str) -> String {
    let (code, text) = holdfast(dir, line);
    assert_eq!(code, 0, "{line}: {text}");
    text
}

/// What a command line that succeeds says, as JSON.
pub(crate) fn shown(dir: &Path, line: &str) -> Value {
    let (code, value) = json(dir, line);
    assert_eq!(code, 0, "{line}: {value}");
    value
}
