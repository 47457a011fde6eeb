//! Locks on ranges of blocks, for volumes whose blocks are smaller than the engine's.
//!
//! A write that covers a 4 KiB block in part reads it first. Nobody else may write the block
//! meanwhile, so on such volumes every write holds a lock on its blocks from its admission to its
//! end. Volumes with 4 KiB blocks take no locks.

use bdev::Slots;

#[derive(Clone, Copy, Debug)]
struct Range {
    volume: u32,
    start: u64,
    end: u64,
}

/// The ranges that are locked now.
#[derive(Debug)]
pub(crate) struct Locks {
    held: Slots<Range>,
}

impl Locks {
    pub(crate) fn new(capacity: usize) -> Locks {
        Locks { held: Slots::new(capacity) }
    }

    /// Locks blocks, unless some of them are locked already.
    pub(crate) fn take(&mut self, volume: u32, start: u64, end: u64) -> Option<u32> {
        let free = self.held.is_empty()
            || self
                .held
                .iter()
                .all(|(_, held)| held.volume != volume || held.end <= start || end <= held.start);
        if !free {
            return None;
        }
        self.held.insert(Range { volume, start, end }).ok()
    }

    pub(crate) fn put(&mut self, key: u32) {
        let range = self.held.remove(key);
        assert!(range.is_some(), "a lock is given back once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_wait() {
        let mut locks = Locks::new(3);
        let a = locks.take(1, 0, 4).unwrap();
        assert_eq!(locks.take(1, 3, 5), None);
        let b = locks.take(1, 4, 5).unwrap();
        let c = locks.take(2, 0, 4).unwrap();
        assert_eq!(locks.take(3, 0, 1), None, "the table is full");
        locks.put(a);
        let d = locks.take(1, 0, 4).unwrap();
        for key in [b, c, d] {
            locks.put(key);
        }
    }
}
