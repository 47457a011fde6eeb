//! A zipf distribution: rank `r` is drawn in proportion to `1 / r^0.99`.
//!
//! After J. Gray and others, "Quickly generating billion-record synthetic databases", 1994. Ranks
//! are scattered over the region, as hot blocks of a real volume are.

use bdev::Rng;

const THETA: f64 = 0.99;

/// A prime beyond any number of steps here, so that it scatters ranks without meeting twice.
const SCATTER: u64 = 68_718_952_447;

/// Draws numbers below a bound.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    steps: u64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// Numbers below `steps`.
    pub(crate) fn new(steps: u64) -> Zipf {
        assert!(steps > 0 && steps < SCATTER, "a region that is measured");
        let zeta: f64 = (1..=steps).map(|rank| (rank as f64).powf(-THETA)).sum();
        let eta = (1.0 - (2.0 / steps as f64).powf(1.0 - THETA)) / (1.0 - zeta_of_two() / zeta);
        Zipf { steps, zeta, eta }
    }

    /// The next number.
    pub(crate) fn draw(&self, rng: &mut Rng) -> u64 {
        let rank = self.rank(rng).min(self.steps - 1);
        let scattered = u128::from(rank) * u128::from(SCATTER) % u128::from(self.steps);
        u64::try_from(scattered).expect("below the steps")
    }

    fn rank(&self, rng: &mut Rng) -> u64 {
        // 53 bits: all that the fraction of a float holds.
        let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        if uniform * self.zeta < 1.0 {
            return 0;
        }
        if uniform * self.zeta < zeta_of_two() {
            return 1;
        }
        let share = (self.eta * uniform - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the steps, from zero to one"
        )]
        let rank = (self.steps as f64 * share) as u64;
        rank
    }
}

fn zeta_of_two() -> f64 {
    1.0 + 0.5f64.powf(THETA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_distribution() {
        let (zipf, mut rng) = (Zipf::new(1000), Rng::new(5));
        let mut ranks = vec![0u32; 1000];
        for _ in 0..100_000 {
            ranks[usize::try_from(zipf.rank(&mut rng).min(999)).unwrap()] += 1;
        }
        // 1 / zeta(1000) is 0.128; the first ten take 0.38.
        assert!((12_000..13_600).contains(&ranks[0]), "{}", ranks[0]);
        let ten: u32 = ranks[..10].iter().sum();
        assert!((36_000..41_000).contains(&ten), "{ten}");
        assert!(ranks[500..].iter().sum::<u32>() > 7000);
    }

    #[test]
    fn ranks_are_scattered_and_none_meet() {
        let zipf = Zipf::new(4096);
        let place = |rank: u64| u128::from(rank) * u128::from(SCATTER) % u128::from(zipf.steps);
        let mut places: Vec<u128> = (0..4096).map(place).collect();
        assert!(places[0].abs_diff(places[1]) > 16, "not neighbours");
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 4096);
    }
}
