//! The engine's part in a shared history: it sends publications to the keeper, and shows what the keeper announces.

use super::{Engine, Position, Post, publications_of};
use crate::outbox::Outbox;
use crate::pubsub::codes::{Disconnect, Error, Unsubscribe};
use crate::pubsub::history::ask::{ASKS, Ask};
use crate::pubsub::history::replica::{News, Outside, Replica};
use crate::pubsub::history::word::Word;
use crate::pubsub::rules::Namespace;
use crate::pubsub::streams::Most;
use std::rc::Rc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// Without a bound.
const ALL: Most = Most { publications: usize::MAX, bytes: usize::MAX };

impl Engine {
    /// Shares histories with other processes.
    pub fn share_history(&mut self, outside: Outside) {
        self.replica = Some(Replica::new(outside, self.rules.limits.history));
    }

    /// Reads the log, before any client connects. Returns whether there is one.
    pub fn load_history(&mut self) -> bool {
        let Some(replica) = &mut self.replica else { return true };
        replica.refill(false, Duration::ZERO, &mut Vec::new());
        replica.known().is_ok()
    }

    /// Whether a keeper numbers, so that this process must listen to it.
    pub fn shares_history(&self) -> bool {
        self.replica.is_some()
    }

    /// Whether a question sent to the keeper is still open.
    pub fn is_waiting(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| replica.pending() > 0)
    }

    /// The bytes of what waits.
    pub fn waiting_bytes(&self) -> usize {
        self.replica.as_ref().map_or(0, Replica::pending_bytes)
    }

    /// The outcomes of questions, by number.
    pub fn take_settled(&mut self) -> Vec<(u64, Result<Position, Error>)> {
        std::mem::take(&mut self.settled)
    }

    /// Sends a publication to the keeper.
    pub(super) fn hand_over(
        &mut self,
        channel: &str,
        rules: Namespace,
        post: Post<'_>,
        out: &mut Outbox,
    ) -> Result<u64, Error> {
        let body = post.body();
        self.ask(out, |replica, at| replica.publish(channel, rules.keep, (post.key, &body), at))
    }

    fn ask(
        &mut self,
        out: &mut Outbox,
        ask: impl FnOnce(&mut Replica, (Duration, usize)) -> Result<u64, Error>,
    ) -> Result<u64, Error> {
        let replica = self.replica.as_mut().ok_or(Error::Unavailable)?;
        let sequence = ask(replica, (out.now(), out.longest_record()))?;
        if let Some(due) = replica.next_deadline() {
            out.tick_by(due);
        }
        self.hand_over_more(out);
        Ok(sequence)
    }

    /// Sends the questions whose turn it is.
    fn hand_over_more(&mut self, out: &mut Outbox) {
        let Some(replica) = &mut self.replica else { return };
        // A quarter of the ring.
        let most = out.longest_record();
        while let Some(ask) = replica.next_ask(most) {
            let _ = out.publish_away(ASKS, ask);
        }
    }

    /// Drops the history of a channel. Returns the number of the question for the keeper, if there is one.
    ///
    /// # Errors
    /// When too much waits for the keeper.
    pub fn remove_history(&mut self, channel: &str, out: &mut Outbox) -> Result<Option<u64>, Error> {
        if self.replica.is_none() {
            self.streams.remove(channel, out.now());
            return Ok(None);
        }
        self.ask(out, |replica, at| replica.empty(channel, at)).map(Some)
    }

    /// A client is on a channel, or asks about it: informs the keeper.
    pub(super) fn open(&mut self, channel: &str, rules: Namespace, out: &mut Outbox) {
        if let Some(ask) = self.replica.as_mut().and_then(|replica| replica.open(channel, rules.keep)) {
            let _ = out.publish_away(ASKS, &ask);
        }
    }

    /// Handles a message of the keeper.
    pub fn hear_keeper(&mut self, word: &[u8], out: &mut Outbox) {
        let Some(replica) = &mut self.replica else { return };
        let Some(word) = Word::read(word) else {
            out.stats.bus_invalid += 1;
            return;
        };
        let mut news = Vec::new();
        let asks_again = replica.hear(&word, &mut news);
        self.show_news(news, out);
        self.catch_up(out);
        if asks_again {
            self.ask_again(out);
        }
    }

    fn ask_again(&mut self, out: &mut Outbox) {
        if let Some(replica) = &mut self.replica {
            replica.ask_again();
        }
        self.hand_over_more(out);
    }

    /// Part of the bus was missed: it may have come from the keeper.
    pub fn missed_words(&mut self, out: &mut Outbox) {
        if self.replica.is_some() {
            self.look(out);
            self.ask_again(out);
            let _ = out.publish_away(ASKS, &Ask::Greet.bytes());
        }
    }

    /// Reads whatever is in the files.
    pub(super) fn look(&mut self, out: &mut Outbox) {
        self.refill(true, out);
    }

    /// Reads from the files what is known to be there.
    pub(super) fn catch_up(&mut self, out: &mut Outbox) {
        if self.replica.as_ref().is_some_and(|replica| replica.is_behind(out.now())) {
            self.refill(false, out);
        }
    }

    fn refill(&mut self, is_all: bool, out: &mut Outbox) {
        let Some(replica) = &mut self.replica else { return };
        let mut news = Vec::new();
        let more = replica.refill(is_all, out.now(), &mut news);
        if more {
            out.tick_by(out.now());
        } else if let Some(due) = replica.next_deadline() {
            out.tick_by(due);
        }
        self.show_news(news, out);
    }

    /// Gives up the questions that the keeper has not answered in time, unless the files hold the outcome.
    pub(super) fn give_up(&mut self, now: Duration, out: &mut Outbox) {
        if self.replica.as_ref().is_some_and(|replica| replica.is_overdue(now)) {
            self.look(out);
            let mut news = Vec::new();
            if let Some(replica) = &mut self.replica {
                replica.give_up(now, &mut news);
            }
            self.show_news(news, out);
        }
    }

    fn show_news(&mut self, news: Vec<News>, out: &mut Outbox) {
        for one in news {
            match one {
                News::Numbered(channel, position, text) => self.numbered(&channel, position, &text, out),
                News::Stands(channel, position) => self.see(&channel, position, out),
                News::Settled(sequence, result) => {
                    self.settled.push((sequence, result));
                    self.hand_over_more(out);
                }
                News::Reloaded => {
                    self.show_missed(out);
                    self.ask_again(out);
                }
            }
        }
    }

    /// The log was read anew: shows the subscribers of each channel what they have not seen, if it is complete.
    fn show_missed(&mut self, out: &mut Outbox) {
        let seen = self.channels.values().filter_map(|channel| Some((Rc::clone(&channel.name), channel.seen?)));
        for (channel, seen) in seen.collect::<Vec<_>>() {
            let Some(replica) = &mut self.replica else { return };
            let ledger = replica.ledger();
            let top = ledger.position(&channel);
            let from = (seen.offset, seen.epoch.as_str());
            match ledger.streams.since_top(top, &channel, from, ALL).publications {
                Some(missed) => {
                    for (offset, text) in (seen.offset + 1..).zip(missed) {
                        self.numbered(&channel, Position { offset, ..top }, &text, out);
                    }
                }
                None => self.lose(&channel, out),
            }
        }
    }

    /// The positioned subscribers of a channel have missed something that cannot be recovered.
    fn lose(&mut self, channel: &Rc<str>, out: &mut Outbox) {
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.seen = None;
        }
        for index in out.subscribers_here(&publications_of(channel)) {
            let Some(client) = self.clients.get(index) else { continue };
            let id = client.id;
            let Some(subscription) = client.subscription(channel).filter(|subscription| subscription.is_positioned)
            else {
                continue;
            };
            if subscription.is_server_side {
                out.close(id, CloseCode::from(Disconnect::Insufficient.code()), Disconnect::Insufficient.reason());
            } else if self.unsubscribe(index, channel, out) {
                self.losses.add(id, Rc::clone(channel), out.now());
            }
        }
        if let Some(due) = self.losses.next_deadline() {
            out.tick_by(due);
        }
    }

    /// Tells clients that a subscription has ended, unless they know or have subscribed again.
    pub(super) fn tell_losses(&mut self, now: Duration, out: &mut Outbox) {
        while let Some((id, channel)) = self.losses.next(now) {
            let is_off =
                |client: &crate::pubsub::clients::Client| client.id == id && client.subscription(&channel).is_none();
            if self.clients.get(id.index).is_some_and(is_off) {
                let why = Unsubscribe::Insufficient;
                out.send_text(id, &super::push::unsubscribe(&channel, why.code().into(), why.reason()));
            }
        }
    }
}
