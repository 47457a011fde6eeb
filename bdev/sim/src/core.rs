//! The disk behind the queues: decides when and how each request ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bdev::{Data, Flags, Info, Instant, Lba, Op, Request, Status};

use crate::disk::{Fault, FaultKind, Stats};
use crate::image::Image;
use crate::limits::FAULTS_KEPT_MAX;
use crate::medium::{Change, CrashPoint, CutRules, Medium};
use crate::plan::{FaultPlan, Streams};

/// When a request ends, a seeded tie-break, and its id.
pub(crate) type Due = (Instant, u64, u64);

pub(crate) struct Core {
    pub(crate) info: Info,
    pub(crate) plan: FaultPlan,
    pub(crate) now: Instant,
    pub(crate) stalled_until: Instant,
    /// The power is off: nothing arrives, nothing completes.
    pub(crate) off: bool,
    /// Counts power cuts: queues of an earlier life are dead.
    pub(crate) life: u64,
    pub(crate) medium: Medium,
    pub(crate) boundaries: u64,
    pub(crate) recorded: Option<Vec<CrashPoint>>,
    pub(crate) failing: Vec<(RangeInclusive<u64>, Op)>,
    pub(crate) fail_next: VecDeque<(Op, Status)>,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) stats: Stats,
    pub(crate) hash: u64,
    streams: Streams,
    due: BTreeSet<Due>,
    planned: BTreeMap<u64, Planned>,
    ids: u64,
}

struct Planned {
    outcome: Outcome,
    flush_mark: u64,
}

#[derive(Clone, Copy)]
enum Outcome {
    Serve,
    Fail(Status),
    Tear,
    Lose,
    Misdirect(Lba),
    FailFlush,
}

impl Core {
    pub(crate) fn new(info: Info, image: Image, plan: FaultPlan) -> Core {
        Core {
            info,
            now: Instant::ZERO,
            stalled_until: Instant::ZERO,
            off: false,
            life: 0,
            medium: Medium::new(image, &plan),
            boundaries: 0,
            recorded: None,
            failing: Vec::new(),
            fail_next: VecDeque::new(),
            faults: VecDeque::new(),
            stats: Stats::default(),
            hash: 0xcbf2_9ce4_8422_2325,
            streams: Streams::new(plan.seed),
            due: BTreeSet::new(),
            planned: BTreeMap::new(),
            ids: 0,
            plan,
        }
    }

    /// A request reaches the disk. `None` when the power is off, or fails right now.
    pub(crate) fn arrive(&mut self, request: &Request) -> Option<Due> {
        if self.off {
            return None;
        }
        let malformed = self.info.check(request).err();
        if malformed.is_none() && request.op != Op::Read && request.op != Op::Compare {
            self.pass_boundary();
            if self.off {
                return None;
            }
        }
        self.ids += 1;
        let id = self.ids;
        let outcome = match malformed {
            Some(status) => Outcome::Fail(status),
            None => self.decide(request),
        };
        if malformed.is_none()
            && let Some(change) = self.change(request)
        {
            self.medium.arrive(id, change);
        }
        let flush_mark = self.medium.flush_mark();
        self.planned.insert(id, Planned { outcome, flush_mark });
        let due = (self.when(request.op), self.streams.order.next_u64(), id);
        self.due.insert(due);
        self.note([1, request.op as u64, request.lba.0, u64::from(request.blocks)]);
        self.note([due.0.as_ns(), id, 0, 0]);
        Some(due)
    }

    /// The request ends: what happens to the medium happens here.
    pub(crate) fn finish(&mut self, due: Due, request: &mut Request) -> Status {
        let id = due.2;
        self.due.remove(&due);
        let planned = self.planned.remove(&id).expect("planned when it arrived");
        let mut status = match planned.outcome {
            Outcome::Fail(status) => status,
            Outcome::Tear | Outcome::FailFlush => Status::Io,
            Outcome::Serve | Outcome::Lose | Outcome::Misdirect(_) => Status::Ok,
        };
        let fua = request.flags.contains(Flags::FUA);
        match (request.op, planned.outcome) {
            (Op::Flush, Outcome::Serve) => self.medium.flush(planned.flush_mark),
            (Op::Flush, Outcome::FailFlush) => {
                let rules = CutRules::of(&self.plan);
                self.medium.fail_flush(rules, &mut self.streams.crash);
            }
            (Op::Read | Op::Compare, Outcome::Serve) => status = self.read(request),
            (_, Outcome::Serve) => match self.has_space(id) {
                true => self.medium.complete(id, fua),
                false => status = self.refuse_space(id, request),
            },
            (_, Outcome::Tear) => {
                let sector = self.plan.sector_bytes;
                self.medium.complete_torn(id, sector, &mut self.streams.error);
            }
            (_, Outcome::Misdirect(to)) => {
                self.medium.complete_at(id, to.byte_offset(self.info.block_size));
            }
            (_, Outcome::Lose | Outcome::Fail(_) | Outcome::FailFlush) => self.medium.lose(id),
        }
        self.stats.completed += 1;
        self.note([2, id, status as u64, self.now.as_ns()]);
        status
    }

