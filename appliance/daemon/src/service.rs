//! One run of the daemon, from the first file to the last.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::Node;
use cluster::RedbStateStore;
use sd_notify::NotifyState;
use server::{Listeners, SocketFile};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::control::Control;
use crate::endpoints::{Endpoints, EndpointsFile};
use crate::monitor::Monitor;
use crate::plane::DataPlane;

/// A node that is ready to serve.
pub struct Daemon {
    control: Arc<Control>,
    listeners: Listeners,
    drain: Duration,
    _endpoints: EndpointsFile,
}

impl Daemon {
    /// Starts a node: reads desired state, makes the data plane so, binds everything.
    ///
    /// A store or volume that cannot be served does not stop the node: it is degraded and says so.
    ///
    /// # Errors
    /// When the state directory is damaged or in use, or an address cannot be bound.
    pub async fn start(config: &Config, plane: Arc<dyn DataPlane>) -> Result<Self> {
        let state_dir = &config.state_dir;
        create_private_dir(state_dir)?;
        let state = RedbStateStore::open(&state_dir.join("state.redb")).with_context(|| {
            let shown = state_dir.display();
            format!("the state directory {shown} cannot be opened (is it used by another node?)")
        })?;
        EndpointsFile::remove_stale(state_dir)
            .with_context(|| format!("{} cannot be written", state_dir.display()))?;
        let (listeners, mut endpoints) = bind(config).await?;
        let control = Control::open(config.node_name.clone(), Arc::new(state), plane).await?;
        control.plane().set_discovery_nqn(control.discovery_nqn()).await?;
        control.reconcile().await?;
        if let Err(error) = control.clear_frozen().await {
            tracing::warn!(reason = %error, "what comparisons left over stays");
        }
        control.plane().listen().await?;
        let info = control.plane().info();
        endpoints.nvme_tcp = info.nvme_tcp.iter().map(ToString::to_string).collect();
        endpoints.discovery = info.discovery.iter().map(ToString::to_string).collect();
        control.set_ready();
        let written = EndpointsFile::write(state_dir, &endpoints)
            .with_context(|| format!("{} cannot be written", state_dir.display()))?;
        tracing::info!(
            nvme_tcp = endpoints.nvme_tcp.join(","),
            discovery = endpoints.discovery.join(","),
            grpc = endpoints.grpc,
            http = endpoints.http,
            socket = endpoints.socket,
            "listening"
        );
        let drain = Duration::from_secs(config.drain_seconds);
        Ok(Self { control, listeners, drain, _endpoints: written })
    }

    /// The node, for callers in this process.
    #[must_use]
    pub fn node(&self) -> Arc<dyn Node> {
        Arc::clone(&self.control) as Arc<dyn Node>
    }

    /// The address of the HTTP listener, if there is one.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.listeners.http.as_ref()?.local_addr().ok()
    }

    /// The address of gRPC on TCP, if it is served.
    #[must_use]
    pub fn grpc(&self) -> Option<SocketAddr> {
        self.listeners.grpc.as_ref()?.local_addr().ok()
    }

    /// Serves until `shutdown` is ready; then drains and ends.
    ///
    /// # Errors
    /// When a listener fails, or draining does: then the stores are recovered at the next start.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { control, listeners, drain, _endpoints } = self;
        notify(&[NotifyState::Ready]);
        let monitor = tokio::spawn(Monitor::default().run(Arc::clone(&control)));
        let watchdog = tokio::spawn(watch(Arc::clone(&control)));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let node = Arc::clone(&control) as Arc<dyn Node>;
        let serving = async {
            let told = async {
                let _ = stopped.await;
            };
            server::serve(node, listeners, told).await.context("a management listener failed")
        };
        let draining = async {
            shutdown.await;
            notify(&[NotifyState::Stopping]);
            monitor.abort();
            control.begin_drain().await;
            let drained = tokio::time::timeout(drain, control.plane().drain()).await;
            control.events().close();
            let _ = stop.send(());
            match drained {
                Ok(result) => result.context("the data plane could not be drained"),
                Err(_) => {
                    let seconds = drain.as_secs();
                    tracing::warn!("not drained after {seconds} s, stopping anyway");
                    Ok(())
                }
            }
        };
        let result = tokio::try_join!(serving, draining);
        watchdog.abort();
        result?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Creates the state directory for this user alone, if it does not exist.
fn create_private_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the state directory {} cannot be created", path.display()))
}

async fn bind(config: &Config) -> Result<(Listeners, Endpoints)> {
    let management = &config.management;
    let mut listeners = Listeners::default();
    let mut endpoints = Endpoints::default();
    if let Some(path) = &management.socket {
        let directory = path.parent().context("management.socket has no directory")?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("{} cannot be created", directory.display()))?;
        let socket = SocketFile::bind(path, management.socket_mode)
            .with_context(|| format!("management.socket {} cannot be bound", path.display()))?;
        endpoints.socket = Some(path.display().to_string());
        listeners.socket = Some(socket);
    }
    if let Some(address) = management.grpc {
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "gRPC without authentication can be reached from outside");
        }
        let (listener, address) = bind_tcp("management.grpc", address).await?;
        endpoints.grpc = Some(address.to_string());
        listeners.grpc = Some(listener);
    }
    if let Some(address) = management.http {
        let (listener, address) = bind_tcp("management.http", address).await?;
        endpoints.http = Some(address.to_string());
        listeners.http = Some(listener);
    }
    Ok((listeners, endpoints))
}

async fn bind_tcp(key: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{key} {address} cannot be bound"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Tells systemd, if it started us.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(reason = %error, "systemd cannot be told");
    }
}

/// Tells systemd that the node is alive, as long as its reactors answer.
async fn watch(control: Arc<Control>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(patience / 2);
    loop {
        ticks.tick().await;
        match tokio::time::timeout(patience / 2, control.plane().stats()).await {
            Ok(Ok(_)) => notify(&[NotifyState::Watchdog]),
            Ok(Err(error)) => tracing::error!(reason = %error, "the data plane fails"),
            Err(_) => tracing::error!("the data plane does not answer"),
        }
    }
}
