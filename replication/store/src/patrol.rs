//! Patrols: every page that the last checkpoint reaches is read from both its places.
//!
//! ```text
//!   next page --> both copies are read --> whole: scrub goes on to the leaf's data, a check notes
//!       ^                     |                   what the leaf references
//!       |                     `--> one bad: reported, and rewritten from the other
//!       `----- go on          `--> both bad: reported; what is below is unknown
//! ```
//!
//! A patrol is a position, and "what is next?" is answered through the page cache for inner pages;
//! leaves and the copies themselves are read past it. A **scrub** lives with edits and checkpoints:
//! a page that does not look right after a checkpoint went by is looked at again. A **check** adds
//! up what is referenced and compares it with the space map, so the map must not change meanwhile:
//! the caller neither edits nor checkpoints until it has ended.

use bdev::{BufMut, Buffers, Completion, Data, Fifo, Request, Slots};

use crate::flat::FlatTree;
use crate::format::{
    Kind, LEAF_ENTRIES, LeafEntry, NodeId, OWNER_CATALOG, OWNER_SPACE, Page, PageFault, PagePtr,
    Place, Superblock,
};
use crate::io::KEY_PATROL;
use crate::ledger::{CheckReport, Finding, Ledger, damage_of};
use crate::limits::{EXTENT_BLOCKS, LOAD_ATTEMPTS_MAX, PAGE_BYTES, PATROL_STEPS_MAX, PATROLS_MAX};
use crate::loads::check_page;
use crate::repair::Copy;
use crate::tree::{Walk, capacity, first_extent};
use crate::{Store, VolumeId};

/// Where a patrol is: which tree, and at which of its leaves. Trees come in the order of their
/// owners' numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PatrolPlace {
    /// 0 for the superblocks, a node's id, or the space map and the catalog at the end.
    pub tree: u32,
    /// The leaf, or the page of the space map or the catalog.
    pub index: u64,
}

/// What a patrol has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patrolled {
    /// Where it is.
    pub place: PatrolPlace,
    /// Bytes of metadata that it has read.
    pub bytes: u64,
    /// Damaged pages, and copies of pages.
    pub found: u64,
    /// Those of them that the other copy replaces.
    pub healed: u64,
    /// It is at the end.
    pub ended: bool,
}

/// An extent whose data is to be read and compared with its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubEntry {
    /// The node whose extent it is. Others may share it.
    pub volume: VolumeId,
    /// Its place in that node's tree.
    pub index: u64,
    /// What the durable map says of it; blocks may have been written since.
    pub entry: LeafEntry,
}

/// What a store remembers of its scrubs. It is written with each checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubRecord {
    /// Where the pass at hand goes on.
    pub place: PatrolPlace,
    /// Bytes that the pass has covered, by its own count.
    pub covered: u64,
    /// Damaged blocks and (copies of) pages that it found.
    pub found: u64,
    /// Those of them that were healed.
    pub healed: u64,
    /// Passes that came to their end.
    pub passes: u64,
    /// When the last one did, in seconds since 1970; 0 when that is not known.
    pub finished_unix: u64,
    /// What the last one found.
    pub last_found: u64,
    /// How much of that was healed.
    pub last_healed: u64,
}

/// The patrol of a store.
pub(crate) struct Patrol {
    mode: Mode,
    at: At,
    may_read: bool,
    flights: Slots<Visit>,
    /// Copies that are to be read once more.
    again: Fifo<(u32, Copy)>,
    done: Patrolled,
    /// The leaf whose data is being scrubbed.
    leaf: Box<Page>,
    leaf_at: Option<LeafAt>,
    /// A copy of the superblock is damaged: the next checkpoint writes both.
    pub(crate) mend_superblock: bool,
    /// How far the scrub is shall be durable soon.
    pub(crate) save_soon: bool,
}

enum Mode {
    Off,
    Scrub,
    Check(Box<Ledger>),
}

/// The next page: the highest one, not above `level`, whose first leaf is this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    place: PatrolPlace,
    level: u8,
}

impl At {
    fn start(place: PatrolPlace) -> At {
        At { place, level: u8::MAX }
    }

    fn tree(tree: u32) -> At {
        At::start(PatrolPlace { tree, index: 0 })
    }

    fn leaf(self, index: u64) -> At {
        At::start(PatrolPlace { index, ..self.place })
    }
}

#[derive(Clone, Copy)]
struct LeafAt {
    node: NodeId,
    next: usize,
}

