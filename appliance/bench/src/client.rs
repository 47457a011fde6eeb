//! The polled initiator: a controller of a target and its I/O queues, each a [`bdev::Queue`].
//!
//! ```text
//!  NamespaceQueue --.                         .-- lane 0: admin queue
//!  NamespaceQueue --+-- hub (one dyn Net) ----+-- lane 1: I/O queue 1
//!                                             `-- lane n: I/O queue n
//! ```
//!
//! All lanes share one thread's sockets, so that a round over many queues costs one system call:
//! `kick` hands bytes to the sockets, and the next `poll` of any lane makes them visible.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bdev::{Completion, Data, Fifo, Instant, Pool, Queue, Request, Status};
use net::{Batch, CloseReason, ConnId, Event, Net};
use nvmf::initiator::{
    Admin, AdminInfo, Failure, HostIdentity, Initiator, NamespaceInfo, QueueOptions,
};
use nvmf::{Digests, HostId, Nqn};
use thiserror::Error;

use crate::limits::{BATCH_PIECES, BATCH_SCRATCH, CONNECT_TIMEOUT, EVENTS_PER_POLL, JOBS_MAX};

/// What to connect to, and how.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// Where the target listens.
    pub address: SocketAddr,
    /// NQN of the subsystem; its first namespace is used.
    pub subsystem: Nqn,
    /// I/O queues: 1 to [`JOBS_MAX`].
    pub queues: u16,
    /// Header and data digests.
    pub digests: bool,
}

/// Why a target could not be connected to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The sockets refused.
    #[error("{0}")]
    Net(#[from] net::NetError),
    /// The target did.
    #[error("connecting queue {qid}: {failure:?}")]
    Failed {
        /// 0 is the admin queue.
        qid: u16,
        /// Why.
        failure: Failure,
    },
    /// The connection could not be had, or ended.
    #[error("connecting queue {qid}: {reason}")]
    Closed {
        /// 0 is the admin queue.
        qid: u16,
        /// Why.
        reason: CloseReason,
    },
    /// The target grants fewer I/O queues.
    #[error("the target grants {granted} I/O queues of {asked}")]
    Queues {
        /// How many were asked for.
        asked: u16,
        /// How many there are.
        granted: u16,
    },
    /// The target did not answer in time.
    #[error("the target did not answer for {CONNECT_TIMEOUT:?}")]
    TimedOut,
    /// The subsystem has no namespace for this host.
    #[error("the subsystem has no namespace")]
    NoNamespace,
    /// The pool has no receive segment left.
    #[error("no buffer is free for a connection")]
    Buffers,
}

/// A connected controller. Dropping it and its queues closes the connections.
pub struct Client {
    hub: Rc<RefCell<Hub>>,
    namespace: NamespaceInfo,
    queues: u16,
}

impl Client {
    /// Connects the admin queue and then all I/O queues. `idle` is called while there is nothing to
    /// do but wait: it returns the time, and lets a test turn the target.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Panics
    /// When the number of queues is zero or beyond [`JOBS_MAX`].
    pub fn connect(
        net: Box<dyn Net>,
        pool: Rc<Pool>,
        destination: &Destination,
        idle: &mut dyn FnMut() -> Instant,
    ) -> Result<Client, ConnectError> {
        let asked = destination.queues;
        assert!(asked > 0 && u32::from(asked) <= JOBS_MAX);
        let identity = identity(destination.subsystem);
        let digests = Digests { header: destination.digests, data: destination.digests };
        let options = QueueOptions { digests, ..QueueOptions::admin(identity) };
        let mut hub = Hub::new(net, pool, usize::from(asked) + 1);
        hub.add(destination.address, Machine::Admin(Box::new(Admin::new(options, asked))))?;
        let info = hub.bring_up(idle, |hub| hub.admin_info())?;
        if info.io_queues < asked {
            return Err(ConnectError::Queues { asked, granted: info.io_queues });
        }
        let namespace = *info.namespaces.first().ok_or(ConnectError::NoNamespace)?;
        for qid in 1..=asked {
            let in_capsule_max = options.in_capsule_max.min(info.in_capsule_max);
            let io = QueueOptions::io(identity, info.cntlid, qid);
            let options = QueueOptions { digests, in_capsule_max, ..io };
            hub.add(destination.address, Machine::Io(Box::new(Initiator::new(options))))?;
        }
        hub.bring_up(idle, |hub| hub.all_ready().then_some(()))?;
        Ok(Client { hub: Rc::new(RefCell::new(hub)), namespace, queues: asked })
    }

