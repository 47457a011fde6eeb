//! Numbers of a node at one moment, for metrics.

use crate::{ByteLen, StoreName, VolumeName};

/// Everything that `/metrics` shows, taken at scrape time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsSnapshot {
    /// One per reactor core.
    pub shards: Vec<ShardStats>,
    /// One per open store.
    pub stores: Vec<StoreStats>,
    /// One per serving volume.
    pub volumes: Vec<VolumeStats>,
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
    /// Bytes that volumes can use in all.
    pub capacity: ByteLen,
    /// Bytes that volumes use now.
    pub used: ByteLen,
    /// Bytes of the log region.
    pub log_size: ByteLen,
    /// Bytes of the log that are not yet reusable.
    pub log_used: ByteLen,
    /// Checkpoints made since the store was opened.
    pub checkpoints: u64,
    /// Bytes written to the device.
    pub device_written: u64,
    /// Bytes read from the device.
    pub device_read: u64,
    /// Blocks whose checksum did not match.
    pub integrity_errors: u64,
    /// How writes flow through it.
    pub flow: StoreFlow,
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
    /// What the log asks of writers: 0 nothing, 1 a delay, 2 to wait.
    pub pressure: u8,
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
#[derive(Clone, Debug, Default, PartialEq)]
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
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Connections ended because of a protocol error or a digest mismatch.
    pub protocol_errors: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}
