//! A byte that rots on the backing file is reported, never returned.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::case::Case;
use crate::dmesg::RECONNECT;
use crate::lab::Lab;

/// One large aligned write, which goes straight to its extent.
const PATTERN_BYTES: usize = 64 << 10;

/// Where in the pattern the byte rots: inside its third block.
const ROTTEN_BYTE: usize = 2 * 4096 + 1234;

const ALLOWED: [&str; 3] = ["medium error", "I/O error", "I/O Error"];

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("rot/a_flipped_byte_is_reported_on_read_and_never_returned", flipped_byte)
            .on_daemon()
            .allowing(&ALLOWED_OR_RECONNECT),
    ]
}

const ALLOWED_OR_RECONNECT: [&str; ALLOWED.len() + RECONNECT.len()] = {
    let mut all = [""; ALLOWED.len() + RECONNECT.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < ALLOWED.len() { ALLOWED[at] } else { RECONNECT[at - ALLOWED.len()] };
        at += 1;
    }
    all
};

fn flipped_byte(lab: &mut Lab) -> Result<()> {
    let target = lab.volume_named("rot", "rot", 4096)?;
    let pattern = random_bytes(PATTERN_BYTES)?;
    fs::write(lab.share().join("pattern"), &pattern)?;
    lab.script("rot-write.sh", &target, &[])?;

    let node = lab.node("rot")?;
    node.stop()?;
    let flipped = flip_everywhere(&node.path("store.img"), &pattern)?;
    ensure!(flipped > 0, "the pattern is not on the backing file");
    node.start()?;
    lab.script("rot-read.sh", &target, &[])?;
    Ok(())
}

fn random_bytes(count: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Flips one bit in every copy of the block that holds `ROTTEN_BYTE`; returns how many there were.
fn flip_everywhere(store: &Path, pattern: &[u8]) -> Result<u32> {
    let block = &pattern[ROTTEN_BYTE / 4096 * 4096..][..4096];
    let file = OpenOptions::new().read(true).write(true).open(store)?;
    let length = file.metadata()?.len();
    let mut window = vec![0; 1 << 20];
    let mut flipped = 0;
    let mut at = 0;
    // Every block is at least 512-byte aligned on the device; windows overlap by one block.
    while at < length {
        let count = file.read_at(&mut window, at)?;
        if count < block.len() {
            break;
        }
        for start in (0..=count - block.len()).step_by(512) {
            if window[start..start + 16] == block[..16] && &window[start..start + 4096] == block {
                let position = at + start as u64 + (ROTTEN_BYTE % 4096) as u64;
                file.write_all_at(&[block[ROTTEN_BYTE % 4096] ^ 0x10], position)?;
                flipped += 1;
            }
        }
        at += (window.len() - 4096) as u64;
    }
    file.sync_all()?;
    Ok(flipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_of_the_block_is_flipped_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let pattern = random_bytes(PATTERN_BYTES).unwrap();
        let mut bytes = vec![0; 3 << 20];
        // Across a window's end, and in the middle.
        for at in [(1 << 20) - 2048 - 8192, 2 << 20] {
            bytes[at..at + PATTERN_BYTES].copy_from_slice(&pattern);
        }
        fs::write(&store, &bytes).unwrap();
        assert_eq!(flip_everywhere(&store, &pattern).unwrap(), 2);
        let after = fs::read(&store).unwrap();
        let changed = after.iter().zip(&bytes).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 2);
    }
}
