//! After start-up a turn of a shard allocates nothing: through I/O, and through hosts that come and
//! go.
//!
//! # Safety argument
//!
//! The only `unsafe` here is a global allocator that counts and passes every call on, unchanged, to
//! the system's, whose contract it so inherits.

#![allow(unsafe_code, reason = "a counting allocator")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bdev::{Fifo, Instant, Pool, PoolConfig, RamDisk, Rng};
use net::{
    Batch, ConnId, Event, Landing, ListenerId, Net, NetError, PipeConfig, PipeNet, Pipes, Socket,
};
use node::{Format, NodeConfig, NodeHandle, Shard, StoreSpec, Ticket, VolumeSpec, node};
use nvmf::initiator::HostIdentity;
use nvmf::{Config, Digests, HostId, Hosts, Namespace, Nqn, Reach, Subsystem};
use reactor::Machine;
use sim::{History, Host, HostConfig, Ledger, Shape, Workload};

struct Counting;

thread_local! {
    // Of this thread: what the test harness does beside it is not counted.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to `System` with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.get() {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        }
        // SAFETY: the caller keeps the contract of `alloc`, which is this one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above, for `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The pipes are test equipment and allocate: what they do is not counted.
struct Uncounted(PipeNet);

fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let before = COUNTED.replace(false);
    let result = work();
    COUNTED.set(before);
    result
}

impl Net for Uncounted {
    fn listen(&mut self, address: SocketAddr) -> Result<ListenerId, NetError> {
        uncounted(|| self.0.listen(address))
    }
    fn local_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.0.local_address(listener)
    }
    fn set_accepting(&mut self, listener: ListenerId, accepting: bool) {
        uncounted(|| self.0.set_accepting(listener, accepting));
    }
    fn unlisten(&mut self, listener: ListenerId) {
        uncounted(|| self.0.unlisten(listener));
    }
    fn adopt(&mut self, socket: Socket) -> Result<ConnId, Socket> {
        uncounted(|| self.0.adopt(socket))
    }
    fn connect(&mut self, address: SocketAddr) -> Result<ConnId, NetError> {
        uncounted(|| self.0.connect(address))
    }
    fn receive(&mut self, conn: ConnId, landing: Landing) -> Result<(), Landing> {
        uncounted(|| self.0.receive(conn, landing))
    }
    fn send(&mut self, conn: ConnId, batch: Box<Batch>) -> Result<(), Box<Batch>> {
        uncounted(|| self.0.send(conn, batch))
    }
    fn finish(&mut self, conn: ConnId) {
        uncounted(|| self.0.finish(conn));
    }
    fn close(&mut self, conn: ConnId) {
        uncounted(|| self.0.close(conn));
    }
    fn kick(&mut self) {
        uncounted(|| self.0.kick());
    }
    fn poll(&mut self, events: &mut Fifo<Event>) {
        uncounted(|| self.0.poll(events));
    }
    fn connections(&self) -> usize {
        self.0.connections()
    }
    fn connections_max(&self) -> usize {
        self.0.connections_max()
    }
}

const ADDRESS: &str = "10.0.0.1:4420";
const NAME: &str = "nqn.2026-11.example.holdfast:alloc";
const VOLUME_BYTES: u64 = 64 << 20;

struct Node {
    control: NodeHandle,
    shards: Vec<Shard>,
    pipes: Pipes,
    now: Instant,
}

