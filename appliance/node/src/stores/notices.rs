//! Damage that a store's engine reports, kept until somebody asks.

use std::collections::VecDeque;

use crate::command::{Notice, Notices};
use crate::limits::NOTICES_KEPT;

/// The oldest are kept: where damage begins says more than where it goes on.
pub(crate) struct Kept {
    notices: VecDeque<Notice>,
    missed: u64,
}

impl Kept {
    pub(crate) fn new() -> Kept {
        Kept { notices: VecDeque::with_capacity(NOTICES_KEPT), missed: 0 }
    }

    pub(crate) fn push(&mut self, notice: Notice) {
        match self.notices.len() < NOTICES_KEPT {
            true => self.notices.push_back(notice),
            false => self.missed += 1,
        }
    }

    pub(crate) fn take(&mut self) -> Notices {
        let notices = self.notices.drain(..).collect();
        Notices { notices, missed: std::mem::take(&mut self.missed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VolumeId;

    #[test]
    fn a_flood_is_counted_and_its_beginning_kept() {
        let mut kept = Kept::new();
        let block = |block| Notice::Block {
            volume: VolumeId(1),
            block,
            place: volume::Damaged::Extent,
            byte: block * 4096,
        };
        (0..NOTICES_KEPT as u64 + 3).for_each(|number| kept.push(block(number)));
        let taken = kept.take();
        assert_eq!((taken.notices.len(), taken.missed), (NOTICES_KEPT, 3));
        assert_eq!(taken.notices[0], block(0));
        assert_eq!(kept.take(), Notices::default());
    }
}
