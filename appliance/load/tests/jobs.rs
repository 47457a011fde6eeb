//! Runs on devices of this process.

use std::time::Duration;

use bdev::{
    Bdev, Completion, Fifo, Instant, NullDisk, Pool, PoolConfig, Queue, QueueCx, RamDisk, Request,
    Status,
};
use load::{Job, JobPlan, Observer, Outcome, Rate, RunError, Rw, Timeline, Workload, run};

const ENDLESS: Duration = Duration::from_secs(1_000_000);

fn plan(rw: Rw, verify: bool) -> JobPlan {
    let workload = Workload { rw, blocks: 2, read_percent: 50, first: 10, len: 64 };
    JobPlan { workload, depth: 8, block_size: 512, seed: 5, verify }
}

fn go(device: &dyn Bdev, plans: &[JobPlan], ios_max: u64) -> Result<Outcome, RunError> {
    let pool = Pool::new(&PoolConfig::tiny()).expect("a small pool");
    let open = || device.open(&QueueCx::new(&pool)).expect("memory always opens");
    let mut jobs: Vec<Job> =
        plans.iter().map(|plan| Job::new(open(), &pool, plan).expect("enough buffers")).collect();
    run(&mut jobs, &Timeline { ios_max, ..WHOLE }, &mut ticking(), &mut ())
}

/// Measures from the beginning until something else ends the run.
const WHOLE: Timeline = Timeline {
    warm: Duration::ZERO,
    measured: ENDLESS,
    counted: Duration::ZERO,
    tick: Duration::ZERO,
    ios_max: 0,
};

/// A clock that moves a microsecond with each look at it.
fn ticking() -> impl FnMut() -> Instant {
    let mut ns = 0;
    move || {
        ns += 1000;
        Instant::from_ns(ns)
    }
}

#[test]
fn verified_mix_on_a_ram_disk_finds_nothing_wrong() {
    let disk = RamDisk::new(512, 200).unwrap();
    let mut second = plan(Rw::RandRw, true);
    second.workload.first = 100;
    second.seed = 6;
    let outcome = go(&disk, &[plan(Rw::RandRw, true), second], 5000).unwrap();
    assert!(outcome.total_ios >= 5000);
    assert!(outcome.verified_blocks > 3000, "{} blocks", outcome.verified_blocks);
}

#[test]
fn device_that_forgets_writes_is_found_out() {
    let disk = NullDisk::new(512, 200);
    let error = go(&disk, &[plan(Rw::RandRw, true)], 5000).unwrap_err();
    assert!(matches!(error, RunError::Verify(_)), "{error}");
}

#[test]
fn failed_operations_end_the_run() {
    let disk = NullDisk::new(512, 32);
    let error = go(&disk, &[plan(Rw::RandRead, false)], 5000).unwrap_err();
    let RunError::Failed { count, last } = error else { panic!("{error}") };
    assert!(count > 0);
    assert_eq!(last, Status::OutOfRange);
}

#[test]
fn depth_and_buffers_are_checked_before_the_first_operation() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let disk = NullDisk::new(512, 200);
    for (depth, bad_depth) in [(0, true), (1025, true), (1000, false)] {
        let queue = disk.open(&QueueCx::new(&pool)).unwrap();
        let plan = JobPlan { depth, ..plan(Rw::Read, false) };
        let error = Job::new(queue, &pool, &plan).err().expect("cannot be had");
        assert_eq!(matches!(error, RunError::Depth(_)), bad_depth, "{error}");
    }
}

#[test]
fn queue_that_completes_nothing_stalls_the_run_instead_of_hanging_it() {
    struct Silent(Fifo<Request>);
    impl Queue for Silent {
        fn submit(&mut self, requests: &mut Fifo<Request>) {
            while let (false, Some(request)) = (self.0.is_full(), requests.pop()) {
                self.0.push(request).expect("room was checked");
            }
        }
        fn kick(&mut self) {}
        fn poll(&mut self, _: &mut Fifo<Completion>) {}
        fn in_flight(&self) -> u32 {
            u32::try_from(self.0.len()).expect("a small queue")
        }
    }
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let queue = Box::new(Silent(Fifo::new(8)));
    let mut jobs = [Job::new(queue, &pool, &plan(Rw::Read, false)).unwrap()];
    let mut seconds = 0;
    let mut clock = || {
        seconds += 1;
        Instant::from_ns(seconds * 1_000_000_000)
    };
    let error = run(&mut jobs, &WHOLE, &mut clock, &mut ()).unwrap_err();
    assert!(matches!(error, RunError::Stalled { in_flight: 8 }), "{error}");
}

