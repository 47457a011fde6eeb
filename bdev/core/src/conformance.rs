//! The contract as tests: every backend and every layer passes these.
//!
//! A crate with a device writes one line per way to make it:
//!
//! ```text
//! bdev::conformance_suite!(ram_4096, Fixture::new(RamDisk::new(4096, 512).unwrap()));
//! ```
//!
//! which makes a module with one `#[test]` per case. Devices whose time is virtual, or that someone
//! must drive, hand the fixture a pump ([`Fixture::pump`]) that is called between polls.

use std::collections::BTreeMap;

use crate::{
    Bdev, Buf, Completion, Data, Fifo, Flags, Info, Lba, Op, Pool, PoolConfig, Queue, QueueCx,
    Request, Rng, Status, Tag,
};

/// Makes a module `$name` with one test per line of the contract; `$fixture` makes a fresh
/// [`Fixture`] for each.
#[macro_export]
macro_rules! conformance_suite {
    ($name:ident, $fixture:expr) => {
        $crate::conformance_suite!(@cases $name, $fixture,
            one_completion_for_each_request,
            nothing_completes_inside_submit_or_kick,
            reads_return_what_was_written,
            unwritten_blocks_are_stable,
            flush_completes_after_writes,
            buffers_come_back_unshared,
            malformed_requests_get_an_error,
            full_queue_leaves_requests_behind,
            zeroes_read_back,
            compare_tells_same_from_different,
            compare_and_write_is_both_or_nothing,
            every_size_up_to_the_largest,
            random_workload_matches_a_model,
            dropped_queue_with_io_in_flight_is_safe,
        );
    };
    (@cases $name:ident, $fixture:expr, $($case:ident,)+) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(#[test] fn $case() { $crate::conformance::$case(&mut $fixture); })+
        }
    };
}

/// Whether a device keeps what is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// Reads return the last write (every real device).
    Data,
    /// The device forgets (the null device): cases about contents are vacuous.
    Nothing,
}

/// A device under test, with its pool and whatever must be driven between polls.
pub struct Fixture {
    queue: Option<Box<dyn Queue>>,
    info: Info,
    pump: Box<dyn FnMut()>,
    stores: Stores,
    pool: Pool,
}

impl Fixture {
    /// A fixture for a device that needs no driving.
    ///
    /// # Panics
    /// When the device cannot be opened.
    pub fn new(device: impl Bdev) -> Fixture {
        let pool = Pool::new(&PoolConfig::for_bytes(32 << 20)).expect("memory for a test");
        let cx = QueueCx::new(&pool).depth(DEPTH);
        let queue = device.open(&cx).expect("the device under test opens");
        Fixture::from_queue(pool, device.info().clone(), queue)
    }

    /// A fixture for a queue that was opened elsewhere.
    pub fn from_queue(pool: Pool, info: Info, queue: Box<dyn Queue>) -> Fixture {
        Fixture { queue: Some(queue), info, pump: Box::new(|| ()), stores: Stores::Data, pool }
    }

    /// The same with `pump` called between polls.
    #[must_use]
    pub fn pump(mut self, pump: impl FnMut() + 'static) -> Fixture {
        self.pump = Box::new(pump);
        self
    }

    /// The same for a device that does not keep data.
    #[must_use]
    pub fn stores(mut self, stores: Stores) -> Fixture {
        self.stores = stores;
        self
    }

    fn queue(&mut self) -> &mut dyn Queue {
        self.queue.as_deref_mut().expect("dropped by the last case only")
    }

    fn has(&self, op: Op) -> bool {
        self.info.ops.contains(op)
    }

    fn bytes(&self, blocks: u32) -> usize {
        blocks as usize * self.info.block_size as usize
    }

    fn pattern(&self, blocks: u32, seed: u64) -> Buf {
        let mut buf = self.pool.take(self.bytes(blocks)).expect("the pool holds a test's buffers");
        let len = self.bytes(blocks);
        Rng::new(seed).fill(&mut buf.bytes_mut()[..len]);
        buf.freeze()
    }

