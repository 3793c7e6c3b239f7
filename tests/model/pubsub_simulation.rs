//! Clients of channels with history, from a seed: they are cut off and reconnect, time passes and space runs out. Each
//! gets every publication once and in order, or is told that it missed some; in the end, where there is space, all have
//! the last publications.
//!
//! `PERCORE_SEED=n` replays one seed.

use crate::simulation::random::Random;
use percore::internal::pubsub::app::{Channels, PATH};
use percore::internal::pubsub::rules::{Namespace, Rules};
use percore::internal::pubsub::streams::Keep;
use percore::internal::pubsub::tokens::Tokens;
use percore::internal::session::Sessions;
use percore::{Log, Peer, Settings, UpgradeRules};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::time::Duration;

const FOLLOWERS: usize = 6;
const CHANNELS: [&str; 3] = ["a", "b", "c"];
const STEPS: usize = 400;

/// A client that wants to hear all of every channel.
#[derive(Default)]
struct Follower {
    key: Option<u32>,
    got: Vec<u8>,
    /// By channel: epoch and offset.
    positions: HashMap<String, (String, u64)>,
    /// Subscriptions that were asked for, by number of the command.
    asked: HashMap<u64, String>,
    next: u64,
    heard: u64,
    told_lost: u64,
}

struct World {
    sessions: Sessions<Channels>,
    random: Random,
    now: Duration,
    followers: Vec<Follower>,
    /// The connection of the backend.
    service: u32,
    answers: Vec<u8>,
    /// What was published, by channel, epoch and offset.
    log: HashMap<(String, String, u64), Value>,
    /// The position after the last publication on a channel.
    tops: HashMap<String, (String, u64)>,
    serial: u64,
    recovered: u64,
    /// Space runs out.
    is_tight: bool,
}

