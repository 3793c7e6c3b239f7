//! Requests with content, answers that come later, and pauses, without a socket: at any split, and at any time.

mod common;

use common::client::{TEXT, frame, upgrade_request};
use common::desk::Desk;
use percore::data::memory::MemoryKind;
use percore::session::{Fate, Sessions};
use percore::{Log, Peer, Response, SendRules, Settings, Upgrade};
use proptest::prelude::*;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Sessions, and one connection.
struct One {
    sessions: Sessions<Desk>,
    key: u32,
    heard: Vec<u8>,
    now: Duration,
}

impl One {
    fn new(settings: Settings) -> One {
        let mut sessions = Sessions::new(Desk::default(), settings, Log::new(None), 0, [0; 32]);
        let key = sessions.accept(Peer::UNIX).expect("a place");
        One { sessions, key, heard: Vec::new(), now: Duration::ZERO }
    }

    /// A loop's way with what was read: what is not used up when it is not to be read on is kept.
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let mut bytes = bytes.as_ref().to_vec();
        let mut left = &mut bytes[..];
        self.go_on();
        while !left.is_empty() {
            let used = self.sessions.step(self.key, left);
            left = &mut left[used..];
            if !self.sessions.wants_read(self.key) {
                self.sessions.keep(self.key, left);
                break;
            }
        }
        self.write();
    }

    /// Works on what was kept, as long as it may.
    fn go_on(&mut self) {
        while self.sessions.has_rest(self.key) && self.sessions.wants_read(self.key) {
            self.sessions.resume(self.key);
        }
    }

    fn write(&mut self) {
        while let Some(key) = self.sessions.queue().next_dirty() {
            let queue = self.sessions.queue();
            let bytes = queue.single(key).expect("one piece").to_vec();
            queue.sent(key, bytes.len(), false);
            self.heard.extend(bytes);
        }
        self.sessions.queue().end_flush();
    }

    /// A pass of the loop after so much time.
    fn pass(&mut self, later: Duration) {
        self.now += later;
        self.sessions.begin_pass(self.now);
        self.sessions.expire();
        let mut resumed = Vec::new();
        self.sessions.take_resumed(&mut resumed);
        self.go_on();
        self.write();
        self.sessions.end_pass(|_, _| {});
        self.write();
    }

    /// Has the app do something, between two passes.
    fn app<T>(&mut self, what: impl FnOnce(&mut Desk, &mut percore::Outbox) -> T) -> T {
        let result = what(&mut self.sessions.app, &mut self.sessions.outbox);
        self.pass(Duration::ZERO);
        result
    }

    fn is_there(&self) -> bool {
        self.sessions.generation(self.key).is_some()
    }

    /// The responses so far: status and content.
    fn responses(&self) -> Vec<(u16, String)> {
        let text = String::from_utf8_lossy(&self.heard);
        let mut rest = &text[..];
        let mut responses = Vec::new();
        while let Some(after) = rest.strip_prefix("HTTP/1.1 ") {
            let (head, body) = after.split_once("\r\n\r\n").expect("a whole head");
            let status = head[..3].parse().expect("a status");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length = length.map_or(0, |length| length.parse().expect("a length"));
            responses.push((status, body[..length].to_owned()));
            rest = &body[length..];
            if status == 101 {
                break;
            }
        }
        responses
    }

    fn statuses(&self) -> Vec<u16> {
        self.responses().into_iter().map(|(status, _)| status).collect()
    }

    fn of(&self, kind: MemoryKind) -> usize {
        self.sessions.memory().of(kind)
    }
}

fn post(path: &str, content: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{content}", content.len())
}

fn chunked(path: &str, chunks: &[&str]) -> String {
    let mut text = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in chunks {
        text += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
    }
    text + "0\r\n\r\n"
}

/// One after another, each with content of its own or without.
fn pipelined() -> String {
    let get = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    let parts = [
        &post("/echo", "one"),
        get,
        &chunked("/echo", &["t", "w", "o"]),
        &post("/echo", ""),
        &chunked("/echo", &[]),
        "\r\n",
        &post("/short", "0123456789"),
        &chunked("/short", &["01234", "56789"]),
        &post("/later", "put off"),
        &post("/echo", "behind it"),
        get,
    ];
    parts.concat()
}

