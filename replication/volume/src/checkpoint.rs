//! When to checkpoint, and what follows: forget the overlay's part, trim the log.

use std::time::Duration;

use bdev::Instant;
use store::{LogTail, Unmap};
use wal::{Lsn, Point};

use crate::core::Core;
use crate::destage::Phase;
use crate::journal::Kind;
use crate::limits::{
    CHECKPOINT_SHARE, FORGET_BLOCKS, LOG_SOFT, PRESSED_SHARE, RANGES_MAX, RECLAIM_AGAIN,
    RETURNS_MIN, RETURNS_WAIT_NS,
};

/// How soon to come back when something waits that no completion announces (a free buffer).
const BUSY: Duration = Duration::from_millis(1);

/// The state of checkpointing.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// A checkpoint up to here is durable; what it covers is being forgotten.
    forgetting: Option<Point>,
    /// The newest boundary of the log that the map covers.
    covered: Point,
    /// Space of deleted volumes waits to be given back.
    reclaim: bool,
    /// No deleted volume is in the catalog of the running checkpoint, and of the last one.
    begun_clean: bool,
    clean: bool,
    /// An edit was refused until a checkpoint has been.
    pub(crate) wanted: bool,
    /// When deleted snapshots that wait for others may be looked at once more.
    again_at: Instant,
}

impl Checkpoint {
    pub(crate) fn new(tail: Point) -> Checkpoint {
        Checkpoint {
            forgetting: None,
            covered: tail,
            reclaim: true,
            begun_clean: false,
            clean: false,
            wanted: false,
            again_at: Instant::ZERO,
        }
    }

    /// A volume was deleted.
    pub(crate) fn deleted(&mut self) {
        (self.reclaim, self.begun_clean, self.clean) = (true, false, false);
    }

    /// True when the durable catalog knows no deleted volume that is still being given back.
    pub(crate) fn forgot_deleted(&self) -> bool {
        self.clean
    }

    /// The catalog had no such volume when it was mounted.
    pub(crate) fn nothing_deleted(&mut self) {
        (self.reclaim, self.clean) = (false, true);
    }

    /// The checkpoint failed.
    pub(crate) fn abort(&mut self) {
        self.wanted = false;
    }
}

impl Core {
    /// Destaging, checkpointing, forgetting, reclaiming: a bounded step of each.
    pub(crate) fn background(&mut self) -> bool {
        let mut progress = self.forget_step() | self.check_step();
        if self.failed.is_some() || self.store.is_checkpointing() {
            return progress;
        }
        if self.checking.holds() {
            return progress;
        }
        let still = self.destage.in_flight == 0;
        if still && self.checkpoint_due() && self.begin_checkpoint() {
            return true;
        }
        if !self.checking.is_on() {
            progress |= self.reclaim_step();
        }
        progress | self.destage_step()
    }

    /// Everything that the log holds shall be in the map soon.
    pub(crate) fn wants_all(&self) -> bool {
        self.draining
            || self.space_wanted
            || self.controls.wants_checkpoint
            || self.controls.wants_barriers
            || self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.now >= self.idle_at()
    }

    /// When it counts as idle, unless somebody writes.
    fn idle_at(&self) -> Instant {
        self.written_at.saturating_add(Duration::from_nanos(self.idle_ns))
    }

    /// Durable records that the map does not have.
    pub(crate) fn nothing_to_destage(&self) -> bool {
        self.journal.pending() == 0
    }

    /// What the last checkpoint covers is being forgotten: what was set aside for it comes back.
    pub(crate) fn is_forgetting(&self) -> bool {
        self.checkpoint.forgetting.is_some()
    }

    pub(crate) fn is_reclaiming(&self) -> bool {
        self.checkpoint.reclaim
    }

    /// True when nothing is left to do in the background but wait for hosts.
    pub(crate) fn is_settled(&self) -> bool {
        self.nothing_to_destage()
            && self.wal.is_idle()
            && self.wal.used_blocks() == 0
            && !self.is_forgetting()
            && !self.checkpoint.reclaim
            && !self.store.is_checkpointing()
            && !self.store.is_dirty()
            && !self.store.is_repairing()
            && !self.checking.is_on()
    }

