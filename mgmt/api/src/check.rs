//! The check of a store: proof that its maps, owners and space agree.

use crate::ByteLen;

/// How a check is, or how it ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum StoreCheck {
    /// None was started since the store was opened.
    #[default]
    Never,
    /// It is under way.
    Running {
        /// Bytes of metadata read so far.
        read: u64,
        /// Bytes of metadata that there are to be read.
        total: u64,
    },
    /// It came to its end.
    Done(CheckReport),
    /// It gave way to something, and can be started again.
    Aborted {
        /// To what.
        reason: String,
    },
}

/// What a check found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    /// What is wrong, as far as there was room.
    pub findings: Vec<CheckFinding>,
    /// Findings that there was no room for.
    pub dropped: u64,
    /// Space in use that nothing references.
    pub leaked: ByteLen,
    /// As much of it as was given back.
    pub freed: ByteLen,
    /// Volumes.
    pub volumes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Metadata that was read, second copies included.
    pub metadata: ByteLen,
    /// Data that is referenced.
    pub data: ByteLen,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckFinding {
    /// The stable spelling of what kind of thing.
    pub kind: String,
    /// What and where, for people.
    pub message: String,
    /// It was mended.
    pub repaired: bool,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.dropped == 0
    }
}
