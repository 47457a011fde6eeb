//! The shard: one core's machines and the turn that moves them.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bdev::ring::{Consumer, Producer};
use bdev::{Completion, Fifo, Instant, Pool};
use net::{Event, ListenerId, Net, Socket};
use nvmf::Addresses;
use reactor::{Machine, Progress};

use crate::command::{Answer, Command, Envelope, NodeError, Source, StoreId, Task};
use crate::connections::Connections;
use crate::flights::Origin;
use crate::limits::{
    COMMANDS_PENDING_MAX, COMPLETIONS_PER_POLL, DRAIN_LINGER_NS, EVENTS_PER_TURN, QUEUE_DEPTH,
    SWEEP_BUSY_NS, SWEEP_IDLE_NS,
};
use crate::link::{LinkClient, LinkServer, Wake};
use crate::namespaces::Namespaces;
use crate::stats::ShardCounters;
use crate::stores::Stores;

/// An accepted socket on its way to another shard.
pub(crate) struct Adoption {
    pub(crate) socket: Socket,
    pub(crate) addresses: Addresses,
}

/// One core's machines. Made by [`crate::ShardSeed::start`] on the thread that turns it.
pub struct Shard {
    pub(crate) index: usize,
    pub(crate) net: Box<dyn Net>,
    pub(crate) connections: Connections,
    pub(crate) namespaces: Namespaces,
    pub(crate) stores: Stores,
    pub(crate) mailbox: Consumer<Box<Envelope>>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) listeners: Vec<Listener>,
    /// To the volumes of the other shards, by shard; `None` for this one.
    pub(crate) link_clients: Vec<Option<LinkClient>>,
    /// From the other shards, by shard.
    pub(crate) link_servers: Vec<Option<LinkServer>>,
    /// Where accepted sockets go, by shard; `None` for this one.
    pub(crate) placements: Vec<Option<(Producer<Adoption>, Wake)>>,
    pub(crate) adoptions: Vec<Consumer<Adoption>>,
    pub(crate) place_next: usize,
    pub(crate) events: Fifo<Event>,
    pub(crate) completions: Fifo<Completion>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) sweep_at: Instant,
    pub(crate) draining: Option<Instant>,
    pub(crate) stopping: bool,
    pub(crate) worked: bool,
}

/// A command that takes several turns.
pub(crate) struct Pending {
    envelope: Box<Envelope>,
    begun: bool,
}

pub(crate) struct Listener {
    id: ListenerId,
    address: SocketAddr,
}

impl Machine for Shard {
    /// Makes one turn: everything that can be done now, in a fixed order, each step bounded.
    fn turn(&mut self, now: Instant) -> Progress {
        let mut worked = self.take_commands(now);
        worked |= self.take_adoptions(now);
        worked |= self.take_remote(now);
        worked |= self.receive(now);
        worked |= self.connections.take_computed(now);
        worked |= self.connections.collect(&mut self.namespaces, now);
        self.namespaces.submit();
        worked |= self.stores.drive(now);
        worked |= self.namespaces.tend(&mut self.stores);
        worked |= self.complete(now);
        worked |= self.connections.transmit(self.net.as_mut(), now);
        worked |= self.work_on_commands(now);
        self.net.kick();
        for server in self.link_servers.iter_mut().flatten() {
            server.kick();
        }
        if self.namespaces.in_flight() > 0 || self.connections.is_waiting() {
            // A command or a receive may be waiting for memory: nothing else would wake it.
            let soon = now.saturating_add(Duration::from_nanos(SWEEP_BUSY_NS));
            self.sweep_at = self.sweep_at.min(soon);
        }
        if self.sweep_at <= now {
            self.sweep(now);
        }
        self.counters.turns.add(1);
        self.counters.turns_busy.add(u64::from(worked));
        self.worked = worked;
        if self.stopping && self.pending.is_empty() {
            return Progress::Done;
        }
        // Commands that are under way, and devices that cannot wake us, are found by polling only.
        let polling = !self.pending.is_empty() || self.namespaces.must_poll();
        Progress::from_worked(worked || polling || self.stores.must_poll())
    }

