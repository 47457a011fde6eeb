//! What every block may contain: the register checker.
//!
//! Each block of a volume is a register. A write has an interval from its submission to its answer;
//! it takes effect at some moment inside, at once. A read is right when some order of all effects
//! explains it and every read before it.
//!
//! A write that was never answered (a reset, a crash, an error) may have taken effect or not. If it
//! did, it did so before the next crash: what a node has not done when it dies it never does. A
//! read that returns such a write proves it; one that returns what was there before refutes it. A
//! write that is [`History::atomic`] and cut by a crash is proved or refuted as a whole.
//!
//! What is known grows with each answer, so only two moments are kept for each write: when it had
//! taken effect, and when it had been replaced. The module `frozen` does the same for snapshots.
//!
//! A compare-and-write that succeeded replaced what it had compared, with nothing in between: what
//! came after the one came after the other, and nothing else replaced the same.

use std::collections::BTreeMap;

use crate::frozen::{Compared, Frozen};

/// A moment of the simulation: strictly increasing, one for each submission and each answer.
pub type Moment = u64;

/// What a write put into a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// This; zero is zeroes.
    Plain(u64),
    /// What the block holds in this snapshot.
    Of(u32),
}

/// The history of every block that was touched.
#[derive(Debug, Default)]
pub struct History {
    blocks: Blocks,
    /// What the blocks of a volume hold that nobody wrote; zeroes unless it is here.
    origins: BTreeMap<u32, Value>,
    /// Writes that a crash must not divide, while they are not known to be whole.
    atomics: BTreeMap<u64, Atomic>,
    pub(crate) frozen: Frozen,
    /// Reads that were checked.
    pub reads: u64,
    /// Writes that were answered.
    pub writes: u64,
}

/// The writes of each block; of untouched ones there are none.
#[derive(Debug, Default)]
struct Blocks {
    volumes: BTreeMap<u32, Vec<Vec<Write>>>,
}

impl Blocks {
    fn get(&self, volume: u32, block: u64) -> Option<&[Write]> {
        let writes = self.volumes.get(&volume)?.get(index_of(block))?;
        (!writes.is_empty()).then_some(writes)
    }

    fn get_mut(&mut self, volume: u32, block: u64) -> Option<&mut Vec<Write>> {
        let writes = self.volumes.get_mut(&volume)?.get_mut(index_of(block))?;
        (!writes.is_empty()).then_some(writes)
    }

    fn entry(&mut self, volume: u32, block: u64) -> &mut Vec<Write> {
        let (all, index) = (self.volumes.entry(volume).or_default(), index_of(block));
        if all.len() <= index {
            all.resize(index + 1, Vec::new());
        }
        &mut all[index]
    }

    /// The touched blocks of a volume.
    fn of(&self, volume: u32) -> impl Iterator<Item = (u64, &[Write])> {
        let all = (0u64..).zip(self.volumes.get(&volume).into_iter().flatten());
        all.filter(|(_, writes)| !writes.is_empty()).map(|(at, writes)| (at, writes.as_slice()))
    }

    fn writes_mut(&mut self) -> impl Iterator<Item = &mut Write> {
        self.volumes.values_mut().flatten().flatten()
    }
}

fn index_of(block: u64) -> usize {
    usize::try_from(block).expect("a small volume")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) serial: u64,
    pub(crate) value: Value,
    pub(crate) began: Moment,
    /// When it had taken effect, if it did at all.
    pub(crate) done_by: Moment,
    /// When it had been replaced, or was known never to have happened.
    pub(crate) gone_by: Moment,
    /// It did take effect: it was answered, or read.
    pub(crate) certain: bool,
    /// The write (serial) that it replaced, when that is known because it compared first, and when
    /// that one had taken effect.
    replaced: Option<(u64, Moment)>,
}

#[derive(Clone, Copy, Debug)]
struct Atomic {
    volume: u32,
    first: u64,
    blocks: u64,
    /// A crash cut it at this moment.
    cut: Option<Moment>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Happened,
    Void,
}

/// A read that no order of effects explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The volume.
    pub volume: u32,
    /// The block.
    pub block: u64,
    /// What was read.
    pub value: u64,
    /// What is known of the block.
    pub known: String,
}

/// A write that has not ended: it has taken effect by the end of time, if at all.
pub(crate) const OPEN: Moment = Moment::MAX;

