//! Whether the device keeps its word: requests that do not come back, errors in a row, and latency
//! that is out of the ordinary.
//!
//! ```text
//!  Healthy <--three windows--> Slow
//!     |                          |
//!     '--deadline, errors in a row--> Quarantined (until the store is opened again)
//! ```
//!
//! A slow device is reported and goes on serving: on one node its data is nowhere else. One that
//! does not answer is quarantined: its volumes answer errors at once instead of letting hosts hang,
//! and the node's other stores do not notice. A request that is late while others come back may be
//! lost, or behind a flush that takes its time: the device is slow from the deadline on, and
//! quarantined at twice the deadline.

use std::time::Duration;

use bdev::{Instant, Status, Tag};

use crate::core::Core;
use crate::device::Device;
use crate::error::Event;
use crate::latency::Latency;
use crate::limits::{
    DEVICE_ERRORS_MAX, DEVICE_LATE_FACTOR, DEVICE_LOOK, DEVICE_MACHINES_MAX, DEVICE_STEP,
    SLOW_FACTOR, SLOW_FLOOR_NS, SLOW_NS, SLOW_REQUESTS_MIN, SLOW_WINDOW, SLOW_WINDOWS,
};

/// How the device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Health {
    /// As it should be.
    #[default]
    Healthy,
    /// It answers, and far too slowly, or not every request.
    Slow,
    /// It does not answer, or only with errors: nothing is asked of it any more.
    Quarantined,
}

/// The device at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthStatus {
    /// The verdict.
    pub health: Health,
    /// The 99th percentile of its last whole window of ten seconds, in nanoseconds.
    pub p99_ns: u64,
    /// How long the oldest request has been with it, in nanoseconds.
    pub oldest_ns: u64,
    /// Requests that failed since one was answered well.
    pub errors_in_row: u32,
}

/// What a window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Slow,
    /// Too few requests to tell.
    Unknown,
}

/// What a window with this 99th percentile says, when the best so far had `best_ns`.
fn verdict(count: u64, p99_ns: u64, best_ns: u64) -> Verdict {
    if count < SLOW_REQUESTS_MIN {
        return Verdict::Unknown;
    }
    let outlier = best_ns.saturating_mul(SLOW_FACTOR).max(SLOW_FLOOR_NS);
    if p99_ns >= SLOW_NS.min(outlier) { Verdict::Slow } else { Verdict::Fine }
}

/// What is known of the device.
#[derive(Debug)]
pub(crate) struct Watch {
    deadline: Duration,
    /// When the oldest request is looked for again.
    look_at: Duration,
    /// Time that counts: a turn that comes late (a paused process) is not the device's fault.
    clock: Duration,
    last: Instant,
    /// Requests of the log and the store, and when they were handed over.
    machines: Vec<(Tag, Duration)>,
    window: Latency,
    window_ends: Duration,
    last_p99_ns: u64,
    best_p99_ns: u64,
    /// Windows in a row that contradict the verdict.
    against: u32,
    errors_in_row: u32,
    /// When a request came back last.
    ended: Duration,
    pub(crate) oldest: Duration,
    pub(crate) health: Health,
}

impl Watch {
    pub(crate) fn new(deadline_ns: u64) -> Watch {
        Watch {
            deadline: Duration::from_nanos(deadline_ns),
            look_at: Duration::ZERO,
            clock: Duration::ZERO,
            last: Instant::ZERO,
            machines: Vec::with_capacity(DEVICE_MACHINES_MAX),
            window: Latency::default(),
            window_ends: SLOW_WINDOW,
            last_p99_ns: 0,
            best_p99_ns: u64::MAX,
            against: 0,
            errors_in_row: 0,
            ended: Duration::ZERO,
            oldest: Duration::ZERO,
            health: Health::Healthy,
        }
    }

    pub(crate) fn clock(&self) -> Duration {
        self.clock
    }

    pub(crate) fn begin_machine(&mut self, tag: Tag) {
        if self.machines.len() < self.machines.capacity() {
            self.machines.push((tag, self.clock));
        }
    }

