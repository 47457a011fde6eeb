//! The engine in this process: a store on a file or in memory, and its volume as a queue that
//! drives it. For rows without a network, and for what only the engine can tell.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, process};

use bdev::{Bdev, Completion, Fifo, Pool, PoolConfig, Queue, QueueCx, RamDisk, Request};
use bdev_uring::{Allocation, FileDisk, FileOptions, create_file};
use load::Clock;
use volume::{Engine, Event, FormatOptions, NewVolume, Stats, VolumeId, VolumeQueue};

use crate::direct::{BLOCK_SIZE, fill};
use crate::error::BenchError;

/// Buffers of an engine and of the jobs on it.
const POOL_BYTES: u64 = 256 << 20;

/// The identity of the stores and volumes that the bench makes.
pub const UUID: [u8; 16] = *b"hftbench\x80\0\0\0\0\0\0\x03";

/// Files that this process has made: each has a name of its own.
static SCRATCHES: AtomicU64 = AtomicU64::new(0);

/// A file for a store, removed when dropped.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A file of `bytes` in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// What the system answered.
    pub fn create(folder: &Path, bytes: u64) -> Result<Scratch, BenchError> {
        Scratch::create_with(folder, bytes, Allocation::Full)
    }

    /// The same, with its space taken at once or when it is written.
    ///
    /// # Errors
    /// What the system answered.
    pub fn create_with(
        folder: &Path,
        bytes: u64,
        allocation: Allocation,
    ) -> Result<Scratch, BenchError> {
        let system = |what: &str| {
            let what = format!("{what} in {}", folder.display());
            move |source| BenchError::System { what, source }
        };
        fs::create_dir_all(folder).map_err(system("a folder"))?;
        let number = SCRATCHES.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("store-{}-{number}", process::id()));
        // A file of an earlier process with this number, which was killed.
        let _ = fs::remove_file(&path);
        create_file(&path, bytes, allocation).map_err(system("a file"))?;
        Ok(Scratch { path })
    }

    /// The file as a disk.
    ///
    /// # Errors
    /// When it cannot be opened or claimed.
    pub fn open(&self) -> Result<Arc<dyn Bdev>, BenchError> {
        Ok(Arc::new(FileDisk::open(&self.path, &FileOptions::default())?))
    }
}