fn answers() -> Vec<(u16, String)> {
    let contents = ["one", "ok\n", "two", "", "", "0123456789", "0123456789", "at once\n", "behind it", "ok\n"];
    contents.map(|content| (200, content.to_owned())).into()
}

#[test]
fn every_split_of_requests_with_content_has_the_same_answers() {
    let text = pipelined();
    for cut in 0..=text.len() {
        let mut one = One::new(Settings::default());
        one.sessions.app.at_once = true;
        let (first, second) = text.split_at(cut);
        one.send(first);
        one.pass(Duration::ZERO);
        one.send(second);
        one.pass(Duration::ZERO);
        assert_eq!(one.responses(), answers(), "cut at {cut}");
        assert!(one.is_there());
        let kept = [MemoryKind::Input, MemoryKind::Content].map(|kind| one.of(kind));
        assert_eq!(kept, [0, 0], "kept after all was answered");
    }
}

proptest! {
    #[test]
    fn any_pieces_of_requests_with_content_have_the_same_answers(pieces in prop::collection::vec(1usize..40, 1..200)) {
        let text = pipelined();
        let mut one = One::new(Settings::default());
        one.sessions.app.at_once = true;
        let mut rest = text.as_str();
        for piece in pieces.into_iter().cycle() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            one.send(now);
            one.pass(Duration::ZERO);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(one.responses(), answers());
    }
}

#[test]
fn content_is_counted_as_it_comes_and_given_back() {
    let mut one = One::new(Settings::default());
    one.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
    assert!(one.of(MemoryKind::Content) < 1000, "{} bytes for a promise", one.of(MemoryKind::Content));
    for sent in (10_000..1_000_000).step_by(10_000) {
        one.send("x".repeat(10_000));
        let held = one.of(MemoryKind::Content);
        assert!((sent..2 * sent + 1000).contains(&held) && held < 1_001_000, "{held} bytes for {sent}");
    }
    one.send("x".repeat(10_000));
    assert_eq!(one.statuses(), [200]);
    assert_eq!(one.of(MemoryKind::Content), 0);
    one.send("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe");
    assert!(one.of(MemoryKind::Content) > 0);
    let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    one.sessions.socket_error(one.key, &error);
    assert_eq!(one.of(MemoryKind::Content), 0, "of a client that is gone");
}

#[test]
fn content_that_takes_all_memory_is_not_kept() {
    let mut one = One::new(Settings { max_memory: 300_000, ..Settings::default() });
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(one.sessions.accept(Peer::UNIX).expect("a place"));
    }
    for key in others {
        let mut head = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n".to_vec();
        head.extend(vec![b'x'; 60_000]);
        one.sessions.receive(key, &mut head);
        one.sessions.bound_memory();
        assert!(one.sessions.memory().total() <= 300_000);
    }
    assert!(one.sessions.stats().memory_closed > 0);
}

/// What they cost is counted by `parser_costs`.
#[test]
fn ten_thousand_chunks_of_one_byte_are_content_like_any_other() {
    let text = chunked("/echo", &["x"; 10_000]);
    let mut one = One::new(Settings::default());
    text.as_bytes().chunks(1000).for_each(|piece| one.send(piece));
    assert_eq!(one.responses(), [(200, "x".repeat(10_000))]);
}

