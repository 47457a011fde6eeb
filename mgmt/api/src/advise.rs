//! How large a log should be. Pure arithmetic: nothing is measured here.
//!
//! A log absorbs what hosts write faster than the drive destages. In steady state a fifth of it is
//! not destaged (so that overwrites meet in it) and up to half of it waits for a checkpoint; from
//! 70 % on writers are slowed. A burst that nobody shall feel must fit between the two, whatever
//! the moment: 30 % is there in the middle of it.

use crate::limits::LOG_BYTES_MAX;
use crate::{ApiError, ByteLen, StoreName};

/// What the log has to bear.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogDemand {
    /// Bytes a second that hosts write in a burst.
    pub write_rate: ByteLen,
    /// Bytes a second that the drive destages meanwhile: for small random writes about half of what
    /// it writes at most.
    pub destage_rate: ByteLen,
    /// How long a burst is, in seconds.
    pub burst_seconds: u64,
}

/// Advice that a node is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreAdvise {
    /// What the log has to bear.
    pub demand: LogDemand,
    /// Judge the log of this store; `None`: say which log would do.
    pub store: Option<StoreName>,
}

/// What a log of some size does under a demand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogAdvice {
    /// The size.
    pub log: ByteLen,
    /// Seconds of such writes until writers are slowed; `None`: never, the drive keeps up.
    pub seconds_until_slow: Option<u64>,
    /// Whether it bears the whole burst.
    pub is_enough: bool,
}

/// Percent of the log between where it runs and where writers are slowed.
const BAND_PERCENT: u128 = 30;

/// Headers beside the data, as a fraction: a ninth more is plenty for writes of 4 KiB at depth.
const OVERHEAD: (u128, u128) = (10, 9);

/// Smallest and largest log that is advised. A larger one takes long to recover.
const LOG_MIN: u64 = 64 << 20;
const LOG_MAX: u64 = LOG_BYTES_MAX;

/// The smallest log, in whole MiB, that bears a demand.
///
/// # Errors
/// `InvalidArgument` when a rate is zero, or no log up to 64 GiB is enough: then the drive is too
/// slow for the burst.
pub fn advise_log(demand: LogDemand) -> Result<LogAdvice, ApiError> {
    let excess = excess(demand)?;
    let burst = excess.saturating_mul(u128::from(demand.burst_seconds));
    let bytes = burst.saturating_mul(OVERHEAD.0) / OVERHEAD.1;
    let bytes = bytes.saturating_mul(100).div_ceil(BAND_PERCENT).div_ceil(1 << 20) << 20;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).max(LOG_MIN);
    if bytes > LOG_MAX {
        let reason = "no log of up to 64GiB bears such a burst";
        let hint = "ask for a shorter burst, or use a faster drive";
        return Err(ApiError::invalid("burst_seconds", reason, hint));
    }
    judge_log(demand, ByteLen::from_bytes(bytes))
}

/// What a log of this size does under a demand.
///
/// # Errors
/// `InvalidArgument` when a rate is zero.
pub fn judge_log(demand: LogDemand, log: ByteLen) -> Result<LogAdvice, ApiError> {
    let excess = excess(demand)?;
    let band = u128::from(log.bytes()) * BAND_PERCENT / 100 * OVERHEAD.1 / OVERHEAD.0;
    let seconds =
        band.checked_div(excess).map(|seconds| u64::try_from(seconds).unwrap_or(u64::MAX));
    let is_enough = seconds.is_none_or(|seconds| seconds >= demand.burst_seconds);
    Ok(LogAdvice { log, seconds_until_slow: seconds, is_enough })
}

/// Bytes a second that stay in the log.
fn excess(demand: LogDemand) -> Result<u128, ApiError> {
    for (field, rate) in [("write_rate", demand.write_rate), ("destage_rate", demand.destage_rate)]
    {
        if rate.bytes() == 0 {
            return Err(ApiError::invalid(field, "the rate is zero", "give bytes a second"));
        }
    }
    Ok(u128::from(demand.write_rate.bytes().saturating_sub(demand.destage_rate.bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn demand(write: u64, destage: u64, burst_seconds: u64) -> LogDemand {
        let [write_rate, destage_rate] = [write, destage].map(|r| ByteLen::from_bytes(r * MIB));
        LogDemand { write_rate, destage_rate, burst_seconds }
    }

    #[test]
    fn advice_is_the_smallest_log_that_bears_the_burst() {
        // MiB/s written, MiB/s destaged, seconds: MiB of log, seconds until writers are slowed.
        let golden = [
            ((100, 200, 3600), (64, None)),
            ((200, 200, 3600), (64, None)),
            ((210, 200, 1), (64, Some(1))),
            ((400, 200, 10), (7408, Some(10))),
            ((1000, 400, 10), (22_223, Some(10))),
            ((1000, 400, 28), (62_223, Some(28))),
        ];
        for ((write, destage, burst), (mib, seconds)) in golden {
            let asked = demand(write, destage, burst);
            let advice = advise_log(asked).expect("possible");
            assert_eq!((advice.log.bytes() / MIB, advice.seconds_until_slow), (mib, seconds));
            assert!(advice.is_enough);
            if mib > 64 {
                let less = ByteLen::from_bytes((mib - 1) * MIB);
                assert!(!judge_log(asked, less).expect("good rates").is_enough, "{mib} MiB");
            }
        }
    }

    #[test]
    fn impossible_demands_are_refused_with_a_hint() {
        assert!(advise_log(demand(1000, 400, 30)).is_err(), "beyond 64 GiB");
        assert!(advise_log(demand(u64::MAX / MIB, 1, u64::MAX)).is_err());
        assert!(advise_log(demand(0, 400, 30)).is_err());
        assert!(judge_log(demand(1, 0, 30), ByteLen::from_bytes(MIB)).is_err());
    }
}
