//! The initiator against the target, through memory, with everything that a network can do.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "pair/mod.rs"]
mod pair;

use bdev::{Data, Fifo, Flags, Lba, Op, Request, Status, Tag};
use nvmf::Digests;
use nvmf::initiator::{Admin, Initiator, QueueOptions};
use pair::{Disk, Reproduce, World, config, identity, namespace, rounds};

const BLOCKS: u64 = 512;

/// An operation in flight: its tag, and the bytes that it covers.
type InFlight = (Tag, Op, usize, usize);

/// A random request, the bytes it covers, and nothing when they overlap with one in flight or no
/// buffer is free.
fn random_request(
    world: &mut World,
    tag: Tag,
    in_flight: &[InFlight],
) -> (Op, usize, usize, Option<Request>) {
    let block_size = world.disks[0].block_size;
    let op = [Op::Read, Op::Write, Op::Write, Op::WriteZeroes, Op::Compare, Op::Flush]
        [world.rng.index(6).unwrap()];
    let max = u64::try_from((1 << 20) / block_size).unwrap().min(BLOCKS);
    let blocks = if world.rng.chance(1, 24) { max } else { world.rng.between(1, 20) };
    let lba = world.rng.below(BLOCKS - blocks + 1);
    let (start, len) =
        (usize::try_from(lba).unwrap() * block_size, usize::try_from(blocks).unwrap() * block_size);
    let overlaps = in_flight.iter().any(|&(_, _, s, l)| start < s + l && s < start + len);
    let blocks = u32::try_from(blocks).unwrap();
    let request = match op {
        Op::Flush => Some(Request::flush(tag)),
        _ if overlaps => None,
        Op::WriteZeroes => {
            let flags = if world.rng.chance(1, 2) { Flags::UNMAP } else { Flags::NONE };
            Some(Request::range(tag, op, Lba(lba), blocks).with_flags(flags))
        }
        Op::Read => world.host_pool.take(len).map(|mut buf| {
            buf.bytes_mut().fill(0xdd);
            Request::read(tag, Lba(lba), blocks, buf)
        }),
        Op::Compare => world.host_pool.take(len).map(|mut buf| {
            buf.bytes_mut()[..len].copy_from_slice(&world.disks[0].bytes[start..start + len]);
            if world.rng.chance(1, 2) {
                buf.bytes_mut()[len - 1] ^= 1;
            }
            let request = Request::write(tag, Lba(lba), blocks, buf.freeze());
            Request { op, ..request }
        }),
        _ => world.host_pool.take(len).map(|mut buf| {
            world.rng.fill(&mut buf.bytes_mut()[..len]);
            Request::write(tag, Lba(lba), blocks, buf.freeze())
        }),
    };
    (op, start, len, request)
}

/// Random block requests on one I/O queue, checked against a copy of the disk.
fn random_io(world: &mut World, queue: &mut Initiator, link: &mut pair::Link, count: u32) {
    let block_size = world.disks[0].block_size;
    let mut shadow = world.disks[0].bytes.clone();
    let mut submitted = 0;
    let mut done = 0;
    let mut requests = Fifo::new(1);
    // What each tag reads or writes; ranges in flight never overlap, so the copy is exact.
    let mut in_flight: Vec<InFlight> = Vec::new();
    for turn in 0.. {
        assert!(turn < 400_000, "no progress: {done} of {count}");
        if submitted < count && requests.is_empty() {
            let (op, start, len, request) = random_request(world, Tag(submitted), &in_flight);
            if let Some(request) = request {
                let span = if op == Op::Flush { (0, 0) } else { (start, len) };
                if let (Op::Write, Data::From(buf)) = (op, &request.data) {
                    shadow[start..start + len].copy_from_slice(&buf.bytes()[..len]);
                }
                if op == Op::WriteZeroes {
                    shadow[start..start + len].fill(0);
                }
                in_flight.push((Tag(submitted), op, span.0, span.1));
                submitted += 1;
                requests.push(request).unwrap();
            }
        }
        queue.submit(1, u32::try_from(block_size).unwrap(), &mut requests);
        world.turn(link, queue);
        let mut completions = Fifo::new(8);
        queue.poll(&mut completions);
        while let Some(completion) = completions.pop() {
            let at = in_flight.iter().position(|entry| entry.0 == completion.tag).unwrap();
            let (_, op, start, len) = in_flight.swap_remove(at);
            let expected = match (op, &completion.data) {
                (Op::Compare, Data::From(buf))
                    if buf.bytes()[..len] != shadow[start..start + len] =>
                {
                    Status::Miscompare
                }
                _ => Status::Ok,
            };
            assert_eq!(completion.status, expected, "{op:?}");
            if let (Op::Read, Data::Into(buf)) = (op, &completion.data) {
                assert!(buf.bytes()[..len] == shadow[start..start + len], "a read returned lies");
            }
            done += 1;
        }
        if done == count {
            break;
        }
    }
    assert!(world.disks[0].bytes == shadow);
}

