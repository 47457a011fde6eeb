//! What one seed of the bare engine decides before anything happens.

use bdev::{Rng, Status};
use bdev_sim::{FaultPlan, PerMillion};
use volume::Options;

use crate::plan::{DiskPlan, disk};

/// One simulation of an engine on a disk: small, so that everything that happens rarely (the log
/// wraps, a table is full, the store is full) happens within a few hundred requests.
#[derive(Clone, Debug)]
pub struct BarePlan {
    /// Where everything comes from.
    pub seed: u64,
    /// The disk and the log on it.
    pub disk: DiskPlan,
    /// How the engine is opened.
    pub options: Options,
    /// Volumes at the start: bytes, and bytes in a block.
    pub volumes: Vec<(u64, u32)>,
    /// Requests outstanding.
    pub depth: usize,
    /// Requests after which the faults stop.
    pub requests_max: u64,
    /// How often which request is made.
    pub mix: Mix,
    /// What the operator does beside making, growing and deleting volumes.
    pub features: Features,
    /// Mean number of writes and flushes that reach the disk between two power cuts; 0 is never.
    pub cut_every: u64,
    /// Mean number of steps between two kills of the process; 0 is never.
    pub kill_every: u64,
    /// Mean number of steps between two operations of the operator; 0 is never.
    pub manage_every: u64,
    /// Largest pause of the hosts, in nanoseconds.
    pub pause_ns: u64,
    /// Whether the volumes may need more than the store has.
    pub crowded: bool,
    /// Whether the disk fails requests.
    pub disk_errors: bool,
    /// Whether bits rot on the disk, outside of the log.
    pub rot: bool,
    /// How often a read finds that something has rotted, when anything does.
    pub rot_reads: PerMillion,
    /// Whether single copies of metadata are damaged: nothing may come of it.
    pub scars: bool,
    /// Print what happens. Changes nothing else.
    pub trace: bool,
}

/// What the operator does; each seed draws its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Makes and deletes snapshots, also of several volumes at once.
    pub snapshots: bool,
    /// Makes clones of them.
    pub clones: bool,
    /// Makes volumes what their snapshots hold.
    pub restores: bool,
    /// Compares snapshots with each other.
    pub diffs: bool,
    /// Makes volumes smaller.
    pub shrinks: bool,
    /// Limits volumes.
    pub limits: bool,
    /// Checks the store while it is used.
    pub checks: bool,
    /// Scrubs it.
    pub scrubs: bool,
}

/// Weights of what hosts do. Each seed leaves some of it out, so that each is also seen alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// Reads.
    pub read: u64,
    /// Writes of a few blocks.
    pub write: u64,
    /// Writes of whole extents: they bypass the log.
    pub direct: u64,
    /// Write zeroes, of a few blocks.
    pub zero: u64,
    /// Deallocations.
    pub deallocate: u64,
    /// Write zeroes and deallocations of long ranges.
    pub range: u64,
    /// Flushes.
    pub flush: u64,
    /// Compares.
    pub compare: u64,
    /// Compare-and-writes.
    pub swap: u64,
    /// Blocks of every write of a few blocks; 0 when they differ. Equal ones leave groups of equal
    /// size in the log, so that those of an earlier life fit between those of a later one.
    pub uniform: u64,
    /// Whether hosts begin by writing their volumes from end to end.
    pub fill: bool,
    /// Of a hundred requests, so many go to the same few blocks.
    pub hot: u64,
    /// How many blocks these are.
    pub hot_blocks: u64,
}

/// Extents that metadata and what waits for a checkpoint may take of a small store.
pub(crate) const SPARE_EXTENTS: u64 = 40;

impl BarePlan {
    /// The simulation of a seed.
    pub fn new(seed: u64) -> BarePlan {
        let mut rng = Rng::new(seed).fork("bare plan");
        let calm = rng.chance(1, 16);
        let disk_errors = !calm && rng.chance(1, 5);
        let rot = !calm && !disk_errors && rng.chance(1, 8);
        let scars = !calm && !disk_errors && !rot && rng.chance(1, 6);
        let mut disk = disk(&mut rng, disk_errors);
        worsen(&mut rng, &mut disk.faults, disk_errors);
        disk.log_bytes = 1 << 20;
        disk.faults.rot_from = (128 << 10) + disk.log_bytes;
        let crowded = rng.chance(1, 4);
        let extents = if crowded { rng.between(66, 100) } else { rng.between(150, 250) };
        disk.bytes = (128 << 10) + disk.log_bytes + extents * store::EXTENT_BYTES;
        let features = Features::new(&mut Rng::new(seed).fork("bare features"));
        let volumes = volumes(&mut rng, extents, crowded, &features);
        let often = |rng: &mut Rng, low, high| if calm { 0 } else { rng.between(low, high) };
        BarePlan {
            seed,
            disk,
            options: Options {
                frames: match rng.chance(1, 3) {
                    true => store::FRAMES_MIN,
                    false => u32::try_from(rng.between(64, 256)).expect("few"),
                },
                group_bytes: rng.chance(1, 2).then_some(96 << 10),
                idle_ns: rng.between(100_000, 20_000_000),
                admission_deadline_ns: match rng.chance(1, 4) {
                    true => rng.between(200_000, 5_000_000),
                    false => volume::ADMISSION_DEADLINE_NS,
                },
                ..Options::default()
            },
            volumes,
            depth: usize::try_from(rng.between(1, 24)).expect("few"),
            requests_max: rng.between(100, 350),
            mix: Mix { fill: crowded && rng.chance(2, 3), ..mix(&mut rng) },
            features,
            cut_every: often(&mut rng, 10, 150),
            kill_every: if rng.chance(1, 3) { often(&mut rng, 300, 3000) } else { 0 },
            manage_every: match features.snapshots {
                true => rng.between(4, 50),
                false => rng.between(20, 400),
            },
            pause_ns: rng.between(1_000, 2_000_000),
            crowded,
            disk_errors,
            rot,
            rot_reads: rarely(&mut rng, 100_000),
            scars,
            trace: false,
        }
    }

