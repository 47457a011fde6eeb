//! Snapshots, clones and restores of a volume that a host uses, with kill -9 between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bdev::Rng;

use crate::host::{BLOCKS, Host, address};
use crate::stand::{Process, dir, holdfast, metric, ok, start, start_with_volume};

/// Blocks of a unit of comparison.
const UNIT_BLOCKS: u64 = 16;

/// What a volume holds: versions by block.
type Written = BTreeMap<u64, u64>;

/// Writes blocks at random over what is there; the units that they are in.
fn write(dir: &Path, volume: &str, rng: &mut Rng, written: &mut Written) -> BTreeSet<u64> {
    let mut host = Host::connect_to(address(dir), volume).unwrap();
    host.verify(written);
    let mut units = BTreeSet::new();
    for _ in 0..12 {
        let blocks = [1, 3, 16, 32][usize::try_from(rng.below(4)).unwrap()];
        let lba = rng.below(BLOCKS - blocks);
        let versions: Vec<u64> = (0..blocks).map(|_| rng.next_u64() >> 24).collect();
        host.write(lba, &versions);
        written.extend((lba..lba + blocks).zip(versions));
        units.extend((lba..lba + blocks).map(|block| block / UNIT_BLOCKS));
    }
    units
}

fn verify(dir: &Path, volume: &str, written: &Written) {
    Host::connect_to(address(dir), volume).unwrap().verify(written);
}

/// The units that a comparison shows.
fn diff(dir: &Path, arguments: &str) -> BTreeSet<u64> {
    let text = ok(dir, &format!("volume diff {arguments} -o json"));
    let ranges = text.lines().filter(|line| line.starts_with('{')).flat_map(|line| {
        let range: serde_json::Value = serde_json::from_str(line).unwrap();
        let [offset, length] = ["offset_bytes", "length_bytes"].map(|key| range[key].as_u64());
        let unit = UNIT_BLOCKS << 12;
        let (offset, length) = (offset.unwrap(), length.unwrap());
        assert!(offset % unit == 0 && length % unit == 0, "{line}");
        offset / unit..(offset + length) / unit
    });
    ranges.collect()
}

fn kill_and_start(process: Process, dir: &Path) -> Process {
    process.signal("-KILL");
    process.wait();
    start(dir)
}

#[test]
fn snapshots_clones_and_restores_hold_what_they_say_through_kill_9() {
    let dir = dir();
    let dir = dir.path();
    let mut process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 256MiB");
    ok(dir, "volume create db --size 8MiB");
    ok(dir, "volume create log --size 8MiB");
    ok(dir, "export add db --allow-any-host");
    ok(dir, "export add log --allow-any-host");
    let mut rng = Rng::new(11);
    let (mut db, mut log) = (Written::new(), Written::new());

    let first_units = write(dir, "db", &mut rng, &mut db);
    write(dir, "log", &mut rng, &mut log);
    ok(dir, "volume snapshot create db@one log@one");
    let (db_one, log_one) = (db.clone(), log.clone());
    process = kill_and_start(process, dir);
    let second_units = write(dir, "db", &mut rng, &mut db);
    write(dir, "log", &mut rng, &mut log);
    ok(dir, "volume snapshot create db@two");
    let db_two = db.clone();
    assert_eq!(diff(dir, "db@one"), first_units);
    assert_eq!(diff(dir, "db@two --base db@one"), second_units);
    process = kill_and_start(process, dir);
    assert_eq!(diff(dir, "db@two --base db@one"), second_units);

    ok(dir, "volume clone db@one test");
    ok(dir, "export add test --allow-any-host");
    let mut test = db_one.clone();
    write(dir, "test", &mut rng, &mut test);
    let third_units = write(dir, "db", &mut rng, &mut db);
    assert_eq!(diff(dir, "db --base db@two"), third_units, "since then, until now");
    assert!(!ok(dir, "volume snapshot list").contains("tmp"), "it left nothing behind");
    process = kill_and_start(process, dir);
    verify(dir, "test", &test);
    verify(dir, "db", &db);

    // A host stays connected while its volume is taken back.
    let mut host = Host::connect(address(dir)).unwrap();
    host.verify(&db);
    ok(dir, "volume restore db@one --yes");
    host.verify(&db_one);
    ok(dir, "volume restore log@one --yes");
    drop(host);
    process = kill_and_start(process, dir);
    verify(dir, "db", &db_one);
    verify(dir, "log", &log_one);
    ok(dir, "volume restore db@two --yes");
    db = db_two;
    write(dir, "db", &mut rng, &mut db);

    ok(dir, "volume snapshot delete db@one --yes");
    process = kill_and_start(process, dir);
    verify(dir, "test", &test);
    verify(dir, "db", &db);
    ok(dir, "export remove db --yes");
    let (code, text) = holdfast(dir, "volume delete db --yes");
    assert_eq!(code, 5, "{text}");
    ok(dir, "volume delete db --snapshots --yes");
    process = kill_and_start(process, dir);
    verify(dir, "test", &test);
    assert_eq!(holdfast(dir, "volume show db").0, 3);
    assert!(ok(dir, "volume snapshot list").starts_with("NAME"), "log@one is left");
    assert!(ok(dir, "node info").contains("health:      ready"));
    let text = ok(dir, "store check");
    assert!(text.contains("maps, owners and space agree"), "{text}");
    process.signal("-TERM");
    assert_eq!(process.wait().0, Some(0));
}

#[test]
fn limits_are_back_after_kill_9_and_hold_a_host_back() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    ok(dir, "volume qos db --iops 10 --iops-burst 10");
    let process = kill_and_start(process, dir);
    assert_eq!(ok(dir, "volume qos db"), "volume db: 10 operations/s (burst 10)\n");
    let mut host = Host::connect(address(dir)).unwrap();
    let throttled = || metric(dir, "holdfast_volume_throttled_total{volume=\"db\"}");
    let waited = || metric(dir, "holdfast_volume_throttled_time_seconds_total{volume=\"db\"}");
    for block in 0..3 {
        host.write(block, &[1]);
    }
    assert_eq!((throttled(), waited()), (0.0, 0.0), "ten at once are allowed");
    for block in 0..25 {
        host.write(block, &[1]);
    }
    let (times, seconds) = (throttled(), waited());
    assert!(times > 0.0 && seconds > 0.0, "{times} times, {seconds} s");
    ok(dir, "volume qos db --unlimited");
    for block in 0..100 {
        host.write(block, &[1]);
    }
    assert!(throttled() <= times, "nothing waits any more");
    process.signal("-KILL");
    process.wait();
}

#[test]
fn a_volume_shrinks_only_where_nothing_is_written() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    let mut host = Host::connect(address(dir)).unwrap();
    host.write(0, &[1]);
    ok(dir, "volume resize db --size 16MiB");
    host.write(2048 + 512, &[7]);
    let (code, text) = holdfast(dir, "volume resize db --size 12MiB");
    assert_eq!(code, 5, "without the flag: {text}");
    assert!(text.contains("--shrink"), "{text}");
    let (code, text) = holdfast(dir, "volume resize db --size 8MiB --shrink");
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("there is data beyond the new size"), "{text}");
    ok(dir, "volume resize db --size 12MiB --shrink");
    drop(host);
    let _process = kill_and_start(process, dir);
    assert!(ok(dir, "volume show db").contains("size:       12MiB"));
    assert!(ok(dir, "node info").contains("health:      ready"));
}
