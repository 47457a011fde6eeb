//! Volumes come, go and grow: one log record each, one at a time.

use bdev::{Fifo, Status};
use store::{VolumeError, VolumeId, VolumeSpec};

use crate::core::{Core, QueueState, volume_info};
use crate::error::{ControlError, Event, Token};
use crate::limits::CONTROLS_MAX;

/// What a new volume is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewVolume<'a> {
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its name, unique in the store.
    pub name: &'a str,
    /// Its size in bytes; a multiple of 4 KiB.
    pub size: u64,
    /// Bytes in a logical block: 512 or 4096.
    pub block_bytes: u32,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Delete,
    Resize,
}

/// A control operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) token: Token,
    pub(crate) verb: Verb,
    /// The volume; of one to be created, known when it is logged.
    pub(crate) id: VolumeId,
    pub(crate) size: u64,
    uuid: [u8; 16],
    block_bytes: u32,
    name: [u8; store::NAME_BYTES_MAX],
    name_len: usize,
}

/// Bytes of the body of a Create record.
pub(crate) const BODY_BYTES: usize = 96;

const _: () = assert!(BODY_BYTES == 32 + store::NAME_BYTES_MAX);
const _: () = assert!(BODY_BYTES <= wal::RECORD_BODY_MAX);

impl Control {
    pub(crate) fn new(token: Token, verb: Verb, id: VolumeId) -> Control {
        let name = [0; store::NAME_BYTES_MAX];
        let (uuid, size, block_bytes, name_len) = ([0; 16], 0, 0, 0);
        Control { token, verb, id, size, uuid, block_bytes, name, name_len }
    }

    /// A creation; the catalog checks the values when its turn comes.
    pub(crate) fn create(token: Token, volume: &NewVolume<'_>) -> Result<Control, VolumeError> {
        let mut control = Control::new(token, Verb::Create, VolumeId(0));
        let bytes = volume.name.as_bytes();
        let target = control.name.get_mut(..bytes.len()).ok_or(VolumeError::Name)?;
        target.copy_from_slice(bytes);
        control.name_len = bytes.len();
        (control.uuid, control.size) = (volume.uuid, volume.size);
        control.block_bytes = volume.block_bytes;
        Ok(control)
    }

    fn name(&self) -> &str {
        std::str::from_utf8(&self.name[..self.name_len]).unwrap_or("")
    }

    pub(crate) fn spec(&self) -> VolumeSpec<'_> {
        VolumeSpec {
            id: self.id,
            uuid: self.uuid,
            name: self.name(),
            size: self.size,
            block_bytes: self.block_bytes,
        }
    }

    /// The body of a Create record, as `docs/formats/log.md` lays it out.
    pub(crate) fn body(&self) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        body[..16].copy_from_slice(&self.uuid);
        body[16..24].copy_from_slice(&self.size.to_le_bytes());
        body[24..28].copy_from_slice(&self.block_bytes.to_le_bytes());
        let len = u16::try_from(self.name_len).expect("at most 64");
        body[28..30].copy_from_slice(&len.to_le_bytes());
        body[32..].copy_from_slice(&self.name);
        body
    }

    /// Reads the body of a Create record. `None` when it is not one.
    pub(crate) fn from_body(id: VolumeId, body: &[u8]) -> Option<Control> {
        let mut control = Control::new(Token(0), Verb::Create, id);
        if body.len() != BODY_BYTES {
            return None;
        }
        control.uuid.copy_from_slice(body.get(..16)?);
        control.size = u64::from_le_bytes(body.get(16..24)?.try_into().ok()?);
        control.block_bytes = u32::from_le_bytes(body.get(24..28)?.try_into().ok()?);
        control.name_len = usize::from(u16::from_le_bytes(body.get(28..30)?.try_into().ok()?));
        control.name.copy_from_slice(body.get(32..)?);
        std::str::from_utf8(control.name.get(..control.name_len)?).ok()?;
        Some(control)
    }
}

/// How far the first control operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Waiting,
    Logged,
    /// Durable; the catalog changes as soon as no checkpoint runs.
    Durable,
}

/// The control operations that wait, in order.
#[derive(Debug)]
pub(crate) struct Controls {
    waiting: Fifo<Control>,
    first: First,
    next_token: u64,
    /// A creation waits until no checkpoint knows the volumes that were deleted.
    pub(crate) wants_checkpoint: bool,
}

impl Controls {
    pub(crate) fn new() -> Controls {
        let (waiting, first) = (Fifo::new(CONTROLS_MAX), First::Waiting);
        Controls { waiting, first, next_token: 1, wants_checkpoint: false }
    }

    /// True when the log says more about volumes than the catalog.
    pub(crate) fn is_ahead(&self) -> bool {
        self.first == First::Durable
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn next_token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token - 1)
    }
}

impl Core {
    /// Queues a control operation.
    pub(crate) fn control(&mut self, control: Control) -> Result<Token, ControlError> {
        if self.draining || self.failed.is_some() {
            return Err(ControlError::NotReady);
        }
        if self.events.room() <= self.controls.waiting.len() {
            return Err(ControlError::Busy); // Nobody fetches the answers.
        }
        self.controls.waiting.push(control).map_err(|_| ControlError::Busy)?;
        Ok(control.token)
    }

