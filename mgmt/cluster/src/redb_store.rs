//! A state store in one file, on redb.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::watch::{Receiver, Sender};
use tokio::task::spawn_blocking;

use crate::limits::HISTORY_KEPT;
use crate::state::{
    Entry, Expected, Listing, Revision, StateError, StateReply, StateStore, check_expected,
    check_key, check_value,
};
use crate::watch::Change;

/// Key to (revision, value).
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// Revision to (key, present, value).
const HISTORY: TableDefinition<'_, u64, (&str, bool, &[u8])> = TableDefinition::new("history");
/// `format` and `revision`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The format of the file. A file with a higher number is refused.
const FORMAT: u64 = 1;

/// Desired state in one file. A change is on disk before it is answered.
///
/// One process at a time: redb locks the file.
pub struct RedbStateStore {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    newest: Sender<Revision>,
}

impl RedbStateStore {
    /// Opens the file at `path`, or creates it.
    ///
    /// # Errors
    /// When the file cannot be opened, is locked by another process, is damaged, or is from a newer
    /// version.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let database = Database::create(path).map_err(failed("open"))?;
        let write = database.begin_write().map_err(failed("open"))?;
        let revision = {
            let mut meta = write.open_table(META).map_err(failed("open"))?;
            let stored = |key| -> Result<Option<u64>, StateError> {
                Ok(meta.get(key).map_err(failed("open"))?.map(|value| value.value()))
            };
            let revision = stored("revision")?.unwrap_or(0);
            match stored("format")? {
                None => {
                    meta.insert("format", FORMAT).map_err(failed("open"))?;
                }
                Some(FORMAT) => {}
                Some(found) => return Err(StateError::UnknownFormat { found, known: FORMAT }),
            }
            write.open_table(ENTRIES).map_err(failed("open"))?;
            write.open_table(HISTORY).map_err(failed("open"))?;
            revision
        };
        write.commit().map_err(failed("open"))?;
        let newest = Sender::new(Revision(revision));
        Ok(Self { inner: Arc::new(Inner { database, newest }) })
    }

    /// Runs `work` where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let inner = Arc::clone(&self.inner);
        spawn_blocking(move || work(&inner)).await.map_err(failed("run"))?
    }
}

impl Inner {
    fn read(&self, key: &str) -> Result<Option<Entry>, StateError> {
        let read = self.database.begin_read().map_err(failed("read"))?;
        let table = read.open_table(ENTRIES).map_err(failed("read"))?;
        let found = table.get(key).map_err(failed("read"))?;
        Ok(found.map(|found| {
            let (revision, value) = found.value();
            entry(key, revision, value)
        }))
    }

    fn list(&self, prefix: &str) -> Result<Listing, StateError> {
        let read = self.database.begin_read().map_err(failed("list"))?;
        let meta = read.open_table(META).map_err(failed("list"))?;
        let revision =
            meta.get("revision").map_err(failed("list"))?.map_or(0, |value| value.value());
        let table = read.open_table(ENTRIES).map_err(failed("list"))?;
        let mut entries = Vec::new();
        for found in table.range(prefix..).map_err(failed("list"))? {
            let (key, value) = found.map_err(failed("list"))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let (written, bytes) = value.value();
            entries.push(entry(key.value(), written, bytes));
        }
        Ok(Listing { entries, revision: Revision(revision) })
    }

    fn swap(
        &self,
        key: &str,
        expected: Expected,
        value: Option<Vec<u8>>,
    ) -> Result<Revision, StateError> {
        check_key(key)?;
        check_value(key, value.as_ref())?;
        // One writer at a time: redb serialises write transactions, so that the check below and
        // the write are one step. Returning early drops the transaction, which undoes it.
        let write = self.database.begin_write().map_err(failed("swap"))?;
        let revision = {
            let mut entries = write.open_table(ENTRIES).map_err(failed("swap"))?;
            let found =
                entries.get(key).map_err(failed("swap"))?.map(|found| Revision(found.value().0));
            check_expected(key, expected, found)?;
            let mut meta = write.open_table(META).map_err(failed("swap"))?;
            let last =
                meta.get("revision").map_err(failed("swap"))?.map_or(0, |value| value.value());
            if value.is_none() && found.is_none() {
                return Ok(Revision(last));
            }
            let revision = last + 1;
            meta.insert("revision", revision).map_err(failed("swap"))?;
            match &value {
                Some(value) => {
                    entries.insert(key, (revision, value.as_slice())).map_err(failed("swap"))?;
                }
                None => {
                    entries.remove(key).map_err(failed("swap"))?;
                }
            }
            let mut history = write.open_table(HISTORY).map_err(failed("swap"))?;
            let bytes = value.as_deref().unwrap_or_default();
            history.insert(revision, (key, value.is_some(), bytes)).map_err(failed("swap"))?;
            if let Some(forgotten) = revision.checked_sub(HISTORY_KEPT) {
                history.remove(forgotten).map_err(failed("swap"))?;
            }
            revision
        };
        write.commit().map_err(failed("swap"))?;
        // Two writers may come here in either order; the announcement never goes back.
        self.newest.send_modify(|newest| *newest = (*newest).max(Revision(revision)));
        Ok(Revision(revision))
    }

    fn changes(&self, prefix: &str, after: Revision) -> Result<Vec<Change>, StateError> {
        let read = self.database.begin_read().map_err(failed("watch"))?;
        let table = read.open_table(HISTORY).map_err(failed("watch"))?;
        let first = table.first().map_err(failed("watch"))?;
        if let Some((oldest, _)) = first
            && after.0 + 1 < oldest.value()
        {
            return Err(StateError::Compacted { oldest: Revision(oldest.value()) });
        }
        let mut changes = Vec::new();
        for found in table.range(after.0 + 1..).map_err(failed("watch"))? {
            let (revision, change) = found.map_err(failed("watch"))?;
            let (key, present, value) = change.value();
            if key.starts_with(prefix) {
                changes.push(Change {
                    key: key.to_owned(),
                    value: present.then(|| value.to_vec()),
                    revision: Revision(revision.value()),
                });
            }
        }
        Ok(changes)
    }
}

impl StateStore for RedbStateStore {
    fn read<'a>(&'a self, key: &'a str) -> StateReply<'a, Option<Entry>> {
        let key = key.to_owned();
        Box::pin(self.blocking(move |inner| inner.read(&key)))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> StateReply<'a, Listing> {
        let prefix = prefix.to_owned();
        Box::pin(self.blocking(move |inner| inner.list(&prefix)))
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Expected,
        value: Option<Vec<u8>>,
    ) -> StateReply<'a, Revision> {
        let key = key.to_owned();
        Box::pin(self.blocking(move |inner| inner.swap(&key, expected, value)))
    }

    fn changes<'a>(&'a self, prefix: &'a str, after: Revision) -> StateReply<'a, Vec<Change>> {
        let prefix = prefix.to_owned();
        Box::pin(self.blocking(move |inner| inner.changes(&prefix, after)))
    }

    fn newest(&self) -> Receiver<Revision> {
        self.inner.newest.subscribe()
    }
}

fn entry(key: &str, revision: u64, value: &[u8]) -> Entry {
    Entry { key: key.to_owned(), value: value.to_vec(), revision: Revision(revision) }
}

/// Wraps what redb fails with.
fn failed<E>(action: &'static str) -> impl Fn(E) -> StateError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| StateError::Backend { action, source: Box::new(source) }
}
