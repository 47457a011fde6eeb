//! Desired and observed state side by side, as operators see them.

use std::collections::BTreeMap;

use api::{
    ApiError, ByteLen, Export, HostAccess, Session, SnapshotPath, SnapshotStats, StatsSnapshot,
    Store, StoreName, StoreState, StoreStats, Volume, VolumeName, VolumeState, VolumeStats,
};
use cluster::{Desired, ExportRecord, Phase, StoreRecord, VolumeRecord};
use uuid::Uuid;

use super::{Control, Troubles};
use crate::plane::{PlaneExport, PlaneInfo, PlaneSnapshot, PlaneStore, PlaneVolume};

/// Everything, at about the same moment.
pub(super) struct View {
    pub(super) desired: Desired,
    pub(super) stores: BTreeMap<Uuid, PlaneStore>,
    /// By volume.
    pub(super) exports: BTreeMap<Uuid, PlaneExport>,
    sessions: Vec<Session>,
    troubles: Troubles,
    info: PlaneInfo,
}

impl Control {
    pub(super) async fn view(&self) -> Result<View, ApiError> {
        let desired = self.desired().await?;
        let stores = self.plane.stores().await?;
        let exports = self.plane.exports().await?;
        Ok(View {
            desired,
            stores: stores.into_iter().map(|store| (store.uuid, store)).collect(),
            exports: exports.into_iter().map(|export| (export.volume, export)).collect(),
            sessions: self.plane.sessions().await?,
            troubles: self.troubles().clone(),
            info: self.plane.info(),
        })
    }

    /// The volume behind a subsystem, or nothing.
    pub(crate) async fn exported_as(&self, subsystem: &str) -> Result<String, ApiError> {
        let exports = self.desired().await?.exports;
        let found = exports.into_values().find(|kept| kept.record.nqn.as_str() == subsystem);
        Ok(found.map(|kept| kept.record.volume.to_string()).unwrap_or_default())
    }

    pub(crate) async fn sessions(&self) -> Result<Vec<Session>, ApiError> {
        let desired = self.desired().await?;
        let mut sessions = self.plane.sessions().await?;
        for session in &mut sessions {
            let mut exports = desired.exports.values().map(|kept| &kept.record);
            // Of several that share a subsystem the first one that the host sees.
            let export = exports
                .find(|record| record.nqn == session.subsystem && sees(&record.access, session));
            session.volume = export.map(|record| record.volume.clone());
        }
        Ok(sessions)
    }

    pub(super) async fn statistics(&self) -> Result<StatsSnapshot, ApiError> {
        let view = self.view().await?;
        let mut plane = self.plane.stats().await?;
        let mut stores = Vec::new();
        for kept in view.desired.stores.values() {
            let Some(store) = view.stores.get(&kept.record.uuid) else { continue };
            stores.push(StoreStats {
                name: kept.record.name.clone(),
                scrub_policy: kept.record.scrub,
                numbers: store.numbers.clone(),
            });
        }
        let (mut volumes, mut snapshots) = (Vec::new(), Vec::new());
        for kept in view.desired.volumes.values() {
            let record = &kept.record;
            let Some(volume) = view.plane_volume(record) else { continue };
            let taken = snapshots.len();
            snapshots.extend(view.plane_snapshots(record).filter_map(|snapshot| {
                let name = snapshot.name.parse().ok()?;
                let path = SnapshotPath { volume: record.name.clone(), name };
                Some(SnapshotStats { path, referenced: snapshot.referenced })
            }));
            volumes.push(VolumeStats {
                name: record.name.clone(),
                size: record.size,
                used: volume.used,
                snapshots: u64::try_from(snapshots.len() - taken).unwrap_or(u64::MAX),
                throttled: volume.throttled,
                throttled_ns: volume.throttled_ns,
                io: plane.volumes.remove(&record.uuid),
            });
        }
        let (shards, transport) = (plane.shards, plane.transport);
        Ok(StatsSnapshot { shards, stores, volumes, snapshots, transport })
    }
}

/// Whether the host of a session sees an export of its subsystem.
fn sees(access: &HostAccess, session: &Session) -> bool {
    match access {
        HostAccess::Any => true,
        HostAccess::Listed(hosts) => hosts.iter().any(|host| host.as_str() == session.host),
    }
}

impl View {
    pub(super) fn stores(&self) -> Vec<Store> {
        self.desired.stores.values().map(|kept| self.describe_store(&kept.record)).collect()
    }

