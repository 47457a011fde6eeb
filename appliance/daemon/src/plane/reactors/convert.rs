//! Between the words of the shards and those of the management plane.

use std::collections::BTreeMap;

use api::{
    ApiError, BlockSize, ByteLen, IoCounters, LatencyHistogram, Nqn, Qos, Rate, Session,
    ShardStats, SpaceState, StoreFlow, StoreNumbers, TransportStats, VolumeIo,
};
use node::{Kind, NodeError, NodeHandle, StoreStatus, VolumeStatus};
use nvmf::AuthFault;
use uuid::Uuid;

use super::Shared;
use super::care::{check_counters, device_health, scrub_progress};
use crate::plane::{
    PlaneRefusal, PlaneSnapshot, PlaneStats, PlaneStore, PlaneVolume, RefusalCause,
};

/// The one mapping from what a shard answers to what an operator reads.
pub(super) fn api_error(error: NodeError) -> ApiError {
    let text = error.to_string();
    match error {
        NodeError::Busy | NodeError::Stopped => ApiError::unavailable(text),
        NodeError::NameTaken | NodeError::InUse => ApiError::precondition(text, ""),
        NodeError::TooMany { .. } => ApiError::exhausted(text, "remove some first"),
        NodeError::NoSpace => ApiError::exhausted(text, "delete a volume, or add a store"),
        NodeError::Invalid(_) => ApiError::invalid("request", text, ""),
        NodeError::Device(_) | NodeError::Store(_) => ApiError::precondition(text, ""),
        NodeError::Listen(_) => ApiError::unavailable(text),
        _ => ApiError::internal(text),
    }
}

pub(super) fn nvmf_nqn(nqn: &Nqn) -> Result<nvmf::Nqn, ApiError> {
    nvmf::Nqn::new(nqn.as_str()).map_err(ApiError::internal)
}

pub(super) fn plane_store(status: StoreStatus, backend: String) -> Result<PlaneStore, ApiError> {
    let stats = status.stats;
    let flow = StoreFlow {
        host_written: stats.host_written_bytes,
        log_written: stats.log_written_bytes,
        data_written: stats.data_written_bytes,
        metadata_written: stats.metadata_written_bytes,
        writes_delayed: stats.writes_delayed,
        writes_held: stats.writes_held,
        writes_timed_out: stats.writes_timed_out,
        writes_no_space: stats.no_space,
        writes_admitted: stats.writes_admitted,
        writes_released: stats.writes_released,
        writes_parked: stats.parked_writes,
        waiting: stats.parked_now,
        longest_wait_ns: status.log.longest_wait_ns,
        delay_ns: status.log.delay_ns,
        log_not_moved: status.log.not_moved_bytes,
        log_tail_lsn: status.log.tail_lsn,
        log_durable_lsn: status.log.durable_lsn,
        log_head_lsn: status.log.head_lsn,
        destaged_blocks: stats.destaged_blocks,
        waiting_snapshots: stats.waiting_snapshots,
        pressure: match status.log.pressure {
            node::Pressure::Soft => 1,
            node::Pressure::Hard => 2,
            _ => 0,
        },
        copied_extents: stats.copied_extents,
        healed_pages: stats.healed_pages,
        space: match status.space {
            node::SpaceState::Low => SpaceState::Low,
            node::SpaceState::Full => SpaceState::Full,
            _ => SpaceState::Ample,
        },
    };
    let (health, scrub) = (device_health(&status), scrub_progress(&status.scrub));
    let mut waits = empty_histogram();
    if let Some(latency) = &status.waits {
        add_buckets(&mut waits, latency.sum_ns(), latency.buckets());
    }
    let uuids: BTreeMap<_, _> = status.volumes.iter().map(|one| (one.id, one.uuid)).collect();
    let volumes: Result<Vec<_>, ApiError> = status.volumes.into_iter().map(plane_volume).collect();
    let snapshots = status.snapshots.into_iter().map(|snapshot| PlaneSnapshot {
        uuid: Uuid::from_bytes(snapshot.uuid),
        name: snapshot.name,
        // That of a volume which is gone belongs to nobody.
        volume: uuids.get(&snapshot.volume).copied().map_or(Uuid::nil(), Uuid::from_bytes),
        number: snapshot.id.0,
        size: ByteLen::from_bytes(snapshot.bytes),
        referenced: ByteLen::from_bytes(snapshot.referenced_bytes),
        materialised: snapshot.materialised,
    });
    let numbers = StoreNumbers {
        capacity: ByteLen::from_bytes(status.capacity_bytes),
        used: ByteLen::from_bytes(status.used_bytes),
        log_size: ByteLen::from_bytes(status.log_bytes),
        log_used: ByteLen::from_bytes(status.log_used_bytes),
        checkpoints: status.checkpoints,
        device_written: status.device_written,
        device_read: status.device_read,
        integrity_errors: status.integrity_errors,
        flow,
        waits,
        health,
        scrub,
        check: check_counters(status.check),
    };
    Ok(PlaneStore {
        uuid: Uuid::from_bytes(status.uuid),
        numbers,
        scrub_rate: status.scrub.bytes_per_second,
        failure: status.failure,
        backend,
        snapshots: snapshots.collect(),
        volumes: volumes?,
    })
}

