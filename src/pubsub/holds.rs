//! Leaves that are held back for a while, so that a user whose connection breaks and returns does not flicker: neither
//! the leave nor the join after it is announced.

use crate::text::fields::{self, string};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// At most this many leaves are held; further ones are announced at once.
const MOST: usize = 100_000;

/// A channel and the leaver: a user, or an anonymous client.
type Who = (Box<str>, Box<str>);
/// When a leave is due, and a serial number that keeps equal times apart.
type Due = (Duration, u64);

/// A leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leave {
    /// The channel.
    pub channel: Box<str>,
    /// The client's public description.
    pub description: Box<str>,
}

/// All held leaves.
#[derive(Default)]
pub struct Holds {
    by_due: BTreeMap<Due, Leave>,
    by_who: HashMap<Who, Vec<Due>>,
    serial: u64,
}

fn who(channel: &str, description: &str) -> Who {
    let [client, user, user_id] = fields::read(description, ["client", "user", "user_id"]).unwrap_or_default();
    let user = string(user.or(user_id)).filter(|user| !user.is_empty());
    // A client's name begins with a quote, a user's with `u`, so they never match.
    let name = user.map_or_else(|| client.map_or("", |client| client.get()).to_owned(), |user| format!("u{user}"));
    (channel.into(), name.into())
}

impl Holds {
    /// Holds a leave until it is due. Returns it at once when there are too many.
    pub fn put(&mut self, leave: Leave, due: Duration) -> Option<Leave> {
        if self.by_due.len() >= MOST {
            return Some(leave);
        }
        self.serial += 1;
        let due = (due, self.serial);
        self.by_who.entry(who(&leave.channel, &leave.description)).or_default().push(due);
        self.by_due.insert(due, leave);
        None
    }

    /// Handles a join. Returns whether a leave was held, in which case neither is announced.
    pub fn cancel(&mut self, channel: &str, description: &str) -> bool {
        let who = who(channel, description);
        let Some(dues) = self.by_who.get_mut(&who) else { return false };
        let due = dues.remove(0);
        if dues.is_empty() {
            self.by_who.remove(&who);
        }
        self.by_due.remove(&due).is_some()
    }

    /// The next leave that is due.
    pub fn next(&mut self, now: Duration) -> Option<Leave> {
        let (due, _) = self.by_due.first_key_value().filter(|((at, _), _)| *at <= now)?;
        let due = *due;
        let leave = self.by_due.remove(&due)?;
        let who = who(&leave.channel, &leave.description);
        if let Some(dues) = self.by_who.get_mut(&who) {
            dues.retain(|other| *other != due);
            if dues.is_empty() {
                self.by_who.remove(&who);
            }
        }
        Some(leave)
    }

    /// When the next leave is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.by_due.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(channel: &str, client: &str, user: &str) -> Leave {
        let description = format!("{{\"client\":\"{client}\",\"user\":\"{user}\"}}");
        Leave { channel: channel.into(), description: description.into() }
    }

    #[test]
    fn whoever_comes_back_in_time_never_left() {
        let mut holds = Holds::default();
        let at = Duration::from_secs;
        for (one, due) in [(leave("a", "1", "ann"), 5), (leave("a", "2", "ann"), 6), (leave("a", "3", ""), 7)] {
            assert_eq!(holds.put(one, at(due)), None);
        }
        let back = |holds: &mut Holds, one: Leave| holds.cancel(&one.channel, &one.description);
        assert!(!back(&mut holds, leave("b", "1", "ann")) && !back(&mut holds, leave("a", "4", "ben")));
        assert!(!back(&mut holds, leave("a", "4", "")), "another that is nobody");
        assert!(back(&mut holds, leave("a", "9", "ann")));
        assert_eq!((holds.next_deadline(), holds.next(at(5))), (Some(at(6)), None));
        assert_eq!(holds.next(at(8)), Some(leave("a", "2", "ann")));
        assert!(!back(&mut holds, leave("a", "9", "ann")));
        assert!(back(&mut holds, leave("a", "3", "")));
        assert_eq!((holds.next_deadline(), holds.by_who.len()), (None, 0));
    }
}
