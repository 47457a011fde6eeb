//! `holdfast-bench`: a polled initiator, a target beside it, and the table that they fill.
//!
//! ```text
//!   core 1                                   core 0
//!  +----------------------------+           +---------------------------------+
//!  | job: generator, histogram  |           | reactor: turn, turn, turn ...   |
//!  |   |  bdev::Queue           |  TCP over |   shard: net, connections,      |
//!  | initiator queue (nvmf, net)|<-loopback>|          volume or RAM disk     |
//!  +----------------------------+           +---------------------------------+
//!        reads the meter of the target's thread at both ends of the measured window
//! ```
//!
//! The host's side (jobs, histograms, the polled initiator) is the crate `load`, which `holdfast
//! bench` drives as well. A job drives a [`bdev::Queue`] and does not know what is behind it: with
//! `--direct` the device's own queue is driven, with no network between, to profile a device or the
//! engine.
//!
//! **What it deliberately is not.** Not a load generator for a cluster, and not a judge: no test
//! fails because a number is low. It prints ratios to the recorded table in `docs/performance.md`;
//! people judge. Operators measure with `holdfast bench`.

#![forbid(unsafe_code)]

pub mod append;
mod beside;
pub mod callgrind;
pub mod commit;
mod counted;
pub mod direct;
pub mod engine;
mod error;
pub mod idle;
mod limits;
pub mod machine;
pub mod measures;
pub mod meter;
pub mod network;
mod options;
pub mod pipe;
mod ram;
pub mod report;
mod shape;
mod steady;
pub mod suite;
pub mod table;
pub mod target;

pub use error::BenchError;
pub use options::{Device, IdleChoice, Options};
pub use shape::Shape;
