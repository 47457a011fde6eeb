//! NVMe-oF subsystems, controllers, discovery, and the TCP binding. Sans-IO.
//!
//! A [`Target`] is what a node offers: subsystems with namespaces, the hosts that may use them, the
//! ports where they are found. All shards share it. A [`Connection`] is one NVMe/TCP connection:
//! bytes go in, block requests come out; completions go in, bytes come out. Whoever drives it owns
//! the socket, the buffers, the clock and the devices; a namespace is only a [`NamespaceHandle`].
//!
//! ```text
//!   bytes --> framer --> receive --> plan --> ready ----> execute --> poll_requests --> devices
//!             (PDUs)    (commands)     |        ^                                          |
//!                                      v        | buffer                             on_completion
//!                                   waiting ----'                                          |
//!   bytes <-- transmit <------------------- outbox <---------------------------------------'
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `config`, `target`, `registry` | what is offered; live controllers, in a fixed table |
//! | `view`, `ana`, `generations` | what one host sees of it, through one port; its history |
//! | `connection`, `state` | the machine's interface, its states and the only place they change |
//! | `framer`, `digest` | bytes to checked PDUs, for both sides |
//! | `receive`, `execute`, `transmit` | commands in, commands done, responses out |
//! | `auth` | in-band authentication: who may go on after Connect |
//! | `fabrics`, `controller` | Connect and properties; enable, reset, shutdown |
//! | `notices`, `keep_alive` | asynchronous events; when a host counts as lost |
//! | `admin`, `abort`, `cross_reset`, `identify`, `logs`, `features`, `discovery` | the admin commands |
//! | `tally`, `health` | what failed, what was read and written, and how the stores are |
//! | `commands` | which commands there are, and what they change |
//! | `io`, `copy`, `fused`, `reservation` | I/O commands as block requests |
//! | `status` | what became of them as NVMe statuses: the only place |
//! | [`initiator`] | the host's side, from the same codec |
//!
//! # What holds
//!
//! - **Bytes never panic.** A broken PDU ends its connection with the terminate request that the
//!   specification asks for; a broken command ends with its status. Scripted dialogues
//!   (`testdata/*.pdu`) and fuzzers show it.
//! - **Memory is bounded and back-pressure is the answer.** [`Connection::new`] allocates all there
//!   is; data lives in the shard's pool. A command that finds no buffer waits; capsules whose data
//!   finds none stay unread, and one reserved buffer per connection keeps that from blocking
//!   the data of earlier commands behind them. See `limits`.
//! - **Nothing waits forever.** Set-up, stalled transfers, closing and keep alive have their times
//!   ([`Connection::next_timeout`]).
//! - **Nobody gets in without the key.** A host with a secret proves with each queue that it has it
//!   before anything else is done for it. What is expensive or secret about that is computed
//!   elsewhere ([`Computation`]).
//! - **The host is told.** Resized, attached and detached namespaces, other ways to reach them, and
//!   changes of what discovery shows this host, are announced to the controllers that asked for it.
//!
//! # What it is not
//!
//! No sockets (`net-uring`), no volumes (`volume`), no routing (`node`). No TLS.
//! No block can be marked as uncorrectable (ADR 100). Who sees a namespace, and how good a
//! path to it is, is decided elsewhere and comes with the configuration ([`Reach`]).
//!
//! # Example
//!
//! A host brings an admin queue up, through memory:
//!
//! ```
//! use bdev::{Fifo, Instant, Pool, PoolConfig};
//! use nvmf::initiator::{Admin, HostIdentity, QueueOptions};
//! use nvmf::{Addresses, Config, Connection, Cx, HostId, Hosts, Namespace, NamespaceHandle, Nqn};
//! use nvmf::{Subsystem, Target};
//!
//! let nqn = Nqn::new("nqn.2026-11.io.example:demo")?;
//! let namespace = Namespace {
//!     nsid: 1,
//!     handle: NamespaceHandle(0),
//!     uuid: [7; 16],
//!     block_size: 512,
//!     blocks: 2048,
//!     atomic_blocks: 1,
//!     reach: Default::default(),
//! };
//! let target = Target::new(Config {
//!     subsystems: vec![Subsystem {
//!         nqn,
//!         serial: "DEMO1".into(),
//!         hosts: Hosts::Any,
//!         namespaces: vec![namespace],
//!     }],
//!     ..Config::default()
//! })?;
//!
//! let pool = Pool::new(&PoolConfig::tiny()).expect("a small pool");
//! let cx = Cx { pool: &pool, now: Instant::ZERO };
//! let mut connection = Connection::new(target, 0);
//! let local = "192.0.2.1:4420".parse().expect("an address");
//! let peer = "192.0.2.2:40000".parse().expect("an address");
//! assert!(connection.accept(cx, Addresses { local, peer }));
//!
//! let hostnqn = Nqn::new("nqn.2026-11.io.example:host")?;
//! let identity = HostIdentity { hostnqn, hostid: HostId([1; 16]), subnqn: nqn };
//! let mut host = Admin::new(QueueOptions::admin(identity), 1);
//! assert!(host.open(&pool));
//! let mut batch = net::Batch::with_defaults();
//! let mut requests = Fifo::new(16);
//! while host.info().is_none() {
//!     if host.queue_mut().poll_transmit(&mut batch) {
//!         batch.pieces().for_each(|piece| assert!(connection.on_bytes(cx, piece) == piece.len()));
//!         host.queue_mut().on_sent(&mut batch);
//!     }
//!     connection.poll_requests(cx, &mut requests); // None yet: these are all admin commands.
//!     if connection.poll_transmit(cx, &mut batch) {
//!         batch.pieces().for_each(|piece| assert!(host.queue_mut().on_bytes(piece) > 0));
//!         connection.on_sent(cx, &mut batch);
//!     }
//!     host.poll(&pool, cx.now);
//! }
//! assert_eq!(host.info().expect("it is up").namespaces[0].blocks, 2048);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod abort;
mod admin;
mod ana;
mod auth;
mod command;
mod commands;
mod config;
mod connection;
mod controller;
mod copy;
mod cross_reset;
mod digest;
mod discovery;
mod event;
mod execute;
mod fabrics;
mod features;
mod framer;
mod fused;
mod generations;
mod health;
mod identify;
pub mod initiator;
mod io;
mod keep_alive;
mod limits;
mod logs;
mod notices;
mod nqn;
mod nsids;
mod receive;
mod registry;
mod reservation;
mod state;
mod status;
mod tally;
mod target;
mod transmit;
mod view;

