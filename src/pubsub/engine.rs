//! The engine: who is subscribed to what, what is published, and what of it is kept. It knows no protocol of clients but how a
//! publication is written for them, which is done once for all.
//!
//! Publishing on a channel with history has two halves: the history numbers the publication ([`Streams::append`]), and
//! [`Engine::numbered`] shows it to the subscribers, in the order of the numbers.
//!
//! Invariant: what positioned subscribers of a channel are shown has the offset after that of what they were shown before. Where
//! that cannot be, because the stream is another one by now, they are told to subscribe anew.

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

/// What stands before a channel's name in those of the outbox: for its publications, and for who comes and goes.
const PUBLICATIONS: &str = "c:";
const OTHERS: &str = "j:";
/// Publications of clients count so much more than their text for what a channel carries.
const ENVELOPE_BYTES: usize = 128;

mod common;
mod losses;
mod past;

use losses::Losses;
use past::Answers;

/// The name in the outbox of a channel's publications.
pub fn publications_of(channel: &str) -> String {
    [PUBLICATIONS, channel].concat()
}

/// The channel of which that is the name.
pub fn channel_of(name: &str) -> Option<&str> {
    name.strip_prefix(PUBLICATIONS)
}

fn others_of(channel: &str) -> String {
    [OTHERS, channel].concat()
}

/// A channel that somebody here is on.
struct Channel {
    name: Rc<str>,
    subscribers: u32,
    /// What its positioned subscribers have seen.
    seen: Option<Position>,
}

/// How a subscription is to be.
#[derive(Clone, Default, Debug)]
pub struct Wanted<'a> {
    /// What the token says of the client on this channel.
    pub info: Option<Rc<str>>,
    /// When the token ends.
    pub expires: Option<Duration>,
    /// The position from which the client wants what it missed.
    pub recover: Option<(u64, &'a str)>,
    /// The client wants to be able to come back so.
    pub is_recoverable: bool,
    /// The client wants to hear of holes.
    pub is_positioned: bool,
    /// The client wants to be told who comes and goes.
    pub hears_others: bool,
    /// It is not the client that asked for it.
    pub is_server_side: bool,
}

/// How a subscription is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscribed {
    /// Where the channel stood, if the client is told.
    pub top: Option<Position>,
    /// Whether the client may come back and get what it missed.
    pub is_recoverable: bool,
    /// What it missed, publications joined by commas; `None` if it did not ask, or if not all of it is there.
    pub missed: Option<Rc<str>>,
}

/// Something to be published.
#[derive(Clone, Copy, Default, Debug)]
pub struct Post<'a> {
    /// JSON in one line, as the other parts.
    pub data: &'a str,
    /// The client that publishes it.
    pub info: Option<&'a str>,
    /// What the backend adds.
    pub tags: Option<&'a str>,
    /// It is not to be kept.
    pub skips_history: bool,
    /// By which a keeper knows it again; empty for none.
    pub key: &'a str,
}

impl Post<'_> {
    /// As a JSON object without its last brace.
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

/// What became of something that is to be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// It is published, with a position where there is a history.
    Now(Option<Position>),
    /// It is handed to the keeper, under this number: [`Engine::take_settled`] tells.
    Later(u64),
}

/// See the module.
pub struct Engine {
    /// What may be done.
    pub rules: Rules,
    /// Who is connected.
    pub clients: Clients,
    /// What was published by idempotency key.
    pub results: Results,
    streams: Streams,
    /// The streams in their place where a keeper numbers.
    replica: Option<Replica>,
    /// What became of what was handed to the keeper.
    settled: Vec<(u64, Result<Position, Error>)>,
    channels: HashMap<Rc<str>, Channel>,
    answers: Answers,
    holds: Holds,
    losses: Losses,
}

/// Tells the subscribers that want to know that somebody came to a channel, or went.
fn tell(channel: &str, description: &str, entered: bool, out: &mut Outbox) {
    let text = push::join_or_leave(channel, description, entered);
    out.publish_here(&others_of(channel), Kind::Text, &[text.as_bytes()]);
}

impl Engine {
    /// With nobody connected. Epochs follow from the seed.
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

    /// How many channels somebody here is on.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> u64 {
        self.channels.values().map(|channel| u64::from(channel.subscribers)).sum()
    }

    /// Puts a client on a channel on which it may be.
    ///
    /// # Errors
    /// When it is there already, or on too many.
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

    /// Whether those on a channel may be told, as far as its rate goes, that this client came and, later, that it went.
    pub fn may_tell_others(&self, index: u32, channel: &str, wanted: &Wanted<'_>, out: &mut Outbox) -> bool {
        let others = others_of(channel);
        let Some(client) = self.clients.get(index).filter(|_| out.subscribers(&others) > 0) else { return true };
        let bytes = client.describe(wanted.info.as_deref()).len() + ENVELOPE_BYTES;
        out.carries(&others, 2 * bytes)
    }

    /// Takes a client off a channel. Returns whether it was there.
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

    /// The same, and tells it.
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

    /// A connection is over. The outbox has it off its channels by itself.
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

    /// Publishes on a channel on which that is allowed.
    ///
    /// # Errors
    /// When a client publishes more than the channel carries, or more at a time than the bus does; when too much waits for the keeper.
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

    /// Positioned subscribers have seen all up to there, or are told to subscribe anew.
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
                // A client subscribes anew only to what it subscribed to itself.
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

    /// Somebody came to a channel, or went: tells the subscribers that want to know, now or after a while.
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

    /// Gives up what is too old, and tells what was kept back long enough.
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

    /// Shows what there is, and what was counted.
    pub fn show(&self, out: &mut Outbox) {
        // Without a connection nothing else may call for a tick.
        if let Some(at) = self.streams_due() {
            out.tick_by(at);
        }
        let stats = &mut out.stats;
        stats.channels_clients = self.clients.count().0 as u64;
        stats.channels_active = self.channels.len() as u64;
        match &self.replica {
            // The streams are the keeper's to count.
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
