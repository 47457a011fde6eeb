//! Makes a node: the handle for the control plane, and a seed for each shard's thread.

use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use bdev::ring::{Consumer, Producer, spsc};
use bdev::{Instant, Pool};
use net::Net;
use nvmf::Target;

use crate::command::Envelope;
use crate::computing::Computing;
use crate::connections::Connections;
use crate::flights::Flights;
use crate::handle::{Book, Inner, NodeHandle, ShardPort};
use crate::limits::{
    ADOPTIONS_MAX, COMMANDS_PENDING_MAX, COMPUTATIONS_MAX, CONNECTIONS_DEFAULT, CONNECTIONS_MAX,
    MAILBOX_DEPTH, REFUSALS_KEPT, SHARDS_MAX,
};
use crate::link::{LinkClientSeed, LinkServer, Wake, link};
use crate::namespaces::Namespaces;
use crate::refusal::Refusal;
use crate::shard::{Adoption, Shard, completions, events};
use crate::stats::ShardCounters;
use crate::stores::Stores;

/// What a node is made of.
pub struct NodeConfig {
    /// What hosts can connect to; see [`NodeHandle::target`].
    pub target: Arc<Target>,
    /// Most connections of one shard: all their memory is allocated at start-up.
    pub connections_max: usize,
    /// For each shard, what wakes it when it may be sleeping: usually
    /// [`reactor::Doorbell::ring`]. Called often.
    pub wakes: Vec<Arc<dyn Fn() + Send + Sync>>,
    /// Wakes who does the computations: see [`NodeHandle::take_computation`].
    pub computer: Arc<dyn Fn() + Send + Sync>,
}

impl NodeConfig {
    /// `shards` shards that never sleep, serving `target`.
    pub fn new(target: Arc<Target>, shards: usize) -> NodeConfig {
        let awake = || -> Wake { Arc::new(|| ()) };
        let wakes = (0..shards).map(|_| awake()).collect();
        NodeConfig { target, connections_max: CONNECTIONS_DEFAULT, wakes, computer: awake() }
    }
}

/// Makes a node of as many shards as there are wakes.
///
/// # Panics
/// When there is no shard, or more than [`SHARDS_MAX`].
pub fn node(config: NodeConfig) -> (NodeHandle, Vec<ShardSeed>) {
    let count = config.wakes.len();
    assert!(count > 0 && count <= SHARDS_MAX, "a node has between 1 and {SHARDS_MAX} shards");
    let connections_max = config.connections_max.clamp(1, CONNECTIONS_MAX);
    let mut ports = Vec::new();
    let mut seeds: Vec<ShardSeed> = Vec::new();
    for (index, wake) in config.wakes.iter().enumerate() {
        let (mailbox_tx, mailbox) = spsc(MAILBOX_DEPTH);
        let counters = Arc::new(ShardCounters::default());
        let (refusals_tx, refusals) = spsc(REFUSALS_KEPT);
        let (wanted_tx, wanted) = spsc(COMPUTATIONS_MAX);
        let (done_tx, done) = spsc(COMPUTATIONS_MAX);
        ports.push(ShardPort {
            mailbox: Mutex::new(mailbox_tx),
            wake: Arc::clone(wake),
            counters: Arc::clone(&counters),
            refusals: Mutex::new(refusals),
            wanted: Mutex::new(wanted),
            done: Mutex::new(done_tx),
        });
        let none = || (0..count).map(|_| None);
        seeds.push(ShardSeed {
            index,
            connections_max,
            target: Arc::clone(&config.target),
            mailbox,
            counters,
            refusals: refusals_tx,
            computing: Computing::new(wanted_tx, done, Arc::clone(&config.computer)),
            link_clients: none().collect(),
            link_servers: (0..count).map(|_| None).collect(),
            placements: (0..count).map(|_| None).collect(),
            adoptions: Vec::new(),
        });
    }
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let (client, server) =
                link(Arc::clone(&config.wakes[to]), Arc::clone(&config.wakes[from]));
            seeds[from].link_clients[to] = Some(client);
            seeds[to].link_servers[from] = Some(server);
            let (tx, rx) = spsc(ADOPTIONS_MAX);
            seeds[from].placements[to] = Some((tx, Arc::clone(&config.wakes[to])));
            seeds[to].adoptions.push(rx);
        }
    }
    let book = Mutex::new(Book::default());
    let listen_next = AtomicUsize::new(0);
    let inner = Inner { shards: ports, target: config.target, book, listen_next };
    (NodeHandle::new(inner), seeds)
}

/// A shard before it has reached its thread.
pub struct ShardSeed {
    index: usize,
    connections_max: usize,
    target: Arc<Target>,
    mailbox: Consumer<Box<Envelope>>,
    counters: Arc<ShardCounters>,
    refusals: Producer<Refusal>,
    computing: Computing,
    link_clients: Vec<Option<LinkClientSeed>>,
    link_servers: Vec<Option<LinkServer>>,
    placements: Vec<Option<(Producer<Adoption>, Wake)>>,
    adoptions: Vec<Consumer<Adoption>>,
}

impl ShardSeed {
    /// Which shard of its node it becomes.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Allocates everything and makes the shard. Called on the thread that will turn it, with that
    /// thread's buffers and sockets.
    pub fn start(self, pool: Rc<Pool>, net: Box<dyn Net>) -> Shard {
        let (connections_max, links) = (self.connections_max, self.link_servers.len());
        let sockets = net.connections_max();
        let clients = self.link_clients.into_iter();
        let connections = Connections::new(
            &self.target,
            connections_max,
            sockets,
            Rc::clone(&pool),
            Arc::clone(&self.counters),
            self.refusals,
            self.computing,
        );
        Shard {
            index: self.index,
            net,
            connections,
            namespaces: Namespaces::new(
                Flights::new(connections_max, links),
                Arc::clone(&self.target),
            ),
            stores: Stores::new(Rc::clone(&pool), self.index),
            mailbox: self.mailbox,
            pending: Vec::with_capacity(COMMANDS_PENDING_MAX),
            listeners: Vec::new(),
            link_clients: clients.map(|seed| Some(seed?.start(Rc::clone(&pool)))).collect(),
            link_servers: self.link_servers,
            placements: self.placements,
            adoptions: self.adoptions,
            place_next: self.index,
            events: events(),
            completions: completions(),
            pool,
            counters: self.counters,
            sweep_at: Instant::ZERO,
            draining: None,
            stopping: false,
            worked: false,
        }
    }
}