    fn next_timeout(&self) -> Option<Instant> {
        let sweep = (self.connections.open() > 0).then_some(self.sweep_at);
        [sweep, self.stores.next_timeout()].into_iter().flatten().min()
    }

    fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        fds.extend(self.net.wait_fd());
        self.namespaces.wait_fds(fds);
        self.stores.wait_fds(fds);
    }
}

impl Shard {
    /// Which shard of its node this is.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The shard's buffers.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Whether the last turn did anything. Simulations move their clock on when it did not.
    pub fn worked(&self) -> bool {
        self.worked
    }

    /// Connections that are not completely over.
    pub fn connections(&self) -> usize {
        self.connections.open()
    }

    /// Requests that volumes have not answered.
    pub fn in_flight(&self) -> u32 {
        self.namespaces.in_flight()
    }

    fn take_adoptions(&mut self, now: Instant) -> bool {
        let mut found = false;
        for from in &mut self.adoptions {
            while let Some(Adoption { socket, addresses }) = from.pop() {
                found = true;
                if self.draining.is_none() {
                    self.connections.adopt(self.net.as_mut(), socket, addresses, now);
                }
            }
        }
        found
    }

    /// Requests of other shards to the volumes of this one.
    fn take_remote(&mut self, now: Instant) -> bool {
        let mut found = false;
        for (link, server) in self.link_servers.iter_mut().enumerate() {
            let Some(server) = server else { continue };
            while let Some(remote) = server.pop() {
                found = true;
                let (handle, slot) = (remote.handle, remote.slot);
                let request = remote.into_request(self.namespaces.link_tag(link, slot));
                if let Err(refused) = self.namespaces.place(handle, request, now) {
                    server.answer(slot, refused.data, refused.status);
                }
            }
        }
        found
    }

    fn receive(&mut self, now: Instant) -> bool {
        self.net.poll(&mut self.events);
        let found = !self.events.is_empty();
        // Ends before beginnings: an adopted socket may get the slot of one whose end is still
        // among these events, and that end would then be taken for the new one's and lost.
        for _ in 0..self.events.len() {
            match self.events.pop().expect("counted") {
                accepted @ Event::Accepted { .. } => {
                    self.events.push(accepted).expect("it was just taken out");
                }
                event => self.connections.on_event(event, now),
            }
        }
        while let Some(event) = self.events.pop() {
            if let Event::Accepted { listener, socket } = event {
                self.place(listener, socket, now);
            }
        }
        found
    }

    /// Gives an accepted socket to the next shard in turn.
    fn place(&mut self, listener: ListenerId, socket: Socket, now: Instant) {
        self.counters.accepted.add(1);
        let Some(listening) = self.listeners.iter().find(|known| known.id == listener) else {
            return;
        };
        let (socket, local) = local_address(socket, listening.address);
        let addresses = Addresses { local, peer: socket.peer() };
        let to = self.place_next;
        self.place_next = (to + 1) % self.placements.len();
        match &mut self.placements[to] {
            None => self.connections.adopt(self.net.as_mut(), socket, addresses, now),
            Some((ring, wake)) => match ring.push(Adoption { socket, addresses }) {
                Ok(()) => wake(),
                Err(_closed) => self.counters.turned_away.add(1),
            },
        }
    }

