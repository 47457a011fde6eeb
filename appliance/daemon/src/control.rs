//! The node as its operators see it: desired state on one side, the data plane on the other.
//!
//! Every mutation takes the same path: write the wish to the state store, do it on the data plane,
//! note that it is done, tell the events. A crash in between is finished at the next start by
//! [`cluster::plan`]. Mutations run one at a time; reads do not wait for them.

mod care;
mod discovery;
mod exports;
mod hosts;
mod reconcile;
mod snapshots;
mod stores;
mod view;
mod volumes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{
    ApiError, Changed, DiffStep, EventKind, EventStream, Export, ExportAdd, ExportRemove, Health,
    Host, HostRemove, HostSet, HostsAdd, HostsRemove, LogAdvice, Node, NodeInfo, Referral, Reply,
    RequestId, Scrub, ScrubChange, Session, SetAnaState, Severity, Snapshot, SnapshotCreate,
    SnapshotDelete, SnapshotList, SnapshotPath, StatsSnapshot, Store, StoreAdd, StoreAdvise,
    StoreCheck, StoreInit, StoreName, Subscription, Volume, VolumeClone, VolumeCreate,
    VolumeDelete, VolumeDiff, VolumeName, VolumeQos, VolumeResize, VolumeRestore,
};
use cluster::{Desired, Expected, RecordError, StateError, StateStore};
use tokio::sync::MutexGuard as AsyncMutexGuard;
use uuid::Uuid;

use crate::events::{Events, now_ms};
use crate::plane::DataPlane;

/// A node under control.
pub(crate) struct Control {
    name: String,
    uuid: Uuid,
    started_ms: u64,
    state: Arc<dyn StateStore>,
    plane: Arc<dyn DataPlane>,
    events: Events,
    /// Held by the mutation that runs.
    mutation: tokio::sync::Mutex<()>,
    stage: AtomicU8,
    troubles: Mutex<Troubles>,
}

/// What does not serve, and why.
#[derive(Clone, Debug, Default)]
struct Troubles {
    /// Stores that could not be opened.
    stores: BTreeMap<StoreName, String>,
    /// Open stores whose device failed, or is quarantined.
    failed: BTreeMap<StoreName, String>,
    /// Everything else, by subject: from the last reconciliation.
    others: BTreeMap<String, String>,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// The key of the node's own identity.
const NODE_KEY: &str = "node/uuid";

impl Control {
    /// Opens desired state; gives the node its identity at the first start.
    pub(crate) async fn open(
        name: String,
        state: Arc<dyn StateStore>,
        plane: Arc<dyn DataPlane>,
    ) -> Result<Arc<Self>, RecordError> {
        let uuid = identity(state.as_ref()).await?;
        Ok(Arc::new(Self {
            name,
            uuid,
            started_ms: now_ms(),
            state,
            plane,
            events: Events::new(),
            mutation: tokio::sync::Mutex::default(),
            stage: AtomicU8::new(STARTING),
            troubles: Mutex::default(),
        }))
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn plane(&self) -> &Arc<dyn DataPlane> {
        &self.plane
    }

    /// Notes which open stores do not serve writes any more, and why.
    pub(crate) fn set_failed(&self, failed: BTreeMap<StoreName, String>) {
        self.troubles().failed = failed;
    }

    /// Says that hosts may come.
    pub(crate) fn set_ready(&self) {
        self.stage.store(READY, Ordering::Release);
        let version = env!("CARGO_PKG_VERSION");
        let message = format!("holdfastd {version} serves as node {}", self.name);
        self.events.note(EventKind::NodeReady, Severity::Info, "", message, "");
    }

    /// Refuses mutations from now on, and waits for the one that runs.
    pub(crate) async fn begin_drain(&self) {
        self.stage.store(DRAINING, Ordering::Release);
        let message = "finishing what is in flight";
        self.events.note(EventKind::NodeDraining, Severity::Info, "", message, "");
        drop(self.mutation.lock().await);
    }

    /// Begins a mutation: waits for the one before.
    async fn mutate(&self) -> Result<AsyncMutexGuard<'_, ()>, ApiError> {
        let guard = self.mutation.lock().await;
        match self.stage.load(Ordering::Acquire) {
            READY => Ok(guard),
            DRAINING => Err(ApiError::unavailable("the node is draining and takes no changes")),
            _ => Err(ApiError::unavailable("the node is starting; try again in a moment")),
        }
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn desired(&self) -> Result<Desired, ApiError> {
        Desired::load(self.state.as_ref()).await.map_err(ApiError::internal)
    }

    /// Writes a record, or removes it. Under the mutation lock a conflict is a defect.
    async fn keep(
        &self,
        key: &str,
        expected: Expected,
        value: Option<Vec<u8>>,
    ) -> Result<cluster::Revision, ApiError> {
        self.state.swap(key, expected, value).await.map_err(ApiError::internal)
    }

    /// Removes a record whatever its revision.
    async fn forget(&self, key: &str) -> Result<(), ApiError> {
        if let Some(entry) = self.state.read(key).await.map_err(ApiError::internal)? {
            self.keep(key, Expected::At(entry.revision), None).await?;
        }
        Ok(())
    }

    /// Writes a record whatever is there.
    async fn put(&self, key: &str, value: Vec<u8>) -> Result<(), ApiError> {
        let found = self.state.read(key).await.map_err(ApiError::internal)?;
        let expected = found.map_or(Expected::Absent, |entry| Expected::At(entry.revision));
        self.keep(key, expected, Some(value)).await?;
        Ok(())
    }

    fn note(&self, kind: EventKind, subject: impl ToString, message: String, id: &str) {
        self.events.note(kind, Severity::Info, subject, message, id);
    }
}

async fn identity(state: &dyn StateStore) -> Result<Uuid, RecordError> {
    if let Some(entry) = state.read(NODE_KEY).await? {
        let text = String::from_utf8_lossy(&entry.value);
        return Uuid::try_parse(&text).map_err(|error| RecordError::Damaged {
            key: NODE_KEY.to_owned(),
            reason: error.to_string(),
        });
    }
    let uuid = Uuid::new_v4();
    let value = uuid.to_string().into_bytes();
    match state.swap(NODE_KEY, Expected::Absent, Some(value)).await {
        Ok(_) => Ok(uuid),
        Err(error @ StateError::Conflict { .. }) => Err(error.into()),
        Err(error) => Err(error.into()),
    }
}

impl Node for Control {
    fn node_info(&self) -> Reply<'_, NodeInfo> {
        Box::pin(async {
            let plane = self.plane.info();
            let texts =
                |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect();
            Ok(NodeInfo {
                name: self.name.clone(),
                uuid: self.uuid,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_ms: self.started_ms,
                nvme_tcp: texts(&plane.nvme_tcp),
                discovery: texts(&plane.discovery),
                reactor_cores: plane.reactor_cores,
                idle: plane.idle,
                io_backend: plane.io_backend,
                health: self.health(),
            })
        })
    }