impl Scratch {
    /// The file as a disk, after every block of it was written once: where nothing was written
    /// before, a file system has work of its own.
    ///
    /// # Errors
    /// As [`Scratch::open`], or a write that failed.
    pub fn open_written(&self) -> Result<Arc<dyn Bdev>, BenchError> {
        let device = self.open()?;
        let pool = crate::direct::pool(1, 8, 128 << 10)?;
        fill(open(device.as_ref(), &pool)?, &pool, BLOCK_SIZE, device.info().blocks.0)?;
        Ok(device)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A disk in memory of `bytes`. Every block was written once: the system's work of finding pages
/// for it is not to be measured.
///
/// # Errors
/// When there is no memory for it.
pub fn memory(bytes: u64) -> Result<Arc<dyn Bdev>, BenchError> {
    let disk = new_memory(bytes)?;
    let pool = crate::direct::pool(1, 8, 128 << 10)?;
    fill(open(disk.as_ref(), &pool)?, &pool, BLOCK_SIZE, disk.info().blocks.0)?;
    Ok(disk)
}

/// A disk in memory of `bytes` that nobody has touched.
///
/// # Errors
/// When there is no memory for it.
pub fn new_memory(bytes: u64) -> Result<Arc<dyn Bdev>, BenchError> {
    let what = "a disk in memory".to_owned();
    let disk = RamDisk::new(BLOCK_SIZE, bytes / u64::from(BLOCK_SIZE))
        .map_err(|source| BenchError::System { what, source })?;
    Ok(Arc::new(disk))
}

/// Size of a device that takes a volume of `bytes` whole, and a log of `log_bytes`.
pub fn device_bytes(bytes: u64, log_bytes: u64) -> u64 {
    // Data, metadata of a thirtieth, copies of pages on their way, and room to breathe.
    let whole = bytes + bytes / 4 + log_bytes + (64 << 20);
    whole.next_multiple_of(1 << 20)
}

/// An open engine with one volume.
pub struct Rig {
    engine: Rc<RefCell<Engine>>,
    volume: VolumeId,
    pool: Rc<Pool>,
    clock: Clock,
}

impl Rig {
    /// Writes a new store with a log of `log_bytes` to `device`, and creates a volume of `bytes`.
    ///
    /// # Errors
    /// When the device, the format or the volume is refused.
    pub fn create(device: &dyn Bdev, bytes: u64, log_bytes: u64) -> Result<Rig, BenchError> {
        let mut rig = Rig::format(device, log_bytes)?;
        rig.add_volume(bytes)?;
        Ok(rig)
    }

    /// Writes a new store with a log of `log_bytes` to `device`. It has no volume.
    ///
    /// # Errors
    /// When the device or the format is refused.
    pub fn format(device: &dyn Bdev, log_bytes: u64) -> Result<Rig, BenchError> {
        let pool = new_pool()?;
        let queue = open(device, &pool)?;
        let format = FormatOptions { uuid: UUID, log_bytes: Some(log_bytes), overwrite: true };
        let engine = Engine::create(queue, device.info(), &pool, &format, &options())
            .map_err(|error| BenchError::Engine(error.to_string()))?;
        Rig::bring_up(engine, pool)
    }

    /// Creates the volume, of `bytes`.
    ///
    /// # Errors
    /// When it is refused.
    pub fn add_volume(&mut self, bytes: u64) -> Result<(), BenchError> {
        let new = NewVolume { uuid: UUID, name: "bench", size: bytes, block_bytes: BLOCK_SIZE };
        let refused = |error: volume::ControlError| BenchError::Engine(error.to_string());
        self.engine.borrow_mut().create_volume(&new).map_err(refused)?;
        self.volume = loop {
            self.turn();
            if let Some(Event::Control { result, .. }) = self.engine.borrow_mut().poll_event() {
                break result.map_err(refused)?;
            }
        };
        Ok(())
    }

    /// Mounts the store on `device`, recovers its log, and takes its first volume.
    ///
    /// # Errors
    /// When the store cannot be opened, or has no volume.
    pub fn open(device: &dyn Bdev) -> Result<Rig, BenchError> {
        let pool = new_pool()?;
        let engine = Engine::open(open(device, &pool)?, device.info(), &pool, &options());
        let mut rig = Rig::bring_up(engine, pool)?;
        let volumes = rig.engine.borrow().volumes();
        let none = || BenchError::Engine("the store has no volume".to_owned());
        rig.volume = volumes.first().ok_or_else(none)?.id;
        Ok(rig)
    }

    fn bring_up(engine: Engine, pool: Rc<Pool>) -> Result<Rig, BenchError> {
        let engine = Rc::new(RefCell::new(engine));
        let rig = Rig { engine, volume: VolumeId(0), pool, clock: Clock::start() };
        while !rig.engine.borrow().is_ready() {
            rig.turn();
            if let Some(error) = rig.engine.borrow().failed() {
                return Err(BenchError::Engine(error.to_string()));
            }
        }
        Ok(rig)
    }

    fn turn(&self) {
        self.engine.borrow_mut().drive(self.clock.now());
    }

    /// The engine's and the jobs' buffers.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// What the engine has counted.
    pub fn stats(&self) -> Stats {
        self.engine.borrow().stats()
    }

    /// A queue to the volume; each of its polls drives the engine.
    ///
    /// # Errors
    /// When the engine has no room for it.
    pub fn queue(&self, depth: u32) -> Result<Box<dyn Queue>, BenchError> {
        let queue = VolumeQueue::open(&self.engine, self.volume, depth)
            .map_err(|error| BenchError::Engine(error.to_string()))?;
        let (engine, clock) = (Rc::clone(&self.engine), self.clock);
        Ok(Box::new(DrivenQueue { queue, engine, clock }))
    }

    /// Destages everything, writes a checkpoint and returns the last counters.
    pub fn shutdown(self) -> Stats {
        self.engine.borrow_mut().shutdown();
        while !self.engine.borrow().is_closed() {
            self.turn();
        }
        self.stats()
    }
}

fn new_pool() -> Result<Rc<Pool>, BenchError> {
    let pool = Pool::new(&PoolConfig::for_bytes(POOL_BYTES)).map_err(BenchError::Pool)?;
    Ok(Rc::new(pool))
}

fn open(device: &dyn Bdev, pool: &Pool) -> Result<Box<dyn Queue>, BenchError> {
    Ok(device.open(&QueueCx::new(pool).depth(bdev::QUEUE_DEPTH_DEFAULT))?)
}

fn options() -> volume::Options {
    // The bench ends its stores itself: no checkpoint between two rows.
    volume::Options { idle_ns: u64::MAX, ..volume::Options::default() }
}

struct DrivenQueue {
    queue: VolumeQueue,
    engine: Rc<RefCell<Engine>>,
    clock: Clock,
}

impl Queue for DrivenQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        self.queue.submit(requests);
    }

    fn kick(&mut self) {
        self.queue.kick();
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        self.engine.borrow_mut().drive(self.clock.now());
        self.queue.poll(completions);
    }

    fn in_flight(&self) -> u32 {
        self.queue.in_flight()
    }
}