impl Node {
    /// Two shards; the first owns a store on a RAM disk.
    fn new() -> Node {
        let pipes = Pipes::new(PipeConfig::default());
        let target = nvmf::Target::new(Config::default()).unwrap();
        let config = NodeConfig { connections_max: 8, ..NodeConfig::new(target, 2) };
        let (control, seeds) = node(config);
        let address: SocketAddr = ADDRESS.parse().unwrap();
        let shards = seeds.into_iter().map(|seed| {
            let pool = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(64 << 20) };
            let net = Uncounted(PipeNet::new(&pipes, address.ip(), 16));
            seed.start(Rc::new(Pool::new(&pool).unwrap()), Box::new(net))
        });
        let shards = shards.collect();
        Node { control, shards, pipes, now: Instant::ZERO }
    }

    fn turn(&mut self) {
        self.now = self.now.saturating_add(Duration::from_micros(3));
        self.pipes.advance_to(self.now);
        COUNTED.set(true);
        for shard in &mut self.shards {
            shard.turn(self.now);
        }
        COUNTED.set(false);
    }

    fn finish<T>(&mut self, mut ticket: Ticket<T>) -> T {
        loop {
            self.turn();
            if let Some(answer) = ticket.take() {
                return answer.unwrap();
            }
        }
    }

    fn serve(&mut self) {
        let disk = RamDisk::new(4096, (256 << 20) / 4096).unwrap();
        let format = Some(Format { uuid: [1; 16], log_bytes: Some(4 << 20) });
        let spec = StoreSpec::Device { device: Arc::new(disk), format };
        let (store, opened) = self.control.open_store(spec).unwrap();
        self.finish(opened);
        let (name, uuid, block_size) = ("a".to_owned(), [2; 16], 4096);
        let spec = VolumeSpec { name, uuid, bytes: VOLUME_BYTES, block_size };
        let ticket = self.control.create_volume(store, spec).unwrap();
        let volume = self.finish(ticket);
        let (handle, attached) = self.control.attach(store, &volume).unwrap();
        self.finish(attached);
        let blocks = VOLUME_BYTES / 4096;
        let (nsid, atomic_blocks, reach) = (1, 1, Reach::default());
        let namespaces =
            vec![Namespace { nsid, handle, uuid, block_size, blocks, atomic_blocks, reach }];
        let (nqn, serial, hosts) = (Nqn::new(NAME).unwrap(), "A".to_owned(), Hosts::Any);
        let subsystem = Subsystem { nqn, serial, hosts, namespaces };
        let config = Config { subsystems: vec![subsystem], ..Config::default() };
        self.control.target().replace(config).unwrap();
        let ticket = self.control.listen(ADDRESS.parse().unwrap()).unwrap();
        self.finish(ticket);
    }

    /// A host connects, does `requests` requests, and leaves.
    fn visit(&mut self, number: u8, requests: u64) {
        let config = HostConfig {
            identity: HostIdentity {
                hostnqn: Nqn::new("nqn.2026-11.example.host:a").unwrap(),
                hostid: HostId([3; 16]),
                subnqn: Nqn::new(NAME).unwrap(),
            },
            address: format!("10.0.1.{number}").parse().unwrap(),
            target: ADDRESS.parse().unwrap(),
            queues: 3,
            digests: Digests { header: number.is_multiple_of(2), data: number.is_multiple_of(3) },
            kato_ms: 5000,
        };
        let pool = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(64 << 20) };
        let pool = Rc::new(Pool::new(&pool).unwrap());
        let mut host = Host::new(config, &self.pipes, pool, Rng::new(7));
        let shape = Shape { nsid: 1, block_size: 4096, span: VOLUME_BYTES / 4096 };
        let mut workload = Workload::new(Rng::new(u64::from(number)), 16, 64, vec![shape]);
        // Each visit writes all over the volume: what it held before is not known to this ledger,
        // so reads are not checked here.
        let mut ledger = Ledger {
            history: History::default(),
            moment: u64::from(number) << 32,
            oldest_read: 0,
            hash: 0,
            allowed: Vec::new(),
        };
        let mut done = Vec::new();
        while workload.done < requests || workload.outstanding() > 0 {
            workload.stopped = workload.done >= requests;
            workload.submit(&mut host, &mut ledger);
            host.turn(self.now, &mut done);
            for completion in done.drain(..) {
                let known = workload.on_completion(completion, &mut ledger);
                assert!(known.is_ok() || number > 0, "{known:?}");
            }
            self.turn();
        }
        host.switch_off();
        while !host.is_off() || self.shards.iter().any(|shard| shard.connections() > 0) {
            host.turn(self.now, &mut done);
            self.turn();
        }
    }
}

#[test]
fn turns_allocate_nothing_after_start_up() {
    let mut node = Node::new();
    node.serve();
    node.visit(0, 300);
    let before = ALLOCATIONS.get();
    for number in 1..5 {
        node.visit(number, 60);
    }
    let allocated = ALLOCATIONS.get() - before;
    assert_eq!(allocated, 0, "through 4 visits of 60 requests");
}
