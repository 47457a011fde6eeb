//! Each fault does what it says, and everything is repeatable from the seed.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use bdev::{
    Bdev, Completion, Data, Fifo, Flags, Lba, Op, Pool, PoolConfig, Queue, QueueCx, Request, Rng,
    Status, Tag,
};
use bdev_sim::{FaultKind, FaultPlan, Image, PerMillion, SimDisk};

struct Bench {
    disk: SimDisk,
    queue: Box<dyn Queue>,
    pool: Pool,
}

impl Bench {
    fn new(disk: SimDisk) -> Bench {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let queue = disk.open(&QueueCx::new(&pool)).unwrap();
        Bench { disk, queue, pool }
    }

    fn write(&self, lba: u64, blocks: u32, fill: u8) -> Request {
        let len = blocks as usize * self.disk.info().block_size as usize;
        let mut buf = self.pool.take(len).unwrap();
        buf.bytes_mut()[..len].fill(fill);
        Request::write(Tag(0), Lba(lba), blocks, buf.freeze())
    }

    fn start(&mut self, request: Request) {
        let mut fifo = Fifo::new(1);
        fifo.push(request).unwrap();
        self.queue.submit(&mut fifo);
        self.queue.kick();
    }

    fn run(&mut self, request: Request) -> Completion {
        self.start(request);
        let mut done = Fifo::new(1);
        while done.is_empty() {
            assert!(self.disk.step());
            self.queue.poll(&mut done);
        }
        done.pop().unwrap()
    }

    fn first_byte(&mut self, lba: u64) -> Result<u8, Status> {
        let buf = self.pool.take(4096).unwrap();
        let done = self.run(Request::read(Tag(1), Lba(lba), 1, buf));
        let Data::Into(buf) = done.data else { panic!() };
        if done.status.is_ok() { Ok(buf.bytes()[0]) } else { Err(done.status) }
    }
}

fn disk(plan: FaultPlan) -> SimDisk {
    SimDisk::new(4096, 1024, plan)
}

fn byte(image: &Image, lba: u64) -> u8 {
    let mut byte = [0];
    image.read(lba * 4096, &mut byte);
    byte[0]
}

#[test]
fn only_flush_and_fua_survive_for_sure() {
    let mut bench = Bench::new(disk(FaultPlan::power_cuts(1)));
    for (lba, fua) in [(1, false), (2, true)] {
        let flags = if fua { Flags::FUA } else { Flags::NONE };
        let request = bench.write(lba, 1, 7).with_flags(flags);
        assert!(bench.run(request).status.is_ok());
    }
    let point = bench.disk.crash_point();
    let image = point.image_without_unflushed();
    assert_eq!((byte(&image, 1), byte(&image, 2)), (0, 7));
    assert_eq!(byte(&point.image_with_everything(), 1), 7);
    bench.run(Request::flush(Tag(9)));
    assert_eq!(byte(&bench.disk.crash_point().image_without_unflushed(), 1), 7);
}

#[test]
fn fua_is_not_undone_by_an_older_cached_write() {
    let mut bench = Bench::new(disk(FaultPlan::power_cuts(1)));
    let (old, new) = (bench.write(1, 1, 1), bench.write(1, 1, 2).with_flags(Flags::FUA));
    bench.run(old);
    bench.run(new);
    let point = bench.disk.crash_point();
    assert!((0..100).all(|seed| byte(&point.image(seed), 1) == 2));
}

#[test]
fn flush_does_not_cover_a_write_that_completes_after_its_submission() {
    let mut plan = FaultPlan::power_cuts(1);
    plan.write_ns = 1..=1;
    plan.flush_ns = 1000..=1000;
    let mut bench = Bench::new(disk(plan));
    bench.start(Request::flush(Tag(1)));
    let late = bench.write(3, 1, 7);
    bench.run(late);
    let mut done = Fifo::new(1);
    while done.is_empty() {
        assert!(bench.disk.step());
        bench.queue.poll(&mut done);
    }
    assert_eq!(byte(&bench.disk.crash_point().image_without_unflushed(), 3), 0);
}

#[test]
fn power_cut_keeps_tears_and_drops_at_sectors() {
    let mut bench = Bench::new(disk(FaultPlan::power_cuts(1)));
    let request = bench.write(0, 4, 7);
    bench.start(request);
    let point = bench.disk.crash_point();
    let (mut whole, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let mut bytes = vec![0; 4 * 4096];
        point.image(seed).read(0, &mut bytes);
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|&b| b == sector[0])));
        match sectors.iter().filter(|&&b| b == 7).count() {
            0 => lost += 1,
            32 => whole += 1,
            _ => torn += 1,
        }
    }
    assert!(whole > 50 && lost > 20 && torn > 20, "{whole} whole, {lost} lost, {torn} torn");
}

#[test]
fn failed_flush_drops_the_cache_for_good() {
    let never = PerMillion::NEVER;
    let plan = FaultPlan { survives: never, torn: never, ..FaultPlan::power_cuts(1) };
    let mut bench = Bench::new(disk(plan));
    let request = bench.write(1, 1, 7);
    bench.run(request);
    assert_eq!(bench.first_byte(1), Ok(7));
    bench.disk.fail_next(Op::Flush, Status::Io);
    assert_eq!(bench.run(Request::flush(Tag(1))).status, Status::Io);
    assert_eq!(bench.first_byte(1), Ok(0));
    assert_eq!(bench.run(Request::flush(Tag(1))).status, Status::Ok);
    assert_eq!(bench.first_byte(1), Ok(0));
}

