//! Hosts that were turned away, for whoever tells the operator.

use std::net::SocketAddr;

use nvmf::{AuthFault, Nqn, Refused};

/// A host that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The host as it called itself, if that was a name at all.
    pub host: Option<Nqn>,
    /// What it asked for, if that was a name at all.
    pub subsystem: Option<Nqn>,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Why.
    pub cause: Cause,
}

/// Why a host was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its Connect was.
    Connect(Refused),
    /// It did not prove who it is.
    Authentication(AuthFault),
}
