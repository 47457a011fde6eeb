//! Pages for metadata, carved out of extents of the same area.
//!
//! A table holds, for each metadata extent, which of its 16 pages are in use and which of these
//! fell out of the tree since the last durable checkpoint. It is rebuilt at mount by walking the
//! trees. An extent that no page of the *next* map uses is not in the next space map either: it is
//! `Tentative` (fresh) or `Released` (emptied) there, so a crash leaks nothing.

use crate::Extent;
use crate::limits::EXTENT_BLOCKS;
use crate::space::SpaceMap;
use crate::table::Table;

/// Which metadata extents there are, and which of their pages are free.
pub(crate) struct MetaSpace {
    /// Extent number to `used | freeing << 16`.
    table: Table,
    /// Extents without a used page, to be filled next.
    fresh: Vec<Extent>,
    /// The extent that is being filled.
    current: Option<Extent>,
    /// Where the search for extents with free pages goes on.
    cursor: usize,
    /// Pages that can be allocated, those of fresh and of emptied extents included.
    free: u64,
    /// Those of emptied extents: used last, so that the extents can leave.
    free_emptied: u64,
    /// Pages in use, those that are being freed included.
    used: u64,
}

impl MetaSpace {
    /// No metadata extents; room for `extents` of them before the table must grow, and for
    /// `fresh` fresh ones at a time.
    pub(crate) fn new(extents: usize, fresh: usize) -> MetaSpace {
        let table = Table::new(extents);
        let fresh = Vec::with_capacity(fresh);
        MetaSpace { table, fresh, current: None, cursor: 0, free: 0, free_emptied: 0, used: 0 }
    }

    /// Pages that can be allocated without taking an extent.
    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    /// Pages in use, those that are being freed included.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Marks a page that a tree references, at mount. False when it was marked before.
    pub(crate) fn mark(&mut self, page: u64) -> bool {
        let (extent, bit) = place(page);
        if self.table.get(extent.number()).is_none() {
            self.table.grow(1);
            self.table.insert(extent.number(), 0);
            self.free += EXTENT_BLOCKS as u64;
        }
        let entry = self.table.get_mut(extent.number()).expect("just entered");
        let unused = *entry & bit == 0;
        *entry |= bit;
        if unused {
            self.free -= 1;
            self.used += 1;
        }
        unused
    }

    /// Every metadata extent.
    pub(crate) fn extents(&self) -> impl Iterator<Item = u64> {
        (0..self.table.slots()).filter_map(|slot| Some(self.table.at(slot)?.0))
    }

    /// Takes extents until `need` pages can be allocated; prefers fresh extents (whose pages can
    /// be written together) to the holes of old ones while the holes are less than half.
    /// False when there are not enough.
    pub(crate) fn prepare(&mut self, need: u64, space: &mut SpaceMap) -> bool {
        let holes = self.free;
        let fresh_wanted = if holes < self.used + need { need } else { 0 };
        let mut fresh_pages = 0;
        while self.free < need || fresh_pages < fresh_wanted {
            let must = self.free < need;
            if !must && space.free() <= space.total() / 16 {
                break; // Nearly full: live with holes.
            }
            let Some(extent) = space.take_low() else { break };
            self.table.grow(1);
            self.table.insert(extent.number(), 0);
            self.fresh.push(extent);
            self.free += EXTENT_BLOCKS as u64;
            fresh_pages += EXTENT_BLOCKS as u64;
        }
        self.fresh.reverse(); // They are popped from the end, lowest first.
        self.free >= need
    }

    /// Gives back the fresh extents that were not needed.
    pub(crate) fn unprepare(&mut self, space: &mut SpaceMap) {
        if let Some(extent) = self.current.take() {
            // Peeked at, but nothing was allocated in it.
            if self.table.get(extent.number()) == Some(0) {
                self.fresh.push(extent);
            }
        }
        while let Some(extent) = self.fresh.pop() {
            let entry = self.table.remove(extent.number());
            assert_eq!(entry, Some(0), "fresh extents have no used page");
            self.free -= EXTENT_BLOCKS as u64;
            space.abandon(extent);
        }
    }

