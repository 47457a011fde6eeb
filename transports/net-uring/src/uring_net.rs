//! The sockets of one shard on one ring.
//!
//! # Safety argument
//!
//! Entries are made by `conn.rs` and `listener.rs`; see there for what they point to. Slots are
//! boxed and never move. An operation's completion is matched to its slot by the user data
//! (operation and slot number), and a slot is freed only when none of its operations is in flight.
//! Dropping a `UringNet` cancels everything and waits; if something is still in flight after
//! [`DRAIN_WAITS_MAX`] waits, slots and listeners are leaked.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use bdev::Fifo;
use net::{
    Batch, CloseReason, ConnId, Event, LISTENERS_MAX, Landing, ListenerId, Net, NetError, Socket,
    SocketKind,
};

use crate::conn::{Conn, Phase, State, Tables};
use crate::limits::{
    CONNECTIONS_MAX, DIRECT_DEFAULT, DIRECT_TRIES, DRAIN_WAITS_MAX, IOVECS_MAX, OPS_PER_CONNECTION,
    OPS_PER_LISTENER, RETRIES_MAX, SUBMISSIONS_MAX,
};
use crate::listener::Listeners;
use crate::ring::{Kind, Ring};
use crate::socket;

/// How the sockets of a shard are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringNetConfig {
    /// Most connections at a time; clamped to [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Kernel buffer of each connection and direction in bytes; zero lets the kernel size it.
    pub socket_buffer_bytes: u32,
    /// Pieces of one send; clamped to [`IOVECS_MAX`].
    pub iovecs: usize,
    /// Busy connections that are served by system calls of their own instead of by the ring; see
    /// the crate's documentation. Zero leaves everything to the ring.
    pub direct_max: usize,
}

impl Default for UringNetConfig {
    fn default() -> UringNetConfig {
        UringNetConfig {
            connections_max: 1024,
            socket_buffer_bytes: 0,
            iovecs: 128,
            direct_max: DIRECT_DEFAULT,
        }
    }
}

/// A [`Net`] of TCP sockets. Must be made and used on one thread.
pub struct UringNet {
    ring: Ring,
    slots: Box<[Slot]>,
    free: Vec<u32>,
    listeners: Listeners,
    /// Connections whose end is to be reported, without an operation that would tell.
    over: Fifo<u32>,
    /// Sends for the next kick.
    sends: Fifo<u32>,
    /// Sends that direct calls have finished, to be reported.
    sent: Fifo<u32>,
    /// Receives that direct calls try in each poll.
    hot: Fifo<u32>,
    /// Receives for the ring in the next kick: they follow the sends, so that no answer waits.
    receives: Fifo<u32>,
    /// Always readable: a shard that has something listed must not sleep.
    awake: OwnedFd,
    direct_max: usize,
    buffer: i32,
}

