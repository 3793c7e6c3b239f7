//! When to try Redis again. Decides only: the time and the dice are arguments.

use std::time::Duration;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Attempts that failed in a row.
#[derive(Default, Debug)]
pub struct Retry {
    failures: u32,
}

impl Retry {
    /// An attempt failed, or a connection that had lasted so long was lost. Says how long to wait: twice as long each time,
    /// less up to a half by `dice` (0 to 1), so that not all bridges come back in one moment.
    pub fn failed(&mut self, lasted: Duration, dice: f64) -> Duration {
        // What is lost at once again and again is not there yet.
        if lasted >= LONGEST_WAIT {
            self.failures = 0;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 - dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_forgiven() {
        let mut retry = Retry::default();
        let waits: Vec<u128> = (0..9).map(|_| retry.failed(Duration::ZERO, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(retry.failed(Duration::from_secs(1), 1.0), Duration::from_secs(5));
        assert_eq!(retry.failed(LONGEST_WAIT, 1.0), Duration::from_millis(50));
    }
}
