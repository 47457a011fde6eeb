//! The forest of nodes: who shares what with whom, and how nodes come to be.
//!
//! ```text
//!   S1 <--- S2 <--- V          S1, S2 snapshots of volume V, C a clone of S1; an arrow points to
//!    ^                         the parent. Births grow along each path from the root:
//!    `------ C                 S1 1, S2 5, V 6, C 9.
//! ```
//!
//! A node **owns** what its tree references with a birth above its parent's (its *bound*): only it
//! may overwrite or release that. Everything older is an ancestor's, which references it at the
//! same place. A snapshot takes the volume's root and birth and becomes its parent; the volume gets
//! a new birth, so that from then on it owns nothing: all of it in two records, at no other cost.
//!
//! Births are ids: each new birth comes with a new node, whose id is above every birth so far.

use crate::catalog::{Catalog, ID_END, named};
use crate::format::catalog::STATE_DELETING;
use crate::format::{LeafEntry, NodeId, NodeKind, VolumeRecord};
use crate::limits::{NAME_BYTES_MAX, SNAPSHOTS_MAX};
use crate::tree::first_extent;
use crate::{Store, VolumeError, VolumeId};

/// What a new snapshot or clone is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSpec<'a> {
    /// Its id: [`Store::next_volume_id`], or the one in the log record that is replayed.
    pub id: VolumeId,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its name: of a snapshot, unique among those of its volume; of a clone, among the volumes.
    pub name: &'a str,
}

/// A snapshot or a restore that takes effect inside a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staged {
    volume: VolumeId,
    /// The id of the new node: the snapshot, or what is left of the volume before it is restored.
    id: VolumeId,
    floor_lsn: u64,
    change: Change,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Snapshot { uuid: [u8; 16], name: [u8; NAME_BYTES_MAX], name_len: usize },
    Restore { snapshot: VolumeId },
}

impl Staged {
    /// True when it will have the name or the UUID of a new node.
    pub(crate) fn takes(&self, spec: &NodeSpec<'_>, of: Option<VolumeId>) -> bool {
        let Change::Snapshot { uuid, name, name_len } = &self.change else { return false };
        let same = name[..*name_len] == *spec.name.as_bytes();
        *uuid == spec.uuid || (same && of == Some(self.volume))
    }
}

impl Store {
    /// Every volume, snapshot and remains, those being deleted included.
    pub fn nodes(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.catalog.iter()
    }

    /// Every snapshot that can be read.
    pub fn snapshots(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.catalog
            .iter()
            .filter(|record| record.kind() == NodeKind::Snapshot && record.is_active())
    }

