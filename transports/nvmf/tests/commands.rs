//! Any commands in any order, on several controllers and queues of one host, with resets, aborts
//! and cross-controller resets in between and requests that complete late: nothing panics, every
//! buffer comes back, and every connection ends.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::sync::Arc;

use bdev::{Completion, Fifo, Instant, Pool, PoolConfig, Request, Rng, Status};
use net::Batch;
use nvme_spec::{
    CommonHeader, ConnectData, ConnectSqe, IcReq, PSDT_SGL, PduType, PropertySetSqe, Sgl, Sqe, U16,
    U32, U64, opcode,
};
use nvmf::{
    Addresses, Config, Connection, Cx, Hosts, Namespace, NamespaceHandle, Nqn, Reach, Subsystem,
    Target,
};
use zerocopy::{FromZeros, IntoBytes};

const NQN: &str = "nqn.2026-11.io.example:vol";
const BLOCKS: u64 = 64;

fn target() -> Arc<Target> {
    let namespace = |nsid: u32| Namespace {
        nsid,
        handle: NamespaceHandle(nsid),
        uuid: [u8::try_from(nsid).unwrap(); 16],
        block_size: 4096,
        blocks: BLOCKS,
        atomic_blocks: 1,
        reach: Reach::default(),
    };
    let subsystem = Subsystem {
        nqn: Nqn::new(NQN).unwrap(),
        serial: "HF1".into(),
        hosts: Hosts::Any,
        namespaces: vec![namespace(1), namespace(2)],
    };
    Target::new(Config { subsystems: vec![subsystem], ..Config::default() }).unwrap()
}

fn pdu(sqe: &Sqe, data: &[u8]) -> Vec<u8> {
    let pdo = if data.is_empty() { 0 } else { 72 };
    let ch = header(PduType::CapsuleCmd, 0, pdo, 72 + data.len());
    [ch.as_bytes(), sqe.as_bytes(), data].concat()
}

fn header(pdu_type: PduType, flags: u8, pdo: usize, plen: usize) -> CommonHeader {
    CommonHeader {
        pdu_type: pdu_type as u8,
        flags,
        hlen: u8::try_from(pdu_type.header_len()).unwrap(),
        pdo: u8::try_from(pdo).unwrap(),
        plen: U32::new(u32::try_from(plen).unwrap()),
    }
}

fn with_data(mut sqe: Sqe, data: &[u8]) -> Vec<u8> {
    sqe.flags = PSDT_SGL;
    if !data.is_empty() {
        sqe.dptr = Sgl::in_capsule(0, u32::try_from(data.len()).unwrap());
    }
    pdu(&sqe, data)
}

fn connect(qid: u16, cntlid: u16) -> Vec<u8> {
    let mut sqe = ConnectSqe::new_zeroed();
    sqe.fctype = opcode::fctype::CONNECT;
    sqe.qid = U16::new(qid);
    sqe.sqsize = U16::new(127);
    let mut data = ConnectData::new_zeroed();
    data.hostid = [1; 16];
    data.cntlid = U16::new(if qid == 0 { 0xffff } else { cntlid });
    data.subnqn[..NQN.len()].copy_from_slice(NQN.as_bytes());
    let host = "nqn.2026-11.io.example:host";
    data.hostnqn[..host.len()].copy_from_slice(host.as_bytes());
    let mut sqe: Sqe = zerocopy::transmute!(sqe);
    sqe.opcode = opcode::FABRICS;
    with_data(sqe, data.as_bytes())
}

fn set_cc(value: u32) -> Vec<u8> {
    let mut sqe = PropertySetSqe::new_zeroed();
    sqe.fctype = opcode::fctype::PROPERTY_SET;
    sqe.offset = U32::new(nvme_spec::property::CC);
    sqe.value = U64::new(u64::from(value));
    let mut sqe: Sqe = zerocopy::transmute!(sqe);
    sqe.opcode = opcode::FABRICS;
    with_data(sqe, &[])
}

struct World {
    pool: Pool,
    rng: Rng,
    now: Instant,
    connections: Vec<Connection>,
    /// Requests at the devices.
    late: Vec<Request>,
}

impl World {
    fn new(seed: u64, count: u32) -> World {
        let target = target();
        let pool = PoolConfig { segments: [32, 32, 32, 8, 4], huge_pages: false };
        World {
            pool: Pool::new(&pool).unwrap(),
            rng: Rng::new(seed),
            now: Instant::from_ns(1),
            connections: (0..count).map(|i| Connection::new(Arc::clone(&target), i)).collect(),
            late: Vec::new(),
        }
    }

