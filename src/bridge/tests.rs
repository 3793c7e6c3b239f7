//! Several exchanges around a Redis of a few lines, on a simulated clock: whatever happens, they come to agree, and no
//! message loops or arrives twice.

use super::dialect::Dialect;
use super::exchange::{Exchange, Rules, Side};
use super::resp::{Replies, Reply, command};
use super::url::Login;
use super::wire::HostId;
use crate::bus::event::BusEvent;
use crate::channel::record::{Interest, Record, RecordKind, Records};
use crate::net::id::Participant;
use crate::telemetry::log::{Level, Log};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const HOSTS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);
const CHANNELS: [&str; 2] = ["a", "b"];

fn rules() -> Rules {
    Rules {
        max_backlog: 1 << 20,
        redis_timeout: 15 * SECOND,
        host_timeout: 15 * SECOND,
        max_record: 100_000,
        login: Some(Login { user: Some(b"user".to_vec()), password: b"pass".to_vec() }),
        place: "redis://test:1".into(),
        dialect: Dialect::default(),
        asks_role: false,
    }
}

/// A host: its bridge, the members of its processes, and what the bridge published on its bus.
struct Host {
    exchange: Exchange,
    connected: bool,
    parsers: [Replies; 2],
    subscribed: BTreeSet<Vec<u8>>,
    /// By process: its channels' subscribers, and its members.
    counts: BTreeMap<(u32, &'static str), u32>,
    members: BTreeSet<(u32, &'static str, String)>,
    /// Members of other hosts, as published on the bus.
    others: BTreeSet<(String, String)>,
    messages: Vec<(String, RecordKind, String)>,
    log: Vec<String>,
}

impl Host {
    fn new(number: usize) -> Host {
        Host {
            exchange: Exchange::new(HostId(number as u64), rules(), Log::new(Some(Level::Info))),
            connected: false,
            parsers: [Replies::new(1 << 20), Replies::new(1 << 20)],
            subscribed: BTreeSet::new(),
            counts: BTreeMap::new(),
            members: BTreeSet::new(),
            others: BTreeSet::new(),
            messages: Vec::new(),
            log: Vec::new(),
        }
    }

    fn tell(&mut self, slot: u32, kind: RecordKind, channel: &str, payload: &[u8]) {
        let record = Record { kind, channel: channel.as_bytes(), payload };
        self.exchange.bus_event(BusEvent::Record { from: Participant { slot, generation: 1 }, record });
    }

    /// Takes the bridge's records for its bus. A member joins only if it is absent, and leaves only if it is present.
    fn take_records(&mut self) {
        let records = std::mem::take(self.exchange.to_bus());
        for record in records.iter() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (channel, payload) = (text(record.channel), text(record.payload));
            match record.kind {
                RecordKind::Enter => assert!(self.others.insert((channel, payload)), "entered twice"),
                RecordKind::Leave => assert!(self.others.remove(&(channel, payload)), "left, and was not there"),
                kind => self.messages.push((channel, kind, payload)),
            }
        }
        self.log.extend(self.exchange.log.take().into_iter().map(|record| record.text));
    }
}

struct World {
    hosts: Vec<Host>,
    now: Duration,
    redis_is_up: bool,
}

impl World {
    fn new() -> World {
        World { hosts: (0..HOSTS).map(Host::new).collect(), now: Duration::ZERO, redis_is_up: true }
    }

    /// Lets all hosts and Redis do what is due now.
    fn settle(&mut self) {
        loop {
            let mut busy = false;
            for index in 0..self.hosts.len() {
                let now = self.now;
                let host = &mut self.hosts[index];
                if host.exchange.wants_connection(now) {
                    host.exchange.open(now);
                    host.connected = self.redis_is_up;
                    host.parsers = [Replies::new(1 << 20), Replies::new(1 << 20)];
                    host.subscribed.clear();
                    if !host.connected {
                        host.exchange.lost("connection refused", now, 0.5);
                    }
                }
                if let Err(why) = host.exchange.pass(now) {
                    self.cut(index, &why);
                }
                busy |= self.serve(index);
                self.hosts[index].take_records();
            }
            if !busy {
                return;
            }
        }
    }

