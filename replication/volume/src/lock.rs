//! Locks on ranges of blocks.
//!
//! Two kinds of operations must be alone on their blocks. A write that covers a 4 KiB block in part
//! reads it first, so on volumes with smaller blocks no two writes to the same block may be under
//! way. A compare-and-write, on any volume, is alone among all that change its blocks.
//!
//! An operation enters the table when it arrives, gets a number, holds its range when it may, and
//! leaves at its end. It waits for those that hold a range and conflict, and, when one of the two
//! is a compare-and-write, for those that came before. So whoever waits, waits for a smaller number
//! or for one that waits for nobody: there is no circle, and nobody is overtaken for ever. Plain
//! writes, while there is no compare-and-write, do not enter at all.

use bdev::Slots;

/// Why an operation is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// It changes whole blocks, and waits only for compare-and-writes.
    Plain,
    /// It may cover blocks in part.
    Partial,
    /// It compares and writes.
    Exclusive,
}

impl Lock {
    fn conflicts(self, other: Lock) -> bool {
        self == Lock::Exclusive
            || other == Lock::Exclusive
            || self == Lock::Partial && other == self
    }

    /// Whether the order of arrival counts between the two.
    fn lines_up(self, other: Lock) -> bool {
        self == Lock::Exclusive || other == Lock::Exclusive
    }
}

#[derive(Clone, Copy, Debug)]
struct Range {
    volume: u32,
    start: u64,
    end: u64,
    lock: Lock,
    number: u64,
    held: bool,
}

/// The ranges that are locked now, or will be.
#[derive(Debug)]
pub(crate) struct Locks {
    ranges: Slots<Range>,
    exclusive: usize,
    next: u64,
}

impl Locks {
    pub(crate) fn new(capacity: usize) -> Locks {
        Locks { ranges: Slots::new(capacity), exclusive: 0, next: 0 }
    }

    /// An operation arrives that wants the blocks from `start` to before `end`.
    pub(crate) fn enter(&mut self, volume: u32, start: u64, end: u64, lock: Lock) -> u32 {
        let (number, held) = (self.next, false);
        self.next += 1;
        self.exclusive += usize::from(lock == Lock::Exclusive);
        let range = Range { volume, start, end, lock, number, held };
        self.ranges.insert(range).expect("as many places as operations")
    }

    /// True when nobody in the table keeps the operation from holding its range.
    pub(crate) fn is_free(&self, key: u32) -> bool {
        let own = self.ranges.get(key).expect("entered and not left");
        let stands_against = |other: &Range| {
            other.volume == own.volume
                && own.start < other.end
                && other.start < own.end
                && own.lock.conflicts(other.lock)
                && (other.held || own.lock.lines_up(other.lock) && other.number < own.number)
        };
        let free = !self.ranges.iter().any(|(other, range)| other != key && stands_against(range));
        free || bdev::planted(bdev::Planted::NoLock)
    }

    /// The operation starts.
    pub(crate) fn hold(&mut self, key: u32) {
        self.ranges.get_mut(key).expect("entered and not left").held = true;
    }

    /// True when a compare-and-write is in the table.
    pub(crate) fn any_exclusive(&self) -> bool {
        self.exclusive > 0
    }

    /// True when nobody is in the table.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The operation is over.
    pub(crate) fn leave(&mut self, key: u32) {
        let range = self.ranges.remove(key).expect("an operation leaves once");
        self.exclusive -= usize::from(range.lock == Lock::Exclusive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(locks: &mut Locks, key: u32) -> bool {
        let free = locks.is_free(key);
        if free {
            locks.hold(key);
        }
        free
    }

    #[test]
    fn partial_writes_that_overlap_wait_and_others_do_not() {
        let mut locks = Locks::new(5);
        let ranges = [(1, 0, 4), (1, 3, 5), (1, 4, 5), (2, 0, 4)];
        let [a, b, c, d] =
            ranges.map(|(volume, start, end)| locks.enter(volume, start, end, Lock::Partial));
        assert!([a, c, d].map(|key| start(&mut locks, key)).into_iter().all(|free| free));
        assert!(!start(&mut locks, b), "it overlaps two");
        locks.leave(a);
        assert!(!start(&mut locks, b));
        locks.leave(c);
        assert!(start(&mut locks, b));
    }

    #[test]
    fn compare_and_writes_stand_in_line_with_all_that_overlap() {
        let mut locks = Locks::new(5);
        let before = locks.enter(1, 0, 1, Lock::Plain);
        let first = locks.enter(1, 0, 4, Lock::Exclusive);
        let behind = locks.enter(1, 3, 5, Lock::Plain);
        let last = locks.enter(1, 4, 6, Lock::Exclusive);
        let apart = locks.enter(2, 0, 9, Lock::Plain);
        assert!(start(&mut locks, apart));
        assert!(!start(&mut locks, first) && !start(&mut locks, behind));
        assert!(start(&mut locks, before), "it came first");
        locks.leave(before);
        assert!(!start(&mut locks, last) && !start(&mut locks, behind));
        assert!(start(&mut locks, first));
        assert!(!start(&mut locks, behind));
        locks.leave(first);
        assert!(!start(&mut locks, last));
        assert!(start(&mut locks, behind), "it is not overtaken");
        locks.leave(behind);
        assert!(start(&mut locks, last));
        locks.leave(last);
        assert!(!locks.any_exclusive());
    }
}