    fn number(&mut self, below: u64) -> u32 {
        u32::try_from(self.rng.below(below)).unwrap()
    }

    /// Opens a connection: every third is an admin queue, the others are I/O queues of its
    /// controller, or of one that does not exist.
    fn open(&mut self, at: usize) {
        let addresses = Addresses {
            local: "192.0.2.1:4420".parse().unwrap(),
            peer: "192.0.2.9:1234".parse().unwrap(),
        };
        let cx = Cx { pool: &self.pool, now: self.now };
        if !self.connections[at].accept(cx, addresses) {
            return;
        }
        let mut req = IcReq::new_zeroed();
        req.ch = header(PduType::IcReq, 0, 0, 128);
        let mut bytes = req.as_bytes().to_vec();
        let qid = u16::try_from(at % 3).unwrap();
        bytes.extend(connect(qid, u16::try_from(self.rng.between(1, 4)).unwrap()));
        if qid == 0 {
            bytes.extend(set_cc(0x46_0001));
        }
        self.send(at, &bytes);
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        let cx = Cx { pool: &self.pool, now: self.now };
        // What is not taken is lost: the stream is damaged from there on, as with a broken host.
        self.connections[at].on_bytes(cx, bytes);
    }

    /// One command, sensible enough to get somewhere.
    fn command(&mut self, at: usize) -> Vec<u8> {
        let admin = at.is_multiple_of(3);
        let opcodes: &[u8] = if admin {
            &[0x02, 0x06, 0x08, 0x08, 0x09, 0x0a, 0x0c, 0x0c, 0x18, 0x38, 0x38, 0x7f, 0x7f]
        } else {
            &[
                0x00, 0x0d, 0x0e, 0x11, 0x15, 0x01, 0x02, 0x04, 0x05, 0x08, 0x08, 0x09, 0x0c, 0x0c,
                0x19, 0x19, 0x19,
            ]
        };
        let mut sqe = Sqe::new_zeroed();
        sqe.opcode = opcodes[self.rng.index(opcodes.len()).unwrap()];
        sqe.cid = U16::new(u16::try_from(self.rng.below(12)).unwrap());
        sqe.nsid = U32::new(self.number(3));
        sqe.cdw10 = U32::new(self.number(70));
        let flags = [0, 0, 1 << 30, 1 << 25, 1 << 25 | 1 << 23, 1 << 29];
        sqe.cdw12 = U32::new(self.number(6) | flags[self.rng.index(flags.len()).unwrap()]);
        let mut data = Vec::new();
        match sqe.opcode {
            0x7f => {
                let values = [0x46_0000, 0x46_0001, 0x46_4001, 0x46_8000, 0x46_0000];
                return set_cc(values[self.rng.index(values.len()).unwrap()]);
            }
            0x08 if admin => sqe.cdw10 = U32::new(self.number(3) | self.number(12) << 16),
            0x09 if admin => sqe.cdw10 = U32::new([7, 11, 15][self.rng.index(3).unwrap()]),
            0x38 => {
                // The instance of one of the first controllers.
                let cirn = [(0xe220_a839, 0x7b1d_cdaf), (0x6e78_9e6a, 0xa1b9_65f4)];
                let (high, low) = cirn[self.rng.index(2).unwrap()];
                sqe.cdw10 = U32::new(self.number(4) | 1 << 16);
                (sqe.cdw12, sqe.cdw13) = (U32::new(low), U32::new(high));
            }
            0x02 if admin => {
                let pages = [0, 1, 2, 3, 4, 5, 0xc, 0x12, 0x11e, 0x1e];
                let page = pages[self.rng.index(pages.len()).unwrap()];
                sqe.cdw10 = U32::new(page | 15 << 16);
                sqe.nsid = U32::new(0);
                sqe.cdw12 = U32::new(0);
                sqe.dptr = Sgl::transport(64);
            }
            0x0d | 0x0e | 0x11 | 0x15 => data = self.reservation(&mut sqe),
            0x06 => sqe.dptr = Sgl::transport(4096),
            0x02 => sqe.dptr = Sgl::transport(1 << 20),
            0x01 | 0x05 if self.rng.chance(1, 2) => sqe.dptr = Sgl::transport(1 << 20),
            0x01 | 0x05 => {
                sqe.cdw12 = U32::new(0);
                data = vec![7; 4096];
            }
            0x09 | 0x19 => {
                let ranges = self.number(4);
                sqe.cdw11 = U32::new(if sqe.opcode == 0x09 { 4 } else { 0 });
                sqe.cdw12 = U32::new(ranges);
                sqe.cdw10 = U32::new(if sqe.opcode == 0x09 { ranges } else { 40 });
                data = vec![0; (ranges as usize + 1) * if sqe.opcode == 0x09 { 16 } else { 32 }];
                for range in data.chunks_mut(if sqe.opcode == 0x09 { 16 } else { 32 }) {
                    range[8] = u8::try_from(self.rng.below(40)).unwrap();
                    range[4] = 1;
                    range[16.min(range.len() - 1)] = u8::try_from(self.rng.below(4)).unwrap();
                }
            }
            _ => (),
        }
        let mut bytes = with_data(sqe, &data);
        if !admin && self.rng.chance(1, 4) {
            bytes[9] |= u8::try_from(self.rng.below(4)).unwrap(); // FUSE
        }
        bytes
    }

