//! The seam between the servers and the node.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use uuid::Uuid;

use crate::{
    ApiError, DiffStep, Event, Export, ExportAdd, ExportRemove, Host, HostRemove, HostSet,
    HostsAdd, HostsRemove, LogAdvice, Referral, RequestId, Scrub, ScrubChange, Session,
    SetAnaState, Snapshot, SnapshotCreate, SnapshotDelete, SnapshotList, SnapshotPath,
    StatsSnapshot, Store, StoreAdd, StoreAdvise, StoreCheck, StoreInit, StoreName, Volume,
    VolumeClone, VolumeCreate, VolumeDelete, VolumeDiff, VolumeName, VolumeQos, VolumeResize,
    VolumeRestore,
};

/// The answer to a request, some time later.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// The result of a mutation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Changed<T> {
    /// What there is now (for a deletion: what there was).
    pub value: T,
    /// Whether this request did it. `false`: it was so already, and nothing was done.
    pub changed: bool,
}

/// Everything that can be asked of a node.
///
/// Every mutation is idempotent: asking again for what already is answers with `changed = false`.
/// A creation that finds the name taken by something else is `AlreadyExists`.
pub trait Node: Send + Sync {
    /// Who this node is.
    fn node_info(&self) -> Reply<'_, NodeInfo>;

    /// Whether the node is alive and ready for hosts. Never fails and never waits long.
    fn health(&self) -> Health;

    /// Writes a new store onto a device and opens it.
    fn store_init(&self, id: &RequestId, request: StoreInit) -> Reply<'_, Changed<Store>>;

    /// Opens a store that is already on a device.
    fn store_add(&self, id: &RequestId, request: StoreAdd) -> Reply<'_, Changed<Store>>;

    /// All stores, by name.
    fn store_list(&self) -> Reply<'_, Vec<Store>>;

    /// Starts to check a store; one that is under way is gone along with.
    fn store_check(&self, id: &RequestId, store: Option<StoreName>) -> Reply<'_, StoreName>;

    /// How the check of a store is, or how the last one ended.
    fn store_check_status(&self, store: StoreName) -> Reply<'_, StoreCheck>;

    /// Starts, holds or lets go on the scrub of a store.
    fn store_scrub(&self, id: &RequestId, request: ScrubChange) -> Reply<'_, Changed<Scrub>>;

    /// What the scrub of a store does.
    fn store_scrub_status(&self, store: Option<StoreName>) -> Reply<'_, Scrub>;

    /// How large a log should be, or what the log of a store bears.
    fn store_advise(&self, request: StoreAdvise) -> Reply<'_, LogAdvice>;

    /// Creates a volume.
    fn volume_create(&self, id: &RequestId, request: VolumeCreate) -> Reply<'_, Changed<Volume>>;

    /// All volumes, by name.
    fn volume_list(&self) -> Reply<'_, Vec<Volume>>;

    /// One volume.
    fn volume_show(&self, name: VolumeName) -> Reply<'_, Volume>;

    /// Grows a volume; shrinks it where that is asked for explicitly and loses nothing.
    fn volume_resize(&self, id: &RequestId, request: VolumeResize) -> Reply<'_, Changed<Volume>>;

    /// Deletes a volume. `Ok(None)`: there was none.
    fn volume_delete(&self, id: &RequestId, request: VolumeDelete) -> Reply<'_, Option<Volume>>;

    /// Sets the limits of a volume.
    fn volume_qos(&self, id: &RequestId, request: VolumeQos) -> Reply<'_, Changed<Volume>>;

    /// Makes a volume from a snapshot.
    fn volume_clone(&self, id: &RequestId, request: VolumeClone) -> Reply<'_, Changed<Volume>>;

    /// Takes a volume back to a snapshot. Unlike all others, asking again does it again.
    fn volume_restore(&self, id: &RequestId, request: VolumeRestore) -> Reply<'_, Volume>;

    /// Takes a snapshot of a volume for a comparison. Whoever asked deletes it; what is left over
    /// is deleted at the next start.
    fn volume_freeze(&self, id: &RequestId, volume: VolumeName) -> Reply<'_, SnapshotPath>;

    /// A bounded step of a comparison of snapshots, from a byte on; the caller goes on at its
    /// `position`.
    fn volume_diff(&self, request: VolumeDiff, from: u64) -> Reply<'_, DiffStep>;

    /// Takes snapshots, all at the same moment.
    fn snapshot_create(
        &self,
        id: &RequestId,
        request: SnapshotCreate,
    ) -> Reply<'_, Changed<Vec<Snapshot>>>;

