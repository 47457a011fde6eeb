//! What a connection tells whoever keeps logs and counters.

use nvme_spec::{FatalError, NvmeStatus};

use crate::{AuthFault, Nqn};

/// Something that happened on a connection, for logs and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A queue was connected, and authenticated if that was required.
    Connected {
        /// CNTLID.
        cntlid: u16,
        /// 0 is the admin queue.
        qid: u16,
        /// The host.
        hostnqn: Nqn,
        /// The subsystem; `None` for discovery.
        subsystem: Option<Nqn>,
    },
    /// A Connect was refused: a host that is not allowed, a name that does not exist.
    Refused {
        /// The host as it called itself, if it was a name at all.
        hostnqn: Option<Nqn>,
        /// What it asked for, if it was a name at all.
        subsystem: Option<Nqn>,
        /// What it was told.
        status: NvmeStatus,
        /// Why.
        cause: Refused,
    },
    /// A host did not prove who it is. The connection closes.
    NotAuthenticated {
        /// The host as it called itself.
        hostnqn: Nqn,
        /// What it asked for.
        subsystem: Option<Nqn>,
        /// Why.
        fault: AuthFault,
    },
    /// The connection is closing.
    Closing {
        /// Why.
        reason: CloseReason,
    },
}

/// Why a Connect was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The subsystem is there, and the host is not on its list.
    NotListed,
    /// The subsystem takes hosts with secrets only, and the host has none.
    NoKey,
    /// Something else: the status tells.
    Other,
}

/// Why a connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed it, or the network did.
    Peer,
    /// The host disconnected this queue.
    Disconnected,
    /// The peer sent something that framing does not survive; it was told so.
    Protocol(FatalError),
    /// The peer told us (FES) that we sent such a thing.
    Terminated(u16),
    /// The controller ended: keep alive ran out.
    KeepAlive,
    /// The controller ended: reset, its admin queue closed, or management asked for it.
    Controller,
    /// The host did not prove who it is.
    Authentication,
    /// The peer did not finish setting up, or made no progress.
    Timeout,
    /// The node is shutting down.
    Shutdown,
}
