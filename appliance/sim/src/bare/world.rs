//! A production engine on one simulated disk, without node, network and hosts: cheap enough for
//! hundreds of seeds a second, with a crash every few dozen requests.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bdev::{Bdev, Instant, Pool, PoolConfig, QueueCx, Rng};
use bdev_sim::{PerMillion, SimDisk};
use volume::{Engine, FormatOptions};

use crate::bare::audit;
use crate::bare::client::Client;
use crate::bare::operator::Operator;
use crate::bare::plan::BarePlan;
use crate::bare::scars::Scars;
use crate::bare::watch::Watch;
use crate::history::{History, Moment};
use crate::workload::Ledger;
use crate::world::{Failure, Report};

/// Runs one seed on a bare engine.
///
/// # Errors
/// What was wrong, if anything was.
pub fn run_bare(plan: &BarePlan) -> Result<Report, Failure> {
    let mut world = Bare::new(plan);
    match world.run() {
        Ok(()) => Ok(world.report()),
        // One copy only: what rots away is refused, never made up.
        Err(_refused) if plan.rot && world.refused => {
            Ok(Report { refused: true, ..world.report() })
        }
        Err(what) => {
            let at = world.now.saturating_since(Instant::ZERO);
            Err(Failure { seed: plan.seed, at, what })
        }
    }
}

pub(crate) struct Bare {
    pub(crate) plan: BarePlan,
    now: Instant,
    pub(crate) disk: SimDisk,
    pub(crate) engine: Option<Rc<RefCell<Engine>>>,
    is_up: bool,
    formatted: bool,
    refused: bool,
    pub(crate) client: Client,
    pub(crate) operator: Operator,
    pub(crate) watch: Watch,
    pub(crate) ledger: Ledger,
    pub(crate) faults: Rng,
    scars: Scars,
    turns: Rng,
    /// Hosts pause until then.
    quiet_until: Instant,
    /// Steps until the process is killed, and until the operator does something.
    kill_in: u64,
    pub(crate) manage_in: u64,
    /// The faults are over.
    calm: bool,
    /// The engine is being shut down: it takes nothing new.
    pub(crate) is_closing: bool,
    /// When the engine was turned last.
    pub(crate) turned_at: Instant,
    opened_at: Instant,
    opening_turns: u64,
    /// Starts in a row that failed: what a disk does now and then, it does not do for ever.
    refused_starts: u32,
    report: Report,
    /// Last, so that it is dropped after everything that holds its segments.
    pub(crate) pool: Rc<Pool>,
}

/// Once the faults have stopped, everything is answered within this virtual time and these steps.
const LIVENESS: Duration = Duration::from_secs(30);
const LIVENESS_STEPS: u64 = 300_000;

/// A start ends within this virtual time (each request to the disk may be stalled for 20 ms) and
/// these turns.
const RECOVERY: Duration = Duration::from_secs(10);
const RECOVERY_TURNS: u64 = 20_000;

/// Deletions at the end of a seed whose space is counted.
const EXACT_DELETIONS: u32 = 3;

/// Starts in a row that a disk with errors may fail.
const REFUSED_STARTS_MAX: u32 = 50;

/// How late a write may be told that its deadline has passed, in nanoseconds: a turn.
const WAIT_SLACK_NS: u64 = 1_000_000;

/// Steps that a seed may take in all: ten times what the longest takes.
const STEPS_MAX: u64 = 2_000_000;

