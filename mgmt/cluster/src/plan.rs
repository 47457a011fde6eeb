//! From desired and observed state to the steps that close the gap.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use api::{
    Access, BlockSize, ByteLen, HostAccess, HostSet, Nqn, Qos, Referral, StoreName, VolumeName,
};
use uuid::Uuid;

use crate::record::{Desired, ExportRecord, Phase, StoreRecord, VolumeRecord};

/// What the data plane has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    /// Open stores.
    pub stores: BTreeMap<StoreName, ObservedStore>,
    /// Stores that were tried and could not be opened, with the reason.
    pub failed: BTreeMap<StoreName, String>,
    /// Exports, by volume.
    pub exports: BTreeMap<Uuid, ObservedExport>,
    /// Other discovery services that hosts are told of.
    pub referrals: Vec<Referral>,
    /// Hosts with keys, as the data plane has them.
    pub hosts: Vec<HostSet>,
}

/// An open store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObservedStore {
    /// The identity on the device.
    pub uuid: Uuid,
    /// Its volumes, by identity.
    pub volumes: BTreeMap<Uuid, ObservedVolume>,
    /// How fast it is scrubbed, in bytes a second; 0 for not at all.
    pub scrub_rate: u64,
}

/// A volume in an open store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObservedVolume {
    /// The name it was created with, as the store has it.
    pub name: String,
    /// Its size.
    pub size: ByteLen,
    /// Its logical block size.
    pub block_size: BlockSize,
    /// How fast its hosts are served.
    pub qos: Qos,
}

/// An export in the data plane.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObservedExport {
    /// The subsystem.
    pub nqn: Nqn,
    /// The namespace in it.
    pub nsid: u32,
    /// Who may connect.
    pub access: HostAccess,
    /// How good a path the node is.
    pub paths: Access,
}

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Open a store. Observe and plan again afterwards.
    OpenStore(StoreRecord),
    /// Create the volume in its store (from its origin, if it has one), then note it as ready.
    CreateVolume(VolumeRecord),
    /// The store has the volume: note it as ready.
    ConfirmVolume(VolumeRecord),
    /// Grow the volume in its store to the recorded size.
    GrowVolume(VolumeRecord),
    /// Limit the volume as recorded.
    SetQos(VolumeRecord),
    /// Scrub the store as recorded.
    SetScrub(StoreRecord),
    /// Note the size that the store has: a volume never shrinks by itself.
    AdoptSize {
        /// The record as it is.
        record: VolumeRecord,
        /// The larger size to note.
        size: ByteLen,
    },
    /// Note a volume that the store brought along.
    AdoptVolume(VolumeRecord),
    /// Destroy the volume in its store. Plan again afterwards.
    DestroyVolume(VolumeRecord),
    /// Remove the record of a deleted volume.
    ForgetVolume(VolumeRecord),
    /// Replace the keys of all hosts.
    SetKeys(Vec<HostSet>),
    /// Export a volume.
    AddExport {
        /// The wish.
        record: ExportRecord,
        /// The volume.
        volume: VolumeRecord,
    },
    /// Replace the allow list of an export, and the states of the paths to it.
    ChangeExport {
        /// The wish.
        record: ExportRecord,
        /// The volume.
        volume: VolumeRecord,
    },
    /// Remove an export that nobody wants.
    RemoveExport {
        /// The volume.
        volume: Uuid,
        /// The subsystem.
        nqn: Nqn,
    },
    /// Tell hosts of these discovery services.
    SetReferrals(Vec<Referral>),
    /// Nothing can be done; say so.
    Complain {
        /// The store, volume or export.
        subject: String,
        /// What is wrong.
        reason: String,
    },
}

/// The steps from `observed` to `desired`, in an order in which they can be executed.
///
/// Pure and total. Executing the steps and planning again ends with nothing but complaints.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    // Before anything is exported.
    let hosts: Vec<_> = desired.hosts.values().map(|kept| kept.record.0.clone()).collect();
    if hosts != observed.hosts {
        steps.push(Step::SetKeys(hosts));
    }
    plan_stores(desired, observed, &mut steps);
    plan_exports_to_remove(desired, observed, &mut steps);
    for kept in desired.volumes.values() {
        plan_volume(&kept.record, observed, &mut steps);
    }
    plan_adoption(desired, observed, &mut steps);
    for kept in desired.exports.values() {
        plan_export(&kept.record, desired, observed, &mut steps);
    }
    if desired.referrals() != observed.referrals {
        steps.push(Step::SetReferrals(desired.referrals().to_vec()));
    }
    steps
}

fn plan_stores(desired: &Desired, observed: &Observed, steps: &mut Vec<Step>) {
    for kept in desired.stores.values() {
        let record = &kept.record;
        if let Some(reason) = observed.failed.get(&record.name) {
            complain(steps, &record.name, reason.clone());
        } else if let Some(store) = observed.stores.get(&record.name) {
            // The identity is checked when the store is opened, and again here.
            if store.uuid != record.uuid {
                let reason = format!(
                    "the device holds store {}, but {} was added under this name",
                    store.uuid, record.uuid
                );
                complain(steps, &record.name, reason);
            } else if store.scrub_rate != record.scrub.effective() {
                // The store does not remember it: each start brings it.
                steps.push(Step::SetScrub(record.clone()));
            }
        } else {
            steps.push(Step::OpenStore(record.clone()));
        }
    }
}

