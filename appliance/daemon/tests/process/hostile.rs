//! Hosts that mean no good, against the real daemon: slow ones, silent ones, too many, and such
//! that go away in the middle of everything. The others are served, and nothing is left behind.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use bdev::{Fifo, Lba, Pool, PoolConfig, Request, Tag};
use net::Batch;
use nvmf::initiator::{Admin, HostIdentity, Initiator, QueueOptions};
use nvmf::{HostId, Nqn};

use crate::host::{BLOCK, HOST, Host, address};
use crate::stand::{Process, dir, metrics, start_with_volume};

/// What a host says on an I/O queue of the volume: ICReq, Connect, then a write of 64 KiB that
/// waits to be asked for its data, and the data.
struct Speech {
    bytes: Vec<u8>,
    /// Where each of the four begins, and where all ends.
    parts: [usize; 5],
}

fn identity() -> HostIdentity {
    HostIdentity {
        hostnqn: Nqn::new(HOST).unwrap(),
        hostid: HostId([9; 16]),
        subnqn: Nqn::new("nqn.2026-11.dev.holdfast:test:db").unwrap(),
    }
}

/// A host by hand: what it says can be held back, cut off, or sent byte by byte.
struct Hand {
    stream: TcpStream,
    pool: Pool,
    said: Vec<u8>,
}

impl Hand {
    fn connect(to: SocketAddr) -> Hand {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        Hand { stream, pool, said: Vec::new() }
    }

    /// Sends what a queue has to say, in pieces; false when the daemon has hung up.
    fn say(&mut self, queue: &mut Initiator, piece: usize) -> bool {
        let mut batch = Batch::with_defaults();
        let mut bytes = Vec::new();
        if queue.poll_transmit(&mut batch) {
            batch.pieces().for_each(|part| bytes.extend_from_slice(part));
            queue.on_sent(&mut batch);
        }
        self.said.extend_from_slice(&bytes);
        bytes.chunks(piece).all(|part| self.stream.write_all(part).is_ok())
    }

    fn hear(&mut self, queue: &mut Initiator) {
        let mut bytes = [0; 4096];
        let len = self.stream.read(&mut bytes).unwrap();
        assert!(len > 0, "the daemon hung up");
        queue.on_bytes(&bytes[..len]);
    }

    /// Brings an admin queue up, `piece` bytes at a time.
    fn bring_up(&mut self, piece: usize) -> Admin {
        let mut admin = Admin::new(QueueOptions::admin(identity()), 1);
        assert!(admin.open(&self.pool));
        loop {
            admin.poll(&self.pool, bdev::Instant::ZERO);
            if admin.info().is_some() {
                break;
            }
            let queue = admin.queue_mut();
            assert!(self.say(queue, piece));
            if queue.in_flight() > 0 || !queue.is_ready() {
                self.hear(queue);
            }
            assert_eq!(admin.failure(), None);
        }
        admin
    }

    /// Connects an I/O queue and writes 64 KiB, `piece` bytes at a time.
    fn write(&mut self, cntlid: u16, piece: usize) -> Speech {
        let options = QueueOptions { in_capsule_max: 0, ..QueueOptions::io(identity(), cntlid, 1) };
        let mut queue = Initiator::new(options);
        assert!(queue.open(&self.pool));
        let mut parts = [0; 5];
        self.say(&mut queue, piece);
        self.hear(&mut queue);
        parts[1] = self.said.len();
        while !queue.is_ready() {
            self.say(&mut queue, piece);
            self.hear(&mut queue);
        }
        parts[2] = self.said.len();
        let mut requests = Fifo::new(1);
        let data = self.pool.take(16 * BLOCK).unwrap().freeze();
        requests.push(Request::write(Tag(1), Lba(0), 16, data)).unwrap();
        queue.submit(1, 4096, &mut requests);
        self.say(&mut queue, piece);
        parts[3] = self.said.len();
        let mut completions = Fifo::new(1);
        while completions.is_empty() {
            self.hear(&mut queue);
            self.say(&mut queue, piece);
            queue.poll(&mut completions);
        }
        assert!(completions.pop().unwrap().status.is_ok());
        parts[4] = self.said.len();
        queue.on_closed();
        Speech { bytes: std::mem::take(&mut self.said), parts }
    }
}

/// What such a host says, learned from one that is honest.
fn speech(to: SocketAddr, piece: usize) -> Speech {
    let mut control = Hand::connect(to);
    let mut admin = control.bring_up(piece);
    let cntlid = admin.info().unwrap().cntlid;
    let mut data = Hand::connect(to);
    let speech = data.write(cntlid, piece);
    admin.queue_mut().on_closed();
    speech
}

/// A well-behaved host writes and reads its part of the volume.
fn is_served(to: SocketAddr) {
    let mut host = Host::connect(to).unwrap();
    host.write(100, &[1, 2, 3]);
    assert!(host.try_read(101).is_ok());
}