impl History {
    /// A write of `value` to a block begins. `serial` names it.
    pub fn begin(&mut self, volume: u32, block: u64, serial: u64, value: u64, at: Moment) {
        self.begin_value(volume, block, serial, Value::Plain(value), at);
    }

    /// A write of any kind to a block begins.
    pub fn begin_value(&mut self, volume: u32, block: u64, serial: u64, value: Value, at: Moment) {
        let origins = &self.origins;
        let writes = self.blocks.entry(volume, block);
        if writes.is_empty() {
            writes.push(Write::origin(origins, volume));
        }
        writes.push(Write { serial, value, ..Write::open(at) });
    }

    /// A crash must leave this write, which has begun, whole or not at all.
    pub fn atomic(&mut self, volume: u32, first: u64, blocks: u64, serial: u64) {
        let atomic = Atomic { volume, first, blocks, cut: None, fate: Fate::Unknown };
        self.atomics.insert(serial, atomic);
    }

    /// The write was answered as done. `oldest_read` is when the oldest unanswered read began.
    pub fn acknowledge(
        &mut self,
        volume: u32,
        block: u64,
        serial: u64,
        at: Moment,
        oldest_read: Moment,
    ) {
        self.writes += 1;
        if self.atomics.get(&serial).is_some_and(|atomic| atomic.cut.is_none()) {
            self.atomics.remove(&serial);
        }
        let Some(writes) = self.blocks.get_mut(volume, block) else { return };
        let Some(index) = writes.iter().position(|write| write.serial == serial) else { return };
        writes[index].done_by = writes[index].done_by.min(at);
        confirm(writes, index);
        writes.retain(|write| write.gone_by >= oldest_read);
    }

    /// A compare-and-write, which began as a write at `began` with that serial, was answered as
    /// done: until then the block held `expected`. Acknowledge it next.
    ///
    /// # Errors
    /// When the block cannot have held that, or when something else has replaced it.
    pub fn swapped(
        &mut self,
        volume: u32,
        block: u64,
        began: Moment,
        expected: u64,
        at: Moment,
    ) -> Result<(), Violation> {
        let found = self.find(volume, block, expected, began, at)?;
        let Some(writes) = self.blocks.get_mut(volume, block) else { return Ok(()) };
        let Some(found) = found.filter(|_| expected != 0) else { return Ok(()) };
        if let Some(before) = writes.iter().find(|write| write.serial == found.serial) {
            let replaced = Some((before.serial, before.done_by));
            let by = |write: &Write| write.replaced.map(|(serial, _)| serial);
            let same = |write: &&Write| write.certain && by(write) == Some(found.serial);
            if let Some(other) = writes.iter().find(same) {
                let known = format!("{other:?} has replaced it: {writes:?}");
                return Err(Violation { volume, block, value: expected, known });
            }
            if let Some(own) = writes.iter_mut().find(|write| write.serial == began) {
                own.replaced = replaced;
            }
        }
        Ok(())
    }

    /// The write ended and did not take effect.
    ///
    /// # Errors
    /// When it was seen.
    pub fn refuse(&mut self, volume: u32, block: u64, serial: u64) -> Result<(), Violation> {
        self.atomics.remove(&serial);
        let Some(writes) = self.blocks.get_mut(volume, block) else { return Ok(()) };
        let Some(index) = writes.iter().position(|write| write.serial == serial) else {
            return Ok(());
        };
        if writes[index].certain {
            let known = format!("it was refused and is there: {writes:?}");
            return Err(Violation { volume, block, value: serial, known });
        }
        writes.remove(index);
        Ok(())
    }

    /// A volume of so many blocks is being made what a snapshot holds.
    pub fn begin_restore(&mut self, volume: u32, blocks: u64, image: u32, serial: u64) {
        for block in 0..blocks {
            self.begin_value(volume, block, serial, Value::Of(image), serial);
        }
        self.atomic(volume, 0, blocks, serial);
    }

    /// The write ended and may have taken effect or not.
    pub fn settle(&mut self, volume: u32, block: u64, serial: u64, at: Moment) {
        let writes = self.blocks.get_mut(volume, block);
        let ended = |write: &&mut Write| write.serial == serial;
        if let Some(write) = writes.and_then(|writes| writes.iter_mut().find(ended)) {
            write.done_by = write.done_by.min(at);
        }
    }

