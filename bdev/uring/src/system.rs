//! The system calls of the standard backend, and of opening.
//!
//! # Safety argument
//!
//! Every call passes pointers to locals or slices with their true sizes; the kernel reads or writes
//! at most that much before the call returns, and keeps nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Claims `file` for this process; fails with `EWOULDBLOCK` when somebody else has it.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }).map(|_| ())
}

/// Lets time pass while somebody else has a disk: the system does not tell when it is free.
pub(crate) fn pause(time: Duration) {
    let time = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: no descriptors, so the null pointer is never followed.
    unsafe { libc::poll(std::ptr::null_mut(), 0, time) };
}

/// The size of a block device in bytes.
pub(crate) fn device_bytes(file: &File) -> io::Result<u64> {
    let mut bytes = 0_u64;
    // SAFETY: BLKGETSIZE64 writes a u64 to the pointer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

/// The logical block size of a block device in bytes.
pub(crate) fn device_block_size(file: &File) -> io::Result<u32> {
    let mut size = 0_i32;
    // SAFETY: BLKSSZGET writes an int to the pointer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &raw mut size) })?;
    u32::try_from(size).map_err(io::Error::other)
}

/// The granularity of direct I/O to a file in bytes, where the file system says.
pub(crate) fn direct_granularity(file: &File) -> Option<u32> {
    // SAFETY: all zeroes is a valid `statx`.
    let mut out: libc::statx = unsafe { std::mem::zeroed() };
    let (fd, flags) = (file.as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is an empty C string, and `out` is filled before the call returns.
    let result =
        unsafe { libc::statx(fd, c"".as_ptr(), flags, libc::STATX_DIOALIGN, &raw mut out) };
    let known = result == 0 && out.stx_mask & libc::STATX_DIOALIGN != 0;
    (known && out.stx_dio_offset_align > 0).then_some(out.stx_dio_offset_align)
}

pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> Result<usize, i32> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EFBIG)?;
    // SAFETY: the pointer and length name `bytes`.
    outcome(unsafe {
        libc::pread(file.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), offset)
    })
}

pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> Result<usize, i32> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EFBIG)?;
    // SAFETY: the pointer and length name `bytes`.
    outcome(unsafe { libc::pwrite(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), offset) })
}

pub(crate) fn sync(file: &File) -> Result<(), i32> {
    // SAFETY: no pointers.
    let result = unsafe { libc::fdatasync(file.as_raw_fd()) };
    outcome(isize::try_from(result).expect("zero or minus one")).map(|_| ())
}

pub(crate) fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> Result<(), i32> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EFBIG)?;
    let len = libc::off_t::try_from(len).map_err(|_| libc::EFBIG)?;
    // SAFETY: no pointers.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) };
    outcome(isize::try_from(result).expect("zero or minus one")).map(|_| ())
}

pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes an eventfd readable, or unreadable.
pub(crate) fn eventfd_set(fd: &OwnedFd, readable: bool) {
    let mut count = u64::from(readable).to_ne_bytes();
    let (fd, len) = (fd.as_raw_fd(), count.len());
    if readable {
        // SAFETY: the pointer and length name `count`.
        unsafe { libc::write(fd, count.as_ptr().cast(), len) };
    } else {
        // SAFETY: as above.
        unsafe { libc::read(fd, count.as_mut_ptr().cast(), len) };
    }
}

/// Gives the space of a range back; it reads as zeroes.
pub(crate) const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// Makes a range read as zeroes and keeps its space.
pub(crate) const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn outcome(result: isize) -> Result<usize, i32> {
    usize::try_from(result)
        .map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
