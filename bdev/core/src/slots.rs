//! A fixed table of things in flight, named by small integers.

/// At most `capacity` items, each under a key below `capacity`. Never allocates after it was made.
///
/// Keys are reused, lowest-used-last first, so a table in steady state stays in cache.
#[derive(Debug)]
pub struct Slots<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    /// An empty table for at most `capacity` items.
    ///
    /// # Panics
    /// When `capacity` does not fit 32 bits.
    pub fn new(capacity: usize) -> Slots<T> {
        let count = u32::try_from(capacity).expect("a table is named by 32-bit keys");
        let mut items = Vec::with_capacity(capacity);
        items.resize_with(capacity, || None);
        Slots { items, free: (0..count).rev().collect() }
    }

    /// Stores `item` and returns its key, or gives it back when the table is full.
    ///
    /// # Errors
    /// The item itself, when there is no room.
    pub fn insert(&mut self, item: T) -> Result<u32, T> {
        let Some(key) = self.free.pop() else { return Err(item) };
        let slot = &mut self.items[key as usize];
        assert!(slot.is_none());
        *slot = Some(item);
        Ok(key)
    }

    /// Takes the item under `key` out, if there is one.
    pub fn remove(&mut self, key: u32) -> Option<T> {
        let item = self.items.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(item)
    }

    /// The item under `key`.
    pub fn get(&self, key: u32) -> Option<&T> {
        self.items.get(key as usize)?.as_ref()
    }

    /// The item under `key`, to change it in place.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.items.get_mut(key as usize)?.as_mut()
    }

    /// How many items are stored.
    pub fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// How many items fit in all.
    pub fn capacity(&self) -> usize {
        self.items.len()
    }

    /// True when nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when nothing more fits.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Every key and item, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0u32..).zip(&self.items).filter_map(|(key, item)| Some((key, item.as_ref()?)))
    }

    /// Every key and item, to change them in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0u32..).zip(&mut self.items).filter_map(|(key, item)| Some((key, item.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_items_until_removed() {
        let mut slots = Slots::new(2);
        let a = slots.insert('a').unwrap();
        let b = slots.insert('b').unwrap();
        assert_eq!(slots.insert('c'), Err('c'));
        assert!(slots.is_full());
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.remove(99), None);
        assert_eq!((slots.len(), slots.get(b)), (1, Some(&'b')));
        *slots.get_mut(b).unwrap() = 'B';
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(b, &'B')]);
    }
}
