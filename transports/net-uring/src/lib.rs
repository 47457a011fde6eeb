//! TCP sockets behind [`net::Net`], on one `io_uring` for each shard.
//!
//! A [`UringNet`] has one receive in flight for each connection, straight into its landing, one
//! gather send from its batch, and one accept for each listener. A turn costs one system call for
//! everything that was asked for ([`net::Net::kick`]), however many connections there are; a poll
//! that finds nothing costs none.
//!
//! A few busy connections are served faster without the ring: a receive that finds nothing costs
//! 120 ns, less than to wait in the ring and be told, and a lone send saves what the ring adds. So
//! up to [`UringNetConfig::direct_max`] connections are tried directly for as long as they are
//! busy; everything that has to wait is left to the ring. ADR 0040 has the numbers.
//!
//! **What it deliberately is not.** No thread and no blocking call. No multishot receive: landings
//! say where bytes go before they arrive, so that a large payload is never copied. No multishot
//! accept: one accept at a time makes [`net::Net::set_accepting`] exact, so that the connections
//! beyond a limit wait in the kernel and not in ours.
//!
//! The ring is created disabled, restricted to the six operations that sockets need, and enabled.
//! It never holds more operations than its completion queue, so nothing is ever dropped. Memory is
//! allocated when it is made; afterwards neither bytes nor connections allocate.
//!
//! # Example
//!
//! ```
//! use bdev::Fifo;
//! use net::{Event, Net};
//! use net_uring::{UringNet, UringNetConfig};
//!
//! let mut net = UringNet::new(&UringNetConfig::default()).expect("io_uring is available");
//! let listener = net.listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
//! let address = net.local_address(listener).expect("it listens");
//! net.connect(address).expect("room for a connection");
//! let mut events = Fifo::new(4);
//! while events.len() < 2 {
//!     net.kick();
//!     net.poll(&mut events);
//! }
//! assert!(events.iter().any(|event| matches!(event, Event::Accepted { .. })));
//! assert!(events.iter().any(|event| matches!(event, Event::Connected { .. })));
//! ```

mod conn;
mod limits;
mod listener;
mod ring;
mod socket;
mod uring_net;

pub use limits::{CONNECTIONS_MAX, DIRECT_DEFAULT, IOVECS_MAX};
pub use uring_net::{UringNet, UringNetConfig};
