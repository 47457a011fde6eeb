//! The named limits of a shard, and what happens at each.

/// Most shards of one node. [`crate::node`] refuses more.
pub const SHARDS_MAX: usize = 64;

/// Control commands that wait for one shard; [`crate::NodeError::Busy`] beyond it.
pub const MAILBOX_DEPTH: usize = 64;

/// Control commands that one shard works on at once; further ones wait in the mailbox.
pub const COMMANDS_PENDING_MAX: usize = 64;

/// Namespaces of one node; attaching one more fails with [`crate::NodeError::TooMany`].
pub const NAMESPACES_MAX: usize = 4096;

/// Stores of one node; opening one more fails with [`crate::NodeError::TooMany`].
pub const STORES_MAX: usize = 64;

/// Volumes of a RAM store; one more fails with [`crate::NodeError::TooMany`].
pub const RAM_VOLUMES_MAX: usize = 256;

/// Connections of one shard when nothing else is asked for.
///
/// Their memory is allocated at start-up. A connection that arrives when all are taken is closed.
pub const CONNECTIONS_DEFAULT: usize = 256;

/// Most connections of one shard: [`crate::NodeConfig::connections_max`] is clamped to it.
pub const CONNECTIONS_MAX: usize = 4096;

/// When less than this part of a shard's connections is free (an eighth), each that arrives ends
/// one that has to give way: the oldest that has not said who it is, or else the oldest to the
/// discovery service.
pub(crate) const SPARE_SHARE: usize = 8;

/// Requests in flight from one shard to volumes of another; more stay with the requester.
pub const LINK_DEPTH: usize = 512;

/// Requests in flight in one namespace's device queue; more are parked in their command's slot.
pub const QUEUE_DEPTH: u32 = 256;

/// Requests of a store in flight at its device; more wait in the engine.
pub const DEVICE_QUEUE_DEPTH: u32 = 1024;

/// Accepted sockets on their way from one shard to another; more are closed.
pub const ADOPTIONS_MAX: usize = 64;

/// Refused Connects that one shard remembers until [`crate::NodeHandle::refusals`] takes them;
/// further ones are only counted.
pub const REFUSALS_KEPT: usize = 64;

/// Computations for authentications that one shard has outstanding; other connections wait for
/// theirs, until [`nvmf::AUTH_TIMEOUT_MS`] has passed.
pub const COMPUTATIONS_MAX: usize = 32;

/// Of those, the ones for hosts at the same address (IPv6: in the same /64). One that opens many
/// connections and wants the largest group keeps others waiting no longer than for these.
pub const COMPUTATIONS_PER_PEER_MAX: usize = 4;

/// Damaged blocks and pages that a store remembers until [`crate::NodeHandle::take_notices`] takes
/// them; further ones are only counted.
pub const NOTICES_KEPT: usize = 64;

/// Reservation tables of a store that are being read or written at once; more wait for a turn.
pub(crate) const KEEPS_MAX: usize = 16;

/// Reservation commands that are finished in one turn; more wait for the next.
pub(crate) const RESERVES_FINISHED_MAX: usize = 64;

/// Turns after which a walk over a map answers with what it has: other changes of the store wait
/// for it.
pub(crate) const WALK_TURNS_MAX: u32 = 512;

/// Socket events taken in one turn; the rest waits for the next.
pub(crate) const EVENTS_PER_TURN: usize = 256;

/// Requests taken from one connection at a time.
pub(crate) const REQUESTS_PER_POLL: usize = 64;

/// Completions taken in one go; a turn takes as many goes as there are namespaces.
pub(crate) const COMPLETIONS_PER_POLL: usize = 256;

/// Requests handed to a device queue in one go.
pub(crate) const STAGING_DEPTH: usize = 64;

/// How often every open connection is looked at while commands are in flight, in nanoseconds:
/// bounds the wait of a command that found no buffer.
pub(crate) const SWEEP_BUSY_NS: u64 = 1_000_000;

/// How often every open connection is looked at otherwise, in nanoseconds: bounds the delay of an
/// asynchronous event.
pub(crate) const SWEEP_IDLE_NS: u64 = 50_000_000;

/// How long a drain waits for hosts to take their last answers before it closes their sockets.
pub(crate) const DRAIN_LINGER_NS: u64 = 2_000_000_000;

/// Command slots of one connection: the low byte of a tag.
pub(crate) const COMMANDS_PER_CONNECTION: usize = 256;

// What a controller promises about its last commands, a store keeps: a wait for a turn, and a
// device that is given up.
const _: () = assert!(
    volume::ADMISSION_DEADLINE_NS + 2 * volume::DEVICE_DEADLINE_NS <= nvmf::QUIESCE_MS * 1_000_000
);
const _: () = assert!(COMPUTATIONS_PER_PEER_MAX < COMPUTATIONS_MAX);
const _: () = assert!(nvmf::COMMANDS_MAX <= COMMANDS_PER_CONNECTION);
const _: () = assert!(CONNECTIONS_MAX <= nvmf::CONNECTIONS_MAX as usize);
const _: () = assert!(CONNECTIONS_MAX <= net::CONNECTIONS_MAX);
// Flight indices are tags: all slots of a shard fit 31 bits.
const _: () = assert!(
    CONNECTIONS_MAX * COMMANDS_PER_CONNECTION + SHARDS_MAX * LINK_DEPTH < u32::MAX as usize / 2
);
