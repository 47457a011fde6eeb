//! Layers: which parts of the log a reader of a volume, or of a snapshot, looks through.
//!
//! The overlay knows one version of a block in each *layer*. A volume writes into its newest layer.
//! A snapshot closes that layer and opens another: what the log held by then stays as it is, for
//! the snapshot to be read and for the destager to bring into the map. The record that does so is a
//! *barrier*. The destager works in log order, so when it gets to a barrier the volume's map has
//! what the snapshot must have, and a checkpoint gives the snapshot that map (*materialises* it).
//!
//! ```text
//!             older                                        newer
//!   log:   w w w | snapshot S | w w w w | restore to S | w w
//!          layer V            layer S                  layer Z
//!
//!   volume:   Z -> tree of S                                (a restore hides what was before)
//!   S:        V -> tree of V     until materialised, then the tree of S
//! ```
//!
//! The first layer of a volume has the volume's id. Others are named by the barrier that opened
//! them: by the id of the snapshot, or of what a restored volume was before, with [`OPENED`] set.
//! Ids come from one space of numbers and are never used twice, so names of layers are not either.

use std::collections::VecDeque;

use crate::details::Details;
use crate::limits::{BARRIERS_MAX, LAYERS_MAX};

/// Marks the names of layers that a barrier opened.
const OPENED: u32 = 1 << 31;

/// Nodes that a barrier makes have smaller ids than this.
pub(crate) const BARRIER_ID_END: u32 = OPENED;

/// A record that closes a layer of a volume and opens another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    pub(crate) lsn: u64,
    pub(crate) volume: u32,
    /// The new node: the snapshot, or what the volume was until then. Names the layer that opens.
    pub(crate) id: u32,
    pub(crate) what: BarrierKind,
    /// The layer that was closed.
    pub(crate) closed: u32,
    /// A durable checkpoint has the new node.
    pub(crate) materialised: bool,
    /// What the new node is.
    pub(crate) details: Details,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Snapshot,
    /// The volume goes on from this snapshot.
    Restore {
        snapshot: u32,
    },
}

impl Barrier {
    /// The layer that it opens.
    fn layer(&self) -> u32 {
        self.id | OPENED
    }
}

/// Where to look for a block: in these layers, newest first, then in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    layers: [u32; LAYERS_MAX],
    len: usize,
    /// The node whose tree is below.
    pub(crate) tree: u32,
}

impl Chain {
    pub(crate) fn layers(&self) -> &[u32] {
        &self.layers[..self.len]
    }
}

/// The layers of all volumes.
#[derive(Debug)]
pub(crate) struct Layers {
    /// Volumes whose newest layer is not their first, with it; sorted.
    newest: Vec<(u32, u32)>,
    /// In log order; the materialised ones first.
    barriers: VecDeque<Barrier>,
    materialised: usize,
    /// No number from here on was given to a node by a barrier.
    next_id: u32,
}

impl Layers {
    pub(crate) fn new() -> Layers {
        Layers {
            newest: Vec::with_capacity(store::VOLUMES_MAX),
            barriers: VecDeque::with_capacity(BARRIERS_MAX),
            materialised: 0,
            next_id: 0,
        }
    }

    /// The layer that a volume writes into.
    #[inline]
    pub(crate) fn newest(&self, volume: u32) -> u32 {
        if self.newest.is_empty() {
            return volume;
        }
        let found = self.newest.binary_search_by_key(&volume, |&(volume, _)| volume);
        found.map_or(volume, |index| self.newest[index].1)
    }

    /// Where to look for the blocks of a volume, or of a snapshot.
    #[inline]
    pub(crate) fn chain(&self, node: u32) -> Chain {
        let mut chain = Chain { layers: [0; LAYERS_MAX], len: 0, tree: node };
        if self.barriers.is_empty() {
            chain.layers[0] = self.newest(node);
            chain.len = 1;
            return chain;
        }
        let mut layer = match self.snapshot(node) {
            Some(barrier) if barrier.materialised => return chain,
            Some(barrier) => {
                chain.tree = barrier.volume;
                let later = bdev::planted(bdev::Planted::SnapshotSeesLater);
                if later { barrier.layer() } else { barrier.closed }
            }
            None => self.newest(node),
        };
        loop {
            chain.layers[chain.len] = layer;
            chain.len += 1;
            match self.barriers.iter().find(|barrier| barrier.layer() == layer) {
                None => return chain,
                Some(Barrier { what: BarrierKind::Snapshot, closed, .. }) => layer = *closed,
                Some(&Barrier {
                    what: BarrierKind::Restore { snapshot }, materialised, ..
                }) => {
                    if !materialised {
                        chain.tree = snapshot;
                    }
                    return chain;
                }
            }
        }
    }

