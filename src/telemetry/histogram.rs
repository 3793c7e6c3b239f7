//! Durations counted in buckets, as in Prometheus's histograms.

/// Upper bounds of the buckets in nanoseconds, inclusive; one more bucket has no bound.
pub const BOUNDS_NANOSECONDS: [u64; 16] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

/// The bounds in seconds, as label values.
pub const BOUNDS_SECONDS: [&str; 16] = [
    "0.00001", "0.000025", "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025",
    "0.05", "0.1", "0.25", "0.5", "1",
];

const BUCKETS: usize = BOUNDS_NANOSECONDS.len() + 1;

/// Observations by bucket, followed by their sum in nanoseconds.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Histogram(pub [u64; BUCKETS + 1]);

impl Histogram {
    /// Counts `times` observations of this many nanoseconds.
    pub fn observe(&mut self, nanoseconds: u64, times: u64) {
        self.0[BOUNDS_NANOSECONDS.partition_point(|bound| *bound < nanoseconds)] += times;
        self.0[BUCKETS] += nanoseconds * times;
    }

    /// The number of observations in a histogram's words.
    pub fn count(words: &[u64]) -> u64 {
        words.iter().take(BUCKETS).sum()
    }

    /// The sum of the observations in a histogram's words, in seconds.
    pub fn sum_seconds(words: &[u64]) -> f64 {
        words.get(BUCKETS).map_or(0.0, |sum| *sum as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_the_same_in_both_units() {
        let mut histogram = Histogram::default();
        histogram.observe(10_000, 1);
        histogram.observe(10_001, 2);
        histogram.observe(2_000_000_000, 3);
        assert_eq!((histogram.0[0], histogram.0[1], histogram.0[16]), (1, 2, 3));
        assert_eq!(Histogram::count(&histogram.0), 6);
        assert!((Histogram::sum_seconds(&histogram.0) - 6.000030002).abs() < 1e-9);
        for (nanoseconds, seconds) in BOUNDS_NANOSECONDS.iter().zip(BOUNDS_SECONDS) {
            let seconds: f64 = seconds.parse().expect("a number");
            assert_eq!((seconds * 1e9).round() as u64, *nanoseconds);
        }
    }
}
