//! Listening sockets: one accept in flight for each.
//!
//! # Safety argument
//!
//! An accept points to the boxed address of its listener, which is neither moved nor read while
//! `accepting` is set; a listener is dropped only when neither `accepting` nor `cancelling` is. An
//! accepted descriptor is owned at once.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{opcode, types};
use net::{Event, LISTENERS_MAX, ListenerId, NetError, Socket};

use crate::ring::{Kind, Ring};
use crate::socket::{self, Address};

/// The listeners of one shard.
pub(crate) struct Listeners {
    table: Box<[Option<Listener>]>,
    next: u32,
}

struct Listener {
    id: ListenerId,
    fd: OwnedFd,
    local: SocketAddr,
    peer: Box<Address>,
    wanted: bool,
    accepting: bool,
    cancelling: bool,
    /// The kernel had no memory or descriptors: accept again at the next poll.
    stalled: bool,
    closing: bool,
}

impl Listeners {
    pub(crate) fn new() -> Listeners {
        Listeners { table: (0..LISTENERS_MAX).map(|_| None).collect(), next: 0 }
    }

    pub(crate) fn listen(
        &mut self,
        address: SocketAddr,
        ring: &mut Ring,
    ) -> Result<ListenerId, NetError> {
        let index = self.table.iter().position(Option::is_none).ok_or(NetError::TooMany)?;
        let (fd, local) = socket::listen(address)
            .map_err(|source| NetError::System { what: format!("listen on {address}"), source })?;
        let id = ListenerId(self.next);
        self.next += 1;
        self.table[index] = Some(Listener {
            id,
            fd,
            local,
            peer: Box::new(Address::empty()),
            wanted: true,
            accepting: false,
            cancelling: false,
            stalled: false,
            closing: false,
        });
        self.accept(index, ring);
        Ok(id)
    }

    pub(crate) fn local_address(&self, id: ListenerId) -> Option<SocketAddr> {
        let index = self.index(id)?;
        self.table[index].as_ref().map(|listener| listener.local)
    }

    pub(crate) fn set_accepting(&mut self, id: ListenerId, accepting: bool, ring: &mut Ring) {
        let Some(index) = self.index(id) else { return };
        if let Some(listener) = self.table[index].as_mut() {
            listener.wanted = accepting;
        }
        if accepting { self.accept(index, ring) } else { self.cancel(index, ring) }
    }

    pub(crate) fn unlisten(&mut self, id: ListenerId, ring: &mut Ring) {
        if let Some(index) = self.index(id) {
            self.close(index, ring);
        }
    }

    /// Closes all listeners; those that have operations in flight are dropped when these end.
    pub(crate) fn close_all(&mut self, ring: &mut Ring) {
        for index in 0..self.table.len() {
            self.close(index, ring);
        }
    }

    /// Accepts again where the kernel had no memory or descriptors.
    pub(crate) fn restart_stalled(&mut self, ring: &mut Ring) {
        for index in 0..self.table.len() {
            if self.table[index].as_ref().is_some_and(|listener| listener.stalled) {
                self.accept(index, ring);
            }
        }
    }

    pub(crate) fn on_completion(
        &mut self,
        kind: Kind,
        index: usize,
        result: i32,
        ring: &mut Ring,
    ) -> Option<Event> {
        let listener = self.table[index].as_mut().expect("kept while accepting");
        let mut event = None;
        if kind == Kind::CancelAccept {
            listener.cancelling = false;
        } else {
            listener.accepting = false;
            if result >= 0 {
                // SAFETY: the kernel has just made this descriptor for us alone.
                let fd = unsafe { OwnedFd::from_raw_fd(result) };
                let socket = Socket::from_fd(fd, listener.peer.to_std());
                event = Some(Event::Accepted { listener: listener.id, socket });
            } else {
                let retry = [libc::ECANCELED, libc::ECONNABORTED, libc::EINTR, libc::EAGAIN];
                listener.stalled = !retry.contains(&-result);
            }
        }
        if listener.closing {
            self.drop_if_quiet(index);
            return None;
        }
        if !listener.stalled {
            self.accept(index, ring);
        }
        event
    }

    /// Starts accepting, if that is wanted and not going on.
    fn accept(&mut self, index: usize, ring: &mut Ring) {
        let Some(listener) = self.table[index].as_mut() else { return };
        if listener.accepting || listener.cancelling || !listener.wanted || listener.closing {
            return;
        }
        listener.accepting = true;
        listener.stalled = false;
        listener.peer.clear();
        let fd = types::Fd(listener.fd.as_raw_fd());
        let len = listener.peer.len_mut_ptr();
        let entry = opcode::Accept::new(fd, listener.peer.as_mut_ptr(), len)
            .flags(libc::SOCK_CLOEXEC)
            .build();
        // SAFETY: see the safety argument; `accepting` was just set.
        unsafe { ring.push(&entry.user_data(Kind::Accept.tag(index))) };
    }

    fn cancel(&mut self, index: usize, ring: &mut Ring) {
        let Some(listener) = self.table[index].as_mut() else { return };
        if listener.accepting && !listener.cancelling {
            listener.cancelling = true;
            let entry = opcode::AsyncCancel::new(Kind::Accept.tag(index)).build();
            // SAFETY: the entry points to no memory.
            unsafe { ring.push(&entry.user_data(Kind::CancelAccept.tag(index))) };
        }
    }

    fn close(&mut self, index: usize, ring: &mut Ring) {
        self.cancel(index, ring);
        if let Some(listener) = self.table[index].as_mut() {
            listener.closing = true;
        }
        self.drop_if_quiet(index);
    }

    fn drop_if_quiet(&mut self, index: usize) {
        self.table[index].take_if(|listener| !listener.accepting && !listener.cancelling);
    }

    fn index(&self, id: ListenerId) -> Option<usize> {
        let is = |listener: &Listener| listener.id == id && !listener.closing;
        self.table.iter().position(|listener| listener.as_ref().is_some_and(is))
    }
}
