//! The buckets of log-linear histograms of durations: eight for each power of two, so that a bucket
//! is at most 12.5 % wide. Who counts, and with which atomics, is up to the histogram.

/// Durations below 2^FIRST ns share the first bucket.
const FIRST: u32 = 8;
/// Durations of 2^LAST ns (17 s) and more are overflow, in the last bucket.
const LAST: u32 = 34;
const PER_OCTAVE: usize = 8;

/// How many buckets there are.
pub const BUCKETS: usize = 1 + (LAST - FIRST) as usize * PER_OCTAVE + 1;

/// The bucket that holds a duration.
pub fn bucket_of(ns: u64) -> usize {
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

/// The upper bound (exclusive, nanoseconds) of a bucket; `u64::MAX` for the last one.
pub fn upper_bound_ns(bucket: usize) -> u64 {
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
        let edges =
            (FIRST..LAST + 2).flat_map(|bits| [(1u64 << bits) - 1, 1 << bits, 3 << (bits - 1)]);
        for ns in edges.chain([0, 1, u64::MAX - 1]) {
            let bucket = bucket_of(ns);
            assert!(ns < upper_bound_ns(bucket), "{ns} in {bucket}");
            assert!(bucket == 0 || ns >= upper_bound_ns(bucket - 1), "{ns} in {bucket}");
        }
    }
}
