//! `ExportService`.

use proto::v1::export_service_server::ExportService;
use proto::v1::{
    ExportAddHostsRequest, ExportAddHostsResponse, ExportAddRequest, ExportAddResponse,
    ExportListRequest, ExportListResponse, ExportRemoveHostsRequest, ExportRemoveHostsResponse,
    ExportRemoveRequest, ExportRemoveResponse, ExportSetAnaStateRequest, ExportSetAnaStateResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::Nothing;
use crate::call::Calls;

pub(crate) struct Exports(pub(crate) Calls);

#[async_trait]
impl ExportService for Exports {
    async fn add(
        &self,
        request: Request<ExportAddRequest>,
    ) -> Result<Response<ExportAddResponse>, Status> {
        self.0
            .answer("export.add", request, |node, id, request| async move {
                Ok(node.export_add(&id, request).await?.into())
            })
            .await
    }

    async fn remove(
        &self,
        request: Request<ExportRemoveRequest>,
    ) -> Result<Response<ExportRemoveResponse>, Status> {
        self.0
            .answer("export.remove", request, |node, id, request| async move {
                let export = node.export_remove(&id, request).await?;
                Ok(ExportRemoveResponse { export: export.map(Into::into) })
            })
            .await
    }

    async fn list(
        &self,
        request: Request<ExportListRequest>,
    ) -> Result<Response<ExportListResponse>, Status> {
        self.0
            .answer("export.list", request, |node, _, Nothing| async move {
                let exports = node.export_list().await?;
                Ok(ExportListResponse { exports: exports.into_iter().map(Into::into).collect() })
            })
            .await
    }

    async fn add_hosts(
        &self,
        request: Request<ExportAddHostsRequest>,
    ) -> Result<Response<ExportAddHostsResponse>, Status> {
        self.0
            .answer("export.add_hosts", request, |node, id, request| async move {
                Ok(node.hosts_add(&id, request).await?.into())
            })
            .await
    }

    async fn remove_hosts(
        &self,
        request: Request<ExportRemoveHostsRequest>,
    ) -> Result<Response<ExportRemoveHostsResponse>, Status> {
        self.0
            .answer("export.remove_hosts", request, |node, id, request| async move {
                Ok(node.hosts_remove(&id, request).await?.into())
            })
            .await
    }

    async fn set_ana_state(
        &self,
        request: Request<ExportSetAnaStateRequest>,
    ) -> Result<Response<ExportSetAnaStateResponse>, Status> {
        self.0
            .answer("export.set_ana_state", request, |node, id, request| async move {
                Ok(node.export_set_ana_state(&id, request).await?.into())
            })
            .await
    }
}
