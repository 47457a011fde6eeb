//! The simulated disk keeps the contract of every device, with and without a cache.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use bdev::conformance::{DEPTH, Fixture};
use bdev::{Bdev, Pool, PoolConfig, QueueCx};
use bdev_sim::{FaultPlan, PerMillion, SimDisk};

fn fixture(block_size: u32, plan: FaultPlan) -> Fixture {
    let disk = SimDisk::new(block_size, 4096, plan);
    let pool = Pool::new(&PoolConfig::for_bytes(32 << 20)).unwrap();
    let queue = disk.open(&QueueCx::new(&pool).depth(DEPTH)).unwrap();
    let info = disk.info().clone();
    Fixture::from_queue(pool, info, queue).pump(move || {
        disk.step();
    })
}

bdev::conformance_suite!(reliable_4096, fixture(4096, FaultPlan::reliable(1)));
bdev::conformance_suite!(reliable_512, fixture(512, FaultPlan::reliable(2)));
bdev::conformance_suite!(
    cached_with_stalls,
    fixture(
        512,
        FaultPlan {
            stall: PerMillion(50_000),
            cache_bytes_max: 64 << 10,
            ..FaultPlan::power_cuts(3)
        }
    )
);
