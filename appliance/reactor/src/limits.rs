//! The named limits of the reactor, and what happens at each.

use std::time::Duration;

/// How long an idle reactor spins before it sleeps, when nothing else is asked for.
pub const SPIN_DEFAULT: Duration = Duration::from_micros(50);

/// Longest sleep. A reactor wakes up at least this often, finds nothing to do and sleeps again.
pub const SLEEP_MAX: Duration = Duration::from_millis(500);

/// Largest mailbox, in messages; [`crate::mailbox`] panics beyond it.
pub const MAILBOX_MAX: usize = 1 << 16;

/// Descriptors that a machine may wait for without an allocation.
pub(crate) const WAIT_FDS: usize = 64;

/// Longest name of a thread, in bytes: what the kernel keeps. Longer names are cut.
pub(crate) const NAME_BYTES_MAX: usize = 15;