    /// Redis takes a host's output.
    fn serve(&mut self, index: usize) -> bool {
        let mut busy = false;
        for side in [Side::Publisher, Side::Subscriber] {
            let host = &mut self.hosts[index];
            let bytes = host.exchange.pending(side).to_vec();
            host.exchange.wrote(side, bytes.len());
            if !host.connected || bytes.is_empty() {
                continue;
            }
            busy = true;
            let mut parser = std::mem::take(&mut host.parsers[side as usize]);
            parser.feed(&bytes);
            while let Some(Reply::Array(items)) = parser.next_reply().expect("commands") {
                let words = items.iter().map(|item| match item {
                    Reply::Bulk(bytes) => bytes.to_vec(),
                    other => panic!("{other:?}"),
                });
                self.execute(index, side, &words.collect::<Vec<_>>());
            }
            self.hosts[index].parsers[side as usize] = parser;
        }
        busy
    }

    fn execute(&mut self, index: usize, side: Side, words: &[Vec<u8>]) {
        let mut reply = Vec::new();
        match (side, words[0].as_slice(), &words[1..]) {
            (_, b"AUTH", [user, password]) => {
                assert_eq!((user.as_slice(), password.as_slice()), (&b"user"[..], &b"pass"[..]));
                reply.extend_from_slice(b"+OK\r\n");
            }
            (Side::Publisher, b"PING", []) => reply.extend_from_slice(b"+PONG\r\n"),
            (Side::Subscriber, b"PING", []) => command(&mut reply, &[&[b"pong"], &[b""]]),
            (Side::Subscriber, b"SUBSCRIBE", [channel]) => {
                assert!(self.hosts[index].subscribed.insert(channel.clone()), "subscribed twice");
                command(&mut reply, &[&[b"subscribe"], &[channel], &[b"1"]]);
            }
            (Side::Subscriber, b"UNSUBSCRIBE", [channel]) => {
                assert!(self.hosts[index].subscribed.remove(channel), "unsubscribed, and was not subscribed");
                command(&mut reply, &[&[b"unsubscribe"], &[channel], &[b"1"]]);
            }
            (Side::Subscriber, b"UNSUBSCRIBE", []) => self.hosts[index].subscribed.clear(),
            (Side::Publisher, b"PUBLISH", [channel, payload]) => {
                self.publish(channel, payload);
                reply.extend_from_slice(b":1\r\n");
            }
            other => panic!("{other:?}"),
        }
        let host = &mut self.hosts[index];
        host.exchange.receive(side, &reply, self.now).expect("it is understood");
    }

    fn publish(&mut self, channel: &[u8], payload: &[u8]) {
        let mut message = Vec::new();
        command(&mut message, &[&[b"message"], &[channel], &[payload]]);
        for host in self.hosts.iter_mut().filter(|host| host.connected && host.subscribed.contains(channel)) {
            // In two pieces, as it may arrive.
            let (front, back) = message.split_at(message.len() / 2);
            host.exchange.receive(Side::Subscriber, front, self.now).expect("it is understood");
            host.exchange.receive(Side::Subscriber, back, self.now).expect("it is understood");
            host.take_records();
        }
    }

    fn cut(&mut self, index: usize, why: &str) {
        let host = &mut self.hosts[index];
        host.exchange.lost(why, self.now, 0.5);
        host.connected = false;
        host.subscribed.clear();
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let next = self.hosts.iter().filter_map(|host| host.exchange.next_deadline()).min();
            match next.filter(|next| *next <= end) {
                // A deadline that has passed without effect would be a loop that never sleeps.
                Some(next) => {
                    assert!(next > self.now, "{next:?} is due and nothing is done");
                    self.now = next;
                }
                None => break,
            }
        }
        self.now = end;
        self.settle();
    }

