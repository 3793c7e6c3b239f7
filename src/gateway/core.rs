//! The core: connections and what happens to them in, calls and orders out. No sockets and no clock: `now` is an argument and
//! [`Core::next_deadline`] a result.

use super::call::{Call, Callee, Outcome, Returned};
use super::codec::Codec;
use super::event::{Answer, Effects, Ending, Event, Opening, Refusal, Subject};
use super::keep_alive::KeepAlive;
use super::labels::Labels;
use super::ledger::Entry;
use super::lines::{Connection, Line, State};
use super::name::{Named, Names, Serials};
use super::origins::{Origins, Pick};
use super::rules::{OnFailure, Rules, is_channel};
use crate::net::id::{ConnectionId, Peer};
use crate::protocol::message::Kind;
use crate::telemetry::histogram::Histogram;
use slab::Slab;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Places that tables keep once they are empty.
const SPARE: usize = 1024;
/// Approximate size of a waiting event with its share of its line, besides what it holds.
const EVENT_BYTES: usize = 512;
/// After writing this many bytes of requests, the core lets others have their turn.
const WRITTEN_BYTES: usize = 1 << 20;
/// No request begins while this many bytes of requests are under way. A byte of a message may take six in JSON.
const UNDER_WAY_BYTES: usize = 32 << 20;

/// By then what a killed worker had sent has reached the origin, so the end of the connection cannot overtake it.
const OVERTAKES_AFTER: Duration = Duration::from_millis(500);

/// What the owner of the connections must do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Make a call.
    Call(Call),
    /// Send a message.
    Send(ConnectionId, Kind, Vec<u8>),
    /// Put a connection on a channel.
    Subscribe(ConnectionId, String),
    /// Close a connection with 1011, for this reason.
    Close(ConnectionId, String),
    /// Close a connection with 1001: its lifetime is over.
    SendAway(ConnectionId),
    /// Stop reading from a connection until told otherwise.
    Pause(ConnectionId),
    /// Resume reading from it.
    Resume(ConnectionId),
    /// Complete the handshake of the connection with this number, with the subprotocol that the origin chose.
    Admit(u64, Option<String>),
    /// Refuse it.
    Refuse(u64, Refusal),
    /// Remember a connection whose end the origin must learn.
    Enter(Entry),
    /// Forget it: the origin knows of its end, or never will.
    Strike(u64),
}

/// Counters and current levels.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    /// Calls by outcome: taken, refused, failed, unsent.
    pub calls: [u64; 4],
    /// Events sent or tried again.
    pub retried: u64,
    /// Events dropped undelivered.
    pub dropped: u64,
    /// Times that reading from a connection paused because of its waiting events.
    pub pauses: u64,
    /// Closed connections whose end the origin never learned.
    pub closed_given_up: u64,
    /// Time from the order of a call to its result.
    pub latency: Histogram,
}

/// The purpose of a call under way.
#[derive(Debug)]
enum Purpose {
    /// The first event in the line of the connection with this number.
    Event(u64, Box<Subject>),
    KeepAlive,
}

/// The core.
pub struct Core {
    pub(super) rules: Rules,
    pub(super) codec: Box<dyn Codec>,
    pub(super) names: Names,
    serials: Serials,
    event_ids: Serials,
    pub(super) connections: Slab<Connection>,
    /// The place of the connection with a number.
    places: HashMap<u64, usize>,
    lines: HashMap<u64, Box<Line>>,
    /// Lines of closed connections.
    closed_lines: usize,
    /// The bytes that the events in all lines hold, and their number.
    waiting_bytes: usize,
    waiting_events: usize,
    /// Lines whose first event is sent as soon as an origin is free.
    ready: VecDeque<u64>,
    /// Lines whose first event is tried again later.
    later: BTreeSet<(Duration, u64)>,
    /// Connections not read from because of what waits in all lines together.
    starved: Vec<u64>,
    /// The purpose of each call under way, its origin, and the bytes of its content.
    under_way: HashMap<u64, (Purpose, usize, usize)>,
    bytes_under_way: usize,
    /// Bytes of requests written since the last tick.
    written: usize,
    /// When to check how long connections have lived.
    next_look: Duration,
    next_call: u64,
    pub(super) origins: Origins,
    pub(super) keep_alive: KeepAlive,
    labels: Labels,
    /// What connections keep outside their table.
    kept_bytes: usize,
    /// Channels for connections whose handshake was admitted but is not complete, by number.
    joins: HashMap<u64, Vec<String>>,
    pub(super) orders: VecDeque<Order>,
    pub(super) counts: Counts,
    /// Unix time at the start.
    epoch: Duration,
}

