//! From a device to a mounted store.
//!
//! ```text
//!   Supers --> Flat (catalog, space map) --> Volumes (inner pages) --> Epoch --> Mounted
//! ```
//!
//! Inner pages of the volumes and snapshots are walked to learn which pages are in use, each page
//! once: a walk ends where an ancestor's pages begin. Leaves are not read. Then
//! the superblock pair is written with the next epoch, which also heals a damaged copy.

use bdev::{Buffers, Completion, Data, Fifo, Info, Request, Slots, Status};

use crate::format::{
    INCOMPAT_KNOWN, Kind, NodeId, Page, PageFault, PagePtr, RO_COMPAT_KNOWN, SlotFault, Superblock,
    VERSION,
};
use crate::io::{Geometry, KEY_SUPER, SuperStep, SuperWriter, key_of, slot_page};
use crate::ledger::damage_of;
use crate::limits::{
    DEVICE_EXTENTS_MAX, EXTENT_BYTES, LOAD_ATTEMPTS_MAX, LOADS_MAX, LOG_COUNT_MAX, PAGE_BYTES,
};
use crate::loads::{check_page, copy_to_read, is_inside};
use crate::repair::Copy;
use crate::{Damage, Extent, ExtentState, LogTail, MountError, Options, Store, VolumeId};

/// A store that was just mounted; its epoch is already durable.
pub struct Mounted {
    /// The store.
    pub store: Store,
    /// Where to start replaying the log.
    pub tail: LogTail,
    /// The copy of the superblock that was damaged and has been rewritten. A power cut may have
    /// torn it: that is nothing to worry about.
    pub healed_superblock: Option<Damage>,
}

/// The machine that mounts a store.
pub struct Mount {
    device_bytes: u64,
    geometry: Geometry,
    options: Options,
    phase: Phase,
    supers: [Option<Result<Superblock, SlotFault>>; 2],
    /// Copies that are still to be asked for, and how often each was.
    supers_due: [bool; 2],
    supers_asked: [u8; 2],
    store: Option<Store>,
    walk: Walk,
    pair: SuperWriter,
    healed: Option<Damage>,
    result: Option<Result<Mounted, MountError>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Supers,
    Flat,
    Volumes,
    Epoch,
    Ended,
}

/// Pages that are still to be read, and those that are being read.
struct Walk {
    todo: Vec<Visit>,
    flights: Slots<Visit>,
}

/// A page that the walk reads.
#[derive(Clone, Copy, Debug)]
struct Visit {
    node: NodeId,
    ptr: PagePtr,
    /// Reads that failed so far, of either copy.
    attempts: u8,
    /// What is wrong with the first copy.
    fault: Option<PageFault>,
}

impl Mount {
    /// Starts to mount the store on a device.
    pub fn new(info: &Info, options: &Options) -> Mount {
        let geometry = Geometry::new(info);
        Mount {
            device_bytes: info.byte_len(),
            geometry,
            options: options.clone(),
            phase: Phase::Supers,
            supers: [None, None],
            supers_due: [true; 2],
            supers_asked: [0; 2],
            store: None,
            walk: Walk { todo: Vec::new(), flights: Slots::new(LOADS_MAX) },
            pair: SuperWriter::new(geometry),
            healed: None,
            result: None,
        }
    }

