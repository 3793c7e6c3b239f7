//! The core of the gateway on a simulated clock, from a seed: connections that open, talk and close, origins that
//! answer, refuse, are slow, lose calls and are gone for a while. The calls to the origin are compared with what the
//! clients did.
//!
//! `PERCORE_SEED=N cargo test --test model gateway_simulation` repeats one seed.

use percore::internal::gateway::Rules;
use percore::internal::gateway::call::{Call, Callee, Outcome, Returned};
use percore::internal::gateway::codec::json::Json;
use percore::internal::gateway::core::{Core, Order};
use percore::internal::gateway::event::{Opening, Reply};
use percore::internal::gateway::ledger::Entry;
use percore::internal::gateway::name::{Named, Names, Serials};
use percore::internal::gateway::rules::{Balance, OnFailure};
use percore::{ConnectionId, Kind, Peer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const ADDRESS: &str = "127.0.0.1:9465/sr";

/// A connection as its client sees it.
struct Client {
    serial: u64,
    id: ConnectionId,
    /// Whether its handshake waits.
    waits: bool,
    sent: u32,
    paused: bool,
}

/// What the origin has heard of a connection.
#[derive(Default)]
struct Heard {
    opened: bool,
    next: u32,
    closed: bool,
    /// Whether the gateway knows that it has heard of the end.
    settled: bool,
    under_way: bool,
    /// Ids of events that it took, so that one that is sent again is not taken for another.
    taken: HashSet<String>,
}

struct World {
    random: StdRng,
    core: Core,
    names: Names,
    now: Duration,
    clients: Vec<Client>,
    heard: HashMap<u64, Heard>,
    /// Calls under way: when they end, and how.
    calls: Vec<(Duration, Call, Outcome, Duration)>,
    /// Until when each origin is gone.
    gone: Vec<Duration>,
    /// Connections that were accepted, and of these the ones that are over.
    accepted: HashSet<u64>,
    over: HashSet<u64>,
    next_id: u32,
    holds: bool,
    keeps: bool,
    returned: u64,
    keep_alive_calls: usize,
    /// Connections of which others would tell the end.
    ledger: HashSet<u64>,
    /// Whether everything goes well from now on.
    calm: bool,
}

fn rules(random: &mut StdRng) -> Rules {
    Rules {
        queue_messages: random.random_range(1..20),
        queue_bytes: random.random_range(50..2000),
        total_bytes: random.random_range(500..5000),
        on_failure: if random.random_bool(0.3) { OnFailure::Keep } else { OnFailure::Close },
        keep_alive_interval: if random.random_bool(0.5) { 500 * MS } else { Duration::ZERO },
        origin_calls: random.random_range(1..10),
        balance: if random.random_bool(0.5) { Balance::Least } else { Balance::RoundRobin },
        closed_retry: Duration::from_secs(3600),
        ..Rules::default()
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let (rules, origins) = (rules(&mut random), random.random_range(1..4));
        let keeps = rules.on_failure == OnFailure::Keep;
        let names = Names::new(ADDRESS, b"key");
        let mut core = Core::new(rules, Box::new(Json), origins);
        core.place(names.clone(), Serials::new(1, 1_000));
        World {
            core,
            names,
            now: Duration::ZERO,
            clients: Vec::new(),
            heard: HashMap::new(),
            calls: Vec::new(),
            gone: vec![Duration::ZERO; origins],
            accepted: HashSet::new(),
            over: HashSet::new(),
            next_id: 0,
            holds: random.random_bool(0.5),
            keeps,
            returned: 0,
            keep_alive_calls: 0,
            ledger: HashSet::new(),
            calm: false,
            random,
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        !self.calm && self.random.random_bool(probability)
    }

    fn client(&mut self, find: impl Fn(&Client) -> bool) -> Option<usize> {
        self.clients.iter().position(find)
    }

    /// Something that clients do.
    fn act(&mut self) {
        match self.random.random_range(0..10) {
            0..2 => self.connects(),
            2..8 => self.talks(),
            8 => self.goes(),
            _ => {
                let origin = self.random.random_range(0..self.gone.len());
                if self.chance(0.05) {
                    self.gone[origin] = self.now + self.random.random_range(1..8_000) * MS;
                }
            }
        }
        self.obey();
    }

    fn connects(&mut self) {
        self.next_id += 1;
        let id = ConnectionId { node: 1, generation: self.next_id, index: self.next_id };
        let serial = if self.holds {
            self.core.connect(Opening::default(), Peer::UNIX, None, self.now)
        } else {
            let serial = self.core.open(id, Opening::default(), Peer::UNIX, None, self.now);
            self.accepted.insert(serial);
            serial
        };
        self.clients.push(Client { serial, id, waits: self.holds, sent: 0, paused: false });
    }

    fn talks(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let place = self.random.random_range(0..self.clients.len());
        let client = &mut self.clients[place];
        if client.paused || client.waits {
            return;
        }
        let payload = format!("{:04} {}", client.sent, "x".repeat(self.random.random_range(0..100)));
        client.sent += 1;
        self.core.message(client.serial, Kind::Text, payload.into_bytes(), self.now);
    }

    fn goes(&mut self) {
        if !self.clients.is_empty() {
            let place = self.random.random_range(0..self.clients.len());
            self.end(place);
        }
    }

    fn end(&mut self, place: usize) {
        let client = self.clients.swap_remove(place);
        if !client.waits {
            self.over.insert(client.serial);
        }
        self.core.closed(client.serial, 1000, "", self.now);
    }

    /// Does what the core orders.
    fn obey(&mut self) {
        while let Some(order) = self.core.next_order() {
            match order {
                Order::Call(call) => self.call(call),
                Order::Close(id, _) => {
                    let place = self.client(|client| client.id == id).expect("only an open connection is closed");
                    self.end(place);
                }
                Order::Pause(id) => self.set_paused(id, true),
                Order::Resume(id) => self.set_paused(id, false),
                Order::Admit(serial, _) => {
                    let place = self.client(|client| client.serial == serial && client.waits).expect("it waits");
                    let client = &mut self.clients[place];
                    client.waits = false;
                    self.accepted.insert(client.serial);
                    self.core.admitted(client.serial, client.id, self.now);
                }
                Order::Refuse(serial, refusal) => {
                    assert!(refusal.status >= 400, "{refusal:?}");
                    if let Some(place) = self.client(|client| client.serial == serial) {
                        self.clients.swap_remove(place);
                    }
                }
                Order::Enter(entry) => assert!(self.ledger.insert(entry.serial), "it is entered once"),
                Order::Strike(serial) => drop(self.ledger.remove(&serial)),
                Order::Send(..) | Order::Subscribe(..) | Order::SendAway(_) => panic!("nothing asks for these"),
            }
        }
        self.core.check_invariants();
    }

    fn set_paused(&mut self, id: ConnectionId, paused: bool) {
        if let Some(place) = self.client(|client| client.id == id) {
            self.clients[place].paused = paused;
        }
    }

    /// A call begins: the dice say how it ends.
    fn call(&mut self, call: Call) {
        let Callee::Origin(origin) = call.to else { panic!("no other nodes here") };
        let body: Value = serde_json::from_slice(&call.post.body).expect("JSON");
        let name = body["WebSocketEvent"]["ConnectionId"].as_str();
        let serial = name.map(|name| match self.names.read(name) {
            Named::Here(serial) => serial,
            other => panic!("{other:?}"),
        });
        if let Some(serial) = serial {
            let heard = self.heard.entry(serial).or_default();
            assert!(!std::mem::replace(&mut heard.under_way, true), "one call at a time");
        }
        let took = self.random.random_range(0..200) * MS;
        let is_gone = self.gone[origin] > self.now;
        let outcome = if is_gone {
            Outcome::Unsent("connection refused".into())
        } else if self.chance(0.02) {
            Outcome::Failed("timed out".into())
        } else {
            let status = if self.chance(0.03) { if self.random.random_bool(0.5) { 403 } else { 500 } } else { 204 };
            Outcome::Answered(Reply { status, ..Reply::default() })
        };
        // A call that failed may have arrived all the same.
        let arrived = match &outcome {
            Outcome::Answered(reply) => reply.is_success(),
            Outcome::Failed(_) => self.random.random_bool(0.5),
            Outcome::Unsent(_) => false,
        };
        match serial {
            Some(serial) if arrived => {
                self.hears(serial, &call.event_id, &body["WebSocketEvent"]);
                let heard = self.heard.entry(serial).or_default();
                assert!(!heard.settled, "an end that was taken is told no more");
                heard.settled = heard.closed && matches!(outcome, Outcome::Answered(_));
            }
            Some(_) => {}
            None => {
                assert!(body["WebSocketKeepAlives"].as_array().is_some_and(|ids| !ids.is_empty()));
                self.keep_alive_calls += 1;
                assert_eq!(self.keep_alive_calls, 1, "batches go one after another");
            }
        }
        self.calls.push((self.now + took, call, outcome, took));
    }

    /// The origin takes an event.
    fn hears(&mut self, serial: u64, event_id: &str, event: &Value) {
        let (keeps, heard) = (self.keeps, self.heard.entry(serial).or_default());
        assert!(!heard.closed || heard.taken.contains(event_id), "nothing follows the end");
        let is_new = heard.taken.insert(event_id.to_owned());
        if !event["ConnectionEstablished"].is_null() {
            assert!(is_new && !heard.opened && heard.next == 0, "the beginning comes once, and first");
            heard.opened = true;
        } else if !event["ConnectionClosed"].is_null() {
            assert!(is_new || heard.closed, "an end that is told again has the id it had");
            heard.closed = true;
        } else {
            let text = event["MessageReceived"]["Text"].as_str().expect("text");
            let number: u32 = text[..4].parse().expect("a number");
            // What cannot be delivered is left out only if the connection may go on without.
            assert!(if keeps { number >= heard.next } else { number == heard.next }, "{number} after {}", heard.next);
            heard.next = number + 1;
        }
    }

    /// Time goes on to the next thing that happens.
    fn pass(&mut self) {
        let ends = self.calls.iter().map(|(at, ..)| *at).chain(self.core.next_deadline());
        let step = self.now + self.random.random_range(0..30) * MS;
        self.now = ends.min().map_or(step, |end| end.min(step)).max(self.now);
        while let Some(place) = self.calls.iter().position(|(at, ..)| *at <= self.now) {
            let (_, call, outcome, took) = self.calls.swap_remove(place);
            let body: Value = serde_json::from_slice(&call.post.body).expect("JSON");
            match body["WebSocketEvent"]["ConnectionId"].as_str().map(|name| self.names.read(name)) {
                Some(Named::Here(serial)) => self.heard.get_mut(&serial).expect("called").under_way = false,
                _ => self.keep_alive_calls -= 1,
            }
            self.returned += 1;
            self.core.returned(Returned { key: call.key, outcome, took }, self.now);
            self.obey();
        }
        self.core.tick(self.now);
        self.obey();
    }

    fn run(mut self) {
        let (queue, all) = (self.core.waiting().1, 5000 + 200 * 100);
        assert_eq!(queue, 0);
        for _ in 0..3_000 {
            self.act();
            self.pass();
            assert!(self.core.waiting().1 < all, "what waits is bounded");
        }
        // Now all goes well, and everybody leaves.
        self.calm = true;
        self.gone.fill(Duration::ZERO);
        for _ in 0..200 {
            self.pass();
        }
        while !self.clients.is_empty() {
            self.end(0);
            self.obey();
        }
        for _ in 0..200_000 {
            if self.calls.is_empty() && self.core.closed_pending() == 0 && self.core.in_flight() == 0 {
                break;
            }
            self.pass();
        }
        assert_eq!((self.core.waiting(), self.core.closed_pending()), ((0, 0), 0));
        assert_eq!(self.accepted, self.over, "everybody who came has gone");
        for serial in &self.accepted {
            assert!(self.heard.get(serial).is_some_and(|heard| heard.closed), "each end is told");
        }
        for heard in self.heard.values() {
            assert!(!heard.opened || heard.closed, "whoever was announced is known to have gone");
        }
        assert!(self.ledger.is_empty(), "nothing is left to others");
        let counts = self.core.counts();
        assert_eq!(counts.calls.iter().sum::<u64>(), self.returned);
        assert_eq!(counts.closed_given_up, 0);
        assert_eq!(self.core.origins_out(), 0);
    }
}

#[test]
fn what_clients_do_reaches_the_origin_in_order_and_each_end_once() {
    let seeds = match std::env::var("PERCORE_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..40).collect(),
    };
    for seed in seeds {
        println!("PERCORE_SEED={seed}");
        World::new(seed).run();
    }
}

/// An end that nobody takes is told again at least once a second, is given up after a while, and then counted.
#[test]
fn an_end_is_told_again_until_it_is_given_up() {
    let rules = Rules { closed_retry: Duration::from_secs(10), ..Rules::default() };
    let mut core = Core::new(rules, Box::new(Json), 1);
    let id = ConnectionId { node: 0, generation: 1, index: 0 };
    let mut now = Duration::ZERO;
    let serial = core.open(id, Opening::default(), Peer::UNIX, None, now);
    let mut calls = Vec::new();
    let mut answers = |core: &mut Core, now: Duration, status: u16| {
        while let Some(order) = core.next_order() {
            let Order::Call(call) = order else { continue };
            calls.push((now, call.event_id.clone()));
            let outcome = Outcome::Answered(Reply { status, ..Reply::default() });
            core.returned(Returned { key: call.key, outcome, took: MS }, now);
        }
        calls.clone()
    };
    answers(&mut core, now, 200);
    core.closed(serial, 1006, "", now);
    while core.closed_pending() > 0 {
        answers(&mut core, now, 500);
        if let Some(next) = core.next_deadline() {
            now = next;
            core.tick(now);
        }
        assert!(now < Duration::from_secs(12));
    }
    let calls = answers(&mut core, now, 500);
    let ends = &calls[1..];
    assert!(ends.len() >= 10 && ends.iter().all(|(_, event)| *event == ends[0].1), "{ends:?}");
    assert!(ends.windows(2).all(|pair| pair[1].0 - pair[0].0 <= Duration::from_secs(1)), "{ends:?}");
    assert_eq!(core.counts().closed_given_up, 1);
    core.check_invariants();
}

/// What never reached the origin is tried again for as long as there is patience; then the connection is closed, and its end told.
#[test]
fn an_origin_that_is_away_for_a_moment_costs_nobody_a_connection() {
    for (away, survives) in [(Duration::from_millis(1500), true), (Duration::from_secs(3), false)] {
        let mut core = Core::new(Rules::default(), Box::new(Json), 1);
        let id = ConnectionId { node: 0, generation: 1, index: 0 };
        let mut now = Duration::ZERO;
        core.open(id, Opening::default(), Peer::UNIX, None, now);
        let mut closed = false;
        while now < Duration::from_secs(5) {
            while let Some(order) = core.next_order() {
                match order {
                    Order::Call(call) => {
                        let outcome = match now < away {
                            true => Outcome::Unsent("connection refused".into()),
                            false => Outcome::Answered(Reply { status: 200, ..Reply::default() }),
                        };
                        core.returned(Returned { key: call.key, outcome, took: MS }, now);
                    }
                    Order::Close(whose, _) => {
                        assert_eq!(whose, id);
                        closed = true;
                    }
                    Order::Enter(_) | Order::Strike(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            let Some(next) = core.next_deadline() else { break };
            now = next.max(now);
            core.tick(now);
        }
        assert_eq!(closed, !survives);
        core.check_invariants();
    }
}

/// What a worker had sent before it was killed may still be on its way: the end of its connections comes a moment later.
#[test]
fn an_end_that_is_taken_over_does_not_overtake() {
    let mut core = Core::new(Rules::default(), Box::new(Json), 1);
    let start = Duration::from_secs(100);
    core.adopt(Entry { serial: 7, opened: Duration::from_secs(90), peer: Peer::UNIX }, start);
    assert_eq!((core.next_order(), core.next_deadline()), (None, Some(start + 500 * MS)));
    core.tick(start + 499 * MS);
    assert_eq!((core.next_order(), core.closed_pending()), (None, 1));
    core.check_invariants();
    core.tick(start + 500 * MS);
    let Some(Order::Call(call)) = core.next_order() else { panic!("it is told now") };
    assert_eq!(call.event_id, "0000000000000007-closed");
    let outcome = Outcome::Answered(Reply { status: 200, ..Reply::default() });
    core.returned(Returned { key: call.key, outcome, took: MS }, start + 501 * MS);
    assert_eq!((core.next_order(), core.closed_pending(), core.counts().retried), (Some(Order::Strike(7)), 0, 0));
}
