//! Barriers: where snapshots and restores stand in the log, and how they get into the map.
//!
//! A barrier takes effect for readers and writers when its record is durable: a layer is closed and
//! another opened. It takes effect in the map when the destager gets to it: the store stages it,
//! and a checkpoint that carries it out is written before anything behind it is destaged.

use bdev::Status;
use store::{NodeSpec, VolumeId};

use crate::core::{Core, volume_info};
use crate::destage::Phase;
use crate::journal::{Entry, Kind};
use crate::layers::{Barrier, BarrierKind};

impl Core {
    /// The record of a snapshot or of a restore is durable: the next record of the volume goes into
    /// a new layer.
    pub(crate) fn on_barrier_durable(&mut self, lsn: u64) {
        let (mut barrier, last) = self.controls.pop_barrier();
        barrier.lsn = lsn;
        let (volume, layer) = (barrier.volume, self.layers.newest(barrier.volume));
        let (block, blocks, kind) = (0, 0, Kind::Barrier);
        self.journal.push(Entry { lsn, volume, layer, block, blocks, kind });
        self.layers.push(barrier);
        if let BarrierKind::Restore { .. } = barrier.what {
            self.set_queue_sizes(VolumeId(volume), barrier.details.size);
        }
        self.written_at = self.now;
        if last {
            self.controls_done();
        }
    }

    /// Open queues of a volume learn its size.
    pub(crate) fn set_queue_sizes(&mut self, volume: VolumeId, bytes: u64) {
        for (_, queue) in self.queues.iter_mut().filter(|(_, queue)| queue.volume == volume.0) {
            queue.info = volume_info(bytes, queue.info.block_size);
        }
    }

    /// Hands the barriers at the head of the journal to the store: one of each volume, since a
    /// second one needs the map that the first one leaves. Everything before them is in the map.
    pub(crate) fn begin_barrier(&mut self) -> bool {
        let mut count = 0;
        while count < store::STAGED_MAX && self.is_barrier(count) {
            let barrier = self.layers.waiting().nth(count).copied();
            let barrier = barrier.expect("each entry of the journal has one");
            if self.layers.waiting().take(count).any(|other| other.volume == barrier.volume) {
                break;
            }
            if let Err(what) = self.stage(&barrier) {
                self.fail(what, Status::Invalid);
                return false;
            }
            count += 1;
        }
        self.destage.phase = Phase::Barrier { count };
        true
    }

    fn is_barrier(&self, ahead: usize) -> bool {
        self.journal.peek(ahead as u64).is_some_and(|entry| entry.kind == Kind::Barrier)
    }

    fn stage(&mut self, barrier: &Barrier) -> Result<(), &'static str> {
        let (volume, id) = (VolumeId(barrier.volume), VolumeId(barrier.id));
        let floor_lsn = barrier.lsn + 1;
        match barrier.what {
            BarrierKind::Snapshot => {
                let (uuid, name) = (barrier.details.uuid, barrier.details.name());
                let staged =
                    self.store.stage_snapshot(volume, &NodeSpec { id, uuid, name }, floor_lsn);
                staged.map_err(|_| "entering a snapshot into the catalog")
            }
            BarrierKind::Restore { snapshot } => {
                let staged = self.store.stage_restore(volume, VolumeId(snapshot), id, floor_lsn);
                staged.map_err(|_| "restoring a volume in the catalog")
            }
        }
    }

    /// The checkpoint with the staged barriers is durable.
    pub(crate) fn end_barrier(&mut self, count: usize) {
        let restores = self.layers.waiting().take(count);
        if restores.into_iter().any(|b| matches!(b.what, BarrierKind::Restore { .. })) {
            self.checkpoint.deleted(); // What the volume was is being given back.
        }
        self.layers.materialise(count);
        self.journal.advance(count as u64);
        self.destage.phase = Phase::Idle;
    }
}