#[test]
fn statuses_of_content() {
    let settings = || Settings { max_content: 100, ..Settings::default() };
    let long = "x".repeat(101);
    let with = |head: &str| format!("POST /echo HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n");
    for (request, status, ends) in [
        (post("/echo", &long[..100]), 200, false),
        (post("/echo", &long), 413, true),
        (with("Content-Length: 99999999999999999999999999"), 413, true),
        (chunked("/echo", &[&long]), 413, true),
        (chunked("/echo", &[&long[..60], &long[..60]]), 413, true),
        (post("/short", "0123456789"), 200, false),
        (post("/short", "0123456789x"), 413, true),
        (chunked("/short", &["0123456789", "x"]), 413, true),
        (with("Transfer-Encoding: chunked\r\n\r\nx"), 400, true),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 3"), 400, true),
        (with("Content-Length: 3\r\nContent-Length: 4"), 400, true),
        (with("Transfer-Encoding: gzip, chunked"), 501, true),
        (with("Content-Length: 3\r\nExpect: miracles"), 417, true),
        (with("Expect: miracles"), 417, true),
        (with("Expect: 100-continue"), 200, false),
        // Without a length there is no content (RFC 9112, section 6.3) but perhaps of HTTP/1.0.
        (with("Content-Type: text/plain"), 200, false),
        ("POST /echo HTTP/1.0\r\n\r\nhello".to_owned(), 411, true),
        ("POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi".to_owned(), 200, true),
        ("POST /ws HTTP/1.0\r\n\r\n".to_owned(), 405, true),
        // As ever where no content is taken.
        (post("/ws", "x"), 405, true),
        (post("/nowhere", "x"), 404, true),
        (post("/healthz", "x"), 405, true),
        (post("/ws", "x").replace("POST", "GET"), 413, true),
        (post("/healthz", "x").replace("POST", "GET"), 413, true),
        (post("/echo", "x").replace("POST", "GET"), 200, false),
        (with(&format!("Transfer-Encoding: chunked\r\n\r\n0\r\nA: {}", "t".repeat(20_000))), 431, true),
        (with(&format!("Transfer-Encoding: chunked\r\n\r\n1;{}", "e".repeat(20_000))), 400, true),
    ] {
        let mut one = One::new(settings());
        one.send(&request);
        let shown = &request[..request.len().min(150)];
        assert_eq!(one.statuses(), [status], "{shown}");
        assert_eq!(String::from_utf8_lossy(&one.heard).contains("\r\nConnection: close\r\n"), ends, "{shown}");
        let mut fates = Vec::new();
        one.sessions.end_pass(|_, fate| fates.push(fate));
        assert_eq!(fates, if ends { vec![Fate::ShutdownWrite] } else { vec![] }, "{shown}");
        let kept = [MemoryKind::Input, MemoryKind::Content].map(|kind| one.of(kind));
        assert_eq!(kept, [0, 0], "{shown}");
    }
}

#[test]
fn a_client_that_waits_is_told_to_go_on_if_its_head_will_do() {
    let head = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\nExpect: 100-Continue\r\n\r\n")
    };
    let mut one = One::new(Settings::default());
    one.send(head("/echo", 5));
    assert_eq!(one.heard, b"HTTP/1.1 100 Continue\r\n\r\n");
    one.send("hello");
    assert_eq!(one.responses()[1], (200, "hello".to_owned()));
    // Who sends it all the same needs no telling; nor does HTTP/1.0 know of it.
    for request in [head("/echo", 5) + "hello", head("/echo", 5).replace("1.1", "1.0")] {
        let mut one = One::new(Settings::default());
        one.send(&request);
        assert!(!one.statuses().contains(&100), "{request}");
    }
    for (path, length, status) in [("/short", 11, 413), ("/nowhere", 5, 404), ("/ws", 5, 405)] {
        let mut one = One::new(Settings::default());
        one.send(head(path, length));
        assert_eq!(one.statuses(), [status], "{path}");
    }
}

#[test]
fn content_has_time_while_it_comes_and_not_for_ever() {
    let settings = || Settings { handshake_timeout: 10 * SECOND, http_lifetime: 30 * SECOND, ..Settings::default() };
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";
    let lives_for = |piece: usize| {
        let mut one = One::new(settings());
        one.send(head);
        let mut seconds = 0;
        while one.statuses().is_empty() {
            one.pass(SECOND);
            one.send("x".repeat(piece));
            seconds += 1;
        }
        assert_eq!(one.statuses(), [408], "{piece} bytes a second");
        assert_eq!(one.sessions.stats().handshake_timeouts, 1);
        seconds
    };
    // A byte now and then puts nothing off; a slow line has more time, and no more than there is for any.
    for (piece, seconds) in [(1, 10), (512, 20), (1024, 30), (100_000 / 40, 30)] {
        let lived = lives_for(piece);
        assert!((seconds..=seconds + 1).contains(&lived), "{lived} seconds with {piece} bytes a second");
    }
}

