//! A node in a temporary directory, and a hand at its command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::Daemon;
use daemon::config::Config;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::memory_plane::{Devices, MemoryPlane};

/// What outlives a node: its directory and its devices.
pub(crate) struct Stand {
    dir: TempDir,
    pub(crate) devices: Devices,
}

/// A node that runs.
pub(crate) struct Running {
    pub(crate) plane: Arc<MemoryPlane>,
    pub(crate) http: String,
    pub(crate) grpc: String,
    socket: PathBuf,
    dir: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
    /// Of this node alone, so that it can be ended with everything in it.
    runtime: Runtime,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Stand {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), devices: Devices::default() }
    }

    /// The path of a file in the stand's directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) async fn start(&self) -> Running {
        let plane = Arc::new(MemoryPlane::new(Arc::clone(&self.devices)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (config, shared) = (self.config(), Arc::clone(&plane));
        let starting = runtime.spawn(async move { Daemon::start(&config, shared).await });
        let daemon = starting.await.unwrap().unwrap();
        let http = daemon.http().unwrap().to_string();
        let grpc = daemon.grpc().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = runtime.spawn(daemon.run(shutdown));
        let (socket, dir) = (self.dir.path().join("s"), self.dir.path().to_owned());
        Running { plane, http, grpc, socket, dir, stop, task, runtime }
    }

    pub(crate) fn config(&self) -> Config {
        let dir = self.dir.path().display();
        let text = format!(
            "node_name = \"test\"\nstate_dir = \"{dir}/state\"\n\
             [management]\nsocket = \"{dir}/s\"\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n"
        );
        Config::parse("test", &text).unwrap()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

impl Running {
    /// Runs a command line without a terminal.
    pub(crate) async fn holdfast(&self, line: &str) -> Printed {
        self.holdfast_answering(line, None).await
    }

    /// Runs a command line; with an `answer` there is somebody at the terminal.
    pub(crate) async fn holdfast_answering(&self, line: &str, answer: Option<&str>) -> Printed {
        let server = format!("unix:{}", self.socket.display());
        let line = line.replace("DIR", self.dir.to_str().unwrap());
        let mut args = vec!["holdfast".to_owned(), "--server".to_owned(), server];
        args.extend(line.split_whitespace().map(str::to_owned));
        let answer = answer.map(str::to_owned);
        // The command has a runtime of its own.
        tokio::task::spawn_blocking(move || run(args, answer.as_deref())).await.unwrap()
    }

    /// Runs a command line that must succeed; what it printed.
    pub(crate) async fn ok(&self, line: &str) -> String {
        let printed = self.holdfast(line).await;
        assert_eq!(printed.code, 0, "{line}: {printed:?}");
        assert_eq!(printed.err, "", "{line}");
        printed.out
    }

    /// Runs a command line that prints JSON.
    pub(crate) async fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&format!("{line} -o json")).await).unwrap()
    }

    /// A store and a volume to work with.
    pub(crate) async fn with_volume(&self) {
        self.ok("store init main --device DIR/disk --size 1GiB").await;
        self.ok("volume create db --size 100MiB").await;
    }

    /// Stops as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        end(self.runtime).await;
    }

    /// Stops as kill -9 does: nothing is finished.
    pub(crate) async fn kill(self) {
        end(self.runtime).await;
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Drops every task of a node where it stands, and waits until they are gone.
async fn end(runtime: Runtime) {
    let patience = Duration::from_secs(30);
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(patience)).await.unwrap();
}

fn run(args: Vec<String>, answer: Option<&str>) -> Printed {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal = cli::Terminal {
        out: &mut out,
        err: &mut err,
        input: &mut answer.unwrap_or_default().as_bytes(),
        interactive: answer.is_some(),
    };
    let code = cli::run(args, &mut terminal);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Printed { code, out: text(out), err: text(err) }
}