    /// True when the next turn may get further although nothing completes until then.
    pub(crate) fn is_busy(&self) -> bool {
        let parked = self.parked_writes.len() + self.parked_reads.len() + self.parked_directs.len();
        parked > 0
            || self.checking.is_on()
            || !self.destage.is_idle()
            || self.is_forgetting()
            || (self.wants_all() && !self.is_settled())
    }

    /// When the background has something to do even if nothing completes until then.
    pub(crate) fn background_timeout(&self) -> Option<Instant> {
        if self.failed.is_some() {
            return None;
        }
        if self.is_settled() {
            let again_at = self.checkpoint.again_at.max(self.idle_at());
            return self.store.may_reclaim_again().then_some(again_at);
        }
        if self.is_busy() {
            return Some(self.now.saturating_add(BUSY));
        }
        Some(self.idle_at())
    }

    /// Shortages that only a checkpoint ends.
    fn is_pressed(&self) -> bool {
        self.wal.used_blocks() * 100 >= self.wal.ring_blocks() * LOG_SOFT || self.is_scarce()
    }

    /// The overlay or the journal is running out of places.
    pub(crate) fn is_scarce(&self) -> bool {
        let room = self.overlay.room().saturating_sub(self.pledged_blocks);
        room < self.overlay.len() / 8
            || self.overlay.range_room() < RANGES_MAX / 2 + self.pledged_ranges
            || self.journal.is_crowded()
    }

    /// Extents that direct writes may still take: what nobody has set aside. Each makes the store
    /// keep pages back for it, a quarter of an extent, in steps of two extents.
    pub(crate) fn direct_room(&self) -> u64 {
        let room = self.store.free_extents().saturating_sub(self.spoken_for(0, 0));
        if self.reserved == 0 { room } else { room.saturating_sub(2) * 4 / 5 }
    }

    /// As many extents wait for the map and a checkpoint to give them back as are left. Direct
    /// writes replace extents and hardly fill the log, so nothing else would ask for one; without
    /// room for second copies they would take the way through the log, and be written twice.
    pub(crate) fn wants_returns(&self) -> bool {
        self.journal.directs() + self.store.released_extents() >= self.returns_worth()
    }

    /// Whether a direct write that found no room waits for what is about to be given back: not for
    /// long, since the log takes it too.
    pub(crate) fn waits_for_returns(&mut self, key: u32) -> bool {
        let moving = self.journal.directs() > 0 && self.wants_returns();
        let ending = self.store.released_extents() >= self.returns_worth() / 2;
        if self.checking.holds() || !(self.directs > 0 || moving || ending) {
            return false;
        }
        let op = self.ops.get_mut(key).expect("held");
        let since = *op.waits_for_returns.get_or_insert(self.now);
        self.now.saturating_since(since) < Duration::from_nanos(RETURNS_WAIT_NS)
    }

    fn returns_worth(&self) -> u64 {
        self.direct_room().max(RETURNS_MIN)
    }

    fn checkpoint_due(&mut self) -> bool {
        if self.is_forgetting() {
            return false;
        }
        if matches!(self.destage.phase, Phase::Barrier { .. }) {
            return true;
        }
        let gain = self.covered().position - self.wal.tail().position;
        if self.checkpoint.wanted {
            self.checkpoint.wanted = gain > 0 || self.store.is_dirty();
            return self.checkpoint.wanted;
        }
        if !self.destage.is_idle() {
            return false;
        }
        let share = gain * 100 / self.wal.ring_blocks();
        let rest = self.nothing_to_destage();
        share >= CHECKPOINT_SHARE
            || (self.store.needs_checkpoint() && self.store.is_dirty())
            || (self.is_pressed() && gain > 0 && (rest || share >= PRESSED_SHARE))
            || (self.is_scarce() && gain > 0)
            || self.store.released_extents() >= self.returns_worth() / 2
            || (self.wants_all() && rest && (gain > 0 || self.store.is_dirty()))
            || (self.controls.wants_checkpoint && !self.checkpoint.reclaim)
            || (self.controls.wants_barriers && !self.layers.is_waiting() && gain > 0)
    }

