//! What each channel allows: namespaces, the rules in a channel's name, and limits.
//!
//! A channel's name selects its rules: `news` has the rules without a namespace, `chat:lobby` those of the namespace
//! `chat`. A leading `$` demands a token for the subscription; after `#` follow the users who may subscribe, as in
//! `inbox#42` and `dialog#1,2`.

use super::codes::Error;
use super::pusher::PusherApp;
use super::streams::{Keep, Most};
use std::collections::HashMap;
use std::time::Duration;

/// Who may do something on a channel without a token that allows it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Access {
    /// Every subscriber.
    pub subscriber: bool,
    /// Every client.
    pub client: bool,
    /// Including anonymous clients.
    pub anonymous: bool,
}

impl Access {
    /// Everyone.
    pub const ALL: Access = Access { subscriber: true, client: true, anonymous: true };

    /// Whether a user may, given whether it is subscribed.
    pub fn lets(self, user: &str, is_subscribed: bool) -> bool {
        (self.client || (self.subscriber && is_subscribed)) && (self.anonymous || !user.is_empty())
    }
}

/// The rules of the channels of one namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// The history of each channel; size 0 for none.
    pub keep: Keep,
    /// All subscribers have a position and recover what they missed, even without asking.
    pub force_recovery: bool,
    /// All subscribers have a position, even without asking.
    pub force_positioning: bool,
    /// The server tracks the clients on a channel.
    pub presence: bool,
    /// Subscribers that ask for it hear of joins and leaves.
    pub join_leave: bool,
    /// All others hear of them as well.
    pub force_push_join_leave: bool,
    /// How long a leave is held back.
    pub leave_hold: Duration,
    /// Every client may subscribe.
    pub subscribe_for_client: bool,
    /// Including anonymous clients.
    pub subscribe_for_anonymous: bool,
    /// After `#` in a channel's name follow the users who may subscribe.
    pub user_limited: bool,
    /// Who may publish.
    pub publish: Access,
    /// Who may ask for presence.
    pub presence_for: Access,
    /// Who may read the history.
    pub history_for: Access,
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace {
            keep: Keep { size: 0, ttl: Duration::from_secs(300), meta_ttl: Duration::from_secs(24 * 3600) },
            force_recovery: true,
            force_positioning: false,
            presence: false,
            join_leave: false,
            force_push_join_leave: false,
            leave_hold: Duration::ZERO,
            subscribe_for_client: false,
            subscribe_for_anonymous: false,
            user_limited: true,
            publish: Access::default(),
            presence_for: Access::default(),
            history_for: Access::default(),
        }
    }
}

impl Namespace {
    /// Whether publications are numbered and kept.
    pub fn has_history(&self) -> bool {
        self.keep.size > 0
    }

    /// Whether clients can learn in any way who is there.
    pub fn lists_clients(&self) -> bool {
        self.presence || self.join_leave
    }

    /// Everyone may do everything: for trying things out.
    pub fn open_to_all(self) -> Namespace {
        Namespace {
            subscribe_for_client: true,
            subscribe_for_anonymous: true,
            user_limited: false,
            publish: Access::ALL,
            presence_for: Access::ALL,
            history_for: Access::ALL,
            ..self
        }
    }
}

/// Bounds on what clients and the backend may make the server hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most channels of a client.
    pub client_channels: usize,
    /// The longest channel name, in bytes.
    pub channel_name: usize,
    /// The largest publication of a client, in bytes.
    pub publication: usize,
    /// The most history in one answer.
    pub recovery: Most,
    /// The most bytes of all histories.
    pub history: usize,
    /// The most results kept by idempotency key.
    pub idempotency_keys: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            client_channels: 128,
            channel_name: 255,
            publication: 64 << 10,
            recovery: Most { publications: 300, bytes: 2 << 20 },
            history: 256 << 20,
            idempotency_keys: 100_000,
        }
    }
}

/// The times of pings, and how long a client may stay silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// The interval between pings; zero for none.
    pub ping: Duration,
    /// From a ping to the end of a client that does not answer.
    pub pong: Duration,
    /// From the upgrade to `connect`.
    pub connect: Duration,
    /// From the end of a token to the end of what it allowed, so that the client can bring a new one.
    pub grace: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(8),
            connect: Duration::from_secs(10),
            grace: Duration::from_secs(25),
        }
    }
}

