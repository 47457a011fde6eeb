//! In-band authentication: our host against our controller, with the right secrets and without.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "pair/mod.rs"]
mod pair;

use std::time::Duration;

use bdev::{Data, Lba, Tag};
use nvme_spec::{NvmeStatus, Sqe, StatusCode, auth_failure, opcode};
use nvmf::initiator::{Admin, Failure, HostAuthentication, HostCommand, Initiator, QueueOptions};
use nvmf::{
    AUTH_TIMEOUT_MS, AuthFault, Authentication, CloseReason, Config, Cx, Event, Group, Hash,
    HostKeys, Hosts, Nqn, Refused, Secret,
};
use pair::{Disk, HOSTNQN, Link, Reproduce, SUBNQN, World, bytes_of, identity, namespace, rounds};
use zerocopy::FromZeros;

const PLENTY: [u32; 5] = [64, 32, 16, 8, 8];

fn secret(byte: u8, transform: Option<Hash>) -> Secret {
    Secret::new(transform, &[byte; 32]).unwrap()
}

fn keys(hash: Option<Hash>, group: Option<Group>) -> HostKeys {
    HostKeys {
        host: Nqn::new(HOSTNQN).unwrap(),
        key: secret(1, Some(Hash::Sha256)),
        controller_key: Some(secret(2, None)),
        hash,
        group,
    }
}

fn config(hosts: Vec<HostKeys>) -> Config {
    let authentication = Authentication { hosts, required: Vec::new() };
    Config { authentication, ..pair::config(vec![namespace(1, 4096, 64)]) }
}

fn world(config: Config, seed: u64) -> World {
    let mut world = World::new(config, seed, PLENTY);
    world.disks.push(Disk::new(4096, 64));
    world
}

fn host(key: Secret, controller_key: Option<Secret>) -> HostAuthentication {
    HostAuthentication {
        key,
        controller_key,
        hashes: Hash::ALL.to_vec(),
        groups: Group::ALL.to_vec(),
        random: bytes_of(77),
    }
}

fn right() -> HostAuthentication {
    host(secret(1, Some(Hash::Sha256)), Some(secret(2, None)))
}

fn admin_with(with: Option<HostAuthentication>) -> Admin {
    let mut admin = Admin::new(QueueOptions::admin(identity()), 4);
    if let Some(with) = with {
        admin.queue_mut().authenticate_with(with);
    }
    admin
}

fn events(link: &mut Link) -> Vec<Event> {
    std::iter::from_fn(|| link.connection.poll_event()).collect()
}

/// Turns until the host knows that it failed, and how.
fn failure(world: &mut World, admin: &mut Admin) -> (Link, Failure) {
    let mut link = world.accept();
    assert!(admin.open(&world.host_pool));
    for _ in 0..4000 {
        world.turn(&mut link, admin);
        admin.poll(&world.host_pool, world.now);
        assert!(admin.info().is_none(), "nobody gets in");
        if let Some(failure) = admin.failure() {
            return (link, failure);
        }
    }
    panic!("the host never failed");
}

fn faults(link: &mut Link) -> Vec<AuthFault> {
    let fault = |event| match event {
        Event::NotAuthenticated { fault, .. } => Some(fault),
        _ => None,
    };
    events(link).into_iter().filter_map(fault).collect()
}

#[test]
fn every_hash_and_group_lets_the_right_host_in_on_both_kinds_of_queue() {
    for hash in Hash::ALL {
        for group in Group::ALL {
            // One small and one large group of each hash would do; all of them take a second.
            let mut world = world(config(vec![keys(Some(hash), Some(group))]), 7);
            let mut admin = admin_with(Some(right()));
            let mut link = world.bring_up(&mut admin);
            assert_eq!(world.target.sessions().len(), 1);
            let mut queue = Initiator::new(QueueOptions::io(identity(), 1, 1));
            queue.authenticate_with(right());
            let _io = world.connect(&mut queue);
            assert!(queue.is_ready(), "{hash:?} {group:?}: {:?}", queue.failure());
            assert!(matches!(events(&mut link)[..], [Event::Connected { qid: 0, .. }]));
        }
    }
}

