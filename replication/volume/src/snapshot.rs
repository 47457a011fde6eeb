//! Snapshots, clones and restores: what is checked before their records are written, and what an
//! engine says of them.

use bdev::Info;
use store::{NodeKind, VolumeError, VolumeId, VolumeRecord};

use crate::control::{Control, Verb};
use crate::core::{Core, volume_info};
use crate::details::Details;
use crate::error::{ControlError, Token};
use crate::layers::{BARRIER_ID_END, Barrier, BarrierKind};
use crate::limits::{BARRIERS_MAX, SNAPSHOT_GROUP_MAX};

/// A snapshot to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSnapshot<'a> {
    /// Of this volume.
    pub volume: VolumeId,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its name, unique among the snapshots of the volume.
    pub name: &'a str,
}

/// A clone to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewClone<'a> {
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its name, unique among the volumes of the store.
    pub name: &'a str,
}

/// A snapshot as the catalog, or the log, knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, for [`crate::VolumeQueue::open`] and the control operations. Ids grow: of two
    /// snapshots, the one with the higher id was made later.
    pub id: VolumeId,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its name.
    pub name: String,
    /// The volume that it was taken of, which may be gone by now.
    pub volume: VolumeId,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes in a logical block: 512 or 4096.
    pub block_bytes: u32,
    /// Bytes that its map references, in whole extents, shared ones included. Zero until it is
    /// materialised.
    pub referenced_bytes: u64,
    /// It is in the map; until then it is durable in the log, and can be read as well.
    pub materialised: bool,
}

impl Snapshot {
    /// What the snapshot is as a block device: one that cannot be written.
    pub fn info(&self) -> Info {
        volume_info(self.size, self.block_bytes)
    }
}

