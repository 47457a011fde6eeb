//! What is the same for all calls: request id, log line, count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::{ApiError, Node, RequestId};
use proto::{REQUEST_ID_KEY, status_from_error};
use tonic::{Request, Response, Status};
use tracing::Instrument;
use uuid::Uuid;

/// What all services share.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) node: Arc<dyn Node>,
    counts: Arc<Mutex<Counts>>,
}

/// Finished calls by method and outcome (`ok` or the kind of the error).
pub(crate) type Counts = BTreeMap<(&'static str, &'static str), u64>;

impl Calls {
    pub(crate) fn new(node: Arc<dyn Node>) -> Self {
        Self { node, counts: Arc::default() }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers one call.
    ///
    /// `act` runs in a task of its own: when the client goes away, a mutation that has begun is
    /// finished all the same.
    pub(crate) async fn answer<M, R, T, A, F>(
        &self,
        method: &'static str,
        request: Request<M>,
        act: A,
    ) -> Result<Response<T>, Status>
    where
        R: TryFrom<M, Error = ApiError>,
        A: FnOnce(Arc<dyn Node>, RequestId, R) -> F,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
        T: Send + 'static,
    {
        let (id, named) = request_id(&request);
        let span = tracing::info_span!("request", request_id = %id, method);
        let result = match named.and_then(|()| R::try_from(request.into_inner())) {
            Ok(request) => {
                let work = act(Arc::clone(&self.node), id.clone(), request);
                let task = tokio::spawn(work.instrument(span.clone()));
                task.await.unwrap_or_else(|error| Err(ApiError::internal(error)))
            }
            Err(error) => Err(error),
        };
        span.in_scope(|| self.finish(method, &id, result))
    }

    /// Logs and counts the outcome of a call, and turns it into a response.
    fn finish<T>(
        &self,
        method: &'static str,
        id: &RequestId,
        result: Result<T, ApiError>,
    ) -> Result<Response<T>, Status> {
        let outcome = match &result {
            Ok(_) => "ok",
            Err(error) => error.kind().as_str(),
        };
        *self
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((method, outcome))
            .or_default() += 1;
        match result {
            Ok(message) => {
                tracing::info!(outcome, "request finished");
                let mut response = Response::new(message);
                if let Ok(value) = id.as_str().parse() {
                    response.metadata_mut().insert(REQUEST_ID_KEY, value);
                }
                Ok(response)
            }
            Err(error) => {
                let reason = error.to_string();
                if error.kind() == api::ErrorKind::Internal {
                    tracing::error!(outcome, reason, "request failed");
                } else {
                    tracing::info!(outcome, reason, "request refused");
                }
                Err(status_from_error(&error, id))
            }
        }
    }
}

/// The id of a request: what the client named, or a fresh one. An invalid name is an error, which
/// is answered under a fresh id.
pub(crate) fn request_id<M>(request: &Request<M>) -> (RequestId, Result<(), ApiError>) {
    let fresh = || RequestId::from(Uuid::new_v4());
    let Some(value) = request.metadata().get(REQUEST_ID_KEY) else { return (fresh(), Ok(())) };
    match value.to_str().unwrap_or_default().parse() {
        Ok(id) => (id, Ok(())),
        Err(error) => (fresh(), Err(error)),
    }
}
