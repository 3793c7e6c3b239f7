//! Channels against a model: random connections subscribe, publish, send to each other, leave, end, read slowly and
//! compress or not; a subscriber gets exactly what is published meanwhile, in order with the messages to it alone.
//!
//! `PERCORE_SEED=n` replays one seed.

use crate::simulation::random::Random;
use flate2::{Decompress, FlushDecompress};
use percore::internal::session::Sessions;
use percore::{
    App, BusEvent, ConnectionId, Deflate, DeflateMode, Kind, Log, Message, Outbox, Participant, Peer, Record,
    RecordKind, Request, SendRules, Settings, SlowConsumer,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::time::Duration;

const CONNECTIONS: usize = 12;
const CHANNELS: usize = 4;
const DEFLATE_MIN: usize = 300;
const DEFLATE_MAX: usize = 5000;
const FROM: Participant = Participant { slot: 3, generation: 1 };

/// Does what it is told: `+C`, `-C` for channel C, `=C..` and `#C..` publish text and binary on C, `>N..` is sent to connection N.
#[derive(Default)]
struct Obeys(BTreeMap<usize, ConnectionId>);

impl App for Obeys {
    type State = ();

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, _: &mut Outbox) {
        let number = request.query_value("n").and_then(|number| number.parse().ok());
        self.0.insert(number.expect("a number"), id);
    }

    fn on_message(&mut self, id: ConnectionId, (): &mut (), mut message: Message<'_>, out: &mut Outbox) {
        let text = message.text().expect("text").to_owned();
        let (what, rest) = text.split_at(1);
        let (place, payload) = rest.split_at(2);
        match what {
            "+" => assert!(out.subscribe(id, place) || out.is_subscribed(id, place)),
            "-" => {
                out.unsubscribe(id, place);
            }
            "=" => {
                out.publish(place, Kind::Text, &[payload.as_bytes()]).expect("short");
            }
            "#" => {
                let (front, back) = payload.as_bytes().split_at(1);
                out.publish(place, Kind::Binary, &[front, back]).expect("short");
            }
            _ => {
                out.send_text(self.0[&place.parse().expect("a number")], payload);
            }
        }
    }

    fn echoes_large(&self) -> bool {
        true
    }
}

struct Connection {
    key: u32,
    generation: u32,
    /// What came, and what should.
    got: Vec<u8>,
    wanted: Vec<(u8, Vec<u8>)>,
    /// Compression as offered.
    bits: Option<u8>,
    /// The rest of a message that it is sending.
    sending: Vec<u8>,
    blocked: bool,
}

struct World {
    sessions: Sessions<Obeys>,
    random: Random,
    connections: Vec<Connection>,
    subscribers: [BTreeSet<usize>; CHANNELS],
    published: Vec<(u8, Vec<u8>)>,
    outgoing: Vec<(u8, Vec<u8>)>,
    /// Whose writes were put off.
    postponed: Vec<(u32, u32)>,
    serial: u64,
    send: SendRules,
    takeover: bool,
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        0..126 => out.push(0x80 | payload.len() as u8),
        126..65536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

impl World {
    fn new(seed: u64, max_backlog: usize, slow_consumer: SlowConsumer) -> World {
        let mut random = Random::new(seed);
        let takeover = random.one_in(2);
        let send = SendRules { max_backlog, slow_consumer };
        let mode = if takeover { DeflateMode::Takeover } else { DeflateMode::NoTakeover };
        let deflate = Deflate { mode, min_bytes: DEFLATE_MIN, max_bytes: DEFLATE_MAX, ..Deflate::default() };
        let settings = Settings { deflate, send, heartbeat: Duration::ZERO, ..Settings::default() };
        let mut sessions = Sessions::new(Obeys::default(), settings, Log::new(None), 0, [1; 32]);
        sessions.join_bus(Participant { slot: 0, generation: 1 }, 1 << 20);
        sessions.begin_pass(Duration::ZERO);
        let subscribers = Default::default();
        let (connections, published, outgoing, postponed) = Default::default();
        let mut world = World {
            sessions,
            random,
            connections,
            subscribers,
            published,
            outgoing,
            postponed,
            serial: 0,
            send,
            takeover,
        };
        for number in 0..CONNECTIONS {
            let connection = world.open(number);
            world.connections.push(connection);
        }
        world
    }

