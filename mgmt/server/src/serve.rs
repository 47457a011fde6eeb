//! Running the servers.

use std::io::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

use api::Node;
use proto::v1::discovery_service_server::DiscoveryServiceServer;
use proto::v1::export_service_server::ExportServiceServer;
use proto::v1::host_service_server::HostServiceServer;
use proto::v1::node_service_server::NodeServiceServer;
use proto::v1::snapshot_service_server::SnapshotServiceServer;
use proto::v1::store_service_server::StoreServiceServer;
use proto::v1::volume_service_server::VolumeServiceServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::call::Calls;
use crate::grpc::{Discovery, Exports, Hosts, Nodes, Snapshots, Stores, Volumes};
use crate::http;
use crate::limits::{CONCURRENT_CALLS_MAX, DRAIN_SECONDS_MAX};
use crate::socket::SocketFile;

/// Where to listen. What is `None` is not served.
#[derive(Debug, Default)]
pub struct Listeners {
    /// gRPC on TCP.
    pub grpc: Option<TcpListener>,
    /// gRPC on a Unix socket.
    pub socket: Option<SocketFile>,
    /// HTTP: `/metrics`, `/healthz`, `/readyz`.
    pub http: Option<TcpListener>,
}

/// Serves `node` until `shutdown` is ready; then lets open calls finish, but not for ever.
///
/// # Errors
/// When a listener fails.
pub async fn serve(
    node: Arc<dyn Node>,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let calls = Calls::new(node);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut servers = JoinSet::new();
    if let Some(listener) = listeners.grpc {
        let incoming = TcpListenerStream::new(listener);
        let serving = services(&calls).serve_with_incoming_shutdown(incoming, told(&stopped));
        servers.spawn(async { serving.await.map_err(Error::other) });
    }
    if let Some(socket) = &listeners.socket {
        let listener = UnixListener::from_std(socket.listener()?)?;
        let incoming = UnixListenerStream::new(listener);
        let serving = services(&calls).serve_with_incoming_shutdown(incoming, told(&stopped));
        servers.spawn(async { serving.await.map_err(Error::other) });
    }
    if let Some(listener) = listeners.http {
        let serving = axum::serve(listener, http::router(calls.clone()))
            .with_graceful_shutdown(told(&stopped));
        servers.spawn(serving.into_future());
    }
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = servers.join_next() => ended.map_err(Error::other)??,
        }
    }
    stop.send_replace(true);
    let all = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS_MAX), all).await.is_err() {
        tracing::warn!("calls are still open after {DRAIN_SECONDS_MAX} s, cutting them");
    }
    Ok(())
}

fn services(calls: &Calls) -> Router {
    Server::builder()
        .concurrency_limit_per_connection(CONCURRENT_CALLS_MAX)
        .add_service(NodeServiceServer::new(Nodes(calls.clone())))
        .add_service(SnapshotServiceServer::new(Snapshots(calls.clone())))
        .add_service(StoreServiceServer::new(Stores(calls.clone())))
        .add_service(VolumeServiceServer::new(Volumes(calls.clone())))
        .add_service(ExportServiceServer::new(Exports(calls.clone())))
        .add_service(DiscoveryServiceServer::new(Discovery(calls.clone())))
        .add_service(HostServiceServer::new(Hosts(calls.clone())))
}

/// Ready when the servers are told to stop.
fn told(stopped: &Receiver<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stopped.clone();
    async move {
        // An error means that `serve` itself is gone: stop as well.
        let _ = stopped.wait_for(|&stop| stop).await;
    }
}
