//! Hostile bytes: streams of a real host, damaged at random, and plain noise. Nothing panics, no
//! memory is lost or taken beyond the limits, and the other connections do not notice.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "pair/mod.rs"]
mod pair;

use bdev::{Fifo, Lba, Op, Request, Rng, Tag};
use net::Batch;
use nvmf::initiator::{Admin, Initiator, QueueOptions};
use nvmf::{Cx, Digests, HELD_BYTES_MAX};
use pair::{Disk, Link, Reproduce, World, config, identity, namespace, rounds};

const PLENTY: [u32; 5] = [64, 32, 16, 8, 8];

fn world(seed: u64) -> World {
    let mut world = World::new(config(vec![namespace(1, 4096, 256)]), seed, PLENTY);
    world.disks.push(Disk::new(4096, 256));
    world
}

fn options(digests: Digests) -> (QueueOptions, QueueOptions) {
    let admin = QueueOptions { digests, ..QueueOptions::admin(identity()) };
    let io = QueueOptions { digests, ..QueueOptions::io(identity(), 1, 1) };
    (admin, io)
}

/// What a host sends on an I/O queue: ICReq, Connect and some commands with their data.
fn record_io(seed: u64, digests: Digests) -> Vec<u8> {
    let mut world = world(seed);
    let (admin_options, io_options) = options(digests);
    let mut admin = Admin::new(admin_options, 2);
    let _admin_link = world.bring_up(&mut admin);
    let mut queue = Initiator::new(io_options);
    let mut link = world.connect(&mut queue);
    let mut stream = link.sent.clone();
    let mut requests = Fifo::new(16);
    for i in 0..8u32 {
        let blocks = [1, 8, 2, 1][i as usize % 4];
        let tag = Tag(i);
        let lba = Lba(u64::from(i) * 8);
        let request = match i % 4 {
            0 | 1 => {
                let buf = world.host_pool.take(blocks as usize * 4096).unwrap();
                Request::write(tag, lba, blocks, buf.freeze())
            }
            2 => Request::read(tag, lba, blocks, world.host_pool.take(8192).unwrap()),
            _ => Request::range(tag, Op::WriteZeroes, lba, blocks),
        };
        requests.push(request).unwrap();
    }
    queue.submit(1, 4096, &mut requests);
    for _ in 0..200 {
        world.turn(&mut link, &mut queue);
    }
    stream.clone_from(&link.sent);
    stream
}

/// What a host sends on an admin queue while it comes up.
fn record_admin(seed: u64, digests: Digests) -> Vec<u8> {
    let mut world = world(seed);
    let mut admin = Admin::new(options(digests).0, 2);
    world.bring_up(&mut admin).sent
}

