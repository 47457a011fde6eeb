//! `holdfast bench` against the real daemon: found by discovery, asked before it writes, judged.

use std::path::Path;

use serde_json::Value;

use crate::host::{HOST, address};
use crate::stand::{Printed, dir, holdfast, ok, run, shown, start, start_with_volume};

const NQN: &str = "nqn.2026-11.dev.holdfast:test:db";

fn discovery(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("state/endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_str(&text).unwrap();
    endpoints["discovery"][0].as_str().unwrap().to_owned()
}

#[test]
fn a_volume_is_found_by_discovery_and_measured() {
    let dir = dir();
    let dir = dir.path();
    let _process = start_with_volume(dir);
    let service = discovery(dir);
    for target in [String::new(), NQN.to_owned()] {
        let line = format!("bench --discover {service} {target} --size 256k --iodepth 4");
        let value = shown(dir, &line);
        assert_eq!(value["target"]["subsystem"], NQN);
        assert_eq!(value["target"]["address"], address(dir).to_string());
        assert!(value["read"]["operations"].as_u64().unwrap() > 0, "{value}");
        let latency = &value["read"]["latency_ns"];
        let order = ["min", "p50", "p90", "p95", "p99", "p99.9", "p99.99", "max"];
        let order = order.map(|name| latency[name].as_u64().unwrap());
        assert!(order.is_sorted() && order[0] > 0, "{latency}");
        assert!(value.get("write").is_none() && value.get("verify").is_none(), "{value}");
    }
    let table = ok(dir, &format!("bench --discover {service} --time 50ms --rw read --bs 64k"));
    assert!(table.contains("read 64KiB qd32, ") && table.contains("P99.99"), "{table}");
    let (code, text) = holdfast(dir, &format!("bench --discover {service} {NQN}x"));
    assert!(code == 3 && text.contains(&format!("it shows {NQN}")), "{code} {text}");
}

#[test]
fn nothing_is_written_without_a_yes_and_what_is_written_is_read_back() {
    let dir = dir();
    let dir = dir.path();
    let _process = start_with_volume(dir);
    let target = format!("tcp://{}/{NQN}", address(dir));
    let (code, text) = holdfast(dir, &format!("bench {target} --rw randwrite --size 1m"));
    assert!(code == 2 && text.contains("overwrite the first 1MiB of 8MiB"), "{code} {text}");
    assert_eq!(shown(dir, "volume show db")["used_bytes"], 0, "nothing was written");
    for (rw, jobs, digests) in [("write", 1, ""), ("randrw", 2, " --hdgst --ddgst")] {
        let value = shown(
            dir,
            &format!("bench {target} --rw {rw} --size 1m --numjobs {jobs} --verify --yes{digests}"),
        );
        let count = |side: &str| value[side]["operations"].as_u64().unwrap_or(0);
        assert_eq!(count("read") + count("write"), 256, "once over the region: {value}");
        assert_eq!(value["verify"]["passed"], true, "{value}");
        let blocks = value["verify"]["blocks"].as_u64().unwrap();
        assert!(blocks > 0 && (rw != "write" || blocks == 256), "{value}");
    }
}

#[test]
fn a_rate_is_kept_to() {
    let dir = dir();
    let dir = dir.path();
    let _process = start_with_volume(dir);
    let target = format!("tcp://{}/{NQN}", address(dir));
    let value = shown(dir, &format!("bench {target} --size 128k --rate 100 --iodepth 8"));
    assert_eq!(value["read"]["operations"], 32);
    // The first comes at once, and a slow machine makes it longer only.
    assert!(value["elapsed_ns"].as_u64().unwrap() >= 310_000_000, "{value}");
}

#[test]
fn who_may_not_connect_is_told_why_and_what_to_do() {
    let dir = dir();
    let dir = dir.path();
    let process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 256MiB");
    ok(dir, "volume create db --size 8MiB");
    ok(dir, "export add db --host nqn.2026-11.io.example:h");
    let target = format!("tcp://{}/{NQN}", address(dir));
    let Printed { code, out, err } = run(dir, &format!("bench {target} --time 1s"));
    assert_eq!((code, out.as_str()), (5, ""), "{err}");
    assert!(err.contains("export hosts add") && err.contains(HOST), "{err}");
    let (code, text) = holdfast(dir, &format!("bench --discover {}", discovery(dir)));
    assert!(code == 3 && text.contains("none to this host"), "{code} {text}");
    let admitted = "--hostnqn nqn.2026-11.io.example:h";
    ok(dir, &format!("bench {target} --time 20ms {admitted}"));
    for (wrong, word) in [
        ("--bs 1000", "multiple of the blocks of 4096"),
        ("--size 9m", "the namespace has 8 MiB"),
        ("--nsid 7", "no namespace 7"),
        ("--verify", "needs a workload that writes"),
    ] {
        let (code, text) = holdfast(dir, &format!("bench {target} {admitted} {wrong}"));
        assert!(matches!(code, 2 | 6) && text.contains(word), "{wrong}: {code} {text}");
    }
    drop(process);
    let printed = run(dir, &format!("bench {target} --time 1s -o json"));
    assert_eq!((printed.code, printed.out.as_str()), (6, ""), "{}", printed.err);
    assert!(serde_json::from_str::<Value>(&printed.err).is_ok(), "{}", printed.err);
}
