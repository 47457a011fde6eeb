//! The thread: build, turn, idle, drop.

use std::fmt;
use std::os::fd::RawFd;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bdev::Instant;

use crate::limits::{NAME_BYTES_MAX, SLEEP_MAX, SPIN_DEFAULT, WAIT_FDS};
use crate::{Clock, Doorbell, Machine, Progress, ReactorStats, pin_to_core, system};

/// What an idle reactor does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Spins for ever: the least latency, for a core of its own.
    Spin,
    /// Spins for a bounded time, then sleeps.
    #[default]
    Adaptive,
}

impl FromStr for Idle {
    type Err = String;

    /// `spin` or `adaptive`, in any case.
    fn from_str(text: &str) -> Result<Idle, String> {
        match text.to_ascii_lowercase().as_str() {
            "spin" => Ok(Idle::Spin),
            "adaptive" => Ok(Idle::Adaptive),
            _ => Err(format!("idle must be spin or adaptive, not {text:?}")),
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Idle::Spin => "spin",
            Idle::Adaptive => "adaptive",
        })
    }
}

/// How a reactor runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReactorConfig {
    /// The name of its thread; the system keeps 15 bytes.
    pub name: String,
    /// The core that it stays on; `None` for whichever the system picks.
    pub core: Option<usize>,
    /// What it does when there is nothing to do.
    pub idle: Idle,
    /// How long it spins before it sleeps, with [`Idle::Adaptive`].
    pub spin: Duration,
}

impl ReactorConfig {
    /// An adaptive reactor on any core.
    pub fn new(name: &str) -> ReactorConfig {
        let idle = Idle::default();
        ReactorConfig { name: name.to_owned(), core: None, idle, spin: SPIN_DEFAULT }
    }

    /// The same on one core.
    #[must_use]
    pub fn core(mut self, core: usize) -> ReactorConfig {
        self.core = Some(core);
        self
    }

    /// The same with another way to idle.
    #[must_use]
    pub fn idle(mut self, idle: Idle) -> ReactorConfig {
        self.idle = idle;
        self
    }
}

/// Why a reactor did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError<E> {
    /// The system has no more threads.
    Thread(std::io::Error),
    /// The thread could not be kept on its core.
    Pin {
        /// The core.
        core: usize,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The machine could not be built.
    Build(E),
}

impl<E: fmt::Display> fmt::Display for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Thread(source) => write!(f, "starting a reactor's thread: {source}"),
            StartError::Pin { core, source } => {
                write!(f, "pinning a reactor to core {core}: {source}")
            }
            StartError::Build(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for StartError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Thread(source) | StartError::Pin { source, .. } => Some(source),
            StartError::Build(error) => error.source(),
        }
    }
}

/// A running reactor. Dropping it stops it and waits.
#[derive(Debug)]
pub struct Reactor {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    doorbell: Doorbell,
    stats: Arc<ReactorStats>,
}

impl Reactor {
    /// Starts a thread, builds the machine on it with `build`, and runs it. `doorbell` is what
    /// wakes it; hand clones to whoever sends to it.
    ///
    /// Returns when the machine is built.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start<M, E, F>(
        config: &ReactorConfig,
        doorbell: &Doorbell,
        build: F,
    ) -> Result<Reactor, StartError<E>>
    where
        M: Machine,
        E: Send + 'static,
        F: FnOnce() -> Result<M, E> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let stats = Arc::new(ReactorStats::default());
        let inside = Inside {
            config: config.clone(),
            doorbell: doorbell.clone(),
            stop: Arc::clone(&stop),
            stats: Arc::clone(&stats),
        };
        let (started, wait) = mpsc::sync_channel(1);
        let thread = Builder::new()
            .name(short_name(&config.name).to_owned())
            .spawn(move || {
                let bomb = AbortOnPanic;
                let machine = match inside.prepare(build) {
                    Ok(machine) => machine,
                    Err(error) => {
                        std::mem::forget(bomb);
                        let _ = started.send(Err(error)); // The starter waits below.
                        return;
                    }
                };
                let _ = started.send(Ok(()));
                inside.run(machine);
                std::mem::forget(bomb);
            })
            .map_err(StartError::Thread)?;
        let outcome = wait.recv().expect("the thread reports before it ends");
        let doorbell = doorbell.clone();
        let reactor = Reactor { thread: Some(thread), stop, doorbell, stats };
        outcome.map(|()| reactor)
    }

    /// Asks the reactor to end after its current turn. What the machine has in flight is up to its
    /// drop: to drain it first, send it a message.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.doorbell.ring();
    }

    /// Waits until the machine is dropped and the thread has ended.
    pub fn join(mut self) {
        self.join_thread();
    }

    /// True when the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The counters; they outlive the reactor.
    pub fn stats(&self) -> Arc<ReactorStats> {
        Arc::clone(&self.stats)
    }

    /// The bell that wakes it.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    fn join_thread(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic on a reactor's thread ends the process");
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.stop();
        self.join_thread();
    }
}