    /// Appends the requests that are due, while there is room and the pool has buffers.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        match self.phase {
            Phase::Supers => self.read_supers(requests, pool),
            Phase::Flat | Phase::Volumes => self.read_pages(requests, pool),
            Phase::Epoch => {
                let store = self.store.as_mut().expect("made before the walk");
                self.pair.poll_requests(&mut store.superblock, requests, pool);
            }
            Phase::Ended => {}
        }
    }

    /// Takes the end of one of this machine's requests.
    pub fn on_completion(&mut self, completion: Completion) {
        let key = key_of(completion.tag);
        let outcome = match self.phase {
            Phase::Supers => self.on_super(key, completion.status, &completion.data),
            Phase::Flat | Phase::Volumes => {
                self.on_page(key, completion.status, &completion.data).and_then(|()| self.advance())
            }
            Phase::Epoch => self.on_epoch(completion.status),
            Phase::Ended => Ok(()), // Reads that were in flight when it failed.
        };
        if let Err(error) = outcome {
            self.phase = Phase::Ended;
            self.result = Some(Err(error));
        }
    }

    /// How it ended, once.
    pub fn take_result(&mut self) -> Option<Result<Mounted, MountError>> {
        self.result.take()
    }

    fn read_supers(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        for slot in 0..2 {
            let at = slot as usize;
            if !self.supers_due[at] || requests.is_full() {
                continue;
            }
            if (slot_page(slot) + 1) * PAGE_BYTES as u64 > self.device_bytes {
                let needed = 2 * EXTENT_BYTES;
                let error = MountError::DeviceSize { found: self.device_bytes, needed };
                (self.phase, self.result) = (Phase::Ended, Some(Err(error)));
                return;
            }
            let Some(buf) = pool.take(PAGE_BYTES) else { return };
            let request = self.geometry.read(KEY_SUPER | slot, slot_page(slot), 1, buf);
            assert!(requests.push(request).is_ok(), "room was checked");
            self.supers_due[at] = false;
            self.supers_asked[at] += 1;
        }
    }

    fn on_super(&mut self, key: u32, status: Status, data: &Data) -> Result<(), MountError> {
        let slot = key & 1;
        let found = match data {
            Data::Into(buf) if status.is_ok() => Superblock::parse(buf.bytes(), slot),
            _ => Err(SlotFault::Unreadable),
        };
        let at = slot as usize;
        if found == Err(SlotFault::Unreadable) && self.supers_asked[at] < LOAD_ATTEMPTS_MAX {
            self.supers_due[at] = true;
            return Ok(());
        }
        self.supers[at] = Some(found);
        let [Some(a), Some(b)] = &self.supers else { return Ok(()) };
        let (newest, slot) = match (a, b) {
            (Err(SlotFault::Magic), Err(SlotFault::Magic)) => return Err(MountError::NoStore),
            (Err(a), Err(b)) => return Err(MountError::Superblocks { faults: [*a, *b] }),
            (Ok(a), Err(_)) => (a, 0),
            (Err(_), Ok(b)) => (b, 1),
            (Ok(a), Ok(b)) if bdev::planted(bdev::Planted::OlderSuperblock) => {
                if a.generation.get() < b.generation.get() { (a, 0) } else { (b, 1) }
            }
            (Ok(a), Ok(b)) if a.generation.get() >= b.generation.get() => (a, 0),
            (Ok(_), Ok(b)) => (b, 1),
        };
        let superblock = NodeId { owner: 0, level: 0, index: 0 };
        self.healed = [(0, a), (1, b)].into_iter().find_map(|(slot, copy)| {
            let fault = copy.as_ref().err()?;
            Some(damage_of(superblock, slot_page(slot), (*fault).into(), true))
        });
        check_superblock(newest, self.device_bytes)?;
        let mut store = Store::empty(newest.clone(), self.geometry, &self.options);
        store.next_slot = slot ^ 1;
        let roots = [
            (store.catalog_tree.root_node(), newest.catalog),
            (store.space_tree.root_node(), newest.space),
        ];
        for (node, ptr) in roots {
            let top = usize::from(node.level);
            let tree = if node.owner == store.catalog_tree.root_node().owner {
                &mut store.catalog_tree
            } else {
                &mut store.space_tree
            };
            tree.load(top, 0, ptr);
        }
        self.store = Some(store);
        self.phase = Phase::Flat;
        for (node, ptr) in roots {
            self.want(node, ptr)?;
        }
        self.advance()
    }

    /// Notes a page that the trees reference, and reads it unless it is a volume's leaf.
    fn want(&mut self, node: NodeId, ptr: PagePtr) -> Result<(), MountError> {
        if ptr.is_none() {
            return Ok(());
        }
        let page = ptr.number();
        let store = self.store.as_mut().expect("made before the walk");
        let slot = store.catalog.slot(VolumeId(node.owner));
        if slot.is_some_and(|slot| !store.owns(slot, node, ptr.birth.get())) {
            return Ok(()); // An ancestor's: it is noted there.
        }
        if !is_inside(&ptr, &store.space) {
            return Err(damaged(node, page, PageFault::Contents));
        }
        if !store.meta.mark(ptr.place()) {
            return Err(MountError::Inconsistent { what: "page referenced twice", at: page });
        }
        if node.kind() != Kind::Leaf {
            self.walk.todo.push(Visit { node, ptr, attempts: 0, fault: None });
        }
        Ok(())
    }

    fn read_pages(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        while !requests.is_full() && !self.walk.flights.is_full() {
            let Some(visit) = self.walk.todo.last() else { return };
            let (_, page) = copy_to_read(&visit.ptr, visit.attempts).expect("once more");
            let Some(buf) = pool.take(PAGE_BYTES) else { return };
            let visit = self.walk.todo.pop().expect("just seen");
            let key = self.walk.flights.insert(visit).expect("room was checked");
            let request = self.geometry.read(key, page, 1, buf);
            assert!(requests.push(request).is_ok(), "room was checked");
        }
    }

    fn on_page(&mut self, key: u32, status: Status, data: &Data) -> Result<(), MountError> {
        let mut visit = self.walk.flights.remove(key).expect("completions name a read");
        let Visit { node, ptr, .. } = visit;
        let fault = |fault| damaged(node, ptr.number(), fault);
        let store = self.store.as_mut().expect("made before the walk");
        let checked = match data {
            Data::Into(buf) if status.is_ok() => {
                let page = Page::from_bytes(&buf.bytes()[..PAGE_BYTES]);
                let header = store.catalog.header_node(node);
                check_page(page, header, &ptr, &store.superblock.uuid, &store.space).map(|_| page)
            }
            _ => Err(PageFault::Unreadable),
        };
        let page = match checked {
            Ok(page) => page,
            Err(found) => {
                let first = *visit.fault.get_or_insert(found);
                visit.attempts += 1;
                if copy_to_read(&ptr, visit.attempts).is_none() {
                    return Err(fault(first));
                }
                self.walk.todo.push(visit); // One bad transfer is not rot.
                return Ok(());
            }
        };
        let copy = copy_to_read(&ptr, visit.attempts).expect("one of them was read");
        if let ((Copy::Second, _), Some(first)) = (copy, visit.fault) {
            store.mend(node, ptr, Copy::First, first);
        }
        let index = usize::try_from(node.index).map_err(|_| fault(PageFault::Contents))?;
        let sane = match node.kind() {
            Kind::Catalog => store.catalog.read_page(index, page.catalog()),
            Kind::Space => store.space.read_page(index, &page.bits().words),
            Kind::Inner => return self.on_inner(node, page),
            Kind::Leaf => panic!("the walk does not read leaves"),
        };
        if sane { Ok(()) } else { Err(fault(PageFault::Contents)) }
    }

    fn on_inner(&mut self, node: NodeId, page: &Page) -> Result<(), MountError> {
        for (slot, &ptr) in page.inner().children.iter().enumerate() {
            let child = node.child(slot);
            let store = self.store.as_mut().expect("made before the walk");
            let level = usize::from(child.level);
            let fits = |index: u64| usize::try_from(index).ok();
            let known = match (child.owner, fits(child.index)) {
                (crate::format::OWNER_CATALOG, Some(at)) => store.catalog_tree.load(level, at, ptr),
                (crate::format::OWNER_SPACE, Some(at)) => store.space_tree.load(level, at, ptr),
                _ => true,
            };
            if !known {
                return Err(damaged(child, ptr.number(), PageFault::Contents));
            }
            self.want(child, ptr)?;
        }
        Ok(())
    }

    /// Goes on to the next phase when this one has nothing left to read.
    fn advance(&mut self) -> Result<(), MountError> {
        while self.walk.todo.is_empty() && self.walk.flights.is_empty() {
            match self.phase {
                Phase::Flat => {
                    self.phase = Phase::Volumes;
                    let store = self.store.as_ref().expect("made before the walk");
                    if let Err((what, id)) = store.catalog.check_forest() {
                        return Err(MountError::Inconsistent { what, at: u64::from(id) });
                    }
                    let roots: Vec<_> = store
                        .catalog
                        .iter()
                        .map(|record| {
                            let owner = record.id.get();
                            (NodeId { owner, level: record.depth, index: 0 }, record.root)
                        })
                        .collect();
                    for (node, ptr) in roots {
                        self.want(node, ptr)?;
                    }
                }
                Phase::Volumes => return self.begin_epoch(),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn begin_epoch(&mut self) -> Result<(), MountError> {
        let store = self.store.as_mut().expect("made before the walk");
        for number in store.meta.extents() {
            let extent = Extent::from_raw(number).expect("marked pages lie in the area");
            if store.space.state(extent) != ExtentState::Mapped {
                let what = "metadata in an extent that the space map calls free";
                return Err(MountError::Inconsistent { what, at: number });
            }
        }
        let superblock = &mut store.superblock;
        superblock.generation.set(superblock.generation.get() + 1);
        superblock.epoch.set(superblock.epoch.get() + 1);
        self.pair.start(store.next_slot);
        store.next_slot ^= 1;
        self.phase = Phase::Epoch;
        Ok(())
    }

    fn on_epoch(&mut self, status: Status) -> Result<(), MountError> {
        self.pair.on_completion(status);
        match self.pair.step() {
            SuperStep::Done => {
                self.phase = Phase::Ended;
                let store = self.store.take().expect("made before the walk");
                let tail = store.log_tail();
                let healed_superblock = self.healed.take();
                self.result = Some(Ok(Mounted { store, tail, healed_superblock }));
                Ok(())
            }
            SuperStep::Failed(status) => {
                Err(MountError::Device { what: "writing the superblock", status })
            }
            _ => Ok(()),
        }
    }
}

fn damaged(node: NodeId, page: u64, fault: PageFault) -> MountError {
    MountError::Page(Damage { page, node: node.to_string(), fault, healed: false })
}

/// Checks that this code may use the store, and that the layout is possible.
pub(crate) fn check_superblock(s: &Superblock, device_bytes: u64) -> Result<(), MountError> {
    if s.version.get() != VERSION {
        return Err(MountError::Version { found: s.version.get() });
    }
    let unknown = s.incompat.get() & !INCOMPAT_KNOWN;
    if unknown != 0 {
        return Err(MountError::Incompatible { bits: unknown });
    }
    let unknown = s.ro_compat.get() & !RO_COMPAT_KNOWN;
    if unknown != 0 {
        return Err(MountError::ReadOnly { bits: unknown });
    }
    let impossible = |what| Err(MountError::Geometry { what });
    if s.block_bytes.get() as usize != PAGE_BYTES {
        return impossible("block size");
    }
    if u64::from(s.extent_bytes.get()) != EXTENT_BYTES {
        return impossible("extent size");
    }
    let (first, end) = (s.area_first.get(), s.area_end.get());
    if first >= end || end > DEVICE_EXTENTS_MAX || end * EXTENT_BYTES > s.device_bytes.get() {
        return impossible("area of extents");
    }
    let (log, bytes) = (s.log_start.get(), s.log_bytes.get());
    let aligned = log.is_multiple_of(EXTENT_BYTES) && bytes.is_multiple_of(EXTENT_BYTES);
    let log_end = log.checked_add(bytes);
    let fits = log_end.is_some_and(|log_end| log_end <= first * EXTENT_BYTES);
    if !aligned || log < 2 * EXTENT_BYTES || bytes == 0 || !fits {
        return impossible("log region");
    }
    if s.next_volume.get() == 0 {
        return impossible("next volume id");
    }
    // Records are numbered from one on, and neither count comes near its end.
    let (lsn, position) = (s.tail_lsn.get(), s.tail_position.get());
    if lsn == 0 || lsn.max(position) > LOG_COUNT_MAX {
        return impossible("tail of the log");
    }
    if s.device_bytes.get() > device_bytes {
        let needed = s.device_bytes.get();
        return Err(MountError::DeviceSize { found: device_bytes, needed });
    }
    Ok(())
}
