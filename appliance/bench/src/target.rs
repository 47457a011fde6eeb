//! A target in this process: a shard under a pinned reactor, with its sockets on loopback.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bdev::{Pool, PoolConfig};
use net::NetError;
use net_uring::{UringNet, UringNetConfig};
use node::{
    NodeConfig, NodeError, NodeHandle, StoreId, StoreSpec, StoreStatus, VolumeSpec, VolumeStatus,
};
use nvmf::{
    Config, ConfigError, Hosts, Namespace, NamespaceHandle, Nqn, Port, Reach, Subsystem, Target,
};
use reactor::{Doorbell, Idle, Reactor, ReactorConfig, ReactorStats, StartError};
use thiserror::Error;

use crate::meter::ThreadId;

/// The name of the target's thread.
const THREAD: &str = "bench-target";

/// Buffers of the target.
const POOL_BYTES: u64 = 256 << 20;

/// Connections that the target takes.
const CONNECTIONS_MAX: usize = 256;

/// The identity of the only volume.
const UUID: [u8; 16] = *b"hftbench\x80\0\0\0\0\0\0\x02";

/// What a target in this process is made of.
pub struct TargetPlan {
    /// The store that holds its volume.
    pub store: StoreSpec,
    /// Size of the volume in bytes.
    pub bytes: u64,
    /// Bytes in a block of the volume.
    pub block_size: u32,
    /// The CPU it stays on; `None` for whichever the system picks.
    pub cpu: Option<usize>,
    /// What it does when there is nothing to do.
    pub idle: Idle,
}

/// Why a target could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The reactor or its machines.
    #[error("{0}")]
    Start(#[from] StartError<BuildError>),
    /// The machines of a target without a reactor.
    #[error("{0}")]
    Build(#[from] BuildError),
    /// Its doorbell.
    #[error("a doorbell: {0}")]
    Doorbell(std::io::Error),
    /// The shard refused something.
    #[error("{0}")]
    Node(#[from] NodeError),
    /// The configuration was refused.
    #[error("{0}")]
    Config(#[from] ConfigError),
}

/// Why a shard could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Its buffers.
    #[error("{0}")]
    Pool(bdev::PoolError),
    /// Its sockets.
    #[error("{0}")]
    Net(NetError),
}

/// A running target with one volume. Dropping it stops its thread where it is, as a kill would;
/// [`LocalTarget::shutdown`] is the polite end.
pub struct LocalTarget {
    reactor: Reactor,
    handle: NodeHandle,
    store: StoreId,
    address: SocketAddr,
}

impl LocalTarget {
    /// Starts the reactor, opens the store, creates the volume if it is not there, and listens.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn start(plan: TargetPlan) -> Result<LocalTarget, TargetError> {
        let target = Target::new(Config::default())?;
        let doorbell = Doorbell::new().map_err(TargetError::Doorbell)?;
        let bell = doorbell.clone();
        let node = NodeConfig {
            connections_max: CONNECTIONS_MAX,
            wakes: vec![Arc::new(move || bell.ring())],
            ..NodeConfig::new(Arc::clone(&target), 1)
        };
        let (handle, mut seeds) = node::node(node);
        let seed = seeds.pop().expect("one wake makes one shard");
        let mut config = ReactorConfig::new(THREAD).idle(plan.idle);
        config.core = plan.cpu;
        let reactor = Reactor::start(&config, &doorbell, move || {
            let pool = Pool::new(&PoolConfig::for_bytes(POOL_BYTES)).map_err(BuildError::Pool)?;
            let sockets =
                UringNetConfig { connections_max: CONNECTIONS_MAX, ..UringNetConfig::default() };
            let net = UringNet::new(&sockets).map_err(BuildError::Net)?;
            Ok(seed.start(Rc::new(pool), Box::new(net)))
        })?;
        let (store, opened) = handle.open_store(plan.store)?;
        let known = opened.wait()?.volumes.pop();
        let volume = match known {
            Some(volume) => volume,
            None => {
                let (bytes, block_size) = (plan.bytes, plan.block_size);
                let spec = VolumeSpec { name: "bench".into(), uuid: UUID, bytes, block_size };
                handle.create_volume(store, spec)?.wait()?
            }
        };
        let (namespace, attached) = handle.attach(store, &volume)?;
        attached.wait()?;
        let address = handle.listen(SocketAddr::from(([127, 0, 0, 1], 0)))?.wait()?;
        target.replace(config_of(namespace, &volume, address))?;
        Ok(LocalTarget { reactor, handle, store, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its thread, for a meter.
    pub fn thread(&self) -> Option<ThreadId> {
        ThreadId::named(THREAD)
    }

    /// What its reactor has been doing.
    pub fn stats(&self) -> Arc<ReactorStats> {
        self.reactor.stats()
    }

    /// Numbers of its store.
    ///
    /// # Errors
    /// What the shard answered.
    pub fn store_status(&self) -> Result<StoreStatus, TargetError> {
        Ok(self.handle.store_status(self.store)?.wait()?)
    }

    /// Ends all connections, makes everything durable and stops.
    ///
    /// # Errors
    /// What the shard answered.
    pub fn shutdown(self) -> Result<(), TargetError> {
        self.handle.drain()?.wait()?;
        self.handle.shutdown()?.wait()?;
        self.reactor.join();
        Ok(())
    }
}

/// One subsystem with one namespace, that any host may use.
pub(crate) fn config_of(
    handle: NamespaceHandle,
    volume: &VolumeStatus,
    address: SocketAddr,
) -> Config {
    let namespace = Namespace {
        nsid: 1,
        handle,
        uuid: volume.uuid,
        block_size: volume.block_size,
        blocks: volume.bytes / u64::from(volume.block_size),
        atomic_blocks: node::ATOMIC_BYTES / volume.block_size,
        reach: Reach::default(),
    };
    let subsystem = Subsystem {
        nqn: subsystem(),
        serial: "HFBENCH1".into(),
        hosts: Hosts::Any,
        namespaces: vec![namespace],
    };
    let ports = vec![Port { id: 1, address }];
    Config { ports, subsystems: vec![subsystem], ..Config::default() }
}

/// The NQN of the target's subsystem.
///
/// # Panics
/// Never: it is a constant name.
pub fn subsystem() -> Nqn {
    Nqn::new("nqn.2026-11.io.holdfast:bench").expect("a constant name")
}
