use std::convert::Infallible;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::{Receiver, Sender, mailbox};

/// Sends each message back, until it is told zero.
struct Echo {
    inbox: Receiver<u64>,
    outbox: Sender<u64>,
}

impl Machine for Echo {
    fn turn(&mut self, _now: Instant) -> Progress {
        match self.inbox.take() {
            Some(0) => Progress::Done,
            Some(number) => {
                self.outbox.send(number).expect("one message is in flight");
                Progress::Worked
            }
            None => Progress::Idle,
        }
    }
}

fn echo(config: &ReactorConfig) -> (Reactor, Sender<u64>, Receiver<u64>, Doorbell) {
    let (there, here) = (Doorbell::new().unwrap(), Doorbell::new().unwrap());
    let (to, inbox) = mailbox(4, &there);
    let (outbox, from) = mailbox(4, &here);
    let build = move || Ok::<_, Infallible>(Echo { inbox, outbox });
    (Reactor::start(config, &there, build).unwrap(), to, from, here)
}

#[test]
fn no_wake_up_is_lost() {
    // Spinning for no time at all makes every message race with a sleep.
    let config = ReactorConfig { spin: Duration::ZERO, ..ReactorConfig::new("echo") };
    let (reactor, mut to, mut from, here) = echo(&config);
    for number in 1..=3000 {
        to.send(number).unwrap();
        here.wait(|| !from.is_empty());
        assert_eq!(from.take(), Some(number));
    }
    let stats = reactor.stats().snapshot();
    assert!(stats.worked >= 2999, "each message is work: {stats:?}");
    to.send(0).unwrap();
    reactor.join();
}

#[test]
fn machine_that_is_done_ends_its_thread() {
    let (reactor, mut to, ..) = echo(&ReactorConfig::new("echo").idle(Idle::Spin));
    to.send(0).unwrap();
    while !reactor.is_finished() {
        std::thread::yield_now();
    }
    reactor.join();
}

#[test]
fn error_of_the_build_is_returned() {
    let bell = Doorbell::new().unwrap();
    let build = || Err::<Echo, _>("no ring");
    let error = Reactor::start(&ReactorConfig::new("echo"), &bell, build).unwrap_err();
    assert!(matches!(error, StartError::Build("no ring")));
    let build = || Err::<Echo, _>("not reached");
    let config = ReactorConfig::new("echo").core(100_000);
    let error = Reactor::start(&config, &bell, build).unwrap_err();
    assert!(matches!(error, StartError::Pin { core: 100_000, .. }));
}

/// Counts its turns and its time-outs.
struct Ticker {
    next: Instant,
    ticks: Arc<AtomicU64>,
    fd: RawFd,
}

impl Machine for Ticker {
    fn turn(&mut self, now: Instant) -> Progress {
        if now < self.next {
            return Progress::Idle;
        }
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.next = now.saturating_add(Duration::from_millis(1));
        Progress::Worked
    }

    fn next_timeout(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        fds.push(self.fd);
    }
}

#[test]
fn timeouts_are_kept_while_asleep() {
    let bell = Doorbell::new().unwrap();
    let ticks = Arc::new(AtomicU64::new(0));
    let (seen, fd) = (Arc::clone(&ticks), bell.fd());
    let build = move || Ok::<_, Infallible>(Ticker { next: Instant::ZERO, ticks, fd });
    let config = ReactorConfig { spin: Duration::ZERO, ..ReactorConfig::new("ticker") };
    let reactor = Reactor::start(&config, &bell, build).unwrap();
    while seen.load(Ordering::Relaxed) < 20 {
        std::thread::yield_now();
    }
    let stats = reactor.stats().snapshot();
    assert!(stats.sleeps >= 10, "it sleeps between ticks: {stats:?}");
    assert!(stats.slept > stats.busy);
    reactor.stop();
    reactor.join();
}

/// Waits for a descriptor, and says when it was readable.
struct Watcher {
    bell: Doorbell,
    seen: Arc<AtomicBool>,
    quiet: Arc<AtomicBool>,
}

impl Machine for Watcher {
    fn turn(&mut self, _now: Instant) -> Progress {
        let mut fds = [system::readable(self.bell.fd())];
        system::wait(&mut fds, Duration::ZERO);
        if fds[0].revents == 0 {
            self.quiet.store(true, Ordering::Relaxed);
            return Progress::Idle;
        }
        self.seen.store(true, Ordering::Relaxed);
        Progress::Done
    }

    fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        fds.push(self.bell.fd());
    }
}

#[test]
fn readable_descriptor_ends_the_sleep() {
    let (bell, watched) = (Doorbell::new().unwrap(), Doorbell::new().unwrap());
    let (seen, quiet) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let build = {
        let (bell, seen, quiet) = (watched.clone(), Arc::clone(&seen), Arc::clone(&quiet));
        move || Ok::<_, Infallible>(Watcher { bell, seen, quiet })
    };
    let config = ReactorConfig { spin: Duration::ZERO, ..ReactorConfig::new("watcher") };
    let reactor = Reactor::start(&config, &bell, build).unwrap();
    while !quiet.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    watched.prepare_sleep();
    watched.ring();
    reactor.join();
    assert!(seen.load(Ordering::Relaxed));
}

#[test]
fn names_are_cut_at_a_character() {
    assert_eq!(short_name("shard-0"), "shard-0");
    assert_eq!(short_name("0123456789abcdefg"), "0123456789abcde");
    assert_eq!(short_name("0123456789abcd\u{e9}"), "0123456789abcd");
}

#[test]
fn idle_is_parsed_in_any_case() {
    assert_eq!("Spin".parse(), Ok(Idle::Spin));
    assert_eq!("ADAPTIVE".parse(), Ok(Idle::Adaptive));
    assert!("lazy".parse::<Idle>().is_err());
    assert_eq!(Idle::Adaptive.to_string(), "adaptive");
}
