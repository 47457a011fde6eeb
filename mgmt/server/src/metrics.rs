//! From one snapshot of numbers to OpenMetrics text.
//!
//! Nothing is counted here: the collector walks a snapshot that was taken for this scrape. Names
//! follow OpenMetrics: `holdfast_<part>_<what>`, units last, and `_total` is appended to counters
//! by the encoder, never written here.

use std::fmt;

use api::{
    IoCounters, LatencyHistogram, NodeInfo, SpaceState, StatsSnapshot, StoreFlow, VolumeStats,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::call::Counts;

/// The content type of `/metrics`.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that one scrape shows.
#[derive(Debug)]
struct Scrape {
    stats: StatsSnapshot,
    info: NodeInfo,
    calls: Counts,
}

pub(crate) fn encode(
    stats: StatsSnapshot,
    info: NodeInfo,
    calls: Counts,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("holdfast");
    registry.register_collector(Box::new(Scrape { stats, info, calls }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

type Labels = Vec<(&'static str, String)>;

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families { encoder };
        self.encode_node(&mut families)?;
        self.encode_shards(&mut families)?;
        self.encode_stores(&mut families)?;
        self.encode_volumes(&mut families)?;
        self.encode_transport(&mut families)
    }
}

impl Scrape {
    fn encode_node(&self, to: &mut Families<'_>) -> fmt::Result {
        let build = vec![("version", self.info.version.clone())];
        let node = vec![("node", self.info.name.clone()), ("uuid", self.info.uuid.to_string())];
        let started = f64::from(u32::try_from(self.info.started_ms / 1000).unwrap_or(u32::MAX));
        to.gauges("build", "Version of holdfastd, value 1", None, [(build, 1.0)])?;
        to.gauges("node", "Name and identity of the node, value 1", None, [(node, 1.0)])?;
        let help = "When the node started, since 1970-01-01 UTC";
        to.gauges("node_start_time", help, Some(Unit::Seconds), [(vec![], started)])?;
        let ready = f64::from(u8::from(self.info.health.is_ready()));
        to.gauges("node_ready", "1 when hosts may connect", None, [(vec![], ready)])?;
        let degraded = matches!(self.info.health, api::Health::Degraded(_));
        let degraded = f64::from(u8::from(degraded));
        let help = "1 when something that was asked for is not served";
        to.gauges("node_degraded", help, None, [(vec![], degraded)])?;
        let calls = self.calls.iter().map(|(&(method, outcome), &count)| {
            (vec![("method", method.to_owned()), ("outcome", outcome.to_owned())], count)
        });
        to.counters("requests", "Management requests finished", None, calls)
    }

    fn encode_shards(&self, to: &mut Families<'_>) -> fmt::Result {
        let all = || {
            self.stats.shards.iter().map(|shard| {
                let core = shard.core.map_or_else(|| "none".to_owned(), |core| core.to_string());
                (vec![("shard", shard.shard.to_string()), ("core", core)], shard)
            })
        };
        let help = "Turns that a reactor made";
        to.counters("shard_turns", help, None, all().map(|(l, s)| (l, s.turns)))?;
        let help = "Turns that found work";
        to.counters("shard_turns_busy", help, None, all().map(|(l, s)| (l, s.turns_busy)))?;
        let help = "Times a reactor slept in the kernel";
        to.counters("shard_sleeps", help, None, all().map(|(l, s)| (l, s.sleeps)))?;
        let help = "Buffer segments of a shard";
        to.gauges("shard_buffers", help, None, all().map(|(l, s)| (l, float(s.buffers))))?;
        let help = "Buffer segments that are free";
        to.gauges("shard_buffers_free", help, None, all().map(|(l, s)| (l, float(s.buffers_free))))
    }

    fn encode_stores(&self, to: &mut Families<'_>) -> fmt::Result {
        let bytes = || Some(Unit::Bytes);
        let all = || {
            self.stats.stores.iter().map(|store| (vec![("store", store.name.to_string())], store))
        };
        let help = "Bytes that volumes can use in all";
        to.gauges(
            "store_capacity",
            help,
            bytes(),
            all().map(|(l, s)| (l, float(s.capacity.bytes()))),
        )?;
        let help = "Bytes that volumes use";
        to.gauges("store_used", help, bytes(), all().map(|(l, s)| (l, float(s.used.bytes()))))?;
        let help = "Bytes of the log region";
        to.gauges("store_log", help, bytes(), all().map(|(l, s)| (l, float(s.log_size.bytes()))))?;
        let help = "Bytes of the log that are not yet reusable";
        let used = all().map(|(l, s)| (l, float(s.log_used.bytes())));
        to.gauges("store_log_used", help, bytes(), used)?;
        let help = "Checkpoints made";
        to.counters("store_checkpoints", help, None, all().map(|(l, s)| (l, s.checkpoints)))?;
        let help = "Bytes written to the device";
        let written = all().map(|(l, s)| (l, s.device_written));
        to.counters("store_device_written", help, bytes(), written)?;
        let help = "Bytes read from the device";
        let read = all().map(|(l, s)| (l, s.device_read));
        to.counters("store_device_read", help, bytes(), read)?;
        let help = "Blocks whose checksum did not match; none of them reached a host";
        let errors = all().map(|(l, s)| (l, s.integrity_errors));
        to.counters("store_integrity_errors", help, None, errors)?;
        self.encode_flow(to)
    }

    fn encode_flow(&self, to: &mut Families<'_>) -> fmt::Result {
        let all = || {
            self.stats
                .stores
                .iter()
                .map(|store| (vec![("store", store.name.to_string())], store.flow))
        };
        type Pick = fn(StoreFlow) -> u64;
        let bytes: [(&str, &str, Pick); 4] = [
            ("store_host_written", "Bytes that hosts wrote", |f| f.host_written),
            ("store_log_written", "Bytes written to the log", |f| f.log_written),
            ("store_data_written", "Bytes written to extents", |f| f.data_written),
            ("store_metadata_written", "Bytes written to the map", |f| f.metadata_written),
        ];
        for (name, help, pick) in bytes {
            to.counters(name, help, Some(Unit::Bytes), all().map(|(l, f)| (l, pick(f))))?;
        }
        let counters: [(&str, &str, Pick); 6] = [
            ("store_writes_delayed", "Writes delayed for log space", |f| f.writes_delayed),
            ("store_writes_held", "Writes held for log space", |f| f.writes_held),
            ("store_writes_timed_out", "Writes that waited too long", |f| f.writes_timed_out),
            ("store_writes_no_space", "Writes refused by a full store", |f| f.writes_no_space),
            ("store_copied_extents", "Extents copied for snapshots", |f| f.copied_extents),
            ("store_healed_pages", "Pages healed from their copy", |f| f.healed_pages),
        ];
        for (name, help, pick) in counters {
            to.counters(name, help, None, all().map(|(l, f)| (l, pick(f))))?;
        }
        let help = "Bytes written to the device for each byte that hosts wrote";
        let amplification = all().filter(|(_, f)| f.host_written > 0).map(|(l, f)| {
            let device = f.log_written + f.data_written + f.metadata_written;
            (l, float(device) / float(f.host_written))
        });
        to.gauges("store_write_amplification", help, None, amplification)?;
        let help = "Writes that wait now";
        to.gauges("store_writes_waiting", help, None, all().map(|(l, f)| (l, float(f.waiting))))?;
        let help = "What the log asks of writers: 0 nothing, 1 a delay, 2 to wait";
        let pressure = all().map(|(l, f)| (l, f64::from(f.pressure)));
        to.gauges("store_pressure", help, None, pressure)?;
        let help = "How full the store is: 0 ample, 1 low, 2 full";
        let space = all().map(|(l, f)| {
            let level = match f.space {
                SpaceState::Ample => 0.0,
                SpaceState::Low => 1.0,
                SpaceState::Full => 2.0,
            };
            (l, level)
        });
        to.gauges("store_space", help, None, space)
    }

    fn encode_volumes(&self, to: &mut Families<'_>) -> fmt::Result {
        let all = || self.stats.volumes.iter().flat_map(kinds);
        let help = "I/O operations finished, failed ones included";
        to.counters("volume_operations", help, None, all().map(|(l, c)| (l, c.operations)))?;
        let help = "Bytes moved for hosts";
        let moved = all().map(|(l, c)| (l, c.bytes));
        to.counters("volume_moved", help, Some(Unit::Bytes), moved)?;
        let help = "I/O operations that failed";
        to.counters("volume_errors", help, None, all().map(|(l, c)| (l, c.errors)))?;
        let measured = all().filter_map(|(l, c)| Some((l, c.latency.as_ref()?)));
        to.histograms("volume_latency", "Time from request to completion", measured)
    }

    fn encode_transport(&self, to: &mut Families<'_>) -> fmt::Result {
        let stats = &self.stats.transport;
        let gauges = [
            ("nvme_tcp_connections", "TCP connections open", stats.connections),
            ("nvme_tcp_sessions", "Controllers connected", stats.sessions),
        ];
        for (name, help, value) in gauges {
            to.gauges(name, help, None, [(vec![], float(value))])?;
        }
        let counters = [
            ("nvme_tcp_accepted", "TCP connections accepted", None, stats.accepted),
            ("nvme_tcp_refused", "Connects of hosts that are not listed", None, stats.refused),
            (
                "nvme_tcp_protocol_errors",
                "Connections ended for a protocol error or a digest mismatch",
                None,
                stats.protocol_errors,
            ),
            ("nvme_tcp_received", "Bytes received", Some(Unit::Bytes), stats.received_bytes),
            ("nvme_tcp_sent", "Bytes sent", Some(Unit::Bytes), stats.sent_bytes),
        ];
        for (name, help, unit, value) in counters {
            to.counters(name, help, unit, [(vec![], value)])?;
        }
        Ok(())
    }
}

/// The counters of a volume, by kind of operation.
fn kinds(volume: &VolumeStats) -> impl Iterator<Item = (Labels, &IoCounters)> {
    let kinds = [
        ("read", &volume.read),
        ("write", &volume.write),
        ("flush", &volume.flush),
        ("deallocate", &volume.deallocate),
    ];
    kinds.into_iter().map(|(kind, counters)| {
        (vec![("volume", volume.name.to_string()), ("operation", kind.to_owned())], counters)
    })
}

/// Exact up to 2^53, which is 9 PB or 285 years of nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Writes families of metrics.
struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Families<'_> {
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family =
            self.encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family =
            self.encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn histograms<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, &'s LatencyHistogram)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let unit = Unit::Seconds;
        let mut family =
            self.encoder.encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?;
        for (labels, histogram) in samples {
            let seconds = |ns: u64| float(ns) / 1e9;
            let mut buckets: Vec<(f64, u64)> =
                histogram.buckets.iter().map(|&(upper, count)| (seconds(upper), count)).collect();
            buckets.push((f64::INFINITY, histogram.overflow));
            let count = buckets.iter().map(|&(_, count)| count).sum();
            let sum = seconds(histogram.sum_ns);
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
