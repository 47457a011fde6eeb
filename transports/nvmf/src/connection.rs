//! One TCP connection: the machine that the shard drives.
//!
//! This file holds the state and the interface. What arrives is taken apart in `receive`, commands
//! are started and finished in `execute`, what goes out is put together in `transmit`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bdev::{BufMut, Completion, Fifo, Instant, Pool, Request, Slots, Tag};
use net::{Batch, Landing};

use crate::auth::Auth;
use crate::command::{Command, Phase, Segment};
use crate::controller::Controller;
use crate::framer::Framer;
use crate::limits::{
    CLOSE_TIMEOUT_MS, COMMANDS_MAX, CONNECTIONS_MAX, EVENTS_MAX, HELD_BYTES_MAX, IN_CAPSULE_MAX,
    RECEIVE_SEGMENT, SETUP_TIMEOUT_MS, STALL_TIMEOUT_MS, STARVED_RETRY_MS, TAG_COMMAND_BITS,
};
use crate::receive::{ACCEPTS, Sink};
use crate::registry::{Hold, Standing};
use crate::state::{Input, State};
use crate::tally::Uncounted;
use crate::target::Snapshot;
use crate::transmit::{Out, TermReq};
use crate::view::HostView;
use crate::{Addresses, AuthFault, CloseReason, Event, NamespaceHandle, Nqn, Target};

/// What a connection is handed with each call: it reads no clock and owns no memory pool.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// Where data segments come from.
    pub pool: &'a Pool,
    /// The time of this turn.
    pub now: Instant,
}

/// One NVMe/TCP connection on the target's side. All its memory is allocated by
/// [`Connection::new`]; an object serves one TCP connection after the other.
///
/// Each turn: give it what was received ([`Connection::on_received`]) and what completed
/// ([`Connection::on_completion`]); collect requests ([`Connection::poll_requests`]) and bytes
/// ([`Connection::poll_transmit`]); arm the next receive ([`Connection::landing`]); close the
/// socket when it asks for it ([`Connection::wants_close`]).
#[derive(Debug)]
pub struct Connection {
    pub(crate) target: Arc<Target>,
    pub(crate) index: u32,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) state: State,
    pub(crate) addresses: Addresses,
    pub(crate) framer: Framer,
    /// Where the data of the current PDU goes.
    pub(crate) sink: Sink,
    pub(crate) landing_out: Option<LandingOut>,
    pub(crate) commands: Slots<Command>,
    /// Commands that have all they need.
    pub(crate) ready: Fifo<u32>,
    /// Commands that need a buffer.
    pub(crate) waiting: Fifo<u32>,
    pub(crate) outbox: Fifo<Out>,
    pub(crate) term: Option<TermReq>,
    /// Alignment of data in PDUs to the host, bytes.
    pub(crate) hpda: usize,
    pub(crate) queue: Option<Queue>,
    pub(crate) controller: Option<Controller>,
    pub(crate) auth: Auth,
    pub(crate) in_flight: u32,
    /// Commands whose data is arriving.
    pub(crate) receiving: u32,
    /// First halves of fused pairs whose second has not come.
    pub(crate) lone: u32,
    /// A buffer for in-capsule data when the pool has none. A capsule that cannot be taken holds up
    /// the data of earlier commands behind it, and those may hold all the buffers: with this one
    /// the connection always goes on.
    pub(crate) reserve: Option<BufMut>,
    /// Bytes of the pool that commands and the batch hold.
    pub(crate) held: usize,
    pub(crate) batch: Option<BatchOut>,
    pub(crate) events: Fifo<Event>,
    pub(crate) uncounted: Uncounted,
    /// The peer will say nothing more, or is not listened to any more.
    pub(crate) last_bytes: bool,
    /// What was left to say is given up.
    pub(crate) gave_up: bool,
    /// A whole header has arrived and cannot be taken yet. It stays in the receive segment, so the
    /// segment must stay here: no landing is handed out.
    pub(crate) stalled: bool,
    /// When a command last looked for a buffer in vain.
    pub(crate) starved: Option<Instant>,
    pub(crate) since: Instant,
    pub(crate) progress: Instant,
}