    fn write(&self, tag: u32, lba: u64, blocks: u32, seed: u64) -> Request {
        Request::write(Tag(tag), Lba(lba), blocks, self.pattern(blocks, seed))
    }

    /// A compare with `old` and a write of what `seed` makes.
    fn swap(&self, tag: u32, lba: u64, blocks: u32, old: &[u8], seed: u64) -> Request {
        let len = self.bytes(blocks);
        let mut buf = self.pool.take(2 * len).expect("the pool holds a test's buffers");
        buf.bytes_mut()[..len].copy_from_slice(old);
        let new = self.pattern(blocks, seed);
        buf.bytes_mut()[len..2 * len].copy_from_slice(&new.bytes()[..len]);
        Request::compare_and_write(Tag(tag), Lba(lba), blocks, buf.freeze())
    }

    fn read(&self, tag: u32, lba: u64, blocks: u32) -> Request {
        let buf = self.pool.take(self.bytes(blocks)).expect("the pool holds a test's buffers");
        Request::read(Tag(tag), Lba(lba), blocks, buf)
    }

    /// Submits `requests`, waits for all of them and returns the completions by tag.
    fn run(&mut self, requests: impl IntoIterator<Item = Request>) -> BTreeMap<u32, Completion> {
        let mut pending: Vec<Request> = requests.into_iter().collect();
        pending.reverse();
        let mut fifo = Fifo::new(pending.len().max(1));
        let expected = pending.len();
        while let Some(request) = pending.pop() {
            fifo.push(request).expect("sized for all requests");
        }
        let mut done = BTreeMap::new();
        let mut completions = Fifo::new(7);
        for _ in 0..POLLS_MAX {
            self.queue().submit(&mut fifo);
            self.queue().kick();
            self.queue().poll(&mut completions);
            while let Some(completion) = completions.pop() {
                let tag = completion.tag.0;
                assert!(done.insert(tag, completion).is_none(), "tag {tag} completed twice");
            }
            if done.len() == expected {
                assert_eq!(self.queue().in_flight(), 0);
                return done;
            }
            (self.pump)();
        }
        panic!("{} of {expected} requests never completed", expected - done.len());
    }

    fn run_one(&mut self, request: Request) -> Completion {
        let tag = request.tag.0;
        self.run([request]).remove(&tag).expect("completed under its own tag")
    }

    fn assert_ok(&mut self, request: Request) {
        let completion = self.run_one(request);
        assert_eq!(completion.status, Status::Ok);
    }

    fn read_back(&mut self, lba: u64, blocks: u32) -> Vec<u8> {
        let request = self.read(u32::MAX, lba, blocks);
        let completion = self.run_one(request);
        assert_eq!(completion.status, Status::Ok, "reading {blocks} blocks at {lba}");
        let Data::Into(buf) = completion.data else { panic!("a read gives its buffer back") };
        buf.bytes()[..self.bytes(blocks)].to_vec()
    }
}

/// Line 1: exactly one completion for each request taken.
pub fn one_completion_for_each_request(fixture: &mut Fixture) {
    let count = 3 * DEPTH;
    let requests: Vec<_> = (0..count)
        .map(|i| match i % 3 {
            0 => fixture.write(i, u64::from(i), 1, u64::from(i)),
            1 => fixture.read(i, u64::from(i), 1),
            _ => Request::flush(Tag(i)),
        })
        .collect();
    let done = fixture.run(requests);
    assert!(done.values().all(|completion| completion.status.is_ok()));
    let mut more = Fifo::new(1);
    fixture.queue().poll(&mut more);
    assert!(more.is_empty(), "nothing completes twice");
}