    fn check_agreement(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != index);
            let members = others.flat_map(|(_, other)| &other.members);
            let wanted: BTreeSet<_> = members.map(|(_, channel, name)| ((*channel).to_owned(), name.clone())).collect();
            assert_eq!(host.others, wanted, "members that host {index} knows of");
            let used = host.counts.iter().filter(|(_, count)| **count > 0);
            let mut channels: BTreeSet<Vec<u8>> = used.map(|((_, channel), _)| channel.as_bytes().to_vec()).collect();
            channels.insert(b"percore-presence".to_vec());
            assert_eq!(host.subscribed, channels, "channels of host {index}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter(usize, u32, usize, String),
    Leave(usize, u32, usize, String),
    Count(usize, u32, usize, u32),
    Publish(usize, usize, String),
    Killed(usize, u32),
    Cut(usize),
    RedisDown,
    RedisUp,
    Advance(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (host, slot, channel) = (0..HOSTS, 1u32..3, 0..CHANNELS.len());
    let who = (host.clone(), slot.clone(), channel.clone(), "[xyz]");
    let step = prop_oneof![
        5 => who.clone().prop_map(|(host, slot, channel, name)| Step::Enter(host, slot, channel, name)),
        3 => who.prop_map(|(host, slot, channel, name)| Step::Leave(host, slot, channel, name)),
        5 => (host.clone(), slot.clone(), channel.clone(), 0u32..3)
            .prop_map(|(host, slot, channel, count)| Step::Count(host, slot, channel, count)),
        3 => (host.clone(), channel, "[a-z]{1,5}").prop_map(|(host, channel, text)| Step::Publish(host, channel, text)),
        1 => (host.clone(), slot).prop_map(|(host, slot)| Step::Killed(host, slot)),
        1 => host.prop_map(Step::Cut),
        1 => Just(Step::RedisDown),
        2 => Just(Step::RedisUp),
        6 => (0u64..8_000).prop_map(Step::Advance),
    ];
    vec(step, 0..50)
}

proptest! {
    #[test]
    fn hosts_come_to_agree(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Enter(host, slot, channel, name) => {
                    let (host, channel) = (&mut world.hosts[host], CHANNELS[channel]);
                    host.tell(slot, RecordKind::Enter, channel, name.as_bytes());
                    host.members.insert((slot, channel, name));
                }
                Step::Leave(host, slot, channel, name) => {
                    let (host, channel) = (&mut world.hosts[host], CHANNELS[channel]);
                    host.tell(slot, RecordKind::Leave, channel, name.as_bytes());
                    host.members.remove(&(slot, channel, name));
                }
                Step::Count(host, slot, channel, subscribers) => {
                    let (host, channel) = (&mut world.hosts[host], CHANNELS[channel]);
                    let interest = Interest { subscribers, listens: false };
                    host.tell(slot, RecordKind::Count, channel, &interest.bytes());
                    host.counts.insert((slot, channel), subscribers);
                }
                Step::Publish(host, channel, text) => {
                    world.hosts[host].tell(1, RecordKind::Text, CHANNELS[channel], text.as_bytes());
                }
                Step::Killed(host, slot) => {
                    let host = &mut world.hosts[host];
                    host.exchange.bus_event(BusEvent::Left(Participant { slot, generation: 1 }));
                    host.members.retain(|(of, _, _)| *of != slot);
                    host.counts.retain(|(of, _), _| *of != slot);
                }
                Step::Cut(host) if world.hosts[host].connected => world.cut(host, "connection closed"),
                Step::Cut(_) => {}
                Step::RedisDown => {
                    world.redis_is_up = false;
                    (0..HOSTS).filter(|host| world.hosts[*host].connected).collect::<Vec<_>>().into_iter()
                        .for_each(|host| world.cut(host, "connection closed"));
                }
                Step::RedisUp => world.redis_is_up = true,
                Step::Advance(milliseconds) => world.advance(Duration::from_millis(milliseconds)),
            }
        }
        world.redis_is_up = true;
        world.advance(40 * SECOND);
        world.check_agreement();
        // A message arrives once at each host that wants it, at no other, and never returns.
        for sender in 0..HOSTS {
            for channel in CHANNELS {
                world.hosts.iter_mut().for_each(|host| host.messages.clear());
                world.hosts[sender].tell(1, RecordKind::Binary, channel, b"hello");
                world.advance(SECOND);
                for (index, host) in world.hosts.iter().enumerate() {
                    let wants = index != sender && host.subscribed.contains(channel.as_bytes());
                    let hello = (channel.to_owned(), RecordKind::Binary, "hello".to_owned());
                    prop_assert_eq!(&host.messages, &vec![hello; usize::from(wants)]);
                }
            }
        }
    }
}

