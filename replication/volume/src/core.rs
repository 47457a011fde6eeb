//! The running engine: what it owns, and one turn of it.

use bdev::{Completion, Data, Fifo, Info, Instant, Op, OpSet, Request, Slots, Status};
use store::Store;
use wal::Wal;

use crate::admission::Admission;
use crate::checking::Checking;
use crate::checkpoint::Checkpoint;
use crate::commit::Pending;
use crate::control::Controls;
use crate::destage::Destage;
use crate::device::{Device, Purpose};
use crate::error::Event;
use crate::journal::{Journal, Marks};
use crate::layers::Layers;
use crate::limits::{
    ATOMIC_BYTES, CONTROLS_MAX, EVENTS_MAX, IOS_MAX, OP_BLOCKS_MAX, OPS_MAX, OPS_SHARE_MIN,
    PENDING_CRCS_MAX, PENDING_MAX, QUEUES_MAX,
};
use crate::lock::Locks;
use crate::op::{HostOp, Stage};
use crate::opening::Options;
use crate::overlay::Overlay;
use crate::qos::Flows;
use crate::read::Source;
use crate::reserve::Reserve;
use crate::resize::Shrinking;
use crate::scrub::Scrub;
use crate::space::SpaceWatch;
use crate::stats::Stats;

/// One queue to a volume.
#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) volume: u32,
    /// The volume among those with queues.
    pub(crate) flow: u32,
    pub(crate) info: Info,
    /// Finished requests that `poll` has not fetched. As deep as the queue, so it never overflows.
    pub(crate) done: Fifo<Completion>,
    pub(crate) in_flight: u32,
    /// The queue was dropped: completions go nowhere, and the slot is freed with the last of them.
    pub(crate) closed: bool,
    /// The volume is being deleted.
    pub(crate) gone: bool,
    /// It is a queue to a snapshot.
    pub(crate) read_only: bool,
}

impl QueueState {
    fn check(&self, request: &Request) -> Result<(), Status> {
        self.info.check(request)?;
        match request.op {
            Op::Read | Op::Compare | Op::Flush => Ok(()),
            _ if self.read_only => Err(Status::WriteProtected),
            _ => Ok(()),
        }
    }
}

/// An engine that serves I/O. See the crate documentation for what calls what.
pub(crate) struct Core {
    pub(crate) device: Device,
    pub(crate) store: Store,
    pub(crate) wal: Wal,
    pub(crate) overlay: Overlay,
    pub(crate) layers: Layers,
    pub(crate) journal: Journal,
    /// Records appended and not yet durable, and the checksums of their blocks.
    pub(crate) pending: Fifo<Pending>,
    pub(crate) crcs: Fifo<u32>,
    /// Slots of the overlay that records in `pending` will take.
    pub(crate) pledged_blocks: usize,
    pub(crate) pledged_ranges: usize,
    /// Records in `pending` that may unmap an extent, or undo what was set aside for one.
    pub(crate) pending_doubts: u32,
    /// Records in `pending` that zero something.
    pub(crate) pending_zeroes: u64,
    pub(crate) queues: Slots<QueueState>,
    pub(crate) ops: Slots<HostOp>,
    /// Operations that could not go on, in the order in which they came.
    pub(crate) parked_reads: Fifo<u32>,
    pub(crate) parked_writes: Fifo<u32>,
    /// Direct writes whose data is on the device, in its cache if it has one.
    pub(crate) unflushed: Fifo<u32>,
    /// How many of them, from the front, the flush in flight covers.
    pub(crate) flushing: usize,
    /// Direct writes whose data is durable and whose records wait for the log.
    pub(crate) parked_directs: Fifo<u32>,
    pub(crate) locks: Locks,
    /// Extents set aside for blocks in the overlay.
    pub(crate) reserved: u64,
    /// Someone lacks space: destage and checkpoint everything.
    pub(crate) space_wanted: bool,
    /// Operations that wait for space.
    pub(crate) space_waiters: u32,
    /// Direct writes whose records are not all in the log.
    pub(crate) directs: u32,
    pub(crate) admission: Admission,
    pub(crate) flows: Flows,
    pub(crate) space_watch: SpaceWatch,
    pub(crate) destage: Destage,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) scrub: Scrub,
    pub(crate) checking: Checking,
    pub(crate) marks: Marks,
    pub(crate) controls: Controls,
    /// The volume that takes no new requests, because it is about to be restored.
    pub(crate) quiesced: Option<u32>,
    /// The volume that takes no new requests beyond a smaller size.
    pub(crate) shrinking: Option<Shrinking>,
    pub(crate) events: Fifo<Event>,
    pub(crate) stats: Stats,
    pub(crate) failed: Option<Status>,
    pub(crate) draining: bool,
    pub(crate) now: Instant,
    pub(crate) written_at: Instant,
    /// Largest record of a write, in blocks.
    pub(crate) piece_blocks: u64,
    /// Where the blocks of the read at hand are; scratch space.
    pub(crate) sources: Vec<Source>,
    pub(crate) log_blocked: bool,
    pub(crate) idle_ns: u64,
    /// Last, so that it is dropped after everything that holds its segments.
    pub(crate) reserve: Reserve,
}