#[test]
fn what_follows_an_answer_that_comes_later_waits_for_it() {
    let mut one = One::new(Settings::default());
    let get = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    one.send(format!("{get}{}{get}{}", post("/later", "1"), post("/later", "2")));
    one.send(post("/echo", "last"));
    assert_eq!(one.statuses(), [200]);
    assert!(!one.sessions.wants_read(one.key) && one.sessions.has_rest(one.key));
    let first = one.sessions.app.tickets[0];
    assert!(one.app(move |_, out| out.answer(first, Response::text(202, "first"))));
    assert_eq!(one.statuses(), [200, 202, 200]);
    assert!(!one.app(move |_, out| out.answer(first, Response::text(202, "again"))), "it has its answer");
    let second = one.sessions.app.tickets[1];
    assert!(one.app(move |_, out| out.awaits(second) && out.answer(second, Response::text(203, "second"))));
    assert!(!one.app(move |_, out| out.awaits(second)));
    assert_eq!(one.statuses(), [200, 202, 200, 203, 200]);
    assert_eq!(one.responses()[4].1, "last");
    assert!(one.sessions.wants_read(one.key) && !one.sessions.has_rest(one.key));
}

#[test]
fn an_answer_that_does_not_come_is_504() {
    let mut one = One::new(Settings { answer_timeout: 30 * SECOND, ..Settings::default() });
    one.send("GET /later HTTP/1.1\r\nHost: h\r\n\r\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    one.pass(29 * SECOND);
    assert!(one.heard.is_empty());
    one.pass(2 * SECOND);
    assert_eq!(one.statuses(), [504, 200]);
    let late = one.sessions.app.tickets[0];
    assert!(!one.app(move |_, out| out.answer(late, Response::new(200))));
    assert_eq!(one.statuses(), [504, 200]);
}

#[test]
fn an_upgrade_that_was_put_off_opens_with_what_the_app_gives_it() {
    let settings = || {
        let mut settings = Settings::default();
        settings.upgrade.subprotocols = vec!["ours".into()];
        settings
    };
    let request = upgrade_request("/ws?later", "Sec-WebSocket-Protocol: theirs, ours\r\n");
    for (name, agreed) in [(None, Some("ours")), (Some("theirs"), Some("theirs")), (Some("other"), None)] {
        let mut one = One::new(settings());
        one.send([request.as_bytes(), &frame(TEXT, b"sent ahead")].concat());
        assert!(one.heard.is_empty() && one.sessions.app.open.is_empty());
        let ticket = one.sessions.app.tickets[0];
        let mut upgrade = Upgrade::new().tag(7).header("X-From", "app").expect("a header");
        if let Some(name) = name {
            upgrade = upgrade.subprotocol(name);
        }
        assert!(one.app(move |_, out| out.accept_upgrade(ticket, upgrade)));
        assert_eq!(one.sessions.app.opened, [(7, agreed.map(str::to_owned))]);
        assert_eq!(one.sessions.app.messages, ["sent ahead"]);
        let head = String::from_utf8_lossy(&one.heard).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("\r\nX-From: app\r\n"), "{head}");
        let line = agreed.map(|name| format!("\r\nSec-WebSocket-Protocol: {name}\r\n"));
        assert!(line.map_or(!head.contains("Sec-WebSocket-Protocol"), |line| head.contains(&line)), "{head}");
        assert!(!one.app(move |_, out| out.accept_upgrade(ticket, Upgrade::new())), "it was accepted");
    }
    let mut one = One::new(settings());
    one.sessions.app.at_once = true;
    one.send(request);
    assert_eq!(one.sessions.app.opened, [(1, Some("ours".to_owned()))]);
}

