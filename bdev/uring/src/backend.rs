//! Which backend was asked for, which one was chosen, and why.

use std::fmt;
use std::str::FromStr;

/// What the operator asks for (`io_backend`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoBackend {
    /// `io_uring` if it can be had, else standard.
    #[default]
    Auto,
    /// `io_uring` or nothing: opening fails when it cannot be had.
    IoUring,
    /// `pread` and `pwrite`.
    Standard,
}

impl FromStr for IoBackend {
    type Err = String;

    /// `auto`, `io_uring` or `standard`, in any case.
    fn from_str(text: &str) -> Result<IoBackend, String> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(IoBackend::Auto),
            "io_uring" => Ok(IoBackend::IoUring),
            "standard" => Ok(IoBackend::Standard),
            _ => Err(format!("io_backend must be auto, io_uring or standard, not {text:?}")),
        }
    }
}

impl fmt::Display for IoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoBackend::Auto => "auto",
            IoBackend::IoUring => "io_uring",
            IoBackend::Standard => "standard",
        })
    }
}

/// What does the I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A ring for each queue.
    IoUring,
    /// A ring for each queue that polls the device, and a second one for flushes.
    IoUringPolled,
    /// System calls.
    Standard,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::IoUring => "io_uring",
            Backend::IoUringPolled => "io_uring (polled)",
            Backend::Standard => "standard",
        })
    }
}

/// The choice, to be logged once for each disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// What was asked for.
    pub requested: IoBackend,
    /// What does the I/O.
    pub selected: Backend,
    /// Why.
    pub reason: String,
}

impl Selection {
    /// True when `auto` could not have what it prefers.
    pub fn is_fallback(&self) -> bool {
        self.requested == IoBackend::Auto && self.selected == Backend::Standard
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Selection { requested, selected, reason } = self;
        write!(f, "io backend: requested {requested}, selected {selected} ({reason})")
    }
}

/// Something that works, but not as well as it could: for the log of whoever opened the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The file system refuses `O_DIRECT`: I/O goes through the page cache.
    Buffered {
        /// What the system answered.
        reason: String,
    },
    /// The kernel refuses to register the pool's memory: it is looked up for each request.
    Unregistered {
        /// What the system answered.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Buffered { reason } => {
                write!(f, "no direct I/O, reads and writes go through the page cache: {reason}")
            }
            Notice::Unregistered { reason } => {
                write!(f, "buffers are not registered with the kernel: {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_is_parsed_in_any_case() {
        for (text, backend) in [
            ("AUTO", IoBackend::Auto),
            ("Io_Uring", IoBackend::IoUring),
            ("standard", IoBackend::Standard),
        ] {
            assert_eq!(text.parse(), Ok(backend));
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        assert!("iouring".parse::<IoBackend>().is_err());
    }
}