impl Core {
    /// Creates a core without connections and with `origins` origins.
    pub fn new(rules: Rules, codec: Box<dyn Codec>, origins: usize) -> Core {
        let serials = Serials::new(0, 0);
        Core {
            origins: Origins::new(origins, rules.balance, rules.origin_calls),
            keep_alive: KeepAlive::default(),
            rules,
            codec,
            names: Names::new("", &[]),
            serials,
            event_ids: serials,
            connections: Slab::new(),
            places: HashMap::new(),
            lines: HashMap::new(),
            closed_lines: 0,
            waiting_bytes: 0,
            waiting_events: 0,
            ready: VecDeque::new(),
            later: BTreeSet::new(),
            starved: Vec::new(),
            under_way: HashMap::new(),
            bytes_under_way: 0,
            written: 0,
            next_look: Duration::ZERO,
            next_call: 0,
            labels: Labels::default(),
            kept_bytes: 0,
            joins: HashMap::new(),
            orders: VecDeque::new(),
            counts: Counts::default(),
            epoch: Duration::ZERO,
        }
    }

    /// Sets how connections are named and numbered; call it before the first one.
    pub fn place(&mut self, names: Names, serials: Serials) {
        self.codec.place(names.address());
        (self.names, self.serials, self.event_ids) = (names, serials, serials);
    }

    /// Sets Unix time at the start, from the system clock now.
    pub fn set_epoch(&mut self, epoch: Duration) {
        self.epoch = epoch;
    }

    /// The pending orders; take them from the front.
    pub fn next_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The counters.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The codec.
    pub fn codec(&self) -> &dyn Codec {
        self.codec.as_ref()
    }

    /// The names of connections.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The connection that has this number.
    pub fn find(&self, serial: u64) -> Option<&Connection> {
        self.places.get(&serial).and_then(|place| self.connections.get(*place))
    }

    /// The destination of a name.
    pub fn read_name(&self, name: &str) -> Named {
        self.names.read(name)
    }

    /// A client asks for a connection, and its handshake waits for the origin: [`Order::Admit`] or [`Order::Refuse`] follows.
    /// Returns its number.
    pub fn connect(&mut self, opening: Opening, peer: Peer, agent: Option<&str>, now: Duration) -> u64 {
        self.begin(None, Event::Connect(Box::new(opening)), peer, agent, now)
    }

    /// A handshake that was admitted is complete.
    pub fn admitted(&mut self, serial: u64, id: ConnectionId, now: Duration) {
        if let Some(connection) = self.places.get(&serial).and_then(|place| self.connections.get_mut(*place)) {
            (connection.id, connection.opened, connection.heard) = (Some(id), now, now);
        }
        let channels = self.joins.remove(&serial).into_iter().flatten();
        self.orders.extend(channels.map(|channel| Order::Subscribe(id, channel)));
    }

    /// A connection opened whose handshake did not wait. Returns its number.
    pub fn open(&mut self, id: ConnectionId, opening: Opening, peer: Peer, agent: Option<&str>, now: Duration) -> u64 {
        self.begin(Some(id), Event::Connected(Box::new(opening)), peer, agent, now)
    }

    fn begin(&mut self, id: Option<ConnectionId>, event: Event, peer: Peer, agent: Option<&str>, now: Duration) -> u64 {
        let serial = self.serials.take();
        let keeps = self.codec.keeps_client();
        let agent = agent.filter(|_| keeps).map(Box::from);
        let claims = event.opening().and_then(|opening| opening.claims.clone()).filter(|_| keeps);
        let connection =
            Connection { serial, id, peer, agent, claims, opened: now, heard: now, reached: now, closing: false };
        self.kept_bytes += connection.kept_bytes();
        let place = self.connections.insert(connection);
        self.places.insert(serial, place);
        self.keep_alive.begin(self.rules.keep_alive_interval, now);
        // Before the origin can hear of it.
        self.orders.push_back(Order::Enter(Entry { serial, opened: self.epoch + now, peer }));
        self.push(serial, event, now);
        serial
    }

    /// A message came.
    pub fn message(&mut self, serial: u64, kind: Kind, payload: Vec<u8>, now: Duration) {
        let place = self.places.get(&serial).and_then(|place| self.connections.get_mut(*place));
        let Some(connection) = place.filter(|connection| !connection.closing) else { return };
        connection.heard = now;
        let id = connection.id;
        self.push(serial, Event::Message(kind, payload), now);
        let all_full = self.is_full();
        let (Some(id), Some(line)) = (id, self.lines.get_mut(&serial)) else { return };
        let is_full = line.messages >= self.rules.queue_messages || line.bytes >= self.rules.queue_bytes;
        if (is_full || all_full) && !line.paused {
            line.paused = true;
            self.counts.pauses += 1;
            self.orders.push_back(Order::Pause(id));
            if !is_full {
                self.starved.push(serial);
            }
        }
    }