#[test]
fn without_configuration_the_smallest_group_is_used_and_one_way_is_enough() {
    let mut world = world(config(vec![keys(None, None)]), 3);
    let mut admin = admin_with(Some(host(secret(1, Some(Hash::Sha256)), None)));
    world.bring_up(&mut admin);
}

#[test]
fn wrong_secrets_do_not_get_in() {
    for (seed, key) in [
        secret(9, Some(Hash::Sha256)),
        // The right bytes, bound to the name in another way.
        secret(1, None),
        secret(1, Some(Hash::Sha512)),
        // The controller's secret is not the host's.
        secret(2, None),
    ]
    .into_iter()
    .enumerate()
    {
        for group in [Group::Null, Group::Ffdhe2048] {
            let keys = vec![keys(None, Some(group))];
            let mut world = world(config(keys), u64::try_from(seed).unwrap());
            let mut admin = admin_with(Some(host(key.clone(), Some(secret(2, None)))));
            let (mut link, failure) = failure(&mut world, &mut admin);
            assert_eq!(failure, Failure::NotAuthenticated(auth_failure::FAILED));
            assert_eq!(faults(&mut link), [AuthFault::Response]);
            assert!(world.target.sessions().is_empty());
        }
    }
}

#[test]
fn a_controller_without_the_right_secret_is_left_by_the_host() {
    let mut world = world(config(vec![keys(None, None)]), 5);
    let mut admin = admin_with(Some(host(secret(1, Some(Hash::Sha256)), Some(secret(3, None)))));
    let (mut link, failure) = failure(&mut world, &mut admin);
    assert_eq!(failure, Failure::WrongController);
    assert_eq!(faults(&mut link), [AuthFault::Host]);
    let without = HostKeys { controller_key: None, ..keys(None, None) };
    let mut world = self::world(config(vec![without]), 6);
    let mut admin = admin_with(Some(right()));
    let (mut link, failure) = self::failure(&mut world, &mut admin);
    assert_eq!(failure, Failure::NotAuthenticated(auth_failure::FAILED));
    assert_eq!(faults(&mut link), [AuthFault::NoControllerKey]);
}

#[test]
fn what_is_not_offered_is_not_used() {
    let refused = |keys: HostKeys, change: fn(&mut HostAuthentication)| {
        let mut world = world(config(vec![keys]), 8);
        let mut with = right();
        change(&mut with);
        failure(&mut world, &mut admin_with(Some(with))).1
    };
    let hash = refused(keys(Some(Hash::Sha512), None), |with| with.hashes = vec![Hash::Sha256]);
    assert_eq!(hash, Failure::NotAuthenticated(auth_failure::HASH_UNUSABLE));
    let group = refused(keys(None, Some(Group::Ffdhe4096)), |with| with.groups.truncate(3));
    assert_eq!(group, Failure::NotAuthenticated(auth_failure::GROUP_UNUSABLE));
    let null = refused(keys(None, Some(Group::Ffdhe2048)), |with| with.groups.truncate(1));
    assert_eq!(null, Failure::NotAuthenticated(auth_failure::GROUP_UNUSABLE), "no way down");
}

#[test]
fn a_host_without_its_secret_gets_nowhere() {
    let mut world = world(config(vec![keys(None, None)]), 9);
    let (_link, failure) = failure(&mut world, &mut admin_with(None));
    assert_eq!(failure, Failure::AuthenticationRequired);
    // One that ignores it gets no answer to anything, and its time runs out.
    let mut link = world.accept();
    let mut admin = admin_with(Some(right()));
    assert!(admin.open(&world.host_pool));
    world.computations.clear();
    for _ in 0..200 {
        // Nobody computes: the exchange is stuck.
        world.rng = bdev::Rng::new(1);
        let cx = Cx { pool: &world.pool, now: world.now };
        let mut batch = net::Batch::with_defaults();
        if admin.queue_mut().poll_transmit(&mut batch) {
            batch.pieces().for_each(|piece| assert!(link.connection.on_bytes(cx, piece) > 0));
            admin.queue_mut().on_sent(&mut batch);
        }
        world.requests(&mut link);
        let cx = Cx { pool: &world.pool, now: world.now };
        if link.connection.poll_transmit(cx, &mut batch) {
            batch.pieces().for_each(|piece| assert!(admin.queue_mut().on_bytes(piece) > 0));
            link.connection.on_sent(cx, &mut batch);
        }
    }
    assert!(link.connection.wants_computation() && world.target.sessions().is_empty());
    let end = world.now.saturating_add(Duration::from_millis(AUTH_TIMEOUT_MS));
    assert_eq!(link.connection.next_timeout(), Some(end));
    link.connection.on_timeout(Cx { pool: &world.pool, now: end });
    let said = events(&mut link);
    assert!(matches!(said[0], Event::NotAuthenticated { fault: AuthFault::Timeout, .. }));
    assert_eq!(said[1], Event::Closing { reason: CloseReason::Authentication });
}

