//! How fast byte streams are: two pinned threads over loopback, requests and responses.
//!
//! ```text
//! cargo run --release -p net-uring --example stream_bench -- [seconds [buffer bytes]]
//! ```
//!
//! Each line is one engine and one shape: bytes of a request and a response, and how many requests
//! are outstanding. `direct` is a `UringNet` as it comes; `ring` leaves everything to the
//! ring; `plain` is non-blocking `recv` and `sendmsg` spun on by hand. Both sides
//! use the same engine. `cpu ns` is the CPU time of one request on both sides together, from a run
//! with both on one thread: it means something on a machine that is busy with other work, where
//! rates and medians do not. Zero seconds skip those.
//!
//! # Safety argument
//!
//! The unsafe calls pin a thread and read a clock, and are given locals of the true size.

#![allow(clippy::unwrap_used, reason = "a bench may give up at once")]
#![allow(clippy::disallowed_methods, reason = "a bench has a clock, threads and sockets")]

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bdev::{Buf, Fifo, Pool, PoolConfig};
use net::{Batch, ConnId, Event, Landing, Net, Socket};
use net_uring::{DIRECT_DEFAULT, UringNet, UringNetConfig};

/// One side of a connection: receives bytes, sends messages of one size.
trait End {
    /// Bytes that have arrived since the last call.
    fn receive(&mut self) -> usize;
    /// Sends `count` messages when the last send is through; how many it took.
    fn send(&mut self, count: usize) -> usize;
}

struct Ring {
    net: UringNet,
    conn: ConnId,
    events: Fifo<Event>,
    batch: Option<Box<Batch>>,
    payload: Buf,
    message: usize,
}

const HEADER: usize = 24;
const MESSAGES_MAX: usize = 32;

impl Ring {
    fn new(stream: TcpStream, engine: &str, message: usize, buffer: u32) -> Ring {
        let config = UringNetConfig {
            connections_max: 4,
            direct_max: if engine == "direct" { DIRECT_DEFAULT } else { 0 },
            socket_buffer_bytes: buffer,
            ..Default::default()
        };
        let mut net = UringNet::new(&config).unwrap();
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let peer = stream.peer_addr().unwrap();
        let conn = net.adopt(Socket::from_fd(OwnedFd::from(stream), peer)).unwrap();
        net.receive(conn, Landing::new(pool.take(65536).unwrap(), 0, 65536)).unwrap();
        let batch = Some(Batch::new(2 * MESSAGES_MAX, 64 << 10));
        let payload = pool.take(65536).unwrap().freeze();
        Ring { net, conn, events: Fifo::new(8), batch, payload, message }
    }
}

impl End for Ring {
    fn receive(&mut self) -> usize {
        self.net.kick();
        self.net.poll(&mut self.events);
        let mut bytes = 0;
        while let Some(event) = self.events.pop() {
            match event {
                Event::Received { landing, len, conn } => {
                    bytes += len as usize;
                    self.net.receive(conn, landing).unwrap();
                }
                Event::Sent { mut batch, .. } => {
                    batch.clear();
                    self.batch = Some(batch);
                }
                Event::Closed { .. } | Event::Ended { .. } => return usize::MAX,
                _ => (),
            }
        }
        bytes
    }

    fn send(&mut self, count: usize) -> usize {
        let Some(mut batch) = self.batch.take() else { return 0 };
        let count = count.min(MESSAGES_MAX);
        for _ in 0..count {
            batch.push_scratch(HEADER.min(self.message)).unwrap();
            let rest = self.message.saturating_sub(HEADER);
            if rest > 64 {
                batch.push_buf(self.payload.clone(), 0, rest).unwrap();
            } else if rest > 0 {
                batch.push_scratch(rest).unwrap();
            }
        }
        self.net.send(self.conn, batch).unwrap();
        count
    }
}

struct Plain {
    stream: TcpStream,
    into: Vec<u8>,
    payload: Vec<u8>,
    message: usize,
    left: usize,
}

impl Plain {
    fn new(stream: TcpStream, message: usize) -> Plain {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Plain { stream, into: vec![0; 65536], payload: vec![0; 8192], message, left: 0 }
    }

    fn push(&mut self) {
        let header = [0_u8; HEADER];
        while self.left > 0 {
            let mut slices = Vec::with_capacity(2 * MESSAGES_MAX);
            let (mut left, mut first) = (self.left, self.left % self.message);
            while left > 0 && slices.len() + 1 < 2 * MESSAGES_MAX {
                if first > 0 {
                    slices.push(IoSlice::new(&self.payload[..first]));
                    left -= first;
                    first = 0;
                    continue;
                }
                let head = HEADER.min(self.message);
                slices.push(IoSlice::new(&header[..head]));
                if self.message > head {
                    slices.push(IoSlice::new(&self.payload[..self.message - head]));
                }
                left -= self.message;
            }
            match self.stream.write_vectored(&slices) {
                Ok(sent) => self.left -= sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.left = 0,
            }
        }
    }
}

