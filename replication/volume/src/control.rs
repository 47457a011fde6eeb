//! Volumes and snapshots come, go and change: control operations, one at a time.
//!
//! ```text
//!   Waiting --checked, logged--> Logged --durable--> Durable --no checkpoint runs--> applied
//!      |                           |  `--snapshot, restore: takes effect at once--> answered
//!      `--refused--> answered      `--device failed the log--> answered
//! ```
//!
//! What concerns a snapshot that is in the log only (its deletion, a clone of it, a restore to it,
//! a new size for its volume) waits until it is in the map, so a replay meets a barrier only with
//! the catalog that it was logged with.

use std::collections::VecDeque;

use bdev::{Fifo, Status};
use store::{NodeKind, NodeSpec, VolumeError, VolumeId, VolumeRecord};

use crate::core::{Core, QueueState};
use crate::details::Details;
use crate::error::{ControlError, Event, Token};
use crate::layers::{Barrier, BarrierKind};
use crate::limits::{CONTROLS_MAX, SNAPSHOT_GROUP_MAX};

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
    Clone {
        snapshot: u32,
    },
    Delete,
    Resize {
        shrink: Shrink,
    },
    /// Of `count` volumes, which wait in [`Controls::members`].
    Snapshot,
    Restore {
        snapshot: u32,
        /// The id for what the volume was before, known when it is logged.
        former: u32,
    },
}

/// Whether a volume may get smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrink {
    /// It may not.
    Refuse,
    /// When nothing is written beyond the new size: neither in the map nor in the log. Requests
    /// beyond it are refused from the moment at which that is looked at.
    IfEmpty,
}

/// A control operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) token: Token,
    pub(crate) verb: Verb,
    /// The node; of one to be created, known when it is logged. Of a group of snapshots, the
    /// first: the others follow.
    pub(crate) id: VolumeId,
    pub(crate) details: Details,
    /// Snapshots in the group.
    pub(crate) count: usize,
}