    /// The node died: what has not taken effect never will.
    pub fn crash(&mut self, at: Moment) {
        for write in self.blocks.writes_mut() {
            write.done_by = write.done_by.min(at);
        }
        for atomic in self.atomics.values_mut() {
            atomic.cut.get_or_insert(at);
        }
    }

    /// A read of a block that began at `began` ended now, at `at`, with `value`.
    ///
    /// # Errors
    /// When the value is not one that the block can have had.
    pub fn read(
        &mut self,
        volume: u32,
        block: u64,
        value: u64,
        began: Moment,
        at: Moment,
    ) -> Result<(), Violation> {
        self.find(volume, block, value, began, at).map(|_| ())
    }

    /// The write that such a read saw, when only one fits.
    fn find(
        &mut self,
        volume: u32,
        block: u64,
        value: u64,
        began: Moment,
        at: Moment,
    ) -> Result<Option<Write>, Violation> {
        self.reads += 1;
        let origin = [Write::origin(&self.origins, volume)];
        let writes = self.blocks.get(volume, block).unwrap_or(&origin);
        let fits = |write: &Write| {
            let void = self.atomics.get(&write.serial).is_some_and(|all| all.fate == Fate::Void);
            write.began < at
                && write.gone_by >= began
                && !void
                && self.frozen.fits(write.value, block, value)
        };
        let mut found = writes.iter().enumerate().filter(|(_, write)| fits(write));
        let (first, second) = (found.next().map(|(index, _)| index), found.next().is_some());
        let Some(index) = first else {
            let known = format!("read from {began} to {at}; writes: {writes:?}");
            return Err(Violation { volume, block, value, known });
        };
        if second {
            return Ok(None); // Zeroes may have come from anywhere.
        }
        let write = writes[index];
        if let Value::Of(image) = write.value {
            self.frozen.read(image, block, value).map_err(|known| Violation {
                volume,
                block,
                value,
                known,
            })?;
        }
        self.observe((volume, block), &write, began, at);
        Ok(Some(write))
    }

    /// The block held this write at a moment between `began` and `at`.
    fn observe(&mut self, place: (u32, u64), seen: &Write, began: Moment, at: Moment) {
        let Some(writes) = self.blocks.get_mut(place.0, place.1) else { return };
        let Some(index) = writes.iter().position(|write| write == seen) else { return };
        let mut refuted = Vec::new();
        for (other, write) in writes.iter_mut().enumerate() {
            if other == index || write.done_by >= began {
                continue;
            }
            // It was before what was read, or never.
            write.gone_by = write.gone_by.min(at);
            if !write.certain && seen.done_by < write.began {
                refuted.push(write.serial);
            }
        }
        writes[index].done_by = writes[index].done_by.min(at);
        confirm(writes, index);
        for serial in refuted {
            if let Some(atomic) = self.atomics.get_mut(&serial) {
                atomic.fate = Fate::Void;
            }
        }
        self.prove(seen.serial);
    }

    /// One block of this write was seen: if a crash cut it, all of it has happened.
    fn prove(&mut self, serial: u64) {
        let Some(atomic) = self.atomics.get_mut(&serial) else { return };
        let Some(cut) = atomic.cut else { return };
        if atomic.fate == Fate::Happened {
            return;
        }
        atomic.fate = Fate::Happened;
        let Atomic { volume, first, blocks, .. } = *atomic;
        for block in first..first + blocks {
            let Some(writes) = self.blocks.get_mut(volume, block) else { continue };
            let Some(index) = writes.iter().position(|write| write.serial == serial) else {
                continue;
            };
            writes[index].done_by = writes[index].done_by.min(cut);
            confirm(writes, index);
        }
    }

    /// A volume whose blocks hold what this snapshot held.
    pub fn clone_of(&mut self, volume: u32, image: u32) {
        self.origins.insert(volume, Value::Of(image));
    }

    /// The volume is no more.
    pub fn forget(&mut self, volume: u32) {
        self.blocks.volumes.remove(&volume);
        self.atomics.retain(|_, atomic| atomic.volume != volume);
    }