    /// Checks and logs the next control operation, if the one before is done.
    pub(crate) fn drive_controls(&mut self) {
        if self.controls.is_ahead() && !self.store.is_checkpointing() {
            self.apply_control();
        }
        self.controls.wants_checkpoint = false;
        while self.controls.first == First::Waiting {
            let Some(mut control) = self.controls.waiting.front().copied() else { return };
            let closing =
                |(_, queue): (u32, &QueueState)| queue.volume == control.id.0 && queue.closed;
            if control.verb == Verb::Delete && self.queues.iter().any(closing) {
                return; // What a dropped queue had in flight ends first.
            }
            let healthy = self.failed.is_none();
            if healthy && control.verb == Verb::Create && !self.checkpoint.forgot_deleted() {
                // A replay must not find the old volume in the way of the new one.
                self.controls.wants_checkpoint = true;
                return;
            }
            let checked = match self.failed {
                Some(status) => Err(ControlError::Device(status)),
                None => self.check_control(&mut control),
            };
            if let Err(error) = checked {
                self.controls.waiting.pop();
                self.answer(control.token, Err(error));
                continue;
            }
            if !self.log_control(&control) {
                return;
            }
            *self.controls.waiting.front_mut().expect("just seen") = control;
            self.controls.first = First::Logged;
        }
    }

    fn check_control(&mut self, control: &mut Control) -> Result<(), ControlError> {
        let unknown = ControlError::Volume(VolumeError::Unknown);
        match control.verb {
            Verb::Create => {
                control.id = self.store.next_volume_id();
                self.check_new(&control.spec()).map_err(ControlError::Volume)
            }
            Verb::Delete => {
                let known = self.store.volume(control.id).is_some_and(|v| v.is_active());
                let open = self.queues.iter().any(|(_, q)| q.volume == control.id.0);
                match (known, open) {
                    (false, _) => Err(unknown),
                    (true, true) => Err(ControlError::InUse),
                    (true, false) => Ok(()),
                }
            }
            Verb::Resize => {
                let volume = self.store.volume(control.id).filter(|v| v.is_active());
                let size = volume.ok_or(unknown)?.size_bytes();
                let block = crate::device::BLOCK as u64;
                if control.size > store::VOLUME_BYTES_MAX || !control.size.is_multiple_of(block) {
                    return Err(ControlError::Volume(VolumeError::Size));
                }
                if control.size < size { Err(ControlError::Shrink) } else { Ok(()) }
            }
        }
    }

    /// What the catalog would say, asked before the record is written.
    fn check_new(&self, spec: &VolumeSpec<'_>) -> Result<(), VolumeError> {
        let block = crate::device::BLOCK as u64;
        if spec.name.is_empty() {
            return Err(VolumeError::Name);
        }
        if !matches!(spec.block_bytes, 512 | 4096) {
            return Err(VolumeError::BlockSize);
        }
        let sizes = block..=store::VOLUME_BYTES_MAX;
        if !sizes.contains(&spec.size) || !spec.size.is_multiple_of(block) {
            return Err(VolumeError::Size);
        }
        let mut count = 0;
        for volume in self.store.volumes() {
            count += 1;
            let same_name = volume.is_active() && volume.name_str() == spec.name;
            if same_name || volume.uuid == spec.uuid {
                return Err(VolumeError::Exists);
            }
        }
        if count >= store::VOLUMES_MAX { Err(VolumeError::TooMany) } else { Ok(()) }
    }

    /// The record of the first control operation is durable.
    pub(crate) fn on_control_durable(&mut self) {
        assert_eq!(self.controls.first, First::Logged);
        self.controls.first = First::Durable;
    }

    /// A durable control operation takes effect.
    fn apply_control(&mut self) {
        let control = self.controls.waiting.pop().expect("it waits until it is applied");
        self.controls.first = First::Waiting;
        let done = match control.verb {
            Verb::Create => self.store.create_volume(&control.spec()),
            Verb::Delete => {
                self.store.delete_volume(control.id);
                self.checkpoint.deleted();
                Ok(())
            }
            Verb::Resize => self.store.resize_volume(control.id, control.size),
        };
        if control.verb == Verb::Resize && done.is_ok() {
            for (_, queue) in self.queues.iter_mut().filter(|(_, q)| q.volume == control.id.0) {
                queue.info = volume_info(control.size, queue.info.block_size);
            }
        }
        self.written_at = self.now;
        self.answer(control.token, done.map(|()| control.id).map_err(ControlError::Volume));
    }

    /// The record of the first control operation will never be durable.
    pub(crate) fn on_control_failed(&mut self, status: Status) {
        let control = self.controls.waiting.pop().expect("its record was pending");
        self.controls.first = First::Waiting;
        self.answer(control.token, Err(ControlError::Device(status)));
    }

    fn answer(&mut self, token: Token, result: Result<VolumeId, ControlError>) {
        let pushed = self.events.push(Event::Control { token, result });
        assert!(pushed.is_ok(), "a place was kept when the operation was taken");
    }
}
