//! Reaching a node.

use std::error::Error;
use std::time::Duration;

use api::{ApiError, RequestId};
use proto::REQUEST_ID_KEY;
use proto::v1::discovery_service_client::DiscoveryServiceClient;
use proto::v1::export_service_client::ExportServiceClient;
use proto::v1::host_service_client::HostServiceClient;
use proto::v1::node_service_client::NodeServiceClient;
use proto::v1::snapshot_service_client::SnapshotServiceClient;
use proto::v1::store_service_client::StoreServiceClient;
use proto::v1::volume_service_client::VolumeServiceClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::args::Global;
use crate::run::Failure;

/// Seconds to wait for a connection.
const CONNECT_SECONDS: u64 = 5;

/// A connection to a node.
pub(crate) struct Client {
    channel: Channel,
    timeout: Duration,
    request_id: RequestId,
}

impl Client {
    pub(crate) async fn connect(global: &Global) -> Result<Self, Failure> {
        let connect_timeout = Duration::from_secs(CONNECT_SECONDS);
        let channel = endpoint(&global.server)?
            .connect_timeout(connect_timeout)
            .connect()
            .await
            .map_err(|error| unreachable(&global.server, &error))?;
        let fresh = || RequestId::from(Uuid::new_v4());
        let request_id = global.request_id.clone().unwrap_or_else(fresh);
        Ok(Self { channel, timeout: Duration::from_secs(global.timeout), request_id })
    }

    /// A request under this command's id, with a deadline.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream_request(message);
        request.set_timeout(self.timeout);
        request
    }

    /// A request under this command's id that may take for ever.
    pub(crate) fn stream_request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = self.request_id.as_str().parse();
        let value = value.expect("the alphabet of request ids is allowed in metadata");
        request.metadata_mut().insert(REQUEST_ID_KEY, value);
        request
    }

    pub(crate) fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    pub(crate) fn stores(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel.clone())
    }

    pub(crate) fn volumes(&self) -> VolumeServiceClient<Channel> {
        VolumeServiceClient::new(self.channel.clone())
    }

    pub(crate) fn snapshots(&self) -> SnapshotServiceClient<Channel> {
        SnapshotServiceClient::new(self.channel.clone())
    }

    pub(crate) fn discovery(&self) -> DiscoveryServiceClient<Channel> {
        DiscoveryServiceClient::new(self.channel.clone())
    }

    pub(crate) fn hosts(&self) -> HostServiceClient<Channel> {
        HostServiceClient::new(self.channel.clone())
    }

    pub(crate) fn exports(&self) -> ExportServiceClient<Channel> {
        ExportServiceClient::new(self.channel.clone())
    }
}

fn endpoint(server: &str) -> Result<Endpoint, Failure> {
    let known = server.starts_with("unix:/") || server.starts_with("http://");
    let parsed = known.then(|| Endpoint::from_shared(server.to_owned()).ok()).flatten();
    parsed.ok_or_else(|| {
        let reason = format!("{server:?} is not the address of a node");
        let hint = "use unix:/path/of/socket or http://host:port";
        ApiError::invalid("server", reason, hint).into()
    })
}

/// The innermost cause is what the operating system said.
fn unreachable(server: &str, error: &tonic::transport::Error) -> Failure {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let reason = format!(
        "{server} does not answer: {cause}; is holdfastd running, and is this its address? \
         (--server or HOLDFAST_SERVER)"
    );
    ApiError::unavailable(reason).into()
}
