//! The contract of `Net`, and what is particular to sockets.
//!
//! # Safety argument
//!
//! The only unsafe call waits for one descriptor and is given a local of the true size.

use super::*;
use net::conformance::{CONNECTIONS, Fixture};

fn fixture(taskrun: Taskrun, iovecs: usize, direct_max: usize) -> Fixture {
    let connections_max = CONNECTIONS;
    let config =
        UringNetConfig { connections_max, taskrun, iovecs, direct_max, ..Default::default() };
    let side = || Box::new(UringNet::new(&config).unwrap());
    Fixture::new(side(), side(), "127.0.0.1:0".parse().unwrap())
}

net::conformance_suite!(as_it_comes, fixture(Taskrun::Deferred, 128, DIRECT_DEFAULT));
net::conformance_suite!(ring_alone, fixture(Taskrun::Deferred, 128, 0));
net::conformance_suite!(cooperative, fixture(Taskrun::Cooperative, 128, 0));
// With two pieces a call every larger batch is continued, and of three connections one is left to
// the ring.
net::conformance_suite!(short_sends, fixture(Taskrun::Deferred, 2, 2));

#[test]
fn wait_fd_turns_readable_when_poll_has_something() {
    for taskrun in [Taskrun::Deferred, Taskrun::Cooperative] {
        let config = UringNetConfig { connections_max: 4, taskrun, ..Default::default() };
        let mut server = UringNet::new(&config).unwrap();
        let listener = server.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        server.kick();
        assert!(!is_readable(&server), "nothing has happened");
        let address = server.local_address(listener).unwrap();
        let thread = std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    let mut client = UringNet::new(&UringNetConfig::default()).unwrap();
                    client.connect(address).unwrap();
                    client.kick();
                    let mut events = Fifo::new(1);
                    while events.is_empty() {
                        client.poll(&mut events);
                    }
                    assert!(matches!(events.pop(), Some(Event::Connected { .. })));
                    client.connections()
                })
                .join()
        });
        assert_eq!(thread.unwrap(), 1);
        let mut events = Fifo::new(4);
        while events.is_empty() {
            assert!(is_readable_within(&server, 10_000));
            server.poll(&mut events);
        }
    }
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
