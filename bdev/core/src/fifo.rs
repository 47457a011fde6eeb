//! A bounded first-in first-out queue that never allocates after it was made.

use std::collections::VecDeque;

/// A queue with a fixed capacity. Pushing into a full one hands the item back: what stays in the
/// caller's hands is the back-pressure.
#[derive(Debug)]
pub struct Fifo<T> {
    items: VecDeque<T>,
    capacity: usize,
}

impl<T> Fifo<T> {
    /// An empty queue for at most `capacity` items; all its memory is allocated here.
    pub fn new(capacity: usize) -> Fifo<T> {
        Fifo { items: VecDeque::with_capacity(capacity), capacity }
    }

    /// Appends `item`, or gives it back when the queue is full.
    ///
    /// # Errors
    /// The item itself, when there is no room.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() == self.capacity {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Puts `item` back in front, or gives it back when the queue is full.
    ///
    /// # Errors
    /// The item itself, when there is no room.
    pub fn push_front(&mut self, item: T) -> Result<(), T> {
        if self.items.len() == self.capacity {
            return Err(item);
        }
        self.items.push_front(item);
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// Moves items, oldest first, to the end of `other` while it has room.
    pub fn move_into(&mut self, other: &mut Fifo<T>) {
        let count = self.items.len().min(other.room());
        other.items.extend(self.items.drain(..count));
    }

    /// The oldest item.
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    /// The oldest item, to change it in place.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.items.front_mut()
    }

    /// How many items are queued.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// How many more items fit.
    pub fn room(&self) -> usize {
        self.capacity - self.items.len()
    }

    /// How many items fit in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// True when nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// True when nothing more fits.
    pub fn is_full(&self) -> bool {
        self.items.len() == self.capacity
    }

    /// The items from oldest to newest.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Drops every item.
    pub fn clear(&mut self) {
        self.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queue_hands_the_item_back() {
        let mut fifo = Fifo::new(2);
        assert_eq!(fifo.push('a'), Ok(()));
        assert_eq!(fifo.push('b'), Ok(()));
        assert_eq!(fifo.push('c'), Err('c'));
        assert_eq!((fifo.pop(), fifo.room()), (Some('a'), 1));
        assert_eq!(fifo.push_front('z'), Ok(()));
        assert_eq!(fifo.push_front('y'), Err('y'));
        assert_eq!((fifo.pop(), fifo.pop(), fifo.pop()), (Some('z'), Some('b'), None));
    }

    #[test]
    fn items_move_in_order_as_far_as_they_fit() {
        let (mut from, mut to) = (Fifo::new(3), Fifo::new(2));
        for item in 1..=3 {
            from.push(item).unwrap();
        }
        from.move_into(&mut to);
        assert_eq!((to.pop(), to.pop(), from.len()), (Some(1), Some(2), 1));
        from.move_into(&mut to);
        assert_eq!((to.pop(), from.is_empty()), (Some(3), true));
    }

    #[test]
    fn empty_capacity_takes_nothing() {
        let mut fifo = Fifo::new(0);
        assert!(fifo.is_full());
        assert_eq!(fifo.push(1), Err(1));
    }
}