fn plan_volume(record: &VolumeRecord, observed: &Observed, steps: &mut Vec<Step>) {
    let Some(store) = observed.stores.get(&record.store) else {
        // Either `OpenStore` comes first, or the store has its own complaint.
        if observed.failed.contains_key(&record.store) {
            let reason = format!("store {:?} is not open", record.store.as_str());
            complain(steps, &record.name, reason);
        }
        return;
    };
    let found = store.volumes.get(&record.uuid);
    match (record.phase, found) {
        (Phase::Creating, None) => steps.push(Step::CreateVolume(record.clone())),
        (Phase::Creating, Some(_)) => steps.push(Step::ConfirmVolume(record.clone())),
        (Phase::Deleting, Some(_)) => steps.push(Step::DestroyVolume(record.clone())),
        (Phase::Deleting, None) => steps.push(Step::ForgetVolume(record.clone())),
        (Phase::Ready, None) => {
            // Creating it again would turn lost data into zeroes.
            let reason = format!("store {:?} does not hold it", record.store.as_str());
            complain(steps, &record.name, reason);
        }
        (Phase::Ready, Some(volume)) => {
            let record = record.clone();
            match volume.size.cmp(&record.size) {
                Ordering::Less => steps.push(Step::GrowVolume(record)),
                Ordering::Greater => steps.push(Step::AdoptSize { record, size: volume.size }),
                // The store does not remember limits: each start brings them.
                Ordering::Equal if volume.qos != record.qos => steps.push(Step::SetQos(record)),
                Ordering::Equal => {}
            }
        }
    }
}

fn plan_adoption(desired: &Desired, observed: &Observed, steps: &mut Vec<Step>) {
    let mut names: BTreeMap<String, Uuid> = BTreeMap::new();
    for kept in desired.volumes.values() {
        names.insert(kept.record.name.to_string(), kept.record.uuid);
    }
    for (store_name, store) in &observed.stores {
        for (&uuid, volume) in &store.volumes {
            if names.values().any(|&known| known == uuid) {
                continue;
            }
            let Ok(name) = volume.name.parse::<VolumeName>() else {
                let reason = format!("volume {uuid} has the name {:?}", volume.name);
                complain(steps, store_name, reason);
                continue;
            };
            if let Some(other) = names.get(name.as_str()) {
                let reason = format!(
                    "volume {uuid} is also called {:?}, like volume {other}; it is left alone",
                    name.as_str()
                );
                complain(steps, store_name, reason);
                continue;
            }
            names.insert(name.to_string(), uuid);
            steps.push(Step::AdoptVolume(VolumeRecord {
                name,
                uuid,
                store: store_name.clone(),
                size: volume.size,
                block_size: volume.block_size,
                origin: None,
                qos: volume.qos,
                phase: Phase::Ready,
            }));
        }
    }
}

fn plan_exports_to_remove(desired: &Desired, observed: &Observed, steps: &mut Vec<Step>) {
    for (&volume, export) in &observed.exports {
        let wanted = desired.exports.values().any(|kept| {
            let record = &kept.record;
            let known = desired.volumes.get(&record.volume);
            record.nqn == export.nqn
                && record.nsid == export.nsid
                && known.is_some_and(|known| known.record.uuid == volume)
                && twin_of(record, volume, desired).is_none()
        });
        if !wanted {
            steps.push(Step::RemoveExport { volume, nqn: export.nqn.clone() });
        }
    }
}

fn plan_export(
    record: &ExportRecord,
    desired: &Desired,
    observed: &Observed,
    steps: &mut Vec<Step>,
) {
    let Some(volume) = desired.volumes.get(&record.volume).map(|kept| &kept.record) else {
        complain(steps, &record.nqn, format!("volume {:?} is unknown", record.volume.as_str()));
        return;
    };
    if let Some(twin) = twin_of(record, volume.uuid, desired) {
        let reason = format!("volume {:?} has the same UUID, and is exported", twin.as_str());
        complain(steps, &record.nqn, reason);
        return;
    }
    match observed.exports.get(&volume.uuid) {
        Some(export) if export.nqn == record.nqn && export.nsid == record.nsid => {
            if export.access != record.access || export.paths != record.paths {
                let (record, volume) = (record.clone(), volume.clone());
                steps.push(Step::ChangeExport { record, volume });
            }
        }
        _ => {
            let store = observed.stores.get(&volume.store);
            let served = store.is_some_and(|store| store.volumes.contains_key(&volume.uuid));
            if served && volume.phase == Phase::Ready {
                steps.push(Step::AddExport { record: record.clone(), volume: volume.clone() });
            }
        }
    }
}

/// An exported volume that comes before the one of this record and has its UUID. No two volumes
/// have one, unless somebody changed the records by hand.
fn twin_of<'a>(record: &ExportRecord, uuid: Uuid, desired: &'a Desired) -> Option<&'a VolumeName> {
    let mut before = desired.exports.keys().take_while(|&volume| *volume != record.volume);
    let has_it =
        |volume: &VolumeName| desired.volumes.get(volume).is_some_and(|v| v.record.uuid == uuid);
    before.find(|volume| has_it(volume))
}

fn complain(steps: &mut Vec<Step>, subject: impl ToString, reason: String) {
    steps.push(Step::Complain { subject: subject.to_string(), reason });
}

#[cfg(test)]
mod tests;