    /// The birth of the extents that are allocated now for a volume: what
    /// [`LeafEntry::set_extent`] takes.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn birth(&self, volume: VolumeId) -> u32 {
        self.catalog.find(volume).expect("the caller knows the volume").birth.get()
    }

    /// Whether the extent of an entry of this volume, at extent `extent_index`, is its own: it may
    /// be written in place, and is released when it falls out of the map. Otherwise it is shared:
    /// it is left alone, and replaced by a fresh extent. False for an unmapped entry.
    ///
    /// A shared extent may become the volume's own at any time (a snapshot was deleted), so ask at
    /// the moment when the entry is changed. The other way round it takes a staged snapshot
    /// and a checkpoint.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn is_owned(&self, volume: VolumeId, extent_index: u64, entry: &LeafEntry) -> bool {
        let slot = self.catalog.slot(volume).expect("the caller knows the volume");
        entry.birth() > self.catalog.bound(slot, extent_index)
    }

    /// Plans a snapshot: inside the next checkpoint that is begun, after the volume's tree was
    /// written, it takes the volume's map as it then is. Until then there is no such node.
    /// `floor_lsn` becomes the volume's: every record of it with a lower number is in that map.
    ///
    /// Replaying a snapshot that exists, or existed, changes nothing and is no error.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn stage_snapshot(
        &mut self,
        volume: VolumeId,
        spec: &NodeSpec<'_>,
        floor_lsn: u64,
    ) -> Result<(), VolumeError> {
        if !self.catalog.admits(spec, Some(volume))? {
            return Ok(());
        }
        self.catalog.active(volume, NodeKind::Volume)?;
        let of = |record: &&VolumeRecord| record.origin() == Some(volume);
        let staged = self.catalog.staged.iter().filter(|staged| {
            staged.volume == volume && matches!(staged.change, Change::Snapshot { .. })
        });
        if self.snapshots().filter(of).count() + staged.count() >= SNAPSHOTS_MAX {
            return Err(VolumeError::TooManySnapshots);
        }
        let (mut name, name_len) = ([0; NAME_BYTES_MAX], spec.name.len());
        name[..name_len].copy_from_slice(spec.name.as_bytes());
        let change = Change::Snapshot { uuid: spec.uuid, name, name_len };
        self.catalog.stage(Staged { volume, id: spec.id, floor_lsn, change })
    }

    /// Plans to make a volume what a snapshot of its family holds, inside the next checkpoint that
    /// is begun. What the volume held becomes a node of its own under `hidden_id`, which is being
    /// deleted; later snapshots of the volume stay. The volume never gets smaller by it.
    /// `floor_lsn` becomes the volume's: records of it with a lower number are void.
    ///
    /// Replaying a restore that took place changes nothing and is no error.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn stage_restore(
        &mut self,
        volume: VolumeId,
        snapshot: VolumeId,
        hidden_id: VolumeId,
        floor_lsn: u64,
    ) -> Result<(), VolumeError> {
        if hidden_id.0 == 0 || hidden_id.0 >= ID_END {
            return Err(VolumeError::Id);
        }
        if hidden_id.0 < self.catalog.next_id() {
            return Ok(());
        }
        let of = *self.catalog.active(snapshot, NodeKind::Snapshot)?;
        let to = self.catalog.active(volume, NodeKind::Volume)?;
        if of.family != to.family || of.lba_shift != to.lba_shift {
            return Err(VolumeError::NotRelated);
        }
        if !self.catalog.has_place() {
            return Err(VolumeError::TooMany);
        }
        let change = Change::Restore { snapshot };
        self.catalog.stage(Staged { volume, id: hidden_id, floor_lsn, change })
    }

    /// Enters a writable volume that starts as what a snapshot holds. Not while a checkpoint runs.
    /// Records of the clone start at `floor_lsn`.
    ///
    /// Replaying the creation of a clone that exists, or existed, changes nothing and is no error.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn create_clone(
        &mut self,
        snapshot: VolumeId,
        spec: &NodeSpec<'_>,
        floor_lsn: u64,
    ) -> Result<(), VolumeError> {
        if !self.catalog.admits(spec, None)? {
            return Ok(());
        }
        let of = *self.catalog.active(snapshot, NodeKind::Snapshot)?;
        let mut record = named(spec, NodeKind::Volume);
        record.depth = of.depth;
        record.lba_shift = of.lba_shift;
        record.size = of.size;
        record.root = of.root;
        record.mapped = of.mapped;
        record.family = of.family;
        record.parent = of.id;
        record.origin = of.origin;
        record.origin_snapshot = of.id;
        record.birth.set(spec.id.0);
        record.floor_lsn.set(floor_lsn);
        self.catalog.enter(record);
        Ok(())
    }

    /// True when a snapshot or a restore waits for a checkpoint to be begun, or for the end of the
    /// one that runs.
    pub fn has_staged(&self) -> bool {
        !self.catalog.staged.is_empty()
    }

    /// The volumes' trees are written: what was staged before the checkpoint takes effect.
    pub(crate) fn apply_staged(&mut self) {
        for _ in 0..std::mem::take(&mut self.catalog.staged_begun) {
            let staged = self.catalog.staged.pop().expect("they were counted");
            let slot = self.catalog.slot(staged.volume).expect("reclaiming waits for staged ones");
            match staged.change {
                Change::Snapshot { uuid, name, name_len } => {
                    let name = std::str::from_utf8(&name[..name_len]).expect("it was a str");
                    let spec = NodeSpec { id: staged.id, uuid, name };
                    self.catalog.snapshot(slot, &spec, staged.floor_lsn);
                }
                Change::Restore { snapshot } => {
                    let of = *self.catalog.find(snapshot).expect("reclaiming waits likewise");
                    self.catalog.restore(slot, &of, staged.id);
                    self.cache.rename(staged.volume.0, staged.id.0);
                }
            }
            let record = self.catalog.change(slot);
            let floor = record.floor_lsn.get().max(staged.floor_lsn);
            record.floor_lsn.set(floor);
        }
    }

    /// True when the page of `node` with this birth belongs to the node's own tree.
    pub(crate) fn owns(&self, slot: usize, node: NodeId, birth: u32) -> bool {
        birth > self.catalog.bound(slot, first_extent(node))
    }
}

