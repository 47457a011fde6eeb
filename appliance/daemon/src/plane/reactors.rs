//! The data plane of production: shards of `node` on pinned reactors, sockets and files on
//! `io_uring`.
//!
//! Commands to shards are answered some turns later through tickets; waiting for one blocks, so it
//! happens on Tokio's threads for blocking work, never on those that serve operators.

mod care;
mod convert;
mod exports;
mod keys;
mod snapshots;
mod start;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{
    ApiError, ByteLen, DevicePath, DiffStep, HostSet, LogSize, Nqn, Qos, Referral, Reply, Session,
    StoreCheck,
};
use bdev::Bdev;
use bdev_uring::{FileDisk, FileOptions, IoBackend};
use node::{Format, NodeHandle, StoreId, StoreSpec, StoreStatus, VolumeSpec, VolumeStatus};
use reactor::{Reactor, ReactorStats};
use uuid::Uuid;

use super::{
    DataPlane, PlaneExport, PlaneInfo, PlaneNewSnapshot, PlaneNotices, PlaneRefusal, PlaneStats,
    PlaneStore, PlaneVolume,
};
use convert::{api_error, plane_store, plane_volume};
use exports::Exported;
use keys::Computer;

/// A node's reactors, from the outside.
pub(crate) struct ReactorPlane {
    shared: Arc<Shared>,
}

struct Shared {
    handle: NodeHandle,
    reactors: Mutex<Vec<Reactor>>,
    computer: Mutex<Option<Computer>>,
    reactor_stats: Vec<Arc<ReactorStats>>,
    cores: Vec<u32>,
    idle: reactor::Idle,
    backend: IoBackend,
    /// What `backend` came to at start-up.
    selected: String,
    listen: Vec<SocketAddr>,
    discovery: Vec<SocketAddr>,
    book: Mutex<Book>,
}

/// What is open, exported and listened on.
#[derive(Default)]
struct Book {
    stores: BTreeMap<Uuid, OpenStore>,
    /// By volume.
    exports: BTreeMap<Uuid, Exported>,
    referrals: Vec<Referral>,
    discovery_nqn: Option<Nqn>,
    hosts: Vec<HostSet>,
    listening: Vec<SocketAddr>,
    listening_discovery: Vec<SocketAddr>,
}

struct OpenStore {
    id: StoreId,
    disk: Arc<FileDisk>,
}

impl ReactorPlane {
    /// Runs `work` where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let shared = Arc::clone(&self.shared);
        let span = tracing::Span::current();
        let task = tokio::task::spawn_blocking(move || span.in_scope(|| work(&shared)));
        task.await.map_err(ApiError::internal)?
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store_id(&self, store: Uuid) -> Result<StoreId, ApiError> {
        let book = self.book();
        let open = book.stores.get(&store);
        open.map(|open| open.id)
            .ok_or_else(|| ApiError::unavailable(format!("store {store} is not open")))
    }

    fn open(&self, device: &DevicePath, format: Option<Format>) -> Result<PlaneStore, ApiError> {
        let path = Path::new(device.as_str());
        let options =
            FileOptions { backend: self.backend, block_size: Some(4096), ..FileOptions::default() };
        let disk = FileDisk::open(path, &options).map_err(|error| {
            let hint = "is the device there, and not in use by anything else?";
            ApiError::precondition(format!("{device} cannot be opened: {error}"), hint)
        })?;
        tracing::info!(%device, "{}", disk.selection());
        let disk = Arc::new(disk);
        let spec = StoreSpec::Device { device: Arc::clone(&disk) as Arc<dyn Bdev>, format };
        let (id, ticket) = self.handle.open_store(spec).map_err(api_error)?;
        let status = match ticket.wait() {
            Ok(status) => status,
            Err(error) => {
                // Failed to open: the number is free again.
                if let Ok(ticket) = self.handle.close_store(id) {
                    let _ = ticket.wait();
                }
                return Err(store_error(device, error));
            }
        };
        for notice in disk.take_notices() {
            tracing::warn!(%device, "{notice}");
        }
        let uuid = Uuid::from_bytes(status.uuid);
        let backend = disk.selection().selected.to_string();
        let copied = {
            let mut book = self.book();
            let copied = book.stores.contains_key(&uuid);
            if !copied {
                book.stores.insert(uuid, OpenStore { id, disk });
            }
            copied
        };
        if copied {
            self.handle.close_store(id).and_then(node::Ticket::wait).map_err(api_error)?;
            let reason = format!("{device} is a copy of store {uuid}, which is open already");
            let hint = "a store must not be open twice: destroy the copy, or use another node";
            return Err(ApiError::precondition(reason, hint));
        }
        self.tell_time(crate::events::now_ms() / 1000)?;
        plane_store(status, backend)
    }

    fn close(&self, store: Uuid) -> Result<(), ApiError> {
        let id = self.store_id(store)?;
        let ticket = self.handle.close_store(id).map_err(api_error)?;
        self.book().stores.remove(&store);
        ticket.wait().map_err(api_error)
    }

