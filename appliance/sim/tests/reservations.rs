//! Reservations, as two hosts see them on a node of two shards: one owns the volume, connections
//! are spread over both.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bdev::{Completion, Data, Instant, Lba, Op, Pool, PoolConfig, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, SimDisk};
use net::{PipeConfig, PipeNet, Pipes};
use node::{
    Format, NodeConfig, NodeError, NodeHandle, Reservation, Shard, StoreId, StoreSpec, Ticket,
    Type, VolumeSpec, VolumeStatus, node,
};
use nvme_spec::{NvmeStatus, PSDT_SGL, Sqe, StatusCode, U32, opcode};
use nvmf::initiator::{HostCommand, HostIdentity};
use nvmf::{Config, Digests, HostId, Hosts, Namespace, NamespaceHandle, Nqn, Reach, Subsystem};
use reactor::Machine;
use sim::{Host, HostConfig};
use zerocopy::FromZeros;

const ADDRESS: &str = "10.0.0.1:4420";
const NAME: &str = "nqn.2026-11.example.holdfast:shared";
const VOLUME_BYTES: u64 = 16 << 20;

const CONFLICT: NvmeStatus = NvmeStatus::never(StatusCode::RESERVATION_CONFLICT);
const INVALID: NvmeStatus = NvmeStatus::never(StatusCode::INVALID_FIELD);
const OK: NvmeStatus = NvmeStatus::SUCCESS;

/// CPTPL: persist.
const PERSIST: u32 = 3 << 30;

struct Bench {
    control: NodeHandle,
    shards: Vec<Shard>,
    pipes: Pipes,
    disk: SimDisk,
    store: StoreId,
    volume: Option<VolumeStatus>,
    handle: NamespaceHandle,
    hosts: Vec<Visitor>,
    now: Instant,
}

struct Visitor {
    host: Host,
    asked: u32,
    answers: Vec<(u32, Status)>,
    responses: Vec<(u32, NvmeStatus, Vec<u8>)>,
}

impl Bench {
    fn new() -> Bench {
        let disk = SimDisk::new(4096, 26 * 256, FaultPlan::power_cuts(1));
        let (control, shards, pipes) = life();
        let (hosts, now) = (Vec::new(), Instant::ZERO);
        let (store, volume, handle) = (StoreId(0), None, NamespaceHandle(0));
        let mut bench = Bench { control, shards, pipes, disk, store, volume, handle, hosts, now };
        bench.open(Some(Format { uuid: [1; 16], log_bytes: Some(1 << 20) }));
        bench.create([9; 16]);
        bench.serve();
        bench
    }

    fn create(&mut self, uuid: [u8; 16]) {
        let (name, bytes, block_size) = ("shared".to_owned(), VOLUME_BYTES, 4096);
        let spec = VolumeSpec { name, uuid, bytes, block_size };
        let created = self.control.create_volume(self.store, spec).unwrap();
        self.volume = Some(self.finish(created).unwrap());
    }

    fn open(&mut self, format: Option<Format>) {
        let device = Arc::new(self.disk.clone());
        let (store, opened) =
            self.control.open_store(StoreSpec::Device { device, format }).unwrap();
        self.store = store;
        self.finish(opened).unwrap();
    }

    fn serve(&mut self) {
        let volume = self.volume.clone().unwrap();
        let (handle, attached) = self.control.attach(self.store, &volume).unwrap();
        self.finish(attached).unwrap();
        self.handle = handle;
        let (nsid, uuid, block_size, atomic_blocks) = (1, volume.uuid, 4096, 16);
        let blocks = VOLUME_BYTES / 4096;
        let reach = Reach { persists: volume.persists, ..Reach::default() };
        let namespace = Namespace { nsid, handle, uuid, block_size, blocks, atomic_blocks, reach };
        let (nqn, serial, hosts) = (Nqn::new(NAME).unwrap(), "R".to_owned(), Hosts::Any);
        let subsystem = Subsystem { nqn, serial, hosts, namespaces: vec![namespace] };
        let config = Config { subsystems: vec![subsystem], ..Config::default() };
        self.control.target().replace(config).unwrap();
        let listening = self.control.listen(ADDRESS.parse().unwrap()).unwrap();
        self.finish(listening).unwrap();
    }

    /// The power goes, and comes back: what was not durable is gone, and so are all connections.
    fn cut_power(&mut self) {
        self.disk.power_off();
        self.hosts.clear();
        self.shards.clear();
        self.disk.power_on();
        (self.control, self.shards, self.pipes) = life();
        self.pipes.advance_to(self.now);
        self.open(None);
        self.serve();
    }