/// A client's text frame.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x81];
    match u8::try_from(payload.len()).ok().filter(|length| *length < 126) {
        Some(length) => out.push(0x80 | length),
        None => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// Takes the first frame out of what came: its first byte and payload.
pub fn take_frame(got: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (head, length) = match *got.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*got.get(2)?, *got.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(got.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    let payload = got.get(head..head + length)?.to_vec();
    let first = got[0];
    got.drain(..head + length);
    Some((first, payload))
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let keep = Keep { size: 6, ttl: Duration::from_secs(40), meta_ttl: Duration::from_secs(90) };
        let plain = Namespace { keep, ..Namespace::default() }.open_to_all();
        let mut rules = Rules { plain, is_insecure: true, ..Rules::default() };
        let is_tight = random.one_in(2);
        if is_tight {
            // Enough for two channels.
            rules.limits.history = 2000;
        }
        let app = Channels::new(rules, Tokens::default(), [seed as u8; 32]);
        let upgrade = UpgradeRules { paths: vec![PATH.into()], ..UpgradeRules::default() };
        let settings =
            Settings { upgrade, heartbeat: Duration::ZERO, http_lifetime: Duration::ZERO, ..Settings::default() };
        let mut sessions = Sessions::new(app, settings, Log::new(None), 0, [1; 32]);
        sessions.begin_pass(Duration::ZERO);
        let followers = (0..FOLLOWERS).map(|_| Follower::default()).collect();
        let (log, tops, answers) = (HashMap::new(), HashMap::new(), Vec::new());
        let now = Duration::ZERO;
        World {
            sessions,
            random,
            now,
            followers,
            service: u32::MAX,
            answers,
            log,
            tops,
            serial: 0,
            recovered: 0,
            is_tight,
        }
    }

    fn pass(&mut self, later: Duration) {
        self.now += later;
        self.sessions.begin_pass(self.now);
        self.sessions.expire();
        self.write();
        self.sessions.end_pass(|_, _| ());
        for number in 0..FOLLOWERS {
            self.listen(number);
        }
        self.write();
    }

    fn write(&mut self) {
        while let Some(key) = self.sessions.queue().next_dirty() {
            let queue = self.sessions.queue();
            let mut slices = [IoSlice::new(&[]); 64];
            let count = queue.gather(key, &mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            queue.sent(key, bytes.len(), false);
            match self.followers.iter_mut().find(|follower| follower.key == Some(key)) {
                Some(follower) => follower.got.extend(bytes),
                None if key == self.service => self.answers.extend(bytes),
                None => {}
            }
        }
        self.sessions.queue().end_flush();
    }

    fn say(&mut self, number: usize, text: &str) {
        let Some(key) = self.followers[number].key else { return };
        self.sessions.receive(key, &mut frame(text.as_bytes()));
    }

    fn connect(&mut self, number: usize) {
        let key = self.sessions.accept(Peer::UNIX).expect("there is room");
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.followers[number].key = Some(key);
        self.sessions.receive(key, &mut request.into_bytes());
        self.write();
        let got = &mut self.followers[number].got;
        let head = got.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer") + 4;
        got.drain(..head);
        self.say(number, "{\"id\":1,\"connect\":{}}");
        for channel in CHANNELS {
            self.subscribe(number, channel);
        }
    }

    fn subscribe(&mut self, number: usize, channel: &str) {
        let follower = &mut self.followers[number];
        follower.next += 1;
        let id = follower.next + 1;
        follower.asked.insert(id, channel.to_owned());
        let mut subscribe = json!({"channel": channel});
        if let Some((epoch, offset)) = follower.positions.get(channel) {
            subscribe = json!({"channel": channel, "recover": true, "epoch": epoch, "offset": offset});
        }
        self.say(number, &json!({"id": id, "subscribe": subscribe}).to_string());
    }

    fn cut(&mut self, number: usize) {
        let Some(key) = self.followers[number].key else { return };
        self.write();
        let follower = &mut self.followers[number];
        // What was on its way is lost, or a part of it.
        let kept = self.random.size(0, follower.got.len());
        follower.got.truncate(kept);
        self.listen(number);
        let follower = &mut self.followers[number];
        (follower.key, follower.got, follower.asked) = (None, Vec::new(), HashMap::new());
        self.sessions.end_of_stream(key);
        self.sessions.end_pass(|_, _| ());
    }

    /// A follower reads what came.
    fn listen(&mut self, number: usize) {
        let mut lines = VecDeque::new();
        while let Some((first, payload)) = take_frame(&mut self.followers[number].got) {
            assert_eq!(first, 0x81, "only text is sent, and no end: {payload:?}");
            let text = String::from_utf8(payload).expect("text");
            lines.extend(text.split('\n').map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        }
        while let Some(line) = lines.pop_front() {
            self.hear(number, &line);
        }
    }

    fn hear(&mut self, number: usize, line: &Value) {
        assert!(line.get("error").is_none(), "{line}");
        if line == &json!({}) {
            return self.say(number, "{}");
        }
        if let Some(push) = line.get("push") {
            let channel = push["channel"].as_str().expect("a channel").to_owned();
            if let Some(publication) = push.get("pub") {
                return self.take(number, &channel, publication);
            }
            assert_eq!(push["unsubscribe"]["code"], 2500, "{line}");
            return self.subscribe(number, &channel);
        }
        let Some(result) = line.get("subscribe") else { return };
        let channel = self.followers[number].asked.remove(&line["id"].as_u64().expect("a number")).expect("asked for");
        let position = (result["epoch"].as_str().expect("an epoch").to_owned(), result["offset"].as_u64().unwrap_or(0));
        if result["recovered"] == true {
            assert_eq!(self.followers[number].positions.get(&channel), Some(&position), "where it was: {line}");
            self.recovered += 1;
            for publication in result["publications"].as_array().expect("a list") {
                self.take(number, &channel, publication);
            }
            if let Some(top) = self.tops.get(&channel).filter(|top| top.0 == position.0) {
                assert!(self.followers[number].positions[&channel].1 <= top.1);
            }
            return;
        }
        assert!(result.get("publications").is_none(), "{line}");
        let follower = &mut self.followers[number];
        follower.told_lost += u64::from(result["was_recovering"] == true);
        follower.positions.insert(channel, position);
    }

    /// The next publication of a channel, and no other.
    fn take(&mut self, number: usize, channel: &str, publication: &Value) {
        let follower = &mut self.followers[number];
        let (epoch, offset) = follower.positions.get_mut(channel).expect("a position first");
        *offset += 1;
        assert_eq!(publication["offset"], *offset, "{channel}: {publication}");
        let logged = self.log.get(&(channel.to_owned(), epoch.clone(), *offset));
        // The answer to whoever published may not have been read yet.
        assert!(logged.is_none_or(|data| *data == publication["data"]), "{logged:?} {publication}");
        follower.heard += 1;
    }

    fn publish(&mut self, channel: &str) {
        self.serial += 1;
        let body =
            json!({"channel": channel, "data": {"number": self.serial, "text": "x".repeat(self.random.size(0, 90))}});
        let data = body["data"].clone();
        let body = body.to_string();
        let request =
            format!("POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.service = self.sessions.accept_service(Peer::UNIX).expect("there is room");
        self.sessions.receive(self.service, &mut request.into_bytes());
        self.write();
        self.sessions.end_of_stream(self.service);
        let answer = String::from_utf8(std::mem::take(&mut self.answers)).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        let answer: Value = serde_json::from_str(body).expect("JSON");
        let result = &answer["result"];
        let (epoch, offset) =
            (result["epoch"].as_str().expect("an epoch"), result["offset"].as_u64().expect("an offset"));
        let before = self.log.insert((channel.to_owned(), epoch.to_owned(), offset), data);
        assert_eq!(before, None, "no offset comes twice");
        self.tops.insert(channel.to_owned(), (epoch.to_owned(), offset));
    }

    fn step(&mut self) {
        let number = self.random.size(0, FOLLOWERS - 1);
        let (one, other) = (self.random.size(0, 2), self.random.size(0, 2));
        let channel = CHANNELS[one.min(other)];
        let seconds = self.random.between(1, 7);
        match self.random.size(0, 19) {
            0..=9 => self.publish(channel),
            10..=12 => self.cut(number),
            13..=16 if self.followers[number].key.is_none() => self.connect(number),
            17 => self.pass(Duration::from_secs(seconds)),
            18 if self.random.one_in(6) => self.pass_slowly(50),
            _ => self.pass(Duration::from_millis(10)),
        }
    }

    /// So many seconds, in which pings are answered.
    fn pass_slowly(&mut self, seconds: u64) {
        (0..seconds / 5).for_each(|_| self.pass(Duration::from_secs(5)));
    }

    fn end(&mut self) {
        for number in 0..FOLLOWERS {
            if self.followers[number].key.is_none() {
                self.connect(number);
            }
        }
        for _ in 0..3 {
            self.pass(Duration::from_millis(10));
            CHANNELS.iter().for_each(|channel| self.publish(channel));
        }
        for _ in 0..3 {
            self.pass(Duration::from_millis(10));
        }
        // Where space runs out, whoever subscribes has the stream of another channel go.
        for (number, follower) in self.followers.iter().enumerate().filter(|_| !self.is_tight) {
            assert_eq!(follower.positions, self.tops, "{number} has all");
        }
    }
}

fn run(seed: u64) -> (u64, u64, u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.end();
    let sum = |what: fn(&Follower) -> u64| world.followers.iter().map(what).sum::<u64>();
    (sum(|follower| follower.heard), world.recovered, sum(|follower| follower.told_lost))
}

#[test]
fn everyone_hears_all_or_is_told() {
    if let Some(seed) = std::env::var("PERCORE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    let mut all = (0, 0, 0);
    for seed in 0..60 {
        println!("PERCORE_SEED={seed}");
        let (heard, recovered, lost) = run(seed);
        all = (all.0 + heard, all.1 + recovered, all.2 + lost);
    }
    // All of it happens.
    assert!(all.0 > 10_000 && all.1 > 500 && all.2 > 100, "{all:?}");
}