    /// The page that [`MetaSpace::allocate`] gives next.
    ///
    /// # Panics
    /// When there is none: [`MetaSpace::prepare`] made sure of them.
    pub(crate) fn peek(&mut self) -> u64 {
        assert!(self.free > 0, "a checkpoint prepares its pages");
        let extent = self.extent_with_room();
        self.current = Some(extent);
        let entry = self.table.get(extent.number()).expect("metadata extents are in the table");
        let slot = (!used_of(entry)).trailing_zeros();
        extent.number() * EXTENT_BLOCKS as u64 + u64::from(slot)
    }

    /// Allocates a page; panics as [`MetaSpace::peek`] does.
    pub(crate) fn allocate(&mut self, space: &mut SpaceMap) -> u64 {
        let page = self.peek();
        let (extent, bit) = place(page);
        let entry = self.table.get_mut(extent.number()).expect("peek found it");
        if used_of(*entry) == 0 {
            space.commit(extent);
        }
        if is_emptied(*entry) {
            self.free_emptied -= holes(*entry);
            space.reopen(extent);
        }
        *entry |= bit;
        self.free -= 1;
        self.used += 1;
        page
    }

    /// A page fell out of the tree: free after the next durable checkpoint.
    pub(crate) fn free_page(&mut self, page: u64, space: &mut SpaceMap) {
        let (extent, bit) = place(page);
        let entry = self.table.get_mut(extent.number()).expect("pages lie in metadata extents");
        assert!(*entry & bit != 0, "only used pages are freed");
        assert!(*entry & bit << 16 == 0, "a page is freed once");
        *entry |= bit << 16;
        if is_emptied(*entry) {
            self.free_emptied += holes(*entry);
            space.release(extent);
        }
    }

    /// The checkpoint is durable: what fell out of the tree before it is free. Extents that became
    /// empty leave the table; `space` settles them itself.
    pub(crate) fn settle(&mut self) {
        let mut slot = 0;
        while slot < self.table.slots() {
            let Some((extent, entry)) = self.table.at(slot).filter(|(_, e)| e >> 16 != 0) else {
                slot += 1;
                continue;
            };
            self.used -= u64::from((entry >> 16).count_ones());
            if is_emptied(entry) {
                self.free -= holes(entry);
                self.free_emptied -= holes(entry);
                self.table.remove(extent); // May move a later one into this slot: look again.
            } else {
                let rest = (entry & 0xffff) & !(entry >> 16);
                *self.table.get_mut(extent).expect("just seen") = rest;
                self.free += u64::from((entry >> 16).count_ones());
            }
        }
    }

    fn extent_with_room(&mut self) -> Extent {
        // Emptied extents come last; the budget counts on them all the same.
        let emptied_too = self.free == self.free_emptied;
        let fits = |entry: u32| holes(entry) > 0 && (emptied_too || !is_emptied(entry));
        let room = |extent: &Extent| self.table.get(extent.number()).is_some_and(fits);
        if let Some(extent) = self.current.filter(room) {
            return extent;
        }
        if let Some(extent) = self.fresh.pop() {
            return extent;
        }
        loop {
            self.cursor = (self.cursor + 1) % self.table.slots();
            let found = self.table.at(self.cursor).filter(|&(_, entry)| fits(entry));
            if let Some((extent, _)) = found {
                return Extent::from_raw(extent).expect("the table holds extents");
            }
        }
    }
}

fn place(page: u64) -> (Extent, u32) {
    let extent = Extent::from_raw(page / EXTENT_BLOCKS as u64).expect("pages lie in the area");
    (extent, 1 << (page % EXTENT_BLOCKS as u64))
}

fn used_of(entry: u32) -> u16 {
    u16::try_from(entry & 0xffff).expect("masked")
}

/// True when every used page is being freed: the extent leaves with the next checkpoint, unless a
/// page of it is used again before.
fn is_emptied(entry: u32) -> bool {
    entry >> 16 != 0 && entry >> 16 == entry & 0xffff
}

/// Pages that are not in use.
fn holes(entry: u32) -> u64 {
    u64::from(used_of(entry).count_zeros())
}
