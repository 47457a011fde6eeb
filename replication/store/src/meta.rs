//! Pages for metadata, carved out of pairs of extents of the same area.
//!
//! Each page is written twice: to its place in one extent, and to the same place in that extent's
//! *twin*, some way behind. A table holds, for each first extent, where its twin is, which of its
//! 16 pages are in use and which of these fell out of the tree since the last durable checkpoint.
//! It is rebuilt at mount by walking the trees. Extents that no page of the *next* map uses are not
//! in the next space map either: they are `Tentative` (fresh) or `Released` (emptied) there, so a
//! crash leaks nothing. When there is no space for a pair, an extent has no twin and its pages one
//! copy; such places are used last.

use crate::Extent;
use crate::format::Place;
use crate::limits::EXTENT_BLOCKS;
use crate::space::SpaceMap;
use crate::table::Table;

/// Which metadata extents there are, and which of their pages are free.
pub(crate) struct MetaSpace {
    /// By extent number; twins have entries of their own.
    table: Table<Entry>,
    /// Extents without a used page, to be filled next.
    fresh: Vec<Extent>,
    /// The extent that is being filled.
    current: Option<Extent>,
    /// Extents with pages that are free after the next checkpoint; room for every extent.
    freed: Vec<Extent>,
    /// Where the search for extents with free pages goes on.
    cursor: usize,
    /// Pages that can be allocated, by the class of their extent; lower classes go first.
    free: [u64; CLASSES],
    /// Pages in use, those that are being freed included.
    used: u64,
    /// Those of them that have no second copy.
    single: u64,
}

/// What is known of one metadata extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Pages in use, one bit each.
    used: u16,
    /// Those of them that are free after the next checkpoint.
    freeing: u16,
    /// How many extents further on the twin is; 0 for none. In a twin: how many back.
    distance: u16,
    is_twin: bool,
}

impl Entry {
    /// True when every used page is being freed: the extent leaves with the next checkpoint, unless
    /// a page of it is used again before.
    fn is_emptied(self) -> bool {
        self.freeing != 0 && self.freeing == self.used
    }

    /// Pages that are not in use.
    fn holes(self) -> u64 {
        if self.is_twin { 0 } else { u64::from(self.used.count_zeros()) }
    }

    /// Emptied extents come late, so that they can leave; pages without a second copy come last.
    fn class(self) -> usize {
        usize::from(self.distance == 0) * SINGLE + usize::from(self.is_emptied())
    }
}

/// The first class of extents without twins.
const SINGLE: usize = 2;
const CLASSES: usize = 4;
const PAGES: u64 = EXTENT_BLOCKS as u64;

impl MetaSpace {
    /// No metadata extents; room for `extents` of them before the table must grow, and for
    /// `fresh` fresh ones at a time.
    pub(crate) fn new(extents: usize, fresh: usize) -> MetaSpace {
        let table = Table::new(extents);
        MetaSpace {
            freed: Vec::with_capacity(table.slots()),
            table,
            fresh: Vec::with_capacity(fresh),
            current: None,
            cursor: 0,
            free: [0; CLASSES],
            used: 0,
            single: 0,
        }
    }

    /// Pages that can be allocated without taking an extent.
    pub(crate) fn free(&self) -> u64 {
        self.free.iter().sum()
    }

    /// Those of them that have two copies.
    pub(crate) fn free_paired(&self) -> u64 {
        self.free[..SINGLE].iter().sum()
    }

    /// Pages in use, those that are being freed included; second copies are not counted.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Pages in use that have no second copy.
    pub(crate) fn single(&self) -> u64 {
        self.single
    }

    /// True when a tree references the page at this place, or did at the last checkpoint.
    pub(crate) fn is_used(&self, place: Place) -> bool {
        let (extent, bit) = locate(place);
        let entry = self.table.get(extent.number());
        entry.is_some_and(|entry| {
            !entry.is_twin && entry.distance == place.distance() && entry.used & bit != 0
        })
    }

    /// True when the page at this place may fall out of the tree: a tree has it.
    pub(crate) fn may_free(&self, place: Place) -> bool {
        let (extent, bit) = locate(place);
        let freeing = self.table.get(extent.number()).is_some_and(|e| e.freeing & bit != 0);
        self.is_used(place) && !freeing
    }

