//! A host proves who it is to a real node, and nobody else gets in.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use api::DhchapKey;
use bdev::{Instant, Pool, PoolConfig};
use load::ConnectError;
use nvmf::initiator::{Admin, Failure, HostAuthentication, HostIdentity, QueueOptions};
use nvmf::{Group, Hash, HostId, Nqn, Secret};

use crate::host::{Host, address};
use crate::stand::{dir, metric, ok, shown, start, start_with_volume};

/// A host with a key.
const PROVEN: &str = "nqn.2014-08.com.example:proven";

fn secret(key: &str) -> Secret {
    let key: DhchapKey = key.parse().unwrap();
    let hash = key.hash().map(|hash| Hash::of(hash.number()).unwrap());
    Secret::new(hash, key.secret()).unwrap()
}

/// Connects under the name of that host; how it ended.
fn connect(address: SocketAddr, key: &str, controller_key: Option<&str>) -> Result<(), Failure> {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let hostnqn = Nqn::new(PROVEN).unwrap();
    let subnqn = Nqn::new("nqn.2026-11.dev.holdfast:test:db").unwrap();
    let identity = HostIdentity { hostnqn, hostid: HostId([3; 16]), subnqn };
    let mut admin = Admin::new(QueueOptions::admin(identity), 1);
    admin.queue_mut().authenticate_with(HostAuthentication {
        key: secret(key),
        controller_key: controller_key.map(secret),
        hashes: Hash::ALL.to_vec(),
        groups: Group::ALL.to_vec(),
        random: Box::new(|bytes| getrandom::fill(bytes).unwrap()),
    });
    assert!(admin.open(&pool));
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut batch = net::Batch::with_defaults();
    let mut received = [0; 4096];
    loop {
        while admin.queue_mut().poll_transmit(&mut batch) {
            batch.pieces().for_each(|piece| socket.write_all(piece).unwrap());
            admin.queue_mut().on_sent(&mut batch);
        }
        match socket.read(&mut received) {
            Ok(0) => admin.queue_mut().on_closed(),
            Ok(len) => {
                let mut rest = &received[..len];
                while !rest.is_empty() {
                    let taken = admin.queue_mut().on_bytes(rest);
                    rest = if taken == 0 { &[] } else { &rest[taken..] };
                }
            }
            Err(error) => {
                let empty = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(empty, "{error}");
            }
        }
        admin.poll(&pool, Instant::ZERO);
        if let Some(failure) = admin.failure() {
            return Err(failure);
        }
        if admin.info().is_some() {
            return Ok(());
        }
    }
}

#[test]
fn keys_open_the_door_for_their_host_and_survive_a_restart() {
    let dir = dir();
    let dir = dir.path();
    let mut process = start_with_volume(dir);
    let make = |options: &str| ok(dir, &format!("host gen-dhchap-key {options}")).trim().to_owned();
    let (key, controller_key, wrong) = (make("--hmac 1"), make("--hmac 3"), make(""));
    std::fs::write(dir.join("key"), &key).unwrap();
    let set = format!("host set {PROVEN} --dhchap-key @DIR/key --dhchap-ctrl-key {controller_key}");
    assert!(shown(dir, &set)["changed"] == true && shown(dir, &set)["changed"] == false);

    let failed = Failure::NotAuthenticated(1);
    assert_eq!(connect(address(dir), &wrong, None), Err(failed));
    process.wait_for("authentication_failed");
    let told = process.log.last().unwrap();
    assert!(told.contains(PROVEN) && told.contains("it has another key"), "{told}");
    let counted = metric(dir, "holdfast_nvme_tcp_not_authenticated_total");
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
    let other_node = connect(address(dir), &key, Some(&wrong));
    assert_eq!(other_node, Err(Failure::WrongController));
    assert_eq!(connect(address(dir), &key, Some(&controller_key)), Ok(()));

    process.signal("-KILL");
    let (_, log) = process.wait();
    assert!(!log.join("\n").contains("DHHC-1"), "no key is in the log");
    let process = start(dir);
    assert_eq!(connect(address(dir), &wrong, None), Err(failed));
    assert_eq!(connect(address(dir), &key, None), Ok(()));
    let listed = shown(dir, "host list");
    assert!(listed[0]["nqn"] == PROVEN && listed[0]["has_dhchap_ctrl_key"] == true);
    assert!(!listed.to_string().contains("DHHC") && !ok(dir, "host list").contains("DHHC"));
    assert!(!ok(dir, "node events").contains("DHHC"));

    ok(dir, &format!("host remove {PROVEN} --yes"));
    assert_eq!(connect(address(dir), &wrong, None), Ok(()), "nobody asks any more");
    drop(process);
}

#[test]
fn an_export_can_refuse_hosts_without_keys() {
    let dir = dir();
    let dir = dir.path();
    let mut process = start_with_volume(dir);
    ok(dir, "export remove db --yes");
    ok(dir, "export add db --allow-any-host --require-authentication");
    let refused = Host::connect(address(dir));
    assert!(matches!(refused, Err(ConnectError::Failed { .. })));
    process.wait_for("has no key, and needs one here");
    let export = &shown(dir, "export list")[0];
    assert!(export["require_authentication"] == true, "{export}");
    let printed = ok(dir, "host gen-dhchap-key --key-length 48");
    assert_eq!(printed.trim().parse::<DhchapKey>().unwrap().secret().len(), 48);
    ok(dir, &format!("host set {PROVEN} --dhchap-key {}", printed.trim()));
    assert_eq!(connect(address(dir), printed.trim(), None), Ok(()));
}
