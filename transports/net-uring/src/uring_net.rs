//! The sockets of one shard on one ring.
//!
//! # Safety argument
//!
//! Entries are made by `conn.rs` and [`Listener`]; see there for what they point to. Slots and
//! listeners are boxed and never move. An operation's completion is matched to its slot by the user
//! data (operation and slot number), and a slot or listener is freed only when none of its
//! operations is in flight. Dropping a `UringNet` cancels everything and waits; if something is
//! still in flight after [`DRAIN_WAITS_MAX`] waits, slots and listeners are leaked.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use bdev::Fifo;
use io_uring::{opcode, types};
use net::{
    Batch, CloseReason, ConnId, Event, LISTENERS_MAX, Landing, ListenerId, Net, NetError, Socket,
    SocketKind,
};

use crate::conn::{Conn, State, Tables};
use crate::limits::{
    CONNECTIONS_MAX, DRAIN_WAITS_MAX, IOVECS_MAX, OPS_PER_CONNECTION, OPS_PER_LISTENER,
    RETRIES_MAX, SUBMISSIONS_MAX,
};
use crate::ring::{Ring, Taskrun};
use crate::socket::{self, Address};

/// How the sockets of a shard are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringNetConfig {
    /// Most connections at a time; clamped to [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Kernel buffer of each connection and direction in bytes; zero lets the kernel size it.
    pub socket_buffer_bytes: u32,
    /// Pieces of one send; clamped to [`IOVECS_MAX`].
    pub iovecs: usize,
    /// How the kernel runs the second half of operations.
    pub taskrun: Taskrun,
}

impl Default for UringNetConfig {
    fn default() -> UringNetConfig {
        UringNetConfig {
            connections_max: 1024,
            socket_buffer_bytes: 0,
            iovecs: 128,
            taskrun: Taskrun::default(),
        }
    }
}

/// A [`Net`] of TCP sockets. Must be made and used on one thread.
pub struct UringNet {
    ring: Ring,
    slots: Box<[Slot]>,
    free: Vec<u32>,
    listeners: Box<[Option<Listener>]>,
    listener_next: u32,
    /// Connections whose end is to be reported, without an operation that would tell.
    over: Fifo<u32>,
    /// Receives for the next kick: they follow the sends, so that no answer waits for them.
    receives: Fifo<u32>,
    buffer: i32,
}

struct Slot {
    generation: u32,
    conn: Option<Conn>,
    tables: Tables,
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

/// What a completion belongs to, in the top byte of its user data.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Receive = 1,
    Send = 2,
    Connect = 3,
    Cancel = 4,
    Accept = 5,
    CancelAccept = 6,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Receive, Kind::Send, Kind::Connect, Kind::Cancel, Kind::Accept, Kind::CancelAccept];

    fn tag(self, index: usize) -> u64 {
        (self as u64) << 56 | index as u64
    }

    fn of(user_data: u64) -> (Kind, usize) {
        let number = user_data >> 56;
        let kind = Kind::ALL.into_iter().find(|&kind| kind as u64 == number);
        let index = usize::try_from(user_data & 0xffff_ffff).expect("masked to 32 bits");
        (kind.expect("the kernel returns our user data"), index)
    }
}

impl UringNet {
    /// The sockets of the calling thread's shard.
    ///
    /// # Errors
    /// What the system answered to `io_uring_setup`; `what` says so.
    ///
    /// # Panics
    /// When `connections_max` or `iovecs` is zero.
    pub fn new(config: &UringNetConfig) -> Result<UringNet, NetError> {
        assert!(config.connections_max > 0 && config.iovecs > 0);
        let connections = config.connections_max.min(CONNECTIONS_MAX);
        let iovecs = config.iovecs.min(IOVECS_MAX);
        let in_flight = connections * OPS_PER_CONNECTION + LISTENERS_MAX * OPS_PER_LISTENER;
        let submissions = in_flight.next_power_of_two().min(SUBMISSIONS_MAX);
        let ring = Ring::new(submissions, in_flight, config.taskrun)
            .map_err(|source| system("io_uring_setup for sockets", source))?;
        let slot = || Slot { generation: 0, conn: None, tables: Tables::new(iovecs) };
        let count = u32::try_from(connections).expect("clamped above");
        Ok(UringNet {
            ring,
            slots: (0..connections).map(|_| slot()).collect(),
            free: (0..count).rev().collect(),
            listeners: (0..LISTENERS_MAX).map(|_| None).collect(),
            listener_next: 0,
            over: Fifo::new(connections),
            receives: Fifo::new(connections),
            buffer: i32::try_from(config.socket_buffer_bytes).unwrap_or(i32::MAX),
        })
    }