/// A connected queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) hold: Hold,
    /// SQSIZE plus one.
    pub(crate) entries: u16,
    pub(crate) flow_control: bool,
    pub(crate) sqhd: u16,
    /// It was deleted: its QID is another's.
    pub(crate) released: bool,
    /// `None` for discovery.
    pub(crate) subsystem: Option<HostView>,
    pub(crate) hostnqn: Nqn,
}

/// Which landing is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LandingOut {
    Segment,
    Command(u32),
}

/// What the batch that is out holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchOut {
    pub(crate) held: usize,
}

impl Connection {
    /// An idle connection. `index` (below [`CONNECTIONS_MAX`]) is the upper part of the tag of
    /// each of its requests: [`Connection::index_of`] finds the connection of a completion again.
    ///
    /// # Panics
    /// When `index` is not below [`CONNECTIONS_MAX`].
    pub fn new(target: Arc<Target>, index: u32) -> Connection {
        assert!(index < CONNECTIONS_MAX);
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let snapshot = target.snapshot();
        Connection {
            auth: Auth::new(index, snapshot.discovery_nqn),
            snapshot,
            target,
            index,
            state: State::Closed,
            addresses: Addresses { local: nowhere, peer: nowhere },
            framer: Framer::new(ACCEPTS),
            sink: Sink::Discard,
            landing_out: None,
            commands: Slots::new(COMMANDS_MAX),
            ready: Fifo::new(COMMANDS_MAX),
            waiting: Fifo::new(COMMANDS_MAX),
            // Each command has one entry at most, and there are ICResp and the terminate request.
            outbox: Fifo::new(COMMANDS_MAX + 2),
            term: None,
            hpda: 4,
            queue: None,
            controller: None,
            in_flight: 0,
            receiving: 0,
            lone: 0,
            reserve: None,
            held: 0,
            batch: None,
            events: Fifo::new(EVENTS_MAX),
            uncounted: Uncounted::default(),
            last_bytes: false,
            gave_up: false,
            stalled: false,
            starved: None,
            since: Instant::ZERO,
            progress: Instant::ZERO,
        }
    }

    /// The connection that a request with this tag came from.
    pub fn index_of(tag: Tag) -> u32 {
        tag.0 >> TAG_COMMAND_BITS
    }

    /// The index that it was made with.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Starts serving a TCP connection. False when the pool has no segments for it: close the
    /// socket.
    ///
    /// # Panics
    /// When the previous one is not closed ([`Connection::is_closed`]).
    pub fn accept(&mut self, cx: Cx<'_>, addresses: Addresses) -> bool {
        assert!(self.is_closed(), "one TCP connection at a time");
        let segments = (cx.pool.take(RECEIVE_SEGMENT), cx.pool.take(IN_CAPSULE_MAX as usize));
        let (Some(segment), reserve @ Some(_)) = segments else { return false };
        self.enter(Input::Accept);
        self.reserve = reserve;
        self.addresses = addresses;
        self.framer.open(segment);
        self.sink = Sink::Discard;
        self.hpda = 4;
        self.term = None;
        (self.last_bytes, self.gave_up) = (false, false);
        self.starved = None;
        self.stalled = false;
        self.events.clear();
        self.snapshot = self.target.snapshot();
        (self.since, self.progress) = (cx.now, cx.now);
        true
    }

    /// Where the next bytes should land; arm a receive with it. `None` while one is out, while
    /// nothing can be taken (back-pressure: ask again each turn), and when closed.
    pub fn landing(&mut self) -> Option<Landing> {
        if self.landing_out.is_some() || self.last_bytes || self.stalled || !self.has_socket() {
            return None;
        }
        if let (Some(len), Sink::Command(key)) = (self.framer.direct_len(), self.sink)
            && let Some(command) = self.commands.get_mut(key)
            && let Segment::Filling(buf) = std::mem::take(&mut command.segment)
        {
            self.landing_out = Some(LandingOut::Command(key));
            return Some(Landing::new(buf, command.base + command.moved, len));
        }
        let landing = self.framer.landing()?;
        self.landing_out = Some(LandingOut::Segment);
        Some(landing)
    }

