//! The production engine and whole nodes in one thread from one seed, and the checkers.
//!
//! Two worlds. The *bare* one ([`run_bare`]) is a `volume::Engine` on one `bdev-sim` disk: a seed
//! costs some 20 ms and crashes the engine about seven times, on a store and a log so small that
//! they wrap and run full. The *whole* one ([`run`]) is the node: shards, engines, protocol
//! machines, turned by a loop with a virtual clock instead of a reactor; its disks are
//! `bdev-sim`, its sockets `net`'s pipes, its hosts the protocol's own host side. Everything
//! random comes from the seed, one stream for each concern; the same seed gives the same digest
//! of all events, on any thread.
//!
//! ```text
//!   BarePlan::new(seed) -> Bare: Client, Operator --> volume::Engine --> SimDisk
//!   Plan::new(seed) -----> World: Host + Workload --pipes--> Appliance: node::Shard --> SimDisk
//!                              |                       crash, kill, boot
//!                              `--> History: what each block, and each snapshot, may contain
//! ```
//!
//! **Faults.** Power cuts (unflushed writes kept, torn or lost) just before any write or flush,
//! and kills at random moments, also during recovery; resets, cut cables, fragments; stalls and
//! errors of disks; rot. Nothing is broken above our own journal: a fault is a sector, a byte or
//! a process.
//!
//! **Workload.** Hosts of the bare world read, write (also whole extents), zero, deallocate,
//! compare and compare-and-write volumes and read snapshots. Its operator makes, grows, shrinks,
//! limits and deletes volumes, takes snapshots, of several volumes at once too, clones them,
//! restores volumes to them, deletes them in any order, walks their differences, and has the store
//! checked and scrubbed meanwhile. Each seed draws which of it there is.
//!
//! **Checks.** Each block is a linearisable register across crashes, and a snapshot is its volume
//! at one moment, the same for a group ([`History`]); a clone starts as its snapshot, and a restore
//! is one write of everything; a compare-and-write replaces what it compared; a diff names the
//! extents that changed and no others; a shrink takes no data along; a limit is kept; a write that
//! is promised to be atomic is whole after a power cut; what the operator was told is so after each
//! start, and what it was not told is so or not, as a whole; each request is answered once, with no
//! error that the plan does not allow; starts are bounded in turns and time; once the faults stop,
//! everything is answered within a bound; every buffer comes back, also from a node that dies; the
//! offline check finds nothing after crashes and orderly ends, nor does one beside the hosts, and
//! nothing is in use when every volume is deleted; no assertion fails.
//!
//! **What it deliberately is not.** Not a model: there is no second implementation. It cannot
//! find what needs real threads: shards of one node are turned one after the other.
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
mod bare;
mod frozen;
mod history;
mod host;
mod meddle;
#[cfg(feature = "planted")]
mod mutants;
mod pattern;
mod plan;
mod runner;
mod workload;
mod world;

pub use appliance::{ADDRESS, Appliance, SUBSYSTEM};
pub use bare::{BarePlan, Mix, run_bare};
pub use history::{History, Moment, Value, Violation};
pub use host::{Host, HostConfig};
#[cfg(feature = "planted")]
pub use mutants::{MUTANT_SEEDS, Verdict, bug_named, run_mutants};
pub use plan::{DiskPlan, HostPlan, Plan, VolumePlan};
pub use runner::{Options, Profile, Summary, current_seed, run_seed, run_seeds};
pub use workload::{Ledger, Shape, Workload};
pub use world::{Failure, Report, run};
