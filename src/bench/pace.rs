//! Due times at a constant rate, independent of earlier results.

use std::time::Duration;

/// A rate and its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    begin: Duration,
    per_second: f64,
    done: u64,
}

impl Pace {
    /// Makes a pace whose first event is due at `begin`.
    pub fn new(begin: Duration, per_second: f64) -> Pace {
        Pace { begin, per_second, done: 0 }
    }

    /// Returns when the next is due.
    pub fn next(&self) -> Duration {
        self.begin + Duration::from_secs_f64(self.done as f64 / self.per_second)
    }

    /// Takes the next if it is due, and returns when it was due.
    pub fn take(&mut self, now: Duration) -> Option<Duration> {
        let due = self.next();
        (due <= now).then(|| {
            self.done += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_made_up_for_with_the_times_that_were_meant() {
        let mut pace = Pace::new(Duration::from_secs(1), 1000.0);
        assert_eq!(pace.take(Duration::from_millis(999)), None);
        assert_eq!(pace.take(Duration::from_secs(1)), Some(Duration::from_secs(1)));
        let late: Vec<Duration> = std::iter::from_fn(|| pace.take(Duration::from_millis(1004))).collect();
        assert_eq!(late, [1001, 1002, 1003, 1004].map(Duration::from_millis));
        assert_eq!(pace.next(), Duration::from_millis(1005));
    }
}
