//! Sessions: hosts that are connected now.

use crate::{Nqn, VolumeName};

/// One controller: a host's association with a subsystem.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// The NQN that the connected host gave itself, in printable ASCII. A host need not follow the
    /// rules that [`Nqn`] enforces for names that operators give.
    pub host: String,
    /// The subsystem it is connected to.
    pub subsystem: Nqn,
    /// The exported volume; `None` for a discovery session.
    pub volume: Option<VolumeName>,
    /// The controller's id in its subsystem.
    pub controller_id: u16,
    /// I/O queues that the host has connected.
    pub io_queues: u32,
    /// The host's address as `ip:port`, or empty when unknown.
    pub peer: String,
    /// The keep-alive timeout in milliseconds; 0 means none.
    pub keep_alive_ms: u32,
}
