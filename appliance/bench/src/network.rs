//! Rows over the network: a client on its own CPU, a target in this process or elsewhere.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bdev::Pool;
use load::{Client, Clock, ConnectError, Destination, JOBS_MAX, Job, Observer, run};
use nvmf::{Digests, Nqn};
use reactor::{Idle, ReactorStats, Snapshot, pin_to_core};

use crate::direct::{fill, timeline};
use crate::error::BenchError;
use crate::meter::{Meter, ThreadId};
use crate::options::{Device, IdleChoice, Options};
use crate::report::Row;
use crate::shape::Shape;
use crate::target::{LocalTarget, TargetPlan, subsystem};

/// Where a row goes, and how its target is observed.
pub struct Site {
    name: String,
    address: SocketAddr,
    nqn: Nqn,
    thread: Option<ThreadId>,
    stats: Option<Arc<ReactorStats>>,
}

impl Site {
    /// A target in this process.
    pub fn local(name: &str, target: &LocalTarget) -> Site {
        Site {
            name: name.to_owned(),
            address: target.address(),
            nqn: subsystem(),
            thread: target.thread(),
            stats: Some(target.stats()),
        }
    }

    /// A target elsewhere: its CPU time is not known.
    ///
    /// # Errors
    /// When the device is not a remote one, or its NQN is none.
    pub fn remote(device: &Device) -> Result<Site, BenchError> {
        let Device::Remote { address, nqn } = device else {
            return Err(BenchError::Usage(format!("{device} is not a remote device")));
        };
        let nqn = Nqn::new(nqn).map_err(|error| BenchError::Usage(error.to_string()))?;
        let name = device.to_string();
        Ok(Site { name, address: *address, nqn, thread: None, stats: None })
    }

    /// The name of the device in a table.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The idling that the command line asks for.
pub fn idle(choice: IdleChoice) -> Idle {
    match choice {
        IdleChoice::Spin => Idle::Spin,
        IdleChoice::Adaptive => Idle::Adaptive,
    }
}

/// The plan of a target for the command line, with `store` behind it.
pub fn plan(options: &Options, store: node::StoreSpec) -> TargetPlan {
    TargetPlan {
        store,
        bytes: options.size,
        block_size: crate::direct::BLOCK_SIZE,
        cpu: usize::try_from(options.target_cpu).ok(),
        idle: idle(options.idle),
    }
}

/// Keeps the calling thread, the initiator, on its CPU. A machine with too few CPUs is no failure:
/// the numbers then say what they say.
pub fn pin_initiator(options: &Options) {
    if let Ok(cpu) = usize::try_from(options.client_cpu)
        && let Err(error) = pin_to_core(cpu)
    {
        eprintln!("holdfast-bench: the initiator is not pinned to CPU {cpu}: {error}");
    }
}

/// Connects `queues` I/O queues of the calling thread to a site.
///
/// # Errors
/// Sockets that cannot be had, or a target that refuses.
pub fn connect(
    site: &Site,
    pool: &Rc<Pool>,
    queues: u32,
    digests: bool,
) -> Result<Client, BenchError> {
    let queues = u16::try_from(queues.min(JOBS_MAX)).expect("few");
    let net = load::sockets(queues).map_err(ConnectError::Net)?;
    let digests = Digests { header: digests, data: digests };
    let destination = Destination { queues, digests, ..Destination::new(site.address, site.nqn) };
    let clock = Clock::start();
    let client =
        Client::connect(Box::new(net), Rc::clone(pool), &destination, &mut || clock.now())?;
    Ok(client)
}

/// Writes the used part of the namespace once, so that reads find data.
///
/// # Errors
/// As [`connect`] and [`run`].
pub fn fill_site(options: &Options, site: &Site) -> Result<(), BenchError> {
    let pool = Rc::new(crate::direct::pool(1, 8, 128 << 10)?);
    let client = connect(site, &pool, 1, false)?;
    let namespace = client.namespace();
    let len = namespace.blocks.min(options.size / u64::from(namespace.block_size));
    fill(client.queue(0), &pool, namespace.block_size, len)?;
    Ok(())
}

/// Runs one workload against a site.
///
/// # Errors
/// As [`connect`] and [`run`].
pub fn row(options: &Options, site: &Site, shape: Shape) -> Result<Row, BenchError> {
    let pool = Rc::new(crate::direct::pool(shape.jobs, shape.depth, shape.bytes)?);
    let client = connect(site, &pool, shape.jobs, shape.digests)?;
    let namespace = client.namespace();
    let jobs = (0..shape.jobs).map(|number| {
        let plan = shape.plan(options, namespace.block_size, namespace.blocks, number)?;
        let queue = client.queue(u16::try_from(number).expect("few"));
        Ok(Job::new(queue, &pool, &plan)?)
    });
    let mut jobs = jobs.collect::<Result<Vec<_>, BenchError>>()?;
    let mut watch = Watch::new(site);
    let clock = Clock::start();
    let outcome = run(&mut jobs, &timeline(options), &mut || clock.now(), &mut watch)?;
    let mut row = Row::new(&site.name, &shape, &outcome, &watch.meter);
    row.busy_percent = watch.busy_percent();
    Ok(row)
}

/// Reads the meter of the target's thread and the counters of its reactor.
struct Watch {
    meter: Meter,
    stats: Option<Arc<ReactorStats>>,
    begin: Snapshot,
    seen: Snapshot,
}

impl Watch {
    fn new(site: &Site) -> Watch {
        let (begin, seen) = (Snapshot::default(), Snapshot::default());
        Watch { meter: Meter::new(site.thread), stats: site.stats.clone(), begin, seen }
    }

    fn snapshot(&self) -> Snapshot {
        self.stats.as_ref().map_or(Snapshot::default(), |stats| stats.snapshot())
    }

    /// Turns that found work, as a share of all the time there was.
    fn busy_percent(&self) -> Option<u64> {
        let all = self.seen.busy + self.seen.idle + self.seen.slept;
        let percent = (self.seen.busy.as_nanos() * 100).checked_div(all.as_nanos())?;
        u64::try_from(percent).ok()
    }
}

impl Observer for Watch {
    fn measured_begins(&mut self) {
        self.begin = self.snapshot();
        self.meter.measured_begins();
    }

    fn measured_ended(&mut self) {
        self.meter.measured_ended();
        self.seen = self.snapshot().since(&self.begin);
    }

    fn counted_begins(&mut self) {
        self.meter.counted_begins();
    }

    fn counted_ended(&mut self) {
        self.meter.counted_ended();
    }
}
