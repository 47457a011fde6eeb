//! A store on a device: the engine as a [`Store`].

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use bdev::{Bdev, Instant, Pool, Queue, QueueCx};
use volume::{
    CheckStatus, ControlError, Engine, Event, FormatOptions, Health, NewClone, NewSnapshot,
    NewVolume, Options, Shrink, Token, VolumeQueue,
};

use super::Store;
use super::keeper::{KEEPER_NAME, Keeper};
use super::notices::Kept;
use super::walk::Walk;
use crate::command::{
    Answer, CheckSummary, CloneSpec, Format, NodeError, Notice, Notices, Qos, SnapshotSpec,
    SnapshotStatus, StoreStatus, Task, VolumeId, VolumeSpec, VolumeStatus,
};
use crate::limits::{DEVICE_QUEUE_DEPTH, QUEUE_DEPTH};

pub(crate) struct EngineStore {
    engine: Rc<RefCell<Engine>>,
    /// The answer to the opening was given.
    opened: bool,
    task: Option<(Token, Kind)>,
    walk: Option<Walk>,
    answer: Option<Result<Answer, NodeError>>,
    /// Why the engine does not write any more.
    failure: String,
    check: CheckSummary,
    notices: Kept,
    keeper: Keeper,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Answered with the volume that it made or changed.
    Volume,
    /// Answered with this volume.
    Restored(VolumeId),
    Done,
}

impl EngineStore {
    /// Begins to open the store on `device`, or to make one.
    pub(crate) fn new(
        device: &Arc<dyn Bdev>,
        format: Option<&Format>,
        pool: &Rc<Pool>,
        shard: usize,
    ) -> Result<EngineStore, NodeError> {
        let shard = u16::try_from(shard).expect("limited");
        let cx = QueueCx::new(pool).depth(DEVICE_QUEUE_DEPTH).shard(shard);
        let queue = device.open(&cx).map_err(|error| NodeError::Device(error.to_string()))?;
        let options = Options::default();
        let engine = match format {
            None => Engine::open(queue, device.info(), pool, &options),
            Some(&Format { uuid, log_bytes }) => {
                // Whether something is on the device was the control plane's question.
                let format = FormatOptions { uuid, log_bytes, overwrite: true };
                Engine::create(queue, device.info(), pool, &format, &options)
                    .map_err(|error| NodeError::Store(error.to_string()))?
            }
        };
        let engine = Rc::new(RefCell::new(engine));
        Ok(EngineStore {
            keeper: Keeper::new(&engine, pool),
            engine,
            opened: false,
            task: None,
            walk: None,
            answer: None,
            failure: String::new(),
            check: CheckSummary::default(),
            notices: Kept::new(),
        })
    }

    fn watch_opening(&mut self) {
        let engine = self.engine.borrow();
        let answer = if engine.is_ready() {
            Ok(Answer::Store(Box::new(self.status())))
        } else if let Some(error) = engine.failed() {
            Err(NodeError::Store(error.to_string()))
        } else {
            return;
        };
        drop(engine);
        self.keeper.open();
        self.opened = true;
        self.answer = Some(answer);
    }

    fn take_events(&mut self) {
        loop {
            let event = self.engine.borrow_mut().poll_event();
            match event {
                None => return,
                Some(Event::Control { token, result }) => {
                    let done = result.as_ref().map(|_| ());
                    if !self.keeper.on_control(token, done) {
                        self.finish(token, result);
                    }
                }
                Some(Event::Failed { what, status }) if self.failure.is_empty() => {
                    self.failure = format!("the device failed {what}: {status:?}");
                }
                Some(Event::Health { health: Health::Quarantined, why }) => {
                    self.failure = format!("the device is quarantined for {why}");
                }
                Some(Event::Integrity { volume, block, place, byte }) => {
                    let volume = VolumeId(volume.0);
                    self.notices.push(Notice::Block { volume, block, place, byte });
                }
                Some(Event::LogDamaged { first, last, blocks }) => {
                    self.notices.push(Notice::Log { first, last, blocks });
                }
                Some(Event::Metadata(damage)) => self.notices.push(Notice::Page(damage)),
                // States, which the status has.
                Some(_) => (),
            }
        }
    }

    /// Notes the end of a check.
    fn watch_check(&mut self) {
        if !self.check.running {
            return;
        }
        match self.engine.borrow().check_status() {
            CheckStatus::Running { .. } => return,
            CheckStatus::Done(report) => {
                self.check.done += 1;
                let listed = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
                self.check.found = listed.saturating_add(report.dropped);
                self.check.found_all = self.check.found_all.saturating_add(self.check.found);
                self.check.freed_bytes += report.freed.saturating_mul(store::EXTENT_BYTES);
            }
            CheckStatus::Never | CheckStatus::Aborted(_) => self.check.aborted += 1,
        }
        self.check.running = false;
    }

