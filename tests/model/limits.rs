//! The memory and work that one connection can cost: bounded at every moment, whatever it sends, and released.

use percore::internal::net::rate::RateRules;
use percore::internal::queue::MAX_SLICES;
use percore::internal::session::{Fate, Sessions};
use percore::internal::telemetry::memory::MemoryKind;
use percore::{
    App, CloseReason, ConnectionId, Delivery, Error, Kind, Level, Log, Message, Outbox, Peer, Request, SendRules,
    Settings, SlowConsumer, UpgradeRules,
};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const KIBIBYTE: usize = 1024;
const MEBIBYTE: usize = 1024 * 1024;

/// Everybody is on one channel; the first byte of a message says what is done about it.
#[derive(Default)]
struct Server {
    messages: usize,
    closed: Vec<ConnectionId>,
    errors: Vec<Error>,
}

impl App for Server {
    type State = ();

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
        out.subscribe(id, "all");
    }

    fn on_message(&mut self, id: ConnectionId, (): &mut (), mut message: Message<'_>, out: &mut Outbox) {
        self.messages += 1;
        let large = vec![b'x'; 100 * KIBIBYTE];
        match message.payload().first() {
            // One large answer.
            Some(b'a') => {
                out.send_binary(id, &large);
            }
            // Answers without end, in one handler.
            Some(b'A') => while out.send_binary(id, &large) == Delivery::Queued {},
            // The same for everyone.
            Some(b'P') => {
                for _ in 0..200 {
                    let _ = out.publish("all", Kind::Binary, &[&large]);
                }
            }
            _ => {}
        }
    }

    fn on_error(&mut self, _: ConnectionId, (): &mut (), error: &Error, _: &mut Outbox) {
        self.errors.push(error.clone());
    }

    fn on_close(&mut self, id: ConnectionId, (): (), _: &CloseReason, _: &mut Outbox) {
        self.closed.push(id);
    }
}

fn settings() -> Settings {
    let upgrade = UpgradeRules { paths: vec!["/".into()], ..UpgradeRules::default() };
    let send = SendRules { max_backlog: MEBIBYTE, ..SendRules::default() };
    Settings { upgrade, send, max_message: MEBIBYTE, ..Settings::default() }
}

/// Sessions whose sockets take nothing once they are open.
struct World {
    sessions: Sessions<Server>,
    now: Duration,
}

impl World {
    fn new(settings: Settings) -> World {
        let sessions = Sessions::new(Server::default(), settings, Log::new(Some(Level::Warn)), 0, [7; 32]);
        World { sessions, now: Duration::ZERO }
    }

    fn open_from(&mut self, addr: SocketAddr, extensions: &str) -> u32 {
        let key = self.sessions.accept(Peer::from(addr)).expect("a place");
        self.sessions.receive(key, &mut format!("{REQUEST}{extensions}\r\n").into_bytes());
        self.write(usize::MAX);
        key
    }

    fn open(&mut self) -> u32 {
        self.open_from(([10, 0, 0, 1], 4711).into(), "")
    }