    fn open(&mut self, number: usize) -> Connection {
        let bits = [None, None, Some(9), Some(12), Some(15)][self.random.size(0, 4)];
        let offer =
            bits.map(|bits| format!("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}\r\n"));
        let mut request = format!(
            "GET /ws?n={number} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            offer.unwrap_or_default()
        )
        .into_bytes();
        let key = self.sessions.accept(Peer::UNIX).expect("there is room");
        self.sessions.receive(key, &mut request);
        let generation = self.sessions.generation(key).expect("it is there");
        Connection { key, generation, got: Vec::new(), wanted: Vec::new(), bits, sending: Vec::new(), blocked: false }
    }

    fn is_there(&self, number: usize) -> bool {
        let connection = &self.connections[number];
        self.sessions.generation(connection.key) == Some(connection.generation)
    }

    /// A text that there is only once, some of them worth compressing.
    fn text(&mut self) -> String {
        self.serial += 1;
        let length = if self.random.one_in(4) { self.random.size(DEFLATE_MIN, 9000) } else { self.random.size(0, 200) };
        let filler = self.random.text(length / 2);
        format!("{} {filler}{filler}", self.serial)
    }

    fn must_reach(&mut self, channel: usize, first: u8, payload: &[u8]) {
        for &number in &self.subscribers[channel] {
            self.connections[number].wanted.push((first, payload.to_vec()));
        }
    }

    /// One thing that a client wants, as the bytes it sends.
    fn wish(&mut self, number: usize) -> Vec<u8> {
        let channel = self.random.size(0, CHANNELS - 1);
        match self.random.size(0, 9) {
            0 | 1 => {
                self.subscribers[channel].insert(number);
                frame(0x81, format!("+c{channel}").as_bytes())
            }
            2 => {
                self.subscribers[channel].remove(&number);
                frame(0x81, format!("-c{channel}").as_bytes())
            }
            3 | 4 => {
                let (to, text) = (self.random.size(0, CONNECTIONS - 1), self.text());
                if self.is_there(to) {
                    self.connections[to].wanted.push((0x81, text.clone().into_bytes()));
                }
                frame(0x81, format!(">{to:02}{text}").as_bytes())
            }
            kind => {
                let (text, kind) = (self.text(), usize::from(kind == 5));
                self.must_reach(channel, [0x81, 0x82][kind], text.as_bytes());
                self.published.push(([0x81, 0x82][kind], text.clone().into_bytes()));
                frame(0x81, format!("{}c{channel}{text}", ["=", "#"][kind]).as_bytes())
            }
        }
    }

    /// A client sends, perhaps several messages at a time; or another process publishes.
    fn receive(&mut self, most: usize) {
        let number = self.random.size(0, CONNECTIONS - 1);
        if self.random.one_in(5) {
            let (channel, text) = (self.random.size(0, CHANNELS - 1), self.text());
            self.must_reach(channel, 0x81, text.as_bytes());
            let record = Record::text(["c0", "c1", "c2", "c3"][channel], &text);
            return self.sessions.receive_bus(BusEvent::Record { from: FROM, record });
        }
        if !self.is_there(number) {
            return;
        }
        let mut bytes = std::mem::take(&mut self.connections[number].sending);
        if bytes.is_empty() && most > 1 && self.connections[number].bits.is_none() && self.random.one_in(10) {
            // Goes back as it comes: nothing else may get between.
            let length = self.random.size(64 << 10, 100 << 10);
            let payload = self.random.bytes(length);
            bytes = frame(0x82, &payload);
            self.connections[number].wanted.push((0x82, payload));
        }
        if bytes.is_empty() {
            for _ in 0..self.random.size(1, most) {
                bytes.extend(self.wish(number));
            }
        } else {
            let end = self.random.size(20.min(bytes.len()), bytes.len().min(40_000));
            self.connections[number].sending = bytes.split_off(end);
        }
        self.sessions.receive(self.connections[number].key, &mut bytes);
    }

