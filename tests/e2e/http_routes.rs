//! Plain HTTP before an upgrade: routes, statuses, keep-alive, limits, and input that is not HTTP at all.

use crate::common::client::{ACCEPT, TEXT, frame, upgrade_request};
use crate::common::{Client, Server};
use std::net::Shutdown;

/// What a server answers to `bytes` on a connection of their own.
fn answer(server: &Server, bytes: &[u8]) -> crate::common::client::Response {
    let mut client = server.connect();
    client.send(bytes);
    client.response()
}

#[test]
fn health_routes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let healthz = client.get("/healthz");
    assert_eq!((healthz.status, healthz.body.as_str()), (200, "ok\n"));
    let date = healthz.header("date").expect("a Date");
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    let healthcheck = client.get("/healthcheck?from=nginx");
    assert_eq!((healthcheck.status, healthcheck.header("content-type")), (200, Some("application/json")));
    let uptime = healthcheck.body.strip_prefix("{\"uptime\":\"").and_then(|rest| rest.strip_suffix("\"}"));
    let uptime = uptime.unwrap_or_else(|| panic!("{}", healthcheck.body));
    assert!(uptime.starts_with(|c: char| c.is_ascii_digit()) && uptime.ends_with('s'), "{uptime}");
}

#[test]
fn each_request_has_its_status() {
    let server = Server::start(&[]);
    let cases = [
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /ws/ HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("POST /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        ("GET http://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /healthz HTTP/1.1\nHost: a\n\n", 200),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        ("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", 413),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n", 200),
        ("GET WS://a:80/healthz HTTP/1.1\r\nHost: b\r\n\r\n", 200),
        ("GET a?b://c/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("POST /ws HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        ("POST /ws HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("GET /healthz\r\n\r\n", 400),
        ("complete nonsense\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
    ];
    for (request, status) in cases {
        assert_eq!(answer(&server, request.as_bytes()).status, status, "{request}");
    }
    server.assert_alive();
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let server = Server::start(&[]);
    for (method, path, allow) in [
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/healthcheck", "GET, HEAD"),
        ("POST", "/ws", "GET"),
        ("PUT", "/", "GET"),
        ("OPTIONS", "/ws", "GET"),
    ] {
        let got = answer(&server, format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!((got.status, got.header("allow")), (405, Some(allow)), "{method} {path}");
    }
}

#[test]
fn an_upgrade_path_says_how_to_use_it() {
    let server = Server::start(&[]);
    let got = server.connect().get("/");
    assert_eq!(
        (got.status, got.header("upgrade"), got.header("connection")),
        (426, Some("websocket"), Some("Upgrade"))
    );
}

#[test]
fn head_is_get_without_content() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (path, status) in [("/healthz", 200), ("/healthcheck", 200), ("/nothing", 404), ("/ws", 426)] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.head_response();
        assert_eq!(head.status, status, "{path}");
        assert_ne!(head.header("content-length"), Some("0"), "{path}");
    }
    // Content after any of these would stand before this answer.
    assert_eq!(client.get("/healthz").body, "ok\n");
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for path in ["/healthz", "/nothing", "/healthcheck", "/ws", "/healthz"] {
        let got = client.get(path);
        assert!(got.header("connection").is_some_and(|value| value != "close"), "{path}: {}", got.head);
    }
    // Pipelined, the last of them an upgrade with a frame behind it.
    client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100) + "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send([upgrade_request("/ws", "").as_bytes(), &frame(TEXT, b"after all that")].concat());
    for _ in 0..100 {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(client.response().status, 404);
    let upgraded = client.head_response();
    assert_eq!((upgraded.status, upgraded.header("sec-websocket-accept")), (101, Some(ACCEPT)));
    assert_eq!(client.text(), "after all that");
}

#[test]
fn a_connection_ends_when_either_side_says_so() {
    let server = Server::start(&[]);
    let requests = [
        "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n",
        "GET /healthz HTTP/1.0\r\n\r\n",
        // Content is not read, so nothing may follow it.
        "POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 38\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n   ",
    ];
    for request in requests {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.response().header("connection"), Some("close"), "{request}");
        client.ends();
    }
    let mut client = server.connect();
    client.send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response().header("connection"), Some("keep-alive"));
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn a_client_that_shuts_its_side_gets_its_answer() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    client.stream.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(client.response().status, 200);
    client.ends();
}

#[test]
fn limits_have_their_statuses() {
    let server = Server::start(&["--max-request-line", "200", "--max-headers", "1000"]);
    let long = "x".repeat(300);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET /{long}"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("A: {long}\r\n").repeat(5)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}", format!("A: {long}\r\n").repeat(5)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100)), 431),
    ] {
        let mut client = server.connect();
        client.send(&request);
        let got = client.response();
        assert_eq!((got.status, got.header("connection")), (status, Some("close")), "{request}");
        client.ends();
    }
    let fits = format!("GET /healthz?{} HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n", &long[..150]);
    assert_eq!(answer(&server, fits.as_bytes()).status, 200);
}

