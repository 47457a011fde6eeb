use std::cell::RefCell;
use std::rc::Rc;

use bdev::conformance::{DEPTH, Fixture};
use bdev::{
    Data, Fifo, Info, Instant, Lba, Op, OpSet, Pool, PoolConfig, Queue, Request, Status, Tag,
};
use net::{PipeConfig, PipeNet, Pipes};
use nvmf::NamespaceHandle;
use reactor::Machine;

use super::*;
use crate::{NodeConfig, Shard, StoreSpec, Ticket, VolumeSpec, node};

struct Pair {
    shards: Rc<RefCell<Vec<Shard>>>,
    handle: NamespaceHandle,
}

/// Two shards in one thread; the first owns a volume of 16 MiB.
fn pair(block_size: u32) -> Pair {
    let target = nvmf::Target::new(nvmf::Config::default()).unwrap();
    let (control, seeds) = node(NodeConfig { connections_max: 1, ..NodeConfig::new(target, 2) });
    let pipes = Pipes::new(PipeConfig::default());
    let shards = seeds.into_iter().map(|seed| {
        let pool = Rc::new(Pool::new(&PoolConfig::for_bytes(32 << 20)).unwrap());
        let net = PipeNet::new(&pipes, "10.0.0.1".parse().unwrap(), 1);
        seed.start(pool, Box::new(net))
    });
    let shards = Rc::new(RefCell::new(shards.collect()));
    let (store, opened) = control.open_store(StoreSpec::Ram { bytes: 16 << 20 }).unwrap();
    finish(&shards, opened);
    let spec = VolumeSpec { name: "a".into(), uuid: [1; 16], bytes: 16 << 20, block_size };
    let volume = finish(&shards, control.create_volume(store, spec).unwrap());
    let (handle, attached) = control.attach(store, &volume).unwrap();
    finish(&shards, attached);
    Pair { shards, handle }
}

/// A shard with sockets of its own on a network of its own.
fn lone(seed: crate::ShardSeed) -> Shard {
    let pipes = Pipes::new(PipeConfig::default());
    let pool = Rc::new(Pool::new(&PoolConfig::for_bytes(16 << 20)).unwrap());
    let net = PipeNet::new(&pipes, "10.0.0.1".parse().unwrap(), 1);
    seed.start(pool, Box::new(net))
}

fn turn(shards: &RefCell<Vec<Shard>>) {
    for shard in shards.borrow_mut().iter_mut() {
        shard.turn(Instant::ZERO);
    }
}

fn finish<T>(shards: &RefCell<Vec<Shard>>, mut ticket: Ticket<T>) -> T {
    for _ in 0..100 {
        turn(shards);
        if let Some(answer) = ticket.take() {
            return answer.unwrap();
        }
    }
    panic!("the command was not answered");
}

impl Pair {
    fn remote(&self) -> RemoteQueue {
        let shards = self.shards.borrow();
        shards[1].link_clients[0].as_ref().unwrap().open(self.handle, DEPTH).unwrap()
    }

    fn fixture(self, block_size: u32) -> Fixture {
        let mut info = Info::new(block_size, (16 << 20) / u64::from(block_size));
        info.ops = OpSet::of(&Op::ALL);
        let queue = self.remote();
        let pool = Pool::new(&PoolConfig::for_bytes(32 << 20)).unwrap();
        Fixture::from_queue(pool, info, Box::new(queue)).pump(move || turn(&self.shards))
    }
}

bdev::conformance_suite!(remote_512, pair(512).fixture(512));
bdev::conformance_suite!(remote_4096, pair(4096).fixture(4096));

#[test]
fn shared_buffer_is_copied_and_the_original_comes_back() {
    let pair = pair(4096);
    let mut queue = pair.remote();
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let mut block = pool.take(4096).unwrap();
    block.bytes_mut().fill(7);
    let block = block.freeze();
    let also = block.clone();
    let mut requests = Fifo::new(1);
    requests.push(Request::write(Tag(3), Lba(1), 1, block)).unwrap();
    queue.submit(&mut requests);
    queue.kick();
    let mut done = Fifo::new(1);
    while done.is_empty() {
        turn(&pair.shards);
        queue.poll(&mut done);
    }
    let Data::From(back) = done.pop().unwrap().data else {
        panic!("a write gives its buffer back")
    };
    assert_eq!(back.as_ptr(), also.as_ptr());
    drop((back, also));
    assert_eq!(pool.stats().taken(), 0);
}

