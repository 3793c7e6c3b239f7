//! The exchange between a bus and Redis: which channels to subscribe, which messages to forward, what bridges tell each
//! other, and when to drop the connection to Redis and try again. No sockets; the time is an argument.
//!
//! There are two connections, because a subscribed one cannot publish in RESP2. They live and die together.
//!
//! Invariants: our own messages are dropped when they come back, so nothing loops; the members of other hosts are
//! published on the bus as our own, and a bus never returns our own records, so Redis never gets them as ours.

mod announce;

use super::dialect::Dialect;
use super::hosts::{Answer, Hosts};
use super::line::{Line, Sent, Silence};
use super::local::{Local, push_change};
use super::losses::{Loss, Losses};
use super::resp::Reply;
use super::url::{Login, refusal, shown};
use super::wire::{self, HEAD_BYTES, HostId, Incoming, Kind, PART_BYTES, PRESENCE_CHANNEL};
use crate::bus::event::BusEvent;
use crate::channel::record::{MAX_CHANNEL_BYTES, Records};
use crate::telemetry::log::{Field, Level, Log};
use crate::time::retry::Retry;
use std::collections::HashSet;
use std::time::Duration;

/// Least and greatest wait between attempts to reach Redis.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Delay of our list, so that bridges that ask at about the same time get it once.
const ANSWER_AFTER: Duration = Duration::from_millis(50);
/// Hosts to ask for their lists in a pass. The others will announce themselves again soon.
const MOST_ASKED: usize = 64;
/// How long Redis has to accept the goodbye.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Settings of an exchange.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Bytes that may be queued for Redis.
    pub max_backlog: usize,
    /// A connection without data for this long is dropped.
    pub redis_timeout: Duration,
    /// A host without data for this long is gone.
    pub host_timeout: Duration,
    /// The longest record of the bus, channel and payload together.
    pub max_record: usize,
    /// The login at Redis.
    pub login: Option<Login>,
    /// The name of Redis in the log.
    pub place: String,
    /// The commands for its channels.
    pub dialect: Dialect,
    /// Whether to check that it is a master, which a failover may have changed.
    pub asks_role: bool,
}

/// One of the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The one that publishes.
    Publisher,
    /// The one that is subscribed.
    Subscriber,
}

/// The state of the link to Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    /// Not connected; the next attempt is at `until`.
    Down { until: Duration },
    /// Connecting; which connections have answered.
    Opening { publisher: bool, subscriber: bool },
    /// Connected since then.
    Ready { since: Duration },
}

/// The exchange.
pub struct Exchange {
    me: HostId,
    rules: Rules,
    link: Link,
    retry: Retry,
    publisher: Line,
    subscriber: Line,
    local: Local,
    subscribed: HashSet<Box<[u8]>>,
    hosts: Hosts,
    /// When to announce our list, and when to send a sign of life.
    list_due: Option<Duration>,
    alive_due: Duration,
    /// Hosts to ask for their lists.
    asks: Vec<HostId>,
    /// Records to publish on the bus.
    to_bus: Records,
    stop_by: Option<Duration>,
    passed_on: u64,
    taken_in: u64,
    losses: Losses,
    /// Lines to log.
    pub log: Log,
}

impl Exchange {
    /// Makes an exchange that knows nothing and is not connected.
    pub fn new(me: HostId, rules: Rules, log: Log) -> Exchange {
        Exchange {
            me,
            rules,
            link: Link::Down { until: Duration::ZERO },
            retry: Retry::new(FIRST_WAIT, LONGEST_WAIT),
            publisher: Line::new(0, Duration::ZERO),
            subscriber: Line::new(0, Duration::ZERO),
            local: Local::default(),
            subscribed: HashSet::new(),
            hosts: Hosts::default(),
            list_due: None,
            alive_due: Duration::ZERO,
            asks: Vec::new(),
            to_bus: Records::new(),
            stop_by: None,
            passed_on: 0,
            taken_in: 0,
            losses: Losses::default(),
            log,
        }
    }

