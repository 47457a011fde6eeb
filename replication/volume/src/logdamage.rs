//! What recovery found damaged in the log: blocks that were durable once and do not match any more.
//!
//! Their records count like all others: the overlay knows their places and their checksums, so no
//! read returns them, and the destager takes them along with the checksum that they should have.

use crate::core::Core;
use crate::error::{Damaged, Event};
use crate::limits::LOG_DAMAGE_MAX;

/// A block of a record that was entered: whose it is, and where in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) lsn: u64,
    pub(crate) volume: u32,
    pub(crate) layer: u32,
    pub(crate) block: u64,
    pub(crate) position: u64,
}

/// The damage that a scan of the log met.
#[derive(Debug, Default)]
pub(crate) struct LogDamage {
    /// The first and the last record with damage.
    range: Option<(u64, u64)>,
    /// How many blocks, those that nobody will ask for among them.
    blocks: u64,
    entered: Vec<Spot>,
}

impl LogDamage {
    /// A record has damage, a bit for each block.
    pub(crate) fn note(&mut self, lsn: u64, damaged: u64) {
        if damaged != 0 {
            let first = self.range.map_or(lsn, |(first, _)| first);
            self.range = Some((first, lsn));
            self.blocks += u64::from(damaged.count_ones());
        }
    }

    /// The blocks of such a record, from `first` on, are in the overlay from now on.
    pub(crate) fn entered(&mut self, first: Spot, damaged: u64) {
        for bit in (0..u64::from(u64::BITS)).filter(|bit| damaged >> bit & 1 == 1) {
            if self.entered.len() < LOG_DAMAGE_MAX {
                let (block, position) = (first.block + bit, first.position + bit);
                self.entered.push(Spot { block, position, ..first });
            }
        }
    }

    /// Says what was found, and which blocks are lost by it.
    pub(crate) fn report(&self, core: &mut Core) {
        let Some((first, last)) = self.range else { return };
        core.report(Event::LogDamaged { first, last, blocks: self.blocks });
        for damaged in &self.entered {
            let Spot { lsn, volume, layer, block, position } = *damaged;
            if core.is_writable(volume) && core.is_newest(layer, block, lsn) {
                let byte = core.wal.byte_of(position);
                core.report_damage(volume, block, Damaged::Log, byte);
            }
        }
    }
}
