//! One extent of a destage window: its leaf edited, its blocks on their way.

use bdev::{Buf, Buffers, Flags, Status};
use store::{Edit, Extent, LeafEntry, Lookup, VolumeId};

use crate::core::Core;
use crate::cow::{Copied, Old, kept_blocks};
use crate::destage::{Applied, Candidate, Move, rank};
use crate::device::{BLOCK, Io, Purpose};
use crate::error::Damaged;
use crate::write::EXTENT_BLOCKS;

impl Core {
    /// Brings one extent of the map up to date.
    pub(crate) fn apply_extent(&mut self, group: &[Candidate]) -> Applied {
        let (volume, index) = (VolumeId(group[0].volume), group[0].block / EXTENT_BLOCKS);
        if !self.is_writable(volume.0) {
            return self.drop_extent(group);
        }
        if self.device.room() < group.len() {
            return Applied::Later;
        }
        if group.iter().all(|c| c.what == Move::Clear) {
            // What was written since counts on the extent that it found here: nothing was set aside
            // for it.
            let superseded = |c: &Candidate| !self.is_newest(c.layer, c.block, c.lsn);
            if group.iter().all(superseded) {
                return Applied::Done;
            }
            // Where nothing is written nothing is changed: that would take pages.
            match self.store.lookup(volume, index) {
                Lookup::Unmapped => return Applied::Done,
                Lookup::Pending => return Applied::Later,
                Lookup::Entry(entry) if kept_blocks(group, &entry) == entry.written() => {
                    return Applied::Done;
                }
                Lookup::Entry(_) | Lookup::Damaged(_) => {}
            }
        }
        let mut entry = match self.store.edit(volume, index) {
            Edit::Entry(entry) => *entry,
            Edit::Pending => return Applied::Later,
            Edit::Busy => return Applied::Busy,
            Edit::Damaged(page) => return self.skip_damaged(group, page),
        };
        let before = entry;
        if let Move::Adopt { extent, .. } = group[0].what
            && (self.is_live(&group[0]) || bdev::planted(bdev::Planted::DeadDirectAdopted))
        {
            self.adopt(&mut entry, &group[0], extent);
        }
        // What was replaced since the window was collected is worth no extent: nobody has set one
        // aside for it any more.
        let worth = entry.extent().is_some() || group.iter().any(|c| self.is_current(c));
        let moved = if worth { group } else { &[] };
        let fresh = match self.write_group(moved, &mut entry, index) {
            Ok(fresh) => fresh,
            Err(later) => return later,
        };
        self.edit_blocks(moved, &mut entry);
        let Edit::Entry(place) = self.store.edit(volume, index) else {
            panic!("the page was here a moment ago");
        };
        *place = entry;
        if let Some(fresh) = fresh {
            self.store.commit(fresh);
        }
        if let Move::Adopt { extent, owned: true } = group[0].what {
            let extent = self.extent(extent);
            self.store.commit(extent);
            if entry.extent() != Some(extent) {
                self.store.release(extent);
            }
        }
        if entry.extent() != before.extent() {
            self.release(volume, index, &before);
        }
        if entry.extent().is_none() && before.extent().is_some() {
            self.prune(volume, index);
        }
        Applied::Done
    }

    /// An entry was cleared: when its leaf has nothing left, that goes too. If not now, because a
    /// checkpoint must come first, then with the next range that covers it.
    pub(crate) fn prune(&mut self, volume: VolumeId, index: u64) {
        let _ = self.store.unmap(volume, &mut (index..index + 1));
    }

    /// Starts the writes of a group; the fresh extent for it, if one was needed. When the leaf must
    /// not be edited yet, an error.
    fn write_group(
        &mut self,
        group: &[Candidate],
        entry: &mut LeafEntry,
        index: u64,
    ) -> Result<Option<Extent>, Applied> {
        if !group.iter().any(|c| matches!(c.what, Move::Copy(_))) {
            return Ok(None);
        }
        let volume = VolumeId(group[0].volume);
        match self.destage.cow.take_copied(volume.0, index) {
            Copied::No => {}
            Copied::Writing => return Err(Applied::Later),
            Copied::To(fresh) => {
                entry.set_extent(fresh, self.store.birth(volume));
                return Ok(Some(fresh));
            }
        }
        let mapped = entry.extent().is_some();
        let in_place = || {
            self.store.is_owned(volume, index, entry)
                || bdev::planted(bdev::Planted::SharedInPlace)
                || (bdev::planted(bdev::Planted::CloneInPlace) && self.is_clone(volume))
        };
        let shared = mapped && !in_place();
        let mut old = None;
        if shared {
            let kept = kept_blocks(group, entry);
            if kept != 0 {
                match self.old_blocks(volume.0, index, entry, kept) {
                    Old::Ready(slot) => old = Some(slot),
                    Old::Later => return Err(Applied::Later),
                }
            }
        }
        let mut fresh = None;
        if shared || !mapped {
            fresh = self.store.allocate_promised();
            let Some(fresh) = fresh else {
                // Accounting keeps this from happening; if it does, space must come first.
                self.space_wanted = true;
                self.checkpoint.wanted = self.store.is_dirty();
                return Err(Applied::Later);
            };
            self.stats.unpromised_extents += u64::from(!shared && !self.is_promised(&group[0]));
            entry.set_extent(fresh, self.store.birth(volume));
        }
        match (old, fresh) {
            (Some(slot), Some(fresh)) => {
                self.write_copy(group, fresh, slot);
                return Err(Applied::Later); // The leaf follows when it is written.
            }
            _ if self.write_blocks(group, entry) => {}
            _ => {
                if let Some(fresh) = fresh {
                    self.store.abandon(fresh);
                }
                return Err(Applied::Later);
            }
        }
        Ok(fresh)
    }