pub use ana::AnaState;
pub use auth::{
    AuthFault, Authentication, Authenticator, Computation, Group, Hash, HostKeys, Secret,
};
pub use config::{
    Config, ConfigError, Hosts, Namespace, NamespaceHandle, Port, Reach, Referral, Subsystem,
};
pub use connection::{Connection, Cx};
pub use event::{CloseReason, Event, Refused};
pub use framer::Digests;
pub use health::Health;
pub use limits::{
    ABORTS_MAX, ASYNC_EVENTS_MAX, AUTH_TIMEOUT_MS, AUTH_TRANSFER_MAX, CLOSE_TIMEOUT_MS,
    COMMANDS_MAX, CONNECTIONS_MAX, CONTROLLERS_MAX, COPY_BLOCKS_MAX, COPY_RANGE_BLOCKS_MAX,
    COPY_RANGES_MAX, CROSS_RESET_ENTRIES, CROSS_RESETS_MAX, DIRECT_RECEIVE_MIN, DISCOVERY_KATO_MS,
    ENABLE_TIMEOUT_MS, ERRORS_KEPT, FUSED_BYTES_MAX, FUSED_WAIT_MS, H2C_DATA_MAX, HELD_BYTES_MAX,
    HOST_KEYS_MAX, HOSTS_MAX, IN_CAPSULE_MAX, IO_QUEUES_MAX, KATO_MAX_MS, NAMESPACES_MAX,
    PORTS_MAX, QUEUE_ENTRIES_MAX, QUIESCE_MS, RECEIVE_SEGMENT, REFERRALS_MAX,
    RESERVATION_NOTICES_MAX, SETUP_TIMEOUT_MS, STALL_TIMEOUT_MS, STEP_BUFFER, SUBSYSTEMS_MAX,
    TRANSFER_MAX,
};
pub use nqn::{HostId, Nqn, NqnError};
pub use registry::Session;
pub use target::{Addresses, Target};
