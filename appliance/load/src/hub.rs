//! The connections of a host to one target, on one thread's sockets.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bdev::{Completion, Data, Fifo, Instant, Pool};
use net::{Batch, CloseReason, ConnId, Event, Net};
use nvmf::initiator::{Admin, AdminInfo, Failure, Initiator};

use crate::client::ConnectError;
use crate::limits::{BATCH_PIECES, BATCH_SCRATCH, CONNECT_TIMEOUT, EVENTS_PER_POLL};

/// What a connection is for.
pub(crate) enum Machine {
    /// An admin queue that takes the steps to the first I/O by itself.
    Admin(Box<Admin>),
    /// An I/O queue, or an admin queue that is driven command by command.
    Io(Box<Initiator>),
}

impl Machine {
    pub(crate) fn initiator(&mut self) -> &mut Initiator {
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

    pub(crate) fn failure(&self) -> Option<Failure> {
        match self {
            Machine::Admin(admin) => admin.failure(),
            Machine::Io(initiator) => initiator.failure(),
        }
    }
}

/// One connection.
pub(crate) struct Lane {
    conn: ConnId,
    pub(crate) machine: Machine,
    /// `None` while it is being sent.
    batch: Option<Box<Batch>>,
    /// Finished requests, and those whose buffer the batch in flight still shares.
    pub(crate) done: Fifo<Completion>,
    is_open: bool,
    pub(crate) closed: Option<CloseReason>,
}

impl Lane {
    /// Hands out finished requests whose buffer nobody else holds.
    pub(crate) fn collect(&mut self, completions: &mut Fifo<Completion>) {
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

/// All connections of a host to one target.
pub(crate) struct Hub {
    net: Box<dyn Net>,
    pool: Rc<Pool>,
    pub(crate) lanes: Vec<Lane>,
    /// By [`ConnId::slot`].
    lane_of: Vec<Option<usize>>,
    events: Fifo<Event>,
    out_of_buffers: bool,
}

impl Hub {
    pub(crate) fn new(net: Box<dyn Net>, pool: Rc<Pool>, lanes_max: usize) -> Hub {
        let lane_of = vec![None; net.connections_max()];
        let lanes = Vec::with_capacity(lanes_max);
        let events = Fifo::new(EVENTS_PER_POLL);
        Hub { net, pool, lanes, lane_of, events, out_of_buffers: false }
    }

    pub(crate) fn add(
        &mut self,
        address: SocketAddr,
        machine: Machine,
    ) -> Result<(), ConnectError> {
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
    pub(crate) fn bring_up<T>(
        &mut self,
        idle: &mut dyn FnMut() -> Instant,
        mut ready: impl FnMut(&mut Hub) -> Option<T>,
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

    pub(crate) fn admin_info(&mut self) -> Option<AdminInfo> {
        match &self.lanes.first()?.machine {
            Machine::Admin(admin) => admin.info().cloned(),
            Machine::Io(_) => None,
        }
    }

    pub(crate) fn all_ready(&mut self) -> bool {
        self.lanes.iter_mut().all(|lane| lane.machine.initiator().is_ready())
    }

    /// Makes everything visible, and takes what has happened.
    pub(crate) fn turn(&mut self) {
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
    pub(crate) fn flush(&mut self, index: usize) {
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
