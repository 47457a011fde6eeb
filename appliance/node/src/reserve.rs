//! The shard's part in reservations: a guard for each volume that is attached, and what management
//! asks of it.

use reservation::Table;

use crate::command::{Answer, NodeError, StoreId, VolumeId};
use crate::guards::GuardId;
use crate::shard::{Shard, Step};

impl Shard {
    /// The guard of a volume, with what was kept of its reservations; otherwise what the command
    /// that needs it does next. Without it nobody may use the volume: a host that was shut out
    /// must not come back by a restart.
    pub(crate) fn guard(
        &mut self,
        store: StoreId,
        volume: VolumeId,
        first: bool,
    ) -> Result<GuardId, Step> {
        let failed = |error| Step::Done(Err(error));
        if let Some(known) = self.namespaces.guards.find(store, volume) {
            return Ok(known);
        }
        let owner = self.stores.store(store).map_err(failed)?;
        let uuid = owner.uuid(volume).map_err(failed)?;
        let Some(keeper) = owner.keeper() else {
            return Ok(self.namespaces.guards.insert(store, volume, uuid, false, Table::new()));
        };
        if first {
            return Err(if keeper.begin_read(volume, uuid) { Step::Wait } else { Step::Again });
        }
        match keeper.poll(volume) {
            None => Err(Step::Wait),
            Some(Ok(table)) => {
                let table = table.map_or_else(Table::new, |table| *table);
                Ok(self.namespaces.guards.insert(store, volume, uuid, true, table))
            }
            Some(Err(status)) => {
                let why = format!("the reservations of the volume cannot be read: {status:?}");
                Err(failed(NodeError::Store(why)))
            }
        }
    }

    /// Says who has reserved a volume, after everybody was removed if that is asked for.
    pub(crate) fn reservation(
        &mut self,
        store: StoreId,
        volume: VolumeId,
        evict: bool,
        first: bool,
    ) -> Step {
        let known = self.namespaces.guards.find(store, volume).is_some();
        let guard = match self.guard(store, volume, first) {
            Ok(guard) => guard,
            Err(step) => return step,
        };
        if evict {
            // A guard that was just found begins now, whenever the command came.
            match self.namespaces.guards.evict(guard, first || !known) {
                None => return Step::Wait,
                Some(Err(NodeError::Busy)) => return Step::Again,
                Some(Err(error)) => return Step::Done(Err(error)),
                Some(Ok(())) => (),
            }
        }
        let status = self.namespaces.guards.status(guard);
        Step::Done(Ok(Answer::Reservation(Box::new(status))))
    }

    /// A volume was deleted.
    pub(crate) fn forget_reservation(&mut self, store: StoreId, volume: VolumeId) {
        self.namespaces.guards.forget(store, Some(volume));
        if let Ok(store) = self.stores.store(store)
            && let Some(keeper) = store.keeper()
        {
            keeper.forget(volume);
        }
    }
}
