//! The initiator against a real shard, over pipes in memory and over TCP.

use std::rc::Rc;
use std::time::Duration;

use bdev::{Pool, PoolConfig};
use bench::network::{Site, connect};
use bench::pipe::{self, World, WorldPlan};
use bench::target::{LocalTarget, TargetPlan};
use load::{
    Client, ConnectError, Destination, Job, JobPlan, RunError, Rw, Timeline, Workload, run,
};
use net::{PipeConfig, PipeNet};
use node::StoreSpec;
use nvmf::Nqn;
use reactor::{Idle, Machine, Progress};

const BYTES: u64 = 1 << 20;

fn world(config: PipeConfig, block_size: u32) -> World {
    let plan = WorldPlan { store: StoreSpec::Ram { bytes: BYTES }, bytes: BYTES, block_size };
    World::new(config, plan).expect("a target in memory")
}

fn world_client(world: &World, pool: &Rc<Pool>, queues: u16, digests: bool) -> Client {
    world.connect(pool, queues, digests).expect("the target answers")
}

fn pool() -> Rc<Pool> {
    Rc::new(Pool::new(&PoolConfig::for_bytes(16 << 20)).expect("memory"))
}

fn plan(block_size: u32, blocks: u32, number: u64) -> JobPlan {
    let len = BYTES / u64::from(block_size) / 4;
    let workload = Workload { rw: Rw::RandRw, blocks, read_percent: 50, first: number * len, len };
    JobPlan { workload, depth: 16, block_size, seed: 11 + number, verify: true }
}

fn timeline(ios_max: u64) -> Timeline {
    let measured = Duration::from_secs(1_000_000);
    Timeline {
        warm: Duration::ZERO,
        measured,
        counted: Duration::ZERO,
        tick: Duration::ZERO,
        ios_max,
    }
}

#[test]
fn verified_mix_over_nasty_pipes_finds_nothing_wrong() {
    for (block_size, blocks, digests) in [(4096, 1, false), (512, 3, true), (4096, 8, true)] {
        let world = world(PipeConfig::nasty(7), block_size);
        let pool = pool();
        let client = world_client(&world, &pool, 2, digests);
        assert_eq!(client.namespace().block_size, block_size);
        let job = |number: u16| {
            let queue = world.watch(client.queue(number));
            Job::new(queue, &pool, &plan(block_size, blocks, u64::from(number))).expect("buffers")
        };
        let mut jobs = [job(0), job(1)];
        let mut clock = || world.turn();
        let outcome = run(&mut jobs, &timeline(600), &mut clock, &mut ()).unwrap();
        assert!(outcome.total_ios >= 600);
        assert!(outcome.verified_blocks > 100, "{} blocks", outcome.verified_blocks);
    }
}

#[test]
fn silent_connections_wake_the_shard_only_for_its_sweeps() {
    let world = world(PipeConfig::default(), 4096);
    let pool = pool();
    let _client = world_client(&world, &pool, 3, false);
    let mut now = world.turn();
    for _ in 0..1000 {
        now = world.turn();
    }
    let end = now.saturating_add(Duration::from_secs(1));
    let mut shard = world.shard().borrow_mut();
    let mut turns = 0;
    while now < end {
        turns += 1;
        let worked = shard.turn(now) == Progress::Worked;
        let soon = now.saturating_add(Duration::from_micros(1));
        let due = shard.next_timeout().expect("connections are swept now and then");
        now = if worked { soon } else { due.max(soon) };
    }
    // Twenty sweeps, and what each stirs up.
    assert!(turns < 100, "{turns} turns in a second");
}

#[test]
fn lost_target_fails_the_run_instead_of_hanging_it() {
    let world = world(PipeConfig::default(), 4096);
    let pool = pool();
    let client = world_client(&world, &pool, 1, false);
    let queue = world.watch(client.queue(0));
    let mut jobs = [Job::new(queue, &pool, &plan(4096, 1, 0)).unwrap()];
    let mut turns = 0;
    let mut clock = || {
        turns += 1;
        if turns == 50 {
            world.pipes().reset_host("10.0.0.1".parse().unwrap());
        }
        world.turn()
    };
    let error = run(&mut jobs, &timeline(1_000_000), &mut clock, &mut ()).unwrap_err();
    let RunError::Failed { last, .. } = error else { panic!("{error}") };
    assert_eq!(last, bdev::Status::Gone);
}

#[test]
fn unknown_subsystem_and_silent_address_are_told_apart() {
    let world = world(PipeConfig::default(), 4096);
    let attempt = |address, subsystem| {
        let net = PipeNet::new(world.pipes(), "10.0.0.2".parse().unwrap(), 8);
        let destination = Destination::new(address, subsystem);
        let mut idle = || world.turn();
        Client::connect(Box::new(net), pool(), &destination, &mut idle).err().expect("refused")
    };
    let other = Nqn::new("nqn.2026-11.io.example:other").unwrap();
    let unknown = attempt(pipe::address(), other);
    assert!(matches!(unknown, ConnectError::Failed { qid: 0, .. }), "{unknown}");
    let silent = attempt("10.0.0.9:4420".parse().unwrap(), other);
    let ConnectError::Closed { qid: 0, reason } = silent else { panic!("{silent}") };
    assert_eq!(reason, net::CloseReason::Refused);
}

#[test]
fn verified_mix_over_tcp_finds_nothing_wrong() {
    let store = StoreSpec::Ram { bytes: BYTES };
    let idle = Idle::Adaptive;
    let plan_of_target = TargetPlan { store, bytes: BYTES, block_size: 4096, cpu: None, idle };
    let target = LocalTarget::start(plan_of_target).unwrap();
    let site = Site::local("ram", &target);
    let pool = pool();
    let client = connect(&site, &pool, 2, true).unwrap();
    let job = |number| {
        let plan = plan(4096, 1, u64::from(number));
        Job::new(client.queue(number), &pool, &plan).unwrap()
    };
    let mut jobs = [job(0), job(1)];
    let clock = load::Clock::start();
    let outcome = run(&mut jobs, &timeline(2000), &mut || clock.now(), &mut ()).unwrap();
    assert!(outcome.verified_blocks > 100, "{} blocks", outcome.verified_blocks);
    let status = target.store_status().unwrap();
    assert_eq!(status.volumes.len(), 1);
    drop(jobs);
    drop(client);
    target.shutdown().unwrap();
}

#[test]
fn counted_run_does_the_same_work_each_time() {
    let options = ["bench", "--size", "1m", "--seed", "3"];
    let options = <bench::Options as clap::Parser>::parse_from(options);
    let shape = bench::Shape { rw: Rw::RandRw, bytes: 4096, depth: 8, jobs: 1, digests: true };
    let store = || StoreSpec::Ram { bytes: BYTES };
    let done = pipe::counted_run(&options, store(), shape, 200).unwrap();
    assert!((200..200 + 8 + 8).contains(&done), "{done} operations");
    assert_eq!(pipe::counted_run(&options, store(), shape, 200).unwrap(), done);
}
