//! The named limits of the bench, and what happens at each.

/// Connections of a world in memory; more are refused.
pub(crate) const WORLD_CONNECTIONS_MAX: usize = 8;

/// Runs under callgrind at the same time; the rest waits. The count does not depend on it.
pub(crate) const CALLGRIND_AT_ONCE: usize = 2;
