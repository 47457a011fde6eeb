//! After the connection objects are made nothing allocates: not I/O with digests, not data in
//! capsules or asked for, not a host that leaves and comes back.

#![allow(unsafe_code, reason = "a counting allocator")]
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bdev::{Completion, Data, Fifo, Instant, Lba, Op, Pool, PoolConfig, Request, Status, Tag};
use net::Batch;
use nvmf::initiator::{Admin, HostIdentity, Initiator, QueueOptions};
use nvmf::{
    Addresses, Config, Connection, Cx, Digests, HostId, Hosts, Namespace, NamespaceHandle, Nqn,
    Subsystem, Target,
};

/// Counts allocations.
struct Counting;

thread_local! {
    // Of this thread: what the test harness does beside it is not counted.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

fn identity() -> HostIdentity {
    HostIdentity {
        hostnqn: Nqn::new("nqn.2026-11.io.example:host").unwrap(),
        hostid: HostId([1; 16]),
        subnqn: Nqn::new("nqn.2026-11.io.example:vol").unwrap(),
    }
}

fn target() -> Arc<Target> {
    let namespace = Namespace {
        nsid: 1,
        handle: NamespaceHandle(1),
        uuid: [9; 16],
        block_size: 4096,
        blocks: 1 << 20,
        atomic_blocks: 1,
        reach: Default::default(),
    };
    let subsystem = Subsystem {
        nqn: identity().subnqn,
        serial: "HF1".into(),
        hosts: Hosts::Any,
        namespaces: vec![namespace],
    };
    Target::new(Config { subsystems: vec![subsystem], ..Config::default() }).unwrap()
}

/// A connection with its batches and a wire that only moves bytes.
struct Wire {
    connection: Connection,
    requests: Fifo<(NamespaceHandle, Request)>,
    to_host: Box<Batch>,
    to_target: Box<Batch>,
}

impl Wire {
    fn new(target: &Arc<Target>, index: u32) -> Wire {
        Wire {
            connection: Connection::new(Arc::clone(target), index),
            requests: Fifo::new(32),
            to_host: Batch::with_defaults(),
            to_target: Batch::with_defaults(),
        }
    }

    fn accept(&mut self, cx: Cx<'_>) {
        let addresses =
            Addresses { local: ([127, 0, 0, 1], 4420).into(), peer: ([127, 0, 0, 1], 9999).into() };
        assert!(self.connection.accept(cx, addresses));
    }

    fn turn(&mut self, cx: Cx<'_>, host: &mut Initiator) {
        if host.poll_transmit(&mut self.to_target) {
            for piece in self.to_target.pieces() {
                assert_eq!(self.connection.on_bytes(cx, piece), piece.len());
            }
            host.on_sent(&mut self.to_target);
        }
        self.connection.poll_requests(cx, &mut self.requests);
        while let Some((_, request)) = self.requests.pop() {
            let Request { tag, data, .. } = request;
            let completion = Completion { tag, data, status: Status::Ok };
            self.connection.on_completion(cx, completion);
        }
        if self.connection.poll_transmit(cx, &mut self.to_host) {
            for piece in self.to_host.pieces() {
                assert_eq!(host.on_bytes(piece), piece.len());
            }
            self.connection.on_sent(cx, &mut self.to_host);
        }
        while self.connection.poll_event().is_some() {}
    }
}

struct Rig {
    pool: Pool,
    admin_wire: Wire,
    admin: Admin,
    io_wire: Wire,
    io: Initiator,
    requests: Fifo<Request>,
    completions: Fifo<Completion>,
}

impl Rig {
    fn new() -> Rig {
        let digests = Digests { header: true, data: true };
        let pool = PoolConfig { segments: [64, 64, 32, 8, 8], huge_pages: false };
        let target = target();
        let admin = QueueOptions { digests, ..QueueOptions::admin(identity()) };
        let io = QueueOptions { digests, ..QueueOptions::io(identity(), 1, 1) };
        Rig {
            pool: Pool::new(&pool).unwrap(),
            admin_wire: Wire::new(&target, 0),
            admin: Admin::new(admin, 1),
            io_wire: Wire::new(&target, 1),
            io: Initiator::new(io),
            requests: Fifo::new(32),
            completions: Fifo::new(32),
        }
    }

    fn bring_up(&mut self) {
        let cx = Cx { pool: &self.pool, now: Instant::from_ns(1) };
        self.admin_wire.accept(cx);
        assert!(self.admin.open(&self.pool));
        while self.admin.info().is_none() {
            self.admin_wire.turn(cx, self.admin.queue_mut());
            self.admin.poll(&self.pool, cx.now);
        }
    }

    /// Connects the I/O queue, does every kind of I/O, and leaves.
    fn visit(&mut self) {
        let cx = Cx { pool: &self.pool, now: Instant::from_ns(1) };
        self.io_wire.accept(cx);
        assert!(self.io.open(&self.pool));
        while !self.io.is_ready() {
            self.io_wire.turn(cx, &mut self.io);
        }
        for round in 0..20u32 {
            for (i, bytes) in [4096, 8192, 65536, 1 << 20].into_iter().enumerate() {
                let tag = Tag(u32::try_from(i).unwrap() + 10 * round);
                let blocks = u32::try_from(bytes / 4096).unwrap();
                let buf = self.pool.take(bytes).unwrap();
                let request = match round % 3 {
                    0 => Request::write(tag, Lba(0), blocks, buf.freeze()),
                    1 => Request::read(tag, Lba(0), blocks, buf),
                    _ => Request::range(tag, Op::WriteZeroes, Lba(0), blocks),
                };
                self.requests.push(request).unwrap();
            }
            self.requests.push(Request::flush(Tag(99))).unwrap();
            let mut done = 0;
            while done < 5 {
                self.io.submit(1, 4096, &mut self.requests);
                self.io_wire.turn(cx, &mut self.io);
                self.io.poll(&mut self.completions);
                while let Some(completion) = self.completions.pop() {
                    assert_eq!(completion.status, Status::Ok);
                    drop::<Data>(completion.data);
                    done += 1;
                }
            }
        }
        self.io_wire.connection.on_closed(cx);
        assert!(self.io_wire.connection.is_closed());
        self.io.reset();
    }
}

#[test]
fn nothing_allocates_after_the_objects_are_made() {
    let mut rig = Rig::new();
    rig.bring_up();
    // The checksum library decides once which instructions to use.
    rig.visit();
    let before = ALLOCATIONS.get();
    for _ in 0..3 {
        rig.visit();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
