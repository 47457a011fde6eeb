//! The initiator against the target, through memory, with everything that a network can do.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "pair/mod.rs"]
mod pair;

use bdev::{Data, Fifo, Flags, Lba, Op, Request, Status, Tag};
use nvmf::Digests;
use nvmf::initiator::{Admin, Initiator, QueueOptions};
use pair::{Disk, Reproduce, World, config, identity, namespace, rounds};

const BLOCKS: u64 = 2048;

/// Random block requests on one I/O queue, checked against a copy of the disk.
fn random_io(world: &mut World, queue: &mut Initiator, link: &mut pair::Link, count: u32) {
    let block_size = world.disks[0].block_size;
    let mut shadow = world.disks[0].bytes.clone();
    let mut submitted = 0;
    let mut done = 0;
    let mut requests = Fifo::new(1);
    // What each tag reads or writes; ranges in flight never overlap, so the copy is exact.
    let mut in_flight: Vec<(Tag, Op, usize, usize)> = Vec::new();
    for turn in 0.. {
        assert!(turn < 400_000, "no progress: {done} of {count}");
        if submitted < count && requests.is_empty() {
            let op = [Op::Read, Op::Write, Op::Write, Op::WriteZeroes, Op::Flush]
                [world.rng.index(5).unwrap()];
            let max = u64::try_from((1 << 20) / block_size).unwrap().min(BLOCKS);
            let blocks = if world.rng.chance(1, 8) { max } else { world.rng.between(1, 20) };
            let lba = world.rng.below(BLOCKS - blocks + 1);
            let (start, len) = (
                usize::try_from(lba).unwrap() * block_size,
                usize::try_from(blocks).unwrap() * block_size,
            );
            let overlaps = in_flight.iter().any(|&(_, _, s, l)| start < s + l && s < start + len);
            let tag = Tag(submitted);
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
                _ => world.host_pool.take(len).map(|mut buf| {
                    world.rng.fill(&mut buf.bytes_mut()[..len]);
                    Request::write(tag, Lba(lba), blocks, buf.freeze())
                }),
            };
            if let Some(request) = request {
                let span = if op == Op::Flush { (0, 0) } else { (start, len) };
                if let Data::From(buf) = &request.data {
                    shadow[start..start + len].copy_from_slice(&buf.bytes()[..len]);
                }
                if op == Op::WriteZeroes {
                    shadow[start..start + len].fill(0);
                }
                in_flight.push((tag, op, span.0, span.1));
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
            assert_eq!(completion.status, Status::Ok, "{op:?}");
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
    let (seed, rounds) = rounds(2);
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("random_io_survives", seed);
        io_with(seed, Digests::default(), true, 0, PLENTY, 150);
        io_with(seed, Digests { header: true, data: true }, false, 0, PLENTY, 150);
        io_with(seed, Digests { header: false, data: true }, true, 31, PLENTY, 60);
        io_with(seed, Digests { header: true, data: false }, false, 7, PLENTY, 60);
    }
}

#[test]
fn exhausted_pool_is_back_pressure_and_never_an_error() {
    let (seed, rounds) = rounds(2);
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("exhausted_pool", seed);
        io_with(seed, Digests::default(), true, 0, SCARCE, 100);
        io_with(seed, Digests { header: true, data: true }, false, 3, SCARCE, 60);
    }
}