    /// True when an extent holds metadata, or the second copies of some.
    pub(crate) fn contains(&self, extent: Extent) -> bool {
        self.table.get(extent.number()).is_some()
    }

    /// Marks a page that a tree references, at mount. False when it was marked before, or when
    /// pages of one extent do not agree on their twin.
    pub(crate) fn mark(&mut self, place: Place) -> bool {
        let (extent, bit) = locate(place);
        if self.table.get(extent.number()).is_none() {
            let twin = place.twin().map(|page| page / PAGES);
            if twin.is_some_and(|twin| self.table.get(twin).is_some()) {
                return false;
            }
            self.enter(extent, place.distance());
        }
        let entry = self.table.get(extent.number()).expect("just entered");
        if entry.is_twin || entry.distance != place.distance() || entry.used & bit != 0 {
            return false;
        }
        self.change(extent, |entry| entry.used |= bit);
        true
    }

    /// Every metadata extent, twins included.
    pub(crate) fn extents(&self) -> impl Iterator<Item = u64> {
        (0..self.table.slots()).filter_map(|slot| Some(self.table.at(slot)?.0))
    }

    /// Takes extents until `need` pages can be allocated; prefers fresh extents (whose pages can
    /// be written together) to the holes of old ones while the holes are less than half. In pairs
    /// as far as that leaves `keep` pages for the next checkpoint: what a snapshot shares is not
    /// freed when it is replaced, and two copies of it must not use up what one copy needs later.
    /// False when there is not even enough for one copy of each.
    pub(crate) fn prepare(&mut self, need: u64, keep: u64, space: &mut SpaceMap) -> bool {
        let holes = self.free_paired();
        let fresh_wanted = if holes < self.used + need { need } else { 0 };
        let mut fresh_pages = 0;
        while self.free_paired() < need || fresh_pages < fresh_wanted {
            let must = self.free_paired() < need;
            if !must && space.free() <= space.total() / 16 {
                break; // Nearly full: live with holes.
            }
            let rest = (need + keep).saturating_sub(self.free() + PAGES).div_ceil(PAGES);
            if space.free() < 2 + rest {
                break; // One copy of everything comes before two of some.
            }
            let Some((extent, distance)) = space.take_pair() else { break };
            self.enter(extent, distance);
            self.fresh.push(extent);
            fresh_pages += PAGES;
        }
        while self.free() < need {
            let Some(extent) = space.take_low() else { break };
            self.enter(extent, 0);
            self.fresh.push(extent);
        }
        self.fresh.reverse(); // They are popped from the end, lowest first.
        self.free() >= need
    }

    /// Gives back the fresh extents that were not needed.
    pub(crate) fn unprepare(&mut self, space: &mut SpaceMap) {
        if let Some(extent) = self.current.take() {
            // Peeked at, but nothing was allocated in it.
            if self.table.get(extent.number()).is_some_and(|entry| entry.used == 0) {
                self.fresh.push(extent);
            }
        }
        while let Some(extent) = self.fresh.pop() {
            let entry = self.leave(extent);
            assert_eq!(entry.used, 0, "fresh extents have no used page");
            both(extent, entry, |extent| space.abandon(extent));
        }
    }

    /// The place that [`MetaSpace::allocate`] gives next.
    ///
    /// # Panics
    /// When there is none: [`MetaSpace::prepare`] made sure of them.
    pub(crate) fn peek(&mut self) -> Place {
        assert!(self.free() > 0, "a checkpoint prepares its pages");
        let extent = self.extent_with_room();
        self.current = Some(extent);
        let entry = self.table.get(extent.number()).expect("metadata extents are in the table");
        let slot = u64::from(entry.used.trailing_ones());
        Place::new(extent.number() * PAGES + slot, entry.distance)
    }

    /// Allocates a page; panics as [`MetaSpace::peek`] does.
    pub(crate) fn allocate(&mut self, space: &mut SpaceMap) -> Place {
        let place = self.peek();
        let (extent, bit) = locate(place);
        let entry = self.table.get(extent.number()).expect("peek found it");
        if entry.used == 0 {
            both(extent, entry, |extent| space.commit(extent));
        }
        if entry.is_emptied() {
            both(extent, entry, |extent| space.reopen(extent));
        }
        self.change(extent, |entry| entry.used |= bit);
        place
    }

