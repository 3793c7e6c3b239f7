//! The world of a simulation: a made-up clock, the sockets between clients and [`Sessions`], and the passes of a loop
//! that does with them what the reactor does with real ones. What must always hold is asserted in every pass.

mod checks;
mod end;
mod turns;

use super::address::Who;
use super::client::{CONTENT_TIME, Circumstances, Client, Step};
use super::link::Link;
use super::probe::Probe;
use super::random::Random;
use super::settings::settings;
use percore::internal::queue::MAX_SLICES;
use percore::internal::session::{Fate, Sessions};
use percore::internal::telemetry::log::Log;
use percore::internal::time::wheel::TICK;
use percore::{ConnectionId, Settings, SlowConsumer};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::io::{Error, ErrorKind, IoSlice};
use std::time::Duration;

/// How much later than it wanted the loop may wake.
const LATENESS: Duration = Duration::from_millis(5);
/// So much later than its deadline something may happen, while the loop is not stalled.
const SLACK: Duration = Duration::from_millis(TICK.as_millis() as u64 + LATENESS.as_millis() as u64 + 1);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Connect,
    Step(usize),
    Deliver(usize),
    Writable(usize),
}

pub struct World {
    sessions: Sessions<Probe>,
    settings: Settings,
    random: Random,
    now: Duration,
    happenings: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    sequence: u64,
    links: Vec<Link>,
    by_key: HashMap<u32, usize>,
    touched: BTreeSet<usize>,
    /// For how long the loop may now and then be held up, so that much happens in one pass.
    stall: Duration,
    /// With that, so much later than its deadline something may happen.
    slack: Duration,
    draining: bool,
    passes: u64,
    refused: u64,
    /// Connections that had made room for others before this pass.
    shed_before: u64,
}

impl World {
    /// A world of `clients`, who come within `span` from `start` on.
    pub fn new(seed: u64, start: Duration, span: Duration, clients: usize) -> World {
        let mut random = Random::new(seed);
        let settings = settings(&mut random);
        let probe = Probe::new(random.next(), start);
        let sessions = Sessions::new(probe, settings.clone(), Log::new(None), 0, [1; 32]);
        let stall = *random.pick(&[Duration::ZERO, Duration::from_millis(300)]);
        let mut world = World {
            stall,
            slack: SLACK + stall,
            sessions,
            settings,
            random,
            now: start,
            happenings: BinaryHeap::new(),
            sequence: 0,
            links: Vec::new(),
            by_key: HashMap::new(),
            touched: BTreeSet::new(),
            draining: false,
            passes: 0,
            refused: 0,
            shed_before: 0,
        };
        let mut left = clients;
        while left > 0 {
            let at = world.random.millis(0, span.as_millis() as u64);
            // Now and then a crowd comes at once.
            let crowd = if world.random.one_in(60) { world.random.size(1, left.min(300)) } else { 1 };
            for _ in 0..crowd {
                let later = world.random.millis(0, 40);
                world.schedule(at + later, Happening::Connect);
            }
            left -= crowd;
        }
        world
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.happenings.push(Reverse((self.now + after, self.sequence, happening)));
    }

    /// Lives until every client has done what it had planned, or until `end`; then drains.
    pub fn run(&mut self, end: Duration) {
        while self.happenings.peek().is_some_and(|Reverse((at, ..))| *at < end) {
            self.pass_at_next();
        }
        self.draining = true;
        self.sessions.begin_pass(self.now);
        self.sessions.drain();
        self.flush();
        self.end_pass();
        let Settings { handshake_timeout, close_timeout, answer_timeout, .. } = self.settings;
        let bound = self.now + handshake_timeout * 2 + CONTENT_TIME + answer_timeout + close_timeout + self.slack * 3;
        let abandons = self.random.one_in(4);
        while !self.sessions.is_empty() && !abandons {
            self.pass_at_next();
            assert!(self.now <= bound, "{} connections outlive the drain", self.sessions.len());
        }
        self.sessions.abandon();
        self.resume();
        self.flush();
        self.end_pass();
        self.check_the_end();
    }

