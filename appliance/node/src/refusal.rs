//! Hosts that were turned away, for whoever tells the operator.

use std::net::SocketAddr;

use nvmf::Nqn;

/// A Connect that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The host as it called itself, if that was a name at all.
    pub host: Option<Nqn>,
    /// What it asked for, if that was a name at all.
    pub subsystem: Option<Nqn>,
    /// Where it came from.
    pub peer: SocketAddr,
    /// The subsystem is there, and the host is not on its list.
    pub not_allowed: bool,
}
