//! The engine: subscriptions, publications and their histories. Of client protocols it knows only how to write a
//! publication, which it does once for all subscribers.
//!
//! Publishing on a channel with history has two halves: the history numbers the publication ([`Streams::append`]), and
//! [`Engine::numbered`] shows it to the subscribers, in the order of the numbers.
//!
//! Invariant: each publication shown to the positioned subscribers of a channel has the offset after the one before.
//! Where that is impossible, because the stream was replaced, they are told to subscribe anew.

use super::centrifuge::push;
use super::clients::{Clients, Subscription};
use super::codes::{Disconnect, Error, Unsubscribe};
use super::history::replica::Replica;
use super::holds::{Holds, Leave};
use super::idempotency::Results;
use super::rules::{Namespace, Rules};
use super::streams::{Position, Streams};
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::protocol::message::Kind;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// The prefixes of a channel's names in the outbox: for its publications, and for joins and leaves.
const PUBLICATIONS: &str = "c:";
const OTHERS: &str = "j:";
/// The bytes that a client's publication costs besides its text, against the limit of a channel.
const ENVELOPE_BYTES: usize = 128;

mod common;
mod losses;
mod past;

use losses::Losses;
use past::Answers;

/// The outbox name of a channel's publications.
pub fn publications_of(channel: &str) -> String {
    [PUBLICATIONS, channel].concat()
}

/// The channel with that outbox name.
pub fn channel_of(name: &str) -> Option<&str> {
    name.strip_prefix(PUBLICATIONS)
}

fn others_of(channel: &str) -> String {
    [OTHERS, channel].concat()
}

/// A channel with subscribers in this process.
struct Channel {
    name: Rc<str>,
    subscribers: u32,
    /// The position that its positioned subscribers have seen.
    seen: Option<Position>,
}

/// The wishes for a subscription.
#[derive(Clone, Default, Debug)]
pub struct Wanted<'a> {
    /// The token's information about the client on this channel.
    pub info: Option<Rc<str>>,
    /// When the token ends.
    pub expires: Option<Duration>,
    /// The position after which the client wants what it missed.
    pub recover: Option<(u64, &'a str)>,
    /// The client wants to be able to recover later.
    pub is_recoverable: bool,
    /// The client wants to hear of gaps.
    pub is_positioned: bool,
    /// The client wants to hear of joins and leaves.
    pub hears_others: bool,
    /// The server subscribed the client, not the client itself.
    pub is_server_side: bool,
}

/// The result of a subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscribed {
    /// The position of the channel, if the client gets it.
    pub top: Option<Position>,
    /// Whether the client may recover what it missed.
    pub is_recoverable: bool,
    /// The missed publications, joined by commas; `None` if the client did not ask, or part of them is gone.
    pub missed: Option<Rc<str>>,
}

/// A publication to make.
#[derive(Clone, Copy, Default, Debug)]
pub struct Post<'a> {
    /// JSON in one line, like the other parts.
    pub data: &'a str,
    /// The client that publishes.
    pub info: Option<&'a str>,
    /// The tags of the backend.
    pub tags: Option<&'a str>,
    /// The history leaves it out.
    pub skips_history: bool,
    /// The key by which a keeper recognizes a repeat; empty for none.
    pub key: &'a str,
}

impl Post<'_> {
    /// A JSON object without its last brace.
    fn body(&self) -> String {
        let mut body = String::with_capacity(self.data.len() + 128);
        body.push_str("{\"data\":");
        body.push_str(self.data);
        for (field, value) in [("info", self.info), ("tags", self.tags)] {
            if let Some(value) = value {
                body.push_str(",\"");
                body.push_str(field);
                body.push_str("\":");
                body.push_str(value);
            }
        }
        body
    }
}

/// The outcome of publishing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// Published, with a position if there is a history.
    Now(Option<Position>),
    /// Sent to the keeper under this number: [`Engine::take_settled`] returns the outcome.
    Later(u64),
}

/// See the module.
pub struct Engine {
    /// What each channel allows.
    pub rules: Rules,
    /// The connected clients.
    pub clients: Clients,
    /// The results by idempotency key.
    pub results: Results,
    streams: Streams,
    /// The shared streams, in place of our own, where a keeper numbers.
    replica: Option<Replica>,
    /// The outcomes of what the keeper received.
    settled: Vec<(u64, Result<Position, Error>)>,
    channels: HashMap<Rc<str>, Channel>,
    answers: Answers,
    holds: Holds,
    losses: Losses,
}

/// Announces a join or leave to the subscribers that ask for it.
fn tell(channel: &str, description: &str, entered: bool, out: &mut Outbox) {
    let text = push::join_or_leave(channel, description, entered);
    out.publish_here(&others_of(channel), Kind::Text, &[text.as_bytes()]);
}

