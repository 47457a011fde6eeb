//! Copies of extents that a snapshot shares: nobody writes into those.
//!
//! ```text
//!   Free --take--> Reading --old blocks checked--> Ready --merged, to a fresh extent--> Writing
//!    ^                |  ^ device error, checksum: again         |                         |
//!    |                `--'                                       | window over             v
//!    `-----------------------------------------------------------'----- leaf edited --- Written
//! ```
//!
//! The leaf names the fresh extent only when it is written. Other blocks of a window are read from
//! the log until the next checkpoint, so their leaves may be ahead; the old blocks of a copy are
//! not in the log, and readers find them where the leaf says.
//!
//! A copy that needs nothing of the old extent takes no buffer here. An old block that is still bad
//! after some attempts is carried on with the checksum that it should have, so that no read of
//! either extent ever returns it.

use bdev::{Buf, BufMut, Flags, Status};
use store::{Extent, LeafEntry};

use crate::core::Core;
use crate::destage::{Candidate, Move};
use crate::device::{BLOCK, Io, Purpose};
use crate::error::Damaged;
use crate::limits::{COPIES_MAX, DESTAGE_ATTEMPTS_MAX};
use crate::write::EXTENT_BLOCKS;

/// Buffers for copies, and what is in them.
#[derive(Debug)]
pub(crate) struct Cow {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    volume: u32,
    /// Which extent of the volume.
    index: u64,
    /// What is copied, and which of its blocks.
    from: Option<Extent>,
    kept: u16,
    /// Where it is copied to, from the moment at which that is written.
    fresh: Option<Extent>,
    state: State,
}

#[derive(Debug)]
enum State {
    Free(BufMut),
    /// The device has the buffer.
    Reading,
    Ready(BufMut),
    Writing(Buf),
    Written(BufMut),
    /// Between two states.
    Moving,
}

/// How far the copy of an extent is.
pub(crate) enum Copied {
    /// It was not begun, or its old blocks are on their way.
    No,
    /// On its way to the fresh extent.
    Writing,
    /// All of it is in this fresh extent.
    To(Extent),
}

/// What there is of an old extent.
pub(crate) enum Old {
    /// Its blocks, in this slot.
    Ready(usize),
    /// Not yet.
    Later,
}

impl Cow {
    /// With these buffers of 64 KiB each.
    pub(crate) fn new(buffers: impl Iterator<Item = BufMut>) -> Cow {
        let free = |buf| {
            let (volume, index, kept) = (0, 0, 0);
            let (from, fresh, state) = (None, None, State::Free(buf));
            Slot { volume, index, from, kept, fresh, state }
        };
        Cow { slots: buffers.take(COPIES_MAX).map(free).collect() }
    }

    fn find(&self, volume: u32, index: u64) -> Option<usize> {
        let used = |slot: &Slot| !matches!(slot.state, State::Free(_));
        let is = |slot: &Slot| slot.volume == volume && slot.index == index && used(slot);
        self.slots.iter().position(is)
    }

    /// How far the copy of an extent is. One that is done is forgotten: the caller edits the leaf.
    pub(crate) fn take_copied(&mut self, volume: u32, index: u64) -> Copied {
        let Some(slot) = self.find(volume, index) else { return Copied::No };
        let slot = &mut self.slots[slot];
        match std::mem::replace(&mut slot.state, State::Moving) {
            State::Written(buf) => {
                slot.state = State::Free(buf);
                Copied::To(slot.fresh.take().expect("it was written somewhere"))
            }
            state => {
                let writing = matches!(state, State::Writing(_));
                slot.state = state;
                if writing { Copied::Writing } else { Copied::No }
            }
        }
    }

    /// A copy is in its extent, or lost with the engine.
    pub(crate) fn written(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        let State::Writing(buf) = std::mem::replace(&mut slot.state, State::Moving) else {
            panic!("a copy is written once")
        };
        let buf = buf.try_unique().expect("the request's slice was dropped with its completion");
        slot.state = State::Written(buf);
    }

    /// The window is over. Forgets a copy that was begun and is not needed any more (its volume was
    /// deleted); the extent that it was written to.
    pub(crate) fn abandon_one(&mut self) -> Option<Extent> {
        for slot in &mut self.slots {
            slot.state = match std::mem::replace(&mut slot.state, State::Moving) {
                State::Free(buf) | State::Ready(buf) | State::Written(buf) => State::Free(buf),
                _ => panic!("a window ends when all its requests have"),
            };
            if let Some(fresh) = slot.fresh.take() {
                return Some(fresh);
            }
        }
        None
    }
}

