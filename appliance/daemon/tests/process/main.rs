//! The real program: real reactors, a store on a file, and a host on TCP.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a real program runs by the real clock")]

mod authentication;
mod backend;
mod bench;
mod care;
mod data;
mod host;
mod hostile;
mod kills;
mod ledger;
mod life;
mod operator;
mod snapshots;
mod stand;
