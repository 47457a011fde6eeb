use super::*;
use crate::command::{Phase, Work};
use crate::config::{Config, Hosts, Reach, Subsystem};
use crate::target::Target;
use crate::{Nqn, io};
use bdev::{Completion, Data, Pool, PoolConfig, Rng, Status};
use nvme_spec::{U16, U32, U64, opcode};
use std::collections::BTreeMap;
use std::sync::Arc;
use zerocopy::{FromZeros, IntoBytes};

const BLOCKS: u64 = 2000;

fn view(block_size: u32) -> HostView {
    let namespace = |nsid: u32| Namespace {
        nsid,
        handle: NamespaceHandle(nsid),
        uuid: [u8::try_from(nsid).unwrap(); 16],
        block_size,
        blocks: BLOCKS,
        atomic_blocks: 1,
        reach: Reach::default(),
    };
    let nqn = Nqn::new("nqn.2026-11.io.example:vol").unwrap();
    let namespaces = (1..=3).map(namespace).collect();
    let subsystem = Subsystem { nqn, serial: "S1".into(), hosts: Hosts::Any, namespaces };
    let config = Config { subsystems: vec![subsystem], ..Config::default() };
    let snapshot = Target::new(config).unwrap().snapshot();
    let local = "192.0.2.1:4420".parse().unwrap();
    HostView::new(Arc::clone(snapshot.subsystem(&nqn).unwrap()), nqn, local, &snapshot)
}

/// The disks of the namespaces, and of a copy of them that is changed in one go.
struct Disks {
    block_size: usize,
    bytes: BTreeMap<u32, Vec<u8>>,
}

impl Disks {
    fn range(&mut self, handle: u32, lba: u64, blocks: u32) -> &mut [u8] {
        let start = usize::try_from(lba).unwrap() * self.block_size;
        let len = blocks as usize * self.block_size;
        &mut self.bytes.get_mut(&handle).unwrap()[start..start + len]
    }

    fn run(&mut self, handle: NamespaceHandle, request: Request) -> Completion {
        let Request { tag, lba, blocks, op, mut data, .. } = request;
        let range = self.range(handle.0, lba.0, blocks);
        match (&mut data, op) {
            (Data::Into(buf), Op::Read) => buf.bytes_mut()[..range.len()].copy_from_slice(range),
            (Data::From(buf), Op::Write) => range.copy_from_slice(&buf.bytes()[..range.len()]),
            other => panic!("a copy never makes a {other:?}"),
        }
        Completion { tag, data, status: Status::Ok }
    }
}

/// A Copy command with its descriptors in a buffer of `capacity`.
fn command(
    ranges: &[(u32, u64, u32)],
    to: (u32, u64),
    format: u32,
    capacity: usize,
    pool: &Pool,
    view: &HostView,
) -> Command {
    let mut sqe = Sqe::new_zeroed();
    sqe.opcode = opcode::nvm::COPY;
    sqe.nsid = U32::new(to.0);
    sqe.set_slba(to.1);
    sqe.cdw12 = U32::new(u32::try_from(ranges.len() - 1).unwrap() | format << 8);
    let plan = io::plan(&sqe, view, FORMATS_TO_ENABLE).unwrap();
    let mut buf = pool.take(capacity).unwrap();
    let size = CopyRange::len_of(u8::try_from(format).unwrap()).unwrap() as usize;
    for (at, &(nsid, slba, blocks)) in ranges.iter().enumerate() {
        let mut range = CopyRange::new_zeroed();
        range.snsid = U32::new(nsid);
        range.slba = U64::new(slba);
        range.nlb = U16::new(u16::try_from(blocks - 1).unwrap());
        buf.bytes_mut()[at * size..at * size + 24].copy_from_slice(range.as_bytes());
    }
    let mut command = Command::new(sqe, plan);
    command.segment = Segment::Filling(buf);
    assert_eq!((command.phase, plan.work), (Phase::Ready, Work::Copy));
    command
}

