//! The sockets of one shard or host on a network of pipes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bdev::Fifo;

use super::Pipes;
use super::world::View;
use crate::limits::{CONNECTIONS_MAX, LISTENERS_MAX};
use crate::{
    Batch, CloseReason, ConnId, Event, Landing, ListenerId, Net, NetError, Socket, SocketKind,
};

/// A [`Net`] on [`Pipes`]. Dropping it closes its connections and listeners, as the death of a
/// process does.
pub struct PipeNet {
    pipes: Pipes,
    host: IpAddr,
    slots: Vec<Slot>,
    free: Vec<u32>,
    listeners: Vec<Listener>,
    listener_next: u32,
    /// The slots that have a connection.
    used: Vec<u32>,
    /// Where in `used` the next poll starts, so that a small event queue starves nobody.
    cursor: usize,
}

struct Listener {
    id: ListenerId,
    address: SocketAddr,
    accepting: bool,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

struct Conn {
    /// `None` when the connection was refused or is being closed.
    pipe: Option<(usize, usize)>,
    state: State,
    landing: Option<Landing>,
    landing_kicked: bool,
    batch: Option<Box<Batch>>,
    sent: usize,
    finished: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Closing(CloseReason),
}

impl PipeNet {
    /// The sockets of `host`, at most `connections_max` of them.
    ///
    /// # Panics
    /// When `connections_max` is zero or exceeds [`CONNECTIONS_MAX`].
    pub fn new(pipes: &Pipes, host: IpAddr, connections_max: usize) -> PipeNet {
        assert!(connections_max > 0 && connections_max <= CONNECTIONS_MAX);
        let mut slots = Vec::with_capacity(connections_max);
        slots.resize_with(connections_max, Slot::default);
        let count = u32::try_from(connections_max).expect("bounded above");
        PipeNet {
            pipes: pipes.clone(),
            host,
            slots,
            free: (0..count).rev().collect(),
            listeners: Vec::with_capacity(LISTENERS_MAX),
            listener_next: 0,
            used: Vec::with_capacity(connections_max),
            cursor: 0,
        }
    }

    /// The address of this host.
    pub fn host(&self) -> IpAddr {
        self.host
    }

    fn open(&mut self, pipe: Option<(usize, usize)>, state: State) -> ConnId {
        let slot = self.free.pop().expect("the caller checked for room");
        self.used.push(slot);
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.conn = Some(Conn {
            pipe,
            state,
            landing: None,
            landing_kicked: false,
            batch: None,
            sent: 0,
            finished: false,
        });
        ConnId::new(slot, entry.generation)
    }

    /// The connection, unless it is closed or closing.
    fn live(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(conn.slot())?;
        let live = slot.conn.as_mut().filter(|_| slot.generation == conn.generation())?;
        (!matches!(live.state, State::Closing(_))).then_some(live)
    }

    fn poll_accept(&mut self, events: &mut Fifo<Event>) {
        let mut world = self.pipes.world.borrow_mut();
        for listener in self.listeners.iter().filter(|listener| listener.accepting) {
            while !events.is_full() {
                let Some((end, peer)) = world.accept(listener.address) else { break };
                let socket = Socket::new(SocketKind::Pipe(end), peer);
                let pushed = events.push(Event::Accepted { listener: listener.id, socket });
                assert!(pushed.is_ok(), "room was checked");
            }
        }
    }

    /// The next event of the connection in `slot`, if it has one.
    fn next_event(&mut self, slot: usize) -> Option<Event> {
        let entry = &mut self.slots[slot];
        let conn = entry.conn.as_mut()?;
        let id = ConnId::new(u32::try_from(slot).expect("bounded"), entry.generation);
        let mut world = self.pipes.world.borrow_mut();
        let view = conn.pipe.map(|(pipe, side)| (pipe, side, world.view(pipe, side)));
        if let (Some((pipe, side, View::Reset)), State::Open | State::Connecting) =
            (view, conn.state)
        {
            world.close(pipe, side);
            conn.pipe = None;
            conn.state = State::Closing(CloseReason::Reset);
        }
        match (conn.state, view) {
            (State::Closing(reason), _) => {
                let conn = entry.conn.take().expect("just seen");
                self.free.push(u32::try_from(slot).expect("bounded"));
                Some(Event::Closed { conn: id, reason, landing: conn.landing, batch: conn.batch })
            }
            (State::Connecting, Some((pipe, ..))) if world.is_connected(pipe) => {
                conn.state = State::Open;
                Some(Event::Connected { conn: id })
            }
            (State::Open, _) if conn.is_sent() => {
                let batch = conn.batch.take().expect("a batch that was sent");
                Some(Event::Sent { conn: id, batch })
            }
            (State::Open, Some((_, _, View::Ended))) if conn.landing_kicked => {
                conn.landing_kicked = false;
                let landing = conn.landing.take().expect("a landing that was kicked");
                Some(Event::Ended { conn: id, landing })
            }
            (State::Open, Some((pipe, side, View::Readable(_)))) if conn.landing_kicked => {
                conn.landing_kicked = false;
                let mut landing = conn.landing.take().expect("a landing that was kicked");
                let len = world.read(pipe, side, landing.bytes_mut());
                let len = u32::try_from(len).expect("at most the landing's length");
                Some(Event::Received { conn: id, landing, len })
            }
            _ => None,
        }
    }
}

impl Conn {
    fn is_sent(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| self.sent == batch.byte_len())
    }
}

