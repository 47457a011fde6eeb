//! A target and its hosts on one thread, over pipes in memory, on a clock that only moves with
//! turns: nothing but the seed decides what happens. For tests, and for counting instructions.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bdev::{Completion, Fifo, Instant, Pool, PoolConfig, Queue, Request};
use load::{Client, ConnectError, Destination, Job, Timeline, run};
use net::{PipeConfig, PipeNet, Pipes};
use node::{NodeConfig, NodeError, Shard, StoreSpec, VolumeSpec, node};
use nvmf::{Config, Digests, Target};
use reactor::{Machine, Progress};

use crate::direct::{fill, pool};
use crate::error::BenchError;
use crate::limits::WORLD_CONNECTIONS_MAX;
use crate::options::Options;
use crate::shape::Shape;
use crate::target::{BuildError, TargetError, config_of, subsystem};

/// What each turn of the world takes by its own clock.
const TURN_NS: u64 = 1000;

/// What a turn takes while the target is set up: it waits for timers then.
const SETUP_TURN_NS: u64 = 1_000_000;

/// Buffers of the target.
const POOL_BYTES: u64 = 64 << 20;

const UUID: [u8; 16] = *b"hftbench\x80\0\0\0\0\0\0\x04";

/// What the target of a world holds.
pub struct WorldPlan {
    /// The store of its volume: one that never waits for anything outside of this thread.
    pub store: StoreSpec,
    /// Size of the volume in bytes.
    pub bytes: u64,
    /// Bytes in a block of the volume.
    pub block_size: u32,
}

/// A shard and its hosts.
#[derive(Clone)]
pub struct World {
    pipes: Pipes,
    shard: Rc<RefCell<Shard>>,
    ns: Rc<Cell<u64>>,
    is_counted: Rc<Cell<bool>>,
}

impl World {
    /// A target on [`address`] with one volume.
    ///
    /// # Errors
    /// What the shard refused.
    pub fn new(config: PipeConfig, plan: WorldPlan) -> Result<World, TargetError> {
        let target = Target::new(Config::default())?;
        let connections_max = WORLD_CONNECTIONS_MAX;
        let node_config = NodeConfig { connections_max, ..NodeConfig::new(target.clone(), 1) };
        let (handle, mut seeds) = node(node_config);
        let pipes = Pipes::new(config);
        let pool = Pool::new(&PoolConfig::for_bytes(POOL_BYTES)).map_err(BuildError::Pool)?;
        let net = PipeNet::new(&pipes, address().ip(), connections_max);
        let seed = seeds.pop().expect("one shard");
        let shard = Rc::new(RefCell::new(seed.start(Rc::new(pool), Box::new(net))));
        let world = World { pipes, shard, ns: Rc::default(), is_counted: Rc::default() };
        let (store, mut opened) = handle.open_store(plan.store)?;
        world.until(|| opened.take())?;
        let WorldPlan { bytes, block_size, .. } = plan;
        let spec = VolumeSpec { name: "bench".into(), uuid: UUID, bytes, block_size };
        let mut created = handle.create_volume(store, spec)?;
        let volume = world.until(|| created.take())?;
        let (namespace, mut attached) = handle.attach(store, &volume)?;
        world.until(|| attached.take())?;
        let mut listening = handle.listen(address())?;
        world.until(|| listening.take())?;
        target.replace(config_of(namespace, &volume, address()))?;
        Ok(world)
    }

    /// The target's machines.
    pub fn shard(&self) -> &RefCell<Shard> {
        &self.shard
    }

    /// What all hosts are connected by.
    pub fn pipes(&self) -> &Pipes {
        &self.pipes
    }

    /// One turn of the target; the time after it.
    pub fn turn(&self) -> Instant {
        self.advance(TURN_NS)
    }

    fn advance(&self, ns: u64) -> Instant {
        let arrives = self.pipes.next_moment().map_or(0, Instant::as_ns);
        self.ns.set(arrives.max(self.ns.get() + ns));
        let now = Instant::from_ns(self.ns.get());
        self.pipes.advance_to(now);
        let shard = &mut self.shard.borrow_mut();
        match self.is_counted.get() {
            true => counted_turn(shard, now),
            false => shard.turn(now),
        };
        now
    }

    fn until<T>(
        &self,
        mut ready: impl FnMut() -> Option<Result<T, NodeError>>,
    ) -> Result<T, NodeError> {
        loop {
            self.advance(SETUP_TURN_NS);
            if let Some(found) = ready() {
                return found;
            }
        }
    }

    /// Connects a host to the target.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(
        &self,
        pool: &Rc<Pool>,
        queues: u16,
        digests: bool,
    ) -> Result<Client, ConnectError> {
        let host = "10.0.0.2".parse().expect("a constant address");
        let net = PipeNet::new(&self.pipes, host, WORLD_CONNECTIONS_MAX);
        let digests = Digests { header: digests, data: digests };
        let destination =
            Destination { queues, digests, ..Destination::new(address(), subsystem()) };

        Client::connect(Box::new(net), Rc::clone(pool), &destination, &mut || self.turn())
    }

    /// The queue, such that each poll of it is a turn of the target too.
    pub fn watch(&self, queue: Box<dyn Queue>) -> Box<dyn Queue> {
        Box::new(Watched { world: self.clone(), queue })
    }
}

/// Where the target of a world listens.
///
/// # Panics
/// Never: it is a constant address.
pub fn address() -> SocketAddr {
    "10.0.0.1:4420".parse().expect("a constant address")
}

/// Fills the volume, does `ios` operations of one workload to warm up, and then as many again in
/// turns that callgrind counts; how many these were.
///
/// # Errors
/// A target that cannot be had, or a run that failed.
pub fn counted_run(
    options: &Options,
    store: StoreSpec,
    shape: Shape,
    ios: u64,
) -> Result<u64, BenchError> {
    let block_size = crate::direct::BLOCK_SIZE;
    let plan = WorldPlan { store, bytes: options.size, block_size };
    let world = World::new(PipeConfig::default(), plan)?;
    let filler = Rc::new(pool(1, 8, 128 << 10)?);
    let client = world.connect(&filler, 1, false)?;
    let blocks = client.namespace().blocks;
    fill(world.watch(client.queue(0)), &filler, block_size, blocks)?;

    let buffers = Rc::new(pool(1, shape.depth, shape.bytes)?);
    let client = world.connect(&buffers, 1, shape.digests)?;
    let queue = world.watch(client.queue(0));
    let plan = shape.plan(options, block_size, blocks, 0)?;
    let mut jobs = [Job::new(queue, &buffers, &plan)?];
    let timeline = Timeline {
        warm: Duration::ZERO,
        measured: Duration::MAX,
        counted: Duration::ZERO,
        tick: Duration::ZERO,
        ios_max: ios,
    };
    let mut clock = || Instant::from_ns(world.ns.get());
    run(&mut jobs, &timeline, &mut clock, &mut ())?;
    world.is_counted.set(true);
    let outcome = run(&mut jobs, &timeline, &mut clock, &mut ())?;
    Ok(outcome.total_ios)
}

/// A turn that is counted: callgrind knows it by its name, so it must stay a function.
#[inline(never)]
fn counted_turn(shard: &mut Shard, now: Instant) -> Progress {
    black_box(shard.turn(now))
}

struct Watched {
    world: World,
    queue: Box<dyn Queue>,
}

impl Queue for Watched {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        self.queue.submit(requests);
    }

    fn kick(&mut self) {
        self.queue.kick();
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        self.world.turn();
        self.queue.poll(completions);
    }

    fn in_flight(&self) -> u32 {
        self.queue.in_flight()
    }
}
