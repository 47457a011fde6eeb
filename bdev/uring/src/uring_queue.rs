//! One shard's queue to a file, through a ring.
//!
//! ```text
//!  submit: check -> slot -> staged -- kick --> kernel --> poll: short or "not now" -> staged again
//!             |                                             |
//!             `- malformed -> done                          +- FUA on a polled ring -> sync
//!                                                           `- complete
//! ```
//!
//! # Safety argument
//!
//! The kernel reads and writes the buffer of a request while operations of its slot are in flight
//! (`Flight::operations`). The request, which owns the buffer, stays in its slot until that is
//! zero, and nobody looks into the buffer meanwhile. Dropping the queue waits for what the kernel
//! has; if a device does not answer in time the slots are leaked, and their buffers with them.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use bdev::{Completion, Data, Fifo, Flags, Op, Queue, QueueCx, Request, Slots, Status};
use io_uring::{opcode, squeue, types};

use crate::backend::Notice;
use crate::counters::{Call, Counters};
use crate::disk::Shared;
use crate::limits::{DRAIN_WAITS_MAX, RETRIES_MAX};
use crate::ring::{Registered, Ring};
use crate::{errno, system};

pub(crate) struct UringQueue {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    depth: usize,
    slots: Slots<Flight>,
    /// Ended without the kernel.
    done: Fifo<Completion>,
    ring: Ring,
    /// For what a polled ring rejects: syncs and fallocates.
    second: Option<Ring>,
    registered: Registered,
    /// The file system has no `ZERO_RANGE`: holes read as zeroes too.
    zero_by_punch: bool,
}

/// A request that was taken.
struct Flight {
    request: Request,
    /// Bytes that were moved.
    moved: usize,
    /// Operations of this request that the ring has.
    operations: u8,
    /// Why it fails, once that is known.
    failed: Option<Status>,
    /// The data operation is through.
    moved_all: bool,
    /// It needs a sync after the data operation and has not had it.
    sync_due: bool,
    /// It is not through without a sync.
    durable: bool,
    /// Its `fallocate` makes a hole.
    punches: bool,
    retries: u32,
}

/// What a completion is about, in bit 32 of its user data.
const SYNC_BIT: u64 = 1 << 32;

/// The file's place in the ring's table.
const FILE: types::Fixed = types::Fixed(0);

impl UringQueue {
    /// A queue whose ring is polled, if that is asked for; a polled one needs a second ring.
    pub(crate) fn new(shared: Arc<Shared>, cx: &QueueCx<'_>, polled: bool) -> io::Result<Self> {
        UringQueue::with_rings(shared, cx, polled, polled)
    }

    fn with_rings(
        shared: Arc<Shared>,
        cx: &QueueCx<'_>,
        polled: bool,
        split: bool,
    ) -> io::Result<UringQueue> {
        let fd = shared.file.as_raw_fd();
        let in_flight = cx.depth * 2; // A write and its sync.
        let plain = || Ring::new(in_flight, polled, fd, &[]);
        let (ring, registered) = if shared.register_buffers {
            let (registered, pieces) = Registered::of(cx.pool);
            match Ring::new(in_flight, polled, fd, &pieces) {
                Ok(ring) => (ring, registered),
                // Perhaps it is the memory (RLIMIT_MEMLOCK) and not the ring: try without.
                Err(error) => {
                    let ring = plain()?;
                    shared.notice(Notice::Unregistered { reason: error.to_string() });
                    (ring, Registered::default())
                }
            }
        } else {
            (plain()?, Registered::default())
        };
        let second = if split { Some(Ring::new(in_flight, false, fd, &[])?) } else { None };
        let depth = cx.depth as usize;
        Ok(UringQueue {
            counters: shared.counters(),
            shared,
            depth,
            slots: Slots::new(depth),
            done: Fifo::new(depth),
            ring,
            second,
            registered,
            zero_by_punch: false,
        })
    }

