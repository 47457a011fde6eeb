//! `volume create`, `resize`, `qos` and `delete`.

use api::{
    ApiError, ByteLen, Changed, EventKind, Qos, Volume, VolumeCreate, VolumeDelete, VolumeQos,
    VolumeResize,
};
use cluster::{Desired, Expected, Phase, VolumeRecord, volume_key};
use uuid::Uuid;

use super::Control;
use crate::plane::PlaneVolume;

impl Control {
    pub(super) async fn create_volume(
        &self,
        request: VolumeCreate,
        id: &str,
    ) -> Result<Changed<Volume>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        if let Some(kept) = desired.volumes.get(request.name()) {
            return self.existing_volume(&kept.record, &request).await;
        }
        let store = Self::choose_store(&desired, request.store())?;
        let record = VolumeRecord {
            name: request.name().clone(),
            uuid: Uuid::new_v4(),
            store: store.name.clone(),
            size: request.size(),
            block_size: request.block_size(),
            origin: None,
            qos: Qos::default(),
            phase: Phase::Creating,
        };
        let key = volume_key(&record.name);
        self.keep(&key, Expected::Absent, Some(record.encode())).await?;
        if let Err(error) = self.create_in_store(&desired, &record).await {
            // Refused for good: nothing is left of it. What was merely unavailable stays wanted,
            // and is finished at the next start or by asking again.
            if !matches!(error, ApiError::Unavailable { .. } | ApiError::Internal { .. }) {
                self.forget(&key).await?;
            }
            return Err(error);
        }
        let VolumeRecord { name, size, store, block_size, .. } = &record;
        let message = format!("{size} in blocks of {block_size} in store {store}");
        self.note(EventKind::VolumeCreated, name, message, id);
        let value = self.view().await?.volume(name)?;
        Ok(Changed { value, changed: true })
    }

    /// The name is taken: by the same volume, or by another one.
    async fn existing_volume(
        &self,
        record: &VolumeRecord,
        request: &VolumeCreate,
    ) -> Result<Changed<Volume>, ApiError> {
        let mut differences = Vec::new();
        if record.size != request.size() {
            differences.push(format!("it has {}", record.size));
        }
        if record.block_size != request.block_size() {
            differences.push(format!("its block size is {}", record.block_size));
        }
        if request.store().is_some_and(|store| *store != record.store) {
            differences.push(format!("it is in store {}", record.store));
        }
        if record.phase == Phase::Deleting {
            differences.push("it is being deleted".to_owned());
        }
        if !differences.is_empty() {
            return Err(ApiError::AlreadyExists {
                what: "volume".to_owned(),
                name: record.name.to_string(),
                difference: differences.join(", "),
            });
        }
        let unfinished = record.phase == Phase::Creating;
        if unfinished {
            self.reconcile().await?;
        }
        let value = self.view().await?.volume(&record.name)?;
        Ok(Changed { value, changed: unfinished })
    }

    pub(super) async fn resize_volume(
        &self,
        request: VolumeResize,
        id: &str,
    ) -> Result<Changed<Volume>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let kept = desired.volumes.get(request.name());
        let kept = kept.ok_or_else(|| ApiError::not_found("volume", request.name()))?;
        let mut record = kept.record.clone();
        let size = request.size().whole_blocks("size", record.block_size)?;
        if size < record.size && !request.shrink() {
            let reason = format!(
                "volume {:?} has {} and does not shrink to {size} unless that is asked for",
                record.name.as_str(),
                record.size
            );
            let hint = "with --shrink it does, if nothing is written beyond the new size";
            return Err(ApiError::precondition(reason, hint));
        }
        self.refuse_unless_online(&record).await?;
        let changed = size != record.size;
        if changed {
            let verb = if size > record.size { "grown" } else { "shrunk" };
            record.size = size;
            // The store first: a size that it refuses (no space) must not become a wish. What a
            // crash leaves between the two is grown (again) at the next start.
            self.resize_in_store(&desired, &record, request.shrink()).await?;
            let key = volume_key(&record.name);
            self.keep(&key, Expected::At(kept.revision), Some(record.encode())).await?;
            let message = format!("{verb} to {size}");
            self.note(EventKind::VolumeResized, &record.name, message, id);
        }
        let value = self.view().await?.volume(&record.name)?;
        Ok(Changed { value, changed })
    }

    pub(super) async fn delete_volume(
        &self,
        request: VolumeDelete,
        id: &str,
    ) -> Result<Option<Volume>, ApiError> {
        let _guard = self.mutate().await?;
        let view = self.view().await?;
        let Some(kept) = view.desired.volumes.get(&request.name) else { return Ok(None) };
        let name = &request.name;
        if view.desired.exports.contains_key(name) {
            let reason = format!("volume {:?} is exported", name.as_str());
            let hint = format!("remove the export first with: holdfast export remove {name}");
            return Err(ApiError::precondition(reason, hint));
        }
        let snapshots = view.plane_snapshots(&kept.record).count();
        if snapshots > 0 && !request.snapshots {
            let reason = format!("volume {:?} has {snapshots} snapshot(s)", name.as_str());
            let hint = "delete them first, or all of it with --snapshots";
            return Err(ApiError::precondition(reason, hint));
        }
        self.refuse_unless_store_is_open(&kept.record).await?;
        let deleted = view.describe_volume(&kept.record);
        let mut record = kept.record.clone();
        record.phase = Phase::Deleting;
        let key = volume_key(name);
        self.keep(&key, Expected::At(kept.revision), Some(record.encode())).await?;
        if view.plane_volume(&record).is_some() {
            self.destroy_in_store(&view.desired, &record).await?;
        }
        self.forget(&key).await?;
        self.troubles().others.remove(name.as_str());
        let message = format!("deleted from store {}", record.store);
        self.note(EventKind::VolumeDeleted, name, message, id);
        Ok(Some(deleted))
    }

    /// Creates the volume and notes that it is ready.
    pub(super) async fn create_in_store(
        &self,
        desired: &Desired,
        record: &VolumeRecord,
    ) -> Result<(), ApiError> {
        let store = store_uuid(desired, record)?;
        self.refuse_unless_store_is_open(record).await?;
        let volume = PlaneVolume {
            uuid: record.uuid,
            name: record.name.to_string(),
            size: record.size,
            block_size: record.block_size,
            used: ByteLen::default(),
            qos: Qos::default(),
            throttled: 0,
            throttled_ns: 0,
        };
        let created = match record.origin {
            None => self.plane.volume_create(store, volume).await?,
            Some(snapshot) => self.plane.volume_clone(store, snapshot, volume).await?,
        };
        if created.qos != record.qos {
            self.plane.volume_qos(store, record.uuid, record.qos).await?;
        }
        self.confirm(record).await
    }

    /// Notes that a volume is ready.
    pub(super) async fn confirm(&self, record: &VolumeRecord) -> Result<(), ApiError> {
        let ready = VolumeRecord { phase: Phase::Ready, ..record.clone() };
        self.put(&volume_key(&ready.name), ready.encode()).await
    }

    pub(super) async fn resize_in_store(
        &self,
        desired: &Desired,
        record: &VolumeRecord,
        shrink: bool,
    ) -> Result<(), ApiError> {
        let store = store_uuid(desired, record)?;
        self.plane.volume_resize(store, record.uuid, record.size, shrink).await
    }

    pub(super) async fn limit_volume(
        &self,
        request: VolumeQos,
        id: &str,
    ) -> Result<Changed<Volume>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let VolumeQos { name, qos } = request;
        let kept = desired.volumes.get(&name);
        let kept = kept.ok_or_else(|| ApiError::not_found("volume", &name))?;
        let mut record = kept.record.clone();
        self.refuse_unless_online(&record).await?;
        let changed = record.qos != qos;
        if changed {
            record.qos = qos;
            // The wish first: the store does not remember it.
            let key = volume_key(&name);
            self.keep(&key, Expected::At(kept.revision), Some(record.encode())).await?;
            self.limit_in_store(&desired, &record).await?;
            self.note(EventKind::VolumeQosChanged, &name, format!("limits: {qos}"), id);
        }
        Ok(Changed { value: self.view().await?.volume(&name)?, changed })
    }

    pub(super) async fn limit_in_store(
        &self,
        desired: &Desired,
        record: &VolumeRecord,
    ) -> Result<(), ApiError> {
        let store = store_uuid(desired, record)?;
        self.plane.volume_qos(store, record.uuid, record.qos).await
    }

    pub(super) async fn destroy_in_store(
        &self,
        desired: &Desired,
        record: &VolumeRecord,
    ) -> Result<(), ApiError> {
        let store = store_uuid(desired, record)?;
        // Whoever agreed to delete it agreed to delete its snapshots.
        for snapshot in self.view().await?.plane_snapshots(record) {
            self.plane.snapshot_destroy(store, snapshot.uuid).await?;
        }
        self.plane.volume_destroy(store, record.uuid).await
    }

    pub(super) async fn refuse_unless_store_is_open(
        &self,
        record: &VolumeRecord,
    ) -> Result<(), ApiError> {
        match self.troubles().stores.get(&record.store) {
            None => Ok(()),
            Some(reason) => {
                let store = record.store.as_str();
                let reason = format!("store {store:?} is offline: {reason}");
                let hint = "repair the device, then: holdfast store add (same name and device)";
                Err(ApiError::precondition(reason, hint))
            }
        }
    }

    /// Refuses what needs the volume itself.
    pub(super) async fn refuse_unless_online(&self, record: &VolumeRecord) -> Result<(), ApiError> {
        self.refuse_unless_store_is_open(record).await?;
        let volume = self.view().await?.describe_volume(record);
        if volume.state == api::VolumeState::Online {
            return Ok(());
        }
        let name = record.name.as_str();
        let reason = format!("volume {name:?} is {}: {}", volume.state, volume.reason);
        Err(ApiError::precondition(reason, "see: holdfast node events"))
    }
}

pub(super) fn store_uuid(desired: &Desired, record: &VolumeRecord) -> Result<Uuid, ApiError> {
    let kept = desired.stores.get(&record.store);
    Ok(kept.ok_or_else(|| ApiError::not_found("store", &record.store))?.record.uuid)
}
