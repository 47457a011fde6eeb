//! Volumes.

use api::{
    ApiError, BlockSize, Changed, Qos, Rate, Volume, VolumeCreate, VolumeDelete, VolumeQos,
    VolumeResize, VolumeState,
};

use super::{bytes, field, present, unknown_enum, uuid};
use crate::v1;

impl TryFrom<v1::VolumeCreateRequest> for VolumeCreate {
    type Error = ApiError;

    fn try_from(message: v1::VolumeCreateRequest) -> Result<Self, ApiError> {
        let store = match message.store.as_str() {
            "" => None,
            name => Some(field("store", name)?),
        };
        let block_size = match message.block_size {
            0 => BlockSize::default(),
            other => BlockSize::try_from(other)?,
        };
        let size = bytes(message.size_bytes);
        Self::new(field("name", &message.name)?, store, size, block_size)
    }
}

impl From<VolumeCreate> for v1::VolumeCreateRequest {
    fn from(request: VolumeCreate) -> Self {
        Self {
            name: request.name().to_string(),
            store: request.store().map(ToString::to_string).unwrap_or_default(),
            size_bytes: request.size().bytes(),
            block_size: request.block_size().bytes(),
        }
    }
}

impl TryFrom<v1::VolumeResizeRequest> for VolumeResize {
    type Error = ApiError;

    fn try_from(message: v1::VolumeResizeRequest) -> Result<Self, ApiError> {
        let v1::VolumeResizeRequest { name, size_bytes, shrink } = message;
        Self::new(field("name", &name)?, bytes(size_bytes), shrink)
    }
}

impl From<VolumeResize> for v1::VolumeResizeRequest {
    fn from(request: VolumeResize) -> Self {
        Self {
            name: request.name().to_string(),
            size_bytes: request.size().bytes(),
            shrink: request.shrink(),
        }
    }
}

impl TryFrom<v1::VolumeDeleteRequest> for VolumeDelete {
    type Error = ApiError;

    fn try_from(message: v1::VolumeDeleteRequest) -> Result<Self, ApiError> {
        Ok(Self { name: field("name", &message.name)?, snapshots: message.snapshots })
    }
}

impl From<VolumeDelete> for v1::VolumeDeleteRequest {
    fn from(request: VolumeDelete) -> Self {
        Self { name: request.name.to_string(), snapshots: request.snapshots }
    }
}

impl TryFrom<v1::VolumeShowRequest> for api::VolumeName {
    type Error = ApiError;

    fn try_from(message: v1::VolumeShowRequest) -> Result<Self, ApiError> {
        field("name", &message.name)
    }
}

impl TryFrom<v1::Volume> for Volume {
    type Error = ApiError;

