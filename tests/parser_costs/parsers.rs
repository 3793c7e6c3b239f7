//! Every parser, each with bounds on what a byte of its input may cost.

use crate::allocation::cost_of;
use crate::inputs::{self, Input};
use crate::services::{gateway, history};
use percore::internal::apps::chat::{self, Chat};
use percore::internal::apps::ticker::wire::Wire;
use percore::internal::bridge::resp::Replies;
use percore::internal::bridge::wire;
use percore::internal::bus::list;
use percore::internal::protocol::client::{ClientHandshake, Offer};
use percore::internal::protocol::content::{Content, Framing};
use percore::internal::protocol::deflate::{Deflater, Inflater, Output};
use percore::internal::protocol::extension;
use percore::internal::protocol::forwarded;
use percore::internal::protocol::frame::{self, MAX_HEADER_BYTES};
use percore::internal::protocol::http::{self, MAX_HEADERS};
use percore::internal::protocol::proxy_header;
use percore::internal::protocol::receiver::{Receiver, Rules, Scratch};
use percore::internal::protocol::upgrade;
use percore::internal::pubsub::centrifuge::command::{self, Command, Data, Method};
use percore::internal::pubsub::json::in_one_line;
use percore::internal::queue::pool::Pool;
use percore::internal::session::Sessions;
use percore::{
    App, ConnectionId, Deflate, DeflateMode, ForwardedHeader, HeadLimits, Kind, Log, Message, Outbox, Participant,
    Peer, Presence, ProxyRules, Records, Request, Response, Role, Settings, UpgradeRules,
};

/// A parser and its bounds.
pub struct Parser {
    pub name: &'static str,
    /// Reads bytes; says how many come out of them, where these are what costs.
    pub read: fn(bytes: &[u8], piece: usize) -> usize,
    /// Lengths of pieces, `usize::MAX` for all in one.
    pub pieces: &'static [usize],
    /// Input that an adversary would choose.
    pub hostile: &'static [Input],
    /// Bytes allocated for each byte of input.
    pub allocated: usize,
    /// Bytes held at a time for each byte of input.
    pub held: usize,
    /// Bytes allocated, whatever the input.
    pub once: usize,
}

impl Parser {
    /// Complains about an input that takes more than it may.
    pub fn check(&self, bytes: &[u8], piece: usize) -> Result<(), String> {
        let (cost, came_out) = cost_of(|| self.read(bytes, piece));
        let length = bytes.len() + came_out;
        let both = [("allocated", cost.allocated, self.allocated), ("held", cost.peak, self.held)];
        for (which, taken, each) in both {
            let bound = self.once + each * length;
            if taken > bound {
                let input = format!("{} in pieces of {piece}: {length} bytes, {}", self.name, shown(bytes));
                return Err(format!("{input}: {taken} bytes {which}, more than {bound}"));
            }
        }
        Ok(())
    }

    /// Reads bytes in pieces of a length; the bytes that come out of them.
    pub fn read(&self, bytes: &[u8], piece: usize) -> usize {
        (self.read)(bytes, piece.min(bytes.len().max(1)))
    }
}

/// The beginning and the end of some bytes.
pub fn shown(bytes: &[u8]) -> String {
    let (begin, end) = (&bytes[..bytes.len().min(60)], &bytes[bytes.len() - bytes.len().min(20)..]);
    format!("{} .. {}", begin.escape_ascii(), end.escape_ascii())
}

const ALL: usize = usize::MAX;
const ANY: &[usize] = &[1, 7, ALL];
const WHOLE: &[usize] = &[ALL];

