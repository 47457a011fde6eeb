//! Starting the reactors.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use bdev::{Pool, PoolConfig};
use bdev_uring::{FileOptions, IoBackend};
use net_uring::{UringNet, UringNetConfig};
use node::{CONNECTIONS_DEFAULT, NodeConfig, ShardSeed, node};
use nvmf::Target;
use reactor::{Doorbell, Reactor, ReactorConfig};

use super::keys::{Computer, Seat};
use super::{Book, ReactorPlane, Shared};
use crate::config::{self, Config};

impl ReactorPlane {
    /// Starts the reactors. They serve nobody until stores are opened and `listen` is called.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        let (backend, selected) = select_backend(config.io_backend)?;
        let idle = match config.reactor.idle {
            config::Idle::Spin => reactor::Idle::Spin,
            config::Idle::Adaptive => reactor::Idle::Adaptive,
        };
        let cores = &config.reactor.cores;
        let places: Vec<Option<u32>> =
            if cores.is_empty() { vec![None] } else { cores.iter().copied().map(Some).collect() };
        let doorbells: Vec<Doorbell> = (places.iter().map(|_| Doorbell::new()))
            .collect::<std::io::Result<_>>()
            .context("no eventfd for a reactor")?;
        let target = Target::new(nvmf::Config::default()).map_err(|error| anyhow!("{error}"))?;
        target.seed_instances(uuid::Uuid::new_v4().as_u64_pair().1);
        let wakes = doorbells.iter().map(wake).collect();
        let seat = Seat::default();
        let computer = seat.wake();
        let connections_max = CONNECTIONS_DEFAULT;
        let (handle, seeds) = node(NodeConfig { target, connections_max, wakes, computer });
        let computer = Computer::start(&seat, &handle).context("no thread for authentications")?;
        let memory = PoolConfig::for_bytes(config.memory.buffers_per_core);
        let mut reactors = Vec::new();
        for ((seed, doorbell), core) in seeds.into_iter().zip(&doorbells).zip(&places) {
            let mut reactor = ReactorConfig::new(&format!("shard-{}", seed.index())).idle(idle);
            if let Some(core) = core {
                reactor = reactor.core(usize::try_from(*core).expect("a core number"));
            }
            let memory = memory.clone();
            let build = move || build_shard(seed, &memory);
            let started = Reactor::start(&reactor, doorbell, build);
            reactors.push(started.map_err(|error| anyhow!("{error}"))?);
        }
        tracing::info!(
            reactors = reactors.len(),
            ?cores,
            %idle,
            buffer_bytes_each = memory.byte_len(),
            connections_each = CONNECTIONS_DEFAULT,
            "the data plane is started"
        );
        let reactor_stats = reactors.iter().map(Reactor::stats).collect();
        let shared = Shared {
            handle,
            reactors: Mutex::new(reactors),
            computer: Mutex::new(Some(computer)),
            reactor_stats,
            cores: cores.clone(),
            idle,
            backend,
            selected,
            listen: config.nvme_tcp.listen.clone(),
            discovery: config.nvme_tcp.discovery.clone(),
            book: Mutex::new(Book::default()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn wake(doorbell: &Doorbell) -> Arc<dyn Fn() + Send + Sync> {
    let doorbell = doorbell.clone();
    Arc::new(move || doorbell.ring())
}

/// Makes a shard, on the thread that will turn it.
fn build_shard(seed: ShardSeed, memory: &PoolConfig) -> Result<node::Shard, String> {
    let pool = Pool::new(memory).map_err(|error| format!("no memory for I/O buffers: {error}"))?;
    tracing::info!(shard = seed.index(), backing = ?pool.backing(), "I/O buffers are taken");
    let sockets =
        UringNetConfig { connections_max: CONNECTIONS_DEFAULT, ..UringNetConfig::default() };
    let net = UringNet::new(&sockets).map_err(|error| {
        let why = "sockets need io_uring whatever io_backend says, and it cannot be had";
        format!("{why}: {error}")
    })?;
    Ok(seed.start(Rc::new(pool), Box::new(net)))
}

/// What `io_backend` comes to on this machine. Said once here, and once for each device.
fn select_backend(wanted: config::IoBackend) -> Result<(IoBackend, String)> {
    let probe = FileOptions::default().probe;
    let (backend, selected, reason) = match wanted {
        config::IoBackend::Standard => (IoBackend::Standard, "standard", "configured".to_owned()),
        config::IoBackend::IoUring => {
            probe().context("io_backend = \"io_uring\", but io_uring cannot be had")?;
            (IoBackend::IoUring, "io_uring", "configured".to_owned())
        }
        config::IoBackend::Auto => match probe() {
            Ok(()) => (IoBackend::Auto, "io_uring", "the kernel allows it".to_owned()),
            Err(error) => (IoBackend::Auto, "standard", format!("io_uring: {error}")),
        },
    };
    tracing::info!("io backend: requested {backend}, selected {selected} ({reason})");
    Ok((backend, selected.to_owned()))
}