/// A page whose copies are being read.
#[derive(Clone, Copy, Debug)]
struct Visit {
    node: NodeId,
    ptr: PagePtr,
    /// Where the patrol was, to come back.
    from: At,
    checkpoints: u64,
    copies: [Seen; 2],
    /// A whole copy was passed on.
    taken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// There is no such copy.
    Absent,
    Reading {
        attempts: u8,
    },
    Whole,
    Bad(PageFault),
}

enum Next {
    Page(NodeId, PagePtr),
    Skipped,
    Pending,
    End,
}

impl Patrol {
    pub(crate) fn new() -> Patrol {
        Patrol {
            mode: Mode::Off,
            at: At::tree(0),
            may_read: false,
            flights: Slots::new(PATROLS_MAX),
            again: Fifo::new(2 * PATROLS_MAX),
            done: Patrolled::default(),
            leaf: Box::new(Page::zeroed()),
            leaf_at: None,
            mend_superblock: false,
            save_soon: false,
        }
    }

    fn begin(&mut self, mode: Mode, place: PatrolPlace) {
        assert!(self.flights.is_empty(), "the caller waited for the end of the last one");
        self.mode = mode;
        self.at = At::start(place);
        self.done = Patrolled::default();
        self.leaf_at = None;
        self.may_read = false;
    }

    fn depth(&self) -> usize {
        match self.mode {
            Mode::Off => 0,
            Mode::Scrub => 1,
            Mode::Check(_) => PATROLS_MAX,
        }
    }

    fn bad(&mut self, visit: &Visit, fault: PageFault, copy: Copy, lost: bool) {
        let page = copy.page(&visit.ptr).expect("a copy that was read is there");
        self.done.found += 1;
        self.done.healed += u64::from(!lost);
        let Mode::Check(ledger) = &mut self.mode else { return };
        if lost {
            ledger.lost(damage_of(visit.node, page, fault, false));
        } else {
            ledger.find(Finding::Copy(damage_of(visit.node, page, fault, true)));
        }
    }
}

impl Store {
    /// Starts to read all metadata from a place on, and to hand out what data is to be read.
    ///
    /// # Panics
    /// While requests of an earlier patrol are in flight (see [`Store::is_patrolling`]).
    pub fn begin_scrub(&mut self, from: PatrolPlace) {
        self.patrol.begin(Mode::Scrub, from);
    }

    /// Starts to compare the map with the space map. The map must not change until the end, and
    /// be durable as it is. Takes memory: a bit for each extent of the device.
    ///
    /// # Panics
    /// When the map is not as the last checkpoint wrote it, or as for [`Store::begin_scrub`].
    pub fn begin_check(&mut self) {
        assert!(!self.is_checkpointing() && self.cache.dirty() == 0, "the map is durable");
        let end = self.superblock.area_end.get();
        let mut ledger = Ledger::new(end, self.meta.extents().count());
        ledger.report.generation = self.generation();
        ledger.count_nodes(self.catalog.iter());
        self.patrol.begin(Mode::Check(Box::new(ledger)), PatrolPlace::default());
    }

    /// Whether a patrol may read more; it starts with no.
    pub fn let_patrol(&mut self, may_read: bool) {
        self.patrol.may_read = may_read;
    }

    /// Ends a patrol early, or a scrub that is at its end.
    pub fn end_patrol(&mut self) {
        self.patrol.mode = Mode::Off;
        self.patrol.leaf_at = None;
    }

    /// True while reads of a patrol are in flight.
    pub fn is_patrolling(&self) -> bool {
        !self.patrol.flights.is_empty()
    }

    /// How far the patrol is.
    pub fn patrolled(&self) -> Patrolled {
        let patrol = &self.patrol;
        // What is not done yet is done again by who goes on from there.
        let leaf =
            patrol.leaf_at.map(|at| PatrolPlace { tree: at.node.owner, index: at.node.index });
        let visit = patrol.flights.iter().map(|(_, visit)| visit.from.place);
        let place = leaf.into_iter().chain(visit).fold(patrol.at.place, |a, b| a.min(b));
        Patrolled { place, ..patrol.done }
    }

    /// The next extent whose data the scrub wants to be read; the patrol goes on behind the last.
    pub fn scrub_entry(&mut self) -> Option<ScrubEntry> {
        let LeafAt { node, next } = self.patrol.leaf_at?;
        let volume = VolumeId(node.owner);
        let slot = self.catalog.slot(volume);
        let bound = slot.map(|slot| self.catalog.bound(slot, first_extent(node)));
        let entries = &self.patrol.leaf.leaf().entries;
        let own = |entry: &LeafEntry| {
            entry.extent().is_some() && bound.is_some_and(|bound| entry.birth() > bound)
        };
        let found = (next..LEAF_ENTRIES).find(|&i| own(&entries[i]));
        let Some(i) = found else {
            self.patrol.leaf_at = None;
            return None;
        };
        self.patrol.leaf_at.as_mut().expect("just seen").next = i + 1;
        let (index, entry) = (first_extent(node) + i as u64, entries[i]);
        Some(ScrubEntry { volume, index, entry })
    }

