//! Properties of the receiving half: any split of the bytes yields the same events and the same violation; decoding
//! reverses encoding; and no input from a peer makes it panic.

use flate2::{Compress, Compression, FlushCompress};
use percore::internal::net::id::Peer;
use percore::internal::protocol::receiver::{Event, Receiver, Rules, Scratch};
use percore::internal::queue::pool::Pool;
use percore::internal::session::Sessions;
use percore::internal::telemetry::log::Log;
use percore::{App, ConnectionId, Kind, Message, Outbox, Request, Role, Settings, Violation};
use proptest::prelude::*;

/// Messages longer than this are a violation.
const MAX_MESSAGE: usize = 3000;

/// An event with bytes of its own.
#[derive(Clone, PartialEq, Debug)]
enum Got {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Violation(Violation),
}

struct Listener {
    receiver: Receiver,
    rules: Rules,
    scratch: Scratch,
    pool: Pool,
    /// Whether the short way is tried first, as sessions do.
    short: bool,
    got: Vec<Got>,
}

impl Listener {
    fn new(role: Role, deflate: bool, short: bool) -> Listener {
        let receiver = if deflate { Receiver::with_deflate(None) } else { Receiver::new() };
        let (rules, scratch, pool) = (
            Rules { role, max_message: MAX_MESSAGE, max_frame: usize::MAX, pieces_from: None },
            Scratch::default(),
            Pool::default(),
        );
        Listener { receiver, rules, scratch, pool, short, got: Vec::new() }
    }

    /// Whether the connection goes on.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let mut bytes = bytes.to_vec();
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            if self.short
                && let Some((used, message)) = self.receiver.next_short(rest, &self.rules)
            {
                self.got.push(of_message(message));
                rest = &mut rest[used..];
                continue;
            }
            let length = rest.len();
            let (used, got) = match self.receiver.next(rest, &self.rules, &mut self.scratch, &mut self.pool) {
                Ok((used, event)) => (used, event.map(of_event)),
                Err(violation) => {
                    self.got.push(Got::Violation(violation));
                    return false;
                }
            };
            assert!(used <= length && (got.is_some() || used == length), "without an event all bytes are taken");
            let closed = matches!(got, Some(Got::Close(_)));
            self.got.extend(got);
            if closed {
                return false;
            }
            rest = &mut rest[used..];
        }
        true
    }
}

fn of_message(mut message: Message<'_>) -> Got {
    assert_eq!(message.len(), message.payload().len());
    assert_eq!(message.text().is_some(), message.is_text());
    Got::Message(message.kind(), message.payload().to_vec())
}

fn of_event(event: Event<'_>) -> Got {
    match event {
        Event::Message(message) => of_message(message),
        Event::Ping(payload) => Got::Ping(payload.to_vec()),
        Event::Pong(payload) => Got::Pong(payload.to_vec()),
        Event::Piece(piece) => unreachable!("{piece:?} was not asked for"),
        Event::Close(payload) => Got::Close(payload.map(|(code, reason)| (code.into(), reason.to_owned()))),
    }
}

/// What comes of `bytes` cut into pieces of the lengths `cuts`, over and over.
fn heard(role: Role, deflate: bool, short: bool, bytes: &[u8], cuts: &[usize]) -> (Vec<Got>, bool) {
    let mut listener = Listener::new(role, deflate, short);
    let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cuts.next().map_or(rest.len(), |cut| rest.len().min(*cut)));
        rest = after;
        if !listener.hear(piece) {
            return (listener.got, false);
        }
    }
    (listener.got, listener.receiver.is_idle())
}

/// One frame of a stream.
#[derive(Clone, Debug)]
struct Frame {
    first: u8,
    payload: Vec<u8>,
    mask: [u8; 4],
}

