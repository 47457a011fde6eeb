//! Waking a thread that sleeps, for next to nothing when it does not.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::limits::SLEEP_MAX;
use crate::system;

/// Wakes one thread. Clones ring the same bell.
///
/// Whoever has left work for the thread calls [`Doorbell::ring`]: a fence and a load (some 5 ns)
/// while the thread is awake, one system call when it sleeps.
///
/// No wake-up is lost: the sleeper says that it sleeps, *then* looks for work once more, then
/// sleeps; the ringer leaves the work, *then* looks whether the other sleeps. With a full fence
/// between the two steps on both sides, at least one of them sees what the other did.
#[derive(Clone, Debug)]
pub struct Doorbell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sleeping: CachePadded<AtomicBool>,
    fd: OwnedFd,
}

impl Doorbell {
    /// A bell for a thread that is awake.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn new() -> io::Result<Doorbell> {
        let sleeping = CachePadded::new(AtomicBool::new(false));
        Ok(Doorbell { shared: Arc::new(Shared { sleeping, fd: system::eventfd()? }) })
    }

    /// Wakes the thread if it sleeps. Call it after the work was left where the thread looks.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.shared.sleeping.load(Ordering::Relaxed) {
            system::eventfd_ring(&self.shared.fd);
        }
    }

    /// For the thread that is woken: from now on the bell is rung. Look for work once more before
    /// waiting for [`Doorbell::fd`].
    pub fn prepare_sleep(&self) {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// For the thread that is woken: it is awake again.
    pub fn end_sleep(&self) {
        self.shared.sleeping.store(false, Ordering::Relaxed);
        system::eventfd_clear(&self.shared.fd);
    }

    /// Sleeps until `ready`. For threads without a reactor, such as tests and tools.
    pub fn wait(&self, mut ready: impl FnMut() -> bool) {
        while !ready() {
            self.prepare_sleep();
            if !ready() {
                system::wait(&mut [system::readable(self.fd())], SLEEP_MAX);
            }
            self.end_sleep();
        }
    }

    /// Sleeps until rung or until `timeout` is over, unless `ready` says that there is work.
    pub fn wait_timeout(&self, ready: impl FnOnce() -> bool, timeout: Duration) {
        self.prepare_sleep();
        if !ready() {
            system::wait(&mut [system::readable(self.fd())], timeout);
        }
        self.end_sleep();
    }

    /// The descriptor that turns readable when the bell is rung during a sleep.
    pub fn fd(&self) -> RawFd {
        self.shared.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(bell: &Doorbell) -> bool {
        let mut fds = [system::readable(bell.fd())];
        system::wait(&mut fds, Duration::ZERO);
        fds[0].revents != 0
    }

    #[test]
    fn awake_thread_costs_no_system_call() {
        let bell = Doorbell::new().unwrap();
        bell.ring();
        assert!(!is_readable(&bell));
        bell.prepare_sleep();
        assert!(!is_readable(&bell));
        bell.clone().ring();
        assert!(is_readable(&bell));
        bell.end_sleep();
        assert!(!is_readable(&bell));
    }
}