    /// Stages what is left to do for the request in slot `key`.
    fn start(&mut self, key: u32) {
        let flight = self.slots.get_mut(key).expect("the caller's slot");
        let block_size = self.shared.info.block_size;
        let offset = flight.request.lba.byte_offset(block_size);
        let len = flight.request.blocks as usize * block_size as usize;
        let sync = opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build();
        let sync = sync.user_data(u64::from(key) | SYNC_BIT);
        if flight.request.op == Op::Flush || flight.moved_all {
            flight.operations = 1;
            self.counters.count(Call::Sync);
            // SAFETY: a sync points to no memory.
            unsafe { self.second.as_mut().unwrap_or(&mut self.ring).push(&[sync]) };
            return;
        }
        let (entry, call) = match flight.request.op {
            Op::Read | Op::Write => flight.transfer(&self.registered, offset, len),
            op => {
                let may_unmap = self.shared.info.ops.contains(Op::Deallocate)
                    && flight.request.flags.contains(Flags::UNMAP);
                flight.punches = op == Op::Deallocate || may_unmap || self.zero_by_punch;
                let mode = if flight.punches { system::PUNCH } else { system::ZERO };
                let entry = opcode::Fallocate::new(FILE, len as u64).offset(offset).mode(mode);
                (entry.build(), Call::Fallocate)
            }
        };
        let entry = entry.user_data(u64::from(key));
        self.counters.count(call);
        if flight.sync_due && self.second.is_none() {
            flight.operations = 2;
            self.counters.count(Call::Sync);
            let linked = entry.flags(squeue::Flags::IO_LINK);
            // SAFETY: the request stays in its slot, its buffer untouched, while `operations`
            // is not zero.
            unsafe { self.ring.push(&[linked, sync]) };
            return;
        }
        flight.operations = 1;
        let second = self.second.as_mut().filter(|_| call == Call::Fallocate);
        // SAFETY: as above.
        unsafe { second.unwrap_or(&mut self.ring).push(&[entry]) };
    }

    /// Takes one result in; the completion when the request is through.
    fn on_result(&mut self, user_data: u64, result: i32) -> Option<Completion> {
        let key = u32::try_from(user_data & 0xffff_ffff).expect("masked to 32 bits");
        let block_size = self.shared.info.block_size as usize;
        let flight = self.slots.get_mut(key).expect("kept while operations are in flight");
        flight.operations -= 1;
        if user_data & SYNC_BIT != 0 {
            if flight.on_sync(result) {
                self.shared.fail_syncs();
            }
        } else if result == -libc::EOPNOTSUPP && flight.can_punch_instead() {
            self.zero_by_punch = true;
        } else {
            flight.on_data(result, block_size);
        }
        if flight.operations > 0 {
            return None;
        }
        if flight.durable && flight.failed.is_none() {
            flight.failed = self.shared.check_syncs().err();
        }
        let status = match flight.failed {
            Some(status) => status,
            None if flight.moved_all && !flight.sync_due => Status::Ok,
            None if flight.retries > RETRIES_MAX => Status::Io,
            None => {
                self.start(key);
                return None;
            }
        };
        let flight = self.slots.remove(key).expect("just seen");
        Some(flight.request.complete(status))
    }

    fn poll_ring(&mut self, second: bool, completions: &mut Fifo<Completion>) {
        let mut asked = false;
        while !completions.is_full() {
            let ring = if second { self.second.as_mut() } else { Some(&mut self.ring) };
            let Some(ring) = ring else { return };
            let Some((user_data, result)) = ring.pop() else {
                if asked {
                    return;
                }
                asked = true;
                ring.ask();
                continue;
            };
            if let Some(completion) = self.on_result(user_data, result) {
                let pushed = completions.push(completion);
                assert!(pushed.is_ok(), "room was checked");
            }
        }
    }
}

impl Flight {
    fn new(request: Request, volatile_cache: bool) -> Flight {
        let is_flush = request.op == Op::Flush;
        let forced = volatile_cache && request.flags.contains(Flags::FUA);
        let durable = is_flush || (forced && request.op != Op::Read);
        Flight {
            moved: 0,
            operations: 0,
            failed: None,
            moved_all: is_flush,
            sync_due: durable,
            durable,
            punches: false,
            retries: 0,
            request,
        }
    }