    /// A connection ended, or a client left whose handshake waits.
    pub fn closed(&mut self, serial: u64, code: u16, reason: &str, now: Duration) {
        let Some(connection) = self.forget(serial) else { return };
        let ending = Ending { code, reason: reason.to_owned(), lasted: now.saturating_sub(connection.opened) };
        if connection.id.is_none() && self.lines.get(&serial).is_some_and(|line| line.state != State::UnderWay) {
            // The origin does not know of it.
            return self.drop_line(serial);
        }
        if self.closed_lines >= self.rules.max_closed {
            self.counts.closed_given_up += 1;
            return self.drop_line(serial);
        }
        self.closed_lines += 1;
        self.lines.entry(serial).or_insert_with(Line::boxed).gone = Some(connection);
        self.push(serial, Event::Closed(ending), now);
    }

    /// A killed worker held a connection: reports its end to the origin.
    pub fn adopt(&mut self, entry: Entry, now: Duration) {
        let Entry { serial, opened, peer } = entry;
        if self.closed_lines >= self.rules.max_closed {
            self.counts.closed_given_up += 1;
            return self.orders.push_back(Order::Strike(serial));
        }
        let opened = opened.saturating_sub(self.epoch);
        let gone = Connection {
            serial,
            id: None,
            peer,
            agent: None,
            claims: None,
            opened,
            heard: opened,
            reached: opened,
            closing: true,
        };
        self.closed_lines += 1;
        self.lines.entry(serial).or_insert_with(Line::boxed).gone = Some(gone);
        let lasted = now.saturating_sub(opened);
        let is_first =
            self.add(serial, Event::Closed(Ending { code: 1006, reason: "its worker ended".into(), lasted }));
        if let Some(line) = self.lines.get_mut(&serial).filter(|_| is_first) {
            let at = now + OVERTAKES_AFTER;
            line.state = State::Later(at);
            self.later.insert((at, serial));
        }
    }

    /// The process ends: what is unreported stays so.
    pub fn give_up(&mut self) {
        self.counts.closed_given_up += self.closed_lines as u64;
    }

    fn forget(&mut self, serial: u64) -> Option<Connection> {
        let place = self.places.remove(&serial)?;
        self.labels.forget(serial);
        self.joins.remove(&serial);
        let connection = self.connections.remove(place);
        self.kept_bytes -= connection.kept_bytes();
        Some(connection)
    }

    /// Adds an event to the end of a connection's line, and handles it if it is the first.
    fn push(&mut self, serial: u64, event: Event, now: Duration) {
        if self.add(serial, event) {
            self.ready.push_back(serial);
            self.pump(now);
        }
    }

    /// Adds an event to the end of a connection's line. Returns whether it is the first there.
    fn add(&mut self, serial: u64, event: Event) -> bool {
        if !self.codec.tells(&event) {
            if matches!(event, Event::Closed(_)) && self.lines.get(&serial).is_some_and(|line| line.events.is_empty()) {
                self.drop_line(serial);
            }
            return false;
        }
        self.waiting_events += 1;
        self.waiting_bytes += event.bytes();
        // The id of an end is the same when another worker reports it.
        let event_id = match event {
            Event::Closed(_) => format!("{serial:016x}-closed"),
            _ => format!("{:016x}", self.event_ids.take()),
        };
        let line = self.lines.entry(serial).or_insert_with(Line::boxed);
        line.push(event, event_id);
        let is_first = line.events.len() == 1;
        if is_first {
            line.state = State::Ready;
        }
        is_first
    }

