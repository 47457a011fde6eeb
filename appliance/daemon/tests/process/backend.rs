//! Which I/O backend is taken, and what happens where io_uring cannot be had.

use std::path::Path;
use std::process::Output;

use seccompiler::{SeccompAction, SeccompFilter, TargetArch};

use crate::stand::{command, configure, dir, ok, start};

/// Runs the daemon to its end on a kernel that answers `errno` to `io_uring_setup`.
fn run_without_io_uring(dir: &Path, errno: i32) -> Output {
    let mut command = command(dir);
    let refused = || {
        let arch: TargetArch = std::env::consts::ARCH.try_into().unwrap();
        let rules = [(libc::SYS_io_uring_setup, Vec::new())].into();
        let errno = SeccompAction::Errno(errno.cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).unwrap();
        let program: seccompiler::BpfProgram = filter.try_into().unwrap();
        // Of this thread only; the child inherits it.
        seccompiler::apply_filter(&program).unwrap();
        command.output().unwrap()
    };
    std::thread::scope(|scope| scope.spawn(refused).join().unwrap())
}

#[test]
fn an_io_backend_that_is_required_is_what_is_selected() {
    let dir = dir();
    configure(dir.path(), "io_backend = \"IO_URING\"");
    let process = start(dir.path());
    let chosen = "io backend: requested io_uring, selected io_uring";
    assert!(process.log.iter().any(|line| line.contains(chosen)), "{:?}", process.log);
}

#[test]
fn the_standard_backend_serves_as_well() {
    let dir = dir();
    let dir = dir.path();
    configure(dir, "io_backend = \"standard\"");
    let _process = start(dir);
    ok(dir, "store init main --device DIR/disk --size 256MiB");
    ok(dir, "volume create db --size 64MiB");
    assert!(ok(dir, "store list -o json").contains("\"backend\": \"standard\""));
}

#[test]
fn the_start_fails_with_1_and_the_reason_when_a_required_io_uring_cannot_be_had() {
    // Row S170.
    for (errno, reason) in [(libc::ENOSYS, "not implemented"), (libc::EPERM, "not permitted")] {
        let dir = dir();
        configure(dir.path(), "io_backend = \"io_uring\"");
        let output = run_without_io_uring(dir.path(), errno);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let expected = "holdfastd: io_backend = \"io_uring\", but io_uring cannot be had: ";
        let last = text.lines().last().unwrap();
        assert!(last.starts_with(expected) && last.contains(reason), "{text}");
        assert!(!text.contains("the data plane is started"), "{text}");
    }
}

#[test]
fn auto_says_once_that_it_falls_back_and_the_start_fails_because_sockets_cannot() {
    // Row S169. Files have another way, sockets have none: the node says so and ends.
    let dir = dir();
    let output = run_without_io_uring(dir.path(), libc::ENOSYS);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let chosen: Vec<_> = text.lines().filter(|line| line.contains("io backend: ")).collect();
    assert_eq!(chosen.len(), 1, "{text}");
    let expected = "io backend: requested auto, selected standard (io_uring: ";
    assert!(chosen[0].contains(expected) && chosen[0].contains("not implemented"), "{text}");
    let last = text.lines().last().unwrap();
    let expected =
        "holdfastd: sockets need io_uring whatever io_backend says, and it cannot be had";
    assert!(last.starts_with(expected) && last.contains("not implemented"), "{text}");
}