#[test]
fn lost_and_misdirected_writes_report_success() {
    let lost = FaultPlan { lost_write: PerMillion::ALWAYS, ..FaultPlan::reliable(1) };
    let mut bench = Bench::new(disk(lost));
    let request = bench.write(1, 1, 7);
    assert!(bench.run(request).status.is_ok());
    assert_eq!(bench.first_byte(1), Ok(0));
    assert_eq!(bench.disk.faults()[0].kind, FaultKind::LostWrite);

    let astray = FaultPlan { misdirected_write: PerMillion::ALWAYS, ..FaultPlan::reliable(1) };
    let mut bench = Bench::new(disk(astray));
    let request = bench.write(1, 1, 7);
    assert!(bench.run(request).status.is_ok());
    let went_to = bench.disk.faults()[1].lba.0;
    assert_eq!(bench.first_byte(went_to), Ok(7));
}

#[test]
fn errors_come_where_and_when_asked_for() {
    let mut bench = Bench::new(disk(FaultPlan::reliable(1)));
    bench.disk.fail_range(Op::Read, 5..=6);
    assert_eq!(bench.first_byte(4), Ok(0));
    assert_eq!(bench.first_byte(5), Err(Status::Io));
    bench.disk.heal();
    assert_eq!(bench.first_byte(5), Ok(0));
    bench.disk.fail_next(Op::Write, Status::NoSpace);
    let (first, second) = (bench.write(1, 1, 7), bench.write(2, 1, 7));
    assert_eq!(bench.run(first).status, Status::NoSpace);
    assert_eq!(bench.run(second).status, Status::Ok);
}

#[test]
fn full_disk_refuses_new_pages_and_takes_old_ones() {
    let plan = FaultPlan { space_bytes_max: Some(8192), ..FaultPlan::reliable(1) };
    let mut bench = Bench::new(disk(plan));
    for (lba, status) in [(1, Status::Ok), (2, Status::Ok), (3, Status::NoSpace), (2, Status::Ok)] {
        let request = bench.write(lba, 1, 7);
        assert_eq!(bench.run(request).status, status, "block {lba}");
    }
    bench.run(Request::range(Tag(0), Op::Deallocate, Lba(1), 1));
    let request = bench.write(3, 1, 7);
    assert_eq!(bench.run(request).status, Status::Ok);
}

#[test]
fn rot_changes_one_bit_and_is_reported_in_the_atlas() {
    let plan = FaultPlan { rot: PerMillion::ALWAYS, ..FaultPlan::reliable(1) };
    let mut bench = Bench::new(disk(plan));
    let _ = bench.first_byte(9);
    let mut bytes = [0; 4096];
    bench.disk.image().read(9 * 4096, &mut bytes);
    assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    assert_eq!((bench.disk.faults()[0].kind, bench.disk.faults()[0].lba), (FaultKind::Rot, Lba(9)));
}

#[test]
fn power_fails_at_the_chosen_write() {
    let plan = FaultPlan { crash_at_write: Some(2), ..FaultPlan::power_cuts(1) };
    let mut bench = Bench::new(disk(plan));
    for lba in 0..4 {
        let request = bench.write(lba, 1, 7);
        bench.start(request);
    }
    assert!(bench.disk.is_off() && bench.disk.boundaries() == 2);
    assert!(!bench.disk.step());
    drop(bench.queue);
    bench.disk.power_on();
    let image = bench.disk.image();
    assert_eq!((byte(&image, 2), byte(&image, 3)), (0, 0));
}

#[test]
fn stalled_disk_completes_nothing_until_the_stall_ends() {
    let mut bench = Bench::new(disk(FaultPlan::reliable(1)));
    let second = std::time::Duration::from_secs(1);
    bench.disk.stall_for(second);
    let request = bench.write(1, 1, 7);
    bench.run(request);
    assert!(bench.disk.now().as_ns() >= 1_000_000_000);
}

fn history(seed: u64) -> (u64, Image) {
    let few = PerMillion(20_000);
    let plan = FaultPlan {
        read_error: few,
        write_error: few,
        flush_error: few,
        lost_write: few,
        misdirected_write: few,
        rot: few,
        stall: few,
        ..FaultPlan::power_cuts(seed)
    };
    let mut bench = Bench::new(disk(plan));
    let mut rng = Rng::new(99);
    let mut done = Fifo::new(64);
    for _ in 0..400 {
        let lba = rng.below(1000);
        match rng.below(4) {
            0 => bench.start(Request::flush(Tag(0))),
            1 => {
                let buf = bench.pool.take(4096).unwrap();
                bench.start(Request::read(Tag(0), Lba(lba), 1, buf));
            }
            _ => {
                let request = bench.write(lba, 2, 1 + u8::try_from(rng.below(200)).unwrap());
                bench.start(request);
            }
        }
        while bench.queue.in_flight() > 8 {
            bench.disk.step();
            bench.queue.poll(&mut done);
            done.clear();
        }
    }
    let image = bench.disk.crash();
    (bench.disk.event_hash(), image)
}

#[test]
fn same_seed_same_history() {
    let ((hash, image), again) = (history(7), history(7));
    assert!(hash == again.0 && image == again.1);
    assert_ne!(history(8).0, hash);
}
