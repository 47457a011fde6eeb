//! Every bound of the daemon, and what happens when it is reached.

/// Rounds of planning at start-up. The plan of a consistent node is empty after three; what is
/// left after the last round is reported as a complaint.
pub const RECONCILE_ROUNDS_MAX: usize = 8;

/// Bytes read at each end of a device to find foreign data before a store is written.
pub const PROBE_BYTES: u64 = 1 << 20;

/// The smallest device for a store. A smaller one is refused.
pub const DEVICE_BYTES_MIN: u64 = 64 << 20;

/// Seconds between two looks at sessions and integrity counters, for events.
pub const MONITOR_SECONDS: u64 = 2;

/// Seconds after which the data plane is told the time again.
pub const TIME_TOLD_SECONDS: u64 = 600;

/// Damaged blocks and pages of a store that one look tells one by one; the rest is counted.
pub const NOTICES_TOLD_MAX: usize = 8;

/// Seconds between two events about the same host that asks for the same thing and is refused.
pub const REFUSAL_QUIET_SECONDS: u64 = 60;

/// Refused hosts that are told apart. Further ones are counted together in one event.
pub const REFUSED_PAIRS_MAX: usize = 64;

/// Seconds that draining may take when nothing else is configured. Then the node stops anyway.
pub const DRAIN_SECONDS_DEFAULT: u64 = 30;
