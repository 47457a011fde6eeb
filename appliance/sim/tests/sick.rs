//! A node of two stores, one of which is in trouble, as its hosts and its operator see it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bdev::{Completion, Instant, Lba, Op, Pool, PoolConfig, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, SimDisk};
use net::{PipeConfig, PipeNet, Pipes};
use node::{
    Format, NodeConfig, NodeError, NodeHandle, Shard, StoreId, StoreSpec, StoreStatus, Ticket,
    VolumeSpec, node,
};
use nvmf::initiator::HostIdentity;
use nvmf::{Config, Digests, HostId, Hosts, Namespace, Nqn, Reach, Subsystem};
use reactor::Machine;
use sim::{Host, HostConfig};
use volume::{Health, SpaceState};

const ADDRESS: &str = "10.0.0.1:4420";
const NAME: &str = "nqn.2026-11.example.holdfast:sick";
const VOLUME_BYTES: u64 = 64 << 20;

/// One shard, two stores with a volume each: namespaces 1 and 2.
struct Bench {
    control: NodeHandle,
    shard: Shard,
    pipes: Pipes,
    disks: [SimDisk; 2],
    stores: Vec<StoreId>,
    hosts: Vec<Visitor>,
    now: Instant,
}

/// A host, what it asked for, and when it was answered.
struct Visitor {
    host: Host,
    asked: Vec<Instant>,
    answers: Vec<(u32, Status, Duration)>,
}

impl Bench {
    fn new(pool_bytes: u64) -> Bench {
        let pipes = Pipes::new(PipeConfig::default());
        let target = nvmf::Target::new(Config::default()).unwrap();
        let config = NodeConfig { connections_max: 64, ..NodeConfig::new(target, 1) };
        let (control, seeds) = node(config);
        let address: SocketAddr = ADDRESS.parse().unwrap();
        let pool = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(pool_bytes) };
        let net = PipeNet::new(&pipes, address.ip(), 64);
        let seed = seeds.into_iter().next().unwrap();
        let shard = seed.start(Rc::new(Pool::new(&pool).unwrap()), Box::new(net));
        let disks = [1, 2].map(|seed| SimDisk::new(4096, 26 * 256, FaultPlan::reliable(seed)));
        let (stores, hosts, now) = (Vec::new(), Vec::new(), Instant::ZERO);
        let mut bench = Bench { control, shard, pipes, disks, stores, hosts, now };
        bench.serve();
        bench
    }

    fn serve(&mut self) {
        let mut namespaces = Vec::new();
        for number in [1, 2] {
            let device = Arc::new(self.disks[usize::from(number) - 1].clone());
            let format = Some(Format { uuid: [number; 16], log_bytes: Some(1 << 20) });
            let (store, opened) =
                self.control.open_store(StoreSpec::Device { device, format }).unwrap();
            self.finish(opened).unwrap();
            let (uuid, block_size) = ([number + 8; 16], 4096);
            let spec =
                VolumeSpec { name: format!("v{number}"), uuid, bytes: VOLUME_BYTES, block_size };
            let created = self.control.create_volume(store, spec).unwrap();
            let volume = self.finish(created).unwrap();
            let (handle, attached) = self.control.attach(store, &volume).unwrap();
            self.finish(attached).unwrap();
            let (nsid, blocks) = (u32::from(number), VOLUME_BYTES / 4096);
            let (atomic_blocks, reach) = (1, Reach::default());
            let shape = Namespace { nsid, handle, uuid, block_size, blocks, atomic_blocks, reach };
            namespaces.push(shape);
            self.stores.push(store);
        }
        let (nqn, serial, hosts) = (Nqn::new(NAME).unwrap(), "S".to_owned(), Hosts::Any);
        let subsystem = Subsystem { nqn, serial, hosts, namespaces };
        let config = Config { subsystems: vec![subsystem], ..Config::default() };
        self.control.target().replace(config).unwrap();
        let listening = self.control.listen(ADDRESS.parse().unwrap()).unwrap();
        self.finish(listening).unwrap();
    }

    /// One turn of everything. Time goes on in small steps, and in large ones while nothing moves.
    fn turn(&mut self) {
        self.shard.turn(self.now);
        let (mut worked, mut done) = (self.shard.worked(), Vec::new());
        for visitor in &mut self.hosts {
            visitor.host.turn(self.now, &mut done);
            worked |= visitor.host.worked();
            for Completion { tag, status, .. } in done.drain(..) {
                let took = self.now.saturating_since(visitor.asked[tag.0 as usize]);
                visitor.answers.push((tag.0, status, took));
            }
        }
        let step = if worked { Duration::from_micros(5) } else { Duration::from_millis(1) };
        self.now = self.now.saturating_add(step);
        self.pipes.advance_to(self.now);
        self.disks.iter().for_each(|disk| disk.advance_to(self.now));
    }

    fn finish<T>(&mut self, mut ticket: Ticket<T>) -> Result<T, NodeError> {
        for _ in 0..200_000 {
            self.turn();
            if let Some(answer) = ticket.take() {
                return answer;
            }
        }
        panic!("the command was not answered");
    }

    /// A host with so many queues connects; its number.
    fn connect(&mut self, queues: u16) -> usize {
        let number = self.hosts.len();
        let id = u8::try_from(number).unwrap();
        let config = HostConfig {
            identity: HostIdentity {
                hostnqn: Nqn::new(&format!("nqn.2026-11.example.host:{number}")).unwrap(),
                hostid: HostId([id + 1; 16]),
                subnqn: Nqn::new(NAME).unwrap(),
            },
            address: format!("10.0.1.{}", number + 1).parse().unwrap(),
            target: ADDRESS.parse().unwrap(),
            queues,
            digests: Digests { header: false, data: false },
            kato_ms: 0,
        };
        let pool = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(64 << 20) };
        let pool = Rc::new(Pool::new(&pool).unwrap());
        let host = Host::new(config, &self.pipes, pool, Rng::new(number as u64 + 7));
        self.hosts.push(Visitor { host, asked: Vec::new(), answers: Vec::new() });
        self.until("the host is connected", |bench| bench.hosts[number].host.is_ready());
        number
    }

    fn until(&mut self, what: &str, done: impl Fn(&Bench) -> bool) {
        for _ in 0..400_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("never: {what}, at {:?}", self.now);
    }

    /// Submits a request, if a queue has room for it; its number.
    fn submit(&mut self, host: usize, nsid: u32, op: Op, lba: u64, blocks: u32) -> Option<u32> {
        let visitor = &mut self.hosts[host];
        let number = u32::try_from(visitor.asked.len()).unwrap();
        let (tag, lba, bytes) = (Tag(number), Lba(lba), blocks as usize * 4096);
        let request = match op {
            Op::Read => Request::read(tag, lba, blocks, visitor.host.pool().take(bytes)?),
            Op::Write => {
                let mut buf = visitor.host.pool().take(bytes)?;
                buf.bytes_mut()[..bytes].fill(7);
                Request::write(tag, lba, blocks, buf.freeze())
            }
            _ => Request::range(tag, op, lba, blocks),
        };
        visitor.host.submit(nsid, 4096, request).ok()?;
        visitor.asked.push(self.now);
        Some(number)
    }

    /// Runs a request to its end: how it was answered, and after what time.
    fn run(&mut self, host: usize, nsid: u32, op: Op, lba: u64, blocks: u32) -> (Status, Duration) {
        let number = self.submit(host, nsid, op, lba, blocks).expect("an idle queue has room");
        let mine = |bench: &Bench| {
            let mut answers = bench.hosts[host].answers.iter();
            answers.find(|answer| answer.0 == number).map(|answer| (answer.1, answer.2))
        };
        self.until("a request is answered", |bench| mine(bench).is_some());
        mine(self).unwrap()
    }

    fn status(&mut self, store: usize) -> StoreStatus {
        let asked = self.control.store_status(self.stores[store]).unwrap();
        self.finish(asked).unwrap()
    }
}

