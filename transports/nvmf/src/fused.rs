//! Fused Compare and Write: two commands that become one request.
//!
//! ```text
//!   Compare (first) --capsule--> lone --its second's capsule--> pair --data of both--> one request
//!                                  |
//!                                  `-- anything else of its namespace, or time: aborted
//! ```
//!
//! Halves find each other when their capsules arrive, by namespace: what belongs to other
//! namespaces
//! may lie between them on the queue (VMFS does that), and when their data arrives means nothing.
//! The first has a buffer of twice its length from the start, and the data of the second
//! lands in its other half, or is copied there: nobody waits for memory while holding some.

use bdev::{BufMut, Instant, Op, Status};
use nvme_spec::{NvmeStatus, Sqe, StatusCode, fuse, opcode};

use crate::command::{Command, Phase, Plan, Segment, Transfer};
use crate::config::Namespace;
use crate::connection::{Connection, Cx};
use crate::io;
use crate::limits::{FUSED_BYTES_MAX, FUSED_WAIT_MS, IN_CAPSULE_MAX};
use crate::status::fused_status;
use crate::view::HostView;

const _: () = assert!(2 * FUSED_BYTES_MAX <= IN_CAPSULE_MAX, "the reserve holds both halves");

/// How a command belongs to a fused pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fuse {
    /// It does not, or not any more.
    #[default]
    No,
    /// A Compare that came at `since`, and its Write as soon as that is there.
    First { second: Option<u32>, since: Instant },
    /// A Write, and its Compare.
    Second { first: u32 },
}

/// Where the data of a capsule goes.
pub(crate) struct Room {
    pub(crate) buf: BufMut,
    /// Bytes of the pool that it counts for.
    pub(crate) held: usize,
    pub(crate) reserved: bool,
    /// Where in the buffer the data starts.
    pub(crate) base: u32,
}

/// Blocks of a fused pair at most: ACWU and NACWU, not 0's based.
pub(crate) fn blocks_max(namespace: &Namespace) -> u32 {
    (FUSED_BYTES_MAX / namespace.block_size).min(namespace.atomic_blocks).max(1)
}