    fn open(&mut self, fd: OwnedFd, state: State) -> ConnId {
        let slot = self.free.pop().expect("the caller checked for room");
        let entry = &mut self.slots[slot as usize];
        assert!(entry.conn.is_none());
        entry.generation = entry.generation.wrapping_add(1);
        entry.conn = Some(Conn::new(fd, state));
        ConnId::new(slot, entry.generation)
    }

    /// The connection, unless it is closed or closing.
    fn live(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(conn.slot())?;
        let live = slot.conn.as_mut().filter(|_| slot.generation == conn.generation())?;
        let open = !matches!(live.state, State::Closing(_));
        open.then_some(live)
    }

    fn on_completion(&mut self, user_data: u64, result: i32) -> Option<Event> {
        let (kind, index) = Kind::of(user_data);
        if matches!(kind, Kind::Accept | Kind::CancelAccept) {
            return self.on_accept(kind, index, result);
        }
        let slot = &mut self.slots[index];
        let conn = slot.conn.as_mut().expect("a slot is kept while its operations are in flight");
        match kind {
            Kind::Receive | Kind::Connect => conn.receiving = false,
            Kind::Send => conn.sending = false,
            _ => conn.cancelling = false,
        }
        if matches!(conn.state, State::Closing(_)) {
            return self.end_if_quiet(index);
        }
        let id = ConnId::new(u32::try_from(index).expect("slots are few"), slot.generation);
        match kind {
            Kind::Receive if result >= 0 => {
                conn.retries = 0;
                let landing = conn.landing.take().expect("the receive's landing");
                let len = u32::try_from(result).expect("it is not negative");
                Some(match len {
                    0 => Event::Ended { conn: id, landing },
                    len => Event::Received { conn: id, landing, len },
                })
            }
            Kind::Connect if result >= 0 => {
                conn.state = State::Open;
                Some(Event::Connected { conn: id })
            }
            Kind::Send if result > 0 => {
                conn.retries = 0;
                conn.sent += usize::try_from(result).expect("it is positive");
                let batch = conn.batch.as_ref().expect("the send's batch");
                assert!(conn.sent <= batch.byte_len());
                if conn.sent < batch.byte_len() {
                    self.start(kind, index);
                    return None;
                }
                let batch = conn.batch.take().expect("the send's batch");
                Some(Event::Sent { conn: id, batch })
            }
            _ => self.on_failure(kind, index, result),
        }
    }

    /// An operation of an open connection failed: try again or end the connection.
    fn on_failure(&mut self, kind: Kind, index: usize, result: i32) -> Option<Event> {
        let conn = self.slots[index].conn.as_mut().expect("seen by the caller");
        let errno = -result;
        if (socket::is_temporary(errno) || errno == 0) && conn.retries < RETRIES_MAX {
            conn.retries += 1;
            self.start(kind, index);
            return None;
        }
        conn.state = State::Closing(socket::reason(errno));
        self.cancel_or_end(index)
    }

    /// Starts an operation whose landing, batch or address is in place.
    fn start(&mut self, kind: Kind, index: usize) {
        let Slot { conn, tables, .. } = &mut self.slots[index];
        let conn = conn.as_mut().expect("operations are started on connections");
        let entry = match kind {
            Kind::Receive => conn.receive_entry(),
            Kind::Send => conn.send_entry(tables),
            Kind::Connect => conn.connect_entry(tables),
            _ => conn.cancel_entry(),
        };
        match kind {
            Kind::Receive | Kind::Connect => conn.receiving = true,
            Kind::Send => conn.sending = true,
            _ => conn.cancelling = true,
        }
        // SAFETY: landing, batch and tables stay where they are and untouched while the flag that
        // was just set is (see the safety arguments of this file and `conn.rs`).
        unsafe { self.ring.push(&entry.user_data(kind.tag(index))) };
    }

    fn start_receives(&mut self) {
        while let Some(slot) = self.receives.pop() {
            let index = slot as usize;
            let conn = self.slots[index].conn.as_mut().expect("kept while it is receiving");
            if conn.state == State::Open {
                self.start(Kind::Receive, index);
                continue;
            }
            // It was closed meanwhile, and its cancel would have come before the receive.
            conn.receiving = false;
            if conn.is_quiet() {
                let pushed = self.over.push(slot);
                assert!(pushed.is_ok(), "each slot closes once");
            }
        }
    }

    /// Cancels what is in flight on a closing connection; its end, when nothing is.
    fn cancel_or_end(&mut self, index: usize) -> Option<Event> {
        let conn = self.slots[index].conn.as_mut().expect("seen by the caller");
        if !conn.is_quiet() && !conn.cancelling {
            self.start(Kind::Cancel, index);
        }
        self.end_if_quiet(index)
    }

