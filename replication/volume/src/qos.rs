//! Volumes beside each other: limits for each, and turns where they wait for the same log.
//!
//! A limit is a token bucket over the clock that `drive` is given. A request is taken while the
//! bucket is not empty and may leave it in debt, so that a large request needs no large burst and
//! the average is exact. What is not taken stays with the caller: nothing is queued here, and other
//! volumes do not notice.
//!
//! Writes that wait for the log are served in deficit round robin: each volume has a quantum of
//! blocks in a round, and a new round begins when everybody who waits had the chance to use theirs.

use bdev::{Instant, Slots};
use store::VolumeId;

use crate::limits::{FAIR_QUANTUM_BLOCKS, FLOWS_MAX, QOS_BURST_MS};
use crate::pacing;

/// Limits of one volume; zero is no limit. A burst of zero is a tenth of a second's worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qos {
    /// Operations a second: reads, writes, deallocates, write-zeroes, compares.
    pub iops: u64,
    /// Operations that may come at once after a pause.
    pub iops_burst: u64,
    /// Bytes a second that are read or written.
    pub bytes_per_second: u64,
    /// Bytes that may come at once after a pause.
    pub bytes_burst: u64,
}

/// What the limits of a volume did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QosStatus {
    /// The limits.
    pub qos: Qos,
    /// Times that requests had to wait for them.
    pub throttled: u64,
    /// How long the first of those that waited did each time, all times together, in nanoseconds.
    pub throttled_ns: u64,
}

/// Tokens that come at a rate up to a burst; may be in debt.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Tokens a second; zero is no limit.
    rate: u64,
    burst: u64,
    /// Billionths of a token.
    level: i128,
    at: Instant,
}

const NANO: i128 = 1_000_000_000;

impl Bucket {
    fn new(rate: u64, burst: u64, at: Instant) -> Bucket {
        let burst = if burst == 0 { rate / (1000 / QOS_BURST_MS) } else { burst };
        let burst = burst.max(1);
        Bucket { rate, burst, level: i128::from(burst) * NANO, at }
    }

    /// Adds what came since the last time.
    fn refill(&mut self, now: Instant) {
        let ns = now.as_ns().saturating_sub(self.at.as_ns());
        self.at = self.at.max(now);
        let full = i128::from(self.burst) * NANO;
        self.level = (self.level + i128::from(self.rate) * i128::from(ns)).min(full);
    }

    /// When the next request may be taken, if not now.
    fn ready_at(&self) -> Option<Instant> {
        if self.rate == 0 || self.level > 0 {
            return None;
        }
        // One more nanosecond's worth, so that the level is above zero by then.
        let ns = -self.level / i128::from(self.rate) + 1;
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        Some(Instant::from_ns(self.at.as_ns().saturating_add(ns)))
    }

    fn charge(&mut self, tokens: u64) {
        if self.rate > 0 {
            self.level -= i128::from(tokens) * NANO;
        }
    }
}

/// One volume that has queues, or limits.
#[derive(Debug)]
pub(crate) struct Flow {
    volume: u32,
    queues: u32,
    /// Its operations in the engine.
    ops: u64,
    qos: Qos,
    requests: Bucket,
    bytes: Bucket,
    throttled: u64,
    throttled_ns: u64,
    /// Since when a request waits for the limits; counted once.
    waits_since: Option<Instant>,
    deficit: i64,
    round: u64,
}

impl Flow {
    fn new(volume: u32) -> Flow {
        let none = Bucket::new(0, 0, Instant::ZERO);
        Flow {
            volume,
            queues: 0,
            ops: 0,
            qos: Qos::default(),
            requests: none,
            bytes: none,
            throttled: 0,
            throttled_ns: 0,
            waits_since: None,
            deficit: 0,
            round: 0,
        }
    }
}

impl Flow {
    /// A request was taken: nobody waits for the limits any more.
    fn end_wait(&mut self, now: Instant) {
        if let Some(since) = self.waits_since.take() {
            let waited = u64::try_from(now.saturating_since(since).as_nanos());
            self.throttled_ns = self.throttled_ns.saturating_add(waited.unwrap_or(u64::MAX));
        }
    }
}

/// The volumes that have queues, or limits.
#[derive(Debug)]
pub(crate) struct Flows {
    table: Slots<Flow>,
    /// Volumes that have operations, and how many those are.
    active: u64,
    ops: u64,
    round: u64,
    /// When the first volume may go on whose limits make requests wait.
    pub(crate) wake_at: Option<Instant>,
}

impl Flows {
    pub(crate) fn new() -> Flows {
        Flows { table: Slots::new(FLOWS_MAX), active: 0, ops: 0, round: 1, wake_at: None }
    }

    fn key_of(&self, volume: u32) -> Option<u32> {
        self.table.iter().find(|(_, flow)| flow.volume == volume).map(|(key, _)| key)
    }