#[test]
fn an_upgrade_is_put_off_only_if_it_can_be_accepted() {
    let good = upgrade_request("/ws?later", "");
    for (request, status) in [
        (good.replace("Version: 13", "Version: 12"), 426),
        (good.replace("/ws?", "/nowhere?"), 404),
        (good.replace("GET", "POST"), 405),
        (upgrade_request("/ws?no", ""), 403),
    ] {
        let mut one = One::new(Settings::default());
        one.send(&request);
        assert_eq!(one.statuses(), [status], "{request}");
        assert!(one.sessions.app.tickets.is_empty(), "{request}");
    }
    let mut one = One::new(Settings::default());
    one.send(good);
    assert_eq!(one.sessions.app.tickets.len(), 1);
    let ticket = one.sessions.app.tickets[0];
    assert!(one.app(move |_, out| out.answer(ticket, Response::text(403, "no"))));
    assert_eq!((one.statuses(), one.sessions.app.open.len()), (vec![403], 0));
    // A request that was put off before it was known to be an upgrade is answered, and not upgraded.
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/later", ""));
    let ticket = one.sessions.app.tickets[0];
    assert!(!one.app(move |_, out| out.accept_upgrade(ticket, Upgrade::new())));
    assert!(one.app(move |_, out| out.answer(ticket, Response::new(204))));
    assert_eq!(one.statuses(), [204]);
}

#[test]
fn headers_of_an_upgrade_are_checked() {
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("a:", "x"),
        ("Upgrade", "h2c"),
        ("connection", "close"),
        ("Content-Length", "3"),
        ("TRANSFER-ENCODING", "chunked"),
        ("Sec-WebSocket-Accept", "x"),
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "\0"),
    ] {
        assert!(Upgrade::new().header(name, value).is_err(), "{name}: {value}");
    }
    assert!(Upgrade::new().header("Set-Cookie", "a=b; Path=/; é").is_ok());
}

