//! The few system calls of the reactor.
//!
//! # Safety argument
//!
//! Every call passes pointers to locals or slices with their true sizes; the kernel reads or writes
//! at most that much and keeps nothing after the call returns. Descriptors that are created are
//! owned at once.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use bdev::Instant;

pub(crate) fn monotonic_now() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer names a local that the kernel fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "every Linux has a monotonic clock");
    let seconds = u64::try_from(time.tv_sec).expect("monotonic time is positive");
    let nanos = u64::try_from(time.tv_nsec).expect("nanoseconds are positive");
    Instant::from_ns(seconds * 1_000_000_000 + nanos)
}

pub(crate) fn affinity() -> io::Result<Vec<usize>> {
    // SAFETY: all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the pointer and size name `set`.
    check(unsafe { libc::sched_getaffinity(0, size, &raw mut set) })?;
    // SAFETY: the index is below the size of the set, and `set` is initialised.
    Ok((0..size * 8).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

pub(crate) fn set_affinity(core: usize) -> io::Result<()> {
    let size = size_of::<libc::cpu_set_t>();
    if core >= size * 8 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the index was checked against the size of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the pointer and size name `set`.
    check(unsafe { libc::sched_setaffinity(0, size, &raw const set) }).map(|_| ())
}

/// Lets the kernel wake the calling thread on time instead of up to 50 us late.
pub(crate) fn sharpen_timers() {
    // SAFETY: no pointers. Failing costs precision only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64, 0_u64, 0_u64, 0_u64) };
}

pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the eventfd readable.
pub(crate) fn eventfd_ring(fd: &OwnedFd) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the pointer and length name `one`. The only error is a full counter, which is
    // readable already.
    unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Makes the eventfd unreadable again.
pub(crate) fn eventfd_clear(fd: &OwnedFd) {
    let mut count = [0_u8; 8];
    // SAFETY: the pointer and length name `count`. The only error is that it was not readable.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// A descriptor to wait for.
pub(crate) fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Sleeps until one of `fds` is readable or `timeout` is over. Early returns are allowed.
pub(crate) fn wait(fds: &mut [libc::pollfd], timeout: Duration) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    let count = libc::nfds_t::try_from(fds.len()).expect("a reactor waits for few descriptors");
    // SAFETY: the pointers name `fds` with its length and `time`; the null signal mask means none.
    unsafe { libc::ppoll(fds.as_mut_ptr(), count, &raw const time, std::ptr::null()) };
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