/// Damages a stream: flips, overwrites, cuts, repeats and moves of bytes.
fn damage(rng: &mut Rng, stream: &[u8]) -> Vec<u8> {
    let mut bytes = stream.to_vec();
    for _ in 0..rng.between(1, 6) {
        let Some(at) = rng.index(bytes.len()) else { break };
        // Headers are where it hurts: most damage goes near the start of a PDU-sized stretch.
        let end = (at + 1 + rng.index(64).unwrap()).min(bytes.len());
        match rng.below(6) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.index(5).unwrap()],
            2 => rng.fill(&mut bytes[at..end]),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Feeds `bytes` to a connection in random pieces while its requests complete at random.
fn feed(world: &mut World, link: &mut Link, bytes: &[u8]) {
    let mut rest = bytes;
    let mut batch = Batch::with_defaults();
    for _ in 0..600 {
        let cx = Cx { pool: &world.pool, now: world.now };
        let len = usize::try_from(world.rng.between(1, 4096)).unwrap().min(rest.len());
        let taken = link.connection.on_bytes(cx, &rest[..len]);
        rest = &rest[taken..];
        world.requests(link);
        world.complete_some(std::slice::from_mut(link));
        let cx = Cx { pool: &world.pool, now: world.now };
        if link.connection.poll_transmit(cx, &mut batch) {
            link.connection.on_sent(cx, &mut batch);
        }
        let stats = world.pool.stats();
        assert!(u64::from(stats.taken()) * 4096 <= HELD_BYTES_MAX as u64);
        if link.connection.wants_close() || rest.is_empty() {
            break;
        }
    }
}

struct Nobody;

impl pair::Host for Nobody {
    fn poll_transmit(&mut self, _: &mut Batch) -> bool {
        false
    }
    fn on_sent(&mut self, _: &mut Batch) {}
    fn on_bytes(&mut self, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_closed(&mut self) {}
}

fn attack(seed: u64, stream: &[u8], io: bool, digests: Digests) {
    let mut world = world(seed);
    let mut rng = Rng::new(seed).fork("damage");
    let mut admin = Admin::new(options(digests).0, 2);
    let mut admin_link = io.then(|| world.bring_up(&mut admin));
    let before = world.pool.stats().taken();
    for _ in 0..4 {
        let bytes = damage(&mut rng, stream);
        let mut link = world.accept();
        feed(&mut world, &mut link, &bytes);
        world.close(&mut link, &mut Nobody);
        assert_eq!(world.pool.stats().taken(), before, "every buffer is back");
    }
    if let Some(link) = &mut admin_link {
        for _ in 0..4 {
            world.turn(link, &mut admin);
            admin.poll(&world.host_pool, world.now);
        }
        assert_eq!(admin.failure(), None, "the neighbour did not notice");
    }
}

#[test]
fn damaged_io_streams_never_hurt() {
    let (seed, rounds) = rounds(60);
    let both = Digests { header: true, data: true };
    let streams =
        [(record_io(1, Digests::default()), Digests::default()), (record_io(1, both), both)];
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("damaged_io", seed);
        let (stream, digests) = &streams[usize::try_from(seed % 2).unwrap()];
        attack(seed, stream, true, *digests);
    }
}

#[test]
fn damaged_admin_streams_never_hurt() {
    let (seed, rounds) = rounds(100);
    let stream = record_admin(1, Digests::default());
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("damaged_admin", seed);
        attack(seed, &stream, false, Digests::default());
    }
}

#[test]
fn noise_is_answered_by_an_end() {
    let (seed, rounds) = rounds(200);
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("noise_is_answered", seed);
        let mut world = world(seed);
        let mut link = world.accept();
        let mut bytes = vec![0; 4096];
        world.rng.clone().fill(&mut bytes);
        // A correct length, so that the header is looked at.
        bytes[2] = 128;
        feed(&mut world, &mut link, &bytes);
        let cx = Cx { pool: &world.pool, now: world.now };
        assert_eq!(link.connection.on_bytes(cx, &[]), 0);
        world.close(&mut link, &mut Nobody);
        assert_eq!(world.pool.stats().taken(), 0);
    }
}

#[test]
fn damaged_answers_never_hurt_the_host() {
    let (seed, rounds) = rounds(60);
    for seed in seed..seed + rounds {
        let _reproduce = Reproduce("damaged_answers", seed);
        let mut world = world(seed);
        let mut rng = Rng::new(seed).fork("damage");
        let mut admin = Admin::new(options(Digests::default()).0, 2);
        let mut link = world.accept();
        assert!(admin.open(&world.host_pool));
        for turn in 0..400 {
            if rng.chance(1, 40) && !link.to_host.is_empty() {
                let bytes: Vec<u8> = link.to_host.drain(..).collect();
                link.to_host.extend(damage(&mut rng, &bytes));
            }
            world.turn(&mut link, &mut admin);
            admin.poll(&world.host_pool, world.now);
            if admin.failure().is_some() || turn == 399 {
                break;
            }
        }
        world.close(&mut link, &mut admin);
        admin.poll(&world.host_pool, world.now);
        assert_eq!(world.pool.stats().taken(), 0);
        drop(admin);
        assert_eq!(world.host_pool.stats().taken(), 0, "every buffer of the host is back");
    }
}