    /// The queue of these requests is dropped while the power stays on: each write in flight
    /// happens or does not.
    pub(crate) fn abandon(&mut self, dues: impl Iterator<Item = Due>) {
        for due in dues {
            self.due.remove(&due);
            self.planned.remove(&due.2);
            match self.streams.kill.chance(1, 2) {
                true => self.medium.complete(due.2, false),
                false => self.medium.lose(due.2),
            }
        }
    }

    /// The power fails: keeps what survives, and returns it.
    pub(crate) fn crash(&mut self) -> Image {
        let rules = CutRules::of(&self.plan);
        let image = self.medium.after_cut(rules, &mut self.streams.crash);
        self.medium = Medium::new(image.clone(), &self.plan);
        self.off = true;
        self.life += 1;
        self.due.clear();
        self.planned.clear();
        self.note([3, self.life, self.boundaries, self.now.as_ns()]);
        image
    }

    pub(crate) fn crash_point(&self) -> CrashPoint {
        CrashPoint {
            boundary: self.boundaries,
            medium: self.medium.clone(),
            rules: CutRules::of(&self.plan),
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        match self.off {
            true => None,
            false => self.due.first().map(|due| due.0.max(self.stalled_until)),
        }
    }

    pub(crate) fn is_due(&self, due: &Due) -> bool {
        !self.off && due.0.max(self.stalled_until) <= self.now
    }

    pub(crate) fn rot(&mut self, offset: u64, mask: u8) {
        self.medium.flip(offset, mask);
        let lba = Lba(offset / u64::from(self.info.block_size));
        self.remember(FaultKind::Rot, lba, 1);
    }

    pub(crate) fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        self.medium.overwrite(offset, bytes);
        let block_size = u64::from(self.info.block_size);
        let blocks = (bytes.len() as u64).div_ceil(block_size);
        let blocks = u32::try_from(blocks).expect("at most the largest request");
        self.remember(FaultKind::MisdirectedWrite, Lba(offset / block_size), blocks);
    }

    fn pass_boundary(&mut self) {
        if let Some(mut recorded) = self.recorded.take() {
            recorded.push(self.crash_point());
            self.recorded = Some(recorded);
        }
        if self.plan.crash_at_write == Some(self.boundaries) {
            self.off = true;
            return;
        }
        self.boundaries += 1;
    }

    /// Draws the fate of a well-formed request. Every stream is drawn for every request that it
    /// concerns, so that one fault does not shift the others.
    fn decide(&mut self, request: &Request) -> Outcome {
        let (plan, streams) = (&self.plan, &mut self.streams);
        let (lba, blocks) = (request.lba, request.blocks);
        let forced = self.fail_next.iter().position(|next| next.0 == request.op);
        let forced = forced.and_then(|at| self.fail_next.remove(at)).map(|next| next.1);
        let last = lba.0.saturating_add(u64::from(blocks.max(1)) - 1);
        let broken = self.failing.iter().any(|(range, op)| {
            *op == request.op
                && (*op == Op::Flush || (*range.start() <= last && lba.0 <= *range.end()))
        });
        let (kind, outcome) = match request.op {
            Op::Read | Op::Compare => {
                let (fails, rots) = (
                    plan.read_error.happens(&mut streams.error),
                    plan.rot.happens(&mut streams.rot),
                );
                if rots && lba.byte_offset(self.info.block_size) >= self.plan.rot_from {
                    self.rot_inside(lba, blocks);
                }
                match forced.or((fails || broken).then_some(Status::Io)) {
                    Some(status) => (FaultKind::ReadError, Outcome::Fail(status)),
                    None => return Outcome::Serve,
                }
            }
            Op::Flush => match plan.flush_error.happens(&mut streams.error) {
                failed if failed || broken || forced.is_some() => {
                    (FaultKind::FlushError, Outcome::FailFlush)
                }
                _ => return Outcome::Serve,
            },
            Op::Reserve => return Outcome::Serve,
            Op::Write | Op::Deallocate | Op::WriteZeroes | Op::CompareAndWrite => {
                let fails = plan.write_error.happens(&mut streams.error);
                let full = plan.no_space.happens(&mut streams.space);
                let lost = plan.lost_write.happens(&mut streams.lost);
                let astray = plan.misdirected_write.happens(&mut streams.misdirect);
                let elsewhere = streams.misdirect.below(self.info.blocks.0 - u64::from(blocks) + 1);
                match forced {
                    Some(Status::Io) => (FaultKind::WriteError, Outcome::Tear),
                    Some(status) => (FaultKind::WriteError, Outcome::Fail(status)),
                    None if fails || broken => (FaultKind::WriteError, Outcome::Tear),
                    None if full => (FaultKind::NoSpace, Outcome::Fail(Status::NoSpace)),
                    None if lost => (FaultKind::LostWrite, Outcome::Lose),
                    None if astray => {
                        (FaultKind::MisdirectedWrite, Outcome::Misdirect(Lba(elsewhere)))
                    }
                    None => return Outcome::Serve,
                }
            }
        };
        self.remember(kind, lba, blocks);
        if let Outcome::Misdirect(to) = outcome {
            self.remember(FaultKind::MisdirectedWrite, to, blocks);
        }
        outcome
    }