/// What the thread knows.
struct Inside {
    config: ReactorConfig,
    doorbell: Doorbell,
    stop: Arc<AtomicBool>,
    stats: Arc<ReactorStats>,
}

impl Inside {
    fn prepare<M, E>(&self, build: impl FnOnce() -> Result<M, E>) -> Result<M, StartError<E>> {
        if let Some(core) = self.config.core {
            pin_to_core(core).map_err(|source| StartError::Pin { core, source })?;
        }
        system::sharpen_timers();
        build().map_err(StartError::Build)
    }

    fn run(&self, mut machine: impl Machine) {
        let mut sleeper = Sleeper::new();
        let mut now = Clock.now();
        let mut spin_until = now.saturating_add(self.config.spin);
        while !self.stop.load(Ordering::Relaxed) {
            let mut progress = self.turn(&mut machine, &mut now);
            let is_spinning = self.config.idle == Idle::Spin || now < spin_until;
            if progress == Progress::Idle && is_spinning {
                std::hint::spin_loop();
            } else if progress == Progress::Idle {
                progress = self.sleep(&mut machine, &mut sleeper, &mut now);
            }
            match progress {
                Progress::Done => return,
                Progress::Worked => spin_until = now.saturating_add(self.config.spin),
                // After a sleep that brought nothing there is no spinning.
                Progress::Idle => (),
            }
        }
    }

    /// One turn; `now` becomes the time at its end, so that the clock is read once a turn.
    fn turn(&self, machine: &mut impl Machine, now: &mut Instant) -> Progress {
        let progress = machine.turn(*now);
        let end = Clock.now();
        self.stats.on_turn(progress == Progress::Worked, end.as_ns() - now.as_ns());
        *now = end;
        progress
    }

    /// One more turn with the bell armed; then sleep, unless the turn found something.
    fn sleep(
        &self,
        machine: &mut impl Machine,
        sleeper: &mut Sleeper,
        now: &mut Instant,
    ) -> Progress {
        self.doorbell.prepare_sleep();
        let progress = self.turn(machine, now);
        if progress == Progress::Idle && !self.stop.load(Ordering::Relaxed) {
            sleeper.wait(machine, &self.doorbell, *now);
            let woken = Clock.now();
            self.stats.on_sleep(woken.as_ns() - now.as_ns());
            *now = woken;
        }
        self.doorbell.end_sleep();
        progress
    }
}

/// The memory for waiting.
struct Sleeper {
    fds: Vec<RawFd>,
    entries: Vec<libc::pollfd>,
}

impl Sleeper {
    fn new() -> Sleeper {
        Sleeper { fds: Vec::with_capacity(WAIT_FDS), entries: Vec::with_capacity(WAIT_FDS + 1) }
    }

    fn wait(&mut self, machine: &impl Machine, doorbell: &Doorbell, now: Instant) {
        let timeout = match machine.next_timeout() {
            Some(next) => next.saturating_since(now).min(SLEEP_MAX),
            None => SLEEP_MAX,
        };
        if timeout.is_zero() {
            return;
        }
        self.fds.clear();
        machine.wait_fds(&mut self.fds);
        self.entries.clear();
        self.entries.push(system::readable(doorbell.fd()));
        self.entries.extend(self.fds.iter().map(|&fd| system::readable(fd)));
        system::wait(&mut self.entries, timeout);
    }
}

/// A reactor that panics takes the process with it, however the binary was built: half of a shard
/// must not go on answering.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}

fn short_name(name: &str) -> &str {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests;
