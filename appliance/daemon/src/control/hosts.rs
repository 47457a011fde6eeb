//! `host set`, `remove` and `list`.

use api::{ApiError, Changed, EventKind, HOST_KEYS_MAX, Host, HostRemove, HostSet};
use cluster::{Desired, Expected, HostRecord, host_key};

use super::Control;

impl Control {
    pub(super) async fn set_host(
        &self,
        request: HostSet,
        id: &str,
    ) -> Result<Changed<Host>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let value = Host::from(&request);
        let kept = desired.hosts.get(request.nqn());
        if kept.is_some_and(|kept| kept.record.0 == request) {
            return Ok(Changed { value, changed: false });
        }
        if kept.is_none() && desired.hosts.len() >= HOST_KEYS_MAX {
            let reason = format!("{HOST_KEYS_MAX} hosts have keys");
            return Err(ApiError::exhausted(reason, "remove some first"));
        }
        let expected = kept.map_or(Expected::Absent, |kept| Expected::At(kept.revision));
        let key = host_key(request.nqn());
        let record = HostRecord(request);
        self.keep(&key, expected, Some(record.encode())).await?;
        // The record is there: what fails here is done at the next start, and the caller is told.
        self.apply_keys().await?;
        self.note(EventKind::HostSet, &value.nqn, "it must prove who it is".to_owned(), id);
        Ok(Changed { value, changed: true })
    }

    pub(super) async fn remove_host(
        &self,
        request: HostRemove,
        id: &str,
    ) -> Result<Option<Host>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let Some(kept) = desired.hosts.get(&request.nqn) else { return Ok(None) };
        self.keep(&host_key(&request.nqn), Expected::At(kept.revision), None).await?;
        self.apply_keys().await?;
        let message = "it is not asked any more who it is".to_owned();
        self.note(EventKind::HostRemoved, &request.nqn, message, id);
        Ok(Some(Host::from(&kept.record.0)))
    }

    pub(super) async fn list_hosts(&self) -> Result<Vec<Host>, ApiError> {
        let desired = self.desired().await?;
        Ok(desired.hosts.values().map(|kept| Host::from(&kept.record.0)).collect())
    }

    /// Gives the data plane the keys as they are kept now.
    async fn apply_keys(&self) -> Result<(), ApiError> {
        let Desired { hosts, .. } = self.desired().await?;
        let hosts = hosts.into_values().map(|kept| kept.record.0).collect();
        self.plane.hosts_replace(hosts).await
    }
}