#[test]
fn volume_that_is_detached_answers_gone_with_the_buffer() {
    let pair = pair(4096);
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let unknown = NamespaceHandle(pair.handle.0 + 1);
    let mut queue = {
        let shards = pair.shards.borrow();
        shards[1].link_clients[0].as_ref().unwrap().open(unknown, 4).unwrap()
    };
    let mut requests = Fifo::new(1);
    requests.push(Request::read(Tag(3), Lba(1), 1, pool.take(4096).unwrap())).unwrap();
    queue.submit(&mut requests);
    queue.kick();
    let mut done = Fifo::new(1);
    while done.is_empty() {
        turn(&pair.shards);
        queue.poll(&mut done);
    }
    let completion = done.pop().unwrap();
    assert_eq!(completion.status, Status::Gone);
    assert!(matches!(completion.data, Data::Into(_)));
}

#[test]
fn many_queues_share_one_link_without_losing_a_request() {
    let pair = pair(4096);
    let mut queues: Vec<_> = (0..40).map(|_| pair.remote()).collect();
    let mut requests = Fifo::new(DEPTH as usize);
    for queue in &mut queues {
        while requests.push(Request::flush(Tag(1))).is_ok() {}
        queue.submit(&mut requests);
        assert!(requests.is_empty());
        queue.kick();
    }
    assert!(queues.len() * DEPTH as usize > LINK_DEPTH, "more than the link holds");
    let mut left = queues.len() * DEPTH as usize;
    let mut done = Fifo::new(DEPTH as usize);
    for _ in 0..1000 {
        turn(&pair.shards);
        for queue in &mut queues {
            queue.poll(&mut done);
            left -= done.len();
            done.clear();
        }
        if left == 0 {
            assert!(queues.iter().all(|queue| queue.in_flight() == 0));
            return;
        }
    }
    panic!("{left} requests never completed");
}

#[test]
fn buffers_cross_threads_and_come_home() {
    let target = nvmf::Target::new(nvmf::Config::default()).unwrap();
    let (control, mut seeds) =
        node(NodeConfig { connections_max: 1, ..NodeConfig::new(target, 2) });
    let (client, owner) = (seeds.pop().unwrap(), seeds.pop().unwrap());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut owner = lone(owner);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                owner.turn(Instant::ZERO);
                std::thread::yield_now();
            }
        });
        let (store, opened) = control.open_store(StoreSpec::Ram { bytes: 16 << 20 }).unwrap();
        opened.wait().unwrap();
        let (name, uuid, bytes, block_size) = ("a".into(), [1; 16], 16 << 20, 4096);
        let spec = VolumeSpec { name, uuid, bytes, block_size };
        let volume = control.create_volume(store, spec).unwrap().wait().unwrap();
        let (handle, mut attached) = control.attach(store, &volume).unwrap();
        let mut client = lone(client);
        while attached.take().is_none() {
            client.turn(Instant::ZERO);
        }
        let mut queue = client.link_clients[0].as_ref().unwrap().open(handle, 8).unwrap();
        for round in 0..200u8 {
            let blocks = u64::from(round)..u64::from(round) + 8;
            let write = |(tag, lba): (u32, u64)| {
                let mut block = client.pool().take(4096).unwrap();
                block.bytes_mut().fill(round);
                Request::write(Tag(tag), Lba(lba), 1, block.freeze())
            };
            exchange(&mut queue, (0..).zip(blocks.clone()).map(write), |_| ());
            let read = |(tag, lba): (u32, u64)| {
                Request::read(Tag(tag), Lba(lba), 1, client.pool().take(4096).unwrap())
            };
            exchange(&mut queue, (0..).zip(blocks).map(read), |data| {
                let Data::Into(buf) = data else { panic!("a read gives its buffer back") };
                assert!(buf.bytes().iter().all(|&byte| byte == round));
            });
        }
        assert_eq!(client.pool().stats().taken(), 0);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Runs eight requests and looks at the buffers that come back.
fn exchange(
    queue: &mut RemoteQueue,
    requests: impl Iterator<Item = Request>,
    mut check: impl FnMut(&Data),
) {
    let (mut fifo, mut done) = (Fifo::new(8), Fifo::new(8));
    for request in requests {
        fifo.push(request).unwrap();
    }
    while !done.is_full() {
        queue.submit(&mut fifo);
        queue.kick();
        queue.poll(&mut done);
        std::thread::yield_now();
    }
    while let Some(completion) = done.pop() {
        assert_eq!(completion.status, Status::Ok);
        check(&completion.data);
    }
}
