//! One seed, one thread, one history: the loop that moves the clock, and the faults.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use bdev::{Instant, Pool, PoolConfig, Rng};
use net::Pipes;
use nvmf::initiator::HostIdentity;
use nvmf::{Digests, HostId, Nqn};

use crate::appliance::{ADDRESS, Appliance, SUBSYSTEM};
use crate::history::{History, Moment};
use crate::host::{Host, HostConfig};
use crate::plan::{HostPlan, Plan};
use crate::workload::{Ledger, Shape, Workload};

/// What a simulation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A digest of everything that happened: equal for equal seeds.
    pub hash: u64,
    /// Virtual time that passed.
    pub time: Duration,
    /// Times that the clock was moved.
    pub steps: u64,
    /// Requests answered as done.
    pub done: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Blocks whose reads were checked.
    pub reads: u64,
    /// Power cuts and kills.
    pub crashes: u64,
    /// Those that hit a node that was still starting.
    pub crashes_early: u64,
    /// Times that the node came up.
    pub boots: u64,
    /// Times that a host connected all of its queues.
    pub connects: u64,
    /// Other faults: resets, cuts, stalls.
    pub faults: u64,
    /// Volumes created, deleted or grown meanwhile.
    pub changes: u64,
    /// Faults of the disks.
    pub disk_faults: u64,
    /// Orderly ends in between.
    pub restarts: u64,
    /// Requests that a full store refused.
    pub no_space: u64,
    /// The store was refused because of what had rotted.
    pub refused: bool,
}

/// Something was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// When, in virtual time.
    pub at: Duration,
    /// What.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} after {:?}: {}", self.seed, self.at, self.what)
    }
}

impl std::error::Error for Failure {}

/// Runs the simulation of a plan.
///
/// # Errors
/// What was wrong.
pub fn run(plan: &Plan) -> Result<Report, Failure> {
    let mut world = World::new(plan);
    match world.run() {
        Ok(()) => Ok(world.report()),
        // One copy only: what rots away is refused, never made up.
        Err(_refused) if plan.rot && world.appliance.was_refused() => {
            let report = world.report();
            Ok(Report { refused: true, ..report })
        }
        Err(what) => {
            let at = world.now.saturating_since(Instant::ZERO);
            Err(Failure { seed: plan.seed, at, what })
        }
    }
}

struct World {
    plan: Plan,
    now: Instant,
    pipes: Pipes,
    appliance: Appliance,
    hosts: Vec<(Host, Workload)>,
    ledger: Ledger,
    faults: Rng,
    /// How long turns take.
    turns: Rng,
    /// When the next fault happens; `None` when there will be none.
    fault_at: Option<Instant>,
    /// When the node that died is started again.
    boot_at: Option<Instant>,
    mend_at: Option<(Instant, IpAddr)>,
    /// Disks fail requests now: a node may fail to start.
    forgiving: bool,
    report: Report,
    /// Faults of each disk that were printed.
    faults_seen: Vec<u64>,
}

/// Once the faults have stopped, everything must be answered within this virtual time.
const LIVENESS: Duration = Duration::from_secs(120);

