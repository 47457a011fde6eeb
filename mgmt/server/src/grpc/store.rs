//! `StoreService`.

use std::sync::Arc;
use std::time::Duration;

use api::{Node, RequestId, StoreCheck, StoreName};
use proto::v1::store_service_server::StoreService;
use proto::v1::{
    StoreAddRequest, StoreAddResponse, StoreAdviseRequest, StoreAdviseResponse, StoreCheckRequest,
    StoreCheckResponse, StoreInitRequest, StoreInitResponse, StoreListRequest, StoreListResponse,
    StorePauseScrubRequest, StorePauseScrubResponse, StoreResumeScrubRequest,
    StoreResumeScrubResponse, StoreScrubStatusRequest, StoreScrubStatusResponse,
    StoreStartScrubRequest, StoreStartScrubResponse,
};
use proto::{OneStore, status_from_error};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
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

    type CheckStream = ReceiverStream<Result<StoreCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<StoreCheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        self.0
            .answer("store.check", request, |node, id, OneStore(store)| async move {
                let store = node.store_check(&id, store).await?;
                let (sender, receiver) = mpsc::channel(STEPS_AHEAD);
                tokio::spawn(watch_check(node, id, store, sender));
                Ok(ReceiverStream::new(receiver))
            })
            .await
    }

    async fn start_scrub(
        &self,
        request: Request<StoreStartScrubRequest>,
    ) -> Result<Response<StoreStartScrubResponse>, Status> {
        self.0
            .answer("store.start_scrub", request, |node, id, request| async move {
                Ok(node.store_scrub(&id, request).await?.into())
            })
            .await
    }

    async fn pause_scrub(
        &self,
        request: Request<StorePauseScrubRequest>,
    ) -> Result<Response<StorePauseScrubResponse>, Status> {
        self.0
            .answer("store.pause_scrub", request, |node, id, request| async move {
                Ok(node.store_scrub(&id, request).await?.into())
            })
            .await
    }

    async fn resume_scrub(
        &self,
        request: Request<StoreResumeScrubRequest>,
    ) -> Result<Response<StoreResumeScrubResponse>, Status> {
        self.0
            .answer("store.resume_scrub", request, |node, id, request| async move {
                Ok(node.store_scrub(&id, request).await?.into())
            })
            .await
    }

    async fn scrub_status(
        &self,
        request: Request<StoreScrubStatusRequest>,
    ) -> Result<Response<StoreScrubStatusResponse>, Status> {
        self.0
            .answer("store.scrub_status", request, |node, _, OneStore(store)| async move {
                let scrub = node.store_scrub_status(store).await?;
                Ok(StoreScrubStatusResponse { scrub: Some(scrub.into()) })
            })
            .await
    }

    async fn advise(
        &self,
        request: Request<StoreAdviseRequest>,
    ) -> Result<Response<StoreAdviseResponse>, Status> {
        self.0
            .answer("store.advise", request, |node, _, request| async move {
                Ok(node.store_advise(request).await?.into())
            })
            .await
    }
}

/// Sends how a check is until it has ended, or until the client goes away.
async fn watch_check(
    node: Arc<dyn Node>,
    id: RequestId,
    store: StoreName,
    sender: Sender<Result<StoreCheckResponse, Status>>,
) {
    let mut ticks = tokio::time::interval(Duration::from_millis(CHECK_LOOK_MS));
    loop {
        ticks.tick().await;
        let (message, ends) = match node.store_check_status(store.clone()).await {
            Ok(check) => {
                let ends = !matches!(check, StoreCheck::Running { .. });
                (Ok(check.into()), ends)
            }
            Err(error) => (Err(status_from_error(&error, &id)), true),
        };
        if sender.send(message).await.is_err() || ends {
            return;
        }
    }
}

/// Messages that may wait for a slow client; then it waits.
const STEPS_AHEAD: usize = 4;

/// How often a check is looked at, in milliseconds.
const CHECK_LOOK_MS: u64 = 100;