impl Core {
    /// Queues a group of snapshots.
    pub(crate) fn create_snapshots(
        &mut self,
        group: &[NewSnapshot<'_>],
    ) -> Result<Token, ControlError> {
        if !(1..=SNAPSHOT_GROUP_MAX).contains(&group.len()) {
            return Err(ControlError::Group);
        }
        let mut details = [Details::default(); SNAPSHOT_GROUP_MAX];
        for (index, (new, details)) in group.iter().zip(&mut details).enumerate() {
            *details = Details::new(new.uuid, new.name).map_err(ControlError::Volume)?;
            let twice = |o: &NewSnapshot<'_>| o.volume == new.volume || o.uuid == new.uuid;
            if group[..index].iter().any(twice) {
                return Err(ControlError::Group);
            }
        }
        if self.controls.members_room() < group.len() {
            return Err(ControlError::Busy);
        }
        let token = self.controls.next_token();
        let mut control = Control::new(token, Verb::Snapshot, VolumeId(0), Details::default());
        control.count = group.len();
        self.control(control)?;
        for (new, details) in group.iter().zip(details) {
            self.controls.push_member(new.volume, details);
        }
        Ok(token)
    }

    pub(crate) fn check_snapshots(&mut self, control: &mut Control) -> Result<bool, ControlError> {
        let count = control.count;
        for member in 0..count {
            let (volume, details) = self.controls.member(member);
            self.active_volume(VolumeId(volume))?;
            if self.is_uuid_taken(&details.uuid) || self.is_snapshot(volume, details.name()) {
                return Err(ControlError::Volume(VolumeError::Exists));
            }
            if self.snapshot_count(volume) >= store::SNAPSHOTS_MAX {
                return Err(ControlError::Volume(VolumeError::TooManySnapshots));
            }
        }
        let too_many = ControlError::Volume(VolumeError::TooMany);
        if self.node_room() < count {
            return Err(too_many);
        }
        control.id = self.next_id(count).ok_or(too_many)?;
        let deep = |&(volume, _): &(u32, Details)| !self.layers.has_room_for(volume);
        let wait = self.layers.room() < count || self.controls.members(count).any(deep);
        self.controls.wants_barriers |= wait;
        if wait {
            return Ok(false);
        }
        for member in 0..count {
            let (volume, _) = self.controls.member(member);
            let (size, block_bytes) = self.volume_size(VolumeId(volume))?;
            self.controls.set_member_size(member, size, block_bytes);
        }
        Ok(true)
    }

    pub(crate) fn check_clone(
        &mut self,
        control: &mut Control,
        snapshot: VolumeId,
    ) -> Result<bool, ControlError> {
        if self.waits_for(snapshot) {
            return Ok(false);
        }
        let record = self.active_snapshot(snapshot)?;
        (control.details.size, control.details.block_bytes) =
            (record.size_bytes(), record.block_bytes());
        self.check_new_volume(control)
    }

    pub(crate) fn check_restore(
        &mut self,
        control: &mut Control,
        snapshot: VolumeId,
    ) -> Result<bool, ControlError> {
        let volume = control.id;
        self.active_volume(volume)?;
        if self.waits_for(snapshot) {
            return Ok(false);
        }
        let of = *self.active_snapshot(snapshot)?;
        let record = self.active_volume(volume)?;
        let related = of.family() == record.family() && of.block_bytes() == record.block_bytes();
        if !related {
            return Err(ControlError::Volume(VolumeError::NotRelated));
        }
        let too_many = ControlError::Volume(VolumeError::TooMany);
        if self.node_room() == 0 {
            return Err(too_many);
        }
        let former = self.next_id(1).ok_or(too_many)?.0;
        if self.layers.room() == 0 || !self.layers.has_room_for(volume.0) {
            self.controls.wants_barriers = true;
            return Ok(false);
        }
        let (size, block_bytes) = self.volume_size(volume)?;
        control.details.size = size.max(of.size_bytes());
        control.details.block_bytes = block_bytes;
        control.verb = Verb::Restore { snapshot: snapshot.0, former };
        if bdev::planted(bdev::Planted::RestoreBesideIo) {
            return Ok(true);
        }
        // New requests wait outside; those that were taken end first.
        self.quiesced = Some(volume.0);
        Ok(self.ops.iter().all(|(_, op)| op.volume != volume.0))
    }

    /// The record of an active snapshot that is in the catalog.
    pub(crate) fn active_snapshot(&self, id: VolumeId) -> Result<&VolumeRecord, ControlError> {
        let is = |record: &&VolumeRecord| record.is_active() && record.kind() == NodeKind::Snapshot;
        let unknown = ControlError::Volume(VolumeError::Unknown);
        self.store.volume(id).filter(is).ok_or(unknown)
    }

    /// A volume's size, and bytes in its logical blocks. A restore that waits may have made it
    /// larger than the catalog knows.
    pub(crate) fn volume_size(&self, id: VolumeId) -> Result<(u64, u32), ControlError> {
        let record = self.active_volume(id)?;
        Ok((self.layers.restored_size(id.0).unwrap_or(record.size_bytes()), record.block_bytes()))
    }

    /// Whether an active or a logged node has this UUID.
    pub(crate) fn is_uuid_taken(&self, uuid: &[u8; 16]) -> bool {
        let taken =
            |r: &VolumeRecord| r.uuid == *uuid && (r.is_active() || r.kind() == NodeKind::Volume);
        self.store.nodes().any(taken) || self.waiting_snapshots().any(|b| b.details.uuid == *uuid)
    }

    fn is_snapshot(&self, volume: u32, name: &str) -> bool {
        let of = |r: &VolumeRecord| r.origin().is_some_and(|of| of.0 == volume);
        let waiting = |b: &Barrier| b.volume == volume && b.details.name() == name;
        self.store.snapshots().any(|r| of(r) && r.name_str() == name)
            || self.waiting_snapshots().any(waiting)
    }

    fn snapshot_count(&self, volume: u32) -> usize {
        let of = |r: &&VolumeRecord| r.origin().is_some_and(|of| of.0 == volume);
        let waiting = self.waiting_snapshots().filter(|b| b.volume == volume);
        self.store.snapshots().filter(of).count() + waiting.count()
    }

    /// Snapshots that are durable and not in the catalog yet.
    pub(crate) fn waiting_snapshots(&self) -> impl Iterator<Item = &Barrier> {
        let waits = |barrier: &&Barrier| {
            // A checkpoint that runs has them in the catalog already.
            let id = VolumeId(barrier.id);
            barrier.what == BarrierKind::Snapshot && self.store.volume(id).is_none()
        };
        self.layers.waiting().filter(waits)
    }

    /// Nodes that the catalog has room for, those that wait counted.
    pub(crate) fn node_room(&self) -> usize {
        let used = self.store.nodes().count() + self.layers.waiting().count();
        store::NODES_MAX.saturating_sub(used)
    }

    /// The id for the next node, when `count` are left.
    pub(crate) fn next_id(&self, count: usize) -> Option<VolumeId> {
        let next = self.store.next_volume_id().0.max(self.layers.next_id());
        let end = u32::try_from(count).ok().and_then(|count| next.checked_add(count))?;
        (end <= BARRIER_ID_END).then_some(VolumeId(next))
    }

    /// Every snapshot, oldest first.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        let mut snapshots: Vec<Snapshot> = self.store.snapshots().map(in_catalog).collect();
        snapshots.extend(self.waiting_snapshots().map(in_log));
        snapshots.sort_unstable_by_key(|snapshot| snapshot.id);
        snapshots
    }

    /// The snapshot with this id.
    pub(crate) fn snapshot(&self, id: VolumeId) -> Option<Snapshot> {
        let logged = self.waiting_snapshots().find(|barrier| barrier.id == id.0).map(in_log);
        logged.or_else(|| self.active_snapshot(id).ok().map(in_catalog))
    }
}

fn in_catalog(record: &VolumeRecord) -> Snapshot {
    Snapshot {
        id: record.volume_id(),
        uuid: record.uuid,
        name: record.name_str().to_owned(),
        volume: record.origin().unwrap_or(VolumeId(0)),
        size: record.size_bytes(),
        block_bytes: record.block_bytes(),
        referenced_bytes: record.mapped.get().saturating_mul(store::EXTENT_BYTES),
        materialised: true,
    }
}

fn in_log(barrier: &Barrier) -> Snapshot {
    Snapshot {
        id: VolumeId(barrier.id),
        uuid: barrier.details.uuid,
        name: barrier.details.name().to_owned(),
        volume: VolumeId(barrier.volume),
        size: barrier.details.size,
        block_bytes: barrier.details.block_bytes,
        referenced_bytes: 0,
        materialised: false,
    }
}

const _: () = assert!(SNAPSHOT_GROUP_MAX <= BARRIERS_MAX);
