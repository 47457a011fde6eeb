//! `holdfastd`: one node of Holdfast.
//!
//! The daemon parses the configuration, starts the data plane, brings it to what the state store
//! says, and serves operators until it is told to stop. It is where the halves of the house meet:
//!
//! ```text
//!   holdfast, Prometheus                    NVMe/TCP hosts
//!        |                                        |
//!   server (gRPC, HTTP)                     DataPlane (reactors)
//!        |                                        |
//!        +----> Control: api::Node ---------------+
//!                  |
//!               cluster: StateStore, plan
//! ```
//!
//! Start: data plane, state store, reconcile (open stores, finish what a crash interrupted,
//! export), listen, `endpoints.json`, `READY=1`.
//!
//! Stop (SIGTERM): no new changes, drain the data plane, checkpoint, close, end. A second SIGTERM
//! ends at once; so does kill -9, and both are safe: what was acknowledged is durable, what was
//! begun is finished at the next start.
//!
//! Tokio runs the control plane only. It shares no core with a pinned reactor, and the data plane
//! is reached through [`DataPlane`] alone.
#![forbid(unsafe_code)]

pub mod config;
mod control;
mod demo;
mod endpoints;
mod events;
mod limits;
mod log;
mod monitor;
mod plane;
mod probe;
mod program;
mod service;

pub use limits::{
    DEVICE_BYTES_MIN, DRAIN_SECONDS_DEFAULT, MONITOR_SECONDS, NOTICES_TOLD_MAX, PROBE_BYTES,
    RECONCILE_ROUNDS_MAX, REFUSAL_QUIET_SECONDS, REFUSED_PAIRS_MAX, TIME_TOLD_SECONDS,
};
pub use plane::{
    DataPlane, PlaneExport, PlaneInfo, PlaneNewSnapshot, PlaneNotice, PlaneNotices, PlaneRefusal,
    PlaneSnapshot, PlaneStats, PlaneStore, PlaneVolume, RefusalCause,
};
pub use program::main;
pub use service::Daemon;
