//! What the live part of the log says, in the order it was said: the destager's work list.

use bdev::Fifo;
use wal::Point;

use crate::limits::MARKS_MAX;

/// What a record in the log asks of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Blocks whose data is in the log from this position on.
    Write {
        /// Position of the first block.
        position: u64,
    },
    /// One extent that already holds the data.
    Direct {
        /// Its number.
        extent: u64,
        /// False after a replay that found the extent in the map, or the record superseded.
        owned: bool,
    },
    /// Blocks that read as zeroes, each with a slot in the overlay.
    Zero,
    /// A range that reads as zeroes, in the overlay's list of ranges.
    ZeroRange,
    /// A layer of the volume ends here: the next of the barriers in `layers.rs`.
    Barrier,
}

impl Kind {
    /// True for zeroed blocks and ranges.
    pub(crate) fn is_zero(self) -> bool {
        matches!(self, Kind::Zero | Kind::ZeroRange)
    }
}

/// A record of the log that the map does not have, or has but not durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) lsn: u64,
    pub(crate) volume: u32,
    /// The layer of the volume that it belongs to.
    pub(crate) layer: u32,
    pub(crate) block: u64,
    pub(crate) blocks: u64,
    pub(crate) kind: Kind,
}

impl Entry {
    fn is_direct(&self) -> bool {
        matches!(self.kind, Kind::Direct { owned: true, .. })
    }

    fn is_found(&self) -> bool {
        matches!(self.kind, Kind::Direct { owned: false, .. })
    }
}

/// A ring of entries with a cursor: those before it are in the map, the others are not yet.
#[derive(Debug)]
pub(crate) struct Journal {
    entries: Box<[Entry]>,
    /// Counts of entries ever forgotten, destaged and pushed; an index is a count modulo the size.
    first: u64,
    cursor: u64,
    end: u64,
    /// Entries behind the cursor that put an extent of their own into the map.
    directs: u64,
    /// Zeroed blocks and ranges that were not destaged yet.
    zeroes: u64,
    /// Entries behind the cursor whose extent a replay found in the map, or that are superseded.
    found: u64,
}

impl Journal {
    pub(crate) fn new(capacity: usize) -> Journal {
        let empty = Entry { lsn: 0, volume: 0, layer: 0, block: 0, blocks: 0, kind: Kind::Zero };
        let entries = vec![empty; capacity.next_power_of_two()].into();
        let (first, cursor, end) = (0, 0, 0);
        Journal { entries, first, cursor, end, directs: 0, zeroes: 0, found: 0 }
    }

    pub(crate) fn room(&self) -> usize {
        self.entries.len() - self.len()
    }

    /// True when three quarters of the places are taken.
    pub(crate) fn is_crowded(&self) -> bool {
        self.room() < self.entries.len() / 4
    }

    fn len(&self) -> usize {
        usize::try_from(self.end - self.first).expect("at most the capacity")
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        assert!(self.room() > 0, "room was pledged when the record was appended");
        let index = self.index(self.end);
        self.entries[index] = entry;
        self.end += 1;
        self.directs += u64::from(entry.is_direct());
        self.zeroes += u64::from(entry.kind.is_zero());
        self.found += u64::from(entry.is_found());
    }

    /// The entry `ahead` places behind the cursor.
    pub(crate) fn peek(&self, ahead: u64) -> Option<&Entry> {
        let at = self.cursor + ahead;
        (at < self.end).then(|| &self.entries[self.index(at)])
    }

    /// Entries that were not destaged yet.
    pub(crate) fn pending(&self) -> u64 {
        self.end - self.cursor
    }

    /// Records of zeroes that were not destaged yet.
    pub(crate) fn zeroes(&self) -> u64 {
        self.zeroes
    }

    /// Moves the cursor over `count` entries that are in the map now.
    pub(crate) fn advance(&mut self, count: u64) {
        assert!(count <= self.pending());
        for at in self.cursor..self.cursor + count {
            let entry = self.entries[self.index(at)];
            self.directs -= u64::from(entry.is_direct());
            self.zeroes -= u64::from(entry.kind.is_zero());
            self.found -= u64::from(entry.is_found());
        }
        self.cursor += count;
    }

