//! Commands, their limits, and what happens at the end of a shard.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::rc::Rc;

use bdev::{Fifo, Instant, Pool, PoolConfig};
use net::{Event, Net, PipeConfig, PipeNet, Pipes};
use node::{
    MAILBOX_DEPTH, NodeConfig, NodeError, NodeHandle, RAM_VOLUMES_MAX, STORES_MAX, Shard, StoreId,
    StoreSpec, Ticket, VolumeSpec, VolumeStatus, node,
};
use reactor::{Machine, Progress};

struct Bench {
    control: NodeHandle,
    shards: Vec<Shard>,
    pipes: Pipes,
}

impl Bench {
    fn new(shards: usize) -> Bench {
        Bench::with(shards, 1)
    }

    fn with(shards: usize, connections_max: usize) -> Bench {
        let target = nvmf::Target::new(nvmf::Config::default()).unwrap();
        let config = NodeConfig { connections_max, ..NodeConfig::new(target, shards) };
        let (control, seeds) = node(config);
        let pipes = Pipes::new(PipeConfig::default());
        let shards = seeds.into_iter().map(|seed| {
            let pool = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(8 << 20) };
            let net = PipeNet::new(&pipes, "10.0.0.1".parse().unwrap(), connections_max + 3);
            seed.start(Rc::new(Pool::new(&pool).unwrap()), Box::new(net))
        });
        let shards = shards.collect();
        Bench { control, shards, pipes }
    }

    fn turn(&mut self) -> Vec<Progress> {
        self.shards.iter_mut().map(|shard| shard.turn(Instant::ZERO)).collect()
    }

    fn finish<T>(&mut self, mut ticket: Ticket<T>) -> Result<T, NodeError> {
        for _ in 0..100 {
            self.turn();
            if let Some(answer) = ticket.take() {
                return answer;
            }
        }
        panic!("the command was not answered");
    }

    fn ram_store(&mut self) -> StoreId {
        let (store, opened) = self.control.open_store(StoreSpec::Ram { bytes: 1 << 30 }).unwrap();
        self.finish(opened).unwrap();
        store
    }

    fn create(&mut self, store: StoreId, name: &str) -> Result<VolumeStatus, NodeError> {
        let (name, uuid, bytes, block_size) = (name.to_owned(), [1; 16], 1 << 20, 4096);
        let spec = VolumeSpec { name, uuid, bytes, block_size };
        let ticket = self.control.create_volume(store, spec).unwrap();
        self.finish(ticket)
    }
}

#[test]
fn full_mailbox_says_busy_and_loses_nothing() {
    let mut bench = Bench::new(1);
    let store = bench.ram_store();
    let tickets: Vec<_> =
        (0..MAILBOX_DEPTH).map(|_| bench.control.store_status(store).unwrap()).collect();
    assert_eq!(bench.control.store_status(store).unwrap_err(), NodeError::Busy);
    for ticket in tickets {
        assert!(bench.finish(ticket).is_ok());
    }
    assert!(bench.control.store_status(store).is_ok());
}

#[test]
fn volumes_in_memory_are_counted_and_named() {
    let mut bench = Bench::new(1);
    let store = bench.ram_store();
    for number in 0..RAM_VOLUMES_MAX {
        assert!(bench.create(store, &format!("v{number}")).is_ok());
    }
    assert_eq!(bench.create(store, "v0").unwrap_err(), NodeError::NameTaken);
    let over = bench.create(store, "one more").unwrap_err();
    assert!(matches!(over, NodeError::TooMany { max: RAM_VOLUMES_MAX, .. }));
    let status = bench.control.store_status(store).unwrap();
    let status = bench.finish(status).unwrap();
    assert_eq!(status.volumes.len(), RAM_VOLUMES_MAX);
    assert_eq!(status.used_bytes, (RAM_VOLUMES_MAX as u64) << 20);
}

#[test]
fn stores_are_counted_and_their_numbers_used_again() {
    let mut bench = Bench::new(2);
    let stores: Vec<_> = (0..STORES_MAX).map(|_| bench.ram_store()).collect();
    let spec = StoreSpec::Ram { bytes: 1 };
    assert!(matches!(bench.control.open_store(spec).unwrap_err(), NodeError::TooMany { .. }));
    let closed = bench.control.close_store(stores[5]).unwrap();
    bench.finish(closed).unwrap();
    assert_eq!(bench.control.store_status(stores[5]).unwrap_err(), NodeError::NoSuchStore);
    assert_eq!(bench.ram_store(), stores[5]);
}

