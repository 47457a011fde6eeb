//! One connection: what is outstanding, and the tables that the kernel reads meanwhile.
//!
//! # Safety argument
//!
//! The operations that this file makes point to the landing's bytes, the batch's bytes and the
//! connection's own tables (`iovecs`, `message`, `peer`). A connection lives in a boxed slot that
//! does not move; landing and batch are not handed out, and tables not touched, while their
//! operation is [`Phase::InRing`]; the slot is reused only when both are [`Phase::Quiet`]. Direct
//! calls pass the same memory, and the kernel keeps nothing of it after they return.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};
use net::{Batch, CloseReason, ConnId, Event, Landing};

use crate::socket::Address;

pub(crate) struct Conn {
    pub(crate) fd: OwnedFd,
    pub(crate) state: State,
    pub(crate) landing: Option<Landing>,
    pub(crate) batch: Option<Box<Batch>>,
    /// Bytes of the batch that are sent.
    pub(crate) sent: usize,
    /// How far the receive is, or the connect.
    pub(crate) receiving: Phase,
    pub(crate) sending: Phase,
    pub(crate) cancelling: bool,
    /// Direct receives in a row that found nothing.
    pub(crate) tries: u32,
    pub(crate) finished: bool,
    /// Times in a row that something was started again.
    pub(crate) retries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Open,
    Closing(CloseReason),
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was asked for.
    Quiet,
    /// Asked for, in a list of ours; the kernel knows nothing of it.
    Listed,
    /// The kernel has it.
    InRing,
}

/// What the kernel reads while a send or connect is in flight. Allocated once per slot.
pub(crate) struct Tables {
    iovecs: Box<[libc::iovec]>,
    message: libc::msghdr,
    peer: Address,
}

impl Tables {
    pub(crate) fn new(iovecs: usize) -> Tables {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all zeroes is a valid `msghdr`: no name, no pieces, no control data.
        let message = unsafe { std::mem::zeroed() };
        Tables { iovecs: vec![empty; iovecs].into(), message, peer: Address::empty() }
    }

    pub(crate) fn set_peer(&mut self, address: SocketAddr) {
        self.peer = Address::new(address);
    }
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd, state: State) -> Conn {
        Conn {
            fd,
            state,
            landing: None,
            batch: None,
            sent: 0,
            receiving: Phase::Quiet,
            sending: Phase::Quiet,
            cancelling: false,
            tries: 0,
            finished: false,
            retries: 0,
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.receiving == Phase::Quiet && self.sending == Phase::Quiet && !self.cancelling
    }

    /// True when the ring has an operation that can be cancelled.
    pub(crate) fn is_in_ring(&self) -> bool {
        self.receiving == Phase::InRing || self.sending == Phase::InRing
    }

    /// The event of a receive that got `len` bytes.
    pub(crate) fn on_received(&mut self, conn: ConnId, len: u32) -> Event {
        self.retries = 0;
        let landing = self.landing.take().expect("the receive's landing");
        match len {
            0 => Event::Ended { conn, landing },
            len => Event::Received { conn, landing, len },
        }
    }

    /// A connect to the address that [`Tables::set_peer`] left.
    pub(crate) fn connect_entry(&self, tables: &Tables) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw_fd());
        opcode::Connect::new(fd, tables.peer.as_ptr(), tables.peer.len()).build()
    }

    pub(crate) fn receive_entry(&mut self) -> squeue::Entry {
        let landing = self.landing.as_mut().expect("a receive has a landing");
        let len = landing.len();
        let bytes = landing.bytes_mut().as_mut_ptr();
        opcode::Recv::new(types::Fd(self.fd.as_raw_fd()), bytes, len).build()
    }

    /// Receives what is there, without waiting.
    pub(crate) fn receive_now(&mut self) -> Result<usize, i32> {
        let landing = self.landing.as_mut().expect("a receive has a landing");
        let bytes = landing.bytes_mut();
        let (fd, flags) = (self.fd.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: the pointer and length name the landing's bytes.
        outcome(unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), flags) })
    }

    /// A send of what is left of the batch, as much as the table holds.
    pub(crate) fn send_entry(&self, tables: &mut Tables) -> squeue::Entry {
        let used = self.fill(tables);
        let fd = types::Fd(self.fd.as_raw_fd());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        if let ([one], Ok(len)) = (&tables.iovecs[..used], u32::try_from(tables.iovecs[0].iov_len))
        {
            return opcode::Send::new(fd, one.iov_base.cast(), len).flags(flags).build();
        }
        let flags = u32::try_from(flags).expect("flags are positive");
        opcode::SendMsg::new(fd, &raw const tables.message).flags(flags).build()
    }

    /// Sends what fits now of what is left of the batch, without waiting; true when that was all.
    pub(crate) fn send_now(&mut self, tables: &mut Tables) -> Result<bool, i32> {
        self.fill(tables);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `fill` has pointed the message to the batch's bytes, with their lengths.
        let sent = outcome(unsafe {
            libc::sendmsg(self.fd.as_raw_fd(), &raw const tables.message, flags)
        })?;
        self.sent += sent;
        let batch = self.batch.as_ref().expect("a send has a batch");
        assert!(self.sent <= batch.byte_len());
        Ok(self.sent == batch.byte_len())
    }

    /// Points the tables to what is left of the batch; how many pieces that are, at least one.
    fn fill(&self, tables: &mut Tables) -> usize {
        let batch = self.batch.as_ref().expect("a send has a batch");
        let mut skip = self.sent;
        let mut used = 0;
        for piece in batch.pieces() {
            let passed = skip.min(piece.len());
            skip -= passed;
            let rest = &piece[passed..];
            if rest.is_empty() {
                continue;
            }
            if used == tables.iovecs.len() {
                break;
            }
            tables.iovecs[used] =
                libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            used += 1;
        }
        tables.message.msg_iov = tables.iovecs.as_mut_ptr();
        tables.message.msg_iovlen = used;
        used
    }

    /// Cancels everything that is in flight on the socket.
    pub(crate) fn cancel_entry(&self) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw_fd());
        opcode::AsyncCancel2::new(types::CancelBuilder::fd(fd).all()).build()
    }
}

fn outcome(result: isize) -> Result<usize, i32> {
    usize::try_from(result)
        .map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
