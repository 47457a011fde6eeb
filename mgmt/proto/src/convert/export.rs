//! Exports, their hosts and the paths to them.

use std::net::SocketAddr;

use api::{
    Access, AnaState, ApiError, Changed, Export, ExportAdd, ExportRemove, HostAccess, HostsAdd,
    HostsRemove, SetAnaState, check_nsid,
};

use super::{address, field, present, unknown_enum, uuid};
use crate::v1;

impl TryFrom<v1::ExportAddRequest> for ExportAdd {
    type Error = ApiError;

    fn try_from(message: v1::ExportAddRequest) -> Result<Self, ApiError> {
        let nqn = match message.nqn.as_str() {
            "" => None,
            text => Some(field::<api::Nqn>("nqn", text)?),
        };
        if nqn.as_ref().is_some_and(api::Nqn::is_discovery) {
            let reason = "this is the well-known name of the discovery service";
            return Err(ApiError::invalid("nqn", reason, "choose another name"));
        }
        let access = access(message.allow_any_host, &message.hosts)?;
        let nsid = match message.nsid {
            0 => None,
            nsid => Some(check_nsid(nsid)?),
        };
        let require_authentication = message.require_authentication;
        let volume = field("volume", &message.volume)?;
        Ok(Self { volume, nqn, nsid, access, require_authentication })
    }
}

impl From<ExportAdd> for v1::ExportAddRequest {
    fn from(request: ExportAdd) -> Self {
        Self {
            volume: request.volume.to_string(),
            nqn: request.nqn.map(|nqn| nqn.to_string()).unwrap_or_default(),
            allow_any_host: request.access == HostAccess::Any,
            hosts: request.access.hosts().iter().map(ToString::to_string).collect(),
            nsid: request.nsid.unwrap_or_default(),
            require_authentication: request.require_authentication,
        }
    }
}

impl TryFrom<v1::ExportRemoveRequest> for ExportRemove {
    type Error = ApiError;

    fn try_from(message: v1::ExportRemoveRequest) -> Result<Self, ApiError> {
        Ok(Self { volume: field("volume", &message.volume)? })
    }
}

impl From<ExportRemove> for v1::ExportRemoveRequest {
    fn from(request: ExportRemove) -> Self {
        Self { volume: request.volume.to_string() }
    }
}

impl TryFrom<v1::ExportAddHostsRequest> for HostsAdd {
    type Error = ApiError;

    fn try_from(message: v1::ExportAddHostsRequest) -> Result<Self, ApiError> {
        Ok(Self { volume: field("volume", &message.volume)?, hosts: some_hosts(&message.hosts)? })
    }
}

impl From<HostsAdd> for v1::ExportAddHostsRequest {
    fn from(request: HostsAdd) -> Self {
        let hosts = request.hosts.iter().map(ToString::to_string).collect();
        Self { volume: request.volume.to_string(), hosts }
    }
}

impl TryFrom<v1::ExportRemoveHostsRequest> for HostsRemove {
    type Error = ApiError;

    fn try_from(message: v1::ExportRemoveHostsRequest) -> Result<Self, ApiError> {
        Ok(Self { volume: field("volume", &message.volume)?, hosts: some_hosts(&message.hosts)? })
    }
}

impl From<HostsRemove> for v1::ExportRemoveHostsRequest {
    fn from(request: HostsRemove) -> Self {
        let hosts = request.hosts.iter().map(ToString::to_string).collect();
        Self { volume: request.volume.to_string(), hosts }
    }
}

fn hosts(texts: &[String]) -> Result<Vec<api::Nqn>, ApiError> {
    texts.iter().map(|text| field("hosts", text)).collect()
}

fn some_hosts(texts: &[String]) -> Result<Vec<api::Nqn>, ApiError> {
    if texts.is_empty() {
        return Err(ApiError::invalid("hosts", "no host is named", "name at least one host NQN"));
    }
    hosts(texts)
}

fn access(any: bool, texts: &[String]) -> Result<HostAccess, ApiError> {
    match (any, texts.is_empty()) {
        (true, true) => Ok(HostAccess::Any),
        (true, false) => Err(ApiError::invalid(
            "hosts",
            "hosts are named although any host is allowed",
            "give either allow_any_host or hosts",
        )),
        (false, _) => HostAccess::listed(hosts(texts)?),
    }
}

impl From<AnaState> for v1::AnaState {
    fn from(state: AnaState) -> Self {
        match state {
            AnaState::Optimized => Self::Optimized,
            AnaState::NonOptimized => Self::NonOptimized,
            AnaState::Change => Self::Change,
            AnaState::Inaccessible => Self::Inaccessible,
            AnaState::PersistentLoss => Self::PersistentLoss,
        }
    }
}

fn state(value: i32) -> Result<AnaState, ApiError> {
    match v1::AnaState::try_from(value) {
        Ok(v1::AnaState::Optimized) => Ok(AnaState::Optimized),
        Ok(v1::AnaState::NonOptimized) => Ok(AnaState::NonOptimized),
        Ok(v1::AnaState::Change) => Ok(AnaState::Change),
        Ok(v1::AnaState::Inaccessible) => Ok(AnaState::Inaccessible),
        Ok(v1::AnaState::PersistentLoss) => Ok(AnaState::PersistentLoss),
        Ok(v1::AnaState::Unspecified) | Err(_) => Err(unknown_enum("state", value)),
    }
}

fn listener_state((listener, state): (SocketAddr, AnaState)) -> v1::ListenerState {
    let state = v1::AnaState::from(state).into();
    v1::ListenerState { listener: listener.to_string(), state }
}

