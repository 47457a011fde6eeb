//! The operator of a bare engine: asks for volumes, snapshots and clones, changes and deletes them
//! while hosts work. `nodes` knows what there must be.

use std::cell::RefCell;

use bdev::Rng;
use store::VolumeError;
use volume::{ControlError, Engine, NewClone, NewSnapshot, NewVolume, Shrink, Token, VolumeId};

use crate::bare::client::Client;
use crate::bare::nodes::{Known, Nodes, extents_of};
use crate::bare::plan::{BarePlan, SPARE_EXTENTS};
use crate::history::Moment;
use crate::workload::Ledger;

/// What was asked for and not answered.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    token: Token,
    pub(crate) what: What,
    pub(crate) began: Moment,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Create(u32, Known),
    /// A volume that starts as the snapshot `image`.
    Clone {
        number: u32,
        known: Known,
        image: u32,
    },
    /// Of a volume or a snapshot.
    Delete(u32),
    Resize(u32, u64),
    /// Snapshots, each with the volume that it is of.
    Snapshot(Vec<(u32, Known, u32)>),
    Restore {
        volume: u32,
        /// How large the volume is afterwards.
        bytes: u64,
    },
}

/// What became of something that was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// These volumes or snapshots are there now.
    Made(Vec<u32>),
    /// This volume may have another size now.
    Resized(u32),
    Deleted,
    /// The engine said no, as it may.
    Refused,
}

/// Where an operator works.
pub(crate) struct Site<'a> {
    pub(crate) plan: &'a BarePlan,
    pub(crate) engine: &'a RefCell<Engine>,
    pub(crate) client: &'a mut Client,
    pub(crate) ledger: &'a mut Ledger,
}

#[derive(Default)]
pub(crate) struct Operator {
    pub(crate) nodes: Nodes,
    pub(crate) asked: Option<Asked>,
    next: u32,
    /// Changes that were acknowledged.
    pub(crate) changes: u64,
}

/// What the operator can do to volumes and snapshots.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Create,
    Delete,
    Grow,
    Shrink,
    Snapshot,
    Group,
    DeleteSnapshot,
    Clone,
    Restore,
}

/// Volumes, and snapshots, at one time.
const VOLUMES_MAX: usize = 5;
const SNAPSHOTS_MAX: usize = 8;

/// A volume grows to at most this.
const BYTES_MAX: u64 = 16 << 20;

impl Operator {
    pub(crate) fn is_busy(&self) -> bool {
        self.asked.is_some()
    }

    /// How many volumes and snapshots were ever made or asked for.
    pub(crate) fn made(&self) -> usize {
        self.next as usize
    }

    /// Asks for a random change.
    ///
    /// # Errors
    /// When the engine refuses what it must not.
    pub(crate) fn meddle(&mut self, site: &mut Site<'_>, rng: &mut Rng) -> Result<(), String> {
        let features = site.plan.features;
        let weights = [
            (Verb::Create, 2),
            (Verb::Delete, 1),
            (Verb::Grow, 2),
            (Verb::Shrink, if features.shrinks { 3 } else { 0 }),
            (Verb::Snapshot, if features.snapshots { 6 } else { 0 }),
            (Verb::Group, if features.snapshots { 2 } else { 0 }),
            (Verb::DeleteSnapshot, if features.snapshots { 4 } else { 0 }),
            (Verb::Clone, if features.clones { 4 } else { 0 }),
            (Verb::Restore, if features.restores { 4 } else { 0 }),
        ];
        let mut draw = rng.below(weights.iter().map(|(_, weight)| weight).sum());
        let verb = weights.iter().find(|(_, weight)| {
            let found = draw < *weight;
            draw = draw.wrapping_sub(*weight);
            found
        });
        let verb = verb.expect("below the sum").0;
        match verb {
            Verb::Create | Verb::Delete | Verb::Grow | Verb::Shrink => {
                self.meddle_with_volumes(site, rng, verb)
            }
            _ => self.meddle_with_snapshots(site, rng, verb),
        }
    }