fn encode(frames: &[Frame], role: Role) -> Vec<u8> {
    let mut out = Vec::new();
    for Frame { first, payload, mask } in frames {
        let (bit, mask) = if role == Role::Server { (0x80, *mask) } else { (0, [0; 4]) };
        out.push(*first);
        match payload.len() {
            length @ 0..=125 => out.push(bit | length as u8),
            length => {
                out.push(bit | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask[..if role == Role::Server { 4 } else { 0 }]);
        out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    }
    out
}

/// A message, the frames that carry it with what lies between them, and the events to expect.
#[derive(Clone, Debug)]
struct Sent {
    frames: Vec<Frame>,
    expected: Vec<Got>,
}

fn compress(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() * 2 + 64);
    let mut stream = Compress::new(Compression::fast(), false);
    stream.compress_vec(payload, &mut out, FlushCompress::Sync).expect("compression");
    out.truncate(out.len() - 4);
    out
}

fn payload() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let text = prop_oneof!["\\PC{0,20}", "[aéЖ水𝄞🦀]{0,150}", "[a🦀]{300,600}"];
    let bytes = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..20),
        2 => prop::collection::vec(any::<u8>(), 100..300),
        1 => prop::collection::vec(any::<u8>(), 1000..MAX_MESSAGE),
    ];
    prop_oneof![text.prop_map(|text| (Kind::Text, text.into_bytes())), bytes.prop_map(|bytes| (Kind::Binary, bytes))]
}

fn control() -> impl Strategy<Value = (bool, Vec<u8>)> {
    (any::<bool>(), prop::collection::vec(any::<u8>(), 0..=125))
}

prop_compose! {
    /// A message in fragments, cut anywhere, with control frames between them.
    fn sent()(
        (kind, payload) in payload(), compressed: bool, mask: [u8; 4],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        controls in prop::collection::vec(prop::option::weighted(0.3, control()), 5),
    ) -> Sent {
        let body = if compressed { compress(&payload) } else { payload.clone() };
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).chain([body.len()]).collect();
        ends.sort_unstable();
        let (mut frames, mut expected, mut start) = (Vec::new(), Vec::new(), 0);
        for (place, &end) in ends.iter().enumerate() {
            if let Some(Some((ping, payload))) = controls.get(place) {
                frames.push(Frame { first: if *ping { 0x89 } else { 0x8a }, payload: payload.clone(), mask });
                expected.push(if *ping { Got::Ping(payload.clone()) } else { Got::Pong(payload.clone()) });
            }
            let opcode = match (place, kind) {
                (0, Kind::Text) => 1,
                (0, Kind::Binary) => 2,
                _ => 0,
            };
            let rsv1 = if place == 0 && compressed { 0x40 } else { 0 };
            let fin = if place + 1 == ends.len() { 0x80 } else { 0 };
            frames.push(Frame { first: fin | rsv1 | opcode, payload: body[start..end].to_vec(), mask });
            start = end;
        }
        expected.push(Got::Message(kind, payload));
        Sent { frames, expected }
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1usize..4, 1..5),
        prop::collection::vec(1usize..40, 1..9),
        prop::collection::vec(1usize..2000, 1..9)
    ]
}

