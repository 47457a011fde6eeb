//! A simulated host: connects, loses its connections, connects again. No workload.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bdev::{Completion, Fifo, Instant, Pool, Request, Rng};
use net::{Batch, ConnId, Event, Net, PipeNet, Pipes};
use nvmf::initiator::{
    Admin, AdminInfo, HostCommand, HostIdentity, HostResponse, Initiator, QueueOptions,
};

/// How a host connects.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Who it is, and which subsystem it wants.
    pub identity: HostIdentity,
    /// Its own address.
    pub address: IpAddr,
    /// Where the target listens.
    pub target: SocketAddr,
    /// I/O queues.
    pub queues: u16,
    /// Digests on or off.
    pub digests: nvmf::Digests,
    /// Keep alive, in milliseconds; 0 is none.
    pub kato_ms: u32,
}

/// A host with an admin queue and some I/O queues to one subsystem.
pub struct Host {
    config: HostConfig,
    net: PipeNet,
    events: Fifo<Event>,
    pool: Rc<Pool>,
    admin: Admin,
    /// The lines of the queues: first the admin queue's, then those of `io`.
    lines: Vec<Line>,
    io: Vec<Initiator>,
    state: State,
    rng: Rng,
    /// Where the next request goes.
    next: usize,
    /// Times that all queues were connected.
    pub connects: u64,
    worked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits to connect.
    Idle(Instant),
    /// The admin queue is coming up.
    Admin,
    /// The I/O queues are coming up.
    Io,
    Ready,
    /// Something failed: all lines close.
    Closing,
    /// Stays away.
    Off,
}

/// One TCP connection and what is out on it.
#[derive(Default)]
struct Line {
    conn: Option<ConnId>,
    up: bool,
    batch: Option<Box<Batch>>,
    receiving: bool,
}

impl Host {
    /// A host that connects at its first turn.
    pub fn new(config: HostConfig, pipes: &Pipes, pool: Rc<Pool>, rng: Rng) -> Host {
        let count = usize::from(config.queues) + 1;
        let net = PipeNet::new(pipes, config.address, count * 2);
        let mut lines = Vec::new();
        lines.resize_with(count, Line::default);
        let admin = Admin::new(admin_options(&config), config.queues);
        Host {
            config,
            net,
            events: Fifo::new(64),
            pool,
            admin,
            lines,
            io: Vec::new(),
            state: State::Idle(Instant::ZERO),
            rng,
            next: 0,
            connects: 0,
            worked: false,
        }
    }

    /// Whether requests can be submitted.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether no connection is left and none will be made.
    pub fn is_off(&self) -> bool {
        self.state == State::Off && self.lines.iter().all(|line| line.conn.is_none())
    }

    /// What the admin queue learned.
    pub fn info(&self) -> Option<&AdminInfo> {
        self.admin.info()
    }

    /// The host's buffers.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Whether the last turn did anything.
    pub fn worked(&self) -> bool {
        self.worked
    }

