//! Results by idempotency key: a publication that a backend repeats, because it missed the answer, is not published
//! again, and gets the same answer.

use super::streams::Position;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// How long a result is kept.
const KEPT_FOR: Duration = Duration::from_secs(300);
/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// Channel and key.
type Key = (Rc<str>, Rc<str>);

/// The results of the last five minutes, at most a fixed number.
pub struct Results {
    by_key: HashMap<Key, Option<Position>>,
    /// Ordered by expiry.
    ends: VecDeque<(Duration, Key)>,
    most: usize,
}

impl Results {
    /// No results yet, and never more than `most`.
    pub fn new(most: usize) -> Results {
        Results { by_key: HashMap::new(), ends: VecDeque::new(), most }
    }

    /// The result of the same publication, if known.
    pub fn find(&mut self, channel: &str, key: &str, now: Duration) -> Option<Option<Position>> {
        self.expire(now);
        self.by_key.get(&(channel.into(), key.into())).copied()
    }

    /// Keeps a result; the oldest goes when there are too many.
    pub fn keep(&mut self, channel: &str, key: &str, result: Option<Position>, now: Duration) {
        let key: Key = (channel.into(), key.into());
        if self.by_key.insert(key.clone(), result).is_none() {
            self.ends.push_back((now + KEPT_FOR, key));
        }
        while self.ends.len() > self.most {
            self.forget_first();
        }
    }

    fn expire(&mut self, now: Duration) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.ends.pop_front() {
            self.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_kept_for_five_minutes() {
        let mut results = Results::new(2);
        results.keep("a", "1", None, Duration::ZERO);
        let last = KEPT_FOR - Duration::from_nanos(1);
        assert_eq!(results.find("a", "1", last), Some(None));
        assert_eq!(results.find("b", "1", last), None);
        assert_eq!(results.find("a", "1", KEPT_FOR), None);
    }

    #[test]
    fn of_too_many_the_oldest_goes() {
        let mut results = Results::new(2);
        for key in ["1", "2", "3"] {
            results.keep("a", key, None, Duration::ZERO);
        }
        let found = ["1", "2", "3"].map(|key| results.find("a", key, Duration::ZERO).is_some());
        assert_eq!(found, [false, true, true]);
        assert_eq!(results.by_key.len(), 2);
    }
}