impl Bare {
    fn new(plan: &BarePlan) -> Bare {
        let root = Rng::new(plan.seed);
        let blocks = plan.disk.bytes / u64::from(plan.disk.block_size);
        let config = PoolConfig { segments: [512, 96, 64, 8, 3], huge_pages: false };
        let ledger = Ledger {
            history: History::default(),
            moment: 0,
            oldest_read: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            allowed: Vec::new(),
        };
        Bare {
            now: Instant::ZERO,
            disk: SimDisk::new(plan.disk.block_size, blocks, plan.disk.faults.clone()),
            engine: None,
            is_up: false,
            formatted: false,
            refused: false,
            client: Client::new(plan, root.fork("client")),
            operator: Operator::default(),
            watch: Watch::default(),
            ledger,
            faults: root.fork("bare faults"),
            scars: Scars::new(root.fork("scars")),
            turns: root.fork("turns"),
            quiet_until: Instant::ZERO,
            kill_in: u64::MAX,
            manage_in: 0,
            calm: false,
            is_closing: false,
            turned_at: Instant::ZERO,
            opened_at: Instant::ZERO,
            opening_turns: 0,
            refused_starts: 0,
            report: Report::default(),
            pool: Rc::new(Pool::new(&config).expect("memory for a simulated engine")),
            plan: plan.clone(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        while self.client.done + self.client.errors < self.plan.requests_max {
            self.step()?;
            self.strike()?;
            if self.report.steps > STEPS_MAX {
                return Err("hosts get no answers".to_owned());
            }
        }
        self.calm_down()?;
        self.wait("the engine to open", |world| world.is_up)?;
        self.finish()
    }

    /// Everything is answered, read once more, and accounted for.
    fn finish(&mut self) -> Result<(), String> {
        self.wait("an answer to every request", |world| world.client.outstanding() == 0)?;
        self.wait("the operator", |world| !world.operator.is_busy())?;
        if self.plan.disk_errors {
            // An engine that a disk has failed serves again when it is opened again.
            self.die(false)?;
            self.wait("the engine to open again", |world| world.is_up)?;
            // What it has promised is there, whatever the disk did.
            self.plan.disk_errors = false;
        }
        self.audit()?;
        self.shut_down()?;
        if !self.plan.rot {
            audit::check(self, true)?;
        }
        if self.plan.seed.is_multiple_of(4) && !self.plan.rot {
            self.delete_everything()?;
        }
        Ok(())
    }

    /// Reads every block of every volume.
    fn audit(&mut self) -> Result<(), String> {
        let numbers: Vec<u32> = self.client.targets.keys().copied().collect();
        for number in numbers {
            let blocks = self.client.targets[&number].blocks;
            let mut from = 0;
            while from < blocks {
                match self.client.audit(number, from, &self.pool, &mut self.ledger) {
                    Some(next) => from = next,
                    None => self.step()?,
                }
            }
        }
        self.wait("the audit", |world| world.client.outstanding() == 0)
    }

    /// When no volume and no snapshot is left, nothing of the store is in use.
    fn delete_everything(&mut self) -> Result<(), String> {
        self.wait("the engine to open", |world| world.is_up)?;
        let exact = self.plan.seed.is_multiple_of(8) && self.plan.features.snapshots;
        let mut exactly = if exact { EXACT_DELETIONS } else { 0 };
        loop {
            let nodes = &self.operator.nodes;
            let all: Vec<u32> =
                nodes.volumes.keys().chain(nodes.snapshots.keys()).copied().collect();
            let Some(index) = self.faults.index(all.len()) else { break };
            match exactly {
                0 => self.delete(all[index])?,
                _ => self.delete_exactly(all[index])?,
            }
            exactly = exactly.saturating_sub(1);
        }
        self.shut_down()?;
        let report = audit::check(self, true)?;
        match report.extents {
            0 => Ok(()),
            left => Err(format!("{left} extents are in use, and there is no volume")),
        }
    }

    /// What the engine says that a volume or a snapshot takes alone is what its deletion gives
    /// back, as the check counts it. What it shares only with deleted ones that are still there for
    /// the sake of others may come back as well.
    fn delete_exactly(&mut self, number: u32) -> Result<(), String> {
        self.wait("the engine to open", |world| world.is_up)?;
        let unique = self.unique_of(number)?;
        self.shut_down()?;
        let before = audit::check(self, false)?;
        let nodes = self.operator.nodes.volumes.len() + self.operator.nodes.snapshots.len();
        let remains = before.volumes + before.snapshots > nodes as u64;
        self.wait("the engine to open", |world| world.is_up)?;
        self.delete(number)?;
        self.shut_down()?;
        let after = audit::check(self, false)?.extents;
        self.wait("the engine to open", |world| world.is_up)?;
        let back = before.extents - after;
        match back == unique || (remains && back > unique) {
            true => Ok(()),
            false => Err(format!("{number} had {unique} extents alone and gave back {back}")),
        }
    }

    fn shut_down(&mut self) -> Result<(), String> {
        self.client.targets.clear();
        self.is_closing = true;
        self.engine.as_ref().expect("it is up").borrow_mut().shutdown();
        // One that the disk has failed cannot bring its log into the map.
        let ended = |engine: &Engine| engine.is_closed() || engine.is_degraded();
        let closed = |world: &Bare| world.engine.as_ref().is_some_and(|e| ended(&e.borrow()));
        self.wait("the engine to close", closed)?;
        self.die(false)
    }

    /// No more faults and no new requests.
    fn calm_down(&mut self) -> Result<(), String> {
        self.calm = true;
        self.disk.heal();
        let quiet = self.plan.quiet();
        self.disk.replan(|plan| *plan = quiet);
        match self.plan.disk_errors {
            true => self.die(false),
            false => Ok(()),
        }
    }

    pub(crate) fn wait(&mut self, what: &str, done: impl Fn(&Bare) -> bool) -> Result<(), String> {
        let (end, most) = (self.now.saturating_add(LIVENESS), self.report.steps + LIVENESS_STEPS);
        while !done(self) {
            if self.now >= end || self.report.steps > most {
                let asked = &self.operator.asked;
                return Err(format!(
                    "waited in vain for {what}, asked {asked:?}: {:?}",
                    self.engine
                ));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Turns the engine and its hosts once, and moves the clock.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        if self.engine.is_none() {
            self.boot()?;
        }
        let mut worked = false;
        if self.is_up && !self.calm && self.quiet_until <= self.now {
            worked |= self.client.submit(&self.pool, &mut self.ledger, self.now)?;
        }
        let engine = Rc::clone(self.engine.as_ref().expect("booted above"));
        worked |= engine.borrow_mut().drive(self.now);
        self.turned_at = self.now;
        if self.is_up {
            self.check_waits(&engine)?;
            worked |= self.collect(&engine)?;
        } else if !self.open(&engine)? {
            drop(engine);
            return self.die(false);
        }
        let least = self.now.saturating_add(Duration::from_nanos(self.turns.between(200, 2000)));
        let next = if worked { least } else { self.next_moment(&engine)?.max(least) };
        self.now = next;
        self.disk.advance_to(next);
        self.report.steps += 1;
        drop(engine);
        if self.disk.is_off() {
            self.die(true)?;
        }
        Ok(())
    }

    /// Nobody waits for longer than the deadline.
    fn check_waits(&self, engine: &Rc<RefCell<Engine>>) -> Result<(), String> {
        let log = engine.borrow().log_status();
        match log.longest_wait_ns > self.plan.options.admission_deadline_ns + WAIT_SLACK_NS {
            true => Err(format!("a write waits for longer than its deadline: {log:?}")),
            false => Ok(()),
        }
    }

    /// When something happens next that nobody waits for now.
    fn next_moment(&self, engine: &Rc<RefCell<Engine>>) -> Result<Instant, String> {
        let quiet = (!self.calm && self.is_up).then_some(self.quiet_until);
        let quiet = quiet.filter(|&until| until > self.now);
        let due = [self.disk.next_due(), engine.borrow().next_timeout(), quiet];
        let waiting = self.client.outstanding() > 0 || self.operator.is_busy() || !self.is_up;
        match due.into_iter().flatten().min() {
            Some(next) => Ok(next),
            None if waiting && !self.disk.is_off() && !engine.borrow().is_degraded() => {
                Err(format!("nothing will ever happen again: {engine:?}"))
            }
            None => Ok(self.now.saturating_add(Duration::from_millis(1))),
        }
    }

    /// Fetches answers.
    fn collect(&mut self, engine: &Rc<RefCell<Engine>>) -> Result<bool, String> {
        self.ledger.oldest_read = self.oldest();
        self.client.is_degraded = engine.borrow().is_degraded();
        let worked = self.client.poll(&self.plan, &mut self.ledger)?;
        Ok(worked | self.collect_changes(engine)?)
    }

    /// Nothing that replaced something later than this is forgotten.
    fn oldest(&self) -> Moment {
        let asked = self.operator.asked.as_ref().map_or(Moment::MAX, |asked| asked.began);
        asked.min(self.ledger.moment)
    }

    /// Starts an engine on the disk.
    fn boot(&mut self) -> Result<(), String> {
        if self.plan.scars && self.formatted && !self.calm {
            self.scars.before_start(&self.disk, self.plan.disk.faults.rot_from);
        }
        self.disk.replan(|plan| plan.rot = PerMillion::NEVER);
        let queue = self.disk.open(&QueueCx::new(&self.pool).depth(1024));
        let queue = queue.map_err(|error| error.to_string())?;
        let (info, options) = (self.disk.info(), &self.plan.options);
        let engine = if self.formatted {
            Engine::open(queue, info, &self.pool, options)
        } else {
            let log_bytes = Some(self.plan.disk.log_bytes);
            let format = FormatOptions { uuid: [7; 16], log_bytes, overwrite: true };
            let engine = Engine::create(queue, info, &self.pool, &format, options);
            engine.map_err(|error| format!("formatting: {error}"))?
        };
        self.engine = Some(Rc::new(RefCell::new(engine)));
        self.is_closing = false;
        (self.opened_at, self.opening_turns) = (self.now, 0);
        if !self.calm {
            self.plan_faults();
        }
        Ok(())
    }

    fn plan_faults(&mut self) {
        if self.plan.cut_every > 0 {
            // Often very soon: that is how starts are hit.
            let writes = match self.faults.chance(1, 4) {
                true => self.faults.below(8),
                false => self.faults.below(2 * self.plan.cut_every),
            };
            let at = self.disk.boundaries() + writes;
            self.disk.replan(|plan| plan.crash_at_write = Some(at));
        }
        self.kill_in = match self.plan.kill_every {
            0 => u64::MAX,
            mean => self.faults.below(2 * mean) + 1,
        };
    }

    /// Follows the engine while it opens. False when the disk has failed it.
    fn open(&mut self, engine: &Rc<RefCell<Engine>>) -> Result<bool, String> {
        self.opening_turns += 1;
        if self.now.saturating_since(self.opened_at) > RECOVERY
            || self.opening_turns > RECOVERY_TURNS
        {
            return Err(format!("a start takes more than {RECOVERY:?}: {engine:?}"));
        }
        let failed = engine.borrow().failed().map(ToString::to_string);
        if let Some(error) = failed {
            self.trace(|| format!("the engine does not open: {error}"));
            self.refused_starts += 1;
            if self.plan.disk_errors && !self.calm && self.refused_starts < REFUSED_STARTS_MAX {
                return Ok(false);
            }
            self.refused = true;
            return Err(format!("opening: {error}"));
        }
        if !engine.borrow().is_ready() {
            return Ok(true);
        }
        (self.is_up, self.formatted) = (true, true);
        self.refused_starts = 0;
        self.report.boots += 1;
        if self.plan.rot && !self.calm {
            let rate = self.plan.rot_reads;
            self.disk.replan(|plan| plan.rot = rate);
        }
        if self.faults.chance(1, 4) {
            // Hosts that take their time: what was recovered is destaged before anything is new.
            let pause = self.faults.below(2 * self.plan.options.idle_ns);
            self.quiet_until = self.now.saturating_add(Duration::from_nanos(pause));
        }
        self.trace(|| "up".to_owned());
        self.reconcile(engine)?;
        Ok(true)
    }

    /// Lets happen what is due: kills, pauses, rot, operations of the operator.
    fn strike(&mut self) -> Result<(), String> {
        if self.engine.is_none() {
            return Ok(());
        }
        self.kill_in = self.kill_in.saturating_sub(1);
        if self.kill_in == 0 {
            let again = self.faults.below(2 * self.plan.kill_every.max(1)) + 1;
            self.kill_in = if self.plan.kill_every == 0 { u64::MAX } else { again };
            return match self.is_up && self.faults.chance(1, 4) {
                true => self.restart(),
                false => self.die(false),
            };
        }
        if !self.is_up {
            return Ok(());
        }
        let degraded = self.engine.as_ref().is_some_and(|engine| engine.borrow().is_degraded());
        if degraded && self.faults.chance(1, 50) {
            return self.die(false);
        }
        if self.faults.chance(1, 100) {
            let pause = Duration::from_nanos(self.faults.below(self.plan.pause_ns));
            self.quiet_until = self.now.saturating_add(pause);
        }
        if self.plan.rot && self.faults.chance(1, 100) {
            self.rot();
        }
        if self.plan.scars && self.faults.chance(1, 500) {
            self.scars.at_work(&self.disk, self.plan.disk.faults.rot_from);
        }
        self.manage()
    }

    /// Flips a bit where data and maps are. The log is left alone: with one copy, rot in its last
    /// record cannot be told from a write that never finished.
    fn rot(&mut self) {
        let start = (128 << 10) + self.plan.disk.log_bytes;
        let offset = self.faults.between(start, self.plan.disk.bytes - 1);
        self.disk.rot(offset, 1 << self.faults.below(8));
    }

    /// An orderly end, and what it leaves.
    fn restart(&mut self) -> Result<(), String> {
        self.trace(|| "the engine is shut down".to_owned());
        self.client.on_death();
        let cut = self.disk.boundaries() + 1_000_000;
        self.disk.replan(|plan| plan.crash_at_write = Some(cut));
        self.shut_down()?;
        self.report.restarts += 1;
        match self.plan.rot || self.plan.disk_errors {
            true => Ok(()),
            false => audit::check(self, true).map(|_| ()),
        }
    }

    /// The process dies; with `power`, the machine with it. Every buffer must come back.
    fn die(&mut self, power: bool) -> Result<(), String> {
        let Some(engine) = self.engine.take() else { return Ok(()) };
        self.trace(|| format!("the engine dies (power cut: {power}): {:?}", engine.borrow()));
        self.trace(|| format!("asked for: {:?}", self.operator.asked));
        self.report.crashes += u64::from(!engine.borrow().is_closed());
        self.report.crashes_early += u64::from(!self.is_up);
        self.is_up = false;
        let unpromised = engine.borrow().stats().unpromised_extents;
        if unpromised > 0 {
            return Err(format!("{unpromised} extents were taken that nobody had set aside"));
        }
        self.client.on_death();
        self.watch.on_death();
        if power {
            self.disk.power_off();
        }
        assert_eq!(Rc::strong_count(&engine), 1, "the queues are closed");
        drop(engine);
        if power {
            self.disk.power_on();
        }
        let at = self.ledger.tick();
        self.ledger.history.crash(at);
        let taken = self.pool.stats().taken();
        if taken > 0 {
            return Err(format!("{taken} buffers are missing: {:?}", self.pool));
        }
        // A trace looks each time, to tell when it happened.
        if self.formatted && !self.plan.rot && (self.faults.chance(1, 2) | self.plan.trace) {
            audit::check(self, false)?;
        }
        Ok(())
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.plan.trace {
            let time = self.now.saturating_since(Instant::ZERO);
            println!("{time:?} moment {}: {}", self.ledger.moment, what());
        }
    }

    fn report(&mut self) -> Report {
        let mut report = std::mem::take(&mut self.report);
        self.ledger.note(self.disk.event_hash());
        self.ledger.note(self.now.as_ns());
        report.hash = self.ledger.hash;
        report.time = self.now.saturating_since(Instant::ZERO);
        report.disk_faults = self.disk.stats().faults;
        report.reads = self.ledger.history.reads;
        report.changes = self.operator.changes;
        report.done = self.client.done;
        report.errors = self.client.errors;
        report.no_space = self.client.no_space;
        report
    }
}
