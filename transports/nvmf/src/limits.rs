//! The named limits of the target, and what happens at each.

/// Live controllers of a target, discovery controllers included.
///
/// The next admin Connect is answered with Controller Busy.
pub const CONTROLLERS_MAX: usize = 1024;

/// I/O queues of one controller.
///
/// Number of Queues grants no more; a Connect with a larger QID is refused.
pub const IO_QUEUES_MAX: u16 = 64;

/// Entries of a queue, admin or I/O: CAP.MQES plus one, and MAXCMD.
///
/// A Connect that asks for more is refused.
pub const QUEUE_ENTRIES_MAX: u16 = 128;

/// Commands that one connection works on at once.
///
/// A compliant host never has more outstanding. The capsules of one that does stay unread.
pub const COMMANDS_MAX: usize = QUEUE_ENTRIES_MAX as usize + 1;

/// The largest NSID of a subsystem, and so its number of namespaces: NN and MNAN.
///
/// A configuration beyond it is refused.
pub const NAMESPACES_MAX: u32 = 256;

/// Subsystems of a target. A configuration beyond it is refused.
pub const SUBSYSTEMS_MAX: usize = 1024;

/// Ports (listening addresses) of a target. A configuration beyond it is refused.
pub const PORTS_MAX: usize = 64;

/// Hosts on the allow list of one subsystem. A configuration beyond it is refused.
pub const HOSTS_MAX: usize = 1024;

/// Bytes of data in a command capsule: IOCCSZ says so for I/O queues; admin and Fabrics capsules
/// have 8192 by definition of the transport.
///
/// A capsule with more ends the connection (Data Transfer Limit Exceeded).
pub const IN_CAPSULE_MAX: u32 = 8192;

/// Bytes that one command transfers at most: MDTS.
///
/// A longer one fails with Invalid Field in Command.
pub const TRANSFER_MAX: u32 = 1 << 20;

/// MDTS: the power of two, in 4 KiB pages, of [`TRANSFER_MAX`].
pub(crate) const MDTS: u8 = 8;

/// Bytes of data in one H2CData PDU: MAXH2CDATA.
///
/// A longer one ends the connection (Data Transfer Limit Exceeded).
pub const H2C_DATA_MAX: u32 = 256 << 10;

/// Bytes of pool segments that one connection holds for commands at once.
///
/// No more than what is free in the pool, either: nobody can take all of it. Further commands wait
/// in their slots; capsules with data stay unread. At least one command
/// always goes on, whatever its size.
pub const HELD_BYTES_MAX: usize = 8 << 20;

/// Bytes of the receive segment of a connection: many small PDUs arrive in one receive.
pub const RECEIVE_SEGMENT: usize = 64 << 10;

/// When this much of a PDU's data is still missing it is received into its own segment directly.
pub const DIRECT_RECEIVE_MIN: u32 = 16 << 10;

/// Asynchronous Event Requests outstanding on a controller, AERL plus one.
///
/// The next one fails with Asynchronous Event Request Limit Exceeded.
pub const ASYNC_EVENTS_MAX: usize = 4;

/// Nanoseconds in a millisecond.
pub(crate) const NS_PER_MS: u64 = 1_000_000;

/// A connection that has not sent ICReq and Connect by then is closed.
pub const SETUP_TIMEOUT_MS: u64 = 10_000;

/// A connection that owes data, or does not take what it is sent, is closed after this long
/// without progress.
pub const STALL_TIMEOUT_MS: u64 = 60_000;

/// A command that waits for a buffer looks again after this long, if nothing else happens before.
pub(crate) const STARVED_RETRY_MS: u64 = 1;

/// A closing connection waits this long for the peer to take the last PDU.
pub const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// KATO of a discovery controller whose host did not ask for one.
//= NVMe-Base 2.1 §3.1.3.3
//# a discovery controller without keep alive has an activity timer of at least two minutes
pub const DISCOVERY_KATO_MS: u32 = 120_000;

/// KAS: granularity of the keep alive timer, units of 100 ms.
pub(crate) const KAS: u16 = 10;

/// Largest KATO taken from a host, milliseconds; longer ones count as this.
pub const KATO_MAX_MS: u32 = 24 * 3600 * 1000;

/// Bits of a [`bdev::Tag`] that name the command; the rest names the connection.
pub(crate) const TAG_COMMAND_BITS: u32 = 8;

/// Connections that tags can tell apart.
pub const CONNECTIONS_MAX: u32 = 1 << (32 - TAG_COMMAND_BITS);

/// Events of one connection that wait for `poll_event`; the oldest are dropped beyond it.
pub(crate) const EVENTS_MAX: usize = 8;

const _: () = assert!(COMMANDS_MAX <= 1 << TAG_COMMAND_BITS);
const _: () = assert!(TRANSFER_MAX == 4096 << MDTS);
const _: () = assert!(TRANSFER_MAX == bdev::REQUEST_BYTES_MAX);
const _: () = assert!(H2C_DATA_MAX >= 4096 && H2C_DATA_MAX.is_multiple_of(4));
const _: () = assert!(HELD_BYTES_MAX >= TRANSFER_MAX as usize);
const _: () = assert!(CONTROLLERS_MAX <= nvme_spec::CNTLID_MAX as usize);
const _: () = assert!(NAMESPACES_MAX <= 1024); // CNS 02h answers with one list.
const _: () = assert!(RECEIVE_SEGMENT >= IN_CAPSULE_MAX as usize + 256);