    /// What is remembered of scrubs.
    pub fn scrub_record(&self) -> ScrubRecord {
        self.scrub
    }

    /// Remembers how far the scrub is. With `soon`, that alone is worth a checkpoint.
    pub fn set_scrub_record(&mut self, record: ScrubRecord, soon: bool) {
        self.scrub = record;
        self.patrol.save_soon |= soon;
    }

    /// What a check that has come to its end found. Extents in use that nothing references are
    /// given back; they are free after the next checkpoint. The other findings stay as they are.
    ///
    /// # Panics
    /// When no check is at its end.
    pub fn finish_check(&mut self) -> CheckReport {
        assert!(self.patrol.done.ended && self.patrol.flights.is_empty());
        let Mode::Check(mut ledger) = std::mem::replace(&mut self.patrol.mode, Mode::Off) else {
            panic!("a check was begun");
        };
        let mut leaked = Vec::new();
        ledger.compare(&self.space, |extent| leaked.push(extent));
        // A leak among metadata is in the table of metadata: named, and left alone.
        leaked.retain(|extent| !self.meta.contains(*extent));
        ledger.report.freed = leaked.len() as u64;
        leaked.into_iter().for_each(|extent| self.space.release(extent));
        ledger.report
    }

    pub(crate) fn poll_patrol(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        while let Some(&(slot, copy)) = self.patrol.again.front() {
            if requests.is_full() || !self.read_copy(slot, copy, requests, pool) {
                return;
            }
            self.patrol.again.pop();
        }
        let depth = self.patrol.depth();
        if self.checkpoint.blocks_edits() || !self.patrol.may_read {
            return;
        }
        for _ in 0..PATROL_STEPS_MAX {
            let busy = self.patrol.flights.len() >= depth || self.patrol.leaf_at.is_some();
            if self.patrol.done.ended || busy || requests.room() < 2 {
                return;
            }
            let Some(bufs) = pool.take(PAGE_BYTES).zip(pool.take(PAGE_BYTES)) else { return };
            let from = self.patrol.at;
            match self.next_page() {
                Next::Page(node, ptr) => self.visit(node, ptr, from, bufs, requests),
                Next::Skipped => {}
                Next::Pending => return,
                Next::End => self.patrol.done.ended = self.patrol.flights.is_empty(),
            }
        }
    }

    fn visit(
        &mut self,
        node: NodeId,
        ptr: PagePtr,
        from: At,
        bufs: (BufMut, BufMut),
        requests: &mut Fifo<Request>,
    ) {
        if let Mode::Check(ledger) = &mut self.patrol.mode
            && node.owner != 0
            && !ledger.page(&ptr)
        {
            return; // Referenced twice: noted.
        }
        let reading = Seen::Reading { attempts: 0 };
        let second = if ptr.twin().is_some() { reading } else { Seen::Absent };
        let checkpoints = self.checkpoints;
        let copies = [reading, second];
        let visit = Visit { node, ptr, from, checkpoints, copies, taken: false };
        let slot = self.patrol.flights.insert(visit).expect("room was checked");
        self.submit_copy(slot, Copy::First, bufs.0, requests);
        if second == reading {
            self.submit_copy(slot, Copy::Second, bufs.1, requests);
        }
    }

    fn read_copy(
        &mut self,
        slot: u32,
        copy: Copy,
        requests: &mut Fifo<Request>,
        pool: &dyn Buffers,
    ) -> bool {
        let Some(buf) = pool.take(PAGE_BYTES) else { return false };
        self.submit_copy(slot, copy, buf, requests);
        true
    }

    fn submit_copy(&mut self, slot: u32, copy: Copy, buf: BufMut, requests: &mut Fifo<Request>) {
        let ptr = self.patrol.flights.get(slot).expect("the caller holds it").ptr;
        let page = copy.page(&ptr).expect("the caller asks for copies that are there");
        let key = KEY_PATROL | slot << 1 | u32::from(copy == Copy::Second);
        assert!(requests.push(self.geometry.read(key, page, 1, buf)).is_ok(), "room was checked");
        self.patrol.done.bytes += PAGE_BYTES as u64;
    }