    /// The first `len` bytes of `landing` were received. Zero is the peer's end of stream.
    ///
    /// # Panics
    /// When the landing is not the one that is out.
    pub fn on_received(&mut self, cx: Cx<'_>, landing: Landing, len: u32) {
        let out = self.landing_out.take();
        if !self.has_socket() {
            return; // It came back after the socket had gone.
        }
        match out.expect("a landing comes back once") {
            LandingOut::Segment => self.framer.on_received(landing, len),
            LandingOut::Command(key) => self.on_direct(key, landing, len),
        }
        if len == 0 {
            self.last_bytes = true;
            self.end(cx, CloseReason::Peer);
            return;
        }
        self.progress = cx.now;
        self.seen(cx);
        self.advance(cx);
    }

    /// Bytes were received elsewhere (tests, a pipe); the answer is how many were taken. Zero is
    /// back-pressure.
    pub fn on_bytes(&mut self, cx: Cx<'_>, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let Some(mut landing) = self.landing() else { break };
            let len = (bytes.len() - taken).min(landing.len() as usize);
            landing.bytes_mut()[..len].copy_from_slice(&bytes[taken..taken + len]);
            self.on_received(cx, landing, crate::framer::narrow(len));
            taken += len;
        }
        taken
    }

    /// Collects requests, for the queues of their namespaces, while there is room. Call it each
    /// turn, also without news: commands that waited for a buffer go on here.
    ///
    /// A request that the shard cannot place (a handle it does not know) it completes itself with
    /// [`bdev::Status::Gone`].
    pub fn poll_requests(&mut self, cx: Cx<'_>, requests: &mut Fifo<(NamespaceHandle, Request)>) {
        if !self.has_socket() || self.state == State::Closing {
            return;
        }
        self.refresh(cx);
        self.hand_over(cx.now);
        self.advance(cx);
        self.start_ready(cx, requests);
        self.starved = (self.stalled || !self.waiting.is_empty()).then_some(cx.now);
        if self.state == State::Admin {
            self.poll_aborts();
            self.poll_async_events();
        }
    }

    /// A request ended. Also to be called after the socket has gone, until
    /// [`Connection::is_closed`].
    ///
    /// # Panics
    /// When no such request is in flight.
    pub fn on_completion(&mut self, cx: Cx<'_>, completion: Completion) {
        assert_eq!(Connection::index_of(completion.tag), self.index, "routed by index_of");
        self.finish_request(cx, completion);
        self.settle(cx);
    }

    /// Fills an empty `batch` with what is to be sent; false when there is nothing. At most one
    /// batch may be out: hand it back with [`Connection::on_sent`] before the next.
    pub fn poll_transmit(&mut self, _cx: Cx<'_>, batch: &mut Batch) -> bool {
        if !self.has_socket() || self.batch.is_some() || self.outbox.is_empty() {
            return false;
        }
        let held = self.fill(batch);
        if batch.is_empty() {
            return false;
        }
        self.batch = Some(BatchOut { held });
        true
    }

    /// The batch was sent, or will never be. It is emptied.
    pub fn on_sent(&mut self, cx: Cx<'_>, batch: &mut Batch) {
        batch.clear();
        if let Some(out) = self.batch.take() {
            self.held -= out.held;
            self.progress = cx.now;
            // The host sees completions as signs of life too, and may skip a keep alive for them.
            self.seen(cx);
        }
    }

    /// The socket is gone. Landings and batches that were out may come back or be dropped.
    pub fn on_closed(&mut self, cx: Cx<'_>) {
        if !self.has_socket() {
            return;
        }
        if self.state != State::Closing {
            self.end(cx, CloseReason::Peer);
        }
        self.enter(Input::SocketGone);
        if let Some(out) = self.batch.take() {
            self.held -= out.held;
        }
        self.landing_out = None;
        self.outbox.clear();
        self.framer.close();
        self.reserve = None;
        self.drop_commands();
        self.settle(cx);
    }

    /// The time given by [`Connection::next_timeout`] has come. Harmless when it has not.
    pub fn on_timeout(&mut self, cx: Cx<'_>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= cx.now);
        if self.state == State::Closing {
            self.gave_up |= due(self.patience_ends());
        } else if due(self.keep_alive_deadline()) {
            //= NVMe-Base 2.1 §3.9
            //# when the keep alive timer expires the controller ends the association
            if !self.renew_keep_alive(cx.now) {
                self.end(cx, CloseReason::KeepAlive);
            }
        } else if due(self.auth_deadline()) {
            self.not_proven(cx, AuthFault::Timeout);
        } else if due(self.patience_ends()) {
            self.end(cx, CloseReason::Timeout);
        } else {
            self.expire_halves(cx.now);
        }
    }

    /// When [`Connection::on_timeout`] and [`Connection::poll_requests`] want to be called, at the
    /// latest. It may move later.
    pub fn next_timeout(&self) -> Option<Instant> {
        let retry = self.starved.map(|at| later(at, STARVED_RETRY_MS));
        let (auth, alive) = (self.auth_deadline(), self.keep_alive_deadline());
        let times = [self.patience_ends(), alive, self.halves_expire(), auth, retry];
        times.into_iter().flatten().min()
    }

    /// When the connection ends unless the peer does something.
    fn patience_ends(&self) -> Option<Instant> {
        match self.state {
            State::Closed | State::Draining => None,
            State::Closing => (!self.gave_up).then(|| later(self.since, CLOSE_TIMEOUT_MS)),
            State::AwaitIcReq | State::AwaitConnect => Some(later(self.since, SETUP_TIMEOUT_MS)),
            State::Admin | State::Io => {
                let waits = self.batch.is_some() || self.receiving > 0;
                waits.then(|| later(self.progress, STALL_TIMEOUT_MS))
            }
        }
    }

    fn auth_deadline(&self) -> Option<Instant> {
        let connected = matches!(self.state, State::Admin | State::Io);
        self.auth.deadline().filter(|_| connected)
    }

    /// The next event, for logs.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Whether everything was said: close the socket, then call [`Connection::on_closed`].
    pub fn wants_close(&self) -> bool {
        let said = self.last_bytes && self.outbox.is_empty() && self.batch.is_none();
        self.state == State::Closing && (said || self.gave_up)
    }

    /// Whether nothing is left of the last TCP connection: the object can [`Connection::accept`]
    /// again. Until then requests are still in flight.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Since when it is there, if it may be ended to make room for others: a connection that has
    /// not said who it is (false), or one to the discovery service (true), which anybody may have.
    pub fn gives_way(&self) -> Option<(bool, Instant)> {
        match (self.state, &self.queue) {
            (State::AwaitIcReq | State::AwaitConnect, _) => Some((false, self.since)),
            (State::Admin, Some(Queue { subsystem: None, .. })) => Some((true, self.since)),
            _ => None,
        }
    }

    /// Requests in flight, for a drain that waits for them.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Ends the connection from this side.
    pub fn close(&mut self, cx: Cx<'_>, reason: CloseReason) {
        if self.has_socket() {
            self.end(cx, reason);
        }
    }

    /// The host gave a sign of life.
    fn seen(&self, cx: Cx<'_>) {
        // A queue of somebody who only says that it is this host keeps nothing alive.
        if let Some(queue) = &self.queue
            && (queue.hold.qid == 0 || self.auth.standing != Standing::Pending)
        {
            self.target.registry().seen(queue.hold, cx.now);
        }
    }

    /// Starts closing: what is queued to be sent still is, nothing else happens.
    pub(crate) fn end(&mut self, cx: Cx<'_>, reason: CloseReason) {
        if self.state == State::Closing {
            return;
        }
        self.enter(Input::End);
        self.since = cx.now;
        // A peer that is told something may still be sending: what it sends is discarded until it
        // closes, so that the last PDU is not lost to a reset.
        self.last_bytes |= self.outbox.is_empty() && self.term.is_none();
        self.drop_commands();
        self.release_queue();
        if let Some(queue) = &self.queue
            && queue.hold.qid == 0
        {
            self.target.registry().kill(queue.hold);
        }
        self.event(Event::Closing { reason });
    }

    pub(crate) fn event(&mut self, event: Event) {
        if let Err(event) = self.events.push(event) {
            self.events.pop();
            self.events.push(event).expect("room was just made");
        }
    }

    pub(crate) fn enter(&mut self, input: Input) {
        self.state = self.state.on(input).expect("the callers know their states");
    }

    pub(crate) fn has_socket(&self) -> bool {
        !matches!(self.state, State::Closed | State::Draining)
    }

    /// Takes a buffer for a command; `None` when the pool or this connection's share is used up.
    /// Nobody gets more than what stays free in segments that are large enough: connections whose
    /// volume stands still, or whose host does not listen, leave as much to each of the others as
    /// they have themselves.
    pub(crate) fn take_buffer(&mut self, cx: Cx<'_>, len: usize) -> Option<BufMut> {
        let free = usize::try_from(cx.pool.stats().free_bytes(len)).unwrap_or(usize::MAX);
        let room = self.held == 0 || self.held + len <= HELD_BYTES_MAX.min(free);
        let buf = if room { cx.pool.take(len) } else { None }?;
        self.held += buf.capacity();
        Some(buf)
    }

    /// Forgets a command and what it holds.
    pub(crate) fn drop_command(&mut self, key: u32) -> Option<Command> {
        let command = self.commands.remove(key)?;
        self.held -= command.held;
        if command.phase == Phase::Receiving {
            self.receiving -= 1;
        }
        Some(command)
    }

    /// Forgets every command that is neither in flight nor answered.
    fn drop_commands(&mut self) {
        self.ready.clear();
        self.waiting.clear();
        self.lone = 0;
        self.starved = None;
        self.stalled = false;
        self.auth.reset();
        if let Some(controller) = &mut self.controller {
            controller.notices.unpark_all();
            controller.aborts.clear();
        }
        self.sink = Sink::Discard;
        let keeps_answers = self.state == State::Closing;
        for key in 0..crate::framer::narrow(COMMANDS_MAX) {
            let Some(command) = self.commands.get(key) else { continue };
            let kept = match command.phase {
                Phase::Submitted => true,
                Phase::Done => keeps_answers,
                Phase::Receiving | Phase::Ready | Phase::Half | Phase::Event | Phase::Computing => {
                    false
                }
            };
            if !kept {
                self.drop_command(key);
            }
        }
    }

    /// Deletes the queue of a connection that ends, once nothing of it is at a device.
    pub(crate) fn release_queue(&mut self) {
        assert!(matches!(self.state, State::Closing | State::Draining));
        if let Some(queue) = self.queue.as_mut().filter(|queue| !queue.released)
            && self.in_flight == 0
        {
            queue.released = true;
            self.target.registry().release(queue.hold);
        }
    }

    /// Leaves the controller and closes for good when nothing is in flight any more.
    pub(crate) fn settle(&mut self, _cx: Cx<'_>) {
        if self.state != State::Draining || self.in_flight > 0 {
            return;
        }
        assert!(self.commands.is_empty() && self.held == 0, "nothing is left when it is drained");
        self.hand_over_all();
        if let Some(queue) = self.queue.take() {
            assert!(queue.released, "a queue is deleted before its connection is over");
            self.target.registry().leave(queue.hold);
        }
        self.controller = None;
        self.enter(Input::Drained);
    }

    /// Takes a new configuration, and notices a controller that ended elsewhere.
    fn refresh(&mut self, cx: Cx<'_>) {
        if self.target.generation() != self.snapshot.generation {
            self.snapshot = self.target.snapshot();
            // Expelled or not: a Connect may have run beside the change.
            if let Some(queue) = &mut self.queue
                && let Some(view) = &mut queue.subsystem
                && !view.refresh(&self.snapshot)
            {
                self.end(cx, CloseReason::Controller);
            }
            // Also what connected while the configuration was being replaced is seen here.
            if !self.is_still_admitted() {
                self.end(cx, CloseReason::Controller);
                return;
            }
        }
        if let Some(queue) = &self.queue
            && !self.target.registry().is_live(queue.hold)
        {
            self.end(cx, CloseReason::Controller);
        }
        self.grant_aborts();
    }
}

pub(crate) fn later(at: Instant, ms: u64) -> Instant {
    at.saturating_add(Duration::from_millis(ms))
}
