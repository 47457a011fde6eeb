//! `VolumeService`.

use api::{DiffStep, DiffTarget, Node, RequestId, SnapshotDelete, VolumeDiff};
use proto::status_from_error;
use proto::v1::volume_service_server::VolumeService;
use proto::v1::{
    VolumeCloneRequest, VolumeCloneResponse, VolumeCreateRequest, VolumeCreateResponse,
    VolumeDeleteRequest, VolumeDeleteResponse, VolumeDiffRequest, VolumeDiffResponse,
    VolumeListRequest, VolumeListResponse, VolumeResizeRequest, VolumeResizeResponse,
    VolumeRestoreRequest, VolumeRestoreResponse, VolumeSetQosRequest, VolumeSetQosResponse,
    VolumeShowRequest, VolumeShowResponse,
};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
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

    async fn set_qos(
        &self,
        request: Request<VolumeSetQosRequest>,
    ) -> Result<Response<VolumeSetQosResponse>, Status> {
        self.0
            .answer("volume.set_qos", request, |node, id, request| async move {
                Ok(node.volume_qos(&id, request).await?.into())
            })
            .await
    }

    async fn clone_snapshot(
        &self,
        request: Request<VolumeCloneRequest>,
    ) -> Result<Response<VolumeCloneResponse>, Status> {
        self.0
            .answer("volume.clone", request, |node, id, request| async move {
                Ok(node.volume_clone(&id, request).await?.into())
            })
            .await
    }

    async fn restore(
        &self,
        request: Request<VolumeRestoreRequest>,
    ) -> Result<Response<VolumeRestoreResponse>, Status> {
        self.0
            .answer("volume.restore", request, |node, id, request| async move {
                let volume = node.volume_restore(&id, request).await?;
                Ok(VolumeRestoreResponse { volume: Some(volume.into()) })
            })
            .await
    }

    type DiffStream = ReceiverStream<Result<VolumeDiffResponse, Status>>;

    async fn diff(
        &self,
        request: Request<VolumeDiffRequest>,
    ) -> Result<Response<Self::DiffStream>, Status> {
        self.0
            .answer("volume.diff", request, |node, id, request: VolumeDiff| async move {
                let (request, frozen) = match request.of() {
                    DiffTarget::Snapshot(_) => (request, None),
                    DiffTarget::Now(volume) => {
                        let frozen = node.volume_freeze(&id, volume.clone()).await?;
                        (request.with(frozen.clone()), Some(frozen))
                    }
                };
                // The first step here: what is wrong with the request is an answer, not a stream.
                let first = node.volume_diff(request.clone(), 0).await;
                let (sender, receiver) = mpsc::channel(STEPS_AHEAD);
                let (first, refused) = match first {
                    Ok(first) => (Some(first), None),
                    Err(error) => (None, Some(error)),
                };
                tokio::spawn(async move {
                    if let Some(first) = first {
                        compare(node.as_ref(), &id, request, first, &sender).await;
                    }
                    if let Some(snapshot) = frozen
                        && let Err(error) =
                            node.snapshot_delete(&id, SnapshotDelete { snapshot }).await
                    {
                        tracing::warn!(reason = %error, "a snapshot for a comparison is left over");
                    }
                    // Whoever sees the end of the stream finds nothing left over.
                    drop(sender);
                });
                refused.map_or(Ok(ReceiverStream::new(receiver)), Err)
            })
            .await
    }
}

/// Sends the steps of a comparison until its end, or until the client goes away.
async fn compare(
    node: &dyn Node,
    id: &RequestId,
    request: VolumeDiff,
    first: DiffStep,
    sender: &Sender<Result<VolumeDiffResponse, Status>>,
) {
    let mut step = Ok(first);
    loop {
        let (message, position, ends) = match step {
            Ok(step) => {
                let DiffStep { position, size, .. } = step;
                (Ok(step.into()), position, position >= size)
            }
            Err(error) => (Err(status_from_error(&error, id)), 0, true),
        };
        if sender.send(message).await.is_err() || ends {
            return;
        }
        step = node.volume_diff(request.clone(), position).await;
    }
}

/// Steps of a comparison that may wait for a slow client; then it waits.
const STEPS_AHEAD: usize = 4;