pub const PARSERS: &[Parser] = &[
    Parser {
        name: "inflate",
        read: inflate,
        pieces: WHOLE,
        hostile: inputs::DEFLATED,
        allocated: 4,
        held: 2,
        once: 64 << 10,
    },
    Parser {
        name: "deflate, the smallest window",
        read: |bytes, _| deflate(bytes, 9),
        pieces: WHOLE,
        hostile: inputs::PLAIN,
        allocated: 4,
        held: 3,
        once: 512 << 10,
    },
    Parser {
        name: "deflate, the largest window",
        read: |bytes, _| deflate(bytes, 15),
        pieces: WHOLE,
        hostile: inputs::PLAIN,
        allocated: 4,
        held: 3,
        once: 512 << 10,
    },
    Parser {
        name: "receiver",
        read: receive,
        pieces: ANY,
        hostile: inputs::FRAMES,
        allocated: 8,
        held: 4,
        once: 192 << 10,
    },
    Parser {
        name: "request",
        read: requests,
        pieces: ANY,
        hostile: inputs::REQUESTS,
        allocated: 32,
        held: 16,
        once: 48 << 10,
    },
    Parser {
        name: "answer to our request",
        read: answers,
        pieces: ANY,
        hostile: inputs::ANSWERS,
        allocated: 32,
        held: 16,
        once: 48 << 10,
    },
    Parser {
        name: "PROXY header",
        read: proxy_headers,
        pieces: ANY,
        hostile: inputs::PROXY_HEADERS,
        allocated: 32,
        held: 16,
        once: 48 << 10,
    },
    Parser {
        name: "forwarded addresses",
        read: forwarded_addresses,
        pieces: WHOLE,
        hostile: inputs::ADDRESSES,
        allocated: 1,
        held: 1,
        once: 1 << 10,
    },
    Parser {
        name: "extensions",
        read: extensions,
        pieces: WHOLE,
        hostile: inputs::EXTENSIONS,
        allocated: 1,
        held: 1,
        once: 1 << 10,
    },
    Parser {
        name: "ticker",
        read: ticker,
        pieces: WHOLE,
        hostile: inputs::TICKER,
        allocated: 64,
        held: 48,
        once: 4 << 10,
    },
    Parser { name: "chat", read: chat, pieces: WHOLE, hostile: inputs::CHAT, allocated: 64, held: 32, once: 256 << 10 },
    Parser {
        name: "commands of clients",
        read: commands,
        pieces: WHOLE,
        hostile: inputs::COMMANDS,
        allocated: 64,
        held: 32,
        once: 4 << 10,
    },
    Parser {
        name: "presence",
        read: presence,
        pieces: WHOLE,
        hostile: inputs::RECORDS,
        allocated: 128,
        held: 64,
        once: 4 << 10,
    },
    Parser {
        name: "list of a participant",
        read: participants_list,
        pieces: WHOLE,
        hostile: inputs::RECORDS,
        allocated: 128,
        held: 64,
        once: 4 << 10,
    },
    Parser {
        name: "replies of Redis",
        read: replies,
        pieces: ANY,
        hostile: inputs::REPLIES,
        allocated: 64,
        held: 32,
        once: 48 << 10,
    },
    Parser {
        name: "content in chunks",
        read: content,
        pieces: ANY,
        hostile: inputs::CHUNKS,
        allocated: 4,
        held: 3,
        once: 1 << 10,
    },
    Parser {
        name: "gateway: /sr",
        read: |bytes, _| gateway("POST", "/sr", bytes),
        pieces: WHOLE,
        hostile: inputs::OUTGOING,
        allocated: 160,
        held: 80,
        once: 256 << 10,
    },
    Parser {
        name: "gateway: a batch",
        read: |bytes, _| gateway("POST", "/connections:batch", bytes),
        pieces: WHOLE,
        hostile: inputs::OUTGOING,
        allocated: 240,
        held: 120,
        once: 256 << 10,
    },
    Parser {
        name: "gateway: @connections",
        read: |bytes, _| gateway("POST", "/@connections/AAAA", bytes),
        pieces: WHOLE,
        hostile: inputs::PLAIN,
        allocated: 16,
        held: 8,
        once: 256 << 10,
    },
    Parser {
        name: "history",
        read: history,
        pieces: WHOLE,
        hostile: inputs::HISTORY,
        allocated: 16,
        held: 12,
        once: 1 << 10,
    },
    Parser {
        name: "request with content",
        read: request_with_content,
        pieces: ANY,
        hostile: inputs::CHUNKS,
        allocated: 8,
        held: 4,
        once: 256 << 10,
    },
];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn inflate(bytes: &[u8], _: usize) -> usize {
    let (mut inflater, mut out) = (Inflater::new(), Output::new());
    let _ = inflater.inflate(bytes, &mut out, 1 << 20);
    assert!(inflater.steps() <= 257 + out.len() / 512, "{} steps for {} bytes", inflater.steps(), out.len());
    out.len()
}