    fn status(&self, store: Uuid) -> Result<StoreStatus, ApiError> {
        let id = self.store_id(store)?;
        let ticket = self.handle.store_status(id).map_err(api_error)?;
        ticket.wait().map_err(api_error)
    }

    fn stores(&self) -> Result<Vec<PlaneStore>, ApiError> {
        let open: Vec<(Uuid, String)> = {
            let book = self.book();
            let backend = |open: &OpenStore| open.disk.selection().selected.to_string();
            book.stores.iter().map(|(&uuid, open)| (uuid, backend(open))).collect()
        };
        let store = |(uuid, backend)| {
            let status = self.status(uuid)?;
            self.report_health(uuid, &status);
            plane_store(status, backend)
        };
        open.into_iter().map(store).collect()
    }

    fn volume(&self, store: Uuid, volume: Uuid) -> Result<VolumeStatus, ApiError> {
        let found = self.status(store)?.volumes.into_iter();
        found.into_iter().find(|found| found.uuid == volume.into_bytes()).ok_or_else(|| {
            ApiError::precondition(format!("store {store} does not hold volume {volume}"), "")
        })
    }

    fn create_volume(&self, store: Uuid, volume: &PlaneVolume) -> Result<PlaneVolume, ApiError> {
        let spec = VolumeSpec {
            name: volume.name.clone(),
            uuid: volume.uuid.into_bytes(),
            bytes: volume.size.bytes(),
            block_size: volume.block_size.bytes(),
        };
        let id = self.store_id(store)?;
        let ticket = self.handle.create_volume(id, spec).map_err(api_error)?;
        plane_volume(ticket.wait().map_err(api_error)?)
    }

    fn resize_volume(
        &self,
        store: Uuid,
        volume: Uuid,
        size: ByteLen,
        shrink: bool,
    ) -> Result<(), ApiError> {
        let id = self.store_id(store)?;
        let known = self.volume(store, volume)?;
        let ticket = self.handle.resize_volume(id, known.id, size.bytes(), shrink);
        let status = ticket.map_err(api_error)?.wait().map_err(api_error)?;
        self.publish_size(volume, &status)
    }

    fn destroy_volume(&self, store: Uuid, volume: Uuid) -> Result<(), ApiError> {
        let id = self.store_id(store)?;
        let known = self.volume(store, volume)?;
        let ticket = self.handle.delete_volume(id, known.id).map_err(api_error)?;
        ticket.wait().map_err(api_error)
    }

    fn listen(&self) -> Result<(), ApiError> {
        let bind = |addresses: &[SocketAddr]| -> Result<Vec<SocketAddr>, ApiError> {
            let one = |&address: &SocketAddr| {
                let ticket = self.handle.listen(address).map_err(api_error)?;
                ticket.wait().map_err(|error| {
                    ApiError::unavailable(format!("{address} cannot be listened on: {error}"))
                })
            };
            addresses.iter().map(one).collect()
        };
        let (listening, discovery) = (bind(&self.listen)?, bind(&self.discovery)?);
        let mut book = self.book();
        book.listening = listening;
        book.listening_discovery = discovery;
        self.publish(&book)
    }

    fn drain(&self) -> Result<(), ApiError> {
        self.handle.drain().and_then(node::Ticket::wait).map_err(api_error)?;
        self.handle.shutdown().and_then(node::Ticket::wait).map_err(api_error)?;
        let reactors =
            std::mem::take(&mut *self.reactors.lock().unwrap_or_else(PoisonError::into_inner));
        reactors.into_iter().for_each(Reactor::join);
        let computer = self.computer.lock().unwrap_or_else(PoisonError::into_inner).take();
        computer.into_iter().for_each(Computer::stop);
        Ok(())
    }
}

/// What went wrong with the store on a device.
fn store_error(device: &DevicePath, error: node::NodeError) -> ApiError {
    match api_error(error) {
        ApiError::FailedPrecondition { reason, hint } => {
            ApiError::precondition(format!("{device}: {reason}"), hint)
        }
        other => other,
    }
}

impl DataPlane for ReactorPlane {
    fn info(&self) -> PlaneInfo {
        let book = self.shared.book();
        PlaneInfo {
            reactor_cores: self.shared.cores.clone(),
            idle: self.shared.idle.to_string(),
            io_backend: self.shared.selected.clone(),
            nvme_tcp: book.listening.clone(),
            discovery: book.listening_discovery.clone(),
        }
    }