    fn key_or_new(&mut self, volume: u32) -> Option<u32> {
        match self.key_of(volume) {
            Some(key) => Some(key),
            None => self.table.insert(Flow::new(volume)).ok(),
        }
    }

    /// An operation of the volume begins.
    pub(crate) fn begin_op(&mut self, key: u32) {
        let flow = self.get_mut(key);
        flow.ops += 1;
        let first = flow.ops == 1;
        self.active += u64::from(first);
        self.ops += 1;
    }

    /// An operation of the volume has ended.
    pub(crate) fn end_op(&mut self, key: u32) {
        let flow = self.get_mut(key);
        flow.ops -= 1;
        let last = flow.ops == 0;
        self.active -= u64::from(last);
        self.ops -= 1;
    }

    /// Operations of the volume that are under way.
    pub(crate) fn ops(&self, key: u32) -> u64 {
        self.table.get(key).map_or(0, |flow| flow.ops)
    }

    /// The volume's part of a delay.
    pub(crate) fn fair_delay_ns(&self, key: u32, delay_ns: u64) -> u64 {
        pacing::fair_delay_ns(delay_ns, self.ops(key), self.active, self.ops)
    }

    fn get_mut(&mut self, key: u32) -> &mut Flow {
        self.table.get_mut(key).expect("a flow outlives its queues")
    }

    /// A queue to the volume was opened. `None` when the table is full.
    pub(crate) fn open(&mut self, volume: u32) -> Option<u32> {
        let key = self.key_or_new(volume)?;
        self.get_mut(key).queues += 1;
        Some(key)
    }

    /// A queue is gone, with all its operations.
    pub(crate) fn close(&mut self, key: u32) {
        let flow = self.get_mut(key);
        flow.queues -= 1;
        if flow.queues == 0 {
            flow.waits_since = None;
        }
        self.forget_unused(key);
    }

    fn forget_unused(&mut self, key: u32) {
        let flow = self.get_mut(key);
        if flow.queues == 0 && flow.qos == Qos::default() {
            self.table.remove(key);
        }
    }

    /// Sets a volume's limits; full buckets. False when the table is full.
    pub(crate) fn set(&mut self, volume: VolumeId, qos: Qos, now: Instant) -> bool {
        let Some(key) = self.key_or_new(volume.0) else { return false };
        let flow = self.get_mut(key);
        flow.qos = qos;
        flow.requests = Bucket::new(qos.iops, qos.iops_burst, now);
        flow.bytes = Bucket::new(qos.bytes_per_second, qos.bytes_burst, now);
        self.forget_unused(key);
        true
    }

    /// The volume is deleted, and its limits with it.
    pub(crate) fn forget(&mut self, volume: VolumeId) {
        if let Some(key) = self.key_of(volume.0) {
            self.get_mut(key).qos = Qos::default();
            self.forget_unused(key);
        }
    }

    /// A volume's limits, and what they did.
    pub(crate) fn status(&self, volume: VolumeId) -> QosStatus {
        let flow = self.key_of(volume.0).and_then(|key| self.table.get(key));
        flow.map_or_else(QosStatus::default, |flow| QosStatus {
            qos: flow.qos,
            throttled: flow.throttled,
            throttled_ns: flow.throttled_ns,
        })
    }

    /// Takes a request of this many bytes out of a volume's limits. False when it has to wait; then
    /// [`Flows::wake_at`] is set.
    pub(crate) fn take(&mut self, key: u32, bytes: u64, now: Instant) -> bool {
        let flow = self.table.get_mut(key).expect("a flow outlives its queues");
        if flow.qos == Qos::default() {
            flow.end_wait(now);
            return true;
        }
        flow.requests.refill(now);
        flow.bytes.refill(now);
        let ready = flow.requests.ready_at().max(flow.bytes.ready_at());
        if let Some(ready) = ready {
            flow.throttled += u64::from(flow.waits_since.is_none());
            flow.waits_since.get_or_insert(now);
            self.wake_at = Some(self.wake_at.map_or(ready, |wake_at| wake_at.min(ready)));
            return false;
        }
        flow.end_wait(now);
        flow.requests.charge(1);
        flow.bytes.charge(bytes);
        true
    }

    /// True once when a volume may go on that had to wait.
    pub(crate) fn woke(&mut self, now: Instant) -> bool {
        self.wake_at.take_if(|wake_at| *wake_at <= now).is_some()
    }

    /// Whether it is still the volume's turn in this round.
    pub(crate) fn has_turn(&mut self, key: u32) -> bool {
        let round = self.round;
        let flow = self.get_mut(key);
        let rounds = i64::try_from(round - flow.round).unwrap_or(i64::MAX);
        let more = rounds.saturating_mul(FAIR_QUANTUM_BLOCKS);
        flow.deficit = flow.deficit.saturating_add(more).min(FAIR_QUANTUM_BLOCKS);
        flow.round = round;
        flow.deficit > 0
    }

