//! Counts and times taken while a run measures.

use hdrhistogram::Histogram;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest time that a histogram distinguishes from longer ones.
const LONGEST: Duration = Duration::from_secs(3600);
/// Significant digits of histograms.
const DIGITS: u8 = 3;

/// Times, with a relative precision of a thousandth.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Times {
    /// Makes an empty histogram.
    pub fn new() -> Times {
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS);
        Times(histogram.expect("the bounds are apart and the digits few"))
    }

    /// Adds a time, in nanoseconds.
    #[inline]
    pub fn add(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// The contents as pairs of a time and its count, as [`Times::add_pairs`] takes them.
    pub fn pairs(&self) -> Vec<u64> {
        self.0.iter_recorded().flat_map(|step| [step.value_iterated_to(), step.count_at_value()]).collect()
    }

    /// Adds the times of another process.
    pub fn add_pairs(&mut self, pairs: &[u64]) {
        for pair in pairs.chunks_exact(2) {
            self.0.saturating_record_n(pair[0], pair[1]);
        }
    }

    fn take_from(&mut self, other: &mut Times) {
        self.0 += &other.0;
        other.0.reset();
    }

    /// The number of times.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that `percent` percent of all do not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percent))
    }

    /// The shortest.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.0.min())
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }
}

/// A second of a run, or the rest of the last one.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// Its end, since measuring began.
    pub end: Duration,
    /// Its length.
    pub length: Duration,
    /// Answers, deliveries or handshakes in it.
    pub count: u64,
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
}

/// Errors by kind: the count, and the text of the first.
pub type Errors = BTreeMap<Cow<'static, str>, (u64, String)>;

/// See the module.
pub struct Record {
    /// Latency of messages or deliveries.
    pub latency: Times,
    /// Latency of those that arrived after measuring had ended.
    pub late: Times,
    /// Time from ordering a connection until it is open.
    pub handshake: Times,
    /// One for each second.
    pub intervals: Vec<Interval>,
    /// All errors, including those before measuring began.
    pub errors: Errors,
    /// Messages published.
    pub published: u64,
    current: Times,
    began: Duration,
    interval_began: Duration,
}

impl Record {
    /// Makes an empty record.
    pub fn new() -> Record {
        Record {
            latency: Times::new(),
            late: Times::new(),
            handshake: Times::new(),
            intervals: Vec::new(),
            errors: Errors::new(),
            published: 0,
            current: Times::new(),
            began: Duration::ZERO,
            interval_began: Duration::ZERO,
        }
    }

    /// Begins measuring. Earlier times were warm-up, if there was one; else another process began a moment sooner.
    pub fn begin(&mut self, now: Duration, has_warmup: bool) {
        if has_warmup {
            self.current = Times::new();
        }
        (self.began, self.interval_began) = (now, now);
    }

    /// Counts an answer that took this long.
    #[inline]
    pub fn answer(&mut self, nanoseconds: u64) {
        self.current.add(nanoseconds);
    }

    /// Ends an interval and returns it; `None` if no time has passed and nothing came.
    pub fn end_interval(&mut self, now: Duration) -> Option<Interval> {
        let length = now.saturating_sub(self.interval_began);
        if length.is_zero() && self.current.count() == 0 {
            return None;
        }
        self.interval_began = now;
        Some(self.push_interval(now.saturating_sub(self.began), length))
    }

    /// Times since the last interval, as pairs of a time and its count.
    pub fn current_pairs(&self) -> Vec<u64> {
        self.current.pairs()
    }

    /// Adds an interval of other processes, with the times of all of them.
    pub fn add_interval(&mut self, end: Duration, length: Duration, pairs: &[u64]) -> Interval {
        self.current.add_pairs(pairs);
        self.push_interval(end, length)
    }

    fn push_interval(&mut self, end: Duration, length: Duration) -> Interval {
        let current = &mut self.current;
        let (p50, p99) = (current.percentile(50.0), current.percentile(99.0));
        let interval = Interval { end, length, count: current.count(), p50, p99 };
        self.latency.take_from(current);
        self.intervals.push(interval);
        interval
    }

    /// Compares deliveries with what was published: whether any arrived, how many subscribers miss the last messages,
    /// and how many messages they miss in total.
    pub fn compare(&mut self, published: u32, delivered: bool, (subscribers, missing): (u64, u64)) {
        if published > 0 && !delivered {
            return self.error("no delivery", || "no subscriber received what the publisher sent".into());
        }
        self.errors("missing delivery", missing, || {
            format!("the last messages did not reach {subscribers} subscribers")
        });
    }

    /// The time measured, up to the end of the last interval.
    pub fn measured(&self) -> Duration {
        self.intervals.last().map_or(Duration::ZERO, |interval| interval.end)
    }

    /// Counts an error.
    pub fn error(&mut self, kind: impl Into<Cow<'static, str>>, said: impl FnOnce() -> String) {
        self.errors(kind, 1, said);
    }

    /// Counts an error that occurred `count` times.
    #[cold]
    pub fn errors(&mut self, kind: impl Into<Cow<'static, str>>, count: u64, said: impl FnOnce() -> String) {
        if count > 0 {
            self.errors.entry(kind.into()).or_insert_with(|| (0, said())).0 += count;
        }
    }

    /// The number of errors.
    pub fn error_count(&self) -> u64 {
        self.errors.values().map(|(count, _)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_to_another_process_and_are_the_same() {
        let (mut here, mut there) = (Times::new(), Times::new());
        for time in [0, 1, 999, 1_000_000, 1_000_000, 123_456_789, u64::MAX] {
            here.add(time);
        }
        there.add_pairs(&here.pairs());
        assert_eq!(there.count(), 7);
        assert_eq!((there.min(), there.max(), there.mean()), (here.min(), here.max(), here.mean()));
        assert!([50.0, 90.0, 99.0].iter().all(|percent| there.percentile(*percent) == here.percentile(*percent)));
        // An incomplete pair is left out, as are fields of another version.
        there.add_pairs(&[5]);
        assert_eq!(there.count(), 7);
    }
}
