//! `SnapshotService`.

use proto::v1::snapshot_service_server::SnapshotService;
use proto::v1::{
    SnapshotCreateRequest, SnapshotCreateResponse, SnapshotDeleteRequest, SnapshotDeleteResponse,
    SnapshotListRequest, SnapshotListResponse, SnapshotShowRequest, SnapshotShowResponse,
};
use tonic::{Request, Response, Status, async_trait};

use crate::call::Calls;

pub(crate) struct Snapshots(pub(crate) Calls);

#[async_trait]
impl SnapshotService for Snapshots {
    async fn create(
        &self,
        request: Request<SnapshotCreateRequest>,
    ) -> Result<Response<SnapshotCreateResponse>, Status> {
        self.0
            .answer("snapshot.create", request, |node, id, request| async move {
                Ok(node.snapshot_create(&id, request).await?.into())
            })
            .await
    }

    async fn list(
        &self,
        request: Request<SnapshotListRequest>,
    ) -> Result<Response<SnapshotListResponse>, Status> {
        self.0
            .answer("snapshot.list", request, |node, _, request| async move {
                let snapshots = node.snapshot_list(request).await?;
                let snapshots = snapshots.into_iter().map(Into::into).collect();
                Ok(SnapshotListResponse { snapshots })
            })
            .await
    }

    async fn show(
        &self,
        request: Request<SnapshotShowRequest>,
    ) -> Result<Response<SnapshotShowResponse>, Status> {
        self.0
            .answer("snapshot.show", request, |node, _, path| async move {
                let snapshot = node.snapshot_show(path).await?;
                Ok(SnapshotShowResponse { snapshot: Some(snapshot.into()) })
            })
            .await
    }

    async fn delete(
        &self,
        request: Request<SnapshotDeleteRequest>,
    ) -> Result<Response<SnapshotDeleteResponse>, Status> {
        self.0
            .answer("snapshot.delete", request, |node, id, request| async move {
                let snapshot = node.snapshot_delete(&id, request).await?;
                Ok(SnapshotDeleteResponse { snapshot: snapshot.map(Into::into) })
            })
            .await
    }
}
