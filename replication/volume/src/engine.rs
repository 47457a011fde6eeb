//! The engine as its owner sees it: open, drive, control, close.

use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;

use bdev::{Completion, Fifo, Info, Instant, Pool, Queue, Request};
use store::{FormatOptions, VolumeId, VolumeRecord};

use crate::admission::LogStatus;
use crate::checking::CheckStatus;
use crate::control::{Control, NewVolume, Shrink, Verb};
use crate::core::{Core, QueueState, volume_info};
use crate::details::Details;
use crate::device::Device;
use crate::error::{ControlError, Event, OpenError, Token};
use crate::health::HealthStatus;
use crate::latency::Latency;
use crate::opening::{Opening, Options};
use crate::qos::{Qos, QosStatus};
use crate::reserve::Reserve;
use crate::scrub::ScrubStatus;
use crate::snapshot::{NewClone, NewSnapshot, Snapshot};
use crate::space::SpaceState;
use crate::stats::Stats;
use crate::walk::{DiffStep, SpaceStep};

/// A volume as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its id, for [`crate::VolumeQueue::open`] and the control operations.
    pub id: VolumeId,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes in a logical block: 512 or 4096.
    pub block_bytes: u32,
    /// Bytes of the store that its map takes, in whole extents, as of the last checkpoint.
    pub used_bytes: u64,
    /// The snapshot that it was cloned from, which may be gone by now.
    pub cloned_from: Option<VolumeId>,
}

impl Volume {
    /// What the volume is as a block device.
    pub fn info(&self) -> Info {
        volume_info(self.size, self.block_bytes)
    }
}

/// The engine of one store. See the crate documentation.
pub struct Engine {
    state: State,
}

enum State {
    Opening(Box<Opening>),
    Running(Box<Core>),
    Closed(Box<Stats>),
    Failed(OpenError),
    /// Between two states.
    Moving,
}

impl Engine {
    /// Makes the device behind `device` a store and opens it. The work is done by
    /// [`Engine::drive`].
    ///
    /// # Errors
    /// When the options do not fit the device.
    pub fn create(
        device: Box<dyn Queue>,
        info: &Info,
        pool: &Rc<Pool>,
        format: &FormatOptions,
        options: &Options,
    ) -> Result<Engine, OpenError> {
        let device = Device::new(device, info, options.device_deadline_ns);
        let reserve = Reserve::new(Rc::clone(pool))?;
        let opening = Opening::create(device, info.clone(), reserve, format, options.clone())?;
        Ok(Engine { state: State::Opening(Box::new(opening)) })
    }

    /// Opens the store behind `device`: mounts it and recovers the log. The work is done by
    /// [`Engine::drive`].
    pub fn open(device: Box<dyn Queue>, info: &Info, pool: &Rc<Pool>, options: &Options) -> Engine {
        let device = Device::new(device, info, options.device_deadline_ns);
        let state = match Reserve::new(Rc::clone(pool)) {
            Ok(reserve) => {
                let opening = Opening::open(device, info.clone(), reserve, options.clone());
                State::Opening(Box::new(opening))
            }
            Err(error) => State::Failed(error),
        };
        Engine { state }
    }

