//! Metrics of volumes and snapshots.

use std::fmt;

use api::{IoCounters, StatsSnapshot, VolumeStats};
use prometheus_client::registry::Unit;

use super::{Families, Labels, float, seconds};

pub(super) fn encode(stats: &StatsSnapshot, to: &mut Families<'_>) -> fmt::Result {
    let all = || stats.volumes.iter().map(|volume| (labels(volume), volume));
    let bytes = || Some(Unit::Bytes);
    let size = all().map(|(l, v)| (l, float(v.size.bytes())));
    to.gauges("volume_size", "Bytes that hosts see", bytes(), size)?;
    let used = all().map(|(l, v)| (l, float(v.used.bytes())));
    to.gauges("volume_used", "Bytes of its store that a volume uses", bytes(), used)?;
    let count = all().map(|(l, v)| (l, float(v.snapshots)));
    to.gauges("volume_snapshots", "Snapshots of a volume", None, count)?;
    let help = "Times that requests had to wait for the limits of a volume";
    to.counters("volume_throttled", help, None, all().map(|(l, v)| (l, v.throttled)))?;
    let help = "How long they did, all times together";
    let waited = all().map(|(l, v)| (l, seconds(v.throttled_ns)));
    to.counters_of_time("volume_throttled_time", help, waited)?;
    let referenced = stats.snapshots.iter().map(|snapshot| {
        let path = &snapshot.path;
        let labels = vec![("volume", path.volume.to_string()), ("snapshot", path.name.to_string())];
        (labels, float(snapshot.referenced.bytes()))
    });
    let help = "Bytes that the map of a snapshot references, shared or not";
    to.gauges("snapshot_referenced", help, bytes(), referenced)?;
    encode_io(&stats.volumes, to)
}

fn encode_io(volumes: &[VolumeStats], to: &mut Families<'_>) -> fmt::Result {
    let all = || volumes.iter().flat_map(kinds);
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

fn labels(volume: &VolumeStats) -> Labels {
    vec![("volume", volume.name.to_string())]
}

/// The counters of an exported volume, by kind of operation.
fn kinds(volume: &VolumeStats) -> impl Iterator<Item = (Labels, &IoCounters)> {
    let kinds = volume.io.as_ref().map(|io| {
        [
            ("read", &io.read),
            ("write", &io.write),
            ("flush", &io.flush),
            ("deallocate", &io.deallocate),
        ]
    });
    kinds.into_iter().flatten().map(|(kind, counters)| {
        let mut labels = labels(volume);
        labels.push(("operation", kind.to_owned()));
        (labels, counters)
    })
}
