//! When a worker that died is started again, and when that is given up. Decides only; the time is an argument.

use std::time::Duration;

/// A worker that lived shorter than this, or never served, died at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So many deaths at once in a row, and the service stops: it would not get better.
pub const MOST_AT_ONCE: u32 = 5;
/// A worker that lived so long starts again as if none had died before.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// The wait after the second death; it doubles with each that follows.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The deaths of one slot's workers.
#[derive(Default, Debug)]
pub(super) struct Backoff {
    deaths: u32,
    at_once: u32,
}

impl Backoff {
    /// A worker died that lived so long. Says how long to wait for the next one; `None` to give up.
    pub fn died(&mut self, lived: Duration, served: bool) -> Option<Duration> {
        if lived >= FORGIVEN_AFTER {
            self.deaths = 0;
        }
        self.deaths += 1;
        self.at_once = if served && lived >= AT_ONCE { 0 } else { self.at_once + 1 };
        if self.at_once >= MOST_AT_ONCE {
            return None;
        }
        // The first death is met at once: clients wait.
        Some(match self.deaths {
            1 => Duration::ZERO,
            deaths => FIRST_WAIT.saturating_mul(1 << (deaths - 2).min(16)).min(LONGEST_WAIT),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_forgiven() {
        let mut backoff = Backoff::default();
        let lived = Duration::from_secs(2);
        let waits: Vec<u128> = (0..10).map(|_| backoff.died(lived, true).expect("goes on").as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(backoff.died(FORGIVEN_AFTER, true), Some(Duration::ZERO));
    }

    #[test]
    fn five_deaths_at_once_are_too_many() {
        let mut backoff = Backoff::default();
        for _ in 0..4 {
            assert!(backoff.died(Duration::from_millis(10), true).is_some());
        }
        assert!(backoff.died(Duration::from_secs(3), true).is_some());
        for _ in 0..4 {
            assert!(backoff.died(Duration::from_secs(3), false).is_some(), "one that never served died at once too");
        }
        assert_eq!(backoff.died(Duration::from_secs(3), false), None);
    }
}
