//! Numbers of a node at one moment, for metrics.

use crate::{ByteLen, ScrubPolicy, ScrubProgress, SnapshotPath, StoreName, VolumeName};

/// Everything that `/metrics` shows, taken at scrape time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsSnapshot {
    /// One per reactor core.
    pub shards: Vec<ShardStats>,
    /// One per open store.
    pub stores: Vec<StoreStats>,
    /// One per volume of an open store.
    pub volumes: Vec<VolumeStats>,
    /// One per snapshot.
    pub snapshots: Vec<SnapshotStats>,
    /// The NVMe/TCP listeners.
    pub transport: TransportStats,
}

/// Counters of one reactor core since start-up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ShardStats {
    /// The shard's number.
    pub shard: u32,
    /// The core it is pinned to; `None` when it floats.
    pub core: Option<u32>,
    /// Turns made.
    pub turns: u64,
    /// Turns that found work.
    pub turns_busy: u64,
    /// Times the reactor slept in the kernel.
    pub sleeps: u64,
    /// Buffer segments in all.
    pub buffers: u64,
    /// Buffer segments free now.
    pub buffers_free: u64,
}

/// State of one store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreStats {
    /// The store.
    pub name: StoreName,
    /// Whether and how fast it is scrubbed.
    pub scrub_policy: ScrubPolicy,
    /// The rest.
    pub numbers: StoreNumbers,
}

/// What an open store counts; counters begin when it is opened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoreNumbers {
    /// Bytes that volumes can use in all.
    pub capacity: ByteLen,
    /// Bytes that volumes use now.
    pub used: ByteLen,
    /// Bytes of the log region.
    pub log_size: ByteLen,
    /// Bytes of the log that are not yet reusable.
    pub log_used: ByteLen,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Bytes written to the device.
    pub device_written: u64,
    /// Bytes read from the device.
    pub device_read: u64,
    /// Blocks whose checksum did not match.
    pub integrity_errors: u64,
    /// How writes flow through it.
    pub flow: StoreFlow,
    /// How long writes waited for its log.
    pub waits: LatencyHistogram,
    /// How its device is.
    pub health: DeviceHealth,
    /// How its scrub is.
    pub scrub: ScrubProgress,
    /// How its checks were.
    pub check: CheckCounters,
}

/// How the device of a store is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeviceHealth {
    /// The verdict.
    pub state: HealthState,
    /// The 99th percentile of its latency, lately, in nanoseconds.
    pub p99_ns: u64,
    /// How long the oldest request has been with it, in nanoseconds.
    pub oldest_ns: u64,
    /// Requests that it failed.
    pub errors: u64,
}

/// A verdict on a device.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum HealthState {
    /// As it should be.
    #[default]
    Healthy,
    /// It answers, and far too slowly.
    Slow,
    /// It does not answer, or only with errors: nothing is asked of it any more.
    Quarantined,
}

/// The checks of a store since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CheckCounters {
    /// One is under way.
    pub running: bool,
    /// Those that came to their end.
    pub done: u64,
    /// Those that gave way.
    pub aborted: u64,
    /// What the last one that came to its end found.
    pub found: u64,
    /// What all of them found together.
    pub found_all: u64,
    /// Bytes of leaked space that they gave back.
    pub freed: u64,
}

/// How writes flow through a store, since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StoreFlow {
    /// Bytes that hosts wrote.
    pub host_written: u64,
    /// Bytes written to the log.
    pub log_written: u64,
    /// Bytes written to extents.
    pub data_written: u64,
    /// Bytes written to the map and the superblocks.
    pub metadata_written: u64,
    /// Writes that the log began to take.
    pub writes_admitted: u64,
    /// Writes that were let go because their queue was closed.
    pub writes_released: u64,
    /// Writes that had to wait, for whatever reason.
    pub writes_parked: u64,
    /// Writes that were delayed because the log filled up.
    pub writes_delayed: u64,
    /// Writes that were held until the log had room.
    pub writes_held: u64,
    /// Writes that were given back because that took too long.
    pub writes_timed_out: u64,
    /// Writes refused because the store was full.
    pub writes_no_space: u64,
    /// Writes that wait now.
    pub waiting: u64,
    /// How long the one that has waited longest has, in nanoseconds.
    pub longest_wait_ns: u64,
    /// What the log asks of writers: 0 nothing, 1 a delay, 2 to wait.
    pub pressure: u8,
    /// How long a write that comes now is delayed, in nanoseconds.
    pub delay_ns: u64,
    /// Bytes of the log that the destager has not moved to the map.
    pub log_not_moved: u64,
    /// The oldest record of the log that is kept.
    pub log_tail_lsn: u64,
    /// Records below this number are durable.
    pub log_durable_lsn: u64,
    /// The number that the next record gets.
    pub log_head_lsn: u64,
    /// Blocks that the destager moved.
    pub destaged_blocks: u64,
    /// Snapshots and restores that are in the log and not in the map yet.
    pub waiting_snapshots: u64,
    /// Extents that were copied because a snapshot shares them.
    pub copied_extents: u64,
    /// Metadata pages that were healed from their second copy.
    pub healed_pages: u64,
    /// How full the store is.
    pub space: SpaceState,
}

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum SpaceState {
    /// There is room.
    #[default]
    Ample,
    /// There is little room left.
    Low,
    /// Writes that need room fail.
    Full,
}

/// Counters of one volume since it was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeStats {
    /// The volume.
    pub name: VolumeName,
    /// Its size.
    pub size: ByteLen,
    /// Bytes of its store that it uses.
    pub used: ByteLen,
    /// Its snapshots.
    pub snapshots: u64,
    /// Times that requests had to wait for its limits.
    pub throttled: u64,
    /// How long, all times together, in nanoseconds.
    pub throttled_ns: u64,
    /// Its I/O; `None` when it is not exported.
    pub io: Option<VolumeIo>,
}

/// A snapshot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotStats {
    /// Its name and its volume's.
    pub path: SnapshotPath,
    /// What its map references, shared or not.
    pub referenced: ByteLen,
}

/// The I/O of one volume since it was exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeIo {
    /// Reads.
    pub read: IoCounters,
    /// Writes, write-zeroes included.
    pub write: IoCounters,
    /// Flushes.
    pub flush: IoCounters,
    /// Deallocations.
    pub deallocate: IoCounters,
}

/// Counters of one kind of I/O.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IoCounters {
    /// Operations finished, failed ones included.
    pub operations: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Operations that failed.
    pub errors: u64,
    /// How long they took; `None` where it is not measured.
    pub latency: Option<LatencyHistogram>,
}

/// A latency histogram.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LatencyHistogram {
    /// Sum of all samples in nanoseconds.
    pub sum_ns: u64,
    /// Upper bound in nanoseconds and number of samples in the bucket (not cumulative), ascending.
    pub buckets: Vec<(u64, u64)>,
    /// Samples above the last bound.
    pub overflow: u64,
}

/// Counters of the NVMe/TCP transport since start-up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TransportStats {
    /// TCP connections open now.
    pub connections: u64,
    /// Controllers connected now.
    pub sessions: u64,
    /// TCP connections accepted.
    pub accepted: u64,
    /// Connects refused because the host is not on the allow list.
    pub refused: u64,
    /// Hosts that did not prove who they are.
    pub not_authenticated: u64,
    /// Connections ended because of a protocol error or a digest mismatch.
    pub protocol_errors: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}
