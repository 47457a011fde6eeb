//! What the tests of the engine share: an engine on a simulated disk, and a model of its volumes.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its part")]

pub(crate) mod faulty;
pub(crate) mod forest;
pub(crate) mod marks;
pub(crate) mod model;
pub(crate) mod workload;

use std::cell::RefCell;
use std::rc::Rc;

use bdev::{Bdev, Completion, Data, Fifo, Instant, Lba, Pool, PoolConfig, Queue, QueueCx};
use bdev::{Request, Status, Tag};
use bdev_sim::{FaultPlan, Image, SimDisk};
use faulty::Faults;
use volume::{Engine, Event, FormatOptions, NewVolume, OpenError, Options, VolumeId, VolumeQueue};

/// An engine on a simulated disk.
pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) engine: Rc<RefCell<Engine>>,
    pub(crate) events: Vec<Event>,
    /// Last, so that it is dropped after everything that holds its segments.
    pub(crate) pool: Rc<Pool>,
}

/// Small tables, small groups: every edge is near.
pub(crate) fn options() -> Options {
    Options { frames: 256, group_bytes: Some(84 << 10), ..Options::default() }
}

pub(crate) fn pool() -> Rc<Pool> {
    let config = PoolConfig { segments: [512, 96, 48, 12, 3], huge_pages: false };
    Rc::new(Pool::new(&config).unwrap())
}

impl Rig {
    /// A fresh store on an empty disk.
    pub(crate) fn create(disk: SimDisk, log_bytes: u64, options: &Options) -> Rig {
        let mut rig = Rig::begin_create(disk, log_bytes, options, |queue| queue);
        rig.until_open().unwrap();
        rig
    }

    /// A fresh store on an empty disk, with faults to be set.
    pub(crate) fn create_faulty(disk: SimDisk, log_bytes: u64, faults: &Faults) -> Rig {
        let mut rig = Rig::begin_create(disk, log_bytes, &options(), |queue| faults.wrap(queue));
        rig.until_open().unwrap();
        rig
    }

    fn begin_create(
        disk: SimDisk,
        log_bytes: u64,
        options: &Options,
        wrap: impl FnOnce(Box<dyn Queue>) -> Box<dyn Queue>,
    ) -> Rig {
        let pool = pool();
        let queue = wrap(disk.open(&QueueCx::new(&pool)).unwrap());
        let format = FormatOptions { uuid: [7; 16], log_bytes: Some(log_bytes), overwrite: false };
        let engine = Engine::create(queue, disk.info(), &pool, &format, options).unwrap();
        Rig { disk, pool, engine: Rc::new(RefCell::new(engine)), events: Vec::new() }
    }

    /// The store on a disk with these contents.
    pub(crate) fn open(image: Image, plan: FaultPlan, options: &Options) -> Result<Rig, OpenError> {
        let mut rig = Rig::begin_open(image, plan, options);
        rig.until_open()?;
        Ok(rig)
    }

    pub(crate) fn begin_open(image: Image, plan: FaultPlan, options: &Options) -> Rig {
        Rig::begin_open_faulty(image, plan, options, &Faults::default())
    }

    pub(crate) fn begin_open_faulty(
        image: Image,
        plan: FaultPlan,
        options: &Options,
        faults: &Faults,
    ) -> Rig {
        let disk = SimDisk::with_image(4096, image, plan);
        let pool = pool();
        let queue = faults.wrap(disk.open(&QueueCx::new(&pool)).unwrap());
        let engine = Engine::open(queue, disk.info(), &pool, options);
        Rig { disk, pool, engine: Rc::new(RefCell::new(engine)), events: Vec::new() }
    }

    /// Drives the engine until it serves, fails, or the power fails.
    pub(crate) fn until_open(&mut self) -> Result<(), OpenError> {
        for _ in 0..TURNS_MAX {
            if self.engine.borrow().is_ready() || self.disk.is_off() {
                return Ok(());
            }
            if let Some(error) = self.engine.borrow().failed() {
                return Err(error.clone());
            }
            self.turn();
        }
        panic!("the engine neither opened nor failed");
    }