    /// A page fell out of the tree: free after the next durable checkpoint.
    pub(crate) fn free_page(&mut self, place: Place, space: &mut SpaceMap) {
        let (extent, bit) = locate(place);
        let entry = self.table.get(extent.number()).expect("pages lie in metadata extents");
        assert!(entry.used & bit != 0, "only used pages are freed");
        assert!(entry.freeing & bit == 0, "a page is freed once");
        if bdev::planted(bdev::Planted::PageReusedAtOnce) && entry.used & !bit != 0 {
            return self.change(extent, |entry| entry.used &= !bit);
        }
        if entry.freeing == 0 {
            self.freed.push(extent);
        }
        self.change(extent, |entry| entry.freeing |= bit);
        if (Entry { freeing: entry.freeing | bit, ..entry }).is_emptied() {
            both(extent, entry, |extent| space.release(extent));
        }
    }

    /// The checkpoint is durable: what fell out of the tree before it is free. Extents that became
    /// empty leave the table; `space` settles them itself.
    pub(crate) fn settle(&mut self) {
        while let Some(extent) = self.freed.pop() {
            let entry = self.table.get(extent.number()).expect("it has pages until now");
            if entry.is_emptied() {
                self.leave(extent);
            } else {
                self.change(extent, |entry| {
                    entry.used &= !entry.freeing;
                    entry.freeing = 0;
                });
            }
        }
    }

    /// Enters an extent and its twin.
    fn enter(&mut self, extent: Extent, distance: u16) {
        self.table.grow(2);
        self.freed.reserve(self.table.slots() - self.freed.len());
        let entry = Entry { distance, ..Entry::default() };
        self.table.insert(extent.number(), entry);
        self.free[entry.class()] += entry.holes();
        if distance > 0 {
            let twin = Entry { is_twin: true, ..entry };
            self.table.insert(extent.number() + u64::from(distance), twin);
        }
    }

    /// Removes an extent and its twin.
    fn leave(&mut self, extent: Extent) -> Entry {
        self.change(extent, |_| {}); // Asserts that it is there.
        let entry = self.table.remove(extent.number()).expect("just seen");
        self.uncount(entry);
        if entry.distance > 0 {
            let twin = self.table.remove(extent.number() + u64::from(entry.distance));
            assert!(twin.is_some_and(|twin| twin.is_twin), "pairs come and go together");
        }
        entry
    }

    /// Changes an entry and the counters with it.
    fn change(&mut self, extent: Extent, change: impl FnOnce(&mut Entry)) {
        let entry = self.table.get_mut(extent.number()).expect("it is a metadata extent");
        let before = *entry;
        change(entry);
        let after = *entry;
        self.uncount(before);
        self.free[after.class()] += after.holes();
        self.used += u64::from(after.used.count_ones());
        self.single += single_of(after);
    }

    fn uncount(&mut self, entry: Entry) {
        self.free[entry.class()] -= entry.holes();
        self.used -= u64::from(entry.used.count_ones());
        self.single -= single_of(entry);
    }

    fn extent_with_room(&mut self) -> Extent {
        let class = self.free.iter().position(|&pages| pages > 0).expect("the caller checked");
        let fits = |entry: Entry| entry.holes() > 0 && entry.class() == class;
        let room = |extent: &Extent| self.table.get(extent.number()).is_some_and(fits);
        if let Some(extent) = self.current.filter(room) {
            return extent;
        }
        if self.fresh.last().is_some_and(room) {
            return self.fresh.pop().expect("just seen");
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

/// Does something with an extent and its twin.
fn both(extent: Extent, entry: Entry, mut act: impl FnMut(Extent)) {
    act(extent);
    if entry.distance > 0 {
        act(extent.after(u32::from(entry.distance)));
    }
}

fn single_of(entry: Entry) -> u64 {
    if entry.distance == 0 { u64::from(entry.used.count_ones()) } else { 0 }
}

fn locate(place: Place) -> (Extent, u16) {
    let number = place.number();
    let extent = Extent::from_raw(number / PAGES).expect("pages lie in the area");
    (extent, 1 << (number % PAGES))
}
