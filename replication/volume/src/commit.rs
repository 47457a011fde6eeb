//! From the log to the overlay: what happens when records become durable.

use bdev::Status;
use wal::{Group, Record};

use crate::control::{Control, Verb};
use crate::core::Core;
use crate::details::BODY_BYTES;
use crate::journal::{Entry, Kind};
use crate::overlay::{Place, Version, ZeroRange};
use crate::write::EXTENT_BLOCKS;

/// A record that was appended and is not yet durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// The operation that waits for it; [`NO_OP`] for control records.
    pub(crate) op: u32,
    pub(crate) volume: u32,
    /// The blocks it is about; all, for control records.
    pub(crate) block: u64,
    pub(crate) blocks: u64,
    pub(crate) what: What,
}

/// What the record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// With a bit for each block that set an extent aside.
    Write {
        reserve: u64,
    },
    Direct {
        extent: u64,
    },
    Zero,
    ZeroRange,
    /// Create, clone, delete or resize; the details wait in `Core::controls`.
    Control,
    /// A snapshot or a restore; likewise.
    Barrier,
}

impl What {
    /// True for zeroed blocks and ranges.
    fn is_zero(self) -> bool {
        matches!(self, What::Zero | What::ZeroRange)
    }

    /// True when it may unmap or share an extent, or undo what was set aside for one.
    pub(crate) fn is_doubt(self) -> bool {
        matches!(self, What::Zero | What::ZeroRange | What::Direct { .. } | What::Barrier)
    }
}

/// No operation waits.
pub(crate) const NO_OP: u32 = u32::MAX;

impl Core {
    /// Remembers an appended record, and pledges the room that it will take.
    pub(crate) fn pend(&mut self, pending: Pending, crcs: &[u32]) {
        match pending.what {
            What::ZeroRange => self.pledged_ranges += 1,
            What::Control | What::Barrier => {}
            _ => self.pledged_blocks += slots_of(&pending),
        }
        self.pending_doubts += u32::from(pending.what.is_doubt());
        self.pending_zeroes += u64::from(pending.what.is_zero());
        for &crc in crcs {
            let pushed = self.crcs.push(crc);
            assert!(pushed.is_ok(), "room was checked");
        }
        let pushed = self.pending.push(pending);
        assert!(pushed.is_ok(), "room was checked");
    }

    /// What the log has to say.
    pub(crate) fn drive_log(&mut self) -> bool {
        let mut progress = false;
        while let Some(event) = self.wal.poll_event() {
            progress = true;
            match event {
                wal::Event::Durable(group) => self.on_durable(&group),
                wal::Event::Failed(status) => self.on_log_failed(status),
            }
        }
        progress
    }

    fn on_durable(&mut self, group: &Group) {
        let (mut lsn, mut position) = (group.first.0, group.payload);
        for _ in 0..group.records {
            let pending = self.pending.pop().expect("every record was pending");
            match pending.what {
                What::Control => self.on_control_durable(),
                What::Barrier => {
                    self.pending_doubts -= 1;
                    self.on_barrier_durable(lsn);
                }
                _ => self.enter_pending(&pending, lsn, &mut position),
            }
            lsn += 1;
            if pending.op != NO_OP {
                let op = self.ops.get_mut(pending.op).expect("an operation waits for its records");
                op.pending -= 1;
                self.settle(pending.op);
            }
        }
        self.marks.push(group.end);
    }

    /// Enters a durable record into the overlay and the journal.
    fn enter_pending(&mut self, pending: &Pending, lsn: u64, position: &mut u64) {
        let Pending { volume, block, blocks, what, .. } = *pending;
        if what == What::ZeroRange {
            self.pledged_ranges -= 1;
        } else {
            self.pledged_blocks -= slots_of(pending);
        }
        self.pending_doubts -= u32::from(what.is_doubt());
        self.pending_zeroes -= u64::from(what.is_zero());
        let layer = self.layers.newest(volume);
        let kind = match what {
            What::Write { reserve } => {
                for index in 0..blocks {
                    let reserved = reserve >> index & 1 == 1;
                    let place = Place::Log(*position + index);
                    let crc = self.crcs.pop().expect("one for each block");
                    self.enter(layer, block + index, Version { lsn, place, crc, reserved });
                }
                *position += blocks;
                Kind::Write { position: *position - blocks }
            }
            What::Direct { extent } => {
                for index in 0..blocks {
                    let place = Place::Device(extent * EXTENT_BLOCKS + index);
                    let crc = self.crcs.pop().expect("one for each block");
                    let version = Version { lsn, place, crc, reserved: false };
                    self.enter(layer, block + index, version);
                }
                Kind::Direct { extent, owned: true }
            }
            What::Zero => {
                for index in 0..blocks {
                    let version = Version { lsn, place: Place::Zero, crc: 0, reserved: false };
                    self.enter(layer, block + index, version);
                }
                Kind::Zero
            }
            What::ZeroRange => {
                let range = ZeroRange { lsn, layer, start: block, end: block + blocks };
                self.overlay.push_range(range);
                Kind::ZeroRange
            }
            What::Control | What::Barrier => panic!("they do not enter the overlay"),
        };
        self.journal.push(Entry { lsn, volume, layer, block, blocks, kind });
    }

