//! Chooses the origin to call: balances calls, skips an origin that fails, and retries it with a single call.

use super::rules::Balance;
use std::time::Duration;

/// Failures in a row after which an origin is skipped.
const FAILURES: u32 = 3;
/// How long it is skipped at first, and at most.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Whether an origin may be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It is.
    Well,
    /// Not before this time; then by one call.
    Out(Duration),
    /// That one call is under way.
    Probed,
}

struct Origin {
    state: State,
    calls: usize,
    /// Failures since the last answer.
    failures: u32,
    /// How long it was skipped last.
    out: Duration,
}

/// All origins.
pub struct Origins {
    all: Vec<Origin>,
    balance: Balance,
    /// Calls that each may have.
    most: usize,
    /// Where the next search begins.
    next: usize,
}

/// The result of a search for an origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// This one.
    Origin(usize),
    /// The healthy ones have as many calls as they may have.
    Busy,
    /// None is healthy.
    Out,
}

impl Origins {
    /// Creates this many origins, each with at most `most` calls at a time.
    pub fn new(number: usize, balance: Balance, most: usize) -> Origins {
        let origin = || Origin { state: State::Well, calls: 0, failures: 0, out: Duration::ZERO };
        Origins { all: (0..number).map(|_| origin()).collect(), balance, most: most.max(1), next: 0 }
    }

    /// Finds one for a call, which begins.
    pub fn pick(&mut self, now: Duration) -> Pick {
        let number = self.all.len();
        let order = (0..number).map(|step| (self.next + step) % number);
        // An origin due for a retry comes first, or it would stay away as long as others are healthy.
        let due = |index: &usize| matches!(self.all[*index].state, State::Out(until) if until <= now);
        let is_free = |index: &usize| self.all[*index].state == State::Well && self.all[*index].calls < self.most;
        let found = order.clone().find(due).or_else(|| match self.balance {
            Balance::Least => order.clone().filter(is_free).min_by_key(|index| self.all[*index].calls),
            Balance::RoundRobin => order.clone().find(is_free),
        });
        let Some(index) = found else {
            let any_well = self.all.iter().any(|origin| origin.state == State::Well);
            return if any_well { Pick::Busy } else { Pick::Out };
        };
        let origin = &mut self.all[index];
        if origin.state != State::Well {
            origin.state = State::Probed;
        }
        origin.calls += 1;
        self.next = (index + 1) % number;
        Pick::Origin(index)
    }

    /// A call finished; `answered` is whether the origin answered, whatever the answer.
    pub fn done(&mut self, index: usize, answered: bool, now: Duration) {
        let origin = &mut self.all[index];
        origin.calls -= 1;
        if answered {
            (origin.state, origin.failures, origin.out) = (State::Well, 0, Duration::ZERO);
            return;
        }
        origin.failures = origin.failures.saturating_add(1);
        // A call that began before the origin was skipped tells nothing new.
        let goes_out = match origin.state {
            State::Well => origin.failures >= FAILURES,
            State::Probed => true,
            State::Out(_) => false,
        };
        if goes_out {
            origin.out = (origin.out * 2).clamp(SHORTEST, LONGEST);
            origin.state = State::Out(now + origin.out);
        }
    }

    /// A call that should have begun did not.
    pub fn release(&mut self, index: usize) {
        let origin = &mut self.all[index];
        origin.calls -= 1;
        if origin.state == State::Probed {
            origin.state = State::Out(Duration::ZERO);
        }
    }

    /// Calls under way.
    pub fn calls(&self) -> usize {
        self.all.iter().map(|origin| origin.calls).sum()
    }

    /// The number of skipped origins.
    pub fn out(&self) -> usize {
        self.all.iter().filter(|origin| origin.state != State::Well).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_least_busy_is_called() {
        let mut origins = Origins::new(2, Balance::Least, 2);
        let picks: Vec<_> = (0..5).map(|_| origins.pick(Duration::ZERO)).collect();
        assert_eq!(picks[..4].iter().filter(|pick| **pick == Pick::Origin(0)).count(), 2);
        assert_eq!((picks[4], origins.calls()), (Pick::Busy, 4));
        origins.done(1, true, Duration::ZERO);
        assert_eq!(origins.pick(Duration::ZERO), Pick::Origin(1));
    }

    #[test]
    fn one_after_the_other() {
        let mut origins = Origins::new(3, Balance::RoundRobin, 9);
        let picks: Vec<_> = (0..4).map(|_| origins.pick(Duration::ZERO)).collect();
        assert_eq!(picks, [0, 1, 2, 0].map(Pick::Origin));
    }

    #[test]
    fn one_that_fails_is_left_out_and_tried_by_one_call() {
        let mut origins = Origins::new(1, Balance::Least, 9);
        for _ in 0..FAILURES {
            assert_eq!(origins.pick(Duration::ZERO), Pick::Origin(0));
            origins.done(0, false, Duration::ZERO);
        }
        assert_eq!((origins.pick(99 * MS), origins.out()), (Pick::Out, 1));
        assert_eq!(origins.pick(100 * MS), Pick::Origin(0));
        assert_eq!(origins.pick(100 * MS), Pick::Out, "one call at a time tries it");
        origins.done(0, false, 100 * MS);
        assert_eq!(origins.pick(299 * MS), Pick::Out, "for twice as long");
        assert_eq!(origins.pick(300 * MS), Pick::Origin(0));
        origins.done(0, true, 300 * MS);
        assert_eq!(
            (origins.out(), origins.pick(300 * MS), origins.pick(300 * MS)),
            (0, Pick::Origin(0), Pick::Origin(0))
        );
    }

    #[test]
    fn others_are_called_meanwhile() {
        let mut origins = Origins::new(2, Balance::RoundRobin, 9);
        for _ in 0..2 * FAILURES {
            let Pick::Origin(index) = origins.pick(Duration::ZERO) else { panic!("one is well") };
            origins.done(index, index == 1, Duration::ZERO);
        }
        assert_eq!(origins.out(), 1);
        assert!((0..5).all(|_| origins.pick(50 * MS) == Pick::Origin(1)));
        assert_eq!(origins.pick(100 * MS), Pick::Origin(0), "its time has come");
    }
}