    /// A request ended; `began` for the engine's own.
    pub(crate) fn end(&mut self, tag: Tag, began: Option<Duration>, status: Status) {
        let began = began.or_else(|| {
            let at = self.machines.iter().position(|&(other, _)| other == tag)?;
            Some(self.machines.swap_remove(at).1)
        });
        if let Some(began) = began {
            self.window.add(self.clock - began);
        }
        self.ended = self.clock;
        self.errors_in_row = if status.is_ok() { 0 } else { self.errors_in_row.saturating_add(1) };
    }

    /// Time passed. True when it is time to look for the oldest request.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        self.clock += now.saturating_since(self.last).min(DEVICE_STEP);
        self.last = self.last.max(now);
        let due = self.clock >= self.look_at;
        if due {
            self.look_at = self.clock + DEVICE_LOOK;
        }
        due
    }

    /// The new verdict, if it changed, and why; `oldest` is when the engine's oldest own request
    /// began.
    fn judge(&mut self, oldest: Option<Duration>) -> Option<(Health, &'static str)> {
        let machines = self.machines.iter().map(|&(_, began)| began);
        let oldest = machines.chain(oldest).min();
        self.oldest = oldest.map_or(Duration::ZERO, |began| self.clock - began);
        let before = self.health;
        if before == Health::Quarantined {
            return None;
        }
        let mut why = "its latency";
        if self.clock >= self.window_ends {
            self.end_window();
        }
        // While others come back the device lives.
        let silent = self.clock - self.ended >= self.deadline;
        if self.oldest >= self.deadline * DEVICE_LATE_FACTOR {
            (self.health, why) = (Health::Quarantined, "a request that did not come back at all");
        } else if silent && self.is_late() {
            (self.health, why) = (Health::Quarantined, "a request that did not come back in time");
        } else if self.is_late() && self.health == Health::Healthy {
            (self.health, why) = (Health::Slow, "a request that is late while others come back");
            self.against = 0;
        }
        if self.errors_in_row >= DEVICE_ERRORS_MAX {
            (self.health, why) = (Health::Quarantined, "one error after the other");
        }
        (self.health != before).then_some((self.health, why))
    }

    /// True when a request has been with the device for longer than it may.
    fn is_late(&self) -> bool {
        self.oldest >= self.deadline
    }

    fn end_window(&mut self) {
        let (count, p99) = (self.window.count(), self.window.quantile_ns(990));
        self.window_ends = self.clock + SLOW_WINDOW;
        self.window = Latency::default();
        let slow = match verdict(count, p99, self.best_p99_ns) {
            Verdict::Unknown => return,
            Verdict::Slow => true,
            Verdict::Fine => false,
        };
        self.last_p99_ns = p99;
        self.best_p99_ns = self.best_p99_ns.min(p99);
        let slow = slow || self.is_late();
        self.against = if slow == (self.health == Health::Slow) { 0 } else { self.against + 1 };
        if self.against >= SLOW_WINDOWS {
            self.health = if slow { Health::Slow } else { Health::Healthy };
            self.against = 0;
        }
    }
}

impl Device {
    /// Looks after the device, once in a turn. The new verdict, if it changed, and why.
    pub(crate) fn look(&mut self, now: Instant) -> Option<(Health, &'static str)> {
        if !self.watch.tick(now) {
            return None;
        }
        if self.in_flight() == 0 {
            self.watch.machines.clear();
        }
        let oldest = self.oldest();
        self.watch.judge(oldest)
    }

    /// True when nothing is asked of the device any more.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.watch.health == Health::Quarantined
    }

    /// When to look again at a device that has something to do.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let watched = self.in_flight() > 0 && !self.is_quarantined();
        watched.then(|| self.watch.last.saturating_add(DEVICE_STEP / 2))
    }

    /// The device at this moment.
    pub(crate) fn health(&self) -> HealthStatus {
        let watch = &self.watch;
        HealthStatus {
            health: watch.health,
            p99_ns: watch.last_p99_ns,
            oldest_ns: u64::try_from(watch.oldest.as_nanos()).unwrap_or(u64::MAX),
            errors_in_row: watch.errors_in_row,
        }
    }
}