    fn meddle_with_volumes(
        &mut self,
        site: &mut Site<'_>,
        rng: &mut Rng,
        verb: Verb,
    ) -> Result<(), String> {
        let count = self.nodes.volumes.len();
        let Some(index) = rng.index(count) else { return Ok(()) };
        let (&number, known) = self.nodes.volumes.iter().nth(index).expect("counted");
        let bytes = known.bytes;
        match verb {
            Verb::Delete if count > 1 => self.delete(site, number),
            Verb::Create if count < VOLUMES_MAX => {
                let bytes = rng.between(1, 16) * store::EXTENT_BYTES;
                let block_size = if rng.chance(1, 3) { 512 } else { 4096 };
                match self.fits(site.plan, bytes) {
                    true => self.create(site, (bytes, block_size)),
                    false => Ok(()),
                }
            }
            Verb::Shrink => {
                let less = rng.below(bytes / 4096) * 4096;
                self.resize(site, number, (bytes - less / 2) & !4095)
            }
            Verb::Grow if bytes < BYTES_MAX => {
                let more = rng.between(0, 64) << 12;
                match self.fits(site.plan, more) {
                    true => self.resize(site, number, bytes + more),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn meddle_with_snapshots(
        &mut self,
        site: &mut Site<'_>,
        rng: &mut Rng,
        verb: Verb,
    ) -> Result<(), String> {
        let volumes: Vec<u32> = self.nodes.volumes.keys().copied().collect();
        if let Verb::Group = verb {
            let of: Vec<u32> = volumes.into_iter().filter(|_| rng.chance(2, 3)).collect();
            return self.snapshot(site, &of);
        }
        if let Verb::Snapshot = verb {
            let index = rng.index(volumes.len());
            return index.map_or(Ok(()), |index| self.snapshot(site, &volumes[index..=index]));
        }
        let Some(index) = rng.index(self.nodes.snapshots.len()) else { return Ok(()) };
        let (&image, known) = self.nodes.snapshots.iter().nth(index).expect("counted");
        let known = known.clone();
        match verb {
            Verb::DeleteSnapshot => self.delete(site, image),
            Verb::Clone if volumes.len() < VOLUMES_MAX && self.fits(site.plan, known.bytes) => {
                self.clone_of(site, image)
            }
            Verb::Restore => {
                let related = self.nodes.volumes.iter().filter(|(_, v)| v.family == known.family);
                let related: Vec<u32> = related.map(|(&number, _)| number).collect();
                let Some(index) = rng.index(related.len()) else { return Ok(()) };
                let fits = self.fits(site.plan, known.bytes);
                if fits { self.restore(site, related[index], image) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// Whether there is certainly room for so many bytes more, or nobody counts on it.
    fn fits(&self, plan: &BarePlan, bytes: u64) -> bool {
        let all = plan.disk.bytes / store::EXTENT_BYTES;
        plan.crowded || self.nodes.extents() + extents_of(bytes) + SPARE_EXTENTS <= all
    }

    /// Asks for a volume of this shape.
    ///
    /// # Errors
    /// When the engine refuses what it must not.
    pub(crate) fn create(
        &mut self,
        site: &mut Site<'_>,
        (bytes, block_size): (u64, u32),
    ) -> Result<(), String> {
        self.next += 1;
        let number = self.next;
        let (slot, parent) = (self.nodes.free_volume_slot(), VolumeId(0));
        let known = Known { slot, id: VolumeId(0), bytes, block_size, family: number, parent };
        let (name, uuid) = (known.volume_name(), known.volume_uuid());
        let new = NewVolume { uuid, name: &name, size: bytes, block_bytes: block_size };
        let token = site.engine.borrow_mut().create_volume(&new);
        self.ask(site, token, What::Create(number, known))
    }

    fn clone_of(&mut self, site: &mut Site<'_>, image: u32) -> Result<(), String> {
        self.next += 1;
        let number = self.next;
        let of = &self.nodes.snapshots[&image];
        let (slot, parent) = (self.nodes.free_volume_slot(), of.id);
        let known = Known { slot, id: VolumeId(0), parent, ..of.clone() };
        let name = known.volume_name();
        let clone = NewClone { uuid: known.volume_uuid(), name: &name };
        let token = site.engine.borrow_mut().clone_snapshot(parent, &clone);
        self.ask(site, token, What::Clone { number, known, image })
    }

    fn snapshot(&mut self, site: &mut Site<'_>, volumes: &[u32]) -> Result<(), String> {
        let bytes = volumes.iter().map(|number| self.nodes.volumes[number].bytes).sum();
        let count = self.nodes.snapshots.len() + volumes.len();
        if volumes.is_empty() || count > SNAPSHOTS_MAX || !self.fits(site.plan, bytes) {
            return Ok(());
        }
        let slots = self.nodes.free_snapshot_slots();
        let group: Vec<(u32, Known, u32)> = slots
            .zip(volumes)
            .zip(self.next + 1..)
            .map(|((slot, volume), number)| {
                let of = &self.nodes.volumes[volume];
                let known = Known { slot, id: VolumeId(0), parent: of.id, ..of.clone() };
                (number, known, *volume)
            })
            .collect();
        self.next += u32::try_from(group.len()).expect("few");
        let names: Vec<String> = group.iter().map(|(_, known, _)| known.snapshot_name()).collect();
        let new = |((_, known, _), name): (&(u32, Known, u32), _)| {
            let name: &String = name;
            (known.parent, known.snapshot_uuid(), name.clone())
        };
        let parts: Vec<_> = group.iter().zip(&names).map(new).collect();
        let new: Vec<NewSnapshot<'_>> = parts
            .iter()
            .map(|(volume, uuid, name)| NewSnapshot { volume: *volume, uuid: *uuid, name })
            .collect();
        let token = site.engine.borrow_mut().create_snapshots(&new);
        self.ask(site, token, What::Snapshot(group))
    }

    fn restore(&mut self, site: &mut Site<'_>, volume: u32, image: u32) -> Result<(), String> {
        let (known, of) = (&self.nodes.volumes[&volume], &self.nodes.snapshots[&image]);
        let bytes = known.bytes.max(of.bytes);
        let blocks = bytes / u64::from(known.block_size);
        let token = site.engine.borrow_mut().restore_volume(known.id, of.id);
        let began = site.ledger.moment + 1;
        self.ask(site, token, What::Restore { volume, bytes })?;
        if self.is_busy() {
            site.ledger.history.begin_restore(volume, blocks, image, began);
        }
        Ok(())
    }

    fn resize(&mut self, site: &mut Site<'_>, number: u32, bytes: u64) -> Result<(), String> {
        let known = &self.nodes.volumes[&number];
        let token = site.engine.borrow_mut().resize_volume(known.id, bytes, Shrink::IfEmpty);
        let shrinks = (bytes < known.bytes).then(|| bytes / u64::from(known.block_size));
        self.ask(site, token, What::Resize(number, bytes))?;
        if let Some(target) = site.client.targets.get_mut(&number).filter(|_| self.is_busy()) {
            target.shrinks_to = shrinks;
        }
        Ok(())
    }

    /// Asks for a volume or a snapshot to be deleted.
    ///
    /// # Errors
    /// When the engine refuses what it must not.
    pub(crate) fn delete(&mut self, site: &mut Site<'_>, number: u32) -> Result<(), String> {
        site.client.close(number);
        let id = self.nodes.get(number).id;
        let token = site.engine.borrow_mut().delete_volume(id);
        self.ask(site, token, What::Delete(number))
    }

    fn ask(
        &mut self,
        site: &mut Site<'_>,
        token: Result<Token, ControlError>,
        what: What,
    ) -> Result<(), String> {
        let began = site.ledger.tick();
        match token {
            Ok(token) => self.asked = Some(Asked { token, what, began }),
            Err(ControlError::NotReady | ControlError::Busy) => {}
            Err(error) => return Err(format!("{what:?} was refused: {error}")),
        }
        Ok(())
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// When the engine refuses what it must not.
    pub(crate) fn on_answer(
        &mut self,
        token: Token,
        result: Result<VolumeId, ControlError>,
        site: &mut Site<'_>,
        at: Moment,
    ) -> Result<Outcome, String> {
        let asked = self.asked.take().filter(|asked| asked.token == token);
        let asked = asked.ok_or_else(|| format!("{token:?} was answered and not asked for"))?;
        if let What::Resize(number, _) = asked.what
            && let Some(target) = site.client.targets.get_mut(&number)
        {
            target.shrinks_to = None;
        }
        match (result, &asked.what) {
            (Ok(id), _) => {
                self.changes += 1;
                self.nodes.happened(asked, id, site, at)
            }
            (Err(ControlError::Device(_)), _) if !site.plan.is_sound() => {
                // It has happened or not: only a start tells.
                self.asked = Some(asked);
                Ok(Outcome::Refused)
            }
            (Err(ControlError::Volume(VolumeError::TooMany)), _)
            | (Err(ControlError::NotEmpty), What::Resize(..)) => {
                self.nodes.refused(&asked, site)?;
                Ok(Outcome::Refused)
            }
            // A deleted volume whose map is damaged is never given back, and keeps its UUID.
            (Err(ControlError::Volume(VolumeError::Exists)), _) if site.plan.rot => {
                self.nodes.refused(&asked, site)?;
                Ok(Outcome::Refused)
            }
            (Err(error), what) => Err(format!("{what:?} was refused: {error}")),
        }
    }
}