/// What a [`Core`] is made of.
pub(crate) struct Parts {
    pub(crate) reserve: Reserve,
    pub(crate) device: Device,
    pub(crate) store: Store,
    pub(crate) wal: Wal,
    pub(crate) overlay: Overlay,
    pub(crate) layers: Layers,
    pub(crate) journal: Journal,
    pub(crate) marks: Marks,
    pub(crate) destage: Destage,
    pub(crate) reserved: u64,
    pub(crate) piece_blocks: u64,
    pub(crate) options: Options,
    pub(crate) replayed: u64,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Core {
        let stats = Stats { replayed_records: parts.replayed, ..Stats::default() };
        let mut checkpoint = Checkpoint::new(parts.wal.tail());
        if parts.store.nodes().all(|node| node.is_active()) {
            checkpoint.nothing_deleted();
        }
        let rate = parts.options.scrub_bytes_per_second;
        let scrub = Scrub::new(rate, parts.store.scrub_record());
        Core {
            reserve: parts.reserve,
            device: parts.device,
            store: parts.store,
            checkpoint,
            scrub,
            checking: Checking::default(),
            wal: parts.wal,
            overlay: parts.overlay,
            layers: parts.layers,
            journal: parts.journal,
            pending: Fifo::new(PENDING_MAX),
            crcs: Fifo::new(PENDING_CRCS_MAX),
            pledged_blocks: 0,
            pledged_ranges: 0,
            pending_doubts: 0,
            pending_zeroes: 0,
            queues: Slots::new(QUEUES_MAX),
            ops: Slots::new(OPS_MAX),
            parked_reads: Fifo::new(OPS_MAX),
            parked_writes: Fifo::new(OPS_MAX),
            unflushed: Fifo::new(IOS_MAX),
            flushing: 0,
            parked_directs: Fifo::new(IOS_MAX),
            locks: Locks::new(OPS_MAX),
            reserved: parts.reserved,
            space_wanted: false,
            space_waiters: 0,
            directs: 0,
            admission: Admission::new(parts.options.admission_deadline_ns),
            flows: Flows::new(),
            space_watch: SpaceWatch::new(parts.options.space_low_percent),
            destage: parts.destage,
            marks: parts.marks,
            controls: Controls::new(),
            quiesced: None,
            shrinking: None,
            events: Fifo::new(EVENTS_MAX),
            stats,
            failed: None,
            draining: false,
            now: Instant::ZERO,
            written_at: Instant::ZERO,
            piece_blocks: parts.piece_blocks,
            sources: Vec::with_capacity(OP_BLOCKS_MAX),
            log_blocked: false,
            idle_ns: parts.options.idle_ns,
        }
    }