fn io_with(seed: u64, digests: Digests, flow_control: bool, hpda: u8, segments: [u32; 5], n: u32) {
    for block_size in [512, 4096] {
        let mut world = World::new(config(vec![namespace(1, block_size, BLOCKS)]), seed, segments);
        let blocks = usize::try_from(BLOCKS).unwrap();
        world.disks.push(Disk::new(block_size as usize, blocks));
        let admin_options = QueueOptions { digests, hpda, ..QueueOptions::admin(identity()) };
        let mut admin = Admin::new(admin_options, 4);
        let _link = world.bring_up(&mut admin);
        let info = admin.info().unwrap().clone();
        assert_eq!(info.namespaces[0].blocks, BLOCKS);
        assert_eq!((info.in_capsule_max, info.transfer_max, info.io_queues), (8192, 1 << 20, 4));
        let io = QueueOptions::io(identity(), info.cntlid, 1);
        let options = QueueOptions { digests, hpda, disable_flow_control: !flow_control, ..io };
        let mut queue = Initiator::new(options);
        let mut link = world.connect(&mut queue);
        random_io(&mut world, &mut queue, &mut link, n);
        let sums_come_along = world.disks[0].summed > 0;
        assert_eq!(sums_come_along, digests.data, "checksums come from data digests alone");
        let mut admin_link = _link;
        world.close(&mut link, &mut queue);
        world.close(&mut admin_link, &mut admin);
        assert_eq!(world.pool.stats().taken(), 0, "every buffer is back");
        assert!(world.target.sessions().is_empty());
    }
}

const PLENTY: [u32; 5] = [64, 32, 32, 8, 8];
/// Barely enough for one of everything, besides the receive segments.
const SCARCE: [u32; 5] = [1, 2, 2, 0, 2];

#[test]
fn random_io_survives_fragmentation_and_any_completion_order() {
    let (seed, rounds) = rounds(3);
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("random_io_survives", seed);
        io_with(seed, Digests::default(), true, 0, PLENTY, 100);
        io_with(seed, Digests { header: true, data: true }, false, 0, PLENTY, 100);
        io_with(seed, Digests { header: false, data: true }, true, 31, PLENTY, 60);
        io_with(seed, Digests { header: true, data: false }, false, 7, PLENTY, 60);
    }
}

#[test]
fn exhausted_pool_is_back_pressure_and_never_an_error() {
    let (seed, rounds) = rounds(3);
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("exhausted_pool", seed);
        io_with(seed, Digests::default(), true, 0, SCARCE, 100);
        io_with(seed, Digests { header: true, data: true }, false, 3, SCARCE, 60);
    }
}

/// What a block may hold: the last acknowledged fill, and fills whose fate is unknown.
fn may_hold(blocks: &[Vec<u8>], lba: usize, fill: u8) -> bool {
    blocks[lba].contains(&fill)
}

/// Takes what is done, and checks what was read against what may have been written.
fn check_done(queue: &mut Initiator, busy: &mut [Option<Option<u8>>; 16], blocks: &mut [Vec<u8>]) {
    let mut done = Fifo::new(16);
    queue.poll(&mut done);
    while let Some(done) = done.pop() {
        let lba = done.tag.0 as usize;
        assert_eq!(done.status, Status::Ok);
        match (busy[lba].take().unwrap(), &done.data) {
            (Some(fill), _) => blocks[lba] = vec![fill],
            (None, Data::Into(buf)) => {
                let first = buf.bytes()[0];
                assert!(buf.bytes()[..4096].iter().all(|&b| b == first), "torn");
                assert!(may_hold(blocks, lba, first), "block {lba} lost a write");
            }
            (None, other) => panic!("a read came back with {other:?}"),
        }
    }
}

