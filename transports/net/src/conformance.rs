//! The contract of [`Net`] as tests: every implementation passes these.
//!
//! ```text
//! net::conformance_suite!(pipe, fixture());
//! ```
//!
//! makes a module with one `#[test]` per case. `fixture()` makes a fresh [`Fixture`]: two `Net`s
//! that reach each other.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bdev::{Fifo, Pool, PoolConfig, Rng};

use crate::{Batch, CloseReason, ConnId, Event, Landing, ListenerId, Net, Socket};

/// Makes a module `$name` with one test per line of the contract; `$fixture` makes a fresh
/// [`Fixture`] for each.
#[macro_export]
macro_rules! conformance_suite {
    ($name:ident, $fixture:expr) => {
        $crate::conformance_suite!(@cases $name, $fixture,
            bytes_arrive_in_order_exactly_as_sent,
            nothing_is_reported_except_by_poll,
            close_gives_landing_and_batch_back,
            closed_comes_once_and_last,
            peer_that_finished_still_receives,
            reset_or_end_follows_a_peer_that_is_gone,
            ids_are_not_reused,
            full_event_queue_loses_nothing,
            nobody_listening_refuses,
            full_table_gives_the_socket_back,
            stopped_listener_leaves_peers_waiting,
            dropped_socket_closes_the_connection,
            churn_leaves_nothing_behind,
            dropped_net_closes_its_connections,
        );
    };
    (@cases $name:ident, $fixture:expr, $($case:ident,)+) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(#[test] fn $case() { $crate::conformance::$case(&mut $fixture); })+
        }
    };
}

/// Two shards that reach each other, with what must be driven between polls.
pub struct Fixture {
    pool: Pool,
    server: Side,
    client: Side,
    listen: SocketAddr,
    pump: Box<dyn FnMut()>,
}

struct Side {
    net: Option<Box<dyn Net>>,
    fifo: Fifo<Event>,
    seen: VecDeque<Event>,
}

impl Side {
    fn new(net: Box<dyn Net>) -> Side {
        Side { net: Some(net), fifo: Fifo::new(3), seen: VecDeque::new() }
    }

    fn net(&mut self) -> &mut dyn Net {
        self.net.as_deref_mut().expect("dropped by the last step of a case only")
    }

    fn step(&mut self) {
        if let Some(net) = self.net.as_deref_mut() {
            net.kick();
            net.poll(&mut self.fifo);
        }
        while let Some(event) = self.fifo.pop() {
            self.seen.push_back(event);
        }
    }
}

impl Fixture {
    /// `server` listens on `listen` (port 0 allowed), `client` connects to it. Each must be made
    /// for exactly [`CONNECTIONS`] connections.
    ///
    /// # Panics
    /// When one is not.
    pub fn new(server: Box<dyn Net>, client: Box<dyn Net>, listen: SocketAddr) -> Fixture {
        assert_eq!(
            (server.connections_max(), client.connections_max()),
            (CONNECTIONS, CONNECTIONS)
        );
        let pool = Pool::new(&PoolConfig { segments: [64, 32, 32, 4, 4], huge_pages: false });
        let pool = pool.expect("memory for a test");
        let (server, client) = (Side::new(server), Side::new(client));
        Fixture { pool, server, client, listen, pump: Box::new(|| ()) }
    }

    /// The same with `pump` called between polls, to move virtual time.
    #[must_use]
    pub fn pump(mut self, pump: impl FnMut() + 'static) -> Fixture {
        self.pump = Box::new(pump);
        self
    }

    fn step(&mut self) {
        self.server.step();
        self.client.step();
        (self.pump)();
    }