impl Engine {
    /// An engine without clients. Epochs derive from the seed.
    pub fn new(rules: Rules, seed: [u8; 32]) -> Engine {
        Engine {
            clients: Clients::default(),
            results: Results::new(rules.limits.idempotency_keys),
            streams: Streams::new(rules.limits.history, seed),
            replica: None,
            settled: Vec::new(),
            channels: HashMap::new(),
            answers: Answers::default(),
            holds: Holds::default(),
            losses: Losses::new(seed),
            rules,
        }
    }

    /// The number of channels with subscribers in this process.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The number of subscriptions.
    pub fn subscriptions(&self) -> u64 {
        self.channels.values().map(|channel| u64::from(channel.subscribers)).sum()
    }

    /// Subscribes a client to a channel that it may use.
    ///
    /// # Errors
    /// When the client is on it already, or on too many channels.
    pub fn subscribe(
        &mut self,
        index: u32,
        channel: &str,
        rules: Namespace,
        wanted: Wanted<'_>,
        out: &mut Outbox,
    ) -> Result<Subscribed, Error> {
        let most = self.rules.limits.client_channels;
        let client = self.clients.get(index).ok_or(Error::Internal)?;
        if client.subscription(channel).is_some() {
            return Err(Error::AlreadySubscribed);
        }
        if client.subscriptions().len() >= most {
            return Err(Error::LimitExceeded);
        }
        let (id, description) = (client.id, rules.lists_clients().then(|| client.describe(wanted.info.as_deref())));
        let is_recoverable = rules.has_history() && (rules.force_recovery || wanted.is_recoverable);
        let is_positioned = rules.has_history() && (is_recoverable || rules.force_positioning || wanted.is_positioned);
        let hears_others = rules.join_leave && (rules.force_push_join_leave || wanted.hears_others);
        let (mut top, mut missed) = (None, None);
        if let Some(from) = wanted.recover.filter(|_| is_recoverable) {
            let (position, publications) = self.missed(channel, from, rules, out)?;
            (top, missed) = (Some(position), publications);
        } else if is_positioned {
            top = Some(self.top(channel, rules, out)?);
        }
        if let Some(top) = top {
            self.see(channel, top, out);
        }
        let name = match self.channels.get_mut(channel) {
            Some(channel) => {
                channel.subscribers += 1;
                channel.seen = top.or(channel.seen);
                Rc::clone(&channel.name)
            }
            None => {
                let name: Rc<str> = channel.into();
                let channel = Channel { name: Rc::clone(&name), subscribers: 1, seen: top };
                self.channels.insert(Rc::clone(&name), channel);
                name
            }
        };
        let Wanted { info, expires, is_server_side, .. } = wanted;
        if let Some(client) = self.clients.get_mut(index) {
            client.add(Subscription { channel: name, info, expires, is_positioned, hears_others, is_server_side });
        }
        match description {
            Some(description) => out.subscribe_as(id, &publications_of(channel), &description),
            None => out.subscribe(id, &publications_of(channel)),
        };
        if hears_others {
            out.subscribe(id, &others_of(channel));
        }
        Ok(Subscribed { top, is_recoverable, missed })
    }

    /// Whether the channel's rate allows announcing this client's join and, later, its leave.
    pub fn may_tell_others(&self, index: u32, channel: &str, wanted: &Wanted<'_>, out: &mut Outbox) -> bool {
        let others = others_of(channel);
        let Some(client) = self.clients.get(index).filter(|_| out.subscribers(&others) > 0) else { return true };
        let bytes = client.describe(wanted.info.as_deref()).len() + ENVELOPE_BYTES;
        out.carries(&others, 2 * bytes)
    }

    /// Unsubscribes a client from a channel. Returns whether it was subscribed.
    pub fn unsubscribe(&mut self, index: u32, channel: &str, out: &mut Outbox) -> bool {
        let Some(client) = self.clients.get_mut(index) else { return false };
        let id = client.id;
        let Some(subscription) = client.remove(channel) else { return self.losses.forget(id, channel) };
        out.unsubscribe(id, &publications_of(channel));
        if subscription.hears_others {
            out.unsubscribe(id, &others_of(channel));
        }
        self.leave(channel);
        true
    }

    /// The same, and tells the client.
    pub fn unsubscribe_for(
        &mut self,
        index: u32,
        channel: &str,
        (code, reason): (u32, &str),
        out: &mut Outbox,
    ) -> bool {
        let Some(id) = self.clients.get(index).map(|client| client.id) else { return false };
        let was_there = self.unsubscribe(index, channel, out);
        if was_there {
            out.send_text(id, &push::unsubscribe(channel, code, reason));
        }
        was_there
    }

    /// A connection has ended. The outbox removes it from its channels by itself.
    pub fn closed(&mut self, id: ConnectionId) {
        if let Some(client) = self.clients.remove(id.index) {
            client.subscriptions().iter().for_each(|subscription| self.leave(&subscription.channel));
        }
    }

