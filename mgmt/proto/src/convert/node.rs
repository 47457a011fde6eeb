//! The node, its sessions and its events.

use api::{ApiError, Event, Health, NodeInfo, Session, Severity, Subscription};

use super::{field, present, unknown_enum, uuid};
use crate::v1;

impl From<NodeInfo> for v1::NodeInfoResponse {
    fn from(info: NodeInfo) -> Self {
        let (health, complaints) = match info.health {
            Health::Ready => (v1::Health::Ready, Vec::new()),
            Health::Degraded(complaints) => (v1::Health::Degraded, complaints),
            Health::Starting => (v1::Health::Starting, Vec::new()),
            Health::Draining => (v1::Health::Draining, Vec::new()),
        };
        Self {
            name: info.name,
            uuid: info.uuid.to_string(),
            version: info.version,
            started_ms: info.started_ms,
            reactor_cores: info.reactor_cores,
            idle: info.idle,
            io_backend: info.io_backend,
            nvme_tcp: info.nvme_tcp,
            discovery: info.discovery,
            health: health.into(),
            complaints,
        }
    }
}

impl TryFrom<v1::NodeInfoResponse> for NodeInfo {
    type Error = ApiError;

    fn try_from(message: v1::NodeInfoResponse) -> Result<Self, ApiError> {
        let health = match v1::Health::try_from(message.health) {
            Ok(v1::Health::Ready) => Health::Ready,
            Ok(v1::Health::Degraded) => Health::Degraded(message.complaints),
            Ok(v1::Health::Starting) => Health::Starting,
            Ok(v1::Health::Draining) => Health::Draining,
            _ => return Err(unknown_enum("health", message.health)),
        };
        Ok(Self {
            name: message.name,
            uuid: uuid(&message.uuid)?,
            version: message.version,
            started_ms: message.started_ms,
            reactor_cores: message.reactor_cores,
            idle: message.idle,
            io_backend: message.io_backend,
            nvme_tcp: message.nvme_tcp,
            discovery: message.discovery,
            health,
        })
    }
}

impl From<Session> for v1::Session {
    fn from(session: Session) -> Self {
        Self {
            host: session.host,
            subsystem: session.subsystem.to_string(),
            volume: session.volume.map(|name| name.to_string()).unwrap_or_default(),
            controller_id: u32::from(session.controller_id),
            io_queues: session.io_queues,
            peer: session.peer,
            keep_alive_ms: session.keep_alive_ms,
        }
    }
}

impl TryFrom<v1::Session> for Session {
    type Error = ApiError;

    fn try_from(message: v1::Session) -> Result<Self, ApiError> {
        let volume = match message.volume.as_str() {
            "" => None,
            name => Some(field("volume", name)?),
        };
        let controller_id = u16::try_from(message.controller_id).map_err(|_| {
            let reason = format!("{} is more than 65535", message.controller_id);
            ApiError::invalid("controller_id", reason, "")
        })?;
        Ok(Self {
            host: message.host,
            subsystem: field("subsystem", &message.subsystem)?,
            volume,
            controller_id,
            io_queues: message.io_queues,
            peer: message.peer,
            keep_alive_ms: message.keep_alive_ms,
        })
    }
}

impl From<v1::WatchEventsRequest> for Subscription {
    fn from(message: v1::WatchEventsRequest) -> Self {
        Self { from: message.from, follow: message.follow }
    }
}

impl From<Event> for v1::WatchEventsResponse {
    fn from(event: Event) -> Self {
        let severity = match event.severity {
            Severity::Info => v1::Severity::Info,
            Severity::Warning => v1::Severity::Warning,
            Severity::Error => v1::Severity::Error,
        };
        let event = v1::Event {
            sequence: event.sequence,
            time_ms: event.time_ms,
            kind: event.kind.as_str().to_owned(),
            severity: severity.into(),
            subject: event.subject,
            message: event.message,
            request_id: event.request_id,
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<v1::WatchEventsResponse> for Event {
    type Error = ApiError;

    fn try_from(message: v1::WatchEventsResponse) -> Result<Self, ApiError> {
        let event = present("event", message.event)?;
        let severity = match v1::Severity::try_from(event.severity) {
            Ok(v1::Severity::Info) => Severity::Info,
            Ok(v1::Severity::Warning) => Severity::Warning,
            Ok(v1::Severity::Error) => Severity::Error,
            _ => return Err(unknown_enum("severity", event.severity)),
        };
        Ok(Self {
            sequence: event.sequence,
            time_ms: event.time_ms,
            kind: event.kind.parse()?,
            severity,
            subject: event.subject,
            message: event.message,
            request_id: event.request_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use api::EventKind;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_and_severity_of_event_survives_the_wire() {
        for &kind in EventKind::ALL {
            for severity in [Severity::Info, Severity::Warning, Severity::Error] {
                let event = Event {
                    sequence: 7,
                    time_ms: 1,
                    kind,
                    severity,
                    subject: "v".to_owned(),
                    message: "m".to_owned(),
                    request_id: "r".to_owned(),
                };
                let message = v1::WatchEventsResponse::from(event.clone());
                assert_eq!(Event::try_from(message).unwrap(), event);
            }
        }
    }

    proptest! {
        #[test]
        fn sessions_survive_the_wire(
            id in any::<u16>(), queues in any::<u32>(), volume in "[a-z0-9]{0,9}",
        ) {
            let session = Session {
                host: "nqn.2014-08.com.example:h".to_owned(),
                subsystem: "nqn.2014-08.com.example:s".parse().unwrap(),
                volume: (!volume.is_empty()).then(|| volume.parse().unwrap()),
                controller_id: id,
                io_queues: queues,
                peer: "10.0.0.1:40000".to_owned(),
                keep_alive_ms: 5000,
            };
            let message = v1::Session::from(session.clone());
            prop_assert_eq!(Session::try_from(message).unwrap(), session);
        }

        #[test]
        fn node_info_survives_the_wire(
            id in any::<u128>(), health in 0usize..4, complaint in "[a-z ]{1,20}",
        ) {
            let all = [
                Health::Ready,
                Health::Degraded(vec![complaint]),
                Health::Starting,
                Health::Draining,
            ];
            let info = NodeInfo {
                name: "n".to_owned(),
                uuid: ::uuid::Uuid::from_u128(id),
                version: "1".to_owned(),
                started_ms: 5,
                reactor_cores: vec![1, 2],
                idle: "spin".to_owned(),
                io_backend: "io_uring".to_owned(),
                nvme_tcp: vec!["127.0.0.1:4420".to_owned()],
                discovery: Vec::new(),
                health: all[health].clone(),
            };
            let message = v1::NodeInfoResponse::from(info.clone());
            prop_assert_eq!(NodeInfo::try_from(message).unwrap(), info);
        }
    }
}
