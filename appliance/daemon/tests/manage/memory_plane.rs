//! A data plane in memory: it remembers what it was told, and "devices" survive its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use api::{
    ApiError, ByteLen, ChangedRange, CheckReport, DevicePath, DiffStep, HostSet, IoCounters,
    LatencyHistogram, LogSize, Nqn, Qos, Referral, Reply, Session, ShardStats, StoreCheck,
    StoreNumbers, VolumeIo,
};
use daemon::{
    DataPlane, PlaneExport, PlaneInfo, PlaneNewSnapshot, PlaneNotices, PlaneRefusal, PlaneSnapshot,
    PlaneStats, PlaneStore, PlaneVolume, RefusalCause,
};
use uuid::Uuid;

/// What is written on devices: outlives a plane.
pub(crate) type Devices = Arc<Mutex<BTreeMap<DevicePath, PlaneStore>>>;

#[derive(Default)]
pub(crate) struct MemoryPlane {
    devices: Devices,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<Uuid, DevicePath>,
    exports: BTreeMap<Uuid, PlaneExport>,
    referrals: Vec<Referral>,
    sessions: Vec<Session>,
    hosts: Vec<HostSet>,
    refused: Vec<PlaneRefusal>,
    listening: bool,
    drained: bool,
    /// What the next change fails with.
    failure: Option<ApiError>,
    /// How checks end.
    check: StoreCheck,
    /// What stores noticed.
    notices: PlaneNotices,
    /// What time it was said to be.
    time: u64,
}

impl Inner {
    /// Ends the sessions of hosts that see no namespace of their subsystem any more.
    fn end_sessions(&mut self) {
        let Self { exports, sessions, .. } = self;
        sessions.retain(|session| {
            let host = session.host.parse().unwrap();
            let mut exports = exports.values().filter(|export| export.nqn == session.subsystem);
            exports.any(|export| export.access.admits(&host))
        });
    }
}

impl MemoryPlane {
    pub(crate) fn new(devices: Devices) -> Self {
        let check = StoreCheck::Done(CheckReport::default());
        Self { devices, inner: Mutex::new(Inner { check, ..Inner::default() }) }
    }

    /// Lets checks end like this.
    pub(crate) fn check_ends(&self, check: StoreCheck) {
        self.inner.lock().unwrap().check = check;
    }

    /// Lets stores notice damage.
    pub(crate) fn notice(&self, notices: PlaneNotices) {
        self.inner.lock().unwrap().notices = notices;
    }

    /// What time it was said to be last.
    pub(crate) fn time(&self) -> u64 {
        self.inner.lock().unwrap().time
    }

    /// Changes what the open stores say of themselves.
    pub(crate) fn stores_say(&self, change: impl FnMut(&mut PlaneStore)) {
        self.devices.lock().unwrap().values_mut().for_each(change);
    }

    /// Lets the next change fail.
    pub(crate) fn fail_next(&self, error: ApiError) {
        self.inner.lock().unwrap().failure = Some(error);
    }

    /// Connects a host, as far as the allow list admits it.
    pub(crate) fn connect(&self, subsystem: &str, host: &str) -> bool {
        let mut inner = self.inner.lock().unwrap();
        let (subsystem, host): (Nqn, Nqn) = (subsystem.parse().unwrap(), host.parse().unwrap());
        let exports: Vec<_> =
            inner.exports.values().filter(|export| export.nqn == subsystem).cloned().collect();
        let admitted = inner.listening && exports.iter().any(|export| export.access.admits(&host));
        if admitted {
            let controller_id = u16::try_from(inner.sessions.len() + 1).unwrap();
            inner.sessions.push(Session {
                host: host.to_string(),
                subsystem: subsystem.clone(),
                volume: None,
                controller_id,
                io_queues: 2,
                peer: "192.0.2.1:40000".to_owned(),
                keep_alive_ms: 5000,
            });
        }
        if !admitted {
            let cause = match exports.is_empty() {
                true => RefusalCause::Other,
                false => RefusalCause::NotListed,
            };
            inner.refused.push(PlaneRefusal {
                host: host.to_string(),
                subsystem: subsystem.to_string(),
                peer: "192.0.2.1:40000".to_owned(),
                cause,
            });
        }
        admitted
    }