    /// The namespace that the queues lead to.
    pub fn namespace(&self) -> NamespaceInfo {
        self.namespace
    }

    /// I/O queue `number`, from zero. Each is to be taken once.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn queue(&self, number: u16) -> Box<dyn Queue> {
        assert!(number < self.queues);
        let lane = usize::from(number) + 1;
        let NamespaceInfo { nsid, block_size, .. } = self.namespace;
        Box::new(NamespaceQueue { hub: Rc::clone(&self.hub), lane, nsid, block_size })
    }
}

/// Who we are. Always the same host: the bench holds no reservation and needs no secret.
fn identity(subnqn: Nqn) -> HostIdentity {
    let hostnqn = Nqn::new("nqn.2014-08.org.nvmexpress:uuid:68667462-656e-4368-8000-000000000001");
    let hostid = HostId(*b"hftbench\x80\0\0\0\0\0\0\x01");
    HostIdentity { hostnqn: hostnqn.expect("a constant name"), hostid, subnqn }
}

struct NamespaceQueue {
    hub: Rc<RefCell<Hub>>,
    lane: usize,
    nsid: u32,
    block_size: u32,
}

impl Queue for NamespaceQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        let lane = &mut self.hub.borrow_mut().lanes[self.lane];
        if lane.closed.is_none() && lane.machine.failure().is_none() {
            lane.machine.initiator().submit(self.nsid, self.block_size, requests);
            return;
        }
        while !lane.done.is_full()
            && let Some(request) = requests.pop()
        {
            let pushed = lane.done.push(request.complete(Status::Gone));
            assert!(pushed.is_ok(), "room was checked");
        }
    }

    fn kick(&mut self) {
        self.hub.borrow_mut().flush(self.lane);
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        let mut hub = self.hub.borrow_mut();
        hub.turn();
        hub.lanes[self.lane].collect(completions);
    }

    fn in_flight(&self) -> u32 {
        let lane = &mut self.hub.borrow_mut().lanes[self.lane];
        let held = lane.machine.initiator().in_flight() + lane.done.len();
        u32::try_from(held).expect("bounded by the depth")
    }
}

enum Machine {
    Admin(Box<Admin>),
    Io(Box<Initiator>),
}

impl Machine {
    fn initiator(&mut self) -> &mut Initiator {
        match self {
            Machine::Admin(admin) => admin.queue_mut(),
            Machine::Io(initiator) => initiator,
        }
    }

    fn open(&mut self, pool: &Pool) -> bool {
        match self {
            Machine::Admin(admin) => admin.open(pool),
            Machine::Io(initiator) => initiator.open(pool),
        }
    }

    fn failure(&self) -> Option<Failure> {
        match self {
            Machine::Admin(admin) => admin.failure(),
            Machine::Io(initiator) => initiator.failure(),
        }
    }
}

/// One connection.
struct Lane {
    conn: ConnId,
    machine: Machine,
    /// `None` while it is being sent.
    batch: Option<Box<Batch>>,
    /// Finished requests, and those whose buffer the batch in flight still shares.
    done: Fifo<Completion>,
    is_open: bool,
    closed: Option<CloseReason>,
}

impl Lane {
    /// Hands out finished requests whose buffer nobody else holds.
    fn collect(&mut self, completions: &mut Fifo<Completion>) {
        self.machine.initiator().poll(&mut self.done);
        for _ in 0..self.done.len() {
            let Some(completion) = self.done.pop() else { return };
            let is_shared = matches!(&completion.data, Data::From(buf) if !buf.is_unique());
            let pushed = match is_shared || completions.is_full() {
                // The response overtook the end of the send: it is handed out after that.
                true => self.done.push(completion),
                false => completions.push(completion),
            };
            assert!(pushed.is_ok(), "room was checked, or was just made");
        }
    }
}

struct Hub {
    net: Box<dyn Net>,
    pool: Rc<Pool>,
    lanes: Vec<Lane>,
    /// By [`ConnId::slot`].
    lane_of: Vec<Option<usize>>,
    events: Fifo<Event>,
    out_of_buffers: bool,
}

impl Hub {
    fn new(net: Box<dyn Net>, pool: Rc<Pool>, lanes_max: usize) -> Hub {
        let lane_of = vec![None; net.connections_max()];
        let lanes = Vec::with_capacity(lanes_max);
        let events = Fifo::new(EVENTS_PER_POLL);
        Hub { net, pool, lanes, lane_of, events, out_of_buffers: false }
    }

