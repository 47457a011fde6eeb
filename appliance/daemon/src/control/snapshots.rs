//! Snapshots and what is made of them.
//!
//! A snapshot is no desired state: it is a fact about the past, and a node that lost it could not
//! make it again. The store alone remembers snapshots, and nothing is written here before or after.

use api::{
    ApiError, Changed, DiffStep, DiffTarget, EventKind, Qos, SNAPSHOT_RESERVED, Snapshot,
    SnapshotCreate, SnapshotList, SnapshotPath, Volume, VolumeClone, VolumeDiff, VolumeName,
    VolumeRestore,
};
use cluster::{Expected, Phase, VolumeRecord, volume_key};
use uuid::Uuid;

use super::Control;
use super::view::View;
use super::volumes::store_uuid;
use crate::plane::{PlaneNewSnapshot, PlaneSnapshot};

impl Control {
    pub(super) async fn create_snapshots(
        &self,
        request: SnapshotCreate,
        id: &str,
    ) -> Result<Changed<Vec<Snapshot>>, ApiError> {
        let _guard = self.mutate().await?;
        let view = self.view().await?;
        let paths = request.snapshots();
        let there: Vec<bool> = paths.iter().map(|path| view.snapshot(path).is_ok()).collect();
        let changed = there.contains(&false);
        if let Some(first) = there.iter().position(|&there| there).filter(|_| changed) {
            // A group is of one moment: it cannot be completed later.
            return Err(ApiError::AlreadyExists {
                what: "snapshot".to_owned(),
                name: paths[first].to_string(),
                difference: "others of the group do not, and a group is of one moment".to_owned(),
            });
        }
        if changed {
            let (store, group) = self.group(&view, paths).await?;
            self.plane.snapshots_create(store, group).await?;
        }
        let view = self.view().await?;
        let value: Vec<Snapshot> =
            paths.iter().map(|path| view.snapshot(path)).collect::<Result<_, _>>()?;
        for snapshot in value.iter().filter(|_| changed) {
            let message = format!("snapshot {} of {}", snapshot.uuid, snapshot.size);
            self.note(EventKind::SnapshotCreated, &snapshot.path, message, id);
        }
        Ok(Changed { value, changed })
    }

    /// A snapshot for a comparison, which nobody hears of.
    pub(super) async fn freeze(
        &self,
        volume: VolumeName,
        id: &str,
    ) -> Result<SnapshotPath, ApiError> {
        let _guard = self.mutate().await?;
        let view = self.view().await?;
        let name = format!("{SNAPSHOT_RESERVED}{}", Uuid::new_v4().simple()).parse()?;
        let path = SnapshotPath { volume, name };
        let (store, group) = self.group(&view, std::slice::from_ref(&path)).await?;
        self.plane.snapshots_create(store, group).await?;
        tracing::debug!(snapshot = %path, request_id = id, "taken for a comparison");
        Ok(path)
    }

    /// Deletes what comparisons left over that a former run did not end.
    pub(crate) async fn clear_frozen(&self) -> Result<(), ApiError> {
        let view = self.view().await?;
        for kept in view.desired.volumes.values() {
            let snapshots = view.plane_snapshots(&kept.record);
            for snapshot in snapshots.filter(|one| one.name.starts_with(SNAPSHOT_RESERVED)) {
                let store = store_uuid(&view.desired, &kept.record)?;
                self.plane.snapshot_destroy(store, snapshot.uuid).await?;
                tracing::info!(volume = %kept.record.name, snapshot = snapshot.name, "left over");
            }
        }
        Ok(())
    }

    /// What the store is asked for; a group is of one store.
    async fn group(
        &self,
        view: &View,
        paths: &[SnapshotPath],
    ) -> Result<(Uuid, Vec<PlaneNewSnapshot>), ApiError> {
        let mut group = Vec::new();
        let mut store = None;
        for path in paths {
            let record = view.record(&path.volume)?;
            self.refuse_unless_online(record).await?;
            if *store.get_or_insert(&record.store) != &record.store {
                let reason = format!("volume {:?} is in another store", record.name.as_str());
                let hint = "volumes of one store can have snapshots of the same moment";
                return Err(ApiError::invalid("snapshots", reason, hint));
            }
            let (volume, uuid, name) = (record.uuid, Uuid::new_v4(), path.name.to_string());
            group.push(PlaneNewSnapshot { volume, uuid, name });
        }
        let record = view.record(&paths[0].volume)?;
        Ok((store_uuid(&view.desired, record)?, group))
    }

