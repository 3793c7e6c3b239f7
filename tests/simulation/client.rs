//! One simulated client: a plan of what it does, and a judgement on all it hears.

use super::address::Who;
use super::probe::{ASKED, KICKED, PUSHED};
use super::random::Random;
use super::wire::{BINARY, CLOSE, COMPRESSED, Deflate, Ear, FINAL, Heard, PING, PONG, TEXT, frame};
use percore::Peer;
use std::collections::VecDeque;
use std::time::Duration;

/// Messages longer than this are a violation; the simulation's settings say the same.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// What a client does next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// An ordinary request, which leaves the connection as it is.
    Request,
    /// A request, or what is none, after which the server ends the connection.
    LastRequest,
    /// Part of a request, and nothing after it.
    HalfRequest,
    Upgrade,
    Messages(usize),
    Ping,
    Wait(Duration),
    StopReading,
    ReadAgain,
    /// Asks the app for a Close.
    AskClose,
    Violate,
    Close,
    EndStream,
    Reset,
}

pub struct Client {
    plan: Vec<Step>,
    pub who: Who,
    pub random: Random,
    /// Bytes on their way to the server, of which `delivered` have come there.
    pub outgoing: Vec<u8>,
    pub delivered: usize,
    /// Of these the PROXY header that they begin with.
    proxy_header: usize,
    /// The longest piece in which they come there.
    pub piece: usize,
    pub ends_stream: bool,
    pub reads: bool,
    /// Answers no Ping.
    mute: bool,
    /// Answers no Close.
    stubborn: bool,
    offer: Option<&'static str>,
    deflate: Option<Deflate>,
    ear: Ear,
    /// Statuses of responses to come, with the place in `outgoing` where each request ends.
    statuses: VecDeque<(u16, usize)>,
    /// Where requests end, and how many of these ends have come.
    ends: Vec<usize>,
    seen_ends: usize,
    expected: VecDeque<(u8, Vec<u8>)>,
    /// The code to which a violation leads.
    pub violation: Option<u16>,
    sent_close: bool,
    pub heard_close: Option<Option<u16>>,
    /// The last request was sent, after which the server ends the connection.
    said_last: bool,
    /// A response came after which nothing comes.
    pub heard_last: bool,
    pub upgraded: bool,
    /// An upgrade was answered by 503 or 429, so that frames sent ahead are no requests.
    refused: bool,
    pub pings: u64,
}

/// What the judgement of a client needs to know of the server.
#[derive(Clone, Copy)]
pub struct Circumstances {
    pub draining: bool,
    /// Messages may be left out of the echo.
    pub drops: bool,
    pub full: bool,
    /// Connections are limited for each address.
    pub limited: bool,
}

impl Client {
    pub fn new(mut random: Random, who: Who) -> Client {
        let offers = [
            None,
            None,
            None,
            Some("permessage-deflate"),
            Some("permessage-deflate; client_max_window_bits"),
            Some("permessage-deflate; server_no_context_takeover; client_max_window_bits=10"),
            Some("permessage-deflate; server_max_window_bits=9; client_no_context_takeover"),
        ];
        let piece = *random.pick(&[1, 3, 20, 300, 5_000, 200_000]);
        let (mute, stubborn, offer) = (random.one_in(8), random.one_in(8), *random.pick(&offers));
        let (plan, outgoing) = (plan(&mut random), who.proxy_header(&mut random));
        Client {
            plan,
            proxy_header: outgoing.len(),
            outgoing,
            who,
            random,
            delivered: 0,
            piece,
            ends_stream: false,
            reads: true,
            mute,
            stubborn,
            offer,
            deflate: None,
            ear: Ear::default(),
            statuses: VecDeque::new(),
            ends: Vec::new(),
            seen_ends: 0,
            expected: VecDeque::new(),
            violation: None,
            sent_close: false,
            heard_close: None,
            said_last: false,
            heard_last: false,
            upgraded: false,
            refused: false,
            pings: 0,
        }
    }