    /// The volume used so many blocks of its turn. With its last operation a volume whose queues
    /// are closed is gone: then there is nothing to count.
    pub(crate) fn use_turn(&mut self, key: u32, blocks: u64) {
        if self.table.get(key).is_none() {
            return;
        }
        self.has_turn(key);
        let flow = self.get_mut(key);
        flow.deficit = flow.deficit.saturating_sub(i64::try_from(blocks).unwrap_or(i64::MAX));
    }

    /// Everybody who waits had a turn.
    pub(crate) fn next_round(&mut self) {
        self.round += 1;
    }

    /// Nobody waits: whoever went ahead owes nothing.
    pub(crate) fn forgive(&mut self) {
        self.round += 1 << 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    /// Requests of `bytes` taken each millisecond until `until`, as many as the limits allow.
    fn taken(flows: &mut Flows, key: u32, bytes: u64, until: u64) -> u64 {
        let mut count = 0;
        for now in 0..until {
            flows.woke(ms(now));
            while flows.take(key, bytes, ms(now)) {
                count += 1;
            }
        }
        count
    }

    #[test]
    fn rate_is_exact_after_the_burst() {
        let mut flows = Flows::new();
        let key = flows.open(1).unwrap();
        let qos = Qos { iops: 500, iops_burst: 20, ..Qos::default() };
        assert!(flows.set(VolumeId(1), qos, ms(0)));
        // 20 at once, then one every two milliseconds.
        assert_eq!(taken(&mut flows, key, 1 << 20, 1), 20);
        assert_eq!(taken(&mut flows, key, 1 << 20, 10_001), 5000);
        assert_eq!(flows.status(VolumeId(1)).qos, qos);
    }

    #[test]
    fn large_requests_run_into_debt_and_keep_the_average() {
        let mut flows = Flows::new();
        let key = flows.open(1).unwrap();
        let qos = Qos { bytes_per_second: 10 << 20, bytes_burst: 4096, ..Qos::default() };
        assert!(flows.set(VolumeId(1), qos, ms(0)));
        let count = taken(&mut flows, key, 1 << 20, 10_000);
        assert!((100..=101).contains(&count), "{count} MiB in 10 s");
        assert!(flows.wake_at > Some(ms(9_900)), "it says when to come back");
        let status = flows.status(VolumeId(1));
        assert!(status.throttled > 90);
        let waited_ms = status.throttled_ns / 1_000_000;
        assert!((9_800..=10_000).contains(&waited_ms), "it waited nearly always: {waited_ms} ms");
    }

    #[test]
    fn both_limits_hold_and_none_is_none() {
        let mut flows = Flows::new();
        let key = flows.open(1).unwrap();
        assert!(flows.take(key, u64::MAX, ms(0)), "no limits");
        let qos = Qos { iops: 1000, bytes_per_second: 4096, ..Qos::default() };
        assert!(flows.set(VolumeId(1), qos, ms(0)));
        assert!((10..=11).contains(&taken(&mut flows, key, 4096, 10_000)), "bytes are the less");
        assert!(flows.set(VolumeId(1), Qos::default(), ms(10_000)));
        assert!(flows.take(key, u64::MAX, ms(10_000)));
    }

    #[test]
    fn limits_outlive_queues_and_flows_do_not_pile_up() {
        let mut flows = Flows::new();
        let qos = Qos { iops: 1, ..Qos::default() };
        assert!(flows.set(VolumeId(7), qos, ms(0)));
        let key = flows.open(7).unwrap();
        flows.close(key);
        assert_eq!(flows.status(VolumeId(7)).qos, qos);
        let room = u32::try_from(FLOWS_MAX).unwrap() - 1;
        let keys: Vec<_> = (0..room).map(|volume| flows.open(100 + volume).unwrap()).collect();
        assert_eq!(flows.open(50), None, "the table is full");
        assert!(!flows.set(VolumeId(50), qos, ms(0)));
        keys.into_iter().for_each(|key| flows.close(key));
        assert!(flows.set(VolumeId(7), Qos::default(), ms(0)));
        assert!(flows.table.is_empty());
    }

    #[test]
    fn volumes_take_turns_by_blocks() {
        let mut flows = Flows::new();
        let (deep, light) = (flows.open(1).unwrap(), flows.open(2).unwrap());
        assert!(flows.has_turn(deep));
        let quantum = u64::try_from(FAIR_QUANTUM_BLOCKS).unwrap();
        flows.use_turn(deep, 3 * quantum);
        for _ in 0..2 {
            assert!(!flows.has_turn(deep));
            assert!(flows.has_turn(light));
            flows.next_round();
        }
        assert!(!flows.has_turn(deep));
        flows.next_round();
        assert!(flows.has_turn(deep));
        flows.use_turn(deep, 1000 * quantum);
        flows.forgive();
        assert!(flows.has_turn(deep), "nobody waited");
    }
}
