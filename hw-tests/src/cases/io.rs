//! Reads, writes, flushes, discards and zeroes, through one and several queues.

use anyhow::Result;

use crate::case::Case;
use crate::lab::Lab;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("io/one_queue_without_digests", |lab| fio(lab, 512, 1, "off")),
        Case::new("io/one_queue_with_digests", |lab| fio(lab, 512, 1, "on")),
        Case::new("io/two_queues_without_digests", |lab| fio(lab, 512, 2, "off")),
        Case::new("io/two_queues_with_digests", |lab| fio(lab, 512, 2, "on")),
        Case::new("io/two_queues_of_4096_byte_blocks_with_digests", |lab| fio(lab, 4096, 2, "on")),
        Case::new("io/fsync_and_flush_return", |lab| plain(lab, "flush.sh", 512)),
        Case::new("io/discard_and_write_zeroes_512", |lab| plain(lab, "discard.sh", 512)),
        Case::new("io/discard_and_write_zeroes_4096", |lab| plain(lab, "discard.sh", 4096)),
        Case::new("io/verify_copy_compare_errors_and_reset", commands).on_daemon(),
    ]
}

fn fio(lab: &mut Lab, block_size: u32, queues: u32, digests: &str) -> Result<()> {
    let target = lab.volume(block_size)?;
    let queues = queues.to_string();
    lab.script("fio-verify.sh", &target, &[("QUEUES", &queues), ("DIGESTS", digests)]).map(drop)
}

fn plain(lab: &mut Lab, script: &str, block_size: u32) -> Result<()> {
    let target = lab.volume(block_size)?;
    lab.script(script, &target, &[]).map(drop)
}

fn commands(lab: &mut Lab) -> Result<()> {
    let target = lab.volume(4096)?;
    lab.script("commands.sh", &target, &[("BLOCK_SIZE", "4096")]).map(drop)
}
