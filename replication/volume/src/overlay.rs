//! The overlay: where the newest version of every block is that the log has and the map has not.
//!
//! A preallocated open-addressing table with one slot of 32 bytes for each block, and a short list
//! of zeroed ranges too large for one slot a block. The newest LSN wins between the two. Sixteen
//! neighbouring blocks start their probes next to each other, so that a run costs few cache lines.
//!
//! A block has one version in each *layer* of its volume (see `layers.rs`); nearly always there
//! is one.

/// Where the newest version of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the log, at this position.
    Log(u64),
    /// In an extent that a direct write filled: the 4 KiB block of the device.
    Device(u64),
    /// Nowhere: it reads as zeroes.
    Zero,
}

/// What the overlay knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) lsn: u64,
    pub(crate) place: Place,
    pub(crate) crc: u32,
    /// An extent is set aside for the block, because it may need one when it is destaged.
    pub(crate) reserved: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Zero: the slot is empty. LSNs start at one.
    lsn: u64,
    /// Two bits of kind, one bit of reservation, 61 bits of position or block.
    place: u64,
    block: u64,
    layer: u32,
    crc: u32,
}

const _: () = assert!(size_of::<Slot>() == 32);

const KIND_SHIFT: u32 = 62;
const RESERVED: u64 = 1 << 61;
const VALUE: u64 = RESERVED - 1;

impl Slot {
    fn version(&self) -> Version {
        let value = self.place & VALUE;
        let place = match self.place >> KIND_SHIFT {
            0 => Place::Log(value),
            1 => Place::Device(value),
            _ => Place::Zero,
        };
        let reserved = self.place & RESERVED != 0;
        Version { lsn: self.lsn, place, crc: self.crc, reserved }
    }

    fn set(&mut self, version: &Version) {
        let (kind, value) = match version.place {
            Place::Log(position) => (0, position),
            Place::Device(block) => (1, block),
            Place::Zero => (2, 0),
        };
        assert!(value <= VALUE);
        let reserved = if version.reserved { RESERVED } else { 0 };
        self.place = kind << KIND_SHIFT | reserved | value;
        self.lsn = version.lsn;
        self.crc = version.crc;
    }

    fn is(&self, layer: u32, block: u64) -> bool {
        self.block == block && self.layer == layer
    }
}

/// A zeroed range in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZeroRange {
    pub(crate) lsn: u64,
    pub(crate) layer: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The index of everything in the log that is not in the map.
#[derive(Debug)]
pub(crate) struct Overlay {
    slots: Box<[Slot]>,
    mask: usize,
    len: usize,
    len_max: usize,
    /// Blocks whose newest version is zeroes.
    zeroes: usize,
    ranges: Vec<ZeroRange>,
    ranges_max: usize,
}

impl Overlay {
    /// An empty overlay for at most `blocks_max` blocks and `ranges_max` ranges.
    pub(crate) fn new(blocks_max: usize, ranges_max: usize) -> Overlay {
        let slots = (blocks_max * 2).next_power_of_two().max(64);
        Overlay {
            slots: vec![Slot::default(); slots].into(),
            mask: slots - 1,
            len: 0,
            len_max: blocks_max,
            zeroes: 0,
            ranges: Vec::with_capacity(ranges_max),
            ranges_max,
        }
    }

    /// How many more blocks fit.
    pub(crate) fn room(&self) -> usize {
        self.len_max - self.len
    }

    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// True when a block is known to read as zeroes, those of ranges not counted.
    pub(crate) fn has_zeroes(&self) -> bool {
        self.zeroes > 0
    }

    /// How many more ranges fit.
    pub(crate) fn range_room(&self) -> usize {
        self.ranges_max - self.ranges.len()
    }

