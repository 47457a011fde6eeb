//! The configuration of `holdfastd`: one TOML file.
//!
//! The table of keys ([`KEYS`]) is the authority: it drives the reader, the suggestions for unknown
//! keys, and `docs/configuration.md`. All complaints about a file are reported at once, each with
//! its line.

mod document;
mod read;
mod schema;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use document::document;
pub use schema::{KEYS, Key};

/// Everything that can be configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The name of the node.
    pub node_name: String,
    /// Where desired state is kept.
    pub state_dir: PathBuf,
    /// How files and block devices are reached.
    pub io_backend: IoBackend,
    /// The reactors.
    pub reactor: ReactorConfig,
    /// Memory of the data plane.
    pub memory: MemoryConfig,
    /// The NVMe/TCP listeners.
    pub nvme_tcp: NvmeTcpConfig,
    /// The management listeners.
    pub management: ManagementConfig,
    /// Logs.
    pub log: LogConfig,
    /// Seconds that draining may take.
    pub drain_seconds: u64,
}

/// How files and block devices are reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IoBackend {
    /// `io_uring` if it can be had, else `standard`, with one log line that says so.
    Auto,
    /// `io_uring`, or the start fails.
    IoUring,
    /// `pread` and `pwrite`.
    Standard,
}

/// What a reactor does when there is nothing to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Idle {
    /// Keeps polling: lowest latency, a whole core.
    Spin,
    /// Polls for a while, then sleeps in the kernel.
    Adaptive,
}

/// The reactors.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReactorConfig {
    /// One pinned reactor for each core; empty: one reactor that is not pinned.
    pub cores: Vec<u32>,
    /// What they do when there is nothing to do.
    pub idle: Idle,
}

/// Memory of the data plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemoryConfig {
    /// Bytes of buffers for each reactor.
    pub buffers_per_core: u64,
}

/// The NVMe/TCP listeners.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NvmeTcpConfig {
    /// Where hosts connect.
    pub listen: Vec<SocketAddr>,
    /// Where hosts ask what there is.
    pub discovery: Vec<SocketAddr>,
}

/// The management listeners.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManagementConfig {
    /// gRPC on a Unix socket.
    pub socket: Option<PathBuf>,
    /// The file mode of the socket.
    pub socket_mode: u32,
    /// gRPC on TCP.
    pub grpc: Option<SocketAddr>,
    /// HTTP: metrics and health.
    pub http: Option<SocketAddr>,
}

/// Logs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines are written.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// Failures of the node.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And what happens.
    Info,
    /// And what helps to find a defect.
    Debug,
}

impl LogLevel {
    /// The spelling in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// One complaint about a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Complaint {
    /// The line, from 1; 0 when it is about the whole file.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// Why a configuration was refused: all complaints, by line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub complaints: Vec<Complaint>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.complaints.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let Complaint { line, reason, hint } = complaint;
            let file = &self.file;
            match line {
                0 => write!(f, "{separator}{file}: {reason}")?,
                _ => write!(f, "{separator}{file}:{line}: {reason}")?,
            }
            if !hint.is_empty() {
                write!(f, "; {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is not a valid configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let reason = format!("cannot be read: {error}");
            let complaints = vec![Complaint { line: 0, reason, hint: String::new() }];
            ConfigError { file: file.clone(), complaints }
        })?;
        Self::parse(&file, &text)
    }

    /// Reads a configuration from `text`; `file` is for messages.
    ///
    /// # Errors
    /// When it is not TOML, or has keys or values that are unknown, wrong, or without effect.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        read::read(text).map_err(|complaints| ConfigError { file: file.to_owned(), complaints })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::parse("built-in", "").expect("an empty file is a valid configuration")
    }
}

#[cfg(test)]
mod tests;
