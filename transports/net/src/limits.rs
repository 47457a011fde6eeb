//! The named limits of the byte streams, and what happens at each.

/// Most pieces in one [`crate::Batch`]; more are refused and wait for the next batch.
///
/// The kernel takes at most 1024 (`IOV_MAX`) in one call.
pub const BATCH_PIECES_MAX: usize = 1024;

/// Most header bytes in one [`crate::Batch`]; more are refused and wait for the next batch.
pub const BATCH_SCRATCH_MAX: usize = 1 << 20;

/// Pieces of a batch when nothing else is asked for.
pub const BATCH_PIECES_DEFAULT: usize = 64;

/// Header bytes of a batch when nothing else is asked for.
pub const BATCH_SCRATCH_DEFAULT: usize = 8 << 10;

/// Most connections of one [`crate::Net`]. [`crate::Net::adopt`] gives the socket back beyond the
/// number it was made for, and [`crate::Net::connect`] fails.
pub const CONNECTIONS_MAX: usize = 1 << 16;

/// Most listeners of one [`crate::Net`]; [`crate::Net::listen`] fails beyond it.
pub const LISTENERS_MAX: usize = 16;

const _: () = assert!(BATCH_PIECES_DEFAULT <= BATCH_PIECES_MAX);
const _: () = assert!(BATCH_SCRATCH_DEFAULT <= BATCH_SCRATCH_MAX);