    /// The newest version of a block, zeroed ranges considered.
    #[inline]
    pub(crate) fn find(&self, layer: u32, block: u64) -> Option<Version> {
        let version = self.find_block(layer, block);
        if self.ranges.is_empty() {
            return version;
        }
        let older = bdev::planted(bdev::Planted::RangeAlwaysWins);
        let after = version.filter(|_| !older).map_or(0, |version| version.lsn);
        match self.range_after(layer, block, after) {
            Some(lsn) => Some(Version { lsn, place: Place::Zero, crc: 0, reserved: false }),
            None => version,
        }
    }

    /// The newest version of a block by itself.
    #[inline]
    pub(crate) fn find_block(&self, layer: u32, block: u64) -> Option<Version> {
        let slot = &self.slots[self.probe(layer, block)];
        (slot.lsn != 0).then(|| slot.version())
    }

    /// The LSN of a zeroed range over `block` that is newer than `lsn`.
    pub(crate) fn range_after(&self, layer: u32, block: u64, lsn: u64) -> Option<u64> {
        let over = |range: &&ZeroRange| {
            range.layer == layer && range.lsn > lsn && (range.start..range.end).contains(&block)
        };
        self.ranges.iter().filter(over).map(|range| range.lsn).max()
    }

    /// True when a zeroed range touches the blocks from `start` to before `end`.
    pub(crate) fn range_touches(&self, layer: u32, start: u64, end: u64) -> bool {
        self.ranges.iter().any(|r| r.layer == layer && r.start < end && start < r.end)
    }

    /// Enters a version that is newer than what is known; returns what was known.
    ///
    /// # Panics
    /// When the table is full, or knows a newer version: records become durable in order.
    pub(crate) fn insert(&mut self, layer: u32, block: u64, version: &Version) -> Option<Version> {
        let index = self.probe(layer, block);
        let slot = &mut self.slots[index];
        let old = (slot.lsn != 0).then(|| slot.version());
        if slot.lsn == 0 {
            assert!(self.len < self.len_max, "room was pledged when the record was appended");
            self.len += 1;
            (slot.layer, slot.block) = (layer, block);
        }
        assert!(version.lsn > slot.lsn, "the newest record wins");
        slot.set(version);
        self.zeroes += usize::from(version.place == Place::Zero);
        self.zeroes -= usize::from(old.is_some_and(|old| old.place == Place::Zero));
        old
    }

    /// Clears the reservation of a block, if it has one. True when it had.
    pub(crate) fn unreserve(&mut self, layer: u32, block: u64, lsn: u64) -> bool {
        let index = self.probe(layer, block);
        let slot = &mut self.slots[index];
        let had = slot.lsn == lsn && slot.place & RESERVED != 0;
        if had {
            slot.place &= !RESERVED;
        }
        had
    }

    /// Marks the block's version as one that an extent is set aside for.
    pub(crate) fn reserve(&mut self, layer: u32, block: u64) {
        let index = self.probe(layer, block);
        let slot = &mut self.slots[index];
        assert!(slot.lsn != 0, "the caller saw it");
        slot.place |= RESERVED;
    }

    /// Forgets the version of a block with this LSN; a newer one stays.
    pub(crate) fn forget(&mut self, layer: u32, block: u64, lsn: u64) -> Option<Version> {
        let mut hole = self.probe(layer, block);
        let newer = self.slots[hole].lsn > lsn && bdev::planted(bdev::Planted::ForgetsNewer);
        if self.slots[hole].lsn != lsn && !newer {
            return None;
        }
        let version = self.slots[hole].version();
        self.zeroes -= usize::from(version.place == Place::Zero);
        self.len -= 1;
        // Close the gap: every later slot of the cluster that may move into it does.
        let mut next = hole;
        loop {
            next = (next + 1) & self.mask;
            if self.slots[next].lsn == 0 || bdev::planted(bdev::Planted::GapNotClosed) {
                break;
            }
            let home = self.home(self.slots[next].layer, self.slots[next].block);
            let distance = next.wrapping_sub(home) & self.mask;
            if distance >= next.wrapping_sub(hole) & self.mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
        }
        self.slots[hole] = Slot::default();
        Some(version)
    }

