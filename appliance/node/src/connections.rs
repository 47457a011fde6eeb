//! The connections of a shard: moves bytes between sockets and protocol machines.
//!
//! All objects exist from the start. A connection is *lively* from the moment that something
//! happens to it until a turn in which nothing did; only lively ones are looked at, and everyone is
//! at every sweep.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bdev::ring::Producer;
use bdev::{Completion, Fifo, Instant, Pool, Request};
use net::{Batch, ConnId, Event, Landing, Net, Socket};
use nvmf::{Addresses, CloseReason, Connection, Cx, NamespaceHandle, Target};

use crate::computing::Computing;
use crate::limits::{REQUESTS_PER_POLL, SPARE_SHARE};
use crate::namespaces::Namespaces;
use crate::refusal::{Cause, Refusal};
use crate::stats::ShardCounters;

pub(crate) struct Connections {
    slab: Vec<Slot>,
    free: Vec<u32>,
    /// From a socket's slot to its connection's index.
    by_socket: Vec<Option<u32>>,
    lively: Fifo<u32>,
    /// One of them wants to receive and has nothing to receive into.
    waiting: bool,
    requests: Fifo<(NamespaceHandle, Request)>,
    pool: Rc<Pool>,
    counters: Arc<ShardCounters>,
    refusals: Producer<Refusal>,
    computing: Computing,
    open: usize,
}

struct Slot {
    machine: Connection,
    socket: Option<ConnId>,
    /// Where it came from, once it was in use.
    peer: Option<SocketAddr>,
    /// Here, unless it is being sent.
    batch: Option<Box<Batch>>,
    receiving: bool,
    closing: bool,
    lively: bool,
    in_use: bool,
    /// Something happened since the last look.
    stirred: bool,
}

impl Connections {
    pub(crate) fn new(
        target: &Arc<Target>,
        count: usize,
        sockets: usize,
        pool: Rc<Pool>,
        counters: Arc<ShardCounters>,
        refusals: Producer<Refusal>,
        computing: Computing,
    ) -> Connections {
        let count = u32::try_from(count).expect("limited");
        let slot = |index| Slot {
            machine: Connection::new(Arc::clone(target), index),
            socket: None,
            peer: None,
            batch: Some(Batch::with_defaults()),
            receiving: false,
            closing: false,
            lively: false,
            in_use: false,
            stirred: false,
        };
        Connections {
            slab: (0..count).map(slot).collect(),
            free: (0..count).rev().collect(),
            by_socket: vec![None; sockets],
            lively: Fifo::new(count as usize),
            waiting: false,
            requests: Fifo::new(REQUESTS_PER_POLL),
            pool,
            counters,
            refusals,
            computing,
            open: 0,
        }
    }

    /// Connections that are not completely over: sockets open or requests in flight.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Whether one of them waits for memory to receive into. (That something happened at one is no
    /// reason to look again: a sweep itself makes it happen.)
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Takes over an accepted socket; closes it when all connections are taken.
    pub(crate) fn adopt(
        &mut self,
        net: &mut dyn Net,
        socket: Socket,
        addresses: Addresses,
        now: Instant,
    ) {
        if self.free.len() < self.slab.len() / SPARE_SHARE {
            self.make_room(net);
        }
        let Some(&index) = self.free.last() else {
            self.counters.turned_away.add(1);
            return;
        };
        let Ok(conn) = net.adopt(socket) else {
            self.counters.turned_away.add(1);
            return;
        };
        let slot = &mut self.slab[index as usize];
        assert!(!slot.in_use && slot.machine.is_closed());
        if !slot.machine.accept(Cx { pool: &self.pool, now }, addresses) {
            self.counters.turned_away.add(1);
            net.close(conn);
            return;
        }
        self.free.pop();
        slot.peer = Some(addresses.peer);
        (slot.socket, slot.in_use, slot.closing, slot.receiving) = (Some(conn), true, false, false);
        self.by_socket[conn.slot()] = Some(index);
        self.open += 1;
        self.counters.connections.set(self.open as u64);
        self.stir(index);
    }

    /// Ends the connection that has to give way first, so that one that comes later finds a place:
    /// the oldest that has not said who it is, or else the oldest to the discovery service. Nobody
    /// keeps others out by connecting and saying nothing.
    fn make_room(&mut self, net: &mut dyn Net) {
        let waiting = |slot: &&mut Slot| slot.socket.is_some() && !slot.closing;
        let all = self.slab.iter_mut().filter(waiting);
        let first = all
            .filter_map(|slot| Some((slot.machine.gives_way()?, slot)))
            .min_by_key(|(since, _)| *since);
        if let Some((_, slot)) = first {
            slot.closing = true;
            net.close(slot.socket.expect("just seen"));
            self.counters.turned_away.add(1);
        }
    }