fn deflate(bytes: &[u8], window_bits: u8) -> usize {
    Deflater::new(1, window_bits, false).deflate(&[bytes], &mut Output::new());
    0
}

fn receive(bytes: &[u8], piece: usize) -> usize {
    let rules = Rules { role: Role::Server, max_message: 1 << 20, max_frame: usize::MAX, pieces_from: None };
    let (mut receiver, mut scratch, mut pool) = (Receiver::with_deflate(None), Scratch::default(), Pool::default());
    let mut bytes = bytes.to_vec();
    for piece in bytes.chunks_mut(piece) {
        let mut used = 0;
        while used < piece.len() {
            let rest = &mut piece[used..];
            used += match receiver.next_short(rest, &rules) {
                Some((used, _)) => used,
                None => match receiver.next(rest, &rules, &mut scratch, &mut pool) {
                    Ok((used, _)) => used,
                    Err(_) => return 0,
                },
            };
        }
    }
    0
}

/// Puts pieces together as sessions do, and has `read` take from the beginning what is whole: it is told how much was
/// seen before, and says how much it took. What it refuses is thrown away, as its connection would be.
fn assemble(bytes: &[u8], piece: usize, read: impl Fn(&[u8], usize) -> Result<Option<usize>, ()>) {
    let (mut held, mut seen) = (Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        held.extend_from_slice(piece);
        let mut start = 0;
        while start < held.len() {
            match read(&held[start..], seen) {
                Ok(Some(taken)) => (start, seen) = (start + taken, 0),
                Ok(None) => break,
                Err(()) => (start, seen) = (held.len(), 0),
            }
        }
        held.drain(..start);
        seen = held.len();
    }
}

fn requests(bytes: &[u8], piece: usize) -> usize {
    let rules = UpgradeRules::default();
    let deflate = Deflate { mode: DeflateMode::Takeover, ..Deflate::default() };
    let limits = HeadLimits { request_line_bytes: 8192, head_bytes: 16384 };
    assemble(bytes, piece, |bytes, seen| {
        let end = http::head_end(bytes, seen);
        http::check_beginning(&bytes[..end.unwrap_or(bytes.len())], seen, &limits).map_err(drop)?;
        let Some(end) = end else { return Ok(None) };
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let request = http::parse(&bytes[..end], &mut headers, Peer::UNIX).map_err(drop)?;
        let _ = (request.keeps_alive(), request.has_content(), upgrade::accept(&request, &rules, &deflate).is_ok());
        Ok(Some(end))
    });
    0
}

fn content(bytes: &[u8], piece: usize) -> usize {
    let (mut content, mut out) = (chunked(), Vec::new());
    for piece in bytes.chunks(piece) {
        let mut used = 0;
        while used < piece.len() {
            match content.take(&piece[used..], &mut out) {
                Ok((bytes, false)) => used += bytes,
                // The next one follows.
                Ok((bytes, true)) => (used, content, out) = (used + bytes, chunked(), Vec::new()),
                Err(_) => return 0,
            }
        }
    }
    0
}

fn chunked() -> Content {
    Content::new(Framing::Chunked, 1 << 20, 16 << 10).expect("no length")
}

/// Takes all content, and answers nothing worth mentioning.
struct Sink;

impl App for Sink {
    type State = ();

    fn takes_content(&self, _: &Request<'_>) -> usize {
        usize::MAX
    }

    fn on_request(&mut self, _: &Request<'_>, _: &mut Outbox) -> Option<Response> {
        Some(Response::new(204))
    }

    fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}

    fn on_message(&mut self, _: ConnectionId, (): &mut (), _: Message<'_>, _: &mut Outbox) {}
}

