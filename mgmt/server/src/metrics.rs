//! From one snapshot of numbers to OpenMetrics text.
//!
//! Nothing is counted here: the collector walks a snapshot that was taken for this scrape. Names
//! follow OpenMetrics: `holdfast_<part>_<what>`, units last, and `_total` is appended to counters
//! by the encoder, never written here.

mod store;
mod volume;

use std::fmt;

use api::{LatencyHistogram, NodeInfo, StatsSnapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
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
        store::encode(&self.stats.stores, &mut families)?;
        volume::encode(&self.stats, &mut families)?;
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
                "nvme_tcp_not_authenticated",
                "Hosts that did not prove who they are",
                None,
                stats.not_authenticated,
            ),
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

/// Exact up to 2^53, which is 9 PB or 285 years of nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> f64 {
    float(ns) / 1e9
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
        let what = (name, help, unit, MetricType::Counter);
        self.scalars(what, samples, |to, value| {
            to.encode_counter::<NoLabelSet, _, u64>(value, None)
        })
    }

    /// A counter of seconds, which come in parts.
    fn counters_of_time(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let what = (name, help, Some(Unit::Seconds), MetricType::Counter);
        self.scalars(what, samples, |to, value| {
            to.encode_counter::<NoLabelSet, _, u64>(value, None)
        })
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let what = (name, help, unit, MetricType::Gauge);
        self.scalars(what, samples, |to, value| to.encode_gauge(value))
    }

    /// Writes a family of single numbers; none at all when there are no samples.
    fn scalars<T>(
        &mut self,
        (name, help, unit, kind): (&str, &str, Option<Unit>, MetricType),
        samples: impl IntoIterator<Item = (Labels, T)>,
        write: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                write(&mut family, &value)?;
            } else {
                write(&mut family.encode_family(&labels)?, &value)?;
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
