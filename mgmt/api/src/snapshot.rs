//! Snapshots: what a volume held at one moment.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::limits::SNAPSHOT_GROUP_MAX;
use crate::name::SnapshotName;
use crate::{ApiError, ByteLen, StoreName, VolumeName};

/// A snapshot by its volume's name and its own: `db@monday`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SnapshotPath {
    /// The volume that it was taken of.
    pub volume: VolumeName,
    /// Its name, unique among the snapshots of the volume.
    pub name: SnapshotName,
}

impl SnapshotPath {
    /// Whether a node took it for itself.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.name.as_str().starts_with(SNAPSHOT_RESERVED)
    }
}

impl FromStr for SnapshotPath {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let Some((volume, name)) = text.split_once('@') else {
            let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
            let reason = format!("\"{shown}\" does not name a snapshot");
            return Err(ApiError::invalid("snapshot", reason, "write VOLUME@SNAPSHOT"));
        };
        Ok(Self { volume: volume.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for SnapshotPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.volume, self.name))
    }
}

/// Takes snapshots of one or several volumes of a store, all at the same moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotCreate {
    snapshots: Vec<SnapshotPath>,
}

impl SnapshotCreate {
    /// A consistent group of snapshots.
    ///
    /// # Errors
    /// `InvalidArgument` when there is none, or two of the same volume; `ResourceExhausted` when
    /// there are more than [`SNAPSHOT_GROUP_MAX`].
    pub fn new(snapshots: Vec<SnapshotPath>) -> Result<Self, ApiError> {
        let invalid = |reason: String| {
            let hint = "name one snapshot for each volume, like db@monday";
            Err(ApiError::invalid("snapshots", reason, hint))
        };
        if snapshots.is_empty() {
            return invalid("no snapshot is named".to_owned());
        }
        if snapshots.len() > SNAPSHOT_GROUP_MAX {
            let reason = format!("{} snapshots are more than a group can have", snapshots.len());
            let hint = format!("take at most {SNAPSHOT_GROUP_MAX} at once");
            return Err(ApiError::exhausted(reason, hint));
        }
        if let Some(one) = snapshots.iter().find(|one| one.is_reserved()) {
            let name = one.name.as_str();
            return invalid(format!("names like {name:?} are for the node itself"));
        }
        for (index, one) in snapshots.iter().enumerate() {
            if snapshots[..index].iter().any(|other| other.volume == one.volume) {
                return invalid(format!("volume {:?} is named twice", one.volume.as_str()));
            }
        }
        Ok(Self { snapshots })
    }

    /// The snapshots, one for each volume.
    #[must_use]
    pub fn snapshots(&self) -> &[SnapshotPath] {
        &self.snapshots
    }
}

/// Deletes a snapshot. Clones of it, and later snapshots, stay as they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotDelete {
    /// The snapshot.
    pub snapshot: SnapshotPath,
}

/// Which snapshots are wanted, and how much about them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SnapshotList {
    /// Of this volume alone.
    pub volume: Option<VolumeName>,
    /// With the space that each has to itself: found by a walk of its map.
    pub with_space: bool,
}

/// Makes a writable volume that begins with what a snapshot holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeClone {
    /// The snapshot.
    pub snapshot: SnapshotPath,
    /// The name of the new volume.
    pub name: VolumeName,
}

/// Takes a volume back to a snapshot, in place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeRestore {
    /// The volume: the snapshot's own, or a clone that descends from the snapshot.
    pub volume: VolumeName,
    /// The snapshot.
    pub snapshot: SnapshotPath,
}

/// What a node says of a snapshot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Its name and its volume's.
    pub path: SnapshotPath,
    /// Its identity.
    pub uuid: Uuid,
    /// The store that holds it.
    pub store: StoreName,
    /// Its number in the store: of two, the later one has the higher number.
    pub number: u32,
    /// The size of the volume at that moment.
    pub size: ByteLen,
    /// What its map references, shared or not. Zero until it is materialised.
    pub referenced: ByteLen,
    /// What would be free without it, if that was asked for.
    pub unique: Option<ByteLen>,
    /// It is in the map of the store; before, it is durable in the log alone.
    pub materialised: bool,
}

impl Snapshot {
    /// What it shares with others, where [`Snapshot::unique`] is known.
    #[must_use]
    pub fn shared(&self) -> Option<ByteLen> {
        let unique = self.unique?.bytes();
        Some(ByteLen::from_bytes(self.referenced.bytes().saturating_sub(unique)))
    }
}