    /// One turn. Call it once in every turn of the shard, after requests were submitted. True when
    /// anything moved.
    pub fn drive(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Running(core) => {
                let progress = core.drive(now);
                if core.draining && core.is_quiet() && core.is_settled() {
                    core.assert_nothing_kept();
                    self.state = State::Closed(Box::new(core.stats()));
                }
                progress
            }
            State::Opening(opening) => {
                let progress = opening.drive(now);
                progress | self.advance(now)
            }
            State::Closed(_) | State::Failed(_) | State::Moving => false,
        }
    }

    fn advance(&mut self, now: Instant) -> bool {
        let State::Opening(opening) = std::mem::replace(&mut self.state, State::Moving) else {
            panic!("the caller saw it opening");
        };
        let (state, moved) = match opening.advance() {
            Ok(Ok(opening)) => (State::Opening(Box::new(opening)), false),
            Ok(Err(mut core)) => {
                core.now = now; // Limits may be set before its first turn.
                (State::Running(core), true)
            }
            Err(error) => (State::Failed(error), true),
        };
        self.state = state;
        moved
    }

    /// True while volumes are served.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// Why the engine could not be opened, if it could not.
    pub fn failed(&self) -> Option<&OpenError> {
        match &self.state {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Blocks of log that recovery has read, and of how many, while it reads.
    pub fn recovery_progress(&self) -> Option<(u64, u64)> {
        match &self.state {
            State::Opening(opening) => opening.progress(),
            _ => None,
        }
    }

    /// The volumes, in no order. Empty until the engine is ready.
    pub fn volumes(&self) -> Vec<Volume> {
        let Some(core) = self.core() else { return Vec::new() };
        let active = core.store.volumes().filter(|record| record.is_active());
        active.map(|record| core.volume_of(record)).collect()
    }

    /// The volume with this id.
    pub fn volume(&self, id: VolumeId) -> Option<Volume> {
        let core = self.core()?;
        core.active_volume(id).ok().map(|record| core.volume_of(record))
    }

    /// The volume with this name.
    pub fn volume_by_name(&self, name: &str) -> Option<Volume> {
        let core = self.core()?;
        let is = |record: &&VolumeRecord| record.is_active() && record.name_str() == name;
        core.store.volumes().find(is).map(|record| core.volume_of(record))
    }

    /// The snapshots, oldest first. Empty until the engine is ready.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.core().map(Core::snapshots).unwrap_or_default()
    }

    /// The snapshot with this id.
    pub fn snapshot(&self, id: VolumeId) -> Option<Snapshot> {
        self.core()?.snapshot(id)
    }

    /// The store's UUID, once it is known.
    pub fn store_uuid(&self) -> Option<[u8; 16]> {
        self.core().map(|core| core.store.uuid())
    }

    /// Starts to create a volume; [`Event::Control`] says how it ended.
    ///
    /// # Errors
    /// When the engine cannot take it now.
    pub fn create_volume(&mut self, volume: &NewVolume<'_>) -> Result<Token, ControlError> {
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        let token = core.controls.next_token();
        let mut details = details_of(volume.uuid, volume.name)?;
        (details.size, details.block_bytes) = (volume.size, volume.block_bytes);
        core.control(Control::new(token, Verb::Create, VolumeId(0), details))
    }

    /// Starts to make a snapshot of each of these volumes, all of the same moment: of any two
    /// writes that were completed one before the other was submitted, none has the later without
    /// the earlier. The event names the first; the ids of the others follow it, in order. No write
    /// waits for it.
    ///
    /// # Errors
    /// When the engine cannot take it now, or the group is empty, too large or names a volume
    /// twice.
    pub fn create_snapshots(&mut self, group: &[NewSnapshot<'_>]) -> Result<Token, ControlError> {
        self.core_mut().ok_or(ControlError::NotReady)?.create_snapshots(group)
    }

    /// Starts to make a volume that begins as what a snapshot holds. Nothing is copied until either
    /// of them changes.
    ///
    /// # Errors
    /// When the engine cannot take it now.
    pub fn clone_snapshot(
        &mut self,
        snapshot: VolumeId,
        clone: &NewClone<'_>,
    ) -> Result<Token, ControlError> {
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        let details = details_of(clone.uuid, clone.name)?;
        let token = core.controls.next_token();
        let verb = Verb::Clone { snapshot: snapshot.0 };
        core.control(Control::new(token, verb, VolumeId(0), details))
    }

    /// Starts to make a volume what one of its snapshots (or one of its family's) holds. New
    /// requests stay with the caller until it is durable, those that were taken end before.
    /// Other snapshots stay, later ones too. The volume does not get smaller by it.
    ///
    /// # Errors
    /// When the engine cannot take it now.
    pub fn restore_volume(
        &mut self,
        volume: VolumeId,
        snapshot: VolumeId,
    ) -> Result<Token, ControlError> {
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        let token = core.controls.next_token();
        let verb = Verb::Restore { snapshot: snapshot.0, former: 0 };
        core.control(Control::new(token, verb, volume, Details::default()))
    }

    /// Starts to delete a volume or a snapshot, which must have no open queue. What nobody shares
    /// with it comes back in the background.
    ///
    /// # Errors
    /// When the engine cannot take it now.
    pub fn delete_volume(&mut self, id: VolumeId) -> Result<Token, ControlError> {
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        let token = core.controls.next_token();
        core.control(Control::new(token, Verb::Delete, id, Details::default()))
    }

    /// Starts to make a volume larger, or smaller where `shrink` allows. Open queues have the new
    /// size when the event comes.
    ///
    /// # Errors
    /// When the engine cannot take it now.
    pub fn resize_volume(
        &mut self,
        id: VolumeId,
        bytes: u64,
        shrink: Shrink,
    ) -> Result<Token, ControlError> {
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        let token = core.controls.next_token();
        let details = Details::of_size(bytes, 0);
        core.control(Control::new(token, Verb::Resize { shrink }, id, details))
    }

    /// What a snapshot has, byte ranges in units of extents, that another one of its family has
    /// not: a bounded step from byte `from` on. Without a base: what is mapped.
    ///
    /// # Errors
    /// When there are no such snapshots, or they are not related.
    pub fn diff(
        &mut self,
        base: Option<VolumeId>,
        of: VolumeId,
        from: u64,
    ) -> Result<DiffStep, ControlError> {
        self.core_mut().ok_or(ControlError::NotReady)?.diff(base, of, from)
    }

    /// What a volume or a snapshot takes alone and in all: a bounded step of a walk over its map
    /// from byte `from` on. The sum of a walk is exact for the map when nothing changes meanwhile.
    ///
    /// # Errors
    /// When there is no such volume or snapshot.
    pub fn space_of(&mut self, id: VolumeId, from: u64) -> Result<SpaceStep, ControlError> {
        self.core_mut().ok_or(ControlError::NotReady)?.space_of(id, from)
    }

    /// Starts to scrub now, or goes on where a scrub was interrupted, at most so fast. It goes on
    /// by itself from then on, a week after each pass. A rate of 0 stops it, as
    /// [`Engine::scrub_pause`] does.
    ///
    /// # Errors
    /// [`ControlError::NotReady`].
    pub fn scrub_start(&mut self, bytes_per_second: u64) -> Result<(), ControlError> {
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        match bytes_per_second {
            0 => core.pause_scrub(),
            rate => core.start_scrub(rate),
        }
        Ok(())
    }

    /// How fast the scrub may be from now on, without starting one: a pass that is not due waits. A
    /// rate of 0 stops it, as [`Engine::scrub_pause`] does.
    ///
    /// # Errors
    /// [`ControlError::NotReady`].
    pub fn set_scrub_rate(&mut self, bytes_per_second: u64) -> Result<(), ControlError> {
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        match bytes_per_second {
            0 => core.pause_scrub(),
            rate => core.set_scrub_rate(rate),
        }
        Ok(())
    }

    /// Stops the scrub where it is, until [`Engine::scrub_start`]; a restart of the engine goes on
    /// at the rate of its options.
    ///
    /// # Errors
    /// [`ControlError::NotReady`].
    pub fn scrub_pause(&mut self) -> Result<(), ControlError> {
        self.scrub_start(0)
    }

    /// How far the scrub is. `None` until the engine is ready.
    pub fn scrub_status(&self) -> Option<ScrubStatus> {
        self.core().map(|core| core.scrub_status())
    }

    /// Says what time it is, in seconds since 1970: the engine has no clock of its own, and
    /// remembers when a scrub ended. Without it a scrub begins soon after each start.
    pub fn set_unix_time(&mut self, seconds: u64) {
        if let Some(core) = self.core_mut() {
            core.set_unix_time(seconds);
        }
    }

    /// Starts to prove, while volumes are served, that maps, ownership and space map agree. Leaked
    /// extents are given back and bad copies of metadata rewritten; everything else is named.
    ///
    /// # Errors
    /// [`ControlError::NotReady`], and [`ControlError::Busy`] while a check is under way.
    pub fn check_start(&mut self) -> Result<(), ControlError> {
        self.core_mut().ok_or(ControlError::NotReady)?.start_check()
    }

    /// How the check is, or how the last one ended.
    pub fn check_status(&self) -> CheckStatus {
        self.core().map_or(CheckStatus::Never, |core| core.check_status())
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core_mut()?.events.pop()
    }

    /// Counters and gauges; the last ones after the engine was closed.
    pub fn stats(&self) -> Stats {
        match &self.state {
            State::Running(core) => core.stats(),
            State::Closed(stats) => **stats,
            _ => Stats::default(),
        }
    }

    /// Starts to close: no control operations any more; when the last host operation has ended and
    /// everything is in the map and checkpointed, [`Engine::is_closed`]. The next open is instant.
    /// An engine that is not ready is closed at once.
    pub fn shutdown(&mut self) {
        match &mut self.state {
            State::Running(core) => core.draining = true,
            State::Opening(_) => self.state = State::Closed(Box::default()),
            _ => {}
        }
    }

    /// True when nothing is left to do: shut down, or failed to open. An engine whose device failed
    /// while it ran never gets there: drop it.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_) | State::Failed(_))
    }

    /// True when the device failed the engine: it serves reads only, and does not close.
    pub fn is_degraded(&self) -> bool {
        self.core().is_some_and(|core| core.failed.is_some())
    }

    /// The log at this moment, and who waits for it.
    pub fn log_status(&self) -> LogStatus {
        self.core().map_or_else(LogStatus::default, Core::log_status)
    }

    /// How long writes, deallocates and write-zeroes waited until the log took the first of them.
    pub fn admission_waits(&self) -> Option<&Latency> {
        self.core().map(|core| &core.admission.waits)
    }

    /// How the device is; [`Event::Health`] tells of changes. A quarantined one stays so until the
    /// store is opened again.
    pub fn health(&self) -> HealthStatus {
        self.device().map_or_else(HealthStatus::default, Device::health)
    }

    /// How full the store is; [`Event::Space`] tells of changes.
    pub fn space_state(&self) -> SpaceState {
        self.core().map_or_else(SpaceState::default, |core| core.space_watch.state)
    }

    /// Sets the percentage of the store from which space is low.
    pub fn set_space_low_percent(&mut self, percent: u64) {
        if let Some(core) = self.core_mut() {
            core.space_watch.low_percent = percent.min(100);
        }
    }

    /// Limits a volume from now on; [`Qos::default`] takes the limits away. They are not stored:
    /// whoever opens the engine sets them.
    ///
    /// # Errors
    /// When the engine is not ready, there is no such volume, or there are too many.
    pub fn set_qos(&mut self, volume: VolumeId, qos: Qos) -> Result<(), ControlError> {
        self.volume(volume).ok_or(ControlError::Volume(store::VolumeError::Unknown))?;
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        if core.flows.set(volume, qos, core.now) { Ok(()) } else { Err(ControlError::Busy) }
    }

    /// The limits of a volume, and what they did.
    pub fn qos(&self, volume: VolumeId) -> QosStatus {
        self.core().map_or_else(QosStatus::default, |core| core.flows.status(volume))
    }

    /// When [`Engine::drive`] has something to do even if nothing completes until then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let Some(core) = self.core() else { return self.device()?.timeout() };
        let limits = core.flows.wake_at.into_iter();
        let own = [
            core.admission.wake_at,
            core.device.timeout(),
            core.background_timeout(),
            core.scrub_timeout(),
        ];
        limits.chain(own.into_iter().flatten()).min()
    }

    /// A descriptor that turns readable when the device has something, if it has one.
    pub fn wait_fd(&self) -> Option<RawFd> {
        self.device()?.wait_fd()
    }

    /// Requests that the device has now.
    pub fn device_in_flight(&self) -> u32 {
        self.device().map_or(0, Device::in_flight)
    }

    pub(crate) fn open_queue(&mut self, id: VolumeId, depth: u32) -> Result<u32, ControlError> {
        let core = self.core_mut().ok_or(ControlError::NotReady)?;
        if core.draining {
            return Err(ControlError::NotReady);
        }
        let (read_only, info) = match core.snapshot(id) {
            Some(snapshot) => (true, snapshot.info()),
            None => {
                let (size, block_bytes) = core.volume_size(id)?;
                let shrinking = core.shrinking.filter(|shrinking| shrinking.volume == id.0);
                let size = shrinking.map_or(size, |shrinking| shrinking.bytes);
                (false, volume_info(size, block_bytes))
            }
        };
        let done = Fifo::new(depth.clamp(1, bdev::QUEUE_DEPTH_MAX) as usize);
        if core.queues.is_full() {
            return Err(ControlError::Busy);
        }
        let flow = core.flows.open(id.0).ok_or(ControlError::Busy)?;
        let (volume, in_flight, closed, gone) = (id.0, 0, false, false);
        let queue = QueueState { volume, flow, info, done, in_flight, closed, gone, read_only };
        Ok(core.queues.insert(queue).expect("room was checked"))
    }

    pub(crate) fn close_queue(&mut self, key: u32) {
        let Some(core) = self.core_mut() else { return };
        let Some(queue) = core.queues.get_mut(key) else { return };
        queue.closed = true;
        queue.in_flight -= u32::try_from(queue.done.len()).expect("bounded by the depth");
        queue.done.clear();
        let flow = queue.flow;
        if queue.in_flight == 0 {
            core.queues.remove(key);
            core.flows.close(flow);
        }
    }

    pub(crate) fn submit(&mut self, key: u32, requests: &mut Fifo<Request>) {
        if let Some(core) = self.core_mut() {
            core.submit(key, requests);
        }
    }

    pub(crate) fn poll(&mut self, key: u32, completions: &mut Fifo<Completion>) {
        let Some(queue) = self.queue_mut(key) else { return };
        while !completions.is_full() {
            let Some(completion) = queue.done.pop() else { return };
            queue.in_flight -= 1;
            let pushed = completions.push(completion);
            assert!(pushed.is_ok(), "room was checked");
        }
    }

    pub(crate) fn queue(&self, key: u32) -> Option<&QueueState> {
        self.core()?.queues.get(key)
    }

    fn queue_mut(&mut self, key: u32) -> Option<&mut QueueState> {
        self.core_mut()?.queues.get_mut(key)
    }

    fn device(&self) -> Option<&Device> {
        match &self.state {
            State::Running(core) => Some(&core.device),
            State::Opening(opening) => Some(&opening.device),
            _ => None,
        }
    }

    fn core(&self) -> Option<&Core> {
        match &self.state {
            State::Running(core) => Some(core),
            _ => None,
        }
    }

    fn core_mut(&mut self) -> Option<&mut Core> {
        match &mut self.state {
            State::Running(core) => Some(core),
            _ => None,
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Opening(_) => "opening",
            State::Running(_) => "running",
            State::Closed(_) => "closed",
            State::Failed(_) => "failed",
            State::Moving => "moving",
        };
        f.debug_struct("Engine").field("state", &state).field("stats", &self.stats()).finish()
    }
}

fn details_of(uuid: [u8; 16], name: &str) -> Result<Details, ControlError> {
    Details::new(uuid, name).map_err(ControlError::Volume)
}

impl Core {
    fn volume_of(&self, record: &VolumeRecord) -> Volume {
        let size = self.layers.restored_size(record.id.get());
        Volume {
            id: record.volume_id(),
            uuid: record.uuid,
            name: record.name_str().to_owned(),
            size: size.unwrap_or(record.size_bytes()),
            block_bytes: record.block_bytes(),
            used_bytes: record.mapped.get().saturating_mul(store::EXTENT_BYTES),
            cloned_from: record.origin_snapshot(),
        }
    }
}
