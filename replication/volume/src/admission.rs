//! When a write, deallocate or write-zeroes may go into the log.
//!
//! ```text
//!  taken --log below 0.7--> logged <--room-- parked
//!    |                        ^                ^
//!    `--above: delayed -------'--above 0.9-----'      one deadline over all of it
//! ```
//!
//! Reads never pass here. What the watermarks and the delay are is in `pacing`; this file keeps the
//! one deadline over the whole wait, lets go of writers whose queue was closed, and counts.

use std::time::Duration;

use bdev::{Instant, Status};

use crate::core::Core;
use crate::latency::Latency;
use crate::limits::{LOG_HARD, LOG_SOFT};
use crate::pacing;

/// What the log asks of writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Pressure {
    /// They go at once.
    #[default]
    None,
    /// Above the soft watermark: each waits for a moment.
    Soft,
    /// Above the hard watermark: they wait until the destager has made room.
    Hard,
}

/// The log at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes in use that the destager has not moved to the map.
    pub not_moved_bytes: u64,
    /// Number of the oldest record that is kept.
    pub tail_lsn: u64,
    /// Records below this number are durable.
    pub durable_lsn: u64,
    /// The number that the next record gets.
    pub head_lsn: u64,
    /// What it asks of writers.
    pub pressure: Pressure,
    /// How long a write that comes now is delayed, in nanoseconds.
    pub delay_ns: u64,
    /// Writes, deallocates and write-zeroes that wait now, for whatever reason.
    pub waiting: u64,
    /// How long the one that has waited longest has, in nanoseconds.
    pub longest_wait_ns: u64,
}

/// What admission keeps between turns.
#[derive(Debug)]
pub(crate) struct Admission {
    deadline: Duration,
    /// From arrival until the first of it was taken into the log.
    pub(crate) waits: Latency,
    /// When the first delay ends.
    pub(crate) wake_at: Option<Instant>,
}

impl Admission {
    pub(crate) fn new(deadline_ns: u64) -> Admission {
        let deadline = Duration::from_nanos(deadline_ns);
        Admission { deadline, waits: Latency::default(), wake_at: None }
    }
}

impl Core {
    /// Whether the operation has waited for as long as the log asks of it now. When the log empties
    /// meanwhile, the delay ends early.
    pub(crate) fn is_due(&mut self, key: u32) -> bool {
        // What the delay follows is never more than what is in use.
        let ample = self.wal.used_blocks() * 100 < self.wal.ring_blocks() * LOG_SOFT;
        let op = self.ops.get(key).expect("the caller holds the operation");
        if ample || op.admitted {
            return true;
        }
        let flow = self.queues.get(op.queue).expect("queues outlive operations").flow;
        let delay = self.flows.fair_delay_ns(flow, pacing::delay_ns(self.log_load()));
        let due = op.arrived.saturating_add(Duration::from_nanos(delay));
        if self.now >= due {
            return true;
        }
        let wake_at = self.admission.wake_at.get_or_insert(due);
        *wake_at = due.min(*wake_at);
        let op = self.ops.get_mut(key).expect("held");
        self.stats.writes_delayed += u64::from(!op.delayed);
        op.delayed = true;
        false
    }

    /// The first part of an operation was taken.
    pub(crate) fn count_admitted(&mut self, key: u32) {
        let op = self.ops.get_mut(key).expect("held");
        if !op.admitted {
            op.admitted = true;
            self.stats.writes_admitted += 1;
            self.admission.waits.add(self.now.saturating_since(op.arrived));
        }
    }

    /// False from the hard watermark on: what is in the log must be destaged first.
    pub(crate) fn admits(&mut self, key: u32) -> bool {
        if self.wal.used_blocks() * 100 < self.wal.ring_blocks() * LOG_HARD {
            return true;
        }
        let op = self.ops.get_mut(key).expect("held");
        self.stats.writes_held += u64::from(!op.held);
        op.held = true;
        false
    }

    /// Why a waiting operation shall not wait any longer, if so: its queue was closed, the engine
    /// shuts down, or its deadline has passed.
    pub(crate) fn is_given_up(&mut self, key: u32) -> Option<Status> {
        let op = self.ops.get(key).expect("held");
        let closed = self.queues.get(op.queue).is_some_and(|queue| queue.closed);
        if closed || self.draining {
            self.stats.writes_released += 1;
            return Some(Status::Aborted);
        }
        let ignored = bdev::planted(bdev::Planted::DeadlineIgnored);
        if ignored || self.now.saturating_since(op.arrived) < self.admission.deadline {
            return None;
        }
        self.stats.writes_timed_out += 1;
        // `TimedOut` says that nothing happened.
        let untouched = op.cursor == 0 && op.pending == 0;
        Some(if untouched { Status::TimedOut } else { Status::Retry })
    }

    /// Blocks of log whose records the map does not have yet.
    fn not_moved_blocks(&self) -> u64 {
        let used = self.wal.used_blocks();
        let moved = self.moved_to().saturating_sub(self.wal.tail().position);
        used.saturating_sub(moved)
    }

    /// The part of the log that the destager has not moved.
    pub(crate) fn not_moved(&self) -> u64 {
        pacing::share(self.not_moved_blocks(), self.wal.ring_blocks())
    }

    fn log_load(&self) -> u64 {
        let used = pacing::share(self.wal.used_blocks(), self.wal.ring_blocks());
        pacing::load(used, self.not_moved())
    }

    /// The log at this moment.
    pub(crate) fn log_status(&self) -> LogStatus {
        let block = crate::device::BLOCK as u64;
        let delay_ns = pacing::delay_ns(self.log_load());
        let hard = self.wal.used_blocks() * 100 >= self.wal.ring_blocks() * LOG_HARD;
        let pressure = match (hard, delay_ns) {
            (true, _) => Pressure::Hard,
            (false, 1..) => Pressure::Soft,
            (false, 0) => Pressure::None,
        };
        let arrived = |&key: &u32| self.ops.get(key).map(|op| op.arrived);
        let oldest = self.parked_writes.iter().filter_map(arrived).min();
        let longest = oldest.map_or(Duration::ZERO, |oldest| self.now.saturating_since(oldest));
        LogStatus {
            bytes: self.wal.ring_blocks() * block,
            used_bytes: self.wal.used_blocks() * block,
            not_moved_bytes: self.not_moved_blocks() * block,
            tail_lsn: self.wal.tail().lsn.0,
            durable_lsn: self.wal.durable().lsn.0,
            head_lsn: self.wal.next_lsn().0,
            pressure,
            delay_ns,
            waiting: (self.parked_writes.len() + self.parked_directs.len()) as u64,
            longest_wait_ns: u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}
