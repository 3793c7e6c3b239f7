//! Requests with content, without a socket: at any split, in any state of the process, and within their deadlines.

use crate::common::one::{One, chunked, post};
use percore::internal::session::Fate;
use percore::internal::telemetry::memory::MemoryKind;
use percore::{Peer, SendRules, Settings};
use proptest::prelude::*;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

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
    // A client that sends it all the same needs no telling; nor does HTTP/1.0 know of it.
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

/// A client that does not read its answers is not let go on for ever.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    let send = SendRules { max_backlog: 5_000, ..SendRules::default() };
    let mut one = One::new(Settings { send, ..Settings::default() });
    let requests = |number| post("/echo", &"x".repeat(1000)).repeat(number).into_bytes();
    one.sessions.receive(one.key, &mut requests(10));
    assert!(one.is_there(), "they may be taken yet");
    let queue = one.sessions.queue();
    while let Some(key) = queue.next_dirty() {
        queue.sent(key, 0, true);
    }
    queue.end_flush();
    one.sessions.receive(one.key, &mut requests(1));
    assert!(!one.is_there());
}
