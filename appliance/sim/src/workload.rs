//! What a simulated host does: random requests, every answer checked.

use bdev::{BufMut, Completion, Data, Lba, Op, Request, Rng, Slots, Status, Tag};

use crate::history::{History, Moment};
use crate::host::Host;
use crate::pattern;

/// A volume as hosts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its namespace.
    pub nsid: u32,
    /// Bytes in a block.
    pub block_size: u32,
    /// The first blocks, which the workload uses.
    pub span: u64,
}

/// One host's requests.
pub struct Workload {
    rng: Rng,
    depth: usize,
    blocks_max: u64,
    shapes: Vec<Shape>,
    outstanding: Slots<Pending>,
    /// No new requests.
    pub stopped: bool,
    /// Blocks to be read, one after the other, instead of random requests.
    audit: Vec<Run>,
    auditing: bool,
    /// Requests that were answered with an error, by status.
    pub errors: [u64; Status::ALL.len()],
    /// Requests that were answered as done.
    pub done: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    op: Op,
    volume: u32,
    lba: u64,
    blocks: u32,
    began: Moment,
}

/// Blocks to be read together.
#[derive(Clone, Copy, Debug)]
struct Run {
    volume: u32,
    lba: u64,
    blocks: u32,
}

/// Most blocks that the audit reads together.
const AUDIT_BLOCKS_MAX: u32 = 64;

impl Run {
    fn takes(&self, volume: u32, lba: u64) -> bool {
        let next = self.lba + u64::from(self.blocks);
        self.volume == volume && next == lba && self.blocks < AUDIT_BLOCKS_MAX
    }
}

/// Where a workload looks things up and reports.
pub struct Ledger {
    /// What blocks may contain.
    pub history: History,
    /// The last moment that was given out.
    pub moment: Moment,
    /// When the oldest read began that is not answered.
    pub oldest_read: Moment,
    /// A digest of every answer.
    pub hash: u64,
    /// Which errors the plan allows.
    pub allowed: Vec<Status>,
}

impl Ledger {
    /// The next moment.
    pub fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// Adds a word to the digest.
    pub fn note(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    }
}

impl Workload {
    /// Requests of at most `blocks_max` blocks, up to `depth` at a time.
    pub fn new(rng: Rng, depth: usize, blocks_max: u64, shapes: Vec<Shape>) -> Workload {
        Workload {
            rng,
            depth,
            blocks_max,
            shapes,
            outstanding: Slots::new(depth),
            stopped: false,
            audit: Vec::new(),
            auditing: false,
            errors: [0; Status::ALL.len()],
            done: 0,
        }
    }

    /// Requests that were submitted and not answered.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// When the oldest read began that is not answered.
    pub fn oldest_read(&self) -> Moment {
        let reads = self.outstanding.iter().filter(|(_, pending)| pending.op == Op::Read);
        reads.map(|(_, pending)| pending.began).min().unwrap_or(Moment::MAX)
    }

    /// Reads these blocks (ascending) once each, and nothing else any more.
    pub fn start_audit(&mut self, blocks: impl Iterator<Item = (u32, u64)>) {
        for (volume, lba) in blocks {
            match self.audit.last_mut() {
                Some(run) if run.takes(volume, lba) => run.blocks += 1,
                _ => self.audit.push(Run { volume, lba, blocks: 1 }),
            }
        }
        self.auditing = true;
        self.stopped = true;
    }

    /// Whether the audit is over.
    pub fn audit_is_over(&self) -> bool {
        self.audit.is_empty() && self.outstanding.is_empty()
    }

    /// Submits what fits. True when anything was submitted.
    pub fn submit(&mut self, host: &mut Host, ledger: &mut Ledger) -> bool {
        let mut found = false;
        while host.is_ready() && self.outstanding.len() < self.depth {
            let Some(next) = self.next_request() else { break };
            let shape = self.shapes[next.volume as usize];
            let began = ledger.tick();
            let Some(data) = self.data(host, &next, shape, began) else { break };
            let pending = Pending { began, ..next };
            let tag = self.outstanding.insert(pending).expect("below the depth");
            let Pending { op, lba, blocks, .. } = pending;
            let request =
                Request { tag: Tag(tag), data, ..Request::range(Tag(tag), op, Lba(lba), blocks) };
            if let Err(_no_room) = host.submit(shape.nsid, shape.block_size, request) {
                self.outstanding.remove(tag);
                break;
            }
            if !self.audit.is_empty() {
                self.audit.pop();
            }
            self.begin(&pending, ledger);
            found = true;
        }
        found
    }

