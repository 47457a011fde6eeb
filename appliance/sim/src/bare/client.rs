//! What the hosts of a bare engine do: random requests to its queues, every answer checked.

use std::collections::BTreeMap;

use bdev::{
    Completion, Data, Fifo, Instant, Lba, Op, Pool, Queue, Request, Rng, Slots, Status, Tag,
};
use volume::VolumeQueue;

use crate::bare::limit::Limit;
use crate::bare::plan::{BarePlan, Mix};
use crate::history::Moment;
use crate::pattern;
use crate::workload::Ledger;

/// A volume or a snapshot with an open queue.
pub(crate) struct Target {
    pub(crate) queue: VolumeQueue,
    /// The number of its contents: in blocks that were written, and the same for all clones.
    pub(crate) family: u32,
    pub(crate) block_size: u32,
    pub(crate) blocks: u64,
    /// A snapshot: it is only read.
    pub(crate) is_frozen: bool,
    /// What it may be used for, when it is limited.
    pub(crate) limit: Option<Limit>,
    /// While it gets smaller: its blocks from then on.
    pub(crate) shrinks_to: Option<u64>,
    /// Where the last sequential write ended.
    cursor: u64,
    /// How far the volume was filled.
    filled: u64,
}

impl Target {
    pub(crate) fn new(queue: VolumeQueue, family: u32, is_frozen: bool) -> Target {
        let info = queue.info().expect("it was just opened");
        let (block_size, blocks) = (info.block_size, info.blocks.0);
        let (limit, shrinks_to, cursor, filled) = (None, None, 0, 0);
        Target { queue, family, block_size, blocks, is_frozen, limit, shrinks_to, cursor, filled }
    }

    fn per_extent(&self) -> u64 {
        store::EXTENT_BYTES / u64::from(self.block_size)
    }
}

/// Requests in flight and what is known of their answers.
pub(crate) struct Client {
    rng: Rng,
    mix: Mix,
    depth: usize,
    /// By the number of the volume or snapshot in the history.
    pub(crate) targets: BTreeMap<u32, Target>,
    outstanding: Slots<Pending>,
    /// The disk has failed the engine.
    pub(crate) is_degraded: bool,
    /// Reads of what was being written when the engine died.
    doubts: Vec<Pending>,
    /// What was written or read last: what compares expect.
    recent: BTreeMap<u32, Vec<u64>>,
    one: Fifo<Request>,
    answers: Fifo<Completion>,
    pub(crate) done: u64,
    pub(crate) errors: u64,
    pub(crate) no_space: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    op: Op,
    target: u32,
    lba: u64,
    blocks: u32,
    began: Moment,
    /// For a compare: whether every block is expected to match.
    certain: bool,
}

impl Pending {
    fn range(&self) -> std::ops::Range<u64> {
        self.lba..self.lba + u64::from(self.blocks)
    }

    /// The blocks that certainly changed: a deallocation may leave what does not fill 4 KiB.
    fn sure(&self, target: &Target) -> std::ops::Range<u64> {
        let unit = if self.op == Op::Deallocate { 4096 / u64::from(target.block_size) } else { 1 };
        let range = self.range();
        range.start.next_multiple_of(unit)..range.end / unit * unit
    }

    fn is_write(&self) -> bool {
        matches!(self.op, Op::Write | Op::WriteZeroes | Op::Deallocate | Op::CompareAndWrite)
    }

    /// What its blocks hold when it has been done.
    fn value(&self) -> u64 {
        if matches!(self.op, Op::Write | Op::CompareAndWrite) { self.began } else { 0 }
    }
}

/// Most blocks that an audit reads together.
const AUDIT_BLOCKS: u64 = 32;

