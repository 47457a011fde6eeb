//! What an engine does when its device does not answer, or only with errors.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod support;

use bdev::{Bdev, Fifo, Instant, Lba, Op, Queue, Request, Status, Tag};
use bdev_sim::{FaultPlan, SimDisk};
use support::faulty::{Fate, Fault, Faults, Kind};
use support::{Rig, options};
use volume::{Engine, Event, Health, OpenError, VolumeQueue};

fn rig() -> (Rig, VolumeQueue) {
    let disk = SimDisk::new(4096, 24 * 256, FaultPlan::reliable(3));
    let mut rig = Rig::create(disk, 1 << 20, &options());
    let id = rig.create_volume("v", 8 << 20, 4096);
    let queue = rig.queue(id, 64);
    (rig, queue)
}

/// The verdicts that the engine told.
fn verdicts(rig: &Rig) -> Vec<Health> {
    let health = |event: &Event| match event {
        Event::Health { health, .. } => Some(*health),
        _ => None,
    };
    rig.events.iter().filter_map(health).collect()
}

fn is_quarantine(event: &Event) -> bool {
    matches!(event, Event::Health { health: Health::Quarantined, .. })
}

#[test]
fn device_that_does_not_answer_is_quarantined_and_its_volumes_answer_at_once() {
    let (mut rig, mut queue) = rig();
    let (mut other, mut neighbour) = self::rig();
    assert_eq!(rig.write(&mut queue, 1, &[1; 4096]), Status::Ok);
    rig.disk.stall_for(std::time::Duration::from_secs(3600));
    let (mut requests, mut completions) = (Fifo::new(64), Fifo::new(64));
    for tag in 0..40 {
        let buf = rig.buffer(&vec![2; 16384]);
        requests.push(Request::write(Tag(tag), Lba(u64::from(tag) * 4), 4, buf)).unwrap();
    }
    queue.submit(&mut requests);
    let start = rig.disk.now().as_ns();
    let mut quarantined_after = None;
    for second in 0..=20 {
        let now = Instant::from_ns(start + second * 1_000_000_000);
        rig.engine.borrow_mut().drive(now);
        while let Some(event) = rig.engine.borrow_mut().poll_event() {
            if is_quarantine(&event) {
                quarantined_after = Some(second);
            }
        }
        // Until then it asks to be called.
        assert!(quarantined_after.is_some() || rig.engine.borrow().next_timeout().is_some());
    }
    assert!(quarantined_after.is_some_and(|after| (14..=17).contains(&after)));
    assert_eq!(rig.engine.borrow().health().health, Health::Quarantined);
    // What the device does not hold has come back; what comes now does so at once.
    queue.poll(&mut completions);
    let waiting = completions.len();
    assert!(waiting > 0);
    while let Some(completion) = completions.pop() {
        assert_eq!(completion.status, Status::Io);
    }
    for op in [Op::Read, Op::Write] {
        let request = match op {
            Op::Read => Request::read(Tag(1), Lba(1), 1, rig.pool.take(4096).unwrap()),
            _ => Request::write(Tag(1), Lba(1), 1, rig.buffer(&[3; 4096])),
        };
        requests.push(request).unwrap();
        queue.submit(&mut requests);
        queue.poll(&mut completions);
        assert_eq!(completions.pop().map(|done| done.status), Some(Status::Io), "{op:?}");
    }
    assert!(rig.engine.borrow().is_degraded());
    // Another store of the node does not notice.
    assert_eq!(other.write(&mut neighbour, 1, &[1; 4096]), Status::Ok);
    // Opening the store again clears it, and nothing acknowledged is lost.
    drop(queue);
    let mut again = Rig::open(rig.disk.crash(), FaultPlan::reliable(1), &options()).unwrap();
    assert_eq!(again.engine.borrow().health().health, Health::Healthy);
    let id = again.engine.borrow().volume_by_name("v").unwrap().id;
    let mut queue = again.queue(id, 4);
    assert_eq!(again.read(&mut queue, 1, 1), Ok(vec![1; 4096]));
}

#[test]
fn device_that_fails_everything_is_quarantined() {
    let (mut rig, mut queue) = rig();
    let written = vec![1; 65536];
    assert_eq!(rig.write(&mut queue, 0, &written), Status::Ok);
    rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
    rig.disk.fail_range(Op::Read, 0..=u64::MAX);
    let mut reads = 0;
    while !rig.events.iter().any(is_quarantine) {
        assert_eq!(rig.read(&mut queue, 3, 1), Err(Status::Io));
        reads += 1;
        assert!(reads < 200, "{:?}", rig.engine.borrow().health());
        rig.turn();
    }
    rig.disk.heal();
    assert_eq!(rig.read(&mut queue, 3, 1), Err(Status::Io), "until the store is opened again");
}

