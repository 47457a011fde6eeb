//! The programs the lab runs, on the host and (through the shared root) in the guest.

use std::path::{Path, PathBuf};

/// Where programs are looked for: like an administrator's, whatever the caller's `PATH` says.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What must be there, with the Debian package that brings it.
pub(crate) const NEEDED: [(&str, &str); 13] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("fio", "fio"),
    ("nvme", "nvme-cli"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
    ("ip", "iproute2"),
    ("blkdiscard", "util-linux"),
    ("setpriv", "util-linux"),
    ("sysctl", "procps"),
    ("sha256sum", "coreutils"),
];

/// The full path of a program, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|directory| Path::new(directory).join(program)).find(|path| path.is_file())
}

/// The packages of the programs that are not installed.
pub(crate) fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<_> = NEEDED
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    missing
}
