//! The app of a simulation: an echo that watches how it is called, closes connections of its own accord, and sends to
//! others whenever it is called.

use super::random::Random;
use percore::{
    App, CloseCode, CloseReason, ConnectionId, Delivery, Error, Message, Outbox, Peer, Request, Response, Ticket,
    Upgrade,
};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// The code with which the app closes a connection that did nothing for it.
pub const KICKED: u16 = 4000;
/// The code with which it closes a connection that asks for it by a text that begins with `!`.
pub const ASKED: u16 = 4001;
/// What the app pushes begins with this, so that it is told from an echo.
pub const PUSHED: u8 = b'~';

/// How a connection ended, and when.
pub struct Ending {
    pub reason: CloseReason,
    pub at: Duration,
}

#[derive(Default)]
pub struct Counts {
    pub opened: u64,
    pub closed: u64,
    pub received: u64,
    pub queued: u64,
    pub dropped: u64,
    pub errors: u64,
}

impl Counts {
    /// Whether enough happened for a run to show anything.
    pub fn are_lively(&self) -> bool {
        self.opened > 50 && self.received > 1_000 && self.errors > 5
    }
}

/// An answer that the app owes.
pub struct Debt {
    pub ticket: Ticket,
    upgrades: bool,
}

pub struct Probe {
    pub now: Duration,
    pub counts: Counts,
    pub open: Vec<ConnectionId>,
    /// Whose connections are open.
    pub peers: HashMap<ConnectionId, Peer>,
    pub endings: HashMap<ConnectionId, Ending>,
    /// When the app began to close a connection.
    pub closing: HashMap<ConnectionId, Duration>,
    /// Answers owed, some of which nobody waits for any more.
    pub debts: Vec<Debt>,
    /// Tags of upgrades that were accepted and are to open.
    pub accepted: HashSet<u64>,
    last_tag: u64,
    paused: Vec<ConnectionId>,
    generations: HashSet<u32>,
    former: Vec<ConnectionId>,
    next_tick: Duration,
    random: Random,
}

impl Probe {
    pub fn new(seed: u64, start: Duration) -> Probe {
        Probe {
            now: start,
            counts: Counts::default(),
            open: Vec::new(),
            peers: HashMap::new(),
            endings: HashMap::new(),
            closing: HashMap::new(),
            debts: Vec::new(),
            accepted: HashSet::new(),
            last_tag: 0,
            paused: Vec::new(),
            generations: HashSet::new(),
            former: Vec::new(),
            next_tick: Duration::ZERO,
            random: Random::new(seed),
        }
    }

    /// When `on_tick` is due.
    pub fn next_tick(&self) -> Duration {
        self.next_tick
    }

    fn close(&mut self, id: ConnectionId, code: u16, out: &mut Outbox) {
        if out.close(id, CloseCode::from(code), "closed by the app") == Delivery::Queued {
            assert!(self.closing.insert(id, self.now).is_none(), "{id} was closed twice");
        }
    }

    fn kick_someone(&mut self, out: &mut Outbox) {
        if !self.open.is_empty() {
            let id = *self.random.pick(&self.open);
            self.close(id, KICKED, out);
        }
    }

    /// Closes every connection, as a room does that is over.
    fn kick_everyone(&mut self, out: &mut Outbox) {
        for id in self.open.clone() {
            self.close(id, KICKED, out);
        }
    }

    fn push(&mut self, id: ConnectionId, out: &mut Outbox) {
        let delivery = out.send(id, percore::Kind::Binary, &[&[PUSHED], b"pushed"]);
        self.count(delivery);
    }

    fn push_to_everyone(&mut self, out: &mut Outbox) {
        for id in self.open.clone() {
            self.push(id, out);
        }
    }

    fn push_to_some(&mut self, out: &mut Outbox) {
        for _ in 0..self.random.size(1, 4).min(self.open.len()) {
            let id = *self.random.pick(&self.open);
            self.push(id, out);
        }
        if !self.former.is_empty() {
            let gone = *self.random.pick(&self.former);
            assert_eq!(out.send_text(gone, "to one that is gone"), Delivery::Closed);
            assert_eq!(out.close(gone, CloseCode::Normal, ""), Delivery::Closed);
            assert_eq!(out.ping(gone, b""), Delivery::Closed);
        }
    }

    /// Puts a request off, to be answered by some later call.
    fn defer(&mut self, request: &Request<'_>, upgrades: bool, out: &mut Outbox) {
        let ticket = out.defer(request);
        assert!(out.awaits(ticket));
        self.debts.push(Debt { ticket, upgrades });
        if self.random.one_in(4) {
            return self.pay_someone(out);
        }
        self.tick_within(8_000, out);
    }

    /// Has the next tick come by some time within so many milliseconds.
    fn tick_within(&mut self, millis: u64, out: &mut Outbox) {
        let at = self.now + self.random.millis(1, millis);
        out.tick_by(at);
        self.next_tick = self.next_tick.min(at);
    }

