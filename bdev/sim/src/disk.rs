//! The handle: the device for the code under test, the controls for the test.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bdev::{Bdev, Info, Instant, Lba, Op, OpenError, Queue, QueueCx, Status};

use crate::core::Core;
use crate::image::Image;
use crate::medium::CrashPoint;
use crate::plan::FaultPlan;
use crate::queue::SimQueue;

/// A simulated disk. Clones are handles to the same disk: one goes to the code under test as a
/// [`Bdev`], another stays with the test and moves the clock, breaks things and cuts the power.
#[derive(Clone)]
pub struct SimDisk {
    info: Info,
    core: Arc<Mutex<Core>>,
}

impl SimDisk {
    /// An empty disk of `blocks` blocks of `block_size` (512 or 4096) bytes.
    ///
    /// # Panics
    /// When the block size is neither 512 nor 4096.
    pub fn new(block_size: u32, blocks: u64, plan: FaultPlan) -> SimDisk {
        let image = Image::new(Info::new(block_size, blocks).byte_len());
        SimDisk::with_image(block_size, image, plan)
    }

    /// A disk with these contents: what a [`CrashPoint`] or [`SimDisk::crash`] left.
    ///
    /// # Panics
    /// When the block size is neither 512 nor 4096, or the sectors of the plan are neither.
    pub fn with_image(block_size: u32, image: Image, plan: FaultPlan) -> SimDisk {
        assert!(matches!(plan.sector_bytes, 512 | 4096), "sectors have 512 or 4096 bytes");
        let mut info = Info::new(block_size, image.byte_len() / u64::from(block_size));
        info.volatile_cache = plan.volatile_cache;
        // No drive that we model compares and writes in one.
        let drive = |op: &Op| *op != Op::CompareAndWrite;
        info.ops = Op::ALL.iter().filter(|op| drive(op)).copied().collect();
        SimDisk { info: info.clone(), core: Arc::new(Mutex::new(Core::new(info, image, plan))) }
    }

    /// Moves the disk's clock on; it never goes back.
    pub fn advance_to(&self, now: Instant) {
        let mut core = self.core();
        core.now = core.now.max(now);
    }

    /// The disk's clock.
    pub fn now(&self) -> Instant {
        self.core().now
    }

    /// When the next request ends, if any is on the disk. For event loops with a virtual clock.
    pub fn next_due(&self) -> Option<Instant> {
        self.core().next_due()
    }

    /// Moves the clock to the next end of a request. False when nothing is on the disk.
    pub fn step(&self) -> bool {
        let mut core = self.core();
        let next = core.next_due();
        core.now = core.now.max(next.unwrap_or(Instant::ZERO));
        next.is_some()
    }

    /// Nothing completes for `time` from now on (a garbage collection, a link reset).
    pub fn stall_for(&self, time: Duration) {
        let mut core = self.core();
        core.stalled_until = core.stalled_until.max(core.now.saturating_add(time));
    }

    /// Every `op` that touches these blocks fails from now on, until [`SimDisk::heal`]. For
    /// [`Op::Flush`] the blocks do not matter.
    pub fn fail_range(&self, op: Op, blocks: RangeInclusive<u64>) {
        self.core().failing.push((blocks, op));
    }

    /// The next `op` ends with `status`; called several times, the next several.
    pub fn fail_next(&self, op: Op, status: Status) {
        self.core().fail_next.push_back((op, status));
    }

    /// Ends every failure of [`SimDisk::fail_range`] and [`SimDisk::fail_next`].
    pub fn heal(&self) {
        let mut core = self.core();
        core.failing.clear();
        core.fail_next.clear();
    }

    /// Flips the bits of `mask` in the byte at `offset` of the medium.
    ///
    /// # Panics
    /// When the byte does not lie on the medium.
    pub fn rot(&self, offset: u64, mask: u8) {
        self.core().rot(offset, mask);
    }