impl Net for PipeNet {
    fn listen(&mut self, address: SocketAddr) -> Result<ListenerId, NetError> {
        if self.listeners.len() == LISTENERS_MAX {
            return Err(NetError::TooMany);
        }
        let Some(address) = self.pipes.world.borrow_mut().listen(address) else {
            let what = format!("listen on {address}");
            let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
            return Err(NetError::System { what, source });
        };
        let id = ListenerId(self.listener_next);
        self.listener_next += 1;
        self.listeners.push(Listener { id, address, accepting: true });
        Ok(id)
    }

    fn local_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.listeners.iter().find(|here| here.id == listener).map(|here| here.address)
    }

    fn set_accepting(&mut self, listener: ListenerId, accepting: bool) {
        if let Some(here) = self.listeners.iter_mut().find(|here| here.id == listener) {
            here.accepting = accepting;
        }
    }

    fn unlisten(&mut self, listener: ListenerId) {
        if let Some(position) = self.listeners.iter().position(|here| here.id == listener) {
            let listener = self.listeners.swap_remove(position);
            self.pipes.world.borrow_mut().unlisten(listener.address);
        }
    }

    fn adopt(&mut self, socket: Socket) -> Result<ConnId, Socket> {
        if self.free.is_empty() {
            return Err(socket);
        }
        let peer = socket.peer();
        match socket.into_kind() {
            SocketKind::Pipe(end) => {
                self.pipes.world.borrow_mut().adopt(&end);
                Ok(self.open(Some((end.pipe, 1)), State::Open))
            }
            kind => Err(Socket::new(kind, peer)),
        }
    }

    fn connect(&mut self, address: SocketAddr) -> Result<ConnId, NetError> {
        if self.free.is_empty() {
            return Err(NetError::TooMany);
        }
        let pipe = self.pipes.world.borrow_mut().connect(self.host, address);
        Ok(match pipe {
            Some(pipe) => self.open(Some((pipe, 0)), State::Connecting),
            None => self.open(None, State::Closing(CloseReason::Refused)),
        })
    }

    fn receive(&mut self, conn: ConnId, landing: Landing) -> Result<(), Landing> {
        let Some(live) = self.live(conn) else { return Err(landing) };
        assert!(live.landing.is_none(), "one receive is outstanding at most");
        live.landing = Some(landing);
        Ok(())
    }

    fn send(&mut self, conn: ConnId, batch: Box<Batch>) -> Result<(), Box<Batch>> {
        let Some(live) = self.live(conn) else { return Err(batch) };
        assert!(live.batch.is_none(), "one send is outstanding at most");
        assert!(!batch.is_empty(), "an empty batch is not sent");
        assert!(!live.finished, "nothing is sent after finish");
        live.batch = Some(batch);
        live.sent = 0;
        Ok(())
    }

    fn finish(&mut self, conn: ConnId) {
        let Some(live) = self.live(conn) else { return };
        assert!(live.batch.is_none(), "finish comes after the last send");
        live.finished = true;
        if let Some((pipe, side)) = live.pipe {
            self.pipes.world.borrow_mut().finish(pipe, side);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(live) = self.live(conn) else { return };
        live.state = State::Closing(CloseReason::Local);
        if let Some((pipe, side)) = live.pipe.take() {
            self.pipes.world.borrow_mut().close(pipe, side);
        }
    }

    fn kick(&mut self) {
        let mut world = self.pipes.world.borrow_mut();
        for &slot in &self.used {
            let Some(conn) = self.slots[slot as usize].conn.as_mut() else { continue };
            let (Some((pipe, side)), State::Open) = (conn.pipe, conn.state) else { continue };
            conn.landing_kicked = conn.landing.is_some();
            if let Some(batch) = conn.batch.as_ref().filter(|b| conn.sent < b.byte_len()) {
                conn.sent += world.write(pipe, side, batch, conn.sent);
            }
        }
    }

    fn poll(&mut self, events: &mut Fifo<Event>) {
        self.pipes.world.borrow_mut().sweep();
        self.poll_accept(events);
        let mut at = self.cursor;
        for _ in 0..self.used.len() {
            if at >= self.used.len() {
                at = 0;
            }
            let slot = self.used[at] as usize;
            while !events.is_full() {
                let Some(event) = self.next_event(slot) else { break };
                let pushed = events.push(event);
                assert!(pushed.is_ok(), "room was checked");
            }
            if self.slots[slot].conn.is_none() {
                self.used.swap_remove(at);
            } else if events.is_full() {
                break;
            } else {
                at += 1;
            }
        }
        self.cursor = at;
    }

    fn connections(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn connections_max(&self) -> usize {
        self.slots.len()
    }
}

impl Drop for PipeNet {
    fn drop(&mut self) {
        let mut world = self.pipes.world.borrow_mut();
        for listener in &self.listeners {
            world.unlisten(listener.address);
        }
        for conn in self.slots.iter().filter_map(|slot| slot.conn.as_ref()) {
            if let Some((pipe, side)) = conn.pipe {
                world.close(pipe, side);
            }
        }
    }
}

impl fmt::Debug for PipeNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeNet")
            .field("host", &self.host)
            .field("connections", &self.connections())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PipeConfig;
    use crate::conformance::{CONNECTIONS, Fixture};

    fn fixture(config: PipeConfig) -> Fixture {
        let pipes = Pipes::new(config);
        let host = |last: u8| IpAddr::from([10, 0, 0, last]);
        let net = |last| Box::new(PipeNet::new(&pipes, host(last), CONNECTIONS));
        let (server, client) = (net(1), net(2));
        Fixture::new(server, client, SocketAddr::new(host(1), 0)).pump(move || {
            pipes.advance();
        })
    }

    fn address() -> SocketAddr {
        "10.0.0.1:4420".parse().unwrap()
    }

    fn pair(pipes: &Pipes) -> (PipeNet, ConnId, PipeNet, ConnId) {
        let mut server = PipeNet::new(pipes, address().ip(), 2);
        let mut client = PipeNet::new(pipes, "10.0.0.2".parse().unwrap(), 2);
        server.listen(address()).unwrap();
        let here = client.connect(address()).unwrap();
        let mut events = Fifo::new(4);
        let mut there = None;
        while there.is_none() || !events.is_empty() {
            match events.pop() {
                Some(Event::Accepted { socket, .. }) => there = Some(server.adopt(socket).unwrap()),
                Some(_) => (),
                None => {
                    pipes.advance();
                    client.poll(&mut events);
                    server.poll(&mut events);
                }
            }
        }
        (client, here, server, there.unwrap())
    }

    fn say(net: &mut PipeNet, conn: ConnId, word: &[u8]) {
        let mut batch = Batch::with_defaults();
        assert!(batch.push_bytes(word));
        net.send(conn, batch).unwrap();
        net.kick();
    }

    /// What arrives at `conn` until the network is quiet, with the moments.
    fn hear(pipes: &Pipes, net: &mut PipeNet, conn: ConnId) -> Vec<(u64, usize)> {
        let pool = bdev::Pool::new(&bdev::PoolConfig::tiny()).unwrap();
        let mut events = Fifo::new(4);
        let mut heard = Vec::new();
        let mut landing = Some(Landing::new(pool.take(4096).unwrap(), 0, 4096));
        loop {
            if let Some(landing) = landing.take() {
                net.receive(conn, landing).unwrap();
            }
            net.kick();
            net.poll(&mut events);
            match events.pop() {
                Some(Event::Received { landing: back, len, .. }) => {
                    heard.push((pipes.now().as_ns(), len as usize));
                    landing = Some(back);
                }
                Some(_) => (),
                None if pipes.advance() => (),
                None => return heard,
            }
        }
    }

    #[test]
    fn same_seed_same_fragments_at_the_same_moments() {
        let run = |seed| {
            let pipes = Pipes::new(PipeConfig::nasty(seed));
            let (mut client, here, mut server, there) = pair(&pipes);
            say(&mut client, here, &[7; 8000]);
            hear(&pipes, &mut server, there)
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert_eq!(run(3).iter().map(|(_, len)| len).sum::<usize>(), 8000);
    }

    #[test]
    fn cut_host_hears_nothing_until_mended() {
        let pipes = Pipes::new(PipeConfig::default());
        let (mut client, here, mut server, there) = pair(&pipes);
        pipes.cut_host(client.host());
        say(&mut client, here, b"words");
        assert_eq!(hear(&pipes, &mut server, there), []);
        pipes.mend_host(client.host());
        let mut events = Fifo::new(4);
        server.poll(&mut events);
        assert!(matches!(events.pop(), Some(Event::Received { len: 5, .. })));
    }

    #[test]
    fn reset_host_closes_both_ends() {
        let pipes = Pipes::new(PipeConfig::default());
        let (mut client, _, mut server, _) = pair(&pipes);
        pipes.reset_host(client.host());
        let mut events = Fifo::new(4);
        client.poll(&mut events);
        server.poll(&mut events);
        for _ in 0..2 {
            let event = events.pop();
            assert!(matches!(event, Some(Event::Closed { reason: CloseReason::Reset, .. })));
        }
        assert_eq!(pipes.connections(), 0);
    }

    crate::conformance_suite!(perfect, fixture(PipeConfig::default()));
    crate::conformance_suite!(nasty, fixture(PipeConfig::nasty(7)));
}