/// Line 2: completions come out of `poll` only, and `in_flight` counts until then.
pub fn nothing_completes_inside_submit_or_kick(fixture: &mut Fixture) {
    let mut fifo = Fifo::new(1);
    fifo.push(fixture.write(1, 0, 1, 1)).expect("an empty FIFO");
    fixture.queue().submit(&mut fifo);
    assert_eq!((fifo.len(), fixture.queue().in_flight()), (0, 1));
    fixture.queue().kick();
    assert_eq!(fixture.queue().in_flight(), 1);
    let mut completions = Fifo::new(1);
    for _ in 0..POLLS_MAX {
        fixture.queue().poll(&mut completions);
        if !completions.is_empty() {
            assert_eq!(fixture.queue().in_flight(), 0);
            return;
        }
        (fixture.pump)();
        fixture.queue().kick();
    }
    panic!("the write never completed");
}

/// A read returns the last completed write of its blocks.
pub fn reads_return_what_was_written(fixture: &mut Fixture) {
    if fixture.stores == Stores::Nothing {
        return;
    }
    let last = fixture.info.blocks.0 - 1;
    for (lba, seed) in [(0, 1), (5, 2), (last, 3), (5, 4)] {
        let request = fixture.write(0, lba, 1, seed);
        fixture.assert_ok(request);
        let expected = fixture.pattern(1, seed).bytes()[..fixture.bytes(1)].to_vec();
        assert_eq!(fixture.read_back(lba, 1), expected, "block {lba}");
    }
}

/// A block that nobody wrote reads the same each time.
pub fn unwritten_blocks_are_stable(fixture: &mut Fixture) {
    if fixture.stores == Stores::Data {
        assert_eq!(fixture.read_back(9, 2), fixture.read_back(9, 2));
    }
}

/// Line 4: a flush completes, and so does a write that asks for durability itself.
pub fn flush_completes_after_writes(fixture: &mut Fixture) {
    let write = fixture.write(1, 1, 1, 1);
    fixture.assert_ok(write);
    fixture.assert_ok(Request::flush(Tag(2)));
    let durable = fixture.write(3, 2, 1, 2).with_flags(Flags::FUA);
    fixture.assert_ok(durable);
}

/// Line 5: the buffer of each request comes back, and the device keeps no clone of it.
pub fn buffers_come_back_unshared(fixture: &mut Fixture) {
    let beyond = fixture.info.blocks.0;
    let requests = [
        fixture.write(0, 0, 1, 1),
        fixture.read(1, 0, 1),
        fixture.write(2, beyond, 1, 2),
        fixture.read(3, beyond, 1),
    ];
    let done = fixture.run(requests);
    for (tag, completion) in &done {
        match &completion.data {
            Data::From(buf) => assert!(buf.is_unique() && tag % 2 == 0, "tag {tag}"),
            Data::Into(_) => assert!(tag % 2 == 1, "tag {tag}"),
            Data::None => panic!("tag {tag} lost its buffer"),
        }
    }
}

/// Line 6: malformed requests complete with the right error.
pub fn malformed_requests_get_an_error(fixture: &mut Fixture) {
    let end = fixture.info.blocks.0;
    let cases = [
        (fixture.read(0, end, 1), Status::OutOfRange),
        (fixture.read(1, end - 1, 2), Status::OutOfRange),
        (fixture.write(2, u64::MAX, 1, 0), Status::OutOfRange),
        (fixture.read(3, 0, 0), Status::Invalid),
        (Request::range(Tag(4), Op::Read, Lba(0), 1), Status::Invalid),
        (Request::range(Tag(5), Op::Write, Lba(0), 1), Status::Invalid),
    ];
    let (requests, statuses): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let done = fixture.run(requests);
    let seen: Vec<_> = done.values().map(|completion| completion.status).collect();
    assert_eq!(seen, statuses);
    for op in Op::ALL.into_iter().filter(|&op| !op.has_data()) {
        if !fixture.has(op) {
            let done = fixture.run_one(Request::range(Tag(6), op, Lba(0), 1));
            assert_eq!(done.status, Status::Unsupported, "{op:?}");
        }
    }
}