    fn turn(&mut self) {
        let mut worked = false;
        for shard in &mut self.shards {
            shard.turn(self.now);
            worked |= shard.worked();
        }
        let mut done = Vec::new();
        for visitor in &mut self.hosts {
            visitor.host.turn(self.now, &mut done);
            worked |= visitor.host.worked();
            for Completion { tag, status, .. } in done.drain(..) {
                visitor.answers.push((tag.0, status));
            }
            while let Some(response) = visitor.host.poll_response() {
                let bytes = match &response.data {
                    Data::Into(buf) => buf.bytes()[..response.received as usize].to_vec(),
                    _ => Vec::new(),
                };
                let status = response.cqe.nvme_status();
                visitor.responses.push((response.tag.0, status, bytes));
            }
        }
        let step = if worked { Duration::from_micros(5) } else { Duration::from_millis(1) };
        self.now = self.now.saturating_add(step);
        self.pipes.advance_to(self.now);
        self.disk.advance_to(self.now);
    }

    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Bench) -> Option<T>) -> T {
        for _ in 0..200_000 {
            if let Some(result) = done(self) {
                return result;
            }
            self.turn();
        }
        panic!("never: {what}, at {:?}", self.now);
    }

    fn finish<T>(&mut self, mut ticket: Ticket<T>) -> Result<T, NodeError> {
        self.until("a command is answered", |_| ticket.take())
    }

    /// A host of this identity connects, with two queues: one to each shard, or so.
    fn connect(&mut self, id: u8) -> usize {
        let number = self.hosts.len();
        let config = HostConfig {
            identity: HostIdentity {
                hostnqn: Nqn::new(&format!("nqn.2026-11.example.host:{id}")).unwrap(),
                hostid: HostId([id; 16]),
                subnqn: Nqn::new(NAME).unwrap(),
            },
            address: format!("10.0.1.{}", number + 1).parse().unwrap(),
            target: ADDRESS.parse().unwrap(),
            queues: 2,
            digests: Digests { header: false, data: false },
            kato_ms: 0,
        };
        let pool = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(16 << 20) };
        let pool = Rc::new(Pool::new(&pool).unwrap());
        let host = Host::new(config, &self.pipes, pool, Rng::new(number as u64 + 7));
        let (answers, responses) = (Vec::new(), Vec::new());
        self.hosts.push(Visitor { host, asked: 0, answers, responses });
        self.until("the host is connected", |bench| {
            bench.hosts[number].host.is_ready().then_some(())
        });
        number
    }

    /// Submits a reservation command; its number.
    fn ask(&mut self, host: usize, opcode: u8, word: u32, keys: [u64; 2]) -> u32 {
        let visitor = &mut self.hosts[host];
        visitor.asked += 1;
        let mut sqe = Sqe::new_zeroed();
        (sqe.opcode, sqe.flags) = (opcode, PSDT_SGL);
        (sqe.nsid, sqe.cdw10) = (U32::new(1), U32::new(word));
        let mut buf = visitor.host.pool().take(4096).unwrap();
        let (data, len) = match opcode {
            opcode::nvm::RESERVATION_REPORT => {
                (sqe.cdw10, sqe.cdw11) = (U32::new(1023), U32::new(1));
                (Data::Into(buf), 4096)
            }
            _ => {
                for (place, key) in buf.bytes_mut().chunks_mut(8).zip(keys) {
                    place.copy_from_slice(&key.to_le_bytes());
                }
                (Data::From(buf.freeze()), 16)
            }
        };
        let command = HostCommand { tag: Tag(visitor.asked), sqe, data, len };
        visitor.host.submit_command(command).expect("an idle queue has room");
        visitor.asked
    }

    fn answer(&mut self, host: usize, number: u32) -> (NvmeStatus, Vec<u8>) {
        self.until("a reservation command is answered", |bench| {
            let mut responses = bench.hosts[host].responses.iter();
            let found = responses.find(|response| response.0 == number)?;
            Some((found.1, found.2.clone()))
        })
    }

    fn reserve(&mut self, host: usize, opcode: u8, word: u32, keys: [u64; 2]) -> NvmeStatus {
        let number = self.ask(host, opcode, word, keys);
        self.answer(host, number).0
    }

    fn register(&mut self, host: usize, word: u32, key: u64) -> NvmeStatus {
        self.reserve(host, opcode::nvm::RESERVATION_REGISTER, word, [0, key])
    }

    fn acquire(&mut self, host: usize, action: u32, kind: Type, keys: [u64; 2]) -> NvmeStatus {
        let word = action | (kind as u32) << 8;
        self.reserve(host, opcode::nvm::RESERVATION_ACQUIRE, word, keys)
    }

    /// Submits a read or a write of a block; its number.
    fn submit(&mut self, host: usize, op: Op, lba: u64) -> u32 {
        let visitor = &mut self.hosts[host];
        visitor.asked += 1;
        let (tag, lba) = (Tag(visitor.asked), Lba(lba));
        let buf = visitor.host.pool().take(4096).unwrap();
        let request = match op {
            Op::Read => Request::read(tag, lba, 1, buf),
            _ => Request::write(tag, lba, 1, buf.freeze()),
        };
        visitor.host.submit(1, 4096, request).expect("an idle queue has room");
        visitor.asked
    }

    fn ended(&mut self, host: usize, number: u32) -> Option<Status> {
        let mut answers = self.hosts[host].answers.iter();
        answers.find(|answer| answer.0 == number).map(|answer| answer.1)
    }

    /// Runs it on each queue of the host, and so on each shard: the outcome is the same.
    fn run(&mut self, host: usize, op: Op) -> Status {
        let [first, second] = [0, 1].map(|lba| {
            let number = self.submit(host, op, lba);
            self.until("a request is answered", |bench| bench.ended(host, number))
        });
        assert_eq!(first, second, "both queues");
        first
    }

    fn reservation(&mut self, evict: bool) -> Reservation {
        let id = self.volume.as_ref().unwrap().id;
        let asked = self.control.reservation(self.store, id, evict).unwrap();
        self.finish(asked).unwrap()
    }
}