    /// Sleeps until something happens or the sessions want to be woken, and not beyond.
    fn pass_at_next(&mut self) {
        let happening = self.happenings.peek().map(|Reverse((at, ..))| *at);
        let wake = happening.into_iter().chain(self.sessions.next_deadline()).min();
        let late = if self.random.one_in(3) { self.random.between(0, LATENESS.as_micros() as u64) } else { 0 };
        self.now = wake.expect("a tick is always to come").max(self.now) + Duration::from_micros(late);
        if self.random.one_in(20) {
            self.now += self.stall;
        }
        self.pass();
    }

    fn pass(&mut self) {
        self.passes += 1;
        self.sessions.begin_pass(self.now);
        self.sessions.app.now = self.now;
        self.shed_before = self.sessions.stats().shed;
        if self.random.one_in(300) {
            // As when there is no descriptor for one more.
            self.sessions.shed();
        }
        while let Some(&Reverse((at, _, happening))) = self.happenings.peek() {
            if at > self.now {
                break;
            }
            self.happenings.pop();
            self.happen(happening);
        }
        self.sessions.expire();
        self.resume();
        assert!(self.sessions.app.next_tick() > self.now, "on_tick was not called");
        self.flush();
        self.end_pass();
        self.check();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Connect => self.connect(),
            Happening::Step(link) => self.step(link),
            Happening::Deliver(link) => self.deliver(link),
            Happening::Writable(link) => self.writable(link),
        }
    }

    /// Connections that may be read from again are read from.
    fn resume(&mut self) {
        let mut resumed = Vec::new();
        self.sessions.take_resumed(&mut resumed);
        for (key, _) in resumed {
            let index = self.by_key[&key];
            self.links[index].paused = false;
            self.hear_of(index);
            self.schedule(Duration::ZERO, Happening::Deliver(index));
        }
    }

    fn connect(&mut self) {
        let is_service = self.random.one_in(15);
        let who = Who::new(&mut self.random, self.settings.proxies.proxy_protocol && !is_service);
        let key = if is_service {
            self.sessions.accept_service(who.connects())
        } else {
            self.sessions.accept(who.connects())
        };
        let Some(key) = key else {
            self.refused += 1;
            return;
        };
        let generation = self.sessions.generation(key).expect("a new connection");
        let id = ConnectionId { node: self.settings.node, generation, index: key };
        let link = self.links.len();
        assert!(self.by_key.insert(key, link).is_none(), "key {key} is in use");
        let client = Client::new(Random::new(self.random.next()), who, is_service);
        let (heard, requested) = (self.now, self.now);
        let room = *self.random.pick(&[2_000, 100_000, usize::MAX, usize::MAX]);
        self.links.push(Link {
            client,
            key,
            id,
            heard,
            requested,
            upgraded: None,
            room,
            blocked: false,
            was_blocked: false,
            unblocked: Duration::ZERO,
            paused: false,
            broken: false,
            gone: false,
        });
        self.schedule(Duration::ZERO, Happening::Step(link));
    }

    fn step(&mut self, index: usize) {
        let link = &mut self.links[index];
        if link.gone {
            return;
        }
        let Some(step) = link.client.step() else { return };
        let mut pause = self.random.millis(0, 60);
        match step {
            Step::Wait(time) => pause = time,
            Step::StopReading => {
                link.client.reads = false;
                link.room = link.room.min(20_000);
            }
            Step::ReadAgain if !link.client.reads => {
                link.client.reads = true;
                self.schedule(Duration::ZERO, Happening::Writable(index));
            }
            Step::Reset => {
                link.broken = true;
                self.touched.insert(index);
                let error = Error::from(ErrorKind::ConnectionReset);
                return self.sessions.socket_error(link.key, &error);
            }
            _ => {}
        }
        let transit = self.random.millis(0, 30);
        self.schedule(transit, Happening::Deliver(index));
        self.schedule(pause, Happening::Step(index));
    }

    /// A client reads, so that its socket takes bytes again.
    fn writable(&mut self, index: usize) {
        self.touched.insert(index);
        let link = &mut self.links[index];
        if link.gone || !link.client.reads || self.sessions.generation(link.key) != Some(link.id.generation) {
            return;
        }
        link.room = *self.random.pick(&[1, 500, 30_000, 400_000, usize::MAX]);
        (link.blocked, link.unblocked) = (false, self.now);
        self.hear_of(index);
        let link = &mut self.links[index];
        self.sessions.writable(link.key);
        link.paused = false;
        // The event also says that there may be something to read, and says so again at the end of the stream.
        self.deliver(index);
    }

    /// A connection that is over is not heard of any more.
    fn hear_of(&mut self, index: usize) {
        let link = &mut self.links[index];
        if !self.sessions.app.endings.contains_key(&link.id) {
            link.heard = self.now;
        }
    }

    /// Writes what is dirty to sockets that take all, some or none of it, or fail.
    fn flush(&mut self) {
        while let Some(key) = self.sessions.queue().next_dirty() {
            let index = self.by_key[&key];
            let link = &mut self.links[index];
            if link.broken || self.random.one_in(3_000) {
                link.broken = true;
                self.sessions.socket_error(key, &Error::from(ErrorKind::BrokenPipe));
                continue;
            }
            self.touched.insert(index);
            let interrupted = self.random.one_in(500);
            let queue = self.sessions.queue();
            let offered: Vec<u8> = match queue.single(key) {
                Some(bytes) => bytes.to_vec(),
                None => {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let count = queue.gather(key, &mut slices);
                    slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
                }
            };
            assert!(!offered.is_empty(), "nothing to write on a dirty lane");
            if interrupted {
                queue.sent(key, 0, false);
                continue;
            }
            let taken = offered.len().min(link.room);
            link.room -= taken;
            link.blocked = taken < offered.len();
            link.was_blocked |= link.blocked;
            queue.sent(key, taken, link.blocked);
            self.hear(index, &offered[..taken]);
        }
        self.sessions.queue().end_flush();
    }

    fn hear(&mut self, index: usize, bytes: &[u8]) {
        let around = Circumstances {
            draining: self.draining,
            drops: self.settings.send.slow_consumer == SlowConsumer::Drop,
            full: self.settings.max_connections < 1_000,
            limited: self.settings.max_connections_per_ip > 0,
        };
        let link = &mut self.links[index];
        if link.client.hear(bytes, around) {
            // The time for the next request begins anew.
            link.requested = self.now;
        }
        if link.client.upgraded && link.upgraded.is_none() {
            link.upgraded = Some(self.now);
        }
        let answers = link.client.delivered < link.client.outgoing.len();
        if answers && !link.paused {
            let transit = self.random.millis(1, 200);
            self.schedule(transit, Happening::Deliver(index));
        }
        if self.links[index].blocked && self.links[index].client.reads {
            let patience = *self.random.pick(&[1, 50, 2_000, 40_000]);
            let later = self.random.millis(0, patience);
            self.schedule(later, Happening::Writable(index));
        }
    }

    fn end_pass(&mut self) {
        let mut fates = Vec::new();
        self.sessions.end_pass(|key, fate| fates.push((key, fate)));
        for (key, fate) in fates {
            let index = self.by_key[&key];
            match fate {
                Fate::ShutdownWrite => {
                    assert!(!self.links[index].blocked, "shut before all was written");
                }
                Fate::Close => {
                    self.by_key.remove(&key);
                    self.links[index].gone = true;
                    self.check_ending(index);
                    self.forget(index);
                }
            }
        }
    }

    /// Gives back what only a living connection needs.
    fn forget(&mut self, index: usize) {
        let Link { client, .. } = &mut self.links[index];
        (client.outgoing, client.delivered) = (Vec::new(), 0);
    }
}
