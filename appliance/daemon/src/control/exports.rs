//! `export add`, `remove`, `hosts` and `set-ana-state`.

use std::collections::BTreeMap;

use api::{
    Access, ApiError, Changed, EventKind, Export, ExportAdd, ExportRemove, HostAccess, HostsAdd,
    HostsRemove, NAMESPACES_PER_SUBSYSTEM_MAX, Nqn, SetAnaState, VolumeName,
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
        let record = self.new_export(&desired, request)?;
        self.refuse_unless_online(volume).await?;
        let key = export_key(&record.volume);
        self.keep(&key, Expected::Absent, Some(record.encode())).await?;
        if let Err(error) = self.export_in_plane(&desired, &record, volume).await {
            self.forget(&key).await?;
            return Err(error);
        }
        let message = match record.nsid {
            1 => format!("as {}", record.nqn),
            nsid => format!("as {}, namespace {nsid}", record.nqn),
        };
        self.note(EventKind::ExportAdded, &record.volume, message, id);
        let value = self.view().await?.describe_export(&record)?;
        Ok(Changed { value, changed: true })
    }

    /// Gives a new export its subsystem and its number there.
    fn new_export(&self, desired: &Desired, request: ExportAdd) -> Result<ExportRecord, ApiError> {
        // Only a name that was given can mean a subsystem that is there.
        let joins = request.nqn.is_some();
        let nqn = match request.nqn {
            Some(nqn) => nqn,
            None => self.default_nqn(&request.volume)?,
        };
        let there: Vec<&ExportRecord> = desired
            .exports
            .values()
            .map(|kept| &kept.record)
            .filter(|record| record.nqn == nqn)
            .collect();
        if let Some(other) = there.first().filter(|_| !joins) {
            return Err(ApiError::AlreadyExists {
                what: "export".to_owned(),
                name: nqn.to_string(),
                difference: format!("it exports volume {}", other.volume),
            });
        }
        let taken: BTreeMap<u32, &VolumeName> =
            there.iter().map(|record| (record.nsid, &record.volume)).collect();
        let nsid = match request.nsid {
            None => free_nsid(&taken).ok_or_else(|| {
                let reason = format!("{nqn} has {NAMESPACES_PER_SUBSYSTEM_MAX} namespaces");
                ApiError::exhausted(reason, "use another subsystem")
            })?,
            Some(nsid) => match taken.get(&nsid) {
                None => nsid,
                Some(volume) => {
                    return Err(ApiError::AlreadyExists {
                        what: "namespace".to_owned(),
                        name: nsid.to_string(),
                        difference: format!("in {nqn} it is volume {volume}"),
                    });
                }
            },
        };
        let (volume, access, paths) = (request.volume, request.access, Access::default());
        let require_authentication = request.require_authentication;
        Ok(ExportRecord { volume, nqn, nsid, access, paths, require_authentication })
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
        if request.nsid.is_some_and(|nsid| nsid != record.nsid) {
            differences.push(format!("it is namespace {}", record.nsid));
        }
        if request.access != record.access {
            differences.push("other hosts may connect (see: holdfast export hosts)".to_owned());
        }
        if request.require_authentication != record.require_authentication {
            let not = if record.require_authentication { "" } else { "not " };
            differences.push(format!("authentication is {not}required"));
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
        if view.exports.contains_key(&removed.uuid) {
            self.plane.export_remove(removed.uuid).await?;
        }
        let others = view.desired.exports.values().filter(|other| other.record.nqn == removed.nqn);
        let message = match others.count() {
            1 => format!("{} is gone", removed.nqn),
            _ => format!("namespace {} of {} is gone", removed.nsid, removed.nqn),
        };
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
        let kept = kept.ok_or_else(|| ApiError::not_found("export", volume))?;
        let record = &kept.record;
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
            self.change_export(&desired, kept, &record).await?;
            let message = format!("{} hosts may connect", record.access.hosts().len());
            self.note(EventKind::ExportHostsChanged, volume, message, id);
        }
        let value = self.view().await?.describe_export(&record)?;
        Ok(Changed { value, changed })
    }

    pub(super) async fn set_ana_state(
        &self,
        request: SetAnaState,
        id: &str,
    ) -> Result<Changed<Export>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let SetAnaState { volume, state, listener } = request;
        let kept = desired.exports.get(&volume);
        let kept = kept.ok_or_else(|| ApiError::not_found("export", &volume))?;
        let listening = self.plane.info().nvme_tcp;
        if let Some(address) = listener.filter(|address| !listening.contains(address)) {
            let addresses: Vec<_> = listening.iter().map(ToString::to_string).collect();
            return Err(ApiError::NotFound {
                what: "listener".to_owned(),
                name: address.to_string(),
                hint: format!("the node listens on {}", addresses.join(", ")),
            });
        }
        let mut paths = kept.record.paths.clone();
        paths.set(listener, state);
        let changed = paths != kept.record.paths;
        let record = ExportRecord { paths, ..kept.record.clone() };
        if changed {
            self.change_export(&desired, kept, &record).await?;
            let place = listener.map(|listener| format!(" through {listener}"));
            let message = format!("{state}{}", place.unwrap_or_default());
            self.note(EventKind::ExportAnaStateChanged, &volume, message, id);
        }
        let value = self.view().await?.describe_export(&record)?;
        Ok(Changed { value, changed })
    }

    /// Keeps a changed record, and gives it to the data plane; or neither.
    async fn change_export(
        &self,
        desired: &Desired,
        kept: &Kept<ExportRecord>,
        record: &ExportRecord,
    ) -> Result<(), ApiError> {
        let key = export_key(&record.volume);
        let volume = desired.volumes.get(&record.volume);
        let volume = volume.ok_or_else(|| ApiError::not_found("volume", &record.volume))?;
        let revision = self.keep(&key, Expected::At(kept.revision), Some(record.encode())).await?;
        let applied = self.change_in_plane(desired, record, &volume.record).await;
        if applied.is_err() {
            self.keep(&key, Expected::At(revision), Some(kept.record.encode())).await?;
        }
        applied
    }

    /// Gives the data plane the allow list and the paths of an export, if it serves it.
    pub(super) async fn change_in_plane(
        &self,
        desired: &Desired,
        record: &ExportRecord,
        volume: &VolumeRecord,
    ) -> Result<(), ApiError> {
        let exports = self.plane.exports().await?;
        if exports.iter().any(|export| export.volume == volume.uuid) {
            self.plane.export_change(plane_export(desired, record, volume)?).await?;
        }
        Ok(())
    }

    pub(super) async fn export_in_plane(
        &self,
        desired: &Desired,
        record: &ExportRecord,
        volume: &VolumeRecord,
    ) -> Result<(), ApiError> {
        self.plane.export_add(plane_export(desired, record, volume)?).await
    }
}

