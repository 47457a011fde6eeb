//! The contract of `Net`, and what is particular to sockets.
//!
//! # Safety argument
//!
//! The only unsafe call waits for one descriptor and is given a local of the true size.

use std::time::{Duration, Instant};

use super::*;
use net::conformance::{CONNECTIONS, Fixture};

fn fixture(iovecs: usize, direct_max: usize) -> Fixture {
    let connections_max = CONNECTIONS;
    let config = UringNetConfig { connections_max, iovecs, direct_max, ..Default::default() };
    let side = || Box::new(UringNet::new(&config).unwrap());
    Fixture::new(side(), side(), "127.0.0.1:0".parse().unwrap())
}

net::conformance_suite!(as_it_comes, fixture(128, DIRECT_DEFAULT));
net::conformance_suite!(ring_alone, fixture(128, 0));
// With two pieces a call every larger batch is continued, and of three connections one is left to
// the ring.
net::conformance_suite!(short_sends, fixture(2, 2));

#[expect(clippy::disallowed_methods, reason = "only the time tells a sleep from a wait")]
fn now() -> Instant {
    Instant::now()
}

/// True when `thread` sleeps in a system call.
fn is_asleep(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

#[test]
fn sleeping_shard_is_woken_by_a_connection_and_by_bytes() {
    let (tell, told) = std::sync::mpsc::channel();
    let (tell_end, end) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut server = UringNet::new(&UringNetConfig::default()).unwrap();
            let listener = server.listen("127.0.0.1:0".parse().unwrap()).unwrap();
            // SAFETY: no pointers.
            let thread = unsafe { libc::gettid() };
            tell.send((server.local_address(listener).unwrap(), thread)).unwrap();
            let pool = bdev::Pool::new(&bdev::PoolConfig::tiny()).unwrap();
            let mut events = Fifo::new(4);
            let (mut accepted, mut received) = (0, 0);
            while received < 7 {
                server.kick();
                server.poll(&mut events);
                if events.is_empty() {
                    // When its time is over `poll` looks once more and may well see what did not
                    // wake it: only the time tells.
                    let start = now();
                    assert!(is_readable_within(&server, 60_000), "it would sleep for ever");
                    assert!(start.elapsed() < Duration::from_secs(30), "nobody woke it");
                }
                while let Some(event) = events.pop() {
                    match event {
                        Event::Accepted { socket, .. } => {
                            accepted += 1;
                            let conn = server.adopt(socket).unwrap();
                            let landing = Landing::new(pool.take(64).unwrap(), 0, 64);
                            server.receive(conn, landing).unwrap();
                        }
                        Event::Received { len, .. } => received += len,
                        other => panic!("unexpected {other:?}"),
                    }
                }
            }
            tell_end.send(accepted).unwrap();
        });
        let (address, thread) = told.recv().unwrap();
        let until_asleep = || {
            while !is_asleep(thread) {
                std::thread::yield_now();
            }
        };
        until_asleep();
        let mut client = UringNet::new(&UringNetConfig::default()).unwrap();
        let conn = client.connect(address).unwrap();
        let mut events = Fifo::new(4);
        while events.is_empty() {
            client.kick();
            client.poll(&mut events);
        }
        until_asleep();
        let mut batch = Batch::with_defaults();
        assert!(batch.push_bytes(b"wake up"));
        client.send(conn, batch).unwrap();
        client.kick();
        assert_eq!(end.recv().unwrap(), 1);
    });
}

fn is_readable(net: &UringNet) -> bool {
    is_readable_within(net, 0)
}

fn is_readable_within(net: &UringNet, timeout_ms: i32) -> bool {
    let mut entry = libc::pollfd { fd: net.wait_fd().unwrap(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    let count = unsafe { libc::poll(&raw mut entry, 1, timeout_ms) };
    count == 1
}

/// A connection between two shards: both, and the id on each.
fn pair(direct_max: usize) -> (UringNet, ConnId, UringNet, ConnId) {
    let config = UringNetConfig { connections_max: 4, direct_max, ..Default::default() };
    let (mut server, mut client) =
        (UringNet::new(&config).unwrap(), UringNet::new(&config).unwrap());
    let listener = server.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let here = client.connect(server.local_address(listener).unwrap()).unwrap();
    let mut events = Fifo::new(4);
    let (mut there, mut connected) = (None, false);
    while there.is_none() || !connected {
        for net in [&mut server, &mut client] {
            net.kick();
            net.poll(&mut events);
        }
        match events.pop() {
            Some(Event::Accepted { socket, .. }) => there = Some(server.adopt(socket).unwrap()),
            Some(Event::Connected { .. }) => connected = true,
            _ => (),
        }
    }
    (server, there.unwrap(), client, here)
}

#[test]
fn shard_is_kept_awake_while_it_tries_by_hand() {
    for direct_max in [0, DIRECT_DEFAULT] {
        let (mut server, there, mut client, here) = pair(direct_max);
        let pool = bdev::Pool::new(&bdev::PoolConfig::tiny()).unwrap();
        server.receive(there, Landing::new(pool.take(64).unwrap(), 0, 64)).unwrap();
        assert!(is_readable(&server), "the kernel does not know of the receive yet");
        let mut events = Fifo::new(4);
        let mut polls = 0;
        while is_readable(&server) {
            server.kick();
            server.poll(&mut events);
            polls += 1;
            assert!(polls < 10 * DIRECT_TRIES, "a quiet connection is left to the ring");
        }
        assert!(events.is_empty());
        let mut batch = Batch::with_defaults();
        assert!(batch.push_bytes(b"wake up"));
        client.send(here, batch).unwrap();
        client.kick();
        assert!(is_readable_within(&server, 10_000), "a sleeping shard is woken by bytes");
        server.poll(&mut events);
        assert!(matches!(events.pop(), Some(Event::Received { len: 7, .. })));
    }
}

#[test]
fn send_that_went_out_by_hand_keeps_the_shard_awake_until_reported() {
    let (_server, _there, mut client, here) = pair(DIRECT_DEFAULT);
    let mut batch = Batch::with_defaults();
    assert!(batch.push_bytes(b"words"));
    client.send(here, batch).unwrap();
    client.kick();
    assert!(is_readable(&client));
    let mut events = Fifo::new(4);
    client.poll(&mut events);
    assert!(matches!(events.pop(), Some(Event::Sent { .. })));
    assert!(!is_readable(&client));
}
