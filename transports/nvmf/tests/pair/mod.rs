//! Both sides of the protocol, connected through memory: bytes arrive in pieces of any size,
//! requests complete in any order, buffers run out, connections break. All from one seed.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::Write;
use std::sync::Arc;

use bdev::{Completion, Data, Fifo, Instant, Op, Pool, PoolConfig, Request, Rng, Status};
use net::{Batch, Landing};
use nvmf::initiator::{Admin, HostIdentity, Initiator, Random};
use nvmf::{
    Addresses, Authenticator, Computation, Config, Connection, Cx, HostId, Hosts, Namespace,
    NamespaceHandle, Nqn, Port, Reach, Subsystem, Target,
};

pub(crate) const SUBNQN: &str = "nqn.2026-11.io.example:vol";
pub(crate) const HOSTNQN: &str =
    "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";

pub(crate) fn identity() -> HostIdentity {
    HostIdentity {
        hostnqn: Nqn::new(HOSTNQN).unwrap(),
        hostid: HostId([0x11; 16]),
        subnqn: Nqn::new(SUBNQN).unwrap(),
    }
}

pub(crate) fn namespace(nsid: u32, block_size: u32, blocks: u64) -> Namespace {
    let mut uuid = [0xab; 16];
    uuid[15] = u8::try_from(nsid).unwrap();
    let (handle, reach) = (NamespaceHandle(nsid), Reach::default());
    Namespace { nsid, handle, uuid, block_size, blocks, atomic_blocks: 1, reach }
}

pub(crate) fn config(namespaces: Vec<Namespace>) -> Config {
    Config {
        ports: vec![Port { id: 1, address: "0.0.0.0:4420".parse().unwrap() }],
        subsystems: vec![Subsystem {
            nqn: Nqn::new(SUBNQN).unwrap(),
            serial: "HF0001".into(),
            hosts: Hosts::Any,
            namespaces,
        }],
        ..Config::default()
    }
}

/// Bytes that depend on a seed only.
pub(crate) fn bytes_of(seed: u64) -> Random {
    let mut rng = Rng::new(seed);
    Box::new(move |bytes| rng.fill(bytes))
}

/// Seeds and rounds of the randomised tests: `FUZZ_SEED` and `FUZZ_ROUNDS`.
pub(crate) fn rounds(default: u64) -> (u64, u64) {
    let read = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    (read("FUZZ_SEED").unwrap_or(1), read("FUZZ_ROUNDS").unwrap_or(default))
}

/// Prints how to reproduce the round, if it fails.
pub(crate) struct Reproduce(pub(crate) &'static str, pub(crate) u64);

impl Drop for Reproduce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let command =
                format!("FUZZ_SEED={} FUZZ_ROUNDS=1 cargo test -p nvmf {}", self.1, self.0);
            let _ = writeln!(std::io::stderr(), "{command}");
        }
    }
}

/// The bytes of one namespace, and the requests that are on their way to it.
pub(crate) struct Disk {
    pub(crate) block_size: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fail_with: Option<Status>,
    /// Blocks of 4 KiB that came with their checksums.
    pub(crate) summed: u32,
}

impl Disk {
    pub(crate) fn new(block_size: usize, blocks: usize) -> Disk {
        let bytes = vec![0; block_size * blocks];
        Disk { block_size, bytes, fail_with: None, summed: 0 }
    }

    fn run(&mut self, request: Request) -> Completion {
        if let Some(status) = self.fail_with {
            return request.complete(status);
        }
        let start = usize::try_from(request.lba.0).unwrap() * self.block_size;
        let len = request.blocks as usize * self.block_size;
        let Some(range) = self.bytes.get_mut(start..start + len) else {
            return request.complete(Status::OutOfRange);
        };
        let Request { tag, op, mut data, .. } = request;
        match (&mut data, op) {
            (Data::Into(buf), Op::Read) => {
                buf.bytes_mut()[..len].copy_from_slice(range);
                for (at, block) in range.chunks_exact(4096).enumerate() {
                    buf.note_checksum(at, crc_fast::crc32_iscsi(block));
                }
                buf.mark_summed(len / 4096);
            }
            (Data::From(buf), Op::Write) => {
                range.copy_from_slice(&buf.bytes()[..len]);
                for (at, block) in range.chunks_exact(4096).enumerate() {
                    let sum = buf.checksum(at);
                    self.summed += u32::from(sum.is_some());
                    assert!(sum.is_none_or(|sum| sum == crc_fast::crc32_iscsi(block)));
                }
            }
            (Data::From(buf), Op::Compare) => {
                let same = &buf.bytes()[..len] == range;
                let status = if same { Status::Ok } else { Status::Miscompare };
                return Completion { tag, data, status };
            }
            (Data::None, Op::WriteZeroes | Op::Deallocate) => range.fill(0),
            (Data::None, Op::Flush) => (),
            other => panic!("a request that no command asks for: {other:?}"),
        }
        Completion { tag, data, status: Status::Ok }
    }
}