    pub(super) fn describe_store(&self, record: &StoreRecord) -> Store {
        let StoreRecord { name, uuid, device, .. } = record.clone();
        let trouble = self.troubles.stores.get(&name).cloned();
        match (self.stores.get(&uuid), trouble) {
            (Some(store), None) => Store {
                name,
                uuid,
                device,
                state: match store.failure.is_empty() {
                    true => StoreState::Online,
                    false => StoreState::Failed,
                },
                reason: store.failure.clone(),
                capacity: store.numbers.capacity,
                used: store.numbers.used,
                log_size: store.numbers.log_size,
                volumes: u32::try_from(store.volumes.len()).unwrap_or(u32::MAX),
                backend: store.backend.clone(),
            },
            (_, trouble) => Store {
                name,
                uuid,
                device,
                state: StoreState::Offline,
                reason: trouble.unwrap_or_else(|| "it is not open".to_owned()),
                capacity: ByteLen::default(),
                used: ByteLen::default(),
                log_size: ByteLen::default(),
                volumes: 0,
                backend: String::new(),
            },
        }
    }

    pub(super) fn volumes(&self) -> Vec<Volume> {
        self.desired.volumes.values().map(|kept| self.describe_volume(&kept.record)).collect()
    }

    pub(super) fn volume(&self, name: &VolumeName) -> Result<Volume, ApiError> {
        let kept = self.desired.volumes.get(name);
        let kept = kept.ok_or_else(|| ApiError::not_found("volume", name))?;
        Ok(self.describe_volume(&kept.record))
    }

    pub(super) fn describe_volume(&self, record: &VolumeRecord) -> Volume {
        let found = self.plane_volume(record);
        let (state, reason) = match (record.phase, found) {
            (Phase::Deleting, _) => (VolumeState::Deleting, String::new()),
            (Phase::Ready, Some(_)) => (VolumeState::Online, String::new()),
            (Phase::Creating, Some(_)) => (VolumeState::Creating, String::new()),
            (phase, None) => {
                let state = if phase == Phase::Ready {
                    VolumeState::Offline
                } else {
                    VolumeState::Creating
                };
                (state, self.why_missing(&record.store))
            }
        };
        Volume {
            name: record.name.clone(),
            uuid: record.uuid,
            store: record.store.clone(),
            size: record.size,
            block_size: record.block_size,
            used: found.map(|volume| volume.used).unwrap_or_default(),
            state,
            reason,
            exported: self.desired.exports.contains_key(&record.name),
            snapshots: u32::try_from(self.plane_snapshots(record).count()).unwrap_or(u32::MAX),
            qos: record.qos,
        }
    }

    /// The volume in its store, if both are there.
    pub(super) fn plane_volume(&self, record: &VolumeRecord) -> Option<&PlaneVolume> {
        let store = self.desired.stores.get(&record.store)?;
        let store = self.stores.get(&store.record.uuid)?;
        store.volumes.iter().find(|volume| volume.uuid == record.uuid)
    }

    /// The snapshots of a volume in its store, the oldest first.
    pub(super) fn plane_snapshots(
        &self,
        record: &VolumeRecord,
    ) -> impl Iterator<Item = &PlaneSnapshot> {
        let store = self.desired.stores.get(&record.store);
        let store = store.and_then(|kept| self.stores.get(&kept.record.uuid));
        let snapshots = store.map(|store| store.snapshots.iter()).into_iter().flatten();
        let uuid = record.uuid;
        snapshots.filter(move |snapshot| snapshot.volume == uuid)
    }

    fn why_missing(&self, store: &StoreName) -> String {
        if self.troubles.stores.contains_key(store) {
            return format!("store {:?} is not open", store.as_str());
        }
        format!("store {:?} does not hold it", store.as_str())
    }

    pub(super) fn exports(&self) -> Vec<Export> {
        self.desired
            .exports
            .values()
            .filter_map(|kept| self.describe_export(&kept.record).ok())
            .collect()
    }

    pub(super) fn describe_export(&self, record: &ExportRecord) -> Result<Export, ApiError> {
        let volume = self.volume(&record.volume)?;
        let online = self.exports.contains_key(&volume.uuid);
        let sessions = self
            .sessions
            .iter()
            .filter(|session| session.subsystem == record.nqn && sees(&record.access, session));
        let reason = if online {
            String::new()
        } else if volume.state == VolumeState::Online {
            "it is not exported yet".to_owned()
        } else {
            format!("volume {:?} is {}", volume.name.as_str(), volume.state)
        };
        Ok(Export {
            volume: record.volume.clone(),
            nqn: record.nqn.clone(),
            nsid: record.nsid,
            uuid: volume.uuid,
            access: record.access.clone(),
            paths: record.paths.clone(),
            require_authentication: record.require_authentication,
            listeners: self.info.nvme_tcp.iter().map(ToString::to_string).collect(),
            online,
            reason,
            sessions: u32::try_from(sessions.count()).unwrap_or(u32::MAX),
        })
    }
}
