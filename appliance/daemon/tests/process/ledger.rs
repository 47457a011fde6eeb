//! What each block of a volume may hold: the last version that was acknowledged, or one that was
//! sent after it and not answered.

use std::ops::Range;

use crate::host::{BLOCK, content};

/// The version of a block that holds zeroes.
pub(crate) const ZEROES: u64 = 0;

pub(crate) struct Ledger {
    possible: Vec<Vec<u64>>,
    busy: Vec<bool>,
    last: u64,
}

impl Ledger {
    /// A new volume: zeroes everywhere.
    pub(crate) fn new(blocks: u64) -> Ledger {
        let blocks = usize::try_from(blocks).unwrap();
        Ledger { possible: vec![vec![ZEROES]; blocks], busy: vec![false; blocks], last: ZEROES }
    }

    /// Keeps a range apart from other requests; false when one of its blocks is in use.
    pub(crate) fn begin(&mut self, range: Range<usize>) -> bool {
        if self.busy[range.clone()].contains(&true) {
            return false;
        }
        self.busy[range].fill(true);
        true
    }

    /// The request on the range is over.
    pub(crate) fn end(&mut self, range: Range<usize>) {
        self.busy[range].fill(false);
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
    pub(crate) fn send_zeroes(&mut self, range: Range<usize>) {
        self.possible[range].iter_mut().for_each(|possible| possible.push(ZEROES));
    }

    /// What was sent last to these blocks is acknowledged: nothing older may be seen again.
    pub(crate) fn acknowledge(&mut self, range: Range<usize>) {
        for possible in &mut self.possible[range] {
            possible.drain(..possible.len() - 1);
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
            possible.clear();
            possible.push(found);
        }
    }

    /// After a crash nothing is in flight any more.
    pub(crate) fn crashed(&mut self) {
        self.busy.fill(false);
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
