//! The nodes of a store, in memory: a fixed table of records.
//!
//! How nodes hang together, and what may be done to them, is in `forest.rs`.

use bdev::Fifo;

use crate::forest::Staged;
use crate::format::catalog::{STATE_ACTIVE, STATE_DELETING, STATE_UNUSED};
use crate::format::{CatalogPage, NodeId, NodeKind, RECORDS_PER_PAGE, VolumeRecord};
use crate::limits::{
    DEPTH_MAX, NAME_BYTES_MAX, NODES_MAX, PAGE_BYTES, STAGED_MAX, VOLUME_BYTES_MAX, VOLUMES_MAX,
};
use crate::table::Table;
use crate::{NodeSpec, VolumeError, VolumeId, VolumeSpec};

/// Pages that hold the records of [`NODES_MAX`] nodes.
pub(crate) const CATALOG_PAGES: usize = NODES_MAX.div_ceil(RECORDS_PER_PAGE);

/// Every node's record. The place of a record never changes while the node exists.
pub(crate) struct Catalog {
    pub(crate) records: Vec<VolumeRecord>,
    slots: Table,
    pub(crate) next_id: u32,
    used: usize,
    /// Those among them that are no volumes. Without any, nothing is shared.
    snapshots: usize,
    deleting: u32,
    /// Places above were never used since the mount.
    top: usize,
    dirty: [bool; CATALOG_PAGES],
    /// Grows when a node comes or goes, or gets another parent.
    shape: u64,
    /// What takes effect inside the next checkpoint, in order.
    pub(crate) staged: Fifo<Staged>,
    /// How many of these the running checkpoint includes.
    pub(crate) staged_begun: usize,
    /// The records and the next id as the running checkpoint writes them: one moment's.
    frozen: Vec<VolumeRecord>,
    frozen_next_id: u32,
}

impl Catalog {
    pub(crate) fn new(next_id: u32) -> Catalog {
        Catalog {
            records: vec![VolumeRecord::unused(); CATALOG_PAGES * RECORDS_PER_PAGE],
            slots: Table::new(NODES_MAX),
            next_id,
            used: 0,
            snapshots: 0,
            deleting: 0,
            top: 0,
            dirty: [false; CATALOG_PAGES],
            shape: 0,
            staged: Fifo::new(STAGED_MAX),
            staged_begun: 0,
            frozen: vec![VolumeRecord::unused(); CATALOG_PAGES * RECORDS_PER_PAGE],
            frozen_next_id: next_id,
        }
    }

    /// Copies the dirty pages for the checkpoint, so that nodes may come and go meanwhile: a
    /// node whose id is below the stored next id, but which is not stored, counts as deleted.
    pub(crate) fn freeze(&mut self) {
        for page in (0..CATALOG_PAGES).filter(|&page| self.dirty[page]) {
            let range = page * RECORDS_PER_PAGE..(page + 1) * RECORDS_PER_PAGE;
            self.frozen[range.clone()].copy_from_slice(&self.records[range]);
        }
        self.frozen_next_id = self.next_id;
    }

    pub(crate) fn frozen_next_id(&self) -> u32 {
        self.frozen_next_id
    }

    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// True when some node may share pages with another: there are snapshots, or will be.
    pub(crate) fn is_sharing(&self) -> bool {
        self.snapshots > 0 || !self.staged.is_empty()
    }

    pub(crate) fn shape(&self) -> u64 {
        self.shape
    }