/// What a half needs, or why it is refused.
//= NVMe-NVM 1.1 §2.1.3
//# the one fused operation is Compare and Write: Compare first, Write second
pub(crate) fn plan(sqe: &Sqe, view: &HostView) -> Result<Plan, NvmeStatus> {
    if !matches!((sqe.fuse(), sqe.opcode), FIRST_HALF | SECOND_HALF) {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    let plan = io::plan(sqe, view, 0)?;
    let namespace = view.namespace(sqe.nsid.get()).expect("the plan found it");
    //= NVMe-NVM 1.1 §2.1.4
    //# a compare and write that exceeds ACWU is aborted with Atomic Write Unit Exceeded
    if plan.blocks > u64::from(blocks_max(namespace)) {
        return Err(NvmeStatus::never(StatusCode::ATOMIC_WRITE_UNIT_EXCEEDED));
    }
    Ok(plan)
}

const FIRST_HALF: (u8, u8) = (fuse::FIRST, opcode::nvm::COMPARE);
const SECOND_HALF: (u8, u8) = (fuse::SECOND, opcode::nvm::WRITE);

impl Command {
    /// Bytes that its buffer has at least, for `len` bytes of data: the first of a pair has room
    /// for both.
    pub(crate) fn room(sqe: &Sqe, len: u32) -> usize {
        let halves = if sqe.fuse() == fuse::FIRST { 2 } else { 1 };
        len as usize * halves
    }

    /// Whether it is a half of a pair, or what is left of one.
    pub(crate) fn is_half(&self) -> bool {
        self.fuse != Fuse::No || self.doom.is_some()
    }

    fn has_its_data(&self) -> bool {
        self.phase == Phase::Half && self.doom.is_none()
    }
}

impl Connection {
    /// Where the data of a capsule goes; `None` when there is no buffer. A second lands beside the
    /// data of its first.
    pub(crate) fn capsule_room(
        &mut self,
        cx: Cx<'_>,
        sqe: &Sqe,
        data_len: u32,
        len: u32,
    ) -> Option<Room> {
        if sqe.fuse() == fuse::SECOND
            && let Some(first) = self.lone_first(sqe.nsid.get())
            && let Some(room) = self.inherit(first, data_len)
        {
            return Some(room);
        }
        let room = Command::room(sqe, len).min(IN_CAPSULE_MAX as usize).max(len as usize);
        match self.take_buffer(cx, room) {
            Some(buf) => Some(Room { held: buf.capacity(), buf, reserved: false, base: 0 }),
            None => {
                let buf = self.reserve.take()?;
                Some(Room { buf, held: 0, reserved: true, base: 0 })
            }
        }
    }

    /// The buffer of a first that has its data, for a second of `len` bytes.
    pub(crate) fn inherit(&mut self, first: u32, len: u32) -> Option<Room> {
        let command = self.commands.get_mut(first)?;
        if !command.has_its_data() || command.plan.transfer != Transfer::FromHost(len) {
            return None;
        }
        let Segment::Filling(buf) = std::mem::take(&mut command.segment) else { return None };
        let held = std::mem::take(&mut command.held);
        let reserved = std::mem::take(&mut command.reserved);
        Some(Room { buf, held, reserved, base: len })
    }

    /// An I/O command has arrived: finds its other half, or gives up the one that waited for
    /// something else. A command that is `refused` is answered by whoever finishes it.
    //= NVMe-Base 2.1 §3.4.2
    //# the two commands of a fused operation are next to each other in one queue, else the
    //# controller aborts with Command Aborted due to Missing Fused Command
    pub(crate) fn arrange(&mut self, cx: Cx<'_>, key: u32, refused: Option<NvmeStatus>) {
        let command = self.commands.get(key).expect("it was just taken in");
        let (nsid, which) = (command.sqe.nsid.get(), command.sqe.fuse());
        let waiting = self.lone_first(nsid);
        match (which, waiting) {
            (fuse::SECOND, Some(first)) => {
                self.lone -= 1;
                let halves = self.commands.get_mut(first).expect("just found");
                let Fuse::First { second, .. } = &mut halves.fuse else {
                    unreachable!("a lone first is a first")
                };
                *second = Some(key);
                self.half(key).fuse = Fuse::Second { first };
            }
            (_, Some(first)) => self.give_up_half(first),
            _ => (),
        }
        match which {
            fuse::FIRST => {
                self.lone += 1;
                self.half(key).fuse = Fuse::First { second: None, since: cx.now };
            }
            fuse::SECOND if waiting.is_none() => self.half(key).doom = Some(MISSING),
            _ => (),
        }
        if let Some(status) = refused {
            self.half(key).doom = Some(status);
        }
    }

    /// A half has all its data, or will get none.
    pub(crate) fn settle_half(&mut self, key: u32) {
        let half = self.half(key);
        half.phase = Phase::Half;
        let (first, second) = match half.fuse {
            Fuse::No => {
                let doom = half.doom.expect("what is no half any more was given up");
                return self.answer(key, doom);
            }
            Fuse::First { second: None, .. } => return,
            Fuse::First { second: Some(second), .. } => (key, second),
            Fuse::Second { first } => (first, key),
        };
        let settled = |key: u32| self.commands.get(key).is_some_and(|c| c.phase == Phase::Half);
        if settled(first) && settled(second) {
            self.fuse_halves(first, second);
        }
    }

    /// Both halves are there: makes them one request, or answers both.
    fn fuse_halves(&mut self, first: u32, second: u32) {
        let compare = self.half(first);
        let (place, doom) = ((compare.sqe.slba(), compare.plan.blocks), compare.doom);
        let write = self.half(second);
        let mut dooms = (doom, write.doom);
        //= NVMe-NVM 1.1 §2.1.3
        //# when the ranges of the two differ both are aborted with Invalid Field in Command
        if dooms == (None, None) && place != (write.sqe.slba(), write.plan.blocks) {
            let invalid = Some(NvmeStatus::never(StatusCode::INVALID_FIELD));
            dooms = (invalid, invalid);
        }
        if dooms == (None, None) {
            self.join_data(first, second);
            let write = self.half(second);
            (write.plan.op, write.phase) = (Op::CompareAndWrite, Phase::Ready);
            self.ready.push(second).expect("one entry per command");
            return;
        }
        //= NVMe-Base 2.1 §3.4.2
        //# when one of the two is aborted the other is, with Command Aborted due to Failed Fused
        //# Command
        let failed = NvmeStatus::again(StatusCode::ABORTED_FAILED_FUSED);
        self.answer(first, dooms.0.unwrap_or(failed));
        self.answer(second, dooms.1.unwrap_or(failed));
    }

    /// Puts the data of both into one buffer, which the second has from here on.
    fn join_data(&mut self, first: u32, second: u32) {
        let write = self.half(second);
        let Transfer::FromHost(len) = write.plan.transfer else { unreachable!("a Write has data") };
        if write.base > 0 {
            return; // It landed there.
        }
        let Segment::Filling(own) = std::mem::take(&mut write.segment) else {
            unreachable!("a settled half has its buffer")
        };
        let (held, reserved) = (write.held, write.reserved);
        let mut room =
            self.inherit(first, len).expect("the first has its data, of the same length");
        let (start, end) = (len as usize, 2 * len as usize);
        room.buf.bytes_mut()[start..end].copy_from_slice(&own.bytes()[..len as usize]);
        self.held -= held;
        if reserved {
            self.reserve = Some(own);
        }
        let write = self.half(second);
        (write.held, write.reserved, write.base) = (room.held, room.reserved, room.base);
        write.segment = Segment::Filling(room.buf);
    }

    /// Aborts a half as soon as its data is not on its way; its pair fails with it. What is one
    /// request already runs to its end.
    pub(crate) fn abort_half(&mut self, key: u32) {
        let half = self.half(key);
        half.doom.get_or_insert(NvmeStatus::again(StatusCode::ABORT_REQUESTED));
        match (half.lone_since(), half.phase) {
            (Some(_), _) => self.give_up_half(key),
            (None, Phase::Half) => self.settle_half(key),
            _ => (),
        }
    }

    /// The request of a pair has come back.
    pub(crate) fn finish_pair(&mut self, first: u32, second: u32, status: Status) {
        let (compare, write) = fused_status(status);
        self.answer(first, compare);
        self.answer(second, write);
    }

    /// When the first that waits longest has waited long enough.
    pub(crate) fn halves_expire(&self) -> Option<Instant> {
        if self.lone == 0 {
            return None;
        }
        let lone = self.commands.iter().filter_map(|(_, command)| command.lone_since());
        lone.min().map(|since| crate::connection::later(since, FUSED_WAIT_MS))
    }

    /// Gives up the firsts whose second did not come in time.
    pub(crate) fn expire_halves(&mut self, now: Instant) {
        while self.halves_expire().is_some_and(|at| at <= now) {
            let oldest = self.commands.iter().filter_map(|(key, c)| Some((c.lone_since()?, key)));
            let (_, key) = oldest.min().expect("one has expired");
            self.give_up_half(key);
        }
    }

    /// The first half of this namespace that has no second yet.
    fn lone_first(&self, nsid: u32) -> Option<u32> {
        if self.lone == 0 {
            return None;
        }
        let is =
            |command: &Command| command.lone_since().is_some() && command.sqe.nsid.get() == nsid;
        self.commands.iter().find(|(_, command)| is(command)).map(|(key, _)| key)
    }

    /// Nothing can become of a first: it is aborted, as soon as its data is not on its way.
    fn give_up_half(&mut self, first: u32) {
        self.lone -= 1;
        let half = self.half(first);
        half.fuse = Fuse::No;
        half.doom.get_or_insert(MISSING);
        if half.phase == Phase::Half {
            self.settle_half(first);
        }
    }

    /// Whether it is settled how a command ends, although its data may still be on its way.
    pub(crate) fn is_doomed(&self, key: u32) -> bool {
        self.commands.get(key).is_some_and(|command| command.doom.is_some())
    }

    fn half(&mut self, key: u32) -> &mut Command {
        self.commands.get_mut(key).expect("halves exist until they are answered")
    }
}

impl Command {
    /// Since when it has waited for its second, if it is a first without one.
    fn lone_since(&self) -> Option<Instant> {
        match self.fuse {
            Fuse::First { second: None, since } => Some(since),
            _ => None,
        }
    }
}

/// The other half is not there. The pair, sent again, may well succeed.
const MISSING: NvmeStatus = NvmeStatus::again(StatusCode::ABORTED_MISSING_FUSED);
