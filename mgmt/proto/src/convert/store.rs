//! Stores.

use api::{ApiError, Changed, LogSize, Store, StoreAdd, StoreInit, StoreState};

use super::{bytes, field, present, rename, unknown_enum, uuid};
use crate::v1;

impl TryFrom<v1::StoreInitRequest> for StoreInit {
    type Error = ApiError;

    fn try_from(message: v1::StoreInitRequest) -> Result<Self, ApiError> {
        Ok(Self {
            name: field("name", &message.name)?,
            device: field("device", &message.device)?,
            file_size: (message.file_size_bytes != 0).then(|| bytes(message.file_size_bytes)),
            log_size: (message.log_size_bytes != 0)
                .then(|| LogSize::try_from(bytes(message.log_size_bytes)))
                .transpose()
                .map_err(|error| rename("log_size_bytes", error))?,
            force_overwrite: message.force_overwrite,
        })
    }
}

impl From<StoreInit> for v1::StoreInitRequest {
    fn from(request: StoreInit) -> Self {
        Self {
            name: request.name.to_string(),
            device: request.device.to_string(),
            file_size_bytes: request.file_size.map_or(0, api::ByteLen::bytes),
            force_overwrite: request.force_overwrite,
            log_size_bytes: request.log_size.map_or(0, |size| size.len().bytes()),
        }
    }
}

impl TryFrom<v1::StoreAddRequest> for StoreAdd {
    type Error = ApiError;

    fn try_from(message: v1::StoreAddRequest) -> Result<Self, ApiError> {
        Ok(Self { name: field("name", &message.name)?, device: field("device", &message.device)? })
    }
}

impl From<StoreAdd> for v1::StoreAddRequest {
    fn from(request: StoreAdd) -> Self {
        Self { name: request.name.to_string(), device: request.device.to_string() }
    }
}

impl TryFrom<v1::Store> for Store {
    type Error = ApiError;

    fn try_from(message: v1::Store) -> Result<Self, ApiError> {
        let state = match v1::StoreState::try_from(message.state) {
            Ok(v1::StoreState::Online) => StoreState::Online,
            Ok(v1::StoreState::Offline) => StoreState::Offline,
            Ok(v1::StoreState::Failed) => StoreState::Failed,
            _ => return Err(unknown_enum("state", message.state)),
        };
        Ok(Self {
            name: field("name", &message.name)?,
            uuid: uuid(&message.uuid)?,
            device: field("device", &message.device)?,
            state,
            reason: message.reason,
            capacity: bytes(message.capacity_bytes),
            used: bytes(message.used_bytes),
            log_size: bytes(message.log_size_bytes),
            volumes: message.volumes,
            backend: message.backend,
        })
    }
}

impl From<Store> for v1::Store {
    fn from(store: Store) -> Self {
        let state = match store.state {
            StoreState::Online => v1::StoreState::Online,
            StoreState::Offline => v1::StoreState::Offline,
            StoreState::Failed => v1::StoreState::Failed,
        };
        Self {
            name: store.name.to_string(),
            uuid: store.uuid.to_string(),
            device: store.device.to_string(),
            state: state.into(),
            reason: store.reason,
            capacity_bytes: store.capacity.bytes(),
            used_bytes: store.used.bytes(),
            volumes: store.volumes,
            backend: store.backend,
            log_size_bytes: store.log_size.bytes(),
        }
    }
}

macro_rules! store_changed {
    ($message:ident) => {
        impl From<Changed<Store>> for v1::$message {
            fn from(outcome: Changed<Store>) -> Self {
                Self { store: Some(outcome.value.into()), changed: outcome.changed }
            }
        }

        impl TryFrom<v1::$message> for Changed<Store> {
            type Error = ApiError;

            fn try_from(message: v1::$message) -> Result<Self, ApiError> {
                let value = present("store", message.store)?.try_into()?;
                Ok(Self { value, changed: message.changed })
            }
        }
    };
}

store_changed!(StoreInitResponse);
store_changed!(StoreAddResponse);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_survive_the_wire(
            name in "[a-z0-9]{1,64}", device in "/[ -~]{1,80}", size in any::<u64>(),
            force in any::<bool>(), log in 0u64..9,
        ) {
            let request = StoreInit {
                name: name.parse().unwrap(),
                device: device.parse().unwrap(),
                file_size: (size != 0).then(|| bytes(size)),
                log_size: (log != 0).then(|| bytes(log << 20).try_into().unwrap()),
                force_overwrite: force,
            };
            let message = v1::StoreInitRequest::from(request.clone());
            prop_assert_eq!(StoreInit::try_from(message).unwrap(), request);
        }

        #[test]
        fn stores_survive_the_wire(
            name in "[a-z0-9]{1,64}", id in any::<u128>(), state in 0usize..3,
            capacity in any::<u64>(), used in any::<u64>(), volumes in any::<u32>(),
        ) {
            let store = Store {
                name: name.parse().unwrap(),
                uuid: ::uuid::Uuid::from_u128(id),
                device: "/dev/x".parse().unwrap(),
                state: [StoreState::Online, StoreState::Offline, StoreState::Failed][state],
                reason: "because".to_owned(),
                capacity: bytes(capacity),
                used: bytes(used),
                log_size: bytes(used / 2),
                volumes,
                backend: "standard".to_owned(),
            };
            prop_assert_eq!(Store::try_from(v1::Store::from(store.clone())).unwrap(), store);
        }

        #[test]
        fn any_message_is_a_request_or_an_error(name in ".{0,70}", device in ".{0,20}") {
            let message = v1::StoreAddRequest { name, device };
            if let Ok(request) = StoreAdd::try_from(message.clone()) {
                prop_assert_eq!(v1::StoreAddRequest::from(request), message);
            }
        }
    }

    #[test]
    fn an_error_names_the_field_of_the_schema() {
        let message = v1::StoreAddRequest { name: "a_b".to_owned(), device: "/dev/x".to_owned() };
        let error = StoreAdd::try_from(message).unwrap_err();
        assert!(error.to_string().starts_with("name: '_'"), "{error}");
    }
}
