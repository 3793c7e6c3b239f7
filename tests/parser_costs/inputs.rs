//! What an adversary would send to each parser: much work for few bytes.

use percore::internal::protocol::deflate::{Deflater, Output};
use percore::internal::pubsub::history::entry::{self, Entry};
use percore::{RecordKind, Records};

/// Input of any length.
pub enum Input {
    /// A beginning, something again and again, and an end.
    Repeat(&'static [u8], &'static [u8], &'static [u8]),
    /// Something that differs from one time to the next, between a beginning and an end.
    Count(&'static str, fn(usize) -> String, &'static str),
    /// Made to measure.
    Made(fn(usize) -> Vec<u8>),
}

impl Input {
    /// About so many bytes of it, and not more, unless it has to be longer.
    pub fn bytes(&self, length: usize) -> Vec<u8> {
        match self {
            Input::Repeat(begin, unit, end) => {
                let times = length.saturating_sub(begin.len() + end.len()) / unit.len();
                [begin, &unit.repeat(times)[..], end].concat()
            }
            Input::Count(begin, unit, end) => {
                let mut text = (*begin).to_owned();
                let mut n = 0;
                while text.len() < length {
                    text.push_str(&unit(n));
                    n += 1;
                }
                (text + end).into_bytes()
            }
            Input::Made(make) => make(length),
        }
    }
}

use Input::{Count, Made, Repeat};

pub const PLAIN: &[Input] = &[
    Repeat(b"", b"\0", b""),
    Repeat(b"", b"abc", b""),
    Count("", |n| format!("{{\"symbol\":\"S{}\",\"price\":{n}}},", n % 100), ""),
    Made(noise),
];

pub const DEFLATED: &[Input] = &[
    // Final blocks, and others, with nothing in them: of fixed codes and stored.
    Repeat(b"", &[3, 0], b""),
    Repeat(b"", &[0, 0, 0, 0xff, 0xff], b""),
    Repeat(b"", &[0x02, 0x08, 0x20, 0x80, 0], b""),
    Made(|length| blocks_with_tables(length, 0)),
    // As many of them as the bytes between them allow.
    Made(|length| blocks_with_tables(length, 512 / 258 + 1)),
    Made(|length| packed(&vec![0; 100 * length], length)),
    Made(|length| packed(&noise(length), length)),
];

pub const CHUNKS: &[Input] = &[
    // Chunks of one byte, plain, with zeros and with extensions; one long chunk; sizes, extensions and trailers without end.
    Repeat(b"", b"1\r\nx\r\n", b"0\r\n\r\n"),
    Repeat(b"", b"0000000000000001\r\nx\r\n", b"0\r\n\r\n"),
    Repeat(b"", b"1;a=\"bcdefghi\"\r\nx\r\n", b"0\r\n\r\n"),
    Repeat(b"fffff\r\n", b"x", b""),
    Repeat(b"", b"0", b""),
    Repeat(b"1;", b"e", b""),
    Repeat(b"0\r\n", b"A: b\r\n", b"\r\n"),
    // A new body after each: nothing is left of those before.
    Repeat(b"", b"2\r\nhi\r\n0\r\n\r\n", b""),
];

/// Of an application, for `/sr` and for batches.
pub const OUTGOING: &[Input] = &[
    // Ids of no bytes and of few, as text and as numbers; messages with none; depth; numbers without end.
    Repeat(br#"{"OutgoingWebSocketMessages":[{"Message":{"Text":"x"},"ConnectionIds":["#, br#""","#, br#"""]}]}"#),
    Repeat(br#"{"OutgoingWebSocketMessages":[{"Message":{"Text":"x"},"ConnectionIds":["#, b"[],", b"[]]}]}"),
    Repeat(br#"{"OutgoingWebSocketMessages":[{"Message":{"Text":"x"},"ConnectionIds":[["#, b"1,", b"1]]}]}"),
    Repeat(br#"{"OutgoingWebSocketMessages":["#, b"{},", b"{}]}"),
    Repeat(br#"{"OutgoingWebSocketMessages":["#, br#"{"ConnectionIds":["AAAA"],"Message":{"Text":""}},"#, b"{}]}"),
    Repeat(b"{\"x\":", b"[", b""),
    Repeat(b"{\"x\":[", b"0,", b"0]}"),
    Repeat(br#"{"message":{"text":"x"},"ids":["#, br#""","#, br#"""]}"#),
    Repeat(br#"{"message":{"binary":""#, b"AAAA", br#""},"ids":["AAAA"]}"#),
    Count("{", |n| format!("\"{n}\":{n},"), "\"ids\":[]}"),
];

pub const FRAMES: &[Input] = &[
    // Messages and fragments of one byte and of none, Pings between them.
    Repeat(b"", &[0x82, 0x81, 0, 0, 0, 0, 1], b""),
    Repeat(b"", &[0x81, 0x80, 0, 0, 0, 0], b""),
    Repeat(&[0x01, 0x80, 0, 0, 0, 0], &[0, 0x81, 0, 0, 0, 0, b'x'], b""),
    Repeat(&[0x01, 0x80, 0, 0, 0, 0], &[0, 0x80, 0, 0, 0, 0], b""),
    Repeat(&[0x02, 0x80, 0, 0, 0, 0], &[0, 0x81, 0, 0, 0, 0, 1, 0x89, 0x81, 0, 0, 0, 0, 2], b""),
    Repeat(b"", &[0x89, 0x80, 0, 0, 0, 0], b""),
    // Compressed messages with next to nothing in them.
    Repeat(b"", &[0xc1, 0x81, 0, 0, 0, 0, 0], b""),
    Repeat(b"", &[0xc2, 0x84, 0, 0, 0, 0, 3, 0, 3, 0], b""),
    // Two bytes, over and over, in fragments: UTF-8 that is cut within a character.
    Repeat(&[0x01, 0x80, 0, 0, 0, 0], &[0, 0x81, 0, 0, 0, 0, 0xc3, 0, 0x81, 0, 0, 0, 0, 0xa4], b""),
    // A megabyte that never comes.
    Repeat(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0], b"x", b""),
    Repeat(&[0x01, 0xff, 0, 0, 0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0], b"x", b""),
];

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

pub const REQUESTS: &[Input] = &[
    Repeat(b"", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b""),
    Repeat(b"", UPGRADE, b""),
    // Lines as long as they may be, with headers after them and without.
    Repeat(b"GET /", b"a", b""),
    Made(|length| {
        [b"GET /", &vec![b'a'; 8000][..], b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat().repeat(1 + length / 8000)
    }),
    Made(|length| [b"GET /", &vec![b'a'; 8000][..], b" HTTP/1.1\r\nA: ", &vec![b'a'; length]].concat()),
    Repeat(b"GET / HTTP/1.1\r\n", b"a:\r\n", b"\r\n"),
    Repeat(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: ", b",", b"\r\n\r\n"),
    Repeat(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: ", b"0,", b"\r\n\r\n"),
    Repeat(b"GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Protocol: ", b"a,", b"\r\n\r\n"),
    Repeat(b"GET / HTTP/1.1", b"\r", b""),
    Repeat(b"GET / HTTP/1.1\r\nA: ", b"\xff", b""),
];

pub const ANSWERS: &[Input] = &[
    Repeat(b"HTTP/1.1 101 ", b"a", b""),
    Repeat(b"HTTP/1.1 101 Yes\r\nA: ", b"a", b""),
    Repeat(b"HTTP/1.1 101 Yes\r\n", b"a:\r\n", b""),
    Repeat(b"", b"HTTP/1.1 101 \r\n\r\n", b""),
    Repeat(b"HTTP/1.1 101 Yes\r\nUpgrade: ", b",", b"\r\n\r\n"),
];

pub const PROXY_HEADERS: &[Input] = &[
    Repeat(b"", b"PROXY UNKNOWN\r\n", b""),
    Repeat(b"", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b""),
    Repeat(b"PROXY UNKNOWN", b" ", b""),
    Repeat(b"", b"PROXY UNKNOWN                                                                     \r\n", b""),
    // Version 2, with as much in it as may be.
    Made(|length| [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x3f\x00", &vec![7; 0x3f00][..]].concat().repeat(1 + length / 0x4000)),
    Repeat(b"", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", b""),
];

pub const ADDRESSES: &[Input] = &[
    Repeat(b"", b"1.2.3.4,", b""),
    Repeat(b"", b"1.2.3.4\n", b""),
    Repeat(b"", b"1:", b""),
    Repeat(b"", b"\"", b""),
    Repeat(b"\"", b",", b""),
    Repeat(b"", b"for=1.2.3.4,", b""),
    Repeat(b"for=1.2.3.4", b";a=b", b""),
    Repeat(b"for=\"", b"1.2.3.4;", b""),
];

pub const EXTENSIONS: &[Input] = &[
    Repeat(b"", b",", b""),
    Repeat(b"permessage-deflate", b";", b""),
    Repeat(b"", b"permessage-deflate; x,", b""),
    Repeat(b"", b"permessage-deflate; server_max_window_bits=8,", b""),
    Repeat(b"", b"permessage-deflate; server_max_window_bits=8; client_max_window_bits\n", b""),
    Repeat(b"permessage-deflate; server_max_window_bits=", b"1", b""),
];

pub const TICKER: &[Input] = &[
    Repeat(b"", b"x", b""),
    Repeat(b"Ping:", b"[", b""),
    Repeat(b"Ping:[", b"0,", b"0]"),
    Repeat(b"Ping:[", b"[0],", b"0]"),
    Repeat(b"Ping:[", b"{\"\":0},", b"0]"),
    Repeat(b"Ping:[", b"\"\",", b"0]"),
    Count("Ping:{", |n| format!("\"{n:x}\":0,"), "\"\":0}"),
    Repeat(b"Ping:{", b"\"Sequence\":1,", b"\"\":0}"),
    Repeat(b"Ping:\"", b"\\u0041", b"\""),
    Repeat(b"Ping:", b"1", b""),
    Repeat(b"Ping:{\"Sequence\":", b"1", b"}"),
    Repeat(br#"TickerRequest:{"Id":"a","Tickers":["#, b"\"\",", br#"""]}"#),
    Repeat(br#"TickerRequest:{"Id":"a","Tickers":["#, b"[[[[[[0]]]]]],", br#"""]}"#),
    Repeat(br#"TickerChange:{"Changes":["#, b"{},", b"{}]}"),
    Repeat(br#"TickerChange:{"Changes":["#, br#"{"Symbol":"","UpdateTime":0,"Price":0},"#, b"{}]}"),
];

pub const CHAT: &[Input] = &[
    Repeat(b"", b"x", b""),
    Repeat(b"", b"[", b""),
    Repeat(b"{\"a\":", b"{\"a\":", b"0"),
    Count("{", |n| format!("\"{n:x}\":0,"), "\"\":0}"),
    Count("{\"message\":{", |n| format!("\"{n:x}\":0,"), "\"\":0}}"),
    Count(r#"{"channel":"chat","message":{"type":"x","contents":{"#, |n| format!("\"{n:x}\":0,"), "\"\":0}}}"),
    Repeat(br#"{"channel":"chat","message":{"type":""#, b"x", b"\"}}"),
    Repeat(br#"{"channel":""#, b"\\n", br#"","message":{"type":"x"}}"#),
    Repeat(br#"{"channel":"chat","message":{"type":"SubmitMessage","contents":""#, b"\\u0001", b"\"}}"),
    Repeat(br#"{"channel":"chat-room","message":{"type":"JoinRoom","contents":{"room":""#, b"x", b"\"}}}"),
    Repeat(b"{\"message\":", b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]],", b"0}"),
];

/// Publications without a text, workers that asked something, and an entry that says it is long.
pub const HISTORY: &[Input] = &[
    Repeat(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 12], b""),
    Repeat(&[1, 0, 0, 0, 0, 0, 0, 0, 0], &[0xff; 16], b""),
    Repeat(&[0xff; 4], &[7], b""),
    Made(|length| entry::frame(0, 0, &Entry::Removed { channel: &"x".repeat(length) }.payload())),
];

pub const COMMANDS: &[Input] = &[
    Repeat(b"", b"{}\n", b""),
    Repeat(b"", b"\n", b""),
    Repeat(b"", b"{\"id\":1,\"rpc\":{}}\n", b""),
    Repeat(b"{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":", b"[", b"}}"),
    Repeat(b"{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":[", b"[\r\r\r\r],", b"0]}}"),
    Repeat(b"{\"id\":1,\"publish\":{\"channel\":\"", b"\\u0001", b"\",\"data\":0}}"),
    Count("{\"id\":1,\"connect\":{\"subs\":{", |n| format!("\"{n:x}\":{{}},"), "\"\":{}}}}"),
    Count("{", |n| format!("\"{n:x}\":0,"), "\"\":0}"),
    Repeat(b"{\"id\":1,\"connect\":{\"token\":\"", b"\\n", b"\"}}"),
];

pub const RECORDS: &[Input] = &[
    Made(|length| records(length, |n, all| all.push(RecordKind::Enter, &short(n), &[]))),
    Made(|length| records(length, |n, all| all.push(RecordKind::Enter, b"", &[name(n).as_bytes()]))),
    Made(|length| records(length, |n, all| all.push(RecordKind::Count, &short(n), &[&[1, 0, 0, 0, 0]]))),
    Made(|length| records(length, |_, all| all.push(RecordKind::Leave, b"", &[]))),
    Made(|length| {
        let kinds = [RecordKind::Enter, RecordKind::Leave];
        records(length, |n, all| all.push(kinds[n % 2], b"a", &[b"b"]))
    }),
    Repeat(b"", &[0], b""),
    // A record that is longer than all that follows.
    Repeat(&[4, 0, 0, 0xff, 0xff, 0xff, 0xff], b"x", b""),
];

pub const REPLIES: &[Input] = &[
    Repeat(b"", b"+\r\n", b""),
    Repeat(b"", b":1\r\n", b""),
    Repeat(b"", b"*0\r\n", b""),
    Repeat(b"", b"*1\r\n:1\r\n", b""),
    Repeat(b"*1024\r\n", b":1\r\n", b""),
    Repeat(b"", b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", b""),
    Repeat(b"+", b"x", b""),
    Repeat(b"", b"$0\r\n\r\n", b""),
    Repeat(b"", b"$-1\r\n", b""),
    Repeat(b"$200\r\n", b"x", b""),
    Repeat(b"$99999999\r\n", b"x", b""),
    Made(|length| [b"$300\r\n", &[b'x'; 300][..], b"\r\n"].concat().repeat(1 + length / 300)),
];

/// Bytes that do not shrink.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The beginning of what `bytes` are compressed to.
fn packed(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut out = Output::new();
    Deflater::new(1, 15, false).deflate(&[bytes], &mut out);
    out[..out.len().min(length)].to_vec()
}

/// Blocks of which each has its own code, in which one literal and a match of 258 bytes take a bit and two: the code's
/// tables take time to build, whatever follows. `matches` of these follow in each.
fn blocks_with_tables(length: usize, matches: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    while bits.bytes.len() < length {
        bits.put(0b100, 3);
        // 286 codes for literals and lengths, one for distances, 18 lengths of the codes for these lengths.
        [(29, 5), (0, 5), (14, 4)].into_iter().for_each(|(value, count)| bits.put(value, count));
        // In the order of RFC 1951, section 3.2.7: 18 (zeros) and 1 and 2, of 1, 2 and 2 bits.
        let lengths = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2];
        lengths.into_iter().for_each(|length| bits.put(length, 3));
        let (zeros, one, two) = ((0, 1), (0b01, 2), (0b11, 2));
        // Literal 0: 2 bits; 256, the end: 2 bits; 285, a match of 258: 1 bit. The one distance: 1 bit.
        let run = |count: u32, bits: &mut Bits| {
            bits.put(zeros.0, zeros.1);
            bits.put(count - 11, 7);
        };
        bits.put(two.0, two.1);
        run(138, &mut bits);
        run(117, &mut bits);
        bits.put(two.0, two.1);
        run(28, &mut bits);
        bits.put(one.0, one.1);
        bits.put(one.0, one.1);
        // The literal, then matches of what is one byte back, then the end.
        bits.put(0b01, 2);
        (0..matches).for_each(|_| bits.put(0, 2));
        bits.put(0b11, 2);
    }
    bits.bytes
}

/// Bits, the first in the lowest place.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    open: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        self.open |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.open as u8);
            (self.open, self.count) = (self.open >> 8, self.count - 8);
        }
    }
}

fn records(length: usize, push: impl Fn(usize, &mut Records)) -> Vec<u8> {
    let mut all = Records::new();
    (0..)
        .take_while(|n| {
            push(*n, &mut all);
            all.bytes().len() < length
        })
        .for_each(drop);
    all.bytes().to_vec()
}

/// The shortest names that differ.
fn short(n: usize) -> Vec<u8> {
    let bytes = n.to_le_bytes();
    bytes[..2].to_vec()
}

fn name(n: usize) -> String {
    format!("{n:x}")
}