    /// Writes what is to be written, of which some sockets take a part only, and some writes are put off.
    fn flush(&mut self, slow: bool) {
        for record in self.sessions.outgoing().iter() {
            match record.kind {
                RecordKind::Text => self.outgoing.push((0x81, record.payload.to_vec())),
                RecordKind::Binary => self.outgoing.push((0x82, record.payload.to_vec())),
                _ => {}
            }
        }
        self.sessions.outgoing().clear();
        while let Some(key) = self.sessions.queue().next_dirty() {
            if slow && self.sessions.queue().is_shared(key) && self.random.one_in(4) {
                self.sessions.queue().postpone(key);
                self.postponed.push((key, self.sessions.generation(key).expect("it is there")));
                continue;
            }
            let queue = self.sessions.queue();
            let mut slices = [IoSlice::new(&[]); 64];
            let count = queue.gather(key, &mut slices);
            let offered: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            let taken = if slow && self.random.one_in(2) { self.random.size(0, offered.len()) } else { offered.len() };
            queue.sent(key, taken, taken < offered.len());
            let connection = self.connections.iter_mut().rfind(|connection| connection.key == key).expect("ours");
            connection.got.extend_from_slice(&offered[..taken]);
            connection.blocked = taken < offered.len();
        }
        self.sessions.queue().end_flush();
        self.sessions.end_pass(|_, _| ());
    }

    /// Some sockets, or all, take bytes again, and some writes that were put off, or all, have their turn.
    fn unblock(&mut self, all: bool) {
        let turns = if all { self.postponed.len() } else { self.random.size(0, self.postponed.len()) };
        for (key, generation) in self.postponed.drain(..turns) {
            self.sessions.queue().take_turn(key, generation);
        }
        for number in 0..CONNECTIONS {
            if self.connections[number].blocked && self.is_there(number) && (all || self.random.one_in(2)) {
                self.sessions.writable(self.connections[number].key);
            }
        }
    }

    /// Everyone takes all there is, and ends what it sends.
    fn finish(&mut self) {
        for number in 0..CONNECTIONS {
            let mut rest = std::mem::take(&mut self.connections[number].sending);
            if self.is_there(number) && !rest.is_empty() {
                self.sessions.receive(self.connections[number].key, &mut rest);
            }
        }
        self.flush(false);
        self.unblock(true);
        self.flush(false);
        while self.connections.iter().enumerate().any(|(number, one)| one.blocked && self.is_there(number)) {
            self.unblock(true);
            self.flush(false);
        }
        assert_eq!(self.sessions.queue().kept_common_bytes(), 0);
    }

    /// The messages that a connection has got, and whether they end with a whole one.
    fn messages(&self, number: usize) -> Vec<(u8, Vec<u8>)> {
        let connection = &self.connections[number];
        let start =
            connection.got.windows(4).position(|end| end == b"\r\n\r\n").map_or(connection.got.len(), |at| at + 4);
        let mut inflate = connection.bits.map(|bits| Decompress::new_with_window_bits(false, bits));
        let (mut rest, mut all) = (&connection.got[start..], Vec::new());
        while let Some((first, payload, tail)) = whole_frame(rest) {
            rest = tail;
            if first & 0x40 == 0 {
                all.push((first, payload.to_vec()));
                continue;
            }
            let inflate = inflate.as_mut().expect("compression was agreed on");
            let mut out = Vec::with_capacity(64 << 10);
            let input = [payload, &[0, 0, 0xff, 0xff]].concat();
            inflate.decompress_vec(&input, &mut out, FlushDecompress::Sync).expect("valid");
            all.push((first & !0x40, out));
            if !self.takeover {
                inflate.reset(false);
            }
        }
        assert!(rest.is_empty() || !self.is_there(number), "half a frame is left");
        all
    }
}

fn whole_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        126 => rest.split_first_chunk().map(|(bytes, rest)| (usize::from(u16::from_be_bytes(*bytes)), rest))?,
        127 => rest.split_first_chunk().map(|(bytes, rest)| (u64::from_be_bytes(*bytes) as usize, rest))?,
        short => (usize::from(short), rest),
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((first, payload, rest))
}

/// The seeds of a test.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("PERCORE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
}