fn life() -> (NodeHandle, Vec<Shard>, Pipes) {
    let pipes = Pipes::new(PipeConfig::default());
    let target = nvmf::Target::new(Config::default()).unwrap();
    let config = NodeConfig { connections_max: 32, ..NodeConfig::new(target, 2) };
    let (control, seeds) = node(config);
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let shards = seeds.into_iter().map(|seed| {
        let pool = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(32 << 20) };
        let net = PipeNet::new(&pipes, address.ip(), 32);
        seed.start(Rc::new(Pool::new(&pool).unwrap()), Box::new(net))
    });
    let shards = shards.collect();
    (control, shards, pipes)
}

#[test]
fn holder_is_a_host_on_all_its_controllers_and_all_shards() {
    let mut bench = Bench::new();
    let [a, b, again] = [1, 2, 1].map(|id| bench.connect(id));
    assert_eq!(bench.register(a, 0, 0xa), OK);
    assert_eq!(bench.acquire(b, 0, Type::WriteExclusive, [0xb, 0]), CONFLICT, "no registrant");
    assert_eq!(bench.acquire(a, 0, Type::WriteExclusive, [0xa, 0]), OK);
    for host in [a, again] {
        assert_eq!([Op::Read, Op::Write].map(|op| bench.run(host, op)), [Status::Ok; 2]);
    }
    let conflict = Status::ReservationConflict;
    assert_eq!([Op::Read, Op::Write].map(|op| bench.run(b, op)), [Status::Ok, conflict]);
    // The same host may do what its reservation allows through the other controller, too.
    assert_eq!(bench.reserve(again, opcode::nvm::RESERVATION_RELEASE, 1 << 8, [0xa, 0]), OK);
    assert_eq!(bench.run(b, Op::Write), Status::Ok);
    assert_eq!(bench.acquire(again, 0, Type::ExclusiveAccess, [0xa, 0]), OK);
    assert_eq!([Op::Read, Op::Write].map(|op| bench.run(b, op)), [conflict; 2]);
    let report = bench.ask(b, opcode::nvm::RESERVATION_REPORT, 0, [0; 2]);
    let (status, page) = bench.answer(b, report);
    assert_eq!((status, page.len()), (OK, 4096));
    assert_eq!((page[4], page[5], page[9]), (2, 1, 0), "type, one registrant, does not persist");
    assert_eq!((page[64], page[66], page[72], page[80]), (0xff, 1, 0xa, 1));
    let status = bench.reservation(false);
    assert_eq!(status.kind, Some(Type::ExclusiveAccess));
    assert_eq!(
        status.registrants.iter().map(|(r, holds)| (r.key, *holds)).collect::<Vec<_>>(),
        [(0xa, true)]
    );
    let counters = bench.control.namespace_counters(bench.handle);
    let counted: u64 = counters.iter().map(|counters| counters.conflicts.read()).sum();
    assert_eq!(counted, 6, "two writes, and two reads and writes");
}

#[test]
fn what_persists_is_there_after_a_power_cut_and_nothing_else() {
    let mut bench = Bench::new();
    let [a, b] = [1, 2].map(|id| bench.connect(id));
    assert_eq!(bench.register(a, PERSIST, 0xa), OK);
    assert_eq!(bench.register(b, 0, 0xb), OK);
    assert_eq!(bench.acquire(a, 0, Type::WriteExclusiveRegistrants, [0xa, 0]), OK);
    let before = bench.reservation(false);
    assert!(before.persists && before.registrants.len() == 2);
    bench.cut_power();
    assert_eq!(bench.reservation(false), before);
    let [_, b, c] = [1, 2, 3].map(|id| bench.connect(id));
    assert_eq!(bench.run(b, Op::Write), Status::Ok, "a registrant");
    assert_eq!(bench.run(c, Op::Write), Status::ReservationConflict);
    // No longer persistent: the next cut takes it away.
    assert_eq!(bench.reserve(b, opcode::nvm::RESERVATION_REGISTER, 2 | 2 << 30, [0xb, 0xbb]), OK);
    assert_eq!(bench.run(c, Op::Write), Status::ReservationConflict);
    bench.cut_power();
    assert_eq!(bench.reservation(false).registrants, []);
    let c = bench.connect(3);
    assert_eq!(bench.run(c, Op::Write), Status::Ok);
}

