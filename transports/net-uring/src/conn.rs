//! One connection: what is outstanding, and the tables that the kernel reads meanwhile.
//!
//! # Safety argument
//!
//! The operations that this file makes point to the landing's bytes, the batch's bytes and the
//! connection's own tables (`iovecs`, `message`, `peer`). A connection lives in a boxed slot that
//! does not move; landing and batch are not handed out, and tables not touched, while the flag of
//! their operation is set (`receiving`, `sending`); the slot is reused only when none is set.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};
use net::{Batch, CloseReason, Landing};

use crate::socket::Address;

pub(crate) struct Conn {
    pub(crate) fd: OwnedFd,
    pub(crate) state: State,
    pub(crate) landing: Option<Landing>,
    pub(crate) batch: Option<Box<Batch>>,
    /// Bytes of the batch that are sent.
    pub(crate) sent: usize,
    /// A receive or connect is in flight.
    pub(crate) receiving: bool,
    pub(crate) sending: bool,
    pub(crate) cancelling: bool,
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
            receiving: false,
            sending: false,
            cancelling: false,
            finished: false,
            retries: 0,
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        !self.receiving && !self.sending && !self.cancelling
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

    /// A send of what is left of the batch, as much as the table holds.
    pub(crate) fn send_entry(&self, tables: &mut Tables) -> squeue::Entry {
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
        let fd = types::Fd(self.fd.as_raw_fd());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        if let ([one], Ok(len)) = (&tables.iovecs[..used], u32::try_from(tables.iovecs[0].iov_len))
        {
            return opcode::Send::new(fd, one.iov_base.cast(), len).flags(flags).build();
        }
        tables.message.msg_iov = tables.iovecs.as_mut_ptr();
        tables.message.msg_iovlen = used;
        let flags = u32::try_from(flags).expect("flags are positive");
        opcode::SendMsg::new(fd, &raw const tables.message).flags(flags).build()
    }

    /// Cancels everything that is in flight on the socket.
    pub(crate) fn cancel_entry(&self) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw_fd());
        opcode::AsyncCancel2::new(types::CancelBuilder::fd(fd).all()).build()
    }
}
