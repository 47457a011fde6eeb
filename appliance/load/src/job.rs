//! One polled loop of I/O on one queue, and the run that drives several of them.
//!
//! A job keeps `depth` operations in flight. It does not know whether its queue is a device in this
//! process or a namespace behind a network: both are a [`bdev::Queue`].
//!
//! ```text
//!  warm-up ---> measured window ---> counted window (optional) ---> drain
//! ```
//!
//! Nothing is allocated between the first operation and the last.

use std::time::Duration;

use bdev::{BufMut, Completion, Data, Fifo, Instant, Lba, Pool, Queue, Request, Tag};
use thiserror::Error;

use crate::clock::nanoseconds;
use crate::histogram::Histogram;
use crate::limits::{DEPTH_MAX, PICKS_MAX, STALL_TIMEOUT};
use crate::pace::Pace;
use crate::verify::{Mismatch, Verifier};
use crate::workload::{Generator, Io, Workload};

/// How long the phases of a run last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Before anything is measured.
    pub warm: Duration,
    /// The measured window.
    pub measured: Duration,
    /// The window in which expensive counters are switched on; zero for none.
    pub counted: Duration,
    /// How often the observer may look and end the run, in the measured window; zero for never.
    pub tick: Duration,
    /// Ends the measured window early, after this many operations; zero for no such limit.
    pub ios_max: u64,
}

/// Why a run failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The pool is too small for the depth.
    #[error("no buffer of {bytes} bytes is free for one of {depth} operations in flight")]
    Buffers {
        /// Size of one buffer.
        bytes: usize,
        /// Operations in flight.
        depth: u32,
    },
    /// The depth is zero or beyond [`DEPTH_MAX`].
    #[error("a depth of {0}: must be 1 to {DEPTH_MAX}")]
    Depth(u32),
    /// Nothing completed for [`STALL_TIMEOUT`].
    #[error("nothing completed for {STALL_TIMEOUT:?}: {in_flight} operations in flight")]
    Stalled {
        /// Operations that did not come back.
        in_flight: u32,
    },
    /// A read returned something else than what was acknowledged.
    #[error("verification failed: {0}")]
    Verify(#[from] Mismatch),
    /// Operations failed.
    #[error("{count} operations failed, the last with {last:?}")]
    Failed {
        /// How many.
        count: u64,
        /// The last status.
        last: bdev::Status,
    },
}

impl RunError {
    /// Whether the way to the device is gone, and not something about the device.
    pub fn is_of_path(&self) -> bool {
        let stalled = matches!(self, RunError::Stalled { .. });
        stalled || matches!(self, RunError::Failed { last: bdev::Status::Gone, .. })
    }
}

/// What a run found out.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Operations completed in the measured window.
    pub ios: u64,
    /// Length of the measured window.
    pub elapsed: Duration,
    /// From submission to completion, of the reads among them.
    pub reads: Histogram,
    /// The same of the writes.
    pub writes: Histogram,
    /// Operations completed in the counted window.
    pub counted_ios: u64,
    /// Operations completed in all.
    pub total_ios: u64,
    /// Blocks that were read and found right (only with verification).
    pub verified_blocks: u64,
}

impl Outcome {
    /// From submission to completion, of all operations in the measured window.
    pub fn latency(&self) -> Histogram {
        let mut both = self.reads.clone();
        both.merge(&self.writes);
        both
    }
}

/// Is told when the windows of a run begin and end, to read its counters.
pub trait Observer {
    /// The measured window begins.
    fn measured_begins(&mut self) {}
    /// The measured window has ended.
    fn measured_ended(&mut self) {}
    /// The counted window begins.
    fn counted_begins(&mut self) {}
    /// The counted window has ended.
    fn counted_ended(&mut self) {}
    /// [`Timeline::tick`] has passed: what was measured so far, in `elapsed`. False ends the run.
    fn ticked(&mut self, _outcome: &Outcome, _elapsed: Duration) -> bool {
        true
    }
}