    fn rot_inside(&mut self, lba: Lba, blocks: u32) {
        let block_size = u64::from(self.info.block_size);
        let inside = self.streams.rot.below(u64::from(blocks) * block_size);
        let mask = 1 << self.streams.rot.below(8);
        self.rot(lba.0 * block_size + inside, mask);
    }

    fn change(&self, request: &Request) -> Option<Change> {
        let offset = request.lba.byte_offset(self.info.block_size);
        let len = u64::from(request.blocks) * u64::from(self.info.block_size);
        match (request.op, &request.data) {
            (Op::Write, Data::From(buf)) => {
                let len = usize::try_from(len).expect("at most the largest request");
                Some(Change::Bytes { offset, bytes: Arc::from(&buf.bytes()[..len]) })
            }
            (Op::Deallocate | Op::WriteZeroes, _) => Some(Change::Zero { offset, len }),
            _ => None,
        }
    }

    fn when(&mut self, op: Op) -> Instant {
        let (plan, streams) = (&self.plan, &mut self.streams);
        let range = match op {
            Op::Read | Op::Compare => &plan.read_ns,
            Op::Write | Op::Deallocate | Op::WriteZeroes | Op::CompareAndWrite => &plan.write_ns,
            Op::Flush | Op::Reserve => &plan.flush_ns,
        };
        let mut ns = streams.latency.between(*range.start(), *range.end());
        let more = streams.stall.between(*plan.stall_ns.start(), *plan.stall_ns.end());
        if plan.stall.happens(&mut streams.stall) {
            ns += more;
            self.stats.stalls += 1;
        }
        self.now.saturating_add(Duration::from_nanos(ns))
    }

    fn read(&mut self, request: &mut Request) -> Status {
        let offset = request.lba.byte_offset(self.info.block_size);
        let len = request.blocks as usize * self.info.block_size as usize;
        match &mut request.data {
            Data::Into(buf) => self.medium.current().read(offset, &mut buf.bytes_mut()[..len]),
            Data::From(buf) => {
                let mut here = vec![0; len];
                self.medium.current().read(offset, &mut here);
                if here != buf.bytes()[..len] {
                    return Status::Miscompare;
                }
            }
            Data::None => {}
        }
        Status::Ok
    }

    fn has_space(&self, id: u64) -> bool {
        self.plan.space_bytes_max.is_none_or(|most| {
            let growth = self.medium.growth(id);
            growth == 0 || self.medium.current().allocated_bytes() + growth <= most
        })
    }

    fn refuse_space(&mut self, id: u64, request: &Request) -> Status {
        self.medium.lose(id);
        self.remember(FaultKind::NoSpace, request.lba, request.blocks);
        Status::NoSpace
    }

    fn remember(&mut self, kind: FaultKind, lba: Lba, blocks: u32) {
        self.stats.faults += 1;
        if self.faults.len() == FAULTS_KEPT_MAX {
            self.faults.pop_front();
        }
        self.faults.push_back(Fault { kind, lba, blocks });
        self.note([4, kind as u64, lba.0, u64::from(blocks)]);
    }

    fn note(&mut self, words: [u64; 4]) {
        for word in words {
            self.hash = (self.hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(23);
        }
    }
}