/// Line 7: what does not fit stays in the caller's FIFO and is taken later.
pub fn full_queue_leaves_requests_behind(fixture: &mut Fixture) {
    let mut fifo = Fifo::new(4 * DEPTH as usize);
    while fifo.push(Request::flush(Tag(0))).is_ok() {}
    let total = u32::try_from(fifo.len()).expect("a small test");
    fixture.queue().submit(&mut fifo);
    let left = u32::try_from(fifo.len()).expect("a small test");
    assert_eq!(fixture.queue().in_flight(), total - left, "what was taken is in flight");
    let mut completions = Fifo::new(total as usize);
    for _ in 0..POLLS_MAX {
        fixture.queue().submit(&mut fifo);
        fixture.queue().kick();
        fixture.queue().poll(&mut completions);
        if completions.is_full() {
            return;
        }
        (fixture.pump)();
    }
    panic!("{} of {total} completed", completions.len());
}

/// Write-zeroes reads back as zeroes, and so does a deallocated block, or as it was.
pub fn zeroes_read_back(fixture: &mut Fixture) {
    if fixture.stores == Stores::Nothing {
        return;
    }
    for op in [Op::WriteZeroes, Op::Deallocate] {
        if !fixture.has(op) {
            continue;
        }
        let write = fixture.write(0, 8, 16, 5);
        fixture.assert_ok(write);
        let before = fixture.read_back(8, 16);
        fixture.assert_ok(Request::range(Tag(1), op, Lba(10), 3));
        let after = fixture.read_back(8, 16);
        let (from, to) = (fixture.bytes(2), fixture.bytes(5));
        assert_eq!(after[..from], before[..from], "{op:?} stays inside its range");
        assert_eq!(after[to..], before[to..], "{op:?} stays inside its range");
        let zeroed = after[from..to].iter().all(|&byte| byte == 0);
        let kept = op == Op::Deallocate && after[from..to] == before[from..to];
        assert!(zeroed || kept, "{op:?} reads back as zeroes");
    }
}

/// Compare succeeds on equal data and reports a miscompare otherwise.
pub fn compare_tells_same_from_different(fixture: &mut Fixture) {
    if fixture.stores == Stores::Nothing || !fixture.has(Op::Compare) {
        return;
    }
    let write = fixture.write(0, 3, 2, 11);
    fixture.assert_ok(write);
    for (seed, status) in [(11, Status::Ok), (12, Status::Miscompare)] {
        let mut request = fixture.write(1, 3, 2, seed);
        request.op = Op::Compare;
        assert_eq!(fixture.run_one(request).status, status);
    }
}

/// Compare-and-write replaces what is equal, and leaves alone what differs anywhere; of several at
/// one time on the same block one wins.
pub fn compare_and_write_is_both_or_nothing(fixture: &mut Fixture) {
    if fixture.stores == Stores::Nothing || !fixture.has(Op::CompareAndWrite) {
        return;
    }
    let most = fixture.info.atomic_blocks.min(fixture.info.blocks_max / 2);
    for blocks in [1, 3.min(most), most] {
        let write = fixture.write(0, 5, blocks + 2, 21);
        fixture.assert_ok(write);
        let before = fixture.read_back(5, blocks + 2);
        let range = fixture.bytes(1)..fixture.bytes(1 + blocks);
        let old = before[range.clone()].to_vec();
        let mut other = old.clone();
        other[range.len() - 1] ^= 1;
        let swap = fixture.swap(1, 6, blocks, &other, 22);
        assert_eq!(fixture.run_one(swap).status, Status::Miscompare);
        assert!(fixture.read_back(5, blocks + 2) == before, "a miscompare changes nothing");
        let swaps = [22, 23, 24].map(|seed| fixture.swap(seed, 6, blocks, &old, seed.into()));
        let done = fixture.run(swaps);
        let won = done.iter().filter(|(_, done)| done.status.is_ok()).map(|(&tag, _)| tag);
        let won: Vec<u32> = won.collect();
        assert_eq!(won.len(), 1, "one wins, the others find what it wrote");
        assert!(done.values().all(|d| d.status.is_ok() || d.status == Status::Miscompare));
        let mut expected = before;
        let new = fixture.pattern(blocks, won[0].into());
        expected[range.clone()].copy_from_slice(&new.bytes()[..range.len()]);
        assert!(fixture.read_back(5, blocks + 2) == expected, "{blocks} blocks");
    }
}