    pub(crate) fn on_patrol(&mut self, key: u32, completion: Completion) {
        let key = key - KEY_PATROL;
        let (slot, second) = (key >> 1, key & 1 == 1);
        let copy = if second { Copy::Second } else { Copy::First };
        let visit = *self.patrol.flights.get(slot).expect("completions name a visit");
        let seen = match completion.data {
            Data::Into(buf) if completion.status.is_ok() => {
                let page = Page::from_bytes(&buf.bytes()[..PAGE_BYTES]);
                let seen = self.judge_copy(&visit, copy, page);
                if seen.is_ok() && !visit.taken {
                    self.take_leaf(&visit, page);
                    self.patrol.flights.get_mut(slot).expect("just seen").taken = true;
                }
                seen
            }
            _ => Err(PageFault::Unreadable),
        };
        let Seen::Reading { attempts } = visit.copies[usize::from(second)] else {
            panic!("each copy is read once at a time");
        };
        let again = seen.is_err() && attempts + 1 < LOAD_ATTEMPTS_MAX;
        let visit = self.patrol.flights.get_mut(slot).expect("just seen");
        visit.copies[usize::from(second)] = match seen {
            Ok(()) => Seen::Whole,
            Err(_) if again => Seen::Reading { attempts: attempts + 1 },
            Err(fault) => Seen::Bad(fault),
        };
        if again {
            assert!(self.patrol.again.push((slot, copy)).is_ok(), "a place for each copy");
        } else if !visit.copies.iter().any(|seen| matches!(seen, Seen::Reading { .. })) {
            let visit = self.patrol.flights.remove(slot).expect("just seen");
            self.end_visit(&visit);
        }
    }

    fn judge_copy(&self, visit: &Visit, copy: Copy, page: &Page) -> Result<(), PageFault> {
        if visit.node.owner == 0 {
            let slot = u32::from(copy == Copy::Second);
            return match Superblock::parse(&page.0, slot) {
                Ok(found) if found.generation == self.superblock.generation => Ok(()),
                Ok(_) => Err(PageFault::Stale),
                Err(fault) => Err(fault.into()),
            };
        }
        let header = self.catalog.header_node(visit.node);
        check_page(page, header, &visit.ptr, &self.superblock.uuid, &self.space).map(|_| ())
    }

    /// What a whole leaf says is scrubbed, or added up.
    fn take_leaf(&mut self, visit: &Visit, page: &Page) {
        let node = visit.node;
        if node.owner == 0 || node.kind() != Kind::Leaf {
            return;
        }
        let Some(slot) = self.catalog.slot(VolumeId(node.owner)) else { return };
        let bound = self.catalog.bound(slot, first_extent(node));
        match &mut self.patrol.mode {
            Mode::Off => {}
            Mode::Scrub => {
                self.patrol.leaf.0.copy_from_slice(&page.0);
                self.patrol.leaf_at = Some(LeafAt { node, next: 0 });
            }
            Mode::Check(ledger) => {
                for entry in page.leaf().entries.iter().filter(|entry| entry.birth() > bound) {
                    if let Some(extent) = entry.extent() {
                        ledger.extent(node.owner, extent);
                    }
                }
            }
        }
    }

    /// Both copies were looked at.
    fn end_visit(&mut self, visit: &Visit) {
        if matches!(self.patrol.mode, Mode::Off) || self.is_gone(visit.node) {
            return;
        }
        let bad = |copy: Copy| match visit.copies[usize::from(copy == Copy::Second)] {
            Seen::Bad(fault) => Some((copy, fault)),
            _ => None,
        };
        let (first, second) = (bad(Copy::First), bad(Copy::Second));
        let Some((copy, fault)) = first.or(second) else { return };
        if self.checkpoints != visit.checkpoints || self.checkpoint.blocks_edits() {
            // It may be somebody else's page by now: look again.
            self.patrol.at = visit.from;
            self.patrol.leaf_at = None;
            return;
        }
        let lost = !visit.taken && visit.node.owner != 0;
        self.patrol.bad(visit, fault, copy, lost);
        if visit.node.owner == 0 {
            self.patrol.mend_superblock = true;
            self.damaged += 1;
            let page = copy.page(&visit.ptr).expect("it was read");
            self.report(damage_of(visit.node, page, fault, true));
        } else if lost {
            self.lost(visit.node, &visit.ptr, fault);
        } else {
            self.mend(visit.node, visit.ptr, copy, fault);
        }
    }

