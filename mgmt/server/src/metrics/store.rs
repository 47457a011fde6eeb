//! Metrics of stores.

use std::fmt;

use api::{HealthState, SpaceState, StoreStats};
use prometheus_client::registry::Unit;

use super::{Families, Labels, float, seconds};

/// Name, help, and where the number is.
type Row<T> = (&'static str, &'static str, fn(&StoreStats) -> T);

const GAUGES_OF_BYTES: [Row<u64>; 7] = [
    ("store_capacity", "Bytes that volumes can use in all", |s| s.numbers.capacity.bytes()),
    ("store_used", "Bytes that volumes use", |s| s.numbers.used.bytes()),
    ("store_log", "Bytes of the log region", |s| s.numbers.log_size.bytes()),
    ("store_log_used", "Bytes of the log that are not yet reusable", |s| {
        s.numbers.log_used.bytes()
    }),
    ("store_log_not_moved", "Bytes of the log that are not in the map yet", |s| {
        s.numbers.flow.log_not_moved
    }),
    ("store_scrub_covered", "Bytes that this pass of the scrub has covered", |s| {
        s.numbers.scrub.covered
    }),
    ("store_scrub_size", "Bytes that a pass of the scrub has to cover", |s| s.numbers.scrub.total),
];

const COUNTERS_OF_BYTES: [Row<u64>; 7] = [
    ("store_device_written", "Bytes written to the device", |s| s.numbers.device_written),
    ("store_device_read", "Bytes read from the device", |s| s.numbers.device_read),
    ("store_host_written", "Bytes that hosts wrote", |s| s.numbers.flow.host_written),
    ("store_log_written", "Bytes written to the log", |s| s.numbers.flow.log_written),
    ("store_data_written", "Bytes written to extents", |s| s.numbers.flow.data_written),
    ("store_metadata_written", "Bytes written to the map", |s| s.numbers.flow.metadata_written),
    ("store_check_freed", "Bytes of leaked space that checks gave back", |s| s.numbers.check.freed),
];

const COUNTERS: [Row<u64>; 18] = [
    ("store_checkpoints", "Checkpoints made", |s| s.numbers.checkpoints),
    ("store_integrity_errors", "Blocks that did not match their checksum; no host got them", |s| {
        s.numbers.integrity_errors
    }),
    ("store_healed_pages", "Pages healed from their copy", |s| s.numbers.flow.healed_pages),
    ("store_device_errors", "Requests that the device failed", |s| s.numbers.health.errors),
    ("store_writes_admitted", "Writes that the log began to take", |s| {
        s.numbers.flow.writes_admitted
    }),
    ("store_writes_parked", "Writes that had to wait, for whatever reason", |s| {
        s.numbers.flow.writes_parked
    }),
    ("store_writes_delayed", "Writes delayed for log space", |s| s.numbers.flow.writes_delayed),
    ("store_writes_held", "Writes held for log space", |s| s.numbers.flow.writes_held),
    ("store_writes_timed_out", "Writes that waited too long", |s| s.numbers.flow.writes_timed_out),
    ("store_writes_released", "Writes let go because their queue was closed", |s| {
        s.numbers.flow.writes_released
    }),
    ("store_writes_no_space", "Writes refused by a full store", |s| s.numbers.flow.writes_no_space),
    ("store_destaged_blocks", "Blocks moved from the log to the map", |s| {
        s.numbers.flow.destaged_blocks
    }),
    ("store_copied_extents", "Extents copied for snapshots", |s| s.numbers.flow.copied_extents),
    ("store_log_records", "Records that the log was given since the store was made", |s| {
        s.numbers.flow.log_head_lsn.saturating_sub(1)
    }),
    ("store_scrub_passes", "Passes of the scrub since the store was made", |s| {
        s.numbers.scrub.passes
    }),
    ("store_checks", "Checks that came to their end", |s| s.numbers.check.done),
    ("store_check_findings", "What all checks found together", |s| s.numbers.check.found_all),
    ("store_checks_aborted", "Checks that gave way", |s| s.numbers.check.aborted),
];