    /// The newest boundary of the log before which everything is in the map.
    pub(crate) fn covered(&mut self) -> Point {
        let limit = self.journal.peek(0).map_or(u64::MAX, |next| next.lsn);
        while let Some(mark) = self.marks.pop_up_to(limit) {
            self.checkpoint.covered = mark;
        }
        if limit == u64::MAX {
            self.checkpoint.covered = self.wal.durable();
        }
        self.checkpoint.covered
    }

    /// Position of the log before which everything is in the map, as of the last window.
    pub(crate) fn moved_to(&self) -> u64 {
        self.checkpoint.covered.position
    }

    fn begin_checkpoint(&mut self) -> bool {
        assert!(!self.controls.is_ahead(), "the catalog knows what the log says");
        let mut point = self.covered();
        if bdev::planted(bdev::Planted::TailTooFar) {
            point = self.wal.durable();
        }
        let tail = LogTail { position: point.position, lsn: point.lsn.0, chain: point.chain };
        self.checkpoint.wanted = false;
        self.checkpoint.begun_clean = !self.checkpoint.reclaim;
        let begun = self.store.begin_checkpoint(tail);
        if begun && bdev::planted(bdev::Planted::TrimmedTooSoon) {
            self.wal.trim(point);
        }
        begun
    }

    /// A checkpoint is durable.
    pub(crate) fn on_checkpoint(&mut self, tail: LogTail) {
        self.stats.checkpoints += 1;
        self.checkpoint.clean |= self.checkpoint.begun_clean;
        self.checkpoint.reclaim |= self.store.wants_reclaim();
        if let Phase::Barrier { count } = self.destage.phase {
            self.end_barrier(count);
        }
        let point = Point { position: tail.position, lsn: Lsn(tail.lsn), chain: tail.chain };
        self.checkpoint.forgetting = Some(point);
    }

    /// Forgets what the last checkpoint covers, then trims the log.
    fn forget_step(&mut self) -> bool {
        let Some(point) = self.checkpoint.forgetting else { return false };
        let mut budget = FORGET_BLOCKS;
        while budget > 0 {
            let Some(entry) = self.journal.forget_below(point.lsn.0) else {
                self.wal.trim(point);
                self.checkpoint.forgetting = None;
                return true;
            };
            match entry.kind {
                Kind::ZeroRange => {
                    self.overlay.forget_range(entry.lsn);
                    continue;
                }
                Kind::Barrier => {
                    self.layers.forget(entry.lsn);
                    continue;
                }
                Kind::Write { .. } | Kind::Direct { .. } | Kind::Zero => {}
            }
            for block in entry.block..entry.block + entry.blocks {
                let old = self.overlay.forget(entry.layer, block, entry.lsn);
                self.reserved -= u64::from(old.is_some_and(|old| old.reserved));
            }
            budget = budget.saturating_sub(entry.blocks);
        }
        true
    }

    /// Whether deleted snapshots that wait are looked at once more although little has changed:
    /// when there is nothing else to do, or somebody lacks space.
    fn reclaim_again(&mut self) -> bool {
        let calm = self.is_idle() && self.now >= self.checkpoint.again_at;
        let again = (calm || self.space_wanted) && self.store.may_reclaim_again();
        if again {
            self.store.reclaim_again();
            self.checkpoint.reclaim = true;
        }
        again
    }

    /// Gives back the space of deleted volumes, a step at a time.
    fn reclaim_step(&mut self) -> bool {
        if !self.checkpoint.reclaim && !self.reclaim_again() {
            return false;
        }
        match self.store.reclaim() {
            Unmap::More => true,
            Unmap::Done => {
                self.checkpoint.reclaim = false;
                self.checkpoint.again_at = self.now.saturating_add(RECLAIM_AGAIN);
                true
            }
            Unmap::Pending => false,
            Unmap::Busy => {
                self.checkpoint.wanted = true;
                false
            }
            Unmap::Damaged(_) => {
                // Its space stays in use; `store::check` names the page. Who waited for the end of
                // the reclaiming, as a creation does, goes on in the next turn.
                self.checkpoint.reclaim = false;
                true
            }
        }
    }
}