/// One side of a connection as the wire sees it.
pub(crate) trait Host {
    fn poll_transmit(&mut self, batch: &mut Batch) -> bool;
    fn on_sent(&mut self, batch: &mut Batch);
    fn on_bytes(&mut self, bytes: &[u8]) -> usize;
    fn on_closed(&mut self);
}

impl Host for Initiator {
    fn poll_transmit(&mut self, batch: &mut Batch) -> bool {
        Initiator::poll_transmit(self, batch)
    }
    fn on_sent(&mut self, batch: &mut Batch) {
        Initiator::on_sent(self, batch);
    }
    fn on_bytes(&mut self, bytes: &[u8]) -> usize {
        Initiator::on_bytes(self, bytes)
    }
    fn on_closed(&mut self) {
        Initiator::on_closed(self);
    }
}

impl Host for Admin {
    fn poll_transmit(&mut self, batch: &mut Batch) -> bool {
        self.queue_mut().poll_transmit(batch)
    }
    fn on_sent(&mut self, batch: &mut Batch) {
        self.queue_mut().on_sent(batch);
    }
    fn on_bytes(&mut self, bytes: &[u8]) -> usize {
        self.queue_mut().on_bytes(bytes)
    }
    fn on_closed(&mut self) {
        self.queue_mut().on_closed();
    }
}

/// A connection of the target, and the wire to its host.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    batch: Box<Batch>,
    host_batch: Box<Batch>,
    /// Where the next bytes land: armed before they come, as with a real socket.
    landing: Option<Landing>,
    /// Everything that the host ever sent.
    pub(crate) sent: Vec<u8>,
    pub(crate) to_target: Vec<u8>,
    pub(crate) to_host: Vec<u8>,
}

impl Link {
    /// Up to `len` bytes arrive in the landing that is armed; then the next one is armed.
    fn deliver(&mut self, cx: Cx<'_>, len: usize) {
        self.landing = self.landing.take().or_else(|| self.connection.landing());
        if len == 0 {
            return;
        }
        let Some(mut landing) = self.landing.take() else { return };
        let len = len.min(landing.len() as usize);
        landing.bytes_mut()[..len].copy_from_slice(&self.to_target[..len]);
        self.to_target.drain(..len);
        self.connection.on_received(cx, landing, u32::try_from(len).unwrap());
        self.landing = self.connection.landing();
    }
}

/// The target with its pool, disks and requests in flight.
pub(crate) struct World {
    pub(crate) target: Arc<Target>,
    pub(crate) pool: Pool,
    pub(crate) host_pool: Pool,
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) disks: Vec<Disk>,
    pub(crate) in_flight: Vec<(NamespaceHandle, Request)>,
    pub(crate) links: u32,
    /// Does what connections want to have computed, some turns later.
    pub(crate) authenticator: Authenticator<Random>,
    #[expect(clippy::vec_box, reason = "they are handed out and back in their boxes")]
    pub(crate) computations: Vec<Box<Computation>>,
}

impl World {
    pub(crate) fn new(config: Config, seed: u64, segments: [u32; 5]) -> World {
        let pool = PoolConfig { segments, huge_pages: false };
        let host_pool = PoolConfig { segments: [128, 64, 64, 32, 16], huge_pages: false };
        World {
            target: Target::new(config).unwrap(),
            pool: Pool::new(&pool).unwrap(),
            host_pool: Pool::new(&host_pool).unwrap(),
            now: Instant::from_ns(1),
            rng: Rng::new(seed),
            disks: Vec::new(),
            in_flight: Vec::new(),
            links: 0,
            authenticator: Authenticator::new(bytes_of(seed)),
            computations: Vec::new(),
        }
    }

    pub(crate) fn accept(&mut self) -> Link {
        let mut connection = Connection::new(Arc::clone(&self.target), self.links);
        self.links += 1;
        let addresses = Addresses {
            local: "10.0.2.2:4420".parse().unwrap(),
            peer: "10.0.2.15:50000".parse().unwrap(),
        };
        let cx = Cx { pool: &self.pool, now: self.now };
        assert!(connection.accept(cx, addresses));
        Link {
            connection,
            batch: Batch::with_defaults(),
            host_batch: Batch::with_defaults(),
            landing: None,
            sent: Vec::new(),
            to_target: Vec::new(),
            to_host: Vec::new(),
        }
    }

