//! One simulated client: a plan of what it does, and a judgement on all it hears.

use super::address::Who;
use super::probe::{ASKED, KICKED, PUSHED, content};
use super::random::Random;
use super::wire::{BINARY, CLOSE, COMPRESSED, Deflate, Ear, FINAL, Heard, PING, PONG, TEXT, frame};
use percore::{Peer, Settings};
use std::collections::VecDeque;
use std::time::Duration;

/// Messages longer than this are a violation; the simulation's settings say the same.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// The same of the content of a request.
pub const MAX_CONTENT: usize = 5_000;
/// At most this much later than without content a request has to be whole: a second for each KiB.
pub const CONTENT_TIME: Duration = Duration::from_secs(5);

/// What a client does next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// An ordinary request, which leaves the connection as it is.
    Request,
    /// A request, or what is none, after which the server ends the connection.
    LastRequest,
    /// A request with content.
    Post,
    /// Part of a request, or of its content, and nothing after it.
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
    /// Whether it speaks to a service listener.
    pub is_service: bool,
    /// Responses to come.
    statuses: VecDeque<Wanted>,
    /// Whether it has sent content.
    posts: bool,
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

/// A response that is to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wanted {
    status: u16,
    /// Where its request ends in what was sent.
    end: usize,
    /// Whether the app may put it off.
    is_put_off: bool,
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
    pub fn new(mut random: Random, who: Who, is_service: bool) -> Client {
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
            is_service,
            statuses: VecDeque::new(),
            posts: false,
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
                let [elsewhere, wrong] = if self.is_service { [404, 404] } else { [426, 405] };
                let service = if self.is_service { 200 } else { 404 };
                let requests = [
                    ("GET /healthz", 200),
                    ("GET /readyz", service),
                    ("GET /nowhere", 404),
                    ("GET /service", service),
                    ("GET /later", 200),
                    ("GET /ws?a=b", elsewhere),
                    ("POST /ws", wrong),
                ];
                let (line, status) = *self.random.pick(&requests);
                self.request(&format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"), status);
            }
            Step::LastRequest => self.last_request(),
            Step::Post => self.post(),
            Step::HalfRequest => {
                self.posts = true;
                let head = &b"POST /post?9 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"[..];
                let halves = [b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgra", head];
                self.outgoing.extend(*self.random.pick(&halves));
            }
            Step::Upgrade => {
                let extensions = self.offer.map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
                let head = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
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
        self.request_with(request, &[], status);
    }

    fn request_with(&mut self, request: &str, content: &[u8], status: u16) {
        self.outgoing.extend(request.as_bytes());
        self.outgoing.extend(content);
        let is_put_off = status == 101 || request.starts_with("GET /later");
        self.statuses.push_back(Wanted { status, end: self.outgoing.len(), is_put_off });
        self.ends.push(self.outgoing.len());
    }

    /// A request with content, by its length or in chunks.
    fn post(&mut self) {
        self.posts = true;
        let longest = *self.random.pick(&[20, 1_000, MAX_CONTENT]);
        let length = self.random.size(0, longest);
        let content = content(length);
        let expects = if self.random.one_in(3) { "Expect: 100-continue\r\n" } else { "" };
        let line = format!("POST /post?{length} HTTP/1.1\r\nHost: localhost\r\n{expects}");
        if self.random.one_in(2) {
            return self.request_with(&format!("{line}Content-Length: {length}\r\n\r\n"), &content, 200);
        }
        let (mut body, mut rest) = (Vec::new(), &content[..]);
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(self.random.size(1, rest.len().min(700)));
            body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            body.extend_from_slice(chunk);
            body.extend(b"\r\n");
            rest = after;
        }
        body.extend(if self.random.one_in(2) { &b"0\r\n\r\n"[..] } else { b"00;last\r\nX: y\r\n\r\n" });
        self.request_with(&format!("{line}Transfer-Encoding: chunked\r\n\r\n"), &body, 200);
    }

    fn last_request(&mut self) {
        self.said_last = true;
        let padding = "x".repeat(20_000);
        match self.random.between(0, 9) {
            0 => self.request("GET /healthz HTTP/1.0\r\n\r\n", 200),
            1 => self.request("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
            2 => self.request("\x16\x03\x01", 400),
            3 => self.request(&format!("GET /{padding} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 414),
            4 => self.request(&format!("GET /ws HTTP/1.1\r\nHost: localhost\r\nX: {padding}\r\n\r\n"), 431),
            5 => self.request("GET /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n", 413),
            6 => self.request("POST /post?5001 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5001\r\n\r\n", 413),
            7 => self.request("POST /post?1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx", 400),
            8 => self.request("POST /post?0 HTTP/1.1\r\nHost: localhost\r\nExpect: wonders\r\n\r\n", 417),
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

    /// How long the server may wait for what it sends next, or an answer take that is put off.
    pub fn patience(&self, settings: &Settings) -> Duration {
        let put_off = self.statuses.iter().any(|wanted| wanted.is_put_off);
        let answer = if put_off { settings.answer_timeout } else { Duration::ZERO };
        // The head has its time, and then the content.
        let content = if self.posts { settings.handshake_timeout + CONTENT_TIME } else { Duration::ZERO };
        settings.handshake_timeout + content + answer
    }

    /// Whether it asked for an upgrade, and has no answer.
    pub fn awaits_upgrade(&self) -> bool {
        self.statuses.iter().any(|wanted| wanted.status == 101)
    }

    /// Whether all it sent has come, and it sends no more.
    pub fn has_left(&self) -> bool {
        self.ends_stream && self.delivered == self.outgoing.len()
    }

    /// Bytes from the server. Returns whether a response was among them.
    pub fn hear(&mut self, bytes: &[u8], around: Circumstances) -> bool {
        self.ear.take(bytes);
        let before = self.statuses.len();
        while let Some(heard) = self.ear.next() {
            self.judge(heard, around);
        }
        self.statuses.len() < before
    }

    fn judge(&mut self, heard: Heard, around: Circumstances) {
        match heard {
            Heard::Continue => assert!(self.posts && !self.upgraded, "100 to nobody"),
            Heard::Status { status, is_last } => {
                assert!(!self.heard_last, "status {status} after the last response");
                self.heard_last = is_last;
                if status == 408 || (self.refused && matches!(status, 400 | 414 | 431)) {
                    return assert!(is_last, "status {status} is not the last");
                }
                let Wanted { status: wanted, is_put_off, .. } =
                    self.statuses.pop_front().unwrap_or_else(|| panic!("status {status} to no request"));
                let refused = is_put_off && (status == 504 || (status == 403 && wanted == 101));
                let elsewhere = self.is_service && wanted == 101 && status == 400;
                let busy = status == 503 && (around.draining || (wanted == 101 && around.full));
                let limited = status == 429 && wanted == 101 && around.limited && self.who.address.addr().is_some();
                let expected = status == wanted || busy || limited || refused || elsewhere;
                assert!(expected, "status {status} instead of {wanted}");
                self.refused |= wanted == 101;
                assert!(is_last || !self.said_last || !self.statuses.is_empty(), "status {status} is to be the last");
            }
            Heard::Upgraded(extensions) => {
                assert!(!self.is_service, "a service upgrades nothing");
                assert_eq!(self.statuses.pop_front().map(|wanted| wanted.status), Some(101));
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
        let unanswered = self.statuses.front().filter(|wanted| wanted.end <= self.delivered && !self.heard_last);
        // One that ends its stream does not wait for an upgrade.
        let unanswered = unanswered.filter(|wanted| wanted.status != 101 || !self.ends_stream);
        assert_eq!(unanswered, None, "a request was not answered");
    }
}

/// The life of a client, its last step first.
fn plan(random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..random.size(0, 3).saturating_sub(1) {
        steps.push(if random.one_in(3) { Step::Post } else { Step::Request });
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
