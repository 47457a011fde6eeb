//! A hash table of numbers that does not allocate: linear probing, deletion by shifting back.

/// Maps keys (never zero) to small values.
pub(crate) struct Table<V = u32> {
    slots: Vec<(u64, V)>,
    len: usize,
    shift: u32,
}

impl<V: Copy + Default> Table<V> {
    /// A table with room for `capacity` keys at half load.
    pub(crate) fn new(capacity: usize) -> Table<V> {
        let slots = (capacity.max(8) * 2).next_power_of_two();
        Table { slots: vec![(0, V::default()); slots], len: 0, shift: 64 - slots.trailing_zeros() }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many slots there are; iteration goes by slot.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The key and value in a slot.
    pub(crate) fn at(&self, slot: usize) -> Option<(u64, V)> {
        let (key, value) = self.slots[slot];
        (key != 0).then_some((key, value))
    }

    pub(crate) fn get(&self, key: u64) -> Option<V> {
        self.find(key).map(|slot| self.slots[slot].1)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        self.find(key).map(|slot| &mut self.slots[slot].1)
    }

    /// True when one more key would make probing slow: [`Table::grow`] first.
    pub(crate) fn is_crowded(&self, more: usize) -> bool {
        (self.len + more) * 4 > self.slots.len() * 3
    }

    /// Enters a key that is not in the table.
    pub(crate) fn insert(&mut self, key: u64, value: V) {
        assert!(key != 0);
        assert!(self.len + 1 < self.slots.len(), "tables are sized for their limit");
        let mut slot = self.home(key);
        while self.slots[slot].0 != 0 {
            assert!(self.slots[slot].0 != key, "a key is entered once");
            slot = self.next(slot);
        }
        self.slots[slot] = (key, value);
        self.len += 1;
    }

    /// Removes a key; later keys of its probe sequence move back.
    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        let mut hole = self.find(key)?;
        let value = self.slots[hole].1;
        let mut slot = self.next(hole);
        while self.slots[slot].0 != 0 {
            let home = self.home(self.slots[slot].0);
            let mask = self.slots.len() - 1;
            let from_home = slot.wrapping_sub(home) & mask;
            let from_hole = slot.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.slots[hole] = self.slots[slot];
                hole = slot;
            }
            slot = self.next(slot);
        }
        self.slots[hole] = (0, V::default());
        self.len -= 1;
        Some(value)
    }

    /// Doubles the table until `more` keys fit well. The only place that allocates.
    pub(crate) fn grow(&mut self, more: usize) {
        while self.is_crowded(more) {
            let mut larger = Table::new(self.slots.len());
            for &(key, value) in self.slots.iter().filter(|slot| slot.0 != 0) {
                larger.insert(key, value);
            }
            *self = larger;
        }
    }

    fn find(&self, key: u64) -> Option<usize> {
        let mut slot = self.home(key);
        while self.slots[slot].0 != 0 {
            if self.slots[slot].0 == key {
                return Some(slot);
            }
            slot = self.next(slot);
        }
        None
    }

    fn home(&self, key: u64) -> usize {
        let mixed = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(mixed >> self.shift).expect("fewer slots than memory")
    }

    fn next(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bdev::Rng;

    use super::*;

    #[test]
    fn behaves_like_a_map() {
        let mut rng = Rng::new(3);
        let mut table = Table::new(64);
        let mut model = BTreeMap::new();
        for _ in 0..20_000 {
            let key = rng.between(1, 200) << (rng.below(3) * 20);
            if rng.chance(1, 2) && model.len() < 90 {
                if model.insert(key, 7).is_none() {
                    table.insert(key, 7);
                }
            } else {
                assert_eq!(table.remove(key), model.remove(&key));
            }
            assert_eq!(table.len(), model.len());
            assert_eq!(table.get(key), model.get(&key).copied());
        }
        table.grow(1000);
        assert!(model.keys().all(|&key| table.get(key) == Some(7)));
        assert_eq!((0..table.slots()).filter_map(|slot| table.at(slot)).count(), model.len());
    }
}
