//! Decides when to restart a worker that died. The time is an argument.

use std::time::Duration;

/// A worker that lived less than this, or never served, died at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// After this many immediate deaths in a row, a service that has never served gives up.
pub const MOST_AT_ONCE: u32 = 5;
/// A worker that lived this long resets the backoff.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// The wait after the second death; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The deaths of one slot's workers.
#[derive(Default, Debug)]
pub(super) struct Backoff {
    deaths: u32,
    at_once: u32,
}

impl Backoff {
    /// Notes the death of a worker that lived this long. Returns how long to wait before starting the next one.
    pub fn died(&mut self, lived: Duration, served: bool) -> Duration {
        if lived >= FORGIVEN_AFTER {
            self.deaths = 0;
        }
        self.deaths = self.deaths.saturating_add(1);
        self.at_once = if served && lived >= AT_ONCE { 0 } else { self.at_once.saturating_add(1) };
        // After the first death, restart at once: clients wait.
        match self.deaths {
            1 => Duration::ZERO,
            deaths => FIRST_WAIT.saturating_mul(1 << (deaths - 2).min(16)).min(LONGEST_WAIT),
        }
    }

    /// Returns whether its workers have died at once too often.
    pub fn is_hopeless(&self) -> bool {
        self.at_once >= MOST_AT_ONCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_forgiven() {
        let mut backoff = Backoff::default();
        let lived = Duration::from_secs(2);
        let waits: Vec<u128> = (0..10).map(|_| backoff.died(lived, true).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(backoff.died(FORGIVEN_AFTER, true), Duration::ZERO);
    }

    #[test]
    fn five_deaths_at_once_are_too_many() {
        let mut backoff = Backoff::default();
        let mut died = |milliseconds, served| {
            backoff.died(Duration::from_millis(milliseconds), served);
            backoff.is_hopeless()
        };
        assert!((0..4).all(|_| !died(10, true)));
        assert!(!died(3_000, true));
        assert!((0..4).all(|_| !died(3_000, false)), "one that never served died at once, too");
        assert!(died(3_000, false) && died(10, true));
        assert!(!died(1_000, true), "one that served gives hope");
    }
}