    /// Only asked for the sake of a planted bug.
    fn is_clone(&self, volume: VolumeId) -> bool {
        self.store.volume(volume).is_some_and(|record| record.origin_snapshot().is_some())
    }

    /// Whether an extent was set aside for a block of the candidate's extent.
    fn is_promised(&self, candidate: &Candidate) -> bool {
        let start = candidate.block / EXTENT_BLOCKS * EXTENT_BLOCKS;
        let mut blocks = start..start + EXTENT_BLOCKS;
        blocks.any(|block| {
            let version = self.overlay.find_block(candidate.layer, block);
            version.is_some_and(|version| version.reserved)
        })
    }

    /// The extent of an entry fell out of the map: it is given back, unless somebody shares it.
    pub(crate) fn release(&mut self, volume: VolumeId, index: u64, before: &LeafEntry) {
        if let Some(extent) = before.extent()
            && (self.store.is_owned(volume, index, before)
                || bdev::planted(bdev::Planted::SharedFreed))
            && !bdev::planted(bdev::Planted::ExtentLeak)
        {
            self.store.release(extent);
        } else if before.extent().is_some() {
            self.store.drop_shared();
        }
    }

    /// The volume was deleted under the window: what it owned is given back.
    fn drop_extent(&mut self, group: &[Candidate]) -> Applied {
        for candidate in group {
            let Candidate { layer, block, lsn, .. } = *candidate;
            self.reserved -= u64::from(self.overlay.unreserve(layer, block, lsn));
            if let Move::Adopt { extent, owned: true } = candidate.what {
                let extent = self.extent(extent);
                self.store.commit(extent);
                self.store.release(extent);
            }
        }
        Applied::Done
    }

    /// The map of these blocks is lost. They stay lost: reads say so.
    fn skip_damaged(&mut self, group: &[Candidate], page: u64) -> Applied {
        if self.is_unreadable(page) {
            return Applied::Later;
        }
        let byte = page * BLOCK as u64;
        self.report_damage(group[0].volume, group[0].block, Damaged::Map, byte);
        self.drop_extent(group)
    }

    /// Whether a page of the map was not readable, rather than damaged: it may be whole, and what
    /// the log has for it is not given up. The engine stops writing; the next mount tries again.
    pub(crate) fn is_unreadable(&mut self, page: u64) -> bool {
        let unreadable = self.store.is_unreadable(page);
        if unreadable {
            self.fail("reading the map", Status::Io);
        }
        unreadable
    }

    /// Whether any block of a direct write is still the newest. Writes through the log may have
    /// come since the window was collected; they set no extent aside where the map has one, so what
    /// the map has must stay.
    fn is_live(&self, direct: &Candidate) -> bool {
        let mut blocks = direct.block..direct.block + EXTENT_BLOCKS;
        blocks.any(|block| self.is_newest(direct.layer, block, direct.lsn))
    }

    /// True for a copy that is still the newest version of its block.
    fn is_current(&self, candidate: &Candidate) -> bool {
        let Candidate { layer, block, lsn, what, .. } = *candidate;
        matches!(what, Move::Copy(_)) && self.is_newest(layer, block, lsn)
    }

    /// Maps the extent of a direct write, with the checksums of its blocks that are still newest.
    fn adopt(&self, entry: &mut LeafEntry, candidate: &Candidate, number: u64) {
        let extent = self.extent(number);
        if entry.extent() != Some(extent) {
            entry.clear();
            entry.set_extent(extent, self.store.birth(VolumeId(candidate.volume)));
        }
        for index in 0..EXTENT_BLOCKS {
            let version = self.overlay.find(candidate.layer, candidate.block + index);
            let Some(version) = version.filter(|version| version.lsn == candidate.lsn) else {
                continue;
            };
            entry.set_block(usize::try_from(index).expect("below 16"), version.crc);
        }
    }