    /// One turn: parked work, background work, requests out, completions in. True when anything
    /// happened, so that the caller knows that another turn is worth it.
    pub(crate) fn drive(&mut self, now: Instant) -> bool {
        self.now = self.now.max(now);
        let told = self.events.len();
        let woke = self.flows.woke(self.now);
        self.retry_parked();
        self.drive_controls();
        self.flush_directs();
        let scrubbed = self.scrub_step();
        let mut progress = self.background() | woke | scrubbed;
        let before = self.device.machines.len();
        self.wal.poll_requests(&mut self.device.machines);
        self.store.poll_requests(&mut self.device.machines, &self.reserve);
        self.device.count_machines(before);
        progress |= self.device.turn();
        progress |= self.complete();
        progress |= self.drive_log();
        progress |= self.drive_store();
        self.watch_space();
        self.watch_device();
        // An answer may be all that a turn brings: who asked must look for it.
        progress | (self.events.len() > told)
    }

    /// Hands completions of the device to whoever asked.
    fn complete(&mut self) -> bool {
        let progress = !self.device.done.is_empty();
        while let Some(completion) = self.device.done.pop() {
            self.device.end(&completion);
            if !completion.status.is_ok() {
                self.stats.device_errors += 1;
            }
            match completion.tag.0 >> 28 {
                wal::TAG_CLASS => self.wal.on_completion(completion),
                store::TAG_CLASS => self.store.on_completion(completion),
                _ => self.on_io(completion),
            }
        }
        progress
    }

    fn on_io(&mut self, completion: Completion) {
        let key = completion.tag.0 & 0x0fff_ffff;
        let io = *self.device.ios.get(key).expect("a completion belongs to a slot");
        match (io.purpose, completion.data) {
            (Purpose::Read { first, whole }, Data::Into(buf)) => {
                self.device.ios.remove(key);
                self.on_read(&io, first, whole, completion.status, buf);
            }
            (Purpose::Edge { last }, Data::Into(buf)) => {
                self.device.ios.remove(key);
                self.on_edge(&io, last, completion.status, buf);
            }
            (Purpose::Direct { .. }, Data::From(slice)) => {
                drop(slice);
                self.on_direct(key, completion.status);
            }
            (Purpose::Flush, Data::None) => {
                self.device.ios.remove(key);
                self.on_flushed(completion.status);
            }
            (Purpose::WindowRead, Data::Into(buf)) => {
                self.device.ios.remove(key);
                self.on_window_read(completion.status, buf);
            }
            (Purpose::CopyRead { .. }, Data::Into(buf)) => {
                self.device.ios.remove(key);
                self.on_copy_read(&io, completion.status, buf);
            }
            (Purpose::Scrub, Data::Into(buf)) => {
                self.device.ios.remove(key);
                self.on_scrub_read(completion.status, &buf);
            }
            (Purpose::Destage { .. }, Data::From(buf)) => {
                self.on_destaged(key, completion.status, buf);
            }
            _ => panic!("the device gives back the buffer that it was given"),
        }
    }

