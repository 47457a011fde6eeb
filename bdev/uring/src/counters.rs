//! What was asked of the system, in calls or ring operations.

use std::sync::atomic::{AtomicU64, Ordering};

/// Operations that a disk's queues have asked the system for, retries and continuations included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// `fdatasync`s, for flushes and for writes with FUA.
    pub syncs: u64,
    /// `fallocate`s, for deallocate and write-zeroes.
    pub fallocates: u64,
}

/// The counters of one queue: its thread alone writes them, anybody reads them. Aligned so that
/// two queues never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
    fallocates: AtomicU64,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Sync,
    Fallocate,
}

impl Counters {
    pub(crate) fn count(&self, call: Call) {
        let counter = match call {
            Call::Read => &self.reads,
            Call::Write => &self.writes,
            Call::Sync => &self.syncs,
            Call::Fallocate => &self.fallocates,
        };
        // There is one writer, so that a load and a store do.
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn add_to(&self, counts: &mut IoCounts) {
        counts.reads += self.reads.load(Ordering::Relaxed);
        counts.writes += self.writes.load(Ordering::Relaxed);
        counts.syncs += self.syncs.load(Ordering::Relaxed);
        counts.fallocates += self.fallocates.load(Ordering::Relaxed);
    }
}