    /// The discovery services that hosts are told of.
    pub(crate) fn told_of(&self) -> Vec<String> {
        self.inner.lock().unwrap().referrals.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.inner.lock().unwrap().drained
    }

    fn take_failure(&self) -> Result<(), ApiError> {
        self.inner.lock().unwrap().failure.take().map_or(Ok(()), Err)
    }

    /// Changes a store on its device.
    fn change<T>(
        &self,
        store: Uuid,
        change: impl FnOnce(&mut PlaneStore) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.take_failure()?;
        let device = self.inner.lock().unwrap().open.get(&store).cloned();
        let device = device.ok_or_else(|| ApiError::internal("no such store"))?;
        change(self.devices.lock().unwrap().get_mut(&device).unwrap())
    }

    fn change_volume(
        &self,
        store: Uuid,
        volume: Uuid,
        change: impl FnOnce(&mut PlaneVolume) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        self.change(store, |store| {
            let volume = store.volumes.iter_mut().find(|found| found.uuid == volume);
            change(volume.ok_or_else(|| ApiError::internal("no such volume"))?)
        })
    }
}

fn find(snapshots: &[PlaneSnapshot], uuid: Uuid) -> Result<&PlaneSnapshot, ApiError> {
    let found = snapshots.iter().find(|found| found.uuid == uuid);
    found.ok_or_else(|| ApiError::internal("no such snapshot"))
}

fn ready<T: Send + 'static>(result: Result<T, ApiError>) -> Reply<'static, T> {
    Box::pin(std::future::ready(result))
}

impl DataPlane for MemoryPlane {
    fn info(&self) -> PlaneInfo {
        let listening = self.inner.lock().unwrap().listening;
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        PlaneInfo {
            reactor_cores: vec![],
            idle: "adaptive".to_owned(),
            io_backend: "memory".to_owned(),
            nvme_tcp: if listening { vec![address(4420)] } else { vec![] },
            discovery: if listening { vec![address(8009)] } else { vec![] },
        }
    }

