//! Snapshots, clones, limits: what volumes are made into.

use api::{ApiError, ByteLen, ChangedRange, DIFF_RANGES_MAX, DiffStep, Qos, Rate};
use node::{CloneSpec, SnapshotSpec, SnapshotStatus};
use uuid::Uuid;

use super::Shared;
use super::convert::{api_error, plane_volume};
use crate::plane::{PlaneNewSnapshot, PlaneVolume};

impl Shared {
    pub(super) fn limit_volume(&self, store: Uuid, volume: Uuid, qos: Qos) -> Result<(), ApiError> {
        let id = self.store_id(store)?;
        let known = self.volume(store, volume)?;
        let pair = |rate: Option<Rate>| rate.map_or((0, 0), |rate| (rate.per_second, rate.burst));
        let (iops, iops_burst) = pair(qos.iops());
        let (bytes_per_second, bytes_burst) = pair(qos.bandwidth());
        let limits = node::Qos { iops, iops_burst, bytes_per_second, bytes_burst };
        let ticket = self.handle.limit_volume(id, known.id, limits).map_err(api_error)?;
        ticket.wait().map_err(api_error)
    }

    pub(super) fn clone_volume(
        &self,
        store: Uuid,
        snapshot: Uuid,
        volume: &PlaneVolume,
    ) -> Result<PlaneVolume, ApiError> {
        let id = self.store_id(store)?;
        let of = self.snapshot(store, snapshot)?.id;
        let spec =
            CloneSpec { snapshot: of, name: volume.name.clone(), uuid: volume.uuid.into_bytes() };
        let ticket = self.handle.clone_volume(id, spec).map_err(api_error)?;
        plane_volume(ticket.wait().map_err(api_error)?)
    }

    pub(super) fn restore_volume(
        &self,
        store: Uuid,
        volume: Uuid,
        snapshot: Uuid,
    ) -> Result<PlaneVolume, ApiError> {
        let id = self.store_id(store)?;
        let of = self.snapshot(store, snapshot)?.id;
        let known = self.volume(store, volume)?;
        let ticket = self.handle.restore_volume(id, known.id, of).map_err(api_error)?;
        let status = ticket.wait().map_err(api_error)?;
        self.publish_size(volume, &status)?;
        plane_volume(status)
    }

    pub(super) fn create_snapshots(
        &self,
        store: Uuid,
        group: &[PlaneNewSnapshot],
    ) -> Result<(), ApiError> {
        let id = self.store_id(store)?;
        let status = self.status(store)?;
        let spec = |new: &PlaneNewSnapshot| {
            let uuid = new.volume.into_bytes();
            let volume = status.volumes.iter().find(|found| found.uuid == uuid);
            let missing = || {
                let reason = format!("store {store} does not hold volume {}", new.volume);
                ApiError::precondition(reason, "")
            };
            let volume = volume.ok_or_else(missing)?.id;
            Ok(SnapshotSpec { volume, name: new.name.clone(), uuid: new.uuid.into_bytes() })
        };
        let group = group.iter().map(spec).collect::<Result<_, ApiError>>()?;
        let ticket = self.handle.create_snapshots(id, group).map_err(api_error)?;
        ticket.wait().map_err(api_error)
    }

    pub(super) fn destroy_snapshot(&self, store: Uuid, snapshot: Uuid) -> Result<(), ApiError> {
        let id = self.store_id(store)?;
        let of = self.snapshot(store, snapshot)?.id;
        let ticket = self.handle.delete_volume(id, of).map_err(api_error)?;
        ticket.wait().map_err(api_error)
    }

    pub(super) fn snapshot_space(&self, store: Uuid, snapshot: Uuid) -> Result<ByteLen, ApiError> {
        let id = self.store_id(store)?;
        let of = self.snapshot(store, snapshot)?.id;
        let mut unique = 0;
        let mut from = 0;
        loop {
            let ticket = self.handle.count_unique(id, of, from).map_err(api_error)?;
            let step = ticket.wait().map_err(api_error)?;
            unique += step.bytes;
            match step.next {
                Some(next) => from = next,
                None => return Ok(ByteLen::from_bytes(unique)),
            }
        }
    }

    pub(super) fn diff(
        &self,
        store: Uuid,
        base: Option<Uuid>,
        of: Uuid,
        from: u64,
    ) -> Result<DiffStep, ApiError> {
        let id = self.store_id(store)?;
        let base = base.map(|base| self.snapshot(store, base)).transpose()?;
        let SnapshotStatus { id: of, bytes: size, .. } = self.snapshot(store, of)?;
        // What was cut off since is a change as well.
        let size = base.as_ref().map_or(size, |base| size.max(base.bytes));
        let base = base.map(|base| base.id);
        let ticket = self.handle.diff(id, base, of, from, DIFF_RANGES_MAX).map_err(api_error)?;
        let step = ticket.wait().map_err(api_error)?;
        let range = |(offset, length): (u64, u64)| {
            // Units are larger than blocks: the last one may go beyond the end.
            ChangedRange { offset, length: length.min(size.saturating_sub(offset)) }
        };
        let ranges = step.ranges.into_iter().map(range).filter(|range| range.length > 0);
        let position = step.next.map_or(size, |next| next.min(size));
        Ok(DiffStep { ranges: ranges.collect(), position, size })
    }

    fn snapshot(&self, store: Uuid, snapshot: Uuid) -> Result<SnapshotStatus, ApiError> {
        let found = self.status(store)?.snapshots.into_iter();
        found.into_iter().find(|found| found.uuid == snapshot.into_bytes()).ok_or_else(|| {
            ApiError::precondition(format!("store {store} does not hold snapshot {snapshot}"), "")
        })
    }
}
