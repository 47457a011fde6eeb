//! Snapshots, and what is done with them.

use api::{
    ApiError, ByteLen, Changed, ChangedRange, DiffStep, Snapshot, SnapshotCreate, SnapshotDelete,
    SnapshotList, SnapshotPath, Volume, VolumeClone, VolumeDiff, VolumeRestore,
};

use super::{bytes, field, present, uuid};
use crate::v1;

impl TryFrom<v1::SnapshotCreateRequest> for SnapshotCreate {
    type Error = ApiError;

    fn try_from(message: v1::SnapshotCreateRequest) -> Result<Self, ApiError> {
        let paths = message.snapshots.iter().map(|text| field("snapshots", text));
        Self::new(paths.collect::<Result<_, _>>()?)
    }
}

impl From<SnapshotCreate> for v1::SnapshotCreateRequest {
    fn from(request: SnapshotCreate) -> Self {
        Self { snapshots: request.snapshots().iter().map(ToString::to_string).collect() }
    }
}

impl From<Changed<Vec<Snapshot>>> for v1::SnapshotCreateResponse {
    fn from(outcome: Changed<Vec<Snapshot>>) -> Self {
        let snapshots = outcome.value.into_iter().map(Into::into).collect();
        Self { snapshots, changed: outcome.changed }
    }
}

impl TryFrom<v1::SnapshotCreateResponse> for Changed<Vec<Snapshot>> {
    type Error = ApiError;

    fn try_from(message: v1::SnapshotCreateResponse) -> Result<Self, ApiError> {
        let snapshots = message.snapshots.into_iter().map(Snapshot::try_from);
        Ok(Self { value: snapshots.collect::<Result<_, _>>()?, changed: message.changed })
    }
}

impl TryFrom<v1::SnapshotListRequest> for SnapshotList {
    type Error = ApiError;

    fn try_from(message: v1::SnapshotListRequest) -> Result<Self, ApiError> {
        let v1::SnapshotListRequest { volume, with_space } = message;
        let volume = match volume.as_str() {
            "" => None,
            name => Some(field("volume", name)?),
        };
        Ok(Self { volume, with_space })
    }
}

impl From<SnapshotList> for v1::SnapshotListRequest {
    fn from(request: SnapshotList) -> Self {
        let volume = request.volume.map(|name| name.to_string()).unwrap_or_default();
        Self { volume, with_space: request.with_space }
    }
}

impl TryFrom<v1::SnapshotShowRequest> for SnapshotPath {
    type Error = ApiError;

    fn try_from(message: v1::SnapshotShowRequest) -> Result<Self, ApiError> {
        field("snapshot", &message.snapshot)
    }
}

impl TryFrom<v1::SnapshotDeleteRequest> for SnapshotDelete {
    type Error = ApiError;

    fn try_from(message: v1::SnapshotDeleteRequest) -> Result<Self, ApiError> {
        Ok(Self { snapshot: field("snapshot", &message.snapshot)? })
    }
}

impl From<SnapshotDelete> for v1::SnapshotDeleteRequest {
    fn from(request: SnapshotDelete) -> Self {
        Self { snapshot: request.snapshot.to_string() }
    }
}

impl TryFrom<v1::Snapshot> for Snapshot {
    type Error = ApiError;

    fn try_from(message: v1::Snapshot) -> Result<Self, ApiError> {
        Ok(Self {
            path: field("name", &message.name)?,
            uuid: uuid(&message.uuid)?,
            store: field("store", &message.store)?,
            number: message.number,
            size: bytes(message.size_bytes),
            referenced: bytes(message.referenced_bytes),
            unique: message.unique_bytes.map(bytes),
            materialised: message.materialised,
        })
    }
}

impl From<Snapshot> for v1::Snapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            name: snapshot.path.to_string(),
            uuid: snapshot.uuid.to_string(),
            store: snapshot.store.to_string(),
            number: snapshot.number,
            size_bytes: snapshot.size.bytes(),
            referenced_bytes: snapshot.referenced.bytes(),
            unique_bytes: snapshot.unique.map(ByteLen::bytes),
            materialised: snapshot.materialised,
        }
    }
}

impl TryFrom<v1::VolumeCloneRequest> for VolumeClone {
    type Error = ApiError;

    fn try_from(message: v1::VolumeCloneRequest) -> Result<Self, ApiError> {
        let snapshot = field("snapshot", &message.snapshot)?;
        Ok(Self { snapshot, name: field("name", &message.name)? })
    }
}

