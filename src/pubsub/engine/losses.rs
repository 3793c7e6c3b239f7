//! Subscriptions that lost their place: they end at once, and their clients hear of it after a random moment, so that
//! they do not all come back at the same time.

use crate::net::id::ConnectionId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// The longest moment.
const JITTER_MILLISECONDS: u64 = 2000;

/// Clients still to inform, and their channels.
pub(super) struct Losses {
    due: BTreeMap<(Duration, u64), (ConnectionId, Rc<str>)>,
    serial: u64,
    random: StdRng,
}

impl Losses {
    pub fn new(seed: [u8; 32]) -> Losses {
        Losses { due: BTreeMap::new(), serial: 0, random: StdRng::from_seed(seed) }
    }

    /// Queues a client.
    pub fn add(&mut self, id: ConnectionId, channel: Rc<str>, now: Duration) {
        self.serial += 1;
        let jitter = Duration::from_millis(self.random.random_range(0..JITTER_MILLISECONDS));
        self.due.insert((now + jitter, self.serial), (id, channel));
    }

    /// The client has left the channel, or has subscribed again. Returns whether it was queued.
    pub fn forget(&mut self, id: ConnectionId, channel: &str) -> bool {
        let before = self.due.len();
        self.due.retain(|_, (of, name)| *of != id || **name != *channel);
        self.due.len() < before
    }

    /// The next client that is due.
    pub fn next(&mut self, now: Duration) -> Option<(ConnectionId, Rc<str>)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// When the next client is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}