    /// Every node, those being deleted included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.records.iter().filter(|record| record.state != STATE_UNUSED)
    }

    /// The same, with their places.
    pub(crate) fn iter_slots(&self) -> impl Iterator<Item = (usize, &VolumeRecord)> {
        self.records.iter().enumerate().filter(|(_, record)| record.state != STATE_UNUSED)
    }

    /// Most pages that the next checkpoint writes: those that had a record since the mount, and one
    /// for new ones.
    pub(crate) fn pages_most(&self) -> usize {
        (self.top.div_ceil(RECORDS_PER_PAGE) + 1).min(CATALOG_PAGES)
    }

    pub(crate) fn find(&self, id: VolumeId) -> Option<&VolumeRecord> {
        let slot = self.slot(id)?;
        Some(&self.records[slot])
    }

    pub(crate) fn slot(&self, id: VolumeId) -> Option<usize> {
        if id.0 == 0 {
            return None;
        }
        self.slots.get(u64::from(id.0)).map(|slot| slot as usize)
    }

    pub(crate) fn record(&self, slot: usize) -> &VolumeRecord {
        &self.records[slot]
    }

    /// The record in `slot`, to be changed: its page is written by the next checkpoint.
    pub(crate) fn change(&mut self, slot: usize) -> &mut VolumeRecord {
        self.dirty[slot / RECORDS_PER_PAGE] = true;
        &mut self.records[slot]
    }

    /// The same page, with the owner that its header names: the family.
    pub(crate) fn header_node(&self, node: NodeId) -> NodeId {
        let family = self.find(VolumeId(node.owner)).map(|record| record.family.get());
        NodeId { owner: family.unwrap_or(node.owner), ..node }
    }

    /// Gives a node another parent.
    pub(crate) fn adopt(&mut self, slot: usize, parent: u32) {
        self.change(slot).parent.set(parent);
        self.shape += 1;
    }

    /// Enters a volume. `Ok(())` without effect when it exists, or existed.
    pub(crate) fn create(&mut self, spec: &VolumeSpec<'_>) -> Result<(), VolumeError> {
        if spec.block_bytes != 512 && spec.block_bytes != 4096 {
            return Err(VolumeError::BlockSize);
        }
        check_size(spec.size)?;
        let node = NodeSpec { id: spec.id, uuid: spec.uuid, name: spec.name };
        if !self.admits(&node, None)? {
            return Ok(());
        }
        let mut record = named(&node, NodeKind::Volume);
        record.lba_shift = if spec.block_bytes == 512 { 9 } else { 12 };
        record.size.set(spec.size);
        record.birth.set(spec.id.0);
        record.family.set(spec.id.0);
        self.enter(record);
        Ok(())
    }

    /// Whether there is a place for a new node: a snapshot of `of`, or a volume. False when it
    /// exists, or existed: then nothing is to be done.
    pub(crate) fn admits(
        &self,
        spec: &NodeSpec<'_>,
        of: Option<VolumeId>,
    ) -> Result<bool, VolumeError> {
        if spec.id.0 == 0 {
            return Err(VolumeError::Id);
        }
        if self.find(spec.id).is_some_and(|record| record.uuid == spec.uuid) {
            return Ok(false);
        }
        if spec.name.is_empty() || spec.name.len() > NAME_BYTES_MAX {
            return Err(VolumeError::Name);
        }
        if spec.id.0 < self.next_id {
            // Replay of a creation whose node has been deleted since.
            let active = self.find(spec.id).is_some_and(VolumeRecord::is_active);
            return if active { Err(VolumeError::Id) } else { Ok(false) };
        }
        if spec.id.0 >= ID_END {
            return Err(VolumeError::Id);
        }
        let same_name = |r: &VolumeRecord| {
            let kind = if of.is_some() { NodeKind::Snapshot } else { NodeKind::Volume };
            r.is_active() && r.kind() == kind && r.name_str() == spec.name
        };
        let taken = |r: &VolumeRecord| {
            let lives = r.is_active() || r.kind() == NodeKind::Volume;
            let namesake = same_name(r) && of.is_none_or(|of| r.origin() == Some(of));
            lives && r.uuid == spec.uuid || namesake
        };
        if self.iter().any(taken) || self.staged.iter().any(|staged| staged.takes(spec, of)) {
            return Err(VolumeError::Exists);
        }
        let volumes = || self.iter().filter(|r| r.kind() == NodeKind::Volume).count();
        if !self.has_place() || (of.is_none() && volumes() >= VOLUMES_MAX) {
            return Err(VolumeError::TooMany);
        }
        Ok(true)
    }

    /// True when one more node can be entered after those that are staged.
    pub(crate) fn has_place(&self) -> bool {
        self.used + self.staged.len() < NODES_MAX
    }

    /// Enters a record with a fresh id into a free place.
    pub(crate) fn enter(&mut self, record: VolumeRecord) -> usize {
        let unused = |record: &VolumeRecord| record.state == STATE_UNUSED;
        let slot = self.records[..NODES_MAX].iter().position(unused);
        let slot = slot.expect("room was checked");
        *self.change(slot) = record;
        let id = record.id.get();
        self.slots.insert(u64::from(id), u32::try_from(slot).expect("below NODES_MAX"));
        self.next_id = self.next_id.max(id + 1);
        self.used += 1;
        self.top = self.top.max(slot + 1);
        self.snapshots += usize::from(record.kind() != NodeKind::Volume);
        self.deleting += u32::from(record.state == STATE_DELETING);
        self.shape += 1;
        slot
    }

    /// Marks a node as being deleted.
    pub(crate) fn delete(&mut self, id: VolumeId) {
        let Some(slot) = self.slot(id) else { return };
        if self.records[slot].state == STATE_ACTIVE {
            self.change(slot).state = STATE_DELETING;
            self.deleting += 1;
            self.shape += 1;
        }
    }

    /// How many nodes are being deleted.
    pub(crate) fn deleting(&self) -> u32 {
        self.deleting
    }

    /// Removes the record of a node whose space has been given back.
    pub(crate) fn forget(&mut self, id: VolumeId) {
        let slot = self.slot(id).expect("only nodes being deleted are forgotten");
        assert_eq!(self.records[slot].state, STATE_DELETING);
        assert!(self.records[slot].root.is_none(), "its space was given back");
        self.snapshots -= usize::from(self.records[slot].kind() != NodeKind::Volume);
        *self.change(slot) = VolumeRecord::unused();
        self.slots.remove(u64::from(id.0));
        self.used -= 1;
        self.deleting -= 1;
        self.shape += 1;
    }

    pub(crate) fn resize(&mut self, id: VolumeId, size: u64) -> Result<(), VolumeError> {
        check_size(size)?;
        let slot = self.slot(id).ok_or(VolumeError::Unknown)?;
        let record = &self.records[slot];
        if !record.is_active() || record.kind() != NodeKind::Volume {
            return Err(VolumeError::Unknown);
        }
        self.change(slot).size.set(size);
        Ok(())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.contains(&true) || !self.staged.is_empty()
    }

    /// True when the page must be written; it counts as written from now on.
    pub(crate) fn take_dirty(&mut self, page: usize) -> bool {
        std::mem::take(&mut self.dirty[page])
    }

    pub(crate) fn write_page(&self, page: usize, into: &mut CatalogPage) {
        let from = page * RECORDS_PER_PAGE;
        into.records.copy_from_slice(&self.frozen[from..from + RECORDS_PER_PAGE]);
    }

    /// Takes the records of one page at mount. False when they cannot be.
    pub(crate) fn read_page(&mut self, page: usize, from: &CatalogPage) -> bool {
        for (i, record) in from.records.iter().enumerate() {
            if record.state == STATE_UNUSED {
                continue;
            }
            let slot = page * RECORDS_PER_PAGE + i;
            let id = record.volume_id();
            let fresh = id.0 != 0 && self.slot(id).is_none();
            let known = id.0 < self.next_id.min(ID_END);
            if slot >= NODES_MAX || !fresh || !known || !is_sane(record) {
                return false;
            }
            self.used += 1;
            self.top = slot + 1;
            self.snapshots += usize::from(record.kind() != NodeKind::Volume);
            self.deleting += u32::from(record.state == STATE_DELETING);
            self.records[slot] = *record;
            self.slots.insert(u64::from(id.0), u32::try_from(slot).expect("below NODES_MAX"));
        }
        true
    }
}

