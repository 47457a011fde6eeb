//! The management plane from end to end: the command line, gRPC over a Unix socket and TCP, the
//! state file and HTTP, on a data plane in memory.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod care;
mod drain;
mod golden;
mod http;
mod idempotent;
mod memory_plane;
mod restart;
mod stand;
mod stores;
