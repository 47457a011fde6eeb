//! The pipes and listeners of one network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bdev::{Fifo, Instant, Rng};

use super::lane::{Lane, delay};
use super::{PipeConfig, PipeEnd};
use crate::Batch;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) config: PipeConfig,
    rng: Rng,
    pipes: Vec<Pipe>,
    free: Vec<usize>,
    listeners: Vec<Listener>,
    cut: Vec<IpAddr>,
    /// Ends that are a `PipeEnd`.
    handed: usize,
    port_next: u16,
}

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    backlog: Fifo<usize>,
}

/// A connection. Side 0 connected, side 1 accepted; lane `n` carries what side `n` sends.
#[derive(Debug)]
struct Pipe {
    lanes: [Lane; 2],
    ends: [End; 2],
    addresses: [SocketAddr; 2],
    token: Arc<()>,
    /// When the connecting side learns that it is connected.
    connected_at: Instant,
    reset: bool,
}

/// Who has an end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody: it waits in a listener's backlog.
    Waiting,
    /// A `PipeEnd`.
    Handed,
    /// A connection of a `PipeNet`.
    Held,
    /// Nobody any more.
    Closed,
}

/// What a connection sees of its pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Bytes can be read.
    Readable(usize),
    /// The peer has finished.
    Ended,
    /// Nothing now.
    Quiet,
    /// The connection was reset.
    Reset,
}

impl World {
    pub(crate) fn new(config: PipeConfig) -> World {
        let rng = Rng::new(config.seed).fork("net");
        World {
            now: Instant::ZERO,
            config,
            rng,
            pipes: Vec::new(),
            free: Vec::new(),
            listeners: Vec::new(),
            cut: Vec::new(),
            handed: 0,
            port_next: 49152,
        }
    }

    /// A port above the well-known ones that nobody has been given before (until they wrap).
    fn port(&mut self) -> u16 {
        let port = self.port_next;
        self.port_next = port.checked_add(1).unwrap_or(49152);
        port
    }

    pub(crate) fn listen(&mut self, mut address: SocketAddr) -> Option<SocketAddr> {
        if address.port() == 0 {
            address.set_port(self.port());
        }
        if self.listeners.iter().any(|listener| listener.address == address) {
            return None;
        }
        self.listeners.push(Listener { address, backlog: Fifo::new(self.config.backlog_max) });
        Some(address)
    }

    pub(crate) fn unlisten(&mut self, address: SocketAddr) {
        let position = self.listeners.iter().position(|listener| listener.address == address);
        let Some(position) = position else { return };
        let mut listener = self.listeners.swap_remove(position);
        while let Some(pipe) = listener.backlog.pop() {
            self.pipes[pipe].reset = true;
            self.close(pipe, 1);
        }
    }

    /// Connects `from` to whoever listens at `to`; the pipe, or `None` when it is refused.
    pub(crate) fn connect(&mut self, from: IpAddr, to: SocketAddr) -> Option<usize> {
        let from = SocketAddr::new(from, self.port());
        let listener = self.listeners.iter().position(|listener| listener.address == to)?;
        if self.listeners[listener].backlog.is_full() {
            return None;
        }
        let pipe = self.free.pop().unwrap_or_else(|| {
            let lane = || Lane::new(self.config.window_bytes);
            self.pipes.push(Pipe::new([lane(), lane()], from));
            self.pipes.len() - 1
        });
        let connected_at = self.now.saturating_add(delay(&self.config, &mut self.rng));
        self.pipes[pipe].start([from, to], connected_at);
        let pushed = self.listeners[listener].backlog.push(pipe);
        assert!(pushed.is_ok(), "room was checked");
        Some(pipe)
    }

    /// Takes the oldest connection out of the backlog of the listener at `address`.
    pub(crate) fn accept(&mut self, address: SocketAddr) -> Option<(PipeEnd, SocketAddr)> {
        let listener = self.listeners.iter_mut().find(|listener| listener.address == address)?;
        let &pipe = listener.backlog.front()?;
        if self.pipes[pipe].connected_at > self.now || self.is_cut(pipe) {
            return None;
        }
        let listener = self.listeners.iter_mut().find(|listener| listener.address == address)?;
        listener.backlog.pop();
        self.pipes[pipe].ends[1] = End::Handed;
        self.handed += 1;
        let end = PipeEnd { pipe, _token: Arc::clone(&self.pipes[pipe].token) };
        Some((end, self.pipes[pipe].addresses[0]))
    }

    pub(crate) fn adopt(&mut self, end: &PipeEnd) {
        self.pipes[end.pipe].ends[1] = End::Held;
        self.handed -= 1;
    }

