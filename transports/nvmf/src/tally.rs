//! What a controller remembers of its commands: those that failed, one by one, and how much was
//! read and written. For the error log (01h) and SMART (02h).
//!
//! Commands end on the connections of the controller's queues, maybe on several shards, and the log
//! pages are read on one of them. A failure is noted under a mutex of its controller alone; what
//! succeeds is counted by its connection and handed over now and then.

use bdev::{Instant, Op};
use nvme_spec::{ErrorEntry, NvmeStatus, U16, U32, U64, csi};
use zerocopy::FromZeros;

use crate::command::{Command, Work};
use crate::connection::Connection;
use crate::limits::{ERRORS_KEPT, NS_PER_MS};
use crate::registry::Standing;

/// The commands that failed last.
#[derive(Debug)]
pub(crate) struct ErrorLog {
    /// ERRCNT of the last one; they count from one.
    count: u64,
    /// Each at its count modulo their number.
    last: [Failure; ERRORS_KEPT],
}

/// A command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) sqid: u16,
    pub(crate) cid: u16,
    pub(crate) status: NvmeStatus,
    pub(crate) lba: u64,
    pub(crate) nsid: u32,
    pub(crate) opcode: u8,
}

const NOTHING: Failure =
    Failure { sqid: 0, cid: 0, status: NvmeStatus::SUCCESS, lba: 0, nsid: 0, opcode: 0 };

/// PERRLOC: nowhere in particular.
const NOWHERE: u16 = 0xffff;

/// LPVER: OPC and CSI are there.
const VERSION: u8 = 1;

impl Default for ErrorLog {
    fn default() -> ErrorLog {
        ErrorLog { count: 0, last: [NOTHING; ERRORS_KEPT] }
    }
}

impl ErrorLog {
    pub(crate) fn note(&mut self, failure: Failure) {
        self.count += 1;
        self.last[place(self.count)] = failure;
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The entries of the log page, the latest first; unused ones are zero.
    //= NVMe-Base 2.1 §5.1.12.1.2
    //# the entry of the latest error is the first; ERRCNT 0 is no entry
    pub(crate) fn entries(&self) -> impl Iterator<Item = ErrorEntry> {
        let counts = (0..ERRORS_KEPT as u64).map(|age| self.count.saturating_sub(age));
        counts.map(|count| {
            let mut entry = ErrorEntry::new_zeroed();
            if count > 0 {
                fill(&mut entry, count, &self.last[place(count)]);
            }
            entry
        })
    }
}

fn place(count: u64) -> usize {
    usize::try_from(count % ERRORS_KEPT as u64).expect("a few")
}

fn fill(entry: &mut ErrorEntry, count: u64, failure: &Failure) {
    entry.errcnt = U64::new(count);
    entry.sqid = U16::new(failure.sqid);
    entry.cid = U16::new(failure.cid);
    entry.stat = U16::new(failure.status.to_field() | NvmeStatus::MORE);
    entry.perrloc = U16::new(NOWHERE);
    entry.lba = U64::new(failure.lba);
    entry.nsid = U32::new(failure.nsid);
    entry.csi = csi::NVM;
    entry.opc = failure.opcode;
    let [.., version] = &mut entry.reserved42;
    *version = VERSION;
}

/// What was read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl Traffic {
    /// Counts a command that succeeded.
    //= NVMe-Base 2.1 §5.1.12.1.3
    //# reads, compares, verifies and sources of copies count as read; writes and the destinations
    //# of copies as written; zeroes move nothing
    fn count(&mut self, command: &Command) {
        let plan = &command.plan;
        let bytes = plan.blocks * u64::from(plan.block_size);
        match (plan.work, plan.op) {
            (Work::Copy, _) => {
                self.writes += 1;
                self.read_bytes += bytes;
                self.written_bytes += bytes;
            }
            (Work::Verify, _) | (Work::Once, Op::Read | Op::Compare) => {
                self.reads += 1;
                self.read_bytes += bytes;
            }
            (Work::Once, Op::Write | Op::CompareAndWrite) => {
                self.writes += 1;
                self.written_bytes += bytes;
            }
            (Work::Once, Op::WriteZeroes) | (Work::ZeroAll, _) => self.writes += 1,
            (Work::Once, Op::Flush | Op::Deallocate | Op::Reserve)
            | (Work::Ranges | Work::Reserve, _) => (),
        }
    }

