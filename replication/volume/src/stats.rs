//! What an engine counts.

/// Counters since the engine was opened, and gauges of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads and compares of hosts that were taken.
    pub host_reads: u64,
    /// Writes and compare-and-writes of hosts that were taken.
    pub host_writes: u64,
    /// Deallocates and write-zeroes of hosts that were taken.
    pub host_zeroes: u64,
    /// Bytes that hosts read.
    pub host_read_bytes: u64,
    /// Bytes that hosts wrote.
    pub host_written_bytes: u64,
    /// Bytes that hosts wrote and whose checksums had to be computed here: they did not come with
    /// the buffer. With data digests on the wire this stays zero.
    pub summed_bytes: u64,
    /// Requests of hosts that ended with an error.
    pub host_errors: u64,
    /// Bytes written to the log: headers and payload.
    pub log_written_bytes: u64,
    /// Bytes written to extents: by the destager and by direct writes.
    pub data_written_bytes: u64,
    /// Bytes written to metadata pages and superblocks.
    pub metadata_written_bytes: u64,
    /// Bytes read from the device for whatever purpose.
    pub device_read_bytes: u64,
    /// Size of the log in bytes.
    pub log_bytes: u64,
    /// Bytes of the log in use.
    pub log_used_bytes: u64,
    /// Blocks in the overlay.
    pub overlay_blocks: u64,
    /// Blocks that the destager moved.
    pub destaged_blocks: u64,
    /// Extents that the destager took without one being set aside for it: the accounting of space
    /// went wrong.
    pub unpromised_extents: u64,
    /// Extents that were copied because a snapshot shares them.
    pub copied_extents: u64,
    /// Snapshots and restores that are durable in the log and not yet in the map.
    pub waiting_snapshots: u64,
    /// Windows of the log that the destager worked through.
    pub destage_windows: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Writes that had to wait, for log, space, a lock or a page.
    pub parked_writes: u64,
    /// Writes, deallocates and write-zeroes that the log began to take.
    pub writes_admitted: u64,
    /// Those that the soft watermark delayed.
    pub writes_delayed: u64,
    /// Those that the hard watermark held.
    pub writes_held: u64,
    /// Those that were given back because their deadline passed.
    pub writes_timed_out: u64,
    /// Those that were let go because their queue was closed, or the engine was shut down.
    pub writes_released: u64,
    /// Writes that are waiting now.
    pub parked_now: u64,
    /// Blocks that did not match their checksum, and metadata pages of which no copy could be used.
    pub integrity_errors: u64,
    /// Copies of metadata pages that were damaged and rewritten from the other copy.
    pub healed_pages: u64,
    /// Requests that the device failed.
    pub device_errors: u64,
    /// Writes refused because the store was full.
    pub no_space: u64,
    /// Extents of the store that are free, in bytes.
    pub free_bytes: u64,
    /// Size of the store's pool of extents in bytes.
    pub total_bytes: u64,
    /// Records replayed when the engine was opened.
    pub replayed_records: u64,
}

impl Stats {
    /// Bytes written to the device for each byte that hosts wrote; zero before the first write.
    pub fn write_amplification(&self) -> f64 {
        if self.host_written_bytes == 0 {
            return 0.0;
        }
        let device = self.log_written_bytes + self.data_written_bytes + self.metadata_written_bytes;
        // Counters below 2^53 bytes (8 PiB) are exact in a float.
        device as f64 / self.host_written_bytes as f64
    }
}
