//! What one seed decides before anything happens.

use std::time::Duration;

use bdev::{Rng, Status};
use bdev_sim::{FaultPlan, PerMillion};
use net::PipeConfig;

/// One simulation, drawn from a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything comes from.
    pub seed: u64,
    /// Shards of the node.
    pub shards: usize,
    /// How each store's disk behaves.
    pub disks: Vec<DiskPlan>,
    /// The volumes.
    pub volumes: Vec<VolumePlan>,
    /// The hosts.
    pub hosts: Vec<HostPlan>,
    /// The network.
    pub pipes: PipeConfig,
    /// Virtual time during which faults happen.
    pub run: Duration,
    /// Requests after which the faults stop earlier.
    pub requests_max: u64,
    /// Whether faults begin before the stores are formatted.
    pub fault_at_birth: bool,
    /// Mean virtual time between faults; `None` for none.
    pub fault_every: Option<Duration>,
    /// Whether volumes are kept in memory: then the node never dies.
    pub ram: bool,
    /// Whether disks fail requests.
    pub disk_errors: bool,
    /// Whether bits rot on the disks, outside of the log.
    pub rot: bool,
    /// Print what happens to the node and the disks. Changes nothing else.
    pub trace: bool,
}

/// A disk with a store on it.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes in its blocks.
    pub block_size: u32,
    /// Bytes of the store's log.
    pub log_bytes: u64,
    /// What it does wrong.
    pub faults: FaultPlan,
}

/// A volume.
#[derive(Clone, Debug)]
pub struct VolumePlan {
    /// Which disk it is on.
    pub disk: usize,
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes in its blocks.
    pub block_size: u32,
    /// Its first bytes, which the hosts use.
    pub span_bytes: u64,
}

/// A host.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Its I/O queues.
    pub queues: u16,
    /// Requests outstanding.
    pub depth: usize,
    /// Bytes of its largest requests.
    pub bytes_max: u64,
    /// Digests of headers and data.
    pub digests: (bool, bool),
    /// Keep alive in milliseconds; 0 is none.
    pub kato_ms: u32,
}

impl Plan {
    /// The simulation of a seed.
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::new(seed).fork("plan");
        let disk_errors = rng.chance(1, 4);
        let calm = rng.chance(1, 8);
        let rot = !calm && rng.chance(1, 8);
        let count = rng.between(1, 2);
        let disks: Vec<DiskPlan> =
            (0..count).map(|_| disk(&mut rng, disk_errors && !calm)).collect();
        let volumes = (0..rng.between(1, 3)).map(|_| volume(&mut rng, disks.len())).collect();
        let hosts = (0..rng.between(1, 3)).map(|_| host(&mut rng)).collect();
        Plan {
            seed,
            shards: usize::try_from(rng.between(1, 3)).expect("few"),
            disks,
            volumes,
            hosts,
            pipes: pipes(&mut rng),
            run: Duration::from_millis(rng.between(200, 2000)),
            requests_max: rng.between(500, 5000),
            fault_at_birth: rng.chance(1, 4),
            fault_every: (!calm).then(|| Duration::from_millis(rng.between(5, 300))),
            ram: false,
            disk_errors: disk_errors && !calm,
            rot,
            trace: false,
        }
    }

    /// The same, short: for builds that are not optimised.
    #[must_use]
    pub fn small(mut self) -> Plan {
        self.run = self.run.min(Duration::from_millis(300));
        self.requests_max = 100;
        self.fault_every = self.fault_every.map(|mean| mean.min(Duration::from_millis(10)));
        self
    }

    /// The same with disks that fail often: a write or a read in a thousand, a flush in a hundred.
    #[must_use]
    pub fn with_errors(mut self) -> Plan {
        (self.disk_errors, self.rot) = (true, false);
        for disk in &mut self.disks {
            disk.faults.read_error = PerMillion(1_000);
            disk.faults.write_error = PerMillion(1_000);
            disk.faults.flush_error = PerMillion(10_000);
        }
        self
    }

    /// The same with volumes in memory: the node never dies, and no disk is involved.
    #[must_use]
    pub fn in_ram(mut self) -> Plan {
        self.ram = true;
        self.disk_errors = false;
        self.rot = false;
        self
    }

    /// The errors that a host may see without anything being wrong.
    pub fn allowed(&self) -> Vec<Status> {
        let mut allowed = Plan::allowed_when_calm();
        if self.disk_errors {
            // A disk that failed a flush has lost what it cached: until the node has started again,
            // and replayed its log, those blocks do not match their checksums.
            allowed.extend([Status::Io, Status::WriteProtected, Status::Integrity]);
        }
        if self.rot {
            allowed.push(Status::Integrity);
        }
        allowed
    }

    /// The errors that a host may see once the faults have stopped and the node has started again.
    pub fn allowed_when_calm() -> Vec<Status> {
        vec![Status::Gone, Status::Aborted, Status::Retry, Status::TimedOut]
    }
}

