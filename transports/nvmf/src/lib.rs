//! NVMe-oF subsystems, controllers, discovery, and the TCP binding. Sans-IO.
#![forbid(unsafe_code)]

mod admin;
mod command;
mod config;
mod connection;
mod controller;
mod digest;
mod discovery;
mod execute;
mod fabrics;
mod features;
mod framer;
mod identify;
pub mod initiator;
mod io;
mod limits;
mod logs;
mod nqn;
mod receive;
mod registry;
mod state;
mod status;
mod target;
mod transmit;

pub use config::{Config, ConfigError, Hosts, Namespace, NamespaceHandle, Port, Subsystem};
pub use connection::{CloseReason, Connection, Cx, Event};
pub use framer::Digests;
pub use limits::{
    ASYNC_EVENTS_MAX, CLOSE_TIMEOUT_MS, COMMANDS_MAX, CONNECTIONS_MAX, CONTROLLERS_MAX,
    DIRECT_RECEIVE_MIN, DISCOVERY_KATO_MS, H2C_DATA_MAX, HELD_BYTES_MAX, HOSTS_MAX, IN_CAPSULE_MAX,
    IO_QUEUES_MAX, KATO_MAX_MS, NAMESPACES_MAX, PORTS_MAX, QUEUE_ENTRIES_MAX, R2T_MAX,
    RECEIVE_SEGMENT, SETUP_TIMEOUT_MS, STALL_TIMEOUT_MS, SUBSYSTEMS_MAX, TRANSFER_MAX,
};
pub use nqn::{HostId, Nqn, NqnError};
pub use registry::Session;
pub use target::{Addresses, Target};
