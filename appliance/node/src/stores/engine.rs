//! A store on a device: the engine as a [`Store`].

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use bdev::{Bdev, Instant, Pool, Queue, QueueCx};
use volume::{ControlError, Engine, Event, FormatOptions, NewVolume, Options, Token, VolumeQueue};

use super::Store;
use crate::command::{
    Answer, Format, NodeError, StoreStatus, Task, VolumeId, VolumeSpec, VolumeStatus,
};
use crate::limits::{DEVICE_QUEUE_DEPTH, QUEUE_DEPTH};

pub(crate) struct EngineStore {
    engine: Rc<RefCell<Engine>>,
    /// The answer to the opening was given.
    opened: bool,
    task: Option<(Token, Kind)>,
    answer: Option<Result<Answer, NodeError>>,
    /// Why the engine does not write any more.
    failure: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Volume,
    Delete,
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
        let (opened, task, answer, failure) = (false, None, None, String::new());
        Ok(EngineStore { engine, opened, task, answer, failure })
    }

    fn watch_opening(&mut self) {
        let engine = self.engine.borrow();
        let answer = if engine.is_ready() {
            Ok(Answer::Store(self.status()))
        } else if let Some(error) = engine.failed() {
            Err(NodeError::Store(error.to_string()))
        } else {
            return;
        };
        drop(engine);
        self.opened = true;
        self.answer = Some(answer);
    }

    fn take_events(&mut self) {
        loop {
            let event = self.engine.borrow_mut().poll_event();
            match event {
                None => return,
                Some(Event::Control { token, result }) => self.finish(token, result),
                Some(Event::Failed { what, status }) => {
                    self.failure = format!("the device failed {what}: {status:?}");
                }
                // Counted by the engine.
                Some(_) => (),
            }
        }
    }

    fn finish(&mut self, token: Token, result: Result<volume::VolumeId, ControlError>) {
        let Some((expected, kind)) = self.task else { return };
        if token != expected {
            return;
        }
        self.task = None;
        let answer = match result {
            Err(error) => Err(error_of(error)),
            Ok(_) if kind == Kind::Delete => Ok(Answer::Done),
            Ok(id) => {
                let volume = self.engine.borrow().volume(id);
                volume
                    .map(|volume| Answer::Volume(status_of(volume)))
                    .ok_or(NodeError::NoSuchVolume)
            }
        };
        self.answer = Some(answer);
    }
}

impl Store for EngineStore {
    fn drive(&mut self, now: Instant) -> bool {
        let moved = self.engine.borrow_mut().drive(now);
        if !self.opened {
            self.watch_opening();
        }
        if moved {
            self.take_events();
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
        if self.task.is_some() || self.answer.is_some() {
            return Err(NodeError::Busy);
        }
        let mut engine = self.engine.borrow_mut();
        let (started, kind) = match task {
            Task::Create(VolumeSpec { name, uuid, bytes, block_size }) => {
                let (uuid, size, block_bytes) = (*uuid, *bytes, *block_size);
                let new = NewVolume { uuid, name, size, block_bytes };
                (engine.create_volume(&new), Kind::Volume)
            }
            Task::Resize { volume, bytes } => (
                engine.resize_volume(volume::VolumeId(volume.0), *bytes, volume::Shrink::Refuse),
                Kind::Volume,
            ),
            Task::Delete { volume } => {
                (engine.delete_volume(volume::VolumeId(volume.0)), Kind::Delete)
            }
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
        let mut volumes: Vec<_> = engine.volumes().into_iter().map(status_of).collect();
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
            failure: self.failure.clone(),
            volumes,
        }
    }

    fn close(&mut self) {
        self.engine.borrow_mut().shutdown();
    }

    fn is_closed(&self) -> bool {
        let engine = self.engine.borrow();
        // What failed writes nothing any more: there is nothing to wait for.
        engine.is_closed() || engine.is_degraded()
    }
}

fn status_of(volume: volume::Volume) -> VolumeStatus {
    let volume::Volume { id, uuid, name, size, block_bytes, used_bytes, .. } = volume;
    VolumeStatus {
        id: VolumeId(id.0),
        name,
        uuid,
        bytes: size,
        block_size: block_bytes,
        used_bytes,
    }
}

fn error_of(error: ControlError) -> NodeError {
    match error {
        ControlError::Busy => NodeError::Busy,
        ControlError::InUse => NodeError::InUse,
        ControlError::Volume(refused) => match refused {
            store::VolumeError::Exists => NodeError::NameTaken,
            store::VolumeError::Unknown => NodeError::NoSuchVolume,
            store::VolumeError::TooMany => {
                NodeError::TooMany { what: "volumes in a store", max: store::VOLUMES_MAX }
            }
            refused => NodeError::Invalid(refused.to_string()),
        },
        ControlError::Shrink => NodeError::Invalid(error.to_string()),
        error => NodeError::Store(error.to_string()),
    }
}
