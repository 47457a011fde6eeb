//! What a reactor drives.

use std::os::fd::RawFd;

use bdev::Instant;

/// Passive state machines of one core, polled.
///
/// The same machine runs under a [`crate::Reactor`] with the real clock and in a simulation with a
/// virtual one; there is no third way.
pub trait Machine {
    /// Does what can be done now, in bounded time, and never blocks. Time never goes back.
    fn turn(&mut self, now: Instant) -> Progress;

    /// When `turn` must be called even if nothing happens; `None` when there is no such time.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Appends the descriptors that turn readable when `turn` may find something to do. Asked
    /// before each sleep.
    fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        let _ = fds;
    }
}

impl<M: Machine + ?Sized> Machine for Box<M> {
    fn turn(&mut self, now: Instant) -> Progress {
        (**self).turn(now)
    }

    fn next_timeout(&self) -> Option<Instant> {
        (**self).next_timeout()
    }

    fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        (**self).wait_fds(fds);
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something was done, or something is in flight that only polling finds: call again at once.
    Worked,
    /// Nothing was done and there is nothing to do until a descriptor, the doorbell or the next
    /// time-out says so.
    Idle,
    /// The machine is finished: drop it and end the thread.
    Done,
}

impl Progress {
    /// The more urgent of two: `Worked` beats `Idle`, and `Done` beats both.
    #[must_use]
    pub fn and(self, other: Progress) -> Progress {
        match (self, other) {
            (Progress::Done, _) | (_, Progress::Done) => Progress::Done,
            (Progress::Worked, _) | (_, Progress::Worked) => Progress::Worked,
            (Progress::Idle, Progress::Idle) => Progress::Idle,
        }
    }

    /// `Worked` when `worked`, else `Idle`.
    #[must_use]
    pub fn from_worked(worked: bool) -> Progress {
        if worked { Progress::Worked } else { Progress::Idle }
    }
}
