//! The opening handshake (RFC 6455, section 4.2) on the wire, and the greeting of `--hostname-prefix`.

use crate::common::client::Response;
use crate::common::client::{ACCEPT, BINARY, KEY, TEXT, close_frame, frame, upgrade_request};
use crate::common::{Client, Server};

fn ask(server: &Server, request: &str) -> Response {
    let mut client = server.connect();
    client.send(request);
    client.head_response()
}

#[test]
fn the_answer_is_that_of_the_rfc() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let got = client.upgrade("");
    assert_eq!(got.head.lines().next(), Some("HTTP/1.1 101 Switching Protocols"));
    assert_eq!(got.header("upgrade"), Some("websocket"));
    assert_eq!(got.header("connection"), Some("Upgrade"));
    assert_eq!(got.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!((got.header("sec-websocket-protocol"), got.header("sec-websocket-extensions")), (None, None));
    assert_eq!(got.header("content-length"), None);
    assert_eq!(client.echo("hello"), "hello");
}

#[test]
fn every_spelling_the_rfc_allows_is_taken() {
    let server = Server::start(&[]);
    for (from, to) in [
        ("", ""),
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Upgrade: websocket", "Upgrade: foo, websocket"),
        ("Connection: Upgrade", "connection: keep-alive, uPGRADE"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        ("Sec-WebSocket-Key: ", "sec-websocket-key:"),
        ("Version: 13", "Version:   13  "),
        ("GET /ws", "GET /"),
        ("GET /ws", "GET /ws?token=a%20b&x=/"),
        ("GET /ws", "GET ws://test.example/ws"),
    ] {
        let request = upgrade_request("/ws", "Cookie: a=b\r\n").replace(from, to);
        let got = ask(&server, &request);
        assert_eq!((got.status, got.header("sec-websocket-accept")), (101, Some(ACCEPT)), "{request}");
    }
}

#[test]
fn each_breach_is_refused() {
    let server = Server::start(&[]);
    let cases = [
        ("GET /ws", "POST /ws", 405),
        ("GET /ws", "GET /other", 404),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("Host: test.example\r\n", "", 400),
        ("Host: test.example", "Host: a\r\nHost: b", 400),
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade\r\n", "", 400),
        ("Connection: Upgrade", "Connection: close", 400),
        ("Connection: Upgrade", "Connection: NotUpgrade", 400),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Version: 13", "Version: 12", 426),
        ("Version: 13", "Version: 8", 426),
        ("Version: 13", "Version: 14", 426),
        ("Version: 13", "Version: x", 426),
        ("Sec-WebSocket-Key: ", "X-Key: ", 400),
        (KEY, "", 400),
        (KEY, "dGhlIHNhbXBsZSBub25jZQ", 400),
        (KEY, "dGhlIHNhbXBsZSBub25jZ", 400),
        (KEY, "dGhlIHNhbXBsZQ==", 400),
        (KEY, "dGhlIHNhbXBsZSBub25jZSBsb25n", 400),
        (KEY, "!!!!IHNhbXBsZSBub25jZQ==", 400),
        ("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Key: ", 400),
    ];
    for (from, to, status) in cases {
        let request = upgrade_request("/ws", "").replace(from, to);
        let got = ask(&server, &request);
        assert_eq!(got.status, status, "{request}");
        assert_ne!(got.header("content-length"), Some("0"), "a refusal says why");
    }
    server.assert_alive();
}

#[test]
fn a_wrong_version_is_told_the_right_one_and_may_try_again() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(upgrade_request("/ws", "").replace("Version: 13", "Version: 25"));
    let got = client.response();
    assert_eq!(
        (got.status, got.header("sec-websocket-version"), got.header("upgrade")),
        (426, Some("13"), Some("websocket"))
    );
    client.upgrade("");
    assert_eq!(client.echo("second attempt"), "second attempt");
}