    /// True when nobody ever wrote any of these blocks, and they started as zeroes.
    pub(crate) fn is_untouched(&self, volume: u32, mut blocks: std::ops::Range<u64>) -> bool {
        let plain = Write::origin(&self.origins, volume).value == Value::Plain(0);
        plain && blocks.all(|block| self.blocks.get(volume, block).is_none())
    }

    /// How a block of two snapshots compares.
    pub(crate) fn compare(&self, one: u32, other: u32, block: u64) -> Compared {
        self.frozen.compare(one, other, block)
    }

    /// How a block of a snapshot compares with one that nobody wrote.
    pub(crate) fn compare_to_nothing(&self, image: u32, block: u64) -> Compared {
        self.frozen.compare_to_nothing(image, block)
    }

    /// Whether a block of a snapshot may be zeroes.
    pub(crate) fn may_be_zero(&self, image: u32, block: u64) -> bool {
        self.frozen.fits(Value::Of(image), block, 0)
    }

    /// Snapshots of these volumes (image, volume) were taken at one moment in this interval.
    pub fn freeze(&mut self, images: &[(u32, u32)], began: Moment, done_by: Moment) {
        let moment = self.frozen.begin(began, done_by);
        for &(image, volume) in images {
            let origin = Write::origin(&self.origins, volume).value;
            let writes = self.blocks.of(volume);
            self.frozen.insert(image, moment, origin, writes);
        }
    }

    /// A block of a snapshot was read.
    ///
    /// # Errors
    /// When no moment explains it together with what was read of the snapshot before.
    pub fn read_frozen(&mut self, image: u32, block: u64, value: u64) -> Result<(), Violation> {
        self.reads += 1;
        self.frozen.read(image, block, value).map_err(|known| Violation {
            volume: image,
            block,
            value,
            known,
        })
    }

    /// What the block has held since `began`, when there is no doubt about it.
    pub(crate) fn only(&self, volume: u32, block: u64, began: Moment) -> Option<u64> {
        let Some(writes) = self.blocks.get(volume, block) else {
            return (Write::origin(&self.origins, volume).value == Value::Plain(0)).then_some(0);
        };
        let mut left = writes.iter().filter(|write| write.gone_by >= began);
        match (left.next(), left.next()) {
            (Some(Write { value: Value::Plain(value), certain: true, .. }), None) => Some(*value),
            _ => None,
        }
    }

    /// Every block that was ever written, to read all of them at the end.
    pub fn touched(&self) -> impl Iterator<Item = (u32, u64)> {
        let volumes = self.blocks.volumes.keys();
        volumes.flat_map(|&volume| self.blocks.of(volume).map(move |(block, _)| (volume, block)))
    }
}

/// A write has taken effect for certain: what ended before it began is replaced when it was done.
fn confirm(writes: &mut [Write], index: usize) {
    writes[index].certain = true;
    let Write { began, done_by, .. } = writes[index];
    for write in writes.iter_mut().filter(|write| write.done_by < began) {
        write.gone_by = write.gone_by.min(done_by);
    }
    if writes.iter().any(|write| write.replaced.is_some()) {
        order_swaps(writes);
    }
}

/// What came after a write that a compare-and-write replaced came after that one, too.
fn order_swaps(writes: &mut [Write]) {
    for swap in 0..writes.len() {
        let Some((_, since)) = writes[swap].replaced.filter(|_| writes[swap].certain) else {
            continue;
        };
        let later = writes
            .iter()
            .enumerate()
            .filter(|(index, write)| *index != swap && write.certain && write.began > since);
        let gone = later.map(|(_, write)| write.done_by).min().unwrap_or(OPEN);
        writes[swap].done_by = writes[swap].done_by.min(gone);
        writes[swap].gone_by = writes[swap].gone_by.min(gone);
    }
}

impl Write {
    /// A fresh volume holds zeroes.
    const ORIGIN: Write = Write {
        serial: 0,
        value: Value::Plain(0),
        began: 0,
        done_by: 0,
        gone_by: OPEN,
        certain: true,
        replaced: None,
    };

    fn origin(origins: &BTreeMap<u32, Value>, volume: u32) -> Write {
        let value = origins.get(&volume).copied().unwrap_or(Value::Plain(0));
        Write { value, ..Write::ORIGIN }
    }

    fn open(began: Moment) -> Write {
        Write { began, done_by: OPEN, certain: false, ..Write::ORIGIN }
    }
}

#[cfg(test)]
mod tests;
