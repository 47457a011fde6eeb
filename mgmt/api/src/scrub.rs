//! The scrub of a store: everything that is written is read and compared with its checksums.

use crate::limits::{SCRUB_RATE_DEFAULT, SCRUB_RATE_MIN};
use crate::{ApiError, ByteLen, StoreName};

/// How fast a scrub may read, in bytes a second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScrubRate(u64);

impl ScrubRate {
    /// The rate in bytes a second.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for ScrubRate {
    fn default() -> Self {
        Self(SCRUB_RATE_DEFAULT)
    }
}

impl TryFrom<u64> for ScrubRate {
    type Error = ApiError;

    fn try_from(bytes: u64) -> Result<Self, ApiError> {
        if bytes >= SCRUB_RATE_MIN {
            return Ok(Self(bytes));
        }
        let reason = format!("{bytes} bytes a second are too few for a scrub to get anywhere");
        let least = ByteLen::from_bytes(SCRUB_RATE_MIN);
        let hint = format!("give at least {least}, or pause the scrub");
        Err(ApiError::invalid("rate", reason, hint))
    }
}

impl std::str::FromStr for ScrubRate {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        text.parse::<ByteLen>()?.bytes().try_into()
    }
}

/// Whether a store is scrubbed, and how fast.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ScrubPolicy {
    /// How fast.
    pub rate: ScrubRate,
    /// Not at all, until it is resumed.
    pub paused: bool,
}

impl ScrubPolicy {
    /// Bytes a second; 0 when it is paused.
    #[must_use]
    pub const fn effective(self) -> u64 {
        if self.paused { 0 } else { self.rate.bytes() }
    }
}

/// What is wanted of the scrub of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScrubChange {
    /// The store; `None`: the only one there is.
    pub store: Option<StoreName>,
    /// What to do.
    pub verb: ScrubVerb,
}

/// What to do with a scrub.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScrubVerb {
    /// Begin a pass now, or go on with the one that was interrupted; `None` keeps the rate.
    Start(Option<ScrubRate>),
    /// Hold it, over restarts too.
    Pause,
    /// Go on when it is time; `None` keeps the rate.
    Resume(Option<ScrubRate>),
}

/// What the scrub of a store does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scrub {
    /// The store.
    pub store: StoreName,
    /// Whether and how fast it may go.
    pub policy: ScrubPolicy,
    /// How far it is.
    pub progress: ScrubProgress,
}

/// How far a scrub is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ScrubProgress {
    /// A pass is under way.
    pub running: bool,
    /// Bytes that this pass has covered, metadata included.
    pub covered: u64,
    /// Bytes that there are to be covered.
    pub total: u64,
    /// Damaged blocks and (copies of) metadata pages that this pass has found.
    pub found: u64,
    /// Those of them that were healed.
    pub healed: u64,
    /// When this pass will be over if it goes on like this.
    pub remaining_seconds: Option<u64>,
    /// Passes that came to their end since the store was created.
    pub passes: u64,
    /// When the last one did, in milliseconds since 1970, if that is known.
    pub finished_ms: Option<u64>,
    /// What the last one found.
    pub last_found: u64,
    /// Those of them that were healed.
    pub last_healed: u64,
    /// Until the next pass begins by itself, when none is under way.
    pub next_seconds: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_nothing_is_not_a_rate() {
        assert!(ScrubRate::try_from(SCRUB_RATE_MIN).is_ok());
        for bytes in [0, SCRUB_RATE_MIN - 1] {
            let error = ScrubRate::try_from(bytes).expect_err("too slow");
            assert!(error.hint().contains("64KiB"), "{}", error.hint());
        }
        assert_eq!("8MiB".parse::<ScrubRate>().expect("a rate"), ScrubRate::default());
    }

    #[test]
    fn a_paused_scrub_remembers_its_rate_and_does_not_use_it() {
        let policy = ScrubPolicy::default();
        assert_eq!(policy.effective(), SCRUB_RATE_DEFAULT);
        assert_eq!(ScrubPolicy { paused: true, ..policy }.effective(), 0);
    }
}