    /// Takes requests of a queue while there is room.
    pub(crate) fn submit(&mut self, queue: u32, requests: &mut Fifo<Request>) {
        let quarantined = self.device.is_quarantined();
        loop {
            let Some(state) = self.queues.get_mut(queue) else { return };
            if self.quiesced == Some(state.volume) {
                return;
            }
            let full = state.in_flight as usize >= state.done.capacity() || self.ops.is_full();
            let Some(next) = requests.front().filter(|_| !full) else { return };
            // A volume with a deep queue leaves places to the others.
            let crowded = self.ops.len() >= OPS_MAX / 4 * 3
                || (next.op != Op::Read && self.parked_writes.len() >= OPS_MAX / 2);
            if crowded && self.flows.ops(state.flow) >= OPS_SHARE_MIN {
                return;
            }
            let refused = if state.gone { Err(Status::Gone) } else { state.check(next) };
            let refused = if quarantined { Err(Status::Io) } else { refused };
            let limited = refused.is_ok() && next.op != Op::Flush;
            if limited && !self.flows.take(state.flow, data_bytes(next, &state.info), self.now) {
                return;
            }
            let request = requests.pop().expect("just seen");
            state.in_flight += 1;
            if let Err(status) = refused {
                self.stats.host_errors += 1;
                push_done(state, request.complete(status));
                continue;
            }
            let (flow, volume) = (state.flow, state.volume);
            let mut op = HostOp::new(request, queue, volume, state.info.block_size);
            op.arrived = self.now;
            self.flows.begin_op(flow);
            self.start(op, flow);
        }
    }

    /// Starts a checked operation.
    fn start(&mut self, op: HostOp, flow: u32) {
        let kind = op.request.op;
        let bytes = op.bytes as u64;
        let empty = kind == Op::Flush || op.blocks == 0;
        let key = self.ops.insert(op).expect("the caller checked for room");
        match kind {
            // Everything that was completed is durable: there is nothing to flush.
            Op::Flush => self.finish(key, Status::Ok),
            _ if empty => self.finish(key, Status::Ok),
            Op::Read | Op::Compare => {
                self.stats.host_reads += 1;
                self.stats.host_read_bytes += bytes;
                self.try_read(key);
            }
            Op::Write | Op::CompareAndWrite => {
                self.stats.host_writes += 1;
                self.stats.host_written_bytes += bytes;
                self.start_write(key, flow);
            }
            Op::Reserve => unreachable!("refused: volumes do not offer it"),
            Op::Deallocate | Op::WriteZeroes => {
                self.stats.host_zeroes += 1;
                self.start_write(key, flow);
            }
        }
    }

    /// Tries a write, or sends it to the end of the line that waits for the log.
    fn start_write(&mut self, key: u32, flow: u32) {
        self.written_at = self.now;
        if self.log_blocked && self.failed.is_none() {
            self.park_write(key);
        } else {
            self.try_in_turn(key, flow);
        }
    }

    /// Gives an operation's buffer back to its queue.
    pub(crate) fn finish(&mut self, key: u32, status: Status) {
        self.end_space_wait(key);
        self.reserve.end_op(key);
        let mut op = self.ops.remove(key).expect("an operation ends once");
        if status.is_ok() && op.request.op == Op::Read {
            op.end_read();
        }
        if let Some(lock) = op.lock.filter(|_| !bdev::planted(bdev::Planted::LockKept)) {
            self.locks.leave(lock);
        }
        if !status.is_ok() {
            self.stats.host_errors += u64::from(status != Status::Miscompare);
            self.stats.no_space += u64::from(status == Status::NoSpace);
        }
        let queue = self.queues.get_mut(op.queue).expect("a queue outlives its operations");
        let flow = queue.flow;
        self.flows.end_op(flow);
        if !queue.closed {
            push_done(queue, op.request.complete(status));
            return;
        }
        queue.in_flight -= 1;
        if queue.in_flight == 0 {
            self.queues.remove(op.queue);
            self.flows.close(flow);
        }
    }

    /// Ends an operation if nothing keeps it any more.
    pub(crate) fn settle(&mut self, key: u32) {
        let op = self.ops.get(key).expect("the caller holds the operation");
        if op.is_over() {
            if op.stage == Stage::Comparing {
                return self.on_compared(key);
            }
            let status = op.status;
            self.finish(key, status);
        }
    }

