//! A volume passes the suite that every block device passes.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

use std::cell::RefCell;
use std::rc::Rc;

use bdev::conformance::{DEPTH, Fixture};
use bdev::{Bdev, Instant, Pool, PoolConfig, QueueCx, RamDisk};
use volume::{Engine, Event, FormatOptions, NewVolume, Options, VolumeQueue};

/// A volume of `block_bytes` on a RAM disk of 64 MiB with blocks of `device_block`.
fn fixture(device_block: u32, block_bytes: u32) -> Fixture {
    let pool = Rc::new(Pool::new(&PoolConfig::for_bytes(32 << 20)).unwrap());
    let disk = RamDisk::new(device_block, (64 << 20) / u64::from(device_block)).unwrap();
    let queue = disk.open(&QueueCx::new(&pool)).unwrap();
    let format = FormatOptions { uuid: [7; 16], log_bytes: Some(4 << 20), overwrite: false };
    let options = Options { frames: 1024, ..Options::default() };
    let engine = Engine::create(queue, disk.info(), &pool, &format, &options).unwrap();
    let engine = Rc::new(RefCell::new(engine));
    while !engine.borrow().is_ready() {
        engine.borrow_mut().drive(Instant::ZERO);
        assert_eq!(engine.borrow().failed(), None);
    }
    let new = NewVolume { uuid: [1; 16], name: "v", size: 1 << 30, block_bytes };
    engine.borrow_mut().create_volume(&new).unwrap();
    let id = loop {
        engine.borrow_mut().drive(Instant::ZERO);
        let event = engine.borrow_mut().poll_event();
        if let Some(Event::Control { result, .. }) = event {
            break result.unwrap();
        }
    };
    let volume = VolumeQueue::open(&engine, id, DEPTH).unwrap();
    let info = volume.info().unwrap();
    let mut now = 0;
    let pump = move || {
        now += 1000;
        engine.borrow_mut().drive(Instant::from_ns(now));
    };
    let own = Pool::new(&PoolConfig::for_bytes(32 << 20)).unwrap();
    Fixture::from_queue(own, info, Box::new(volume)).pump(pump)
}

bdev::conformance_suite!(volume_4096, fixture(4096, 4096));
bdev::conformance_suite!(volume_512, fixture(4096, 512));
bdev::conformance_suite!(volume_512_on_512, fixture(512, 512));