#[test]
fn only_allowed_origins_connect() {
    let server = Server::start(&["--origin", "https://good.example", "--origin", "same"]);
    for (origin, status) in [
        ("", 101),
        ("Origin: https://good.example\r\n", 101),
        ("Origin: HTTPS://GOOD.example\r\n", 101),
        ("Origin: http://test.example\r\n", 101),
        ("Origin: https://test.example\r\n", 101),
        ("Origin: http://test.example:8080\r\n", 403),
        ("Origin: http://good.example\r\n", 403),
        ("Origin: https://good.example.evil.example\r\n", 403),
        ("Origin: https://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: \r\n", 403),
        ("Origin: https://evil.example\r\nOrigin: https://good.example\r\n", 403),
    ] {
        assert_eq!(ask(&server, &upgrade_request("/ws", origin)).status, status, "{origin:?}");
    }
    let anyone = Server::start(&[]);
    assert_eq!(ask(&anyone, &upgrade_request("/ws", "Origin: https://evil.example\r\n")).status, 101);
    let any = Server::start(&["--origin", "same", "--origin", "any"]);
    assert_eq!(ask(&any, &upgrade_request("/ws", "Origin: https://evil.example\r\n")).status, 101);
}

#[test]
fn the_clients_first_known_subprotocol_is_chosen() {
    let server = Server::start(&["--subprotocol", "chat.v2", "--subprotocol", "chat.v1"]);
    for (offer, chosen) in [
        ("", None),
        ("Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n", Some("chat.v1")),
        ("Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: chat.v2\r\n", Some("chat.v2")),
        ("Sec-WebSocket-Protocol: Chat.V1\r\n", None),
        ("Sec-WebSocket-Protocol: other\r\n", None),
    ] {
        let got = ask(&server, &upgrade_request("/ws", offer));
        assert_eq!((got.status, got.header("sec-websocket-protocol")), (101, chosen), "{offer:?}");
    }
}

#[test]
fn frames_in_the_same_packet_as_the_request_count() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let long = vec![7; 70_000];
    let request = upgrade_request("/ws", "");
    client.send([request.as_bytes(), &frame(TEXT, b"one"), &frame(BINARY, &long), &close_frame(1000, "")].concat());
    assert_eq!(client.head_response().status, 101);
    assert_eq!(client.text(), "one");
    let second = client.frame();
    assert!(second.first == BINARY && second.payload == long);
    assert_eq!(client.closed().0, 1000);
    client.ends();
}

/// The sessions of the document that `--hostname-prefix` answers to.
mod hostname_prefix {
    use super::*;

    fn hostname() -> String {
        std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux").trim().to_owned()
    }

    fn start() -> Server {
        Server::start(&["--hostname-prefix"])
    }

    #[test]
    fn greets_and_puts_its_name_in_front() {
        let (server, hostname) = (start(), hostname());
        let mut client = server.open();
        assert_eq!(client.text(), format!("[{hostname}] hello :) type a message and press ENTER"));
        assert_eq!(client.echo("hi\n"), format!("[{hostname}] hi\n"));
        assert_eq!(client.echo(""), format!("[{hostname}] "));
        client.send(frame(BINARY, &[0, 159, 146, 150]));
        let back = client.frame();
        assert_eq!(back.first, BINARY);
        assert_eq!(back.payload, [format!("[{hostname}] ").as_bytes(), &[0, 159, 146, 150]].concat());
    }

    #[test]
    fn the_greeting_comes_before_the_answer_to_early_frames() {
        let server = start();
        let mut client: Client = server.connect();
        client.send([upgrade_request("/ws", "").as_bytes(), &frame(TEXT, b"early")].concat());
        assert_eq!(client.head_response().status, 101);
        assert!(client.text().ends_with("press ENTER"));
        assert!(client.text().ends_with("] early"));
    }

    #[test]
    fn the_root_is_an_empty_200() {
        let server = start();
        let mut client = server.connect();
        let got = client.get("/");
        assert_eq!((got.status, got.body.as_str(), got.header("content-length")), (200, "", Some("0")));
        assert!(client.get("/healthcheck").body.starts_with("{\"uptime\":\""));
        assert_eq!(client.get("/ws").status, 426);
        client.send(upgrade_request("/", ""));
        assert_eq!(client.head_response().status, 101);
        assert!(client.text().ends_with("press ENTER"));
    }
}

#[test]
fn the_plain_echo_neither_greets_nor_prefixes() {
    let server = Server::start(&[]);
    let mut client = server.open();
    assert_eq!(client.echo("pure"), "pure");
    client.send(close_frame(1000, "bye"));
    assert_eq!(client.closed(), (1000, String::new()));
    client.ends();
}
