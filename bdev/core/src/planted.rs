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
    /// A checkpoint begins with destage writes in flight.
    CheckpointUnderWrites,
    /// Recovery does not take the extents that direct writes in the log name.
    ClaimForgotten,
    /// A direct write that was overwritten since is mapped.
    DeadDirectAdopted,
    /// A deletion is acknowledged and not done.
    DeleteNotLogged,
    /// Recovery leaves out deletions.
    DeleteNotReplayed,
    /// The record of a direct write is logged before its data is flushed.
    DirectBeforeFlush,
    /// The extent of a direct write that was overwritten in the log is free at once.
    DirectReusedAtOnce,
    /// A direct write that fails gives all its extents back, those that are logged too.
    DoubleFree,
    /// A write of a part of a block leaves zeroes around it.
    EdgeNotMerged,
    /// The old content of a block that is written in part is not verified.
    EdgeUnchecked,
    /// Recovery leaves the remains of a torn group where the next group goes.
    EndNotBlanked,
    /// An extent that fell out of a map is never given back.
    ExtentLeak,
    /// An extent that fell out of the map is free before the checkpoint.
    ExtentReusedAtOnce,
    /// The second copy of the superblock is written before the first is flushed.
    FirstCopyNotFlushed,
    /// A failed flush of direct writes is taken for done.
    FlushErrorIgnored,
    /// What a checkpoint covers is forgotten although it was overwritten since.
    ForgetsNewer,
    /// A log write that the device failed counts as done.
    LogIgnoresErrors,
    /// The log writes its groups without FUA.
    LogWithoutFua,
    /// A direct write that waits for the log is not woken.
    LostWakeup,
    /// Recovery does not compare the chain of groups.
    NoChainCheck,
    /// Recovery does not verify the checksum of a group header.
    NoHeaderCheck,
    /// Recovery does not verify the payload of a group: a torn one is replayed.
    NoPayloadCheck,
    /// Writes set no extents aside.
    NothingSetAside,
    /// Recovery leaves out zeroed ranges.
    RangeForgotten,
    /// A read that the device failed is taken for done.
    ReadErrorIgnored,
    /// A read does not verify what the device returned.
    ReadUnchecked,
    /// An extent that was set aside and is not needed stays set aside.
    ReservationLeak,
    /// A resize is logged and the catalog keeps the old size.
    ResizeNotApplied,
    /// Recovery leaves out resizes.
    ResizeNotReplayed,
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
    /// Ranges of blocks are locked although somebody has them.
    NoLock,
    /// Writers that wait for the log are not woken.
    WriterForgotten,
    /// Recovery replays a group whose payload is torn, and calls it damage.
    TornIsDamage,
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
        Planted::CheckpointUnderWrites,
        Planted::ClaimForgotten,
        Planted::DeadDirectAdopted,
        Planted::DeleteNotLogged,
        Planted::DeleteNotReplayed,
        Planted::DirectBeforeFlush,
        Planted::DirectReusedAtOnce,
        Planted::DoubleFree,
        Planted::EdgeNotMerged,
        Planted::EdgeUnchecked,
        Planted::EndNotBlanked,
        Planted::ExtentLeak,
        Planted::ExtentReusedAtOnce,
        Planted::FirstCopyNotFlushed,
        Planted::FlushErrorIgnored,
        Planted::ForgetsNewer,
        Planted::LogIgnoresErrors,
        Planted::LogWithoutFua,
        Planted::LostWakeup,
        Planted::NoChainCheck,
        Planted::NoHeaderCheck,
        Planted::NoPayloadCheck,
        Planted::NothingSetAside,
        Planted::RangeForgotten,
        Planted::ReadErrorIgnored,
        Planted::ReadUnchecked,
        Planted::ReservationLeak,
        Planted::ResizeNotApplied,
        Planted::ResizeNotReplayed,
        Planted::SharedFreed,
        Planted::SharedInPlace,
        Planted::StaleTail,
        Planted::SuperBeforePages,
        Planted::TailTooFar,
        Planted::NoLock,
        Planted::WriterForgotten,
        Planted::TornIsDamage,
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
