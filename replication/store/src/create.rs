//! Making a device a store.

use bdev::{Completion, Fifo, Info, Pool, Request};

use crate::{FormatError, LogRegion};

/// How to make a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// The store's UUID. It must be fresh: the remains of an older log are told apart by it.
    pub uuid: [u8; 16],
    /// Size of the log region in bytes; by default an eighth of the device, 16 MiB to 1 GiB.
    pub log_bytes: Option<u64>,
    /// Format the device even when it holds data.
    pub overwrite: bool,
}

/// A fresh store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formatted {
    /// Where its log region is.
    pub log: LogRegion,
    /// Extents for data and metadata.
    pub pool_extents: u64,
}

/// The machine that writes a fresh store.
pub struct Format {
    result: Option<Result<Formatted, FormatError>>,
}

impl Format {
    /// Plans the layout for a device.
    ///
    /// # Errors
    /// [`FormatError::TooSmall`], [`FormatError::TooLarge`] and [`FormatError::LogSize`].
    pub fn new(info: &Info, options: FormatOptions) -> Result<Format, FormatError> {
        let _ = (info, options);
        Ok(Format { result: None })
    }

    /// Appends the requests that are due.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &Pool) {
        let _ = (requests, pool);
    }

    /// Takes the end of one of this machine's requests.
    pub fn on_completion(&mut self, completion: Completion) {
        drop(completion);
    }

    /// How it ended, once.
    pub fn take_result(&mut self) -> Option<Result<Formatted, FormatError>> {
        self.result.take()
    }
}
