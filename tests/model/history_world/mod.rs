//! A world of workers, a keeper, clients and a backend, for `history_simulation.rs`.

pub mod disk;
mod parts;

use crate::pubsub_simulation::{frame, take_frame};
use crate::simulation::random::Random;
use disk::{Disk, Fate, HOST, Running};
use parts::{Follower, rules};
use percore::internal::pubsub::app::{Channels, PATH};
use percore::internal::pubsub::history::ask::ASKS;
use percore::internal::pubsub::history::keeper::Moment;
use percore::internal::pubsub::history::replica::Outside;
use percore::internal::pubsub::history::word::WORDS;
use percore::internal::pubsub::tokens::Tokens;
use percore::internal::session::Sessions;
use percore::{BusEvent, Log, Participant, Peer, Record, RecordKind, Settings, UpgradeRules};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const WORKERS: usize = 3;
const FOLLOWERS: usize = 6;
/// From the monotonic clock to the time of what is kept.
const OFFSET: Duration = Duration::from_secs(1_000_000);
const KEEPER: usize = WORKERS;

/// Something on its way over the bus; `None` where it was lapped.
type Said = Option<Vec<u8>>;

struct Worker {
    sessions: Sessions<Channels>,
    began: Duration,
    inbox: VecDeque<Said>,
    /// Requests under way by connection: the channel, and what is published.
    requests: HashMap<u32, (String, u64)>,
    answers: HashMap<u32, Vec<u8>>,
}

