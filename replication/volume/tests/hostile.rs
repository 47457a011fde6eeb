//! On a disk that fails, rots, loses and misdirects, requests may fail; none returns anything that
//! was not written, and nothing panics.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::Rng;
use bdev_sim::{FaultPlan, Image, PerMillion, SimDisk};
use support::workload::Workload;
use support::{Rig, env, options};

const LOG_START: u64 = 131_072;
const LOG_BYTES: u64 = 1 << 20;

fn plan(seed: u64) -> FaultPlan {
    let mut rng = Rng::new(seed).fork("plan");
    let mut some = |most: u64| match rng.below(3) {
        0 => PerMillion::NEVER,
        _ => PerMillion(u32::try_from(rng.below(most)).unwrap()),
    };
    FaultPlan {
        read_error: some(20_000),
        write_error: some(20_000),
        flush_error: some(50_000),
        lost_write: some(10_000),
        misdirected_write: some(10_000),
        rot: some(10_000),
        stall: some(20_000),
        ..FaultPlan::power_cuts(seed)
    }
}

fn endure(seed: u64) {
    let label = format!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume hostile");
    let disk = SimDisk::new(4096, 5120, FaultPlan::power_cuts(seed));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let mut workload = Workload::create(&mut rig, seed, &label);
    workload.tolerant = true;
    workload.run(&mut rig, 100);
    let hostile = plan(seed);
    rig.disk.replan(|plan| *plan = hostile);
    workload.run(&mut rig, 400);
    // A mount of what is left succeeds or says why not; what it serves is checked again.
    let mut models = workload.models();
    drop(workload);
    rig.disk.replan(|plan| *plan = FaultPlan::power_cuts(seed));
    if let Ok(rig) = Rig::open(rig.disk.image(), FaultPlan::reliable(seed), &options()) {
        for model in &mut models {
            // Lost writes make old versions legal; garbage never is.
            for sector in &mut model.sectors {
                for version in sector.iter_mut() {
                    (version.acknowledged, version.submitted) = (None, 0);
                }
                sector[0].acknowledged = Some(0);
            }
            model.writes.clear();
        }
        let mut rig = rig;
        match Workload::verify(&mut rig, &mut models, 0) {
            Ok(()) => {}
            Err(what) if what.contains("Integrity") || what.contains("is gone") => {}
            Err(what) => panic!("{label}: {what}"),
        }
    }
}

#[test]
fn hostile_disk_never_makes_garbage() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 6));
    for seed in seed..seed + rounds {
        endure(seed);
    }
}

/// The headers of the log's groups from its tail on: device byte and length. Each has the CRC of
/// the one before it.
fn chain_of(image: &Image) -> Vec<(u64, usize)> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let [a, b] = [0, 65_536].map(|at| bytes_of(image, at, 128));
    let newest = if number(&a[56..64]) >= number(&b[56..64]) { a } else { b };
    let tail = number(&newest[120..128]);
    let mut headers = Vec::new();
    for at in (LOG_START..LOG_START + LOG_BYTES).step_by(4096) {
        let bytes = bytes_of(image, at, 96);
        let position = number(&bytes[32..40]);
        if bytes[8..16] == *b"HFLOG\0\0\x01" && position >= tail {
            headers.push((position, at, usize::from(bytes[66]).clamp(1, 4) * 4096));
        }
    }
    headers.sort_unstable();
    headers.into_iter().map(|(_, at, len)| (at, len)).collect()
}

fn bytes_of(image: &Image, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    image.read(at, &mut bytes);
    bytes
}

/// Changes fields of some records, and makes all checksums and chain values of the log right again.
fn forge(image: &mut Image, rng: &mut Rng) {
    let chain = chain_of(image);
    let most = rng.between(1, 6);
    let mut crcs: Option<([u8; 4], [u8; 4])> = None;
    for (index, &(at, len)) in chain.iter().enumerate() {
        let mut bytes = bytes_of(image, at, len);
        if let Some((old, new)) = crcs
            && bytes[4..8] == old
        {
            bytes[4..8].copy_from_slice(&new);
        }
        let old: [u8; 4] = bytes[..4].try_into().unwrap();
        if rng.below(chain.len() as u64) < most || index + 1 == chain.len() {
            forge_record(&mut bytes[96..], rng);
        }
        let crc = wal::crc32c(&bytes[4..]).to_le_bytes();
        bytes[..4].copy_from_slice(&crc);
        crcs = Some((old, crc));
        image.write(at, &bytes);
    }
}

/// Changes a field of one of the first records of a group.
fn forge_record(entries: &mut [u8], rng: &mut Rng) {
    let mut at = 0;
    for _ in 0..rng.below(4) {
        let words = usize::from(u16::from_le_bytes([entries[at + 2], entries[at + 3]]));
        if at + 2 * 32 + words * 4 < entries.len() && words <= 128 {
            at += 32 + words * 4;
        }
    }
    let entry = &mut entries[at..at + 32];
    let number = match rng.below(6) {
        0 => 0,
        1 => rng.below(8),
        2 => rng.below(400),
        3 => u64::MAX - rng.below(80),
        4 => 1 << rng.below(64),
        _ => rng.next_u64(),
    };
    match rng.below(6) {
        0 => entry[0] = u8::try_from(rng.below(10)).unwrap(),
        1 => entry[2] = u8::try_from(number & 0x7f).unwrap(),
        2 => entry[4..8].copy_from_slice(&number.to_le_bytes()[..4]),
        3 => entry[8..16].copy_from_slice(&number.to_le_bytes()),
        4 => entry[16..24].copy_from_slice(&number.to_le_bytes()),
        _ => entry[24..32].copy_from_slice(&number.to_le_bytes()),
    }
}

/// Records that nobody wrote, with every checksum right: the store opens and runs, or says why not.
#[test]
fn forged_records_never_panic() {
    let (seed, rounds) = (env("FUZZ_SEED", 1), env("FUZZ_ROUNDS", 40));
    for seed in seed..seed + rounds {
        println!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p volume forged");
        let mut image = used_image(seed % 4);
        let mut rng = Rng::new(seed).fork("forge");
        forge(&mut image, &mut rng);
        let mut rig = Rig::begin_open(image, FaultPlan::reliable(seed), &options());
        if rig.until_open().is_err() {
            continue;
        }
        let volumes = rig.engine.borrow().volumes();
        for volume in volumes {
            let mut queue = rig.queue(volume.id, 8);
            for lba in 0..16 {
                let _ = rig.read(&mut queue, lba * 8, 1);
            }
            let block = vec![7; volume.block_bytes as usize];
            let _ = rig.write(&mut queue, 3, &block);
        }
        // Everything is destaged, if it can be.
        for _ in 0..3000 {
            rig.turn();
        }
    }
}

/// A store with all kinds of records in its log.
fn used_image(seed: u64) -> Image {
    let disk = SimDisk::new(4096, 5120, FaultPlan::power_cuts(seed));
    let mut rig = Rig::create(disk, LOG_BYTES, &options());
    let mut workload = Workload::create(&mut rig, seed, "forged");
    workload.run(&mut rig, 200);
    rig.disk.crash()
}