    fn add(&mut self, address: SocketAddr, machine: Machine) -> Result<(), ConnectError> {
        let conn = self.net.connect(address)?;
        self.lane_of[conn.slot()] = Some(self.lanes.len());
        self.lanes.push(Lane {
            conn,
            machine,
            batch: Some(Batch::new(BATCH_PIECES, BATCH_SCRATCH)),
            done: Fifo::new(usize::from(nvmf::QUEUE_ENTRIES_MAX)),
            is_open: false,
            closed: None,
        });
        Ok(())
    }

    /// Turns until `ready` finds what it waits for.
    fn bring_up<T>(
        &mut self,
        idle: &mut dyn FnMut() -> Instant,
        ready: impl Fn(&mut Hub) -> Option<T>,
    ) -> Result<T, ConnectError> {
        let deadline = idle().saturating_add(CONNECT_TIMEOUT);
        loop {
            self.turn();
            let now = idle();
            self.poll_admin(now);
            if let Some(found) = ready(self) {
                return Ok(found);
            }
            for (qid, lane) in (0..).zip(&self.lanes) {
                match (lane.machine.failure(), lane.closed) {
                    (Some(failure), _) if failure != Failure::Closed => {
                        return Err(ConnectError::Failed { qid, failure });
                    }
                    (_, Some(reason)) => return Err(ConnectError::Closed { qid, reason }),
                    _ => {}
                }
            }
            if self.out_of_buffers {
                return Err(ConnectError::Buffers);
            }
            if now.saturating_since(deadline) > Duration::ZERO {
                return Err(ConnectError::TimedOut);
            }
        }
    }

    fn poll_admin(&mut self, now: Instant) {
        if let Some(Lane { machine: Machine::Admin(admin), .. }) = self.lanes.first_mut() {
            admin.poll(&self.pool, now);
            self.flush(0);
        }
    }

    fn admin_info(&mut self) -> Option<AdminInfo> {
        match &self.lanes.first()?.machine {
            Machine::Admin(admin) => admin.info().cloned(),
            Machine::Io(_) => None,
        }
    }

    fn all_ready(&mut self) -> bool {
        self.lanes.iter_mut().all(|lane| lane.machine.initiator().is_ready())
    }

    /// Makes everything visible, and takes what has happened.
    fn turn(&mut self) {
        self.net.kick();
        self.net.poll(&mut self.events);
        while let Some(event) = self.events.pop() {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: Event) {
        let conn = match &event {
            Event::Accepted { .. } => return,
            Event::Connected { conn }
            | Event::Received { conn, .. }
            | Event::Ended { conn, .. }
            | Event::Sent { conn, .. }
            | Event::Closed { conn, .. } => *conn,
        };
        let index = self.lane_of[conn.slot()].expect("every connection was made for a lane");
        let lane = &mut self.lanes[index];
        match event {
            Event::Connected { .. } => {
                lane.is_open = lane.machine.open(&self.pool);
                self.out_of_buffers |= !lane.is_open;
            }
            Event::Received { landing, len, .. } => {
                lane.machine.initiator().on_received(landing, len);
            }
            Event::Ended { landing, .. } => {
                lane.machine.initiator().on_received(landing, 0);
                self.net.close(conn);
            }
            Event::Sent { mut batch, .. } => {
                lane.machine.initiator().on_sent(&mut batch);
                lane.batch = Some(batch);
            }
            Event::Closed { batch, reason, .. } => {
                lane.closed = Some(reason);
                if let Some(mut batch) = batch {
                    lane.machine.initiator().on_sent(&mut batch);
                    lane.batch = Some(batch);
                }
                lane.is_open = false;
                lane.machine.initiator().on_closed();
                self.lane_of[conn.slot()] = None;
            }
            Event::Accepted { .. } => {}
        }
        self.flush(index);
    }

    /// Hands what a lane has to say, and where it wants to listen, to the sockets.
    fn flush(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if !lane.is_open {
            return;
        }
        let initiator = lane.machine.initiator();
        if let Some(landing) = initiator.landing() {
            // A closing connection gives it back; its end is on its way.
            let _ = self.net.receive(lane.conn, landing);
        }
        let Some(mut batch) = lane.batch.take() else { return };
        if !initiator.poll_transmit(&mut batch) {
            lane.batch = Some(batch);
        } else if let Err(mut batch) = self.net.send(lane.conn, batch) {
            initiator.on_sent(&mut batch);
            lane.batch = Some(batch);
        }
    }
}
