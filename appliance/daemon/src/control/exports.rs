//! `export add`, `remove` and `hosts`.

use api::{
    ApiError, Changed, EventKind, Export, ExportAdd, ExportRemove, HostAccess, HostsAdd,
    HostsRemove, Nqn, VolumeName,
};
use cluster::{Desired, Expected, ExportRecord, Kept, VolumeRecord, export_key};

use super::Control;
use crate::plane::PlaneExport;

impl Control {
    pub(super) async fn add_export(
        &self,
        request: ExportAdd,
        id: &str,
    ) -> Result<Changed<Export>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let volume = desired.volumes.get(&request.volume);
        let volume = &volume.ok_or_else(|| ApiError::not_found("volume", &request.volume))?.record;
        if let Some(kept) = desired.exports.get(&request.volume) {
            return self.existing_export(&kept.record, &request).await;
        }
        let nqn = match request.nqn {
            Some(nqn) => nqn,
            None => self.default_nqn(&volume.name)?,
        };
        if let Some(kept) = desired.exports.values().find(|kept| kept.record.nqn == nqn) {
            return Err(ApiError::AlreadyExists {
                what: "export".to_owned(),
                name: nqn.to_string(),
                difference: format!("it exports volume {}", kept.record.volume),
            });
        }
        self.refuse_unless_online(volume).await?;
        let record = ExportRecord { volume: request.volume, nqn, access: request.access };
        let key = export_key(&record.volume);
        self.keep(&key, Expected::Absent, Some(record.encode())).await?;
        if let Err(error) = self.export_in_plane(&desired, &record, volume).await {
            self.forget(&key).await?;
            return Err(error);
        }
        self.note(EventKind::ExportAdded, &record.volume, format!("as {}", record.nqn), id);
        let value = self.view().await?.describe_export(&record)?;
        Ok(Changed { value, changed: true })
    }

    async fn existing_export(
        &self,
        record: &ExportRecord,
        request: &ExportAdd,
    ) -> Result<Changed<Export>, ApiError> {
        let mut differences = Vec::new();
        if request.nqn.as_ref().is_some_and(|nqn| *nqn != record.nqn) {
            differences.push(format!("it is exported as {}", record.nqn));
        }
        if request.access != record.access {
            differences.push("other hosts may connect (see: holdfast export hosts)".to_owned());
        }
        if !differences.is_empty() {
            return Err(ApiError::AlreadyExists {
                what: "export".to_owned(),
                name: record.volume.to_string(),
                difference: differences.join(", "),
            });
        }
        let value = self.view().await?.describe_export(record)?;
        Ok(Changed { value, changed: false })
    }

    /// A subsystem name from the node's name and the volume's. Both are of an alphabet that NQNs
    /// allow, and short enough.
    fn default_nqn(&self, volume: &VolumeName) -> Result<Nqn, ApiError> {
        format!("nqn.2026-11.dev.holdfast:{}:{volume}", self.name).parse()
    }

    pub(super) async fn remove_export(
        &self,
        request: ExportRemove,
        id: &str,
    ) -> Result<Option<Export>, ApiError> {
        let _guard = self.mutate().await?;
        let view = self.view().await?;
        let Some(kept) = view.desired.exports.get(&request.volume) else { return Ok(None) };
        let removed = view.describe_export(&kept.record)?;
        // The record first: after a crash it is not exported again.
        let key = export_key(&request.volume);
        self.keep(&key, Expected::At(kept.revision), None).await?;
        if view.exports.contains_key(&kept.record.nqn) {
            self.plane.export_remove(kept.record.nqn.clone()).await?;
        }
        let message = format!("{} is gone", kept.record.nqn);
        self.note(EventKind::ExportRemoved, &request.volume, message, id);
        Ok(Some(removed))
    }

    pub(super) async fn add_hosts(
        &self,
        request: HostsAdd,
        id: &str,
    ) -> Result<Changed<Export>, ApiError> {
        let change = |hosts: &mut Vec<Nqn>| hosts.extend(request.hosts.iter().cloned());
        self.change_hosts(&request.volume, change, id).await
    }

    pub(super) async fn remove_hosts(
        &self,
        request: HostsRemove,
        id: &str,
    ) -> Result<Changed<Export>, ApiError> {
        let change = |hosts: &mut Vec<Nqn>| hosts.retain(|host| !request.hosts.contains(host));
        self.change_hosts(&request.volume, change, id).await
    }

    async fn change_hosts(
        &self,
        volume: &VolumeName,
        change: impl FnOnce(&mut Vec<Nqn>) + Send,
        id: &str,
    ) -> Result<Changed<Export>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let kept = desired.exports.get(volume);
        let Kept { record, revision } =
            kept.ok_or_else(|| ApiError::not_found("export", volume))?;
        let HostAccess::Listed(hosts) = &record.access else {
            let reason = format!("any host may connect to {:?}", volume.as_str());
            let hint = "remove the export and add it with --host";
            return Err(ApiError::precondition(reason, hint));
        };
        let mut hosts = hosts.clone();
        change(&mut hosts);
        let access = HostAccess::listed(hosts)?;
        let changed = access != record.access;
        let record = ExportRecord { access, ..record.clone() };
        if changed {
            let key = export_key(volume);
            self.keep(&key, Expected::At(*revision), Some(record.encode())).await?;
            self.apply_hosts(&record).await?;
            let message = format!("{} hosts may connect", record.access.hosts().len());
            self.note(EventKind::ExportHostsChanged, volume, message, id);
        }
        let value = self.view().await?.describe_export(&record)?;
        Ok(Changed { value, changed })
    }

    /// Gives the data plane the allow list of an export, if it serves it.
    pub(super) async fn apply_hosts(&self, record: &ExportRecord) -> Result<(), ApiError> {
        let exports = self.plane.exports().await?;
        if exports.iter().any(|export| export.nqn == record.nqn) {
            self.plane.export_hosts(record.nqn.clone(), record.access.clone()).await?;
        }
        Ok(())
    }

    pub(super) async fn export_in_plane(
        &self,
        desired: &Desired,
        record: &ExportRecord,
        volume: &VolumeRecord,
    ) -> Result<(), ApiError> {
        let store = desired.stores.get(&volume.store);
        let store = store.ok_or_else(|| ApiError::not_found("store", &volume.store))?.record.uuid;
        let export = PlaneExport {
            nqn: record.nqn.clone(),
            store,
            volume: volume.uuid,
            access: record.access.clone(),
        };
        self.plane.export_add(export).await
    }
}
