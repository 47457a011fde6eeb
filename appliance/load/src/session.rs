//! A whole measurement of a namespace elsewhere: connect, look, run, read back.

use std::rc::Rc;
use std::time::Duration;

use bdev::{Instant, Pool, PoolConfig, PoolError};
use net_uring::{UringNet, UringNetConfig};
use nvmf::initiator::NamespaceInfo;
use thiserror::Error;

use crate::client::{Client, ConnectError, Destination};
use crate::clock::Clock;
use crate::job::{Job, JobPlan, Observer, Outcome, RunError, Timeline, run};
use crate::limits::{BATCH_PIECES, DEPTH_MAX, JOBS_MAX, VERIFIED_BLOCKS_MAX};
use crate::pace::Rate;
use crate::size::show_size;
use crate::workload::{Rw, Workload};

/// Steps that a skewed workload tells apart at most: it sums over them before it begins.
const ZIPF_STEPS_MAX: u64 = 1 << 28;

/// How often an observer looks.
const TICK: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which operations.
    pub rw: Rw,
    /// Size of each, in bytes.
    pub bytes: u32,
    /// Operations in flight per job.
    pub depth: u32,
    /// Jobs, each with a queue of its own.
    pub jobs: u32,
    /// Reads of a hundred operations in a mixed workload.
    pub read_percent: u8,
    /// Bytes from the beginning that are used; `None` for all.
    pub region: Option<u64>,
    /// How long; `None` for as many operations as the region holds.
    pub time: Option<Duration>,
    /// How long it runs before it is measured.
    pub ramp: Duration,
    /// How fast it may go.
    pub rate: Option<Rate>,
    /// Draws addresses and contents.
    pub seed: u64,
    /// Write blocks that know who wrote them, judge what is read, and read back at the end.
    pub verify: bool,
}

/// What a measurement found out.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was measured.
    pub outcome: Outcome,
    /// Blocks that were read and found right, in the run and when it was read back.
    pub verified_blocks: u64,
}

/// Why a measurement could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The plan does not fit the target.
    #[error("{field}: {reason}")]
    Unfit {
        /// Which part of the plan.
        field: &'static str,
        /// Why not.
        reason: String,
    },
    /// There is no memory for buffers.
    #[error("{0}")]
    Pool(PoolError),
    /// The target could not be connected to.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The run failed.
    #[error("{0}")]
    Run(#[from] RunError),
}

fn unfit(field: &'static str, reason: impl Into<String>) -> SessionError {
    SessionError::Unfit { field, reason: reason.into() }
}

/// A connected host that has not begun.
pub struct Session {
    client: Client,
    pool: Rc<Pool>,
    plan: Plan,
    /// What each job does; the first begins at the first block.
    part: JobPlan,
}

impl Session {
    /// Connects one I/O queue for each job, and checks that the plan fits what is there. Nothing is
    /// read or written yet. (The number of queues of `destination` does not matter.)
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn connect(destination: &Destination, plan: Plan) -> Result<Session, SessionError> {
        check(&plan)?;
        let pool = Rc::new(pool(plan.jobs, plan.depth, plan.bytes).map_err(SessionError::Pool)?);
        let queues = u16::try_from(plan.jobs).expect("checked");
        let net = sockets(queues).map_err(ConnectError::Net)?;
        let destination = Destination { queues, ..*destination };
        let clock = Clock::start();
        let mut idle = || clock.now();
        let client = Client::connect(Box::new(net), Rc::clone(&pool), &destination, &mut idle)?;
        let part = part(&plan, client.namespace(), client.info().transfer_max)?;
        Ok(Session { client, pool, plan, part })
    }

    /// What is measured.
    pub fn namespace(&self) -> NamespaceInfo {
        self.client.namespace()
    }

    /// Bytes from the beginning that are used.
    pub fn region_bytes(&self) -> u64 {
        let blocks = self.part.workload.len * u64::from(self.plan.jobs);
        blocks.saturating_mul(u64::from(self.part.block_size))
    }