/// Buffers that are free, and connections that are open.
fn left(dir: &Path) -> [f64; 2] {
    let text = metrics(dir);
    ["holdfast_shard_buffers_free{", "holdfast_nvme_tcp_connections "].map(|name| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
    })
}

/// Waits until the daemon has forgotten everybody, and has `free` buffers again.
fn forgotten(dir: &Path, free: f64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while left(dir) != [free, 0.0] {
        assert!(Instant::now() < deadline, "{:?} is not {free} and none", left(dir));
    }
}

fn resident_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.child.id())).unwrap().count()
}

#[test]
fn a_host_that_sends_one_byte_at_a_time_is_served_and_holds_nobody_up() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    let to = address(dir);
    let [free, _] = left(dir);
    let speech = speech(to, 1);
    // Then many that stop in the middle of each part, and say nothing more.
    let silent: Vec<TcpStream> = (1..speech.bytes.len())
        .step_by(speech.bytes.len() / 60)
        .chain(speech.parts[..4].iter().map(|part| part + 1))
        .map(|len| {
            let mut stream = TcpStream::connect(to).unwrap();
            // It may be refused early: its controller is gone.
            let _ = stream.write_all(&speech.bytes[..len]);
            stream
        })
        .collect();
    for _ in 0..3 {
        is_served(to);
    }
    drop(silent);
    forgotten(dir, free);
    drop(process);
}

#[test]
fn hosts_that_never_listen_take_no_more_than_their_share() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    let to = address(dir);
    let [free, _] = left(dir);
    let before = resident_kib(&process);
    let mut deaf: Vec<Host> = (0..4).map(|_| Host::connect(to).unwrap()).collect();
    for host in &mut deaf {
        assert!(host.read_and_stop_listening() > 0);
    }
    let mut host = Host::connect(to).unwrap();
    let mut written = BTreeMap::new();
    for version in 0..20 {
        let lba = version * 7;
        host.write(lba, &[version]);
        written.insert(lba, version);
    }
    host.verify(&written);
    // Buffers were taken at the start; 64 MiB is all that there are.
    let grown = resident_kib(&process).saturating_sub(before);
    assert!(grown < (64 + 32) << 10, "{grown} KiB");
    drop((deaf, host));
    forgotten(dir, free);
}

#[test]
fn ten_thousand_connects_leave_nothing_behind() {
    let dir = dir();
    let dir = dir.path();
    let process = start_with_volume(dir);
    let to = address(dir);
    let [free, _] = left(dir);
    let speech = speech(to, 4096);
    let mut other = Host::connect(to).unwrap();
    let turn = |number: usize| {
        let mut stream = TcpStream::connect(to).unwrap();
        // Some say nothing, some a part of ICReq, some all up to the Connect and no more.
        let len = [0, 0, 0, 1, 64, speech.parts[1], speech.parts[2]][number % 7];
        let _ = stream.write_all(&speech.bytes[..len]);
    };
    (0..500).for_each(turn);
    other.write(7, &[0]);
    let (memory, files) = (resident_kib(&process), descriptors(&process));
    for number in 0..10_000 {
        turn(number);
        if number % 1000 == 0 {
            other.write(7, &[1]);
            assert!(other.try_read(7).is_ok());
        }
    }
    is_served(to);
    drop(other);
    forgotten(dir, free);
    let grown = resident_kib(&process).saturating_sub(memory);
    assert!(grown < 8 << 10, "{grown} KiB after ten thousand connects");
    assert!(descriptors(&process) <= files, "descriptors are left");
}

#[test]
fn silent_connections_do_not_keep_a_host_out() {
    let dir = dir();
    let dir = dir.path();
    let _process = start_with_volume(dir);
    let to = address(dir);
    let [free, _] = left(dir);
    let mut early = Host::connect(to).unwrap();
    // More than a core has places for. One that comes in the middle of them may be turned away, and
    // tries again.
    let silent: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(to).unwrap()).collect();
    let late = (0..100).find_map(|_| Host::connect(to).ok());
    late.expect("a host that comes later is let in").write(100, &[1]);
    early.write(3, &[4]);
    assert!(early.try_read(3).is_ok(), "a host that is connected stays so");
    drop((early, silent));
    forgotten(dir, free);
}

#[test]
fn a_connection_may_die_in_any_state() {
    let dir = dir();
    let dir = dir.path();
    let _process = start_with_volume(dir);
    let to = address(dir);
    let [free, _] = left(dir);
    let speech = speech(to, 4096);
    let mut control = Hand::connect(to);
    let mut admin = control.bring_up(4096);
    let mut cuts: Vec<usize> = (0..speech.parts[3]).step_by(29).collect();
    cuts.extend((speech.parts[3]..speech.parts[4]).step_by(4001));
    for (number, cut) in cuts.into_iter().enumerate() {
        let mut stream = TcpStream::connect(to).unwrap();
        let _ = stream.write_all(&speech.bytes[..cut]);
        if number % 2 == 0 {
            // What it was answered is not read: the kernel resets the connection.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }
    is_served(to);
    admin.queue_mut().on_closed();
    drop(control);
    forgotten(dir, free);
}
