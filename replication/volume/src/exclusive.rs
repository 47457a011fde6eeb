//! Who may start writing where, and compare-and-write.
//!
//! ```text
//!  arrived --nobody against it--> comparing --equal--> writing --> done
//!                                                                 `--different: Miscompare
//! ```
//!
//! It holds its range from the start of the comparison to the end of the write, so what is compared
//! stays as it is until the new data is durable. `lock` says who waits for whom.

use bdev::{Op, Status};

use crate::core::Core;
use crate::lock::Lock;
use crate::op::Stage;

impl Core {
    /// Whether an operation that changes blocks may start. Asked until it may; then it goes on to
    /// its end without asking again.
    pub(crate) fn may_start(&mut self, key: u32) -> bool {
        let op = self.ops.get_mut(key).expect("held");
        if op.stage != Stage::Waiting {
            return true;
        }
        let queue = self.queues.get(op.queue).expect("queues outlive operations");
        let lock = match op.request.op {
            Op::CompareAndWrite => Lock::Exclusive,
            _ if queue.info.block_size < 4096 => Lock::Partial,
            _ => Lock::Plain,
        };
        if lock == Lock::Plain && op.lock.is_none() && !self.locks.any_exclusive() {
            op.stage = Stage::Writing;
            return true;
        }
        let (volume, start, end) = (op.volume, op.first, op.first + op.blocks);
        let place = *op.lock.get_or_insert_with(|| self.locks.enter(volume, start, end, lock));
        let swaps = lock == Lock::Exclusive;
        let taken = !self.locks.is_free(place) || (swaps && self.is_under_way(key));
        let unlocked = swaps && bdev::planted(bdev::Planted::SwapUnlocked);
        if taken && !unlocked {
            return false;
        }
        self.locks.hold(place);
        let op = self.ops.get_mut(key).expect("held");
        op.stage = if swaps { Stage::Comparing } else { Stage::Writing };
        true
    }

    /// True when an operation that entered no lock is changing some of the same blocks.
    fn is_under_way(&self, key: u32) -> bool {
        let own = self.ops.get(key).expect("held");
        let (start, end) = (own.first, own.first + own.blocks);
        self.ops.iter().any(|(_, op)| {
            op.stage == Stage::Writing
                && op.lock.is_none()
                && op.volume == own.volume
                && op.first < end
                && start < op.first + op.blocks
        })
    }

    /// The comparison of a compare-and-write has ended: with equality it becomes a write.
    pub(crate) fn on_compared(&mut self, key: u32) {
        let op = self.ops.get_mut(key).expect("held");
        if op.status.is_ok() {
            (op.stage, op.cursor) = (Stage::Writing, 0);
            return self.try_write(key);
        }
        let status = op.status;
        self.finish(key, status);
    }

    /// True when the operation is a compare-and-write that must compare now.
    pub(crate) fn is_comparing(&self, key: u32) -> bool {
        let op = self.ops.get(key).expect("held");
        op.stage == Stage::Comparing && op.status == Status::Ok
    }
}