    /// One turn of the engine; the clock moves when nothing else does.
    pub(crate) fn turn(&mut self) {
        let progress = self.engine.borrow_mut().drive(self.disk.now());
        if !progress && !self.disk.step() {
            let later = self.disk.now().as_ns() + 1_000_000;
            self.disk.advance_to(Instant::from_ns(later));
        }
        while let Some(event) = self.engine.borrow_mut().poll_event() {
            self.events.push(event);
        }
    }

    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("never: {what}; {:?}", self.engine.borrow());
    }

    pub(crate) fn create_volume(&mut self, name: &str, size: u64, block_bytes: u32) -> VolumeId {
        let mut uuid = [0; 16];
        uuid[..name.len()].copy_from_slice(name.as_bytes());
        let new = NewVolume { uuid, name, size, block_bytes };
        let token = self.engine.borrow_mut().create_volume(&new).unwrap();
        self.control_result(token).unwrap()
    }

    pub(crate) fn control_result(
        &mut self,
        token: volume::Token,
    ) -> Result<VolumeId, volume::ControlError> {
        let mut answer = None;
        self.until("a control operation ends", |rig| {
            let mine = |event: &Event| match event {
                Event::Control { token: t, result } if *t == token => Some(*result),
                _ => None,
            };
            answer = rig.events.iter().find_map(mine);
            answer.is_some()
        });
        answer.unwrap()
    }

    pub(crate) fn queue(&self, id: VolumeId, depth: u32) -> VolumeQueue {
        VolumeQueue::open(&self.engine, id, depth).unwrap()
    }

    /// Runs one request to its end.
    pub(crate) fn run(&mut self, queue: &mut VolumeQueue, request: Request) -> Completion {
        let (mut requests, mut completions) = (Fifo::new(1), Fifo::new(1));
        requests.push(request).unwrap();
        self.until("a request ends", |_| {
            queue.submit(&mut requests);
            queue.poll(&mut completions);
            !completions.is_empty()
        });
        completions.pop().unwrap()
    }

    pub(crate) fn buffer(&self, bytes: &[u8]) -> bdev::Buf {
        let mut buf = self.pool.take(bytes.len()).expect("the pool has room for tests");
        buf.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        buf.freeze()
    }

    pub(crate) fn write(&mut self, queue: &mut VolumeQueue, lba: u64, bytes: &[u8]) -> Status {
        let block = queue.info().unwrap().block_size as usize;
        let blocks = u32::try_from(bytes.len() / block).unwrap();
        let request = Request::write(Tag(1), Lba(lba), blocks, self.buffer(bytes));
        self.run(queue, request).status
    }

    pub(crate) fn read(
        &mut self,
        queue: &mut VolumeQueue,
        lba: u64,
        blocks: u32,
    ) -> Result<Vec<u8>, Status> {
        let bytes = blocks as usize * queue.info().unwrap().block_size as usize;
        let into = self.pool.take(bytes).expect("the pool has room for tests");
        let done = self.run(queue, Request::read(Tag(2), Lba(lba), blocks, into));
        let Data::Into(buf) = done.data else { panic!("a read gives its buffer back") };
        if done.status.is_ok() { Ok(buf.bytes()[..bytes].to_vec()) } else { Err(done.status) }
    }

    /// Shuts down cleanly.
    pub(crate) fn close(&mut self) {
        self.engine.borrow_mut().shutdown();
        self.until("the engine closes", |rig| rig.engine.borrow().is_closed());
    }

    /// What the offline check says of the disk's contents.
    pub(crate) fn check(image: Image, data: bool) -> store::CheckReport {
        let disk = SimDisk::with_image(4096, image, FaultPlan::reliable(1));
        let pool = pool();
        let inner = disk.open(&QueueCx::new(&pool)).unwrap();
        let mut queue = Stepping { inner, disk: disk.clone() };
        store::check(&mut queue, disk.info(), &pool, &store::CheckOptions { data })
    }
}

/// A queue whose clock moves by itself.
struct Stepping {
    inner: Box<dyn Queue>,
    disk: SimDisk,
}

impl Queue for Stepping {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        self.inner.submit(requests);
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        self.disk.step();
        self.inner.poll(completions);
    }

    fn in_flight(&self) -> u32 {
        self.inner.in_flight()
    }
}

pub(crate) fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

const TURNS_MAX: u32 = 2_000_000;