/// One block up to the largest request the device takes.
pub fn every_size_up_to_the_largest(fixture: &mut Fixture) {
    let most =
        fixture.info.blocks_max.min(u32::try_from(fixture.info.blocks.0).unwrap_or(u32::MAX));
    let mut blocks = 1;
    loop {
        let request = fixture.write(0, 0, blocks, u64::from(blocks));
        fixture.assert_ok(request);
        if fixture.stores == Stores::Data {
            let expected = fixture.pattern(blocks, u64::from(blocks)).bytes()
                [..fixture.bytes(blocks)]
                .to_vec();
            assert!(fixture.read_back(0, blocks) == expected, "{blocks} blocks");
        }
        if blocks == most {
            return;
        }
        blocks = (blocks * 3).min(most);
    }
}

/// A seeded mix of everything, checked against a model after each batch.
pub fn random_workload_matches_a_model(fixture: &mut Fixture) {
    if fixture.stores == Stores::Nothing {
        return;
    }
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    println!("reproduce with FUZZ_SEED={seed}");
    let mut rng = Rng::new(seed);
    let span = fixture.info.blocks.0.min(200);
    let mut model = fixture.read_back(0, 100.min(u32::try_from(span).expect("at most 200")));
    let span = model.len() as u64 / u64::from(fixture.info.block_size);
    for _ in 0..60 {
        let mut taken = vec![false; model.len() / fixture.bytes(1)];
        let mut batch = Vec::new();
        for tag in 0..u32::try_from(rng.between(1, 12)).expect("small") {
            let lba = rng.below(span);
            let blocks = u32::try_from(rng.between(1, 8.min(span - lba))).expect("small");
            let range = usize::try_from(lba).expect("small")..;
            let range = range.start..range.start + blocks as usize;
            if taken[range.clone()].contains(&true) {
                continue; // Overlapping requests in flight have no order.
            }
            taken[range.clone()].fill(true);
            let bytes = range.start * fixture.bytes(1)..range.end * fixture.bytes(1);
            match rng.below(3) {
                0 if fixture.has(Op::WriteZeroes) => {
                    model[bytes].fill(0);
                    batch.push(Request::range(Tag(tag), Op::WriteZeroes, Lba(lba), blocks));
                }
                _ => {
                    let data = rng.next_u64();
                    let buf = fixture.pattern(blocks, data);
                    model[bytes.clone()].copy_from_slice(&buf.bytes()[..bytes.len()]);
                    batch.push(Request::write(Tag(tag), Lba(lba), blocks, buf));
                }
            }
        }
        let done = fixture.run(batch);
        assert!(done.values().all(|completion| completion.status.is_ok()));
        let count = u32::try_from(span).expect("at most 200");
        assert!(fixture.read_back(0, count) == model, "FUZZ_SEED={seed}");
    }
}

/// Dropping a queue with requests in flight neither panics nor reuses their memory.
pub fn dropped_queue_with_io_in_flight_is_safe(fixture: &mut Fixture) {
    let mut fifo = Fifo::new(8);
    for tag in 0..8 {
        fifo.push(fixture.write(tag, u64::from(tag), 1, 1)).expect("sized for all requests");
    }
    fixture.queue().submit(&mut fifo);
    fixture.queue().kick();
    fixture.queue = None;
}

/// The depth that the suite opens queues with.
pub const DEPTH: u32 = 32;

/// Polls before a missing completion is a failure. Real devices answer within a few thousand, and
/// a poll of an idle queue costs well under a microsecond.
const POLLS_MAX: u64 = 50_000_000;
