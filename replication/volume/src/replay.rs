//! What recovery makes of the log's records: overlay, layers and journal, and a catalog that is up
//! to date.
//!
//! A checkpoint with a snapshot or a restore is written when the destager gets to its record, but
//! the log's tail is where the last group before it began. So each volume has a *floor*: its
//! records below it are in its map, or void, and are passed over.

use store::{ExtentState, NodeKind, NodeSpec, Store, VolumeId, VolumeRecord};
use wal::Record;

use crate::details::Details;
use crate::device::BLOCK;
use crate::error::OpenError;
use crate::journal::{Entry, Journal, Kind, Marks};
use crate::layers::{BARRIER_ID_END, Barrier, BarrierKind, Layers};
use crate::limits::ZERO_BLOCKS_MAX;
use crate::logdamage::{LogDamage, Spot};
use crate::overlay::{Overlay, Place, Version, ZeroRange};
use crate::write::EXTENT_BLOCKS;

/// What a replay builds.
pub(crate) struct Replayed {
    pub(crate) overlay: Overlay,
    pub(crate) layers: Layers,
    pub(crate) journal: Journal,
    pub(crate) marks: Marks,
    pub(crate) replayed: u64,
    pub(crate) reserved: u64,
    pub(crate) damage: LogDamage,
    pub(crate) error: Option<OpenError>,
}

impl Replayed {
    /// Enters a record of the log as if it had just become durable. Its payload is at a position,
    /// and has a bit for each block that is damaged.
    pub(crate) fn record(
        &mut self,
        store: &mut Store,
        lsn: u64,
        record: Record<'_>,
        payload: (u64, u64),
    ) {
        self.replayed += 1;
        self.damage.note(lsn, payload.1);
        if let Err(what) = self.apply(store, lsn, record, payload) {
            self.error.get_or_insert(OpenError::Record { lsn, what });
        }
    }