    /// Enters one block; the extent set aside for it passes from the old version to the new.
    fn enter(&mut self, layer: u32, block: u64, mut version: Version) {
        let old = self.overlay.find_block(layer, block);
        let had = old.is_some_and(|old| old.reserved);
        let in_log = matches!(version.place, Place::Log(_));
        // Two extents set aside for one block are one too many.
        self.reserved -= u64::from(had && version.reserved);
        version.reserved |= had && in_log;
        self.overlay.insert(layer, block, &version);
        if had && !in_log {
            self.unreserve(layer, block);
        }
    }

    /// The log is gone: nothing that waits for it will come.
    fn on_log_failed(&mut self, status: Status) {
        self.fail("writing the log", status);
        self.crcs.clear();
        while let Some(pending) = self.pending.pop() {
            match pending.what {
                What::Direct { extent } => self.store.abandon(self.extent(extent)),
                What::Write { reserve } => self.reserved -= u64::from(reserve.count_ones()),
                What::Control => self.on_control_failed(status),
                What::Barrier => {
                    // One answer for all the records of a group.
                    if self.controls.pop_barrier().1 {
                        self.on_control_failed(status);
                    }
                }
                What::Zero | What::ZeroRange => {}
            }
            if pending.op != NO_OP {
                let op = self.ops.get_mut(pending.op).expect("an operation waits for its records");
                op.pending -= 1;
                op.fail(Status::Io);
                self.settle(pending.op);
            }
        }
        (self.pledged_blocks, self.pledged_ranges) = (0, 0);
        (self.pending_doubts, self.pending_zeroes) = (0, 0);
    }

    /// Appends the records of a control operation; false when the log has no room now.
    pub(crate) fn log_control(&mut self, control: &Control) -> bool {
        if control.verb == Verb::Snapshot {
            return self.log_snapshots(control);
        }
        if !self.has_room(0, 0, 0) {
            return false;
        }
        let (volume, body) = (control.id.0, control.details.body());
        let (record, what) = match control.verb {
            Verb::Create => (Record::Create { volume, body: &body }, What::Control),
            Verb::Clone { snapshot } => {
                (Record::Clone { volume, snapshot, body: &body }, What::Control)
            }
            Verb::Delete => (Record::Delete { volume }, What::Control),
            Verb::Resize { .. } => {
                (Record::Resize { volume, bytes: control.details.size }, What::Control)
            }
            Verb::Restore { snapshot, former } => {
                (Record::Restore { volume, snapshot, former }, What::Barrier)
            }
            Verb::Snapshot => panic!("logged above"),
        };
        if self.wal.append(&record, &[]).is_err() {
            return false;
        }
        self.pend(Pending { op: NO_OP, volume, block: 0, blocks: u64::MAX, what }, &[]);
        true
    }

    /// Appends the records of a group of snapshots, side by side in one write of the log: a crash
    /// keeps all of them or none.
    fn log_snapshots(&mut self, control: &Control) -> bool {
        let count = control.count;
        if self.pending.room() < count || self.journal.room() < self.pending.len() + count {
            return false;
        }
        let body = [0; BODY_BYTES];
        let entry_len = Record::Snapshot { volume: 0, snapshot: 0, body: &body }.entry_len();
        if self.wal.keep_together(count * entry_len, 0).is_err() {
            return false;
        }
        for (member, snapshot) in (0..count).zip(control.id.0..) {
            let (volume, details) = self.controls.member(member);
            let record = Record::Snapshot { volume, snapshot, body: &details.body() };
            let appended = self.wal.append(&record, &[]);
            assert!(appended.is_ok(), "room was made for all");
            let what = What::Barrier;
            self.pend(Pending { op: NO_OP, volume, block: 0, blocks: u64::MAX, what }, &[]);
        }
        true
    }
}

fn slots_of(pending: &Pending) -> usize {
    usize::try_from(pending.blocks).expect("a record's blocks are few")
}