#[test]
fn a_subsystem_that_requires_secrets_refuses_hosts_without() {
    let mut closed = config(Vec::new());
    closed.authentication.required.push(Nqn::new(SUBNQN).unwrap());
    let mut world = world(closed, 10);
    let (mut link, failure) = failure(&mut world, &mut admin_with(Some(right())));
    let status = NvmeStatus::never(StatusCode::CONNECT_INVALID_HOST);
    assert_eq!(failure, Failure::Refused { status, dw0: 0 });
    assert!(matches!(events(&mut link)[..], [Event::Refused { cause: Refused::NoKey, .. }]));
}

#[test]
fn a_secret_does_not_replace_the_list() {
    let mut listed = config(vec![keys(None, None)]);
    listed.subsystems[0].hosts = Hosts::List(vec![Nqn::new("nqn.2026-11.io.example:b").unwrap()]);
    let mut world = world(listed, 11);
    let (mut link, failure) = failure(&mut world, &mut admin_with(Some(right())));
    assert!(matches!(failure, Failure::Refused { .. }));
    assert!(matches!(events(&mut link)[..], [Event::Refused { cause: Refused::NotListed, .. }]));
}

/// The status of a command that is sent as soon as the queue can take one.
fn command(world: &mut World, link: &mut Link, queue: &mut Initiator, opcode: u8) -> NvmeStatus {
    let mut sqe = Sqe::new_zeroed();
    sqe.opcode = opcode;
    let data = Data::None;
    queue.submit_command(HostCommand { tag: Tag(5), sqe, data, len: 0 }).unwrap();
    for _ in 0..2000 {
        world.turn(link, queue);
        if let Some(response) = queue.poll_response() {
            return response.cqe.nvme_status();
        }
    }
    panic!("no answer");
}

#[test]
fn authenticating_again_goes_on_beside_io_and_a_changed_secret_fails_it() {
    let mut world = world(config(vec![keys(None, None)]), 12);
    let mut admin = admin_with(Some(right()));
    let _admin_link = world.bring_up(&mut admin);
    let mut queue = Initiator::new(QueueOptions::io(identity(), 1, 1));
    queue.authenticate_with(right());
    let mut link = world.connect(&mut queue);
    for _ in 0..2 {
        assert!(queue.reauthenticate(&world.host_pool));
        let mut answered = 0;
        for turn in 0..4000u64 {
            assert_eq!(queue.failure(), None);
            let mut requests = bdev::Fifo::new(1);
            if turn % 8 == 0
                && queue.room() > 4
                && let Some(buf) = world.host_pool.take(4096)
            {
                requests.push(bdev::Request::read(Tag(1), Lba(turn % 64), 1, buf)).unwrap();
                queue.submit(1, 4096, &mut requests);
            }
            world.turn(&mut link, &mut queue);
            let mut done = bdev::Fifo::new(8);
            queue.poll(&mut done);
            answered += done.len();
            if !queue.is_authenticating() {
                break;
            }
        }
        assert!(!queue.is_authenticating() && answered > 0);
    }
    let changed = HostKeys { key: secret(8, None), ..keys(None, None) };
    world.target.replace(config(vec![changed])).unwrap();
    assert!(command(&mut world, &mut link, &mut queue, opcode::nvm::FLUSH).code.sct() <= 1);
    assert!(queue.is_ready(), "a session outlives the change of its secret");
    assert!(queue.reauthenticate(&world.host_pool));
    for _ in 0..4000 {
        world.turn(&mut link, &mut queue);
    }
    assert_eq!(queue.failure(), Some(Failure::NotAuthenticated(auth_failure::FAILED)));
    assert_eq!(faults(&mut link), [AuthFault::Response]);
}

