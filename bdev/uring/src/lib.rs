//! Files and block devices through io_uring, and a plain pread/pwrite backend.
