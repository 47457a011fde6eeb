//! The ring: created disabled, restricted to what sockets need, enabled; one kick, one enter.
//!
//! # Safety argument
//!
//! Submissions carry raw pointers. Whoever pushes one promises (see [`Ring::push`]) that the memory
//! stays valid and is not touched until the completion with that user data has been seen. The ring
//! counts what is in flight, so that its owner can prove at drop that nothing is. The completion
//! queue is sized for everything that can be in flight, so it does not overflow.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue};

/// What a completion belongs to, in the top byte of its user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Receive = 1,
    Send = 2,
    Connect = 3,
    Cancel = 4,
    Accept = 5,
    CancelAccept = 6,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Receive, Kind::Send, Kind::Connect, Kind::Cancel, Kind::Accept, Kind::CancelAccept];

    /// The user data for an operation of the connection or listener at `index`.
    pub(crate) fn tag(self, index: usize) -> u64 {
        (self as u64) << 56 | index as u64
    }

    pub(crate) fn of(user_data: u64) -> (Kind, usize) {
        let number = user_data >> 56;
        let kind = Kind::ALL.into_iter().find(|&kind| kind as u64 == number);
        let index = usize::try_from(user_data & 0xffff_ffff).expect("masked to 32 bits");
        (kind.expect("the kernel returns our user data"), index)
    }
}

pub(crate) struct Ring {
    ring: IoUring,
    in_flight: usize,
    in_flight_max: usize,
}

impl Ring {
    pub(crate) fn new(submissions: usize, in_flight_max: usize) -> io::Result<Ring> {
        let entries = u32::try_from(submissions).map_err(io::Error::other)?;
        let completions = u32::try_from(in_flight_max).map_err(io::Error::other)?;
        let mut builder = IoUring::builder();
        builder.dontfork().setup_r_disabled().setup_single_issuer().setup_submit_all();
        builder.setup_clamp().setup_cqsize(completions.max(entries).next_power_of_two());
        // Not DEFER_TASKRUN: deferred work does not wake a thread that sleeps in `poll` on the
        // ring's descriptor (ADR 0040).
        builder.setup_coop_taskrun().setup_taskrun_flag();
        let ring = builder.build(entries)?;
        let allowed = [
            opcode::Accept::CODE,
            opcode::Connect::CODE,
            opcode::Recv::CODE,
            opcode::Send::CODE,
            opcode::SendMsg::CODE,
            opcode::AsyncCancel::CODE,
        ];
        let mut restrictions = allowed.map(Restriction::sqe_op);
        ring.submitter().register_restrictions(&mut restrictions)?;
        ring.submitter().register_enable_rings()?;
        Ok(Ring { ring, in_flight: 0, in_flight_max })
    }

    /// Stages `entry` for the next kick; submits what is staged first when there is no room.
    ///
    /// # Safety
    /// All memory that `entry` points to must stay valid, and unaliased where the kernel writes it,
    /// until the completion with its user data was returned by [`Ring::pop`].
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        assert!(self.in_flight < self.in_flight_max, "the completion queue must not overflow");
        self.in_flight += 1;
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enter(0);
        }
    }

    /// Submits what is staged, and runs pending work if there is some: at most one system call.
    pub(crate) fn kick(&mut self) {
        let submission = self.ring.submission();
        if !submission.is_empty() || submission.taskrun() {
            drop(submission);
            self.enter(0);
        }
    }

    /// The next completion: user data and result.
    pub(crate) fn pop(&mut self) -> Option<(u64, i32)> {
        let entry = self.ring.completion().next()?;
        self.in_flight -= 1;
        Some((entry.user_data(), entry.result()))
    }

    /// Runs pending work if there is some.
    pub(crate) fn run_pending(&mut self) {
        let submission = self.ring.submission();
        if submission.taskrun() || submission.cq_overflow() {
            drop(submission);
            self.enter(0);
        }
    }

    /// Waits for a completion.
    pub(crate) fn wait(&mut self) {
        self.enter(1);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn enter(&mut self, want: usize) {
        match self.ring.submitter().submit_and_wait(want) {
            Ok(_) => (),
            // Nothing is lost: what was not taken stays staged and the next kick tries again.
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ETIME) => (),
                _ => panic!("io_uring_enter on a ring of our own: {error}"),
            },
        }
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
