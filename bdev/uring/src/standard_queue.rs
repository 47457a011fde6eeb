//! One shard's queue to a file, through plain system calls.
//!
//! Each kick carries out at most [`STANDARD_PER_KICK`] requests, on the shard's own thread: it
//! blocks. An `eventfd` that is readable while requests wait keeps a reactor from sleeping on them.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use bdev::{Completion, Data, Fifo, Flags, Op, OpenError, Queue, Request, Status};

use crate::counters::{Call, Counters};
use crate::disk::Shared;
use crate::limits::{RETRIES_MAX, STANDARD_PER_KICK};
use crate::{errno, system};

pub(crate) struct StandardQueue {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    depth: usize,
    waiting: Fifo<Request>,
    done: Fifo<Completion>,
    bell: OwnedFd,
    bell_rung: bool,
}

impl StandardQueue {
    pub(crate) fn new(shared: Arc<Shared>, depth: u32) -> Result<StandardQueue, OpenError> {
        let bell = system::eventfd()
            .map_err(|source| OpenError::System { what: "eventfd".to_owned(), source })?;
        let depth = depth as usize;
        Ok(StandardQueue {
            counters: shared.counters(),
            shared,
            depth,
            waiting: Fifo::new(depth),
            done: Fifo::new(depth),
            bell,
            bell_rung: false,
        })
    }

    fn run(&self, request: &mut Request) -> Status {
        let info = &self.shared.info;
        if let Err(status) = info.check(request) {
            return status;
        }
        let offset = request.lba.byte_offset(info.block_size);
        let len = request.blocks as usize * info.block_size as usize;
        let result = match (request.op, &mut request.data) {
            (Op::Read, Data::Into(buf)) => self.read(&mut buf.bytes_mut()[..len], offset),
            (Op::Write, Data::From(buf)) => self.write(&buf.bytes()[..len], offset),
            (Op::Flush, _) => self.sync(),
            (op, _) => {
                let may_unmap =
                    info.ops.contains(Op::Deallocate) && request.flags.contains(Flags::UNMAP);
                self.zero(op == Op::Deallocate || may_unmap, offset, len as u64)
            }
        };
        let is_durable = !info.volatile_cache
            || !request.flags.contains(Flags::FUA)
            || matches!(request.op, Op::Read | Op::Flush);
        let result = if is_durable { result } else { result.and_then(|()| self.sync()) };
        result.err().unwrap_or(Status::Ok)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), Status> {
        self.transfer(Call::Read, bytes.len(), |moved| {
            system::read_at(&self.shared.file, &mut bytes[moved..], offset + moved as u64)
        })
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Status> {
        self.transfer(Call::Write, bytes.len(), |moved| {
            system::write_at(&self.shared.file, &bytes[moved..], offset + moved as u64)
        })
    }

    /// Calls `step(moved)` until `len` bytes are moved.
    fn transfer(
        &self,
        call: Call,
        len: usize,
        mut step: impl FnMut(usize) -> Result<usize, i32>,
    ) -> Result<(), Status> {
        let block_size = self.shared.info.block_size as usize;
        let mut moved = 0;
        for _ in 0..RETRIES_MAX {
            self.counters.count(call);
            match step(moved) {
                Ok(0) => return Err(Status::Io), // The file has become shorter.
                Ok(more) if moved + more == len => return Ok(()),
                // Direct I/O goes on at a block: a part of one is moved again.
                Ok(more) => moved = (moved + more) / block_size * block_size,
                Err(error) if errno::is_temporary(error) => (),
                Err(error) => return Err(errno::status(error)),
            }
        }
        Err(Status::Io)
    }

    fn sync(&self) -> Result<(), Status> {
        self.shared.check_syncs()?;
        let result = self.repeat(Call::Sync, || system::sync(&self.shared.file));
        result.inspect_err(|_| self.shared.fail_syncs())
    }

    fn zero(&self, punch: bool, offset: u64, len: u64) -> Result<(), Status> {
        let call = |mode| {
            self.repeat(Call::Fallocate, || system::fallocate(&self.shared.file, mode, offset, len))
        };
        match call(if punch { system::PUNCH } else { system::ZERO }) {
            // The file system has no ZERO_RANGE: holes read as zeroes too.
            Err(Status::Unsupported) if !punch => call(system::PUNCH),
            result => result,
        }
    }

    fn repeat(&self, call: Call, mut act: impl FnMut() -> Result<(), i32>) -> Result<(), Status> {
        for _ in 0..RETRIES_MAX {
            self.counters.count(call);
            match act() {
                Err(error) if errno::is_temporary(error) => (),
                result => return result.map_err(errno::status),
            }
        }
        Err(Status::Io)
    }

    fn set_bell(&mut self) {
        let wanted = self.in_flight() > 0;
        if wanted != self.bell_rung {
            system::eventfd_set(&self.bell, wanted);
            self.bell_rung = wanted;
        }
    }
}

impl Queue for StandardQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        while self.waiting.len() + self.done.len() < self.depth {
            let Some(request) = requests.pop() else { return };
            let pushed = self.waiting.push(request);
            assert!(pushed.is_ok(), "room was checked");
        }
    }

    fn kick(&mut self) {
        for _ in 0..STANDARD_PER_KICK {
            let Some(mut request) = self.waiting.pop() else { return };
            let status = self.run(&mut request);
            let pushed = self.done.push(request.complete(status));
            assert!(pushed.is_ok(), "as many completions fit as requests are taken");
        }
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        while !completions.is_full() {
            let Some(completion) = self.done.pop() else { break };
            let pushed = completions.push(completion);
            assert!(pushed.is_ok(), "room was checked");
        }
        self.set_bell();
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.waiting.len() + self.done.len()).expect("bounded by the depth")
    }

    fn wait_fd(&self) -> Option<RawFd> {
        Some(self.bell.as_raw_fd())
    }
}