    pub(crate) fn is_connected(&self, pipe: usize) -> bool {
        self.pipes[pipe].connected_at <= self.now && !self.is_cut(pipe)
    }

    fn is_cut(&self, pipe: usize) -> bool {
        let addresses = self.pipes[pipe].addresses;
        addresses.iter().any(|address| self.cut.contains(&address.ip()))
    }

    pub(crate) fn view(&self, pipe: usize, side: usize) -> View {
        let cut = self.is_cut(pipe);
        let pipe = &self.pipes[pipe];
        let lane = &pipe.lanes[1 - side];
        match lane.arrived(self.now) {
            _ if pipe.reset => View::Reset,
            _ if cut => View::Quiet,
            0 if lane.is_finished(self.now) => View::Ended,
            0 => View::Quiet,
            bytes => View::Readable(bytes),
        }
    }

    /// Reads what has arrived, or by chance only a part of it.
    pub(crate) fn read(&mut self, pipe: usize, side: usize, into: &mut [u8]) -> usize {
        let lane = &mut self.pipes[pipe].lanes[1 - side];
        let mut len = lane.arrived(self.now).min(into.len());
        if self.config.fragment_max != usize::MAX && self.rng.chance(1, 4) {
            len = usize::try_from(self.rng.between(1, len as u64)).expect("at most a usize");
        }
        lane.read(&mut into[..len]);
        len
    }

    /// Sends what fits; how many bytes that was.
    pub(crate) fn write(&mut self, pipe: usize, side: usize, batch: &Batch, from: usize) -> usize {
        let chance = u64::from(self.config.resets_per_million);
        let (now, pipe) = (self.now, &mut self.pipes[pipe]);
        if chance > 0 && from == 0 && self.rng.chance(chance, 1_000_000) {
            pipe.reset = true;
        }
        if pipe.ends[1 - side] == End::Closed {
            pipe.reset = true;
        }
        if pipe.reset {
            return 0;
        }
        pipe.lanes[side].write(batch, from, now, &self.config, &mut self.rng)
    }

    pub(crate) fn finish(&mut self, pipe: usize, side: usize) {
        self.pipes[pipe].lanes[side].finish(self.now, &self.config, &mut self.rng);
    }

    /// Closes one end; the pipe is free for another connection when both are.
    pub(crate) fn close(&mut self, pipe: usize, side: usize) {
        self.finish(pipe, side);
        self.pipes[pipe].ends[side] = End::Closed;
        if self.pipes[pipe].is_over() {
            self.free.push(pipe);
        }
    }

    /// Closes the ends whose `PipeEnd` was dropped.
    pub(crate) fn sweep(&mut self) {
        if self.handed == 0 {
            return;
        }
        for pipe in 0..self.pipes.len() {
            let here = &self.pipes[pipe];
            if here.ends[1] == End::Handed && Arc::strong_count(&here.token) == 1 {
                self.handed -= 1;
                self.close(pipe, 1);
            }
        }
    }

    pub(crate) fn reset_host(&mut self, host: IpAddr) {
        for pipe in &mut self.pipes {
            pipe.reset |= pipe.addresses.iter().any(|address| address.ip() == host);
        }
    }

    pub(crate) fn cut_host(&mut self, host: IpAddr) {
        if !self.cut.contains(&host) {
            self.cut.push(host);
        }
    }

    pub(crate) fn mend_host(&mut self, host: IpAddr) {
        self.cut.retain(|&cut| cut != host);
    }

    pub(crate) fn open_len(&self) -> usize {
        self.pipes.len() - self.free.len()
    }

    pub(crate) fn next_moment(&self) -> Option<Instant> {
        let open = self.pipes.iter().enumerate().filter(|(_, pipe)| !pipe.is_over());
        open.filter(|&(pipe, _)| !self.is_cut(pipe))
            .flat_map(|(_, pipe)| {
                let lanes = pipe.lanes.iter().filter_map(|lane| lane.next_moment(self.now));
                lanes.chain((pipe.connected_at > self.now).then_some(pipe.connected_at))
            })
            .min()
    }
}

impl Pipe {
    fn new(lanes: [Lane; 2], address: SocketAddr) -> Pipe {
        Pipe {
            lanes,
            ends: [End::Closed; 2],
            addresses: [address; 2],
            token: Arc::new(()),
            connected_at: Instant::ZERO,
            reset: false,
        }
    }

    fn start(&mut self, addresses: [SocketAddr; 2], connected_at: Instant) {
        assert!(self.is_over());
        self.lanes.iter_mut().for_each(Lane::reset);
        self.ends = [End::Held, End::Waiting];
        self.addresses = addresses;
        self.connected_at = connected_at;
        self.reset = false;
    }

    fn is_over(&self) -> bool {
        self.ends == [End::Closed; 2]
    }
}