/// All rules.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Rules {
    /// For channels without a namespace.
    pub plain: Namespace,
    /// By name.
    pub namespaces: HashMap<String, Namespace>,
    /// The bounds.
    pub limits: Limits,
    /// The times.
    pub times: Times,
    /// The app of the second front, if there is one.
    pub pusher: Option<PusherApp>,
    /// No client needs a token.
    pub is_insecure: bool,
    /// That is a default, for this machine only.
    pub is_local: bool,
    /// A client without a token may connect anonymously.
    pub allows_anonymous: bool,
}

impl Rules {
    /// The rules of a channel.
    ///
    /// # Errors
    /// When the name is invalid, or its namespace does not exist.
    pub fn of(&self, channel: &str) -> Result<&Namespace, Error> {
        if !(1..=self.limits.channel_name).contains(&channel.len())
            || !channel.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        {
            return Err(Error::BadRequest);
        }
        match channel.strip_prefix(PRIVATE).unwrap_or(channel).split_once(NAMESPACE_END) {
            None => Ok(&self.plain),
            Some((namespace, _)) => self.namespaces.get(namespace).ok_or(Error::UnknownChannel),
        }
    }

    /// Every namespace's rules, the plain ones first.
    pub fn all(&self) -> impl Iterator<Item = &Namespace> {
        std::iter::once(&self.plain).chain(self.namespaces.values())
    }

    /// Whether a user may subscribe without a token for the channel.
    pub fn lets_subscribe(&self, rules: &Namespace, channel: &str, user: &str) -> bool {
        if channel.starts_with(PRIVATE) && !self.is_insecure {
            return false;
        }
        match channel.split_once(USERS_BEGIN).filter(|_| rules.user_limited) {
            Some((_, users)) => !user.is_empty() && users.split(USERS_SEPARATOR).any(|one| one == user),
            None => rules.subscribe_for_client && (rules.subscribe_for_anonymous || !user.is_empty()),
        }
    }
}

const PRIVATE: char = '$';
const NAMESPACE_END: char = ':';
const USERS_BEGIN: char = '#';
const USERS_SEPARATOR: char = ',';

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let chat = Namespace { subscribe_for_client: true, ..Namespace::default() };
        Rules { namespaces: [("chat".to_owned(), chat)].into(), ..Rules::default() }
    }

    #[test]
    fn a_name_says_which_rules() {
        let rules = rules();
        assert_eq!(rules.of("news"), Ok(&rules.plain));
        for name in ["chat:a", "$chat:a", "chat:", "chat:a:b", "chat:a#1"] {
            assert_eq!(rules.of(name), Ok(&rules.namespaces["chat"]), "{name}");
        }
        for name in ["other:a", ":a", "$:a"] {
            assert_eq!(rules.of(name), Err(Error::UnknownChannel), "{name}");
        }
        for name in ["", "a\n", "\u{e4}", &"a".repeat(256)] {
            assert_eq!(rules.of(name), Err(Error::BadRequest), "{name}");
        }
        assert!(rules.of(&"a".repeat(255)).is_ok());
    }

    #[test]
    fn a_name_says_who_may_subscribe() {
        let rules = rules();
        let lets = |channel, user| rules.lets_subscribe(rules.of(channel).expect("a channel"), channel, user);
        assert!(lets("chat:a", "1") && lets("chat:a#1", "1") && lets("a#1", "1") && lets("a#2,1", "1"));
        for (channel, user) in
            [("chat:a", ""), ("a", "1"), ("$chat:a", "1"), ("chat:a#2", "1"), ("a#", ""), ("a#1,2", "3"), ("$a#1", "1")]
        {
            assert!(!lets(channel, user), "{channel} {user}");
        }
    }

    #[test]
    fn access_is_for_those_it_names() {
        let subscribers = Access { subscriber: true, ..Access::default() };
        assert!(subscribers.lets("1", true) && !subscribers.lets("1", false) && !subscribers.lets("", true));
        assert!(Access::ALL.lets("", false) && !Access::default().lets("1", true));
    }
}