/// The same as it is read from a socket: a request for each.
fn request_with_content(bytes: &[u8], piece: usize) -> usize {
    let mut sessions = Sessions::new(Sink, Settings::default(), Log::new(None), 0, [0; 32]);
    let key = sessions.accept(Peer::UNIX).expect("room for a connection");
    sessions.receive(key, &mut b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
    let mut bytes = bytes.to_vec();
    for piece in bytes.chunks_mut(piece) {
        sessions.receive(key, piece);
    }
    0
}

fn answers(bytes: &[u8], piece: usize) -> usize {
    let offer = Offer {
        target: "/".into(),
        host: "h".into(),
        subprotocols: vec!["a".into()],
        deflate: DeflateMode::Takeover,
        headers: Vec::new(),
    };
    let handshake = ClientHandshake::new(offer, *b"the sample nonce");
    assemble(bytes, piece, |bytes, seen| match handshake.read(bytes, seen) {
        Ok(Some(opened)) => Ok(Some(opened.head_bytes)),
        Ok(None) if bytes.len() <= 16384 => Ok(None),
        Ok(None) | Err(_) => Err(()),
    });
    0
}

fn proxy_headers(bytes: &[u8], piece: usize) -> usize {
    assemble(bytes, piece, |bytes, _| match proxy_header::read(bytes) {
        Ok(header) => Ok(header.map(|header| header.bytes)),
        Err(_) => Err(()),
    });
    0
}

fn forwarded_addresses(bytes: &[u8], _: usize) -> usize {
    let trusted = vec!["0.0.0.0/0".parse().expect("a network"), "unix".parse().expect("a network")];
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let rules = ProxyRules { trusted: trusted.clone(), header, ..ProxyRules::default() };
        forwarded::client(Peer::UNIX, bytes.split(|byte| *byte == b'\n'), &rules);
    }
    0
}

fn extensions(bytes: &[u8], _: usize) -> usize {
    let values = text(bytes);
    let _ = extension::negotiate(values.lines(), DeflateMode::Takeover, 15);
    let _ = extension::accept(values.lines(), DeflateMode::Takeover);
    0
}

fn ticker(bytes: &[u8], _: usize) -> usize {
    let _ = Wire::read(text(bytes));
    0
}

/// A message to the chat, and what it answers.
fn chat(bytes: &[u8], _: usize) -> usize {
    let upgrade = UpgradeRules { paths: vec![chat::PATH.into()], ..UpgradeRules::default() };
    let settings = Settings { upgrade, ..Settings::default() };
    let mut sessions = Sessions::new(Chat::new([0; 32]), settings, Log::new(None), 0, [0; 32]);
    let key = sessions.accept(Peer::UNIX).expect("room for a connection");
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        chat::PATH
    );
    sessions.receive(key, &mut request.into_bytes());
    let text = text(bytes);
    let mut frame = [0; MAX_HEADER_BYTES];
    let header = frame::encode(&mut frame, Kind::Text.opcode(), false, text.len(), Some([0; 4]));
    sessions.receive(key, &mut [&frame[..header], text.as_bytes()].concat());
    assert_eq!(sessions.stats().messages_in(), 1, "it was given to the app");
    0
}

/// Commands to channels, and what is published by them made fit to be passed on.
fn commands(bytes: &[u8], _: usize) -> usize {
    for line in text(bytes).split('\n') {
        if let Ok(Command { method: Some(Method::Publish { data: Data(Some(data)), .. }), .. }) = command::read(line) {
            let _ = in_one_line(data);
        }
    }
    0
}

const PARTICIPANT: Participant = Participant { slot: 0, generation: 1 };

fn presence(bytes: &[u8], _: usize) -> usize {
    let mut presence = Presence::default();
    for record in Records::from_bytes(bytes.to_vec()).iter() {
        presence.apply(PARTICIPANT, record, |_| {});
    }
    0
}

fn participants_list(bytes: &[u8], _: usize) -> usize {
    list::read([&list::header(1), bytes].concat(), PARTICIPANT);
    0
}

fn replies(bytes: &[u8], piece: usize) -> usize {
    let mut replies = Replies::new(256);
    for piece in bytes.chunks(piece) {
        replies.feed(piece);
        while let Ok(Some(reply)) = replies.next_reply() {
            drop(reply);
        }
        if replies.next_reply().is_err() {
            return 0;
        }
    }
    let _ = wire::read(bytes);
    0
}