struct Slot {
    generation: u32,
    conn: Option<Conn>,
    tables: Tables,
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
        let ring = Ring::new(submissions, in_flight)
            .map_err(|source| system("io_uring_setup for sockets", source))?;
        let slot = || Slot { generation: 0, conn: None, tables: Tables::new(iovecs) };
        let count = u32::try_from(connections).expect("clamped above");
        Ok(UringNet {
            ring,
            slots: (0..connections).map(|_| slot()).collect(),
            free: (0..count).rev().collect(),
            listeners: Listeners::new(),
            over: Fifo::new(connections),
            sends: Fifo::new(connections),
            sent: Fifo::new(connections),
            hot: Fifo::new(connections),
            receives: Fifo::new(connections),
            awake: socket::readable_fd().map_err(|source| system("eventfd", source))?,
            direct_max: config.direct_max,
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
            return self.listeners.on_completion(kind, index, result, &mut self.ring);
        }
        let slot = &mut self.slots[index];
        let conn = slot.conn.as_mut().expect("a slot is kept while its operations are in flight");
        match kind {
            Kind::Receive | Kind::Connect => conn.receiving = Phase::Quiet,
            Kind::Send => conn.sending = Phase::Quiet,
            _ => conn.cancelling = false,
        }
        if matches!(conn.state, State::Closing(_)) {
            return self.end_if_quiet(index);
        }
        let id = ConnId::new(u32::try_from(index).expect("slots are few"), slot.generation);
        match kind {
            Kind::Receive if result >= 0 => {
                Some(conn.on_received(id, u32::try_from(result).expect("it is not negative")))
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
            Kind::Receive | Kind::Connect => conn.receiving = Phase::InRing,
            Kind::Send => conn.sending = Phase::InRing,
            _ => conn.cancelling = true,
        }
        // SAFETY: landing, batch and tables stay where they are and untouched while the operation
        // is in the ring (see the safety arguments of this file and `conn.rs`).
        unsafe { self.ring.push(&entry.user_data(kind.tag(index))) };
    }

    /// Carries out the sends of this kick: a few by direct calls, many through the ring.
    fn start_sends(&mut self) {
        let is_direct = self.sends.len() <= self.direct_max;
        while let Some(slot) = self.sends.pop() {
            let index = slot as usize;
            let Slot { conn, tables, .. } = &mut self.slots[index];
            let conn = conn.as_mut().expect("kept while its send is listed");
            if conn.state != State::Open {
                conn.sending = Phase::Quiet;
                self.list_if_over(slot);
                continue;
            }
            let outcome = if is_direct { conn.send_now(tables) } else { Ok(false) };
            if outcome == Ok(true) {
                push(&mut self.sent, slot);
            } else {
                // The ring waits for room, and reports errors.
                self.start(Kind::Send, index);
            }
        }
    }

    fn start_receives(&mut self) {
        while let Some(slot) = self.receives.pop() {
            let index = slot as usize;
            let conn = self.slots[index].conn.as_mut().expect("kept while its receive is listed");
            if conn.state == State::Open {
                self.start(Kind::Receive, index);
                continue;
            }
            // It was closed meanwhile, and its cancel would have come before the receive.
            conn.receiving = Phase::Quiet;
            self.list_if_over(slot);
        }
    }

    fn list_if_over(&mut self, slot: u32) {
        let conn = self.slots[slot as usize].conn.as_ref().expect("the caller's connection");
        if conn.is_quiet() {
            push(&mut self.over, slot);
        }
    }

    /// What is known without the kernel: closed connections and direct sends.
    fn poll_listed(&mut self, events: &mut Fifo<Event>) {
        while !events.is_full() {
            let Some(slot) = self.over.pop() else { break };
            let event = self.end_if_quiet(slot as usize).expect("it was quiet when it closed");
            push(events, event);
        }
        while !events.is_full() {
            let Some(slot) = self.sent.pop() else { break };
            let index = slot as usize;
            let id = ConnId::new(slot, self.slots[index].generation);
            let conn = self.slots[index].conn.as_mut().expect("kept until it is reported");
            conn.sending = Phase::Quiet;
            if conn.state == State::Open {
                conn.retries = 0;
                let batch = conn.batch.take().expect("the send's batch");
                push(events, Event::Sent { conn: id, batch });
            } else if let Some(event) = self.end_if_quiet(index) {
                push(events, event);
            }
        }
    }

    /// Tries each busy connection once; those that stay quiet are left to the ring.
    fn poll_hot(&mut self, events: &mut Fifo<Event>) {
        for _ in 0..self.hot.len() {
            if events.is_full() {
                return;
            }
            let Some(slot) = self.hot.pop() else { return };
            let index = slot as usize;
            let id = ConnId::new(slot, self.slots[index].generation);
            let conn = self.slots[index].conn.as_mut().expect("kept while its receive is listed");
            if conn.state != State::Open {
                conn.receiving = Phase::Quiet;
                if let Some(event) = self.end_if_quiet(index) {
                    push(events, event);
                }
                continue;
            }
            match conn.receive_now() {
                Ok(len) => {
                    conn.receiving = Phase::Quiet;
                    let len = u32::try_from(len).expect("at most the landing's length");
                    push(events, conn.on_received(id, len));
                }
                Err(libc::EAGAIN) if conn.tries < DIRECT_TRIES => {
                    conn.tries += 1;
                    push(&mut self.hot, slot);
                }
                // Errors are reported by the ring.
                Err(_) => push(&mut self.receives, slot),
            }
        }
    }

    /// Cancels what is in flight on a closing connection; its end, when nothing is.
    fn cancel_or_end(&mut self, index: usize) -> Option<Event> {
        let conn = self.slots[index].conn.as_mut().expect("seen by the caller");
        if conn.is_in_ring() && !conn.cancelling {
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
}

impl Net for UringNet {
    fn listen(&mut self, address: SocketAddr) -> Result<ListenerId, NetError> {
        self.listeners.listen(address, &mut self.ring)
    }

    fn local_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.listeners.local_address(listener)
    }

    fn set_accepting(&mut self, listener: ListenerId, accepting: bool) {
        self.listeners.set_accepting(listener, accepting, &mut self.ring);
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.listeners.unlisten(listener, &mut self.ring);
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
        live.receiving = Phase::Listed;
        live.tries = 0;
        let is_direct = self.hot.len() < self.direct_max;
        let list = if is_direct { &mut self.hot } else { &mut self.receives };
        push(list, u32::try_from(conn.slot()).expect("slots are few"));
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
        live.sending = Phase::Listed;
        push(&mut self.sends, u32::try_from(conn.slot()).expect("slots are few"));
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
        let (is_quiet, is_in_ring) = (live.is_quiet(), live.is_in_ring());
        if is_quiet {
            push(&mut self.over, u32::try_from(conn.slot()).expect("slots are few"));
        } else if is_in_ring {
            self.start(Kind::Cancel, conn.slot());
        }
    }

    fn kick(&mut self) {
        self.start_sends();
        self.start_receives();
        self.ring.kick();
    }

    fn poll(&mut self, events: &mut Fifo<Event>) {
        self.poll_listed(events);
        self.listeners.restart_stalled(&mut self.ring);
        self.poll_hot(events);
        let mut asked = false;
        while !events.is_full() {
            let Some((user_data, result)) = self.ring.pop() else {
                if asked {
                    return;
                }
                asked = true;
                self.ring.run_pending();
                continue;
            };
            if let Some(event) = self.on_completion(user_data, result) {
                push(events, event);
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
        let lists = [&self.over, &self.sends, &self.sent, &self.hot, &self.receives];
        let is_listed = lists.into_iter().any(|list| !list.is_empty());
        Some(if is_listed { self.awake.as_raw_fd() } else { self.ring.as_raw_fd() })
    }
}

impl Drop for UringNet {
    fn drop(&mut self) {
        self.listeners.close_all(&mut self.ring);
        for index in 0..self.slots.len() {
            let Some(conn) = self.slots[index].conn.as_mut() else { continue };
            conn.state = State::Closing(CloseReason::Local);
            for phase in [&mut conn.receiving, &mut conn.sending] {
                if *phase == Phase::Listed {
                    *phase = Phase::Quiet;
                }
            }
            drop(self.cancel_or_end(index));
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
        std::mem::forget(std::mem::replace(&mut self.listeners, Listeners::new()));
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

/// Each list has room for every slot, and each slot is in it once at most; events are pushed where
/// room was checked.
fn push<T>(list: &mut Fifo<T>, item: T) {
    assert!(list.push(item).is_ok(), "there is room");
}

fn system(what: &str, source: io::Error) -> NetError {
    NetError::System { what: what.to_owned(), source }
}

#[cfg(test)]
mod tests;
