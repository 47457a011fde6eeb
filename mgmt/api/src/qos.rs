//! Limits on what a volume may take of its store.

use std::fmt;

use crate::{ApiError, ByteLen, VolumeName};

/// How fast the hosts of a volume may be served. What is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Qos {
    iops: Option<Rate>,
    bandwidth: Option<Rate>,
}

/// A rate, and how much of it may come at once after a quiet time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Operations, or bytes, in a second.
    pub per_second: u64,
    /// Operations, or bytes, at once; at least those of a second.
    pub burst: u64,
}

/// Fewest operations a second that a limit may allow.
const IOPS_MIN: u64 = 1;

/// Fewest bytes a second that a limit may allow: the largest request fits into a second.
const BANDWIDTH_MIN: u64 = 1 << 20;

/// The largest limit. More than any device does, and far from any overflow.
const RATE_MAX: u64 = 1 << 40;

impl Qos {
    /// Limits on operations and on bytes.
    ///
    /// # Errors
    /// `InvalidArgument` when a rate is too small to serve anything or absurdly large, or a burst
    /// is below its rate.
    pub fn new(iops: Option<Rate>, bandwidth: Option<Rate>) -> Result<Self, ApiError> {
        check("iops", iops, IOPS_MIN)?;
        check("bandwidth", bandwidth, BANDWIDTH_MIN)?;
        Ok(Self { iops, bandwidth })
    }

    /// Operations.
    #[must_use]
    pub fn iops(&self) -> Option<Rate> {
        self.iops
    }

    /// Bytes.
    #[must_use]
    pub fn bandwidth(&self) -> Option<Rate> {
        self.bandwidth
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

fn check(field: &str, rate: Option<Rate>, min: u64) -> Result<(), ApiError> {
    let Some(Rate { per_second, burst }) = rate else { return Ok(()) };
    if !(min..=RATE_MAX).contains(&per_second) {
        let reason = format!("{per_second} a second cannot be a limit");
        return Err(ApiError::invalid(field, reason, format!("use {min} to {RATE_MAX}")));
    }
    if !(per_second..=RATE_MAX).contains(&burst) {
        let reason = format!("a burst of {burst} does not fit {per_second} a second");
        let hint = format!("use {per_second} to {RATE_MAX}");
        return Err(ApiError::invalid(format!("{field}_burst"), reason, hint));
    }
    Ok(())
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(Rate { per_second, burst }) = self.iops {
            parts.push(format!("{per_second} operations/s (burst {burst})"));
        }
        if let Some(Rate { per_second, burst }) = self.bandwidth {
            let [rate, burst] = [per_second, burst].map(ByteLen::from_bytes);
            parts.push(format!("{rate}/s (burst {burst})"));
        }
        let text = if parts.is_empty() { "unlimited".to_owned() } else { parts.join(", ") };
        f.pad(&text)
    }
}

/// Sets the limits of a volume, all of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeQos {
    /// The volume.
    pub name: VolumeName,
    /// Its limits from now on.
    pub qos: Qos,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_serves_something_and_a_burst_is_no_less_than_its_rate() {
        let rate = |per_second, burst| Some(Rate { per_second, burst });
        assert!(Qos::new(rate(1, 1), rate(1 << 20, 1 << 20)).is_ok());
        assert!(Qos::new(rate(0, 1), None).is_err());
        assert!(Qos::new(rate(10, 9), None).is_err());
        assert!(Qos::new(None, rate((1 << 20) - 1, 1 << 20)).is_err());
        assert!(Qos::new(rate(RATE_MAX, RATE_MAX), None).is_ok());
        assert!(Qos::new(rate(RATE_MAX, RATE_MAX + 1), None).is_err());
        let qos = Qos::new(rate(100, 200), rate(10 << 20, 20 << 20)).unwrap();
        assert_eq!(qos.to_string(), "100 operations/s (burst 200), 10MiB/s (burst 20MiB)");
        assert_eq!(Qos::default().to_string(), "unlimited");
    }
}
