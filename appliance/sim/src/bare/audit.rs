//! What the offline check says of the disk when no engine is on it.

use bdev::{Bdev, Completion, Fifo, Queue, QueueCx, Request};
use bdev_sim::{FaultPlan, SimDisk};
use store::{CheckOptions, CheckReport, Finding};

use crate::bare::plan::BarePlan;
use crate::bare::world::Bare;

/// Nothing leaked, nothing is used twice, and (with `data`, after an orderly end) every block
/// matches its checksum.
///
/// # Errors
/// The findings.
pub(crate) fn check(world: &Bare, data: bool) -> Result<CheckReport, String> {
    let image = world.disk.image();
    let disk = SimDisk::with_image(world.plan.disk.block_size, image, FaultPlan::reliable(1));
    let inner = disk.open(&QueueCx::new(&world.pool)).map_err(|error| error.to_string())?;
    let mut queue = Stepping { inner, disk: disk.clone() };
    let report = store::check(&mut queue, disk.info(), &world.pool, &CheckOptions { data });
    // The power may have been cut while a superblock was written; the other one counts.
    let listed = findings(&world.plan, &report, !data);
    match listed.is_empty() {
        true => Ok(report),
        false => Err(format!("the check finds {} things: {listed:?}", listed.len())),
    }
}

/// What a check must not have found: one copy of two may be bad where single copies are damaged, or
/// where a start comes that mends a `torn` superblock.
pub(crate) fn findings(plan: &BarePlan, report: &CheckReport, torn: bool) -> Vec<String> {
    let is_forgiven = |finding: &Finding| match finding {
        Finding::Superblock { .. } => torn || plan.scars,
        Finding::Copy(_) => plan.scars,
        _ => false,
    };
    let findings = report.findings.iter().filter(|finding| !is_forgiven(finding));
    findings.map(ToString::to_string).collect()
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
