//! The operator of the node under test: creates, deletes and grows volumes while hosts work, and
//! checks after each start that what was acknowledged is so.

use bdev::Rng;
use node::{NodeHandle, StoreId, Ticket, VolumeId, VolumeSpec, VolumeStatus};

/// A volume that no host uses: it comes and goes.
const SCRATCH: &str = "scratch";

/// A volume that grows, by this much at a time.
const GROW_BYTES: u64 = 4 << 20;

/// What the operator knows of the volumes, and what was asked for and not answered.
#[derive(Default)]
pub(crate) struct Operator {
    scratch: Scratch,
    serial: u64,
    /// Size of the first volume: what was acknowledged, and what was asked for last.
    size: u64,
    size_asked: u64,
    pending: Option<Pending>,
    /// Changes that were acknowledged.
    pub(crate) changes: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Scratch {
    #[default]
    Absent,
    Present(VolumeId),
    /// A change of it was not answered.
    Unknown,
}

enum Pending {
    Create(Ticket<VolumeStatus>),
    Delete(Ticket<()>),
    Resize(Ticket<VolumeStatus>),
}

impl Operator {
    /// An operator who will create the first volume with this size.
    pub(crate) fn new(bytes: u64) -> Operator {
        Operator { size: bytes, size_asked: bytes, ..Operator::default() }
    }

    /// The node died: what was asked for has happened or not.
    pub(crate) fn on_death(&mut self) {
        match self.pending.take() {
            Some(Pending::Create(_) | Pending::Delete(_)) => self.scratch = Scratch::Unknown,
            Some(Pending::Resize(_)) | None => (),
        }
    }

    /// Compares what the node says after a start with what was acknowledged.
    pub(crate) fn check(&mut self, volumes: &[VolumeStatus]) -> Result<(), String> {
        let found = volumes.iter().find(|volume| volume.name == SCRATCH).map(|found| found.id);
        match (self.scratch, found) {
            (Scratch::Absent, Some(id)) => return Err(format!("{id:?} was deleted and is back")),
            (Scratch::Present(id), found) if found != Some(id) => {
                return Err(format!("{id:?} was created and is gone"));
            }
            (_, Some(id)) => self.scratch = Scratch::Present(id),
            (_, None) => self.scratch = Scratch::Absent,
        }
        Ok(())
    }

    /// Whether the first volume may have this size after a start; it then has it.
    pub(crate) fn takes_size(&mut self, bytes: u64) -> bool {
        let right = bytes == self.size || bytes == self.size_asked;
        (self.size, self.size_asked) = (bytes, bytes);
        right
    }

    /// Asks for a change, unless one is pending.
    pub(crate) fn meddle(
        &mut self,
        rng: &mut Rng,
        control: &NodeHandle,
        store: StoreId,
        volume: (StoreId, VolumeId),
    ) -> Result<(), String> {
        // After a change that the disk failed, only a start tells what there is.
        if self.is_busy() || !self.is_sure() || self.size_asked != self.size {
            return Ok(());
        }
        let pending = if rng.chance(1, 3) {
            self.size_asked = self.size + GROW_BYTES;
            control.resize_volume(volume.0, volume.1, self.size_asked, false).map(Pending::Resize)
        } else if let Scratch::Present(id) = self.scratch {
            control.delete_volume(store, id).map(Pending::Delete)
        } else {
            self.serial += 1;
            let mut uuid = [0xee; 16];
            uuid[..8].copy_from_slice(&self.serial.to_le_bytes());
            let (name, bytes, block_size) = (SCRATCH.to_owned(), 1 << 30, 4096);
            let spec = VolumeSpec { name, uuid, bytes, block_size };
            control.create_volume(store, spec).map(Pending::Create)
        };
        self.pending = Some(pending.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Takes the answer. True when there was one; with a size, when the first volume has grown.
    pub(crate) fn poll(&mut self, forgiving: bool) -> Result<Option<Option<u64>>, String> {
        let answer = match &mut self.pending {
            None => return Ok(None),
            Some(Pending::Create(ticket)) => {
                ticket.take().map(|answer| answer.map(|volume| (Scratch::Present(volume.id), None)))
            }
            Some(Pending::Delete(ticket)) => {
                ticket.take().map(|answer| answer.map(|()| (Scratch::Absent, None)))
            }
            Some(Pending::Resize(ticket)) => {
                let scratch = self.scratch;
                ticket.take().map(|answer| answer.map(|volume| (scratch, Some(volume.bytes))))
            }
        };
        match answer {
            None => Ok(None),
            Some(Ok((scratch, size))) => {
                self.scratch = scratch;
                self.size = size.unwrap_or(self.size);
                self.changes += 1;
                self.pending = None;
                Ok(Some(size))
            }
            // The disk failed it: it has happened or not, as if the node had died.
            Some(Err(_)) if forgiving => {
                self.on_death();
                Ok(Some(None))
            }
            Some(Err(error)) => Err(format!("a change of a volume was refused: {error}")),
        }
    }

    /// Whether a change is pending.
    pub(crate) fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether it is known what there is.
    pub(crate) fn is_sure(&self) -> bool {
        self.scratch != Scratch::Unknown
    }
}
