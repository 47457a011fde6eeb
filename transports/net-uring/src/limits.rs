//! The named limits of the sockets, and what happens at each.

/// Most connections of one [`crate::UringNet`]: each may have a receive, a send and a cancel in
/// flight, and the kernel's largest completion queue has 65,536 entries. [`crate::UringNet::new`]
/// clamps to it.
pub const CONNECTIONS_MAX: usize = 16_000;

/// Operations of one connection that may be in flight: receive (or connect), send, cancel.
pub(crate) const OPS_PER_CONNECTION: usize = 3;

/// Operations of one listener that may be in flight: accept, cancel.
pub(crate) const OPS_PER_LISTENER: usize = 2;

/// Pieces that one system call sends; a batch with more goes out in several.
pub const IOVECS_MAX: usize = 256;

/// Busy connections of a shard that direct calls serve, when nothing else is asked for; the others
/// are left to the ring. Each costs a call of some 120 ns in every poll.
pub const DIRECT_DEFAULT: usize = 8;

/// Direct receives that find nothing before a connection is left to the ring.
pub(crate) const DIRECT_TRIES: u32 = 64;

/// Staged submissions; when more are staged before a kick, the first are submitted early.
pub(crate) const SUBMISSIONS_MAX: usize = 4096;

/// Connections that wait in the kernel's backlog of one listener; more are dropped by the kernel
/// and tried again by the peer.
pub(crate) const BACKLOG_MAX: i32 = 1024;

/// How often in a row an operation is started again because the system was short of memory,
/// before its connection is closed.
pub(crate) const RETRIES_MAX: u32 = 10_000;

/// Waits for cancelled operations while a `UringNet` is dropped; what is still in flight then is
/// leaked.
pub(crate) const DRAIN_WAITS_MAX: usize = 1000;

const _: () = assert!(CONNECTIONS_MAX <= net::CONNECTIONS_MAX);
const _: () =
    assert!(CONNECTIONS_MAX * OPS_PER_CONNECTION + net::LISTENERS_MAX * OPS_PER_LISTENER < 65_536);