    /// Takes completions from the volumes to who waits for them.
    fn complete(&mut self, now: Instant) -> bool {
        let mut found = false;
        loop {
            self.namespaces.poll(now, &mut self.completions);
            if self.completions.is_empty() {
                return found;
            }
            found = true;
            let full = self.completions.is_full();
            while let Some(completion) = self.completions.pop() {
                match self.namespaces.origin(completion.tag) {
                    Origin::Connection(index) => {
                        self.connections.on_completion(index, completion, now);
                    }
                    Origin::Link { link, slot } => {
                        let server = self.link_servers[link].as_mut();
                        let server = server.expect("its request came from there");
                        server.answer(slot, completion.data, completion.status);
                    }
                }
            }
            if !full {
                return true;
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        let timeout = self.connections.sweep(now);
        let regular = now.saturating_add(Duration::from_nanos(SWEEP_IDLE_NS));
        self.sweep_at = timeout.map_or(regular, |at| at.clamp(now, regular));
        // A timeout that stays in the past must not make every turn a sweep.
        self.sweep_at = self.sweep_at.max(now.saturating_add(Duration::from_nanos(SWEEP_BUSY_NS)));
        let stats = self.pool.stats();
        self.counters.buffers.set(stats.total.iter().map(|&n| u64::from(n)).sum());
        self.counters.buffers_free.set(stats.free.iter().map(|&n| u64::from(n)).sum());
    }

    fn take_commands(&mut self, now: Instant) -> bool {
        let mut found = false;
        while self.pending.len() < COMMANDS_PENDING_MAX {
            let Some(envelope) = self.mailbox.pop() else { break };
            found = true;
            self.counters.commands.add(1);
            self.pending.push(Pending { envelope, begun: false });
            self.sweep_at = self.sweep_at.min(now);
        }
        found
    }

    /// Moves every command on. They answer in any order.
    fn work_on_commands(&mut self, now: Instant) -> bool {
        let mut found = false;
        let mut at = 0;
        while at < self.pending.len() {
            let Pending { envelope, begun } = &mut self.pending[at];
            let first = !std::mem::replace(begun, true);
            // The box is out of the list while it is worked on, so that the shard is free to use.
            let command = std::mem::replace(&mut envelope.command, Command::Drain);
            let outcome = self.work_on(&command, first, now);
            let pending = &mut self.pending[at];
            pending.envelope.command = command;
            match outcome {
                Step::Wait => at += 1,
                Step::Again => {
                    pending.begun = false;
                    at += 1;
                }
                Step::Done(answer) => {
                    found = true;
                    self.pending.remove(at).envelope.reply(answer);
                }
            }
        }
        found
    }

    fn work_on(&mut self, command: &Command, first: bool, now: Instant) -> Step {
        match command {
            Command::OpenStore { store, spec } => {
                if first && let Err(error) = self.stores.begin_open(*store, spec) {
                    return Step::Done(Err(error));
                }
                self.stores.poll_open(*store).map_or(Step::Wait, Step::Done)
            }
            Command::CloseStore { store } => self.close_store(*store, first),
            Command::StoreStatus { store } => {
                let status = self.stores.store(*store).map(|store| store.status());
                Step::Done(status.map(|status| Answer::Store(Box::new(status))))
            }
            Command::CheckStatus { store } => {
                let status = self.stores.store(*store).map(|store| store.check_status());
                Step::Done(status.map(|status| Answer::Check(Box::new(status))))
            }
            Command::TakeNotices { store } => {
                let notices = self.stores.store(*store).map(|store| store.take_notices());
                Step::Done(notices.map(Answer::Notices))
            }
            Command::UnixTime { seconds } => {
                self.stores.set_unix_time(*seconds);
                Step::Done(Ok(Answer::Done))
            }
            Command::Store { store, task } => {
                let step = self.store_task(*store, task, first);
                if let (Task::Delete { volume }, Step::Done(Ok(_))) = (task, &step) {
                    self.forget_reservation(*store, *volume);
                }
                step
            }
            Command::Attach { handle, source, counters } => {
                let guard = match *source {
                    Source::Shard { .. } => None,
                    Source::Volume { store, volume } => match self.guard(store, volume, first) {
                        Ok(guard) => Some(guard),
                        Err(step) => return step,
                    },
                };
                let queue = self.open(*handle, *source);
                Step::Done(queue.and_then(|(queue, block_size)| {
                    let counters = Arc::clone(counters);
                    match self.namespaces.attach(*handle, queue, block_size, counters, guard) {
                        true => Ok(Answer::Done),
                        false => Err(NodeError::InUse),
                    }
                }))
            }
            Command::Reservation { store, volume, evict } => {
                self.reservation(*store, *volume, *evict, first)
            }
            Command::Detach { handle } => match self.namespaces.detach(*handle) {
                true => Step::Done(Ok(Answer::Done)),
                false => Step::Wait,
            },
            Command::Listen { address } => Step::Done(self.listen(*address)),
            Command::Unlisten { address } => Step::Done(self.unlisten(*address)),
            Command::Drain => self.drain(now),
            Command::Shutdown => {
                if !self.stopping {
                    self.stopping = true;
                    self.stores.close_all();
                }
                if self.stores.reap_all() { Step::Done(Ok(Answer::Done)) } else { Step::Wait }
            }
        }
    }

    fn store_task(&mut self, store: StoreId, task: &Task, first: bool) -> Step {
        match self.stores.store(store) {
            Err(error) => Step::Done(Err(error)),
            Ok(store) if first => match store.begin(task) {
                Ok(()) => store.poll_task().map_or(Step::Wait, Step::Done),
                Err(NodeError::Busy) => Step::Again,
                Err(error) => Step::Done(Err(error)),
            },
            Ok(store) => store.poll_task().map_or(Step::Wait, Step::Done),
        }
    }

    fn close_store(&mut self, store: StoreId, first: bool) -> Step {
        if first {
            match self.stores.store(store) {
                Ok(store) => store.close(),
                Err(error) => return Step::Done(Err(error)),
            }
        }
        if !self.stores.reap(store) {
            return Step::Wait;
        }
        self.namespaces.guards.forget(store, None);
        Step::Done(Ok(Answer::Done))
    }

    fn open(
        &mut self,
        handle: nvmf::NamespaceHandle,
        source: Source,
    ) -> Result<(Box<dyn bdev::Queue>, u32), NodeError> {
        match source {
            Source::Volume { store, volume } => self.stores.store(store)?.open(volume),
            Source::Shard { owner, block_size } => {
                let link = self.link_clients[owner].as_ref().expect("a volume of another shard");
                let queue = link.open(handle, QUEUE_DEPTH);
                let max = crate::limits::NAMESPACES_MAX;
                let queue = queue.ok_or(NodeError::TooMany { what: "namespaces", max })?;
                Ok((Box::new(queue), block_size))
            }
        }
    }

    fn listen(&mut self, address: SocketAddr) -> Result<Answer, NodeError> {
        if self.draining.is_some() {
            return Err(NodeError::Stopped);
        }
        let id = self.net.listen(address);
        let id = id.map_err(|error| NodeError::Listen(error.to_string()))?;
        let address = self.net.local_address(id).expect("it listens");
        self.listeners.push(Listener { id, address });
        Ok(Answer::Listening(address))
    }

    fn unlisten(&mut self, address: SocketAddr) -> Result<Answer, NodeError> {
        let at = self.listeners.iter().position(|known| known.address == address);
        let at = at.ok_or_else(|| NodeError::Invalid(format!("nothing listens on {address}")))?;
        let listener = self.listeners.remove(at);
        self.net.unlisten(listener.id);
        Ok(Answer::Done)
    }

    /// Stops listening, ends the connections, and waits for what is in flight.
    fn drain(&mut self, now: Instant) -> Step {
        let linger = Duration::from_nanos(DRAIN_LINGER_NS);
        let deadline = match self.draining {
            Some(deadline) => deadline,
            None => {
                while let Some(listener) = self.listeners.pop() {
                    self.net.unlisten(listener.id);
                }
                self.connections.close_all(now);
                *self.draining.insert(now.saturating_add(linger))
            }
        };
        if deadline <= now {
            self.connections.cut_all(self.net.as_mut());
        }
        match self.connections.open() == 0 && self.namespaces.in_flight() == 0 {
            true => Step::Done(Ok(Answer::Done)),
            false => Step::Wait,
        }
    }
}

pub(crate) enum Step {
    Done(Result<Answer, NodeError>),
    /// Not yet: ask again next turn.
    Wait,
    /// Not begun: begin again next turn.
    Again,
}

/// The address through which the peer came. A socket of the system knows it; for others it is where
/// we listen.
fn local_address(socket: Socket, listening: SocketAddr) -> (Socket, SocketAddr) {
    let peer = socket.peer();
    match socket.into_kind() {
        net::SocketKind::Fd(fd) => {
            let stream = std::net::TcpStream::from(fd);
            let local = stream.local_addr().unwrap_or(listening);
            (Socket::from_fd(stream.into(), peer), local)
        }
        kind => (Socket::new(kind, peer), listening),
    }
}

pub(crate) fn events() -> Fifo<Event> {
    Fifo::new(EVENTS_PER_TURN)
}

pub(crate) fn completions() -> Fifo<Completion> {
    Fifo::new(COMPLETIONS_PER_POLL)
}