impl Client {
    pub(crate) fn new(plan: &BarePlan, rng: Rng) -> Client {
        Client {
            rng,
            mix: plan.mix.clone(),
            depth: plan.depth,
            targets: BTreeMap::new(),
            outstanding: Slots::new(plan.depth),
            is_degraded: false,
            doubts: Vec::new(),
            recent: BTreeMap::new(),
            one: Fifo::new(1),
            answers: Fifo::new(64),
            done: 0,
            errors: 0,
            no_space: 0,
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// When the oldest read began that is not answered.
    pub(crate) fn oldest_read(&self) -> Moment {
        let looks = |op: Op| matches!(op, Op::Read | Op::Compare | Op::CompareAndWrite);
        let reads = self.outstanding.iter().filter(|(_, pending)| looks(pending.op));
        reads.map(|(_, pending)| pending.began).min().unwrap_or(Moment::MAX)
    }

    /// The engine is gone, and every answer with it.
    pub(crate) fn on_death(&mut self) {
        self.targets.clear();
        self.doubts.clear();
        let writes = self.outstanding.iter().filter(|(_, pending)| pending.is_write());
        let most = u32::try_from(AUDIT_BLOCKS).expect("few");
        let read = |(_, write): (u32, &Pending)| Pending {
            op: Op::Read,
            blocks: write.blocks.min(most),
            ..*write
        };
        self.doubts.extend(writes.map(read));
        self.outstanding = Slots::new(self.depth);
    }

    /// Drops a queue; what it has in flight ends unseen.
    pub(crate) fn close(&mut self, number: u32) {
        self.targets.remove(&number);
        let of = |(key, pending): (u32, &Pending)| (pending.target == number).then_some(key);
        let keys: Vec<u32> = self.outstanding.iter().filter_map(of).collect();
        for key in keys {
            self.outstanding.remove(key);
        }
    }

    /// Submits random requests while there is room. True when anything was submitted.
    ///
    /// # Errors
    /// When a limited volume takes more than its limit.
    pub(crate) fn submit(
        &mut self,
        pool: &Pool,
        ledger: &mut Ledger,
        now: Instant,
    ) -> Result<bool, String> {
        let mut any = false;
        while self.outstanding.len() < self.depth {
            let Some(next) = self.next_request() else { break };
            if !self.start(next, pool, ledger) {
                break;
            }
            any = true;
            let target = self.targets.get_mut(&next.target).expect("it was just used");
            let bytes = u64::from(next.blocks) * u64::from(target.block_size);
            let within = target.shrinks_to.is_none_or(|end| next.range().end <= end);
            if let Some(limit) = target.limit.as_mut().filter(|_| within) {
                limit.take(next.op, bytes, now)?;
            }
        }
        Ok(any)
    }

    /// One of the volumes, or, less often, of the snapshots.
    fn pick(&mut self) -> Option<u32> {
        let frozen = self.rng.chance(1, 5);
        let of = |kind: bool| self.targets.iter().filter(move |(_, t)| t.is_frozen == kind);
        let frozen = if of(frozen).next().is_some() { frozen } else { !frozen };
        let index = self.rng.index(of(frozen).count())?;
        of(frozen).nth(index).map(|(&number, _)| number)
    }

    fn next_request(&mut self) -> Option<Pending> {
        // What a crash cut off is looked at first: it has happened, or it never will.
        while self.rng.chance(7, 8) {
            let Some(doubt) = self.doubts.pop() else { break };
            let Some(target) = self.targets.get(&doubt.target) else { continue };
            if doubt.range().end <= target.shrinks_to.unwrap_or(target.blocks) {
                return Some(doubt);
            }
        }
        let number = self.pick()?;
        let target = self.targets.get_mut(&number)?;
        let (rng, mix) = (&mut self.rng, &self.mix);
        if mix.fill && !target.is_frozen && target.filled < target.blocks && rng.chance(3, 4) {
            return Some(fill(rng, number, target));
        }
        let mut draw = rng.below(mix.total());
        let mut is = |weight: u64| {
            let found = draw < weight;
            draw = draw.wrapping_sub(weight);
            found
        };
        let (op, most) = if is(mix.read) || target.is_frozen {
            (Op::Read, if rng.chance(1, 8) { target.per_extent() * 2 } else { 8 })
        } else if is(mix.write) {
            (Op::Write, if rng.chance(1, 6) { target.per_extent() } else { 8 })
        } else if is(mix.direct) {
            return Some(direct(rng, number, target));
        } else if is(mix.zero) {
            (Op::WriteZeroes, 8)
        } else if is(mix.deallocate) {
            (Op::Deallocate, if rng.chance(1, 2) { target.per_extent() * 2 } else { 8 })
        } else if is(mix.range) {
            let op = if rng.chance(1, 2) { Op::Deallocate } else { Op::WriteZeroes };
            (op, target.blocks)
        } else if is(mix.flush) {
            (Op::Flush, 1)
        } else if is(mix.compare) {
            (Op::Compare, 4)
        } else {
            return Some(swap(rng, number, target));
        };
        let blocks = match op {
            Op::Write if mix.uniform > 0 => mix.uniform.min(target.blocks),
            _ => rng.between(1, most.min(target.blocks)),
        };
        let hot = rng.below(100) < mix.hot;
        let span = if hot { mix.hot_blocks.max(blocks).min(target.blocks) } else { target.blocks };
        let mut lba = rng.below(span - blocks + 1);
        if op == Op::Write && !hot && rng.chance(1, 4) {
            lba = if target.cursor + blocks <= target.blocks { target.cursor } else { 0 };
            target.cursor = lba + blocks;
        }
        let blocks = if op == Op::Flush { 0 } else { blocks };
        let blocks = u32::try_from(blocks).expect("a small volume");
        Some(Pending { op, target: number, lba, blocks, began: 0, certain: false })
    }

    /// Sends one request. False when there is no room for it.
    fn start(&mut self, next: Pending, pool: &Pool, ledger: &mut Ledger) -> bool {
        let Client { targets, recent, rng, one, .. } = self;
        let Some(target) = targets.get_mut(&next.target) else { return false };
        let began = ledger.moment + 1;
        let mut next = Pending { began, ..next };
        let Some(data) = data(&mut next, target, pool, recent, rng) else { return false };
        let tag = self.outstanding.insert(next).expect("below the depth");
        let (lba, tag) = (Lba(next.lba), Tag(tag));
        let request = Request { data, ..Request::range(tag, next.op, lba, next.blocks) };
        assert!(one.push(request).is_ok(), "it was empty");
        target.queue.submit(one);
        if let Some(_refused) = one.pop() {
            self.outstanding.remove(tag.0);
            return false;
        }
        ledger.tick();
        if next.is_write() {
            for block in next.range() {
                ledger.history.begin(next.target, block, began, next.value(), began);
            }
            if next.value() != 0 && is_atomic(&next, target) {
                ledger.history.atomic(next.target, next.lba, u64::from(next.blocks), began);
            }
        }
        true
    }

    /// Fetches and checks answers. True when there were any.
    ///
    /// # Errors
    /// What is wrong with one.
    pub(crate) fn poll(&mut self, plan: &BarePlan, ledger: &mut Ledger) -> Result<bool, String> {
        let mut answers = std::mem::replace(&mut self.answers, Fifo::new(1));
        for target in self.targets.values_mut() {
            target.queue.poll(&mut answers);
        }
        let any = !answers.is_empty();
        ledger.oldest_read = ledger.oldest_read.min(self.oldest_read());
        while let Some(answer) = answers.pop() {
            self.on_answer(answer, plan, ledger)?;
        }
        self.answers = answers;
        Ok(any)
    }

    fn on_answer(
        &mut self,
        answer: Completion,
        plan: &BarePlan,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let (tag, status) = (answer.tag, answer.status);
        let pending = self.outstanding.remove(tag.0);
        let pending = pending.ok_or_else(|| format!("{tag:?} was answered twice"))?;
        let at = ledger.tick();
        ledger.note(at ^ u64::from(tag.0) << 32);
        ledger.note(status as u64);
        match (pending.op, &answer.data) {
            (Op::Read, Data::Into(_)) => {}
            (Op::Write | Op::Compare | Op::CompareAndWrite, Data::From(_)) => {}
            (Op::Flush | Op::Deallocate | Op::WriteZeroes, Data::None) => {}
            _ => return Err(format!("{pending:?} lost its buffer")),
        }
        if !status.is_ok() {
            return self.on_error(&pending, &answer, at, plan, ledger);
        }
        self.done += 1;
        match (pending.op, &answer.data) {
            (Op::Read, Data::Into(buf)) => self.check(&pending, buf.bytes(), at, ledger)?,
            (Op::Compare, Data::From(buf)) => self.check(&pending, buf.bytes(), at, ledger)?,
            (Op::CompareAndWrite, Data::From(buf)) => {
                self.check(&pending, buf.bytes(), at, ledger)?;
            }
            _ => {}
        }
        match pending.is_write() {
            true => self.acknowledge(&pending, at, ledger),
            false => Ok(()),
        }
    }

    /// A request was not done.
    fn on_error(
        &mut self,
        pending: &Pending,
        answer: &Completion,
        at: Moment,
        plan: &BarePlan,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let status = answer.status;
        let target = self.targets.get(&pending.target);
        let shrinks = target.and_then(|target| target.shrinks_to);
        let beyond =
            status == Status::OutOfRange && shrinks.is_some_and(|end| pending.range().end > end);
        let compares = matches!(pending.op, Op::Compare | Op::CompareAndWrite);
        let differs = status == Status::Miscompare && compares;
        if pending.is_write() && (beyond || differs) {
            for block in pending.range() {
                let refused = ledger.history.refuse(pending.target, block, pending.began);
                refused.map_err(|violation| format!("{pending:?}: {violation:?}"))?;
            }
        }
        if differs {
            return match pending.certain && self.must_match(pending, answer, ledger) {
                true => Err(format!("{pending:?} did not match")),
                false => Ok(()),
            };
        }
        self.errors += 1;
        self.no_space += u64::from(status == Status::NoSpace);
        if pending.is_write() && !beyond && status != Status::Io {
            // It has ended; a record on a disk that failed may still come true at a start.
            for block in pending.range().filter(|_| !plan.disk_errors) {
                ledger.history.settle(pending.target, block, pending.began, at);
            }
        }
        match beyond || plan.allows(status, self.is_degraded) {
            true => Ok(()),
            false => Err(format!("{pending:?} was answered with {status:?}")),
        }
    }

    /// A write was done.
    fn acknowledge(
        &mut self,
        pending: &Pending,
        at: Moment,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let oldest = ledger.oldest_read.min(self.oldest_read());
        let sure = self.targets.get(&pending.target).map(|target| pending.sure(target));
        let sure = sure.ok_or("a volume that is closed")?;
        let (target, serial) = (pending.target, pending.began);
        for block in pending.range() {
            if sure.contains(&block) {
                self.remember(target, block, pending.value());
                ledger.history.acknowledge(target, block, serial, at, oldest);
            } else {
                ledger.history.settle(target, block, serial, at);
            }
        }
        Ok(())
    }

    fn remember(&mut self, target: u32, block: u64, value: u64) {
        let all = self.recent.entry(target).or_default();
        let index = index_of(block);
        if all.len() <= index {
            all.resize(index + 1, 0);
        }
        all[index] = value;
    }

    /// Whether the volume held all the time what a compare expected.
    fn must_match(&self, pending: &Pending, answer: &Completion, ledger: &Ledger) -> bool {
        let (Some(target), Data::From(buf)) = (self.targets.get(&pending.target), &answer.data)
        else {
            return false;
        };
        let expected = buf.bytes().chunks_exact(target.block_size as usize);
        expected.zip(pending.range()).all(|(bytes, block)| {
            let value = pattern::value_of(bytes, place(target.family, block));
            let only = ledger.history.only(pending.target, block, pending.began);
            value.is_some() && only == value
        })
    }

    fn check(
        &mut self,
        pending: &Pending,
        bytes: &[u8],
        at: Moment,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let target = self.targets.get(&pending.target).ok_or("a volume that is closed")?;
        let (size, family, frozen) = (target.block_size as usize, target.family, target.is_frozen);
        for (bytes, block) in bytes.chunks_exact(size).zip(pending.range()) {
            let value = pattern::value_of(bytes, place(family, block)).ok_or_else(|| {
                format!("{pending:?}: block {block} holds what nobody wrote: {:02x?}", &bytes[..32])
            })?;
            ledger.note(value);
            let (number, began) = (pending.target, pending.began);
            let checked = match pending.op {
                _ if frozen => ledger.history.read_frozen(number, block, value),
                Op::CompareAndWrite => ledger.history.swapped(number, block, began, value, at),
                _ => {
                    self.remember(number, block, value);
                    ledger.history.read(number, block, value, began, at)
                }
            };
            checked.map_err(|violation| format!("{violation:?}"))?;
        }
        Ok(())
    }

    /// Reads a part of a target, from `from` on. Where the next part starts; `None` when there was
    /// no room.
    pub(crate) fn audit(
        &mut self,
        number: u32,
        from: u64,
        pool: &Pool,
        ledger: &mut Ledger,
    ) -> Option<u64> {
        let target = self.targets.get(&number)?;
        let blocks = AUDIT_BLOCKS.min(target.blocks - from);
        if self.outstanding.len() == self.depth {
            return None;
        }
        let count = u32::try_from(blocks).expect("few");
        let (op, began, certain) = (Op::Read, 0, false);
        let next = Pending { op, target: number, lba: from, blocks: count, began, certain };
        self.start(next, pool, ledger).then_some(from + blocks)
    }
}

/// A write that starts at an extent: all or part of it goes straight to its place.
fn direct(rng: &mut Rng, number: u32, target: &Target) -> Pending {
    let per_extent = target.per_extent();
    let extents = target.blocks / per_extent;
    let first = if extents == 0 { 0 } else { rng.below(extents) };
    let lba = first * per_extent;
    let whole = per_extent * rng.between(1, 3);
    let more = if rng.chance(1, 3) { rng.below(per_extent) } else { 0 };
    let blocks = (whole + more).min(target.blocks - lba);
    let blocks = u32::try_from(blocks).expect("a small volume");
    Pending { op: Op::Write, target: number, lba, blocks, began: 0, certain: false }
}

/// A compare-and-write, mostly of the same few blocks, so that they compete.
fn swap(rng: &mut Rng, number: u32, target: &Target) -> Pending {
    let blocks = rng.between(1, 4).min(target.blocks);
    let span = if rng.chance(3, 4) { 6.min(target.blocks) } else { target.blocks };
    let lba = rng.below(span.max(blocks) - blocks + 1);
    let blocks = u32::try_from(blocks).expect("few");
    Pending { op: Op::CompareAndWrite, target: number, lba, blocks, began: 0, certain: false }
}

/// A large write behind the last one, until the volume is full.
fn fill(rng: &mut Rng, number: u32, target: &mut Target) -> Pending {
    let lba = target.filled;
    let blocks = (target.per_extent() * rng.between(1, 4)).min(target.blocks - lba);
    target.filled += blocks;
    let blocks = u32::try_from(blocks).expect("a small volume");
    Pending { op: Op::Write, target: number, lba, blocks, began: 0, certain: false }
}

/// The buffer of a request, filled. `None` when the pool has none.
fn data(
    next: &mut Pending,
    target: &Target,
    pool: &Pool,
    recent: &BTreeMap<u32, Vec<u64>>,
    rng: &mut Rng,
) -> Option<Data> {
    let size = target.block_size as usize;
    let len = next.blocks as usize * size;
    if next.op == Op::Read {
        return Some(Data::Into(pool.take(len)?));
    }
    if !matches!(next.op, Op::Write | Op::Compare | Op::CompareAndWrite) {
        return Some(Data::None);
    }
    let (compares, swaps) = (next.op != Op::Write, next.op == Op::CompareAndWrite);
    let mut buf = pool.take(if swaps { 2 * len } else { len })?;
    let wrong = compares && rng.chance(1, 4);
    next.certain = compares && !wrong;
    if swaps {
        let new = buf.bytes_mut()[len..2 * len].chunks_exact_mut(size);
        for (bytes, block) in new.zip(next.range()) {
            pattern::fill(bytes, place(target.family, block), next.began);
        }
    }
    for (bytes, block) in buf.bytes_mut()[..len].chunks_exact_mut(size).zip(next.range()) {
        let known = || recent.get(&next.target).and_then(|all| all.get(index_of(block)).copied());
        let value = match next.op {
            Op::Write => next.began,
            _ if wrong => u64::MAX,
            _ => known().unwrap_or(0),
        };
        pattern::fill(bytes, place(target.family, block), value);
    }
    Some(Data::From(buf.freeze()))
}

fn index_of(block: u64) -> usize {
    usize::try_from(block).expect("a small volume")
}

/// Whether a power cut must leave the write whole or not at all.
fn is_atomic(write: &Pending, target: &Target) -> bool {
    let atomic = target.queue.info().map_or(1, |info| info.atomic_blocks);
    let unit = 4096 / u64::from(target.block_size);
    let (first, last) = (write.lba, write.lba + u64::from(write.blocks) - 1);
    let inside = first / unit == last / unit || u64::from(atomic) > unit;
    write.blocks > 1 && write.blocks <= atomic && inside
}

fn place(family: u32, block: u64) -> u64 {
    u64::from(family) << 48 | block
}
