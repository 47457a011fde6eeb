//! Real file systems are made, used, checked and trimmed.

use anyhow::Result;

use crate::case::Case;
use crate::lab::Lab;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("filesystem/ext4_on_512_byte_blocks", |lab| filesystem(lab, "ext4", 512)),
        Case::new("filesystem/xfs_on_4096_byte_blocks", |lab| filesystem(lab, "xfs", 4096)),
    ]
}

fn filesystem(lab: &mut Lab, kind: &str, block_size: u32) -> Result<()> {
    let target = lab.volume(block_size)?;
    lab.script("filesystem.sh", &target, &[("FS", kind)]).map(drop)
}
