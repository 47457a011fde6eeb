//! Polled byte streams: the trait that a shard's sockets obey, and an in-memory pipe.
//!
//! A [`Net`] is all the sockets of one shard. Like a `bdev::Queue` it is passive and *polled*: it
//! has no thread, no callback and no future. The protocols above are sans-IO: they say where the
//! next bytes should land ([`Landing`]) and gather what goes out ([`Batch`]); the shard moves both
//! between them and the `Net`.
//!
//! ```text
//!  listen --> Accepted{socket} --> adopt --+
//!                                          +--> open --- close, error ---> Closed
//!  connect ------> Connected --------------+    |  ^
//!                                               v  |
//!                     receive(landing) --> Received | Ended
//!                     send(batch) -------> Sent
//! ```
//!
//! An accepted connection is a [`Socket`] until a shard adopts it, which need not be the one that
//! accepted it.
//!
//! **What it deliberately is not.** No buffering, no framing, no TLS, no time-outs: those belong to
//! the protocols. There is one receive and one send in flight for each connection, so that bytes
//! have one order and memory per connection is fixed; depth comes from gathering.
//!
//! # Example
//!
//! ```
//! use bdev::{Fifo, Pool, PoolConfig};
//! use net::{Batch, Event, Landing, Net, PipeConfig, PipeNet, Pipes};
//!
//! let pipes = Pipes::new(PipeConfig::default());
//! let mut server = PipeNet::new(&pipes, "10.0.0.1".parse().expect("an address"), 4);
//! let mut client = PipeNet::new(&pipes, "10.0.0.2".parse().expect("an address"), 4);
//! server.listen("10.0.0.1:4420".parse().expect("an address")).expect("the address is free");
//! let conn = client.connect("10.0.0.1:4420".parse().expect("an address")).expect("room");
//!
//! let mut hello = Batch::with_defaults();
//! assert!(hello.push_bytes(b"hello"));
//! let mut hello = Some(hello);
//! let pool = Pool::new(&PoolConfig::tiny()).expect("a small pool");
//! let mut events = Fifo::new(8);
//! loop {
//!     client.poll(&mut events);
//!     server.poll(&mut events);
//!     match events.pop() {
//!         Some(Event::Connected { .. }) => {
//!             client.send(conn, hello.take().expect("connected once")).expect("it is open");
//!         }
//!         Some(Event::Accepted { socket, .. }) => {
//!             let accepted = server.adopt(socket).expect("room for a connection");
//!             let landing = Landing::new(pool.take(4096).expect("a fresh pool"), 0, 4096);
//!             server.receive(accepted, landing).expect("it is open");
//!         }
//!         Some(Event::Received { landing, len, .. }) => {
//!             assert!(b"hello".starts_with(landing.received(len)));
//!             break;
//!         }
//!         Some(_) => (),
//!         None => assert!(pipes.advance(), "something is on its way"),
//!     }
//!     server.kick();
//!     client.kick();
//! }
//! ```

#![forbid(unsafe_code)]

mod batch;
pub mod conformance;
mod landing;
mod limits;
mod pipe;
mod socket;
mod stream;

pub use batch::Batch;
pub use landing::Landing;
pub use limits::{
    BATCH_PIECES_DEFAULT, BATCH_PIECES_MAX, BATCH_SCRATCH_DEFAULT, BATCH_SCRATCH_MAX,
    CONNECTIONS_MAX, LISTENERS_MAX,
};
pub use pipe::{PipeConfig, PipeEnd, PipeNet, Pipes};
pub use socket::{Socket, SocketKind};
pub use stream::{CloseReason, ConnId, Event, ListenerId, Net, NetError};
