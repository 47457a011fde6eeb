//! From a device to a mounted store.

use bdev::{Completion, Fifo, Info, Pool, Request};

use crate::{LogTail, MountError, Options, Store};

/// A store that was just mounted; its epoch is already durable.
pub struct Mounted {
    /// The store.
    pub store: Store,
    /// Where to start replaying the log.
    pub tail: LogTail,
    /// The copy of the superblock (0 or 1) that was damaged and has been rewritten.
    pub healed_superblock: Option<u32>,
}

/// The machine that mounts a store.
pub struct Mount {
    result: Option<Result<Mounted, MountError>>,
}

impl Mount {
    /// Starts to mount the store on a device.
    pub fn new(info: &Info, options: &Options) -> Mount {
        let _ = (info, options);
        Mount { result: None }
    }

    /// Appends the requests that are due, while there is room and the pool has buffers.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &Pool) {
        let _ = (requests, pool);
    }

    /// Takes the end of one of this machine's requests.
    pub fn on_completion(&mut self, completion: Completion) {
        drop(completion);
    }

    /// How it ended, once.
    pub fn take_result(&mut self) -> Option<Result<Mounted, MountError>> {
        self.result.take()
    }
}