#[test]
fn attached_volume_can_be_neither_deleted_nor_its_store_closed() {
    let mut bench = Bench::new(3);
    let store = bench.ram_store();
    let volume = bench.create(store, "a").unwrap();
    let (handle, attached) = bench.control.attach(store, &volume).unwrap();
    bench.finish(attached).unwrap();
    let refused = bench.control.delete_volume(store, volume.id).unwrap_err();
    assert_eq!(refused, NodeError::InUse);
    assert_eq!(bench.control.close_store(store).unwrap_err(), NodeError::InUse);
    assert_eq!(bench.control.namespace_counters(handle).len(), 3);
    let detached = bench.control.detach(handle).unwrap();
    bench.finish(detached).unwrap();
    assert_eq!(bench.control.detach(handle).unwrap_err(), NodeError::NoSuchNamespace);
    let deleted = bench.control.delete_volume(store, volume.id).unwrap();
    bench.finish(deleted).unwrap();
    let closed = bench.control.close_store(store).unwrap();
    bench.finish(closed).unwrap();
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let mut bench = Bench::new(1);
    let address = "10.0.0.1:4420".parse().unwrap();
    let listening = bench.control.listen(address).unwrap();
    assert_eq!(bench.finish(listening), Ok(address));
    let mut host = PipeNet::new(&bench.pipes, "10.0.0.2".parse().unwrap(), 4);
    let first = host.connect(address).unwrap();
    let second = host.connect(address).unwrap();
    let (mut events, mut closed) = (Fifo::new(8), Vec::new());
    for _ in 0..100 {
        bench.turn();
        bench.pipes.advance();
        host.kick();
        host.poll(&mut events);
        while let Some(event) = events.pop() {
            if let Event::Closed { conn, .. } = event {
                closed.push(conn);
            }
        }
        if !closed.is_empty() {
            break;
        }
    }
    let turned_away = bench.control.shard_counters().next().unwrap().turned_away.read();
    assert_eq!(turned_away, 1, "of {first} and {second}");
    assert_eq!(bench.shards[0].connections(), 1);
}

#[test]
fn silent_connections_give_way_to_those_that_come_later() {
    let mut bench = Bench::with(1, 16);
    let address = "10.0.0.1:4420".parse().unwrap();
    let listening = bench.control.listen(address).unwrap();
    assert_eq!(bench.finish(listening), Ok(address));
    let mut host = PipeNet::new(&bench.pipes, "10.0.0.2".parse().unwrap(), 100);
    let mut events = Fifo::new(8);
    for _ in 0..80 {
        host.connect(address).unwrap();
        for _ in 0..10 {
            bench.turn();
            bench.pipes.advance();
            host.kick();
            host.poll(&mut events);
            while events.pop().is_some() {}
        }
    }
    let open = bench.shards[0].connections();
    let counters = bench.control.shard_counters().next().unwrap();
    assert_eq!((counters.accepted.read(), counters.turned_away.read()), (80, 80 - open as u64));
    assert!((14..=15).contains(&open), "{open}: there is room for one more");
}

#[test]
fn shards_end_after_shutdown_and_answer_no_more() {
    let mut bench = Bench::new(2);
    let store = bench.ram_store();
    let drained = bench.control.drain().unwrap();
    bench.finish(drained).unwrap();
    let refused = bench.control.listen("10.0.0.1:4420".parse().unwrap()).unwrap();
    assert_eq!(bench.finish(refused).unwrap_err(), NodeError::Stopped);
    let stopped = bench.control.shutdown().unwrap();
    bench.finish(stopped).unwrap();
    assert_eq!(bench.turn(), [Progress::Done, Progress::Done]);
    let waiting = bench.control.store_status(store).unwrap();
    bench.shards.clear();
    assert_eq!(waiting.wait().unwrap_err(), NodeError::Stopped);
    assert_eq!(bench.control.store_status(store).unwrap_err(), NodeError::Stopped);
}
