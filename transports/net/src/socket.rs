//! An accepted connection that belongs to no shard yet.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::PipeEnd;

/// A connection between being accepted and being adopted. It is `Send`, so that the shard that
/// listens can hand it to another. Dropping it closes the connection.
#[derive(Debug)]
pub struct Socket {
    kind: SocketKind,
    peer: SocketAddr,
}

/// What is behind a [`Socket`].
#[derive(Debug)]
pub enum SocketKind {
    /// A descriptor of the system.
    Fd(OwnedFd),
    /// One end of an in-memory pipe.
    Pipe(PipeEnd),
}

impl Socket {
    /// For implementations of [`crate::Net`]: the connection to `peer` behind `kind`.
    pub fn new(kind: SocketKind, peer: SocketAddr) -> Socket {
        Socket { kind, peer }
    }

    /// A connected stream socket of the system, from `peer`.
    pub fn from_fd(fd: OwnedFd, peer: SocketAddr) -> Socket {
        Socket::new(SocketKind::Fd(fd), peer)
    }

    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What is behind it, for implementations of [`crate::Net`].
    pub fn into_kind(self) -> SocketKind {
        self.kind
    }
}

const _: () = {
    const fn sendable<T: Send>() {}
    sendable::<Socket>();
};