#[test]
fn a_client_that_leaves_takes_its_ticket_along() {
    let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let requests =
        [("GET /later HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), true), (upgrade_request("/ws?later", ""), false)];
    for (request, hears_on) in requests {
        let mut one = One::new(Settings::default());
        one.send(&request);
        let ticket = one.sessions.app.tickets[0];
        one.sessions.socket_error(one.key, &reset());
        assert!(!one.app(move |_, out| out.awaits(ticket) || out.answer(ticket, Response::new(200))), "{request}");
        // One that only ends its stream may still hear an answer, but no messages.
        let mut one = One::new(Settings::default());
        one.send(&request);
        let ticket = one.sessions.app.tickets[0];
        one.sessions.end_of_stream(one.key);
        assert_eq!(one.app(move |_, out| out.answer(ticket, Response::new(200))), hears_on, "{request}");
        assert_eq!(one.statuses(), if hears_on { vec![200] } else { vec![] });
        // A driver that does not read hears of it in another way.
        let mut one = One::new(Settings::default());
        one.send(&request);
        let ticket = one.sessions.app.tickets[0];
        one.sessions.peer_shut(one.key, true);
        assert!(!one.app(move |_, out| out.awaits(ticket)), "{request}");
        assert!(!one.is_there());
    }
}

/// The app was told that somebody waited, so it is told of the end as well.
#[test]
fn an_upgrade_that_was_accepted_opens_even_if_its_client_leaves_at_once() {
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/ws?later", ""));
    let ticket = one.sessions.app.tickets[0];
    assert!(one.sessions.outbox.accept_upgrade(ticket, Upgrade::new().tag(5)));
    one.sessions.socket_error(one.key, &std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    let app = &one.sessions.app;
    assert_eq!((&app.opened[..], app.closed.len(), app.open.len()), (&[(5, None)][..], 1, 0));
    assert_eq!(one.sessions.stats().open, 0);
    one.pass(Duration::ZERO);
    assert!(one.sessions.is_empty());
}

#[test]
fn a_drain_waits_for_answers_that_are_owed() {
    let mut one = One::new(Settings::default());
    let other = one.sessions.accept(Peer::UNIX).expect("a place");
    one.send("GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    one.sessions.receive(other, &mut upgrade_request("/ws?later", "").into_bytes());
    one.sessions.drain();
    one.pass(Duration::ZERO);
    let [plain, upgrade] = one.sessions.app.tickets[..] else { panic!("two tickets") };
    assert!(one.app(move |_, out| out.answer(plain, Response::text(200, "still"))));
    let heard = String::from_utf8_lossy(&one.heard).into_owned();
    assert!(heard.contains("\r\nConnection: close\r\n"), "{heard}");
    one.heard.clear();
    assert!(one.app(move |_, out| out.accept_upgrade(upgrade, Upgrade::new())));
    assert!(one.heard.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(one.heard.windows(4).filter(|four| four[0] == 0x88 && four[2..] == [0x03, 0xe9]).count(), 1);
}

#[test]
fn a_paused_connection_keeps_what_came_and_is_not_blamed_for_silence() {
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/ws", ""));
    let id = one.sessions.app.open[0];
    let frames = ["a", "pause", "b", "c"].map(|text| frame(TEXT, text.as_bytes()));
    one.send(frames.concat());
    assert_eq!(one.sessions.app.messages, ["a", "pause"]);
    assert!(!one.sessions.wants_read(one.key));
    for _ in 0..100 {
        one.pass(10 * SECOND);
    }
    assert_eq!((one.sessions.app.open.len(), one.sessions.stats().heartbeat_timeouts), (1, 0));
    assert!(one.app(move |_, out| out.resume(id)));
    assert_eq!(one.sessions.app.messages, ["a", "pause", "b", "c"]);
    // From now on its silence counts, and no earlier.
    one.pass(70 * SECOND);
    assert_eq!(one.sessions.app.open.len(), 1);
    one.pass(70 * SECOND);
    assert_eq!((one.sessions.app.open.len(), one.sessions.stats().heartbeat_timeouts), (0, 1));
    assert!(!one.app(move |_, out| out.pause(id) || out.resume(id)), "it is gone");
}

#[test]
fn a_paused_connection_that_is_closed_is_read_from_again() {
    let mut one = One::new(Settings::default());
    one.send(upgrade_request("/ws", ""));
    let id = one.sessions.app.open[0];
    one.send([frame(TEXT, b"pause"), frame(TEXT, b"too late"), common::client::close_frame(1000, "")].concat());
    one.app(move |_, out| out.close(id, percore::CloseCode::Normal, "done"));
    assert_eq!(one.sessions.app.messages, ["pause"]);
    assert!(one.sessions.app.closed[0].clean, "its Close frame was read");
}

#[test]
fn a_service_listener_has_its_own_rules() {
    let ask = |request: &str, token: Option<&str>| {
        let settings = Settings { service_token: token.map(str::to_owned), ..Settings::default() };
        let mut one = One::new(settings);
        one.key = one.sessions.accept_service(Peer::UNIX).expect("a place");
        one.send(request);
        (one.statuses(), String::from_utf8_lossy(&one.heard).into_owned())
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let upgrade = upgrade_request("/ws", "");
    for (request, status) in
        [(get("/api"), 200), (get("/healthz"), 200), (get("/readyz"), 200), (get("/ws"), 404), (upgrade.clone(), 400)]
    {
        assert_eq!(ask(&request, None).0, [status], "{request}");
    }
    // The public listener knows no service, and no readiness.
    for path in ["/api", "/readyz"] {
        let mut one = One::new(Settings::default());
        one.send(get(path));
        assert_eq!(one.statuses(), [404]);
    }
    let bearer = |token: &str| format!("GET /api HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    for (request, status) in [
        (get("/api"), 401),
        (bearer("wrong"), 401),
        (bearer("secret"), 200),
        (get("/healthz"), 200),
        (get("/readyz"), 200),
        (upgrade, 401),
    ] {
        let (statuses, said) = ask(&request, Some("secret"));
        assert_eq!(statuses, [status], "{request}");
        assert_eq!(said.contains("\r\nWWW-Authenticate: Bearer"), status == 401, "{said}");
    }
    // Nothing is read of who has not the token.
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(ask(head, Some("secret")).0, [401]);
}

#[test]
fn a_proxy_says_nothing_to_the_service() {
    let mut settings = Settings::default();
    settings.proxies.proxy_protocol = true;
    let mut one = One::new(settings);
    one.key = one.sessions.accept_service(Peer::UNIX).expect("a place");
    one.send("GET /api HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(one.statuses(), [200]);
}

/// Who does not read its answers is not let go on for ever.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    let send = SendRules { max_backlog: 5_000, ..SendRules::default() };
    let mut one = One::new(Settings { send, ..Settings::default() });
    let mut requests = post("/echo", &"x".repeat(1000)).repeat(20).into_bytes();
    one.sessions.receive(one.key, &mut requests);
    assert!(!one.is_there());
}