    fn try_from(message: v1::Volume) -> Result<Self, ApiError> {
        let state = match v1::VolumeState::try_from(message.state) {
            Ok(v1::VolumeState::Online) => VolumeState::Online,
            Ok(v1::VolumeState::Offline) => VolumeState::Offline,
            Ok(v1::VolumeState::Creating) => VolumeState::Creating,
            Ok(v1::VolumeState::Deleting) => VolumeState::Deleting,
            _ => return Err(unknown_enum("state", message.state)),
        };
        Ok(Self {
            name: field("name", &message.name)?,
            uuid: uuid(&message.uuid)?,
            store: field("store", &message.store)?,
            size: bytes(message.size_bytes),
            block_size: BlockSize::try_from(message.block_size)?,
            used: bytes(message.used_bytes),
            state,
            reason: message.reason,
            exported: message.exported,
            snapshots: message.snapshots,
            qos: message.qos.map(Qos::try_from).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<Volume> for v1::Volume {
    fn from(volume: Volume) -> Self {
        let state = match volume.state {
            VolumeState::Online => v1::VolumeState::Online,
            VolumeState::Offline => v1::VolumeState::Offline,
            VolumeState::Creating => v1::VolumeState::Creating,
            VolumeState::Deleting => v1::VolumeState::Deleting,
        };
        Self {
            name: volume.name.to_string(),
            uuid: volume.uuid.to_string(),
            store: volume.store.to_string(),
            size_bytes: volume.size.bytes(),
            block_size: volume.block_size.bytes(),
            used_bytes: volume.used.bytes(),
            state: state.into(),
            reason: volume.reason,
            exported: volume.exported,
            snapshots: volume.snapshots,
            qos: Some(volume.qos.into()),
        }
    }
}

macro_rules! volume_changed {
    ($message:ident) => {
        impl From<Changed<Volume>> for v1::$message {
            fn from(outcome: Changed<Volume>) -> Self {
                Self { volume: Some(outcome.value.into()), changed: outcome.changed }
            }
        }

        impl TryFrom<v1::$message> for Changed<Volume> {
            type Error = ApiError;

            fn try_from(message: v1::$message) -> Result<Self, ApiError> {
                let value = present("volume", message.volume)?.try_into()?;
                Ok(Self { value, changed: message.changed })
            }
        }
    };
}

volume_changed!(VolumeCreateResponse);
volume_changed!(VolumeResizeResponse);
volume_changed!(VolumeSetQosResponse);
volume_changed!(VolumeCloneResponse);

impl TryFrom<v1::Qos> for Qos {
    type Error = ApiError;

    fn try_from(message: v1::Qos) -> Result<Self, ApiError> {
        let rate = |rate: v1::Rate| {
            let v1::Rate { per_second, burst } = rate;
            Rate { per_second, burst: if burst == 0 { per_second } else { burst } }
        };
        Self::new(message.iops.map(rate), message.bandwidth.map(rate))
    }
}

impl From<Qos> for v1::Qos {
    fn from(qos: Qos) -> Self {
        let rate = |rate: Rate| v1::Rate { per_second: rate.per_second, burst: rate.burst };
        Self { iops: qos.iops().map(rate), bandwidth: qos.bandwidth().map(rate) }
    }
}

impl TryFrom<v1::VolumeSetQosRequest> for VolumeQos {
    type Error = ApiError;

    fn try_from(message: v1::VolumeSetQosRequest) -> Result<Self, ApiError> {
        let qos = present("qos", message.qos)?.try_into()?;
        Ok(Self { name: field("name", &message.name)?, qos })
    }
}

impl From<VolumeQos> for v1::VolumeSetQosRequest {
    fn from(request: VolumeQos) -> Self {
        Self { name: request.name.to_string(), qos: Some(request.qos.into()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_valid_request_survives_the_wire(
            name in "[a-z0-9]{1,64}", store in "[a-z0-9]{0,64}", blocks in 1u64..1 << 30,
            small in any::<bool>(),
        ) {
            let block_size = if small { BlockSize::B512 } else { BlockSize::B4096 };
            let size = bytes(blocks * u64::from(block_size.bytes()));
            let store = (!store.is_empty()).then(|| store.parse().unwrap());
            let request =
                VolumeCreate::new(name.parse().unwrap(), store, size, block_size).unwrap();
            let message = v1::VolumeCreateRequest::from(request.clone());
            prop_assert_eq!(VolumeCreate::try_from(message).unwrap(), request);
        }

        #[test]
        fn what_is_accepted_is_a_whole_number_of_blocks(
            name in "[a-z0-9_]{0,4}", size_bytes in any::<u64>(), block_size in 0u32..5000,
        ) {
            let message = v1::VolumeCreateRequest {
                name, store: String::new(), size_bytes, block_size,
            };
            if let Ok(request) = VolumeCreate::try_from(message) {
                let unit = u64::from(request.block_size().bytes());
                prop_assert!(request.size().bytes().is_multiple_of(unit));
            }
        }

        #[test]
        fn volumes_survive_the_wire(
            id in any::<u128>(), size in any::<u64>(), used in any::<u64>(), state in 0usize..4,
            exported in any::<bool>(), iops in 0u64..1 << 20, bandwidth in 1u64 << 20..1 << 40,
        ) {
            let rate = |per_second| Rate { per_second, burst: per_second };
            let iops = (iops != 0).then(|| rate(iops));

            let states = [
                VolumeState::Online,
                VolumeState::Offline,
                VolumeState::Creating,
                VolumeState::Deleting,
            ];
            let volume = Volume {
                name: "v".parse().unwrap(),
                uuid: ::uuid::Uuid::from_u128(id),
                store: "s".parse().unwrap(),
                size: bytes(size),
                block_size: BlockSize::B512,
                used: bytes(used),
                state: states[state],
                reason: String::new(),
                exported,
                snapshots: 3,
                qos: Qos::new(iops, Some(rate(bandwidth))).unwrap(),
            };
            prop_assert_eq!(Volume::try_from(v1::Volume::from(volume.clone())).unwrap(), volume);
        }
    }
}