    pub(super) async fn list_snapshots(
        &self,
        request: SnapshotList,
    ) -> Result<Vec<Snapshot>, ApiError> {
        let view = self.view().await?;
        if let Some(name) = &request.volume {
            view.record(name)?;
        }
        let mut snapshots = Vec::new();
        for kept in view.desired.volumes.values() {
            let record = &kept.record;
            if request.volume.as_ref().is_some_and(|name| *name != record.name) {
                continue;
            }
            for snapshot in view.plane_snapshots(record) {
                let Some(mut shown) = describe(record, snapshot) else { continue };
                if request.with_space {
                    let store = store_uuid(&view.desired, record)?;
                    shown.unique = Some(self.plane.snapshot_space(store, snapshot.uuid).await?);
                }
                snapshots.push(shown);
            }
        }
        Ok(snapshots)
    }

    pub(super) async fn show_snapshot(&self, path: &SnapshotPath) -> Result<Snapshot, ApiError> {
        let view = self.view().await?;
        let (store, uuid) = view.locate(path)?;
        let unique = self.plane.snapshot_space(store, uuid).await?;
        Ok(Snapshot { unique: Some(unique), ..view.snapshot(path)? })
    }

    pub(super) async fn delete_snapshot(
        &self,
        path: &SnapshotPath,
        id: &str,
    ) -> Result<Option<Snapshot>, ApiError> {
        let _guard = self.mutate().await?;
        let view = self.view().await?;
        let Some(kept) = view.desired.volumes.get(&path.volume) else { return Ok(None) };
        // A store that is not open may well hold it.
        self.refuse_unless_store_is_open(&kept.record).await?;
        let Ok(snapshot) = view.snapshot(path) else { return Ok(None) };
        let store = store_uuid(&view.desired, &kept.record)?;
        self.plane.snapshot_destroy(store, snapshot.uuid).await?;
        if !path.is_reserved() {
            let message = format!("snapshot {} is deleted", snapshot.uuid);
            self.note(EventKind::SnapshotDeleted, path, message, id);
        }
        Ok(Some(snapshot))
    }

    pub(super) async fn clone_volume(
        &self,
        request: VolumeClone,
        id: &str,
    ) -> Result<Changed<Volume>, ApiError> {
        let _guard = self.mutate().await?;
        let VolumeClone { snapshot: path, name } = request;
        let view = self.view().await?;
        let snapshot = view.snapshot(&path)?;
        let of = view.record(&path.volume)?;
        if let Some(kept) = view.desired.volumes.get(&name) {
            return self.existing_clone(&kept.record, &snapshot).await;
        }
        self.refuse_unless_store_is_open(of).await?;
        let record = VolumeRecord {
            name: name.clone(),
            uuid: Uuid::new_v4(),
            store: of.store.clone(),
            size: snapshot.size,
            block_size: of.block_size,
            origin: Some(snapshot.uuid),
            qos: Qos::default(),
            phase: Phase::Creating,
        };
        let key = volume_key(&name);
        self.keep(&key, Expected::Absent, Some(record.encode())).await?;
        if let Err(error) = self.create_in_store(&view.desired, &record).await {
            // As for a creation: what was merely unavailable stays wanted.
            if !matches!(error, ApiError::Unavailable { .. } | ApiError::Internal { .. }) {
                self.forget(&key).await?;
            }
            return Err(error);
        }
        let message = format!("{} cloned from {path}", record.size);
        self.note(EventKind::VolumeCreated, &name, message, id);
        Ok(Changed { value: self.view().await?.volume(&name)?, changed: true })
    }

