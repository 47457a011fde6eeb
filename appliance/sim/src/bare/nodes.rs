//! The volumes and snapshots that there must be: after each answer, and after each start.

use std::collections::BTreeMap;

use volume::{Engine, VolumeId};

use crate::bare::operator::{Asked, Outcome, Site, What};
use crate::history::Moment;

/// A volume or a snapshot as the operator knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Names and UUIDs are used again once a node is gone.
    pub(crate) slot: u32,
    /// Its id, once it was made.
    pub(crate) id: VolumeId,
    pub(crate) bytes: u64,
    pub(crate) block_size: u32,
    /// The number of the volume that it, or what it was cloned from, is a version of.
    pub(crate) family: u32,
    /// Of a snapshot, its volume; of a clone, its snapshot.
    pub(crate) parent: VolumeId,
}

impl Known {
    pub(crate) fn volume_name(&self) -> String {
        format!("volume-{}", self.slot)
    }

    pub(crate) fn volume_uuid(&self) -> [u8; 16] {
        uuid_of(0xee, self.slot)
    }

    pub(crate) fn snapshot_name(&self) -> String {
        format!("snapshot-{}", self.slot)
    }

    pub(crate) fn snapshot_uuid(&self) -> [u8; 16] {
        uuid_of(0xdd, self.slot)
    }

    fn blocks(&self) -> u64 {
        self.bytes / u64::from(self.block_size)
    }
}

/// By number; numbers are never used twice.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) volumes: BTreeMap<u32, Known>,
    pub(crate) snapshots: BTreeMap<u32, Known>,
}

impl Nodes {
    pub(crate) fn get(&self, number: u32) -> &Known {
        let snapshot = || self.snapshots.get(&number);
        self.volumes.get(&number).or_else(snapshot).expect("a volume or a snapshot")
    }

    /// Extents that all of it may take at most.
    pub(crate) fn extents(&self) -> u64 {
        let all = self.volumes.values().chain(self.snapshots.values());
        all.map(|known| extents_of(known.bytes)).sum()
    }

    pub(crate) fn free_volume_slot(&self) -> u32 {
        let taken = |slot: &u32| self.volumes.values().any(|known| known.slot == *slot);
        (0u32..).find(|slot| !taken(slot)).expect("few volumes")
    }

    pub(crate) fn free_snapshot_slots(&self) -> impl Iterator<Item = u32> {
        (0u32..).filter(|slot| !self.snapshots.values().any(|known| known.slot == *slot))
    }

    /// What was asked for has happened, by now.
    ///
    /// # Errors
    /// When it cannot have.
    pub(crate) fn happened(
        &mut self,
        asked: Asked,
        id: VolumeId,
        site: &mut Site<'_>,
        at: Moment,
    ) -> Result<Outcome, String> {
        let Asked { what, began, .. } = asked;
        let history = &mut site.ledger.history;
        Ok(match what {
            What::Create(number, known) => {
                self.volumes.insert(number, Known { id, ..known });
                Outcome::Made(vec![number])
            }
            What::Clone { number, known, image } => {
                self.volumes.insert(number, Known { id, ..known });
                history.clone_of(number, image);
                Outcome::Made(vec![number])
            }
            What::Delete(number) => {
                if self.snapshots.remove(&number).is_none() {
                    self.volumes.remove(&number);
                    history.forget(number);
                }
                Outcome::Deleted
            }
            What::Resize(number, bytes) => {
                let known = self.volumes.get_mut(&number).expect("it is not deleted meanwhile");
                let blocks = bytes / u64::from(known.block_size);
                for block in blocks..known.blocks() {
                    let empty = history.read(number, block, 0, began, at);
                    empty.map_err(|held| format!("a smaller volume has lost a block: {held:?}"))?;
                }
                known.bytes = bytes;
                Outcome::Resized(number)
            }
            What::Snapshot(group) => {
                let pairs: Vec<(u32, u32)> = group.iter().map(|&(n, _, of)| (n, of)).collect();
                history.freeze(&pairs, began, at);
                for ((number, known, _), id) in group.into_iter().zip(id.0..) {
                    self.snapshots.insert(number, Known { id: VolumeId(id), ..known });
                }
                Outcome::Made(pairs.into_iter().map(|(number, _)| number).collect())
            }
            What::Restore { volume, bytes, .. } => {
                let known = self.volumes.get_mut(&volume).expect("it is not deleted meanwhile");
                known.bytes = bytes;
                let oldest = site.ledger.oldest_read.min(site.client.oldest_read());
                for block in 0..known.blocks() {
                    history.acknowledge(volume, block, began, at, oldest);
                }
                Outcome::Resized(volume)
            }
        })
    }

