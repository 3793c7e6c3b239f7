//! When to retry a failed connection. Only decides: the time and the random number are arguments.

use std::time::Duration;

/// Consecutive failed attempts.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Retry {
    /// Waits for `first`, then twice as long each time, up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Retry {
        Retry { first, longest, failures: 0 }
    }

    /// An attempt failed, or a connection was lost after `lasted`. Returns how long to wait: shortened by up to half,
    /// by `dice` (0 to 1), so that the waiting clients do not all return at once.
    pub fn failed(&mut self, lasted: Duration, dice: f64) -> Duration {
        // A connection that keeps failing right away has not recovered: keep backing off.
        if lasted >= self.longest {
            self.failures = 0;
        }
        let wait = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 - dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_forgiven() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut retry = Retry::new(first, longest);
        let waits: Vec<u128> = (0..9).map(|_| retry.failed(Duration::ZERO, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(retry.failed(Duration::from_secs(1), 1.0), Duration::from_secs(5));
        assert_eq!(retry.failed(longest, 1.0), Duration::from_millis(50));
    }
}
