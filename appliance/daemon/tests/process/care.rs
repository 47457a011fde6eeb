//! Check and scrub of a real store: what they find, name and mend, and what survives kill -9.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bdev::Status;

use crate::host::{BLOCK, BLOCKS, Host, address, content};
use crate::stand::{Process, dir, holdfast, json, metric, ok, shown, start, start_with_volume};

const LBA: u64 = 100;

/// Stops cleanly, so that everything is in its place and the log empty.
fn stop(process: Process) {
    process.signal("-TERM");
    assert_eq!(process.wait().0, Some(0));
}

/// Turns one bit of the backing file over.
fn flip(dir: &Path, byte: u64) {
    let file = File::options().read(true).write(true).open(dir.join("disk")).unwrap();
    let mut found = [0];
    file.read_exact_at(&mut found, byte).unwrap();
    file.write_all_at(&[found[0] ^ 0x10], byte).unwrap();
    file.sync_all().unwrap();
}

/// Where a block of the volume is: behind the log, which may have it as well.
fn place_of(dir: &Path, wanted: &[u8]) -> u64 {
    let disk = std::fs::read(dir.join("disk")).unwrap();
    let at = disk.chunks(BLOCK).rposition(|block| block == wanted).unwrap();
    (at * BLOCK) as u64
}

/// The second copy of a metadata page whose pointer is at this byte of the superblock
/// (`docs/formats/store.md`).
fn second_copy(dir: &Path, pointer: u64) -> u64 {
    let file = File::open(dir.join("disk")).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, pointer).unwrap();
    let value = u64::from_le_bytes(bytes);
    let (page, distance) = (value & ((1 << 48) - 1), value >> 48);
    assert!(page > 0 && distance > 0, "two copies: {value:#x}");
    (page + 16 * distance) * BLOCK as u64
}

const CATALOG: u64 = 152;
const SPACE: u64 = 168;

/// Waits until an event has such a text.
fn wait_for_event(dir: &Path, text: &str) {
    while !ok(dir, "node events").contains(text) {
        std::thread::yield_now();
    }
}

#[test]
fn a_flipped_bit_of_data_is_found_and_named_by_scrub() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    let mut host = Host::connect(address(dir)).unwrap();
    host.write(LBA, &[1, 2, 3]);
    drop(host);
    stop(process);
    let place = place_of(dir, &content(LBA + 1, 2));
    flip(dir, place + 77);

    let process = start(dir);
    assert_eq!(holdfast(dir, "store check").0, 0, "the map is whole: data is the scrub's task");
    let (code, text) = holdfast(dir, "store scrub start --rate 1GiB --wait");
    assert_eq!(code, 8, "{text}");
    assert!(text.contains("last found:   1 damaged, 0 of that healed"), "{text}");
    let (block, byte) = (LBA + 1, (LBA + 1) * BLOCK as u64);
    wait_for_event(
        dir,
        &format!("block {block} of volume db (byte {byte} of it; byte {place} of the device)"),
    );
    assert_eq!(metric(dir, "holdfast_store_scrub_last_found{store=\"main\"}"), 1.0);
    // It is over when the block is overwritten.
    Host::connect(address(dir)).unwrap().write(LBA + 1, &[4]);
    ok(dir, "volume snapshot create db@written");
    ok(dir, "volume snapshot show db@written");
    let text = ok(dir, "store scrub start --wait");
    assert!(text.contains("last found:   0 damaged, 0 of that healed"), "{text}");
    assert!(text.contains("passes:       2"), "{text}");
    stop(process);
}

#[test]
fn a_flipped_bit_of_metadata_is_named_and_mended_by_check_and_by_scrub() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    Host::connect(address(dir)).unwrap().write(LBA, &[1]);
    stop(process);
    let catalog = second_copy(dir, CATALOG);
    flip(dir, catalog + 300);
    let process = start(dir);
    let (code, report) = json(dir, "store check");
    assert_eq!(code, 8, "{report}");
    let finding = &report["findings"][0];
    assert_eq!((&finding["kind"], &finding["repaired"]), (&"page_copy".into(), &true.into()));
    let page = format!("page {} (catalog ", catalog / BLOCK as u64);
    assert!(finding["message"].as_str().unwrap().contains(&page), "{report}");
    wait_for_event(dir, &page);
    // It is rewritten in the background.
    while holdfast(dir, "store check").0 == 8 {}
    assert!(ok(dir, "store check").contains("maps, owners and space agree"));

    stop(process);
    flip(dir, second_copy(dir, SPACE) + 300);
    let process = start(dir);
    let (code, text) = holdfast(dir, "store scrub start --rate 1GiB --wait");
    assert_eq!(code, 8, "{text}");
    assert!(text.contains("last found:   1 damaged, 1 of that healed"), "{text}");
    ok(dir, "store scrub start --wait");
    stop(process);
}