fn plane_export(
    desired: &Desired,
    record: &ExportRecord,
    volume: &VolumeRecord,
) -> Result<PlaneExport, ApiError> {
    let store = desired.stores.get(&volume.store);
    let store = store.ok_or_else(|| ApiError::not_found("store", &volume.store))?.record.uuid;
    let ExportRecord { nqn, nsid, access, paths, require_authentication, .. } = record.clone();
    let volume = volume.uuid;
    Ok(PlaneExport { nqn, nsid, store, volume, access, paths, require_authentication })
}

/// A number that no namespace of a subsystem has: one above all of them, so that one that was just
/// removed is not soon another volume; below only when there is none.
fn free_nsid(taken: &BTreeMap<u32, &VolumeName>) -> Option<u32> {
    let above = taken.keys().next_back().map_or(1, |last| last + 1);
    let free = (1..=NAMESPACES_PER_SUBSYSTEM_MAX).find(|nsid| !taken.contains_key(nsid));
    if above <= NAMESPACES_PER_SUBSYSTEM_MAX { Some(above) } else { free }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_numbered_upwards_and_gaps_are_filled_last() {
        let volume: VolumeName = "v".parse().unwrap();
        let free = |taken: &[u32]| free_nsid(&taken.iter().map(|&nsid| (nsid, &volume)).collect());
        assert_eq!(free(&[]), Some(1));
        assert_eq!(free(&[1, 5]), Some(6));
        assert_eq!(free(&[2, NAMESPACES_PER_SUBSYSTEM_MAX]), Some(1));
        let all: Vec<u32> = (1..=NAMESPACES_PER_SUBSYSTEM_MAX).collect();
        assert_eq!(free(&all), None);
    }
}
