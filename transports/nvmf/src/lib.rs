//! NVMe-oF subsystems, controllers, discovery, and the TCP binding. Sans-IO.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the machine behind this skeleton lands next")]

mod config;
mod connection;
mod digest;
mod limits;
mod nqn;
mod registry;
mod status;
mod target;

pub use config::{Config, ConfigError, Hosts, Namespace, NamespaceHandle, Port, Subsystem};
pub use connection::{CloseReason, Connection, Cx, Event};
pub use limits::{
    ASYNC_EVENTS_MAX, CLOSE_TIMEOUT_MS, COMMANDS_MAX, CONNECTIONS_MAX, CONTROLLERS_MAX,
    DIRECT_RECEIVE_MIN, DISCOVERY_KATO_MS, H2C_DATA_MAX, HELD_BYTES_MAX, HOSTS_MAX, IN_CAPSULE_MAX,
    IO_QUEUES_MAX, KATO_MAX_MS, NAMESPACES_MAX, PORTS_MAX, QUEUE_ENTRIES_MAX, R2T_MAX,
    RECEIVE_SEGMENT, SETUP_TIMEOUT_MS, STALL_TIMEOUT_MS, SUBSYSTEMS_MAX, TRANSFER_MAX,
};
pub use nqn::{HostId, Nqn, NqnError};
pub use registry::Session;
pub use target::{Addresses, Target};
