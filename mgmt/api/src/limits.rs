//! Every bound of the management vocabulary, and what happens when it is reached.

/// Bytes in a store or volume name. A longer name is an invalid argument.
pub const NAME_LEN_MAX: usize = 64;

/// Bytes in a NVMe Qualified Name (NVMe base specification 2.1, section 4.7). Longer is invalid.
pub const NQN_LEN_MAX: usize = 223;

/// Hosts with keys. One more is refused as resource exhausted.
pub const HOST_KEYS_MAX: usize = 4096;

/// Hosts on the allow list of one export. One more is refused as resource exhausted.
pub const HOSTS_PER_EXPORT_MAX: usize = 64;

/// Namespaces of one subsystem, and the largest NSID. One more is refused as resource exhausted.
pub const NAMESPACES_PER_SUBSYSTEM_MAX: u32 = 256;

/// Referrals to other discovery services. One more is refused as resource exhausted.
pub const REFERRALS_MAX: usize = 64;

/// Bytes in a request id given by a client. A longer one is an invalid argument.
pub const REQUEST_ID_LEN_MAX: usize = 64;

/// Bytes in a device path. Linux refuses longer ones as well (`PATH_MAX`).
pub const PATH_LEN_MAX: usize = 4095;

/// Bytes of one volume: 1 PiB. A larger size is an invalid argument.
pub const VOLUME_BYTES_MAX: u64 = 1 << 50;

/// Snapshots that are taken at the same moment. More are refused as resource exhausted.
pub const SNAPSHOT_GROUP_MAX: usize = 64;

/// Changed ranges in one message of a comparison. The next message has the next ones.
pub const DIFF_RANGES_MAX: usize = 256;

/// Smallest log region of a store. A smaller one is an invalid argument.
pub const LOG_BYTES_MIN: u64 = 1 << 20;

/// Largest log region of a store: a larger one takes long to recover, and its index much memory. A
/// larger one is an invalid argument.
pub const LOG_BYTES_MAX: u64 = 64 << 30;

/// The unit of the size of a log region. What is not a multiple of it is an invalid argument.
pub const LOG_BYTES_UNIT: u64 = 64 << 10;

/// Fewest bytes a second that a scrub may be limited to. Fewer are an invalid argument.
pub const SCRUB_RATE_MIN: u64 = 64 << 10;

/// How fast a scrub reads when nothing else is asked for, in bytes a second.
pub const SCRUB_RATE_DEFAULT: u64 = 8 << 20;

/// Events a node remembers for late subscribers. Older ones are forgotten first.
pub const EVENTS_KEPT: usize = 1024;
