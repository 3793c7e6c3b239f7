//! Who sleeps says so, and is woken by one message; who does not sleep is not disturbed.
//!
//! A sleeper sets its flag and looks at every ring once more before it sleeps; a publisher shows its records and looks at
//! the flags after that. Between the two halves of each stands a fence, so that at least one of them sees the other.

use super::atomic::{AtomicU64, Ordering, fence};

/// About to sleep: whoever publishes from now on wakes us. What was published before must be looked for after this.
pub fn park(flag: &AtomicU64) {
    flag.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Awake again, by whatever cause.
pub fn unpark(flag: &AtomicU64) {
    flag.store(0, Ordering::Relaxed);
}

/// Something was published: to be called before the flags are looked at.
pub fn published() {
    fence(Ordering::SeqCst);
}

/// Whether the owner of the flag sleeps and is ours to wake: of several publishers it is for one.
#[inline]
pub fn is_to_be_woken(flag: &AtomicU64) -> bool {
    flag.load(Ordering::Relaxed) == 1 && flag.swap(0, Ordering::Relaxed) == 1
}
