//! `StoreService`.

use proto::v1::store_service_server::StoreService;
use proto::v1::{
    StoreAddRequest, StoreAddResponse, StoreInitRequest, StoreInitResponse, StoreListRequest,
    StoreListResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::Nothing;
use crate::call::Calls;

pub(crate) struct Stores(pub(crate) Calls);

#[async_trait]
impl StoreService for Stores {
    async fn init(
        &self,
        request: Request<StoreInitRequest>,
    ) -> Result<Response<StoreInitResponse>, Status> {
        self.0
            .answer("store.init", request, |node, id, request| async move {
                Ok(node.store_init(&id, request).await?.into())
            })
            .await
    }

    async fn add(
        &self,
        request: Request<StoreAddRequest>,
    ) -> Result<Response<StoreAddResponse>, Status> {
        self.0
            .answer("store.add", request, |node, id, request| async move {
                Ok(node.store_add(&id, request).await?.into())
            })
            .await
    }

    async fn list(
        &self,
        request: Request<StoreListRequest>,
    ) -> Result<Response<StoreListResponse>, Status> {
        self.0
            .answer("store.list", request, |node, _, Nothing| async move {
                let stores = node.store_list().await?;
                Ok(StoreListResponse { stores: stores.into_iter().map(Into::into).collect() })
            })
            .await
    }
}