    /// Takes an event of the bus.
    pub fn bus_event(&mut self, event: BusEvent<'_>) {
        match event {
            BusEvent::Gap { lost, .. } => self.losses.add(Loss::Missed, lost),
            BusEvent::Record { record, .. } => match Kind::of(record.kind) {
                Some(kind) => self.pass_on(kind, record.channel, record.payload),
                None => self.local.apply(event),
            },
            event => self.local.apply(event),
        }
    }

    /// Forwards a message to other hosts if possible now; later it would be of no use.
    fn pass_on(&mut self, kind: Kind, channel: &[u8], payload: &[u8]) {
        let waiting = self.publisher.pending().len() + channel.len() + payload.len();
        if wire::is_of_host(channel) {
            return;
        }
        if channel == PRESENCE_CHANNEL {
            self.losses.add(Loss::Reserved, 1);
        } else if !self.is_ready() || self.stops() {
            self.losses.add(Loss::Down, 1);
        } else if waiting > self.rules.max_backlog {
            self.losses.add(Loss::Full, 1);
        } else {
            let head = wire::head(self.me, kind);
            let dialect = &self.rules.dialect;
            let words: [&[&[u8]]; 3] = [&[dialect.publish()], &[dialect.prefix(), channel], &[&head, payload]];
            self.publisher.send(Sent::Message, &words);
        }
    }

    /// Records to publish on the bus.
    pub fn to_bus(&mut self) -> &mut Records {
        &mut self.to_bus
    }

    /// Counts a record that the bus did not take.
    pub fn too_long(&mut self) {
        self.losses.add(Loss::TooLong, 1);
    }

    /// Returns whether Redis is connected and has answered.
    pub fn is_ready(&self) -> bool {
        matches!(self.link, Link::Ready { .. })
    }

    /// Returns whether it is time to connect.
    pub fn wants_connection(&self, now: Duration) -> bool {
        matches!(self.link, Link::Down { until } if now >= until) && self.stop_by.is_none()
    }

    /// The connections are being opened.
    pub fn open(&mut self, now: Duration) {
        let max_bulk = self.rules.max_record.max(PART_BYTES + 2 * MAX_CHANNEL_BYTES) + HEAD_BYTES;
        self.publisher = Line::new(max_bulk, now);
        self.subscriber = Line::new(max_bulk, now);
        if let Some(Login { user, password }) = &self.rules.login {
            for line in [&mut self.publisher, &mut self.subscriber] {
                match user {
                    Some(user) => line.send(Sent::Login, &[&[b"AUTH"], &[user], &[password]]),
                    None => line.send(Sent::Login, &[&[b"AUTH"], &[password]]),
                }
            }
        }
        if self.rules.asks_role {
            self.publisher.send(Sent::Role, &[&[b"ROLE"]]);
        }
        self.publisher.send(Sent::Ping, &[&[b"PING"]]);
        let dialect = &self.rules.dialect;
        self.subscriber.send_unanswered(&[&[dialect.subscribe()], &[dialect.prefix(), PRESENCE_CHANNEL]]);
        self.local.forget_subscriptions(&mut self.subscribed);
        self.link = Link::Opening { publisher: false, subscriber: false };
    }

    /// The connections are lost, or could not be opened. `dice`, 0 to 1, is the jitter of the next attempt.
    pub fn lost(&mut self, why: &str, now: Duration, dice: f64) {
        let lasted = match self.link {
            Link::Ready { since } => now.saturating_sub(since),
            Link::Down { .. } | Link::Opening { .. } => Duration::ZERO,
        };
        let wait = self.retry.failed(lasted, dice);
        let what = if self.is_ready() { "lost" } else { "no connection to" };
        let text = format!("{what} Redis at {}: {why}; next attempt in {} ms", self.rules.place, wait.as_millis());
        self.log.push(Level::Warn, "redis_down", &[("redis", &self.rules.place), ("error", &why)], text);
        self.losses.add(Loss::Unanswered, self.publisher.unanswered_messages());
        (self.publisher, self.subscriber) = (Line::new(0, now), Line::new(0, now));
        self.link = Link::Down { until: now + wait };
    }