    fn end_if_quiet(&mut self, index: usize) -> Option<Event> {
        let slot = &mut self.slots[index];
        let conn = slot.conn.take_if(|conn| conn.is_quiet())?;
        let State::Closing(reason) = conn.state else { panic!("only closing connections end") };
        let number = u32::try_from(index).expect("slots are few");
        self.free.push(number);
        let id = ConnId::new(number, slot.generation);
        Some(Event::Closed { conn: id, reason, landing: conn.landing, batch: conn.batch })
    }

    fn on_accept(&mut self, kind: Kind, index: usize, result: i32) -> Option<Event> {
        let listener = self.listeners[index].as_mut().expect("kept while accepting");
        let mut event = None;
        if kind == Kind::CancelAccept {
            listener.cancelling = false;
        } else {
            listener.accepting = false;
            if result >= 0 {
                // SAFETY: the kernel has just made this descriptor for us alone.
                let fd = unsafe { OwnedFd::from_raw_fd(result) };
                let socket = Socket::from_fd(fd, listener.peer.to_std());
                let listener = listener.id;
                event = Some(Event::Accepted { listener, socket });
            } else {
                let retry = [libc::ECANCELED, libc::ECONNABORTED, libc::EINTR, libc::EAGAIN];
                listener.stalled = !retry.contains(&-result);
            }
        }
        if listener.closing {
            event = None;
            if !listener.accepting && !listener.cancelling {
                self.listeners[index] = None;
            }
        } else if !listener.stalled {
            self.accept(index);
        }
        event
    }

    /// Starts accepting, if that is wanted and not going on.
    fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners[index].as_mut() else { return };
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
        // SAFETY: the address is boxed, and neither moved nor read while `accepting` is set.
        unsafe { self.ring.push(&entry.user_data(Kind::Accept.tag(index))) };
    }

    fn cancel_accept(&mut self, index: usize) {
        let Some(listener) = self.listeners[index].as_mut() else { return };
        if listener.accepting && !listener.cancelling {
            listener.cancelling = true;
            let entry = opcode::AsyncCancel::new(Kind::Accept.tag(index)).build();
            // SAFETY: the entry points to no memory.
            unsafe { self.ring.push(&entry.user_data(Kind::CancelAccept.tag(index))) };
        }
    }

    fn listener_index(&self, id: ListenerId) -> Option<usize> {
        let is = |listener: &Listener| listener.id == id && !listener.closing;
        self.listeners.iter().position(|listener| listener.as_ref().is_some_and(is))
    }
}

