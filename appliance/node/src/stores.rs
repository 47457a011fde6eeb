//! The stores that a shard owns.

mod engine;
mod keeper;
mod notices;
mod ram;
mod walk;

use std::os::fd::RawFd;
use std::rc::Rc;

use bdev::{Instant, Pool, Queue};

use crate::command::{Answer, NodeError, Notices, StoreId, StoreSpec, StoreStatus, Task, VolumeId};
use crate::limits::STORES_MAX;

use engine::EngineStore;
pub(crate) use keeper::Keeper;
use ram::{Medium, RamStore};

/// A store of this shard. Slow changes are tasks: begun once, polled until they answer.
pub(crate) trait Store {
    /// Moves everything on. True when anything happened.
    fn drive(&mut self, now: Instant) -> bool;

    /// Whether requests are in flight at a device that cannot wake a sleeper.
    fn must_poll(&self) -> bool;

    /// What to sleep on otherwise.
    fn wait_fd(&self) -> Option<RawFd>;

    /// When [`Store::drive`] wants to be called although nothing has happened.
    fn next_timeout(&self) -> Option<Instant>;

    /// Begins a change. One at a time: `Busy` while another is under way.
    fn begin(&mut self, task: &Task) -> Result<(), NodeError>;

    /// The answer to the last change, once.
    fn poll_task(&mut self) -> Option<Result<Answer, NodeError>>;

    /// A queue to a volume, with its block size.
    fn open(&mut self, volume: VolumeId) -> Result<(Box<dyn Queue>, u32), NodeError>;

    /// The identity of a volume.
    fn uuid(&self, volume: VolumeId) -> Result<[u8; 16], NodeError>;

    /// Who keeps reservations over a restart, if the store can.
    fn keeper(&mut self) -> Option<&mut Keeper>;

    /// Numbers and volumes.
    fn status(&self) -> StoreStatus;

    /// The check that is under way, or how the last one ended.
    fn check_status(&self) -> volume::CheckStatus;

    /// What was noticed since the last call.
    fn take_notices(&mut self) -> Notices;

    /// What time it is, in seconds since 1970.
    fn set_unix_time(&mut self, seconds: u64);

    /// Begins to close: everything durable, nothing in flight. Ask [`Store::is_closed`] each turn.
    fn close(&mut self);

    /// Whether the store can be dropped: closed, and no queue of it is left.
    fn is_closed(&self) -> bool;
}

/// All stores of a shard, by their number in the node.
pub(crate) struct Stores {
    table: Vec<Option<Entry>>,
    pool: Rc<Pool>,
    shard: usize,
}

struct Entry {
    store: Box<dyn Store>,
    opening: bool,
}

impl Stores {
    pub(crate) fn new(pool: Rc<Pool>, shard: usize) -> Stores {
        // As long as the largest number that is in use: every turn goes through it.
        Stores { table: Vec::with_capacity(STORES_MAX), pool, shard }
    }

    /// Moves every store on. True when anything happened.
    pub(crate) fn drive(&mut self, now: Instant) -> bool {
        let mut found = false;
        for entry in self.table.iter_mut().flatten() {
            found |= entry.store.drive(now);
        }
        found
    }

    pub(crate) fn must_poll(&self) -> bool {
        self.table.iter().flatten().any(|entry| entry.store.must_poll())
    }

    pub(crate) fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        fds.extend(self.table.iter().flatten().filter_map(|entry| entry.store.wait_fd()));
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.table.iter().flatten().filter_map(|entry| entry.store.next_timeout()).min()
    }

    pub(crate) fn begin_open(&mut self, id: StoreId, spec: &StoreSpec) -> Result<(), NodeError> {
        let index = id.0 as usize;
        if index >= STORES_MAX {
            return Err(NodeError::TooMany { what: "stores", max: STORES_MAX });
        }
        if index >= self.table.len() {
            self.table.resize_with(index + 1, || None);
        }
        let slot = &mut self.table[index];
        if slot.is_some() {
            return Err(NodeError::InUse);
        }
        let store: Box<dyn Store> = match spec {
            StoreSpec::Ram { bytes } => {
                Box::new(RamStore::new(Medium::Memory, *bytes, Rc::clone(&self.pool)))
            }
            StoreSpec::Null { bytes } => {
                Box::new(RamStore::new(Medium::Nothing, *bytes, Rc::clone(&self.pool)))
            }
            StoreSpec::Device { device, format } => {
                Box::new(EngineStore::new(device, format.as_ref(), &self.pool, self.shard)?)
            }
        };
        *slot = Some(Entry { store, opening: true });
        Ok(())
    }

    /// The outcome of [`Stores::begin_open`], once. A store that failed to open is gone.
    pub(crate) fn poll_open(&mut self, id: StoreId) -> Option<Result<Answer, NodeError>> {
        let slot = self.table.get_mut(id.0 as usize)?;
        let entry = slot.as_mut()?;
        let answer = entry.store.poll_task()?;
        entry.opening = false;
        if answer.is_err() {
            *slot = None;
        }
        Some(answer)
    }

    pub(crate) fn store(&mut self, id: StoreId) -> Result<&mut dyn Store, NodeError> {
        match self.table.get_mut(id.0 as usize) {
            Some(Some(entry)) if !entry.opening => Ok(entry.store.as_mut()),
            _ => Err(NodeError::NoSuchStore),
        }
    }

    /// Tells every store what time it is.
    pub(crate) fn set_unix_time(&mut self, seconds: u64) {
        for entry in self.table.iter_mut().flatten() {
            entry.store.set_unix_time(seconds);
        }
    }

    /// Begins to close every store.
    pub(crate) fn close_all(&mut self) {
        for entry in self.table.iter_mut().flatten() {
            entry.store.close();
        }
    }

    /// Drops the store once it is closed. True when it is gone.
    pub(crate) fn reap(&mut self, id: StoreId) -> bool {
        let Some(slot) = self.table.get_mut(id.0 as usize) else { return true };
        if slot.as_ref().is_some_and(|entry| entry.store.is_closed()) {
            *slot = None;
        }
        slot.is_none()
    }

    /// Drops the stores that are closed. True when none is left.
    pub(crate) fn reap_all(&mut self) -> bool {
        let ids = 0..u32::try_from(self.table.len()).expect("limited");
        ids.map(StoreId).filter(|&id| !self.reap(id)).count() == 0
    }
}