    /// Does what needs no turns.
    fn run(&mut self, task: &Task) -> Option<Result<Answer, NodeError>> {
        let mut engine = self.engine.borrow_mut();
        let done = match *task {
            Task::Limit { volume, qos } => {
                let Qos { iops, iops_burst, bytes_per_second, bytes_burst } = qos;
                let qos = volume::Qos { iops, iops_burst, bytes_per_second, bytes_burst };
                engine.set_qos(volume::VolumeId(volume.0), qos)
            }
            Task::Scrub { bytes_per_second, start: true } => engine.scrub_start(bytes_per_second),
            Task::Scrub { bytes_per_second, .. } => engine.set_scrub_rate(bytes_per_second),
            Task::Check => match engine.check_start() {
                // Whoever asks for what runs already has what he wants.
                Err(ControlError::Busy) => Ok(()),
                Ok(()) => {
                    self.check.running = true;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            _ => return None,
        };
        Some(done.map(|()| Answer::Done).map_err(error_of))
    }

    fn finish(&mut self, token: Token, result: Result<volume::VolumeId, ControlError>) {
        let Some((expected, kind)) = self.task else { return };
        if token != expected {
            return;
        }
        self.task = None;
        let answer = match (result, kind) {
            (Err(error), _) => Err(error_of(error)),
            (Ok(_), Kind::Done) => Ok(Answer::Done),
            (Ok(id), Kind::Volume) => self.volume(id),
            (Ok(_), Kind::Restored(id)) => self.volume(volume::VolumeId(id.0)),
        };
        self.answer = Some(answer);
    }

    fn volume(&self, id: volume::VolumeId) -> Result<Answer, NodeError> {
        let engine = self.engine.borrow();
        let volume = engine.volume(id).ok_or(NodeError::NoSuchVolume)?;
        Ok(Answer::Volume(status_of(&engine, volume)))
    }
}

impl Store for EngineStore {
    fn drive(&mut self, now: Instant) -> bool {
        let mut moved = self.keeper.drive();
        moved |= self.engine.borrow_mut().drive(now);
        if !self.opened {
            self.watch_opening();
        }
        self.take_events();
        self.watch_check();
        if let Some(mut walk) = self.walk.take() {
            match walk.step(&mut self.engine.borrow_mut()) {
                Some(answer) => self.answer = Some(answer),
                None => self.walk = Some(walk),
            }
        }
        moved
    }

    fn must_poll(&self) -> bool {
        let engine = self.engine.borrow();
        engine.device_in_flight() > 0 && engine.wait_fd().is_none()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.engine.borrow().wait_fd()
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.engine.borrow().next_timeout()
    }

    fn begin(&mut self, task: &Task) -> Result<(), NodeError> {
        if self.task.is_some() || self.walk.is_some() || self.answer.is_some() {
            return Err(NodeError::Busy);
        }
        if let Some(walk) = Walk::of(task) {
            self.walk = Some(walk);
            return Ok(());
        }
        if let Some(answer) = self.run(task) {
            self.answer = Some(answer);
            return Ok(());
        }
        let mut engine = self.engine.borrow_mut();
        let id = |id: &VolumeId| volume::VolumeId(id.0);
        let (started, kind) = match task {
            Task::Create(VolumeSpec { name, .. }) | Task::Clone(CloneSpec { name, .. })
                if name == KEEPER_NAME =>
            {
                return Err(NodeError::NameTaken);
            }
            Task::Create(VolumeSpec { name, uuid, bytes, block_size }) => {
                let (uuid, size, block_bytes) = (*uuid, *bytes, *block_size);
                let new = NewVolume { uuid, name, size, block_bytes };
                (engine.create_volume(&new), Kind::Volume)
            }
            Task::Resize { volume, bytes, shrink } => {
                let shrink = if *shrink { Shrink::IfEmpty } else { Shrink::Refuse };
                (engine.resize_volume(id(volume), *bytes, shrink), Kind::Volume)
            }
            Task::Delete { volume } => (engine.delete_volume(id(volume)), Kind::Done),
            Task::Clone(CloneSpec { snapshot, name, uuid }) => {
                let new = NewClone { uuid: *uuid, name };
                (engine.clone_snapshot(id(snapshot), &new), Kind::Volume)
            }
            Task::Restore { volume, snapshot } => {
                (engine.restore_volume(id(volume), id(snapshot)), Kind::Restored(*volume))
            }
            Task::Snapshots(group) => {
                let group: Vec<_> = (group.iter())
                    .map(|SnapshotSpec { volume, name, uuid }| NewSnapshot {
                        volume: id(volume),
                        uuid: *uuid,
                        name,
                    })
                    .collect();
                (engine.create_snapshots(&group), Kind::Done)
            }
            Task::Diff { .. } | Task::CountUnique { .. } => unreachable!("walks were begun above"),
            Task::Limit { .. } | Task::Scrub { .. } | Task::Check => unreachable!("done above"),
        };
        self.task = Some((started.map_err(error_of)?, kind));
        Ok(())
    }

    fn poll_task(&mut self) -> Option<Result<Answer, NodeError>> {
        self.answer.take()
    }

    fn open(&mut self, volume: VolumeId) -> Result<(Box<dyn Queue>, u32), NodeError> {
        let id = volume::VolumeId(volume.0);
        let known = self.engine.borrow().volume(id).ok_or(NodeError::NoSuchVolume)?;
        let queue = VolumeQueue::open(&self.engine, id, QUEUE_DEPTH).map_err(error_of)?;
        Ok((Box::new(queue), known.block_bytes))
    }

    fn status(&self) -> StoreStatus {
        let engine = self.engine.borrow();
        let stats = engine.stats();
        let mut volumes: Vec<_> =
            volumes_of(&engine).map(|volume| status_of(&engine, volume)).collect();
        volumes.sort_by_key(|volume| volume.id);
        StoreStatus {
            uuid: engine.store_uuid().unwrap_or_default(),
            capacity_bytes: stats.total_bytes,
            used_bytes: stats.total_bytes.saturating_sub(stats.free_bytes),
            log_bytes: stats.log_bytes,
            log_used_bytes: stats.log_used_bytes,
            checkpoints: stats.checkpoints,
            device_written: stats.log_written_bytes
                + stats.data_written_bytes
                + stats.metadata_written_bytes,
            device_read: stats.device_read_bytes,
            integrity_errors: stats.integrity_errors,
            stats,
            log: engine.log_status(),
            waits: engine.admission_waits().cloned().map(Box::new),
            health: engine.health(),
            scrub: engine.scrub_status().unwrap_or_default(),
            check: self.check,
            space: engine.space_state(),
            failure: self.failure.clone(),
            volumes,
            snapshots: engine.snapshots().into_iter().map(snapshot_of).collect(),
        }
    }

    fn uuid(&self, volume: VolumeId) -> Result<[u8; 16], NodeError> {
        let known = self.engine.borrow().volume(volume::VolumeId(volume.0));
        known.map(|known| known.uuid).ok_or(NodeError::NoSuchVolume)
    }

    fn keeper(&mut self) -> Option<&mut Keeper> {
        Some(&mut self.keeper)
    }

    fn check_status(&self) -> CheckStatus {
        self.engine.borrow().check_status()
    }

    fn take_notices(&mut self) -> Notices {
        self.notices.take()
    }

    fn set_unix_time(&mut self, seconds: u64) {
        self.engine.borrow_mut().set_unix_time(seconds);
    }

    fn close(&mut self) {
        self.keeper.close();
        self.engine.borrow_mut().shutdown();
    }

    fn is_closed(&self) -> bool {
        let engine = self.engine.borrow();
        // What failed writes nothing any more: there is nothing to wait for.
        engine.is_closed() || engine.is_degraded()
    }
}

/// The volumes, without the hidden one.
fn volumes_of(engine: &Engine) -> impl Iterator<Item = volume::Volume> {
    engine.volumes().into_iter().filter(|volume| volume.name != KEEPER_NAME)
}

fn status_of(engine: &Engine, volume: volume::Volume) -> VolumeStatus {
    let volume::Volume { id, uuid, name, size, block_bytes, used_bytes, .. } = volume;
    let volume::QosStatus { qos, throttled, throttled_ns } = engine.qos(id);
    let volume::Qos { iops, iops_burst, bytes_per_second, bytes_burst } = qos;
    VolumeStatus {
        id: VolumeId(id.0),
        name,
        uuid,
        bytes: size,
        block_size: block_bytes,
        used_bytes,
        persists: true,
        qos: Qos { iops, iops_burst, bytes_per_second, bytes_burst },
        throttled,
        throttled_ns,
    }
}

fn snapshot_of(snapshot: volume::Snapshot) -> SnapshotStatus {
    SnapshotStatus {
        id: VolumeId(snapshot.id.0),
        name: snapshot.name,
        uuid: snapshot.uuid,
        volume: VolumeId(snapshot.volume.0),
        bytes: snapshot.size,
        referenced_bytes: snapshot.referenced_bytes,
        materialised: snapshot.materialised,
    }
}

pub(super) fn error_of(error: ControlError) -> NodeError {
    match error {
        ControlError::Busy => NodeError::Busy,
        ControlError::InUse => NodeError::InUse,
        ControlError::Volume(refused) => match refused {
            store::VolumeError::Exists => NodeError::NameTaken,
            store::VolumeError::Unknown => NodeError::NoSuchVolume,
            store::VolumeError::TooMany => {
                NodeError::TooMany { what: "volumes in a store", max: store::VOLUMES_MAX }
            }
            store::VolumeError::TooManySnapshots => {
                NodeError::TooMany { what: "snapshots of a volume", max: store::SNAPSHOTS_MAX }
            }
            store::VolumeError::NotRelated => NodeError::Store(refused.to_string()),
            refused => NodeError::Invalid(refused.to_string()),
        },
        ControlError::Shrink | ControlError::Group => NodeError::Invalid(error.to_string()),
        ControlError::NotEmpty => NodeError::Store(error.to_string()),
        error => NodeError::Store(error.to_string()),
    }
}