    /// Extents of direct writes that are on the device and not yet in the map.
    pub(crate) fn directs(&self) -> u64 {
        self.directs
    }

    /// Direct writes behind the cursor, into the same layer after this record, whose extents a
    /// replay found in the map, or that are superseded.
    pub(crate) fn found_after(&self, before: &Entry) -> impl Iterator<Item = &Entry> {
        let (layer, lsn) = (before.layer, before.lsn);
        let from = if self.found == 0 { self.end } else { self.cursor };
        let entries = (from..self.end).map(|at| &self.entries[self.index(at)]);
        entries.filter(move |entry| entry.is_found() && entry.layer == layer && entry.lsn > lsn)
    }

    /// Forgets the oldest entry if its LSN is below `lsn`.
    ///
    /// # Panics
    /// When it was not destaged.
    pub(crate) fn forget_below(&mut self, lsn: u64) -> Option<Entry> {
        if self.first == self.end {
            return None;
        }
        let entry = self.entries[self.index(self.first)];
        if entry.lsn >= lsn {
            return None;
        }
        assert!(self.first < self.cursor, "a checkpoint covers only what is in the map");
        self.first += 1;
        Some(entry)
    }

    /// Every entry, to change it, oldest first.
    pub(crate) fn for_each_mut(&mut self, mut each: impl FnMut(&mut Entry)) {
        for at in self.first..self.end {
            let index = self.index(at);
            let was = self.entries[index].is_direct();
            let was_found = self.entries[index].is_found();
            each(&mut self.entries[index]);
            if at >= self.cursor {
                self.directs += u64::from(self.entries[index].is_direct());
                self.directs -= u64::from(was);
                self.found += u64::from(self.entries[index].is_found());
                self.found -= u64::from(was_found);
            }
        }
    }

    fn index(&self, count: u64) -> usize {
        usize::try_from(count & (self.entries.len() as u64 - 1)).expect("below the capacity")
    }
}

/// Places where the log may be trimmed: boundaries of groups, kept coarsely.
#[derive(Debug)]
pub(crate) struct Marks {
    points: Fifo<Point>,
    /// Position of the newest.
    last: u64,
    stride: u64,
}

impl Marks {
    pub(crate) fn new(tail: Point, ring_blocks: u64) -> Marks {
        let stride = ring_blocks / (MARKS_MAX as u64 / 2);
        Marks { points: Fifo::new(MARKS_MAX), last: tail.position, stride }
    }

    /// Remembers a boundary, unless it is too near to the last one.
    pub(crate) fn push(&mut self, point: Point) {
        if point.position - self.last >= self.stride && self.points.push(point).is_ok() {
            self.last = point.position;
        }
    }

    /// The oldest boundary, if it has no record with `lsn` or a later one before it.
    pub(crate) fn pop_up_to(&mut self, lsn: u64) -> Option<Point> {
        self.points.front().filter(|point| point.lsn.0 <= lsn)?;
        self.points.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_pass_from_pending_to_destaged_to_forgotten() {
        let mut journal = Journal::new(4);
        let (volume, layer, blocks, kind) = (1, 1, 1, Kind::Zero);
        let entry = |lsn| Entry { lsn, volume, layer, block: lsn, blocks, kind };
        for lap in 0..5 {
            for i in 1..=4 {
                journal.push(entry(lap * 4 + i));
            }
            assert_eq!((journal.room(), journal.pending()), (0, 4));
            assert_eq!(journal.peek(3), Some(&entry(lap * 4 + 4)));
            assert_eq!(journal.peek(4), None);
            journal.advance(2);
            assert_eq!(journal.forget_below(lap * 4 + 1), None);
            assert_eq!(journal.forget_below(lap * 4 + 2), Some(entry(lap * 4 + 1)));
            journal.advance(2);
            let mut left = 0;
            journal.for_each_mut(|_| left += 1);
            assert_eq!(left, 3);
            while journal.forget_below(u64::MAX).is_some() {}
        }
    }
}