    /// Steps until `done` returns something.
    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Fixture) -> Option<T>) -> T {
        for _ in 0..STEPS_MAX {
            if let Some(found) = done(self) {
                return found;
            }
            self.step();
        }
        panic!("never happened: {what}");
    }

    fn server_event(&mut self) -> Event {
        self.until("an event of the server", |f| f.server.seen.pop_front())
    }

    fn client_event(&mut self) -> Event {
        self.until("an event of the client", |f| f.client.seen.pop_front())
    }

    fn landing(&self, len: u32) -> Landing {
        let buf = self.pool.take(len as usize).expect("the pool holds a test's buffers");
        Landing::new(buf, 0, len)
    }

    fn listen(&mut self) -> (ListenerId, SocketAddr) {
        let listener = self.server.net().listen(self.listen).expect("the address is free");
        let address = self.server.net().local_address(listener).expect("it listens");
        assert_ne!(address.port(), 0, "a port was picked");
        (listener, address)
    }

    fn accepted(&mut self) -> Socket {
        match self.server_event() {
            Event::Accepted { socket, .. } => socket,
            other => panic!("expected a connection, not {other:?}"),
        }
    }

    fn connected(&mut self, address: SocketAddr) -> (ConnId, Socket) {
        let conn = self.client.net().connect(address).expect("room for a connection");
        match self.client_event() {
            Event::Connected { conn: connected } => assert_eq!(connected, conn),
            other => panic!("expected to be connected, not {other:?}"),
        }
        (conn, self.accepted())
    }

    /// A connection: the client's and the server's id.
    fn pair(&mut self) -> (ConnId, ConnId) {
        let (_, address) = self.listen();
        let (client, socket) = self.connected(address);
        let server = self.server.net().adopt(socket).expect("room for a connection");
        (client, server)
    }
}

/// A batch of `len` bytes, headers and shared buffers mixed; returns the bytes too.
fn mixed_batch(pool: &Pool, rng: &mut Rng, len: usize) -> (Box<Batch>, Vec<u8>) {
    let mut batch = Batch::new(16, 1024);
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let left = len - bytes.len();
        let some = |rng: &mut Rng, most: usize| {
            usize::try_from(rng.between(1, most.min(left) as u64)).expect("small")
        };
        let header = some(rng, 64);
        let mut fresh = vec![0; header];
        rng.fill(&mut fresh);
        if batch.push_bytes(&fresh) {
            bytes.extend(&fresh);
            if bytes.len() == len {
                break;
            }
        }
        let left = len - bytes.len();
        let mut segment = pool.take(65536).expect("the pool holds a test's buffers");
        rng.fill(segment.bytes_mut());
        let size = usize::try_from(rng.between(1, left.min(60_000) as u64)).expect("small");
        let offset = usize::try_from(rng.below(5000)).expect("small");
        let fresh = segment.bytes()[offset..offset + size].to_vec();
        if batch.push_buf(segment.freeze(), offset, size).is_err() {
            break;
        }
        bytes.extend(&fresh);
    }
    assert_eq!(batch.byte_len(), bytes.len());
    (batch, bytes)
}