/// Keeps the device busy with reads, and its clock going, until `done` or for so many seconds; how
/// many it took.
fn read_on(rig: &mut Rig, queue: &mut VolumeQueue, most: u64, done: impl Fn(&Rig) -> bool) -> u64 {
    let start = rig.disk.now().as_ns();
    for tenth in 1..=most * 10 {
        if done(rig) {
            return tenth / 10;
        }
        rig.disk.advance_to(Instant::from_ns(start + tenth * 100_000_000));
        let _ = rig.read(queue, 1, 1);
        rig.turn();
    }
    most
}

#[test]
fn request_that_is_lost_among_answered_ones_is_reported_and_then_quarantines_the_store() {
    for (kind, op) in [(Kind::Data, Op::Read), (Kind::Log, Op::Write), (Kind::Page, Op::Write)] {
        let faults = Faults::default();
        let disk = SimDisk::new(4096, 24 * 256, FaultPlan::reliable(3));
        let mut rig = Rig::create_faulty(disk, 1 << 20, &faults);
        let id = rig.create_volume("v", 8 << 20, 4096);
        let (mut queue, mut victim) = (rig.queue(id, 64), rig.queue(id, 4));
        assert_eq!(rig.write(&mut queue, 1, &[1; 4096]), Status::Ok);
        rig.until("the log is empty", |rig| rig.engine.borrow().stats().log_used_bytes == 0);
        faults.set(Some(Fault { kind, op, numbers: 0..1, fate: Fate::Lose }));
        let mut requests = Fifo::new(2);
        requests.push(Request::write(Tag(0), Lba(9), 1, rig.buffer(&[2; 4096]))).unwrap();
        requests.push(Request::read(Tag(1), Lba(1), 1, rig.pool.take(4096).unwrap())).unwrap();
        victim.submit(&mut requests);
        rig.until("one is lost", |_| faults.hit() == 1);
        assert_eq!(rig.engine.borrow().health().health, Health::Healthy);
        let slow = read_on(&mut rig, &mut queue, 60, |rig| verdicts(rig) == [Health::Slow]);
        assert!((14..=16).contains(&slow), "{kind:?}: after {slow} s");
        assert_eq!(rig.read(&mut queue, 1, 1), Ok(vec![1; 4096]), "it still serves");
        let done = |rig: &Rig| verdicts(rig) == [Health::Slow, Health::Quarantined];
        let quarantined = read_on(&mut rig, &mut queue, 60, done);
        assert!((14..=16).contains(&quarantined), "{kind:?}: {quarantined} s later");
        assert_eq!(rig.read(&mut queue, 1, 1), Err(Status::Io));
    }
}

/// Opens a store whose device hangs from the request with this number on; the error, and how many
/// seconds it took.
fn open_hanging(answered: u64, image: bdev_sim::Image) -> Option<(OpenError, u64)> {
    let disk = SimDisk::with_image(4096, image, FaultPlan::reliable(1));
    let pool = support::pool();
    let queue = disk.open(&bdev::QueueCx::new(&pool)).unwrap();
    let mut engine = Engine::open(queue, disk.info(), &pool, &options());
    while disk.stats().completed < answered {
        engine.drive(disk.now());
        disk.step();
        if engine.is_ready() {
            return None;
        }
    }
    disk.stall_for(std::time::Duration::from_secs(3600));
    let start = disk.now().as_ns();
    for second in 0..60 {
        engine.drive(Instant::from_ns(start + second * 1_000_000_000));
        if let Some(error) = engine.failed() {
            assert_eq!(engine.next_timeout(), None);
            assert!(engine.is_closed());
            return Some((error.clone(), second));
        }
        assert!(engine.next_timeout().is_some(), "it asks to be called");
    }
    panic!("it waits for ever after {answered} answers: {engine:?}");
}

#[test]
fn device_that_hangs_while_its_store_is_opened_is_a_clear_error() {
    let (mut rig, mut queue) = rig();
    for block in 0..60 {
        assert_eq!(rig.write(&mut queue, block * 7, &[1; 4096]), Status::Ok);
    }
    drop(queue);
    let image = rig.disk.crash();
    let mut answered = 0;
    while let Some((error, seconds)) = open_hanging(answered, image.clone()) {
        assert!(matches!(error, OpenError::Device(_)), "{error}");
        assert!(error.to_string().contains("did not come back in time"), "{error}");
        assert!((14..=17).contains(&seconds), "{seconds} s");
        answered += 1;
    }
    assert!(answered > 8, "superblocks, pages and the log were all hit: {answered}");
}