    fn apply(
        &mut self,
        store: &mut Store,
        lsn: u64,
        record: Record<'_>,
        payload: (u64, u64),
    ) -> Result<(), &'static str> {
        if changed_by(&record).is_some_and(|volume| is_something_else(store, volume)) {
            return Err("a change of what is no volume");
        }
        match record {
            // None of these changes anything when the catalog has, or had, the node already.
            Record::Create { volume, body } => {
                let details = Details::from_body(body).ok_or("a strange body")?;
                store.create_volume(&details.spec(volume)).map_err(|_| "a volume that cannot be")
            }
            Record::Clone { volume, snapshot, body } => {
                let details = Details::from_body(body).ok_or("a strange body")?;
                let (id, uuid, name) = (VolumeId(volume), details.uuid, details.name());
                let spec = NodeSpec { id, uuid, name };
                let created = store.create_clone(VolumeId(snapshot), &spec, 0);
                created.map_err(|_| "a clone that cannot be")
            }
            Record::Delete { volume } => {
                if bdev::planted(bdev::Planted::DeleteNotReplayed) {
                    return Ok(());
                }
                store.delete_volume(VolumeId(volume));
                self.layers.remove(volume);
                Ok(())
            }
            Record::Resize { volume, bytes } => {
                let current = known(store, volume).is_some_and(|record| lsn >= record.floor_lsn());
                if current && !bdev::planted(bdev::Planted::ResizeNotReplayed) {
                    store.resize_volume(VolumeId(volume), bytes).map_err(|_| "a strange size")?;
                }
                Ok(())
            }
            Record::Snapshot { volume, snapshot, body } => {
                let details = Details::from_body(body).ok_or("a strange body")?;
                let what = BarrierKind::Snapshot;
                self.barrier(store, lsn, volume, snapshot, what, details)
            }
            Record::Restore { volume, snapshot, former } => {
                self.restore(store, lsn, volume, snapshot, former)
            }
            Record::Write { .. } | Record::Direct { .. } | Record::Zero { .. } => {
                self.data(store, lsn, record, payload)
            }
        }
    }

    /// Enters what a host wrote.
    fn data(
        &mut self,
        store: &Store,
        lsn: u64,
        record: Record<'_>,
        payload: (u64, u64),
    ) -> Result<(), &'static str> {
        let (Record::Write { volume, .. }
        | Record::Direct { volume, .. }
        | Record::Zero { volume, .. }) = record
        else {
            panic!("a record with data")
        };
        if known(store, volume).is_some_and(|record| lsn < record.floor_lsn()) {
            return Ok(());
        }
        let layer = self.layers.newest(volume);
        let entry = |block, blocks, kind| Entry { lsn, volume, layer, block, blocks, kind };
        match record {
            Record::Write { block, crcs, .. } => {
                let (payload, damaged) = payload;
                let blocks = crcs.len() as u64;
                self.check(store, volume, block, blocks)?;
                for (index, &crc) in (0u64..).zip(crcs) {
                    let place = Place::Log(payload + index);
                    let reserved = !bdev::planted(bdev::Planted::ReplayReservesNothing);
                    self.enter(layer, block + index, Version { lsn, place, crc, reserved });
                }
                self.journal.push(entry(block, blocks, Kind::Write { position: payload }));
                let first = Spot { lsn, volume, layer, block, position: payload };
                self.damage.entered(first, damaged);
            }
            Record::Direct { block, extent, crcs, .. } => {
                let blocks = crcs.len() as u64;
                self.check(store, volume, block, blocks)?;
                store.extent(extent).ok_or("an extent outside the pool")?;
                if blocks != EXTENT_BLOCKS || !block.is_multiple_of(EXTENT_BLOCKS) {
                    return Err("a direct write of less than an extent");
                }
                for (index, &crc) in (0u64..).zip(crcs) {
                    let place = Place::Device(extent * EXTENT_BLOCKS + index);
                    self.enter(layer, block + index, Version { lsn, place, crc, reserved: false });
                }
                self.journal.push(entry(block, blocks, Kind::Direct { extent, owned: false }));
            }
            Record::Zero { blocks, .. }
                if blocks > ZERO_BLOCKS_MAX && bdev::planted(bdev::Planted::RangeForgotten) => {}
            Record::Zero { block, blocks, .. } if blocks > ZERO_BLOCKS_MAX => {
                self.check(store, volume, block, 0)?;
                if self.overlay.range_room() == 0 {
                    return Err("more zeroed ranges than fit");
                }
                let range = ZeroRange { lsn, layer, start: block, end: block + blocks };
                self.overlay.push_range(range);
                self.journal.push(entry(block, blocks, Kind::ZeroRange));
            }
            Record::Zero { block, blocks, .. } => {
                self.check(store, volume, block, blocks)?;
                for index in 0..blocks {
                    let version = Version { lsn, place: Place::Zero, crc: 0, reserved: false };
                    self.enter(layer, block + index, version);
                }
                self.journal.push(entry(block, blocks, Kind::Zero));
            }
            _ => panic!("a record with data"),
        }
        Ok(())
    }

    fn restore(
        &mut self,
        store: &Store,
        lsn: u64,
        volume: u32,
        snapshot: u32,
        former: u32,
    ) -> Result<(), &'static str> {
        let Some(record) = known(store, volume).filter(|record| lsn >= record.floor_lsn()) else {
            return Ok(());
        };
        let of = known(store, snapshot).ok_or("a restore to a snapshot that is not there")?;
        let size = self.layers.restored_size(volume).unwrap_or(record.size_bytes());
        let details = Details::of_size(size.max(of.size_bytes()), record.block_bytes());
        self.barrier(store, lsn, volume, former, BarrierKind::Restore { snapshot }, details)
    }

    /// Enters a snapshot or a restore, unless the catalog has it.
    fn barrier(
        &mut self,
        store: &Store,
        lsn: u64,
        volume: u32,
        id: u32,
        what: BarrierKind,
        details: Details,
    ) -> Result<(), &'static str> {
        if known(store, volume).is_none_or(|record| lsn < record.floor_lsn()) {
            return Ok(());
        }
        let room = self.layers.room() > 0 && self.layers.has_room_for(volume);
        if !room || self.journal.room() == 0 {
            return Err("more snapshots than the overlay holds");
        }
        if id >= BARRIER_ID_END {
            return Err("a strange snapshot");
        }
        let (layer, block, blocks, kind) = (self.layers.newest(volume), 0, 0, Kind::Barrier);
        self.journal.push(Entry { lsn, volume, layer, block, blocks, kind });
        let (closed, materialised) = (layer, false);
        self.layers.push(Barrier { lsn, volume, id, what, closed, materialised, details });
        Ok(())
    }

    /// A record must fit the tables and, if its volume lives, the volume.
    fn check(
        &self,
        store: &Store,
        volume: u32,
        block: u64,
        blocks: u64,
    ) -> Result<(), &'static str> {
        let slots = usize::try_from(blocks).unwrap_or(usize::MAX);
        if self.overlay.room() < slots || self.journal.room() == 0 {
            return Err("more records than the overlay holds");
        }
        let bytes = known(store, volume).map_or(u64::MAX, VolumeRecord::size_bytes);
        let size = self.layers.restored_size(volume).unwrap_or(bytes) / BLOCK as u64;
        if block.checked_add(blocks).is_none_or(|end| end > size) {
            return Err("blocks outside the volume");
        }
        Ok(())
    }

    fn enter(&mut self, layer: u32, block: u64, version: Version) {
        let old = self.overlay.insert(layer, block, &version);
        self.reserved -= u64::from(old.is_some_and(|old| old.reserved));
        self.reserved += u64::from(version.reserved);
    }
}

/// The volume whose content or size a record changes or keeps.
fn changed_by(record: &Record<'_>) -> Option<u32> {
    match *record {
        Record::Create { .. } | Record::Clone { .. } | Record::Delete { .. } => None,
        Record::Write { volume, .. }
        | Record::Direct { volume, .. }
        | Record::Zero { volume, .. }
        | Record::Resize { volume, .. }
        | Record::Snapshot { volume, .. }
        | Record::Restore { volume, .. } => Some(volume),
    }
}

fn is_something_else(store: &Store, node: u32) -> bool {
    store.volume(VolumeId(node)).is_some_and(|record| record.kind() != NodeKind::Volume)
}

/// A node that is in the catalog, and not being deleted.
fn known(store: &Store, node: u32) -> Option<&VolumeRecord> {
    store.volume(VolumeId(node)).filter(|record| record.is_active())
}

/// Takes the extents of direct writes that are still the newest version of some block, so that
/// nothing else is put there. One that the map has already (a checkpoint was under way) stays the
/// map's; one that was overwritten may belong to somebody else by now.
pub(crate) fn claim(store: &mut Store, overlay: &Overlay, journal: &mut Journal) {
    journal.for_each_mut(|entry| {
        let Kind::Direct { extent, .. } = entry.kind else { return };
        let newest = |block| overlay.find(entry.layer, block).map(|version| version.lsn);
        let live = (entry.block..entry.block + entry.blocks).any(|b| newest(b) == Some(entry.lsn));
        let known = known(store, entry.volume).is_some();
        let Some(place) = store.extent(extent) else { return };
        let claims = !bdev::planted(bdev::Planted::ClaimForgotten);
        let owned = live && known && claims && store.claim(place) == ExtentState::Free;
        entry.kind = Kind::Direct { extent, owned };
    });
}
