//! A device in this process with no network between: for profiling a device or the engine alone.

use std::sync::Arc;
use std::time::Duration;

use bdev::{Bdev, NullDisk, Pool, PoolConfig, Queue, QueueCx, RamDisk};
use load::{Clock, Job, JobPlan, Rw, Timeline, Workload, run};

use crate::append::AppendQueue;
use crate::commit::CommitQueue;
use crate::engine::{Rig, Scratch, device_bytes, memory};
use crate::error::BenchError;
use crate::meter::{Meter, ThreadId};
use crate::options::{Device, Options};
use crate::report::Row;
use crate::shape::Shape;

/// Bytes in a block of the devices that the bench makes.
pub const BLOCK_SIZE: u32 = 4096;

/// Size of the writes that fill a device before it is measured.
const FILL_BYTES: u32 = 128 << 10;

/// A device of `size` bytes in memory.
///
/// # Errors
/// When there is no memory, or the device is not one in memory.
pub fn memory_device(device: &Device, size: u64) -> Result<Box<dyn Bdev>, BenchError> {
    let blocks = size / u64::from(BLOCK_SIZE);
    match device {
        Device::Ram => RamDisk::new(BLOCK_SIZE, blocks)
            .map(|disk| Box::new(disk) as Box<dyn Bdev>)
            .map_err(|source| BenchError::System { what: "a RAM disk".to_owned(), source }),
        Device::Null => Ok(Box::new(NullDisk::new(BLOCK_SIZE, blocks))),
        other => Err(BenchError::Usage(format!("--direct does not know {other}"))),
    }
}

/// A pool for `jobs` jobs of `depth` buffers of `bytes` each, and for one that fills the device.
///
/// # Errors
/// When the system has no memory for it.
pub fn pool(jobs: u32, depth: u32, bytes: u32) -> Result<Pool, BenchError> {
    load::pool(jobs, depth, bytes).map_err(BenchError::Pool)
}

/// Writes every block of the first `len` blocks once, so that reads find data.
///
/// # Errors
/// See [`run`].
pub fn fill(
    queue: Box<dyn Queue>,
    pool: &Pool,
    block_size: u32,
    len: u64,
) -> Result<Box<dyn Queue>, BenchError> {
    let blocks = FILL_BYTES / block_size;
    let workload = Workload { rw: Rw::Write, blocks, read_percent: 0, first: 0, len };
    let plan = JobPlan { workload, depth: 8, block_size, seed: 1, verify: false };
    let mut jobs = [Job::new(queue, pool, &plan)?];
    let timeline = Timeline {
        warm: Duration::ZERO,
        measured: Duration::from_secs(600),
        counted: Duration::ZERO,
        tick: Duration::ZERO,
        ios_max: len / u64::from(blocks),
    };
    let clock = Clock::start();
    run(&mut jobs, &timeline, &mut || clock.now(), &mut ())?;
    let [job] = jobs;
    Ok(job.into_queue())
}

/// The phases that the command line asks for.
pub fn timeline(options: &Options) -> Timeline {
    Timeline {
        warm: options.warm,
        measured: options.time,
        counted: Duration::from_millis(150),
        tick: Duration::ZERO,
        ios_max: 0,
    }
}

/// Runs one workload on a device of this process.
///
/// # Errors
/// A device that cannot be had, or a run that failed.
pub fn row(options: &Options, shape: Shape) -> Result<Row, BenchError> {
    match options.device {
        Device::Store => {
            let bytes = device_bytes(options.size, options.log_size);
            let scratch = Scratch::create(&options.folder, bytes)?;
            store_row(options, shape, scratch.open()?.as_ref())
        }
        Device::Raw | Device::RawLog => {
            let raw = Raw::new(options)?;
            raw.row(options, shape, options.device == Device::RawLog)
        }
        Device::StoreRam => {
            let device = memory(device_bytes(options.size, options.log_size))?;
            store_row(options, shape, device.as_ref())
        }
        _ => {
            let device = memory_device(&options.device, options.size)?;
            let pool = pool(shape.jobs, shape.depth, shape.bytes)?;
            let cx = QueueCx::new(&pool).depth(shape.depth);
            fill(device.open(&cx)?, &pool, BLOCK_SIZE, device.info().blocks.0)?;
            let open = || Ok(device.open(&cx)?);
            jobs_row(options, shape, &pool, &open)
        }
    }
}

fn store_row(options: &Options, shape: Shape, device: &dyn Bdev) -> Result<Row, BenchError> {
    let rig = Rig::create(device, options.size, options.log_size)?;
    let len = options.size / u64::from(BLOCK_SIZE);
    fill(rig.queue(8)?, rig.pool(), BLOCK_SIZE, len)?;
    let row = jobs_row(options, shape, rig.pool(), &|| rig.queue(shape.depth))?;
    rig.shutdown();
    Ok(row)
}

/// The file of a store without a store.
pub(crate) struct Raw {
    device: Arc<dyn Bdev>,
    pool: Pool,
    _scratch: Scratch,
}

impl Raw {
    /// A file as large as a store's for these options, written once.
    pub(crate) fn new(options: &Options) -> Result<Raw, BenchError> {
        let bytes = device_bytes(options.size, options.log_size);
        let scratch = Scratch::create(&options.folder, bytes)?;
        let device = scratch.open_written()?;
        let pool = Pool::new(&PoolConfig::for_bytes(256 << 20)).map_err(BenchError::Pool)?;
        Ok(Raw { device, pool, _scratch: scratch })
    }

    /// Measures one workload; with `appends`, writes are appended to the part that is the log's in
    /// a store.
    pub(crate) fn row(
        &self,
        options: &Options,
        shape: Shape,
        appends: bool,
    ) -> Result<Row, BenchError> {
        let len = options.size / u64::from(BLOCK_SIZE);
        let log = len..len + options.log_size / u64::from(BLOCK_SIZE);
        let open = || {
            let inner = self.device.open(&QueueCx::new(&self.pool))?;
            if !appends {
                return Ok(Box::new(CommitQueue::new(inner, shape.depth)) as Box<dyn Queue>);
            }
            let queue = AppendQueue::new(inner, &self.pool, log.clone(), shape.depth);
            let few = || BenchError::Usage("too many jobs for raw-log".to_owned());
            Ok(Box::new(queue.ok_or_else(few)?) as Box<dyn Queue>)
        };
        jobs_row(options, shape, &self.pool, &open)
    }
}

/// Runs a workload on queues of this process.
pub(crate) fn jobs_row(
    options: &Options,
    shape: Shape,
    pool: &Pool,
    open: &dyn Fn() -> Result<Box<dyn Queue>, BenchError>,
) -> Result<Row, BenchError> {
    let len = options.size / u64::from(BLOCK_SIZE);
    let jobs = (0..shape.jobs).map(|number| {
        let plan = shape.plan(options, BLOCK_SIZE, len, number)?;
        Ok(Job::new(open()?, pool, &plan)?)
    });
    let mut jobs = jobs.collect::<Result<Vec<_>, BenchError>>()?;
    let mut meter = Meter::new(ThreadId::current());
    let clock = Clock::start();
    let outcome = run(&mut jobs, &timeline(options), &mut || clock.now(), &mut meter)?;
    Ok(Row::new(&format!("{} direct", options.device), &shape, &outcome, &meter))
}
