//! What idling and waking up cost: an adaptive reactor with nothing to do, and one that is woken.
//!
//! ```text
//! cargo run --release -p reactor --example idle_bench -- [seconds]
//! ```
//!
//! # Safety argument
//!
//! The only unsafe call reads a clock and is given a local of the true size.

#![allow(clippy::unwrap_used, reason = "a bench may give up at once")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bdev::Instant;
use reactor::{
    Clock, Doorbell, Idle, Machine, Progress, Reactor, ReactorConfig, Receiver, Sender, mailbox,
};

/// Sends each message back with the time at which it was seen.
struct Echo {
    inbox: Receiver<Instant>,
    outbox: Sender<(Instant, Instant)>,
    cpu_ns: Arc<AtomicU64>,
}

impl Machine for Echo {
    fn turn(&mut self, now: Instant) -> Progress {
        let Some(sent) = self.inbox.take() else {
            self.cpu_ns.store(cpu_ns(), Ordering::Relaxed);
            return Progress::Idle;
        };
        let seen = Clock.now().max(now);
        self.outbox.send((sent, seen)).unwrap();
        Progress::Worked
    }
}

fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer names a local that the kernel fills.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    for idle in [Idle::Adaptive, Idle::Spin] {
        let (there, here) = (Doorbell::new().unwrap(), Doorbell::new().unwrap());
        let (mut to, inbox) = mailbox(4, &there);
        let (outbox, mut from) = mailbox(4, &here);
        let used = Arc::new(AtomicU64::new(0));
        let cpu = Arc::clone(&used);
        let build = move || Ok::<_, Infallible>(Echo { inbox, outbox, cpu_ns: cpu });
        let config = ReactorConfig::new("echo").idle(idle);
        let reactor = Reactor::start(&config, &there, build).unwrap();
        let stats = reactor.stats();

        let before = (used.load(Ordering::Relaxed), Clock.now());
        here.wait_timeout(|| false, time);
        let cpu = used.load(Ordering::Relaxed) - before.0;
        let wall = Clock.now().saturating_since(before.1);
        println!(
            "{idle}: idle for {wall:?}: {:.2} % of a core, {} sleeps",
            cpu as f64 * 100.0 / wall.as_nanos() as f64,
            stats.snapshot().sleeps,
        );

        let mut trips: Vec<Duration> = (0..500)
            .map(|_| {
                // Long enough for it to fall asleep.
                here.wait_timeout(|| false, Duration::from_micros(500));
                to.send(Clock.now()).unwrap();
                here.wait(|| !from.is_empty());
                let (sent, seen) = from.take().unwrap();
                seen.saturating_since(sent)
            })
            .collect();
        trips.sort_unstable();
        let at = |part: usize| trips[trips.len() * part / 100];
        println!("{idle}: message seen after {:?} p10, {:?} p50, {:?} p90", at(10), at(50), at(90));
    }
}
