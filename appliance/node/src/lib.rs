//! The shard: owns the machines of one core and routes between them.
//!
//! A [`Shard`] is one struct with one method, `turn` (it is a [`reactor::Machine`]), that a pinned
//! reactor calls in production and a seeded loop calls in simulation. It owns the core's sockets
//! (`dyn net::Net`), protocol machines (`nvmf::Connection`), stores and their volumes' queues
//! (`dyn bdev::Queue`), and moves bytes, requests and completions between them in one fixed order:
//!
//! ```text
//! turn(now):  commands -> adoptions -> other shards' requests -> net.poll -> connections
//!             -> requests -> volumes.submit, kick -> stores.drive -> volumes.poll -> completions
//!             -> connections.poll_transmit, landing -> slow commands -> net.kick -> sweep
//! ```
//!
//! **Several shards.** A store and its volumes belong to one shard. Connections are spread over all
//! of them: the shard that accepts hands sockets on. A connection reaches a volume of another shard
//! through a `RemoteQueue`, an ordinary queue over a pair of rings that moves buffers without
//! copying. Each shard has a table from namespace handle to queue; requests that their queue cannot
//! take yet are parked in the slot that every command has anyway, so that no volume holds up
//! another and nothing can overflow.
//!
//! **Control.** [`node`] makes a node: a [`NodeHandle`] for the control plane and a [`ShardSeed`]
//! for each thread. Commands travel boxed through a bounded mailbox to the shard, and the same box
//! comes back with the answer, which a [`Ticket`] waits for. Exports are snapshots in the
//! [`nvmf::Target`].
//!
//! **Authentication.** What a connection wants to have computed takes milliseconds, so it goes
//! through a bounded ring to whoever calls [`NodeHandle::take_computation`] (a thread that is no
//! reactor) and comes back through another.
//!
//! **Memory.** Everything that I/O and connections need is allocated by [`ShardSeed::start`];
//! afterwards only control commands allocate. A test counts.
//!
//! **What it deliberately is not.** No thread, no clock, no system call of its own. It does not
//! know what a volume does with a request, nor what a connection does with a byte.
//!
//! # Example
//!
//! ```
//! use std::rc::Rc;
//!
//! use bdev::{Instant, Pool, PoolConfig};
//! use net::{PipeConfig, PipeNet, Pipes};
//! use node::{NodeConfig, StoreSpec, VolumeSpec, node};
//! use reactor::Machine;
//!
//! let target = nvmf::Target::new(nvmf::Config::default()).expect("an empty target");
//! let (handle, seeds) = node(NodeConfig { connections_max: 4, ..NodeConfig::new(target, 1) });
//! let pipes = Pipes::new(PipeConfig::default());
//! let mut shards: Vec<_> = (seeds.into_iter())
//!     .map(|seed| {
//!         let pool = Rc::new(Pool::new(&PoolConfig::for_bytes(8 << 20)).expect("memory"));
//!         let net = PipeNet::new(&pipes, "10.0.0.1".parse().expect("an address"), 4);
//!         seed.start(pool, Box::new(net))
//!     })
//!     .collect();
//!
//! let (store, mut opened) = handle.open_store(StoreSpec::Ram { bytes: 1 << 20 }).expect("room");
//! shards[0].turn(Instant::ZERO);
//! assert_eq!(opened.take().expect("one turn").expect("opened").capacity_bytes, 1 << 20);
//! let spec =
//!     VolumeSpec { name: "a".into(), uuid: [1; 16], bytes: 1 << 20, block_size: 4096 };
//! let mut created = handle.create_volume(store, spec).expect("room");
//! shards[0].turn(Instant::ZERO);
//! let volume = created.take().expect("one turn").expect("created");
//! let (_namespace, mut attached) = handle.attach(store, &volume).expect("room");
//! shards[0].turn(Instant::ZERO);
//! assert_eq!(attached.take(), Some(Ok(())));
//! ```

#![forbid(unsafe_code)]

mod command;
mod computing;
mod connections;
mod flights;
mod guards;
mod handle;
mod limits;
mod link;
mod namespaces;
mod refusal;
mod reserve;
mod seed;
mod shard;
mod stats;
mod stores;
mod ticket;

pub use command::{
    Changes, CheckSummary, CloneSpec, Counted, Format, NodeError, Notice, Notices, Qos,
    Reservation, SnapshotSpec, SnapshotStatus, StoreId, StoreSpec, StoreStatus, VolumeId,
    VolumeSpec, VolumeStatus,
};
pub use handle::NodeHandle;
pub use limits::{
    ADOPTIONS_MAX, COMMANDS_PENDING_MAX, COMPUTATIONS_MAX, COMPUTATIONS_PER_PEER_MAX,
    CONNECTIONS_DEFAULT, CONNECTIONS_MAX, DEVICE_QUEUE_DEPTH, LINK_DEPTH, MAILBOX_DEPTH,
    NAMESPACES_MAX, NOTICES_KEPT, QUEUE_DEPTH, RAM_VOLUMES_MAX, REFUSALS_KEPT, SHARDS_MAX,
    STORES_MAX,
};
pub use refusal::{Cause, Refusal};
pub use reservation::{Host, Registrant, Type};
pub use seed::{NodeConfig, ShardSeed, node};
pub use shard::Shard;
pub use stats::{Counter, Histogram, IoCounter, Kind, NamespaceCounters, ShardCounters};
pub use ticket::Ticket;
pub use volume::ATOMIC_BYTES;
pub use volume::{
    CheckAborted, CheckReport, CheckStatus, Damaged, Finding, Health, HealthStatus, Latency,
    LogStatus, Pressure, SCRUB_BYTES_PER_SECOND, ScrubStatus, SpaceState,
};