    /// Puts `bytes` on the medium at `offset`, as a write that lost its way does, or one that
    /// brings back what was there before.
    ///
    /// # Panics
    /// When the range does not lie on the medium.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        self.core().overwrite(offset, bytes);
    }

    /// Changes the plan: probabilities, latencies, space. The random streams go on, and whether
    /// there is a volatile cache stays as it was made.
    pub fn replan(&self, change: impl FnOnce(&mut FaultPlan)) {
        let mut core = self.core();
        let cache = core.plan.volatile_cache;
        change(&mut core.plan);
        core.plan.volatile_cache = cache;
    }

    /// Cuts the power without deciding yet what survives: nothing arrives or completes any more.
    /// Drop the code under test after this, so that it cannot touch the disk while it dies.
    pub fn power_off(&self) {
        self.core().off = true;
    }

    /// True once the power is off: by [`SimDisk::power_off`], [`SimDisk::crash`] or
    /// [`FaultPlan::crash_at_write`].
    pub fn is_off(&self) -> bool {
        self.core().off
    }

    /// Cuts the power and decides what survives. The disk keeps exactly that, and stays off until
    /// [`SimDisk::power_on`]; queues opened before are dead for good.
    pub fn crash(&self) -> Image {
        self.core().crash()
    }

    /// Switches the disk on again. After [`SimDisk::power_off`] alone this crashes it first.
    pub fn power_on(&self) {
        let mut core = self.core();
        if core.off {
            core.crash();
        }
        core.off = false;
        core.plan.crash_at_write = None;
    }

    /// This moment, to draw crashes from it later; the disk goes on undisturbed.
    pub fn crash_point(&self) -> CrashPoint {
        self.core().crash_point()
    }

    /// From now on a [`CrashPoint`] is kept just before every write and flush that reaches the
    /// disk, for [`SimDisk::take_crash_points`].
    pub fn record_crash_points(&self) {
        self.core().recorded.get_or_insert_with(Vec::new);
    }

    /// The points recorded since the last call.
    pub fn take_crash_points(&self) -> Vec<CrashPoint> {
        self.core().recorded.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Writes and flushes that have reached the disk: the clock of [`CrashPoint::boundary`] and of
    /// [`FaultPlan::crash_at_write`].
    pub fn boundaries(&self) -> u64 {
        self.core().boundaries
    }

    /// The contents that reads see now.
    pub fn image(&self) -> Image {
        self.core().medium.current().clone()
    }

    /// What went wrong so far: the newest [`crate::FAULTS_KEPT_MAX`] faults, oldest first.
    pub fn faults(&self) -> Vec<Fault> {
        self.core().faults.iter().copied().collect()
    }

    /// Counters since the disk was made.
    pub fn stats(&self) -> Stats {
        self.core().stats
    }

    /// A digest of everything that happened: the same seed and calls give the same hash.
    pub fn event_hash(&self) -> u64 {
        self.core().hash
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        // A test that failed while it held the lock reports its own panic.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bdev for SimDisk {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self, cx: &QueueCx<'_>) -> Result<Box<dyn Queue>, OpenError> {
        if self.is_off() {
            return Err(OpenError::Unavailable("the simulated disk is off".into()));
        }
        Ok(Box::new(SimQueue::new(self.clone(), cx.depth as usize)))
    }
}

/// Something that went wrong, for the checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Where it begins.
    pub lba: Lba,
    /// How many blocks it concerns.
    pub blocks: u32,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A read failed.
    ReadError,
    /// A write failed and left a mix.
    WriteError,
    /// A flush failed and the cache was lost.
    FlushError,
    /// A write was refused for lack of space.
    NoSpace,
    /// A write was reported done and never happened.
    LostWrite,
    /// A write went elsewhere: one fault for where it belonged, one for where it went.
    MisdirectedWrite,
    /// A bit flipped.
    Rot,
}

/// Counters of a simulated disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that ended.
    pub completed: u64,
    /// Faults injected.
    pub faults: u64,
    /// Requests that stalled.
    pub stalls: u64,
}
