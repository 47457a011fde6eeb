//! Volumes in memory, or in nothing: for demonstrations, benchmarks and tests.

use std::os::fd::RawFd;
use std::rc::Rc;

use bdev::{Bdev, Instant, NullDisk, Pool, Queue, QueueCx, RamDisk};

use super::{Keeper, Store};
use crate::command::{
    Answer, NodeError, Notices, Qos, StoreStatus, Task, VolumeId, VolumeSpec, VolumeStatus,
};
use crate::limits::{QUEUE_DEPTH, RAM_VOLUMES_MAX};

/// What the volumes keep their blocks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    Memory,
    /// What is written is forgotten.
    Nothing,
}

pub(crate) struct RamStore {
    medium: Medium,
    bytes: u64,
    volumes: Vec<Volume>,
    ids: u32,
    pool: Rc<Pool>,
    answer: Option<Result<Answer, NodeError>>,
}

struct Volume {
    id: VolumeId,
    spec: VolumeSpec,
    disk: Box<dyn Bdev>,
}

impl RamStore {
    /// An empty store; its first answer is that it is open.
    pub(crate) fn new(medium: Medium, bytes: u64, pool: Rc<Pool>) -> RamStore {
        let volumes = Vec::new();
        let mut store = RamStore { medium, bytes, volumes, ids: 0, pool, answer: None };
        store.answer = Some(Ok(Answer::Store(Box::new(store.status()))));
        store
    }

    fn run(&mut self, task: &Task) -> Result<Answer, NodeError> {
        match task {
            Task::Create(spec) => self.create(spec).map(Answer::Volume),
            Task::Resize { volume, bytes, shrink: _ } => {
                let known = self.volumes.iter().find(|known| known.id == *volume);
                let known = known.ok_or(NodeError::NoSuchVolume)?;
                match known.spec.bytes == *bytes {
                    true => Ok(Answer::Volume(known.status())),
                    false => {
                        Err(NodeError::Invalid("a volume in memory keeps its size".to_owned()))
                    }
                }
            }
            Task::Delete { volume } => {
                let at = self.volumes.iter().position(|known| known.id == *volume);
                self.volumes.remove(at.ok_or(NodeError::NoSuchVolume)?);
                Ok(Answer::Done)
            }
            Task::Clone(_)
            | Task::Restore { .. }
            | Task::Snapshots(_)
            | Task::Limit { .. }
            | Task::Scrub { .. }
            | Task::Check
            | Task::Diff { .. }
            | Task::CountUnique { .. } => Err(NodeError::Invalid(
                "a store in memory has no snapshots, limits or scrub".to_owned(),
            )),
        }
    }

    fn create(&mut self, spec: &VolumeSpec) -> Result<VolumeStatus, NodeError> {
        if self.volumes.iter().any(|volume| volume.spec.name == spec.name) {
            return Err(NodeError::NameTaken);
        }
        if self.volumes.len() == RAM_VOLUMES_MAX {
            return Err(NodeError::TooMany { what: "volumes in memory", max: RAM_VOLUMES_MAX });
        }
        let VolumeSpec { bytes, block_size, .. } = *spec;
        let whole = matches!(block_size, 512 | 4096) && bytes > 0;
        if !whole || !bytes.is_multiple_of(u64::from(block_size)) {
            return Err(NodeError::Invalid("the size is not a whole number of blocks".to_owned()));
        }
        if self.used().saturating_add(bytes) > self.bytes {
            return Err(NodeError::NoSpace);
        }
        let blocks = bytes / u64::from(block_size);
        let disk: Box<dyn Bdev> = match self.medium {
            Medium::Nothing => Box::new(NullDisk::new(block_size, blocks)),
            Medium::Memory => {
                let disk = RamDisk::new(block_size, blocks);
                let no_memory = |error| format!("memory for the volume: {error}");
                Box::new(disk.map_err(|error| NodeError::Device(no_memory(error)))?)
            }
        };
        self.ids += 1;
        let volume = Volume { id: VolumeId(self.ids), spec: spec.clone(), disk };
        let status = volume.status();
        self.volumes.push(volume);
        Ok(status)
    }

    fn used(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.spec.bytes).sum()
    }
}

impl Volume {
    fn status(&self) -> VolumeStatus {
        let VolumeSpec { name, uuid, bytes, block_size } = self.spec.clone();
        VolumeStatus {
            id: self.id,
            name,
            uuid,
            bytes,
            block_size,
            used_bytes: bytes,
            persists: false,
            qos: Qos::default(),
            throttled: 0,
            throttled_ns: 0,
        }
    }
}

impl Store for RamStore {
    fn drive(&mut self, _now: Instant) -> bool {
        false
    }

    fn must_poll(&self) -> bool {
        false
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn begin(&mut self, task: &Task) -> Result<(), NodeError> {
        if self.answer.is_some() {
            return Err(NodeError::Busy);
        }
        self.answer = Some(self.run(task));
        Ok(())
    }

    fn poll_task(&mut self) -> Option<Result<Answer, NodeError>> {
        self.answer.take()
    }

    fn open(&mut self, volume: VolumeId) -> Result<(Box<dyn Queue>, u32), NodeError> {
        let volume = self.volumes.iter().find(|known| known.id == volume);
        let volume = volume.ok_or(NodeError::NoSuchVolume)?;
        let queue = volume.disk.open(&QueueCx::new(&self.pool).depth(QUEUE_DEPTH));
        let queue = queue.map_err(|error| NodeError::Device(error.to_string()))?;
        Ok((queue, volume.spec.block_size))
    }

    fn uuid(&self, volume: VolumeId) -> Result<[u8; 16], NodeError> {
        let volume = self.volumes.iter().find(|known| known.id == volume);
        volume.map(|volume| volume.spec.uuid).ok_or(NodeError::NoSuchVolume)
    }

    fn keeper(&mut self) -> Option<&mut Keeper> {
        None
    }

    fn status(&self) -> StoreStatus {
        StoreStatus {
            capacity_bytes: self.bytes,
            used_bytes: self.used(),
            volumes: self.volumes.iter().map(Volume::status).collect(),
            ..StoreStatus::default()
        }
    }

    fn check_status(&self) -> volume::CheckStatus {
        volume::CheckStatus::Never
    }

    fn take_notices(&mut self) -> Notices {
        Notices::default()
    }

    fn set_unix_time(&mut self, _seconds: u64) {}

    fn close(&mut self) {}

    fn is_closed(&self) -> bool {
        true
    }
}
