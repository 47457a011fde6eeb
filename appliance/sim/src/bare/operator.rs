//! The operator of a bare engine: creates, grows and deletes volumes while hosts work, and checks
//! after each start that what was acknowledged is so.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bdev::Rng;
use store::VolumeError;
use volume::{ControlError, Engine, NewVolume, Shrink, Token, Volume, VolumeId};

use crate::history::Moment;

/// A volume as the operator knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Names and UUIDs are used again once a volume is gone.
    slot: u32,
    /// Its id, once it was created.
    pub(crate) id: VolumeId,
    pub(crate) bytes: u64,
    pub(crate) block_size: u32,
    /// Whose contents it started with.
    pub(crate) family: u32,
}

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
    Delete(u32),
    Grow(u32, u64),
}

/// What became of something that was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Created(u32),
    Deleted(u32),
    Grown(u32, u64),
    /// The engine said no, as it may.
    Refused,
}

#[derive(Default)]
pub(crate) struct Operator {
    pub(crate) volumes: BTreeMap<u32, Known>,
    pub(crate) asked: Option<Asked>,
    next: u32,
    /// Changes that were acknowledged.
    pub(crate) changes: u64,
}

/// Volumes at one time.
const VOLUMES_MAX: usize = 5;

/// A volume grows to at most this.
const BYTES_MAX: u64 = 16 << 20;

impl Operator {
    pub(crate) fn is_busy(&self) -> bool {
        self.asked.is_some()
    }

    /// How many volumes were ever made or asked for.
    pub(crate) fn made(&self) -> usize {
        self.next as usize
    }

    /// Asks for a volume of this shape.
    ///
    /// # Errors
    /// When the engine refuses what it must not.
    pub(crate) fn create(
        &mut self,
        engine: &RefCell<Engine>,
        (bytes, block_size): (u64, u32),
        began: Moment,
    ) -> Result<(), String> {
        self.next += 1;
        let number = self.next;
        let taken = |slot: &u32| self.volumes.values().any(|known| known.slot == *slot);
        let slot = (0u32..).find(|slot| !taken(slot)).expect("few volumes");
        let mut uuid = [0xee; 16];
        uuid[..4].copy_from_slice(&slot.to_le_bytes());
        let name = name_of(slot);
        let new = NewVolume { uuid, name: &name, size: bytes, block_bytes: block_size };
        let known = Known { slot, id: VolumeId(0), bytes, block_size, family: number };
        let token = engine.borrow_mut().create_volume(&new);
        self.ask(token, What::Create(number, known), began)
    }

    /// Asks for a random change. The volume whose queue must be closed first, if there is one.
    ///
    /// # Errors
    /// When the engine refuses what it must not.
    pub(crate) fn meddle(
        &mut self,
        engine: &RefCell<Engine>,
        rng: &mut Rng,
        began: Moment,
        close: impl FnOnce(u32),
    ) -> Result<(), String> {
        let Some(index) = rng.index(self.volumes.len()) else { return Ok(()) };
        let (&number, known) = self.volumes.iter().nth(index).expect("counted");
        let (id, bytes) = (known.id, known.bytes);
        match rng.below(6) {
            0 if self.volumes.len() > 1 => self.delete(engine, number, began, close),
            1 | 2 if self.volumes.len() < VOLUMES_MAX => {
                let bytes = rng.between(1, 16) * store::EXTENT_BYTES;
                let block_size = if rng.chance(1, 3) { 512 } else { 4096 };
                self.create(engine, (bytes, block_size), began)
            }
            _ if bytes < BYTES_MAX => {
                let more = rng.between(0, 64) << 12;
                let token = engine.borrow_mut().resize_volume(id, bytes + more, Shrink::Refuse);
                self.ask(token, What::Grow(number, bytes + more), began)
            }
            _ => Ok(()),
        }
    }

    /// Asks for a volume to be deleted.
    ///
    /// # Errors
    /// When the engine refuses what it must not.
    pub(crate) fn delete(
        &mut self,
        engine: &RefCell<Engine>,
        number: u32,
        began: Moment,
        close: impl FnOnce(u32),
    ) -> Result<(), String> {
        close(number);
        let token = engine.borrow_mut().delete_volume(self.volumes[&number].id);
        self.ask(token, What::Delete(number), began)
    }

    fn ask(
        &mut self,
        token: Result<Token, ControlError>,
        what: What,
        began: Moment,
    ) -> Result<(), String> {
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
        forgiving: bool,
    ) -> Result<Outcome, String> {
        let asked = self.asked.take().filter(|asked| asked.token == token);
        let asked = asked.ok_or_else(|| format!("{token:?} was answered and not asked for"))?;
        let id = match result {
            Ok(id) => id,
            Err(ControlError::Device(_)) if forgiving => {
                // It has happened or not: only a start tells.
                self.asked = Some(asked);
                return Ok(Outcome::Refused);
            }
            Err(ControlError::Volume(VolumeError::TooMany)) => return Ok(Outcome::Refused),
            Err(error) => return Err(format!("{:?} was refused: {error}", asked.what)),
        };
        self.changes += 1;
        Ok(match asked.what {
            What::Create(number, known) => {
                self.volumes.insert(number, Known { id, ..known });
                Outcome::Created(number)
            }
            What::Delete(number) => {
                self.volumes.remove(&number);
                Outcome::Deleted(number)
            }
            What::Grow(number, bytes) => {
                self.volumes.get_mut(&number).expect("it is not deleted meanwhile").bytes = bytes;
                Outcome::Grown(number, bytes)
            }
        })
    }

    /// Compares what the engine has after a start with what was acknowledged. Volumes that are no
    /// more because their deletion, which was not answered, has happened.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn reconcile(&mut self, found: &[Volume]) -> Result<Vec<u32>, String> {
        let asked = self.asked.take().map(|asked| asked.what);
        let mut gone = Vec::new();
        let find = |slot| found.iter().find(|volume| volume.name == name_of(slot));
        match asked {
            Some(What::Create(number, known)) => {
                if let Some(volume) = find(known.slot) {
                    self.volumes.insert(number, Known { id: volume.id, ..known });
                }
            }
            Some(What::Delete(number)) if find(self.volumes[&number].slot).is_none() => {
                self.volumes.remove(&number);
                gone.push(number);
            }
            Some(What::Grow(number, bytes)) => {
                let known = self.volumes.get_mut(&number).expect("it is not deleted meanwhile");
                if find(known.slot).is_some_and(|volume| volume.size == bytes) {
                    known.bytes = bytes;
                }
            }
            _ => {}
        }
        for (&number, known) in &self.volumes {
            let volume = find(known.slot).ok_or_else(|| format!("volume {number} is gone"))?;
            let same = volume.id == known.id
                && volume.size == known.bytes
                && volume.block_bytes == known.block_size;
            if !same {
                return Err(format!("volume {number} was {known:?} and is {volume:?}"));
            }
        }
        if found.len() != self.volumes.len() {
            return Err(format!("there are {found:?}, and should be {:?}", self.volumes));
        }
        Ok(gone)
    }
}

fn name_of(slot: u32) -> String {
    format!("volume-{slot}")
}