    /// Handles deadlines that have passed.
    pub fn tick(&mut self, now: Duration) {
        self.written = 0;
        while let Some(&(at, serial)) = self.later.first().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, serial));
            if let Some(line) = self.lines.get_mut(&serial).filter(|line| line.state == State::Later(at)) {
                line.state = State::Ready;
                self.counts.retried += u64::from(line.attempts > 0);
                self.ready.push_back(serial);
            }
        }
        self.pump(now);
        self.keep_alive(now);
        self.enforce_limits(now);
    }

    /// When to call [`Core::tick`] next.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.written >= WRITTEN_BYTES {
            // As soon as others have had their turn.
            return Some(Duration::ZERO);
        }
        let later = self.later.first().map(|(at, _)| *at);
        [later, self.keep_alive.next_deadline(), self.next_limit()].into_iter().flatten().min()
    }

    /// Sends first events as long as an origin is free.
    fn pump(&mut self, now: Duration) {
        while !self.ready.is_empty() && self.written < WRITTEN_BYTES && self.bytes_under_way < UNDER_WAY_BYTES {
            let pick = self.origins.pick(now);
            if pick == Pick::Busy {
                return;
            }
            let Some(serial) = self.ready.pop_front() else { return };
            match pick {
                Pick::Origin(origin) => self.send(serial, origin, now),
                _ => self.try_again(serial, "no origin can be reached", now),
            }
        }
    }

    /// Sends the first event of a line.
    fn send(&mut self, serial: u64, origin: usize, now: Duration) {
        let subject = self.subject(serial, now);
        let Some((line, subject)) = self.lines.get_mut(&serial).zip(subject) else {
            return self.origins.release(origin);
        };
        line.state = State::UnderWay;
        let post = self.codec.write(&line.events[0].event, &subject);
        let event_id = subject.event_id.clone();
        self.call(Purpose::Event(serial, Box::new(subject)), origin, event_id, post);
    }

    pub(super) fn call_keep_alive(&mut self, origin: usize, post: super::codec::Post) {
        let event_id = format!("{:016x}", self.event_ids.take());
        self.call(Purpose::KeepAlive, origin, event_id, post);
    }

    fn call(&mut self, purpose: Purpose, origin: usize, event_id: String, post: super::codec::Post) {
        let key = self.next_call;
        self.next_call += 1;
        self.under_way.insert(key, (purpose, origin, post.body.len()));
        self.bytes_under_way += post.body.len();
        self.written += post.body.len();
        self.orders.push_back(Order::Call(Call { key, to: Callee::Origin(origin), aim: None, event_id, post }));
    }

    /// The subject of the first event of a line.
    fn subject(&self, serial: u64, now: Duration) -> Option<Subject> {
        let line = self.lines.get(&serial)?;
        let connection = line.gone.as_ref().or_else(|| self.find(serial))?;
        let event_id = line.events.front()?.event_id.clone();
        Some(connection.subject(self.names.name(serial), event_id, self.epoch, now))
    }

    /// A call finished.
    pub fn returned(&mut self, returned: Returned, now: Duration) {
        let Returned { key, outcome, took } = returned;
        let Some((purpose, origin, bytes)) = self.under_way.remove(&key) else { return };
        self.bytes_under_way -= bytes;
        self.origins.done(origin, matches!(outcome, Outcome::Answered(_)), now);
        self.counts.latency.observe(took.as_nanos().try_into().unwrap_or(u64::MAX), 1);
        match (purpose, outcome) {
            (Purpose::Event(serial, subject), outcome) => self.event_returned(serial, &subject, outcome, now),
            (Purpose::KeepAlive, outcome) => {
                let is_taken = matches!(&outcome, Outcome::Answered(reply) if reply.is_success());
                self.count(match outcome {
                    Outcome::Answered(_) => usize::from(!is_taken),
                    Outcome::Failed(_) => 2,
                    Outcome::Unsent(_) => 3,
                });
                self.keep_alive_returned(now);
            }
        }
        self.pump(now);
    }

    /// Returns memory after a busy period.
    fn shrink(&mut self) {
        if self.lines.len() < self.lines.capacity() / 8 {
            self.lines.shrink_to(SPARE);
        }
        if self.ready.len() < self.ready.capacity() / 8 {
            self.ready.shrink_to(SPARE);
        }
        if self.orders.is_empty() {
            self.orders.shrink_to(SPARE);
        }
    }

    fn count(&mut self, outcome: usize) {
        self.counts.calls[outcome] += 1;
    }

    fn event_returned(&mut self, serial: u64, subject: &Subject, outcome: Outcome, now: Duration) {
        let Some(line) = self.lines.get(&serial) else { return };
        let event = &line.events[0].event;
        match outcome {
            Outcome::Answered(reply) => match self.codec.read(event, &reply, subject) {
                Answer::Taken(effects) => {
                    self.count(0);
                    self.taken(serial, effects);
                }
                Answer::Refused(refusal) => {
                    self.count(1);
                    self.refused(serial, refusal, now);
                }
            },
            Outcome::Failed(reason) => {
                self.count(2);
                self.failed(serial, &reason, true, now);
            }
            Outcome::Unsent(reason) => {
                self.count(3);
                self.try_again(serial, &reason, now);
            }
        }
    }
}

mod account;
mod delivery;
mod limits;