    /// Something happened to a socket. Accepted ones are the shard's business.
    pub(crate) fn on_event(&mut self, event: Event, now: Instant) {
        let (conn, landing, len) = match event {
            Event::Received { conn, landing, len } => (conn, Some(landing), len),
            Event::Ended { conn, landing } => (conn, Some(landing), 0),
            Event::Sent { conn, batch } => return self.on_sent(conn, batch, now),
            Event::Closed { conn, batch, .. } => return self.on_closed(conn, batch, now),
            Event::Connected { conn } => (conn, None, 0),
            Event::Accepted { .. } => return,
        };
        let Some(index) = self.index_of(conn) else { return };
        let slot = &mut self.slab[index as usize];
        if let Some(landing) = landing {
            slot.receiving = false;
            self.counters.received_bytes.add(u64::from(len));
            slot.machine.on_received(Cx { pool: &self.pool, now }, landing, len);
        }
        self.stir(index);
    }

    /// A request ended.
    pub(crate) fn on_completion(&mut self, index: u32, completion: Completion, now: Instant) {
        let slot = &mut self.slab[index as usize];
        slot.machine.on_completion(Cx { pool: &self.pool, now }, completion);
        self.stir(index);
    }

    /// Takes back what was computed. True when there was anything.
    pub(crate) fn take_computed(&mut self, now: Instant) -> bool {
        let mut found = false;
        while let Some(computation) = self.computing.take() {
            found = true;
            let index = computation.connection();
            let machine = &mut self.slab[index as usize].machine;
            machine.on_computed(Cx { pool: &self.pool, now }, computation);
            self.stir(index);
        }
        if found && std::mem::take(&mut self.computing.waiting) {
            for index in 0..self.slab.len() {
                if self.slab[index].machine.wants_computation() {
                    self.stir(u32::try_from(index).expect("limited"));
                }
            }
        }
        found
    }

    /// Collects the requests of lively connections. True when there were any.
    pub(crate) fn collect(&mut self, namespaces: &mut Namespaces, now: Instant) -> bool {
        let mut found = false;
        for _ in 0..self.lively.len() {
            let index = self.lively.pop().expect("counted");
            self.lively.push(index).expect("it was just taken out");
            found |= self.collect_from(index, namespaces, now);
        }
        found
    }

    fn collect_from(&mut self, index: u32, namespaces: &mut Namespaces, now: Instant) -> bool {
        let cx = Cx { pool: &self.pool, now };
        let slot = &mut self.slab[index as usize];
        let mut found = false;
        loop {
            slot.machine.poll_requests(cx, &mut self.requests);
            let full = self.requests.is_full();
            while let Some((handle, request)) = self.requests.pop() {
                found = true;
                if let Err(refused) = namespaces.place(handle, request, now) {
                    slot.machine.on_completion(cx, refused);
                }
            }
            slot.stirred |= found;
            if !full {
                return found;
            }
        }
    }

    /// Sends and receives what lively connections have and want, and lets idle ones rest. True when
    /// there was anything to do.
    pub(crate) fn transmit(&mut self, net: &mut dyn Net, now: Instant) -> bool {
        let mut found = false;
        self.waiting = false;
        for _ in 0..self.lively.len() {
            let index = self.lively.pop().expect("counted");
            let stirred = self.service(net, index, now);
            let slot = &mut self.slab[index as usize];
            let wants_landing = slot.socket.is_some() && !slot.receiving && !slot.closing;
            found |= stirred;
            slot.lively = slot.in_use && (stirred || wants_landing);
            self.waiting |= slot.in_use && wants_landing;
            if slot.lively {
                self.lively.push(index).expect("room for every connection once");
            }
        }
        found
    }

    fn service(&mut self, net: &mut dyn Net, index: u32, now: Instant) -> bool {
        let cx = Cx { pool: &self.pool, now };
        let slot = &mut self.slab[index as usize];
        if let Some(conn) = slot.socket {
            slot.stirred |= slot.send(net, conn, cx);
            slot.stirred |= slot.receive(net, conn);
            if slot.machine.wants_close() && !slot.closing {
                slot.closing = true;
                net.close(conn);
            }
        }
        slot.hand_out(&mut self.computing);
        slot.note_events(&self.counters, &mut self.refusals);
        if slot.in_use && slot.socket.is_none() && slot.machine.is_closed() {
            slot.in_use = false;
            self.free.push(index);
            self.open -= 1;
            self.counters.connections.set(self.open as u64);
        }
        std::mem::take(&mut self.slab[index as usize].stirred)
    }

    /// Looks at everyone: timers, asynchronous events, commands that waited for memory. Returns the
    /// next time at which a connection wants to be looked at.
    pub(crate) fn sweep(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for index in 0..self.slab.len() {
            let slot = &mut self.slab[index];
            if !slot.in_use {
                continue;
            }
            if slot.machine.next_timeout().is_some_and(|at| at <= now) {
                slot.machine.on_timeout(Cx { pool: &self.pool, now });
            }
            let at = slot.machine.next_timeout();
            next = [next, at].into_iter().flatten().min();
            self.stir(u32::try_from(index).expect("limited"));
        }
        next
    }

