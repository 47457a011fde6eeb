//! New sizes for volumes.
//!
//! A volume grows at once. It shrinks only when that was asked for and nothing is written beyond
//! the new size: requests beyond it are refused from the moment at which that is looked at, those
//! that were taken end, everything that the log held by then gets into the map and out of the log
//! (a replay refuses records beyond the end of a volume), and the map is searched.

use store::{Scan, VolumeError, VolumeId};
use wal::Lsn;

use crate::control::{Control, Shrink};
use crate::core::Core;
use crate::device::BLOCK;
use crate::error::ControlError;
use crate::limits::WALK_STEPS_MAX;

/// A volume that is about to shrink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shrinking {
    pub(crate) volume: u32,
    pub(crate) bytes: u64,
    /// Nothing beyond the new size was appended with this LSN or a later one.
    head: Option<Lsn>,
    /// Extents before this one, beyond the new size, are empty.
    cursor: u64,
}

const EXTENT_BLOCKS: u64 = store::EXTENT_BLOCKS as u64;

impl Core {
    pub(crate) fn check_resize(
        &mut self,
        control: &mut Control,
        shrink: Shrink,
    ) -> Result<bool, ControlError> {
        if self.waits_for(control.id) {
            return Ok(false); // A snapshot in the log has the size that its volume had.
        }
        let size = self.active_volume(control.id)?.size_bytes();
        let bytes = control.details.size;
        let sizes = 1..=store::VOLUME_BYTES_MAX;
        if !sizes.contains(&bytes) || !bytes.is_multiple_of(BLOCK as u64) {
            return Err(ControlError::Volume(VolumeError::Size));
        }
        match shrink {
            _ if bytes >= size => Ok(true),
            Shrink::Refuse => Err(ControlError::Shrink),
            Shrink::IfEmpty => self.shrink_step(control.id, bytes),
        }
    }

    /// Whether the volume is empty beyond `bytes`: not known yet, or not so, otherwise.
    fn shrink_step(&mut self, id: VolumeId, bytes: u64) -> Result<bool, ControlError> {
        let blocks = bytes / BLOCK as u64;
        let mut shrinking = self.shrinking.unwrap_or_else(|| {
            self.set_queue_sizes(id, bytes);
            let (volume, head, cursor) = (id.0, None, blocks / EXTENT_BLOCKS);
            Shrinking { volume, bytes, head, cursor }
        });
        let beyond = self.ops.iter().any(|(_, op)| op.volume == id.0 && op.end() > blocks);
        if !beyond {
            shrinking.head.get_or_insert(self.wal.next_lsn());
        }
        self.shrinking = Some(shrinking);
        if shrinking.head.is_none_or(|head| self.wal.tail().lsn < head) {
            self.controls.wants_barriers = true;
            return Ok(false);
        }
        for _ in 0..WALK_STEPS_MAX {
            let cursor = match self.store.scan(id, shrinking.cursor) {
                Scan::Entry { index, entry } => {
                    let first = blocks.saturating_sub(index * EXTENT_BLOCKS);
                    if u64::from(entry.written()) >> first != 0 {
                        return Err(ControlError::NotEmpty);
                    }
                    index + 1
                }
                Scan::Skip(next) => next,
                Scan::End => return Ok(true),
                Scan::Pending => return Ok(false),
                Scan::Damaged { .. } => return Err(ControlError::NotEmpty),
            };
            shrinking.cursor = cursor;
            self.shrinking = Some(shrinking);
        }
        Ok(false)
    }

    /// A shrink is over. If it was refused, the volume is as large as ever.
    pub(crate) fn end_shrink(&mut self, done: bool) {
        let Some(shrinking) = self.shrinking.take() else { return };
        let id = VolumeId(shrinking.volume);
        if !done && let Ok((bytes, _)) = self.volume_size(id) {
            self.set_queue_sizes(id, bytes);
        }
    }
}
