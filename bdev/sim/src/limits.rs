//! The named limits of the simulated disk, and what happens at each.

/// Bytes that the volatile cache holds unless the plan says otherwise. Beyond it the oldest writes
/// go to the medium by themselves, as in a real drive.
pub const CACHE_BYTES_DEFAULT: u64 = 32 << 20;

/// Faults that are remembered for the checkers; older ones are only counted.
pub const FAULTS_KEPT_MAX: usize = 4096;

/// Bytes in a page of an image: the unit of sharing between forks.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Pages in a chunk: one MiB, the unit of the image's directory.
pub(crate) const CHUNK_PAGES: usize = 256;
