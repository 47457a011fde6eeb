//! The named limits of the file backends, and what happens at each.

use std::time::Duration;

/// How long opening waits for somebody else who has the disk, when nothing else is asked for.
pub const CLAIM_WAIT_DEFAULT: Duration = Duration::from_secs(1);

/// How long opening waits before it tries again.
pub(crate) const CLAIM_POLL: Duration = Duration::from_millis(10);

/// Requests that the standard backend carries out in one kick; the others wait for the next one,
/// so that a turn stays bounded.
pub const STANDARD_PER_KICK: usize = 32;

/// Largest piece of memory that is registered as one buffer (the kernel's limit), in bytes.
pub(crate) const REGISTERED_CHUNK: usize = 1 << 30;

/// Staged submissions of a ring; a larger batch goes to the kernel in several system calls.
pub(crate) const SUBMISSIONS_MAX: u32 = 1024;

/// How often in a row a request is started again after a temporary error before it fails.
pub(crate) const RETRIES_MAX: u32 = 10_000;

/// Waits of [`DRAIN_WAIT_MS`] for a device that still has requests while its queue is dropped. What
/// is in flight then is leaked.
pub(crate) const DRAIN_WAITS_MAX: u32 = 10;

/// See [`DRAIN_WAITS_MAX`]; in milliseconds.
pub(crate) const DRAIN_WAIT_MS: u32 = 1000;

/// Notices that a disk remembers; later ones are dropped.
pub(crate) const NOTICES_MAX: usize = 16;
