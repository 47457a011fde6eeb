//! Places in the log.

use std::fmt;

/// A log sequence number: records are numbered without gaps from the store's creation on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number `count` records further on.
    ///
    /// # Panics
    /// At the end of 64 bits: not reached at a billion records a second for five centuries.
    #[must_use]
    pub fn after(self, count: u64) -> Lsn {
        Lsn(self.0.checked_add(count).expect("64 bits of records outlive the device"))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A boundary between two groups: all that recovery needs to start, or appending to go on, there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Blocks of log written since the store was created; modulo the ring's size, where it is.
    pub position: u64,
    /// The number of the first record behind this point.
    pub lsn: Lsn,
    /// The CRC of the group before this point; zero at the start of the log.
    pub chain: u32,
}

impl Point {
    /// The start of an empty log.
    pub const START: Point = Point { position: 0, lsn: Lsn(1), chain: 0 };
}
