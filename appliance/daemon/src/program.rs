//! The command line of `holdfastd`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::demo::{self, DemoOptions};
use crate::log;
use crate::plane::ReactorPlane;
use crate::service::Daemon;

/// Serves durable volumes over NVMe/TCP.
#[derive(Debug, Parser)]
#[command(name = "holdfastd", version, args_conflicts_with_subcommands = true)]
struct Options {
    /// The configuration [default: /etc/holdfast/holdfastd.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a configuration and says everything that is wrong with it
    CheckConfig {
        /// The configuration
        file: PathBuf,
    },
    /// Serves a demonstration volume from a file, and says how to use it
    Demo(DemoOptions),
}

const CONFIG_FILE: &str = "/etc/holdfast/holdfastd.toml";

/// Threads of the control plane.
const CONTROL_THREADS: usize = 2;

/// How long the end waits for work that blocks.
const LEFTOVERS_WAIT: Duration = Duration::from_secs(1);

/// The program: 0 when it was stopped or the check passed, 1 when it failed, 2 for wrong usage or a
/// wrong configuration.
#[must_use]
pub fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.command {
        Some(Command::CheckConfig { file }) => return check(&file),
        Some(Command::Demo(options)) => serve_demo(&options),
        None => match load(options.config) {
            Ok(config) => serve(&config),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = format!("{error:#}"), "holdfastd ends");
            eprintln!("holdfastd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> ExitCode {
    match Config::load(file) {
        Ok(_) => {
            println!("{}: valid", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn load(file: Option<PathBuf>) -> Result<Config, crate::config::ConfigError> {
    match file {
        Some(file) => Config::load(&file),
        None if Path::new(CONFIG_FILE).exists() => Config::load(Path::new(CONFIG_FILE)),
        None => Ok(Config::default()),
    }
}

fn serve(config: &Config) -> Result<()> {
    log::start(&config.log);
    block_on(async {
        let signals = Signals::install()?;
        let plane = Arc::new(ReactorPlane::start(config)?);
        let daemon = Daemon::start(config, plane).await?;
        daemon.run(signals.first()).await
    })
}

fn serve_demo(options: &DemoOptions) -> Result<()> {
    block_on(async {
        let signals = Signals::install()?;
        let config = demo::config(options).await?;
        log::start(&config.log);
        let plane = Arc::new(ReactorPlane::start(&config)?);
        let daemon = Daemon::start(&config, plane).await?;
        let text = demo::prepare(&config, daemon.node().as_ref(), daemon.http()).await?;
        println!("{text}");
        daemon.run(signals.first()).await
    })
}

/// Runs the control plane. What blocks for ever when it ends (a drain that took too long) does not
/// keep the process.
fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control plane cannot start")?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LEFTOVERS_WAIT);
    result
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ready at the first signal; the second one ends the process.
    async fn first(mut self) {
        let name = self.next().await;
        tracing::info!("{name}: draining; again to stop at once");
        tokio::spawn(async move {
            let name = self.next().await;
            tracing::warn!("{name} again: stopping at once");
            std::process::exit(1);
        });
    }
}