    /// When the next turn is due although nothing arrives.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle(at) => Some(at),
            State::Off => None,
            _ => self.admin.next_timeout(),
        }
    }

    /// Submits a request on one of the queues; gives it back when none has room.
    pub fn submit(&mut self, nsid: u32, block_size: u32, request: Request) -> Result<(), Request> {
        let mut one = Fifo::new(1);
        one.push(request)?;
        for step in 0..self.io.len() {
            let at = (self.next + step) % self.io.len();
            if self.is_ready() {
                self.io[at].submit(nsid, block_size, &mut one);
            }
            if one.is_empty() {
                self.next = at + 1;
                return Ok(());
            }
        }
        Err(one.pop().expect("nobody took it"))
    }

    /// Submits a raw command on the first I/O queue; gives it back when that has no room.
    ///
    /// # Errors
    /// The command, for another time.
    pub fn submit_command(&mut self, command: HostCommand) -> Result<(), HostCommand> {
        match self.io.first_mut().filter(|_| self.state == State::Ready) {
            Some(queue) => queue.submit_command(command),
            None => Err(command),
        }
    }

    /// The end of a raw command.
    pub fn poll_response(&mut self) -> Option<HostResponse> {
        self.io.first_mut()?.poll_response()
    }

    /// Disconnects and stays away.
    pub fn switch_off(&mut self) {
        self.close_lines();
        self.state = State::Off;
    }

    /// Moves bytes and states; finished requests come out in `done`.
    pub fn turn(&mut self, now: Instant, done: &mut Vec<Completion>) {
        self.worked = false;
        if let State::Idle(at) = self.state
            && at <= now
        {
            self.connect(0, now);
            self.state = if self.lines[0].conn.is_some() { State::Admin } else { self.state };
            self.worked = true;
        }
        self.net.poll(&mut self.events);
        while let Some(event) = self.events.pop() {
            self.worked = true;
            self.on_event(event);
        }
        self.admin.poll(&self.pool, now);
        self.step(now);
        for index in 0..self.lines.len() {
            self.pump(index);
        }
        self.net.kick();
        let mut completions = Fifo::new(64);
        for queue in &mut self.io {
            queue.poll(&mut completions);
            while let Some(completion) = completions.pop() {
                self.worked = true;
                done.push(completion);
            }
        }
    }

    fn step(&mut self, now: Instant) {
        let failed = self.admin.failure().is_some()
            || self.io.iter().any(|queue| queue.failure().is_some())
            || (self.lines.iter().any(|line| line.up && line.conn.is_none()));
        match self.state {
            State::Admin | State::Io | State::Ready if failed => {
                self.close_lines();
                self.state = State::Closing;
                self.worked = true;
            }
            State::Admin => {
                if let Some(info) = self.admin.info() {
                    let (cntlid, count) = (info.cntlid, info.io_queues.min(self.config.queues));
                    self.worked = true;
                    self.io = (1..=count)
                        .map(|qid| Initiator::new(self.io_options(cntlid, qid)))
                        .collect();
                    for index in 1..=usize::from(count) {
                        self.connect(index, now);
                    }
                    self.state = State::Io;
                }
            }
            State::Io if !self.io.is_empty() && self.io.iter().all(Initiator::is_ready) => {
                self.state = State::Ready;
                self.connects += 1;
                self.worked = true;
            }
            State::Closing if self.lines.iter().all(|line| line.conn.is_none()) => {
                if self.io.iter().any(|queue| queue.in_flight() > 0) {
                    return; // Their ends are polled first.
                }
                self.io.clear();
                self.lines.iter_mut().for_each(|line| *line = Line::default());
                self.admin = Admin::new(admin_options(&self.config), self.config.queues);
                let pause = Duration::from_micros(self.rng.between(1_000, 50_000));
                self.state = State::Idle(now.saturating_add(pause));
                self.worked = true;
            }
            _ => (),
        }
    }

    fn io_options(&self, cntlid: u16, qid: u16) -> QueueOptions {
        let digests = self.config.digests;
        QueueOptions { digests, ..QueueOptions::io(self.config.identity, cntlid, qid) }
    }

    fn connect(&mut self, index: usize, now: Instant) {
        let pause = Duration::from_micros(self.rng.between(1_000, 50_000));
        match self.net.connect(self.config.target) {
            Ok(conn) => {
                let batch = Some(Batch::with_defaults());
                self.lines[index] = Line { conn: Some(conn), up: false, batch, receiving: false };
            }
            Err(_) if index == 0 => self.state = State::Idle(now.saturating_add(pause)),
            Err(_) => self.state = State::Closing,
        }
    }

    fn on_event(&mut self, event: Event) {
        let conn = match &event {
            Event::Connected { conn }
            | Event::Received { conn, .. }
            | Event::Ended { conn, .. }
            | Event::Sent { conn, .. }
            | Event::Closed { conn, .. } => *conn,
            Event::Accepted { .. } => return,
        };
        let Some(index) = self.lines.iter().position(|line| line.conn == Some(conn)) else {
            return;
        };
        let line = &mut self.lines[index];
        let queue = match index {
            0 => self.admin.queue_mut(),
            _ => &mut self.io[index - 1],
        };
        match event {
            Event::Connected { .. } => {
                line.up = true;
                let open = match index {
                    0 => self.admin.open(&self.pool),
                    _ => queue.open(&self.pool),
                };
                if !open {
                    self.net.close(conn); // No memory now: try again later.
                }
            }
            Event::Received { landing, len, .. } => {
                line.receiving = false;
                queue.on_received(landing, len);
            }
            Event::Ended { landing, .. } => {
                line.receiving = false;
                queue.on_received(landing, 0);
            }
            Event::Sent { mut batch, .. } => {
                queue.on_sent(&mut batch);
                line.batch = Some(batch);
            }
            Event::Closed { .. } => {
                // Refused, or gone: either way the line was up once it counts as failed.
                *line = Line { up: true, ..Line::default() };
                queue.on_closed();
            }
            Event::Accepted { .. } => (),
        }
    }

    fn pump(&mut self, index: usize) {
        let line = &mut self.lines[index];
        let Some(conn) = line.conn.filter(|_| line.up) else { return };
        let queue = match index {
            0 => self.admin.queue_mut(),
            _ => &mut self.io[index - 1],
        };
        if let Some(mut batch) = line.batch.take() {
            if queue.poll_transmit(&mut batch) {
                self.worked = true;
                if let Err(mut batch) = self.net.send(conn, batch) {
                    queue.on_sent(&mut batch);
                    line.batch = Some(batch);
                }
            } else {
                line.batch = Some(batch);
            }
        }
        if !line.receiving
            && let Some(landing) = queue.landing()
        {
            line.receiving = self.net.receive(conn, landing).is_ok();
        }
    }

    fn close_lines(&mut self) {
        for line in &self.lines {
            if let Some(conn) = line.conn {
                self.net.close(conn);
            }
        }
    }
}

fn admin_options(config: &HostConfig) -> QueueOptions {
    let (digests, kato_ms) = (config.digests, config.kato_ms);
    QueueOptions { digests, kato_ms, ..QueueOptions::admin(config.identity) }
}
