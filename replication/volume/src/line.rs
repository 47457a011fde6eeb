//! The line of writes that wait: who is tried again, and in which order.

use bdev::Status;

use crate::core::Core;
use crate::limits::FAIR_ROUNDS_MAX;
use crate::op::HostOp;

impl Core {
    /// Tries everything again that waits for something.
    pub(crate) fn retry_parked(&mut self) {
        self.log_blocked = false;
        self.admission.wake_at = None;
        for _ in 0..self.parked_reads.len() {
            let key = self.parked_reads.pop().expect("counted");
            let op = self.ops.get_mut(key).expect("parked operations live");
            op.parked = false;
            if self.device.is_quarantined() {
                op.again = false;
                op.fail(Status::Io);
            }
            self.try_read(key);
        }
        let woken =
            if bdev::planted(bdev::Planted::LostWakeup) { 0 } else { self.parked_directs.len() };
        for _ in 0..woken {
            let key = self.parked_directs.pop().expect("counted");
            self.log_direct(key);
        }
        if !bdev::planted(bdev::Planted::WriterForgotten) {
            self.retry_writes();
        }
        if self.space_waiters == 0 {
            self.space_wanted = false;
        }
    }

    /// Goes through the line, volumes in turns, until the log has no room or everybody was tried.
    fn retry_writes(&mut self) {
        for _ in 0..FAIR_ROUNDS_MAX {
            if self.parked_writes.is_empty() {
                return self.flows.forgive();
            }
            if !self.retry_round() {
                return;
            }
            self.flows.next_round();
        }
    }

    /// One round. True when somebody waits only for the next.
    fn retry_round(&mut self) -> bool {
        let mut out_of_turn = false;
        for _ in 0..self.parked_writes.len() {
            let key = self.parked_writes.pop().expect("counted");
            let queue = self.ops.get(key).expect("parked operations live").queue;
            let flow = self.queues.get(queue).expect("queues outlive operations").flow;
            let turn = self.log_blocked || self.flows.has_turn(flow);
            self.ops.get_mut(key).expect("parked operations live").parked = false;
            if !self.log_blocked && turn {
                self.try_in_turn(key, flow);
                continue;
            }
            out_of_turn |= !turn;
            match self.is_given_up(key) {
                None => self.park_write(key),
                Some(status) => {
                    self.ops.get_mut(key).expect("held").fail(status);
                    self.settle(key);
                }
            }
        }
        out_of_turn && !self.log_blocked
    }

    /// Tries a write; what it takes of the log is its volume's share.
    pub(crate) fn try_in_turn(&mut self, key: u32, flow: u32) {
        let progress = |op: &HostOp| op.cursor;
        let op = self.ops.get(key).expect("the caller holds the operation");
        let (before, blocks) = (progress(op), op.blocks);
        self.try_write(key);
        // An operation that is gone took all of it.
        let after = self.ops.get(key).map_or(blocks, progress);
        self.flows.use_turn(flow, after.saturating_sub(before));
    }
}