fn connected() -> World {
    let mut world = World::new();
    for host in &mut world.hosts {
        host.tell(1, RecordKind::Count, "a", &Interest { subscribers: 1, listens: false }.bytes());
        host.counts.insert((1, "a"), 1);
    }
    world.advance(SECOND);
    assert!(world.hosts.iter().all(|host| host.exchange.is_ready()));
    world
}

#[test]
fn what_anybody_publishes_goes_to_all() {
    let mut world = connected();
    world.publish(b"a", b"from redis-cli");
    world.publish(b"a", b"\xff\xfe");
    world.publish(b"a", b"percore:00000000000000aa:?:unknown");
    world.publish(b"percore-presence", b"nonsense");
    world.publish(b"a", &vec![b'x'; 200_000]);
    world.publish(b"a", &vec![b'x'; 99_999]);
    world.advance(2 * SECOND);
    for host in &world.hosts {
        let kinds: Vec<_> = host.messages.iter().map(|(_, kind, text)| (*kind, text.len())).collect();
        assert_eq!(kinds, [(RecordKind::Text, 14), (RecordKind::Binary, 6), (RecordKind::Text, 99_999)]);
        let said = host.log.join("\n");
        assert!(said.contains("2 messages of other bridges dropped"), "{said}");
        assert!(said.contains("1 message of other hosts dropped: longer than the bus takes"), "{said}");
    }
}

/// A Redis may push on channels that were not subscribed. Truncating the length of this name to 16 bits would turn the
/// rest into records of its choice.
#[test]
fn a_channel_with_a_name_too_long_smuggles_no_records() {
    let mut world = connected();
    let mut smuggled = Records::new();
    smuggled.push(RecordKind::Enter, b"a", &[b"nobody"]);
    let mut channel = smuggled.bytes().to_vec();
    channel.resize((1 << 16) + 1, 0);
    let mut pushed = Vec::new();
    command(&mut pushed, &[&[b"message"], &[&channel], &[b"x"]]);
    let (host, now) = (&mut world.hosts[0], world.now);
    host.exchange.receive(Side::Subscriber, &pushed, now).expect("it goes on");
    host.take_records();
    assert!(host.messages.is_empty() && host.others.is_empty(), "{:?} {:?}", host.messages, host.others);
    world.advance(2 * SECOND);
    let said = world.hosts[0].log.join("\n");
    assert!(said.contains("1 message of other hosts dropped: longer than the bus takes"), "{said}");
}

#[test]
fn what_waits_for_redis_is_bounded_and_counted() {
    let mut world = connected();
    let host = &mut world.hosts[0];
    let payload = vec![b'x'; 10_000];
    (0..200).for_each(|_| host.tell(1, RecordKind::Binary, "a", &payload));
    let waiting = host.exchange.pending(Side::Publisher).len();
    assert!(waiting <= 1 << 20, "{waiting}");
    host.tell(1, RecordKind::Enter, "a", b"late");
    host.members.insert((1, "a", "late".into()));
    let now = world.now;
    host.exchange.pass(now).expect("it goes on");
    host.exchange.lost("connection closed", now, 0.5);
    host.connected = false;
    host.tell(1, RecordKind::Binary, "a", &payload);
    host.tell(1, RecordKind::Text, "percore-presence", b"x");
    world.advance(20 * SECOND);
    let said = world.hosts[0].log.join("\n");
    let number = |text: &str| -> u64 {
        let line = said.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text} in\n{said}"));
        line.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
    };
    assert_eq!(number("the queue for Redis") + number("possibly not forwarded"), 200);
    assert_eq!((number("no connection to Redis"), number("is reserved for bridges")), (1, 1));
    world.check_agreement();
}

