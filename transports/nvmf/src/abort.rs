//! Abort: what can still be stopped is, and what cannot is said to be so.
//!
//! A command that waits (for a buffer, for its turn, for an event, between two of its requests)
//! ends at once with Command Abort Requested. One whose data the host was asked for, or that has a
//! request at a device and more to come, ends that way when the data or that request is here:
//! a *deferred* abort. One whose only request is at a device runs to its end.
//!
//! Commands of I/O queues belong to other connections, maybe of other shards: the admin connection
//! leaves a wish with the controller in the registry, the I/O connection grants it or not at its
//! next poll, and the admin connection answers then.

use bdev::Fifo;
use nvme_spec::{NvmeStatus, Sqe, StatusCode, opcode};

use crate::command::{Phase, Work};
use crate::connection::Connection;
use crate::limits::{ABORTS_MAX, COMMANDS_MAX};
use crate::transmit::Out;

/// DW0 of Abort: an immediate abort was not performed.
const NOT_PERFORMED: u32 = 1;

/// The Abort commands of a controller that wait for an I/O queue, by their places in the registry.
#[derive(Debug, Default)]
pub(crate) struct Aborts {
    keys: [Option<u32>; ABORTS_MAX],
}

impl Aborts {
    /// Forgets them: their commands are gone.
    pub(crate) fn clear(&mut self) {
        *self = Aborts::default();
    }
}

impl Connection {
    //= NVMe-Base 2.1 §5.1.1
    //# DW0 bit 0 clear: the command has no effect any more; set: it was not aborted, or not yet
    pub(crate) fn abort(&mut self, key: u32, sqe: &Sqe) {
        let [a, b, c, d] = sqe.cdw10.get().to_le_bytes();
        let (sqid, cid) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        if sqid == 0 {
            let aborted = self.abort_own(cid, Some(key));
            return self.answer_abort(key, aborted);
        }
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        match self.target.registry().wish_abort(queue.hold, sqid, cid) {
            Ok(place) => {
                controller.aborts.keys[place] = Some(key);
                let command = self.commands.get_mut(key).expect("ready commands exist");
                command.phase = Phase::Event;
            }
            Err(WishError::NoQueue) => self.answer_abort(key, false),
            //= NVMe-Base 2.1 §5.1.1
            //# more Abort commands at once than ACL exceed the limit
            Err(WishError::TooMany) => {
                self.answer(key, NvmeStatus::again(StatusCode::ABORT_LIMIT_EXCEEDED));
            }
        }
    }

    /// Answers the Abort commands whose I/O queue has decided, or is gone.
    pub(crate) fn poll_aborts(&mut self) {
        for place in 0..ABORTS_MAX {
            let (Some(queue), Some(controller)) = (&self.queue, &mut self.controller) else {
                return;
            };
            let Some(key) = controller.aborts.keys[place] else { continue };
            if let Some(aborted) = self.target.registry().take_abort(queue.hold, place) {
                controller.aborts.keys[place] = None;
                self.answer_abort(key, aborted);
            }
        }
    }

    /// Answers the Abort commands whose wishes were taken away: nothing was aborted.
    pub(crate) fn refuse_aborts(&mut self) {
        for place in 0..ABORTS_MAX {
            let controller = self.controller.as_mut().expect("an admin queue has its controller");
            if let Some(key) = controller.aborts.keys[place].take() {
                self.answer_abort(key, false);
            }
        }
    }

    fn answer_abort(&mut self, key: u32, aborted: bool) {
        let dw0 = if aborted { 0 } else { NOT_PERFORMED };
        self.answer_with(key, NvmeStatus::SUCCESS, dw0, 0);
    }

    /// Grants what the admin connection wished of this I/O queue.
    pub(crate) fn grant_aborts(&mut self) {
        let Some(queue) = self.queue.as_ref().filter(|queue| queue.hold.qid != 0) else { return };
        let hold = queue.hold;
        while let Some((place, cid)) = self.target.registry().next_wish(hold) {
            let aborted = self.abort_own(cid, None);
            self.target.registry().grant_wish(hold, place, aborted);
        }
    }

    /// Aborts a command of this queue; true when it has no effect from here on.
    fn abort_own(&mut self, cid: u16, except: Option<u32>) -> bool {
        let key = (0..crate::framer::narrow(COMMANDS_MAX)).find(|&key| {
            let command = self.commands.get(key);
            Some(key) != except
                && command.is_some_and(|command| {
                    let fabrics = command.sqe.opcode == opcode::FABRICS;
                    command.sqe.cid.get() == cid && command.phase != Phase::Done && !fabrics
                })
        });
        let Some(key) = key else { return false };
        let command = self.commands.get_mut(key).expect("it was just found");
        if command.is_half() {
            self.abort_half(key);
            return false;
        }
        let aborted = match command.phase {
            Phase::Ready => remove(&mut self.ready, key) || remove(&mut self.waiting, key),
            Phase::Event => self.controller.as_mut().is_some_and(|own| own.notices.unpark_one(key)),
            Phase::Receiving => {
                let unasked = remove(&mut self.outbox, Out::R2t(key));
                // What was asked for still comes, and is taken in before the command ends.
                command.aborted = !unasked;
                self.receiving -= u32::from(unasked);
                unasked
            }
            Phase::Submitted => {
                command.aborted = command.plan.work != Work::Once;
                false
            }
            Phase::Half | Phase::Computing | Phase::Done => unreachable!("they are not looked for"),
        };
        if aborted {
            self.answer(key, NvmeStatus::again(StatusCode::ABORT_REQUESTED));
        }
        aborted
    }
}

/// Why there is no wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WishError {
    /// No such I/O queue is connected.
    NoQueue,
    /// All places are taken.
    TooMany,
}

/// A wish of the admin queue: to abort a command of an I/O queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) sqid: u16,
    pub(crate) cid: u16,
    /// What came of it, once the queue has decided.
    pub(crate) aborted: Option<bool>,
}

/// Takes `item` out of a line; false when it is not there.
fn remove<T: PartialEq>(line: &mut Fifo<T>, item: T) -> bool {
    let mut found = false;
    for _ in 0..line.len() {
        let next = line.pop().expect("counted");
        if !found && next == item {
            found = true;
            continue;
        }
        assert!(line.push(next).is_ok(), "it was just taken out");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_keeps_the_order_of_the_others() {
        let mut line = Fifo::new(5);
        for item in [4, 7, 1, 7] {
            line.push(item).unwrap();
        }
        assert!(remove(&mut line, 7));
        assert!(!remove(&mut line, 9));
        assert_eq!(line.iter().copied().collect::<Vec<_>>(), [4, 1, 7]);
    }
}