    /// The name is taken: by this very clone, or by another volume.
    async fn existing_clone(
        &self,
        record: &VolumeRecord,
        snapshot: &Snapshot,
    ) -> Result<Changed<Volume>, ApiError> {
        if record.origin != Some(snapshot.uuid) || record.phase == Phase::Deleting {
            return Err(ApiError::AlreadyExists {
                what: "volume".to_owned(),
                name: record.name.to_string(),
                difference: format!("it is not a clone of {}", snapshot.path),
            });
        }
        let unfinished = record.phase == Phase::Creating;
        if unfinished {
            self.reconcile().await?;
        }
        Ok(Changed { value: self.view().await?.volume(&record.name)?, changed: unfinished })
    }

    pub(super) async fn restore_volume(
        &self,
        request: VolumeRestore,
        id: &str,
    ) -> Result<Volume, ApiError> {
        let _guard = self.mutate().await?;
        let VolumeRestore { volume, snapshot } = request;
        let view = self.view().await?;
        let record = view.record(&volume)?;
        let (store, uuid) = view.locate(&snapshot)?;
        self.refuse_unless_online(record).await?;
        if store_uuid(&view.desired, record)? != store {
            let reason = format!("{volume} and {snapshot} are in different stores");
            return Err(ApiError::precondition(reason, "restore a volume to its own snapshots"));
        }
        let restored = self.plane.volume_restore(store, record.uuid, uuid).await?;
        if restored.size != record.size {
            let record = VolumeRecord { size: restored.size, ..record.clone() };
            self.put(&volume_key(&volume), record.encode()).await?;
        }
        let message = format!("taken back to {snapshot}");
        self.note(EventKind::VolumeRestored, &volume, message, id);
        self.view().await?.volume(&volume)
    }

    pub(super) async fn diff(&self, request: &VolumeDiff, from: u64) -> Result<DiffStep, ApiError> {
        let view = self.view().await?;
        let DiffTarget::Snapshot(target) = request.of() else {
            return Err(ApiError::invalid("of", "it is not a snapshot", "freeze the volume first"));
        };
        let (store, of) = view.locate(target)?;
        let base = match request.base() {
            None => None,
            Some(path) => {
                let (other, uuid) = view.locate(path)?;
                if other != store {
                    let reason = format!("{path} and {} are in different stores", target);
                    return Err(ApiError::invalid("base", reason, "compare within one store"));
                }
                Some(uuid)
            }
        };
        self.plane.diff(store, base, of, from).await
    }
}

impl View {
    /// The record of a volume.
    pub(super) fn record(&self, name: &VolumeName) -> Result<&VolumeRecord, ApiError> {
        let kept = self.desired.volumes.get(name);
        Ok(&kept.ok_or_else(|| ApiError::not_found("volume", name))?.record)
    }

    /// A snapshot by its name.
    pub(super) fn snapshot(&self, path: &SnapshotPath) -> Result<Snapshot, ApiError> {
        let record = self.record(&path.volume)?;
        let mut all = self.plane_snapshots(record);
        let found = all.find(|snapshot| snapshot.name == path.name.as_str());
        let missing = || ApiError::NotFound {
            what: "snapshot".to_owned(),
            name: path.to_string(),
            hint: format!("list what there is with: holdfast volume snapshot list {}", path.volume),
        };
        found.and_then(|snapshot| describe(record, snapshot)).ok_or_else(missing)
    }

    /// The store and the identity of a snapshot.
    fn locate(&self, path: &SnapshotPath) -> Result<(Uuid, Uuid), ApiError> {
        let store = store_uuid(&self.desired, self.record(&path.volume)?)?;
        Ok((store, self.snapshot(path)?.uuid))
    }
}

/// A snapshot as operators see it; one with a name that is none was not made by a node.
fn describe(record: &VolumeRecord, snapshot: &PlaneSnapshot) -> Option<Snapshot> {
    let path = SnapshotPath { volume: record.name.clone(), name: snapshot.name.parse().ok()? };
    Some(Snapshot {
        path,
        uuid: snapshot.uuid,
        store: record.store.clone(),
        number: snapshot.number,
        size: snapshot.size,
        referenced: snapshot.referenced,
        unique: None,
        materialised: snapshot.materialised,
    })
}