    /// Ends every connection from this side.
    pub(crate) fn close_all(&mut self, now: Instant) {
        for index in 0..self.slab.len() {
            let slot = &mut self.slab[index];
            if slot.in_use {
                slot.machine.close(Cx { pool: &self.pool, now }, CloseReason::Shutdown);
                self.stir(u32::try_from(index).expect("limited"));
            }
        }
    }

    /// Closes every socket, whatever there was to say.
    pub(crate) fn cut_all(&mut self, net: &mut dyn Net) {
        for slot in self.slab.iter_mut().filter(|slot| !slot.closing) {
            if let Some(conn) = slot.socket {
                slot.closing = true;
                net.close(conn);
            }
        }
    }

    fn on_sent(&mut self, conn: ConnId, batch: Box<Batch>, now: Instant) {
        let Some(index) = self.index_of(conn) else { return };
        self.counters.sent_bytes.add(batch.byte_len() as u64);
        self.take_back(index, batch, now);
        self.stir(index);
    }

    fn on_closed(&mut self, conn: ConnId, batch: Option<Box<Batch>>, now: Instant) {
        let Some(index) = self.index_of(conn) else { return };
        if let Some(batch) = batch {
            self.take_back(index, batch, now);
        }
        self.by_socket[conn.slot()] = None;
        let slot = &mut self.slab[index as usize];
        slot.socket = None;
        slot.receiving = false;
        assert!(slot.batch.is_some(), "a closed socket gives its batch back");
        slot.machine.on_closed(Cx { pool: &self.pool, now });
        self.stir(index);
    }

    fn take_back(&mut self, index: u32, mut batch: Box<Batch>, now: Instant) {
        let slot = &mut self.slab[index as usize];
        slot.machine.on_sent(Cx { pool: &self.pool, now }, &mut batch);
        batch.clear();
        let before = slot.batch.replace(batch);
        assert!(before.is_none(), "one batch is out at a time");
    }

    /// The connection of a socket; `None` for one that was turned away.
    fn index_of(&self, conn: ConnId) -> Option<u32> {
        let index = self.by_socket.get(conn.slot()).copied().flatten()?;
        (self.slab[index as usize].socket == Some(conn)).then_some(index)
    }

    fn stir(&mut self, index: u32) {
        let slot = &mut self.slab[index as usize];
        slot.stirred = true;
        if !slot.lively {
            slot.lively = true;
            self.lively.push(index).expect("room for every connection once");
        }
    }
}

impl Slot {
    /// Sends what there is to say, if the last batch is back.
    fn send(&mut self, net: &mut dyn Net, conn: ConnId, cx: Cx<'_>) -> bool {
        if self.closing {
            return false;
        }
        let Some(mut batch) = self.batch.take() else { return false };
        if !self.machine.poll_transmit(cx, &mut batch) {
            self.batch = Some(batch);
            return false;
        }
        if let Err(mut batch) = net.send(conn, batch) {
            self.machine.on_sent(cx, &mut batch);
            batch.clear();
            self.batch = Some(batch);
        }
        true
    }

    /// Arms the next receive, if the machine wants one.
    fn receive(&mut self, net: &mut dyn Net, conn: ConnId) -> bool {
        if self.closing || self.receiving {
            return false;
        }
        let Some(landing) = self.machine.landing() else { return false };
        let armed: Result<(), Landing> = net.receive(conn, landing);
        self.receiving = armed.is_ok();
        // A landing that comes back is dropped: the socket's end is on its way.
        self.closing |= armed.is_err();
        true
    }

    /// Hands out what is to be computed, if there is room.
    fn hand_out(&mut self, computing: &mut Computing) {
        if !self.machine.wants_computation() {
            return;
        }
        let peer = self.peer.expect("a connection in use has a peer").ip();
        if computing.has_room(peer)
            && let Some(computation) = self.machine.take_computation()
        {
            computing.send(computation, peer);
        }
    }

    fn note_events(&mut self, counters: &ShardCounters, refusals: &mut Producer<Refusal>) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                nvmf::Event::Connected { .. } => counters.queues_connected.add(1),
                nvmf::Event::Refused { hostnqn: host, subsystem, cause, .. } => {
                    counters.refused.add(1);
                    let peer = self.peer.expect("a connection in use has a peer");
                    let cause = Cause::Connect(cause);
                    // When nobody takes them, the counter has to do.
                    let _ = refusals.push(Refusal { host, subsystem, peer, cause });
                }
                nvmf::Event::NotAuthenticated { hostnqn, subsystem, fault } => {
                    counters.not_authenticated.add(1);
                    let peer = self.peer.expect("a connection in use has a peer");
                    let (host, cause) = (Some(hostnqn), Cause::Authentication(fault));
                    let _ = refusals.push(Refusal { host, subsystem, peer, cause });
                }
                nvmf::Event::Closing { reason: CloseReason::Protocol(_) } => {
                    counters.protocol_errors.add(1);
                }
                _ => (),
            }
        }
    }
}