/// What to look at in a comparison.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DiffTarget {
    /// A snapshot.
    Snapshot(SnapshotPath),
    /// What a volume holds now. A snapshot of it is taken for the time of the comparison.
    Now(VolumeName),
}

impl FromStr for DiffTarget {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        if text.contains('@') {
            text.parse().map(Self::Snapshot)
        } else {
            text.parse().map(Self::Now)
        }
    }
}

impl fmt::Display for DiffTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(path) => path.fmt(f),
            Self::Now(volume) => volume.fmt(f),
        }
    }
}

/// What is wanted to be compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeDiff {
    base: Option<SnapshotPath>,
    of: DiffTarget,
}

impl VolumeDiff {
    /// What changed from `base` (without one: from nothing) to `of`.
    ///
    /// # Errors
    /// `InvalidArgument` when both are the same.
    pub fn new(base: Option<SnapshotPath>, of: DiffTarget) -> Result<Self, ApiError> {
        if base.clone().map(DiffTarget::Snapshot).as_ref() == Some(&of) {
            let reason = format!("{of} is compared with itself");
            return Err(ApiError::invalid("base", reason, "name an older snapshot"));
        }
        Ok(Self { base, of })
    }

    /// The older snapshot; `None` means an empty volume.
    #[must_use]
    pub fn base(&self) -> Option<&SnapshotPath> {
        self.base.as_ref()
    }

    /// What to look at.
    #[must_use]
    pub fn of(&self) -> &DiffTarget {
        &self.of
    }

    /// The same comparison, of a snapshot.
    #[must_use]
    pub fn with(self, snapshot: SnapshotPath) -> Self {
        Self { of: DiffTarget::Snapshot(snapshot), ..self }
    }
}

/// How the names of snapshots begin that a node takes for itself. It deletes what is left of them
/// when it starts.
pub const SNAPSHOT_RESERVED: &str = "tmp.diff.";

/// A bounded step of a comparison.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DiffStep {
    /// What changed, in ascending order.
    pub ranges: Vec<ChangedRange>,
    /// Everything before this byte was compared.
    pub position: u64,
    /// The size of what is compared.
    pub size: u64,
}

/// Bytes that changed, in units of an extent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChangedRange {
    /// The first byte.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> SnapshotPath {
        text.parse().unwrap()
    }

    #[test]
    fn a_snapshot_is_named_by_its_volume_and_itself() {
        assert_eq!(path("db@monday").to_string(), "db@monday");
        let refusal = |text: &str| text.parse::<SnapshotPath>().unwrap_err().to_string();
        assert_eq!(refusal("db"), "snapshot: \"db\" does not name a snapshot");
        assert_eq!(refusal("db@"), "snapshot: the name is empty");
        assert_eq!(refusal("@x"), "volume: the name is empty");
        assert!(refusal("db@a@b").contains("'@' at position 2"));
    }

    #[test]
    fn a_group_has_one_snapshot_of_each_volume_and_a_limit() {
        assert!(SnapshotCreate::new(vec![]).is_err());
        assert!(SnapshotCreate::new(vec![path("a@x"), path("b@x")]).is_ok());
        assert!(SnapshotCreate::new(vec![path("a@x"), path("a@y")]).is_err());
        let many = |count: usize| (0..count).map(|n| path(&format!("v{n}@x"))).collect();
        assert!(SnapshotCreate::new(vec![path("a@tmp.diff.1")]).is_err(), "the node's own");
        assert!(SnapshotCreate::new(many(SNAPSHOT_GROUP_MAX)).is_ok());
        assert!(SnapshotCreate::new(many(SNAPSHOT_GROUP_MAX + 1)).is_err());
    }

    #[test]
    fn nothing_is_compared_with_itself() {
        let target = |text: &str| text.parse::<DiffTarget>().unwrap();
        assert!(VolumeDiff::new(Some(path("a@x")), target("a@x")).is_err());
        assert!(VolumeDiff::new(Some(path("a@x")), target("a@y")).is_ok());
        assert!(VolumeDiff::new(None, target("a@x")).is_ok());
        assert!(VolumeDiff::new(Some(path("a@x")), target("a")).is_ok());
        assert_eq!(target("a"), DiffTarget::Now("a".parse().unwrap()));
        assert!("a@".parse::<DiffTarget>().is_err());
    }
}
