//! Following changes, with resumption.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch::Receiver;

use crate::state::{Revision, StateError, StateStore};

/// One change of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its new value; `None`: it was removed.
    pub value: Option<Vec<u8>>,
    /// The number of this change.
    pub revision: Revision,
}

/// A stream of changes; made by `StateStore::watch`.
pub struct Watch {
    store: Arc<dyn StateStore>,
    prefix: String,
    after: Revision,
    newest: Receiver<Revision>,
    pending: VecDeque<Change>,
}

impl Watch {
    pub(crate) fn new(store: Arc<dyn StateStore>, prefix: String, after: Revision) -> Self {
        let newest = store.newest();
        Self { store, prefix, after, newest, pending: VecDeque::new() }
    }

    /// The next change; waits until there is one.
    ///
    /// Cancel-safe: a change is only given out once, and never lost when the future is dropped.
    ///
    /// # Errors
    /// [`StateError::Compacted`] when the watch fell too far behind, and what the store fails with.
    pub async fn next(&mut self) -> Result<Change, StateError> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Ok(change);
            }
            let newest = *self.newest.borrow_and_update();
            if newest > self.after {
                let changes = self.store.changes(&self.prefix, self.after).await?;
                // Changes may have come since `newest` was read: they count as seen, too.
                self.after = changes.last().map_or(newest, |last| last.revision.max(newest));
                self.pending.extend(changes);
            } else if self.newest.changed().await.is_err() {
                let source = "the state store was closed".into();
                return Err(StateError::Backend { action: "watch", source });
            }
        }
    }
}