pub struct World {
    random: Random,
    now: Rc<Cell<Duration>>,
    disk: Rc<RefCell<Disk>>,
    keeper: Option<Running>,
    keeper_inbox: VecDeque<Said>,
    greets: bool,
    workers: Vec<Option<Worker>>,
    generation: u32,
    followers: Vec<Follower>,
    /// What was heard or answered, by channel, epoch and offset.
    log: HashMap<(String, String, u64), u64>,
    /// Where each publication was.
    places: HashMap<u64, (String, String, u64)>,
    failed: HashSet<u64>,
    serial: u64,
    /// The last publication that was asked for when the log was cut last.
    cut_at: u64,
    max_bytes: usize,
    counts: [u64; 4],
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let max_bytes = if random.one_in(3) { 2500 } else { 1 << 20 };
        let mut world = World {
            random,
            now: Rc::new(Cell::new(Duration::from_secs(10))),
            disk: Rc::default(),
            keeper: None,
            keeper_inbox: VecDeque::new(),
            greets: false,
            workers: (0..WORKERS).map(|_| None).collect(),
            generation: 0,
            followers: (0..FOLLOWERS).map(|_| Follower::default()).collect(),
            log: HashMap::new(),
            places: HashMap::new(),
            failed: HashSet::new(),
            serial: 0,
            cut_at: 0,
            max_bytes,
            counts: [0; 4],
        };
        world.start_keeper();
        (0..WORKERS).for_each(|number| world.start_worker(number));
        world
    }

    fn kept(&self) -> Duration {
        self.now.get() + OFFSET
    }

    fn start_keeper(&mut self) {
        let now = self.kept();
        let (keeper, words) = Running::start(&mut self.disk.borrow_mut(), now, self.max_bytes, &mut self.random);
        assert!(disk::begins_with_head(&self.disk.borrow()));
        (self.keeper, self.greets) = (Some(keeper), false);
        self.keeper_inbox.clear();
        self.tell(words);
    }

    fn tell(&mut self, words: Vec<Vec<u8>>) {
        for worker in self.workers.iter_mut().flatten() {
            worker.inbox.extend(words.iter().cloned().map(Some));
        }
    }

    fn start_worker(&mut self, number: usize) {
        self.generation += 1;
        let (disk, clock) = (Rc::clone(&self.disk), Rc::clone(&self.now));
        let outside = Outside {
            read: Box::new(move |from, most| Ok(disk.borrow().read(from, most))),
            monotonic: Box::new(move || clock.get()),
            offset: OFFSET,
            host: HOST,
            origin: self.random.next(),
        };
        let seed = [self.generation as u8; 32];
        let app = Channels::new(rules(self.max_bytes), Tokens::default(), seed).share_history(outside);
        let upgrade = UpgradeRules { paths: vec![PATH.into()], ..UpgradeRules::default() };
        let settings = Settings {
            upgrade,
            heartbeat: Duration::ZERO,
            heartbeat_timeout: Duration::ZERO,
            http_lifetime: Duration::ZERO,
            ..Settings::default()
        };
        let mut sessions = Sessions::new(app, settings, Log::new(None), 0, [1; 32]);
        sessions.join_bus(Participant { slot: number as u32, generation: self.generation }, 1 << 20);
        sessions.begin_pass(Duration::ZERO);
        sessions.expire();
        let (inbox, requests, answers) = (VecDeque::new(), HashMap::new(), HashMap::new());
        self.workers[number] = Some(Worker { sessions, began: self.now.get(), inbox, requests, answers });
        self.pass(number);
    }

    fn kill_worker(&mut self, number: usize) {
        self.workers[number] = None;
        for follower in &mut self.followers {
            if follower.at.is_some_and(|(at, _)| at == number) {
                let kept = self.random.size(0, follower.got.len());
                follower.got.truncate(kept);
            }
        }
        for number in
            (0..FOLLOWERS).filter(|of| self.followers[*of].at.is_some_and(|(at, _)| at == number)).collect::<Vec<_>>()
        {
            self.listen(number);
            let follower = &mut self.followers[number];
            (follower.at, follower.got, follower.asked) = (None, Vec::new(), HashMap::new());
        }
    }

    /// A pass of a worker's loop: what it has to say, and what is written to its clients.
    fn pass(&mut self, number: usize) {
        let now = self.now.get();
        let Some(worker) = &mut self.workers[number] else { return };
        worker.sessions.begin_pass(now - worker.began);
        // At times it is behind.
        let heard = if self.random.one_in(4) { self.random.size(0, worker.inbox.len()) } else { worker.inbox.len() };
        let from = Participant { slot: KEEPER as u32, generation: 1 };
        for said in worker.inbox.drain(..heard).collect::<Vec<_>>() {
            worker.sessions.receive_bus(match &said {
                Some(word) => BusEvent::Record {
                    from,
                    record: Record { kind: RecordKind::Binary, channel: WORDS.as_bytes(), payload: word },
                },
                None => BusEvent::Gap { from, lost: 1 },
            });
        }
        worker.sessions.expire();
        self.publish(number);
        self.write(number);
        if let Some(worker) = &mut self.workers[number] {
            worker.sessions.end_pass(|_, _| ());
        }
        (0..FOLLOWERS).for_each(|number| self.listen(number));
        self.read_answers(number);
    }

    fn publish(&mut self, number: usize) {
        let Some(worker) = &mut self.workers[number] else { return };
        let records = std::mem::take(worker.sessions.outgoing());
        let asks = records.iter().filter(|record| record.channel == ASKS.as_bytes());
        self.keeper_inbox.extend(asks.map(|record| Some(record.payload.to_vec())));
    }

    fn write(&mut self, number: usize) {
        let Some(worker) = &mut self.workers[number] else { return };
        while let Some(key) = worker.sessions.queue().next_dirty() {
            let queue = worker.sessions.queue();
            let mut slices = [IoSlice::new(&[]); 64];
            let count = queue.gather(key, &mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            queue.sent(key, bytes.len(), false);
            match self.followers.iter_mut().find(|follower| follower.at == Some((number, key))) {
                Some(follower) => follower.got.extend(bytes),
                None => worker.answers.entry(key).or_default().extend(bytes),
            }
        }
        worker.sessions.queue().end_flush();
    }

    /// What became of the requests of the backend.
    fn read_answers(&mut self, number: usize) {
        let Some(worker) = &mut self.workers[number] else { return };
        for (key, answer) in std::mem::take(&mut worker.answers) {
            let Some(worker) = &mut self.workers[number] else { return };
            let Some((channel, data)) = worker.requests.remove(&key) else { continue };
            worker.sessions.end_of_stream(key);
            let answer = String::from_utf8(answer).expect("text");
            let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
            assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
            let answer: Value = serde_json::from_str(body).expect("JSON");
            let result = &answer["result"];
            let Some(epoch) = result["epoch"].as_str() else {
                assert_eq!(answer["error"]["code"], 100, "{answer}");
                self.counts[3] += 1;
                // Where the log was cut since, it may have been there.
                if data > self.cut_at {
                    assert!(!self.places.contains_key(&data), "what failed was heard: {data}");
                    self.failed.insert(data);
                }
                continue;
            };
            self.note(&channel, epoch, result["offset"].as_u64().expect("an offset"), data);
        }
    }

    /// A publication has a place, and no other.
    fn note(&mut self, channel: &str, epoch: &str, offset: u64, data: u64) {
        assert!(!self.failed.contains(&data), "what failed is there: {data}");
        let place = (channel.to_owned(), epoch.to_owned(), offset);
        let there = *self.log.entry(place.clone()).or_insert(data);
        assert_eq!(there, data, "two publications at {place:?}");
        let of = self.places.entry(data).or_insert_with(|| place.clone());
        // What was lost with a part of the log is asked for again.
        assert!(*of == place || data <= self.cut_at, "one publication at two places: {data} {of:?} {place:?}");
    }

    fn say(&mut self, number: usize, text: &str) {
        let Some((at, key)) = self.followers[number].at else { return };
        if let Some(worker) = &mut self.workers[at] {
            worker.sessions.receive(key, &mut frame(text.as_bytes()));
        }
    }

    fn connect(&mut self, number: usize, at: usize) {
        let Some(worker) = &mut self.workers[at] else { return };
        let key = worker.sessions.accept(Peer::UNIX).expect("there is room");
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.followers[number].at = Some((at, key));
        worker.sessions.receive(key, &mut request.into_bytes());
        self.write(at);
        let got = &mut self.followers[number].got;
        let head = got.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer") + 4;
        got.drain(..head);
        self.say(number, "{\"id\":1,\"connect\":{}}");
        CHANNELS.iter().for_each(|channel| self.subscribe(number, channel));
    }

    fn subscribe(&mut self, number: usize, channel: &str) {
        let follower = &mut self.followers[number];
        follower.next += 1;
        let id = follower.next + 1;
        follower.asked.insert(id, channel.to_owned());
        let subscribe = match follower.positions.get(channel) {
            Some((epoch, offset)) => json!({"channel": channel, "recover": true, "epoch": epoch, "offset": offset}),
            None => json!({"channel": channel}),
        };
        self.say(number, &json!({"id": id, "subscribe": subscribe}).to_string());
    }

    fn cut(&mut self, number: usize) {
        let Some((at, key)) = self.followers[number].at else { return };
        self.write(at);
        let follower = &mut self.followers[number];
        let kept = self.random.size(0, follower.got.len());
        follower.got.truncate(kept);
        self.listen(number);
        let follower = &mut self.followers[number];
        (follower.at, follower.got, follower.asked) = (None, Vec::new(), HashMap::new());
        if let Some(worker) = &mut self.workers[at] {
            worker.sessions.end_of_stream(key);
            worker.sessions.end_pass(|_, _| ());
        }
    }

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
        let asked = line["id"].as_u64().and_then(|id| self.followers[number].asked.remove(&id));
        let Some(channel) = asked else { return };
        let Some(result) = line.get("subscribe") else {
            // There is no history to be told of now.
            assert_eq!(line["error"]["code"], 100, "{line}");
            return self.subscribe(number, &channel);
        };
        let position = (result["epoch"].as_str().expect("an epoch").to_owned(), result["offset"].as_u64().unwrap_or(0));
        if result["recovered"] == true {
            assert_eq!(self.followers[number].positions.get(&channel), Some(&position), "where it was: {line}");
            self.counts[1] += 1;
            for publication in result["publications"].as_array().expect("a list") {
                self.take(number, &channel, publication);
            }
            return;
        }
        assert!(result.get("publications").is_none(), "{line}");
        self.counts[2] += u64::from(result["was_recovering"] == true);
        self.followers[number].positions.insert(channel, position);
    }

    /// The next publication of a channel, and no other.
    fn take(&mut self, number: usize, channel: &str, publication: &Value) {
        let follower = &mut self.followers[number];
        let (epoch, offset) = follower.positions.get_mut(channel).expect("a position first");
        *offset += 1;
        assert_eq!(publication["offset"], *offset, "{number} {channel} {epoch}: {publication}");
        let (epoch, offset) = (epoch.clone(), *offset);
        self.counts[0] += 1;
        self.note(channel, &epoch, offset, publication["data"].as_u64().expect("a number"));
    }

    fn ask_to_publish(&mut self, at: usize, channel: &str) {
        self.serial += 1;
        let Some(worker) = &mut self.workers[at] else { return };
        let body = json!({"channel": channel, "data": self.serial, "tags": {"t": "x".repeat(self.random.size(0, 60))}});
        let body = body.to_string();
        let request =
            format!("POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let key = worker.sessions.accept_service(Peer::UNIX).expect("there is room");
        worker.requests.insert(key, (channel.to_owned(), self.serial));
        worker.sessions.receive(key, &mut request.into_bytes());
        self.publish(at);
        self.write(at);
        self.read_answers(at);
    }

    fn keeper_pass(&mut self, deadly: bool) {
        let now = Moment { monotonic: self.now.get(), kept: self.kept() };
        let Some(mut keeper) = self.keeper.take() else {
            self.keeper_inbox.clear();
            return;
        };
        let mut asks = Vec::new();
        for said in self.keeper_inbox.drain(..) {
            match said {
                Some(ask) => asks.push(ask),
                None => self.greets = true,
            }
        }
        let disk = Rc::clone(&self.disk);
        let mut disk = disk.borrow_mut();
        let (fate, mut words) = keeper.answer(&mut disk, asks, now, deadly, &mut self.random);
        if fate == Fate::Killed {
            return;
        }
        if std::mem::take(&mut self.greets) {
            words.push(keeper.hello(&disk));
        }
        if self.random.one_in(10) {
            words.extend(keeper.compact(&mut disk, now.kept));
        }
        drop(disk);
        self.keeper = Some(keeper);
        self.tell(words);
    }

    /// A part of what is on its way is overwritten.
    fn lap(&mut self, inbox: usize) {
        let inbox = match self.workers.get_mut(inbox) {
            Some(worker) => worker.as_mut().map(|worker| &mut worker.inbox),
            None => Some(&mut self.keeper_inbox),
        };
        if let Some(inbox) = inbox.filter(|inbox| !inbox.is_empty()) {
            let lost = self.random.size(1, inbox.len());
            inbox.drain(..lost);
            inbox.push_front(None);
        }
    }

    pub fn step(&mut self) {
        let (follower, worker) = (self.random.size(0, FOLLOWERS - 1), self.random.size(0, WORKERS - 1));
        let (one, other) = (self.random.size(0, 2), self.random.size(0, 2));
        let channel = CHANNELS[one.min(other)];
        let (inbox, milliseconds, seconds) =
            (self.random.size(0, WORKERS), self.random.between(100, 1500), self.random.between(5, 100));
        match self.random.size(0, 29) {
            0..=9 => self.ask_to_publish(worker, channel),
            10..=12 => self.cut(follower),
            13..=16 if self.followers[follower].at.is_none() => self.connect(follower, worker),
            17 if self.random.one_in(4) => self.kill_worker(worker),
            18 => self.keeper_pass(true),
            19 if self.workers[worker].is_none() => self.start_worker(worker),
            20 => self.lap(inbox),
            // As long as it is at work: what it wrote and did not tell may have been read and is not missed later.
            21 if self.keeper.is_some() && self.random.one_in(10) => {
                (self.keeper, self.cut_at) = (None, self.serial);
                let disk = Rc::clone(&self.disk);
                disk.borrow_mut().cut(&mut self.random);
            }
            22 if self.random.one_in(3) => {
                let is_full = self.disk.borrow().is_full;
                self.disk.borrow_mut().is_full = !is_full;
            }
            23 | 24 if self.keeper.is_none() => self.start_keeper(),
            25 => self.go_on(Duration::from_millis(milliseconds)),
            26 if self.random.one_in(6) => (0..seconds / 5).for_each(|_| self.go_on(Duration::from_secs(5))),
            _ => self.go_on(Duration::from_millis(5)),
        }
    }

    /// Time goes by; the keeper and the workers run in any order.
    fn go_on(&mut self, later: Duration) {
        self.now.set(self.now.get() + later);
        let first = self.random.size(0, WORKERS);
        for place in 0..=WORKERS {
            match (first + place) % (WORKERS + 1) {
                KEEPER => self.keeper_pass(false),
                worker => self.pass(worker),
            }
        }
    }

    /// All is well again, and everyone comes to have the same. Returns what was heard, recovered, lost and failed.
    pub fn end(mut self) -> [u64; 4] {
        self.disk.borrow_mut().is_full = false;
        if self.keeper.is_none() {
            self.start_keeper();
        }
        for number in 0..WORKERS {
            if self.workers[number].is_none() {
                self.start_worker(number);
            }
        }
        for number in 0..FOLLOWERS {
            if self.followers[number].at.is_none() {
                self.connect(number, number % WORKERS);
            }
        }
        let settle = |world: &mut World| (0..600).for_each(|_| world.go_on(Duration::from_millis(10)));
        settle(&mut self);
        for (number, channel) in CHANNELS.iter().enumerate() {
            self.ask_to_publish(number % WORKERS, channel);
        }
        settle(&mut self);
        let waiting = self.workers.iter().flatten().map(|worker| worker.requests.len()).sum::<usize>();
        assert_eq!(waiting, 0, "every request is answered");
        let keeper = self.keeper.as_ref().expect("it was started");
        // Where space is short, a channel's stream may go again.
        for (number, follower) in self.followers.iter().enumerate().filter(|_| self.max_bytes > 10_000) {
            for channel in CHANNELS {
                assert_eq!(follower.positions[channel], keeper.position(channel), "{number} {channel}");
            }
        }
        self.counts
    }
}
