//! Zeroed ranges on their way into the map: edges block by block, whole extents unmapped.

use std::ops::Range;

use store::{Edit, Unmap, VolumeId};

use crate::core::Core;
use crate::destage::{Applied, Phase};
use crate::device::BLOCK;
use crate::error::Damaged;
use crate::journal::Entry;
use crate::write::EXTENT_BLOCKS;

impl Core {
    pub(crate) fn begin_zeroing(&mut self, entry: &Entry) {
        let (start, end) = (entry.block, entry.block + entry.blocks);
        let whole = start.div_ceil(EXTENT_BLOCKS)..end / EXTENT_BLOCKS;
        let head = (!start.is_multiple_of(EXTENT_BLOCKS)).then_some(start / EXTENT_BLOCKS);
        let tail = (!end.is_multiple_of(EXTENT_BLOCKS)).then_some(end / EXTENT_BLOCKS);
        self.destage.edges = [head, tail.filter(|_| tail != head)];
        self.destage.zeroing = whole.start..whole.end.max(whole.start);
        self.destage.entries = 1;
        self.destage.phase = Phase::Zeroing;
    }

    /// A step of a zeroed range: its edges block by block, then whole extents.
    pub(crate) fn zero_step(&mut self) -> bool {
        let entry = *self.journal.peek(0).expect("the range that is being zeroed");
        if !self.is_writable(entry.volume) {
            self.end_window();
            return true;
        }
        for edge in 0..2 {
            let Some(index) = self.destage.edges[edge] else { continue };
            match self.zero_edge(&entry, index) {
                Applied::Done => self.destage.edges[edge] = None,
                Applied::Later => return false,
                Applied::Busy => {
                    self.checkpoint.wanted = true;
                    return false;
                }
            }
        }
        if self.destage.zeroing.is_empty() {
            self.end_window();
            return true;
        }
        let mut part = self.destage.zeroing.clone();
        if let Some(found) = self.next_found(&entry, &part) {
            if found == part.start {
                self.destage.zeroing.start += 1;
                return true;
            }
            part.end = found;
        }
        let unmapped = self.store.unmap(VolumeId(entry.volume), &mut part);
        self.destage.zeroing.start = part.start;
        match unmapped {
            Unmap::More | Unmap::Done => true,
            Unmap::Pending => false,
            Unmap::Busy => {
                self.checkpoint.wanted = true;
                false
            }
            Unmap::Damaged(page) if self.is_unreadable(page) => false,
            Unmap::Damaged(page) => {
                // What it speaks of cannot be read any more; the rest of the range is zeroed.
                let byte = page * BLOCK as u64;
                self.report_damage(entry.volume, entry.block, Damaged::Map, byte);
                true
            }
        }
    }

    /// The first of these extents that a later direct write fills, when a replay found that write
    /// in the map: the range was there before it, and must not take its extent out again.
    fn next_found(&self, range: &Entry, extents: &Range<u64>) -> Option<u64> {
        let inside = |entry: &&Entry| extents.contains(&(entry.block / EXTENT_BLOCKS));
        let is_live = |entry: &&Entry| {
            let mut blocks = entry.block..entry.block + entry.blocks;
            blocks.any(|block| self.is_newest(entry.layer, block, entry.lsn))
        };
        let found = self.journal.found_after(range).filter(inside).filter(is_live);
        found.map(|entry| entry.block / EXTENT_BLOCKS).min()
    }

    fn zero_edge(&mut self, range: &Entry, index: u64) -> Applied {
        let volume = VolumeId(range.volume);
        if self.next_found(range, &(index..index + 1)).is_some() {
            return Applied::Done;
        }
        match self.store.lookup(volume, index) {
            store::Lookup::Unmapped => return Applied::Done,
            store::Lookup::Pending => return Applied::Later,
            _ => {}
        }
        let entry = match self.store.edit(volume, index) {
            Edit::Entry(entry) => entry,
            Edit::Pending => return Applied::Later,
            Edit::Busy => return Applied::Busy,
            Edit::Damaged(page) => {
                if self.is_unreadable(page) {
                    return Applied::Later;
                }
                let byte = page * BLOCK as u64;
                self.report_damage(range.volume, range.block, Damaged::Map, byte);
                return Applied::Done;
            }
        };
        let first = index * EXTENT_BLOCKS;
        for within in 0..EXTENT_BLOCKS {
            if (range.block..range.block + range.blocks).contains(&(first + within)) {
                entry.clear_block(usize::try_from(within).expect("below 16"));
            }
        }
        let before = *entry;
        if entry.written() == 0 {
            entry.clear();
            self.release(volume, index, &before);
            self.prune(volume, index);
        }
        Applied::Done
    }
}
