//! The real program: real reactors, a store on a file, and a host on TCP.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod data;
mod host;
mod kills;
mod ledger;
mod life;
mod snapshots;
mod stand;