    /// A reservation command: its action and type, and its keys.
    fn reservation(&mut self, sqe: &mut Sqe) -> Vec<u8> {
        if sqe.opcode == 0x0e {
            (sqe.cdw10, sqe.cdw11) = (U32::new(1023), U32::new(1));
            sqe.dptr = Sgl::transport(4096);
            return Vec::new();
        }
        sqe.cdw10 = U32::new(self.number(4) | self.number(7) << 8);
        vec![u8::try_from(self.rng.below(3)).unwrap(); 16]
    }

    /// A turn of every connection, in which some requests complete.
    fn turn(&mut self) {
        let mut batch = Batch::with_defaults();
        for connection in &mut self.connections {
            let cx = Cx { pool: &self.pool, now: self.now };
            let mut requests = Fifo::new(4);
            connection.poll_requests(cx, &mut requests);
            while let Some((_, request)) = requests.pop() {
                self.late.push(request);
            }
            while connection.poll_transmit(cx, &mut batch) {
                connection.on_sent(cx, &mut batch);
            }
            if connection.wants_close() && self.rng.chance(1, 2) {
                connection.on_closed(cx);
            }
        }
        for _ in 0..self.rng.below(self.late.len() as u64 + 1) {
            let at = self.rng.index(self.late.len()).unwrap();
            self.complete(at);
        }
    }

    fn complete(&mut self, at: usize) {
        let Request { tag, data, .. } = self.late.swap_remove(at);
        let statuses = [Status::Ok, Status::Ok, Status::Ok, Status::Io, Status::Gone];
        let status = statuses[self.rng.index(statuses.len()).unwrap()];
        let index = Connection::index_of(tag) as usize;
        let cx = Cx { pool: &self.pool, now: self.now };
        let completion = Completion { tag, data, status };
        self.connections[index].on_completion(cx, completion);
    }

    /// Everybody leaves.
    fn end(&mut self) {
        for _ in 0..50 {
            for connection in &mut self.connections {
                connection.on_closed(Cx { pool: &self.pool, now: self.now });
            }
            while !self.late.is_empty() {
                self.complete(0);
            }
        }
        assert!(self.connections.iter().all(Connection::is_closed));
        assert_eq!(self.pool.stats().taken(), 0, "every buffer is back");
    }
}

#[test]
fn any_commands_in_any_order_leave_nothing_behind() {
    let seed = std::env::var("FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    let rounds: u64 = std::env::var("FUZZ_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    for seed in seed..seed + rounds {
        println!("FUZZ_SEED={seed} FUZZ_ROUNDS=1 cargo nextest run -p nvmf any_commands");
        let mut world = World::new(seed, 9);
        for _ in 0..400 {
            let at = world.rng.index(world.connections.len()).unwrap();
            if world.connections[at].is_closed() {
                world.open(at);
            } else if !world.connections[at].wants_close() {
                let several = world.rng.between(1, 4);
                let bytes: Vec<u8> = (0..several).flat_map(|_| world.command(at)).collect();
                world.send(at, &bytes);
            }
            if world.rng.chance(2, 3) {
                world.turn();
            }
            if world.rng.chance(1, 40) {
                let cx = Cx { pool: &world.pool, now: world.now };
                world.connections[at].on_closed(cx);
            }
            world.now = Instant::from_ns(world.now.as_ns() + 5_000_000);
        }
        world.end();
    }
}