/// Line 1: both directions at once, in batches and landings of any size.
pub fn bytes_arrive_in_order_exactly_as_sent(fixture: &mut Fixture) {
    let (client, server) = fixture.pair();
    let mut rng = Rng::new(1);
    let (mut to_send, mut expected) = ([24, 24], [Vec::new(), Vec::new()]);
    let mut received: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
    let mut outstanding = [(false, false); 2];
    for _ in 0..STEPS_MAX {
        let ends = [(0, server), (1, client)];
        for (at, conn) in ends {
            let pool = &fixture.pool;
            let side = if at == 0 { &mut fixture.server } else { &mut fixture.client };
            if !outstanding[at].0 && to_send[at] > 0 {
                let len = [1, 100, 9000, 200_000][rng.index(4).expect("four")];
                let (batch, bytes) = mixed_batch(pool, &mut rng, len);
                side.net().send(conn, batch).expect("it is open");
                expected[1 - at].extend(bytes);
                to_send[at] -= 1;
                outstanding[at].0 = true;
            }
            if !outstanding[at].1 {
                let len = u32::try_from(rng.between(1, 30_000)).expect("small");
                let buf = pool.take(65536).expect("the pool holds a test's buffers");
                let offset = u32::try_from(rng.below(30_000)).expect("small");
                side.net().receive(conn, Landing::new(buf, offset, len)).expect("it is open");
                outstanding[at].1 = true;
            }
            while let Some(event) = side.seen.pop_front() {
                match event {
                    Event::Received { landing, len, .. } => {
                        assert!(len > 0);
                        received[at].extend(landing.received(len));
                        outstanding[at].1 = false;
                    }
                    Event::Sent { .. } => outstanding[at].0 = false,
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        if to_send == [0, 0] && (0..2).all(|at| received[at].len() == expected[at].len()) {
            assert!(received == expected, "the same bytes in the same order");
            return;
        }
        fixture.step();
    }
    panic!("bytes never arrived");
}

/// Line 3: what was asked for comes back through `poll`, and once.
pub fn nothing_is_reported_except_by_poll(fixture: &mut Fixture) {
    let (client, server) = fixture.pair();
    let landing = fixture.landing(4096);
    fixture.server.net().receive(server, landing).expect("it is open");
    let mut batch = Batch::with_defaults();
    assert!(batch.push_bytes(b"once"));
    fixture.client.net().send(client, batch).expect("it is open");
    assert!(matches!(fixture.client_event(), Event::Sent { batch, .. } if batch.byte_len() == 4));
    match fixture.server_event() {
        Event::Received { landing, len, .. } => assert_eq!(landing.received(len)[0], b'o'),
        other => panic!("unexpected {other:?}"),
    }
    for _ in 0..100 {
        fixture.step();
    }
    assert!(fixture.server.seen.is_empty() && fixture.client.seen.is_empty());
}

/// Line 2: a close gives back the receive and the send that were outstanding.
pub fn close_gives_landing_and_batch_back(fixture: &mut Fixture) {
    let (_, server) = fixture.pair();
    let landing = fixture.landing(4096);
    fixture.server.net().receive(server, landing).expect("it is open");
    // Nobody reads at the other end, so sends soon have to wait.
    let stuck = loop {
        let (batch, _) = mixed_batch(&fixture.pool, &mut Rng::new(3), 400_000);
        fixture.server.net().send(server, batch).expect("it is open");
        let sent = (0..300).find_map(|_| {
            fixture.step();
            fixture.server.seen.pop_front()
        });
        match sent {
            Some(Event::Sent { .. }) => (),
            Some(other) => panic!("unexpected {other:?}"),
            None => break true,
        }
    };
    assert!(stuck);
    fixture.server.net().close(server);
    let Event::Closed { conn, reason, landing, batch } = fixture.server_event() else {
        panic!("a close is reported as one")
    };
    assert_eq!((conn, reason), (server, CloseReason::Local));
    assert!(landing.is_some() && batch.is_some());
    assert_eq!(fixture.server.net().connections(), 0);
}

/// Line 4: one `Closed`, nothing after it, and the id answers with errors.
pub fn closed_comes_once_and_last(fixture: &mut Fixture) {
    let (_, server) = fixture.pair();
    fixture.server.net().close(server);
    fixture.server.net().close(server);
    let landing = fixture.landing(4096);
    assert!(fixture.server.net().receive(server, landing).is_err(), "it is closing");
    assert!(matches!(fixture.server_event(), Event::Closed { reason: CloseReason::Local, .. }));
    for _ in 0..100 {
        fixture.step();
    }
    assert!(fixture.server.seen.is_empty());
    let landing = fixture.landing(4096);
    assert!(fixture.server.net().receive(server, landing).is_err(), "it is closed");
    let mut batch = Batch::with_defaults();
    assert!(batch.push_bytes(b"late"));
    assert!(fixture.server.net().send(server, batch).is_err(), "it is closed");
    fixture.server.net().finish(server);
    fixture.server.net().close(server);
}

/// Line 5: half-close.
pub fn peer_that_finished_still_receives(fixture: &mut Fixture) {
    let (client, server) = fixture.pair();
    fixture.client.net().finish(client);
    let landing = fixture.landing(4096);
    fixture.server.net().receive(server, landing).expect("it is open");
    assert!(matches!(fixture.server_event(), Event::Ended { .. }));
    let mut batch = Batch::with_defaults();
    assert!(batch.push_bytes(b"x"));
    fixture.server.net().send(server, batch).expect("it is open");
    let landing = fixture.landing(4096);
    fixture.client.net().receive(client, landing).expect("it is open");
    match fixture.client_event() {
        Event::Received { landing, len, .. } => assert_eq!(landing.received(len), b"x"),
        other => panic!("unexpected {other:?}"),
    }
}

/// A peer that closed is seen as an end, and sending to it as a reset in the end.
pub fn reset_or_end_follows_a_peer_that_is_gone(fixture: &mut Fixture) {
    let (client, server) = fixture.pair();
    fixture.client.net().close(client);
    assert!(matches!(fixture.client_event(), Event::Closed { .. }));
    let landing = fixture.landing(4096);
    fixture.server.net().receive(server, landing).expect("it is open");
    match fixture.server_event() {
        Event::Ended { .. } => (),
        other => panic!("unexpected {other:?}"),
    }
    loop {
        let mut batch = Batch::with_defaults();
        assert!(batch.push_bytes(b"is anybody there"));
        if fixture.server.net().send(server, batch).is_err() {
            continue; // Its close is on its way: the next event says so.
        }
        match fixture.server_event() {
            Event::Sent { .. } => (),
            Event::Closed { reason, .. } => return assert_eq!(reason, CloseReason::Reset),
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// Line 4: slots are reused, ids are not.
pub fn ids_are_not_reused(fixture: &mut Fixture) {
    let (_, address) = fixture.listen();
    let mut before = None;
    for _ in 0..5 {
        let (client, socket) = fixture.connected(address);
        drop(socket);
        assert_ne!(before, Some(client));
        assert!(client.slot() < CONNECTIONS);
        fixture.client.net().close(client);
        assert!(matches!(fixture.client_event(), Event::Closed { conn, .. } if conn == client));
        before = Some(client);
    }
}

/// Line 6: with room for one event at a time everything is still reported.
pub fn full_event_queue_loses_nothing(fixture: &mut Fixture) {
    fixture.server.fifo = Fifo::new(1);
    fixture.client.fifo = Fifo::new(1);
    let (_, address) = fixture.listen();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| fixture.client.net().connect(address).expect("room for a connection"))
        .collect();
    let mut got = [false; CONNECTIONS];
    for _ in 0..CONNECTIONS {
        let socket = fixture.accepted();
        let conn = fixture.server.net().adopt(socket).expect("room for a connection");
        let landing = fixture.landing(64);
        fixture.server.net().receive(conn, landing).expect("it is open");
    }
    assert_eq!(fixture.server.net().connections(), CONNECTIONS);
    for _ in 0..CONNECTIONS {
        assert!(matches!(fixture.client_event(), Event::Connected { .. }));
    }
    for &client in &clients {
        let mut batch = Batch::with_defaults();
        assert!(batch.push_bytes(b"!"));
        fixture.client.net().send(client, batch).expect("it is open");
    }
    for _ in 0..CONNECTIONS {
        assert!(matches!(fixture.client_event(), Event::Sent { .. }));
        match fixture.server_event() {
            Event::Received { conn, len, .. } => {
                assert!(!std::mem::replace(&mut got[conn.slot()], true));
                assert_eq!(len, 1);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(got.iter().all(|&got| got));
}

/// A connection to an address where nobody listens ends as refused.
pub fn nobody_listening_refuses(fixture: &mut Fixture) {
    let (listener, address) = fixture.listen();
    fixture.server.net().unlisten(listener);
    assert_eq!(fixture.server.net().local_address(listener), None);
    let conn = fixture.until("the listener is gone", |f| {
        let conn = f.client.net().connect(address).expect("room for a connection");
        match f.client_event() {
            Event::Closed { conn: closed, reason: CloseReason::Refused, .. } => {
                assert_eq!(closed, conn);
                Some(conn)
            }
            Event::Closed { .. } => None,
            Event::Connected { .. } => {
                f.client.net().close(conn);
                assert!(matches!(f.client_event(), Event::Closed { .. }));
                None
            }
            other => panic!("unexpected {other:?}"),
        }
    });
    let landing = fixture.landing(1);
    assert!(fixture.client.net().receive(conn, landing).is_err());
}

/// Beyond the maximum, `adopt` gives the socket back and `connect` fails.
pub fn full_table_gives_the_socket_back(fixture: &mut Fixture) {
    let (_, address) = fixture.listen();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let (client, socket) = fixture.connected(address);
        fixture.server.net().adopt(socket).expect("room for a connection");
        clients.push(client);
    }
    assert!(fixture.client.net().connect(address).is_err());
    // Now there is room at the client, but none at the server.
    let client = clients.pop().expect("there are some");
    fixture.client.net().close(client);
    assert!(matches!(fixture.client_event(), Event::Closed { .. }));
    let (_, socket) = fixture.connected(address);
    assert!(fixture.server.net().adopt(socket).is_err());
}

/// What connects to a listener that does not accept waits, and is accepted later.
pub fn stopped_listener_leaves_peers_waiting(fixture: &mut Fixture) {
    let (listener, address) = fixture.listen();
    fixture.server.net().set_accepting(listener, false);
    for _ in 0..4 {
        fixture.client.net().connect(address).expect("room for a connection");
    }
    for _ in 0..4 {
        assert!(matches!(fixture.client_event(), Event::Connected { .. }));
    }
    for _ in 0..300 {
        fixture.step();
    }
    assert!(fixture.server.seen.len() <= 1, "at most one slips through");
    fixture.server.net().set_accepting(listener, true);
    for _ in 0..4 {
        drop(fixture.accepted());
    }
}

/// A socket that nobody adopts closes the connection.
pub fn dropped_socket_closes_the_connection(fixture: &mut Fixture) {
    let (_, address) = fixture.listen();
    let (client, socket) = fixture.connected(address);
    drop(socket);
    let landing = fixture.landing(4096);
    fixture.client.net().receive(client, landing).expect("it is open");
    assert!(matches!(fixture.client_event(), Event::Ended { .. } | Event::Closed { .. }));
}

/// Connections come and go in any state; in the end none is left.
pub fn churn_leaves_nothing_behind(fixture: &mut Fixture) {
    let (_, address) = fixture.listen();
    let mut rng = Rng::new(9);
    let buffers = fixture.pool.stats().taken();
    for round in 0..40 {
        let client = fixture.client.net().connect(address).expect("room for a connection");
        let socket = fixture.accepted();
        let server = fixture.server.net().adopt(socket).expect("room for a connection");
        assert!(matches!(fixture.client_event(), Event::Connected { .. }));
        for (at, conn) in [(0, client), (1, server)] {
            let landing = fixture.landing(4096);
            let (batch, _) = mixed_batch(&fixture.pool, &mut rng, 5000);
            let side = if at == 0 { &mut fixture.client } else { &mut fixture.server };
            if rng.chance(1, 2) {
                side.net().receive(conn, landing).expect("it is open");
            }
            if rng.chance(1, 2) {
                side.net().send(conn, batch).expect("it is open");
            }
        }
        for _ in 0..rng.below(8) {
            fixture.step();
        }
        fixture.client.net().close(client);
        if round % 2 == 0 {
            fixture.server.net().close(server);
        }
        fixture.until("both are closed", |f| {
            f.client.seen.clear();
            f.server.seen.clear();
            f.server.net().close(server);
            let open = f.client.net().connections() + f.server.net().connections();
            (open == 0).then_some(())
        });
    }
    assert_eq!(fixture.pool.stats().taken(), buffers);
}

/// Dropping a `Net` with everything outstanding is safe, and its peers notice.
pub fn dropped_net_closes_its_connections(fixture: &mut Fixture) {
    let (client, server) = fixture.pair();
    let landing = fixture.landing(4096);
    fixture.server.net().receive(server, landing).expect("it is open");
    let (batch, _) = mixed_batch(&fixture.pool, &mut Rng::new(4), 100);
    fixture.server.net().send(server, batch).expect("it is open");
    fixture.server.net().kick();
    fixture.server.net = None;
    fixture.until("the peer notices", |f| {
        if f.client.seen.is_empty() {
            let landing = f.landing(4096);
            let _ = f.client.net().receive(client, landing);
            let event = f.client_event();
            return matches!(event, Event::Ended { .. } | Event::Closed { .. }).then_some(());
        }
        f.client.seen.clear();
        None
    });
}

/// How many connections each side of a [`Fixture`] must be made for.
pub const CONNECTIONS: usize = 8;

/// Steps before a missing event is a failure.
const STEPS_MAX: usize = 3_000_000;
