//! Desired state: what operators asked for, kept so that it survives restarts.
//!
//! Three ideas, one file each:
//! - [`StateStore`] is a small revisioned key-value store with compare-and-swap and a watch that
//!   can be resumed. [`RedbStateStore`] keeps it in one file on one node, [`MemoryStateStore`]
//!   in memory for tests; a cluster will bring etcd. All pass the same conformance tests.
//! - The records ([`StoreRecord`], [`VolumeRecord`], [`ExportRecord`], [`ReferralsRecord`],
//!   [`HostRecord`]) are versioned JSON under `stores/`, `volumes/`, `exports/`, `discovery/` and
//!   `hosts/`; [`Desired`] is all of them, read at one revision.
//! - [`plan`] compares desired with observed state and says what to do. It is a pure function: the
//!   daemon executes its steps, observes again, and is done when the plan is empty.
//!
//! The crate does no I/O of its own besides the state file, and it decides nothing by time.
//!
//! A volume's record goes through these phases, so that a crash between the record and the store
//! can always be finished, and lost data is never papered over by an empty volume:
//!
//! ```text
//!            request accepted            store confirmed            delete accepted
//!   (none) ------------------> creating -----------------> ready ------------------> deleting
//!      ^                                                                                |
//!      +------------------------------ store confirmed --------------------------------+
//! ```
//! A volume that is `ready` but missing in its store is a complaint, never a reason to create it.
//!
//! ```
//! use cluster::{Desired, Observed, plan};
//!
//! assert_eq!(plan(&Desired::default(), &Observed::default()), []);
//! ```
#![forbid(unsafe_code)]

mod limits;
mod memory;
mod plan;
mod record;
mod redb_store;
mod state;
mod watch;

pub use limits::{HISTORY_KEPT, KEY_LEN_MAX, VALUE_LEN_MAX};
pub use memory::MemoryStateStore;
pub use plan::{Observed, ObservedExport, ObservedStore, ObservedVolume, Step, plan};
pub use record::{
    Desired, ExportRecord, HostRecord, Kept, Phase, REFERRALS_KEY, RecordError, ReferralsRecord,
    StoreRecord, VolumeRecord, export_key, host_key, store_key, volume_key,
};
pub use redb_store::RedbStateStore;
pub use state::{Entry, Expected, Listing, Revision, StateError, StateReply, StateStore};
pub use watch::{Change, Watch};
