//! How full the store is, as operators hear of it.

use crate::core::Core;
use crate::error::Event;
use crate::limits::{SPACE_FULL_LEAVE, SPACE_LOW_HYSTERESIS};

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SpaceState {
    /// Below the threshold.
    #[default]
    Ample,
    /// At or above the threshold: time to add, move or delete.
    Low,
    /// Writes to new places are refused; reads and overwrites go on.
    Full,
}

/// The state that follows `state`. Going up is immediate; going down takes some distance, so that a
/// store at the edge does not report every block.
pub(crate) fn next_state(
    state: SpaceState,
    (free, total): (u64, u64),
    refused: bool,
    low_percent: u64,
) -> SpaceState {
    let used = total.saturating_sub(free);
    let at_least = |percent: u64| u128::from(used) * 100 >= u128::from(total) * u128::from(percent);
    let still_full = u128::from(free) * 100 < u128::from(total) * u128::from(SPACE_FULL_LEAVE);
    if refused || (state == SpaceState::Full && still_full) {
        return SpaceState::Full;
    }
    let back = low_percent.saturating_sub(SPACE_LOW_HYSTERESIS);
    if at_least(if state == SpaceState::Ample { low_percent } else { back }) {
        SpaceState::Low
    } else {
        SpaceState::Ample
    }
}

/// What the engine keeps to notice a change.
#[derive(Debug)]
pub(crate) struct SpaceWatch {
    pub(crate) state: SpaceState,
    /// Percent of the store from which space is low.
    pub(crate) low_percent: u64,
    /// Refused writes that were noticed.
    refused: u64,
}

impl SpaceWatch {
    pub(crate) fn new(low_percent: u64) -> SpaceWatch {
        SpaceWatch { state: SpaceState::Ample, low_percent, refused: 0 }
    }
}

impl Core {
    /// Reports a change of how full the store is.
    pub(crate) fn watch_space(&mut self) {
        let (free, total) = (self.store.free_extents(), self.store.total_extents());
        let refused = self.stats.no_space > self.space_watch.refused;
        self.space_watch.refused = self.stats.no_space;
        let watch = &mut self.space_watch;
        let state = next_state(watch.state, (free, total), refused, watch.low_percent);
        if state != watch.state {
            watch.state = state;
            let (free_bytes, total_bytes) =
                (free * store::EXTENT_BYTES, total * store::EXTENT_BYTES);
            self.report(Event::Space { state, free_bytes, total_bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SpaceState::{Ample, Full, Low};
    use super::*;

    #[test]
    fn states_follow_free_space_with_some_distance_on_the_way_back() {
        let next = |state, free, refused| next_state(state, (free, 100), refused, 80);
        assert_eq!(next(Ample, 21, false), Ample);
        assert_eq!(next(Ample, 20, false), Low);
        assert_eq!(next(Low, 25, false), Low);
        assert_eq!(next(Low, 26, false), Ample);
        assert_eq!(next(Low, 0, false), Low, "overwrites need nothing");
        assert_eq!(next(Low, 0, true), Full);
        assert_eq!(next(Ample, 90, true), Full);
        assert_eq!(next(Full, 1, false), Full);
        assert_eq!(next(Full, 2, false), Low);
        assert_eq!(next(Full, 90, false), Ample);
        assert_eq!(next_state(Ample, (0, 0), false, 80), Low, "a store without extents");
    }
}
