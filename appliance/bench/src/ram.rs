//! Memory of the engine: what a thin volume costs before it is written, and after, and what a
//! larger device costs.
//!
//! What a store needs is taken when it opens. The numbers are what the process has resident more
//! than before. Devices are files that are all hole.

use std::fs;

use bdev_uring::Allocation;
use load::Rw;

use crate::direct::BLOCK_SIZE;
use crate::engine::{Rig, Scratch};
use crate::error::BenchError;
use crate::measures::{Writes, write};
use crate::options::Options;
use crate::report::Fact;

/// The thin volume.
const VOLUME_BYTES: u64 = 16 << 40;

/// Two devices: the difference of their engines is what a TiB costs.
const SMALL_BYTES: u64 = 64 << 30;
const LARGE_BYTES: u64 = SMALL_BYTES + (1 << 40);

const LOG_BYTES: u64 = 16 << 20;

/// Writes all over the thin volume: each makes an extent, and pages of the map.
const SCATTERED: u64 = 4000;

const PAGE_BYTES: u64 = 4096;

/// What the engine of a small device takes, a thin volume, writes all over it, and a TiB more.
///
/// # Errors
/// An engine that cannot be had, or a run that failed.
pub(crate) fn memory_use(options: &Options) -> Result<Vec<Fact>, BenchError> {
    let (small, thin, written) = thin_volume(options)?;
    let scratch = Scratch::create_with(&options.folder, LARGE_BYTES, Allocation::Sparse)?;
    let device = scratch.open()?;
    let before = resident()?;
    let rig = Rig::format(device.as_ref(), LOG_BYTES)?;
    let large = resident()?.saturating_sub(before);
    rig.shutdown();
    let kib = |bytes: u64| (bytes >> 10).saturating_mul(1000);
    Ok(vec![
        Fact::new("RAM of an engine, device of 64 GiB, buffers included", kib(small), "KiB"),
        Fact::new("RAM of a thin volume of 16 TiB, unwritten", kib(thin), "KiB"),
        Fact::new("RAM more after 4000 writes all over it", kib(written), "KiB"),
        Fact::new(
            "RAM of each TiB that a device is larger",
            kib(large.saturating_sub(small)),
            "KiB",
        ),
    ])
}

fn thin_volume(options: &Options) -> Result<(u64, u64, u64), BenchError> {
    let scratch = Scratch::create_with(&options.folder, SMALL_BYTES, Allocation::Sparse)?;
    let device = scratch.open()?;
    let before = resident()?;
    let mut rig = Rig::format(device.as_ref(), LOG_BYTES)?;
    let engine = resident()?;
    rig.add_volume(VOLUME_BYTES)?;
    drop(rig.queue(32)?);
    let thin = resident()?;
    let (rw, blocks) = (Rw::RandWrite, VOLUME_BYTES / u64::from(BLOCK_SIZE));
    let writes = Writes { rw, sizes: &[BLOCK_SIZE], blocks, ios: SCATTERED, seed: options.seed };
    write(&rig, writes, || false)?;
    let written = resident()?;
    rig.shutdown();
    let grown = |from: u64, to: u64| to.saturating_sub(from);
    Ok((grown(before, engine), grown(engine, thin), grown(thin, written)))
}

/// Bytes that the process has resident.
fn resident() -> Result<u64, BenchError> {
    let what = || "/proc/self/statm".to_owned();
    let text = fs::read_to_string("/proc/self/statm")
        .map_err(|source| BenchError::System { what: what(), source })?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * PAGE_BYTES).ok_or_else(|| BenchError::Usage(what()))
}
