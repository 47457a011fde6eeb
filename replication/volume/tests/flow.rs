//! Who waits, for how long, and what others notice of it.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use std::time::Duration;

use bdev::{Fifo, Instant, Lba, Op, Queue, Request, Rng, Status, Tag};
use bdev_sim::{FaultPlan, SimDisk};
use support::{Rig, options};
use volume::{Event, Options, Pressure, Qos, SpaceState, VolumeQueue};

const MIB: u64 = 1 << 20;

/// Extents that one leaf of the map speaks of.
const EXTENTS_IN_LEAF: u64 = 48;

fn rig(mib: u64, options: &Options) -> Rig {
    Rig::create(SimDisk::new(4096, mib * 256, FaultPlan::reliable(3)), MIB, options)
}

/// A host that keeps `depth` writes of `blocks` blocks in flight, at random places.
struct Host {
    queue: VolumeQueue,
    requests: Fifo<Request>,
    completions: Fifo<bdev::Completion>,
    rng: Rng,
    depth: u32,
    blocks: u32,
    /// When the request with this tag was submitted.
    since: Vec<Instant>,
    /// When each was done, and how long it took.
    done: Vec<(Instant, Duration)>,
    statuses: Vec<Status>,
}

impl Host {
    fn new(queue: VolumeQueue, depth: u32, blocks: u32) -> Host {
        let (requests, completions) = (Fifo::new(1), Fifo::new(64));
        let rng = Rng::new(u64::from(depth));
        let (since, done, statuses) = (Vec::new(), Vec::new(), Vec::new());
        Host { queue, requests, completions, rng, depth, blocks, since, done, statuses }
    }

    fn submit(&mut self, rig: &Rig) {
        self.queue.submit(&mut self.requests);
        while self.requests.is_empty() && self.queue.in_flight() < self.depth {
            let Some(buf) = rig.pool.take(self.blocks as usize * 4096) else { break };
            let lba = Lba(self.rng.below(1024) * u64::from(self.blocks));
            let tag = Tag(u32::try_from(self.since.len()).unwrap());
            self.since.push(rig.disk.now());
            self.requests.push(Request::write(tag, lba, self.blocks, buf.freeze())).unwrap();
            self.queue.submit(&mut self.requests);
        }
    }

    fn poll(&mut self, now: Instant) {
        self.queue.poll(&mut self.completions);
        while let Some(completion) = self.completions.pop() {
            let since = self.since[completion.tag.0 as usize];
            self.done.push((now, now.saturating_since(since)));
            self.statuses.push(completion.status);
        }
    }
}

/// Runs hosts for a while of the simulated clock.
fn run(rig: &mut Rig, hosts: &mut [Host], time: Duration) {
    let end = rig.disk.now().saturating_add(time);
    while rig.disk.now() < end {
        hosts.iter_mut().for_each(|host| host.submit(rig));
        rig.turn();
        let now = rig.disk.now();
        hosts.iter_mut().for_each(|host| host.poll(now));
    }
}

/// More writes than the log's groups take, and a disk that does not answer.
fn stuck(options: &Options) -> (Rig, Host) {
    let mut rig = rig(24, options);
    let id = rig.create_volume("v", 16 * MIB, 4096);
    rig.disk.stall_for(Duration::from_secs(3600));
    let mut host = Host::new(rig.queue(id, 64), 64, 4);
    host.submit(&rig);
    (rig, host)
}

#[test]
fn write_that_waited_for_its_deadline_is_given_back_with_a_status_to_try_again() {
    let deadline_ns = 50_000_000;
    let options = Options { admission_deadline_ns: deadline_ns, ..options() };
    let (rig, mut host) = stuck(&options);
    let start = rig.disk.now().as_ns();
    for ms in [0, 20, 40, 45, 55] {
        assert_eq!(host.done.len(), 0, "before {ms} ms");
        rig.engine.borrow_mut().drive(Instant::from_ns(start + ms * 1_000_000));
        host.poll(rig.disk.now());
    }
    // What is in the log's groups waits for the disk; everything else came back.
    let stats = rig.engine.borrow().stats();
    assert!(host.statuses.len() > 32, "{stats:?}");
    assert_eq!(stats.writes_timed_out, host.statuses.len() as u64);
    let again = |status: &Status| matches!(status, Status::TimedOut | Status::Retry);
    assert!(host.statuses.iter().all(again), "{:?}", host.statuses);
    assert!(host.statuses.contains(&Status::TimedOut), "most had no effect at all");
    assert_eq!(rig.engine.borrow().log_status().waiting, 0);
}

