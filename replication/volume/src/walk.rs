//! What differs between two snapshots, and what a node takes: walks over the map, a bounded step at
//! a time. Whoever walks keeps the position and may stop at any time; I/O goes on between steps.

use store::{Diff, NodeKind, Unique, VolumeError, VolumeId};

use crate::core::Core;
use crate::error::ControlError;
use crate::limits::{CHANGES_MAX, WALK_STEPS_MAX};

/// A range in which two snapshots differ, or may differ: in whole extents of 64 KiB, the last one
/// cut at the end of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// What is there in the later snapshot.
    pub kind: ChangeKind,
}

/// What a snapshot has in a range that another one has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Data.
    Written,
    /// Nothing is mapped: it reads as zeroes.
    Cleared,
    /// A damaged page of the map hides it.
    Unknown,
}

/// A step of [`crate::Engine::diff`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffStep {
    /// Ranges that differ, in order.
    pub changes: Vec<Change>,
    /// The byte to go on from, now or in a later turn; `None` at the end. It may be where this step
    /// began, while pages are loaded or a snapshot is not materialised yet.
    pub next: Option<u64>,
}

/// A step of [`crate::Engine::space_of`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStep {
    /// Bytes that belong to the node alone in the part that this step walked: what its deletion
    /// would give back. To be summed up.
    pub unique_bytes: u64,
    /// Bytes that the node's map references as a whole, shared ones included.
    pub referenced_bytes: u64,
    /// Damaged pages in the part that this step walked: what is below them is not counted.
    pub damaged_pages: u32,
    /// The byte to go on from, as for [`DiffStep::next`].
    pub next: Option<u64>,
}

impl Core {
    pub(crate) fn diff(
        &mut self,
        base: Option<VolumeId>,
        of: VolumeId,
        from: u64,
    ) -> Result<DiffStep, ControlError> {
        let not_related = ControlError::Volume(VolumeError::NotRelated);
        let waits = |core: &Core, id: VolumeId| {
            core.waiting_snapshots().any(|barrier| barrier.id == id.0) || core.layers.involves(id.0)
        };
        if waits(self, of) || base.is_some_and(|base| waits(self, base)) {
            return Ok(DiffStep { changes: Vec::new(), next: Some(from) });
        }
        let record = *self.active_snapshot(of)?;
        if let Some(base) = base
            && self.active_snapshot(base)?.family() != record.family()
        {
            return Err(not_related);
        }
        let mut step = DiffStep::default();
        let mut at = from / store::EXTENT_BYTES;
        for _ in 0..WALK_STEPS_MAX {
            let (next, kind) = match self.store.diff(base, of, at) {
                Diff::Changed { index, .. }
                    if index % 8 == 7 && bdev::planted(bdev::Planted::DiffForgets) =>
                {
                    (index + 1..index + 1, None)
                }
                Diff::Changed { index, entry: Some(_), .. } => (index..index + 1, WRITTEN),
                Diff::Changed { index, entry: None, .. } => (index..index + 1, CLEARED),
                Diff::Damaged { next, .. } => (at..next, UNKNOWN),
                Diff::Skip(next) => (next..next, None),
                Diff::Pending => break,
                Diff::End => return Ok(step),
            };
            if let Some(kind) = kind {
                push_change(&mut step.changes, &next, kind, record.size_bytes());
            }
            at = next.end;
            if step.changes.len() >= CHANGES_MAX {
                break;
            }
        }
        step.next = Some(at * store::EXTENT_BYTES);
        Ok(step)
    }

    pub(crate) fn space_of(&mut self, id: VolumeId, from: u64) -> Result<SpaceStep, ControlError> {
        if self.layers.involves(id.0) {
            return Ok(SpaceStep { next: Some(from), ..SpaceStep::default() });
        }
        let unknown = ControlError::Volume(VolumeError::Unknown);
        let record = self
            .store
            .volume(id)
            .filter(|record| record.is_active() && record.kind() != NodeKind::Remains);
        let mapped = record.ok_or(unknown)?.mapped.get();
        let referenced_bytes = mapped.saturating_mul(store::EXTENT_BYTES);
        let mut step = SpaceStep { referenced_bytes, ..SpaceStep::default() };
        let mut at = from / store::EXTENT_BYTES;
        for _ in 0..WALK_STEPS_MAX {
            at = match self.store.unique(id, at) {
                Unique::Counted { extents, next } => {
                    step.unique_bytes += extents * store::EXTENT_BYTES;
                    next
                }
                Unique::Damaged { next, .. } => {
                    step.damaged_pages += 1;
                    next
                }
                Unique::Pending => break,
                Unique::End => return Ok(step),
            };
        }
        step.next = Some(at * store::EXTENT_BYTES);
        Ok(step)
    }
}

const WRITTEN: Option<ChangeKind> = Some(ChangeKind::Written);
const CLEARED: Option<ChangeKind> = Some(ChangeKind::Cleared);
const UNKNOWN: Option<ChangeKind> = Some(ChangeKind::Unknown);

/// Adds extents to a list of changes, joined with the last one where they can be.
fn push_change(
    changes: &mut Vec<Change>,
    extents: &std::ops::Range<u64>,
    kind: ChangeKind,
    size: u64,
) {
    let start = extents.start.saturating_mul(store::EXTENT_BYTES);
    let end = extents.end.saturating_mul(store::EXTENT_BYTES).min(size);
    if end <= start {
        return;
    }
    match changes.last_mut() {
        Some(last) if last.kind == kind && last.start + last.bytes == start => {
            last.bytes += end - start;
        }
        _ => changes.push(Change { start, bytes: end - start, kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_kind_are_one_change_and_the_end_is_cut() {
        let mut changes = Vec::new();
        let (extent, size) = (store::EXTENT_BYTES, 3 * store::EXTENT_BYTES + 4096);
        push_change(&mut changes, &(0..1), ChangeKind::Written, size);
        push_change(&mut changes, &(1..2), ChangeKind::Written, size);
        push_change(&mut changes, &(2..3), ChangeKind::Cleared, size);
        push_change(&mut changes, &(3..4), ChangeKind::Written, size);
        push_change(&mut changes, &(4..9), ChangeKind::Unknown, size);
        let expected = [
            Change { start: 0, bytes: 2 * extent, kind: ChangeKind::Written },
            Change { start: 2 * extent, bytes: extent, kind: ChangeKind::Cleared },
            Change { start: 3 * extent, bytes: 4096, kind: ChangeKind::Written },
        ];
        assert_eq!(changes, expected);
    }
}
