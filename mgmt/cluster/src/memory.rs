//! A state store in memory, for tests and for nodes that shall forget.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch::{Receiver, Sender};

use crate::limits::HISTORY_KEPT;
use crate::state::{
    Entry, Expected, Listing, Revision, StateError, StateReply, StateStore, check_expected,
    check_key, check_value,
};
use crate::watch::Change;

/// Desired state that lives as long as the process.
#[derive(Debug)]
pub struct MemoryStateStore {
    inner: Mutex<Inner>,
    newest: Sender<Revision>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    history: BTreeMap<u64, Change>,
    revision: u64,
}

impl MemoryStateStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { inner: Mutex::default(), newest: Sender::new(Revision(0)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap_now(
        &self,
        key: &str,
        expected: Expected,
        value: Option<Vec<u8>>,
    ) -> Result<Revision, StateError> {
        check_key(key)?;
        check_value(key, value.as_ref())?;
        let mut inner = self.inner();
        check_expected(key, expected, inner.entries.get(key).map(|entry| entry.revision))?;
        if value.is_none() && !inner.entries.contains_key(key) {
            return Ok(Revision(inner.revision));
        }
        inner.revision += 1;
        let revision = Revision(inner.revision);
        match value.clone() {
            Some(value) => {
                let entry = Entry { key: key.to_owned(), value, revision };
                inner.entries.insert(key.to_owned(), entry);
            }
            None => {
                inner.entries.remove(key);
            }
        }
        inner.history.insert(revision.0, Change { key: key.to_owned(), value, revision });
        let oldest = revision.0.saturating_sub(HISTORY_KEPT - 1);
        inner.history = inner.history.split_off(&oldest);
        self.newest.send_replace(revision);
        Ok(revision)
    }
}

impl Default for MemoryStateStore {
    fn default() -> Self {
        Self::new()
    }
}

impl StateStore for MemoryStateStore {
    fn read<'a>(&'a self, key: &'a str) -> StateReply<'a, Option<Entry>> {
        Box::pin(ready(Ok(self.inner().entries.get(key).cloned())))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> StateReply<'a, Listing> {
        let inner = self.inner();
        let entries = inner
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry.clone())
            .collect();
        Box::pin(ready(Ok(Listing { entries, revision: Revision(inner.revision) })))
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Expected,
        value: Option<Vec<u8>>,
    ) -> StateReply<'a, Revision> {
        Box::pin(ready(self.swap_now(key, expected, value)))
    }

    fn changes<'a>(&'a self, prefix: &'a str, after: Revision) -> StateReply<'a, Vec<Change>> {
        let inner = self.inner();
        let oldest = inner.history.keys().next().copied().unwrap_or(inner.revision + 1);
        let result = if after.0 + 1 < oldest {
            Err(StateError::Compacted { oldest: Revision(oldest) })
        } else {
            let wanted = |change: &&Change| change.key.starts_with(prefix);
            Ok(inner.history.range(after.0 + 1..).map(|(_, c)| c).filter(wanted).cloned().collect())
        };
        Box::pin(ready(result))
    }

    fn newest(&self) -> Receiver<Revision> {
        self.newest.subscribe()
    }
}
