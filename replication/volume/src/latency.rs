//! A fixed log-linear histogram of durations, owned by one machine: no allocation, no atomics.

use std::time::Duration;

/// Durations below 2^FIRST ns share the first bucket.
const FIRST: u32 = 8;
/// Durations of 2^LAST ns (17 s) and more are overflow, in the last bucket.
const LAST: u32 = 34;
const PER_OCTAVE: usize = 8;
const BUCKETS: usize = 1 + (LAST - FIRST) as usize * PER_OCTAVE + 1;

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

fn bucket_of(ns: u64) -> usize {
    if ns < 1 << FIRST {
        return 0;
    }
    let octave = ns.ilog2();
    if octave >= LAST {
        return BUCKETS - 1;
    }
    // The three bits below the leading one.
    let eighth = usize::try_from(ns >> (octave - 3)).expect("four bits") & (PER_OCTAVE - 1);
    1 + (octave - FIRST) as usize * PER_OCTAVE + eighth
}

fn upper_bound_ns(bucket: usize) -> u64 {
    if bucket == 0 {
        return 1 << FIRST;
    }
    if bucket == BUCKETS - 1 {
        return u64::MAX;
    }
    let (octave, eighth) = ((bucket - 1) / PER_OCTAVE, (bucket - 1) % PER_OCTAVE);
    (PER_OCTAVE as u64 + eighth as u64 + 1) << (octave + FIRST as usize - 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_below_its_bound_and_not_below_the_one_before() {
        let edges = (FIRST..LAST + 2).flat_map(|bits| [(1u64 << bits) - 1, 1 << bits]);
        for ns in edges.chain([0, 1, u64::MAX - 1]) {
            let bucket = bucket_of(ns);
            assert!(ns < upper_bound_ns(bucket), "{ns} in {bucket}");
            assert!(bucket == 0 || ns >= upper_bound_ns(bucket - 1), "{ns} in {bucket}");
        }
    }

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
