//! Walks of a store's engine: many bounded steps, one in each turn.

use volume::Engine;

use super::engine::error_of;
use crate::command::{Answer, Changes, Counted, NodeError, Task};
use crate::limits::WALK_TURNS_MAX;

/// A walk that is under way.
pub(crate) struct Walk {
    what: What,
    from: u64,
    turns: u32,
    found: Vec<(u64, u64)>,
    sum: u64,
}

#[derive(Clone, Copy)]
enum What {
    Diff { base: Option<volume::VolumeId>, of: volume::VolumeId, ranges_max: usize },
    Unique(volume::VolumeId),
}

impl Walk {
    /// The walk that a task is, if it is one.
    pub(crate) fn of(task: &Task) -> Option<Walk> {
        let (what, from) = match *task {
            Task::Diff { base, of, from, ranges_max } => {
                let base = base.map(|base| volume::VolumeId(base.0));
                (What::Diff { base, of: volume::VolumeId(of.0), ranges_max }, from)
            }
            Task::CountUnique { snapshot, from } => {
                (What::Unique(volume::VolumeId(snapshot.0)), from)
            }
            _ => return None,
        };
        Some(Walk { what, from, turns: 0, found: Vec::new(), sum: 0 })
    }

    /// Goes on for one turn; the answer when it has come far enough.
    pub(crate) fn step(&mut self, engine: &mut Engine) -> Option<Result<Answer, NodeError>> {
        let next = match self.what {
            What::Diff { base, of, .. } => match engine.diff(base, of, self.from) {
                Ok(step) => {
                    step.changes.iter().for_each(|change| self.take(change.start, change.bytes));
                    step.next
                }
                Err(error) => return Some(Err(error_of(error))),
            },
            What::Unique(snapshot) => match engine.space_of(snapshot, self.from) {
                Ok(step) if step.damaged_pages > 0 => {
                    let reason = "the map is damaged: what is below cannot be counted";
                    return Some(Err(NodeError::Store(reason.to_owned())));
                }
                Ok(step) => {
                    self.sum += step.unique_bytes;
                    step.next
                }
                Err(error) => return Some(Err(error_of(error))),
            },
        };
        let Some(next) = next else { return Some(Ok(self.answer(None))) };
        if next > self.from {
            self.from = next;
            self.turns += 1;
        }
        // Others wait for the store: the caller comes back for the rest.
        let enough = self.turns >= WALK_TURNS_MAX || self.is_full();
        enough.then(|| Ok(self.answer(Some(self.from))))
    }

    fn is_full(&self) -> bool {
        match self.what {
            // As many as one step may bring still fit.
            What::Diff { ranges_max, .. } => self.found.len() + volume::CHANGES_MAX > ranges_max,
            What::Unique(_) => false,
        }
    }

    /// Notes what differs.
    fn take(&mut self, offset: u64, bytes: u64) {
        match self.found.last_mut() {
            Some((first, length)) if *first + *length == offset => *length += bytes,
            _ => self.found.push((offset, bytes)),
        }
    }

    fn answer(&mut self, next: Option<u64>) -> Answer {
        match self.what {
            What::Diff { .. } => {
                Answer::Changes(Changes { ranges: std::mem::take(&mut self.found), next })
            }
            What::Unique(_) => Answer::Counted(Counted { bytes: self.sum, next }),
        }
    }
}
