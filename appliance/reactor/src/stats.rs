//! What a reactor has been doing, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

/// Counters of one reactor. It alone writes them, with plain stores; they share no cache line with
/// anything else.
#[derive(Debug, Default)]
pub struct ReactorStats {
    counters: CachePadded<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    turns: AtomicU64,
    worked: AtomicU64,
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
    slept_ns: AtomicU64,
    sleeps: AtomicU64,
    longest_turn_ns: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Turns in all.
    pub turns: u64,
    /// Turns that found something to do.
    pub worked: u64,
    /// Time in those turns.
    pub busy: Duration,
    /// Time in the other turns: spinning.
    pub idle: Duration,
    /// Time asleep.
    pub slept: Duration,
    /// How often it slept.
    pub sleeps: u64,
    /// The longest turn since the start, pre-emption by the system included.
    pub longest_turn: Duration,
}

impl ReactorStats {
    /// The counters now. Each is exact; between them a turn may pass.
    pub fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |counter: &AtomicU64| Duration::from_nanos(read(counter));
        Snapshot {
            turns: read(&self.counters.turns),
            worked: read(&self.counters.worked),
            busy: time(&self.counters.busy_ns),
            idle: time(&self.counters.idle_ns),
            slept: time(&self.counters.slept_ns),
            sleeps: read(&self.counters.sleeps),
            longest_turn: time(&self.counters.longest_turn_ns),
        }
    }

    pub(crate) fn on_turn(&self, worked: bool, took_ns: u64) {
        let counters = &self.counters;
        add(&counters.turns, 1);
        if worked {
            add(&counters.worked, 1);
            add(&counters.busy_ns, took_ns);
        } else {
            add(&counters.idle_ns, took_ns);
        }
        if took_ns > counters.longest_turn_ns.load(Ordering::Relaxed) {
            counters.longest_turn_ns.store(took_ns, Ordering::Relaxed);
        }
    }

    pub(crate) fn on_sleep(&self, took_ns: u64) {
        add(&self.counters.sleeps, 1);
        add(&self.counters.slept_ns, took_ns);
    }
}

/// The reactor is the only writer, so that a load and a store do.
fn add(counter: &AtomicU64, amount: u64) {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(amount), Ordering::Relaxed);
}

impl Snapshot {
    /// What happened since `earlier`; the longest turn is the one since the start.
    #[must_use]
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        Snapshot {
            turns: self.turns.saturating_sub(earlier.turns),
            worked: self.worked.saturating_sub(earlier.worked),
            busy: self.busy.saturating_sub(earlier.busy),
            idle: self.idle.saturating_sub(earlier.idle),
            slept: self.slept.saturating_sub(earlier.slept),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
            longest_turn: self.longest_turn,
        }
    }
}