#[test]
fn a_redis_that_does_not_answer_is_given_up() {
    let mut world = connected();
    let start = world.now;
    // It accepts data and stays silent.
    let host = &mut world.hosts[0];
    let why = loop {
        let next = host.exchange.next_deadline().expect("it asks");
        if let Err(why) = host.exchange.pass(next) {
            assert!(next - start <= 16 * SECOND, "{next:?}");
            break why;
        }
        let sent = host.exchange.pending(Side::Publisher).len();
        host.exchange.wrote(Side::Publisher, sent);
    };
    assert!(why.contains("no data for 15s"), "{why}");
}

#[test]
fn a_host_that_stops_says_goodbye() {
    let mut world = connected();
    world.hosts[0].tell(1, RecordKind::Enter, "a", b"ann");
    world.advance(SECOND);
    assert!(world.hosts[1].others.len() == 1 && world.hosts[2].others.len() == 1);
    let now = world.now;
    world.hosts[0].exchange.stop(now);
    assert!(!world.hosts[0].exchange.is_stopped(now), "the goodbye is in flight");
    // After it nothing more is sent, whatever happens: the other bridges would add us again.
    world.hosts[0].tell(1, RecordKind::Text, "a", b"late");
    world.hosts[0].tell(1, RecordKind::Enter, "a", b"bob");
    world.publish(b"percore-presence", b"percore:0000000000000063:h:");
    world.settle();
    assert!(world.hosts[0].exchange.is_stopped(now));
    world.advance(SECOND / 4);
    for other in &world.hosts[1..] {
        assert!(other.others.is_empty() && other.messages.is_empty(), "{:?} {:?}", other.others, other.messages);
    }
}

#[test]
fn a_master_that_is_none_any_more_is_left() {
    let told = |answer: &[u8]| {
        let rules = Rules { login: None, asks_role: true, ..rules() };
        let mut exchange = Exchange::new(HostId(1), rules, Log::new(None));
        exchange.open(Duration::ZERO);
        exchange.receive(Side::Publisher, answer, SECOND)
    };
    let why = told(b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:7\r\n").expect_err("left");
    assert_eq!(why, "it is no longer the master");
    assert_eq!(told(b"*3\r\n$6\r\nmaster\r\n:7\r\n*0\r\n+PONG\r\n"), Ok(()));
    assert_eq!(told(b"-NOPERM this user has no permissions to run the 'role' command\r\n+PONG\r\n"), Ok(()));
}

#[test]
fn refusals_are_said() {
    let mut exchange = Exchange::new(HostId(1), rules(), Log::new(Some(Level::Info)));
    exchange.open(Duration::ZERO);
    let why = exchange.receive(Side::Publisher, b"-WRONGPASS no pass\r\n", SECOND).expect_err("refused");
    assert_eq!(why, "login refused: WRONGPASS, wrong user or password, or a disabled user");
    exchange.open(Duration::ZERO);
    let why = exchange.receive(Side::Subscriber, b"-NO pass\r\n", SECOND).expect_err("refused");
    assert_eq!(why, "login refused, with an error that may repeat the password and is not shown");
    exchange.open(Duration::ZERO);
    let full = b"-ERR max number of clients reached\r\n";
    let why = exchange.receive(Side::Publisher, full, SECOND).expect_err("refused");
    assert_eq!(why, "too many clients");
    exchange.open(Duration::ZERO);
    let why = exchange.receive(Side::Publisher, b"+OK\r\n-LOADING wait\r\n", SECOND).expect_err("not ready");
    assert_eq!(why, "error reply: LOADING wait");
    exchange.open(Duration::ZERO);
    let why = exchange.receive(Side::Publisher, b"HTTP/1.1 200 OK\r\n", SECOND).expect_err("another server");
    assert!(why.contains("not Redis's protocol"), "{why}");
    let list = Records::new();
    exchange.bus_event(BusEvent::Present { from: Participant { slot: 1, generation: 1 }, list: &list });
}
