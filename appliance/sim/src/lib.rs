//! Nodes, hosts, disks and sockets in one thread from one seed, and the checkers.
//!
//! The node is the production code: shards, engines, protocol machines, turned by a loop with a
//! virtual clock instead of a reactor. Its disks are `bdev-sim`, its sockets `net`'s pipes, its
//! hosts the protocol's own host side. Everything random comes from the seed, one stream for each
//! concern; the same seed gives the same digest of all events.
//!
//! ```text
//!   Plan::new(seed) --> World: turn everybody until nothing happens, move the clock, strike
//!                         Host + Workload --pipes--> Appliance: node::Shard ... --> SimDisk
//!                              |                       crash, kill, boot
//!                              `--> History: what each block may contain
//! ```
//!
//! **Faults.** Power cuts (unflushed writes kept, torn or lost) and kills at random moments, also
//! during recovery; resets, cut cables, fragments; stalls and errors of disks. Nothing is broken
//! above our own journal: a fault is a sector, a byte or a process.
//!
//! **Checks.** Each block is a linearisable register across crashes ([`History`]); each request is
//! answered once; a request is answered with no error that the plan does not allow; once the faults
//! stop, everything is answered within two virtual minutes; every buffer comes back, also from a
//! node that dies; volumes that were created or deleted or have grown are so after every start; no
//! assertion of the node fails.
//!
//! **What it deliberately is not.** Not a model: there is no second implementation. It cannot find
//! what needs real threads: shards of one node are turned one after the other.
//!
//! # Example
//!
//! ```
//! use sim::{Plan, run};
//!
//! let mut plan = Plan::new(1).in_ram();
//! plan.run = std::time::Duration::from_millis(20);
//! let report = run(&plan).expect("nothing is wrong");
//! assert_eq!(report.hash, run(&plan).expect("nothing is wrong").hash);
//! ```

#![forbid(unsafe_code)]

mod appliance;
mod history;
mod host;
mod meddle;
mod pattern;
mod plan;
mod workload;
mod world;

pub use appliance::{ADDRESS, Appliance, SUBSYSTEM};
pub use history::{History, Moment, Violation};
pub use host::{Host, HostConfig};
pub use plan::{DiskPlan, HostPlan, Plan, VolumePlan};
pub use workload::{Ledger, Shape, Workload};
pub use world::{Failure, Report, run};