#[test]
fn windows_follow_each_other_and_count_their_own() {
    #[derive(Default)]
    struct Log(Vec<&'static str>);
    impl Observer for Log {
        fn measured_begins(&mut self) {
            self.0.push("measured begins");
        }
        fn measured_ended(&mut self) {
            self.0.push("measured ended");
        }
        fn counted_begins(&mut self) {
            self.0.push("counted begins");
        }
        fn counted_ended(&mut self) {
            self.0.push("counted ended");
        }
    }
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let disk = NullDisk::new(512, 200);
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let mut jobs = [Job::new(queue, &pool, &plan(Rw::Read, false)).unwrap()];
    let timeline = Timeline {
        warm: Duration::from_micros(100),
        measured: Duration::from_micros(1000),
        counted: Duration::from_micros(500),
        tick: Duration::ZERO,
        ios_max: 0,
    };
    let mut log = Log::default();
    let outcome = run(&mut jobs, &timeline, &mut ticking(), &mut log).unwrap();
    let order = ["measured begins", "measured ended", "counted begins", "counted ended"];
    assert_eq!(log.0, order);
    assert_eq!(outcome.latency().count(), outcome.ios);
    assert!(outcome.elapsed >= Duration::from_micros(1000));
    assert!(outcome.ios > outcome.counted_ios && outcome.counted_ios > 0);
    assert!(outcome.total_ios > outcome.ios + outcome.counted_ios);
}

#[test]
fn a_limited_job_does_what_it_was_told_and_reads_back_what_it_wrote() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let disk = RamDisk::new(512, 200).unwrap();
    let job = || {
        let queue = disk.open(&QueueCx::new(&pool)).unwrap();
        Job::new(queue, &pool, &plan(Rw::Write, true)).unwrap()
    };
    for (ios, blocks) in [(20, 40), (32, 64), (100, 64)] {
        let mut jobs = [job().limited(ios)];
        let outcome = run(&mut jobs, &WHOLE, &mut ticking(), &mut ()).unwrap();
        assert_eq!((outcome.ios, outcome.total_ios, outcome.verified_blocks), (ios, ios, 0));
        assert_eq!((outcome.writes.count(), outcome.reads.count()), (ios, 0));
        jobs[0].read_back();
        let outcome = run(&mut jobs, &WHOLE, &mut ticking(), &mut ()).unwrap();
        assert_eq!(outcome.verified_blocks, blocks, "of {ios} operations");
    }
}

#[test]
fn reading_back_finds_what_a_device_forgot() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let disk = NullDisk::new(512, 200);
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let mut jobs = [Job::new(queue, &pool, &plan(Rw::RandWrite, true)).unwrap().limited(8)];
    run(&mut jobs, &WHOLE, &mut ticking(), &mut ()).unwrap();
    jobs[0].read_back();
    let error = run(&mut jobs, &WHOLE, &mut ticking(), &mut ()).unwrap_err();
    assert!(matches!(error, RunError::Verify(_)), "{error}");
}

#[test]
fn a_paced_job_takes_the_time_that_its_rate_asks_for() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let disk = NullDisk::new(512, 200);
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let pace = Rate::Operations(10_000).pace(1, 1024);
    let job = Job::new(queue, &pool, &plan(Rw::RandRead, false)).unwrap();
    // A second by the clock of the test; an unpaced job would need some hundred microseconds.
    let mut jobs = [job.limited(10_000).paced(Some(pace))];
    let outcome = run(&mut jobs, &WHOLE, &mut ticking(), &mut ()).unwrap();
    assert_eq!(outcome.ios, 10_000);
    let ms = outcome.elapsed.as_millis();
    assert!((995..=1005).contains(&ms), "{ms} ms");
}

#[test]
fn a_quiet_paced_run_is_not_taken_for_a_stalled_one() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let disk = NullDisk::new(512, 200);
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let minute = Rate::Bytes(17).pace(1, 1024);
    let job = Job::new(queue, &pool, &plan(Rw::Read, false)).unwrap();
    let mut jobs = [job.limited(3).paced(Some(minute))];
    let mut seconds = 0;
    let mut clock = || {
        seconds += 1;
        Instant::from_ns(seconds * 1_000_000_000)
    };
    let outcome = run(&mut jobs, &WHOLE, &mut clock, &mut ()).unwrap();
    assert!(outcome.elapsed >= Duration::from_mins(2), "{:?}", outcome.elapsed);
}

#[test]
fn an_observer_looks_now_and_then_and_may_end_the_run() {
    struct Impatient(Vec<u64>);
    impl Observer for Impatient {
        fn ticked(&mut self, outcome: &Outcome, _: Duration) -> bool {
            self.0.push(outcome.ios);
            self.0.len() < 3
        }
    }
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let disk = NullDisk::new(512, 200);
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let mut jobs = [Job::new(queue, &pool, &plan(Rw::RandRw, false)).unwrap()];
    let mut seen = Impatient(Vec::new());
    let timeline = Timeline { tick: Duration::from_millis(1), ..WHOLE };
    let outcome = run(&mut jobs, &timeline, &mut ticking(), &mut seen).unwrap();
    assert!(seen.0.is_sorted() && seen.0[0] > 0 && seen.0.len() == 3, "{:?}", seen.0);
    assert!(outcome.elapsed >= Duration::from_millis(3));
    assert!(outcome.elapsed < Duration::from_millis(4));
    assert_eq!(outcome.reads.count() + outcome.writes.count(), outcome.ios);
}