    fn leave(&mut self, channel: &str) {
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.subscribers -= 1;
            if entry.subscribers == 0 {
                self.channels.remove(channel);
            }
        }
    }

    /// Publishes on a channel that allows it.
    ///
    /// # Errors
    /// When a client exceeds the channel's rate, or the bus's largest record, or too much waits for the keeper.
    pub fn publish(
        &mut self,
        channel: &str,
        rules: Namespace,
        post: Post<'_>,
        out: &mut Outbox,
    ) -> Result<Published, Error> {
        if rules.has_history() && !post.skips_history {
            if !out.carries(&publications_of(channel), post.data.len() + ENVELOPE_BYTES) {
                return Err(Error::TooManyRequests);
            }
            if self.replica.is_some() {
                return self.hand_over(channel, rules, post, out).map(Published::Later);
            }
            let (position, publication) = self.streams.append(channel, &post.body(), rules.keep, out.now());
            self.numbered(channel, position, &publication, out);
            return Ok(Published::Now(Some(position)));
        }
        let (head, body) = (push::publication_head(channel), post.body());
        let parts = [head.as_bytes(), body.as_bytes(), push::PUBLICATION_TAIL.as_bytes()];
        match out.publish(&publications_of(channel), Kind::Text, &parts) {
            Ok(_) => Ok(Published::Now(None)),
            Err(_) => Err(Error::LimitExceeded),
        }
    }

    /// The history has numbered a publication: shows it to the subscribers.
    pub fn numbered(&mut self, channel: &str, position: Position, publication: &str, out: &mut Outbox) {
        out.stats.published += 1;
        self.see(channel, Position { offset: position.offset - 1, ..position }, out);
        let Some(entry) = self.channels.get_mut(channel) else { return };
        entry.seen = entry.seen.map(|_| position);
        let (head, tail) = (push::publication_head(channel), push::NUMBERED_TAIL);
        let parts = [head.as_bytes(), publication.as_bytes(), tail.as_bytes()];
        out.publish_here(&publications_of(channel), Kind::Text, &parts);
    }

    /// Marks all up to there as seen by the positioned subscribers, or tells them to subscribe anew.
    fn see(&mut self, channel: &str, position: Position, out: &mut Outbox) {
        let Some(entry) = self.channels.get_mut(channel) else { return };
        if entry.seen.is_none_or(|seen| seen == position) {
            return;
        }
        entry.seen = None;
        let name = publications_of(channel);
        for index in out.subscribers_here(&name) {
            let Some(client) = self.clients.get(index) else { continue };
            let id = client.id;
            match client.subscription(channel) {
                Some(subscription) if !subscription.is_positioned => {}
                // A client subscribes anew only to channels that it subscribed to itself.
                Some(subscription) if subscription.is_server_side => {
                    out.close(id, CloseCode::from(Disconnect::Insufficient.code()), Disconnect::Insufficient.reason());
                }
                Some(_) => {
                    let why = Unsubscribe::Insufficient;
                    self.unsubscribe_for(index, channel, (why.code().into(), why.reason()), out);
                }
                None => {}
            }
        }
    }

    /// Announces a join or leave to the subscribers that ask for it, now or after a while.
    pub fn tell_others(&mut self, channel: &str, description: &str, entered: bool, out: &mut Outbox) {
        let Some(rules) = self.rules.of(channel).ok().filter(|rules| rules.join_leave) else { return };
        if rules.leave_hold.is_zero() {
            return tell(channel, description, entered, out);
        }
        if entered {
            if !self.holds.cancel(channel, description) {
                tell(channel, description, true, out);
            }
            return;
        }
        let due = out.now() + rules.leave_hold;
        match self.holds.put(Leave { channel: channel.into(), description: description.into() }, due) {
            Some(leave) => tell(&leave.channel, &leave.description, false, out),
            None => out.tick_by(due),
        }
    }

    /// Drops whatever has expired, and announces the leaves that are due.
    pub fn expire(&mut self, now: Duration, out: &mut Outbox) {
        self.expire_streams(now, out);
        while let Some(leave) = self.holds.next(now) {
            tell(&leave.channel, &leave.description, false, out);
        }
    }

    /// When [`Engine::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.streams_due(), self.holds.next_deadline(), self.losses.next_deadline()].into_iter().flatten().min()
    }

    /// Publishes gauges and counters.
    pub fn show(&self, out: &mut Outbox) {
        // Without a connection nothing else may request a tick.
        if let Some(at) = self.streams_due() {
            out.tick_by(at);
        }
        let stats = &mut out.stats;
        stats.channels_clients = self.clients.count().0 as u64;
        stats.channels_active = self.channels.len() as u64;
        match &self.replica {
            // The keeper counts the streams.
            Some(replica) => {
                stats.history_pending = replica.pending() as u64;
                (stats.history_failed, stats.history_refills) = (replica.failed, replica.refills);
            }
            None => {
                let (streams, bytes) = self.streams.held();
                (stats.channels_streams, stats.channels_history_bytes) = (streams as u64, bytes as u64);
                stats.channels_evicted = self.streams.counts().evicted;
            }
        }
    }
}
