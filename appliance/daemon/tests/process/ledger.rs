//! What each block of a volume may hold: the last version that was acknowledged, or one that was
//! sent after it and not answered.

use std::ops::Range;

use crate::host::{BLOCK, content};

/// The version of a block that holds zeroes.
pub(crate) const ZEROES: u64 = 0;

#[derive(Clone)]
pub(crate) struct Ledger {
    possible: Vec<Vec<u64>>,
    busy: Vec<bool>,
    last: u64,
    /// While the volume is taken back: how many versions each block might have as that began, and
    /// whether it was in use.
    before: Option<Vec<(usize, bool)>>,
    /// Requests on these blocks were sent before the volume had been taken back, and answered after
    /// that: nobody knows which came first.
    unsure: Vec<bool>,
}

impl Ledger {
    /// A new volume: zeroes everywhere.
    pub(crate) fn new(blocks: u64) -> Ledger {
        let blocks = usize::try_from(blocks).unwrap();
        let (possible, busy) = (vec![vec![ZEROES]; blocks], vec![false; blocks]);
        Ledger { possible, unsure: busy.clone(), busy, last: ZEROES, before: None }
    }

    /// What each block holds, when that is settled.
    pub(crate) fn settled(&self) -> Option<Vec<u64>> {
        let one = |possible: &Vec<u64>| (possible.len() == 1).then(|| possible[0]);
        self.possible.iter().map(one).collect()
    }

    /// Another write was sent while these blocks were copied.
    pub(crate) fn may_hold(&mut self, range: Range<usize>, versions: &[u64]) {
        for (possible, version) in self.possible[range].iter_mut().zip(versions) {
            possible.push(*version);
        }
    }

    /// The volume is about to become this.
    pub(crate) fn begin_restore(&mut self, to: &[u64]) {
        let now = self.possible.iter().zip(&self.busy).map(|(p, busy)| (p.len(), *busy));
        self.before = Some(now.collect());
        for (possible, version) in self.possible.iter_mut().zip(to) {
            possible.push(*version);
        }
    }

    /// It has: what was there is gone, what was in flight meanwhile may have come before or after.
    /// If it is not known to be done, it may have happened or not.
    pub(crate) fn end_restore(&mut self, done: bool) {
        let before = self.before.take().expect("it was begun");
        if !done {
            return;
        }
        for (block, (versions, was_busy)) in before.into_iter().enumerate() {
            self.unsure[block] = self.busy[block];
            if !was_busy && !self.busy[block] {
                self.possible[block].drain(..versions);
            }
        }
    }

    /// Keeps a range apart from other requests; false when one of its blocks is in use.
    pub(crate) fn begin(&mut self, range: Range<usize>) -> bool {
        if self.busy[range.clone()].contains(&true) {
            return false;
        }
        self.busy[range].fill(true);
        true
    }

    /// The request on the range is over, and was judged or acknowledged.
    pub(crate) fn end(&mut self, range: Range<usize>) {
        self.busy[range.clone()].fill(false);
        self.unsure[range].fill(false);
    }

    /// New versions for a write that is sent now.
    pub(crate) fn send(&mut self, range: Range<usize>) -> Vec<u64> {
        let versions: Vec<u64> = range.clone().map(|_| self.next()).collect();
        for (block, version) in range.zip(&versions) {
            self.possible[block].push(*version);
        }
        versions
    }

    /// A request that makes zeroes is sent now.
    pub(crate) fn send_zeroes(&mut self, range: Range<usize>) -> Vec<u64> {
        let zeroes = vec![ZEROES; range.len()];
        self.may_hold(range, &zeroes);
        zeroes
    }

    /// What was sent last to these blocks is acknowledged: nothing older may be seen again.
    pub(crate) fn acknowledge(&mut self, range: Range<usize>) {
        if self.before.is_some() {
            return;
        }
        for block in range {
            if !self.unsure[block] {
                let possible = &mut self.possible[block];
                possible.drain(..possible.len() - 1);
            }
        }
    }

    /// These blocks were read: they hold what they may hold, and from now on nothing else.
    pub(crate) fn judge(&mut self, first: usize, data: &[u8]) {
        for (block, data) in (first..).zip(data.chunks(BLOCK)) {
            let holds = |version: &u64| match *version {
                ZEROES => data.iter().all(|&byte| byte == 0),
                version => data == content(block as u64, version),
            };
            let possible = &mut self.possible[block];
            let found = possible.iter().copied().find(holds);
            let found = found.unwrap_or_else(|| panic!("block {block}: none of {possible:?}"));
            if self.before.is_none() && !self.unsure[block] {
                possible.clear();
                possible.push(found);
            }
        }
    }

    /// After a crash nothing is in flight any more.
    pub(crate) fn crashed(&mut self) {
        self.busy.fill(false);
        self.unsure.fill(false);
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

#[test]
fn acknowledged_write_that_is_gone_is_seen() {
    let mut ledger = Ledger::new(2);
    let old = ledger.send(0..2);
    ledger.acknowledge(0..2);
    let new = ledger.send(0..1);
    ledger.judge(0, &content(0, old[0]));
    ledger.acknowledge(0..2);
    let gone = std::panic::catch_unwind(move || ledger.judge(0, &content(0, new[0])));
    assert!(gone.is_err(), "it was settled that the block holds the old version");
}

#[test]
fn restore_leaves_what_the_snapshot_had_or_what_was_in_flight() {
    let mut ledger = Ledger::new(3);
    let old = ledger.send(0..3);
    ledger.acknowledge(0..3);
    assert!(ledger.begin(1..2));
    let flying = ledger.send(1..2);
    ledger.begin_restore(&[ZEROES; 3]);
    assert!(ledger.begin(2..3));
    let later = ledger.send(2..3);
    ledger.acknowledge(2..3);
    ledger.end(2..3);
    let unknown = ledger.clone();
    ledger.end_restore(true);
    ledger.acknowledge(1..2);
    ledger.end(1..2);
    assert_eq!(ledger.possible[0], [ZEROES]);
    assert_eq!(ledger.possible[1], [old[1], flying[0], ZEROES]);
    assert_eq!(ledger.possible[2], [ZEROES, later[0]]);
    let mut ledger = unknown;
    ledger.end_restore(false);
    assert_eq!(ledger.possible[0], [old[0], ZEROES]);
}