    /// Snapshots, by volume, the oldest first.
    fn snapshot_list(&self, request: SnapshotList) -> Reply<'_, Vec<Snapshot>>;

    /// One snapshot, with its space.
    fn snapshot_show(&self, snapshot: SnapshotPath) -> Reply<'_, Snapshot>;

    /// Deletes a snapshot. `Ok(None)`: there was none.
    fn snapshot_delete(
        &self,
        id: &RequestId,
        request: SnapshotDelete,
    ) -> Reply<'_, Option<Snapshot>>;

    /// Exports a volume.
    fn export_add(&self, id: &RequestId, request: ExportAdd) -> Reply<'_, Changed<Export>>;

    /// Removes an export. `Ok(None)`: there was none.
    fn export_remove(&self, id: &RequestId, request: ExportRemove) -> Reply<'_, Option<Export>>;

    /// All exports, by volume.
    fn export_list(&self) -> Reply<'_, Vec<Export>>;

    /// Admits hosts to an export.
    fn hosts_add(&self, id: &RequestId, request: HostsAdd) -> Reply<'_, Changed<Export>>;

    /// Takes hosts off the allow list of an export.
    fn hosts_remove(&self, id: &RequestId, request: HostsRemove) -> Reply<'_, Changed<Export>>;

    /// Sets how good a path the node, or one of its listeners, is to an export.
    fn export_set_ana_state(
        &self,
        id: &RequestId,
        request: SetAnaState,
    ) -> Reply<'_, Changed<Export>>;

    /// Tells hosts of another discovery service.
    fn referral_add(&self, id: &RequestId, request: Referral) -> Reply<'_, Changed<Referral>>;

    /// Tells them no more. `Ok(None)`: there was none at this address.
    fn referral_remove(&self, id: &RequestId, address: SocketAddr) -> Reply<'_, Option<Referral>>;

    /// All referrals, by address.
    fn referral_list(&self) -> Reply<'_, Vec<Referral>>;

    /// Sets the keys of a host, all of them: what is not given it does not have any more.
    fn host_set(&self, id: &RequestId, request: HostSet) -> Reply<'_, Changed<Host>>;

    /// Forgets the keys of a host. `Ok(None)`: it had none.
    fn host_remove(&self, id: &RequestId, request: HostRemove) -> Reply<'_, Option<Host>>;

    /// Hosts with keys, by name.
    fn host_list(&self) -> Reply<'_, Vec<Host>>;

    /// Hosts that are connected now.
    fn session_list(&self) -> Reply<'_, Vec<Session>>;

    /// What happened from event `from` on (1 is the first), and, if `follow`, what happens next.
    fn events(&self, subscription: Subscription) -> EventStream;

    /// All numbers, now.
    fn stats(&self) -> Reply<'_, StatsSnapshot>;
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription {
    /// The first event number wanted; events that were forgotten meanwhile are skipped.
    pub from: u64,
    /// Whether to wait for events that have not happened yet.
    pub follow: bool,
}

/// Events, one at a time.
pub trait EventSource: Send {
    /// The next event, or `None` when there will be none (any more).
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Event>> + Send + '_>>;
}

/// Events in order.
pub type EventStream = Box<dyn EventSource>;

/// Who a node is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeInfo {
    /// Its configured name.
    pub name: String,
    /// Its identity, made at first start and kept in the state directory.
    pub uuid: Uuid,
    /// The version of `holdfastd`.
    pub version: String,
    /// When it started, in milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// Cores that run a reactor.
    pub reactor_cores: Vec<u32>,
    /// `spin` or `adaptive`.
    pub idle: String,
    /// The I/O backend in use: `io_uring` or `standard`.
    pub io_backend: String,
    /// NVMe/TCP addresses, as `ip:port`.
    pub nvme_tcp: Vec<String>,
    /// Discovery addresses, as `ip:port`.
    pub discovery: Vec<String>,
    /// Whether the node is ready for hosts.
    pub health: Health,
}

/// Whether a node is ready for hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    /// All that was asked for is served.
    Ready,
    /// Serving, but not all: each string is one complaint.
    Degraded(Vec<String>),
    /// Starting: not ready yet.
    Starting,
    /// Draining: not ready any more.
    Draining,
}

impl Health {
    /// The stable spelling.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded(_) => "degraded",
            Self::Starting => "starting",
            Self::Draining => "draining",
        }
    }

    /// Whether hosts may be sent here.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready | Self::Degraded(_))
    }
}