    /// The read or write of what was not moved yet.
    fn transfer(
        &mut self,
        registered: &Registered,
        offset: u64,
        len: usize,
    ) -> (squeue::Entry, Call) {
        let offset = offset + self.moved as u64;
        let left = len - self.moved;
        let bytes = u32::try_from(left).expect("requests have at most a mebibyte");
        match &mut self.request.data {
            Data::Into(buf) => {
                let pointer = buf.as_mut_ptr().wrapping_add(self.moved);
                let entry = match registered.index(pointer, left) {
                    Some(index) => {
                        opcode::ReadFixed::new(FILE, pointer, bytes, index).offset(offset).build()
                    }
                    None => opcode::Read::new(FILE, pointer, bytes).offset(offset).build(),
                };
                (entry, Call::Read)
            }
            Data::From(buf) => {
                let pointer = buf.as_ptr().wrapping_add(self.moved);
                let entry = match registered.index(pointer, left) {
                    Some(index) => {
                        opcode::WriteFixed::new(FILE, pointer, bytes, index).offset(offset).build()
                    }
                    None => opcode::Write::new(FILE, pointer, bytes).offset(offset).build(),
                };
                (entry, Call::Write)
            }
            Data::None => panic!("reads and writes were checked to have a buffer"),
        }
    }

    fn can_punch_instead(&self) -> bool {
        self.request.op == Op::WriteZeroes && !self.punches
    }

    fn on_data(&mut self, result: i32, block_size: usize) {
        if result < 0 {
            return self.on_error(-result);
        }
        if !self.request.op.has_data() {
            self.moved_all = true;
            return;
        }
        // Direct I/O goes on at a block: a part of one is moved again.
        let moved = usize::try_from(result).expect("it is not negative");
        let len = self.request.blocks as usize * block_size;
        assert!(self.moved + moved <= len, "the kernel moves at most what was asked for");
        let total = self.moved + moved;
        let whole = if total == len { total } else { total - total % block_size };
        if whole == self.moved {
            self.retries += 1;
            if moved == 0 {
                self.failed = Some(Status::Io); // The file has become shorter.
            }
        }
        self.moved = whole;
        self.moved_all = whole == len;
    }

    /// True when the sync itself failed for good.
    fn on_sync(&mut self, result: i32) -> bool {
        match -result {
            // A sync after a part of the write does not count.
            _ if result >= 0 => self.sync_due = !self.moved_all,
            // The write that it is linked to was short or failed, and says so itself.
            libc::ECANCELED => (),
            error => {
                self.on_error(error);
                return !errno::is_temporary(error);
            }
        }
        false
    }

    fn on_error(&mut self, error: i32) {
        if errno::is_temporary(error) {
            self.retries += 1;
        } else {
            self.failed = Some(errno::status(error));
        }
    }
}

impl Queue for UringQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        while self.slots.len() + self.done.len() < self.depth {
            let Some(request) = requests.pop() else { return };
            if let Err(status) = self.shared.info.check(&request) {
                let pushed = self.done.push(request.complete(status));
                assert!(pushed.is_ok(), "as many completions fit as requests are taken");
                continue;
            }
            let flight = Flight::new(request, self.shared.info.volatile_cache);
            let Ok(key) = self.slots.insert(flight) else { panic!("room was checked") };
            self.start(key);
        }
    }

    fn kick(&mut self) {
        self.ring.kick();
        if let Some(second) = &mut self.second {
            second.kick();
        }
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        while !completions.is_full() {
            let Some(completion) = self.done.pop() else { break };
            let pushed = completions.push(completion);
            assert!(pushed.is_ok(), "room was checked");
        }
        self.poll_ring(false, completions);
        self.poll_ring(true, completions);
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.slots.len() + self.done.len()).expect("bounded by the depth")
    }

    fn wait_fd(&self) -> Option<RawFd> {
        // Completions of a polled ring are found by polling only.
        self.second.is_none().then(|| self.ring.as_raw_fd())
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        for ring in std::iter::once(&mut self.ring).chain(self.second.as_mut()) {
            for _ in 0..DRAIN_WAITS_MAX {
                while ring.wait() && ring.pop().is_some() {
                    while ring.pop().is_some() {}
                }
                if ring.is_idle() {
                    break;
                }
            }
            if !ring.is_idle() {
                // The device may still write into the buffers: never give them back.
                std::mem::forget(std::mem::replace(&mut self.slots, Slots::new(0)));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