#[test]
fn connection_broken_anywhere_loses_nothing_acknowledged() {
    let (seed, rounds) = rounds(20);
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("connection_broken", seed);
        let mut world = World::new(config(vec![namespace(1, 4096, 16)]), seed, PLENTY);
        world.disks.push(Disk::new(4096, 16));
        let digests = Digests { header: seed % 2 == 0, data: seed % 3 == 0 };
        let options = QueueOptions { digests, ..QueueOptions::admin(identity()) };
        let mut admin = Admin::new(options, 2);
        let mut admin_link = world.bring_up(&mut admin);
        let cntlid = admin.info().unwrap().cntlid;
        let mut blocks = vec![vec![0u8]; 16];
        let mut fill = 0u8;
        for _ in 0..4 {
            let io = QueueOptions { digests, ..QueueOptions::io(identity(), cntlid, 1) };
            let mut queue = Initiator::new(io);
            let mut link = world.connect(&mut queue);
            assert_eq!(queue.failure(), None);
            let mut busy = [None; 16];
            let mut requests = Fifo::new(1);
            for _ in 0..world.rng.between(1, 120) {
                let lba = world.rng.index(16).unwrap();
                if requests.is_empty() && busy[lba].is_none() {
                    let tag = Tag(u32::try_from(lba).unwrap());
                    let mut buf = world.host_pool.take(4096).unwrap();
                    let write = world.rng.chance(1, 2);
                    fill = fill.wrapping_add(1);
                    buf.bytes_mut()[..4096].fill(if write { fill } else { 0xee });
                    let at = Lba(lba as u64);
                    let request = match write {
                        true => Request::write(tag, at, 1, buf.freeze()),
                        false => Request::read(tag, at, 1, buf),
                    };
                    if write {
                        blocks[lba].push(fill);
                    }
                    busy[lba] = Some(write.then_some(fill));
                    requests.push(request).unwrap();
                }
                queue.submit(1, 4096, &mut requests);
                world.turn(&mut link, &mut queue);
                check_done(&mut queue, &mut busy, &mut blocks);
            }
            // A write that was never sent cannot have happened, but the host cannot know.
            world.close(&mut link, &mut queue);
            let mut lost = Fifo::new(16);
            queue.poll(&mut lost);
            assert!(lost.iter().all(|done| !done.status.is_ok()), "the end is an error");
        }
        for (lba, block) in world.disks[0].bytes.chunks(4096).enumerate() {
            assert!(may_hold(&blocks, lba, block[0]), "block {lba} lost a write");
        }
        world.close(&mut admin_link, &mut admin);
        assert_eq!(world.pool.stats().taken(), 0, "every buffer is back");
        assert_eq!(world.host_pool.stats().taken(), 0, "the host's too");
        assert!(world.target.sessions().is_empty());
    }
}

#[test]
fn online_resize_reaches_a_host_that_asked_for_events() {
    let mut world = World::new(config(vec![namespace(1, 4096, 16)]), 5, PLENTY);
    let mut admin = Admin::new(QueueOptions::admin(identity()), 1);
    let mut link = world.bring_up(&mut admin);
    let mut settle = |world: &mut World, admin: &mut Admin| {
        for _ in 0..60 {
            world.turn(&mut link, admin);
            admin.poll(&world.host_pool, world.now);
        }
    };
    settle(&mut world, &mut admin);
    world.target.replace(config(vec![namespace(1, 4096, 64), namespace(2, 512, 8)])).unwrap();
    settle(&mut world, &mut admin);
    assert_eq!(admin.take_event(), Some(0x0004_0002));
    admin.rescan();
    for _ in 0..8 {
        settle(&mut world, &mut admin);
    }
    let seen: Vec<_> = admin.info().unwrap().namespaces.iter().map(|ns| ns.blocks).collect();
    assert_eq!(seen, [64, 8]);
}

#[test]
fn capsule_that_waited_for_a_buffer_needs_no_further_bytes_to_go_on() {
    // Besides what the two connections hold there is one 4 KiB segment.
    let mut world = World::new(config(vec![namespace(1, 4096, 16)]), 3, [1, 2, 2, 0, 0]);
    world.disks.push(Disk::new(4096, 16));
    let mut admin = Admin::new(QueueOptions::admin(identity()), 1);
    let _admin_link = world.bring_up(&mut admin);
    let mut queue = Initiator::new(QueueOptions::io(identity(), 1, 1));
    let mut link = world.connect(&mut queue);
    let mut requests = Fifo::new(4);
    for i in 0..4 {
        let buf = world.host_pool.take(4096).unwrap().freeze();
        requests.push(Request::write(Tag(i), Lba(u64::from(i)), 1, buf)).unwrap();
    }
    queue.submit(1, 4096, &mut requests);
    let mut done = Fifo::new(4);
    for _ in 0..200 {
        world.turn(&mut link, &mut queue);
        queue.poll(&mut done);
    }
    assert_eq!(done.len(), 4);
}
