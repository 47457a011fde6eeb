//! A bounded ring between exactly one producer and one consumer on two threads.
//!
//! This is how requests hop between shards and how commands reach a reactor: 5-9 ns a message when
//! both ends are busy. Each side caches the other's index, so that in steady state it touches the
//! shared cache line only when the ring looks full or empty.
//!
//! # Safety argument
//!
//! `head` counts items ever popped, `tail` items ever pushed; `head <= tail <= head + capacity`.
//! Cells in `head..tail` (modulo capacity) are initialised and belong to the consumer, the others
//! to the producer. The producer publishes a cell with a release store of `tail` that the consumer
//! reads with acquire; the consumer gives a cell back with a release store of `head` that the
//! producer reads with acquire. There is one [`Producer`] and one [`Consumer`], neither can be
//! cloned, and their methods take `&mut self`. Checked under loom (`make check`).

use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};
#[cfg(not(loom))]
use std::{
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A ring for at most `capacity` items (rounded up to a power of two).
///
/// # Panics
/// When `capacity` is zero or above 2^31.
pub fn spsc<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity > 0 && capacity <= 1 << 31, "a ring has between 1 and 2^31 cells");
    let capacity = capacity.next_power_of_two();
    let cells = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        cells,
    });
    let producer = Producer { shared: Arc::clone(&shared), tail: 0, head_seen: 0 };
    (producer, Consumer { shared, head: 0, tail_seen: 0 })
}

/// The end that pushes.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The end that pops.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

struct Shared<T> {
    head: CachePadded<AtomicUsize>,
    tail: CachePadded<AtomicUsize>,
    cells: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: cells change hands by release/acquire on `head` and `tail` (see the safety argument), so
// sharing the ring between two threads moves each `T` from one to the other: `T: Send` allows it.
unsafe impl<T: Send> Sync for Shared<T> {}

// SAFETY: as above; the ring owns its items.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Send> Producer<T> {
    /// Appends `item`, or gives it back when the ring is full.
    ///
    /// # Errors
    /// The item itself, when there is no room.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let capacity = self.shared.cells.len();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            self.head_seen = self.shared.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == capacity {
                return Err(item);
            }
        }
        let cell = &self.shared.cells[self.tail & (capacity - 1)];
        // SAFETY: the cell is outside `head..tail`, so it is the producer's and uninitialised.
        cell.with_mut(|pointer| unsafe { (*pointer).write(item) });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// How many items surely fit now.
    pub fn room(&mut self) -> usize {
        self.head_seen = self.shared.head.load(Ordering::Acquire);
        self.shared.cells.len() - self.tail.wrapping_sub(self.head_seen)
    }

    /// True when the consumer is gone.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest item, if there is one.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        let cell = &self.shared.cells[self.head & (self.shared.cells.len() - 1)];
        // SAFETY: the cell is inside `head..tail`, so it is initialised and the consumer's; `head`
        // moves on right below, so it is read once.
        let item = cell.with_mut(|pointer| unsafe { (*pointer).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(item)
    }

    /// True when nothing is queued now.
    pub fn is_empty(&mut self) -> bool {
        self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        self.head == self.tail_seen
    }

    /// True when the producer is gone.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // What the producer pushes after this is leaked with the ring: rings live as long as the
        // process, and both ends are dropped together at shut-down.
        let tail = self.shared.tail.load(Ordering::Acquire);
        while self.head != tail {
            let cell = &self.shared.cells[self.head & (self.shared.cells.len() - 1)];
            // SAFETY: as in `pop`.
            drop(cell.with_mut(|pointer| unsafe { (*pointer).assume_init_read() }));
            self.head = self.head.wrapping_add(1);
        }
        self.shared.head.store(self.head, Ordering::Release);
    }
}

/// `UnsafeCell` with loom's interface.
#[cfg(not(loom))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn full_ring_hands_the_item_back() {
        let (mut tx, mut rx) = spsc(2);
        assert_eq!((tx.push(1), tx.push(2), tx.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((rx.pop(), tx.room()), (Some(1), 1));
        assert_eq!((rx.pop(), rx.pop()), (Some(2), None));
        assert!(rx.is_empty() && !tx.is_abandoned());
        drop(rx);
        assert!(tx.is_abandoned());
    }

    #[test]
    fn items_arrive_once_and_in_order() {
        let (mut tx, mut rx) = spsc::<u32>(8);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for i in 0..50_000 {
                    while tx.push(i).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            for i in 0..50_000 {
                let item = loop {
                    match rx.pop() {
                        Some(item) => break item,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(item, i);
            }
        });
    }

    #[test]
    fn dropped_consumer_drops_what_is_queued() {
        let counted = std::sync::Arc::new(());
        let (mut tx, rx) = spsc(4);
        tx.push(std::sync::Arc::clone(&counted)).unwrap();
        drop(rx);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn every_interleaving_delivers_once_and_in_order() {
        loom::model(|| {
            let (mut tx, mut rx) = spsc::<u32>(2);
            let pusher = loom::thread::spawn(move || {
                for i in 0..3 {
                    while tx.push(i).is_err() {
                        loom::thread::yield_now();
                    }
                }
            });
            for i in 0..3 {
                loop {
                    match rx.pop() {
                        Some(item) => break assert_eq!(item, i),
                        None => loom::thread::yield_now(),
                    }
                }
            }
            pusher.join().unwrap();
        });
    }
}
