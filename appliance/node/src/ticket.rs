//! The caller's half of a command: an answer, some turns later.

use std::fmt;
use std::sync::mpsc::{self, TryRecvError};

use crate::command::{Answer, Envelope, NodeError};

/// The answer to a command, once the shards have given it.
///
/// Poll it ([`Ticket::take`]) from a loop that also turns the shards, or block on it
/// ([`Ticket::wait`]) from a thread of its own. Dropping it does not stop the command.
pub struct Ticket<T> {
    answers: mpsc::Receiver<Box<Envelope>>,
    missing: usize,
    pick: fn(Answer) -> Option<T>,
    value: Option<T>,
    error: Option<NodeError>,
}

impl<T> Ticket<T> {
    /// A ticket for `missing` commands, of which one answers with what `pick` finds.
    pub(crate) fn new(
        answers: mpsc::Receiver<Box<Envelope>>,
        missing: usize,
        pick: fn(Answer) -> Option<T>,
    ) -> Ticket<T> {
        Ticket { answers, missing, pick, value: None, error: None }
    }

    /// The answer, if it is there; gives it once.
    pub fn take(&mut self) -> Option<Result<T, NodeError>> {
        while self.missing > 0 {
            match self.answers.try_recv() {
                Ok(envelope) => self.note(*envelope),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => self.give_up(),
            }
        }
        self.outcome()
    }

    /// Blocks until the answer is there.
    ///
    /// # Errors
    /// What the shard answered, or [`NodeError::Stopped`] when it is gone.
    pub fn wait(mut self) -> Result<T, NodeError> {
        while self.missing > 0 {
            match self.answers.recv() {
                Ok(envelope) => self.note(*envelope),
                Err(mpsc::RecvError) => self.give_up(),
            }
        }
        self.outcome().unwrap_or(Err(NodeError::Stopped))
    }

    fn note(&mut self, envelope: Envelope) {
        self.missing -= 1;
        match envelope.answer.unwrap_or(Err(NodeError::Stopped)) {
            Ok(answer) => self.value = (self.pick)(answer).or(self.value.take()),
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }

    fn give_up(&mut self) {
        self.missing = 0;
        self.error = self.error.take().or(Some(NodeError::Stopped));
    }

    fn outcome(&mut self) -> Option<Result<T, NodeError>> {
        match self.error.take() {
            Some(error) => Some(Err(error)),
            None => self.value.take().map(Ok),
        }
    }
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("missing", &self.missing).finish_non_exhaustive()
    }
}