#[test]
fn parked_writes_of_a_closed_queue_are_released_within_a_turn() {
    let (rig, host) = stuck(&options());
    rig.engine.borrow_mut().drive(rig.disk.now());
    let waiting = rig.engine.borrow().log_status().waiting;
    assert!(waiting > 32, "{waiting}");
    drop(host);
    rig.engine.borrow_mut().drive(rig.disk.now());
    assert_eq!(rig.engine.borrow().log_status().waiting, 0);
    assert_eq!(rig.engine.borrow().stats().writes_released, waiting);
}

#[test]
fn shutdown_does_not_wait_for_writes_that_wait() {
    let (rig, mut host) = stuck(&options());
    rig.engine.borrow_mut().drive(rig.disk.now());
    rig.engine.borrow_mut().shutdown();
    rig.engine.borrow_mut().drive(rig.disk.now());
    host.poll(rig.disk.now());
    assert!(host.statuses.len() > 32);
    assert!(host.statuses.iter().all(|&status| status == Status::Aborted));
}

#[test]
fn write_that_waits_for_its_last_edge_is_in_the_line_once() {
    // The blocks at the edges of the write have their places in two pages of the map.
    let between = EXTENTS_IN_LEAF * store::EXTENT_BYTES;
    let mut rig = rig(24, &options());
    let id = rig.create_volume("v", 16 * MIB, 512);
    let mut queue = rig.queue(id, 8);
    assert!(rig.write(&mut queue, between / 512 - 8, &[1; 8192]).is_ok());
    drop(queue);
    rig.close();
    for (seed, turns) in (0..12).flat_map(|seed| (1..16).map(move |turns| (seed, turns))) {
        let plan = FaultPlan::reliable(seed);
        let mut rig = Rig::open(rig.disk.image(), plan, &options()).unwrap();
        let mut queue = rig.queue(id, 8);
        assert_eq!(rig.read(&mut queue, between / 512 - 8, 1), Ok(vec![1; 512]));
        let write = Request::write(Tag(1), Lba(between / 512 - 1), 2, rig.buffer(&[2; 1024]));
        let mut requests = Fifo::new(1);
        requests.push(write).unwrap();
        queue.submit(&mut requests);
        for _ in 0..turns {
            rig.turn();
        }
        drop(queue);
        rig.close();
    }
}

#[test]
fn status_says_what_the_log_asks_of_writers_and_how_long_they_wait() {
    let mut rig = rig(64, &options());
    let id = rig.create_volume("v", 48 * MIB, 4096);
    let before = rig.engine.borrow().log_status();
    assert_eq!((before.pressure, before.waiting, before.delay_ns), (Pressure::None, 0, 0));
    let mut hosts = [Host::new(rig.queue(id, 32), 32, 1)];
    let mut seen = [0; 3];
    for _ in 0..400 {
        run(&mut rig, &mut hosts, Duration::from_micros(100));
        let status = rig.engine.borrow().log_status();
        seen[status.pressure as usize] += 1;
        assert!(status.tail_lsn <= status.durable_lsn && status.durable_lsn <= status.head_lsn);
        assert!(status.not_moved_bytes <= status.used_bytes && status.used_bytes <= status.bytes);
        assert_eq!(status.waiting > 0, status.longest_wait_ns > 0 || status.waiting > 0);
    }
    let engine = rig.engine.borrow();
    let stats = engine.stats();
    assert!(seen[Pressure::Soft as usize] > 100, "{seen:?} {stats:?}");
    assert!(stats.writes_delayed > 0, "{stats:?}");
    assert_eq!(engine.admission_waits().unwrap().count(), stats.writes_admitted);
    assert!(hosts[0].statuses.iter().all(|status| status.is_ok()));
}

