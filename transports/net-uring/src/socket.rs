//! Sockets as the kernel wants them: addresses, options, errors.
//!
//! # Safety argument
//!
//! Every call passes pointers to locals or fields with their true sizes, and the kernel writes at
//! most that much before the call returns. The exception is [`Address`], which an asynchronous
//! accept or connect may use later: it is boxed inside its listener or connection, which outlives
//! the operation.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use net::CloseReason;

use crate::limits::BACKLOG_MAX;

/// A socket address in the kernel's form.
#[repr(C)]
pub(crate) struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Address {
    pub(crate) fn empty() -> Address {
        // SAFETY: all zeroes is a valid `sockaddr_storage` (an unspecified address).
        let storage = unsafe { mem::zeroed() };
        Address { storage, len: size_of_len::<libc::sockaddr_storage>() }
    }

    pub(crate) fn new(address: SocketAddr) -> Address {
        let mut here = Address::empty();
        match address {
            SocketAddr::V4(v4) => {
                here.len = size_of_len::<libc::sockaddr_in>();
                let to = (&raw mut here.storage).cast::<libc::sockaddr_in>();
                let value = libc::sockaddr_in {
                    sin_family: family(libc::AF_INET),
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: the storage is large and aligned enough for every address.
                unsafe { to.write(value) };
            }
            SocketAddr::V6(v6) => {
                here.len = size_of_len::<libc::sockaddr_in6>();
                let to = (&raw mut here.storage).cast::<libc::sockaddr_in6>();
                let value = libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6),
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { to.write(value) };
            }
        }
        here
    }

    /// Makes room for the kernel to write an address of any family.
    pub(crate) fn clear(&mut self) {
        *self = Address::empty();
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.storage).cast()
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        self.len
    }

    pub(crate) fn len_mut_ptr(&mut self) -> *mut libc::socklen_t {
        &raw mut self.len
    }

    /// The address, or 0.0.0.0:0 when it is of no known family.
    pub(crate) fn to_std(&self) -> SocketAddr {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says which address the storage holds, and any bytes are one.
                let v4 = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in6>().read() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                SocketAddr::V6(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id))
            }
            _ => SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        }
    }
}

/// A stream socket for addresses like `address`. It blocks: the ring waits, not the thread (and a
/// non-blocking socket would make the ring give up instead of wait).
pub(crate) fn stream(address: SocketAddr) -> io::Result<OwnedFd> {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A listening socket on `address`, and where it really listens.
pub(crate) fn listen(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let fd = stream(address)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if address.is_ipv6() {
        set_option(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    let name = Address::new(address);
    // SAFETY: the pointer and length name `name`, which outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr(), name.len()) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG_MAX) })?;
    let mut bound = Address::empty();
    let len = bound.len_mut_ptr();
    // SAFETY: the kernel writes at most `*len` bytes, which is the size of the storage.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), bound.as_mut_ptr(), len) })?;
    let local = bound.to_std();
    Ok((fd, local))
}

/// Prepares a connection: no delay for small segments, buffers of `buffer` bytes unless that is
/// zero (then the kernel sizes them), blocking for the ring's sake.
pub(crate) fn tune(fd: RawFd, buffer: i32) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if buffer > 0 {
        set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, buffer)?;
        set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, buffer)?;
    }
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    if flags & libc::O_NONBLOCK != 0 {
        // SAFETY: no pointers.
        check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK) })?;
    }
    Ok(())
}

/// A descriptor that is always readable.
pub(crate) fn readable_fd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::eventfd(1, libc::EFD_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn shutdown_write(fd: RawFd) {
    // SAFETY: no pointers. An error means that the connection is gone, which its receive reports.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of_len::<i32>();
    // SAFETY: the pointer and length name `value`, which outlives the call.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) })?;
    Ok(())
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn family(family: i32) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("address families are small numbers")
}

fn size_of_len<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("addresses and options are small")
}

/// What a failed operation says about its connection.
pub(crate) fn reason(errno: i32) -> CloseReason {
    match errno {
        libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN | libc::ECONNABORTED => CloseReason::Reset,
        libc::ECONNREFUSED => CloseReason::Refused,
        libc::ETIMEDOUT => CloseReason::TimedOut,
        other => CloseReason::System(other),
    }
}

/// True for errors that say "not now": the operation is started again.
pub(crate) fn is_temporary(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["127.0.0.1:4420", "[::1]:1", "[fe80::1%3]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::new(address).to_std(), address);
        }
        assert_eq!(Address::empty().to_std(), "0.0.0.0:0".parse().unwrap());
    }

    #[test]
    fn errors_become_reasons() {
        assert_eq!(reason(libc::EPIPE), CloseReason::Reset);
        assert_eq!(reason(libc::ECONNREFUSED), CloseReason::Refused);
        assert_eq!(reason(libc::ETIMEDOUT), CloseReason::TimedOut);
        assert_eq!(reason(libc::EIO), CloseReason::System(libc::EIO));
        assert!(is_temporary(libc::ENOBUFS) && !is_temporary(libc::ECONNRESET));
    }
}
