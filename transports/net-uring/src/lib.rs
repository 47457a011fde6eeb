//! The io_uring sockets behind the polled byte streams.
