//! Every bound of the state store, and what happens when it is reached.

/// Bytes in a key. A longer key is refused.
pub const KEY_LEN_MAX: usize = 256;

/// Bytes in a value. A larger value is refused.
pub const VALUE_LEN_MAX: usize = 64 << 10;

/// Changes remembered for watches. Older ones are forgotten; a watch that would need them is told
/// so, and lists again.
pub const HISTORY_KEPT: u64 = 4096;
