//! One TCP connection: the machine that the shard drives.

use std::sync::Arc;

use bdev::{Completion, Fifo, Instant, Pool, Request};
use net::{Batch, Landing};

use crate::{Addresses, NamespaceHandle, Nqn, Target};

/// What a connection is handed with each call: it reads no clock and owns no memory pool.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// Where data segments come from.
    pub pool: &'a Pool,
    /// The time of this turn.
    pub now: Instant,
}

/// Something that happened on a connection, for logs and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A queue was connected.
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
        /// What it asked for.
        subsystem: Option<Nqn>,
    },
    /// The connection is closing.
    Closing {
        /// Why.
        reason: CloseReason,
    },
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
    Protocol(nvme_spec::FatalError),
    /// The peer told us that we sent such a thing.
    Terminated(u16),
    /// The controller ended: keep alive ran out.
    KeepAlive,
    /// The controller ended: reset, its admin queue closed, or management asked for it.
    Controller,
    /// The peer did not finish setting up, or made no progress.
    Timeout,
    /// The node is shutting down.
    Shutdown,
}

/// One NVMe/TCP connection on the target's side. All its memory is allocated by [`Connection::new`];
/// an object serves one TCP connection after the other.
///
/// Each turn: give it what was received ([`Connection::on_received`]) and what completed
/// ([`Connection::on_completion`]); collect requests ([`Connection::poll_requests`]) and bytes
/// ([`Connection::poll_transmit`]); arm the next receive ([`Connection::landing`]).
#[derive(Debug)]
pub struct Connection {
    target: Arc<Target>,
    index: u32,
}

impl Connection {
    /// An idle connection. `index` (below [`crate::CONNECTIONS_MAX`]) is the upper part of the tag of each of
    /// its requests: [`Connection::index_of`] finds the connection of a completion again.
    ///
    /// # Panics
    /// When `index` is not below [`crate::CONNECTIONS_MAX`].
    pub fn new(target: Arc<Target>, index: u32) -> Connection {
        assert!(index < crate::limits::CONNECTIONS_MAX);
        Connection { target, index }
    }

    /// The connection that a request with this tag came from.
    pub fn index_of(tag: bdev::Tag) -> u32 {
        tag.0 >> crate::limits::TAG_COMMAND_BITS
    }

    /// Starts serving a TCP connection. False when no receive segment is free: close the socket.
    ///
    /// # Panics
    /// When the previous one is not closed ([`Connection::is_closed`]).
    pub fn accept(&mut self, _cx: Cx<'_>, _addresses: Addresses) -> bool {
        false
    }

    /// Where the next bytes should land; arm a receive with it. `None` while one is out, while
    /// nothing can be taken (back-pressure: ask again each turn), and when closing.
    pub fn landing(&mut self) -> Option<Landing> {
        None
    }

    /// The first `len` bytes of `landing` were received. Zero is the peer's end of stream.
    pub fn on_received(&mut self, _cx: Cx<'_>, _landing: Landing, _len: u32) {}

    /// Bytes were received elsewhere (tests, a pipe); the answer is how many were taken. Zero is
    /// back-pressure.
    pub fn on_bytes(&mut self, _cx: Cx<'_>, _bytes: &[u8]) -> usize {
        0
    }

    /// Collects requests, for the queues of their namespaces, while there is room. Call it each
    /// turn, also without news: commands that waited for a buffer go on here.
    ///
    /// Requests that the shard cannot place (a handle it does not know) it completes itself with
    /// [`bdev::Status::Gone`].
    pub fn poll_requests(&mut self, _cx: Cx<'_>, _requests: &mut Fifo<(NamespaceHandle, Request)>) {
    }

    /// A request ended. Also to be called after the socket has gone, until [`Connection::is_closed`].
    pub fn on_completion(&mut self, _cx: Cx<'_>, _completion: Completion) {}

    /// Fills an empty `batch` with what is to be sent; false when there is nothing. At most one
    /// batch may be out: hand it back with [`Connection::on_sent`] before the next.
    pub fn poll_transmit(&mut self, _cx: Cx<'_>, _batch: &mut Batch) -> bool {
        false
    }

    /// The batch was sent, or will never be. It is emptied.
    pub fn on_sent(&mut self, _cx: Cx<'_>, _batch: &mut Batch) {}

    /// The socket is gone. Landings and batches that were out may come back or be dropped.
    pub fn on_closed(&mut self, _cx: Cx<'_>) {}

    /// The time given by [`Connection::next_timeout`] has come. Harmless when it has not.
    pub fn on_timeout(&mut self, _cx: Cx<'_>) {}

    /// When [`Connection::on_timeout`] wants to be called, at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next event, for logs.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// Whether everything was said: close the socket, then call [`Connection::on_closed`].
    pub fn wants_close(&self) -> bool {
        false
    }

    /// Whether nothing is left of the last TCP connection: the object can [`Connection::accept`]
    /// again. Until then requests are still in flight.
    pub fn is_closed(&self) -> bool {
        true
    }

    /// Ends the connection from this side.
    pub fn close(&mut self, _cx: Cx<'_>, _reason: CloseReason) {}
}
