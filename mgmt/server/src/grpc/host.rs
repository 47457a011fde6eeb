//! `HostService`.

use proto::v1::host_service_server::HostService;
use proto::v1::{
    HostListRequest, HostListResponse, HostRemoveRequest, HostRemoveResponse, HostSetRequest,
    HostSetResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::Nothing;
use crate::call::Calls;

pub(crate) struct Hosts(pub(crate) Calls);

#[async_trait]
impl HostService for Hosts {
    async fn set(
        &self,
        request: Request<HostSetRequest>,
    ) -> Result<Response<HostSetResponse>, Status> {
        self.0
            .answer("host.set", request, |node, id, request| async move {
                Ok(node.host_set(&id, request).await?.into())
            })
            .await
    }

    async fn remove(
        &self,
        request: Request<HostRemoveRequest>,
    ) -> Result<Response<HostRemoveResponse>, Status> {
        self.0
            .answer("host.remove", request, |node, id, request| async move {
                let host = node.host_remove(&id, request).await?;
                Ok(HostRemoveResponse { host: host.map(Into::into) })
            })
            .await
    }

    async fn list(
        &self,
        request: Request<HostListRequest>,
    ) -> Result<Response<HostListResponse>, Status> {
        self.0
            .answer("host.list", request, |node, _, Nothing| async move {
                let hosts = node.host_list().await?;
                Ok(HostListResponse { hosts: hosts.into_iter().map(Into::into).collect() })
            })
            .await
    }
}
