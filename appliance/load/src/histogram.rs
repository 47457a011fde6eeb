//! A latency histogram of fixed size: exact below 64 ns, within 1.6 % above.
//!
//! The live counters of `node` have buckets of an eighth, shared between threads; percentiles that
//! are compared with other targets need finer ones, and one thread.

use std::time::Duration;

/// Sub-buckets of each power of two, as a power of two.
const SUB_BITS: u32 = 6;
/// Sub-buckets of each power of two.
const SUB: usize = 1 << SUB_BITS;
/// Samples of 2^40 ns (18 minutes) and more share the last bucket.
const OCTAVES: usize = 40 - SUB_BITS as usize;
/// All buckets: the exact ones, then the sub-buckets of each octave.
const BUCKETS: usize = SUB * (OCTAVES + 1);

/// Counts of samples in log-linear buckets. All memory is allocated when it is made.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Histogram {
        Histogram {
            buckets: vec![0; BUCKETS].into(),
            count: 0,
            sum_ns: 0,
            min_ns: u64::MAX,
            max_ns: 0,
        }
    }

    /// Adds a sample.
    pub fn record(&mut self, ns: u64) {
        self.buckets[bucket_of(ns)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        (self.count, self.sum_ns) = (0, 0);
        (self.min_ns, self.max_ns) = (u64::MAX, 0);
    }

    /// How many samples there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest sample; zero when there are none.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(if self.count == 0 { 0 } else { self.min_ns })
    }

    /// The largest sample.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The mean of the samples; zero when there are none.
    pub fn mean(&self) -> Duration {
        let mean = self.sum_ns.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).expect("a mean of 64-bit numbers"))
    }

    /// The smallest value that at least `share` of ten thousand samples do not exceed (9990 is the
    /// 99.9th percentile), rounded up to the end of its bucket but never above the largest sample.
    /// Zero without samples.
    pub fn percentile(&self, share: u64) -> Duration {
        let wanted = u128::from(self.count) * u128::from(share.min(10_000));
        let wanted = u64::try_from(wanted.div_ceil(10_000)).expect("at most the count").max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(last_of(index).min(self.max_ns));
            }
        }
        Duration::ZERO
    }
}

/// The bucket of a sample.
fn bucket_of(ns: u64) -> usize {
    let Some(octave) = ns.checked_ilog2().filter(|bits| *bits >= SUB_BITS) else {
        return usize::try_from(ns).expect("below the number of exact buckets");
    };
    let shift = octave - SUB_BITS;
    let index = (u64::from(shift) << SUB_BITS) + (ns >> shift);
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The largest sample of a bucket.
fn last_of(index: usize) -> u64 {
    if index == BUCKETS - 1 {
        return u64::MAX;
    }
    if index < SUB {
        return index as u64;
    }
    let shift = (index >> SUB_BITS) - 1;
    let first = ((index & (SUB - 1)) | SUB) as u64;
    ((first + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdev::Rng;

    #[test]
    fn every_sample_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut rng = Rng::new(1);
        for _ in 0..20_000 {
            let ns = rng.next_u64() >> (25 + rng.below(39));
            let index = bucket_of(ns);
            let last = last_of(index);
            assert!(ns <= last, "{ns} is above bucket {index}");
            assert!(index == 0 || ns > last_of(index - 1), "{ns} is below bucket {index}");
            assert!((last - ns) * 60 <= ns.max(60), "bucket {index} is wide");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(1 << 40), BUCKETS - 1);
        assert_eq!(bucket_of((1 << 40) - 1), BUCKETS - 1);
    }

    #[test]
    fn percentiles_agree_with_the_sorted_samples() {
        let mut rng = Rng::new(2);
        let mut histogram = Histogram::new();
        let mut samples: Vec<u64> = (0..5000).map(|_| 500 + rng.below(2_000_000)).collect();
        samples.iter().for_each(|ns| histogram.record(*ns));
        samples.sort_unstable();
        for share in [1, 5000, 9900, 9990, 9999, 10_000] {
            let rank = (samples.len() as u64 * share).div_ceil(10_000);
            let exact = samples[usize::try_from(rank).unwrap() - 1];
            let found = u64::try_from(histogram.percentile(share).as_nanos()).unwrap();
            assert!(found >= exact && (found - exact) * 60 <= exact, "{share}: {found} {exact}");
        }
        assert_eq!(histogram.percentile(10_000), histogram.max());
        assert_eq!(histogram.count(), 5000);
        assert_eq!(histogram.min().as_nanos(), u128::from(samples[0]));
    }

    #[test]
    fn merged_is_the_same_as_recorded_together() {
        let (mut a, mut b, mut both) = (Histogram::new(), Histogram::new(), Histogram::new());
        for ns in 0..1000 {
            if ns % 3 == 0 {
                a.record(ns)
            } else {
                b.record(ns)
            }
            both.record(ns);
        }
        a.merge(&b);
        assert_eq!((a.count(), a.mean(), a.max()), (both.count(), both.mean(), both.max()));
        assert_eq!(a.min(), both.min());
        assert_eq!(a.percentile(9000), both.percentile(9000));
        a.clear();
        assert_eq!((a.count(), a.percentile(5000), a.min()), (0, Duration::ZERO, Duration::ZERO));
    }
}
