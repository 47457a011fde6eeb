//! The trait, the names of its parts and what it reports.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use bdev::Fifo;

use crate::{Batch, Landing, Socket};

/// One shard's sockets, polled. Object safe; not `Send`.
///
/// The contract, each line a case of [`crate::conformance`]:
///
/// 1. Bytes arrive in order, exactly as sent, in pieces of any size.
/// 2. At most one receive and one send are outstanding for a connection; each comes back exactly
///    once, in an event of its own or in [`Event::Closed`].
/// 3. Nothing is reported except by `poll`.
/// 4. Each connection that was adopted or connected ends with exactly one [`Event::Closed`], and
///    nothing comes after it. Its id is not reused for another connection.
/// 5. When the peer has finished sending, the receive comes back as [`Event::Ended`]; what is sent
///    afterwards still reaches it.
/// 6. A full event queue loses nothing: what does not fit is reported by a later `poll`.
pub trait Net {
    /// Listens on `address`; port 0 picks a free one. Connections are accepted at once, see
    /// [`Net::set_accepting`].
    ///
    /// # Errors
    /// [`NetError::TooMany`] or what the system answered.
    fn listen(&mut self, address: SocketAddr) -> Result<ListenerId, NetError>;

    /// Where `listener` listens, with the port that was picked; `None` when it was closed.
    fn local_address(&self, listener: ListenerId) -> Option<SocketAddr>;

    /// Starts or stops accepting. What the peers have connected meanwhile waits in the system's
    /// backlog: that is the back-pressure. At most one accepted socket is reported after a stop.
    fn set_accepting(&mut self, listener: ListenerId, accepting: bool);

    /// Stops listening. Connections that came from `listener` live on.
    fn unlisten(&mut self, listener: ListenerId);

    /// Takes `socket` (accepted here or by another shard) as a connection of this one.
    ///
    /// # Errors
    /// The socket itself, when this shard has its maximum of connections.
    fn adopt(&mut self, socket: Socket) -> Result<ConnId, Socket>;

    /// Starts a connection to `address`; [`Event::Connected`] or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// [`NetError::TooMany`] or what the system answered.
    fn connect(&mut self, address: SocketAddr) -> Result<ConnId, NetError>;

    /// Receives some bytes into `landing`: at least one, at most [`Landing::len`]. Exactly one
    /// receive may be outstanding for a connection.
    ///
    /// # Errors
    /// The landing itself, when the connection is closed or closing: its [`Event::Closed`] was
    /// reported or is on its way.
    ///
    /// # Panics
    /// When a receive is outstanding.
    fn receive(&mut self, conn: ConnId, landing: Landing) -> Result<(), Landing>;

    /// Sends all of `batch`. Exactly one send may be outstanding for a connection.
    ///
    /// # Errors
    /// The batch itself, when the connection is closed or closing, as with [`Net::receive`].
    ///
    /// # Panics
    /// When a send is outstanding, or the batch is empty.
    fn send(&mut self, conn: ConnId, batch: Box<Batch>) -> Result<(), Box<Batch>>;

    /// Tells the peer that nothing more will be sent; receiving goes on. Nothing happens when the
    /// connection is closed or closing.
    ///
    /// # Panics
    /// When a send is outstanding. Sending afterwards panics too.
    fn finish(&mut self, conn: ConnId);

    /// Closes `conn` and cancels what is outstanding. [`Event::Closed`] follows, with
    /// [`CloseReason::Local`]. Nothing happens when it is closed already.
    ///
    /// To deliver the last words first, wait for their [`Event::Sent`], [`Net::finish`], and wait
    /// for [`Event::Ended`]: bytes of the peer that nobody has read turn a close into a reset.
    fn close(&mut self, conn: ConnId);

    /// Makes everything asked for since the last kick visible to the system: one system call.
    fn kick(&mut self);

    /// Appends what has happened while there is room. Never blocks.
    fn poll(&mut self, events: &mut Fifo<Event>);

    /// Connections that were adopted or connected and not yet reported as closed.
    fn connections(&self) -> usize;

    /// The number of connections that this shard was made for. [`ConnId::slot`] is below it.
    fn connections_max(&self) -> usize;

    /// A descriptor that turns readable when `poll` may find something, for a reactor that wants to
    /// sleep. `None` when there is none. It may change: ask before each sleep.
    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}

/// Names a connection of one [`Net`]. Never reused: it carries a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    /// For implementations of [`Net`]: the connection in `slot` that is the `generation`th there.
    pub fn new(slot: u32, generation: u32) -> ConnId {
        ConnId { slot, generation }
    }

    /// A small number that no other *open* connection of this shard has: an index for a table of
    /// [`Net::connections_max`] entries. It is free again when [`Event::Closed`] was reported.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// Tells the connections apart that had the same slot.
    pub fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Names a listener of one [`Net`]. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// A peer has connected. Dropping the socket closes it.
    Accepted {
        /// Who accepted it.
        listener: ListenerId,
        /// The connection, for [`Net::adopt`] on this shard or on another.
        socket: Socket,
    },
    /// [`Net::connect`] has succeeded.
    Connected {
        /// The connection.
        conn: ConnId,
    },
    /// Bytes have arrived.
    Received {
        /// The connection.
        conn: ConnId,
        /// The landing; its first `len` bytes are the new ones.
        landing: Landing,
        /// How many bytes; at least one.
        len: u32,
    },
    /// The peer has finished sending; nothing more will be received. What is sent still arrives.
    Ended {
        /// The connection.
        conn: ConnId,
        /// The landing, untouched.
        landing: Landing,
    },
    /// All of the batch was handed to the system.
    Sent {
        /// The connection.
        conn: ConnId,
        /// The batch, as it was sent.
        batch: Box<Batch>,
    },
    /// The connection is gone. The last event of a connection.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
        /// The landing of a receive that was outstanding.
        landing: Option<Landing>,
        /// The batch of a send that was outstanding; how much of it was sent is not known.
        batch: Option<Box<Batch>>,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// [`Net::close`] was called.
    Local,
    /// The peer reset it, or is gone.
    Reset,
    /// Nobody listens at the address of a [`Net::connect`].
    Refused,
    /// The peer or the network did not answer in time.
    TimedOut,
    /// Any other error of the system, by its number (`errno`).
    System(i32),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Local => f.write_str("closed here"),
            CloseReason::Reset => f.write_str("reset by the peer"),
            CloseReason::Refused => f.write_str("connection refused"),
            CloseReason::TimedOut => f.write_str("timed out"),
            CloseReason::System(errno) => {
                write!(f, "{}", std::io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

/// Why a listener or an outgoing connection could not be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetError {
    /// The maximum of listeners or connections is reached.
    TooMany,
    /// The system refused: what was tried, and its error.
    System {
        /// What was tried, such as `bind 127.0.0.1:4420`.
        what: String,
        /// What the system answered.
        source: std::io::Error,
    },
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetError::TooMany => f.write_str("too many listeners or connections"),
            NetError::System { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for NetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NetError::TooMany => None,
            NetError::System { source, .. } => Some(source),
        }
    }
}

const _: () = assert!(size_of::<ConnId>() == 8);
const _: () = assert!(size_of::<Event>() <= 64);