impl From<VolumeClone> for v1::VolumeCloneRequest {
    fn from(request: VolumeClone) -> Self {
        Self { snapshot: request.snapshot.to_string(), name: request.name.to_string() }
    }
}

impl TryFrom<v1::VolumeRestoreRequest> for VolumeRestore {
    type Error = ApiError;

    fn try_from(message: v1::VolumeRestoreRequest) -> Result<Self, ApiError> {
        let snapshot = field("snapshot", &message.snapshot)?;
        Ok(Self { volume: field("volume", &message.volume)?, snapshot })
    }
}

impl From<VolumeRestore> for v1::VolumeRestoreRequest {
    fn from(request: VolumeRestore) -> Self {
        Self { volume: request.volume.to_string(), snapshot: request.snapshot.to_string() }
    }
}

impl TryFrom<v1::VolumeRestoreResponse> for Volume {
    type Error = ApiError;

    fn try_from(message: v1::VolumeRestoreResponse) -> Result<Self, ApiError> {
        present("volume", message.volume)?.try_into()
    }
}

impl TryFrom<v1::VolumeDiffRequest> for VolumeDiff {
    type Error = ApiError;

    fn try_from(message: v1::VolumeDiffRequest) -> Result<Self, ApiError> {
        let base = match message.base.as_str() {
            "" => None,
            path => Some(field("base", path)?),
        };
        Self::new(base, field("of", &message.of)?)
    }
}

impl From<VolumeDiff> for v1::VolumeDiffRequest {
    fn from(request: VolumeDiff) -> Self {
        let base = request.base().map(ToString::to_string).unwrap_or_default();
        Self { base, of: request.of().to_string() }
    }
}

impl From<DiffStep> for v1::VolumeDiffResponse {
    fn from(step: DiffStep) -> Self {
        let range = |range: ChangedRange| {
            let ChangedRange { offset, length } = range;
            v1::ChangedRange { offset, length }
        };
        let DiffStep { ranges, position, size } = step;
        let ranges = ranges.into_iter().map(range).collect();
        Self { ranges, position, size_bytes: size }
    }
}

impl From<v1::VolumeDiffResponse> for DiffStep {
    fn from(message: v1::VolumeDiffResponse) -> Self {
        let range = |range: v1::ChangedRange| {
            let v1::ChangedRange { offset, length } = range;
            ChangedRange { offset, length }
        };
        let v1::VolumeDiffResponse { ranges, position, size_bytes: size } = message;
        Self { ranges: ranges.into_iter().map(range).collect(), position, size }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn snapshots_survive_the_wire(
            id in any::<u128>(), size in any::<u64>(), unique in any::<Option<u64>>(),
            materialised in any::<bool>(), name in "[a-z0-9]{1,20}",
        ) {
            let snapshot = Snapshot {
                path: format!("db@{name}").parse().unwrap(),
                uuid: ::uuid::Uuid::from_u128(id),
                store: "s".parse().unwrap(),
                number: 7,
                size: bytes(size),
                referenced: bytes(size / 2),
                unique: unique.map(bytes),
                materialised,
            };
            let message = v1::Snapshot::from(snapshot.clone());
            prop_assert_eq!(Snapshot::try_from(message).unwrap(), snapshot);
        }

        #[test]
        fn any_message_is_a_request_or_an_error(text in "[a-z@]{0,9}", other in "[a-z@]{0,9}") {
            let message = v1::VolumeDiffRequest { base: text.clone(), of: other.clone() };
            if let Ok(request) = VolumeDiff::try_from(message.clone()) {
                prop_assert_eq!(v1::VolumeDiffRequest::from(request), message);
            }
            let snapshots = vec![text.clone(), other.clone()];
            let message = v1::SnapshotCreateRequest { snapshots };
            if let Ok(request) = SnapshotCreate::try_from(message.clone()) {
                prop_assert_eq!(v1::SnapshotCreateRequest::from(request), message);
            }
            let message = v1::VolumeCloneRequest { snapshot: text, name: other };
            if let Ok(request) = VolumeClone::try_from(message.clone()) {
                prop_assert_eq!(v1::VolumeCloneRequest::from(request), message);
            }
        }
    }

    #[test]
    fn an_error_names_the_field_of_the_schema() {
        let message = v1::VolumeRestoreRequest { volume: "a".into(), snapshot: "a".into() };
        let error = VolumeRestore::try_from(message).unwrap_err();
        assert!(error.to_string().starts_with("snapshot: \"a\""), "{error}");
    }
}
