//! Bugs that are planted on purpose, to prove that the simulator finds them.
//!
//! [`planted`] is asked at the place of each bug. Without the feature `planted` it is a `const fn`
//! that says no: nothing of it is left in what users run. With it, [`plant`] chooses one bug for
//! the whole process.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A write is acknowledged when its record is appended.
    AckBeforeDurable,
    /// A flush is answered twice.
    AnsweredTwice,
    /// A write that must be atomic goes into the log in two halves.
    AtomicSplit,
    /// A block that is written again keeps its old checksum in the map.
    ChecksumNotUpdated,
    /// Recovery does not take the extents that direct writes in the log name.
    ClaimForgotten,
    /// A direct write that was overwritten since is mapped.
    DeadDirectAdopted,
    /// A write that waits is never given back.
    DeadlineIgnored,
    /// A deletion is acknowledged and not done.
    DeleteNotLogged,
    /// Recovery leaves out deletions.
    DeleteNotReplayed,
    /// A write to an extent that the device failed counts as done.
    DestageErrorIgnored,
    /// The record of a direct write is logged before its data is flushed.
    DirectBeforeFlush,
    /// A direct write that fails keeps the extents that it took.
    DirectLeaked,
    /// A group says of the groups in flight before it that they are durable.
    DurableOverstated,
    /// A write of a part of a block leaves zeroes around it.
    EdgeNotMerged,
    /// The old content of a block that is written in part is not verified.
    EdgeUnchecked,
    /// An extent that fell out of a map is never given back.
    ExtentLeak,
    /// An extent that fell out of the map is free before the checkpoint.
    ExtentReusedAtOnce,
    /// The second copy of the superblock is written before the first is flushed.
    FirstCopyNotFlushed,
    /// A flush is taken for one of what arrived while it was under way, too.
    FlushCoversLater,
    /// A failed flush of direct writes is taken for done.
    FlushErrorIgnored,
    /// What a checkpoint covers is forgotten although it was overwritten since.
    ForgetsNewer,
    /// Forgetting a block of the overlay leaves a gap in its cluster.
    GapNotClosed,
    /// Recovery takes the first group of a later mount for the end of the log.
    LaterMountForgotten,
    /// An operation that ends keeps its range locked.
    LockKept,
    /// A log write that the device failed counts as done.
    LogIgnoresErrors,
    /// The log writes its groups without FUA.
    LogWithoutFua,
    /// A direct write that waits for the log is not woken.
    LostWakeup,
    /// A block that moved while it was read is reported as damaged.
    MovedIsDamaged,
    /// Recovery compares neither the chain of groups nor their epochs.
    NoChainCheck,
    /// Recovery does not verify the checksum of a group header.
    NoHeaderCheck,
    /// Ranges of blocks are locked although somebody has them.
    NoLock,
    /// Recovery does not verify the payload of a group: a torn one is replayed.
    NoPayloadCheck,
    /// Writes set no extents aside.
    NothingSetAside,
    /// A mount takes the older one of two good superblocks.
    OlderSuperblock,
    /// A page of metadata that the device failed to write counts as written.
    PageErrorIgnored,
    /// A page that fell out of a tree is used again before the checkpoint is durable.
    PageReusedAtOnce,
    /// The checksum of pages of metadata is not verified.
    PageUnchecked,
    /// A zeroed range hides what was written into it later.
    RangeAlwaysWins,
    /// Recovery leaves out zeroed ranges.
    RangeForgotten,
    /// A read that the device failed is taken for done.
    ReadErrorIgnored,
    /// A read does not verify what the device returned.
    ReadUnchecked,
    /// Recovery sets no extents aside for what it finds in the log.
    ReplayReservesNothing,
    /// An extent that was set aside and is not needed stays set aside.
    ReservationLeak,
    /// A resize is logged and the catalog keeps the old size.
    ResizeNotApplied,
    /// Recovery leaves out resizes.
    ResizeNotReplayed,
    /// Pages of metadata are written once and not twice.
    SecondCopyNotWritten,
    /// An extent that a snapshot shares is given back when the volume drops it.
    SharedFreed,
    /// A write into an extent that a snapshot shares goes into it.
    SharedInPlace,
    /// Recovery goes on with whatever group it finds.
    StaleTail,
    /// The superblock is written without a flush of what it points to.
    SuperBeforePages,
    /// A checkpoint says that everything durable in the log is in the map.
    TailTooFar,
    /// Recovery replays a group whose payload is torn, and calls it damage.
    TornIsDamage,
    /// The log is given back when a checkpoint begins, not when it is durable.
    TrimmedTooSoon,
    /// A group that crosses the end of the ring is written as if it did not.
    WrapIgnored,
    /// Writers that wait for the log are not woken.
    WriterForgotten,
    /// Zeroed blocks stay in the map when their record is destaged.
    ZeroNotApplied,
    /// Deallocate and write zeroes change nothing.
    ZeroNotLogged,
    /// A clone writes into extents that it shares with its snapshot.
    CloneInPlace,
    /// A deleted snapshot gives back what a child of it still has.
    DeleteFreesShared,
    /// A difference leaves out every eighth extent.
    DiffForgets,
    /// A restore waits for no request, and none waits for it.
    RestoreBesideIo,
    /// What was overwritten after a snapshot is not brought into the map for it.
    SnapshotMissesWrite,
    /// A snapshot in the log is read with what was written after it.
    SnapshotSeesLater,
    /// A compare-and-write keeps nobody away between comparing and writing.
    SwapUnlocked,
}

