//! Making the data plane what the state store says.

use std::collections::BTreeMap;

use api::{ApiError, EventKind, Severity};
use cluster::{
    Desired, Observed, ObservedExport, ObservedStore, ObservedVolume, Phase, Step, VolumeRecord,
    plan, volume_key,
};

use super::Control;
use crate::limits::RECONCILE_ROUNDS_MAX;
use crate::plane::PlaneExport;

impl Control {
    /// Plans and executes until nothing is left but complaints, which become the node's troubles.
    ///
    /// A step that fails is a complaint, not an error: the rest of the node serves.
    pub(crate) async fn reconcile(&self) -> Result<(), ApiError> {
        let mut failures: BTreeMap<String, String> = BTreeMap::new();
        for _round in 0..RECONCILE_ROUNDS_MAX {
            let desired = self.desired().await?;
            let observed = self.observe(&desired).await?;
            let steps = plan(&desired, &observed);
            let mut progress = false;
            for step in &steps {
                if let Step::Complain { subject, reason } = step {
                    failures.insert(subject.clone(), reason.clone());
                    continue;
                }
                let subject = subject_of(step);
                if failures.contains_key(&subject) {
                    continue;
                }
                progress = true;
                if let Err(error) = self.execute(step, &desired).await {
                    // Nothing is served to hosts that would not be asked for their keys.
                    if matches!(step, Step::SetKeys(_)) {
                        return Err(error);
                    }
                    self.note_failure(step, &subject, &error);
                    failures.insert(subject, error.to_string());
                }
            }
            if !progress {
                break;
            }
        }
        let mut troubles = self.troubles();
        // Stores have their own list, from which they are opened again.
        failures.retain(|subject, _| !troubles.stores.keys().any(|name| name.as_str() == subject));
        for (subject, reason) in &failures {
            if troubles.others.get(subject) != Some(reason) {
                tracing::error!(subject, reason, "cannot be served");
            }
        }
        troubles.others = failures;
        Ok(())
    }

    async fn observe(&self, desired: &Desired) -> Result<Observed, ApiError> {
        let mut observed =
            Observed { failed: self.troubles().stores.clone(), ..Observed::default() };
        for store in self.plane.stores().await? {
            let kept = desired.stores.values().find(|kept| kept.record.uuid == store.uuid);
            let Some(kept) = kept else { continue };
            let volumes = store.volumes.into_iter().map(|volume| {
                let seen = ObservedVolume {
                    name: volume.name,
                    size: volume.size,
                    block_size: volume.block_size,
                    qos: volume.qos,
                };
                (volume.uuid, seen)
            });
            let seen = ObservedStore {
                uuid: store.uuid,
                volumes: volumes.collect(),
                scrub_rate: store.scrub_rate,
            };
            observed.stores.insert(kept.record.name.clone(), seen);
        }
        for export in self.plane.exports().await? {
            let PlaneExport { nqn, nsid, volume, access, paths, .. } = export;
            observed.exports.insert(volume, ObservedExport { nqn, nsid, access, paths });
        }
        observed.referrals = self.plane.referrals().await?;
        observed.hosts = self.plane.hosts().await?;
        Ok(observed)
    }

    async fn execute(&self, step: &Step, desired: &Desired) -> Result<(), ApiError> {
        match step {
            Step::OpenStore(record) => {
                if let Err(error) = self.open_store(record).await {
                    self.troubles().stores.insert(record.name.clone(), error.to_string());
                    return Err(error);
                }
                let message = format!("store {} is open on {}", record.uuid, record.device);
                self.note(EventKind::StoreOpened, &record.name, message, "");
                Ok(())
            }
            Step::CreateVolume(record) => self.create_in_store(desired, record).await,
            Step::ConfirmVolume(record) => self.confirm(record).await,
            Step::GrowVolume(record) => self.resize_in_store(desired, record, false).await,
            Step::SetQos(record) => self.limit_in_store(desired, record).await,
            Step::SetScrub(record) => {
                let rate = record.scrub.effective();
                self.plane.store_scrub(record.uuid, rate, false).await
            }
            Step::AdoptSize { record, size } => {
                let record = VolumeRecord { size: *size, ..record.clone() };
                self.put(&volume_key(&record.name), record.encode()).await
            }
            Step::AdoptVolume(record) => {
                let record = VolumeRecord { phase: Phase::Ready, ..record.clone() };
                self.put(&volume_key(&record.name), record.encode()).await?;
                let message = format!("{} found in store {}", record.size, record.store);
                self.note(EventKind::VolumeAdopted, &record.name, message, "");
                Ok(())
            }
            Step::DestroyVolume(record) => self.destroy_in_store(desired, record).await,
            Step::ForgetVolume(record) => self.forget(&volume_key(&record.name)).await,
            Step::AddExport { record, volume } => {
                self.export_in_plane(desired, record, volume).await
            }
            Step::ChangeExport { record, volume } => {
                self.change_in_plane(desired, record, volume).await
            }
            Step::RemoveExport { volume, .. } => self.plane.export_remove(*volume).await,
            Step::SetReferrals(referrals) => self.plane.set_referrals(referrals.clone()).await,
            Step::SetKeys(hosts) => self.plane.hosts_replace(hosts.clone()).await,
            Step::Complain { .. } => Ok(()),
        }
    }

    fn note_failure(&self, step: &Step, subject: &str, error: &ApiError) {
        let kind = match step {
            Step::OpenStore(_) => EventKind::StoreFailed,
            Step::AddExport { .. }
            | Step::SetKeys(_)
            | Step::ChangeExport { .. }
            | Step::RemoveExport { .. }
            | Step::SetReferrals(_) => EventKind::ExportFailed,
            _ => EventKind::VolumeFailed,
        };
        self.events.note(kind, Severity::Error, subject, error.to_string(), "");
    }
}

/// What a step is about: the name under which its failure is a trouble.
fn subject_of(step: &Step) -> String {
    match step {
        Step::OpenStore(record) | Step::SetScrub(record) => record.name.to_string(),
        Step::CreateVolume(record)
        | Step::ConfirmVolume(record)
        | Step::GrowVolume(record)
        | Step::SetQos(record)
        | Step::AdoptSize { record, .. }
        | Step::AdoptVolume(record)
        | Step::DestroyVolume(record)
        | Step::ForgetVolume(record) => record.name.to_string(),
        Step::AddExport { record, .. } | Step::ChangeExport { record, .. } => {
            record.volume.to_string()
        }
        Step::RemoveExport { nqn, .. } => nqn.to_string(),
        Step::SetReferrals(_) => "discovery".to_owned(),
        Step::SetKeys(_) => "keys of hosts".to_owned(),
        Step::Complain { subject, .. } => subject.clone(),
    }
}
