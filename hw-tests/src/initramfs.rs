//! The initramfs: one busybox, an init script and the few modules that reach the host's files.
//!
//! It is written here, byte by byte, because the format ("newc" cpio) is a page long and building
//! it with `cpio` would need device nodes or a scratch tree.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::kernel::Kernel;

/// What the guest must load before it sees the host's root over 9p and its network card.
const MODULES: [&str; 4] = ["9p", "9pnet_virtio", "virtio_net", "overlay"];

const DIRECTORIES: [&str; 7] = ["bin", "dev", "proc", "sys", "lib", "root", "layers"];

const MODE_DIRECTORY: u32 = 0o040_755;
const MODE_PROGRAM: u32 = 0o100_755;
const MODE_FILE: u32 = 0o100_644;
const MODE_LINK: u32 = 0o120_777;

/// Builds the archive.
///
/// # Errors
/// When busybox or a module cannot be read, or a compressed module cannot be unpacked.
pub(crate) fn build(kernel: &Kernel, busybox: &Path, init: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.add(directory, MODE_DIRECTORY, b"");
    }
    let busybox = fs::read(busybox).with_context(|| format!("read {}", busybox.display()))?;
    archive.add("bin/busybox", MODE_PROGRAM, &busybox);
    archive.add("bin/sh", MODE_LINK, b"busybox");
    archive.add("init", MODE_PROGRAM, init.as_bytes());
    let mut order = String::new();
    for path in load_order(&kernel.modules, &MODULES)? {
        let file = kernel.modules.join(&path);
        let name = module_name(&path);
        archive.add(&format!("lib/{name}.ko"), MODE_FILE, &read_module(&file)?);
        order.push_str(name);
        order.push('\n');
    }
    archive.add("lib/order", MODE_FILE, order.as_bytes());
    Ok(archive.finish())
}

/// The module files to load, each after the ones it needs. Modules built into the kernel are not
/// in `modules.dep` and are left out.
fn load_order(modules: &Path, wanted: &[&str]) -> Result<Vec<String>> {
    let dependencies = fs::read_to_string(modules.join("modules.dep"))?;
    let builtin = fs::read_to_string(modules.join("modules.builtin")).unwrap_or_default();
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    for name in wanted {
        let line = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(path, _)| module_name(path) == *name);
        let Some((path, needs)) = line else {
            if builtin.lines().any(|path| module_name(path) == *name) {
                continue;
            }
            bail!("the kernel has no module {name}");
        };
        // modules.dep lists what is needed nearest first: the last entry depends on nothing.
        for path in needs.split_whitespace().rev().chain([path]) {
            if seen.insert(path.to_owned()) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file)
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let unpacker = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let result = Command::new(unpacker).arg("-dc").arg(path).output().context(unpacker)?;
    if !result.status.success() {
        bail!("{unpacker} cannot unpack {}", path.display());
    }
    Ok(result.stdout)
}

/// A cpio archive in the "newc" format that the kernel unpacks.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        self.entry(name, mode, self.entries, content);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, b"");
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, inode: u32, content: &[u8]) {
        let links = if mode == MODE_DIRECTORY { 2 } else { 1 };
        // inode mode uid gid nlink mtime filesize, four device numbers, namesize check
        let fields = [
            u64::from(inode),
            u64::from(mode),
            0,
            0,
            links,
            0,
            content.len() as u64,
            0,
            0,
            0,
            0,
            name.len() as u64 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_entries_are_aligned_and_sized() {
        let mut archive = Archive::default();
        archive.add("a", MODE_FILE, b"hello");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[54..62], b"00000005", "file size");
        assert_eq!(&bytes[94..102], b"00000002", "name size with its zero byte");
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..117], b"hello");
        assert_eq!(&bytes[120..126], b"070701", "the next entry is aligned");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn modules_are_loaded_after_what_they_need() {
        let modules = tempfile::tempdir().unwrap();
        let dep = "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
                   kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n\
                   kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz\n";
        fs::write(modules.path().join("modules.dep"), dep).unwrap();
        fs::write(modules.path().join("modules.builtin"), "kernel/virtio_net.ko\n").unwrap();
        let order = load_order(modules.path(), &["9p", "9pnet_virtio", "virtio_net"]).unwrap();
        let names: Vec<_> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["netfs", "9pnet", "9p", "9pnet_virtio"]);
        assert!(load_order(modules.path(), &["absent"]).is_err());
    }
}
