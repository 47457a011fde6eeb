//! A fixed log-linear histogram of durations, owned by one machine: no allocation, no atomics.

use std::time::Duration;

use bdev::buckets::{BUCKETS, bucket_of, upper_bound_ns};

/// How long something took: eight buckets for each power of two, so that a bucket is at most 12.5 %
/// wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    count: u64,
    sum_ns: u64,
    buckets: [u64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { count: 0, sum_ns: 0, buckets: [0; BUCKETS] }
    }
}

impl Latency {
    /// Durations counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of all durations, in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Upper bound (exclusive, nanoseconds) and count of each bucket, ascending. The last one has
    /// no bound and is reported with `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(bucket, &count)| (upper_bound_ns(bucket), count))
    }

    /// The upper bound of the bucket that holds the duration which `permille` of a thousand do not
    /// exceed; zero when nothing was counted.
    pub fn quantile_ns(&self, permille: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(permille.min(1000))).div_ceil(1000);
        let mut seen = 0;
        for (bound, count) in self.buckets().filter(|&(_, count)| count > 0) {
            seen += u128::from(count);
            if seen >= rank {
                return bound;
            }
        }
        0
    }

    pub(crate) fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.buckets[bucket_of(ns)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_ns(990), 0);
        for us in 1..=1000 {
            latency.add(Duration::from_micros(us));
        }
        assert_eq!((latency.count(), latency.sum_ns()), (1000, 500_500_000));
        for permille in [1, 500, 990, 1000] {
            let (bound, exact) = (latency.quantile_ns(permille), permille * 1000);
            assert!(bound > exact && bound <= exact * 9 / 8 + 256, "{permille}: {bound}");
        }
    }
}