/// Runs a command to its end; the number of its requests.
fn run(command: &mut Command, view: &HostView, disks: &mut Disks) -> u32 {
    let mut requests = 0;
    loop {
        let next = next_request(command, view, Tag(7)).unwrap();
        let (handle, request) = next.expect("it ends with its last write");
        requests += 1;
        command.doing = request.op;
        command.segment = match disks.run(handle, request).data {
            Data::Into(buf) => Segment::Filled(buf.freeze()),
            Data::From(buf) => Segment::Filled(buf),
            Data::None => panic!("a copy moves data"),
        };
        if !has_more(command, true) {
            return requests;
        }
    }
}

#[test]
fn any_copy_equals_one_memory_move_for_each_range() {
    let seed = std::env::var("FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    let rounds: u64 = std::env::var("FUZZ_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    for seed in seed..seed + rounds {
        let mut rng = Rng::new(seed);
        let block_size: u32 = if rng.chance(1, 2) { 512 } else { 4096 };
        let view = view(block_size);
        let mut bytes = BTreeMap::new();
        for handle in 1..=3 {
            let mut disk = vec![0; usize::try_from(BLOCKS).unwrap() * block_size as usize];
            rng.fill(&mut disk);
            bytes.insert(handle, disk);
        }
        let mut disks = Disks { block_size: block_size as usize, bytes };
        // The destination is the upper half of namespace 1, sources are anywhere else.
        let format = u32::try_from(rng.below(4)).unwrap();
        let count = if rng.chance(1, 8) { 128 } else { rng.between(1, 6) };
        let longest = BLOCKS / 2 / count;
        let ranges: Vec<_> = (0..count)
            .map(|_| {
                let blocks = rng.between(1, longest);
                let nsid = if format < 2 { 1 } else { u32::try_from(rng.between(1, 3)).unwrap() };
                (nsid, rng.below(BLOCKS / 2 - blocks + 1), u32::try_from(blocks).unwrap())
            })
            .collect();
        let total: u32 = ranges.iter().map(|range| range.2).sum();
        let to = BLOCKS - u64::from(total) - rng.below(BLOCKS / 2 - u64::from(total) + 1);
        let mut expected = disks.bytes[&1].clone();
        let mut at = usize::try_from(to).unwrap() * block_size as usize;
        for &(nsid, slba, blocks) in &ranges {
            let from = disks.range(nsid, slba, blocks);
            expected[at..at + from.len()].copy_from_slice(from);
            at += from.len();
        }
        let capacity = if rng.chance(1, 3) { 16 << 10 } else { STEP_BUFFER as usize };
        let mut command = command(&ranges, (1, to), format, capacity, &pool, &view);
        let requests = run(&mut command, &view, &mut disks);
        assert!(disks.bytes[&1] == expected, "FUZZ_SEED={seed} FUZZ_ROUNDS=1: other bytes");
        assert_eq!(command.dw0, 0);
        let least = 2 * u32::try_from(count).unwrap();
        assert!(requests >= least, "FUZZ_SEED={seed}: each range has its read and its write");
    }
    assert_eq!(pool.stats().taken(), 0);
}

#[test]
fn parts_end_where_strides_of_the_destination_do() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let view = view(4096);
    let mut command = command(&[(1, 0, 100)], (1, 1000), 0, STEP_BUFFER as usize, &pool, &view);
    let mut parts = Vec::new();
    while let Some((_, request)) = next_request(&mut command, &view, Tag(0)).unwrap() {
        if request.op == Op::Write {
            parts.push((request.lba.0, request.blocks));
        }
        command.doing = request.op;
        command.segment = match request.data {
            Data::Into(buf) => Segment::Filled(buf.freeze()),
            Data::From(buf) => Segment::Filled(buf),
            Data::None => panic!("a copy moves data"),
        };
        if !has_more(&mut command, true) {
            break;
        }
    }
    assert_eq!(parts, [(1000, 56), (1056, 44)]);
}