pub(super) fn plane_volume(status: VolumeStatus) -> Result<PlaneVolume, ApiError> {
    Ok(PlaneVolume {
        uuid: Uuid::from_bytes(status.uuid),
        name: status.name,
        size: ByteLen::from_bytes(status.bytes),
        block_size: BlockSize::try_from(status.block_size)?,
        used: ByteLen::from_bytes(status.used_bytes),
        qos: qos(status.qos)?,
        throttled: status.throttled,
        throttled_ns: status.throttled_ns,
    })
}

/// Zero is no limit.
fn qos(limits: node::Qos) -> Result<Qos, ApiError> {
    let rate = |per_second, burst| (per_second != 0).then_some(Rate { per_second, burst });
    let node::Qos { iops, iops_burst, bytes_per_second, bytes_burst } = limits;
    Qos::new(rate(iops, iops_burst), rate(bytes_per_second, bytes_burst))
}

pub(super) fn sessions(handle: &NodeHandle) -> Result<Vec<Session>, ApiError> {
    let session = |session: nvmf::Session| {
        let subsystem = session.subsystem.as_ref().map_or(DISCOVERY, nvmf::Nqn::as_str);
        Ok(Session {
            host: printable(session.hostnqn.as_str()),
            subsystem: subsystem.parse()?,
            volume: None,
            controller_id: session.cntlid,
            io_queues: session.io_queues,
            peer: session.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            keep_alive_ms: session.kato_ms,
        })
    };
    handle.sessions().into_iter().map(session).collect()
}

pub(super) fn refusals(handle: &NodeHandle) -> Vec<PlaneRefusal> {
    let name = |nqn: Option<nvmf::Nqn>| nqn.map(|nqn| printable(nqn.as_str())).unwrap_or_default();
    let refusal = |refusal: node::Refusal| PlaneRefusal {
        host: name(refusal.host),
        subsystem: name(refusal.subsystem),
        peer: refusal.peer.to_string(),
        cause: cause(refusal.cause),
    };
    handle.refusals().into_iter().map(refusal).collect()
}

fn cause(cause: node::Cause) -> RefusalCause {
    let fault = match cause {
        node::Cause::Connect(nvmf::Refused::NotListed) => return RefusalCause::NotListed,
        node::Cause::Connect(nvmf::Refused::NoKey) => return RefusalCause::NoKey,
        node::Cause::Connect(_) => return RefusalCause::Other,
        node::Cause::Authentication(fault) => fault,
    };
    RefusalCause::NotProven(match fault {
        AuthFault::Response => "it has another key",
        AuthFault::NoControllerKey => "it wants proof of the node, which has no key for that",
        AuthFault::NoKey => "the node has no key of it",
        AuthFault::Protocol => "it does not offer DH-HMAC-CHAP",
        AuthFault::Concatenation => "it wants a secure channel, which is not offered",
        AuthFault::Hash => "it does not offer the hash function that is configured",
        AuthFault::Group => "it does not offer the group that is configured",
        AuthFault::Payload => "it sent something that makes no sense",
        AuthFault::Message => "it sent something out of turn",
        AuthFault::Host => "it gave up, or found the node to have another key",
        AuthFault::Timeout => "it took too long",
        _ => "it failed",
    })
}