    fn next_request(&mut self) -> Option<Pending> {
        if let Some(&Run { volume, lba, blocks }) = self.audit.last() {
            return Some(Pending { op: Op::Read, volume, lba, blocks, began: 0 });
        }
        if self.stopped {
            return None;
        }
        let volume = self.rng.index(self.shapes.len())?;
        let shape = self.shapes[volume];
        let op = match self.rng.below(100) {
            0..40 => Op::Read,
            40..86 => Op::Write,
            86..90 => Op::WriteZeroes,
            90..94 => Op::Deallocate,
            _ => Op::Flush,
        };
        // Mostly small, sometimes as large as it goes.
        let most = if self.rng.chance(1, 8) { self.blocks_max } else { 8 };
        let most = most.min(shape.span).min((1 << 20) / u64::from(shape.block_size));
        let blocks = self.rng.between(1, most);
        let lba = self.rng.below(shape.span - blocks + 1);
        let blocks = u32::try_from(blocks).expect("at most a MiB");
        let volume = u32::try_from(volume).expect("few volumes");
        let blocks = if op == Op::Flush { 0 } else { blocks };
        Some(Pending { op, volume, lba, blocks, began: 0 })
    }

    fn data(&self, host: &Host, next: &Pending, shape: Shape, value: u64) -> Option<Data> {
        let block = shape.block_size as usize;
        let len = next.blocks as usize * block;
        match next.op {
            Op::Read => Some(Data::Into(host.pool().take(len)?)),
            Op::Write => {
                let mut buf: BufMut = host.pool().take(len)?;
                let places = buf.bytes_mut()[..len].chunks_exact_mut(block).zip(next.lba..);
                for (bytes, lba) in places {
                    pattern::fill(bytes, place(next.volume, lba), value);
                }
                Some(Data::From(buf.freeze()))
            }
            _ => Some(Data::None),
        }
    }

    fn begin(&self, pending: &Pending, ledger: &mut Ledger) {
        let value = match pending.op {
            Op::Write => pending.began,
            Op::WriteZeroes | Op::Deallocate => 0,
            _ => return,
        };
        for lba in pending.range() {
            ledger.history.begin(pending.volume, lba, pending.began, value, pending.began);
        }
    }

    /// Takes an answer and checks it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn on_completion(
        &mut self,
        completion: Completion,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let tag = completion.tag;
        let pending = self.outstanding.remove(tag.0);
        let pending = pending.ok_or_else(|| format!("{tag:?} was answered twice"))?;
        let at = ledger.tick();
        ledger.note(at ^ u64::from(tag.0) << 32);
        ledger.note(completion.status as u64);
        if !completion.status.is_ok() {
            self.errors[completion.status as usize] += 1;
            let lost = completion.status == Status::Integrity;
            if self.auditing && pending.op == Op::Read && !lost {
                let Pending { volume, lba, blocks, .. } = pending;
                self.audit.push(Run { volume, lba, blocks });
            }
            return match ledger.allowed.contains(&completion.status) {
                true => Ok(()),
                false => Err(format!("{pending:?} was answered with {:?}", completion.status)),
            };
        }
        self.done += 1;
        match (pending.op, &completion.data) {
            (Op::Read, Data::Into(buf)) => {
                self.check_read(&pending, buf.bytes(), at, ledger)?;
            }
            (Op::Read, _) => return Err(format!("{pending:?} lost its buffer")),
            (Op::Write | Op::WriteZeroes, _) => {
                let oldest = ledger.oldest_read;
                for lba in pending.range() {
                    let (volume, serial) = (pending.volume, pending.began);
                    ledger.history.acknowledge(volume, lba, serial, at, oldest);
                }
            }
            (Op::Deallocate, _) => {
                for lba in pending.range() {
                    ledger.history.settle(pending.volume, lba, pending.began, at);
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn check_read(
        &self,
        pending: &Pending,
        bytes: &[u8],
        at: Moment,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let block = self.shapes[pending.volume as usize].block_size as usize;
        for (bytes, lba) in bytes.chunks_exact(block).zip(pending.range()) {
            let value = pattern::value_of(bytes, place(pending.volume, lba));
            let value = value.ok_or_else(|| {
                format!("{pending:?}: block {lba} holds what nobody wrote: {:02x?}", &bytes[..32])
            })?;
            ledger.note(value);
            let read = ledger.history.read(pending.volume, lba, value, pending.began, at);
            read.map_err(|violation| format!("{violation:?}"))?;
        }
        Ok(())
    }
}

impl Pending {
    fn range(&self) -> std::ops::Range<u64> {
        self.lba..self.lba + u64::from(self.blocks)
    }
}

fn place(volume: u32, lba: u64) -> u64 {
    u64::from(volume) << 48 | lba
}
