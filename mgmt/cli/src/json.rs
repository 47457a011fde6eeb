//! The JSON form of everything that is printed.
//!
//! Sizes are numbers of bytes, times are milliseconds since 1970. Keys are only ever added.

use api::{
    ApiError, ByteLen, ChangedRange, CheckFinding, CheckReport, DhchapGroup, DhchapHash, Event,
    Export, Health, Host, HostAccess, LogAdvice, NodeInfo, Qos, Rate, Referral, RequestId, Scrub,
    Session, Snapshot, Store, Volume,
};
use serde_json::{Value, json};

use crate::exit::exit_code;

pub(crate) fn node(info: &NodeInfo) -> Value {
    let complaints = match &info.health {
        Health::Degraded(complaints) => complaints.as_slice(),
        _ => &[],
    };
    json!({
        "name": info.name,
        "uuid": info.uuid.to_string(),
        "version": info.version,
        "started_ms": info.started_ms,
        "health": info.health.as_str(),
        "complaints": complaints,
        "reactor_cores": info.reactor_cores,
        "idle": info.idle,
        "io_backend": info.io_backend,
        "nvme_tcp": info.nvme_tcp,
        "discovery": info.discovery,
    })
}

pub(crate) fn event(event: &Event) -> Value {
    json!({
        "sequence": event.sequence,
        "time_ms": event.time_ms,
        "kind": event.kind.as_str(),
        "severity": event.severity.as_str(),
        "subject": event.subject,
        "message": event.message,
        "request_id": event.request_id,
    })
}

pub(crate) fn store(store: &Store) -> Value {
    json!({
        "name": store.name.as_str(),
        "uuid": store.uuid.to_string(),
        "device": store.device.as_str(),
        "state": store.state.as_str(),
        "reason": store.reason,
        "capacity_bytes": store.capacity.bytes(),
        "used_bytes": store.used.bytes(),
        "log_size_bytes": store.log_size.bytes(),
        "volumes": store.volumes,
        "backend": store.backend,
    })
}

pub(crate) fn check(report: &CheckReport) -> Value {
    let finding = |finding: &CheckFinding| {
        let CheckFinding { kind, message, repaired } = finding;
        json!({ "kind": kind, "message": message, "repaired": repaired })
    };
    json!({
        "clean": report.is_clean(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "dropped": report.dropped,
        "leaked_bytes": report.leaked.bytes(),
        "freed_bytes": report.freed.bytes(),
        "volumes": report.volumes,
        "snapshots": report.snapshots,
        "metadata_bytes": report.metadata.bytes(),
        "data_bytes": report.data.bytes(),
    })
}

pub(crate) fn scrub(scrub: &Scrub) -> Value {
    let Scrub { store, policy, progress } = scrub;
    json!({
        "store": store.as_str(),
        "rate_bytes": policy.rate.bytes(),
        "paused": policy.paused,
        "running": progress.running,
        "covered_bytes": progress.covered,
        "total_bytes": progress.total,
        "found": progress.found,
        "healed": progress.healed,
        "remaining_seconds": progress.remaining_seconds,
        "passes": progress.passes,
        "finished_ms": progress.finished_ms,
        "last_found": progress.last_found,
        "last_healed": progress.last_healed,
        "next_seconds": progress.next_seconds,
    })
}

pub(crate) fn advice(advice: &LogAdvice) -> Value {
    json!({
        "log_size_bytes": advice.log.bytes(),
        "seconds_until_slow": advice.seconds_until_slow,
        "enough": advice.is_enough,
    })
}

pub(crate) fn volume(volume: &Volume) -> Value {
    json!({
        "name": volume.name.as_str(),
        "uuid": volume.uuid.to_string(),
        "store": volume.store.as_str(),
        "size_bytes": volume.size.bytes(),
        "block_size": volume.block_size.bytes(),
        "used_bytes": volume.used.bytes(),
        "state": volume.state.as_str(),
        "reason": volume.reason,
        "exported": volume.exported,
        "snapshots": volume.snapshots,
        "qos": qos(volume.qos),
    })
}

/// Limits; `null` where there is none.
pub(crate) fn qos(qos: Qos) -> Value {
    let rate = |Rate { per_second, burst }| json!({ "per_second": per_second, "burst": burst });
    json!({ "iops": qos.iops().map(rate), "bandwidth_bytes": qos.bandwidth().map(rate) })
}

pub(crate) fn snapshot(snapshot: &Snapshot) -> Value {
    json!({
        "name": snapshot.path.to_string(),
        "volume": snapshot.path.volume.as_str(),
        "uuid": snapshot.uuid.to_string(),
        "store": snapshot.store.as_str(),
        "number": snapshot.number,
        "size_bytes": snapshot.size.bytes(),
        "referenced_bytes": snapshot.referenced.bytes(),
        "unique_bytes": snapshot.unique.map(ByteLen::bytes),
        "shared_bytes": snapshot.shared().map(ByteLen::bytes),
        "materialised": snapshot.materialised,
    })
}

pub(crate) fn changed_range(range: &ChangedRange) -> Value {
    json!({ "offset_bytes": range.offset, "length_bytes": range.length })
}

pub(crate) fn host(host: &Host) -> Value {
    json!({
        "nqn": host.nqn.as_str(),
        "has_dhchap_ctrl_key": host.has_controller_key,
        "dhchap_hash": host.hash.map(DhchapHash::as_str),
        "dhchap_dhgroup": host.group.map(DhchapGroup::as_str),
    })
}

pub(crate) fn export(export: &Export) -> Value {
    json!({
        "volume": export.volume.as_str(),
        "nqn": export.nqn.as_str(),
        "nsid": export.nsid,
        "uuid": export.uuid.to_string(),
        "allow_any_host": export.access == HostAccess::Any,
        "hosts": export.access.hosts().iter().map(api::Nqn::as_str).collect::<Vec<_>>(),
        "ana_state": export.paths.state.as_str(),
        "listener_states": export
            .paths
            .listeners
            .iter()
            .map(|(listener, state)| {
                json!({ "listener": listener.to_string(), "ana_state": state.as_str() })
            })
            .collect::<Vec<_>>(),
        "require_authentication": export.require_authentication,
        "listeners": export.listeners,
        "online": export.online,
        "reason": export.reason,
        "sessions": export.sessions,
    })
}

pub(crate) fn referral(referral: &Referral) -> Value {
    json!({
        "address": referral.address().to_string(),
        "nqn": referral.nqn().map(api::Nqn::as_str),
    })
}

pub(crate) fn session(session: &Session) -> Value {
    json!({
        "host": session.host,
        "subsystem": session.subsystem.as_str(),
        "volume": session.volume.as_ref().map(api::VolumeName::as_str),
        "controller_id": session.controller_id,
        "io_queues": session.io_queues,
        "peer": session.peer,
        "keep_alive_ms": session.keep_alive_ms,
    })
}

pub(crate) fn failure(error: &ApiError, request_id: Option<&RequestId>) -> Value {
    json!({
        "error": {
            "kind": error.kind().as_str(),
            "message": error.to_string(),
            "hint": error.hint(),
            "request_id": request_id.map(RequestId::as_str),
            "exit_code": exit_code(error.kind()),
        }
    })
}
