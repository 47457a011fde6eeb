//! `NodeService`.

use proto::v1::node_service_server::NodeService;
use proto::v1::{
    ListSessionsRequest, ListSessionsResponse, NodeInfoRequest, NodeInfoResponse,
    WatchEventsRequest, WatchEventsResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use super::Nothing;
use crate::call::Calls;

pub(crate) struct Nodes(pub(crate) Calls);

#[async_trait]
impl NodeService for Nodes {
    async fn info(
        &self,
        request: Request<NodeInfoRequest>,
    ) -> Result<Response<NodeInfoResponse>, Status> {
        self.0
            .answer("node.info", request, |node, _, Nothing| async move {
                Ok(node.node_info().await?.into())
            })
            .await
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        self.0
            .answer("node.list_sessions", request, |node, _, Nothing| async move {
                let sessions = node.session_list().await?;
                Ok(ListSessionsResponse {
                    sessions: sessions.into_iter().map(Into::into).collect(),
                })
            })
            .await
    }

    type WatchEventsStream = ReceiverStream<Result<WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        self.0
            .answer("node.watch_events", request, |node, _, request| async move {
                let Wanted(subscription) = request;
                Ok(forward(node.events(subscription)))
            })
            .await
    }
}

/// What a client wants to watch.
struct Wanted(api::Subscription);

impl TryFrom<WatchEventsRequest> for Wanted {
    type Error = api::ApiError;

    fn try_from(message: WatchEventsRequest) -> Result<Self, api::ApiError> {
        Ok(Self(message.into()))
    }
}

/// Moves events into a stream, until either side ends.
fn forward(mut events: api::EventStream) -> ReceiverStream<Result<WatchEventsResponse, Status>> {
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sender.closed() => None,
            };
            let Some(event) = event else { break };
            if sender.send(Ok(event.into())).await.is_err() {
                break;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// Events that may wait for a slow client; then its source waits.
const EVENTS_AHEAD: usize = 16;
