//! The hashed timer wheel: one deadline per connection, armed, moved and cancelled in O(1) with no allocation.
//!
//! A slot is a tick of [`TICK`]; a deadline more than one turn of the wheel away stays in its slot and is skipped until
//! its turn comes. Timers are in one table by connection index, linked through it. Ticks are counted in 64 bits; a
//! timer keeps the lower 32 of its own, which are unambiguous within `FARTHEST` of now.
//!
//! Invariant: an armed timer is in exactly one list, that of its deadline's slot; an unarmed timer is in none.

use std::time::Duration;

/// Resolution of the wheel. A deadline is never early, and late by at most this and one pass of the loop.
pub const TICK: Duration = Duration::from_millis(32);

const SLOTS: usize = 2048;
/// No key: the end of a list.
const NONE: u32 = u32::MAX;
/// Stored as the next key of a timer that is in no list.
const UNARMED: u32 = u32::MAX - 1;
/// A deadline is at most this many ticks ahead: two years.
const FARTHEST: u64 = i32::MAX as u64;

#[derive(Clone, Copy)]
struct Timer {
    next: u32,
    previous: u32,
    /// In ticks since the wheel's start, modulo 2^32.
    deadline: u32,
}

/// One deadline for each key. Keys are small indices, as a slab gives them.
///
/// ```
/// use percore::internal::time::wheel::{TICK, Wheel};
/// use std::time::Duration;
///
/// let (mut wheel, mut expired) = (Wheel::new(), Vec::new());
/// wheel.arm(7, Duration::from_secs(1));
/// wheel.arm(8, Duration::from_secs(2));
/// wheel.cancel(8);
/// wheel.advance(Duration::from_millis(999), &mut expired);
/// assert!(expired.is_empty());
/// wheel.advance(Duration::from_secs(1) + TICK, &mut expired);
/// assert_eq!(expired, [7]);
/// assert_eq!(wheel.next_deadline(), None);
/// ```
pub struct Wheel {
    heads: Box<[u32]>,
    /// One bit for each slot with a timer, to find the next one without visiting empty slots.
    occupied: [u64; SLOTS / 64],
    timers: Vec<Timer>,
    /// The last expired tick.
    now: u64,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel::new()
    }
}

impl Wheel {
    /// An empty wheel at time zero.
    pub fn new() -> Wheel {
        Wheel { heads: vec![NONE; SLOTS].into(), occupied: [0; SLOTS / 64], timers: Vec::new(), now: 0 }
    }

