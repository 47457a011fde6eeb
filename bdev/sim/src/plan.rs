//! What goes wrong, how often, and the random streams that decide it.

use std::ops::RangeInclusive;

use bdev::Rng;

use crate::limits::CACHE_BYTES_DEFAULT;

/// A probability in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerMillion(pub u32);

impl PerMillion {
    /// It never happens.
    pub const NEVER: PerMillion = PerMillion(0);
    /// It always happens.
    pub const ALWAYS: PerMillion = PerMillion(1_000_000);
    /// A fair coin.
    pub const HALF: PerMillion = PerMillion(500_000);

    pub(crate) fn happens(self, rng: &mut Rng) -> bool {
        rng.chance(u64::from(self.0), 1_000_000)
    }
}

/// What a simulated disk does wrong. Plain data: start from [`FaultPlan::reliable`] or
/// [`FaultPlan::power_cuts`] and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// Where every random stream of this disk starts.
    pub seed: u64,
    /// Completed writes may be lost until a flush; [`bdev::Info::volatile_cache`] says so.
    pub volatile_cache: bool,
    /// Bytes that the volatile cache holds before it writes the oldest to the medium by itself.
    pub cache_bytes_max: u64,
    /// The unit that is written all or not at all at a power cut, in bytes: 512 or 4096.
    pub sector_bytes: u32,
    /// Time that a read takes, in nanoseconds.
    pub read_ns: RangeInclusive<u64>,
    /// Time that a write takes (also deallocate and write zeroes), in nanoseconds.
    pub write_ns: RangeInclusive<u64>,
    /// Time that a flush takes, in nanoseconds.
    pub flush_ns: RangeInclusive<u64>,
    /// A request takes longer by [`FaultPlan::stall_ns`].
    pub stall: PerMillion,
    /// How much longer a stalled request takes, in nanoseconds.
    pub stall_ns: RangeInclusive<u64>,
    /// A read fails with [`bdev::Status::Io`].
    pub read_error: PerMillion,
    /// A write fails with [`bdev::Status::Io`] and leaves any mix of old and new sectors behind.
    pub write_error: PerMillion,
    /// A flush fails with [`bdev::Status::Io`] and the cached writes are gone, as at a power cut.
    pub flush_error: PerMillion,
    /// A write fails with [`bdev::Status::NoSpace`] and changes nothing.
    pub no_space: PerMillion,
    /// A write is reported done and never happened.
    pub lost_write: PerMillion,
    /// A write is reported done and went to another place.
    pub misdirected_write: PerMillion,
    /// One bit of the range of a read rots on the medium just before the read.
    pub rot: PerMillion,
    /// Reads of earlier bytes than this do not rot.
    pub rot_from: u64,
    /// A write that was not flushed survives a power cut whole.
    pub survives: PerMillion,
    /// A write that was not flushed and does not survive whole is torn rather than lost.
    pub torn: PerMillion,
    /// A write that was not flushed leaves some wrong bits at a power cut, whatever else is left of
    /// it.
    pub garbled: PerMillion,
    /// Bytes of the medium that can be allocated (thin backing): writes that need more fail with
    /// [`bdev::Status::NoSpace`]. `None` is the whole device.
    pub space_bytes_max: Option<u64>,
    /// The power fails just before the write with this number (counted from 0) reaches the disk.
    pub crash_at_write: Option<u64>,
}

impl FaultPlan {
    /// A disk that does nothing wrong: no cache, 10 us a request, order seeded.
    pub fn reliable(seed: u64) -> FaultPlan {
        FaultPlan {
            seed,
            volatile_cache: false,
            cache_bytes_max: CACHE_BYTES_DEFAULT,
            sector_bytes: 512,
            read_ns: 5_000..=15_000,
            write_ns: 5_000..=15_000,
            flush_ns: 20_000..=100_000,
            stall: PerMillion::NEVER,
            stall_ns: 1_000_000..=20_000_000,
            read_error: PerMillion::NEVER,
            write_error: PerMillion::NEVER,
            flush_error: PerMillion::NEVER,
            no_space: PerMillion::NEVER,
            lost_write: PerMillion::NEVER,
            misdirected_write: PerMillion::NEVER,
            rot: PerMillion::NEVER,
            rot_from: 0,
            survives: PerMillion::HALF,
            torn: PerMillion::HALF,
            garbled: PerMillion::NEVER,
            space_bytes_max: None,
            crash_at_write: None,
        }
    }

    /// A disk that is honest but has a volatile cache: a power cut keeps, tears or drops each
    /// unflushed write.
    pub fn power_cuts(seed: u64) -> FaultPlan {
        FaultPlan { volatile_cache: true, ..FaultPlan::reliable(seed) }
    }
}

/// One generator per concern, so that a draw for one does not shift the others.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) latency: Rng,
    pub(crate) order: Rng,
    pub(crate) stall: Rng,
    pub(crate) error: Rng,
    pub(crate) space: Rng,
    pub(crate) lost: Rng,
    pub(crate) misdirect: Rng,
    pub(crate) rot: Rng,
    pub(crate) crash: Rng,
    pub(crate) kill: Rng,
}

impl Streams {
    pub(crate) fn new(seed: u64) -> Streams {
        let root = Rng::new(seed);
        Streams {
            latency: root.fork("latency"),
            order: root.fork("order"),
            stall: root.fork("stall"),
            error: root.fork("error"),
            space: root.fork("space"),
            lost: root.fork("lost"),
            misdirect: root.fork("misdirect"),
            rot: root.fork("rot"),
            crash: root.fork("crash"),
            kill: root.fork("kill"),
        }
    }
}