/// Nobody watches.
impl Observer for () {}

/// What a job does.
#[derive(Clone, Copy, Debug)]
pub struct JobPlan {
    /// The pattern.
    pub workload: Workload,
    /// Operations in flight.
    pub depth: u32,
    /// Bytes in a device block.
    pub block_size: u32,
    /// Draws addresses and contents.
    pub seed: u64,
    /// Write blocks that know who wrote them, and judge what is read.
    pub verify: bool,
}

/// One queue with `depth` operations in flight.
pub struct Job {
    queue: Box<dyn Queue>,
    generator: Generator,
    /// The next step to read back, once what was written is read back.
    reading_back: Option<u64>,
    /// Operations that may still be started.
    left: u64,
    pace: Option<Pace>,
    blocks: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    buffers: Vec<BufMut>,
    requests: Fifo<Request>,
    completions: Fifo<Completion>,
    verifier: Option<Verifier>,
    failures: u64,
    last_failure: bdev::Status,
    mismatch: Option<Mismatch>,
}

#[derive(Clone, Copy)]
struct Slot {
    io: Io,
    started: Instant,
    generation: u64,
}

impl Job {
    /// A job on `queue` with buffers from `pool`. Allocates everything that it will need.
    ///
    /// # Errors
    /// A depth out of range, or too few buffers.
    pub fn new(queue: Box<dyn Queue>, pool: &Pool, plan: &JobPlan) -> Result<Job, RunError> {
        let depth = plan.depth;
        if depth == 0 || depth > DEPTH_MAX {
            return Err(RunError::Depth(depth));
        }
        let bytes = plan.workload.blocks as usize * plan.block_size as usize;
        let mut contents = bdev::Rng::new(plan.seed).fork("contents");
        let mut buffers = Vec::with_capacity(depth as usize);
        for _ in 0..depth {
            let mut buffer = pool.take(bytes).ok_or(RunError::Buffers { bytes, depth })?;
            contents.fill(&mut buffer.bytes_mut()[..bytes]);
            buffers.push(buffer);
        }
        let Workload { first, len, blocks, .. } = plan.workload;
        let idle =
            Slot { io: Io { lba: 0, is_write: false }, started: Instant::ZERO, generation: 0 };
        Ok(Job {
            queue,
            generator: Generator::new(plan.workload, plan.seed),
            reading_back: None,
            left: u64::MAX,
            pace: None,
            blocks,
            slots: vec![idle; depth as usize],
            free: (0..depth).rev().collect(),
            buffers,
            requests: Fifo::new(depth as usize),
            completions: Fifo::new(depth as usize),
            verifier: plan.verify.then(|| Verifier::new(plan.seed, plan.block_size, first, len)),
            failures: 0,
            last_failure: bdev::Status::Ok,
            mismatch: None,
        })
    }

    /// The job, with at most so many operations to do.
    #[must_use]
    pub fn limited(self, ios: u64) -> Job {
        Job { left: ios, ..self }
    }

    /// The job, going no faster than this.
    #[must_use]
    pub fn paced(self, pace: Option<Pace>) -> Job {
        Job { pace, ..self }
    }

    /// From now on reads everything that it wrote, once and as fast as it can.
    ///
    /// # Panics
    /// When it does not verify, or operations are in flight.
    pub fn read_back(&mut self) {
        assert!(self.verifier.is_some() && self.in_flight() == 0);
        (self.reading_back, self.left, self.pace) = (Some(0), u64::MAX, None);
    }

