//! permessage-deflate (RFC 7692) on the wire, with flate2 as the other end.

use crate::common::client::{BINARY, TEXT, frame};
use crate::common::{Client, Server};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// RSV1 of a frame's first byte: the message is compressed.
const COMPRESSED: u8 = 0x40;

/// The other end's two windows.
struct Windows {
    deflate: Compress,
    inflate: Decompress,
}

impl Windows {
    fn new(client_bits: u8, server_bits: u8) -> Windows {
        Windows {
            deflate: Compress::new_with_window_bits(Compression::new(6), false, client_bits),
            inflate: Decompress::new_with_window_bits(false, server_bits),
        }
    }

    /// Section 7.2.1: compressed, flushed, and without the four bytes that every flush ends with.
    fn deflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + 1024);
        let (before, all) = (self.deflate.total_in(), payload.len() as u64);
        self.deflate.compress_vec(payload, &mut out, FlushCompress::Sync).expect("compressible");
        assert_eq!(self.deflate.total_in() - before, all);
        out.strip_suffix(&[0, 0, 0xff, 0xff]).expect("the end of a flush").to_vec()
    }

    /// Section 7.2.2.
    fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let input = [payload, &[0, 0, 0xff, 0xff]].concat();
        let mut out = Vec::with_capacity(4 << 20);
        let status = self.inflate.decompress_vec(&input, &mut out, FlushDecompress::Sync).expect("valid deflate");
        assert_eq!(status, Status::Ok);
        out
    }

    fn reset(&mut self) {
        self.deflate.reset();
        self.inflate.reset(false);
    }
}

