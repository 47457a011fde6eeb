//! The text is what OpenMetrics asks for.

use api::{ByteLen, Health, ShardStats, StoreFlow, StoreStats};

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
            capacity: ByteLen::from_bytes(1 << 40),
            used: ByteLen::from_bytes(0),
            log_size: ByteLen::from_bytes(0),
            log_used: ByteLen::from_bytes(0),
            checkpoints: 0,
            device_written: 0,
            device_read: 0,
            integrity_errors: 0,
            flow: StoreFlow { host_written: 100, log_written: 150, ..StoreFlow::default() },
        }],
        volumes: vec![VolumeStats {
            name: "db".parse().unwrap(),
            read: io,
            write: IoCounters::default(),
            flush: IoCounters::default(),
            deallocate: IoCounters::default(),
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
        "holdfast_nvme_tcp_connections 0.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}