/// The well-known name of the discovery service.
const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// A host names itself as it likes; what is not ASCII is escaped before anybody prints it.
fn printable(name: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    name.chars()
        .flat_map(|c| if plain(c) { vec![c] } else { c.escape_default().collect() })
        .collect()
}

impl Shared {
    pub(super) fn stats(&self) -> PlaneStats {
        let mut transport = TransportStats::default();
        let mut shards = Vec::new();
        let reactors = self.reactor_stats.iter().map(|stats| stats.snapshot());
        for (index, (counters, reactor)) in self.handle.shard_counters().zip(reactors).enumerate() {
            transport.connections += counters.connections.read();
            transport.accepted += counters.accepted.read();
            transport.refused += counters.refused.read();
            transport.not_authenticated += counters.not_authenticated.read();
            transport.protocol_errors += counters.protocol_errors.read();
            transport.received_bytes += counters.received_bytes.read();
            transport.sent_bytes += counters.sent_bytes.read();
            shards.push(ShardStats {
                shard: u32::try_from(index).unwrap_or(u32::MAX),
                core: self.cores.get(index).copied(),
                turns: reactor.turns,
                turns_busy: reactor.worked,
                sleeps: reactor.sleeps,
                buffers: counters.buffers.read(),
                buffers_free: counters.buffers_free.read(),
            });
        }
        transport.sessions = u64::try_from(self.handle.sessions().len()).unwrap_or(u64::MAX);
        let book = self.book();
        let volumes = book.exports.values().map(|exported| {
            let counters = self.handle.namespace_counters(exported.handle);
            let kind = |kind: Kind| {
                let mut sum = IoCounters::default();
                counters.iter().for_each(|shard| add(&mut sum, shard.of(kind)));
                sum
            };
            let io = VolumeIo {
                read: kind(Kind::Read),
                write: kind(Kind::Write),
                flush: kind(Kind::Flush),
                deallocate: kind(Kind::Deallocate),
            };
            (exported.export.volume, io)
        });
        PlaneStats { shards, transport, volumes: volumes.collect() }
    }
}

/// Adds one shard's share.
fn add(sum: &mut IoCounters, share: &node::IoCounter) {
    sum.operations += share.operations.read();
    sum.bytes += share.bytes.read();
    sum.errors += share.errors.read();
    let histogram = sum.latency.get_or_insert_with(empty_histogram);
    add_buckets(histogram, share.latency.sum_ns(), share.latency.buckets());
}

fn empty_histogram() -> LatencyHistogram {
    let buckets = (FIRST_BOUND..=LAST_BOUND).map(|bits| (1 << bits, 0)).collect();
    LatencyHistogram { buckets, ..LatencyHistogram::default() }
}

/// Adds buckets that are eighths of octaves: fine for a tool, too many for a scrape.
fn add_buckets(
    histogram: &mut LatencyHistogram,
    sum_ns: u64,
    buckets: impl Iterator<Item = (u64, u64)>,
) {
    histogram.sum_ns += sum_ns;
    for (bound, count) in buckets {
        let bucket = histogram.buckets.iter_mut().find(|(upper, _)| bound <= *upper);
        match bucket {
            Some((_, sum)) => *sum += count,
            None => histogram.overflow += count,
        }
    }
}

/// Bounds of exported latency buckets: 4.1 us to 8.6 s, by powers of two.
const FIRST_BOUND: u32 = 12;
const LAST_BOUND: u32 = 33;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_cannot_damage_a_terminal() {
        assert_eq!(printable("nqn.2014-08.com.example:h"), "nqn.2014-08.com.example:h");
        assert!(printable("nqn.\u{1b}[31m\u{e9}\u{1f512}").is_ascii());
    }

    #[test]
    fn each_answer_of_a_shard_has_a_kind() {
        use api::ErrorKind;
        let kind = |error| api_error(error).kind();
        assert_eq!(kind(NodeError::Busy), ErrorKind::Unavailable);
        assert_eq!(kind(NodeError::NoSpace), ErrorKind::ResourceExhausted);
        assert_eq!(kind(NodeError::Store("x".to_owned())), ErrorKind::FailedPrecondition);
        assert_eq!(kind(NodeError::NoSuchVolume), ErrorKind::Internal);
    }
}
