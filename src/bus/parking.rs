//! Who sleeps says so, and is woken; who does not sleep is not disturbed.
//!
//! A sleeper marks its word and looks at every ring once more before it sleeps; a publisher shows its records and looks at
//! the words after that. Between the two halves of each stands a fence, so that at least one of them sees the other.
//!
//! A word counts how often its owner went to sleep and woke: it is odd while the owner sleeps. A publisher rings first and marks the
//! word after that, and only if it still says what it said before. So one that is held up in between keeps nobody else from
//! ringing, and what it does later does not touch a sleep that began since. Several publishers may ring for one sleep.
//!
//! The upper half of a word is the complement of the lower. One for which that is not so was damaged, and is taken for a sleeper's.

use super::atomic::{AtomicU64, Ordering, fence};

/// The sleeper's side.
#[derive(Debug)]
pub struct Parking {
    /// Even: awake.
    count: u32,
}

fn word(count: u32) -> u64 {
    u64::from(!count) << 32 | u64::from(count)
}

fn is_valid(word: u64) -> bool {
    (word >> 32) as u32 == !(word as u32)
}

impl Parking {
    /// The owner of a word, awake. It goes on counting where the former owner ended.
    pub fn begin(flag: &AtomicU64) -> Parking {
        let count = (flag.load(Ordering::Relaxed) as u32 | 1).wrapping_add(1);
        flag.store(word(count), Ordering::Relaxed);
        Parking { count }
    }

    /// About to sleep: whoever publishes from now on wakes us. What was published before must be looked for after this.
    pub fn park(&mut self, flag: &AtomicU64) {
        self.count = self.count.wrapping_add(2);
        flag.store(word(self.count.wrapping_sub(1)), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Awake again, by whatever cause. What publishers do to the word of this sleep they have done before, or not at all.
    pub fn unpark(&self, flag: &AtomicU64) {
        flag.swap(word(self.count), Ordering::AcqRel);
    }
}

/// Something was published: to be called before the words are looked at.
pub fn published() {
    fence(Ordering::SeqCst);
}

/// What a publisher finds in the word of one that sleeps, as it seems.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asleep(u64);

/// Whether the owner of a word sleeps. Then it is to be rung for, and [`rung`] to be called after that.
#[inline]
pub fn asleep(flag: &AtomicU64) -> Option<Asleep> {
    let found = flag.load(Ordering::Acquire);
    (found & 1 == 1 || !is_valid(found)).then_some(Asleep(found))
}

/// It was rung for: nobody else need do so, unless it went to sleep again since.
pub fn rung(flag: &AtomicU64, found: Asleep) {
    let awake = word((found.0 as u32 | 1).wrapping_add(1));
    let _ = flag.compare_exchange(found.0, awake, Ordering::AcqRel, Ordering::Relaxed);
}