    fn listen(&self) -> Reply<'_, ()> {
        Box::pin(self.blocking(Shared::listen))
    }

    fn store_format(
        &self,
        device: DevicePath,
        uuid: Uuid,
        log: Option<LogSize>,
    ) -> Reply<'_, PlaneStore> {
        let log_bytes = log.map(|log| log.len().bytes());
        let format = Format { uuid: uuid.into_bytes(), log_bytes };
        Box::pin(self.blocking(move |shared| shared.open(&device, Some(format))))
    }

    fn store_check(&self, store: Uuid) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.check(store)))
    }

    fn store_check_status(&self, store: Uuid) -> Reply<'_, StoreCheck> {
        Box::pin(self.blocking(move |shared| shared.check_status(store)))
    }

    fn store_scrub(&self, store: Uuid, rate: u64, start: bool) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.scrub(store, rate, start)))
    }

    fn store_notices(&self, store: Uuid) -> Reply<'_, PlaneNotices> {
        Box::pin(self.blocking(move |shared| shared.notices(store)))
    }

    fn tell_time(&self, unix_seconds: u64) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.tell_time(unix_seconds)))
    }

    fn store_open(&self, device: DevicePath) -> Reply<'_, PlaneStore> {
        Box::pin(self.blocking(move |shared| shared.open(&device, None)))
    }

    fn store_close(&self, store: Uuid) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.close(store)))
    }

    fn stores(&self) -> Reply<'_, Vec<PlaneStore>> {
        Box::pin(self.blocking(Shared::stores))
    }

    fn volume_create(&self, store: Uuid, volume: PlaneVolume) -> Reply<'_, PlaneVolume> {
        Box::pin(self.blocking(move |shared| shared.create_volume(store, &volume)))
    }

    fn volume_resize(
        &self,
        store: Uuid,
        volume: Uuid,
        size: ByteLen,
        shrink: bool,
    ) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.resize_volume(store, volume, size, shrink)))
    }

    fn volume_qos(&self, store: Uuid, volume: Uuid, qos: Qos) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.limit_volume(store, volume, qos)))
    }

    fn volume_clone(
        &self,
        store: Uuid,
        snapshot: Uuid,
        volume: PlaneVolume,
    ) -> Reply<'_, PlaneVolume> {
        Box::pin(self.blocking(move |shared| shared.clone_volume(store, snapshot, &volume)))
    }

    fn volume_restore(&self, store: Uuid, volume: Uuid, snapshot: Uuid) -> Reply<'_, PlaneVolume> {
        Box::pin(self.blocking(move |shared| shared.restore_volume(store, volume, snapshot)))
    }

    fn snapshots_create(&self, store: Uuid, group: Vec<PlaneNewSnapshot>) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.create_snapshots(store, &group)))
    }

    fn snapshot_destroy(&self, store: Uuid, snapshot: Uuid) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.destroy_snapshot(store, snapshot)))
    }

    fn snapshot_space(&self, store: Uuid, snapshot: Uuid) -> Reply<'_, ByteLen> {
        Box::pin(self.blocking(move |shared| shared.snapshot_space(store, snapshot)))
    }

    fn diff(&self, store: Uuid, base: Option<Uuid>, of: Uuid, from: u64) -> Reply<'_, DiffStep> {
        Box::pin(self.blocking(move |shared| shared.diff(store, base, of, from)))
    }

    fn volume_destroy(&self, store: Uuid, volume: Uuid) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.destroy_volume(store, volume)))
    }

    fn exports(&self) -> Reply<'_, Vec<PlaneExport>> {
        Box::pin(self.blocking(|shared| Ok(shared.exports())))
    }

    fn export_add(&self, export: PlaneExport) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.add_export(export)))
    }

    fn export_change(&self, export: PlaneExport) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.change_export(export)))
    }

    fn export_remove(&self, volume: Uuid) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.remove_export(volume)))
    }

    fn referrals(&self) -> Reply<'_, Vec<Referral>> {
        Box::pin(self.blocking(|shared| Ok(shared.book().referrals.clone())))
    }

    fn set_referrals(&self, referrals: Vec<Referral>) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| {
            let mut book = shared.book();
            book.referrals = referrals;
            shared.publish(&book)
        }))
    }

    fn set_discovery_nqn(&self, nqn: Nqn) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| {
            let mut book = shared.book();
            book.discovery_nqn = Some(nqn);
            shared.publish(&book)
        }))
    }

    fn hosts(&self) -> Reply<'_, Vec<HostSet>> {
        Box::pin(async { Ok(self.shared.book().hosts.clone()) })
    }

    fn hosts_replace(&self, hosts: Vec<HostSet>) -> Reply<'_, ()> {
        Box::pin(self.blocking(move |shared| shared.replace_hosts(hosts)))
    }

    fn sessions(&self) -> Reply<'_, Vec<Session>> {
        Box::pin(self.blocking(|shared| convert::sessions(&shared.handle)))
    }

    fn refusals(&self) -> Reply<'_, Vec<PlaneRefusal>> {
        Box::pin(self.blocking(|shared| Ok(convert::refusals(&shared.handle))))
    }

    fn stats(&self) -> Reply<'_, PlaneStats> {
        Box::pin(self.blocking(|shared| Ok(shared.stats())))
    }

    fn drain(&self) -> Reply<'_, ()> {
        Box::pin(self.blocking(Shared::drain))
    }
}
