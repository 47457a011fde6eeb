//! What can be asked of a node, as plain validated Rust.
//!
//! Every value here is right by construction: a [`VolumeName`] that exists is a valid name, a
//! [`Nqn`] that exists follows the NVMe base specification. The gRPC schema (`proto`) and the
//! command line (`cli`) parse into these types once, at the edge; nothing behind them checks again.
//!
//! The crate is deliberately not a client, not a server and not a schema. It has no I/O, no clock,
//! and no dependency but `thiserror`, `uuid` and `zeroize`.
//!
//! [`Node`] is the seam of the management plane: `server` translates gRPC into calls on it, the
//! daemon implements it over desired state and the data plane.
//!
//! ```
//! use api::{ByteLen, VolumeName};
//!
//! let name: VolumeName = "db-01".parse().expect("a valid name");
//! let size: ByteLen = "10GiB".parse().expect("a valid size");
//! assert_eq!(size.bytes(), 10 << 30);
//! assert_eq!(name.as_str(), "db-01");
//!
//! let error = "10GB".parse::<ByteLen>().expect_err("decimal units are refused");
//! assert!(error.hint().contains("10GiB"));
//! ```
#![forbid(unsafe_code)]

mod advise;
mod ana;
mod block;
mod check;
mod dhchap;
mod discovery;
mod error;
mod event;
mod export;
mod host;
mod limits;
mod name;
mod node;
mod nqn;
mod qos;
mod request_id;
mod scrub;
mod session;
mod size;
mod snapshot;
mod stats;
mod store;
mod volume;

pub use advise::{LogAdvice, LogDemand, StoreAdvise, advise_log, judge_log};
pub use ana::{Access, AnaState, SetAnaState};
pub use block::BlockSize;
pub use check::{CheckFinding, CheckReport, StoreCheck};
pub use dhchap::{DhchapGroup, DhchapHash, DhchapKey};
pub use discovery::{Referral, add_referral};
pub use error::{ApiError, ErrorKind};
pub use event::{Event, EventKind, Severity};
pub use export::{Export, ExportAdd, ExportRemove, HostAccess, HostsAdd, HostsRemove, check_nsid};
pub use host::{Host, HostRemove, HostSet};
pub use limits::{
    DIFF_RANGES_MAX, EVENTS_KEPT, HOST_KEYS_MAX, HOSTS_PER_EXPORT_MAX, LOG_BYTES_MAX,
    LOG_BYTES_MIN, LOG_BYTES_UNIT, NAME_LEN_MAX, NAMESPACES_PER_SUBSYSTEM_MAX, NQN_LEN_MAX,
    PATH_LEN_MAX, REFERRALS_MAX, REQUEST_ID_LEN_MAX, SCRUB_RATE_DEFAULT, SCRUB_RATE_MIN,
    SNAPSHOT_GROUP_MAX, VOLUME_BYTES_MAX,
};
pub use name::{SnapshotName, StoreName, VolumeName};
pub use node::{Changed, EventSource, EventStream, Health, Node, NodeInfo, Reply, Subscription};
pub use nqn::Nqn;
pub use qos::{Qos, Rate, VolumeQos};
pub use request_id::RequestId;
pub use scrub::{Scrub, ScrubChange, ScrubPolicy, ScrubProgress, ScrubRate, ScrubVerb};
pub use session::Session;
pub use size::ByteLen;
pub use snapshot::{
    ChangedRange, DiffStep, DiffTarget, SNAPSHOT_RESERVED, Snapshot, SnapshotCreate,
    SnapshotDelete, SnapshotList, SnapshotPath, VolumeClone, VolumeDiff, VolumeRestore,
};
pub use stats::{
    CheckCounters, DeviceHealth, HealthState, IoCounters, LatencyHistogram, ShardStats,
    SnapshotStats, SpaceState, StatsSnapshot, StoreFlow, StoreNumbers, StoreStats, TransportStats,
    VolumeIo, VolumeStats,
};
pub use store::{DevicePath, LogSize, Store, StoreAdd, StoreInit, StoreState};
pub use volume::{Volume, VolumeCreate, VolumeDelete, VolumeResize, VolumeState};
