//! One direction of a pipe: bytes in flight, and when they arrive.

use std::collections::VecDeque;

use bdev::{Instant, Rng};

use super::PipeConfig;
use crate::Batch;

/// Bytes from one end to the other, in order. Allocates only when it is made.
#[derive(Debug)]
pub(crate) struct Lane {
    bytes: VecDeque<u8>,
    window: usize,
    /// Runs of bytes that are on their way or unread, oldest first.
    runs: VecDeque<Run>,
    /// When the sender's end of stream arrives.
    finish: Option<Instant>,
    /// The latest arrival so far: nothing overtakes.
    latest: Instant,
}

#[derive(Debug)]
struct Run {
    at: Instant,
    len: usize,
}

/// Runs in flight before a send has to wait.
const RUNS_MAX: usize = 256;

impl Lane {
    pub(crate) fn new(window: usize) -> Lane {
        assert!(window > 0);
        Lane {
            bytes: VecDeque::with_capacity(window),
            window,
            runs: VecDeque::with_capacity(RUNS_MAX),
            finish: None,
            latest: Instant::ZERO,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.finish = None;
        self.latest = Instant::ZERO;
    }

    /// Puts what fits of `batch`, from byte `from` on, into flight; returns how many bytes.
    pub(crate) fn write(
        &mut self,
        batch: &Batch,
        from: usize,
        now: Instant,
        config: &PipeConfig,
        rng: &mut Rng,
    ) -> usize {
        let mut skip = from;
        let mut written = 0;
        for piece in batch.pieces() {
            let passed = skip.min(piece.len());
            skip -= passed;
            let rest = &piece[passed..];
            let taken = rest.len().min(self.window - self.bytes.len());
            self.bytes.extend(&rest[..taken]);
            written += taken;
            if taken < rest.len() {
                break;
            }
        }
        self.travel(written, now, config, rng)
    }

    /// Cuts the last `len` bytes into runs; returns how many were kept.
    fn travel(&mut self, len: usize, now: Instant, config: &PipeConfig, rng: &mut Rng) -> usize {
        let mut left = len;
        while left > 0 && self.runs.len() < RUNS_MAX {
            let most = left.min(config.fragment_max.max(1));
            let run = if config.fragment_max == usize::MAX {
                most
            } else {
                usize::try_from(rng.between(1, most as u64)).expect("at most a usize")
            };
            let at = self.arrival(now, config, rng);
            self.runs.push_back(Run { at, len: run });
            left -= run;
        }
        self.bytes.truncate(self.bytes.len() - left);
        len - left
    }

    fn arrival(&mut self, now: Instant, config: &PipeConfig, rng: &mut Rng) -> Instant {
        self.latest = self.latest.max(now.saturating_add(delay(config, rng)));
        self.latest
    }

    /// Lets the end of the stream travel after the bytes.
    pub(crate) fn finish(&mut self, now: Instant, config: &PipeConfig, rng: &mut Rng) {
        if self.finish.is_none() {
            self.finish = Some(self.arrival(now, config, rng));
        }
    }

    /// Bytes that can be read now.
    pub(crate) fn arrived(&self, now: Instant) -> usize {
        self.runs.iter().take_while(|run| run.at <= now).map(|run| run.len).sum()
    }

    /// True when the end of the stream is all that is left to read.
    pub(crate) fn is_finished(&self, now: Instant) -> bool {
        self.bytes.is_empty() && self.finish.is_some_and(|at| at <= now)
    }

    /// Reads into all of `into`, which must not be longer than what has arrived.
    pub(crate) fn read(&mut self, into: &mut [u8]) {
        let (head, tail) = self.bytes.as_slices();
        let from_head = into.len().min(head.len());
        let (first, second) = into.split_at_mut(from_head);
        first.copy_from_slice(&head[..first.len()]);
        second.copy_from_slice(&tail[..second.len()]);
        self.bytes.drain(..into.len());
        let mut left = into.len();
        while left > 0 {
            let run = self.runs.front_mut().expect("runs cover the bytes");
            let taken = left.min(run.len);
            run.len -= taken;
            left -= taken;
            if run.len == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// The next arrival after `now`.
    pub(crate) fn next_moment(&self, now: Instant) -> Option<Instant> {
        let runs = self.runs.iter().map(|run| run.at);
        runs.chain(self.finish).find(|&at| at > now)
    }
}

/// How long a fragment travels.
pub(crate) fn delay(config: &PipeConfig, rng: &mut Rng) -> std::time::Duration {
    let nanos = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let (low, high) = (nanos(config.delay_min), nanos(config.delay_max));
    std::time::Duration::from_nanos(if low >= high { low } else { rng.between(low, high) })
}