#[test]
fn table_that_cannot_be_kept_is_not_acknowledged() {
    let mut bench = Bench::new();
    let a = bench.connect(1);
    assert_eq!(bench.register(a, PERSIST, 0xa), OK);
    bench.disk.fail_range(Op::Write, 0..=u64::MAX);
    let status = bench.acquire(a, 0, Type::WriteExclusive, [0xa, 0]);
    assert!(!status.is_success() && status != CONFLICT, "{status:?}");
    assert_eq!(bench.reservation(false).kind, None);
}

#[test]
fn preempt_and_abort_is_answered_after_what_the_victim_had_under_way() {
    let mut bench = Bench::new();
    let [a, b] = [1, 2].map(|id| bench.connect(id));
    for (host, key) in [(a, 0xa), (b, 0xb)] {
        assert_eq!(bench.register(host, 0, key), OK);
    }
    assert_eq!(bench.acquire(b, 0, Type::WriteExclusive, [0xb, 0]), OK);
    assert_eq!(bench.run(b, Op::Write), Status::Ok);
    bench.disk.stall_for(Duration::from_millis(700));
    let writes = [0, 1, 2, 3].map(|lba| bench.submit(b, Op::Write, lba));
    // They are in the engine by then, and the device hangs.
    let soon = bench.now.saturating_add(Duration::from_millis(100));
    bench.until("some time", |bench| (bench.now >= soon).then_some(()));
    let word = 2 | (Type::WriteExclusive as u32) << 8;
    let preempt = bench.ask(a, opcode::nvm::RESERVATION_ACQUIRE, word, [0xa, 0xb]);
    bench.until("the preemption counts", |bench| {
        (bench.reservation(false).registrants.len() == 1).then_some(())
    });
    let unanswered = bench.hosts[a].responses.iter().all(|response| response.0 != preempt);
    assert!(unanswered, "what was under way has not ended");
    assert_eq!(bench.answer(a, preempt).0, OK);
    for number in writes {
        assert_eq!(bench.ended(b, number), Some(Status::Ok), "before the answer");
    }
    assert_eq!(bench.run(b, Op::Write), Status::ReservationConflict);
}

#[test]
fn administrator_removes_everybody() {
    let mut bench = Bench::new();
    let [a, b] = [1, 2].map(|id| bench.connect(id));
    assert_eq!(bench.register(a, PERSIST, 0xa), OK);
    assert_eq!(bench.acquire(a, 0, Type::ExclusiveAccess, [0xa, 0]), OK);
    assert_eq!(bench.run(b, Op::Read), Status::ReservationConflict);
    let left = bench.reservation(true);
    assert_eq!((left.kind, left.registrants), (None, Vec::new()));
    assert_eq!([Op::Read, Op::Write].map(|op| bench.run(b, op)), [Status::Ok; 2]);
    bench.cut_power();
    assert_eq!(bench.reservation(false).registrants, []);
    assert_eq!(bench.acquire_needs_registration(), CONFLICT);
}

impl Bench {
    fn acquire_needs_registration(&mut self) -> NvmeStatus {
        let a = self.connect(1);
        self.acquire(a, 0, Type::ExclusiveAccess, [0xa, 0])
    }
}

#[test]
fn deleted_volume_takes_its_reservations_along() {
    let mut bench = Bench::new();
    let a = bench.connect(1);
    assert_eq!(bench.register(a, PERSIST, 0xa), OK);
    assert_eq!(bench.register(a, 1 << 30, 0xa), INVALID, "CPTPL 01b");
    let status = bench.control.store_status(bench.store).unwrap();
    let status = bench.finish(status).unwrap();
    let names: Vec<_> = status.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["shared"], "what keeps them is nobody's business");
    let volume = bench.volume.take().unwrap().id;
    bench.control.target().replace(Config::default()).unwrap();
    let detached = bench.control.detach(bench.handle).unwrap();
    bench.finish(detached).unwrap();
    let deleted = bench.control.delete_volume(bench.store, volume).unwrap();
    bench.finish(deleted).unwrap();
    bench.create([9; 16]);
    assert_eq!(bench.reservation(false).registrants, []);
    bench.cut_power();
    assert_eq!(bench.reservation(false).registrants, []);
}
