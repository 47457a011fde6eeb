//! `VolumeService`.

use proto::v1::volume_service_server::VolumeService;
use proto::v1::{
    VolumeCreateRequest, VolumeCreateResponse, VolumeDeleteRequest, VolumeDeleteResponse,
    VolumeListRequest, VolumeListResponse, VolumeResizeRequest, VolumeResizeResponse,
    VolumeShowRequest, VolumeShowResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::Nothing;
use crate::call::Calls;

pub(crate) struct Volumes(pub(crate) Calls);

#[async_trait]
impl VolumeService for Volumes {
    async fn create(
        &self,
        request: Request<VolumeCreateRequest>,
    ) -> Result<Response<VolumeCreateResponse>, Status> {
        self.0
            .answer("volume.create", request, |node, id, request| async move {
                Ok(node.volume_create(&id, request).await?.into())
            })
            .await
    }

    async fn list(
        &self,
        request: Request<VolumeListRequest>,
    ) -> Result<Response<VolumeListResponse>, Status> {
        self.0
            .answer("volume.list", request, |node, _, Nothing| async move {
                let volumes = node.volume_list().await?;
                Ok(VolumeListResponse { volumes: volumes.into_iter().map(Into::into).collect() })
            })
            .await
    }

    async fn show(
        &self,
        request: Request<VolumeShowRequest>,
    ) -> Result<Response<VolumeShowResponse>, Status> {
        self.0
            .answer("volume.show", request, |node, _, name| async move {
                let volume = node.volume_show(name).await?;
                Ok(VolumeShowResponse { volume: Some(volume.into()) })
            })
            .await
    }

    async fn resize(
        &self,
        request: Request<VolumeResizeRequest>,
    ) -> Result<Response<VolumeResizeResponse>, Status> {
        self.0
            .answer("volume.resize", request, |node, id, request| async move {
                Ok(node.volume_resize(&id, request).await?.into())
            })
            .await
    }

    async fn delete(
        &self,
        request: Request<VolumeDeleteRequest>,
    ) -> Result<Response<VolumeDeleteResponse>, Status> {
        self.0
            .answer("volume.delete", request, |node, id, request| async move {
                let volume = node.volume_delete(&id, request).await?;
                Ok(VolumeDeleteResponse { volume: volume.map(Into::into) })
            })
            .await
    }
}