#[test]
fn subscribers_get_what_is_published_in_order() {
    let mut compressed = 0;
    for seed in seeds(60) {
        let mut world = World::new(seed, usize::MAX, SlowConsumer::Close);
        for _ in 0..400 {
            for _ in 0..world.random.size(0, 5) {
                world.receive(5);
            }
            if world.random.one_in(40) {
                end_one(&mut world);
            }
            world.flush(true);
            world.unblock(false);
        }
        world.finish();
        for number in 0..CONNECTIONS {
            let (got, wanted) = (world.messages(number), &world.connections[number].wanted);
            assert_same(&got, wanted, &format!("seed {seed}, connection {number}"));
            compressed += usize::from(world.connections[number].bits.is_some()) * got.len();
        }
        assert_eq!(world.outgoing, world.published, "seed {seed}: what goes to other processes");
        assert_eq!(world.sessions.stats().published as usize, world.published.len());
    }
    assert!(compressed > 0);
}

fn assert_same(got: &[(u8, Vec<u8>)], wanted: &[(u8, Vec<u8>)], what: &str) {
    let shown = |(first, payload): &(u8, Vec<u8>)| {
        format!("{first:x} {}", String::from_utf8_lossy(&payload[..payload.len().min(40)]))
    };
    if let Some(at) = (0..got.len().max(wanted.len())).find(|&at| got.get(at) != wanted.get(at)) {
        panic!("{what}: message {at} is {:?} and not {:?}", got.get(at).map(shown), wanted.get(at).map(shown));
    }
}

/// A connection ends, by a Close frame or without one. What it had got until then was right, and another takes its place.
fn end_one(world: &mut World) {
    let number = world.random.size(0, CONNECTIONS - 1);
    if !world.connections[number].sending.is_empty() {
        return;
    }
    let key = world.connections[number].key;
    if world.random.one_in(2) {
        world.sessions.receive(key, &mut frame(0x88, &[3, 232]));
    }
    world.sessions.end_of_stream(key);
    for channel in &mut world.subscribers {
        channel.remove(&number);
    }
    world.flush(true);
    while world.is_there(number) {
        world.sessions.writable(key);
        world.flush(false);
    }
    let got: Vec<_> = world.messages(number).into_iter().filter(|(first, _)| *first != 0x88).collect();
    let wanted = &world.connections[number].wanted;
    assert_same(&got, &wanted[..got.len().min(wanted.len())], &format!("connection {number}, which ended"));
    world.connections[number] = world.open(number);
}

#[test]
fn who_takes_too_slowly_misses_messages_that_are_counted() {
    let mut dropped = 0;
    for seed in seeds(40) {
        let mut world = World::new(seed, 3000, SlowConsumer::Drop);
        for _ in 0..300 {
            for _ in 0..world.random.size(0, 5) {
                world.receive(1);
            }
            world.flush(true);
            world.unblock(false);
        }
        world.finish();
        let mut missing = 0;
        for number in 0..CONNECTIONS {
            let (got, wanted) = (world.messages(number), &world.connections[number].wanted);
            let mut rest = wanted.iter();
            for message in &got {
                assert!(rest.any(|wanted| wanted == message), "seed {seed}, connection {number}: a stray message");
            }
            missing += wanted.len() - got.len();
        }
        assert_eq!(world.sessions.stats().messages_dropped as usize, missing, "seed {seed}");
        dropped += missing;
    }
    assert!(dropped > 100, "{dropped}");
}

#[test]
fn who_takes_too_slowly_is_ended_alone() {
    let mut ended = 0;
    for seed in seeds(40) {
        let mut world = World::new(seed, 3000, SlowConsumer::Close);
        assert_eq!(world.send.max_backlog, 3000);
        for _ in 0..300 {
            // Who is ended is so before anything else happens.
            world.receive(1);
            world.flush(true);
            world.unblock(false);
        }
        world.finish();
        for number in 0..CONNECTIONS {
            let (got, wanted) = (world.messages(number), &world.connections[number].wanted);
            let is_there = world.is_there(number);
            let wanted = if is_there { &wanted[..] } else { &wanted[..got.len().min(wanted.len())] };
            assert_same(&got, wanted, &format!("seed {seed}, connection {number}"));
            ended += u64::from(!is_there);
        }
    }
    assert!(ended > 10, "{ended}");
}
