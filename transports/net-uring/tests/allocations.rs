//! Sockets do not allocate once they are made: neither bytes nor connections.
//!
//! # Safety argument
//!
//! The counting allocator passes every call on to the system's, unchanged.

#![allow(clippy::unwrap_used, reason = "the steps of a test must succeed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bdev::{Fifo, Pool, PoolConfig};
use net::{Batch, ConnId, Event, Landing, Net};
use net_uring::{UringNet, UringNetConfig};

struct Counting;

thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });

// SAFETY: see the safety argument.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Pair {
    server: UringNet,
    client: UringNet,
    events: Fifo<Event>,
    pool: Pool,
    batches: [Option<Box<Batch>>; 2],
}

impl Pair {
    /// Connects, echoes some messages, closes both ends.
    fn round(&mut self, address: std::net::SocketAddr, messages: u32) {
        let here = self.client.connect(address).unwrap();
        let (mut there, mut left, mut closed): (Option<ConnId>, _, _) = (None, messages, 0);
        while closed < 2 {
            self.client.kick();
            self.client.poll(&mut self.events);
            while let Some(event) = self.events.pop() {
                match event {
                    Event::Connected { conn } => {
                        let landing = Landing::new(self.pool.take(4096).unwrap(), 0, 4096);
                        self.client.receive(conn, landing).unwrap();
                        self.client.send(conn, filled(&mut self.batches[0], &self.pool)).unwrap();
                    }
                    Event::Received { conn, landing, len } => {
                        assert!(len > 0);
                        left = left.saturating_sub(1);
                        self.client.receive(conn, landing).unwrap();
                        if left == 0 {
                            self.client.close(conn);
                        } else if self.batches[0].is_some() {
                            let batch = filled(&mut self.batches[0], &self.pool);
                            self.client.send(conn, batch).unwrap();
                        }
                    }
                    Event::Sent { batch, .. } => self.batches[0] = Some(batch),
                    Event::Closed { conn, batch, .. } => {
                        assert_eq!(conn, here);
                        self.batches[0] = self.batches[0].take().or(batch);
                        closed += 1;
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            self.server.kick();
            self.server.poll(&mut self.events);
            while let Some(event) = self.events.pop() {
                match event {
                    Event::Accepted { socket, .. } => {
                        let conn = self.server.adopt(socket).unwrap();
                        let landing = Landing::new(self.pool.take(4096).unwrap(), 0, 4096);
                        self.server.receive(conn, landing).unwrap();
                        there = Some(conn);
                    }
                    Event::Received { conn, landing, .. } => {
                        self.server.receive(conn, landing).unwrap();
                        if self.batches[1].is_some() {
                            let batch = filled(&mut self.batches[1], &self.pool);
                            if let Err(back) = self.server.send(conn, batch) {
                                self.batches[1] = Some(back);
                            }
                        }
                    }
                    Event::Sent { batch, .. } => self.batches[1] = Some(batch),
                    Event::Ended { conn, .. } => self.server.close(conn),
                    Event::Closed { conn, batch, .. } => {
                        assert_eq!(Some(conn), there);
                        self.batches[1] = self.batches[1].take().or(batch);
                        closed += 1;
                    }
                    Event::Connected { .. } => panic!("the server connects to nobody"),
                }
            }
        }
    }
}

fn filled(batch: &mut Option<Box<Batch>>, pool: &Pool) -> Box<Batch> {
    let mut batch = batch.take().expect("its last send is through");
    batch.clear();
    assert!(batch.push_bytes(b"header"));
    batch.push_buf(pool.take(4096).unwrap().freeze(), 0, 3000).unwrap();
    batch
}

#[test]
fn neither_bytes_nor_connections_allocate() {
    let config = UringNetConfig { connections_max: 8, ..UringNetConfig::default() };
    let mut server = UringNet::new(&config).unwrap();
    let listener = server.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.local_address(listener).unwrap();
    let mut pair = Pair {
        server,
        client: UringNet::new(&config).unwrap(),
        events: Fifo::new(16),
        pool: Pool::new(&PoolConfig::tiny()).unwrap(),
        batches: [Some(Batch::with_defaults()), Some(Batch::with_defaults())],
    };
    pair.round(address, 3);
    let before = COUNT.with(Cell::get);
    for messages in 0..50 {
        pair.round(address, messages % 7 + 1);
    }
    assert_eq!(COUNT.with(Cell::get), before, "allocations in 50 connections");
    pair.batches.iter_mut().flatten().for_each(|batch| batch.clear());
    assert_eq!(pair.pool.stats().taken(), 0);
}