    /// Enters a zeroed range.
    ///
    /// # Panics
    /// When there is no room: it was pledged when the record was appended.
    pub(crate) fn push_range(&mut self, range: ZeroRange) {
        assert!(self.ranges.len() < self.ranges_max);
        assert!(self.ranges.last().is_none_or(|last| last.lsn < range.lsn));
        self.ranges.push(range);
    }

    /// Forgets the zeroed range with this LSN.
    pub(crate) fn forget_range(&mut self, lsn: u64) {
        self.ranges.retain(|range| range.lsn != lsn);
    }

    /// The slot of a block, or the empty one where it belongs.
    #[inline]
    fn probe(&self, layer: u32, block: u64) -> usize {
        let mut index = self.home(layer, block);
        loop {
            let slot = &self.slots[index];
            if slot.lsn == 0 || slot.is(layer, block) {
                return index;
            }
            index = (index + 1) & self.mask;
        }
    }

    #[inline]
    fn home(&self, layer: u32, block: u64) -> usize {
        let key = (block >> 4) ^ u64::from(layer) << 40;
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let low = block & 15;
        // The shift keeps 36 bits: more slots than any log has blocks.
        let start = usize::try_from(mixed >> 28).expect("36 bits") << 4 | low as usize & 15;
        start & self.mask
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bdev::Rng;

    use super::*;

    fn version(lsn: u64, place: Place) -> Version {
        Version { lsn, place, crc: 7, reserved: lsn.is_multiple_of(2) }
    }

    #[test]
    fn table_agrees_with_a_map() {
        let mut rng = Rng::new(5);
        let mut overlay = Overlay::new(300, 4);
        let mut model: BTreeMap<(u32, u64), Version> = BTreeMap::new();
        for lsn in 1..20_000 {
            let key = (u32::try_from(rng.below(3)).unwrap(), rng.below(150));
            if rng.chance(1, 2) {
                let place = match rng.below(3) {
                    0 => Place::Log(rng.below(1 << 40)),
                    1 => Place::Device(rng.below(1 << 40)),
                    _ => Place::Zero,
                };
                if model.len() == 300 && !model.contains_key(&key) {
                    continue;
                }
                let old = overlay.insert(key.0, key.1, &version(lsn, place));
                assert_eq!(old, model.insert(key, version(lsn, place)));
            } else {
                let known = model.get(&key).map_or(lsn, |version| version.lsn);
                assert_eq!(overlay.forget(key.0, key.1, lsn + 1), None);
                assert_eq!(overlay.forget(key.0, key.1, known), model.remove(&key));
            }
            assert_eq!(overlay.len(), model.len());
            let zeroes = model.values().any(|version| version.place == Place::Zero);
            assert_eq!(overlay.has_zeroes(), zeroes);
        }
        for (key, version) in model {
            assert_eq!(overlay.find(key.0, key.1), Some(version));
        }
    }

    #[test]
    fn newest_of_block_and_range_wins() {
        let mut overlay = Overlay::new(8, 2);
        overlay.insert(1, 5, &version(1, Place::Log(9)));
        overlay.push_range(ZeroRange { lsn: 2, layer: 1, start: 0, end: 100 });
        assert_eq!(overlay.find(1, 5).map(|v| (v.lsn, v.place)), Some((2, Place::Zero)));
        assert_eq!(overlay.find(2, 5), None);
        assert_eq!(overlay.find(1, 100), None);
        overlay.insert(1, 5, &version(3, Place::Log(10)));
        assert_eq!(overlay.find(1, 5).map(|v| v.lsn), Some(3));
        overlay.forget_range(2);
        assert_eq!(overlay.find(1, 6), None);
        assert_eq!(overlay.range_room(), 2);
    }
}