/// Bytes that are nearly frames: any first and second byte, and payloads of the length announced, or not.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => prop::sample::select(vec![0x81u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a, 0xc1, 0xc2, 0x41]),
        1 => any::<u8>()
    ];
    let frame = (first, any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 0..140), any::<u8>(), 0u8..20);
    let frames = prop::collection::vec(frame, 0..6);
    frames.prop_map(|frames| {
        let mut out = Vec::new();
        for (first, mask, payload, any_length, oddness) in frames {
            let length = match oddness {
                0 => any_length,
                1 => 126,
                2 => 127,
                _ => 0x80 | payload.len().min(125) as u8,
            };
            out.extend([first, length]);
            out.extend(mask);
            out.extend(&payload[..payload.len().min(125)]);
        }
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_frames_come_out_whole_however_they_are_cut(
        messages in prop::collection::vec(sent(), 1..5), role in role(), cuts in cuts(), short: bool,
        close in prop::option::of("[a-zß🦀]{0,30}"),
    ) {
        let mut frames: Vec<Frame> = messages.iter().flat_map(|sent| sent.frames.clone()).collect();
        let mut expected: Vec<Got> = messages.iter().flat_map(|sent| sent.expected.clone()).collect();
        if let Some(reason) = &close {
            let payload = [&1000u16.to_be_bytes(), reason.as_bytes()].concat();
            frames.push(Frame { first: 0x88, payload, mask: [9, 8, 7, 6] });
            expected.push(Got::Close(Some((1000, reason.clone()))));
        }
        let bytes = encode(&frames, role);
        let (got, idle) = heard(role, true, short, &bytes, &cuts);
        prop_assert_eq!(got, expected);
        prop_assert!(idle || close.is_some(), "a buffer is held after whole messages");
    }

    #[test]
    fn any_bytes_give_the_same_events_and_the_same_violation_however_they_are_cut(
        messages in prop::collection::vec(sent(), 0..2), noise in noise(), role in role(), deflate: bool, cuts in cuts(),
    ) {
        let frames: Vec<Frame> = messages.iter().flat_map(|sent| sent.frames.clone()).collect();
        let bytes = [encode(&frames, role), noise].concat();
        let whole = heard(role, deflate, false, &bytes, &[]);
        prop_assert_eq!(&heard(role, deflate, true, &bytes, &[]), &whole);
        prop_assert_eq!(&heard(role, deflate, false, &bytes, &cuts), &whole);
        prop_assert_eq!(&heard(role, deflate, true, &bytes, &cuts), &whole);
        prop_assert_eq!(&heard(role, deflate, true, &bytes, &[1]), &whole);
    }

    #[test]
    fn a_changed_byte_never_panics_and_never_depends_on_the_cuts(
        message in sent(), role in role(), at in any::<prop::sample::Index>(), with: u8, cuts in cuts()
    ) {
        let mut bytes = encode(&message.frames, role);
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let whole = heard(role, true, true, &bytes, &[]);
        prop_assert_eq!(&heard(role, true, true, &bytes, &cuts), &whole);
    }

    #[test]
    fn what_the_server_sends_its_client_role_reads(messages in prop::collection::vec(payload(), 1..12), cuts in cuts()) {
        let frames: Vec<Frame> = messages.iter().map(whole_frame).collect();
        let answers = echoed(&encode(&frames, Role::Server));
        let (got, idle) = heard(Role::Client, false, true, &answers, &cuts);
        let sent: Vec<Got> = messages.into_iter().map(|(kind, payload)| Got::Message(kind, payload)).collect();
        prop_assert_eq!(got, sent);
        prop_assert!(idle);
    }
}

fn whole_frame((kind, payload): &(Kind, Vec<u8>)) -> Frame {
    let first = if *kind == Kind::Text { 0x81 } else { 0x82 };
    Frame { first, payload: payload.clone(), mask: [1, 22, 133, 244] }
}

struct Echo;

impl App for Echo {
    type State = ();

    fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}

    /// Every other message by another way.
    fn on_message(&mut self, id: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
        if message.len().is_multiple_of(2) {
            out.echo(id, message);
        } else {
            let (first, second) = message.payload().split_at(1);
            let (first, second) = (first.to_vec(), second.to_vec());
            out.send(id, message.kind(), &[&first, &second]);
        }
    }
}

/// The frames with which an echo server answers these.
fn echoed(frames: &[u8]) -> Vec<u8> {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut sessions = Sessions::new(Echo, Settings::default(), Log::new(None), 0, [0; 32]);
    let key = sessions.accept(Peer::UNIX).expect("room for a connection");
    sessions.receive(key, &mut [REQUEST, frames].concat());
    let queue = sessions.queue();
    assert_eq!(queue.next_dirty(), Some(key));
    let bytes = queue.single(key).expect("all of it is one piece").to_vec();
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the head of a response");
    bytes[head + 4..].to_vec()
}
