//! The text is what OpenMetrics asks for.

use api::{
    ByteLen, CheckCounters, DeviceHealth, Health, IoCounters, ScrubPolicy, ScrubProgress,
    ShardStats, SnapshotStats, StoreFlow, StoreNumbers, StoreStats, VolumeIo, VolumeStats,
};

use super::*;

fn sample() -> String {
    let io = IoCounters {
        operations: 3,
        bytes: 12288,
        errors: 1,
        latency: Some(LatencyHistogram {
            sum_ns: 3_000_000,
            buckets: vec![(1_000_000, 2), (2_000_000, 0)],
            overflow: 1,
        }),
    };
    let stats = StatsSnapshot {
        shards: vec![ShardStats { turns: 9, core: Some(2), ..ShardStats::default() }],
        stores: vec![StoreStats {
            name: "main".parse().unwrap(),
            scrub_policy: ScrubPolicy { paused: true, ..ScrubPolicy::default() },
            numbers: StoreNumbers {
                capacity: ByteLen::from_bytes(1 << 40),
                flow: StoreFlow { host_written: 100, log_written: 150, ..StoreFlow::default() },
                waits: io.latency.clone().unwrap(),
                health: DeviceHealth { p99_ns: 2_500_000, ..DeviceHealth::default() },
                scrub: ScrubProgress { finished_ms: Some(1500), ..ScrubProgress::default() },
                check: CheckCounters { found: 3, ..CheckCounters::default() },
                ..StoreNumbers::default()
            },
        }],
        volumes: vec![VolumeStats {
            name: "db".parse().unwrap(),
            size: ByteLen::from_bytes(1 << 30),
            used: ByteLen::from_bytes(1 << 20),
            snapshots: 1,
            throttled: 4,
            throttled_ns: 1_500_000_000,
            io: Some(VolumeIo { read: io, ..VolumeIo::default() }),
        }],
        snapshots: vec![SnapshotStats {
            path: "db@monday".parse().unwrap(),
            referenced: ByteLen::from_bytes(1 << 16),
        }],
        ..StatsSnapshot::default()
    };
    let info = NodeInfo {
        name: "n".to_owned(),
        uuid: uuid::Uuid::nil(),
        version: "1.2.3".to_owned(),
        started_ms: 1_700_000_000_000,
        reactor_cores: vec![],
        idle: "spin".to_owned(),
        io_backend: "standard".to_owned(),
        nvme_tcp: vec![],
        discovery: vec![],
        health: Health::Ready,
    };
    encode(stats, info, [(("volume.create", "ok"), 2)].into()).unwrap()
}

#[test]
fn the_text_ends_with_eof_and_is_ascii() {
    let text = sample();
    assert!(text.ends_with("# EOF\n"));
    assert!(text.is_ascii());
}

#[test]
fn names_follow_the_rules() {
    let text = sample();
    let mut counters = 0;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("# TYPE ") else { continue };
        let (name, kind) = rest.split_once(' ').unwrap();
        let allowed = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.starts_with("holdfast_"), "{name}");
        assert!(name.chars().all(allowed), "{name}");
        assert!(!name.ends_with("_total"), "{name}: the encoder appends _total");
        if kind == "counter" {
            counters += 1;
            assert!(text.contains(&format!("\n{name}_total")), "{name} has no sample");
        }
    }
    assert!(counters > 10);
    assert!(!text.contains("_total_total"));
}

#[test]
fn every_family_has_help_and_samples() {
    let text = sample();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        let samples = text.lines().filter(|line| line.starts_with(name)).count();
        assert!(samples > 0, "{name}");
    }
}

#[test]
fn values_arrive_with_their_labels() {
    let text = sample();
    for line in [
        "holdfast_build{version=\"1.2.3\"} 1.0",
        "holdfast_node_start_time_seconds 1700000000.0",
        "holdfast_requests_total{method=\"volume.create\",outcome=\"ok\"} 2",
        "holdfast_shard_turns_total{shard=\"0\",core=\"2\"} 9",
        "holdfast_store_capacity_bytes{store=\"main\"} 1099511627776.0",
        "holdfast_volume_operations_total{volume=\"db\",operation=\"read\"} 3",
        "holdfast_volume_moved_bytes_total{volume=\"db\",operation=\"read\"} 12288",
        "holdfast_volume_latency_seconds_count{volume=\"db\",operation=\"read\"} 3",
        "holdfast_volume_latency_seconds_bucket{le=\"+Inf\",volume=\"db\",operation=\"read\"} 3",
        "holdfast_store_host_written_bytes_total{store=\"main\"} 100",
        "holdfast_store_write_amplification{store=\"main\"} 1.5",
        "holdfast_store_space{store=\"main\"} 0.0",
        "holdfast_store_scrub_finished_seconds{store=\"main\"} 1.5",
        "holdfast_store_scrub_paused{store=\"main\"} 1.0",
        "holdfast_store_check_found{store=\"main\"} 3.0",
        "holdfast_store_device_latency_seconds{store=\"main\"} 0.0025",
        "holdfast_store_write_wait_seconds_count{store=\"main\"} 3",
        "holdfast_volume_throttled_total{volume=\"db\"} 4",
        "holdfast_volume_throttled_time_seconds_total{volume=\"db\"} 1.5",
        "holdfast_volume_snapshots{volume=\"db\"} 1.0",
        "holdfast_snapshot_referenced_bytes{volume=\"db\",snapshot=\"monday\"} 65536.0",
        "holdfast_nvme_tcp_connections 0.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

/// What the manual has to say of all metrics: made from what the exporter writes.
fn table(text: &str) -> String {
    let mut table = String::from("| metric | kind | labels | what it is |\n|---|---|---|---|\n");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let help = format!("# HELP {name} ");
        let help = text.lines().find_map(|line| line.strip_prefix(&help)).unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let sample = text.lines().find(|line| !line.starts_with('#') && line.starts_with(&name));
        let labels: Vec<&str> = sample
            .and_then(|sample| Some(sample.split_once('{')?.1.rsplit_once('}')?.0))
            .map(|labels| labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0)))
            .into_iter()
            .flatten()
            .filter(|label| *label != "le")
            .collect();
        let help = help.trim_end_matches('.');
        table.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    table
}

#[test]
fn the_manual_lists_every_metric_and_no_other() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let manual = std::fs::read_to_string(&path).unwrap();
    let marks = ["<!-- all metrics: begin -->\n", "<!-- all metrics: end -->"];
    let [begin, end] = marks.map(|mark| manual.find(mark).expect("the manual has a place for it"));
    let (before, rest) = manual.split_at(begin + marks[0].len());
    let (documented, after) = rest.split_at(end - before.len());
    let expected = table(&sample());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(&path, format!("{before}{expected}{after}")).unwrap();
    }
    assert_eq!(documented, expected, "UPDATE_GOLDEN=1 writes the table");
}
