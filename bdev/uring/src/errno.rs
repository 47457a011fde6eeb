//! What the system's errors mean for a request.

use bdev::Status;

/// The status of a request that failed with `errno`.
pub(crate) fn status(errno: i32) -> Status {
    match errno {
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => Status::NoSpace,
        libc::EOPNOTSUPP | libc::ENOSYS => Status::Unsupported,
        libc::EROFS | libc::EPERM | libc::EBADF => Status::WriteProtected,
        libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM => Status::Gone,
        libc::EILSEQ | libc::EBADMSG => Status::Integrity,
        libc::EBUSY => Status::Retry,
        _ => Status::Io,
    }
}

/// True for errors that say "not now": the operation is started again.
pub(crate) fn is_temporary(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINTR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        assert_eq!(status(libc::EIO), Status::Io);
        assert_eq!(status(libc::ENOSPC), Status::NoSpace);
        assert_eq!(status(libc::EOPNOTSUPP), Status::Unsupported);
        assert_eq!(status(libc::EINVAL), Status::Io);
        assert!(is_temporary(libc::EAGAIN) && !is_temporary(libc::EIO));
    }
}