/// Upgrades with an offer; the answer to it.
fn negotiate(server: &Server, offer: &str) -> (Client, Option<String>) {
    let mut client = server.connect();
    let got = client.upgrade(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    let answer = got.header("sec-websocket-extensions").map(str::to_owned);
    (client, answer)
}

/// Text that compresses well, and differs from one `n` to the next.
fn text(n: usize) -> String {
    (0..200).map(|i| format!("{{\"symbol\":\"AAPL\",\"price\":{}}},", i * n)).collect()
}

/// Sends a text compressed; the payload of the compressed echo, which says the same.
fn exchange(client: &mut Client, windows: &mut Windows, text: &str) -> Vec<u8> {
    client.send(frame(TEXT | COMPRESSED, &windows.deflate(text.as_bytes())));
    let back = client.frame();
    assert_eq!(back.first, TEXT | COMPRESSED);
    assert!(windows.inflate(&back.payload) == text.as_bytes());
    back.payload
}

#[test]
fn offers_have_the_answers_of_the_flags() {
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (flags, offer, want) in [
        (&[][..], "permessage-deflate", Some(both)),
        (&[], "permessage-deflate; client_max_window_bits", Some(both)),
        (&[], "x-unknown; a=b, permessage-deflate", Some(both)),
        (&[], "permessage-deflate; unknown_parameter, permessage-deflate", Some(both)),
        (&[], "x-unknown", None),
        (&[], "permessage-deflate; server_max_window_bits=16", None),
        (&["--deflate", "off"], "permessage-deflate", None),
        (&["--deflate", "takeover"], "permessage-deflate", Some("permessage-deflate")),
        (
            &["--deflate", "takeover", "--deflate-window", "10"],
            "permessage-deflate; client_max_window_bits",
            Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=10"),
        ),
    ] {
        let server = Server::start(flags);
        let (mut client, answer) = negotiate(&server, offer);
        assert_eq!(answer.as_deref(), want, "{flags:?} {offer}");
        assert_eq!(client.echo("uncompressed is always right"), "uncompressed is always right");
    }
}

#[test]
fn each_message_by_itself() {
    let server = Server::start(&[]);
    let (mut client, _) = negotiate(&server, "permessage-deflate");
    let mut windows = Windows::new(15, 15);
    for n in 0..5 {
        let payload = exchange(&mut client, &mut windows, &text(n));
        assert!(payload.len() < text(n).len() / 4, "{} bytes", payload.len());
        // With the windows empty again the next message must still be understood, on both sides.
        windows.reset();
    }
}

#[test]
fn windows_that_live_on() {
    let server = Server::start(&["--deflate", "takeover"]);
    let (mut client, _) = negotiate(&server, "permessage-deflate");
    let mut windows = Windows::new(15, 15);
    let first = exchange(&mut client, &mut windows, &text(7)).len();
    for _ in 0..5 {
        let again = exchange(&mut client, &mut windows, &text(7)).len();
        assert!(again * 4 < first, "{again} of {first} bytes: the server refers to the message before");
    }
    for n in 0..20 {
        exchange(&mut client, &mut windows, &text(n));
    }
}

#[test]
fn the_smallest_windows() {
    let server = Server::start(&["--deflate", "takeover"]);
    let (mut client, answer) =
        negotiate(&server, "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9");
    let want = "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9";
    assert_eq!(answer.as_deref(), Some(want));
    // An inflater of 512 bytes fails on anything that refers further back.
    let mut windows = Windows::new(9, 9);
    for n in 0..10 {
        exchange(&mut client, &mut windows, &text(n));
    }
}

/// Compression takes time in proportion to the message, so a long one is sent as it is: with any window, and with windows
/// that live on, which it leaves as they are (RFC 7692, section 6).
#[test]
fn long_messages_go_as_they_are() {
    for (bits, bound) in [(15, 8192), (12, 8192), (11, 4096), (9, 1024)] {
        let server = Server::start(&["--deflate", "takeover", "--deflate-max", "8K"]);
        let (mut client, _) = negotiate(&server, &format!("permessage-deflate; server_max_window_bits={bits}"));
        let mut windows = Windows::new(15, bits);
        let text = text(7).repeat(2);
        for _ in 0..3 {
            exchange(&mut client, &mut windows, &text[..bound]);
            client.send(frame(TEXT | COMPRESSED, &windows.deflate(&text.as_bytes()[..=bound])));
            let back = client.frame();
            assert!(back.first == TEXT && back.payload == text.as_bytes()[..=bound], "{bits} bits");
        }
    }
}

#[test]
fn small_messages_and_incompressible_ones_go_as_they_are() {
    let server = Server::start(&["--deflate-min", "100"]);
    let (mut client, _) = negotiate(&server, "permessage-deflate");
    let mut windows = Windows::new(15, 15);
    let short = "x".repeat(99);
    client.send(frame(TEXT | COMPRESSED, &windows.deflate(short.as_bytes())));
    assert_eq!((client.text(), windows.reset()), (short, ()));
    exchange(&mut client, &mut windows, &"x".repeat(100));
    windows.reset();
    let mut noise = vec![0; 5000];
    rand::fill(&mut noise[..]);
    client.send(frame(BINARY, &noise));
    let back = client.frame();
    assert!(back.first == BINARY && back.payload == noise);
}

#[test]
fn fragments_and_empty_messages() {
    let server = Server::start(&[]);
    let (mut client, _) = negotiate(&server, "permessage-deflate");
    let mut windows = Windows::new(15, 15);
    let payload = windows.deflate(text(3).as_bytes());
    let (first, rest) = payload.split_at(payload.len() / 3);
    // Only the first fragment has the bit (section 6.1); control frames never.
    client
        .send([frame(0x01 | COMPRESSED, first), frame(0x89, b"between"), frame(0x00, rest), frame(0x80, b"")].concat());
    assert_eq!(client.frame().payload, b"between");
    let back = client.frame();
    assert_eq!(back.first, TEXT | COMPRESSED);
    assert!(windows.inflate(&back.payload) == text(3).as_bytes());
    // The two ways to send nothing: one byte (section 7.2.3.6), and no byte at all.
    client.send(frame(TEXT | COMPRESSED, &[0]));
    assert_eq!(client.text(), "");
    client.send(frame(TEXT | COMPRESSED, &[]));
    assert_eq!(client.text(), "");
}

#[test]
fn what_breaks_the_rules_has_its_code() {
    let server = Server::start(&[]);
    let mut windows = Windows::new(15, 15);
    for (what, bytes, code) in [
        ("no deflate at all", frame(TEXT | COMPRESSED, &[0xff; 20]), 1007),
        ("not UTF-8 once inflated", frame(TEXT | COMPRESSED, &windows.deflate(b"\xff\xfe")), 1007),
        ("the bit on a control frame", frame(0x89 | COMPRESSED, b""), 1002),
        ("the bit on a continuation", [frame(0x01, b"a"), frame(0x80 | COMPRESSED, b"b")].concat(), 1002),
        ("another reserved bit", frame(0xa1, b""), 1002),
    ] {
        let (mut client, _) = negotiate(&server, "permessage-deflate");
        client.send(bytes);
        assert_eq!(client.closed().0, code, "{what}");
    }
    server.assert_alive();
}

#[test]
fn a_bomb_costs_one_connection() {
    let server = Server::start(&["--max-message", "1M"]);
    let bomb = Windows::new(15, 15).deflate(&vec![0; 20 << 20]);
    assert!(bomb.len() < 1 << 20, "the frame itself is allowed");
    for _ in 0..3 {
        let (mut client, _) = negotiate(&server, "permessage-deflate");
        client.send(frame(BINARY | COMPRESSED, &bomb));
        assert_eq!(client.closed().0, 1009);
        client.ends();
    }
    let peak = std::fs::read_to_string(format!("/proc/{}/status", server.child().id())).expect("Linux");
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    assert!(peak.is_some_and(|kilobytes: usize| kilobytes < 64 << 10), "{peak:?} KiB of memory");
    server.assert_alive();
}

/// Each final block has the decompressor begin anew: a message of many cost seconds.
#[test]
fn a_message_of_nothing_but_blocks_is_refused() {
    let server = Server::start(&[]);
    let text = Windows::new(15, 15).deflate(b"Hello");
    let messages = |blocks: &[u8], count| [&blocks.repeat(count), &text[..]].concat();
    let (mut client, _) = negotiate(&server, "permessage-deflate");
    // A final block ends no message (section 7.2.3.4).
    client.send(frame(TEXT | COMPRESSED, &messages(&[3, 0], 10)));
    assert_eq!(client.text(), "Hello");
    for blocks in [&[3, 0][..], &[0, 0, 0, 0xff, 0xff]] {
        let (mut client, _) = negotiate(&server, "permessage-deflate");
        client.send(frame(TEXT | COMPRESSED, &messages(blocks, 20_000)));
        assert_eq!(client.closed().0, 1007);
    }
    server.assert_alive();
}
