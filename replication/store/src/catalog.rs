//! The volumes of a store, in memory: a fixed table of records.

use crate::format::catalog::{STATE_ACTIVE, STATE_DELETING, STATE_UNUSED};
use crate::format::{CatalogPage, RECORDS_PER_PAGE, VolumeRecord};
use crate::limits::{NAME_BYTES_MAX, PAGE_BYTES, VOLUME_BYTES_MAX, VOLUMES_MAX};
use crate::table::Table;
use crate::{VolumeError, VolumeId, VolumeSpec};

/// Pages that hold the records of [`VOLUMES_MAX`] volumes.
pub(crate) const CATALOG_PAGES: usize = VOLUMES_MAX.div_ceil(RECORDS_PER_PAGE);

/// Every volume's record. The place of a record never changes while the volume exists.
pub(crate) struct Catalog {
    records: Vec<VolumeRecord>,
    slots: Table,
    next_id: u32,
    deleting: u32,
    dirty: [bool; CATALOG_PAGES],
    /// The records and the next id as the running checkpoint writes them: one moment's.
    frozen: Vec<VolumeRecord>,
    frozen_next_id: u32,
}

impl Catalog {
    pub(crate) fn new(next_id: u32) -> Catalog {
        Catalog {
            records: vec![VolumeRecord::unused(); CATALOG_PAGES * RECORDS_PER_PAGE],
            slots: Table::new(VOLUMES_MAX),
            next_id,
            deleting: 0,
            dirty: [false; CATALOG_PAGES],
            frozen: vec![VolumeRecord::unused(); CATALOG_PAGES * RECORDS_PER_PAGE],
            frozen_next_id: next_id,
        }
    }

    /// Copies the dirty pages for the checkpoint, so that volumes may come and go meanwhile: a
    /// volume whose id is below the stored next id, but which is not stored, counts as deleted.
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.records.iter().filter(|record| record.state != STATE_UNUSED)
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

    /// Enters a volume. `Ok(())` without effect when it exists, or existed.
    pub(crate) fn create(&mut self, spec: &VolumeSpec<'_>) -> Result<(), VolumeError> {
        if spec.id.0 == 0 {
            return Err(VolumeError::Id);
        }
        if self.find(spec.id).is_some_and(|record| record.uuid == spec.uuid) {
            return Ok(());
        }
        check_spec(spec)?;
        if spec.id.0 < self.next_id {
            // Replay of a creation whose volume has been deleted since.
            return if self.find(spec.id).is_some() { Err(VolumeError::Id) } else { Ok(()) };
        }
        if spec.id.0 >= ID_END {
            return Err(VolumeError::Id);
        }
        let taken = |r: &VolumeRecord| {
            r.uuid == spec.uuid || (r.state == STATE_ACTIVE && r.name_str() == spec.name)
        };
        if self.iter().any(taken) {
            return Err(VolumeError::Exists);
        }
        let unused = |record: &VolumeRecord| record.state == STATE_UNUSED;
        let slot = self.records[..VOLUMES_MAX].iter().position(unused);
        let slot = slot.ok_or(VolumeError::TooMany)?;
        let record = self.change(slot);
        *record = VolumeRecord::unused();
        record.id.set(spec.id.0);
        record.state = STATE_ACTIVE;
        record.lba_shift = if spec.block_bytes == 512 { 9 } else { 12 };
        record.name_len = u8::try_from(spec.name.len()).expect("checked to be at most 64");
        record.name[..spec.name.len()].copy_from_slice(spec.name.as_bytes());
        record.size.set(spec.size);
        record.uuid = spec.uuid;
        self.slots.insert(u64::from(spec.id.0), u32::try_from(slot).expect("at most 1024"));
        self.next_id = spec.id.0 + 1;
        Ok(())
    }

    /// Marks a volume as being deleted.
    pub(crate) fn delete(&mut self, id: VolumeId) {
        let Some(slot) = self.slot(id) else { return };
        if self.records[slot].state == STATE_ACTIVE {
            self.change(slot).state = STATE_DELETING;
            self.deleting += 1;
        }
    }

    /// The first volume that is being deleted.
    pub(crate) fn first_deleting(&self) -> Option<VolumeId> {
        if self.deleting == 0 {
            return None;
        }
        let found = self.records.iter().find(|record| record.state == STATE_DELETING);
        Some(found.expect("they are counted").volume_id())
    }

    /// Removes the record of a volume whose space has been given back.
    pub(crate) fn forget(&mut self, id: VolumeId) {
        let slot = self.slot(id).expect("only volumes being deleted are forgotten");
        assert_eq!(self.records[slot].state, STATE_DELETING);
        assert!(self.records[slot].root.is_none(), "its space was given back");
        *self.change(slot) = VolumeRecord::unused();
        self.slots.remove(u64::from(id.0));
        self.deleting -= 1;
    }

    pub(crate) fn resize(&mut self, id: VolumeId, size: u64) -> Result<(), VolumeError> {
        check_size(size)?;
        let slot = self.slot(id).ok_or(VolumeError::Unknown)?;
        if !self.records[slot].is_active() {
            return Err(VolumeError::Unknown);
        }
        self.change(slot).size.set(size);
        Ok(())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.contains(&true)
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
            if slot >= VOLUMES_MAX || !fresh || id.0 >= self.next_id || !is_sane(record) {
                return false;
            }
            self.deleting += u32::from(record.state == STATE_DELETING);
            self.records[slot] = *record;
            self.slots.insert(u64::from(id.0), u32::try_from(slot).expect("at most 1024"));
        }
        true
    }
}

/// Ids from here on name the trees of the store itself.
const ID_END: u32 = 0xffff_ff00;

fn check_spec(spec: &VolumeSpec<'_>) -> Result<(), VolumeError> {
    if spec.name.is_empty() || spec.name.len() > NAME_BYTES_MAX {
        return Err(VolumeError::Name);
    }
    if spec.block_bytes != 512 && spec.block_bytes != 4096 {
        return Err(VolumeError::BlockSize);
    }
    check_size(spec.size)
}

fn check_size(size: u64) -> Result<(), VolumeError> {
    if size == 0 || size > VOLUME_BYTES_MAX || !size.is_multiple_of(PAGE_BYTES as u64) {
        return Err(VolumeError::Size);
    }
    Ok(())
}

fn is_sane(record: &VolumeRecord) -> bool {
    let name_len = usize::from(record.name_len);
    matches!(record.state, STATE_ACTIVE | STATE_DELETING)
        && record.depth <= crate::limits::DEPTH_MAX
        && matches!(record.lba_shift, 9 | 12)
        && (1..=NAME_BYTES_MAX).contains(&name_len)
        && std::str::from_utf8(&record.name[..name_len]).is_ok()
        && check_size(record.size.get()).is_ok()
}
