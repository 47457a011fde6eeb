//! Looking for foreign data before a store is written onto a device.
//!
//! Known signatures are named, so that the operator sees what would be destroyed; anything else
//! that is not zero in the first or last MiB is found as well.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::limits::PROBE_BYTES;

/// What is on a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Probe {
    /// Bytes of the device.
    pub(crate) size: u64,
    /// Names of what was found; empty when both ends are zero.
    pub(crate) found: Vec<String>,
}

/// Looks at both ends of the device or file at `path`.
///
/// A block device is opened exclusively: one that is mounted, or part of an array or a volume
/// group, is refused by the kernel (`EBUSY`).
pub(crate) fn probe(path: &Path) -> io::Result<Probe> {
    let is_block = std::fs::metadata(path)?.file_type().is_block_device();
    let mut options = OpenOptions::new();
    options.read(true);
    if is_block {
        options.custom_flags(libc::O_EXCL);
    }
    let file = options.open(path)?;
    let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
    let head = read_at(&file, 0, PROBE_BYTES.min(size))?;
    let tail_start = size.saturating_sub(PROBE_BYTES);
    let tail = read_at(&file, tail_start, size - tail_start)?;
    Ok(Probe { size, found: judge(&head, &tail, tail_start) })
}

fn read_at(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len).expect("at most PROBE_BYTES");
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// A signature: name, offset from the beginning, bytes.
type Signature = (&'static str, usize, &'static [u8]);

/// From the documentation of each format; offsets and bytes agree with libblkid.
const HEAD: [Signature; 28] = [
    ("a Holdfast store", 0, b"HOLDFAST"),
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("an ext2, ext3 or ext4 file system", 0x438, b"\x53\xef"),
    ("an XFS file system", 0, b"XFSB"),
    ("a Btrfs file system", 0x1_0040, b"_BHRfS_M"),
    ("an NTFS file system", 3, b"NTFS    "),
    ("an exFAT file system", 3, b"EXFAT   "),
    ("a FAT file system", 54, b"FAT1"),
    ("a FAT file system", 82, b"FAT32   "),
    ("an F2FS file system", 1024, b"\x10\x20\xf5\xf2"),
    ("a ReiserFS file system", 0x1_0034, b"ReIsEr"),
    ("an ISO 9660 file system", 0x8001, b"CD001"),
    ("a SquashFS file system", 0, b"hsqs"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("an LVM physical volume", 0, b"LABELONE"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an LVM physical volume", 1024, b"LABELONE"),
    ("an LVM physical volume", 1536, b"LABELONE"),
    ("an MD RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    ("an MD RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("a LUKS container", 0, b"LUKS\xba\xbe"),
    (
        "a bcache device",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    ),
    ("a Ceph BlueStore device", 0, b"bluestore block device"),
    ("an SPDK blobstore", 0, b"SPDKBLOB"),
    ("an Oracle ASM disk", 32, b"ORCLDISK"),
    ("a VMFS volume", 0x10_0000 - 4, b"\x0d\xd0\x01\xc0"),
    ("a boot sector or MBR partition table", 510, b"\x55\xaa"),
];

/// ZFS: two labels at the beginning and two at the end, each with an array of uberblocks.
const ZFS_MAGIC: [[u8; 8]; 2] = [0x00ba_b10c_u64.to_le_bytes(), 0x00ba_b10c_u64.to_be_bytes()];
const ZFS_STEP: usize = 1024;

/// MD superblocks 0.90 and 1.0 are in the last 128 KiB, 4 KiB aligned.
const MD_MAGIC: [[u8; 4]; 2] = [0xa92b_4efc_u32.to_le_bytes(), 0xa92b_4efc_u32.to_be_bytes()];
const MD_STEP: usize = 4096;

fn judge(head: &[u8], tail: &[u8], tail_start: u64) -> Vec<String> {
    let mut names = Vec::new();
    for (name, offset, bytes) in HEAD {
        if head.get(offset..offset + bytes.len()) == Some(bytes) {
            names.push(name);
        }
    }
    let starts = |part: &[u8], magics: &[&[u8]]| magics.iter().any(|magic| part.starts_with(magic));
    let zfs: Vec<&[u8]> = ZFS_MAGIC.iter().map(<[u8; 8]>::as_slice).collect();
    let mut ends = head.chunks(ZFS_STEP).chain(tail.chunks(ZFS_STEP));
    if ends.any(|part| starts(part, &zfs)) {
        names.push("a ZFS pool member");
    }
    let md: Vec<&[u8]> = MD_MAGIC.iter().map(<[u8; 4]>::as_slice).collect();
    if tail.chunks(MD_STEP).any(|part| starts(part, &md)) {
        names.push("an MD RAID member");
    }
    if tail.len() >= 512 && tail[tail.len() - 512..].starts_with(b"EFI PART") {
        names.push("a backup GPT partition table");
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    if names.is_empty() {
        return unknown_data(head, tail, tail_start).into_iter().collect();
    }
    names.into_iter().map(str::to_owned).collect()
}

/// The first byte that is not zero, if there is one.
fn unknown_data(head: &[u8], tail: &[u8], tail_start: u64) -> Option<String> {
    let first = |bytes: &[u8], start: u64| {
        let index = bytes.iter().position(|&byte| byte != 0)?;
        Some(start + u64::try_from(index).expect("at most PROBE_BYTES"))
    };
    let at = first(head, 0).or_else(|| first(tail, tail_start))?;
    Some(format!("unknown data (the first byte that is not zero is at {at})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(offset: usize, bytes: &[u8]) -> Vec<String> {
        let mut head = vec![0; 1 << 20];
        head[offset..offset + bytes.len()].copy_from_slice(bytes);
        judge(&head, &[], 0)
    }

    #[test]
    fn each_known_signature_is_named() {
        for (name, offset, bytes) in HEAD {
            assert_eq!(with(offset, bytes), [name]);
        }
        assert_eq!(with(131_072, &ZFS_MAGIC[0]), ["a ZFS pool member"]);
    }

    #[test]
    fn signatures_at_the_end_are_found() {
        let head = vec![0; 1 << 20];
        let mut tail = vec![0; 1 << 20];
        tail[(1 << 20) - 65_536..][..4].copy_from_slice(&MD_MAGIC[0]);
        assert_eq!(judge(&head, &tail, 1 << 30), ["an MD RAID member"]);
        let mut tail = vec![0; 1 << 20];
        tail[(1 << 20) - 512..][..8].copy_from_slice(b"EFI PART");
        assert_eq!(judge(&head, &tail, 1 << 30), ["a backup GPT partition table"]);
    }

    #[test]
    fn unknown_data_is_found_at_both_ends() {
        assert_eq!(with(77, b"x"), ["unknown data (the first byte that is not zero is at 77)"]);
        let head = vec![0; 1 << 20];
        let mut tail = vec![0; 1 << 20];
        tail[5] = 1;
        let found = judge(&head, &tail, 1 << 30);
        assert_eq!(found, ["unknown data (the first byte that is not zero is at 1073741829)"]);
    }

    #[test]
    fn a_device_of_zeroes_is_empty_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, 511, 4096, 1 << 20, (1 << 20) + 1, 5 << 20] {
            let path = dir.path().join("disk");
            File::create(&path).unwrap().set_len(size).unwrap();
            assert_eq!(probe(&path).unwrap(), Probe { size, found: vec![] });
        }
    }
}