/// The highest and the median p99 of the pieces of a run, each of 2 ms.
fn p99s(done: &[(Instant, Duration)], from: Instant) -> (Duration, Duration) {
    let mut pieces: Vec<Vec<Duration>> = Vec::new();
    for &(at, took) in done.iter().filter(|done| done.0 >= from) {
        let piece = usize::try_from(at.saturating_since(from).as_millis() / 2).unwrap();
        pieces.resize_with(pieces.len().max(piece + 1), Vec::new);
        pieces[piece].push(took);
    }
    let p99 = |piece: &mut Vec<Duration>| {
        piece.sort_unstable();
        piece[piece.len() * 99 / 100]
    };
    let full = pieces.iter_mut().filter(|piece| piece.len() >= 20);
    let mut p99s: Vec<_> = full.map(p99).collect();
    p99s.sort_unstable();
    println!("p99 of each 2 ms, sorted: {p99s:?}");
    (p99s[p99s.len() - 1], p99s[p99s.len() / 2])
}

#[test]
fn latency_under_overload_does_not_saw_tooth() {
    let disk = SimDisk::new(4096, 64 * 256, FaultPlan::reliable(3));
    let options = Options { frames: 1024, ..options() };
    let mut rig = Rig::create(disk, 4 * MIB, &options);
    let id = rig.create_volume("v", 4 * MIB, 4096);
    let mut hosts = [Host::new(rig.queue(id, 32), 32, 1)];
    run(&mut rig, &mut hosts, Duration::from_millis(30));
    let from = rig.disk.now();
    run(&mut rig, &mut hosts, Duration::from_millis(60));
    let (highest, median) = p99s(&hosts[0].done, from);
    println!("{} writes; {:?}", hosts[0].done.len(), rig.engine.borrow().stats());
    assert!(highest <= median * 4, "{highest:?} against {median:?}");
}

#[test]
fn limited_volume_gets_its_rate_and_its_neighbour_does_not_notice() {
    let mut rig = rig(64, &options());
    let ids = ["a", "b"].map(|name| rig.create_volume(name, 16 * MIB, 4096));
    let qos = Qos { iops: 500, iops_burst: 1, ..Qos::default() };
    assert_eq!(rig.engine.borrow_mut().set_qos(ids[0], qos), Ok(()));
    assert!(rig.engine.borrow_mut().set_qos(volume::VolumeId(99), qos).is_err());
    let mut hosts = ids.map(|id| Host::new(rig.queue(id, 4), 4, 1));
    run(&mut rig, &mut hosts, Duration::from_millis(100));
    let counts = [hosts[0].done.len(), hosts[1].done.len()];
    assert!((48..=60).contains(&counts[0]), "{counts:?}");
    assert!(counts[1] > 500, "{counts:?}");
    assert!(rig.engine.borrow().qos(ids[0]).throttled > 30);
    // Without limits from here on.
    assert_eq!(rig.engine.borrow_mut().set_qos(ids[0], Qos::default()), Ok(()));
    run(&mut rig, &mut hosts, Duration::from_millis(20));
    assert!(hosts[0].done.len() > counts[0] * 3);
}

#[test]
fn limits_go_with_their_volume() {
    let mut rig = rig(24, &options());
    let id = rig.create_volume("v", MIB, 4096);
    let qos = Qos { bytes_per_second: MIB, ..Qos::default() };
    assert_eq!(rig.engine.borrow_mut().set_qos(id, qos), Ok(()));
    assert_eq!(rig.engine.borrow().qos(id).qos, qos);
    let token = rig.engine.borrow_mut().delete_volume(id).unwrap();
    assert_eq!(rig.control_result(token), Ok(id));
    assert_eq!(rig.engine.borrow().qos(id).qos, Qos::default());
}

#[test]
fn engine_says_when_a_limited_volume_may_go_on() {
    let options = Options { scrub_bytes_per_second: 0, ..options() };
    let mut rig = rig(24, &options);
    let id = rig.create_volume("v", 16 * MIB, 4096);
    rig.until("idle", |rig| rig.engine.borrow().next_timeout().is_none());
    let qos = Qos { iops: 10, iops_burst: 1, ..Qos::default() };
    assert_eq!(rig.engine.borrow_mut().set_qos(id, qos), Ok(()));
    let (mut queue, mut requests) = (rig.queue(id, 4), Fifo::new(2));
    for tag in 0..2 {
        requests.push(Request::range(Tag(tag), Op::Deallocate, Lba(0), 1)).unwrap();
    }
    queue.submit(&mut requests);
    assert_eq!(requests.len(), 1, "one of them waits with its owner");
    let wake_at = rig.engine.borrow().next_timeout().unwrap();
    assert!(wake_at.saturating_since(rig.disk.now()) <= Duration::from_millis(101));
    rig.engine.borrow_mut().drive(wake_at.saturating_add(Duration::from_millis(100)));
    queue.submit(&mut requests);
    assert!(requests.is_empty());
}