    /// One turn of a link: each direction moves some bytes, requests start and complete.
    pub(crate) fn turn(&mut self, link: &mut Link, host: &mut dyn Host) {
        let cx = Cx { pool: &self.pool, now: self.now };
        if host.poll_transmit(&mut link.host_batch) {
            for piece in link.host_batch.pieces() {
                link.to_target.extend_from_slice(piece);
                if link.sent.len() < 1 << 20 {
                    link.sent.extend_from_slice(piece);
                }
            }
            host.on_sent(&mut link.host_batch);
        }
        let len = self.rng.between(1, 200_000).min(link.to_target.len() as u64);
        let len = if self.rng.chance(1, 3) { len.min(7) } else { len };
        link.deliver(cx, usize::try_from(len).unwrap());
        self.requests(link);
        self.complete_some(std::slice::from_mut(link));
        self.compute_some(link);
        let cx = Cx { pool: &self.pool, now: self.now };
        if link.connection.poll_transmit(cx, &mut link.batch) {
            link.batch.pieces().for_each(|piece| link.to_host.extend_from_slice(piece));
            link.connection.on_sent(cx, &mut link.batch);
        }
        let len = usize::try_from(self.rng.between(1, 300_000)).unwrap().min(link.to_host.len());
        let taken = host.on_bytes(&link.to_host[..len]);
        link.to_host.drain(..taken);
    }

    pub(crate) fn requests(&mut self, link: &mut Link) {
        let cx = Cx { pool: &self.pool, now: self.now };
        let room = usize::try_from(self.rng.between(1, 8)).unwrap();
        let mut requests = Fifo::new(room);
        link.connection.poll_requests(cx, &mut requests);
        while let Some(request) = requests.pop() {
            self.in_flight.push(request);
        }
    }

    /// Completes some requests, in any order, to whichever of `links` they belong.
    pub(crate) fn complete_some(&mut self, links: &mut [Link]) {
        let count = self.rng.below(self.in_flight.len() as u64 + 1);
        for _ in 0..count {
            let own: Vec<usize> = (0..self.in_flight.len())
                .filter(|&i| {
                    let index = Connection::index_of(self.in_flight[i].1.tag);
                    links.iter().any(|link| link.connection.index() == index)
                })
                .collect();
            let Some(pick) = self.rng.index(own.len()) else { return };
            let (handle, request) = self.in_flight.swap_remove(own[pick]);
            let disk = &mut self.disks[handle.0 as usize - 1];
            let completion = disk.run(request);
            let index = Connection::index_of(completion.tag);
            let link = links.iter_mut().find(|link| link.connection.index() == index).unwrap();
            let cx = Cx { pool: &self.pool, now: self.now };
            link.connection.on_completion(cx, completion);
        }
    }

    /// Takes what is wanted, and gives back what was taken earlier.
    pub(crate) fn compute_some(&mut self, link: &mut Link) {
        let cx = Cx { pool: &self.pool, now: self.now };
        self.computations.extend(link.connection.take_computation());
        let own = |wanted: &Computation| wanted.connection() == link.connection.index();
        let at = self.computations.iter().position(|wanted| own(wanted));
        if let Some(at) = at.filter(|_| self.rng.chance(1, 3)) {
            let mut computation = self.computations.swap_remove(at);
            self.authenticator.compute(&mut computation);
            link.connection.on_computed(cx, computation);
        }
    }

    /// Breaks a link: the socket is gone on both sides. Returns when nothing is in flight.
    pub(crate) fn close(&mut self, link: &mut Link, host: &mut dyn Host) {
        let cx = Cx { pool: &self.pool, now: self.now };
        link.connection.on_closed(cx);
        link.landing = None;
        host.on_closed();
        link.to_host.clear();
        link.to_target.clear();
        for _ in 0..1000 {
            if link.connection.is_closed() {
                return;
            }
            self.complete_some(std::slice::from_mut(link));
        }
        panic!("the connection never drained");
    }

    /// Brings an admin queue up.
    pub(crate) fn bring_up(&mut self, admin: &mut Admin) -> Link {
        let mut link = self.accept();
        assert!(admin.open(&self.host_pool));
        for _ in 0..2000 {
            self.turn(&mut link, admin);
            admin.poll(&self.host_pool, self.now);
            assert_eq!(admin.failure(), None);
            if admin.info().is_some() {
                return link;
            }
        }
        panic!("the admin queue never came up");
    }

    /// Connects an I/O queue.
    pub(crate) fn connect(&mut self, queue: &mut Initiator) -> Link {
        let mut link = self.accept();
        assert!(queue.open(&self.host_pool));
        for _ in 0..2000 {
            self.turn(&mut link, queue);
            if queue.is_ready() || queue.failure().is_some() {
                return link;
            }
        }
        panic!("the I/O queue never came up");
    }
}