#[test]
fn a_request_that_does_not_come_in_time_is_told_so() {
    let server = Server::start(&["--handshake-timeout", "200ms"]);
    for beginning in ["", "GET /ws HTTP/1.1\r\nHos"] {
        let mut client = server.connect();
        client.send(beginning);
        let got = client.response();
        assert_eq!((got.status, got.header("connection")), (408, Some("close")), "{beginning:?}");
        client.ends();
    }
    // A connection that was served and idles just ends.
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").status, 200);
    client.ends();
}

#[test]
fn bytes_that_trickle_in_do_not_put_the_deadline_off() {
    let server = Server::start(&["--handshake-timeout", "300ms", "--max-headers", "1G"]);
    let (mut slow, mut probe) = (server.connect(), server.connect());
    slow.send("GET /ws HTTP/1.1\r\nHost: a\r\nA: ");
    let mut buffer = [0; 1];
    slow.stream.set_nonblocking(true).expect("an option");
    crate::common::eventually("the answer to a slow request", || {
        let _ = std::io::Write::write(&mut slow.stream, b"x");
        slow.stream.peek(&mut buffer).is_ok()
    });
    slow.stream.set_nonblocking(false).expect("an option");
    assert_eq!(slow.response().status, 408);
    assert_eq!(probe.response().status, 408);
}

#[test]
fn what_is_no_http_is_refused_at_once() {
    let server = Server::start(&[]);
    // A TLS hello, of which not all has come, and other noise without the end of a line.
    for noise in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\0\0\0\0", b"\x81\x85", b"{\"a\":1}"] {
        let mut client = server.connect();
        client.send(noise);
        let got = client.response();
        assert_eq!((got.status, got.header("connection")), (400, Some("close")), "{noise:?}");
        client.ends();
    }
    server.assert_alive();
}

#[test]
fn a_request_in_pieces_of_one_byte() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    let request = upgrade_request("/ws", "Sec-WebSocket-Protocol: unknown\r\n");
    for byte in request.as_bytes() {
        client.send([*byte]);
        // Its answer shows that the server has been through a pass, and so has read the byte by itself.
        assert_eq!(other.get("/healthz").status, 200);
    }
    assert_eq!(client.head_response().header("sec-websocket-accept"), Some(ACCEPT));
    for byte in frame(TEXT, "h\u{e9}llo, in pieces".as_bytes()) {
        client.send([byte]);
        assert_eq!(other.get("/healthz").status, 200);
    }
    assert_eq!(client.text(), "h\u{e9}llo, in pieces");
}

#[test]
fn paths_are_those_of_the_flags() {
    let server = Server::start(&["--path", "/a", "--path", "/b/c"]);
    for (path, status) in [("/a", 101), ("/b/c", 101), ("/a?token=x", 101), ("/", 404), ("/ws", 404), ("/b", 404)] {
        let mut client: Client = server.connect();
        client.send(upgrade_request(path, ""));
        assert_eq!(client.head_response().status, status, "{path}");
    }
}
