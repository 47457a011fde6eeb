//! How fast a file or device is through each backend.
//!
//! ```text
//! cargo run --release -p bdev-uring --example disk_bench -- PATH [seconds]
//! ```
//!
//! Everything on a device at PATH is overwritten; a file is made there if there is none.

#![allow(clippy::unwrap_used, reason = "a bench may give up at once")]
#![allow(clippy::disallowed_methods, reason = "a bench has a clock")]

use std::path::Path;
use std::time::{Duration, Instant};

use bdev::{
    Bdev, Data, Fifo, Flags, Lba, Pool, PoolConfig, Queue, QueueCx, Request, Rng, Status, Tag,
};
use bdev_uring::{Allocation, FileDisk, FileOptions, IoBackend, create_file};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    Read,
    Write,
    /// Each write durable by itself.
    WriteFua,
    /// A flush after each batch of writes.
    WriteFlush,
}

fn request(load: Load, tag: u32, lba: u64, data: Data) -> Request {
    let lba = Lba(lba);
    match (load, data) {
        (Load::Read, Data::Into(buf)) => Request::read(Tag(tag), lba, 1, buf),
        (Load::Read, _) => unreachable!("reads get their own buffer back"),
        (Load::WriteFua, Data::From(buf)) => {
            Request::write(Tag(tag), lba, 1, buf).with_flags(Flags::FUA)
        }
        (_, Data::From(buf)) => Request::write(Tag(tag), lba, 1, buf),
        _ => unreachable!("writes get their own buffer back"),
    }
}

/// Requests per second and the median latency.
fn run(queue: &mut dyn Queue, pool: &Pool, load: Load, depth: u32, blocks: u64, time: Duration) {
    let mut rng = Rng::new(u64::from(depth));
    let mut fifo = Fifo::new(depth as usize + 1);
    let mut completions = Fifo::new(depth as usize + 1);
    let mut started = vec![Instant::now(); depth as usize];
    for tag in 0..depth {
        let buf = pool.take(4096).unwrap();
        let data = if load == Load::Read { Data::Into(buf) } else { Data::From(buf.freeze()) };
        fifo.push(request(load, tag, rng.below(blocks), data)).unwrap();
    }
    let (start, mut latencies) = (Instant::now(), Vec::with_capacity(1 << 20));
    let mut flushing = false;
    while start.elapsed() < time {
        queue.submit(&mut fifo);
        queue.kick();
        queue.poll(&mut completions);
        while let Some(done) = completions.pop() {
            assert_eq!(done.status, Status::Ok);
            if done.tag.0 == depth {
                flushing = false;
                continue;
            }
            let at = &mut started[done.tag.0 as usize];
            if latencies.len() < latencies.capacity() {
                latencies.push(at.elapsed());
            }
            *at = Instant::now();
            fifo.push(request(load, done.tag.0, rng.below(blocks), done.data)).unwrap();
        }
        if load == Load::WriteFlush && !flushing && !fifo.is_full() {
            flushing = true;
            fifo.push(Request::flush(Tag(depth))).unwrap();
        }
    }
    let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let median = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
    println!("{rate:>10.0} {:>10.1}", median.as_nanos() as f64 / 1000.0);
    fifo.clear();
    while queue.in_flight() > 0 {
        queue.kick();
        queue.poll(&mut completions);
        completions.clear();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let path = Path::new(arguments.get(1).map_or("disk.bench", |text| text));
    let seconds = arguments.get(2).and_then(|text| text.parse().ok()).unwrap_or(1.0);
    if !path.exists() {
        create_file(path, 256 << 20, Allocation::Full).unwrap();
    }
    println!("backend    load        depth        1/s     p50 us");
    for backend in [IoBackend::IoUring, IoBackend::Standard] {
        let options = FileOptions { backend, block_size: Some(4096), ..FileOptions::default() };
        let disk = FileDisk::open(path, &options).unwrap();
        let pool = Pool::new(&PoolConfig::for_bytes(16 << 20)).unwrap();
        let mut queue = disk.open(&QueueCx::new(&pool)).unwrap();
        for load in [Load::Write, Load::Read, Load::WriteFua, Load::WriteFlush] {
            for depth in [1, 32] {
                print!("{backend:<10} {:<11} {depth:>5} ", format!("{load:?}"));
                let blocks = disk.info().blocks.0;
                run(&mut *queue, &pool, load, depth, blocks, Duration::from_secs_f64(seconds));
            }
        }
    }
}