    /// What was asked for has not happened and never will.
    ///
    /// # Errors
    /// When it was seen, or there was no reason to refuse it.
    pub(crate) fn refused(&self, asked: &Asked, site: &mut Site<'_>) -> Result<(), String> {
        match asked.what {
            What::Restore { volume, bytes, .. } => {
                for block in 0..bytes / u64::from(self.volumes[&volume].block_size) {
                    let refused = site.ledger.history.refuse(volume, block, asked.began);
                    refused.map_err(|held| format!("a restore that was refused: {held:?}"))?;
                }
                Ok(())
            }
            What::Resize(number, bytes) if site.plan.is_sound() => {
                let known = &self.volumes[&number];
                let beyond = bytes / u64::from(known.block_size)..known.blocks();
                match site.ledger.history.is_untouched(number, beyond) {
                    true => Err(format!("{:?} was refused and nothing is there", asked.what)),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Compares what an engine has after a start with what was acknowledged. What was asked for and
    /// not answered may have happened.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn reconcile(
        &mut self,
        asked: Option<Asked>,
        site: &mut Site<'_>,
        at: Moment,
    ) -> Result<(), String> {
        if let Some(asked) = asked {
            match self.has_happened(&asked, &site.engine.borrow())? {
                Some((true, id)) => _ = self.happened(asked, id, site, at)?,
                Some((false, _)) => {
                    self.refused(&asked, site).or_else(|error| match asked.what {
                        What::Restore { .. } => Err(error),
                        _ => Ok(()),
                    })?
                }
                None => {}
            }
        }
        self.compare(&site.engine.borrow())
    }

    /// Whether it has, and the (first) id that it brought; `None` when it cannot be told yet.
    fn has_happened(
        &self,
        asked: &Asked,
        engine: &Engine,
    ) -> Result<Option<(bool, VolumeId)>, String> {
        let size_of = |number| engine.volume(self.volumes[&number].id).map(|v| v.size);
        Ok(Some(match &asked.what {
            What::Create(_, known) | What::Clone { known, .. } => {
                let found = engine.volume_by_name(&known.volume_name());
                (found.is_some(), found.map_or(VolumeId(0), |volume| volume.id))
            }
            What::Delete(number) => {
                let id = self.get(*number).id;
                (engine.volume(id).is_none() && engine.snapshot(id).is_none(), id)
            }
            What::Resize(number, bytes) => (size_of(*number) == Some(*bytes), VolumeId(0)),
            What::Snapshot(group) => {
                let all = engine.snapshots();
                let made = |known: &Known| all.iter().find(|s| s.uuid == known.snapshot_uuid());
                let ids: Vec<VolumeId> =
                    group.iter().filter_map(|(_, known, _)| made(known)).map(|s| s.id).collect();
                if !ids.len().is_multiple_of(group.len()) {
                    return Err(format!("of a group of snapshots there are {ids:?}: {group:?}"));
                }
                (!ids.is_empty(), ids.first().copied().unwrap_or(VolumeId(0)))
            }
            What::Restore { volume, bytes, .. } if self.volumes[volume].bytes < *bytes => {
                (size_of(*volume) == Some(*bytes), VolumeId(0))
            }
            What::Restore { .. } => return Ok(None),
        }))
    }

    fn compare(&self, engine: &Engine) -> Result<(), String> {
        let (volumes, snapshots) = (engine.volumes(), engine.snapshots());
        for (number, known) in &self.volumes {
            let found = volumes.iter().find(|volume| volume.id == known.id);
            let found = found.ok_or_else(|| format!("volume {number} is gone: {known:?}"))?;
            let same = found.name == known.volume_name()
                && found.uuid == known.volume_uuid()
                && found.size == known.bytes
                && found.block_bytes == known.block_size;
            if !same {
                return Err(format!("volume {number} was {known:?} and is {found:?}"));
            }
        }
        for (number, known) in &self.snapshots {
            let found = snapshots.iter().find(|snapshot| snapshot.id == known.id);
            let found = found.ok_or_else(|| format!("snapshot {number} is gone: {known:?}"))?;
            let same = found.name == known.snapshot_name()
                && found.uuid == known.snapshot_uuid()
                && found.volume == known.parent
                && found.size == known.bytes
                && found.block_bytes == known.block_size;
            if !same {
                return Err(format!("snapshot {number} was {known:?} and is {found:?}"));
            }
        }
        match (volumes.len(), snapshots.len()) == (self.volumes.len(), self.snapshots.len()) {
            true => Ok(()),
            false => Err(format!("there are {volumes:?}, {snapshots:?}, and should be {self:?}")),
        }
    }
}

pub(crate) fn extents_of(bytes: u64) -> u64 {
    bytes.div_ceil(store::EXTENT_BYTES)
}

fn uuid_of(kind: u8, slot: u32) -> [u8; 16] {
    let mut uuid = [kind; 16];
    uuid[..4].copy_from_slice(&slot.to_le_bytes());
    uuid
}
