//! The ring: created disabled, told about memory and file, restricted, enabled.
//!
//! # Safety argument
//!
//! Submissions carry raw pointers. Whoever pushes one promises (see [`Ring::push`]) that the memory
//! stays valid and is not touched until the completion with that user data has been seen. The ring
//! counts what is in flight and what of it is only staged, so that its owner can prove at drop that
//! the kernel has nothing left. The completion queue is sized for everything that can be in flight.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use bdev::Pool;
use io_uring::register::Restriction;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

use crate::limits::{DRAIN_WAIT_MS, REGISTERED_CHUNK, SUBMISSIONS_MAX};

pub(crate) struct Ring {
    ring: IoUring,
    in_flight: usize,
    in_flight_max: usize,
    is_polled: bool,
    has_file: bool,
}

/// `IORING_UNREGISTER_FILES`.
const UNREGISTER_FILES: u8 = 3;

/// Whether this process may have rings at all.
pub(crate) fn probe() -> io::Result<()> {
    Ring::new(2, false, -1, &[]).map(|_| ())
}

impl Ring {
    /// A ring for `in_flight_max` operations on `file` (none when negative), with `buffers`
    /// registered.
    pub(crate) fn new(
        in_flight_max: u32,
        polled: bool,
        file: RawFd,
        buffers: &[libc::iovec],
    ) -> io::Result<Ring> {
        let entries = in_flight_max.next_power_of_two().clamp(2, SUBMISSIONS_MAX);
        let mut builder = IoUring::builder();
        builder.dontfork().setup_r_disabled().setup_single_issuer().setup_submit_all();
        builder.setup_clamp().setup_cqsize(in_flight_max.max(entries).next_power_of_two());
        // Cooperative, not deferred: 10 us less for a lone read (ADR 0042).
        builder.setup_coop_taskrun().setup_taskrun_flag();
        if polled {
            builder.setup_iopoll();
        }
        let ring = builder.build(entries)?;
        let submitter = ring.submitter();
        if file >= 0 {
            submitter.register_files(&[file])?;
        }
        if !buffers.is_empty() {
            // SAFETY: the kernel pins the pages; they stay mapped while a request refers to them,
            // because the request owns a handle to its segment.
            unsafe { submitter.register_buffers(buffers)? };
        }
        let allowed = [
            opcode::Read::CODE,
            opcode::Write::CODE,
            opcode::ReadFixed::CODE,
            opcode::WriteFixed::CODE,
            opcode::Fsync::CODE,
            opcode::Fallocate::CODE,
        ];
        let flags = squeue::Flags::FIXED_FILE | squeue::Flags::IO_LINK;
        let mut restrictions: Vec<_> = allowed.into_iter().map(Restriction::sqe_op).collect();
        restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
        restrictions.push(Restriction::register_op(UNREGISTER_FILES));
        submitter.register_restrictions(&mut restrictions)?;
        submitter.register_enable_rings()?;
        let in_flight_max = usize::try_from(in_flight_max).map_err(io::Error::other)?;
        Ok(Ring { ring, in_flight: 0, in_flight_max, is_polled: polled, has_file: file >= 0 })
    }

    /// Stages `entries` together for the next kick; submits what is staged first when there is no
    /// room.
    ///
    /// # Safety
    /// All memory that the entries point to must stay valid, and unaliased where the kernel writes
    /// it, until the completion with their user data was returned by [`Ring::pop`].
    pub(crate) unsafe fn push(&mut self, entries: &[squeue::Entry]) {
        self.in_flight += entries.len();
        assert!(self.in_flight <= self.in_flight_max, "the completion queue must not overflow");
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push_multiple(entries) }.is_err() {
            self.enter();
        }
    }

    /// Submits what is staged: at most one system call.
    pub(crate) fn kick(&mut self) {
        if !self.ring.submission().is_empty() {
            self.enter();
        }
    }

    /// The next completion: user data and result.
    pub(crate) fn pop(&mut self) -> Option<(u64, i32)> {
        let entry = self.ring.completion().next()?;
        self.in_flight -= 1;
        Some((entry.user_data(), entry.result()))
    }

    /// Asks the kernel for completions if only asking finds them.
    pub(crate) fn ask(&mut self) {
        let submission = self.ring.submission();
        let staged = submission.len();
        let asks = submission.taskrun()
            || submission.cq_overflow()
            || (self.is_polled && self.in_flight > staged);
        drop(submission);
        if asks {
            self.enter();
        }
    }

    /// Waits for a completion of something that the kernel has; false when it has nothing, or when
    /// nothing completed for a while. What is only staged stays so.
    pub(crate) fn wait(&mut self) -> bool {
        if self.in_flight == self.ring.submission().len() {
            return false;
        }
        let time = Timespec::new()
            .sec(u64::from(DRAIN_WAIT_MS / 1000))
            .nsec(DRAIN_WAIT_MS % 1000 * 1_000_000);
        let args = SubmitArgs::new().timespec(&time);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: nothing is submitted, and `args` and `time` outlive the call.
        unsafe { self.ring.submitter().enter(0, 1, flags.bits(), Some(&args)) }.is_ok()
    }

    /// True when the kernel has nothing of this ring.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.in_flight == self.ring.submission().len()
    }

    fn enter(&mut self) {
        match self.ring.submit() {
            Ok(_) => (),
            // Nothing is lost: what was not taken stays staged and the next kick tries again.
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => (),
                _ => panic!("io_uring_enter on a ring of our own: {error}"),
            },
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.has_file {
            // The kernel takes a ring apart later, and would keep the file claimed until then.
            // Failing costs that delay only.
            let _ = self.ring.submitter().unregister_files();
        }
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// The memory of a pool as the kernel registers it, and which part a pointer lies in.
#[derive(Debug, Default)]
pub(crate) struct Registered {
    base: usize,
    len: usize,
}

impl Registered {
    /// `pool`'s memory in pieces that the kernel takes.
    pub(crate) fn of(pool: &Pool) -> (Registered, Vec<libc::iovec>) {
        let (base, len) = pool.region();
        let pieces = (0..len).step_by(REGISTERED_CHUNK).map(|start| libc::iovec {
            iov_base: base.wrapping_add(start).cast(),
            iov_len: REGISTERED_CHUNK.min(len - start),
        });
        (Registered { base: base.addr(), len }, pieces.collect())
    }

    /// The piece that holds all of the `len` bytes at `pointer`, if one does.
    pub(crate) fn index(&self, pointer: *const u8, len: usize) -> Option<u16> {
        let start = pointer.addr().checked_sub(self.base)?;
        let end = start.checked_add(len).filter(|&end| end <= self.len)?;
        let piece = start / REGISTERED_CHUNK;
        let is_whole = len > 0 && (end - 1) / REGISTERED_CHUNK == piece;
        is_whole.then_some(u16::try_from(piece).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_whole_buffers_only() {
        let here = Registered { base: 4096, len: 2 * REGISTERED_CHUNK };
        let at = |offset: usize| std::ptr::without_provenance(4096 + offset);
        assert_eq!(here.index(at(0), 4096), Some(0));
        assert_eq!(here.index(at(REGISTERED_CHUNK), 4096), Some(1));
        assert_eq!(here.index(at(REGISTERED_CHUNK - 512), 1024), None);
        assert_eq!(here.index(at(2 * REGISTERED_CHUNK), 1), None);
        assert_eq!(here.index(std::ptr::without_provenance(0), 512), None);
        assert_eq!(Registered::default().index(at(0), 512), None);
    }
}
