//! Keep-alives: the gateway reports open connections to the origin periodically, in batches, one after another.

use super::core::Core;
use super::origins::Pick;
use std::time::Duration;

/// Connections in a batch.
pub const BATCH: usize = 10_000;

/// The state of a round of keep-alives.
#[derive(Default, Debug)]
pub struct KeepAlive {
    /// When the next round, or the next batch of this one, begins.
    next: Option<Duration>,
    /// When the current round began, and where its next batch begins.
    round: Option<(Duration, usize)>,
}

impl KeepAlive {
    /// There is a connection: starts rounds unless they run.
    pub fn begin(&mut self, interval: Duration, now: Duration) {
        if !interval.is_zero() && self.next.is_none() && self.round.is_none() {
            self.next = Some(now + interval);
        }
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        self.next
    }
}

impl Core {
    /// Sends a batch if it is time.
    pub(super) fn keep_alive(&mut self, now: Duration) {
        if self.keep_alive.next.is_none_or(|next| next > now) {
            return;
        }
        self.keep_alive.next = None;
        let (began, from) = self.keep_alive.round.unwrap_or((now, 0));
        let (mut names, mut after) = (Vec::new(), from);
        while names.len() < BATCH && after < self.connections.capacity() {
            let connection = self.connections.get(after).filter(|connection| connection.id.is_some());
            names.extend(connection.map(|connection| self.names.name(connection.serial)));
            after += 1;
        }
        if names.is_empty() {
            return self.end_round(began, now);
        }
        let Some(post) = self.codec.write_keep_alive(&names) else { return };
        match self.origins.pick(now) {
            Pick::Origin(origin) => {
                self.keep_alive.round = Some((began, after));
                self.call_keep_alive(origin, post);
            }
            Pick::Busy => {
                self.keep_alive.round = Some((began, from));
                self.keep_alive.next = Some(now + Duration::from_millis(100));
            }
            Pick::Out => self.end_round(began, now),
        }
    }

    /// A batch was answered or failed: the next one follows.
    pub(super) fn keep_alive_returned(&mut self, now: Duration) {
        self.keep_alive.next = Some(now);
        self.keep_alive(now);
    }

    fn end_round(&mut self, began: Duration, now: Duration) {
        self.keep_alive.round = None;
        let next = (began + self.rules.keep_alive_interval).max(now);
        self.keep_alive.next = (!self.connections.is_empty()).then_some(next);
    }
}