impl Net for UringNet {
    fn listen(&mut self, address: SocketAddr) -> Result<ListenerId, NetError> {
        let index = self.listeners.iter().position(Option::is_none).ok_or(NetError::TooMany)?;
        let (fd, local) = socket::listen(address)
            .map_err(|source| system(&format!("listen on {address}"), source))?;
        let id = ListenerId(self.listener_next);
        self.listener_next += 1;
        self.listeners[index] = Some(Listener {
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
        self.accept(index);
        Ok(id)
    }

    fn local_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        let index = self.listener_index(listener)?;
        self.listeners[index].as_ref().map(|listener| listener.local)
    }

    fn set_accepting(&mut self, listener: ListenerId, accepting: bool) {
        let Some(index) = self.listener_index(listener) else { return };
        if let Some(listener) = self.listeners[index].as_mut() {
            listener.wanted = accepting;
        }
        if accepting { self.accept(index) } else { self.cancel_accept(index) }
    }

    fn unlisten(&mut self, listener: ListenerId) {
        let Some(index) = self.listener_index(listener) else { return };
        self.cancel_accept(index);
        let Some(listener) = self.listeners[index].as_mut() else { return };
        listener.closing = true;
        if !listener.accepting && !listener.cancelling {
            self.listeners[index] = None;
        }
    }

    fn adopt(&mut self, socket: Socket) -> Result<ConnId, Socket> {
        if self.free.is_empty() {
            return Err(socket);
        }
        let peer = socket.peer();
        match socket.into_kind() {
            SocketKind::Fd(fd) => {
                // A socket that cannot be tuned is gone: its first receive says why.
                let _ = socket::tune(fd.as_raw_fd(), self.buffer);
                Ok(self.open(fd, State::Open))
            }
            kind @ SocketKind::Pipe(_) => Err(Socket::new(kind, peer)),
        }
    }

    fn connect(&mut self, address: SocketAddr) -> Result<ConnId, NetError> {
        if self.free.is_empty() {
            return Err(NetError::TooMany);
        }
        let fd = socket::stream(address)
            .and_then(|fd| socket::tune(fd.as_raw_fd(), self.buffer).map(|()| fd))
            .map_err(|source| system(&format!("connect to {address}"), source))?;
        let id = self.open(fd, State::Connecting);
        let slot = &mut self.slots[id.slot()];
        slot.tables.set_peer(address);
        self.start(Kind::Connect, id.slot());
        Ok(id)
    }

    fn receive(&mut self, conn: ConnId, landing: Landing) -> Result<(), Landing> {
        let Some(live) = self.live(conn) else { return Err(landing) };
        assert!(live.state == State::Open, "a connection is used once it is connected");
        assert!(live.landing.is_none(), "one receive is outstanding at most");
        live.landing = Some(landing);
        live.receiving = true;
        let pushed = self.receives.push(u32::try_from(conn.slot()).expect("slots are few"));
        assert!(pushed.is_ok(), "each slot receives once at a time");
        Ok(())
    }

    fn send(&mut self, conn: ConnId, batch: Box<Batch>) -> Result<(), Box<Batch>> {
        let Some(live) = self.live(conn) else { return Err(batch) };
        assert!(live.state == State::Open, "a connection is used once it is connected");
        assert!(live.batch.is_none(), "one send is outstanding at most");
        assert!(!batch.is_empty(), "an empty batch is not sent");
        assert!(!live.finished, "nothing is sent after finish");
        live.batch = Some(batch);
        live.sent = 0;
        self.start(Kind::Send, conn.slot());
        Ok(())
    }

    fn finish(&mut self, conn: ConnId) {
        let Some(live) = self.live(conn) else { return };
        assert!(live.batch.is_none(), "finish comes after the last send");
        live.finished = true;
        socket::shutdown_write(live.fd.as_raw_fd());
    }

    fn close(&mut self, conn: ConnId) {
        let Some(live) = self.live(conn) else { return };
        live.state = State::Closing(CloseReason::Local);
        if live.is_quiet() {
            let slot = u32::try_from(conn.slot()).expect("slots are few");
            let pushed = self.over.push(slot);
            assert!(pushed.is_ok(), "each slot closes once");
        } else if !live.cancelling {
            self.start(Kind::Cancel, conn.slot());
        }
    }

    fn kick(&mut self) {
        self.start_receives();
        self.ring.kick();
    }

    fn poll(&mut self, events: &mut Fifo<Event>) {
        while !events.is_full() {
            let Some(slot) = self.over.pop() else { break };
            let event = self.end_if_quiet(slot as usize).expect("it was quiet when it closed");
            let pushed = events.push(event);
            assert!(pushed.is_ok(), "room was checked");
        }
        for index in 0..self.listeners.len() {
            if self.listeners[index].as_ref().is_some_and(|listener| listener.stalled) {
                self.accept(index);
            }
        }
        let mut deferred = false;
        while !events.is_full() {
            let Some((user_data, result)) = self.ring.pop() else {
                if deferred {
                    return;
                }
                deferred = true;
                self.ring.run_deferred();
                continue;
            };
            if let Some(event) = self.on_completion(user_data, result) {
                let pushed = events.push(event);
                assert!(pushed.is_ok(), "room was checked");
            }
        }
    }

    fn connections(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn connections_max(&self) -> usize {
        self.slots.len()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        Some(self.ring.as_raw_fd())
    }
}

impl Drop for UringNet {
    fn drop(&mut self) {
        for index in 0..self.listeners.len() {
            self.cancel_accept(index);
            if let Some(listener) = self.listeners[index].as_mut() {
                listener.closing = true;
            }
        }
        self.start_receives();
        for index in 0..self.slots.len() {
            let Some(conn) = self.slots[index].conn.as_mut() else { continue };
            conn.state = State::Closing(CloseReason::Local);
            self.cancel_or_end(index);
        }
        for _ in 0..DRAIN_WAITS_MAX {
            while let Some((user_data, result)) = self.ring.pop() {
                drop(self.on_completion(user_data, result));
            }
            if self.ring.in_flight() == 0 {
                return;
            }
            self.ring.wait();
        }
        // The kernel may still use this memory: never give it back.
        std::mem::forget(std::mem::take(&mut self.slots));
        std::mem::forget(std::mem::take(&mut self.listeners));
    }
}

impl fmt::Debug for UringNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringNet")
            .field("connections", &self.connections())
            .field("in_flight", &self.ring.in_flight())
            .finish_non_exhaustive()
    }
}

fn system(what: &str, source: io::Error) -> NetError {
    NetError::System { what: what.to_owned(), source }
}

#[cfg(test)]
mod tests;
