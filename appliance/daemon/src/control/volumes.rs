//! `volume create`, `resize` and `delete`.

use api::{
    ApiError, ByteLen, Changed, EventKind, Volume, VolumeCreate, VolumeDelete, VolumeResize,
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
        if size < record.size {
            let reason = format!(
                "volume {:?} has {} and cannot shrink to {size}: data would be lost",
                record.name.as_str(),
                record.size
            );
            let hint = "create a smaller volume and copy the data";
            return Err(ApiError::precondition(reason, hint));
        }
        self.refuse_unless_online(&record).await?;
        let changed = size > record.size;
        if changed {
            record.size = size;
            // The store first: a size that it refuses (no space) must not become a wish.
            self.grow_in_store(&desired, &record).await?;
            let key = volume_key(&record.name);
            self.keep(&key, Expected::At(kept.revision), Some(record.encode())).await?;
            let message = format!("grown to {size}");
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
        };
        self.plane.volume_create(store, volume).await?;
        self.confirm(record).await
    }

    /// Notes that a volume is ready.
    pub(super) async fn confirm(&self, record: &VolumeRecord) -> Result<(), ApiError> {
        let ready = VolumeRecord { phase: Phase::Ready, ..record.clone() };
        self.put(&volume_key(&ready.name), ready.encode()).await
    }

    pub(super) async fn grow_in_store(
        &self,
        desired: &Desired,
        record: &VolumeRecord,
    ) -> Result<(), ApiError> {
        let store = store_uuid(desired, record)?;
        self.plane.volume_resize(store, record.uuid, record.size).await
    }

    pub(super) async fn destroy_in_store(
        &self,
        desired: &Desired,
        record: &VolumeRecord,
    ) -> Result<(), ApiError> {
        let store = store_uuid(desired, record)?;
        self.plane.volume_destroy(store, record.uuid).await
    }

    async fn refuse_unless_store_is_open(&self, record: &VolumeRecord) -> Result<(), ApiError> {
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

fn store_uuid(desired: &Desired, record: &VolumeRecord) -> Result<Uuid, ApiError> {
    let kept = desired.stores.get(&record.store);
    Ok(kept.ok_or_else(|| ApiError::not_found("store", &record.store))?.record.uuid)
}