    /// Writes to sockets that take `room` bytes each. Returns how many bytes they took.
    fn write(&mut self, room: usize) -> usize {
        let (queue, mut taken) = (self.sessions.queue(), 0);
        while let Some(key) = queue.next_dirty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = queue.gather(key, &mut slices);
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            let bytes = offered.min(room);
            queue.sent(key, bytes, bytes < offered);
            taken += bytes;
        }
        queue.end_flush();
        taken
    }

    fn end_pass(&mut self) {
        self.sessions.expire();
        self.write(0);
        self.sessions.end_pass(|_, fate| assert!(fate == Fate::Close || fate == Fate::ShutdownWrite));
    }

    fn pass_at(&mut self, now: Duration) {
        self.now = now;
        self.sessions.begin_pass(now);
    }

    fn queued(&mut self, key: u32) -> usize {
        self.sessions.queue().lane_at(key).queued_bytes()
    }

    fn held(&self, kind: MemoryKind) -> usize {
        self.sessions.memory().of(kind)
    }

    /// A connection's turn, as the loop gives it: step by step, each followed by a write where much is queued.
    fn turn(&mut self, key: u32, mut input: &mut [u8], room: usize) -> usize {
        let mut used = 0;
        while !input.is_empty() && self.sessions.generation(key).is_some() && self.sessions.wants_read(key) {
            let step = self.sessions.step(key, input);
            used += step;
            input = &mut input[step..];
            if self.sessions.queue().is_full() {
                self.write(room);
            }
        }
        used
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut bytes = match length {
        0..126 => vec![first, 0x80 | length as u8],
        126..65_536 => vec![first, 0xfe, (length >> 8) as u8, length as u8],
        _ => [&[first, 0xff][..], &(length as u64).to_be_bytes()].concat(),
    };
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// A whole read of short messages was worked off before anything was written.
#[test]
fn large_answers_to_short_messages_are_queued_one_by_one() {
    let mut world = World::new(settings());
    let key = world.open();
    let mut input = frame(0x82, b"a").repeat(10_000);
    let used = world.turn(key, &mut input, 0);
    assert!(used < input.len(), "it is not read from while it takes nothing");
    let queued = world.queued(key);
    assert!((256 * KIBIBYTE..=400 * KIBIBYTE).contains(&queued), "{queued} bytes queued");
    // As it takes what it was sent, the rest is worked off.
    let mut position = used;
    while position < input.len() {
        world.sessions.writable(key);
        world.write(usize::MAX);
        position += world.turn(key, &mut input[position..], usize::MAX);
    }
    assert_eq!(world.sessions.app.messages, 10_000);
}

/// Only bytes that a socket had refused were counted.
#[test]
fn the_backlog_is_bounded_within_one_handler() {
    for slow_consumer in [SlowConsumer::Close, SlowConsumer::Drop] {
        for message in [b"A", b"P"] {
            let base = settings();
            let mut world = World::new(Settings { send: SendRules { slow_consumer, ..base.send }, ..base });
            let (sender, other) = (world.open(), world.open());
            let step = world.sessions.step(sender, &mut frame(0x82, message));
            assert_eq!(step, 7);
            for key in [sender, other] {
                if world.sessions.generation(key).is_none() {
                    continue;
                }
                let queued = world.queued(key);
                assert!(queued <= MEBIBYTE + 101 * KIBIBYTE, "{queued} bytes queued for {message:?}");
            }
            let stats = world.sessions.stats();
            let (closed, dropped) = (stats.slow_consumers_closed, stats.messages_dropped);
            let hit = if message == b"P" { 2 } else { 1 };
            match slow_consumer {
                SlowConsumer::Close => assert_eq!((closed, dropped), (hit, 0)),
                SlowConsumer::Drop => assert_eq!((closed, dropped > 0), (0, true)),
            }
        }
    }
}

/// Many short messages on two channels in turn gave each subscriber a span for each, which were counted nowhere.
#[test]
fn spans_make_the_queue_full() {
    let mut world = World::new(settings());
    for _ in 0..2_000 {
        world.open();
    }
    let mut published = 0;
    let first = world.sessions.generation(0).expect("the first connection");
    let id = ConnectionId { node: 0, generation: first, index: 0 };
    world.sessions.outbox.subscribe(id, "one");
    while !world.sessions.queue().is_full() {
        let _ = world.sessions.outbox.publish("all", Kind::Text, &[b"x"]);
        // Between two messages for everybody lies one for somebody, so that they do not touch.
        let _ = world.sessions.outbox.publish("one", Kind::Text, &[b"y"]);
        published += 1;
        assert!(published < 100, "full after {published} messages for 2,000");
    }
    world.write(usize::MAX);
    assert!(world.held(MemoryKind::Spans) < 4 * MEBIBYTE);
}

/// Frames that wait for the end of an echo under way were counted nowhere.
#[test]
fn frames_held_during_an_echo_are_counted() {
    struct Echo;
    impl App for Echo {
        type State = ();
        fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
        fn on_message(&mut self, id: ConnectionId, (): &mut (), message: Message<'_>, out: &mut Outbox) {
            out.echo(id, message);
        }
        fn echoes_large(&self) -> bool {
            true
        }
    }
    let mut sessions = Sessions::new(Echo, settings(), Log::new(None), 0, [7; 32]);
    let key = sessions.accept(Peer::UNIX).expect("a place");
    sessions.receive(key, &mut format!("{REQUEST}\r\n").into_bytes());
    let half = frame(0x82, &[0; 200 * KIBIBYTE])[..100 * KIBIBYTE].to_vec();
    sessions.receive(key, &mut half.clone());
    let id = ConnectionId { node: 0, generation: sessions.generation(key).expect("it is open"), index: key };
    let mut sent = 0;
    while sessions.outbox.send_binary(id, &[0; 10 * KIBIBYTE]) == Delivery::Queued {
        sent += 10 * KIBIBYTE;
        assert!(sent <= MEBIBYTE + 10 * KIBIBYTE, "{sent} bytes held");
    }
    let held = sessions.memory().of(MemoryKind::Held);
    assert!(held >= 900 * KIBIBYTE, "{held} bytes of {sent} counted");
    sessions.begin_pass(Duration::ZERO);
    sessions.receive(key, &mut half.clone());
    sessions.end_pass(|_, _| {});
    assert_eq!(sessions.memory().of(MemoryKind::Held), 0);
}

/// A connection that sends more than it may waits, and loses nothing.
#[test]
fn messages_are_taken_at_the_rate() {
    let rates = RateRules { messages: 100, ..RateRules::default() };
    let mut world = World::new(Settings { rates, ..settings() });
    let key = world.open();
    let mut input = frame(0x82, b"-").repeat(1_000);
    let (mut position, mut resumed) = (0, Vec::new());
    while position < input.len() {
        position += world.turn(key, &mut input[position..], usize::MAX);
        let (seconds, messages) = (world.now.as_secs_f64(), world.sessions.app.messages as f64);
        assert!(messages <= 100.0 * (seconds + 2.0) + 1.0, "{messages} messages after {seconds} s");
        if position < input.len() {
            assert!(!world.sessions.wants_read(key));
            let next = world.sessions.next_deadline().expect("it goes on");
            world.pass_at(next.max(world.now + Duration::from_millis(1)));
            world.sessions.take_resumed(&mut resumed);
        }
    }
    assert_eq!(world.sessions.app.messages, 1_000);
    assert!((7.0..8.5).contains(&world.now.as_secs_f64()), "{:?} for 1,000 messages", world.now);
    assert!(world.sessions.stats().rate_pauses > 0 && !resumed.is_empty());
}

/// Bytes count once they are decompressed; a connection in debt for longer than the heartbeat's timeout is no silent one.
#[test]
fn a_connection_that_waits_for_its_rate_is_not_silent() {
    let rates = RateRules { bytes: 1_000, ..RateRules::default() };
    let mut world = World::new(Settings { rates, ..settings() });
    let key = world.open();
    let timeout = settings().heartbeat_timeout;
    let mut input = frame(0x82, &[b'-'; 200 * KIBIBYTE]);
    assert_eq!(world.turn(key, &mut input, usize::MAX), input.len());
    while world.now < timeout * 2 {
        let next = world.sessions.next_deadline().expect("a heartbeat");
        world.pass_at(next.max(world.now + Duration::from_millis(1)));
        world.sessions.expire();
        world.write(usize::MAX);
    }
    assert!(!world.sessions.wants_read(key));
    assert!(world.sessions.app.closed.is_empty());
}

/// Half messages and unread answers of many connections: all together are bounded, those who hold most go, and a client
/// that holds little stays.
#[test]
fn all_connections_together_are_bounded() {
    let max_memory = 16 * MEBIBYTE;
    let mut world = World::new(Settings { max_memory, ..settings() });
    let honest = world.open_from(([10, 9, 9, 9], 1).into(), "");
    let half = frame(0x82, &[0; 900 * KIBIBYTE])[..600 * KIBIBYTE].to_vec();
    for round in 0u8..100 {
        let addr = SocketAddr::from(([10, 1, 1, round % 7], 4711));
        let (sending, reading) = (world.open_from(addr, ""), world.open_from(addr, ""));
        world.sessions.receive(sending, &mut half.clone());
        for _ in 0..5 {
            world.turn(reading, &mut frame(0x82, b"a"), 0);
        }
        world.write(0);
        world.sessions.bound_memory();
        let memory = world.sessions.memory();
        assert!(memory.total() <= max_memory, "{memory}");
        world.end_pass();
    }
    assert!(world.sessions.stats().memory_closed > 50);
    assert!(world.sessions.generation(honest).is_some(), "who holds little stays");
    assert!(world.sessions.app.errors.contains(&Error::OutOfMemory));
    world.sessions.abandon();
    world.end_pass();
    for kind in [MemoryKind::Input, MemoryKind::Assembly, MemoryKind::Backlog, MemoryKind::Held] {
        assert_eq!(world.held(kind), 0, "{kind:?} is given back");
    }
}

/// What connections held is given back to the system once they are gone, or have taken it, although nobody sends anything.
#[test]
fn the_allocator_is_told_when_much_is_free() {
    let mut world = World::new(Settings { max_memory: 256 * MEBIBYTE, ..settings() });
    world.pass_at(Duration::from_secs(10));
    let hold = |world: &mut World| {
        let keys: Vec<u32> = (0..80).map(|_| world.open()).collect();
        for &key in &keys {
            for _ in 0..10 {
                world.turn(key, &mut frame(0x82, b"a"), 0);
            }
            world.write(0);
        }
        world.sessions.bound_memory();
        assert!(world.held(MemoryKind::Backlog) > 10 * MEBIBYTE && !world.sessions.is_relieved());
        keys
    };
    for key in hold(&mut world) {
        world.sessions.socket_error(key, &std::io::ErrorKind::ConnectionReset.into());
    }
    world.end_pass();
    assert!(world.sessions.is_relieved() && !world.sessions.is_relieved());
    // Soon after that it waits, and the loop is woken for it.
    for key in hold(&mut world) {
        assert!(world.sessions.writable(key));
    }
    world.write(usize::MAX);
    world.end_pass();
    assert!(!world.sessions.is_relieved());
    let due = world.sessions.next_deadline().expect("a deadline");
    assert!(due <= Duration::from_secs(11), "{due:?}");
    world.pass_at(due);
    world.end_pass();
    assert!(world.sessions.is_relieved());
    assert!(world.sessions.gather_log().is_empty(), "nobody was closed for memory");
}

/// A message that is only promised takes no memory.
#[test]
fn a_promise_costs_its_sender_as_much_as_the_process() {
    let mut world = World::new(settings());
    for _ in 0..100 {
        let key = world.open();
        world.sessions.receive(key, &mut frame(0x81, &[b'x'; MEBIBYTE])[..15].to_vec());
    }
    let held = world.held(MemoryKind::Assembly);
    assert!(held <= 100 * 8 * KIBIBYTE + 8 * MEBIBYTE, "{held} bytes for 1,500");
}

/// Listeners that compress and those that do not, in turn: what is kept is kept once for all of either kind.
#[test]
fn slow_listeners_of_both_kinds_share_what_they_wait_for() {
    let mut world = World::new(settings());
    let compresses = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for number in 0..40u8 {
        let addr = SocketAddr::from(([10, 0, 1, number], 1));
        world.open_from(addr, if number % 2 == 0 { compresses } else { "" });
    }
    let text = vec![b'a'; 60 * KIBIBYTE];
    for _ in 0..10 {
        let _ = world.sessions.outbox.publish("all", Kind::Text, &[&text]);
        let _ = world.sessions.outbox.publish("all", Kind::Text, &[b"short"]);
        world.write(0);
    }
    let held = world.held(MemoryKind::Shared) + world.held(MemoryKind::Backlog);
    assert!(held < 3 * MEBIBYTE, "{held} bytes for 10 messages of 60 KiB");
}

/// A process that was stopped for longer than the timeout closed all its clients at once.
#[test]
fn a_process_that_was_held_up_blames_nobody() {
    let mut world = World::new(settings());
    let key = world.open();
    let waiting = world.sessions.accept(Peer::UNIX).expect("a place");
    let late = settings().heartbeat_timeout * 2;
    world.pass_at(late);
    world.sessions.held_up();
    world.end_pass();
    assert!(world.sessions.generation(key).is_some() && world.sessions.generation(waiting).is_some());
    // It is asked at once, and is silent from then on.
    assert!(world.sessions.stats().sent[percore::internal::telemetry::stats::PING] == 1);
    world.pass_at(late + settings().heartbeat_timeout + Duration::from_secs(1));
    world.end_pass();
    assert_eq!(world.sessions.stats().heartbeat_timeouts, 1);
}

/// In a brief step a few short messages are handled, and what is more is left for another turn.
#[test]
fn brief_steps_do_little() {
    let mut world = World::new(settings());
    let key = world.open_from(([10, 0, 0, 1], 1).into(), "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let (short, long) = (frame(0x82, b"-"), frame(0x82, &[b'-'; 2 * KIBIBYTE]));
    let mut compressed = frame(0xc2, &[0x4a, 0x04, 0x00]);
    world.sessions.set_brief(true);
    assert_eq!(world.sessions.step(key, &mut short.repeat(1_000)), 16 * short.len());
    assert_eq!(world.sessions.step(key, &mut [&short[..], &long].concat()), short.len());
    assert_eq!(world.sessions.step(key, &mut long.clone()), 0);
    assert_eq!(world.sessions.step(key, &mut compressed), 0);
    assert_eq!(world.sessions.step(key, &mut short[..3].to_vec()), 0, "not all there");
    assert_eq!(world.sessions.app.messages, 17);
    world.sessions.set_brief(false);
    assert_eq!(world.sessions.step(key, &mut long.clone()), long.len());
    assert_eq!(world.sessions.step(key, &mut compressed), compressed.len());
    assert_eq!(world.sessions.app.messages, 19);
    assert_eq!(world.sessions.step(key, &mut short[..3].to_vec()), 3);
    world.sessions.set_brief(true);
    assert_eq!(world.sessions.step(key, &mut short[3..].to_vec()), 0, "within a message");
}