#[test]
fn a_secret_that_is_added_ends_sessions_that_did_not_need_one() {
    let mut world = world(config(Vec::new()), 13);
    let mut admin = admin_with(None);
    let mut link = world.bring_up(&mut admin);
    let mut queue = Initiator::new(QueueOptions::io(identity(), 1, 1));
    let mut io = world.connect(&mut queue);
    world.target.replace(config(vec![keys(None, None)])).unwrap();
    assert!(world.target.sessions().is_empty());
    world.requests(&mut link);
    world.requests(&mut io);
    for link in [&mut link, &mut io] {
        let said = events(link);
        assert_eq!(said.last(), Some(&Event::Closing { reason: CloseReason::Controller }));
    }
}

#[test]
fn an_io_queue_proves_for_itself() {
    let mut world = world(config(vec![keys(None, None)]), 14);
    let mut admin = admin_with(Some(right()));
    let _admin_link = world.bring_up(&mut admin);
    let mut thief = Initiator::new(QueueOptions::io(identity(), 1, 1));
    thief.authenticate_with(host(secret(4, None), None));
    let mut link = world.connect(&mut thief);
    assert_eq!(thief.failure(), Some(Failure::NotAuthenticated(auth_failure::FAILED)));
    assert_eq!(faults(&mut link), [AuthFault::Response]);
    assert_eq!(world.target.sessions().len(), 1, "the owner does not notice");
}

#[test]
fn a_computation_that_comes_back_too_late_is_void() {
    let mut world = world(config(vec![keys(None, None)]), 15);
    let mut admin = admin_with(Some(right()));
    let mut link = world.accept();
    assert!(admin.open(&world.host_pool));
    while world.computations.is_empty() {
        world.turn(&mut link, &mut admin);
    }
    let mut late = world.computations.pop().unwrap();
    world.close(&mut link, &mut admin);
    admin.queue_mut().reset();
    // The same connection object serves the next TCP connection, whose turn comes later.
    let addresses = nvmf::Addresses {
        local: "10.0.2.2:4420".parse().unwrap(),
        peer: "10.0.2.15:50001".parse().unwrap(),
    };
    let cx = Cx { pool: &world.pool, now: world.now };
    assert!(link.connection.accept(cx, addresses));
    assert!(admin.open(&world.host_pool));
    for _ in 0..400 {
        world.turn(&mut link, &mut admin);
        assert!(world.computations.is_empty(), "there is one for each connection");
    }
    world.authenticator.compute(&mut late);
    link.connection.on_computed(Cx { pool: &world.pool, now: world.now }, late);
    for _ in 0..4000 {
        world.turn(&mut link, &mut admin);
        admin.poll(&world.host_pool, world.now);
        if admin.info().is_some() {
            return;
        }
    }
    panic!("the second one never got in: {:?}", admin.failure());
}

/// What a host sends while it authenticates, damaged: nobody gets in, nothing panics.
#[test]
fn damaged_exchanges_let_nobody_in() {
    let (start, count) = rounds(16);
    for seed in start..start + count {
        let _reproduce = Reproduce("damaged_exchanges_let_nobody_in", seed);
        let group = if seed % 8 == 0 { Group::Ffdhe2048 } else { Group::Null };
        let mut world = world(config(vec![keys(None, Some(group))]), seed);
        // A host without the secret may damage what it likes.
        let mut admin = admin_with(Some(host(secret(3, None), None)));
        let mut link = world.accept();
        assert!(admin.open(&world.host_pool));
        for turn in 0..600 {
            let before = link.to_target.len();
            world.turn(&mut link, &mut admin);
            admin.poll(&world.host_pool, world.now);
            // Behind ICReq and Connect: those have tests of their own.
            if turn > 20 && link.to_target.len() > before && world.rng.chance(1, 2) {
                let at = before + world.rng.index(link.to_target.len() - before).unwrap();
                link.to_target[at] ^= 1 << world.rng.below(8);
            }
            assert!(admin.info().is_none() && world.target.sessions().is_empty());
        }
        world.close(&mut link, &mut admin);
    }
}