fn paths(of_node: i32, listeners: Vec<v1::ListenerState>) -> Result<Access, ApiError> {
    let mut access = Access { state: state(of_node)?, ..Access::default() };
    for one in listeners {
        access.set(Some(address("listener", &one.listener)?), state(one.state)?);
    }
    Ok(access)
}

impl TryFrom<v1::ExportSetAnaStateRequest> for SetAnaState {
    type Error = ApiError;

    fn try_from(message: v1::ExportSetAnaStateRequest) -> Result<Self, ApiError> {
        let listener = match message.listener.as_str() {
            "" => None,
            text => Some(address("listener", text)?),
        };
        let volume = field("volume", &message.volume)?;
        Ok(Self { volume, state: state(message.state)?, listener })
    }
}

impl From<SetAnaState> for v1::ExportSetAnaStateRequest {
    fn from(request: SetAnaState) -> Self {
        Self {
            volume: request.volume.to_string(),
            state: v1::AnaState::from(request.state).into(),
            listener: request.listener.map(|listener| listener.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Export> for Export {
    type Error = ApiError;

    fn try_from(message: v1::Export) -> Result<Self, ApiError> {
        Ok(Self {
            volume: field("volume", &message.volume)?,
            nqn: field("nqn", &message.nqn)?,
            nsid: message.nsid,
            uuid: uuid(&message.uuid)?,
            access: access(message.allow_any_host, &message.hosts)?,
            paths: paths(message.ana_state, message.listener_states)?,
            require_authentication: message.require_authentication,
            listeners: message.listeners,
            online: message.online,
            reason: message.reason,
            sessions: message.sessions,
        })
    }
}

impl From<Export> for v1::Export {
    fn from(export: Export) -> Self {
        Self {
            volume: export.volume.to_string(),
            nqn: export.nqn.to_string(),
            nsid: export.nsid,
            uuid: export.uuid.to_string(),
            allow_any_host: export.access == HostAccess::Any,
            hosts: export.access.hosts().iter().map(ToString::to_string).collect(),
            require_authentication: export.require_authentication,
            listeners: export.listeners,
            online: export.online,
            reason: export.reason,
            sessions: export.sessions,
            ana_state: v1::AnaState::from(export.paths.state).into(),
            listener_states: export.paths.listeners.into_iter().map(listener_state).collect(),
        }
    }
}

macro_rules! export_changed {
    ($message:ident) => {
        impl From<Changed<Export>> for v1::$message {
            fn from(outcome: Changed<Export>) -> Self {
                Self { export: Some(outcome.value.into()), changed: outcome.changed }
            }
        }

        impl TryFrom<v1::$message> for Changed<Export> {
            type Error = ApiError;

            fn try_from(message: v1::$message) -> Result<Self, ApiError> {
                let value = present("export", message.export)?.try_into()?;
                Ok(Self { value, changed: message.changed })
            }
        }
    };
}

export_changed!(ExportAddResponse);
export_changed!(ExportAddHostsResponse);
export_changed!(ExportRemoveHostsResponse);
export_changed!(ExportSetAnaStateResponse);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_and_exports_survive_the_wire(
            volume in "[a-z0-9]{1,64}", any in any::<bool>(), nsid in 0u32..257, state in 0usize..5,
            names in proptest::collection::vec("nqn\\.2014-08\\.com\\.example:[a-z]{1,9}", 0..5),
        ) {
            let listed = names.iter().map(|name| name.parse().unwrap()).collect();
            let access =
                if any { HostAccess::Any } else { HostAccess::listed(listed).unwrap() };
            let nsid = (nsid > 0).then_some(nsid);
            let state = AnaState::ALL[state];
            let mut paths = Access { state, ..Access::default() };
            paths.set(Some("192.0.2.1:4420".parse().unwrap()), AnaState::ALL[4]);
            let wanted = SetAnaState {
                volume: volume.parse().unwrap(),
                state,
                listener: any.then(|| "[::1]:4420".parse().unwrap()),
            };
            let message = v1::ExportSetAnaStateRequest::from(wanted.clone());
            prop_assert_eq!(SetAnaState::try_from(message).unwrap(), wanted);
            let nqn: Option<api::Nqn> = names.first().map(|name| name.parse().unwrap());
            let request = ExportAdd {
                volume: volume.parse().unwrap(),
                nqn,
                nsid,
                access: access.clone(),
                require_authentication: any,
            };
            let message = v1::ExportAddRequest::from(request.clone());
            prop_assert_eq!(ExportAdd::try_from(message).unwrap(), request);

            let export = Export {
                volume: volume.parse().unwrap(),
                nqn: "nqn.2014-08.com.example:x".parse().unwrap(),
                nsid: 1,
                uuid: ::uuid::Uuid::from_u128(7),
                access,
                paths,
                require_authentication: !any,
                listeners: names,
                online: any,
                reason: String::new(),
                sessions: 3,
            };
            prop_assert_eq!(Export::try_from(v1::Export::from(export.clone())).unwrap(), export);
        }
    }

    #[test]
    fn any_host_and_a_list_exclude_each_other() {
        let message = v1::ExportAddRequest {
            volume: "v".to_owned(),
            allow_any_host: true,
            hosts: vec!["nqn.2014-08.com.example:x".to_owned()],
            ..Default::default()
        };
        assert!(ExportAdd::try_from(message).is_err());
    }

    #[test]
    fn the_discovery_name_cannot_be_exported() {
        let message = v1::ExportAddRequest {
            volume: "v".to_owned(),
            nqn: "nqn.2014-08.org.nvmexpress.discovery".to_owned(),
            ..Default::default()
        };
        assert!(ExportAdd::try_from(message).is_err());
    }
}
