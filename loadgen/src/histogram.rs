//! Latencies: HDR histograms with exact extremes, and a coarse one for each second of a run.

use hdrhistogram::Histogram;

/// The longest latency that is told apart: 10 minutes. Longer ones count as this long.
const HIGHEST_NS: u64 = 600_000_000_000;

/// A distribution of durations in nanoseconds, exact to three digits.
#[derive(Clone)]
pub struct Latencies {
    hist: Histogram<u64>,
    min: u64,
    max: u64,
    sum: u128,
}

impl Default for Latencies {
    fn default() -> Self {
        let hist = Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("the bounds are constants in order");
        Self { hist, min: u64::MAX, max: 0, sum: 0 }
    }
}

impl Latencies {
    /// Counts one duration.
    pub fn record(&mut self, ns: u64) {
        self.hist.saturating_record(ns.max(1));
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
        self.sum += u128::from(ns);
    }

    /// Adds another distribution: percentiles of shards cannot be averaged, histograms can be added.
    pub fn merge(&mut self, other: &Self) {
        self.hist.add(&other.hist).expect("all have the same bounds");
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.hist.len()
    }

    /// The longest, exact.
    pub fn max(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.max)
    }

    /// The shortest, exact.
    pub fn min(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.min)
    }

    /// The mean.
    pub fn mean(&self) -> Option<u64> {
        let n = self.count();
        (n > 0).then(|| (self.sum / u128::from(n)) as u64)
    }

    /// The duration that a share `q` (0 to 1) of all does not exceed; None without any.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        (self.count() > 0).then(|| self.hist.value_at_quantile(q).clamp(self.min, self.max))
    }

    /// Whether there are enough samples beyond the quantile to speak of it: with fewer than four, no confidence interval
    /// has an upper end.
    pub fn supports(&self, q: f64) -> bool {
        self.count() as f64 * (1.0 - q) >= 4.0 - 1e-9
    }

    /// Points of the distribution for a plot: a share of requests and the duration it stays within, denser towards 1.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        if self.count() == 0 {
            return Vec::new();
        }
        let steps = self.hist.iter_quantiles(4);
        let mut points: Vec<_> = steps
            .map(|v| (v.quantile_iterated_to(), v.value_iterated_to().clamp(self.min, self.max)))
            .filter(|(q, _)| *q < 1.0)
            .collect();
        points.push((1.0, self.max));
        points
    }
}

impl std::fmt::Debug for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Latencies(n {}, max {} ns)", self.count(), self.max)
    }
}

/// Buckets of [`Coarse`]: four to a doubling, from 1 µs on.
pub const COARSE_BUCKETS: usize = 100;

/// A small distribution with four buckets to a doubling, for one second of a run.
#[derive(Clone, Debug)]
pub struct Coarse(pub [u32; COARSE_BUCKETS]);

impl Default for Coarse {
    fn default() -> Self {
        Self([0; COARSE_BUCKETS])
    }
}

impl Coarse {
    /// Counts one duration.
    pub fn record(&mut self, ns: u64) {
        let bucket = &mut self.0[Self::bucket(ns)];
        *bucket = bucket.saturating_add(1);
    }

    fn bucket(ns: u64) -> usize {
        let us = ns / 1000;
        if us < 4 {
            return us as usize;
        }
        let exponent = us.ilog2();
        let quarter = (us >> (exponent - 2)) & 3;
        ((exponent as usize - 1) * 4 + quarter as usize).min(COARSE_BUCKETS - 1)
    }

    /// The upper end of a bucket in nanoseconds.
    pub fn upper(bucket: usize) -> u64 {
        if bucket < 4 {
            return (bucket as u64 + 1) * 1000;
        }
        let (exponent, quarter) = ((bucket / 4 + 1) as u32, (bucket % 4) as u64);
        ((4 + quarter + 1) << (exponent - 2)) * 1000
    }

    /// Adds another second's.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a = a.saturating_add(b);
        }
    }

    /// The upper end of the bucket in which the quantile lies.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total: u64 = self.0.iter().map(|&n| u64::from(n)).sum();
        let rank = ((total as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        self.0
            .iter()
            .position(|&n| {
                seen += u64::from(n);
                seen >= rank
            })
            .map(Self::upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_three_digits_and_never_beyond_the_extremes() {
        let mut l = Latencies::default();
        for i in 1..=10_000u64 {
            l.record(i * 1_000);
        }
        let close = |q: f64, want: u64| {
            let got = l.quantile(q).unwrap();
            assert!(got.abs_diff(want) <= want / 500, "p{q}: {got}, not {want}");
        };
        close(0.5, 5_000_000);
        close(0.99, 9_900_000);
        close(0.999, 9_990_000);
        assert_eq!(l.quantile(1.0), Some(10_000_000));
        assert_eq!(l.max(), Some(10_000_000));
        assert_eq!(l.min(), Some(1_000));
    }

    #[test]
    fn shards_add_up_to_the_whole() {
        let (mut fast, mut slow, mut all) =
            (Latencies::default(), Latencies::default(), Latencies::default());
        for i in 0..1000u64 {
            fast.record(1_000_000 + i);
            all.record(1_000_000 + i);
        }
        for i in 0..50u64 {
            slow.record(40_000_000 + i);
            all.record(40_000_000 + i);
        }
        fast.merge(&slow);
        for q in [0.5, 0.9, 0.99, 0.999] {
            assert_eq!(fast.quantile(q), all.quantile(q), "{q}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_kept() {
        let mut l = Latencies::default();
        l.record(0);
        l.record(u64::MAX);
        assert_eq!(l.count(), 2);
        assert_eq!(l.max(), Some(u64::MAX));
    }

    #[test]
    fn a_percentile_needs_samples_beyond_it() {
        let mut l = Latencies::default();
        assert_eq!(l.quantile(0.5), None);
        for _ in 0..400 {
            l.record(5);
        }
        assert!(l.supports(0.99));
        assert!(!l.supports(0.999));
    }

    #[test]
    fn coarse_buckets_cover_their_values() {
        for ns in [0, 999, 1_000, 3_999, 4_000, 5_500, 1_000_000, 999_999_999, 59_000_000_000] {
            let upper = Coarse::upper(Coarse::bucket(ns));
            assert!(
                upper > ns && upper as f64 <= (ns as f64 * 1.26).max(ns as f64 + 1001.0),
                "{ns}: {upper}"
            );
        }
        let mut c = Coarse::default();
        c.record(u64::MAX);
        assert!(c.quantile(0.5).is_some());
    }
}