#[test]
fn deep_queues_of_one_volume_do_not_starve_another() {
    let mut rig = rig(64, &options());
    let ids = ["deep", "light"].map(|name| rig.create_volume(name, 24 * MIB, 4096));
    let mut hosts: Vec<_> = (0..3).map(|_| Host::new(rig.queue(ids[0], 64), 64, 1)).collect();
    hosts.push(Host::new(rig.queue(ids[1], 1), 1, 1));
    run(&mut rig, &mut hosts, Duration::from_millis(20));
    let mean = |host: &Host| {
        let sum: Duration = host.done.iter().map(|done| done.1).sum();
        sum / u32::try_from(host.done.len()).unwrap().max(1)
    };
    let (deep, light) = (mean(&hosts[0]), mean(&hosts[3]));
    println!("deep {deep:?}, light {light:?}; {:?}", rig.engine.borrow().stats());
    assert!(rig.engine.borrow().stats().writes_delayed > 1000, "the log was under pressure");
    assert!(light * 3 < deep, "{light:?} against {deep:?}");
}

#[test]
fn operators_hear_of_space_before_it_is_gone_and_when_it_is_back() {
    let mut rig = rig(20, &options());
    let id = rig.create_volume("v", 64 * MIB, 4096);
    let mut queue = rig.queue(id, 4);
    let extent = vec![7; 65536];
    let mut written = 0;
    while rig.write(&mut queue, written * 16, &extent) == Status::Ok {
        written += 1;
    }
    rig.turn();
    let states = |rig: &Rig| -> Vec<SpaceState> {
        let state = |event: &Event| match event {
            Event::Space { state, .. } => Some(*state),
            _ => None,
        };
        rig.events.iter().filter_map(state).collect()
    };
    // In a store this small what is kept for pages is more than the distance on the way back, so
    // it may be low, ample and low again.
    assert_eq!(states(&rig).first(), Some(&SpaceState::Low));
    assert!(states(&rig).ends_with(&[SpaceState::Low, SpaceState::Full]), "{:?}", states(&rig));
    assert_eq!(rig.read(&mut queue, 16, 16), Ok(extent.clone()), "reads go on");
    // What was kept for pages that were not needed serves another write or two.
    let more = (0..8).take_while(|_| {
        let fits = rig.write(&mut queue, written * 16, &extent) == Status::Ok;
        written += u64::from(fits);
        fits
    });
    assert!(more.count() < 8, "the store is full");
    let all = u32::try_from(written * 16).unwrap();
    let free = Request::range(Tag(1), Op::Deallocate, Lba(0), all);
    assert_eq!(rig.run(&mut queue, free).status, Status::Ok);
    rig.until("space is back", |rig| rig.engine.borrow().space_state() == SpaceState::Ample);
    assert_eq!(rig.write(&mut queue, written * 16, &extent), Status::Ok);
    assert_eq!(states(&rig).last(), Some(&SpaceState::Ample));
    rig.engine.borrow_mut().set_space_low_percent(0);
    rig.turn();
    assert_eq!(rig.engine.borrow().space_state(), SpaceState::Low);
}

#[test]
fn limit_that_is_set_before_the_first_turn_gives_one_burst() {
    let plan = FaultPlan::reliable(3);
    let mut rig = rig(24, &options());
    let id = rig.create_volume("v", MIB, 4096);
    let image = rig.disk.image();
    let mut rig = Rig::begin_open(image, plan, &options());
    rig.disk.advance_to(Instant::from_ns(1_000_000_000));
    rig.until_open().unwrap();
    let qos = Qos { iops: 100, iops_burst: 4, ..Qos::default() };
    rig.engine.borrow_mut().set_qos(id, qos).unwrap();
    let mut queue = rig.queue(id, 16);
    let mut requests = Fifo::new(16);
    for tag in 0..16 {
        let buf = rig.pool.take(4096).unwrap();
        requests.push(Request::read(Tag(tag), Lba(0), 1, buf)).unwrap();
    }
    queue.submit(&mut requests);
    assert_eq!(requests.len(), 12);
    rig.turn();
    queue.submit(&mut requests);
    assert_eq!(requests.len(), 12, "no time has passed");
}
