//! Buffers that an engine has for itself, for when the shard's pool is empty.
//!
//! Writes that wait for the log hold the buffers that they came with, and may hold all there are.
//! What gives them back is the destager and the checkpoint, which need buffers too. So each engine
//! has a few that nobody else can take, not the transports and not another engine: the background
//! always goes on. Two are lent to reads and two to the edges of one write, so that hosts' requests
//! that are at the engine go on as well.
//!
//! Whoever takes one has it only while the device works on it, except for the edges: a write keeps
//! them until the log takes it. That is why one write at a time may have them, both or none.

use std::rc::Rc;

use bdev::{BufMut, Buffers, Pool, PoolConfig};

use crate::error::OpenError;
use crate::limits::{RESERVE_READS_MAX, RESERVE_SEGMENTS};

/// The shard's pool, and what is behind it.
pub(crate) struct Reserve {
    shared: Rc<Pool>,
    own: Pool,
    /// Own segments that reads have.
    reads: usize,
    /// The write whose edges are in own segments.
    edges: Option<u32>,
}

/// Largest own segment that is lent to a read.
const READ_BYTES_MAX: usize = 64 << 10;

impl Reserve {
    pub(crate) fn new(shared: Rc<Pool>) -> Result<Reserve, OpenError> {
        let config = PoolConfig { segments: RESERVE_SEGMENTS, huge_pages: false };
        let own = Pool::new(&config).map_err(|_| OpenError::NoReserve)?;
        Ok(Reserve { shared, own, reads: 0, edges: None })
    }

    /// The shard's pool.
    pub(crate) fn shared(&self) -> &Pool {
        &self.shared
    }

    /// A buffer for a read, maybe for its first part only: it goes on when that is back.
    pub(crate) fn take_read(&mut self, len: usize) -> Option<BufMut> {
        if let Some(buf) = self.shared.take(len) {
            return Some(buf);
        }
        if self.reads >= RESERVE_READS_MAX {
            return None;
        }
        let buf = self.take_own(len.min(READ_BYTES_MAX))?;
        self.reads += 1;
        Some(buf)
    }

    /// The buffer of a read has come back.
    pub(crate) fn put_read(&mut self, buf: BufMut) {
        self.reads -= usize::from(self.own.owns_mut(&buf));
    }

    /// A buffer for an edge of the write `op`.
    pub(crate) fn take_edge(&mut self, op: u32, len: usize) -> Option<BufMut> {
        if let Some(buf) = self.shared.take(len) {
            return Some(buf);
        }
        if self.edges.is_some_and(|other| other != op) {
            return None;
        }
        let buf = self.take_own(len)?;
        self.edges = Some(op);
        Some(buf)
    }

    /// An operation is over, and its edges with it.
    pub(crate) fn end_op(&mut self, op: u32) {
        if self.edges == Some(op) {
            self.edges = None;
        }
    }

    /// Of the smallest class that fits and no larger one: small requests, of which there may be
    /// many, leave the large segments alone.
    fn take_own(&self, len: usize) -> Option<BufMut> {
        let class = CLASSES.iter().position(|&size| len <= size)?;
        let free = self.own.stats().free[class] > 0;
        if free { self.own.take(len) } else { None }
    }
}

impl Buffers for Reserve {
    fn take(&self, len: usize) -> Option<BufMut> {
        self.shared.take(len).or_else(|| self.take_own(len))
    }
}

/// Sizes of the classes that it has.
const CLASSES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Reserve {
        let config = PoolConfig { segments: [1, 0, 0, 0, 0], huge_pages: false };
        Reserve::new(Rc::new(Pool::new(&config).unwrap())).unwrap()
    }

    /// Takes all there are of a size.
    fn drain(reserve: &Reserve, len: usize) -> Vec<BufMut> {
        std::iter::from_fn(|| reserve.take(len)).collect()
    }

    #[test]
    fn reserve_gives_what_it_says_and_not_one_more() {
        let reserve = empty();
        let shared = reserve.shared().take(1).unwrap();
        for (class, len) in [(0, 1), (1, 4097), (2, 65536)] {
            let all = drain(&reserve, len);
            assert_eq!(all.len(), RESERVE_SEGMENTS[class] as usize, "no larger ones instead");
            assert!(all.iter().all(|buf| buf.capacity() == CLASSES[class]));
        }
        assert!(reserve.take(65537).is_none());
        drop(shared);
        let buf = reserve.take(4096).unwrap();
        assert!(reserve.shared.owns_mut(&buf), "the shard's pool comes first");
    }

    #[test]
    fn reads_and_edges_leave_the_destager_its_part() {
        let mut reserve = empty();
        let _shared = reserve.shared().take(1).unwrap();
        let mut reads: Vec<_> = std::iter::from_fn(|| reserve.take_read(128 << 10)).collect();
        assert_eq!(reads.len(), RESERVE_READS_MAX);
        assert_eq!(reads[0].capacity(), READ_BYTES_MAX, "the first part of it");
        let edges = [reserve.take_edge(7, 4096).unwrap(), reserve.take_edge(7, 4096).unwrap()];
        assert!(reserve.take_edge(8, 4096).is_none(), "one write at a time");
        // A scrub, and the worst that a window makes of one extent: five pairs of blocks, or two
        // runs of seven and eight.
        let scrub = reserve.take(65536).unwrap();
        let pairs: Vec<_> = (0..5).map(|_| reserve.take(8192).unwrap()).collect();
        let runs = [reserve.take(7 * 4096).unwrap(), reserve.take(8 * 4096).unwrap()];
        let pages = drain(&reserve, 4096);
        assert!(pages.len() >= 4, "superblock, repair and both copies of a page");
        drop((scrub, pairs, runs, pages));
        // What comes back can be lent again.
        reserve.put_read(reads.pop().unwrap());
        assert!(reserve.take_read(1).is_some());
        assert!(reserve.take_read(1).is_none());
        drop(edges);
        reserve.end_op(9);
        assert!(reserve.take_edge(8, 4096).is_none());
        reserve.end_op(7);
        assert!(reserve.take_edge(8, 4096).is_some());
    }

    #[test]
    fn engines_that_share_a_pool_cannot_take_from_each_other() {
        let config = PoolConfig { segments: [1, 0, 0, 0, 0], huge_pages: false };
        let pool = Rc::new(Pool::new(&config).unwrap());
        let reserves = [(); 2].map(|()| Reserve::new(Rc::clone(&pool)).unwrap());
        let greedy = drain(&reserves[0], 1);
        assert_eq!(greedy.len(), RESERVE_SEGMENTS[0] as usize + 1);
        assert_eq!(drain(&reserves[1], 1).len(), RESERVE_SEGMENTS[0] as usize);
    }
}