    /// What the store has to say.
    fn drive_store(&mut self) -> bool {
        let mut progress = false;
        while let Some(event) = self.store.poll_event() {
            progress = true;
            match event {
                store::Event::CheckpointDone(tail) => self.on_checkpoint(tail),
                store::Event::CheckpointFailed(status) => {
                    self.checkpoint.abort();
                    self.fail("writing a checkpoint", status);
                }
                store::Event::Damaged(damage) => {
                    // What the second copy replaced is lost to nobody.
                    self.stats.integrity_errors += u64::from(!damage.healed);
                    self.report(Event::Metadata(damage));
                }
                _ => {}
            }
        }
        progress
    }

    /// Stops everything but reads.
    pub(crate) fn fail(&mut self, what: &'static str, status: Status) {
        if self.failed.is_none() {
            self.failed = Some(status);
            self.wal.halt(status);
            self.store.halt(status);
            self.report(Event::Failed { what, status });
        }
    }

    /// Keeps an event if there is room; the counters know it in any case. The last places are for
    /// control operations, whose answers are never dropped.
    pub(crate) fn report(&mut self, event: Event) {
        if self.events.room() > CONTROLS_MAX {
            let pushed = self.events.push(event);
            assert!(pushed.is_ok(), "room was checked");
        }
    }

    /// Counters and gauges.
    pub(crate) fn stats(&self) -> Stats {
        let block = crate::device::BLOCK as u64;
        let written = self.device.written;
        Stats {
            log_written_bytes: written.log,
            data_written_bytes: written.data,
            metadata_written_bytes: written.metadata,
            device_read_bytes: written.read,
            log_bytes: self.wal.ring_blocks() * block,
            log_used_bytes: self.wal.used_blocks() * block,
            overlay_blocks: self.overlay.len() as u64,
            healed_pages: self.store.stats().healed,
            waiting_snapshots: self.layers.waiting().count() as u64,
            parked_now: (self.parked_writes.len() + self.parked_directs.len()) as u64,
            free_bytes: self.store.free_extents() * store::EXTENT_BYTES,
            total_bytes: self.store.total_extents() * store::EXTENT_BYTES,
            ..self.stats
        }
    }

    /// With nothing in the log and nobody waiting, nothing is set aside, pledged or locked.
    pub(crate) fn assert_nothing_kept(&self) {
        assert_eq!(self.reserved, 0, "each extent that was set aside was used or given back");
        assert_eq!((self.pledged_blocks, self.pledged_ranges), (0, 0), "no record is pending");
        assert_eq!((self.directs, self.space_waiters), (0, 0), "no operation is under way");
        assert_eq!(self.overlay.len(), 0, "the map has all of the log");
        assert!(self.locks.is_empty(), "whoever held a range has left");
        assert_eq!(self.store.tentative_extents(), 0, "what was taken was mapped or given back");
    }

    /// True when no host waits for anything.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ops.is_empty() && self.controls.is_empty()
    }
}

/// Bytes that a checked request moves.
fn data_bytes(request: &Request, info: &Info) -> u64 {
    match request.data {
        Data::None => 0,
        Data::Into(_) | Data::From(_) => u64::from(request.blocks) * u64::from(info.block_size),
    }
}

/// What a volume is to those who open it.
pub(crate) fn volume_info(bytes: u64, block_bytes: u32) -> Info {
    let mut info = Info::new(block_bytes, bytes / u64::from(block_bytes));
    info.atomic_blocks = ATOMIC_BYTES / block_bytes;
    info.ops = OpSet::of(&Op::ALL);
    info
}

fn push_done(queue: &mut QueueState, completion: Completion) {
    if bdev::planted(bdev::Planted::AnsweredTwice) && matches!(completion.data, Data::None) {
        let again = Completion { tag: completion.tag, data: Data::None, status: completion.status };
        if queue.done.room() > 1 {
            assert!(queue.done.push(again).is_ok(), "room was checked");
            queue.in_flight += 1;
        }
    }
    let pushed = queue.done.push(completion);
    assert!(pushed.is_ok(), "a queue has room for everything that it took");
}