impl World {
    fn new(plan: &Plan) -> World {
        let root = Rng::new(plan.seed);
        let pipes = Pipes::new(plan.pipes.clone());
        let shapes: Vec<Shape> =
            (1..).zip(&plan.volumes).map(|(nsid, volume)| shape(nsid, volume)).collect();
        let hosts = (0u8..).zip(&plan.hosts).map(|(index, host)| {
            let config = host_config(index, host);
            let pool = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(48 << 20) };
            let pool = Rc::new(Pool::new(&pool).expect("memory for a simulated host"));
            let blocks_max = |shape: &Shape| host.bytes_max / u64::from(shape.block_size);
            let blocks_max = shapes.iter().map(blocks_max).max().unwrap_or(1).max(1);
            let rng = root.fork(&format!("workload {index}"));
            let workload = Workload::new(rng, host.depth, blocks_max, shapes.clone());
            let rng = root.fork(&format!("host {index}"));
            (Host::new(config, &pipes, pool, rng), workload)
        });
        let ledger = Ledger {
            history: History::default(),
            moment: 0,
            oldest_read: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            allowed: plan.allowed(),
        };
        World {
            plan: plan.clone(),
            now: Instant::ZERO,
            appliance: Appliance::new(plan, &pipes),
            hosts: hosts.collect(),
            pipes,
            ledger,
            faults: root.fork("faults"),
            turns: root.fork("turns"),
            fault_at: None,
            boot_at: Some(Instant::ZERO),
            mend_at: None,
            forgiving: plan.disk_errors,
            report: Report::default(),
            faults_seen: vec![0; plan.disks.len()],
        }
    }

    fn run(&mut self) -> Result<(), String> {
        if !self.plan.fault_at_birth {
            self.wait("the first boot", |world| world.appliance.is_up())?;
        }
        let end = self.now.saturating_add(self.plan.run);
        self.plan_fault();
        while self.now < end && self.done() < self.plan.requests_max {
            self.step(end)?;
        }
        self.calm_down()?;
        self.wait("the node to come up", |world| world.appliance.is_up())?;
        self.wait("an answer to every request", |world| {
            world.hosts.iter().all(|(_, workload)| workload.outstanding() == 0)
        })?;
        self.wait("the operator", |world| !world.appliance.is_meddling())?;
        if self.plan.disk_errors {
            // A store that a disk has failed serves again when it is opened again.
            self.crash()?;
            self.wait("the node to come up again", |world| world.appliance.is_up())?;
        }
        if !self.plan.rot {
            self.ledger.allowed = Plan::allowed_when_calm();
        }
        self.hosts[0].1.start_audit(self.ledger.history.touched());
        self.wait("the audit", |world| world.hosts[0].1.audit_is_over())?;
        self.hosts.iter_mut().for_each(|(host, _)| host.switch_off());
        self.wait("the hosts to leave", |world| world.hosts.iter().all(|(host, _)| host.is_off()))?;
        self.appliance.drain()?;
        self.wait("the node to stop", |world| world.appliance.is_stopped())?;
        self.appliance.kill(false)?;
        for (index, (host, _)) in self.hosts.iter().enumerate() {
            let taken = host.pool().stats().taken();
            if taken > 0 {
                return Err(format!("{taken} buffers of host {index} are missing"));
            }
        }
        Ok(())
    }

    fn done(&self) -> u64 {
        self.hosts.iter().map(|(_, workload)| workload.done).sum()
    }

    /// No more faults and no new requests; what is broken is mended.
    fn calm_down(&mut self) -> Result<(), String> {
        self.fault_at = None;
        self.forgiving = false;
        if self.plan.disk_errors && !self.appliance.is_up() && self.appliance.is_alive() {
            // The start that is under way may have been failed already.
            self.crash()?;
        }
        if let Some((_, host)) = self.mend_at.take() {
            self.pipes.mend_host(host);
        }
        for disk in &self.appliance.disks {
            disk.heal();
            disk.replan(|plan| {
                let quiet = bdev_sim::PerMillion::NEVER;
                (plan.read_error, plan.write_error, plan.flush_error) = (quiet, quiet, quiet);
                plan.stall = quiet;
            });
        }
        self.hosts.iter_mut().for_each(|(_, workload)| workload.stopped = true);
        Ok(())
    }

    fn wait(&mut self, what: &str, done: impl Fn(&World) -> bool) -> Result<(), String> {
        let end = self.now.saturating_add(LIVENESS);
        while !done(self) {
            if self.now >= end {
                return Err(format!("waited {LIVENESS:?} in vain for {what}"));
            }
            self.step(end)?;
        }
        Ok(())
    }

    /// Turns everybody once, and moves the clock: on by the time that the turn took, or to what
    /// comes next when there was nothing to do.
    fn step(&mut self, end: Instant) -> Result<(), String> {
        let worked = self.turn()?;
        let least = self.now.saturating_add(Duration::from_nanos(self.turns.between(200, 2000)));
        self.now =
            if worked { least } else { self.next_moment().unwrap_or(end).min(end).max(least) };
        self.report.steps += 1;
        self.pipes.advance_to(self.now);
        self.appliance.disks.iter().for_each(|disk| disk.advance_to(self.now));
        if self.plan.trace {
            self.trace_disks();
        }
        self.strike()
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.plan.trace {
            let time = self.now.saturating_since(Instant::ZERO);
            println!("{time:?} moment {}: {}", self.ledger.moment, what());
        }
    }

    /// Prints what the disks have done wrong since the last call.
    fn trace_disks(&mut self) {
        for index in 0..self.appliance.disks.len() {
            let disk = &self.appliance.disks[index];
            let seen = std::mem::replace(&mut self.faults_seen[index], disk.stats().faults);
            let new = usize::try_from(disk.stats().faults - seen).expect("few at a time");
            for fault in disk.faults().iter().rev().take(new) {
                self.trace(|| format!("disk {index}: {fault:?}"));
            }
        }
    }

    fn next_moment(&self) -> Option<Instant> {
        let disks = self.appliance.disks.iter().filter_map(bdev_sim::SimDisk::next_due);
        let hosts = self.hosts.iter().filter_map(|(host, _)| host.next_timeout());
        let mend = self.mend_at.map(|(at, _)| at);
        let others = [self.pipes.next_moment(), self.appliance.next_timeout()];
        let planned = [self.fault_at, self.boot_at, mend];
        others.into_iter().chain(planned).flatten().chain(disks).chain(hosts).min()
    }

    /// Turns everybody once. True when anything happened.
    fn turn(&mut self) -> Result<bool, String> {
        let mut worked = match self.appliance.turn(self.now) {
            Ok(worked) => worked,
            // A disk may fail a start; an operator tries again.
            Err(error) if self.forgiving => {
                self.trace(|| error);
                self.crash()?;
                true
            }
            Err(error) => return Err(error),
        };
        let oldest = self.hosts.iter().map(|(_, workload)| workload.oldest_read()).min();
        self.ledger.oldest_read = oldest.unwrap_or(Moment::MAX).min(self.ledger.moment);
        let mut done = Vec::new();
        for (host, workload) in &mut self.hosts {
            worked |= workload.submit(host, &mut self.ledger);
            host.turn(self.now, &mut done);
            worked |= host.worked();
            for completion in done.drain(..) {
                workload.on_completion(completion, &mut self.ledger)?;
            }
        }
        Ok(worked)
    }

    /// Lets happen what is due: faults, mends, boots.
    fn strike(&mut self) -> Result<(), String> {
        if self.boot_at.is_some_and(|at| at <= self.now) {
            self.boot_at = None;
            self.trace(|| "the node starts".to_owned());
            self.appliance.boot()?;
        }
        if let Some((at, host)) = self.mend_at
            && at <= self.now
        {
            self.mend_at = None;
            self.pipes.mend_host(host);
        }
        if self.fault_at.is_some_and(|at| at <= self.now) {
            self.plan_fault();
            self.fault()?;
        }
        Ok(())
    }

    fn plan_fault(&mut self) {
        let mean = self.plan.fault_every;
        self.fault_at = mean.map(|mean| {
            let mean_ns = u64::try_from(mean.as_nanos()).expect("short");
            // Often much sooner than the mean: that is how recovery is hit.
            let ns = match self.faults.chance(1, 3) {
                true => self.faults.below(mean_ns / 20 + 1),
                false => self.faults.below(mean_ns * 2),
            };
            self.now.saturating_add(Duration::from_nanos(ns))
        });
    }

    fn fault(&mut self) -> Result<(), String> {
        if self.plan.rot && self.faults.chance(1, 2) {
            self.rot();
        }
        let kind = self.faults.below(10);
        self.ledger.note(kind ^ self.now.as_ns());
        self.trace(|| format!("fault {kind}"));
        match kind {
            0..4 if !self.plan.ram => return self.crash(),
            4 | 5 if !self.plan.ram => return self.appliance.meddle(&mut self.faults),
            0..7 => {
                let host = self.host_address();
                self.pipes.reset_host(host);
            }
            7 => {
                let (host, ms) = (self.host_address(), self.faults.between(1, 50));
                if self.mend_at.is_none() {
                    self.pipes.cut_host(host);
                    self.mend_at = Some((self.now.saturating_add(Duration::from_millis(ms)), host));
                }
            }
            _ => {
                let ms = self.faults.between(1, 100);
                if let Some(disk) = self.faults.index(self.appliance.disks.len()) {
                    self.appliance.disks[disk].stall_for(Duration::from_millis(ms));
                }
            }
        }
        self.report.faults += 1;
        Ok(())
    }

    /// Flips a bit where data and maps are. The log is left alone: with one copy, rot in its last
    /// record cannot be told from a write that never finished.
    fn rot(&mut self) {
        let Some(disk) = self.faults.index(self.appliance.disks.len()) else { return };
        let plan = &self.plan.disks[disk];
        let start = (128 << 10) + plan.log_bytes;
        let near = self.faults.chance(3, 4);
        let end = if near { (start + (8 << 20)).min(plan.bytes) } else { plan.bytes };
        let offset = self.faults.between(start, end - 1);
        let mask = 1 << self.faults.below(8);
        self.appliance.disks[disk].rot(offset, mask);
    }

    fn crash(&mut self) -> Result<(), String> {
        if !self.appliance.is_alive() {
            return Ok(());
        }
        self.report.crashes += 1;
        self.report.crashes_early += u64::from(!self.appliance.is_up());
        let power = self.faults.chance(2, 3);
        let up = self.appliance.is_up();
        self.trace(|| format!("the node dies (power cut: {power}, was up: {up})"));
        self.appliance.kill(power)?;
        let at = self.ledger.tick();
        self.ledger.history.crash(at);
        let ms = self.faults.between(0, 20);
        self.boot_at = Some(self.now.saturating_add(Duration::from_millis(ms)));
        Ok(())
    }

    fn host_address(&mut self) -> IpAddr {
        let host = self.faults.index(self.hosts.len()).expect("there is a host");
        address_of(u8::try_from(host).expect("few hosts"))
    }

    fn report(&mut self) -> Report {
        let mut report = std::mem::take(&mut self.report);
        for disk in &self.appliance.disks {
            self.ledger.note(disk.event_hash());
            report.disk_faults += disk.stats().faults;
        }
        self.ledger.note(self.now.as_ns());
        report.hash = self.ledger.hash;
        report.time = self.now.saturating_since(Instant::ZERO);
        report.reads = self.ledger.history.reads;
        report.boots = self.appliance.boots;
        report.changes = self.appliance.changes();
        for (host, workload) in &self.hosts {
            report.done += workload.done;
            report.errors += workload.errors.iter().sum::<u64>();
            report.connects += host.connects;
        }
        report
    }
}

fn shape(nsid: u32, volume: &crate::plan::VolumePlan) -> Shape {
    let block_size = volume.block_size;
    Shape { nsid, block_size, span: volume.span_bytes / u64::from(block_size) }
}

fn address_of(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, host + 1))
}

fn host_config(index: u8, plan: &HostPlan) -> HostConfig {
    let name = format!("nqn.2026-11.example.host:{index}");
    let (header, data) = plan.digests;
    HostConfig {
        identity: HostIdentity {
            hostnqn: Nqn::new(&name).expect("a name"),
            hostid: HostId([index + 1; 16]),
            subnqn: Nqn::new(SUBSYSTEM).expect("a name"),
        },
        address: address_of(index),
        target: ADDRESS.parse().expect("an address"),
        queues: plan.queues,
        digests: Digests { header, data },
        kato_ms: plan.kato_ms,
    }
}