    /// The barrier of a snapshot that is in the log.
    fn snapshot(&self, id: u32) -> Option<&Barrier> {
        let is = |b: &&Barrier| b.id == id && b.what == BarrierKind::Snapshot;
        self.barriers.iter().find(is)
    }

    /// Barriers that no durable checkpoint has yet, in log order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Barrier> {
        self.barriers.iter().skip(self.materialised)
    }

    /// True while there are such.
    pub(crate) fn is_waiting(&self) -> bool {
        self.barriers.len() > self.materialised
    }

    /// True when extents that the volume maps now will be shared by the time its newest layer is
    /// brought into the map.
    pub(crate) fn will_share(&self, volume: u32) -> bool {
        self.waiting().any(|barrier| barrier.volume == volume)
    }

    /// True when a barrier that waits needs the node as it is, or makes it.
    pub(crate) fn involves(&self, node: u32) -> bool {
        self.waiting().any(|barrier| {
            let snapshot = match barrier.what {
                BarrierKind::Snapshot => barrier.id,
                BarrierKind::Restore { snapshot } => snapshot,
            };
            barrier.volume == node || barrier.id == node || snapshot == node
        })
    }

    /// How large a restore that waits makes the volume.
    pub(crate) fn restored_size(&self, volume: u32) -> Option<u64> {
        let restored = |b: &&Barrier| b.volume == volume && b.what != BarrierKind::Snapshot;
        self.waiting().filter(restored).map(|barrier| barrier.details.size).last()
    }

    /// Barriers that fit still.
    pub(crate) fn room(&self) -> usize {
        BARRIERS_MAX - self.barriers.len()
    }

    /// True when the volume may open another layer.
    pub(crate) fn has_room_for(&self, volume: u32) -> bool {
        let open = self.barriers.iter().filter(|barrier| barrier.volume == volume).count();
        open + 1 < LAYERS_MAX
    }

    /// The first number for a new node that no barrier used.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// Enters a durable barrier: closes the volume's newest layer, opens the next.
    ///
    /// # Panics
    /// When there is no room, which is checked before the record is written.
    pub(crate) fn push(&mut self, mut barrier: Barrier) {
        assert!(self.room() > 0);
        assert!(self.has_room_for(barrier.volume));
        assert!(!barrier.materialised);
        assert!(barrier.id < BARRIER_ID_END);
        barrier.closed = self.newest(barrier.volume);
        self.next_id = self.next_id.max(barrier.id + 1);
        match self.newest.binary_search_by_key(&barrier.volume, |&(volume, _)| volume) {
            Ok(index) => self.newest[index].1 = barrier.layer(),
            Err(index) => {
                assert!(self.newest.len() < store::VOLUMES_MAX, "one for each volume");
                self.newest.insert(index, (barrier.volume, barrier.layer()));
            }
        }
        self.barriers.push_back(barrier);
    }

    /// The oldest barriers that waited are in a durable checkpoint.
    pub(crate) fn materialise(&mut self, count: usize) {
        for barrier in self.barriers.iter_mut().skip(self.materialised).take(count) {
            barrier.materialised = true;
        }
        self.materialised += count;
        assert!(self.materialised <= self.barriers.len());
    }

    /// The log before and with the oldest barrier was forgotten: no block of the layer that it
    /// closed is left in the overlay.
    pub(crate) fn forget(&mut self, lsn: u64) {
        let barrier = self.barriers.pop_front().expect("each barrier is forgotten once");
        assert_eq!(barrier.lsn, lsn);
        assert!(barrier.materialised);
        self.materialised -= 1;
    }

    /// A volume is gone.
    pub(crate) fn remove(&mut self, volume: u32) {
        self.newest.retain(|&(known, _)| known != volume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(lsn: u64, volume: u32, id: u32) -> Barrier {
        let details = Details::default();
        let what = BarrierKind::Snapshot;
        Barrier { lsn, volume, id, what, closed: 0, materialised: false, details }
    }

    fn restore(lsn: u64, volume: u32, id: u32, snapshot: u32) -> Barrier {
        let what = BarrierKind::Restore { snapshot };
        Barrier { what, ..self::snapshot(lsn, volume, id) }
    }

    /// The layers of a node, without the mark, and the tree below.
    fn view(layers: &Layers, node: u32) -> (Vec<u32>, u32) {
        let chain = layers.chain(node);
        (chain.layers().iter().map(|layer| layer & !OPENED).collect(), chain.tree)
    }

    #[test]
    fn volume_without_barriers_has_one_layer_over_its_tree() {
        let layers = Layers::new();
        assert_eq!(view(&layers, 7), (vec![7], 7));
        assert_eq!(layers.newest(7), 7);
    }

    #[test]
    fn snapshot_sees_what_was_closed_and_the_volume_all() {
        let mut layers = Layers::new();
        layers.push(snapshot(10, 1, 5));
        layers.push(snapshot(11, 2, 6));
        layers.push(snapshot(20, 1, 7));
        assert_eq!(view(&layers, 1), (vec![7, 5, 1], 1));
        assert_eq!(view(&layers, 7), (vec![5, 1], 1));
        assert_eq!(view(&layers, 5), (vec![1], 1));
        assert_eq!(view(&layers, 2), (vec![6, 2], 2));
        assert!(layers.will_share(1) && !layers.will_share(3));
        layers.materialise(2);
        assert_eq!(view(&layers, 5), (vec![], 5), "it has a tree of its own");
        assert_eq!(view(&layers, 7), (vec![5, 1], 1));
        assert!(!layers.will_share(2));
        layers.forget(10);
        assert_eq!(view(&layers, 1), (vec![7, 5], 1));
        layers.forget(11);
        layers.materialise(1);
        layers.forget(20);
        assert_eq!(view(&layers, 1), (vec![7], 1), "its newest layer keeps its name");
        assert_ne!(layers.chain(7).layers(), layers.chain(1).layers(), "the snapshot has none");
        assert_eq!(layers.next_id(), 8);
        layers.remove(1);
        assert_eq!(layers.newest(1), 1);
    }

    #[test]
    fn restore_hides_older_layers() {
        let mut layers = Layers::new();
        layers.push(snapshot(10, 1, 5));
        layers.push(restore(20, 1, 6, 4));
        layers.push(snapshot(30, 1, 7));
        assert_eq!(view(&layers, 1), (vec![7, 6], 4));
        assert_eq!(view(&layers, 7), (vec![6], 4), "a snapshot of the restored volume");
        assert_eq!(view(&layers, 5), (vec![1], 1), "the snapshot before is not touched");
        assert!(layers.involves(4) && layers.involves(5) && !layers.involves(2));
        layers.materialise(2);
        assert_eq!(view(&layers, 1), (vec![7, 6], 1));
        assert_eq!(view(&layers, 7), (vec![6], 1));
        assert!(!layers.involves(4));
    }

    #[test]
    fn layers_of_a_volume_and_barriers_of_a_store_are_bounded() {
        let mut layers = Layers::new();
        let most = u32::try_from(LAYERS_MAX).unwrap() - 1;
        for i in 0..most {
            assert!(layers.has_room_for(1));
            layers.push(snapshot(u64::from(i), 1, 100 + i));
        }
        assert!(!layers.has_room_for(1));
        assert_eq!(layers.chain(1).layers().len(), LAYERS_MAX);
        for i in most..u32::try_from(BARRIERS_MAX).unwrap() {
            assert!(layers.room() > 0);
            layers.push(snapshot(u64::from(i), 1000 + i, 100 + i));
        }
        assert_eq!(layers.room(), 0);
    }
}