    fn health(&self) -> Health {
        match self.stage.load(Ordering::Acquire) {
            STARTING => Health::Starting,
            DRAINING => Health::Draining,
            _ => {
                let troubles = self.troubles();
                let stores = troubles.stores.iter().chain(&troubles.failed);
                let stores = stores.map(|(name, why)| format!("store {name}: {why}"));
                let others = troubles.others.iter().map(|(what, why)| format!("{what}: {why}"));
                let complaints: Vec<_> = stores.chain(others).collect();
                if complaints.is_empty() { Health::Ready } else { Health::Degraded(complaints) }
            }
        }
    }

    fn store_init(&self, id: &RequestId, request: StoreInit) -> Reply<'_, Changed<Store>> {
        let id = id.to_string();
        Box::pin(async move { self.init_store(request, &id).await })
    }

    fn store_add(&self, id: &RequestId, request: StoreAdd) -> Reply<'_, Changed<Store>> {
        let id = id.to_string();
        Box::pin(async move { self.add_store(request, &id).await })
    }

    fn store_list(&self) -> Reply<'_, Vec<Store>> {
        Box::pin(async { Ok(self.view().await?.stores()) })
    }

    fn store_check(&self, _id: &RequestId, store: Option<StoreName>) -> Reply<'_, StoreName> {
        Box::pin(async move { self.check_store(store).await })
    }

    fn store_check_status(&self, store: StoreName) -> Reply<'_, StoreCheck> {
        Box::pin(async move { self.check_status(store).await })
    }

    fn store_scrub(&self, id: &RequestId, request: ScrubChange) -> Reply<'_, Changed<Scrub>> {
        let id = id.to_string();
        Box::pin(async move { self.change_scrub(request, &id).await })
    }

    fn store_scrub_status(&self, store: Option<StoreName>) -> Reply<'_, Scrub> {
        Box::pin(async move { self.scrub_status(store).await })
    }

    fn store_advise(&self, request: StoreAdvise) -> Reply<'_, LogAdvice> {
        Box::pin(async move { self.advise(request).await })
    }

    fn volume_create(&self, id: &RequestId, request: VolumeCreate) -> Reply<'_, Changed<Volume>> {
        let id = id.to_string();
        Box::pin(async move { self.create_volume(request, &id).await })
    }

    fn volume_list(&self) -> Reply<'_, Vec<Volume>> {
        Box::pin(async { Ok(self.view().await?.volumes()) })
    }

    fn volume_show(&self, name: VolumeName) -> Reply<'_, Volume> {
        Box::pin(async move { self.view().await?.volume(&name) })
    }

    fn volume_resize(&self, id: &RequestId, request: VolumeResize) -> Reply<'_, Changed<Volume>> {
        let id = id.to_string();
        Box::pin(async move { self.resize_volume(request, &id).await })
    }

    fn volume_delete(&self, id: &RequestId, request: VolumeDelete) -> Reply<'_, Option<Volume>> {
        let id = id.to_string();
        Box::pin(async move { self.delete_volume(request, &id).await })
    }

    fn volume_qos(&self, id: &RequestId, request: VolumeQos) -> Reply<'_, Changed<Volume>> {
        let id = id.to_string();
        Box::pin(async move { self.limit_volume(request, &id).await })
    }

    fn volume_clone(&self, id: &RequestId, request: VolumeClone) -> Reply<'_, Changed<Volume>> {
        let id = id.to_string();
        Box::pin(async move { self.clone_volume(request, &id).await })
    }

    fn volume_restore(&self, id: &RequestId, request: VolumeRestore) -> Reply<'_, Volume> {
        let id = id.to_string();
        Box::pin(async move { self.restore_volume(request, &id).await })
    }

    fn volume_freeze(&self, id: &RequestId, volume: VolumeName) -> Reply<'_, SnapshotPath> {
        let id = id.to_string();
        Box::pin(async move { self.freeze(volume, &id).await })
    }

    fn volume_diff(&self, request: VolumeDiff, from: u64) -> Reply<'_, DiffStep> {
        Box::pin(async move { self.diff(&request, from).await })
    }

    fn snapshot_create(
        &self,
        id: &RequestId,
        request: SnapshotCreate,
    ) -> Reply<'_, Changed<Vec<Snapshot>>> {
        let id = id.to_string();
        Box::pin(async move { self.create_snapshots(request, &id).await })
    }

    fn snapshot_list(&self, request: SnapshotList) -> Reply<'_, Vec<Snapshot>> {
        Box::pin(async move { self.list_snapshots(request).await })
    }

    fn snapshot_show(&self, snapshot: SnapshotPath) -> Reply<'_, Snapshot> {
        Box::pin(async move { self.show_snapshot(&snapshot).await })
    }

    fn snapshot_delete(
        &self,
        id: &RequestId,
        request: SnapshotDelete,
    ) -> Reply<'_, Option<Snapshot>> {
        let id = id.to_string();
        Box::pin(async move { self.delete_snapshot(&request.snapshot, &id).await })
    }

    fn export_add(&self, id: &RequestId, request: ExportAdd) -> Reply<'_, Changed<Export>> {
        let id = id.to_string();
        Box::pin(async move { self.add_export(request, &id).await })
    }

    fn export_remove(&self, id: &RequestId, request: ExportRemove) -> Reply<'_, Option<Export>> {
        let id = id.to_string();
        Box::pin(async move { self.remove_export(request, &id).await })
    }

    fn export_list(&self) -> Reply<'_, Vec<Export>> {
        Box::pin(async { Ok(self.view().await?.exports()) })
    }

    fn hosts_add(&self, id: &RequestId, request: HostsAdd) -> Reply<'_, Changed<Export>> {
        let id = id.to_string();
        Box::pin(async move { self.add_hosts(request, &id).await })
    }

    fn hosts_remove(&self, id: &RequestId, request: HostsRemove) -> Reply<'_, Changed<Export>> {
        let id = id.to_string();
        Box::pin(async move { self.remove_hosts(request, &id).await })
    }

    fn export_set_ana_state(
        &self,
        id: &RequestId,
        request: SetAnaState,
    ) -> Reply<'_, Changed<Export>> {
        let id = id.to_string();
        Box::pin(async move { self.set_ana_state(request, &id).await })
    }

    fn referral_add(&self, id: &RequestId, request: Referral) -> Reply<'_, Changed<Referral>> {
        let id = id.to_string();
        Box::pin(async move { self.add_referral(request, &id).await })
    }

    fn referral_remove(&self, id: &RequestId, address: SocketAddr) -> Reply<'_, Option<Referral>> {
        let id = id.to_string();
        Box::pin(async move { self.remove_referral(address, &id).await })
    }

    fn referral_list(&self) -> Reply<'_, Vec<Referral>> {
        Box::pin(async { Ok(self.desired().await?.referrals().to_vec()) })
    }

    fn host_set(&self, id: &RequestId, request: HostSet) -> Reply<'_, Changed<Host>> {
        let id = id.to_string();
        Box::pin(async move { self.set_host(request, &id).await })
    }

    fn host_remove(&self, id: &RequestId, request: HostRemove) -> Reply<'_, Option<Host>> {
        let id = id.to_string();
        Box::pin(async move { self.remove_host(request, &id).await })
    }

    fn host_list(&self) -> Reply<'_, Vec<Host>> {
        Box::pin(async { self.list_hosts().await })
    }

    fn session_list(&self) -> Reply<'_, Vec<Session>> {
        Box::pin(async { self.sessions().await })
    }

    fn events(&self, subscription: Subscription) -> EventStream {
        self.events.subscribe(subscription)
    }

    fn stats(&self) -> Reply<'_, StatsSnapshot> {
        Box::pin(async { self.statistics().await })
    }
}