    fn listen(&self) -> Reply<'_, ()> {
        self.inner.lock().unwrap().listening = true;
        ready(Ok(()))
    }

    fn store_format(
        &self,
        device: DevicePath,
        uuid: Uuid,
        log: Option<LogSize>,
    ) -> Reply<'_, PlaneStore> {
        if let Err(error) = self.take_failure() {
            return ready(Err(error));
        }
        let size = std::fs::metadata(device.as_str()).map_or(0, |metadata| metadata.len());
        let store = PlaneStore {
            uuid,
            numbers: StoreNumbers {
                capacity: ByteLen::from_bytes(size),
                log_size: log.map_or(ByteLen::from_bytes(16 << 20), LogSize::len),
                ..StoreNumbers::default()
            },
            scrub_rate: api::SCRUB_RATE_DEFAULT,
            backend: "memory".to_owned(),
            ..PlaneStore::default()
        };
        self.devices.lock().unwrap().insert(device.clone(), store.clone());
        self.inner.lock().unwrap().open.insert(uuid, device);
        ready(Ok(store))
    }

    fn store_open(&self, device: DevicePath) -> Reply<'_, PlaneStore> {
        let Some(store) = self.devices.lock().unwrap().get(&device).cloned() else {
            return ready(Err(ApiError::precondition(format!("{device} holds no store"), "")));
        };
        self.inner.lock().unwrap().open.insert(store.uuid, device.clone());
        // As a store does: it does not remember limits.
        let mut devices = self.devices.lock().unwrap();
        let open = devices.get_mut(&device).unwrap();
        open.scrub_rate = api::SCRUB_RATE_DEFAULT;
        open.failure.clear();
        open.numbers.health = api::DeviceHealth::default();
        open.volumes.iter_mut().for_each(|volume| volume.qos = Qos::default());
        ready(Ok(store))
    }

    fn store_close(&self, store: Uuid) -> Reply<'_, ()> {
        self.inner.lock().unwrap().open.remove(&store);
        ready(Ok(()))
    }

    fn store_check(&self, store: Uuid) -> Reply<'_, ()> {
        ready(self.change(store, |store| {
            store.numbers.check.running = true;
            Ok(())
        }))
    }

    /// Two looks: the first one finds it half done.
    fn store_check_status(&self, store: Uuid) -> Reply<'_, StoreCheck> {
        let outcome = self.inner.lock().unwrap().check.clone();
        ready(self.change(store, |store| {
            if std::mem::take(&mut store.numbers.check.running) {
                return Ok(StoreCheck::Running { read: 1 << 19, total: 1 << 20 });
            }
            if let StoreCheck::Done(report) = &outcome {
                store.numbers.check.done += 1;
                let found = u64::try_from(report.findings.len()).unwrap();
                store.numbers.check.found = found;
                store.numbers.check.found_all += found;
            }
            Ok(outcome)
        }))
    }

    fn store_scrub(&self, store: Uuid, rate: u64, start: bool) -> Reply<'_, ()> {
        ready(self.change(store, |store| {
            store.scrub_rate = rate;
            store.numbers.scrub.running = rate > 0 && (start || store.numbers.scrub.running);
            Ok(())
        }))
    }

    fn store_notices(&self, _store: Uuid) -> Reply<'_, PlaneNotices> {
        ready(Ok(std::mem::take(&mut self.inner.lock().unwrap().notices)))
    }

    fn tell_time(&self, unix_seconds: u64) -> Reply<'_, ()> {
        self.inner.lock().unwrap().time = unix_seconds;
        ready(Ok(()))
    }

    fn stores(&self) -> Reply<'_, Vec<PlaneStore>> {
        let open: Vec<_> = self.inner.lock().unwrap().open.values().cloned().collect();
        let devices = self.devices.lock().unwrap();
        ready(Ok(open.iter().map(|device| devices[device].clone()).collect()))
    }

    fn volume_create(&self, store: Uuid, volume: PlaneVolume) -> Reply<'_, PlaneVolume> {
        ready(self.change(store, |store| {
            store.volumes.push(volume.clone());
            Ok(volume)
        }))
    }

    fn volume_resize(
        &self,
        store: Uuid,
        volume: Uuid,
        size: ByteLen,
        shrink: bool,
    ) -> Reply<'_, ()> {
        ready(self.change_volume(store, volume, |volume| {
            if size < volume.size && (!shrink || volume.used > size) {
                return Err(ApiError::precondition("data is written beyond the new size", ""));
            }
            volume.size = size;
            Ok(())
        }))
    }

    fn volume_qos(&self, store: Uuid, volume: Uuid, qos: Qos) -> Reply<'_, ()> {
        ready(self.change_volume(store, volume, |volume| {
            volume.qos = qos;
            Ok(())
        }))
    }

    fn volume_clone(
        &self,
        store: Uuid,
        snapshot: Uuid,
        volume: PlaneVolume,
    ) -> Reply<'_, PlaneVolume> {
        ready(self.change(store, |store| {
            let size = find(&store.snapshots, snapshot)?.size;
            let volume = PlaneVolume { size, ..volume };
            store.volumes.push(volume.clone());
            Ok(volume)
        }))
    }

    fn volume_restore(&self, store: Uuid, volume: Uuid, snapshot: Uuid) -> Reply<'_, PlaneVolume> {
        ready(self.change(store, |store| {
            find(&store.snapshots, snapshot)?;
            let volume = store.volumes.iter().find(|found| found.uuid == volume);
            volume.cloned().ok_or_else(|| ApiError::internal("no such volume"))
        }))
    }

    fn snapshots_create(&self, store: Uuid, group: Vec<PlaneNewSnapshot>) -> Reply<'_, ()> {
        ready(self.change(store, |store| {
            for PlaneNewSnapshot { volume, uuid, name } in group {
                let of = store.volumes.iter().find(|found| found.uuid == volume).unwrap();
                store.snapshots.push(PlaneSnapshot {
                    uuid,
                    name,
                    volume,
                    number: u32::try_from(store.snapshots.len() + 1).unwrap(),
                    size: of.size,
                    referenced: ByteLen::from_bytes(3 << 16),
                    materialised: true,
                });
            }
            Ok(())
        }))
    }

    fn snapshot_destroy(&self, store: Uuid, snapshot: Uuid) -> Reply<'_, ()> {
        ready(self.change(store, |store| {
            store.snapshots.retain(|found| found.uuid != snapshot);
            Ok(())
        }))
    }

    fn snapshot_space(&self, store: Uuid, snapshot: Uuid) -> Reply<'_, ByteLen> {
        ready(self.change(store, |store| {
            find(&store.snapshots, snapshot).map(|_| ByteLen::from_bytes(1 << 16))
        }))
    }

    /// Two steps; the first one finds the first extent changed.
    fn diff(&self, store: Uuid, base: Option<Uuid>, of: Uuid, from: u64) -> Reply<'_, DiffStep> {
        ready(self.change(store, |store| {
            if let Some(base) = base {
                find(&store.snapshots, base)?;
            }
            let size = find(&store.snapshots, of)?.size.bytes();
            let first = ChangedRange { offset: 0, length: 1 << 16 };
            Ok(match from {
                0 => DiffStep { ranges: vec![first], position: size / 2, size },
                _ => DiffStep { ranges: vec![], position: size, size },
            })
        }))
    }

    fn volume_destroy(&self, store: Uuid, volume: Uuid) -> Reply<'_, ()> {
        ready(self.change(store, |store| {
            store.volumes.retain(|found| found.uuid != volume);
            Ok(())
        }))
    }

    fn exports(&self) -> Reply<'_, Vec<PlaneExport>> {
        ready(Ok(self.inner.lock().unwrap().exports.values().cloned().collect()))
    }

    fn export_add(&self, export: PlaneExport) -> Reply<'_, ()> {
        if let Err(error) = self.take_failure() {
            return ready(Err(error));
        }
        self.inner.lock().unwrap().exports.insert(export.volume, export);
        ready(Ok(()))
    }

    fn export_change(&self, export: PlaneExport) -> Reply<'_, ()> {
        if let Err(error) = self.take_failure() {
            return ready(Err(error));
        }
        let mut inner = self.inner.lock().unwrap();
        assert!(inner.exports.insert(export.volume, export).is_some());
        inner.end_sessions();
        ready(Ok(()))
    }

    fn export_remove(&self, volume: Uuid) -> Reply<'_, ()> {
        let mut inner = self.inner.lock().unwrap();
        inner.exports.remove(&volume);
        inner.end_sessions();
        ready(Ok(()))
    }

    fn referrals(&self) -> Reply<'_, Vec<Referral>> {
        ready(Ok(self.inner.lock().unwrap().referrals.clone()))
    }

    fn set_referrals(&self, referrals: Vec<Referral>) -> Reply<'_, ()> {
        self.inner.lock().unwrap().referrals = referrals;
        ready(Ok(()))
    }

    fn set_discovery_nqn(&self, nqn: Nqn) -> Reply<'_, ()> {
        assert!(!nqn.is_discovery() && !self.inner.lock().unwrap().listening);
        ready(Ok(()))
    }

    fn hosts(&self) -> Reply<'_, Vec<HostSet>> {
        ready(Ok(self.inner.lock().unwrap().hosts.clone()))
    }

    fn hosts_replace(&self, hosts: Vec<HostSet>) -> Reply<'_, ()> {
        self.inner.lock().unwrap().hosts = hosts;
        ready(Ok(()))
    }

    fn sessions(&self) -> Reply<'_, Vec<Session>> {
        ready(Ok(self.inner.lock().unwrap().sessions.clone()))
    }

    fn refusals(&self) -> Reply<'_, Vec<PlaneRefusal>> {
        ready(Ok(std::mem::take(&mut self.inner.lock().unwrap().refused)))
    }

    fn stats(&self) -> Reply<'_, PlaneStats> {
        let latency = LatencyHistogram { sum_ns: 9000, buckets: vec![(10_000, 3)], overflow: 0 };
        let io = VolumeIo {
            read: IoCounters { operations: 3, bytes: 12288, errors: 0, latency: Some(latency) },
            ..VolumeIo::default()
        };
        let inner = self.inner.lock().unwrap();
        let volumes = inner.exports.values().map(|export| (export.volume, io.clone())).collect();
        let shards = vec![ShardStats { turns: 7, ..ShardStats::default() }];
        ready(Ok(PlaneStats { shards, volumes, ..PlaneStats::default() }))
    }

    fn drain(&self) -> Reply<'_, ()> {
        let mut inner = self.inner.lock().unwrap();
        inner.listening = false;
        inner.drained = true;
        inner.sessions.clear();
        ready(Ok(()))
    }
}
