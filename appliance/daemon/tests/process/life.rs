//! Signals, restarts, files and what is logged.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread::Builder;
use std::time::Duration;

use crate::stand::{command, dir, holdfast, ok, start, start_with};

#[test]
fn volumes_and_exports_survive_sigterm_and_sigkill() {
    let dir = dir();
    let dir = dir.path();
    let process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 256MiB");
    ok(dir, "volume create db --size 64MiB --block-size 512");
    ok(dir, "volume create scratch --size 1GiB");
    ok(dir, "export add db --host nqn.2014-08.com.example:h");
    ok(dir, "volume resize db --size 128MiB");
    ok(dir, "volume delete scratch --yes");
    let volume = ok(dir, "volume show db -o json");
    assert!(volume.contains("\"size_bytes\": 134217728"), "{volume}");
    process.signal("-TERM");
    assert_eq!(process.wait().0, Some(0));
    assert!(!dir.join("state/endpoints.json").exists());

    for _ in 0..3 {
        let process = start(dir);
        assert_eq!(ok(dir, "volume show db -o json"), volume);
        assert!(ok(dir, "node info").contains("health:      ready"));
        assert!(ok(dir, "export list -o json").contains("\"online\": true"));
        process.signal("-KILL");
        process.wait();
    }
}

#[test]
fn a_killed_creation_leaves_a_volume_or_none_but_nothing_between() {
    let dir = dir();
    let dir = dir.path();
    let process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 256MiB");
    let creating = {
        let dir = dir.to_owned();
        let create = move || holdfast(&dir, "volume create db --size 64MiB").0;
        Builder::new().spawn(create).unwrap()
    };
    process.signal("-KILL");
    process.wait();
    creating.join().unwrap();
    let _process = start(dir);
    let (code, text) = holdfast(dir, "volume show db -o json");
    assert!(code == 3 || text.contains("\"state\": \"online\""), "{code} {text}");
    ok(dir, "volume create db --size 64MiB");
    assert!(ok(dir, "node info").contains("health:      ready"));
}

#[test]
fn log_lines_are_ascii_and_say_what_was_chosen() {
    let dir = dir();
    let process = start(dir.path());
    assert!(process.log.iter().all(|line| line.is_ascii()));
    let chosen = "io backend: requested auto, selected ";
    assert!(process.log.iter().any(|line| line.contains(chosen)), "{:?}", process.log);
}

#[test]
fn a_wrong_configuration_ends_with_2_and_every_complaint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "stat_dir = \"/x\"\n[nvme_tcp]\nlisten = [\"x\"]\n").unwrap();
    for arguments in [&["check-config"][..], &["--config"]] {
        let program = env!("CARGO_BIN_EXE_holdfastd");
        let output = Command::new(program).args(arguments).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("did you mean \"state_dir\"?"), "{text}");
        assert!(text.contains("c.toml:3: nvme_tcp.listen"), "{text}");
    }
}

#[test]
fn each_log_line_of_a_request_carries_its_id() {
    let dir = dir();
    let dir = dir.path();
    let process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 256MiB --request-id job-1");
    ok(dir, "volume create db --size 64MiB --request-id job-2");
    let (code, _) = holdfast(dir, "volume create db --size 65MiB --request-id job-3");
    assert_eq!(code, 4);
    process.signal("-TERM");
    let (code, log) = process.wait();
    assert_eq!(code, Some(0));
    for (id, method, message) in [
        ("job-1", "store.init", "io backend: requested auto, selected "),
        ("job-1", "store.init", "event=\"store_created\""),
        ("job-2", "volume.create", "event=\"volume_created\""),
        ("job-2", "volume.create", "request finished outcome=\"ok\""),
        ("job-3", "volume.create", "request refused outcome=\"already_exists\""),
    ] {
        let span = format!("request{{request_id={id} method=\"{method}\"}}");
        let found = log.iter().any(|line| line.contains(&span) && line.contains(message));
        assert!(found, "{span} ... {message}\nis not in\n{}", log.join("\n"));
    }
    assert!(log.iter().all(|line| line.is_ascii()));
}

#[test]
fn systemd_is_told_of_readiness_life_and_the_end() {
    let dir = dir();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let len = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    };
    let process = start_with(dir.path(), Some(&path));
    assert_eq!(hear().trim_end(), "READY=1");
    assert_eq!(hear().trim_end(), "WATCHDOG=1");
    process.signal("-TERM");
    let mut last = hear();
    while last.trim_end() == "WATCHDOG=1" {
        last = hear();
    }
    assert_eq!(last.trim_end(), "STOPPING=1");
    assert_eq!(process.wait().0, Some(0));
}

#[test]
fn a_second_daemon_in_the_same_directory_fails_and_harms_nothing() {
    let dir = dir();
    let dir = dir.path();
    let _process = start(dir);
    let output = command(dir).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("is it used by another node?"), "{text}");
    ok(dir, "node info");
    assert!(dir.join("state/endpoints.json").exists());
}

#[test]
fn a_copy_of_a_store_is_refused_and_the_original_serves_on() {
    let dir = dir();
    let dir = dir.path();
    let process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 64MiB");
    ok(dir, "volume create db --size 8MiB");
    process.signal("-TERM");
    assert_eq!(process.wait().0, Some(0));
    std::fs::copy(dir.join("disk"), dir.join("copy")).unwrap();
    let _process = start(dir);
    for _ in 0..2 {
        let (code, text) = holdfast(dir, "store add other --device DIR/copy");
        assert_eq!(code, 5, "{text}");
        assert!(text.contains("is a copy of store"), "{text}");
    }
    ok(dir, "volume resize db --size 16MiB");
    assert!(ok(dir, "node info").contains("health:      ready"));
}
