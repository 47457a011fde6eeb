//! Messages to a thread: a bounded ring and a doorbell.

use bdev::ring::{Consumer, Producer, spsc};

use crate::Doorbell;
use crate::limits::MAILBOX_MAX;

/// A mailbox for `capacity` messages (rounded up to a power of two) to the thread that `doorbell`
/// wakes.
///
/// # Panics
/// When `capacity` is zero or exceeds [`MAILBOX_MAX`].
pub fn mailbox<T: Send>(capacity: usize, doorbell: &Doorbell) -> (Sender<T>, Receiver<T>) {
    assert!(capacity <= MAILBOX_MAX);
    let (producer, consumer) = spsc(capacity);
    (Sender { producer, doorbell: doorbell.clone() }, Receiver { consumer })
}

/// The end that sends. There is one.
pub struct Sender<T> {
    producer: Producer<T>,
    doorbell: Doorbell,
}

impl<T: Send> Sender<T> {
    /// Sends `message` and wakes the other side if it sleeps.
    ///
    /// # Errors
    /// The message itself, when the mailbox is full: that is the back-pressure.
    pub fn send(&mut self, message: T) -> Result<(), T> {
        self.post(message)?;
        self.ring();
        Ok(())
    }

    /// Sends `message` without waking: for several in a row, with one [`Sender::ring`] at the end.
    ///
    /// # Errors
    /// The message itself, when the mailbox is full.
    pub fn post(&mut self, message: T) -> Result<(), T> {
        self.producer.push(message)
    }

    /// Wakes the other side if it sleeps.
    pub fn ring(&self) {
        self.doorbell.ring();
    }

    /// How many messages surely fit now.
    pub fn room(&mut self) -> usize {
        self.producer.room()
    }

    /// True when the other end was dropped: nothing will be taken any more.
    pub fn is_abandoned(&self) -> bool {
        self.producer.is_abandoned()
    }
}

/// The end that takes. There is one.
pub struct Receiver<T> {
    consumer: Consumer<T>,
}

impl<T: Send> Receiver<T> {
    /// The oldest message, if there is one.
    pub fn take(&mut self) -> Option<T> {
        self.consumer.pop()
    }

    /// True when there is no message now.
    pub fn is_empty(&mut self) -> bool {
        self.consumer.is_empty()
    }

    /// True when the other end was dropped: nothing more will come.
    pub fn is_abandoned(&self) -> bool {
        self.consumer.is_abandoned()
    }
}
