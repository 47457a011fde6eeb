//! Index, count and size are different types; arithmetic between them is a named method.

use std::fmt;
use std::time::Duration;

/// A logical block address: the index of a block on a device, in that device's block size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

impl Lba {
    /// The block `count` blocks further on, or `None` past the end of the address space.
    pub fn checked_add(self, count: BlockCount) -> Option<Lba> {
        self.0.checked_add(count.0).map(Lba)
    }

    /// The first byte of this block, in bytes from the start of the device.
    ///
    /// # Panics
    /// When the offset does not fit 64 bits: check the range against [`crate::Info`] first.
    pub fn byte_offset(self, block_size: u32) -> u64 {
        self.0.checked_mul(u64::from(block_size)).expect("the range was checked against the device")
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockCount(pub u64);

impl BlockCount {
    /// The size of this many blocks, or `None` when it does not fit 64 bits.
    pub fn byte_len(self, block_size: u32) -> Option<ByteLen> {
        self.0.checked_mul(u64::from(block_size)).map(ByteLen)
    }
}

impl fmt::Display for BlockCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A length in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(pub u64);

impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a request to whoever submitted it. Devices copy it and never look inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// A moment on the shard's clock, in nanoseconds from an arbitrary start.
///
/// The data plane is handed the time (`turn(now)`) and never reads a clock: in production the
/// reactor makes these from the monotonic clock, in simulation the seed does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The start of the clock.
    pub const ZERO: Instant = Instant(0);

    /// The moment `ns` nanoseconds after the start of the clock.
    pub const fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }

    /// Nanoseconds since the start of the clock.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// The time from `earlier` until now; zero when `earlier` is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `after` later; the end of the clock (584 years) when that does not fit.
    pub fn saturating_add(self, after: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_at_the_end_do_not_wrap() {
        assert_eq!(Lba(u64::MAX).checked_add(BlockCount(1)), None);
        assert_eq!(Lba(1).checked_add(BlockCount(2)), Some(Lba(3)));
        assert_eq!(BlockCount(u64::MAX).byte_len(512), None);
        assert_eq!(BlockCount(2).byte_len(512), Some(ByteLen(1024)));
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let t = Instant::from_ns(5);
        assert_eq!(Instant::ZERO.saturating_since(t), Duration::ZERO);
        assert_eq!(t.saturating_add(Duration::MAX), Instant::from_ns(u64::MAX));
    }
}