pub(crate) fn disk(rng: &mut Rng, errors: bool) -> DiskPlan {
    let seed = rng.next_u64();
    let fast = rng.chance(1, 2);
    let few = |rng: &mut Rng| PerMillion(u32::try_from(rng.below(2000)).expect("small"));
    let base = match rng.chance(3, 4) {
        true => FaultPlan::power_cuts(seed),
        false => FaultPlan::reliable(seed),
    };
    let latency = |low: u64| if fast { low..=low * 4 } else { low..=low * 100 };
    let faults = FaultPlan {
        sector_bytes: if rng.chance(1, 2) { 512 } else { 4096 },
        read_ns: latency(5_000),
        write_ns: latency(5_000),
        flush_ns: latency(20_000),
        stall: few(rng),
        read_error: if errors { few(rng) } else { PerMillion::NEVER },
        write_error: if errors && rng.chance(1, 2) { few(rng) } else { PerMillion::NEVER },
        flush_error: if errors && rng.chance(1, 2) { few(rng) } else { PerMillion::NEVER },
        survives: PerMillion(u32::try_from(rng.below(1_000_000)).expect("small")),
        torn: PerMillion(u32::try_from(rng.below(1_000_000)).expect("small")),
        garbled: match rng.chance(1, 2) {
            true => PerMillion(u32::try_from(rng.below(1_000_000)).expect("small")),
            false => PerMillion::NEVER,
        },
        ..base
    };
    DiskPlan {
        bytes: rng.between(64, 256) << 20,
        block_size: if rng.chance(1, 2) { 512 } else { 4096 },
        log_bytes: rng.between(1, 4) << 20,
        faults,
    }
}

fn volume(rng: &mut Rng, disks: usize) -> VolumePlan {
    let bytes = rng.between(4, 4096) << 20;
    VolumePlan {
        disk: rng.index(disks).expect("there is a disk"),
        bytes,
        block_size: if rng.chance(1, 3) { 512 } else { 4096 },
        span_bytes: (rng.between(16, 2048) << 12).min(bytes),
    }
}

fn host(rng: &mut Rng) -> HostPlan {
    HostPlan {
        queues: u16::try_from(rng.between(1, 3)).expect("few"),
        depth: usize::try_from(rng.between(1, 24)).expect("few"),
        bytes_max: rng.between(4, 1024) << 10,
        digests: (rng.chance(1, 3), rng.chance(1, 3)),
        kato_ms: if rng.chance(1, 2) { 5000 } else { 0 },
    }
}

fn pipes(rng: &mut Rng) -> PipeConfig {
    let seed = rng.next_u64();
    match rng.below(3) {
        0 => PipeConfig { seed, ..PipeConfig::default() },
        1 => PipeConfig::nasty(seed),
        _ => PipeConfig {
            fragment_max: 64 << 10,
            window_bytes: 256 << 10,
            ..PipeConfig::nasty(seed)
        },
    }
}