impl Planted {
    /// All of them.
    pub const ALL: &[Planted] = &[
        Planted::AckBeforeDurable,
        Planted::AnsweredTwice,
        Planted::AtomicSplit,
        Planted::ChecksumNotUpdated,
        Planted::ClaimForgotten,
        Planted::DeadDirectAdopted,
        Planted::DeadlineIgnored,
        Planted::DeleteNotLogged,
        Planted::DeleteNotReplayed,
        Planted::DestageErrorIgnored,
        Planted::DirectBeforeFlush,
        Planted::DirectLeaked,
        Planted::DurableOverstated,
        Planted::EdgeNotMerged,
        Planted::EdgeUnchecked,
        Planted::ExtentLeak,
        Planted::ExtentReusedAtOnce,
        Planted::FirstCopyNotFlushed,
        Planted::FlushCoversLater,
        Planted::FlushErrorIgnored,
        Planted::ForgetsNewer,
        Planted::GapNotClosed,
        Planted::LaterMountForgotten,
        Planted::LockKept,
        Planted::LogIgnoresErrors,
        Planted::LogWithoutFua,
        Planted::LostWakeup,
        Planted::MovedIsDamaged,
        Planted::NoChainCheck,
        Planted::NoHeaderCheck,
        Planted::NoLock,
        Planted::NoPayloadCheck,
        Planted::NothingSetAside,
        Planted::OlderSuperblock,
        Planted::PageErrorIgnored,
        Planted::PageReusedAtOnce,
        Planted::PageUnchecked,
        Planted::RangeAlwaysWins,
        Planted::RangeForgotten,
        Planted::ReadErrorIgnored,
        Planted::ReadUnchecked,
        Planted::ReplayReservesNothing,
        Planted::ReservationLeak,
        Planted::ResizeNotApplied,
        Planted::ResizeNotReplayed,
        Planted::SecondCopyNotWritten,
        Planted::SharedFreed,
        Planted::SharedInPlace,
        Planted::StaleTail,
        Planted::SuperBeforePages,
        Planted::TailTooFar,
        Planted::TornIsDamage,
        Planted::TrimmedTooSoon,
        Planted::WrapIgnored,
        Planted::WriterForgotten,
        Planted::ZeroNotApplied,
        Planted::ZeroNotLogged,
        Planted::CloneInPlace,
        Planted::DeleteFreesShared,
        Planted::DiffForgets,
        Planted::RestoreBesideIo,
        Planted::SnapshotMissesWrite,
        Planted::SnapshotSeesLater,
        Planted::SwapUnlocked,
    ];
}

/// Whether this bug is planted. Never without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn planted(_bug: Planted) -> bool {
    false
}

/// Whether this bug is planted.
#[cfg(feature = "planted")]
pub fn planted(bug: Planted) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == bug as u32 + 1
}

/// Plants one bug, or none, in the whole process.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Planted>) {
    let chosen = bug.map_or(0, |bug| bug as u32 + 1);
    CHOSEN.store(chosen, std::sync::atomic::Ordering::Relaxed);
}

/// The bug that was chosen, counted from one; zero is none.
#[cfg(feature = "planted")]
static CHOSEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
