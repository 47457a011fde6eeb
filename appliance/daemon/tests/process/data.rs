//! A host writes over NVMe/TCP; what was acknowledged is there after kill -9 and after SIGTERM.

use std::collections::BTreeMap;

use bdev::Rng;
use load::ConnectError;

use crate::host::{BLOCKS, HOST, Host, address};
use crate::stand::{dir, ok, start, start_with_volume};

#[test]
fn acknowledged_writes_survive_sigkill_and_sigterm() {
    let dir = dir();
    let dir = dir.path();
    let mut process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 256MiB");
    ok(dir, "volume create db --size 8MiB");
    ok(dir, "export add db");
    let refused = Host::connect(address(dir));
    assert!(matches!(refused, Err(ConnectError::Failed { .. })), "nobody is on the list yet");
    process.wait_for(&format!("host {HOST} from 127.0.0.1:"));
    let told = process.log.last().unwrap();
    assert!(told.contains("session_refused") && told.contains("not on the allow"), "{told}");
    ok(dir, &format!("export hosts add db {HOST}"));

    let mut rng = Rng::new(7);
    let mut written = BTreeMap::new();
    let mut version = 0;
    for signal in ["-KILL", "-KILL", "-TERM"] {
        let mut host = Host::connect(address(dir)).unwrap();
        host.verify(&written);
        for _ in 0..25 {
            let blocks = [1, 1, 2, 16, 32][usize::try_from(rng.below(5)).unwrap()];
            let lba = rng.below(BLOCKS - blocks);
            let versions: Vec<u64> = (version..version + blocks).collect();
            host.write(lba, &versions);
            written.extend((lba..lba + blocks).zip(versions));
            version += blocks;
        }
        let session = ok(dir, "session list -o json");
        assert!(session.contains(HOST) && session.contains("\"io_queues\": 1"), "{session}");
        process.signal(signal);
        let (code, log) = process.wait();
        let expected = if signal == "-TERM" { Some(0) } else { None };
        assert_eq!(code, expected, "{}", log.join("\n"));
        process = start(dir);
    }
    Host::connect(address(dir)).unwrap().verify(&written);
}

#[test]
fn sigterm_waits_for_a_host_that_has_not_taken_its_answers_and_again_stops_at_once() {
    let dir = dir();
    let dir = dir.path();
    let mut process = start_with_volume(dir);
    let mut host = Host::connect(address(dir)).unwrap();
    let owed = host.read_and_stop_listening();
    assert!(owed > 32, "{owed} answers are more than sockets hold");
    process.signal("-TERM");
    process.wait_for("SIGTERM: draining; again to stop at once");
    process.signal("-TERM");
    let (code, log) = process.wait();
    // 0 would mean that the first one did not wait for the host.
    assert_eq!(code, Some(1), "{}", log.join("\n"));
    let last = log.last().unwrap();
    assert!(last.contains("SIGTERM again: stopping at once"), "{}", log.join("\n"));
    assert!(!log.iter().any(|line| line.contains("INFO stopped")), "{}", log.join("\n"));
    let _process = start(dir);
    Host::connect(address(dir)).unwrap().verify(&BTreeMap::new());
}