    /// Bytes to write.
    pub fn pending(&self, side: Side) -> &[u8] {
        self.line(side).pending()
    }

    /// This many of them were written.
    pub fn wrote(&mut self, side: Side, bytes: usize) {
        self.line_mut(side).wrote(bytes);
    }

    fn line(&self, side: Side) -> &Line {
        if side == Side::Publisher { &self.publisher } else { &self.subscriber }
    }

    fn line_mut(&mut self, side: Side) -> &mut Line {
        if side == Side::Publisher { &mut self.publisher } else { &mut self.subscriber }
    }

    /// Takes bytes from Redis.
    ///
    /// # Errors
    /// Why to drop the connection.
    pub fn receive(&mut self, side: Side, bytes: &[u8], now: Duration) -> Result<(), String> {
        let line = self.line_mut(side);
        line.heard(now);
        line.replies.feed(bytes);
        let mut replies = std::mem::take(&mut line.replies);
        let mut result = Ok(());
        while result.is_ok() {
            result = match replies.next_reply() {
                Ok(Some(reply)) if side == Side::Publisher => self.answer(&reply),
                Ok(Some(reply)) => self.pushed(&reply, now),
                Ok(None) => break,
                Err(error) => Err(error.to_string()),
            };
        }
        self.line_mut(side).replies = replies;
        self.check_ready(now);
        result
    }

    /// Takes a reply to a message or a question.
    fn answer(&mut self, reply: &Reply<'_>) -> Result<(), String> {
        let sent = self.publisher.answered().ok_or("unexpected reply")?;
        let login = self.rules.login.as_ref();
        match (sent, reply) {
            (Sent::Login, Reply::Error(error)) => return Err(refusal(error)),
            (Sent::Ping, Reply::Error(error)) => return Err(format!("error reply: {}", shown(login, error))),
            (Sent::Message | Sent::Presence, Reply::Error(error)) => {
                self.losses.refused(shown(login, error));
                if self.rules.dialect.is_moved(error) {
                    return Err(format!("it no longer has our channels: {}", shown(login, error)));
                }
            }
            (Sent::Message, _) => self.passed_on += 1,
            (Sent::Role, Reply::Array(role)) if !matches!(role.first(), Some(Reply::Bulk(b"master"))) => {
                return Err("it is no longer the master".to_owned());
            }
            (Sent::Ping, _) => {
                if let Link::Opening { publisher, .. } = &mut self.link {
                    *publisher = true;
                }
            }
            // A user without permission for ROLE gets an error instead.
            (Sent::Login | Sent::Presence | Sent::Role, _) => {}
        }
        Ok(())
    }

    /// Takes a push or a reply on the subscribed connection.
    fn pushed(&mut self, reply: &Reply<'_>, now: Duration) -> Result<(), String> {
        let items = match reply {
            Reply::Array(items) => items.as_slice(),
            Reply::Error(error) => return self.subscriber_error(error),
            // The reply to our login.
            _ => {
                self.subscriber.answered();
                return Ok(());
            }
        };
        let dialect = &self.rules.dialect;
        let [Reply::Bulk(word), rest @ ..] = items else { return Ok(()) };
        let channel = match rest {
            [Reply::Bulk(channel), ..] => dialect.own(channel),
            _ => None,
        };
        match (channel, rest) {
            (Some(channel), [_, Reply::Bulk(payload)]) if dialect.is_message(word) => {
                self.message(channel, payload, now)
            }
            _ if dialect.is_message(word) => self.losses.add(Loss::TooLong, 1),
            (Some(PRESENCE_CHANNEL), _) if dialect.is_subscribed(word) => {
                if let Link::Opening { subscriber, .. } = &mut self.link {
                    *subscriber = true;
                }
            }
            // We unsubscribe from that channel only at the end.
            (Some(PRESENCE_CHANNEL), _) if dialect.is_unsubscribed(word) && !self.stops() => {
                return Err("it no longer has our channels".to_owned());
            }
            // Other confirmations, and replies to PING.
            _ => {}
        }
        Ok(())
    }