    /// Measures.
    ///
    /// # Errors
    /// What failed while it ran.
    pub fn run(self, observer: &mut dyn Observer) -> Result<Summary, SessionError> {
        let clock = Clock::start();
        let mut jobs = self.jobs()?;
        let timeline = Timeline {
            warm: self.plan.ramp,
            measured: self.plan.time.unwrap_or(Duration::MAX),
            counted: Duration::ZERO,
            tick: TICK,
            ios_max: 0,
        };
        let mut now = || -> Instant { clock.now() };
        let outcome = run(&mut jobs, &timeline, &mut now, observer)?;
        let mut verified_blocks = outcome.verified_blocks;
        if self.plan.verify {
            jobs.iter_mut().for_each(Job::read_back);
            let whole = Timeline {
                warm: Duration::ZERO,
                measured: Duration::MAX,
                tick: Duration::ZERO,
                ..timeline
            };
            verified_blocks = run(&mut jobs, &whole, &mut now, &mut ())?.verified_blocks;
        }
        Ok(Summary { outcome, verified_blocks })
    }

    fn jobs(&self) -> Result<Vec<Job>, RunError> {
        let Plan { jobs, rate, bytes, time, .. } = self.plan;
        let Workload { len, blocks, .. } = self.part.workload;
        let ios = time.map_or(len / u64::from(blocks), |_| u64::MAX);
        let job = |number: u32| {
            let mut plan = self.part;
            plan.workload.first = u64::from(number) * len;
            plan.seed = plan.seed.wrapping_add(u64::from(number));
            let queue = self.client.queue(u16::try_from(number).expect("checked"));
            let pace = rate.map(|rate| rate.pace(jobs, bytes));
            Ok(Job::new(queue, &self.pool, &plan)?.limited(ios).paced(pace))
        };
        (0..jobs).map(job).collect()
    }
}

/// What is wrong with a plan whatever the target.
fn check(plan: &Plan) -> Result<(), SessionError> {
    if !(1..=JOBS_MAX).contains(&plan.jobs) {
        return Err(unfit("numjobs", format!("{} is not 1 to {JOBS_MAX}", plan.jobs)));
    }
    if !(1..=DEPTH_MAX).contains(&plan.depth) {
        return Err(unfit("iodepth", format!("{} is not 1 to {DEPTH_MAX}", plan.depth)));
    }
    if plan.bytes == 0 || u64::from(plan.bytes) > u64::from(bdev::REQUEST_BYTES_MAX) {
        let max = show_size(u64::from(bdev::REQUEST_BYTES_MAX));
        return Err(unfit("bs", format!("must be at most {max}, and not zero")));
    }
    if plan.verify && !plan.rw.writes() {
        let reason = "what others wrote cannot be judged: needs a workload that writes";
        return Err(unfit("verify", reason));
    }
    Ok(())
}

/// The part of the first job, in blocks of the namespace.
fn part(plan: &Plan, namespace: NamespaceInfo, transfer_max: u64) -> Result<JobPlan, SessionError> {
    let NamespaceInfo { block_size, blocks, .. } = namespace;
    let bytes = u64::from(plan.bytes);
    if !plan.bytes.is_multiple_of(block_size) {
        return Err(unfit(
            "bs",
            format!("{} is not a multiple of the blocks of {block_size} bytes", plan.bytes),
        ));
    }
    if bytes > transfer_max {
        let max = show_size(transfer_max);
        return Err(unfit("bs", format!("the target takes {max} at most")));
    }
    let blocks = match plan.region {
        None => blocks,
        Some(region) if region.div_ceil(u64::from(block_size)) <= blocks => {
            region / u64::from(block_size)
        }
        Some(_) => {
            let has = show_size(blocks.saturating_mul(u64::from(block_size)));
            return Err(unfit("size", format!("the namespace has {has}")));
        }
    };
    let len = blocks / u64::from(plan.jobs);
    let steps = len / u64::from(plan.bytes / block_size);
    if steps == 0 {
        return Err(unfit("size", "the part of each job is smaller than one operation"));
    }
    if plan.verify && blocks > VERIFIED_BLOCKS_MAX {
        let max = show_size(VERIFIED_BLOCKS_MAX * u64::from(block_size));
        return Err(unfit("size", format!("{max} can be verified at most")));
    }
    if plan.rw == Rw::ZipfWrite && steps > ZIPF_STEPS_MAX {
        let max = show_size(ZIPF_STEPS_MAX * bytes * u64::from(plan.jobs));
        return Err(unfit("size", format!("{max} can be drawn from at most")));
    }
    let Plan { rw, read_percent, depth, seed, verify, .. } = *plan;
    let workload = Workload { rw, blocks: plan.bytes / block_size, read_percent, first: 0, len };
    Ok(JobPlan { workload, depth, block_size, seed, verify })
}

