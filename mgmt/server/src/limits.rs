//! Every bound of the servers, and what happens when it is reached.

/// gRPC calls that one connection may have in flight. More wait.
pub const CONCURRENT_CALLS_MAX: usize = 64;

/// Seconds that open calls get to finish after the shutdown began. Then they are cut.
pub const DRAIN_SECONDS_MAX: u64 = 10;
