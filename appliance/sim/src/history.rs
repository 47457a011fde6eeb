//! What every block may contain: the register checker.
//!
//! Each block of a volume is a register. A write has an interval from its submission to its answer;
//! it takes effect at some moment inside. A read is right when some order of all effects explains
//! it: the value was written by a write that began before the read ended, and no other write is
//! known to have taken effect after that one ended and before the read began.
//!
//! A write that was never answered (a reset, a crash, an error) may have taken effect or not. If it
//! did, it did so before the next crash: what a node has not done when it dies it never does. A
//! read that returns such a write proves it.

use std::collections::BTreeMap;

/// A moment of the simulation: strictly increasing, one for each submission and each answer.
pub type Moment = u64;

/// The history of every block that was touched.
#[derive(Debug, Default)]
pub struct History {
    blocks: BTreeMap<(u32, u64), Vec<Write>>,
    /// Reads that were checked.
    pub reads: u64,
    /// Writes that were answered.
    pub writes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    serial: u64,
    /// What the block then holds; zero is zeroes.
    value: u64,
    began: Moment,
    /// When it had taken effect, if it did at all.
    done_by: Moment,
    /// It did: it was answered, or read.
    certain: bool,
}

/// A read that no order of effects explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The volume.
    pub volume: u32,
    /// The block.
    pub block: u64,
    /// What was read.
    pub value: u64,
    /// What is known of the block.
    pub known: String,
}

/// A write that has not ended: it has taken effect by the end of time, if at all.
const OPEN: Moment = Moment::MAX;

impl History {
    /// A write of `value` to a block begins. `serial` names it.
    pub fn begin(&mut self, volume: u32, block: u64, serial: u64, value: u64, at: Moment) {
        let write = Write { serial, value, began: at, done_by: OPEN, certain: false };
        self.blocks.entry((volume, block)).or_insert_with(|| vec![Write::ORIGIN]).push(write);
    }

    /// The write was answered as done. `oldest_read` is when the oldest unanswered read began.
    pub fn acknowledge(
        &mut self,
        volume: u32,
        block: u64,
        serial: u64,
        at: Moment,
        oldest_read: Moment,
    ) {
        self.writes += 1;
        let Some(writes) = self.blocks.get_mut(&(volume, block)) else { return };
        let Some(index) = writes.iter().position(|write| write.serial == serial) else { return };
        let write = &mut writes[index];
        write.done_by = write.done_by.min(at);
        write.certain = true;
        let newest = *write;
        if newest.done_by < oldest_read {
            // No read that is still to be answered can return what this one has replaced.
            writes.retain(|old| old.done_by >= newest.began || old.serial == serial);
        }
    }

    /// The write ended and may have taken effect or not (a deallocation).
    pub fn settle(&mut self, volume: u32, block: u64, serial: u64, at: Moment) {
        let writes = self.blocks.get_mut(&(volume, block));
        let ended = |write: &&mut Write| write.serial == serial;
        if let Some(write) = writes.and_then(|writes| writes.iter_mut().find(ended)) {
            write.done_by = write.done_by.min(at);
        }
    }

    /// The node died: what has not taken effect never will.
    pub fn crash(&mut self, at: Moment) {
        for write in self.blocks.values_mut().flatten() {
            write.done_by = write.done_by.min(at);
        }
    }

    /// A read of a block that began at `began` ended now, at `at`, with `value`.
    ///
    /// # Errors
    /// When the value is not one that the block can have had.
    pub fn read(
        &mut self,
        volume: u32,
        block: u64,
        value: u64,
        began: Moment,
        at: Moment,
    ) -> Result<(), Violation> {
        self.reads += 1;
        let Some(writes) = self.blocks.get_mut(&(volume, block)) else {
            let known = "never written".to_owned();
            return if value == 0 {
                Ok(())
            } else {
                Err(Violation { volume, block, value, known })
            };
        };
        let replaced = |old: &Write| {
            let later = |new: &Write| new.certain && old.done_by < new.began && new.done_by < began;
            writes.iter().any(later)
        };
        let fits = |write: &Write| write.value == value && write.began < at && !replaced(write);
        let found: Vec<usize> =
            writes.iter().enumerate().filter(|(_, write)| fits(write)).map(|(i, _)| i).collect();
        match found.as_slice() {
            [] => {
                let known = format!("read from {began} to {at}; writes: {writes:?}");
                Err(Violation { volume, block, value, known })
            }
            [one] => {
                let write = &mut writes[*one];
                write.certain = true;
                write.done_by = write.done_by.min(at);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Every block that was ever written, to read all of them at the end.
    pub fn touched(&self) -> impl Iterator<Item = (u32, u64)> {
        self.blocks.keys().copied()
    }
}

impl Write {
    /// A fresh volume holds zeroes.
    const ORIGIN: Write = Write { serial: 0, value: 0, began: 0, done_by: 0, certain: true };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(writes: &[(u64, Moment, Option<Moment>)]) -> History {
        let mut history = History::default();
        for &(value, began, ended) in writes {
            history.begin(0, 0, value, value, began);
            if let Some(at) = ended {
                history.acknowledge(0, 0, value, at, 0);
            }
        }
        history
    }

    #[test]
    fn acknowledged_write_must_be_read() {
        let mut history = history(&[(1, 1, Some(2)), (2, 3, Some(4))]);
        assert!(history.read(0, 0, 2, 5, 6).is_ok());
        assert!(history.read(0, 0, 1, 5, 6).is_err());
        assert!(history.read(0, 0, 0, 5, 6).is_err());
        assert!(history.read(0, 0, 9, 5, 6).is_err());
    }

    #[test]
    fn concurrent_write_may_be_read_or_not() {
        let mut history = history(&[(1, 1, Some(2)), (2, 3, None)]);
        assert!(history.read(0, 0, 1, 4, 5).is_ok());
        assert!(history.read(0, 0, 2, 6, 7).is_ok());
        assert!(history.read(0, 0, 1, 8, 9).is_err(), "it was read before, so it has happened");
    }

    #[test]
    fn unanswered_write_does_not_come_true_after_a_crash_and_a_newer_write() {
        let mut history = history(&[(1, 1, None)]);
        history.crash(2);
        history.begin(0, 0, 2, 2, 3);
        history.acknowledge(0, 0, 2, 4, 0);
        assert!(history.read(0, 0, 1, 5, 6).is_err());
        assert!(history.read(0, 0, 2, 5, 6).is_ok());
    }

    #[test]
    fn old_read_may_return_what_was_replaced_meanwhile() {
        let mut history = history(&[(1, 1, Some(2))]);
        history.begin(0, 0, 2, 2, 4);
        history.acknowledge(0, 0, 2, 5, 3);
        assert!(history.read(0, 0, 1, 3, 6).is_ok());
    }
}