    /// The queue, when the job is done.
    pub fn into_queue(self) -> Box<dyn Queue> {
        self.queue
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.slots.len() - self.free.len()).expect("at most the depth")
    }

    /// Starts operations until `depth` are in flight.
    fn fill(&mut self, now: Instant) {
        while !self.free.is_empty() && self.left > 0 {
            if self.pace.is_some_and(|pace| !pace.allows(now)) {
                break;
            }
            let Some(io) = self.pick() else { break };
            self.left -= 1;
            if let Some(pace) = &mut self.pace {
                pace.started(now);
            }
            let slot = self.free.pop().expect("just seen");
            let mut buffer = self.buffers.pop().expect("as many buffers as slots");
            let mut generation = 0;
            let (lba, tag, blocks) = (Lba(io.lba), Tag(slot), self.blocks);
            let request = if io.is_write {
                if let Some(verifier) = &mut self.verifier {
                    let bytes = blocks as usize * verifier.block_size();
                    generation = verifier.fill(&mut buffer.bytes_mut()[..bytes], io.lba);
                }
                Request::write(tag, lba, blocks, buffer.freeze())
            } else {
                Request::read(tag, lba, blocks, buffer)
            };
            self.slots[slot as usize] = Slot { io, started: now, generation };
            let pushed = self.requests.push(request);
            assert!(pushed.is_ok(), "as much room as slots");
        }
    }

    /// The next operation whose blocks are free; `None` when a few draws found none.
    fn pick(&mut self) -> Option<Io> {
        let Some(verifier) = &mut self.verifier else { return Some(self.generator.next_io()) };
        if let Some(step) = &mut self.reading_back {
            while let Some(lba) = self.generator.step(*step) {
                *step += 1;
                if verifier.knows(lba, self.blocks) {
                    assert!(verifier.begin(lba, self.blocks), "each step is read once");
                    return Some(Io { lba, is_write: false });
                }
            }
            self.left = 0;
            return None;
        }
        let mut picks = (0..PICKS_MAX).map(|_| self.generator.next_io());
        picks.find(|io| verifier.begin(io.lba, self.blocks))
    }

    /// Moves requests out.
    fn submit(&mut self) {
        self.queue.submit(&mut self.requests);
        self.queue.kick();
    }

    /// Moves completions in; true when there are some.
    fn poll(&mut self) -> bool {
        self.queue.poll(&mut self.completions);
        !self.completions.is_empty()
    }

    /// Ends what has completed, calling `ended` with each operation and when it was started.
    fn reap(&mut self, mut ended: impl FnMut(Io, Instant)) {
        while let Some(completion) = self.completions.pop() {
            let Completion { tag, data, status } = completion;
            let slot = self.slots[tag.0 as usize];
            self.free.push(tag.0);
            if !status.is_ok() {
                self.failures += 1;
                self.last_failure = status;
            }
            let buffer = match data {
                Data::Into(buffer) => buffer,
                Data::From(buffer) => buffer.try_unique().expect("devices keep no clone"),
                Data::None => unreachable!("every operation carries a buffer"),
            };
            if self.verifier.is_some() {
                self.judge(slot, status.is_ok(), &buffer);
            }
            self.buffers.push(buffer);
            ended(slot.io, slot.started);
        }
    }

    fn judge(&mut self, slot: Slot, ok: bool, buffer: &BufMut) {
        let verifier = self.verifier.as_mut().expect("the caller checked");
        let Slot { io, generation, .. } = slot;
        if io.is_write {
            verifier.end_write(io.lba, self.blocks, ok.then_some(generation));
            return;
        }
        let bytes = self.blocks as usize * verifier.block_size();
        let data = ok.then(|| &buffer.bytes()[..bytes]);
        if let Err(mismatch) = verifier.end_read(io.lba, self.blocks, data) {
            self.mismatch.get_or_insert(mismatch);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warm,
    Measured,
    Counted,
    Drain,
}

/// Drives `jobs` through the timeline, all from the calling thread.
///
/// # Errors
/// See [`RunError`]. Operations may still be in flight then.
pub fn run(
    jobs: &mut [Job],
    timeline: &Timeline,
    clock: &mut dyn FnMut() -> Instant,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunError> {
    let mut outcome = Outcome::default();
    let mut now = clock();
    let mut run = Run { timeline, phase: Phase::Warm, since: now, ticked: now, observer };
    if timeline.warm.is_zero() {
        run.begin_measuring(now);
    }
    let mut progress = now;
    loop {
        let mut done = 0;
        for job in jobs.iter_mut() {
            if run.phase != Phase::Drain {
                job.fill(now);
            }
            job.submit();
        }
        for job in jobs.iter_mut() {
            if job.poll() {
                now = clock();
                job.reap(|io, started| {
                    done += 1;
                    if run.phase == Phase::Measured {
                        let took = nanoseconds(now.saturating_since(started));
                        match io.is_write {
                            true => outcome.writes.record(took),
                            false => outcome.reads.record(took),
                        }
                    }
                });
            }
        }
        now = clock();
        let in_flight: u32 = jobs.iter().map(Job::in_flight).sum();
        let finished = in_flight == 0 && jobs.iter().all(|job| job.left == 0);
        run.account(&mut outcome, done, now, finished);
        if done > 0 || in_flight == 0 {
            progress = now;
        }
        let broken = jobs.iter().any(|job| job.failures > 0 || job.mismatch.is_some());
        if run.phase == Phase::Drain && in_flight == 0 || broken {
            break;
        }
        if now.saturating_since(progress) > STALL_TIMEOUT {
            return Err(RunError::Stalled { in_flight });
        }
    }
    finish(jobs, outcome)
}

fn finish(jobs: &[Job], mut outcome: Outcome) -> Result<Outcome, RunError> {
    if let Some(mismatch) = jobs.iter().find_map(|job| job.mismatch) {
        return Err(RunError::Verify(mismatch));
    }
    let count: u64 = jobs.iter().map(|job| job.failures).sum();
    if let Some(job) = jobs.iter().find(|job| job.failures > 0) {
        return Err(RunError::Failed { count, last: job.last_failure });
    }
    let checked = jobs.iter().filter_map(|job| job.verifier.as_ref()).map(Verifier::checked);
    outcome.verified_blocks = checked.sum();
    Ok(outcome)
}

struct Run<'a> {
    timeline: &'a Timeline,
    phase: Phase,
    since: Instant,
    ticked: Instant,
    observer: &'a mut dyn Observer,
}

impl Run<'_> {
    fn begin_measuring(&mut self, now: Instant) {
        self.observer.measured_begins();
        self.enter(Phase::Measured, now);
    }

    /// Counts what completed, and moves to the next phase when this one is over or all is
    /// `finished`.
    fn account(&mut self, outcome: &mut Outcome, done: u64, now: Instant, finished: bool) {
        outcome.total_ios += done;
        let spent = now.saturating_since(self.since);
        let ios_max = self.timeline.ios_max;
        match self.phase {
            Phase::Warm if finished || spent >= self.timeline.warm => self.begin_measuring(now),
            Phase::Measured => {
                outcome.ios += done;
                let enough = finished || ios_max > 0 && outcome.total_ios >= ios_max;
                if spent >= self.timeline.measured || enough || self.is_told_to_end(outcome, now) {
                    outcome.elapsed = spent;
                    self.observer.measured_ended();
                    if self.timeline.counted.is_zero() {
                        self.enter(Phase::Drain, now);
                    } else {
                        self.observer.counted_begins();
                        self.enter(Phase::Counted, now);
                    }
                }
            }
            Phase::Counted => {
                outcome.counted_ios += done;
                if finished || spent >= self.timeline.counted {
                    self.observer.counted_ended();
                    self.enter(Phase::Drain, now);
                }
            }
            _ => {}
        }
    }

    /// Lets the observer look, when it is time.
    fn is_told_to_end(&mut self, outcome: &Outcome, now: Instant) -> bool {
        let tick = self.timeline.tick;
        if tick.is_zero() || now.saturating_since(self.ticked) < tick {
            return false;
        }
        self.ticked = now;
        !self.observer.ticked(outcome, now.saturating_since(self.since))
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        (self.since, self.ticked) = (now, now);
    }
}