/// Ids from here on name the trees of the store itself.
pub(crate) const ID_END: u32 = 0xffff_ff00;

/// An active record with id, UUID and name, and nothing else.
pub(crate) fn named(spec: &NodeSpec<'_>, kind: NodeKind) -> VolumeRecord {
    let mut record = VolumeRecord::unused();
    record.id.set(spec.id.0);
    record.state = STATE_ACTIVE;
    record.kind = kind.raw();
    record.uuid = spec.uuid;
    record.name_len = u8::try_from(spec.name.len()).expect("checked to be at most 64");
    record.name[..spec.name.len()].copy_from_slice(spec.name.as_bytes());
    record
}

fn check_size(size: u64) -> Result<(), VolumeError> {
    if size == 0 || size > VOLUME_BYTES_MAX || !size.is_multiple_of(PAGE_BYTES as u64) {
        return Err(VolumeError::Size);
    }
    Ok(())
}

fn is_sane(record: &VolumeRecord) -> bool {
    let name_len = usize::from(record.name_len);
    let Some(kind) = NodeKind::from_raw(record.kind) else { return false };
    let remains = kind == NodeKind::Remains;
    let deleting = record.state == STATE_DELETING;
    (deleting || (record.state == STATE_ACTIVE && !remains && record.cut.get() == 0))
        && record.depth <= DEPTH_MAX
        && matches!(record.lba_shift, 9 | 12)
        && (usize::from(!remains)..=NAME_BYTES_MAX).contains(&name_len)
        && std::str::from_utf8(&record.name[..name_len]).is_ok()
        && check_size(record.size.get()).is_ok()
        && record.birth.get() != 0
        && record.root.birth.get() <= record.birth.get()
        && record.family.get() != 0
}