    /// Enters the new checksums, and releases what was set aside.
    fn edit_blocks(&mut self, group: &[Candidate], entry: &mut LeafEntry) {
        for candidate in group {
            let Candidate { layer, block, lsn, crc, what, .. } = *candidate;
            let within = usize::try_from(block % EXTENT_BLOCKS).expect("below 16");
            match what {
                Move::Copy(_) => {
                    let stale = bdev::planted(bdev::Planted::ChecksumNotUpdated);
                    if entry.block_crc(within).is_none() || !stale {
                        entry.set_block(within, crc);
                    }
                    self.reserved -= u64::from(self.overlay.unreserve(layer, block, lsn));
                    self.stats.destaged_blocks += 1;
                }
                Move::Clear if bdev::planted(bdev::Planted::ZeroNotApplied) => {}
                Move::Clear => entry.clear_block(within),
                Move::Adopt { .. } => {}
            }
        }
        if entry.written() == 0 {
            entry.clear();
        }
    }

    /// Starts the writes of a group's blocks, neighbours together. False when buffers are short:
    /// then nothing was started.
    fn write_blocks(&mut self, group: &[Candidate], entry: &LeafEntry) -> bool {
        let extent = entry.extent().expect("mapped or just allocated");
        let mut buffers: [Option<Buf>; store::EXTENT_BLOCKS] = [const { None }; 16];
        let copies = &group[group.iter().take_while(|c| rank(c.what) == 0).count()..];
        let mut runs = 0;
        let mut at = 0;
        while at < copies.len() {
            let run = run_len(&copies[at..]);
            if run == 0 {
                at += 1;
                continue;
            }
            let Some(buffer) = self.gather(&copies[at..at + run]) else { return false };
            buffers[runs] = Some(buffer);
            runs += 1;
            at += run;
        }
        at = 0;
        for buffer in buffers.iter_mut().take(runs) {
            while run_len(&copies[at..]) == 0 {
                at += 1;
            }
            let run = run_len(&copies[at..]);
            let byte = extent.byte_offset() + copies[at].block % EXTENT_BLOCKS * BLOCK as u64;
            let blocks = u32::try_from(run).expect("at most 16");
            let io = Io::new(Purpose::Destage { attempts: 0, copy: None }, 0, byte, blocks);
            let from = buffer.take().expect("gathered above");
            self.device.write(io, from, Flags::NONE);
            self.destage.in_flight += 1;
            at += run;
        }
        true
    }

    /// The data of neighbouring blocks in one buffer: part of the window if it lies there in one
    /// piece, otherwise a copy. What rotted in the log is passed on with the checksum it should
    /// have, so that no read ever returns it.
    fn gather(&mut self, run: &[Candidate]) -> Option<Buf> {
        for candidate in run {
            self.check_log_block(candidate);
        }
        let first = self.log_offset(&run[0]);
        let in_place = run.iter().enumerate().all(|(i, c)| self.log_offset(c) == first + i * BLOCK);
        if in_place {
            let data = self.destage.data.clone().expect("the window was read");
            return Some(if first == 0 { data } else { data.slice(first) });
        }
        let mut copy = self.reserve.take(run.len() * BLOCK)?;
        for (target, candidate) in copy.bytes_mut().chunks_exact_mut(BLOCK).zip(run) {
            target.copy_from_slice(self.log_block(candidate));
        }
        Some(copy.freeze())
    }

    /// Where the block of a copy is in the window's buffer.
    fn log_offset(&self, candidate: &Candidate) -> usize {
        let Move::Copy(position) = candidate.what else { panic!("only copies have data") };
        usize::try_from(position - self.destage.start).expect("inside") * BLOCK
    }

    /// The block of a copy, as it is in the log.
    pub(crate) fn log_block(&self, candidate: &Candidate) -> &[u8] {
        let at = self.log_offset(candidate);
        &self.destage.data.as_ref().expect("the window was read").bytes()[at..at + BLOCK]
    }

    /// Reports a block that rotted in the log.
    pub(crate) fn check_log_block(&mut self, candidate: &Candidate) {
        if wal::crc32c(self.log_block(candidate)) != candidate.crc {
            let byte = self.wal.byte_of(self.destage.start) + self.log_offset(candidate) as u64;
            self.report_damage(candidate.volume, candidate.block, Damaged::Log, byte);
        }
    }
}

/// How many copies from the front are neighbours in the extent; zero when the first is no copy.
fn run_len(group: &[Candidate]) -> usize {
    let next = |(index, c): &(u64, &Candidate)| {
        matches!(c.what, Move::Copy(_)) && c.block == group[0].block + index
    };
    (0u64..).zip(group).take_while(next).count()
}
