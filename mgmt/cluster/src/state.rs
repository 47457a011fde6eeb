//! The interface of a state store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch::Receiver;

use crate::limits::{KEY_LEN_MAX, VALUE_LEN_MAX};
use crate::watch::{Change, Watch};

/// The number of a change. The empty store has revision 0, every change adds one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision(pub u64);

/// A key, its value, and the change that wrote it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision of the last change to this key.
    pub revision: Revision,
}

/// All entries under a prefix at one revision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listing {
    /// Ascending by key.
    pub entries: Vec<Entry>,
    /// The revision of the store when it was read: where to start a watch.
    pub revision: Revision,
}

/// What a swap expects to find.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// No such key.
    Absent,
    /// The key as written by this change.
    At(Revision),
}

/// Why a state store refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The key is not what was expected. Read it again and decide again.
    #[error("key {key:?} was changed by somebody else")]
    Conflict {
        /// The key.
        key: String,
        /// The revision it has now; `None`: it does not exist.
        found: Option<Revision>,
    },
    /// A watch asked for changes that are forgotten. List again.
    #[error("changes before revision {} are forgotten", oldest.0)]
    Compacted {
        /// The oldest change that is remembered.
        oldest: Revision,
    },
    /// The key is empty, too long, or has characters that are not visible ASCII.
    #[error("{key:?} is not a valid key")]
    InvalidKey {
        /// The key.
        key: String,
    },
    /// The value is larger than [`VALUE_LEN_MAX`].
    #[error("the value of {key:?} has {len} bytes, at most {VALUE_LEN_MAX} are allowed")]
    ValueTooLarge {
        /// The key.
        key: String,
        /// The length of the value in bytes.
        len: usize,
    },
    /// The store itself failed.
    #[error("the state store failed: {action}")]
    Backend {
        /// What it was doing.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The state file is from a newer version.
    #[error("the state file has format {found}, this version knows format {known}")]
    UnknownFormat {
        /// The format of the file.
        found: u64,
        /// The newest format this version knows.
        known: u64,
    },
}

/// The answer of a state store, some time later.
pub type StateReply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StateError>> + Send + 'a>>;

/// A revisioned key-value store with compare-and-swap.
///
/// A swap that was answered is durable, and every later read sees it. Keys are slash-separated
/// paths of visible ASCII.
pub trait StateStore: Send + Sync {
    /// The entry at `key`.
    fn read<'a>(&'a self, key: &'a str) -> StateReply<'a, Option<Entry>>;

    /// All entries whose key begins with `prefix`, at one revision.
    fn list<'a>(&'a self, prefix: &'a str) -> StateReply<'a, Listing>;

    /// Writes `value` (`None` removes the key) if the key is as `expected`.
    ///
    /// # Errors
    /// [`StateError::Conflict`] when it is not; nothing was changed then.
    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Expected,
        value: Option<Vec<u8>>,
    ) -> StateReply<'a, Revision>;

    /// The changes after `after` to keys that begin with `prefix`, ascending.
    ///
    /// # Errors
    /// [`StateError::Compacted`] when some of them are forgotten.
    fn changes<'a>(&'a self, prefix: &'a str, after: Revision) -> StateReply<'a, Vec<Change>>;

    /// Where the newest revision is announced.
    fn newest(&self) -> Receiver<Revision>;
}

impl dyn StateStore {
    /// Follows the changes after `after` to keys that begin with `prefix`.
    ///
    /// `after` is the revision of a [`Listing`], or of the last change that was seen before a
    /// break.
    #[must_use]
    pub fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Watch {
        Watch::new(Arc::clone(self), prefix.to_owned(), after)
    }
}

/// Checks a key before it is written.
pub(crate) fn check_key(key: &str) -> Result<(), StateError> {
    let visible = key.bytes().all(|c| c.is_ascii_graphic());
    if key.is_empty() || key.len() > KEY_LEN_MAX || !visible {
        return Err(StateError::InvalidKey { key: key.to_owned() });
    }
    Ok(())
}

/// Checks a value before it is written.
pub(crate) fn check_value(key: &str, value: Option<&Vec<u8>>) -> Result<(), StateError> {
    match value {
        Some(value) if value.len() > VALUE_LEN_MAX => {
            Err(StateError::ValueTooLarge { key: key.to_owned(), len: value.len() })
        }
        _ => Ok(()),
    }
}

/// Checks what a swap found.
pub(crate) fn check_expected(
    key: &str,
    expected: Expected,
    found: Option<Revision>,
) -> Result<(), StateError> {
    let same = match expected {
        Expected::Absent => found.is_none(),
        Expected::At(revision) => found == Some(revision),
    };
    if same { Ok(()) } else { Err(StateError::Conflict { key: key.to_owned(), found }) }
}