    /// The next step, already taken as far as it is bytes; `None` when the plan is at its end.
    pub fn step(&mut self) -> Option<Step> {
        let step = self.plan.pop()?;
        if self.sent_close || self.violation.is_some() || self.ends_stream {
            // Nothing is said any more, but a stream may still end.
            self.ends_stream |= matches!(step, Step::EndStream);
            return Some(step);
        }
        match step {
            Step::Request => {
                let requests = [("GET /healthz", 200), ("GET /nowhere", 404), ("GET /ws?a=b", 426), ("POST /ws", 405)];
                let (line, status) = *self.random.pick(&requests);
                self.request(&format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n"), status);
            }
            Step::LastRequest => self.last_request(),
            Step::HalfRequest => self.outgoing.extend(b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgra"),
            Step::Upgrade => {
                let extensions = self.offer.map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
                let head = "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                let forwarded = self.who.forwarded_for(&mut self.random);
                self.request(&format!("{head}{}{forwarded}\r\n", extensions.unwrap_or_default()), 101);
            }
            Step::Messages(count) => (0..count).for_each(|_| self.message()),
            Step::Ping => {
                let payload = self.random.bytes(9);
                self.send(FINAL | PING, &payload);
            }
            Step::AskClose => self.send(FINAL | TEXT, b"!"),
            Step::Violate => self.violate(),
            Step::Close => {
                let payload: &[u8] = if self.random.one_in(3) { b"" } else { b"\x03\xe8bye" };
                self.send_close(payload);
            }
            Step::EndStream => self.ends_stream = true,
            Step::Wait(_) | Step::StopReading | Step::ReadAgain | Step::Reset => {}
        }
        Some(step)
    }

    fn request(&mut self, request: &str, status: u16) {
        self.outgoing.extend(request.as_bytes());
        self.statuses.push_back((status, self.outgoing.len()));
        self.ends.push(self.outgoing.len());
    }

    fn last_request(&mut self) {
        self.said_last = true;
        let padding = "x".repeat(20_000);
        match self.random.between(0, 6) {
            0 => self.request("GET /healthz HTTP/1.0\r\n\r\n", 200),
            1 => self.request("GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 404),
            2 => self.request("\x16\x03\x01", 400),
            3 => self.request(&format!("GET /{padding} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
            4 => self.request(&format!("GET /ws HTTP/1.1\r\nHost: h\r\nX: {padding}\r\n\r\n"), 431),
            5 => self.request("GET /ws HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", 413),
            _ => self.request("GET /ws HTTP/1.1\r\n\r\n", 400),
        }
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        let mask = Some((self.random.next() as u32).to_ne_bytes());
        self.outgoing.extend(frame(first, payload, mask));
    }

    fn send_close(&mut self, payload: &[u8]) {
        self.send(FINAL | CLOSE, payload);
        self.sent_close = true;
    }

    fn message(&mut self) {
        let length = match self.random.between(0, 999) {
            0 => self.random.size(60_000, 140_000),
            1..=19 => self.random.size(2_000, 20_000),
            20..=99 => 0,
            _ => self.random.size(1, 300),
        };
        let opcode = if self.random.one_in(2) { TEXT } else { BINARY };
        let payload = match opcode {
            TEXT => self.random.text(length).into_bytes(),
            _ if self.random.one_in(3) => vec![7; length],
            _ => self.random.bytes(length),
        };
        let payload = if payload.first() == Some(&PUSHED) { vec![0] } else { payload };
        let compressed = self.random.one_in(3).then(|| self.deflate.as_mut().map(|way| way.compress(&payload)));
        let (bit, body) = match compressed.flatten() {
            Some(body) => (COMPRESSED, body),
            None => (0, payload.clone()),
        };
        self.fragments(opcode | bit, &body);
        self.expected.push_back((opcode, payload));
    }

    /// A message's frames, now and then with a Ping between them.
    fn fragments(&mut self, first: u8, body: &[u8]) {
        let (mut rest, mut first) = (body, first);
        while self.random.one_in(4) {
            let (piece, after) = rest.split_at(self.random.size(0, rest.len()));
            self.send(first, piece);
            (rest, first) = (after, 0);
            if self.random.one_in(3) {
                self.send(FINAL | PING, b"between");
            }
        }
        self.send(first | FINAL, rest);
    }

    fn violate(&mut self) {
        let long = (MAX_MESSAGE as u64 + 1).to_be_bytes();
        let announced = [&[0x82, 0xff], &long[..], &[0; 4]].concat();
        let mask = Some([1, 2, 3, 4]);
        let violations = [
            (frame(FINAL | TEXT, b"not masked", None), 1002),
            (frame(FINAL | TEXT | 0x20, b"reserved bit", mask), 1002),
            (frame(0x83, b"reserved opcode", mask), 1002),
            (frame(PING, b"fragmented", mask), 1002),
            (frame(FINAL | PING, &[0; 126], mask), 1002),
            (frame(FINAL, b"continues nothing", mask), 1002),
            ([frame(TEXT, b"a", mask), frame(FINAL | TEXT, b"b", mask)].concat(), 1002),
            (frame(FINAL | CLOSE, b"\x03", mask), 1002),
            (frame(FINAL | CLOSE, b"\x03\xed", mask), 1002),
            (frame(FINAL | CLOSE, b"\x03\xe8\xff", mask), 1007),
            (vec![0x82, 0xfe, 0, 5, 0, 0, 0, 0], 1002),
            (frame(FINAL | TEXT, b"\xc3(", mask), 1007),
            (frame(TEXT, b"\xed\xa0", mask), 1007),
            (announced, 1009),
        ];
        let (bytes, code) = self.random.pick(&violations).clone();
        self.outgoing.extend(bytes);
        let noise = self.random.size(0, 300);
        let noise = self.random.bytes(noise);
        self.outgoing.extend(noise);
        self.violation = Some(code);
    }

    /// Whether one more request has come whole since this was asked last.
    pub fn requests_delivered(&mut self) -> bool {
        let whole = self.ends.iter().filter(|end| **end <= self.delivered).count();
        std::mem::replace(&mut self.seen_ends, whole) < whole
    }

    /// Whose its connection is to the server, before it is open.
    pub fn counts_as(&self) -> Peer {
        self.who.counts_as(self.delivered >= self.proxy_header)
    }

    /// Bytes from the server.
    pub fn hear(&mut self, bytes: &[u8], around: Circumstances) {
        self.ear.take(bytes);
        while let Some(heard) = self.ear.next() {
            self.judge(heard, around);
        }
    }

    fn judge(&mut self, heard: Heard, around: Circumstances) {
        match heard {
            Heard::Status { status, is_last } => {
                assert!(!self.heard_last, "status {status} after the last response");
                self.heard_last = is_last;
                if status == 408 || (self.refused && matches!(status, 400 | 414 | 431)) {
                    return assert!(is_last, "status {status} is not the last");
                }
                let (wanted, _) = self.statuses.pop_front().unwrap_or_else(|| panic!("status {status} to no request"));
                let busy = status == 503 && (around.draining || (wanted == 101 && around.full));
                let limited = status == 429 && wanted == 101 && around.limited && self.who.address.addr().is_some();
                assert!(status == wanted || busy || limited, "status {status} instead of {wanted}");
                self.refused |= wanted == 101;
                assert!(is_last || !self.said_last || !self.statuses.is_empty(), "status {status} is to be the last");
            }
            Heard::Upgraded(extensions) => {
                assert_eq!(self.statuses.pop_front().map(|(status, _)| status), Some(101));
                assert!(extensions.is_none() || self.offer.is_some(), "compression that was not offered");
                self.upgraded = true;
                self.deflate = extensions.map(|agreed| {
                    let bits = agreed.split("client_max_window_bits=").nth(1);
                    let bits = bits.and_then(|rest| rest.split(';').next()?.trim().parse().ok()).unwrap_or(15);
                    Deflate::new(bits, !agreed.contains("client_no_context_takeover"))
                });
            }
            Heard::Message(_, payload) if payload.first() == Some(&PUSHED) => {}
            Heard::Message(opcode, payload) => loop {
                let (wanted, sent) = self.expected.pop_front().expect("an echo of nothing");
                if (wanted, &sent) == (opcode, &payload) {
                    break;
                }
                assert!(around.drops, "the echo of {} bytes came as one of {} bytes", sent.len(), payload.len());
            },
            Heard::Ping(payload) => {
                self.pings += 1;
                if !self.mute && !self.is_silent() {
                    self.send(FINAL | PONG, &payload);
                }
            }
            Heard::Pong(_) => {}
            Heard::Close(code) => self.judge_close(code, around),
        }
    }

    fn judge_close(&mut self, code: Option<u16>, around: Circumstances) {
        let told = matches!(code, Some(KICKED | ASKED | 1011)) || (code == Some(1001) && around.draining);
        if !told {
            assert!(around.drops || self.expected.is_empty(), "closed before {} echoes", self.expected.len());
            match self.violation {
                Some(violation) => assert_eq!(code, Some(violation)),
                None => assert!(self.sent_close && matches!(code, None | Some(1000)), "closed with {code:?}"),
            }
        }
        self.heard_close = Some(code);
        if !self.stubborn && !self.is_silent() {
            self.send_close(&code.unwrap_or(1000).to_be_bytes());
        }
    }

    fn is_silent(&self) -> bool {
        self.sent_close || self.violation.is_some() || self.ends_stream
    }

    /// What must hold when the server ends a connection whose socket took all that was written.
    pub fn judge_end(&self) {
        assert!(!self.ear.is_within_something(), "the stream ends within a response or a frame");
        let unanswered = self.statuses.front().filter(|(_, end)| *end <= self.delivered && !self.heard_last);
        assert_eq!(unanswered, None, "a request was not answered");
    }
}

/// The life of a client, its last step first.
fn plan(random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..random.size(0, 3).saturating_sub(1) {
        steps.push(Step::Request);
    }
    match random.between(0, 19) {
        0 => steps.push(Step::HalfRequest),
        1 | 2 => steps.push(Step::LastRequest),
        3 => {}
        _ => {
            steps.push(Step::Upgrade);
            let patience = *random.pick(&[20, 2_000, 60_000, 600_000]);
            for _ in 0..random.size(0, 12) {
                steps.push(match random.between(0, 19) {
                    0..=7 => Step::Messages(random.size(1, 5)),
                    8 => Step::Messages(random.size(20, 200)),
                    9 | 10 => Step::Ping,
                    11 => Step::StopReading,
                    12 => Step::ReadAgain,
                    _ => Step::Wait(random.millis(0, patience)),
                });
            }
        }
    }
    let frames = steps.iter().any(|step| matches!(step, Step::Upgrade));
    for _ in 0..random.size(0, 2) {
        steps.push(match random.between(0, 9) {
            0 if frames => Step::AskClose,
            1 if frames => Step::Violate,
            2..=6 if frames => Step::Close,
            7 => Step::Reset,
            _ => Step::EndStream,
        });
    }
    steps.reverse();
    steps
}
