//! What is kept about stores, volumes, exports, discovery and hosts.

mod wire;

use std::collections::BTreeMap;

use api::{
    Access, BlockSize, ByteLen, DevicePath, HostAccess, HostSet, Nqn, Qos, Referral, ScrubPolicy,
    StoreName, VolumeName,
};
use uuid::Uuid;

use crate::state::{Listing, Revision, StateError, StateStore};

/// A store that shall be open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreRecord {
    /// Its name in this node.
    pub name: StoreName,
    /// The identity that is written on the device.
    pub uuid: Uuid,
    /// Where it was when it was added.
    pub device: DevicePath,
    /// Whether and how fast it shall be scrubbed.
    pub scrub: ScrubPolicy,
}

/// A volume that shall be there (or shall go away: see [`Phase`]).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeRecord {
    /// Its name.
    pub name: VolumeName,
    /// Its identity.
    pub uuid: Uuid,
    /// The store it is in.
    pub store: StoreName,
    /// Its size.
    pub size: ByteLen,
    /// Its logical block size.
    pub block_size: BlockSize,
    /// The snapshot that it began with: a clone.
    pub origin: Option<Uuid>,
    /// How fast its hosts may be served.
    pub qos: Qos,
    /// How far it has come.
    pub phase: Phase,
}

/// How far a volume has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Accepted; the store may or may not have it.
    Creating,
    /// The store has it.
    Ready,
    /// Deletion accepted; the store may or may not have it still.
    Deleting,
}

/// A volume that hosts shall reach.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportRecord {
    /// The volume.
    pub volume: VolumeName,
    /// The subsystem. Exports may share one.
    pub nqn: Nqn,
    /// The namespace in it.
    pub nsid: u32,
    /// Who may connect and sees the namespace.
    pub access: HostAccess,
    /// How good a path this node is.
    pub paths: Access,
    /// Whether hosts without keys are refused.
    pub require_authentication: bool,
}

/// The other discovery services that hosts shall be told of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReferralsRecord {
    /// Sorted by address.
    pub referrals: Vec<Referral>,
}

/// A host that shall prove who it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostRecord(pub HostSet);

/// A record and the revision at which it was read, for the next swap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept<T> {
    /// The record.
    pub record: T,
    /// When it was written.
    pub revision: Revision,
}

/// All records, read at one revision.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Desired {
    /// By name.
    pub stores: BTreeMap<StoreName, Kept<StoreRecord>>,
    /// By name.
    pub volumes: BTreeMap<VolumeName, Kept<VolumeRecord>>,
    /// By volume.
    pub exports: BTreeMap<VolumeName, Kept<ExportRecord>>,
    /// Absent until the first one is added.
    pub referrals: Option<Kept<ReferralsRecord>>,
    /// By name.
    pub hosts: BTreeMap<Nqn, Kept<HostRecord>>,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It was written by a newer version.
    #[error("record {key:?} has version {found}, this version knows {known}")]
    Newer {
        /// The key of the record.
        key: String,
        /// Its version.
        found: u32,
        /// The newest version this version knows.
        known: u32,
    },
    /// It is damaged.
    #[error("record {key:?} is damaged: {reason}")]
    Damaged {
        /// The key of the record.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The state store failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The key of a store's record.
#[must_use]
pub fn store_key(name: &StoreName) -> String {
    format!("{STORES}{name}")
}

/// The key of a volume's record.
#[must_use]
pub fn volume_key(name: &VolumeName) -> String {
    format!("{VOLUMES}{name}")
}

/// The key of an export's record.
#[must_use]
pub fn export_key(volume: &VolumeName) -> String {
    format!("{EXPORTS}{volume}")
}

/// The key of a host's record.
#[must_use]
pub fn host_key(nqn: &Nqn) -> String {
    format!("{HOSTS}{nqn}")
}

/// The key of the list of referrals.
pub const REFERRALS_KEY: &str = "discovery/referrals";

const STORES: &str = "stores/";
const VOLUMES: &str = "volumes/";
const EXPORTS: &str = "exports/";
const HOSTS: &str = "hosts/";

impl Desired {
    /// Reads all records.
    ///
    /// # Errors
    /// When the state store fails, or a record is damaged or newer than this version. Nothing is
    /// skipped: a record that is not understood stops the node, before it acts on half of a wish.
    pub async fn load(state: &dyn StateStore) -> Result<Self, RecordError> {
        Self::from_listing(state.list("").await?)
    }

    /// The discovery services that hosts shall be told of.
    #[must_use]
    pub fn referrals(&self) -> &[Referral] {
        self.referrals.as_ref().map_or(&[], |kept| &kept.record.referrals)
    }

    fn from_listing(listing: Listing) -> Result<Self, RecordError> {
        let mut desired = Self::default();
        for entry in listing.entries {
            let (key, revision) = (entry.key.as_str(), entry.revision);
            if key.starts_with(STORES) {
                let record = StoreRecord::decode(key, &entry.value)?;
                desired.stores.insert(record.name.clone(), Kept { record, revision });
            } else if key.starts_with(VOLUMES) {
                let record = VolumeRecord::decode(key, &entry.value)?;
                desired.volumes.insert(record.name.clone(), Kept { record, revision });
            } else if key.starts_with(EXPORTS) {
                let record = ExportRecord::decode(key, &entry.value)?;
                desired.exports.insert(record.volume.clone(), Kept { record, revision });
            } else if key == REFERRALS_KEY {
                let record = ReferralsRecord::decode(key, &entry.value)?;
                desired.referrals = Some(Kept { record, revision });
            } else if key.starts_with(HOSTS) {
                let record = HostRecord::decode(key, &entry.value)?;
                desired.hosts.insert(record.0.nqn().clone(), Kept { record, revision });
            }
        }
        Ok(desired)
    }
}