impl Catalog {
    /// What the node in `slot` references at extent `extent_index` with a birth above this is its
    /// own.
    pub(crate) fn bound(&self, slot: usize, extent_index: u64) -> u32 {
        let mut parent = self.record(slot).parent.get();
        while parent != 0 {
            let above = self.find(VolumeId(parent)).expect("parents outlive their children");
            if extent_index >= above.cut.get() {
                return above.birth.get();
            }
            parent = above.parent.get(); // It has handed over what it owned here.
        }
        0
    }

    /// The record of an active node of this kind.
    fn active(&self, id: VolumeId, kind: NodeKind) -> Result<&VolumeRecord, VolumeError> {
        let record = self.find(id).filter(|record| record.is_active() && record.kind() == kind);
        record.ok_or(VolumeError::Unknown)
    }

    fn stage(&mut self, staged: Staged) -> Result<(), VolumeError> {
        self.staged.push(staged).map_err(|_| VolumeError::Staged)?;
        self.next_id = staged.id.0 + 1;
        Ok(())
    }

    /// The volume in `slot` gets a snapshot between itself and its parent.
    fn snapshot(&mut self, slot: usize, spec: &NodeSpec<'_>, floor_lsn: u64) {
        let volume = *self.record(slot);
        let mut record = named(spec, NodeKind::Snapshot);
        copy_tree(&mut record, &volume);
        record.size = volume.size;
        record.lba_shift = volume.lba_shift;
        record.floor_lsn.set(floor_lsn);
        record.birth = volume.birth;
        record.parent = volume.parent;
        record.origin = volume.id;
        self.enter(record);
        self.change(slot).birth.set(spec.id.0);
        self.adopt(slot, spec.id.0);
    }

    /// The volume in `slot` continues from snapshot `of`; what it was gets the id `hidden`.
    fn restore(&mut self, slot: usize, of: &VolumeRecord, hidden: VolumeId) {
        let volume = *self.record(slot);
        let spec = NodeSpec { id: hidden, uuid: [0; 16], name: "" };
        let mut remains = named(&spec, NodeKind::Remains);
        copy_tree(&mut remains, &volume);
        remains.state = STATE_DELETING;
        remains.size = volume.size;
        remains.lba_shift = volume.lba_shift;
        remains.birth = volume.birth;
        remains.parent = volume.parent;
        remains.origin = volume.id;
        self.enter(remains);
        let record = self.change(slot);
        copy_tree(record, of);
        record.size.set(volume.size.get().max(of.size.get()));
        record.birth.set(hidden.0);
        self.adopt(slot, of.id.get());
    }

    /// Checks after a mount has read all records that they are a forest. The bad one's id
    /// otherwise.
    pub(crate) fn check_forest(&self) -> Result<(), (&'static str, u32)> {
        for record in self.iter() {
            let id = record.id.get();
            if record.birth.get() >= self.next_id {
                return Err(("birth in the future", id));
            }
            let Some(parent) = record.parent() else { continue };
            let Some(parent) = self.find(parent) else { return Err(("parent is missing", id)) };
            let fits = parent.kind() == NodeKind::Snapshot
                && parent.birth.get() < record.birth.get()
                && parent.family == record.family
                && parent.depth <= record.depth
                && (parent.cut.get() == 0 || record.cut.get() == 0);
            if !fits {
                return Err(("not a child of its parent", id));
            }
        }
        Ok(())
    }
}

fn copy_tree(into: &mut VolumeRecord, from: &VolumeRecord) {
    into.depth = from.depth;
    into.root = from.root;
    into.mapped = from.mapped;
    into.family = from.family;
}