    /// The errors that a host may see without anything being wrong.
    pub(crate) fn allows(&self, status: Status, is_degraded: bool) -> bool {
        match status {
            Status::NoSpace => self.crowded,
            Status::Io | Status::WriteProtected => self.disk_errors,
            // A disk that failed a flush has lost what it cached: until the node has started again,
            // and replayed its log, those blocks do not match their checksums.
            Status::Integrity => is_degraded || self.rot,
            Status::Retry => true,
            Status::TimedOut => self.hurries(),
            _ => false,
        }
    }

    /// Whether a check of what is on the disk must find nothing.
    pub(crate) fn is_sound(&self) -> bool {
        !self.rot && !self.disk_errors
    }

    /// Whether writes may have to wait for longer than they are given.
    fn hurries(&self) -> bool {
        self.options.admission_deadline_ns < volume::ADMISSION_DEADLINE_NS
    }

    /// Disks that fail nothing any more.
    pub(crate) fn quiet(&self) -> bdev_sim::FaultPlan {
        let never = PerMillion::NEVER;
        bdev_sim::FaultPlan {
            read_error: never,
            write_error: never,
            flush_error: never,
            stall: never,
            rot: never,
            crash_at_write: None,
            ..self.disk.faults.clone()
        }
    }
}

impl Features {
    fn new(rng: &mut Rng) -> Features {
        let rich = rng.chance(3, 4);
        let snapshots = rng.chance(3, 4) && rich;
        let mut one_in = |count| rng.chance(1, count) && rich;
        Features {
            snapshots,
            clones: one_in(2) && snapshots,
            restores: one_in(2) && snapshots,
            diffs: one_in(2) && snapshots,
            shrinks: one_in(3),
            limits: one_in(4),
            checks: one_in(4),
            scrubs: one_in(4),
        }
    }
}

/// A chance of at most this, mostly of far less.
fn rarely(rng: &mut Rng, most: u64) -> PerMillion {
    let most = most >> (2 * rng.below(4));
    PerMillion(u32::try_from(rng.below(most + 1)).expect("small"))
}

/// What fails at all fails often on some disks.
fn worsen(rng: &mut Rng, faults: &mut FaultPlan, disk_errors: bool) {
    let worse = |chance: PerMillion, than: PerMillion| PerMillion(chance.0.max(than.0));
    let (stall, read, write) = (rarely(rng, 80_000), rarely(rng, 40_000), rarely(rng, 40_000));
    let flush = rarely(rng, 80_000);
    faults.stall = worse(faults.stall, stall);
    if disk_errors {
        faults.read_error = worse(faults.read_error, read);
        if rng.chance(3, 4) {
            faults.write_error = worse(faults.write_error, write);
        }
        if rng.chance(3, 4) {
            faults.flush_error = worse(faults.flush_error, flush);
        }
    }
}

fn volumes(rng: &mut Rng, extents: u64, crowded: bool, features: &Features) -> Vec<(u64, u32)> {
    let count = rng.between(1, 3);
    let share = if crowded { extents } else { (extents - SPARE_EXTENTS) / 2 / count };
    // Where snapshots hold on to what was there, volumes are smaller.
    let share = if features.snapshots { (share / 3).max(4) } else { share };
    let volume = |_| {
        let (least, most) = if crowded { (share / 2, share * 5 / 4) } else { (share / 4, share) };
        let bytes = rng.between(least, most) * store::EXTENT_BYTES;
        let ragged = rng.between(0, 15) << 12;
        (bytes - ragged, if rng.chance(1, 3) { 512 } else { 4096 })
    };
    (0..count).map(volume).collect()
}

fn mix(rng: &mut Rng) -> Mix {
    let uniform = match rng.below(10) {
        0 => rng.between(1, 16),
        1 => rng.between(17, 20),
        _ => 0,
    };
    let mut weight = |most: u64| if rng.chance(1, 4) { 0 } else { 1 + rng.below(most) };
    Mix {
        read: 5 + weight(40),
        write: weight(60),
        direct: weight(30),
        zero: weight(6),
        deallocate: weight(10),
        range: weight(4),
        flush: weight(4),
        compare: weight(6),
        swap: weight(12),
        uniform,
        fill: false,
        hot: weight(90),
        hot_blocks: 1 + weight(64),
    }
}

impl Mix {
    /// The sum of the weights of all requests.
    pub(crate) fn total(&self) -> u64 {
        let Mix { read, write, direct, zero, deallocate, range, flush, .. } = self;
        read + write + direct + zero + deallocate + range + flush + self.compare + self.swap
    }
}
