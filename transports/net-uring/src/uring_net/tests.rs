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
        let wait = |net: &UringNet, timeout_ms| {
            let fd = net.wait_fd().unwrap();
            let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, which outlives the call.
            unsafe { libc::poll(&raw mut entry, 1, timeout_ms) }
        };
        assert_eq!(wait(&server, 0), 0, "nothing has happened");
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
        let mut waited = 0;
        let mut events = Fifo::new(4);
        while events.is_empty() {
            waited = wait(&server, 10_000);
            server.poll(&mut events);
        }
        assert_eq!(waited, 1);
    }
}