    /// True when the node of a tree was forgotten while its page was read: what was its own is
    /// free, and what family the page should name is not known any more.
    fn is_gone(&self, node: NodeId) -> bool {
        let in_tree = (1..OWNER_SPACE).contains(&node.owner);
        in_tree && self.catalog.slot(VolumeId(node.owner)).is_none()
    }

    /// The next page to look at; the position moves on.
    fn next_page(&mut self) -> Next {
        let at = self.patrol.at;
        match at.place.tree {
            0 => {
                self.patrol.at = At::tree(1);
                let copies = PagePtr { page: Place::new(0, 1).raw().into(), ..PagePtr::NONE };
                Next::Page(NodeId { owner: 0, level: 0, index: 0 }, copies)
            }
            OWNER_SPACE => match next_flat(&self.space_tree, at.place.index) {
                Some((next, node, ptr)) => {
                    self.patrol.at = at.leaf(next);
                    Next::Page(node, ptr)
                }
                None => self.skip_to(At::tree(OWNER_CATALOG)),
            },
            OWNER_CATALOG => match next_flat(&self.catalog_tree, at.place.index) {
                Some((next, node, ptr)) => {
                    self.patrol.at = at.leaf(next);
                    Next::Page(node, ptr)
                }
                None => Next::End,
            },
            id => match self.catalog.slot(VolumeId(id)) {
                Some(slot) => self.next_in_tree(slot, at),
                None => {
                    let ids = self.catalog.iter().map(|record| record.id.get());
                    let next = ids.filter(|&next| next > id).min();
                    self.skip_to(At::tree(next.unwrap_or(OWNER_SPACE)))
                }
            },
        }
    }

    fn skip_to(&mut self, at: At) -> Next {
        self.patrol.at = at;
        Next::Skipped
    }

    /// The next page of a node's tree, from the root down to the leaf of the position.
    fn next_in_tree(&mut self, slot: usize, at: At) -> Next {
        let record = self.catalog.record(slot);
        let (owner, depth, mut ptr) = (record.id.get(), record.depth, record.root);
        if at.place.index >= capacity(depth) {
            return self.skip_to(At::tree(owner + 1));
        }
        let leaf = NodeId { owner, level: 0, index: at.place.index };
        let mut above = None;
        for level in (0..=depth).rev() {
            let node = leaf.ancestor(level);
            let behind = at.leaf((node.index + 1) * capacity(level));
            let cached = self.cache.find(node);
            // A page that was never written, or is being copied, is not on the device.
            // A frame that is not dirty may be left from before its page was handed over.
            let dirty = self.dirty_frame(node);
            let durable = dirty.map_or(ptr, |frame| self.cache.frame(frame).ptr);
            if dirty.is_none() && (ptr.is_none() || ptr == PagePtr::NEW) {
                let Some(frame) = above else { return self.skip_to(behind) };
                let next = self.next_present(frame, node) / LEAF_ENTRIES as u64;
                return self.skip_to(at.leaf(next));
            }
            if !durable.is_none() {
                if !self.owns(slot, node, durable.birth.get()) {
                    return self.skip_to(behind); // An ancestor's: it is looked at there.
                }
                let first = node.index * capacity(level) == leaf.index;
                if first && level <= at.level {
                    self.patrol.at = match level.checked_sub(1) {
                        Some(level) => At { level, ..at },
                        None => behind,
                    };
                    return Next::Page(node, durable);
                }
            }
            if level == 0 {
                return self.skip_to(behind);
            }
            let Some(frame) = cached else {
                self.start_load(node, ptr);
                return Next::Pending;
            };
            match self.judge(frame) {
                Walk::At(_) => {}
                Walk::Damaged(_) => return self.skip_to(behind),
                Walk::Pending | Walk::Absent(_) => return Next::Pending,
            }
            ptr = self.cache.page(frame).inner().children[leaf.ancestor(level - 1).child_slot()];
            above = Some(frame);
        }
        panic!("level 0 ends the walk");
    }
}

/// The first page of a flat tree from place `index` on, counting all levels, and the place
/// behind it.
fn next_flat(tree: &FlatTree, index: u64) -> Option<(u64, NodeId, PagePtr)> {
    let mut at = 0;
    for level in 0..tree.levels() {
        let len = tree.len(level);
        for i in 0..len {
            let ptr = tree.ptr(level, i);
            if at >= index && !ptr.is_none() {
                return Some((at + 1, tree.node(level, i), ptr));
            }
            at += 1;
        }
    }
    None
}

const _: () = assert!(EXTENT_BLOCKS == 16, "the superblocks are one extent apart");