#[test]
fn a_scrub_goes_on_where_kill_9_interrupted_it() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    let mut host = Host::connect(address(dir)).unwrap();
    for lba in (0..BLOCKS).step_by(32) {
        host.write(lba, &[9; 32]);
    }
    // It is in the map: there is something to read.
    ok(dir, "volume snapshot create db@full");
    ok(dir, "volume snapshot show db@full");
    ok(dir, "store scrub start --rate 1MiB");
    let covered = |dir: &Path| shown(dir, "store scrub status")["covered_bytes"].as_u64().unwrap();
    while covered(dir) < 1 << 20 {
        std::thread::yield_now();
    }
    let before = covered(dir);
    // Its place is in each checkpoint, and materialising a snapshot takes one.
    host.write(0, &[10]);
    ok(dir, "volume snapshot create db@later");
    ok(dir, "volume snapshot show db@later");
    process.signal("-KILL");
    process.wait();

    let process = start(dir);
    let scrub = shown(dir, "store scrub status");
    assert!(scrub["covered_bytes"].as_u64().unwrap() >= before, "{before}: {scrub}");
    assert_eq!(scrub["passes"], 0);
    assert_eq!(scrub["rate_bytes"], 1 << 20, "the wish is kept as well");
    ok(dir, "store scrub pause");
    process.signal("-KILL");
    process.wait();
    let process = start(dir);
    let scrub = shown(dir, "store scrub status");
    assert_eq!((&scrub["paused"], &scrub["running"]), (&true.into(), &false.into()));
    assert!(scrub["covered_bytes"].as_u64().unwrap() >= before, "{before}: {scrub}");
    ok(dir, "store scrub start --rate 1GiB --wait");
    let scrub = shown(dir, "store scrub status");
    assert_eq!((&scrub["passes"], &scrub["last_found"]), (&1.into(), &0.into()));
    assert!(scrub["finished_ms"].as_u64().unwrap() > 1_700_000_000_000, "the node knows the time");
    stop(process);
}

#[test]
fn a_log_has_the_size_that_was_asked_for() {
    let dir = dir();
    let dir = dir.path();
    let process = start(dir);
    let (code, text) = holdfast(dir, "store init main --device DIR/disk --log-size 1GiB");
    assert_eq!(code, 2, "{text}");
    ok(dir, "store init main --device DIR/disk --size 256MiB --log-size 48MiB");
    assert_eq!(shown(dir, "store list")[0]["log_size_bytes"], 48 << 20);
    assert_eq!(metric(dir, "holdfast_store_log_bytes{store=\"main\"}"), f64::from(48 << 20));
    let demand = "--write-rate 2MiB --destage-rate 1MiB --burst";
    let advice = shown(dir, &format!("store advise main {demand} 10"));
    assert_eq!((&advice["enough"], &advice["seconds_until_slow"]), (&true.into(), &12.into()));
    let advice = shown(dir, &format!("store advise main {demand} 20"));
    assert_eq!(advice["enough"], false);
    stop(process);
}

#[test]
fn a_device_that_only_fails_is_quarantined_and_opened_again_when_it_is_back() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    ok(dir, "store scrub pause");
    ok(dir, "store init other --device DIR/other --size 64MiB");
    ok(dir, "volume create fine --store other --size 8MiB");
    ok(dir, "export add fine --allow-any-host");
    Host::connect(address(dir)).unwrap().write(LBA, &[1]);
    stop(process);
    let disk = dir.join("disk");
    std::fs::copy(&disk, dir.join("good")).unwrap();

    let process = start(dir);
    let mut host = Host::connect(address(dir)).unwrap();
    assert_eq!(host.try_read(LBA), Status::Ok, "the map is read");
    // The device is gone, as far as data goes.
    File::options().write(true).open(&disk).unwrap().set_len(1 << 20).unwrap();
    while !ok(dir, "node events").contains("store_quarantined  main: the device is quarantined") {
        assert_ne!(host.try_read(LBA), Status::Ok);
    }
    assert_eq!(shown(dir, "store list")[0]["state"], "failed");
    assert_eq!(metric(dir, "holdfast_store_health{store=\"main\"}"), 2.0);
    while shown(dir, "node info")["health"] != "degraded" {}
    assert_eq!(holdfast(dir, "store check main").0, 5);
    let mut neighbour = Host::connect_to(address(dir), "fine").unwrap();
    neighbour.write(0, &[1]);
    assert_eq!(neighbour.try_read(0), Status::Ok, "the node's other store goes on");

    std::fs::copy(dir.join("good"), &disk).unwrap();
    ok(dir, "store add main --device DIR/disk");
    assert_eq!(shown(dir, "store list")[0]["state"], "online");
    drop(host);
    let mut host = Host::connect(address(dir)).unwrap();
    assert_eq!(host.try_read(LBA), Status::Ok);
    host.write(LBA, &[2]);
    drop((host, neighbour));
    stop(process);
}
