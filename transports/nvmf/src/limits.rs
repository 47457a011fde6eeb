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

/// Referrals to other discovery services. A configuration beyond it is refused.
pub const REFERRALS_MAX: usize = 64;

/// Hosts whose discovery log has a generation of its own.
///
/// Beyond it all are forgotten, and every host is told that its log changed.
pub(crate) const GENERATIONS_MAX: usize = 4096;

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

/// Bytes of the buffer with which a command goes through more than a transfer: the parts of Verify
/// and Copy are no longer.
///
/// One request of a command is in flight at a time: a long one has no more of the device than a
/// host that waits for each read.
pub const STEP_BUFFER: u32 = 256 << 10;

/// Bytes of the destination at whose multiples the parts of a Copy end, where they can: the extent
/// of a store.
pub(crate) const COPY_STRIDE: u32 = 64 << 10;

/// Source ranges of a Copy: MSRC, which is 0's based, plus one.
///
/// More fail with Command Size Limit Exceeded, as beyond the next two.
pub const COPY_RANGES_MAX: u32 = 128;

/// Blocks of one source range of a Copy: MSSRL.
pub const COPY_RANGE_BLOCKS_MAX: u16 = 32768;

/// Blocks of a Copy: MCL.
pub const COPY_BLOCKS_MAX: u32 = 65536;

/// Blocks of the parts in which a whole namespace is zeroed.
pub(crate) const ZERO_BLOCKS_STEP: u32 = 1 << 24;

/// VSL: the power of two, in 4 KiB pages, of [`STEP_BUFFER`]. A longer Verify is done in parts, so
/// it takes longer: that is what the field says.
pub(crate) const VSL: u8 = 6;

/// Bytes of data in one H2CData PDU: MAXH2CDATA.
///
/// A longer one ends the connection (Data Transfer Limit Exceeded).
pub const H2C_DATA_MAX: u32 = 256 << 10;

/// Bytes that a fused Compare and Write compares, and writes, at most: ACWU and NACWU.
///
/// Both halves together fit the buffer that a connection keeps in reserve. A longer pair fails with
/// Atomic Write Unit Exceeded.
pub const FUSED_BYTES_MAX: u32 = 4096;

/// How long the first half of a fused pair waits for its second.
///
/// Then it fails with Command Aborted due to Missing Fused Command.
pub const FUSED_WAIT_MS: u64 = 10_000;

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

/// Cross-controller resets of one controller in progress at once: CCRL.
///
/// The next one fails with Cross-Controller Reset Limit Exceeded.
pub const CROSS_RESETS_MAX: usize = 4;

/// Entries of the log of cross-controller resets of one controller. When the host has not removed
/// those that are complete and all are taken, the next one fails with its log page full.
pub const CROSS_RESET_ENTRIES: usize = 8;

/// Failed commands that a controller remembers for its error log: ELPE plus one. Older ones are
/// forgotten.
pub const ERRORS_KEPT: usize = 32;

/// Asynchronous Event Requests outstanding on a controller, AERL plus one.
///
/// The next one fails with Asynchronous Event Request Limit Exceeded.
pub const ASYNC_EVENTS_MAX: usize = 4;

/// Milliseconds in which what a controller has at the devices ends, after its connections did: CQT
/// says so, and CAP.TO and CRTO follow it.
///
/// It is what the store behind promises: a write waits at most 20 s for its turn, and a device
/// that says nothing for 30 s is given up. Limits of a volume that hold requests back
/// longer than that come on top.
pub const QUIESCE_MS: u64 = 60_000;

/// Abort commands of a controller that wait for an I/O queue, ACL plus one.
///
/// The next one fails with Abort Command Limit Exceeded.
pub const ABORTS_MAX: usize = 4;

/// Reservation notifications that wait for a controller to read them.
///
/// The oldest goes when one more comes; the gap in their numbers tells.
pub const RESERVATION_NOTICES_MAX: usize = 32;

/// Nanoseconds in a millisecond.
pub(crate) const NS_PER_MS: u64 = 1_000_000;

/// A connection that has not sent ICReq and Connect by then is closed.
pub const SETUP_TIMEOUT_MS: u64 = 10_000;

/// A queue whose host has to prove who it is, and has not by then, is closed; so is one whose host
/// began to prove it again and has not finished.
///
/// Long enough for a host that computes in the largest group on a slow machine.
pub const AUTH_TIMEOUT_MS: u64 = 60_000;

/// Bytes of an Authentication Send or Receive; a longer one fails with Invalid Field in Command.
///
/// The longest message has 1168.
pub const AUTH_TRANSFER_MAX: u32 = 8192;

/// Hosts with secrets. A configuration beyond it is refused.
pub const HOST_KEYS_MAX: usize = 4096;

/// A connection that owes data, or does not take what it is sent, is closed after this long
/// without progress.
pub const STALL_TIMEOUT_MS: u64 = 60_000;

/// A command that waits for a buffer looks again after this long, if nothing else happens before.
pub(crate) const STARVED_RETRY_MS: u64 = 1;

/// A closing connection waits this long for the peer to take the last PDU.
pub const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// A controller that is not enabled, or was shut down, is ended when its host sends nothing for so
/// long.
pub const ENABLE_TIMEOUT_MS: u32 = 120_000;

/// How long a discovery controller whose host asked for no keep alive lasts without a command.
//= NVMe-Base 2.1 §3.1.3.3
//# a discovery controller without keep alive has an activity timer of at least two minutes
pub const DISCOVERY_KATO_MS: u32 = 120_000;

/// KAS: granularity of the keep alive timer, units of 100 ms.
pub(crate) const KAS: u16 = 10;

/// Largest KATO taken from a host, milliseconds. A longer one is refused (Keep Alive Timeout
/// Invalid).
pub const KATO_MAX_MS: u32 = 24 * 3600 * 1000;

/// Bits of a [`bdev::Tag`] that name the command; the rest names the connection.
pub(crate) const TAG_COMMAND_BITS: u32 = 8;

/// Connections that tags can tell apart.
pub const CONNECTIONS_MAX: u32 = 1 << (32 - TAG_COMMAND_BITS);

/// Events of one connection that wait for `poll_event`; the oldest are dropped beyond it.
pub(crate) const EVENTS_MAX: usize = 8;

const _: () = assert!(KATO_MAX_MS.is_multiple_of(KAS as u32 * 100));
const _: () = assert!(COMMANDS_MAX <= 1 << TAG_COMMAND_BITS);
const _: () = assert!(TRANSFER_MAX == 4096 << MDTS);
const _: () = assert!(TRANSFER_MAX == bdev::REQUEST_BYTES_MAX);
const _: () = assert!(H2C_DATA_MAX >= 4096 && H2C_DATA_MAX.is_multiple_of(4));
const _: () = assert!(STEP_BUFFER == 4096 << VSL);
// The descriptors fit a capsule, and leave room for data in the smallest buffer: the reserve.
const _: () = assert!(COPY_RANGES_MAX * 40 <= IN_CAPSULE_MAX);
const _: () = assert!(COPY_RANGES_MAX * 40 + 4096 <= 16 << 10);
const _: () = assert!(HELD_BYTES_MAX >= TRANSFER_MAX as usize);
const _: () = assert!(CONTROLLERS_MAX <= nvme_spec::CNTLID_MAX as usize);
const _: () = assert!(NAMESPACES_MAX <= 1024); // CNS 02h answers with one list.
const _: () = assert!(RECEIVE_SEGMENT >= IN_CAPSULE_MAX as usize + 256);