    pub(crate) fn add(&mut self, other: &Traffic) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// What a connection has counted and not handed over.
#[derive(Debug, Default)]
pub(crate) struct Uncounted {
    traffic: Traffic,
    since: Option<Instant>,
}

/// How old a count may be before it is handed over: an I/O costs a few additions, not a shared
/// cache line.
const HAND_OVER_NS: u64 = 10 * NS_PER_MS;

impl Connection {
    /// Takes note of how a command ended; true when the error log has an entry for it.
    pub(crate) fn note_end(&mut self, key: u32, status: NvmeStatus) -> bool {
        // Who only says that it is this host writes nothing into its log.
        let known = self.auth.standing != Standing::Pending;
        let queue = self.queue.as_ref().filter(|queue| queue.subsystem.is_some() && known);
        let Some(queue) = queue else { return false };
        let command = self.commands.get(key).expect("answered commands exist");
        if status.is_success() {
            if queue.hold.qid != 0 {
                self.uncounted.traffic.count(command);
            }
            return false;
        }
        let failure = Failure {
            sqid: queue.hold.qid,
            cid: command.sqe.cid.get(),
            status,
            lba: lba_of(queue.hold.qid, command),
            nsid: command.sqe.nsid.get(),
            opcode: command.sqe.opcode,
        };
        self.target.registry().note_failure(queue.hold, failure);
        true
    }

    /// Hands over what was counted, when it is old enough.
    pub(crate) fn hand_over(&mut self, now: Instant) {
        if self.uncounted.traffic == Traffic::default() {
            return;
        }
        let since = *self.uncounted.since.get_or_insert(now);
        if now.as_ns() >= since.as_ns().saturating_add(HAND_OVER_NS) {
            self.hand_over_all();
        }
    }

    /// Hands over what was counted.
    pub(crate) fn hand_over_all(&mut self) {
        if let Some(queue) = &self.queue {
            self.target.registry().add_traffic(queue.hold, &self.uncounted.traffic);
        }
        self.uncounted = Uncounted::default();
    }
}

/// The first block that a failed command did not do; zero for a command without a range.
fn lba_of(queue: u16, command: &Command) -> u64 {
    use nvme_spec::opcode::nvm;
    let sqe = &command.sqe;
    if queue == 0 || matches!(sqe.opcode, nvm::FLUSH | nvm::DATASET_MANAGEMENT) {
        return 0;
    }
    match command.plan.work {
        Work::ZeroAll => command.steps.done,
        // One that was refused at once has done nothing: its entry is all there is to tell.
        _ => sqe.slba().saturating_add(command.steps.done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvme_spec::StatusCode;

    fn failure(cid: u16) -> Failure {
        let status = NvmeStatus::never(StatusCode::LBA_OUT_OF_RANGE);
        Failure { sqid: 3, cid, status, lba: 77, nsid: 1, opcode: 2 }
    }

    #[test]
    fn latest_error_is_first_and_the_oldest_is_forgotten() {
        let mut log = ErrorLog::default();
        assert!(log.entries().all(|entry| entry.errcnt.get() == 0));
        for cid in 1..=u16::try_from(ERRORS_KEPT).unwrap() + 2 {
            log.note(failure(cid));
        }
        let counts: Vec<u64> = log.entries().map(|entry| entry.errcnt.get()).collect();
        let newest = ERRORS_KEPT as u64 + 2;
        assert_eq!(counts, (3..=newest).rev().collect::<Vec<_>>());
        let first = log.entries().next().unwrap();
        assert_eq!((first.cid.get(), first.sqid.get(), first.lba.get()), (34, 3, 77));
        assert_eq!(first.stat.get(), 0x8000 | 0x4000 | 0x80 << 1);
    }
}