    /// Sets the deadline of `key`, as the time since the wheel's start, replacing an earlier one. A past deadline
    /// expires with the next tick, and one more than two years ahead after two years.
    pub fn arm(&mut self, key: u32, deadline: Duration) {
        self.cancel(key);
        if self.timers.len() <= key as usize {
            self.timers.resize(key as usize + 1, Timer { next: UNARMED, previous: NONE, deadline: 0 });
        }
        // Rounded up, so that no deadline is early; the current tick has expired already.
        let tick = deadline.as_nanos().div_ceil(TICK.as_nanos()) as u64;
        let tick = tick.clamp(self.now + 1, self.now + FARTHEST);
        let slot = tick as usize % SLOTS;
        let head = self.heads[slot];
        if head != NONE {
            self.timers[head as usize].previous = key;
        }
        self.timers[key as usize] = Timer { next: head, previous: NONE, deadline: tick as u32 };
        self.heads[slot] = key;
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// Cancels the deadline of `key`, if it has one.
    pub fn cancel(&mut self, key: u32) {
        let Some(&timer) = self.timers.get(key as usize) else { return };
        if timer.next == UNARMED {
            return;
        }
        let slot = timer.deadline as usize % SLOTS;
        match timer.previous {
            NONE => self.heads[slot] = timer.next,
            previous => self.timers[previous as usize].next = timer.next,
        }
        if timer.next != NONE {
            self.timers[timer.next as usize].previous = timer.previous;
        }
        if self.heads[slot] == NONE {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
        self.timers[key as usize].next = UNARMED;
    }

    /// Memory of the timers.
    pub fn memory(&self) -> usize {
        self.timers.capacity() * size_of::<Timer>()
    }

    /// Whether `key` has a deadline that has not expired.
    pub fn is_armed(&self, key: u32) -> bool {
        self.timers.get(key as usize).is_some_and(|timer| timer.next != UNARMED)
    }

    /// Advances to `now` and appends every key whose deadline has expired to `expired`, unarmed.
    pub fn advance(&mut self, now: Duration, expired: &mut Vec<u32>) {
        let tick = (now.as_nanos() / TICK.as_nanos()) as u64;
        if tick <= self.now {
            return;
        }
        let passed = tick - self.now;
        let is_due = |deadline: u32| passed > FARTHEST || (tick as u32).wrapping_sub(deadline) <= FARTHEST as u32;
        let slots = passed.min(SLOTS as u64) as usize;
        let first = (self.now + 1) as usize % SLOTS;
        self.now = tick;
        for slot in (first..first + slots).map(|slot| slot % SLOTS) {
            let mut key = self.heads[slot];
            while key != NONE {
                let timer = self.timers[key as usize];
                if is_due(timer.deadline) {
                    self.cancel(key);
                    expired.push(key);
                }
                key = timer.next;
            }
        }
    }

    /// When to call [`Wheel::advance`] next: the time of the next occupied slot; `None` if nothing is armed. A slot
    /// whose timers belong to a later turn yields a time that is too early, once per turn.
    pub fn next_deadline(&self) -> Option<Duration> {
        let start = (self.now as usize + 1) % SLOTS;
        let words = self.occupied.len();
        for step in 0..=words {
            let index = (start / 64 + step) % words;
            let mut word = self.occupied[index];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS + 1;
                return Some(Duration::from_millis(TICK.as_millis() as u64 * (self.now + ahead as u64)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    /// When a 32-bit count of ticks wraps: after 4.36 years.
    const ROUND_OF_U32: Duration = Duration::from_millis((TICK.as_millis() as u64) << 32);

    proptest! {
        /// Against a model: a map of deadlines.
        #[test]
        fn a_deadline_comes_once_never_early_and_at_most_a_tick_late(
            steps in prop::collection::vec((0u32..40, 0u64..400_000, 0u64..90_000, any::<bool>()), 1..120),
            begin in prop::sample::select(vec![Duration::ZERO, ROUND_OF_U32 - Duration::from_secs(600), YEAR * 40])
        ) {
            let mut wheel = Wheel::new();
            let mut model = BTreeMap::new();
            let mut now = begin;
            wheel.advance(now, &mut Vec::new());
            for (key, ahead, pass, cancel) in steps {
                if cancel {
                    wheel.cancel(key);
                    model.remove(&key);
                } else {
                    let deadline = now + Duration::from_millis(ahead);
                    wheel.arm(key, deadline);
                    model.insert(key, deadline);
                }
                if let Some(next) = wheel.next_deadline() {
                    let earliest = model.values().min().expect("the model has a deadline as well");
                    prop_assert!(next <= (*earliest).max(now) + TICK * 2);
                } else {
                    prop_assert!(model.is_empty());
                }
                now += Duration::from_millis(pass);
                let mut expired = Vec::new();
                wheel.advance(now, &mut expired);
                for key in expired {
                    let deadline = model.remove(&key);
                    prop_assert!(deadline.is_some_and(|deadline| deadline <= now), "{key} was early or twice");
                }
                for deadline in model.values() {
                    prop_assert!(*deadline + TICK > now, "a deadline was passed over");
                }
            }
        }
    }

    #[test]
    fn following_next_deadline_reaches_every_timer() {
        let mut wheel = Wheel::new();
        wheel.arm(0, Duration::from_secs(300));
        wheel.arm(1, Duration::from_secs(1));
        let (mut expired, mut wakes) = (Vec::new(), 0);
        while let Some(next) = wheel.next_deadline() {
            wheel.advance(next, &mut expired);
            wakes += 1;
        }
        assert_eq!(expired, [1, 0]);
        assert!(wakes <= 7, "once a round for the far one: {wakes}");
    }

    /// Ticks were counted in 32 bits, and after 4.36 years no deadline expired any more.
    #[test]
    fn deadlines_come_for_decades() {
        let (mut wheel, mut expired, mut now) = (Wheel::new(), Vec::new(), Duration::ZERO);
        for week in 0..52 * 60 {
            let ahead = Duration::from_secs(75);
            wheel.advance(now, &mut expired);
            wheel.arm(week % 7, now + ahead);
            let next = wheel.next_deadline().expect("one is armed");
            assert!(next > now && next <= now + ahead + TICK, "{next:?} at {now:?}");
            wheel.advance(now + ahead - TICK, &mut expired);
            assert!(expired.is_empty(), "early at {now:?}");
            wheel.advance(now + ahead + TICK, &mut expired);
            assert_eq!(std::mem::take(&mut expired), [week % 7], "at {now:?}");
            assert!(!wheel.is_armed(week % 7));
            now += YEAR / 52;
        }
    }

    #[test]
    fn no_leap_of_time_passes_a_deadline_over() {
        for leap in [YEAR, YEAR * 3, ROUND_OF_U32, YEAR * 40] {
            let (mut wheel, mut expired) = (Wheel::new(), Vec::new());
            wheel.arm(0, Duration::from_secs(1));
            wheel.arm(1, YEAR * 100);
            wheel.advance(leap, &mut expired);
            let two_years = TICK * FARTHEST as u32;
            assert_eq!((expired.contains(&0), expired.contains(&1)), (true, leap > two_years), "{leap:?}");
        }
    }
}