const GAUGES: [Row<u64>; 13] = [
    ("store_writes_waiting", "Writes that wait now", |s| s.numbers.flow.waiting),
    ("store_snapshots_waiting", "Snapshots that are not in the map yet", |s| {
        s.numbers.flow.waiting_snapshots
    }),
    ("store_pressure", "What the log asks of writers: 0 nothing, 1 a delay, 2 to wait", |s| {
        u64::from(s.numbers.flow.pressure)
    }),
    ("store_space", "How full the store is: 0 ample, 1 low, 2 full", |s| {
        match s.numbers.flow.space {
            SpaceState::Ample => 0,
            SpaceState::Low => 1,
            SpaceState::Full => 2,
        }
    }),
    ("store_health", "How the device is: 0 healthy, 1 slow, 2 quarantined", |s| {
        match s.numbers.health.state {
            HealthState::Healthy => 0,
            HealthState::Slow => 1,
            HealthState::Quarantined => 2,
        }
    }),
    ("store_scrub_running", "1 while a pass of the scrub is under way", |s| {
        u64::from(s.numbers.scrub.running)
    }),
    ("store_scrub_paused", "1 while the scrub is paused", |s| u64::from(s.scrub_policy.paused)),
    ("store_scrub_found", "Damage that this pass of the scrub has found", |s| {
        s.numbers.scrub.found
    }),
    ("store_scrub_healed", "Damage that this pass of the scrub has healed", |s| {
        s.numbers.scrub.healed
    }),
    ("store_scrub_last_found", "Damage that the last pass of the scrub found", |s| {
        s.numbers.scrub.last_found
    }),
    ("store_scrub_last_healed", "Damage that the last pass of the scrub healed", |s| {
        s.numbers.scrub.last_healed
    }),
    ("store_check_running", "1 while a check is under way", |s| u64::from(s.numbers.check.running)),
    ("store_check_found", "What the last check found", |s| s.numbers.check.found),
];

const GAUGES_OF_TIME: [Row<u64>; 4] = [
    ("store_write_delay", "How long a write that comes now is delayed", |s| {
        s.numbers.flow.delay_ns
    }),
    ("store_longest_wait", "How long the write that waits longest has", |s| {
        s.numbers.flow.longest_wait_ns
    }),
    ("store_device_latency", "Latency of the device that 1 % exceeded lately", |s| {
        s.numbers.health.p99_ns
    }),
    ("store_device_oldest_request", "How long the oldest request is with the device", |s| {
        s.numbers.health.oldest_ns
    }),
];

pub(super) fn encode(stores: &[StoreStats], to: &mut Families<'_>) -> fmt::Result {
    let all = || stores.iter().map(|store| (labels(store), store));
    for (name, help, pick) in GAUGES_OF_BYTES {
        to.gauges(name, help, Some(Unit::Bytes), all().map(|(l, s)| (l, float(pick(s)))))?;
    }
    for (name, help, pick) in COUNTERS_OF_BYTES {
        to.counters(name, help, Some(Unit::Bytes), all().map(|(l, s)| (l, pick(s))))?;
    }
    for (name, help, pick) in COUNTERS {
        to.counters(name, help, None, all().map(|(l, s)| (l, pick(s))))?;
    }
    for (name, help, pick) in GAUGES {
        to.gauges(name, help, None, all().map(|(l, s)| (l, float(pick(s)))))?;
    }
    for (name, help, pick) in GAUGES_OF_TIME {
        to.gauges(name, help, Some(Unit::Seconds), all().map(|(l, s)| (l, seconds(pick(s)))))?;
    }
    let help = "When the last pass of the scrub ended, since 1970-01-01 UTC";
    let finished = all().filter_map(|(l, s)| Some((l, float(s.numbers.scrub.finished_ms?) / 1e3)));
    to.gauges("store_scrub_finished", help, Some(Unit::Seconds), finished)?;
    let help = "Bytes written to the device for each byte that hosts wrote";
    let amplification = all().filter(|(_, s)| s.numbers.flow.host_written > 0).map(|(l, s)| {
        let device = s.numbers.flow.log_written
            + s.numbers.flow.data_written
            + s.numbers.flow.metadata_written;
        (l, float(device) / float(s.numbers.flow.host_written))
    });
    to.gauges("store_write_amplification", help, None, amplification)?;
    let help = "How long writes waited until the log took them";
    to.histograms("store_write_wait", help, all().map(|(l, s)| (l, &s.numbers.waits)))
}

fn labels(store: &StoreStats) -> Labels {
    vec![("store", store.name.to_string())]
}
