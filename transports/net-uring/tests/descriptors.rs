//! Sockets and rings are closed when they are dropped. Alone in its program, because it counts the
//! descriptors of the process.

#![allow(clippy::unwrap_used, reason = "the steps of a test must succeed")]

use bdev::Fifo;
use net::{Event, Net};
use net_uring::{UringNet, UringNetConfig};

#[test]
fn dropped_sockets_leave_no_descriptor_open() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..3 {
        let mut server = UringNet::new(&UringNetConfig::default()).unwrap();
        let mut client = UringNet::new(&UringNetConfig::default()).unwrap();
        let listener = server.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        client.connect(server.local_address(listener).unwrap()).unwrap();
        let mut events = Fifo::new(4);
        let mut adopted = None;
        while adopted.is_none() {
            client.kick();
            server.kick();
            server.poll(&mut events);
            if let Some(Event::Accepted { socket, .. }) = events.pop() {
                adopted = Some(server.adopt(socket).unwrap());
            }
        }
    }
    assert_eq!(open(), before);
}