impl Core {
    /// Looks after the device, once in a turn.
    pub(crate) fn watch_device(&mut self) {
        let Some((health, why)) = self.device.look(self.now) else { return };
        self.report(Event::Health { health, why });
        if health == Health::Quarantined {
            self.fail(why, Status::Io);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn window_is_slow_by_itself_or_against_the_best() {
        assert_eq!(verdict(31, u64::MAX, 1), Verdict::Unknown);
        assert_eq!(verdict(32, 499 * MS, u64::MAX), Verdict::Fine, "nothing to compare with");
        assert_eq!(verdict(32, 500 * MS, u64::MAX), Verdict::Slow);
        assert_eq!(verdict(32, 49 * MS, MS), Verdict::Fine, "fast enough for anybody");
        assert_eq!(verdict(32, 50 * MS, MS), Verdict::Slow);
        assert_eq!(verdict(32, 99 * MS, 5 * MS), Verdict::Fine);
        assert_eq!(verdict(32, 100 * MS, 5 * MS), Verdict::Slow);
    }

    /// A window of requests that took so long; what became of the verdict.
    fn window(watch: &mut Watch, seconds: &mut u64, took_ms: u64) -> Option<Health> {
        for tag in 0..40 {
            watch.begin_machine(Tag(tag));
        }
        watch.clock += Duration::from_millis(took_ms);
        for tag in 0..40 {
            watch.end(Tag(tag), None, Status::Ok);
        }
        let mut changed = None;
        for _ in 0..11 {
            *seconds += 1;
            let now = Instant::from_ns(*seconds * 1000 * MS);
            assert!(watch.tick(now));
            changed = changed.or(watch.judge(None).map(|(health, _)| health));
        }
        changed
    }

    #[test]
    fn device_is_slow_after_three_windows_and_healthy_after_three_more() {
        let (mut watch, mut seconds) = (Watch::new(30_000 * MS), 0);
        assert_eq!(window(&mut watch, &mut seconds, 1), None);
        for expected in [None, None, Some(Health::Slow), None] {
            assert_eq!(window(&mut watch, &mut seconds, 80), expected);
        }
        for expected in [None, None, Some(Health::Healthy), None] {
            assert_eq!(window(&mut watch, &mut seconds, 2), expected);
        }
        assert!(watch.machines.is_empty());
    }

    #[test]
    fn paused_process_does_not_condemn_its_device() {
        let mut watch = Watch::new(10_000 * MS);
        watch.begin_machine(Tag(1));
        assert!(watch.tick(Instant::from_ns(3_600_000 * MS)));
        assert_eq!(watch.judge(None), None, "an hour asleep");
        let mut verdicts = (1..=20).filter_map(|second| {
            assert!(watch.tick(Instant::from_ns((3_600_000 + second * 1000) * MS)));
            watch.judge(None)
        });
        let (health, _) = verdicts.next().unwrap();
        assert_eq!(health, Health::Quarantined);
        assert_eq!(verdicts.next(), None, "it is said once");
    }

    /// Seconds until the verdicts on a request that is lost while others come back.
    #[test]
    fn lost_request_is_noticed_among_answered_ones() {
        let mut watch = Watch::new(10_000 * MS);
        watch.begin_machine(Tag(1));
        let mut verdicts = Vec::new();
        for second in 1..=40 {
            for tag in 2..50 {
                watch.begin_machine(Tag(tag));
                watch.end(Tag(tag), None, Status::Ok);
            }
            assert!(watch.tick(Instant::from_ns(second * 1000 * MS)));
            verdicts.extend(watch.judge(None).map(|(health, _)| (second, health)));
        }
        assert_eq!(verdicts, [(10, Health::Slow), (20, Health::Quarantined)]);
    }

    #[test]
    fn late_request_that_comes_back_after_all_leaves_a_healthy_device() {
        let (mut watch, mut seconds) = (Watch::new(15_000 * MS), 0);
        watch.begin_machine(Tag(99));
        assert_eq!(window(&mut watch, &mut seconds, 1), None);
        assert_eq!(window(&mut watch, &mut seconds, 1), Some(Health::Slow));
        watch.end(Tag(99), None, Status::Ok);
        let after: Vec<_> = (0..4).map(|_| window(&mut watch, &mut seconds, 1)).collect();
        assert!(after.contains(&Some(Health::Healthy)), "{after:?}");
        assert!(!after.contains(&Some(Health::Quarantined)), "{after:?}");
    }
}