    fn subscriber_error(&mut self, error: &[u8]) -> Result<(), String> {
        if self.subscriber.answered().is_some() {
            return Err(refusal(error));
        }
        if !self.is_ready() || self.rules.dialect.is_moved(error) {
            return Err(format!("error reply: {}", shown(self.rules.login.as_ref(), error)));
        }
        let text = format!("cannot subscribe to a channel: Redis replied {}", shown(self.rules.login.as_ref(), error));
        self.log.push(Level::Warn, "subscribe", &[], text);
        Ok(())
    }

    fn message(&mut self, channel: &[u8], payload: &[u8], now: Duration) {
        match wire::read(payload) {
            Incoming::Bridge(host, ..) if host == self.me => {}
            Incoming::Bridge(host, kind, payload) if channel == PRESENCE_CHANNEL => {
                self.presence_message(host, kind, payload, now);
            }
            Incoming::Bridge(host, kind @ Some(Kind::Text | Kind::Binary), payload) => {
                self.hosts.heard(host, now);
                self.take_in(kind, channel, payload);
            }
            Incoming::Plain(payload) if channel != PRESENCE_CHANNEL => self.take_in(None, channel, payload),
            Incoming::Bridge(..) | Incoming::Plain(_) => self.losses.add(Loss::Ignored, 1),
        }
    }

    fn take_in(&mut self, kind: Option<Kind>, channel: &[u8], payload: &[u8]) {
        if wire::is_of_host(channel) {
            self.losses.add(Loss::Ignored, 1);
            return;
        }
        if channel.len() > MAX_CHANNEL_BYTES || channel.len() + payload.len() > self.rules.max_record {
            self.losses.add(Loss::TooLong, 1);
            return;
        }
        self.taken_in += 1;
        self.to_bus.push(wire::record_kind(kind, payload), channel, &[payload]);
    }

    fn presence_message(&mut self, host: HostId, kind: Option<Kind>, payload: &[u8], now: Duration) {
        self.hosts.heard(host, now);
        if kind == Some(Kind::Ask) && HostId::read(payload) != Some(self.me) {
            return;
        }
        let (before, to_bus) = (self.hosts.len(), &mut self.to_bus);
        match self.hosts.receive(host, kind, payload, now, |change| push_change(to_bus, change)) {
            Answer::None => {}
            Answer::Tell => self.list_due = Some(self.list_due.unwrap_or(now + ANSWER_AFTER)),
            Answer::AskFor(host) if self.asks.len() < MOST_ASKED && !self.asks.contains(&host) => self.asks.push(host),
            Answer::AskFor(_) => {}
        }
        let hosts = self.hosts.len();
        if hosts != before {
            let text = if hosts > before { "joined" } else { "left" };
            let text = format!("host {host} {text}; other hosts: {hosts}");
            self.log.push(Level::Info, "hosts", &[("host", &host.to_string()), ("hosts", &hosts)], text);
        }
        self.losses.add(Loss::Ignored, std::mem::take(&mut self.hosts.ignored));
    }

    fn check_ready(&mut self, now: Duration) {
        if self.link != (Link::Opening { publisher: true, subscriber: true }) {
            return;
        }
        self.link = Link::Ready { since: now };
        let channels = self.subscribed.len();
        let text = format!("connected to Redis at {}; subscribed channels: {channels}", self.rules.place);
        self.log.push(Level::Info, "redis_up", &[("redis", &self.rules.place), ("channels", &channels)], text);
        self.publish_presence(Kind::Hello, &[]);
        (self.list_due, self.alive_due) = (Some(now), now + self.rules.host_timeout / 3);
    }

    /// Does what is due after all input of a pass.
    ///
    /// # Errors
    /// Why to drop the connections.
    pub fn pass(&mut self, now: Duration) -> Result<(), String> {
        let mut result = Ok(());
        if matches!(self.link, Link::Down { .. }) {
            self.local.forget_subscriptions(&mut self.subscribed);
        } else {
            self.update_subscriptions();
            result = self.mind_silence(now);
        }
        // Anything sent after Goodbye would make the other bridges add us again.
        if self.is_ready() && !self.stops() {
            self.announce(now);
        }
        // Changes need no announcement without a connection: the list follows once there is one.
        self.local.changes.clear();
        self.expire(now);
        self.losses.report(now, &mut self.log);
        result
    }