    fn pay_someone(&mut self, out: &mut Outbox) {
        if self.debts.is_empty() {
            return;
        }
        let Debt { ticket, upgrades } = self.debts.swap_remove(self.random.size(0, self.debts.len() - 1));
        let (awaits, accepts) = (out.awaits(ticket), upgrades && !self.random.one_in(8));
        let taken = if accepts {
            self.last_tag += 1;
            let taken = out.accept_upgrade(ticket, Upgrade::new().tag(self.last_tag));
            if taken {
                self.accepted.insert(self.last_tag);
            }
            taken
        } else {
            assert!(upgrades || !out.accept_upgrade(ticket, Upgrade::new()), "not an upgrade");
            out.answer(ticket, Response::text(if upgrades { 403 } else { 200 }, "at last"))
        };
        assert_eq!(taken, awaits);
        assert!(!out.awaits(ticket) && !out.answer(ticket, Response::new(200)), "it has its answer");
    }

    /// Whether the app does not let a connection be read from.
    pub fn is_paused(&self, id: ConnectionId) -> bool {
        self.paused.contains(&id)
    }

    fn pause(&mut self, id: ConnectionId, out: &mut Outbox) {
        if out.pause(id) {
            self.paused.push(id);
            self.tick_within(200_000, out);
        }
    }

    fn resume_someone(&mut self, out: &mut Outbox) {
        if !self.paused.is_empty() {
            let id = self.paused.swap_remove(self.random.size(0, self.paused.len() - 1));
            assert!(out.resume(id) || !self.open.contains(&id) || self.closing.contains_key(&id));
        }
    }

    fn count(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Queued => self.counts.queued += 1,
            Delivery::Dropped => self.counts.dropped += 1,
            Delivery::Closed => {}
        }
    }
}

/// The content of a request to `/post?LENGTH`.
pub fn content(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place * 7 + length) as u8).collect()
}

impl App for Probe {
    type State = ConnectionId;

    fn takes_content(&self, request: &Request<'_>) -> usize {
        assert!(request.content().is_empty(), "it has not come yet");
        if request.path() == "/post" { usize::MAX } else { 0 }
    }

    fn on_request(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        match request.path() {
            "/post" => {
                let length = request.query().and_then(|length| length.parse().ok()).expect("a length");
                assert_eq!(request.content(), content(length));
                Some(Response::new(200))
            }
            "/later" => {
                self.defer(request, false, out);
                None
            }
            "/service" => Some(Response::new(if request.is_service() { 200 } else { 404 })),
            _ => None,
        }
    }

    fn on_upgrade(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        assert!(!request.is_service());
        if self.random.one_in(3) {
            self.defer(request, true, out);
        }
        None
    }

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> ConnectionId {
        assert!(request.tag() == 0 || self.accepted.remove(&request.tag()), "accepted once");
        assert!(self.generations.insert(id.generation), "generation {} was used before", id.generation);
        assert_eq!(request.path(), "/ws");
        self.open.push(id);
        self.peers.insert(id, request.peer());
        self.counts.opened += 1;
        match self.random.between(0, 99) {
            0 => self.close(id, KICKED, out),
            1..=9 => self.push_to_some(out),
            _ => {}
        }
        id
    }

    fn on_message(&mut self, id: ConnectionId, state: &mut ConnectionId, mut message: Message<'_>, out: &mut Outbox) {
        assert_eq!(id, *state, "the state of another connection");
        assert!(self.open.contains(&id), "a message for {id}, which is not open");
        assert!(!self.paused.contains(&id), "a message for {id}, which is paused");
        self.counts.received += 1;
        match self.random.between(0, 399) {
            0 => self.pause(id, out),
            1 => self.pay_someone(out),
            2 => self.resume_someone(out),
            _ => {}
        }
        if message.text().is_some_and(|text| text.starts_with('!')) {
            self.kick_someone(out);
            return self.close(id, ASKED, out);
        }
        let delivery = out.echo(id, message);
        self.count(delivery);
    }

    fn on_error(&mut self, id: ConnectionId, state: &mut ConnectionId, _: &Error, _: &mut Outbox) {
        assert_eq!(id, *state);
        assert!(self.open.contains(&id), "an error of {id}, which is not open");
        self.counts.errors += 1;
    }

    fn on_close(&mut self, id: ConnectionId, state: ConnectionId, reason: &CloseReason, out: &mut Outbox) {
        assert_eq!(id, state);
        let place = self.open.iter().position(|open| *open == id).expect("on_close once for each on_open");
        self.open.swap_remove(place);
        self.paused.retain(|paused| *paused != id);
        self.peers.remove(&id);
        self.counts.closed += 1;
        self.endings.insert(id, Ending { reason: reason.clone(), at: self.now });
        assert_eq!(out.send_text(id, "too late"), Delivery::Closed);
        self.former.push(id);
        match self.random.between(0, 99) {
            0 => self.kick_everyone(out),
            1..=9 => self.kick_someone(out),
            10..=19 => self.push_to_everyone(out),
            20..=39 => self.push_to_some(out),
            40..=49 => self.pay_someone(out),
            _ => {}
        }
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        assert_eq!(now, self.now);
        assert!(now >= self.next_tick, "on_tick before its time");
        match self.random.between(0, 19) {
            0 => self.kick_someone(out),
            1 => self.push_to_some(out),
            2..=5 => self.resume_someone(out),
            6..=15 => self.pay_someone(out),
            _ => {}
        }
        self.next_tick = now + self.random.millis(1, 120_000);
        Some(self.next_tick)
    }
}