const SOON: Duration = Duration::from_millis(100);

#[test]
fn store_whose_device_hangs_is_quarantined_and_the_other_one_serves_on() {
    let mut bench = Bench::new(64 << 20);
    let (sick, well) = (bench.connect(2), bench.connect(2));
    for nsid in [1, 2] {
        assert_eq!(bench.run(sick, nsid, Op::Write, 3, 4).0, Status::Ok);
    }
    bench.disks[0].stall_for(Duration::from_secs(3600));
    for lba in 0..20 {
        bench.submit(sick, 1, Op::Write, lba * 4, 4).unwrap();
    }
    let hung = bench.now;
    // Until the verdict the other store answers as ever, and afterwards.
    while bench.now.saturating_since(hung) < Duration::from_secs(20) {
        for op in [Op::Write, Op::Read] {
            let (status, took) = bench.run(well, 2, op, 9, 2);
            assert_eq!(status, Status::Ok);
            assert!(took < SOON, "{took:?}");
        }
        let later = bench.now.saturating_add(Duration::from_millis(200));
        bench.until("some time", |bench| bench.now >= later);
    }
    let status = bench.status(0);
    assert_eq!(status.health.health, Health::Quarantined);
    assert!(status.failure.contains("quarantined for a request that did not"), "{status:?}");
    let other = bench.status(1);
    assert_eq!((other.health.health, other.failure.as_str()), (Health::Healthy, ""));
    // What the device does not hold was given back; what comes now is answered at once. A host
    // repeats it on another path, if it has one.
    let errors = bench.hosts[sick].answers.iter().filter(|answer| answer.1 == Status::Io);
    assert!(errors.count() > 0);
    for op in [Op::Read, Op::Write, Op::WriteZeroes] {
        let (status, took) = bench.run(sick, 1, op, 3, 1);
        assert_eq!(status, Status::Io, "{op:?}");
        assert!(took < SOON, "{took:?}");
    }
    // Nothing of it keeps the node from an orderly end.
    let drained = bench.control.drain().unwrap();
    bench.finish(drained).unwrap();
    let stopped = bench.control.shutdown().unwrap();
    bench.finish(stopped).unwrap();
}

