//! The named limits of block I/O, and what happens at each.

/// Largest payload of one request, in bytes: the largest segment class of a [`crate::Pool`].
///
/// Transports split or refuse larger transfers (NVMe reports it as `MDTS`); a request beyond it
/// completes with [`crate::Status::Invalid`].
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Alignment and granularity of every buffer segment, in bytes: what `O_DIRECT` and NVMe PRPs need.
pub const SEGMENT_ALIGN: usize = 4096;

/// Most buffer pools alive in one process (a handle has eight bits for its pool, zero is unused).
///
/// [`crate::Pool::new`] fails with [`crate::PoolError::TooMany`] beyond it.
pub const POOLS_MAX: usize = 255;

/// Queue depth when nothing else is asked for, in requests.
pub const QUEUE_DEPTH_DEFAULT: u32 = 256;

/// Deepest queue that a device is asked for, in requests; [`crate::QueueCx::depth`] clamps to it.
pub const QUEUE_DEPTH_MAX: u32 = 4096;

/// Pages that one handle can name: 24 bits, so one pool holds at most 64 GiB.
pub(crate) const POOL_PAGES_MAX: usize = 1 << 24;

/// Segment classes, in bytes. Powers of four from one page to the largest request.
pub(crate) const CLASS_BYTES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

const _: () = assert!(CLASS_BYTES[0] == SEGMENT_ALIGN);
const _: () = assert!(CLASS_BYTES[CLASS_BYTES.len() - 1] == REQUEST_BYTES_MAX as usize);
// A pool of POOL_PAGES_MAX pages and a pool number must fit one 32-bit handle.
const _: () = assert!(POOL_PAGES_MAX * (POOLS_MAX + 1) == 1 << 32);
