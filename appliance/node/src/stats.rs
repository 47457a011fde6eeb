//! Counters and latency histograms: written by one shard, read by anyone.
//!
//! A shard is the only writer of its counters, so that adding is a plain load and store. Each block
//! of counters has cache lines of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bdev::Op;
use bdev::buckets::{BUCKETS, bucket_of, upper_bound_ns};

/// A number that one shard counts up and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        // One writer: no read-modify-write is needed.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }
}

/// What one shard has done since it started.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Turns.
    pub turns: Counter,
    /// Turns that found something to do.
    pub turns_busy: Counter,
    /// TCP connections accepted by this shard's listeners.
    pub accepted: Counter,
    /// TCP connections closed because all connections were taken, or to make room for others.
    pub turned_away: Counter,
    /// TCP connections open now.
    pub connections: Counter,
    /// Queues connected (admin and I/O).
    pub queues_connected: Counter,
    /// Connects refused: an unknown subsystem, a host that is not allowed.
    pub refused: Counter,
    /// Hosts that did not prove who they are.
    pub not_authenticated: Counter,
    /// Connections ended because the peer broke the protocol.
    pub protocol_errors: Counter,
    /// Bytes received.
    pub received_bytes: Counter,
    /// Bytes sent.
    pub sent_bytes: Counter,
    /// Requests that hopped to the shard that owns their volume.
    pub remote_requests: Counter,
    /// Control commands.
    pub commands: Counter,
    /// Buffer segments in all.
    pub buffers: Counter,
    /// Buffer segments free now (taken every sweep).
    pub buffers_free: Counter,
}

/// The kinds of I/O that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads and compares.
    Read = 0,
    /// Writes, write-zeroes and compare-and-writes included.
    Write = 1,
    /// Flushes.
    Flush = 2,
    /// Deallocations.
    Deallocate = 3,
}

impl Kind {
    /// Every kind, in the order of its number.
    pub const ALL: [Kind; 4] = [Kind::Read, Kind::Write, Kind::Flush, Kind::Deallocate];

    /// The kind of an operation; `None` for reservation commands, which are no I/O.
    pub(crate) fn of(op: Op) -> Option<Kind> {
        match op {
            Op::Read | Op::Compare => Some(Kind::Read),
            Op::Write | Op::WriteZeroes | Op::CompareAndWrite => Some(Kind::Write),
            Op::Flush => Some(Kind::Flush),
            Op::Deallocate => Some(Kind::Deallocate),
            Op::Reserve => None,
        }
    }
}

/// The I/O of one namespace through one shard's connections.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct NamespaceCounters {
    kinds: [IoCounter; 4],
    /// Requests refused because another host has reserved the volume. They are in no other count.
    pub conflicts: Counter,
}

impl NamespaceCounters {
    /// The counters of one kind of I/O.
    pub fn of(&self, kind: Kind) -> &IoCounter {
        &self.kinds[kind as usize]
    }
}

/// One kind of I/O of one namespace through one shard.
#[derive(Debug, Default)]
pub struct IoCounter {
    /// Operations finished, failed ones included.
    pub operations: Counter,
    /// Bytes moved.
    pub bytes: Counter,
    /// Operations that failed.
    pub errors: Counter,
    /// From the request to its completion, in the shard.
    pub latency: Histogram,
}

/// A log-linear histogram of durations: eight buckets for each power of two, so that a bucket is at
/// most 12.5 % wide.
#[derive(Debug)]
pub struct Histogram {
    sum_ns: Counter,
    buckets: [Counter; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            sum_ns: Counter::default(),
            buckets: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Histogram {
    /// The sum of all durations, in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.read()
    }

    /// Upper bound (exclusive, nanoseconds) and count of each bucket, ascending. The last one has
    /// no bound and is reported with `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(i, count)| (upper_bound_ns(i), count.read()))
    }

    pub(crate) fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.add(ns);
        self.buckets[bucket_of(ns)].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_counts_each_sample_once() {
        let histogram = Histogram::default();
        for us in 0..1000 {
            histogram.add(Duration::from_micros(us));
        }
        assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), 1000);
        assert_eq!(histogram.sum_ns(), 999 * 1000 / 2 * 1000);
    }
}
