//! A sleeping participant announces that, and is woken; an awake one is not disturbed.
//!
//! A sleeper marks its word and checks every ring once more before it sleeps; a publisher shows its records and then
//! checks the words. A fence separates the two halves of each, so that at least one of them sees the other.
//!
//! A word counts how often its owner went to sleep and woke: it is odd while the owner sleeps. A publisher rings first
//! and then marks the word, but only if the word is unchanged. So a publisher that is held up in between keeps no other
//! from ringing, and its late mark does not touch a sleep that began since. Several publishers may ring for one sleep.
//!
//! The upper half of a word is the complement of the lower. A word that violates this was damaged, and counts as
//! asleep.

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
    /// The owner of a word, awake. It continues the count of the former owner.
    pub fn begin(flag: &AtomicU64) -> Parking {
        let count = (flag.load(Ordering::Relaxed) as u32 | 1).wrapping_add(1);
        flag.store(word(count), Ordering::Relaxed);
        Parking { count }
    }

    /// Announces sleep: a participant that publishes from now on wakes us. Check for earlier records after this call.
    pub fn park(&mut self, flag: &AtomicU64) {
        self.count = self.count.wrapping_add(2);
        flag.store(word(self.count.wrapping_sub(1)), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Awake again, for whatever reason. Publishers have already marked the word for this sleep, or never will.
    pub fn unpark(&self, flag: &AtomicU64) {
        flag.swap(word(self.count), Ordering::AcqRel);
    }
}

/// Call after publishing, before checking the words.
pub fn published() {
    fence(Ordering::SeqCst);
}

/// The word of an apparent sleeper, as a publisher found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asleep(u64);

/// Whether the owner of a word sleeps. If so, ring for it, and then call [`rung`].
#[inline]
pub fn asleep(flag: &AtomicU64) -> Option<Asleep> {
    let found = flag.load(Ordering::Acquire);
    (found & 1 == 1 || !is_valid(found)).then_some(Asleep(found))
}

/// Marks a sleeper as rung for: no other publisher needs to, unless it went to sleep again since.
pub fn rung(flag: &AtomicU64, found: Asleep) {
    let awake = word((found.0 as u32 | 1).wrapping_add(1));
    let _ = flag.compare_exchange(found.0, awake, Ordering::AcqRel, Ordering::Relaxed);
}
