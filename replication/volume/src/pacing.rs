//! How fast writers and the destager go, from how full the log is. Pure functions: no edge at which
//! anything is switched on or off, so that latency follows the load without steps.

use crate::limits::{
    DELAY_MAX_NS, DESTAGE_FULL, DESTAGE_GENTLE, DESTAGE_START, LOG_HARD, LOG_SOFT, PRESSED_SHARE,
};

/// A part of a log in units of 2^-16.
pub(crate) const WHOLE: u64 = 1 << 16;

/// `part` of `whole` blocks in units of 2^-16, at most [`WHOLE`].
pub(crate) fn share(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * u128::from(WHOLE) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(WHOLE).min(WHOLE)
}

const fn percent(percent: u64) -> u64 {
    percent * WHOLE / 100
}

/// What the delay follows: what the destager has not moved yet. The part that it has moved comes
/// back with the next checkpoint, all at once; following it would make latency saw-tooth. Only what
/// exceeds the part that a checkpoint under pressure gives back counts.
pub(crate) fn load(used: u64, not_moved: u64) -> u64 {
    not_moved.max(used.saturating_sub(percent(PRESSED_SHARE)))
}

/// How long a write waits before it may go into a log with this load, in nanoseconds: nothing up to
/// the soft watermark, then with the fourth power up to [`DELAY_MAX_NS`] at the hard one. The power
/// makes the same curve serve one writer and a thousand: the load settles where what the delay
/// lets through is what the destager moves.
pub(crate) fn delay_ns(load: u64) -> u64 {
    let (soft, hard) = (percent(LOG_SOFT), percent(LOG_HARD));
    let over = load.saturating_sub(soft).min(hard - soft);
    let band = u128::from(hard - soft);
    let power = u128::from(over).pow(4) * u128::from(DELAY_MAX_NS) / band.pow(4);
    u64::try_from(power).expect("at most the longest delay")
}

/// A volume's part of a delay: as much more or less as it has more or fewer operations under way
/// than the average of the `volumes` that have any, up to four times. The volume that fills the log
/// is slowed; one with a shallow queue beside it hardly.
pub(crate) fn fair_delay_ns(delay_ns: u64, operations: u64, volumes: u64, all: u64) -> u64 {
    let fair = u128::from(delay_ns) * u128::from(operations) * u128::from(volumes);
    let most = delay_ns.saturating_mul(4).min(DELAY_MAX_NS);
    u64::try_from(fair / u128::from(all.max(1))).unwrap_or(most).min(most)
}

/// Destage writes that may be in flight at this part of the log that was not moved yet: none below
/// where destaging starts, few there, all of them from the soft watermark on.
pub(crate) fn destage_depth(not_moved: u64) -> u32 {
    let (start, soft) = (percent(DESTAGE_START), percent(LOG_SOFT));
    if not_moved < start {
        return 0;
    }
    let over = (not_moved - start).min(soft - start);
    let more = over * u64::from(DESTAGE_FULL - DESTAGE_GENTLE) / (soft - start);
    DESTAGE_GENTLE + u32::try_from(more).expect("at most the full depth")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(permille: u64) -> u64 {
        (permille * WHOLE).div_ceil(1000)
    }

    #[test]
    fn delay_grows_smoothly_between_the_watermarks() {
        let golden: Vec<(u64, u64)> = [0, 700, 710, 720, 740, 760, 800, 850, 880, 900, 1000]
            .map(|permille| (permille, delay_ns(at(permille)) / 1000))
            .into();
        let expected = [
            (0, 0),
            (700, 0),
            (710, 0),
            (720, 10),
            (740, 160),
            (760, 810),
            (800, 6251),
            (850, 31650),
            (880, 65625),
            (900, 100_000),
            (1000, 100_000),
        ];
        assert_eq!(golden, expected, "permille of the log, microseconds");
        let steps = (1..=WHOLE).map(|load| delay_ns(load) - delay_ns(load - 1));
        // Never down, and never by more than the slope at the hard watermark.
        assert!(steps.max() < Some(DELAY_MAX_NS / 3000));
    }

    #[test]
    fn delay_is_shared_by_what_volumes_have_under_way() {
        assert_eq!(fair_delay_ns(1000, 32, 1, 32), 1000, "alone");
        assert_eq!(fair_delay_ns(1000, 32, 3, 96), 1000, "all alike");
        assert_eq!(fair_delay_ns(1000, 191, 2, 192), 1989);
        assert_eq!(fair_delay_ns(1000, 1, 2, 192), 10);
        assert_eq!(fair_delay_ns(1000, 900, 100, 1000), 4000, "no more than four times");
        assert_eq!(fair_delay_ns(DELAY_MAX_NS, 9, 2, 10), DELAY_MAX_NS, "nor than the longest");
        assert_eq!(fair_delay_ns(1000, 0, 0, 0), 0);
    }

    #[test]
    fn destager_goes_from_nothing_to_full_depth_without_a_step_back() {
        let golden = [0, 199, 201, 300, 500, 700, 1000].map(|permille| destage_depth(at(permille)));
        assert_eq!(golden, [0, 0, 4, 54, 155, 256, 256]);
        assert!((1..=WHOLE).all(|part| destage_depth(part) >= destage_depth(part - 1)));
    }

    #[test]
    fn what_a_checkpoint_gives_back_does_not_count_until_it_is_late() {
        assert_eq!(load(at(750), at(720)), at(720));
        assert_eq!(load(at(750), at(600)), at(750) - percent(PRESSED_SHARE));
        assert_eq!(share(5, 0), WHOLE, "a log without blocks is full");
        assert_eq!(share(1, 4), WHOLE / 4);
    }
}
