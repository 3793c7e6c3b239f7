//! Clients that break the rules: each loses its connection with the right code, without harm to others.

use crate::common::client::{BINARY, PING, TEXT, frame, header, upgrade_request};
use crate::common::{Client, Server};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use std::io::Write;

#[test]
fn each_breach_has_its_code() {
    let server = Server::start(&["--max-message", "1000"]);
    let unmasked = |first: u8, payload: &[u8]| [&[first, payload.len() as u8], payload].concat();
    let long_ping = frame(PING, &[0; 126]);
    let joined = |frames: &[Vec<u8>]| frames.concat();
    for (what, bytes, code) in [
        ("unmasked", unmasked(TEXT, b"hi"), 1002),
        ("unmasked and empty", unmasked(TEXT, b""), 1002),
        ("reserved bit 1", frame(0xc1, b"hi"), 1002),
        ("reserved bit 2", frame(0xa1, b"hi"), 1002),
        ("reserved bit 3", frame(0x91, b"hi"), 1002),
        ("reserved data opcode", frame(0x83, b"hi"), 1002),
        ("last reserved data opcode", frame(0x87, b""), 1002),
        ("reserved control opcode", frame(0x8b, b""), 1002),
        ("last reserved control opcode", frame(0x8f, b""), 1002),
        ("fragmented Ping", frame(0x09, b""), 1002),
        ("fragmented Close", frame(0x08, b""), 1002),
        ("long Ping", long_ping, 1002),
        ("continuation of nothing", frame(0x80, b"hi"), 1002),
        ("message within a message", joined(&[frame(0x01, b"a"), frame(TEXT, b"b")]), 1002),
        ("half a close code", frame(0x88, &[3]), 1002),
        ("length with its top bit set", [&[BINARY, 0xff, 0x80][..], &[0; 11]].concat(), 1002),
        ("text that is not UTF-8", frame(TEXT, b"\xc3\x28"), 1007),
        ("text that ends within a character", frame(TEXT, b"\xe2\x82"), 1007),
        ("bad from its first fragment on", frame(0x01, b"ok \xff"), 1007),
        ("bad across fragments", joined(&[frame(0x01, b"\xe2"), frame(0x00, b"\x28")]), 1007),
        ("too long by its header alone", header(BINARY, 1001), 1009),
        ("far too long", header(BINARY, 1 << 62), 1009),
        ("too long in sum", joined(&[frame(0x02, &[0; 600]), header(0x80, 401)]), 1009),
    ] {
        let mut client = server.open();
        client.send(bytes);
        let (got, reason) = client.closed();
        assert_eq!(got, code, "{what}: {reason}");
        assert!(!reason.is_empty(), "{what}: the reason is told");
        client.ends();
        server.wait_for_log(&format!("WebSocket error from {}: {reason}", client.addr()));
    }
    server.assert_alive();
}

#[test]
fn text_is_checked_as_it_comes() {
    // Of one frame with far more to come, the first bytes that cannot be UTF-8 are enough (RFC 6455, section 8.1).
    let server = Server::start(&[]);
    let mut client = server.open();
    client.send(header(TEXT, 100_000));
    client.send(vec![0xff; 10]);
    assert_eq!(client.closed().0, 1007);
}

#[test]
fn good_messages_before_a_breach_are_answered() {
    let server = Server::start(&[]);
    let mut client = server.open();
    client.send([frame(TEXT, b"one"), frame(TEXT, b"two"), frame(0x83, b""), frame(TEXT, b"never")].concat());
    assert_eq!((client.text(), client.text()), ("one".to_owned(), "two".to_owned()));
    assert_eq!(client.closed().0, 1002);
    client.ends();
}

#[test]
fn whatever_follows_a_close_is_left() {
    let server = Server::start(&[]);
    let mut client = server.open();
    client.send([frame(0x88, b"\x03\xe8"), frame(TEXT, b"after"), vec![0xff; 100]].concat());
    assert_eq!(client.closed().0, 1000);
    client.ends();
    assert_eq!(server.count_log("WebSocket error"), 0);
}

/// Sends noise until the server has had enough, or there is no more.
fn throw(client: &mut Client, noise: &[u8]) {
    let _ = client.stream.write_all(noise);
    let _ = client.stream.shutdown(std::net::Shutdown::Write);
    client.rest();
}

#[test]
fn random_bytes_never_kill_the_server() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::start(&["--log-messages"]);
    for round in 0..300 {
        let mut noise = vec![0; random.random_range(1..20_000)];
        random.fill_bytes(&mut noise);
        let mut client = server.connect();
        match round % 4 {
            // Instead of a request, and where frames belong.
            0 => {}
            1 => client.send(upgrade_request("/ws", "")),
            // With a header that is good, so that the noise is payload and headers in turn.
            2 => {
                client.send(upgrade_request("/ws", "Sec-WebSocket-Extensions: permessage-deflate\r\n"));
                client.send(header(random.random_range(0..=255), random.random_range(0..10_000)));
            }
            // A request with a few bytes changed.
            _ => {
                noise = upgrade_request("/ws", "Cookie: a=b\r\n").into_bytes();
                for _ in 0..3 {
                    let at = random.random_range(0..noise.len());
                    noise[at] = random.random();
                }
            }
        }
        throw(&mut client, &noise);
    }
    server.assert_alive();
    assert_eq!(server.stop().0, Some(0));
}