/// A pool for `jobs` jobs of `depth` buffers of `bytes` each, and for one that fills the device.
///
/// # Errors
/// When the system has no memory for it.
pub fn pool(jobs: u32, depth: u32, bytes: u32) -> Result<Pool, PoolError> {
    let mut segments = [64, 64, 64, 64, 2];
    let class = [4u32, 16, 64, 256, 1024].iter().position(|kib| bytes <= kib << 10);
    segments[class.unwrap_or(4)] += jobs * depth;
    Pool::new(&PoolConfig { segments, huge_pages: true })
}

/// Sockets for `queues` I/O queues and their admin queue, of the calling thread.
///
/// # Errors
/// What the system refused.
pub fn sockets(queues: u16) -> Result<UringNet, net::NetError> {
    UringNet::new(&UringNetConfig {
        connections_max: usize::from(queues) + 1,
        iovecs: BATCH_PIECES,
        ..UringNetConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        rw: Rw::RandRw,
        bytes: 4096,
        depth: 32,
        jobs: 2,
        read_percent: 70,
        region: None,
        time: None,
        ramp: Duration::ZERO,
        rate: None,
        seed: 1,
        verify: false,
    };

    fn namespace(block_size: u32, blocks: u64) -> NamespaceInfo {
        NamespaceInfo { nsid: 1, block_size, blocks, nguid: [0; 16] }
    }

    fn field(plan: &Plan, namespace: NamespaceInfo) -> Option<&'static str> {
        let judged = check(plan).and_then(|()| part(plan, namespace, 1 << 20).map(drop));
        match judged.err()? {
            SessionError::Unfit { field, .. } => Some(field),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn plans_are_measured_against_what_is_there() {
        let disk = namespace(512, 2048);
        assert_eq!(field(&PLAN, disk), None);
        for (plan, wrong) in [
            (Plan { bytes: 1000, ..PLAN }, "bs"),
            (Plan { bytes: 0, ..PLAN }, "bs"),
            (Plan { bytes: 2 << 20, ..PLAN }, "bs"),
            (Plan { jobs: 65, ..PLAN }, "numjobs"),
            (Plan { depth: 0, ..PLAN }, "iodepth"),
            (Plan { region: Some((1 << 20) + 1), ..PLAN }, "size"),
            (Plan { region: Some(4096), ..PLAN }, "size"),
            (Plan { rw: Rw::Read, verify: true, ..PLAN }, "verify"),
        ] {
            assert_eq!(field(&plan, disk), Some(wrong), "{plan:?}");
        }
        let small = Plan { bytes: 4096, ..PLAN };
        assert!(part(&small, disk, 2048).is_err(), "the target takes less");
        let huge = namespace(4096, u64::MAX);
        assert_eq!(field(&Plan { verify: true, ..PLAN }, huge), Some("size"));
        assert_eq!(field(&Plan { rw: Rw::ZipfWrite, ..PLAN }, huge), Some("size"));
        assert_eq!(field(&PLAN, huge), None);
    }

    #[test]
    fn jobs_share_the_region_in_whole_blocks() {
        let plan = Plan { jobs: 3, region: Some(100 * 512), bytes: 512, ..PLAN };
        let part = part(&plan, namespace(512, 2048), 1 << 20).unwrap();
        assert_eq!((part.workload.len, part.workload.blocks), (33, 1));
    }
}