impl Control {
    pub(crate) fn new(token: Token, verb: Verb, id: VolumeId, details: Details) -> Control {
        Control { token, verb, id, details, count: 0 }
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

/// Snapshots of groups that wait; beyond it further groups are refused.
const MEMBERS_MAX: usize = 2 * SNAPSHOT_GROUP_MAX;

/// The control operations that wait, in order.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) waiting: Fifo<Control>,
    first: First,
    next_token: u64,
    /// Volumes of the groups of snapshots that wait, in the same order, and the new snapshots.
    members: VecDeque<(u32, Details)>,
    /// Records of the first control operation that became durable.
    durable: u32,
    /// A creation waits until no checkpoint knows the volumes that were deleted.
    pub(crate) wants_checkpoint: bool,
    /// An operation waits until the snapshots in the log are in the map.
    pub(crate) wants_barriers: bool,
}

impl Controls {
    pub(crate) fn new() -> Controls {
        Controls {
            waiting: Fifo::new(CONTROLS_MAX),
            first: First::Waiting,
            next_token: 1,
            members: VecDeque::with_capacity(MEMBERS_MAX),
            durable: 0,
            wants_checkpoint: false,
            wants_barriers: false,
        }
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

    pub(crate) fn members_room(&self) -> usize {
        MEMBERS_MAX - self.members.len()
    }

    pub(crate) fn push_member(&mut self, volume: VolumeId, details: Details) {
        assert!(self.members_room() > 0, "room was checked");
        self.members.push_back((volume.0, details));
    }

    /// A member of the first group of snapshots.
    pub(crate) fn member(&self, index: usize) -> (u32, Details) {
        self.members[index]
    }

    /// The volume of a member was this large when its snapshot was logged.
    pub(crate) fn set_member_size(&mut self, index: usize, size: u64, block_bytes: u32) {
        let details = &mut self.members[index].1;
        (details.size, details.block_bytes) = (size, block_bytes);
    }

    /// The members of the first group of snapshots.
    pub(crate) fn members(&self, count: usize) -> impl Iterator<Item = &(u32, Details)> {
        self.members.iter().take(count)
    }

    /// What the next record of the first operation, a snapshot or a restore, does; and whether it
    /// is its last.
    pub(crate) fn pop_barrier(&mut self) -> (Barrier, bool) {
        assert_eq!(self.first, First::Logged);
        let control = *self.waiting.front().expect("its records were pending");
        let (volume, id, what, details, last) = match control.verb {
            Verb::Restore { snapshot, former } => {
                let what = BarrierKind::Restore { snapshot };
                (control.id.0, former, what, control.details, true)
            }
            _ => {
                let (volume, details) = self.members.pop_front().expect("one for each record");
                let id = control.id.0 + self.durable;
                self.durable += 1;
                let last = self.durable as usize == control.count;
                (volume, id, BarrierKind::Snapshot, details, last)
            }
        };
        let (lsn, closed, materialised) = (0, 0, false);
        (Barrier { lsn, volume, id, what, closed, materialised, details }, last)
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
        self.controls.wants_barriers = false;
        while self.controls.first == First::Waiting {
            let Some(mut control) = self.controls.waiting.front().copied() else { return };
            let ready = match self.failed {
                Some(status) => Err(ControlError::Device(status)),
                None => self.check_control(&mut control),
            };
            match ready {
                Ok(false) => return,
                Ok(true) => {}
                Err(error) => {
                    for _ in 0..control.count {
                        self.controls.members.pop_front();
                    }
                    self.end_control(Err(error));
                    continue;
                }
            }
            if !self.log_control(&control) {
                return;
            }
            *self.controls.waiting.front_mut().expect("just seen") = control;
            self.controls.first = First::Logged;
        }
    }

    /// Whether the operation can be logged now: not yet, or never, otherwise.
    fn check_control(&mut self, control: &mut Control) -> Result<bool, ControlError> {
        match control.verb {
            Verb::Create => self.check_create(control),
            Verb::Clone { snapshot } => self.check_clone(control, VolumeId(snapshot)),
            Verb::Delete => self.check_delete(control.id),
            Verb::Resize { shrink } => self.check_resize(control, shrink),
            Verb::Snapshot => self.check_snapshots(control),
            Verb::Restore { snapshot, .. } => self.check_restore(control, VolumeId(snapshot)),
        }
    }

    fn check_create(&mut self, control: &mut Control) -> Result<bool, ControlError> {
        let details = &control.details;
        let block = crate::device::BLOCK as u64;
        let sizes = block..=store::VOLUME_BYTES_MAX;
        if !matches!(details.block_bytes, 512 | 4096) {
            return Err(ControlError::Volume(VolumeError::BlockSize));
        }
        if !sizes.contains(&details.size) || !details.size.is_multiple_of(block) {
            return Err(ControlError::Volume(VolumeError::Size));
        }
        self.check_new_volume(control)
    }

    /// A new volume, also one that is cloned, as far as the catalog is concerned.
    pub(crate) fn check_new_volume(&mut self, control: &mut Control) -> Result<bool, ControlError> {
        if !self.checkpoint.forgot_deleted() {
            // A replay must not find the old volume in the way of the new one.
            self.controls.wants_checkpoint = true;
            return Ok(false);
        }
        if self.layers.is_waiting() {
            // Nodes get into the catalog in the order of their ids.
            self.controls.wants_barriers = true;
            return Ok(false);
        }
        control.id = self.next_id(1).ok_or(ControlError::Volume(VolumeError::TooMany))?;
        let mut volumes = 0;
        for volume in self.store.volumes() {
            volumes += 1;
            let name = control.details.name();
            if volume.is_active() && volume.name_str() == name {
                return Err(ControlError::Volume(VolumeError::Exists));
            }
        }
        if self.is_uuid_taken(&control.details.uuid) {
            return Err(ControlError::Volume(VolumeError::Exists));
        }
        if volumes >= store::VOLUMES_MAX || self.node_room() == 0 {
            return Err(ControlError::Volume(VolumeError::TooMany));
        }
        Ok(true)
    }

    fn check_delete(&mut self, id: VolumeId) -> Result<bool, ControlError> {
        if self.waits_for(id) {
            return Ok(false);
        }
        let closing = |(_, queue): (u32, &QueueState)| queue.volume == id.0 && queue.closed;
        if self.queues.iter().any(closing) {
            return Ok(false); // What a dropped queue had in flight ends first.
        }
        let known = self.store.volume(id).is_some_and(VolumeRecord::is_active);
        let open = self.queues.iter().any(|(_, queue)| queue.volume == id.0);
        match (known, open) {
            (false, _) => Err(ControlError::Volume(VolumeError::Unknown)),
            (true, true) => Err(ControlError::InUse),
            (true, false) => Ok(true),
        }
    }

    /// True while snapshots in the log have to get into the map before this node can be changed.
    pub(crate) fn waits_for(&mut self, node: VolumeId) -> bool {
        let waits = self.layers.involves(node.0);
        self.controls.wants_barriers |= waits;
        waits
    }

    /// The record of an active volume.
    pub(crate) fn active_volume(&self, id: VolumeId) -> Result<&VolumeRecord, ControlError> {
        let is = |record: &&VolumeRecord| record.is_active() && record.kind() == NodeKind::Volume;
        let unknown = ControlError::Volume(VolumeError::Unknown);
        self.store.volume(id).filter(is).ok_or(unknown)
    }

    /// The record of a control operation is durable.
    pub(crate) fn on_control_durable(&mut self) {
        assert_eq!(self.controls.first, First::Logged);
        self.controls.first = First::Durable;
    }

    /// A durable control operation takes effect.
    fn apply_control(&mut self) {
        let control = *self.controls.waiting.front().expect("it waits until it is applied");
        let Control { id, details, .. } = control;
        let done = match control.verb {
            Verb::Create => self.store.create_volume(&details.spec(id.0)),
            Verb::Clone { snapshot } => {
                let spec = NodeSpec { id, uuid: details.uuid, name: details.name() };
                self.store.create_clone(VolumeId(snapshot), &spec, 0)
            }
            Verb::Delete => {
                if !bdev::planted(bdev::Planted::DeleteNotLogged) {
                    self.store.delete_volume(id);
                }
                self.layers.remove(id.0);
                self.flows.forget(id);
                self.checkpoint.deleted();
                Ok(())
            }
            Verb::Resize { .. } if bdev::planted(bdev::Planted::ResizeNotApplied) => Ok(()),
            Verb::Resize { .. } => self.store.resize_volume(id, details.size),
            Verb::Snapshot | Verb::Restore { .. } => panic!("they take effect in the layers"),
        };
        if matches!(control.verb, Verb::Resize { .. }) && done.is_ok() {
            self.set_queue_sizes(id, details.size);
        }
        self.written_at = self.now;
        self.end_control(done.map(|()| id).map_err(ControlError::Volume));
    }

    /// All records of a snapshot or a restore are durable.
    pub(crate) fn controls_done(&mut self) {
        let id = self.controls.waiting.front().expect("it waits until it is done").id;
        self.end_control(Ok(id));
    }

    /// The records of the first control operation will never be durable.
    pub(crate) fn on_control_failed(&mut self, status: Status) {
        self.end_control(Err(ControlError::Device(status)));
    }

    /// The first control operation is over.
    fn end_control(&mut self, result: Result<VolumeId, ControlError>) {
        let control = self.controls.waiting.pop().expect("it waits until it is over");
        self.controls.first = First::Waiting;
        self.controls.durable = 0;
        self.quiesced = None;
        self.end_shrink(result.is_ok());
        let pushed = self.events.push(Event::Control { token: control.token, result });
        assert!(pushed.is_ok(), "a place was kept when the operation was taken");
    }
}