#[test]
fn store_that_hangs_while_it_is_opened_is_an_error_and_no_trouble_for_others() {
    let mut bench = Bench::new(64 << 20);
    let host = bench.connect(1);
    let disk = SimDisk::new(4096, 24 * 256, FaultPlan::reliable(3));
    disk.stall_for(Duration::from_secs(3600));
    let spec = StoreSpec::Device { device: Arc::new(disk.clone()), format: None };
    let (_, mut opened) = bench.control.open_store(spec).unwrap();
    let since = bench.now;
    let error = loop {
        assert_eq!(bench.run(host, 2, Op::Write, 5, 1).0, Status::Ok);
        let later = bench.now.saturating_add(Duration::from_millis(100));
        bench.until("some time", |bench| bench.now >= later);
        disk.advance_to(bench.now);
        if let Some(answer) = opened.take() {
            break answer.unwrap_err();
        }
    };
    assert!(error.to_string().contains("the device is quarantined"), "{error}");
    let took = bench.now.saturating_since(since);
    assert!((14..=18).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn full_store_says_so_reads_go_on_and_writes_recover_by_themselves() {
    let mut bench = Bench::new(64 << 20);
    let host = bench.connect(1);
    let (mut states, mut written) = (vec![SpaceState::Ample], 0);
    let refused = loop {
        let (status, _) = bench.run(host, 1, Op::Write, written * 16, 16);
        let space = bench.status(0).space;
        if states.last() != Some(&space) {
            states.push(space);
        }
        if status != Status::Ok {
            break status;
        }
        written += 1;
    };
    // Capacity Exceeded on the wire: nothing else becomes this status.
    assert_eq!(refused, Status::NoSpace);
    assert!(states.contains(&SpaceState::Low), "it was said before: {states:?}");
    bench.turn();
    assert_eq!(bench.status(0).space, SpaceState::Full);
    for lba in [0, (written - 1) * 16] {
        assert_eq!(bench.run(host, 1, Op::Read, lba, 16).0, Status::Ok);
        assert_eq!(bench.run(host, 1, Op::Write, lba, 4).0, Status::Ok, "over its old place");
    }
    assert_eq!(bench.run(host, 2, Op::Write, 0, 16).0, Status::Ok, "the other store has space");
    let half = u32::try_from(written / 2 * 16).unwrap();
    assert_eq!(bench.run(host, 1, Op::Deallocate, 0, half).0, Status::Ok);
    let (status, _) = bench.run(host, 1, Op::Write, written * 16, 16);
    assert_eq!(status, Status::Ok, "it waits for what comes back rather than fail");
    for _ in 0..20_000 {
        bench.turn();
    }
    assert_eq!(bench.status(0).space, SpaceState::Ample);
}

/// Hosts of a store whose device hangs have asked for more than the shard has buffers. Those of
/// another store get theirs.
#[test]
fn hosts_of_a_hanging_store_leave_buffers_to_those_of_another() {
    let mut bench = Bench::new(24 << 20);
    let well = bench.connect(1);
    let greedy: Vec<_> = (0..4).map(|_| bench.connect(4)).collect();
    bench.disks[0].stall_for(Duration::from_secs(3600));
    for _ in 0..40 {
        for &host in &greedy {
            for lba in 0..8 {
                bench.submit(host, 1, Op::Write, lba * 64, 64);
            }
        }
        bench.turn();
    }
    let hung = bench.now;
    while bench.now.saturating_since(hung) < Duration::from_secs(10) {
        for (op, blocks) in [(Op::Write, 1), (Op::Read, 1), (Op::Write, 16), (Op::Read, 16)] {
            let (status, took) = bench.run(well, 2, op, 9, blocks);
            assert_eq!(status, Status::Ok);
            assert!(took < SOON, "{op:?} {took:?}");
        }
        let later = bench.now.saturating_add(Duration::from_millis(200));
        bench.until("some time", |bench| bench.now >= later);
    }
    let outstanding =
        |host: &usize| bench.hosts[*host].asked.len() - bench.hosts[*host].answers.len();
    assert!(greedy.iter().map(outstanding).sum::<usize>() > 100, "they wait all the time");
}
