//! Why a bench could not be run.

use load::{ConnectError, RunError};
use thiserror::Error;

use crate::table::TableError;
use crate::target::TargetError;

/// Why a bench could not be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Options that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The system refused: what was tried, and its error.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system answered.
        source: std::io::Error,
    },
    /// There is no memory for buffers.
    #[error("{0}")]
    Pool(bdev::PoolError),
    /// A device could not be opened.
    #[error("{0}")]
    Open(#[from] bdev::OpenError),
    /// The target in this process could not be started.
    #[error("the target: {0}")]
    Target(#[from] TargetError),
    /// The initiator could not connect.
    #[error("the initiator: {0}")]
    Connect(#[from] ConnectError),
    /// The engine in this process refused something.
    #[error("the engine: {0}")]
    Engine(String),
    /// The run itself failed.
    #[error("{0}")]
    Run(#[from] RunError),
    /// A run under callgrind told nothing.
    #[error("callgrind: {0}")]
    Callgrind(String),
    /// The document does not take the table.
    #[error("{0}")]
    Table(#[from] TableError),
}
