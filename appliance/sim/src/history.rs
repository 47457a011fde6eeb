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

use std::collections::BTreeMap;

use crate::frozen::Frozen;

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
            return Ok(()); // Zeroes may have come from anywhere.
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
        Ok(())
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
mod tests {
    use super::*;

    fn history(writes: &[(u64, Moment, Option<Moment>)]) -> History {
        let mut history = History::default();
        for &(value, began, ended) in writes {
            history.begin(0, 0, value, value, began);
            if let Some(at) = ended {
                history.acknowledge(0, 0, value, at, 0);
            }
        }
        history
    }

    #[test]
    fn acknowledged_write_must_be_read() {
        let mut history = history(&[(1, 1, Some(2)), (2, 3, Some(4))]);
        assert!(history.read(0, 0, 2, 5, 6).is_ok());
        assert!(history.read(0, 0, 1, 5, 6).is_err());
        assert!(history.read(0, 0, 0, 5, 6).is_err());
        assert!(history.read(0, 0, 9, 5, 6).is_err());
    }

    #[test]
    fn concurrent_write_may_be_read_or_not() {
        let mut history = history(&[(1, 1, Some(2)), (2, 3, None)]);
        assert!(history.read(0, 0, 1, 4, 5).is_ok());
        assert!(history.read(0, 0, 2, 6, 7).is_ok());
        assert!(history.read(0, 0, 1, 8, 9).is_err(), "it was read before, so it has happened");
    }

    #[test]
    fn order_of_concurrent_writes_is_settled_by_the_first_read() {
        let mut history = History::default();
        history.begin(0, 0, 1, 1, 1);
        history.begin(0, 0, 2, 2, 2);
        history.acknowledge(0, 0, 1, 3, 0);
        history.acknowledge(0, 0, 2, 4, 0);
        assert!(history.read(0, 0, 1, 5, 6).is_ok());
        assert!(history.read(0, 0, 2, 7, 8).is_err(), "the other one was first");
    }

    #[test]
    fn unanswered_write_does_not_come_true_after_a_crash_and_a_newer_write() {
        let mut history = history(&[(1, 1, None)]);
        history.crash(2);
        history.begin(0, 0, 2, 2, 3);
        history.acknowledge(0, 0, 2, 4, 0);
        assert!(history.read(0, 0, 1, 5, 6).is_err());
        assert!(history.read(0, 0, 2, 5, 6).is_ok());
    }

    #[test]
    fn unanswered_write_that_was_not_there_after_a_crash_never_comes() {
        let mut history = history(&[(1, 1, Some(2)), (2, 3, None)]);
        history.crash(4);
        assert!(history.read(0, 0, 1, 5, 6).is_ok());
        assert!(history.read(0, 0, 2, 7, 8).is_err());
    }

    #[test]
    fn atomic_write_survives_a_crash_whole_or_not_at_all() {
        for first in [0, 2] {
            let mut history = History::default();
            for block in 0..2 {
                history.begin(0, block, 2, 2, 3);
            }
            history.atomic(0, 0, 2, 2);
            history.crash(4);
            assert!(history.read(0, 0, first, 5, 6).is_ok());
            assert!(history.read(0, 1, 2 - first, 7, 8).is_err());
            assert!(history.read(0, 1, first, 7, 8).is_ok());
        }
    }

    #[test]
    fn old_read_may_return_what_was_replaced_meanwhile() {
        let mut history = history(&[(1, 1, Some(2))]);
        history.begin(0, 0, 2, 2, 4);
        history.acknowledge(0, 0, 2, 5, 3);
        assert!(history.read(0, 0, 1, 3, 6).is_ok());
    }

    #[test]
    fn snapshot_is_of_one_moment_for_all_its_blocks() {
        let mut history = History::default();
        history.begin(0, 0, 1, 1, 1);
        history.acknowledge(0, 0, 1, 2, 0);
        history.begin(0, 1, 3, 3, 3);
        history.acknowledge(0, 1, 3, 4, 0);
        history.freeze(&[(7, 0)], 0, 5);
        assert!(history.read_frozen(7, 1, 3).is_ok());
        assert!(history.read_frozen(7, 0, 0).is_err(), "the later write is there");
        assert!(history.read_frozen(7, 0, 1).is_ok());
    }

    #[test]
    fn snapshot_holds_what_was_acknowledged_before_and_nothing_from_after() {
        let mut history = history(&[(1, 1, Some(2))]);
        history.freeze(&[(7, 0)], 3, 4);
        history.begin(0, 0, 5, 5, 5);
        history.acknowledge(0, 0, 5, 6, 0);
        assert!(history.read_frozen(7, 0, 0).is_err());
        assert!(history.read_frozen(7, 0, 5).is_err());
        assert!(history.read_frozen(7, 0, 1).is_ok());
        assert!(history.read_frozen(7, 9, 0).is_ok());
        assert!(history.read_frozen(7, 9, 1).is_err());
    }

    #[test]
    fn clone_starts_as_its_snapshot_and_restore_brings_it_back() {
        let mut history = history(&[(1, 1, Some(2))]);
        history.freeze(&[(7, 0)], 3, 4);
        history.clone_of(2, 7);
        assert!(history.read(2, 0, 1, 5, 6).is_ok());
        assert!(history.read(2, 0, 0, 5, 6).is_err());
        history.begin(0, 0, 8, 8, 8);
        history.acknowledge(0, 0, 8, 9, 0);
        history.begin_value(0, 0, 10, Value::Of(7), 10);
        history.acknowledge(0, 0, 10, 11, 0);
        assert!(history.read(0, 0, 8, 12, 13).is_err());
        assert!(history.read(0, 0, 1, 12, 13).is_ok());
    }
}