impl End for Plain {
    fn receive(&mut self) -> usize {
        self.push();
        match self.stream.read(&mut self.into) {
            Ok(0) => usize::MAX,
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => usize::MAX,
        }
    }

    fn send(&mut self, count: usize) -> usize {
        if self.left > 0 {
            return 0;
        }
        let count = count.min(MESSAGES_MAX);
        self.left = count * self.message;
        self.push();
        count
    }
}

fn end(engine: &str, stream: TcpStream, message: usize, buffer: u32) -> Box<dyn End> {
    match engine {
        "plain" => Box::new(Plain::new(stream, message)),
        _ => Box::new(Ring::new(stream, engine, message, buffer)),
    }
}

fn pin(core: usize) {
    // SAFETY: all zeroes is the empty set, and core numbers here are 0 and 1.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

fn serve(mut end: Box<dyn End>, request: usize) {
    let (mut bytes, mut owed) = (0, 0);
    loop {
        let more = end.receive();
        if more == usize::MAX {
            return;
        }
        bytes += more;
        owed += bytes / request;
        bytes %= request;
        if owed > 0 {
            owed -= end.send(owed);
        }
    }
}

/// Responses per second, and the median round trip of a lone request.
fn drive(mut end: Box<dyn End>, response: usize, depth: usize, time: Duration) -> (f64, f64) {
    let start = Instant::now();
    let (mut bytes, mut ready, mut total) = (0, depth, 0);
    let mut trips = Vec::with_capacity(1 << 20);
    let mut sent_at = start;
    loop {
        if ready > 0 {
            let sent = end.send(ready);
            ready -= sent;
            if depth == 1 && sent == 1 {
                sent_at = Instant::now();
            }
        }
        let more = end.receive();
        assert_ne!(more, usize::MAX, "the server stays");
        bytes += more;
        let done = bytes / response;
        bytes %= response;
        ready += done;
        total += done;
        if done > 0 {
            if depth == 1 && trips.len() < trips.capacity() {
                trips.push(sent_at.elapsed().as_nanos());
            }
            if start.elapsed() > time {
                break;
            }
        }
    }
    trips.sort_unstable();
    let median = trips.get(trips.len() / 2).copied().unwrap_or(0);
    (total as f64 / start.elapsed().as_secs_f64(), median as f64 / 1000.0)
}

fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer names a local that the kernel fills.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

/// CPU nanoseconds of one request with both sides on this thread: the best of some rounds.
fn cost(pair: (Box<dyn End>, Box<dyn End>), shape: (usize, usize), depth: usize) -> u64 {
    let (mut client, mut server) = pair;
    let (request, response) = shape;
    let (mut asked, mut bytes, mut owed, mut got, mut ready) = (0, 0, 0, 0, depth);
    let mut best = u64::MAX;
    for _ in 0..20 {
        let (start, mut done) = (cpu_ns(), 0);
        while done < 2000 {
            if ready > 0 {
                ready -= client.send(ready);
            }
            asked += client.receive();
            done += asked / response;
            ready += asked / response;
            asked %= response;
            bytes += server.receive();
            owed += bytes / request;
            bytes %= request;
            if owed > 0 {
                let sent = server.send(owed);
                owed -= sent;
                got += sent;
            }
        }
        best = best.min((cpu_ns() - start) / done as u64);
    }
    assert!(got > 0);
    best
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds);
    let buffer = arguments.get(2).and_then(|text| text.parse().ok()).unwrap_or(0);
    println!("engine       request response  depth   cpu ns         1/s   p50 us");
    for (request, response) in [(64, 64), (72, 4120), (4168, 24)] {
        for depth in [1, 32, 128] {
            for engine in ["plain", "direct", "ring"] {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let connect = || TcpStream::connect(address).unwrap();
                let (there, here) = (connect(), listener.accept().unwrap().0);
                let ends =
                    (end(engine, there, request, buffer), end(engine, here, response, buffer));
                let cpu = cost(ends, (request, response), depth);
                print!("{engine:<12} {request:>7} {response:>8} {depth:>6} {cpu:>8}");
                if time.is_zero() {
                    println!();
                    continue;
                }
                let (rate, p50) = std::thread::scope(|scope| {
                    scope.spawn(|| {
                        pin(0);
                        serve(end(engine, listener.accept().unwrap().0, response, buffer), request);
                    });
                    pin(1);
                    drive(end(engine, connect(), request, buffer), response, depth, time)
                });
                println!(" {rate:>11.0} {p50:>8.1}");
            }
        }
    }
}