impl Core {
    /// The blocks `kept` of a shared extent, to be merged with new ones; asks for them.
    pub(crate) fn old_blocks(
        &mut self,
        volume: u32,
        index: u64,
        entry: &LeafEntry,
        kept: u16,
    ) -> Old {
        let from = entry.extent().expect("a shared extent is mapped");
        if let Some(slot) = self.destage.cow.find(volume, index) {
            let at = &self.destage.cow.slots[slot];
            assert_eq!((at.from, at.kept), (Some(from), kept), "only the destager changes leaves");
            return match at.state {
                State::Ready(_) => Old::Ready(slot),
                _ => Old::Later,
            };
        }
        let free = |slot: &Slot| matches!(slot.state, State::Free(_));
        let Some(slot) = self.destage.cow.slots.iter().position(free) else { return Old::Later };
        let at = &mut self.destage.cow.slots[slot];
        let State::Free(buf) = std::mem::replace(&mut at.state, State::Reading) else {
            panic!("just seen")
        };
        (at.volume, at.index, at.from, at.kept) = (volume, index, Some(from), kept);
        let mut crcs = [0; store::EXTENT_BLOCKS];
        for (block, crc) in crcs.iter_mut().enumerate() {
            *crc = entry.block_crc(block).unwrap_or(0);
        }
        self.destage.in_flight += 1;
        self.read_old(slot, 0, &crcs, buf);
        Old::Later
    }

    fn read_old(&mut self, slot: usize, attempts: u32, crcs: &[u32], buf: BufMut) {
        let at = &self.destage.cow.slots[slot];
        let from = at.from.expect("set when the copy began");
        let purpose = Purpose::CopyRead { slot, attempts };
        let mut io = Io::new(purpose, 0, from.byte_offset(), u16::BITS - at.kept.leading_zeros());
        io.crcs[..store::EXTENT_BLOCKS].copy_from_slice(&crcs[..store::EXTENT_BLOCKS]);
        self.device.read(io, buf);
    }

    /// The old blocks are here, or the device failed.
    pub(crate) fn on_copy_read(&mut self, io: &Io, status: Status, mut buf: BufMut) {
        let Purpose::CopyRead { slot, attempts } = io.purpose else { panic!("a read for a copy") };
        let Slot { volume, index, kept, .. } = self.destage.cow.slots[slot];
        let is_bad = |block: usize| {
            let bytes = &buf.bytes()[block * BLOCK..(block + 1) * BLOCK];
            kept >> block & 1 == 1 && (!status.is_ok() || wal::crc32c(bytes) != io.crcs[block])
        };
        let bad = (0..store::EXTENT_BLOCKS).filter(|&block| is_bad(block));
        let bad = bad.fold(0u16, |bad, block| bad | 1 << block);
        if bad != 0 && attempts + 1 < DESTAGE_ATTEMPTS_MAX {
            return self.read_old(slot, attempts + 1, &io.crcs, buf);
        }
        for block in (0..store::EXTENT_BLOCKS).filter(|block| bad >> block & 1 == 1) {
            if !status.is_ok() {
                buf.bytes_mut()[block * BLOCK..(block + 1) * BLOCK].fill(0);
            }
            let place = (index * EXTENT_BLOCKS + block as u64, io.byte + (block * BLOCK) as u64);
            self.report_damage(volume, place.0, Damaged::Extent, place.1);
        }
        self.destage.cow.slots[slot].state = State::Ready(buf);
        self.destage.in_flight -= 1;
    }

    /// Lays the new blocks of a group over the old ones and writes both to a fresh extent.
    pub(crate) fn write_copy(&mut self, group: &[Candidate], fresh: Extent, slot: usize) {
        let at = &mut self.destage.cow.slots[slot];
        let mut written = at.kept;
        let State::Ready(mut buf) = std::mem::replace(&mut at.state, State::Moving) else {
            panic!("the caller saw it ready")
        };
        for candidate in group.iter().filter(|c| matches!(c.what, Move::Copy(_))) {
            let block = usize::try_from(candidate.block % EXTENT_BLOCKS).expect("below 16");
            let target = &mut buf.bytes_mut()[block * BLOCK..(block + 1) * BLOCK];
            target.copy_from_slice(self.log_block(candidate));
            written |= 1 << block;
        }
        let (first, end) = (written.trailing_zeros(), u16::BITS - written.leading_zeros());
        for block in (first..end).filter(|block| written >> block & 1 == 0) {
            let block = block as usize;
            buf.bytes_mut()[block * BLOCK..(block + 1) * BLOCK].fill(0);
        }
        for candidate in group.iter().filter(|c| matches!(c.what, Move::Copy(_))) {
            self.check_log_block(candidate);
        }
        let byte = fresh.byte_offset() + u64::from(first) * BLOCK as u64;
        let purpose = Purpose::Destage { attempts: 0, copy: Some(slot) };
        let buf = buf.freeze();
        let part = if first == 0 { buf.clone() } else { buf.slice(first as usize * BLOCK) };
        let at = &mut self.destage.cow.slots[slot];
        (at.fresh, at.state) = (Some(fresh), State::Writing(buf));
        self.device.write(Io::new(purpose, 0, byte, end - first), part, Flags::NONE);
        self.destage.in_flight += 1;
        self.stats.copied_extents += 1;
    }
}

/// The blocks of a shared extent that its copy must have from it.
pub(crate) fn kept_blocks(group: &[Candidate], entry: &LeafEntry) -> u16 {
    let replaced = |kept: u16, candidate: &Candidate| match candidate.what {
        Move::Copy(_) | Move::Clear => kept & !(1 << (candidate.block % EXTENT_BLOCKS)),
        Move::Adopt { .. } => kept,
    };
    group.iter().fold(entry.written(), replaced)
}