    fn update_subscriptions(&mut self) {
        let (subscriber, dialect) = (&mut self.subscriber, &self.rules.dialect);
        self.local.update(&mut self.subscribed, |channel, is_wanted| {
            let word = if is_wanted { dialect.subscribe() } else { dialect.unsubscribe() };
            // The presence channel stays subscribed in any case.
            if channel != PRESENCE_CHANNEL && !wire::is_of_host(channel) {
                subscriber.send_unanswered(&[&[word], &[dialect.prefix(), channel]]);
            }
        });
    }

    fn mind_silence(&mut self, now: Duration) -> Result<(), String> {
        let timeout = self.rules.redis_timeout;
        for side in [Side::Publisher, Side::Subscriber] {
            match self.line(side).silence(now, timeout) {
                Silence::Bearable => {}
                Silence::TooLong => return Err(format!("no data for {timeout:?} (--redis-timeout)")),
                Silence::Ask => {
                    match side {
                        Side::Publisher => self.publisher.send(Sent::Ping, &[&[b"PING"]]),
                        Side::Subscriber => self.subscriber.send_unanswered(&[&[b"PING"]]),
                    }
                    self.line_mut(side).asks();
                }
            }
        }
        Ok(())
    }

    fn expire(&mut self, now: Duration) {
        let (timeout, to_bus, log) = (self.rules.host_timeout, &mut self.to_bus, &mut self.log);
        let gone = |host: HostId| {
            let text = format!("host {host} was silent for {timeout:?} and counts as gone, with its members");
            log.push(Level::Warn, "hosts", &[("host", &host.to_string())], text);
        };
        self.hosts.expire(now, timeout, gone, |change| push_change(to_bus, change));
    }

    /// Returns when there is something to do even without input.
    pub fn next_deadline(&self) -> Option<Duration> {
        let lines = [&self.publisher, &self.subscriber].map(|line| line.next_deadline(self.rules.redis_timeout));
        let link = match self.link {
            Link::Down { until } => [Some(until), None, None],
            Link::Ready { .. } if !self.stops() => [lines.into_iter().min(), Some(self.alive_due), self.list_due],
            Link::Opening { .. } | Link::Ready { .. } => [lines.into_iter().min(), None, None],
        };
        let others = [self.hosts.next_deadline(self.rules.host_timeout), self.losses.next_deadline(), self.stop_by];
        link.into_iter().chain(others).flatten().min()
    }

    /// Sends Goodbye. [`Exchange::is_stopped`] returns whether Redis has accepted it.
    pub fn stop(&mut self, now: Duration) {
        self.stop_by = Some(now + STOP_TIMEOUT);
        if self.is_ready() {
            self.publish_presence(Kind::Goodbye, &[]);
            self.subscriber.send_unanswered(&[&[self.rules.dialect.unsubscribe()]]);
        }
    }

    /// Returns whether it was told to stop.
    pub fn stops(&self) -> bool {
        self.stop_by.is_some()
    }

    /// Returns whether it was told to stop and has nothing left to wait for.
    pub fn is_stopped(&self, now: Duration) -> bool {
        self.stop_by.is_some_and(|by| now >= by || !self.is_ready() || self.publisher.is_answered())
    }

    /// Logs the totals at the end.
    pub fn end(&mut self) {
        self.losses.add(Loss::Unanswered, self.publisher.unanswered_messages());
        self.losses.say(&mut self.log);
        let counts =
            [("passed_on", self.passed_on), ("taken_in", self.taken_in)].into_iter().chain(self.losses.totals());
        let counts: Vec<(&'static str, u64)> = counts.collect();
        let fields: Vec<(_, &dyn Field)> = counts.iter().map(|(name, count)| (*name, count as _)).collect();
        let told = counts.iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ");
        self.log.push(Level::Info, "stop", &fields, format!("stopped; {told}"));
    }
}
