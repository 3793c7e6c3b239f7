//! Whether a loop still runs, judged by the number of passes that it reports. Only decides; the time is an argument.
//!
//! Invariant: a look adds at most the time between two looks, so that time in which the watcher itself was stopped, as
//! with its whole service, does not count against the loop.

use std::time::Duration;

/// A watched loop makes a pass at least this often, and is looked at as often.
const EVERY: Duration = Duration::from_millis(500);
/// Looks per hang timeout, if that is short.
const LOOKS: u32 = 20;
/// A loop without a pass for this fraction of the hang timeout stalls: new clients need not wait until it is given up.
const STALL: u32 = 5;

/// How often a loop must make a pass, if it counts as hung after `hang_timeout`.
pub fn pass_every(hang_timeout: Duration) -> Duration {
    if hang_timeout.is_zero() { EVERY } else { EVERY.min(hang_timeout / LOOKS) }
}

/// What is known about a loop.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pulse {
    passes: u64,
    looked: Duration,
    stood: Duration,
}

impl Pulse {
    /// Starts watching a loop.
    pub fn new(now: Duration) -> Pulse {
        Pulse { looked: now, ..Pulse::default() }
    }

    /// Looks at a loop with this number of passes. Returns how long it has made none.
    pub fn look(&mut self, passes: u64, now: Duration, hang_timeout: Duration) -> Duration {
        let since = now.saturating_sub(self.looked).min(pass_every(hang_timeout));
        self.stood = if passes == self.passes { self.stood + since } else { Duration::ZERO };
        (self.passes, self.looked) = (passes, now);
        self.stood
    }

    /// How long it had made no pass at the last look.
    pub fn stood(&self) -> Duration {
        self.stood
    }

    /// Whether it has made a pass at all. A loop that never did may be unable to report any.
    pub fn has_begun(&self) -> bool {
        self.passes > 0
    }

    /// Whether a loop that has begun is stalled, so that others should do its work meanwhile.
    pub fn stalls(&self, hang_timeout: Duration) -> bool {
        self.stands_for(hang_timeout / STALL, hang_timeout)
    }

    /// Whether a loop that has begun must be given up.
    pub fn hangs(&self, hang_timeout: Duration) -> bool {
        self.stands_for(hang_timeout, hang_timeout)
    }

    fn stands_for(&self, time: Duration, hang_timeout: Duration) -> bool {
        !hang_timeout.is_zero() && self.has_begun() && self.stood >= time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANG: Duration = Duration::from_secs(10);

    /// Looks every half second, for this many seconds, at a loop that has made one pass.
    fn stands(seconds: u64) -> Pulse {
        let mut pulse = Pulse::new(Duration::ZERO);
        for look in 1..=2 * seconds + 1 {
            pulse.look(1, look as u32 * EVERY, HANG);
        }
        pulse
    }

    #[test]
    fn a_loop_that_stands_stalls_and_then_hangs() {
        assert!(!stands(1).stalls(HANG));
        assert!(stands(2).stalls(HANG) && !stands(9).hangs(HANG));
        assert!(stands(10).hangs(HANG) && stands(10).stood() == HANG);
        assert!(!stands(10).hangs(Duration::ZERO), "nobody wants to know");
    }

    #[test]
    fn one_pass_is_enough() {
        let mut pulse = stands(9);
        pulse.look(2, Duration::from_secs(10), HANG);
        assert!(!pulse.stalls(HANG) && pulse.stood().is_zero());
    }

    #[test]
    fn time_in_which_nobody_looked_is_not_held_against_it() {
        let mut pulse = stands(0);
        pulse.look(1, Duration::from_secs(3600), HANG);
        assert_eq!(pulse.stood(), EVERY);
    }

    #[test]
    fn one_that_never_showed_a_pass_is_not_judged() {
        let mut pulse = Pulse::new(Duration::ZERO);
        for look in 0..100 {
            pulse.look(0, look * EVERY, HANG);
        }
        assert!(!pulse.has_begun() && !pulse.hangs(HANG) && pulse.stood() >= HANG);
    }

    #[test]
    fn a_short_timeout_is_looked_at_more_often() {
        assert_eq!(pass_every(Duration::from_secs(1)), Duration::from_millis(50));
        assert_eq!((pass_every(HANG), pass_every(Duration::ZERO)), (EVERY, EVERY));
    }
}
