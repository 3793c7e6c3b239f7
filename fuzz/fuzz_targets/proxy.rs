//! Any bytes as what a proxy tells: a PROXY protocol header, and the values of a header that forwards addresses.
//!
//! Nothing panics; what came of a header in pieces is what comes of the whole; no header is longer than it may be; and
//! whatever a client sent, the address that its proxy appended is the one that counts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::Peer;
use percore::internal::protocol::forwarded::{self, ForwardedHeader, ProxyRules};
use percore::internal::protocol::proxy_header::{self, MAX_HEADER_BYTES};
use std::net::SocketAddr;

const CLIENT: &str = "203.0.113.7:47011";

fuzz_target!(|bytes: &[u8]| {
    read_in_pieces(bytes);
    let proxy = Peer::from(SocketAddr::from(([10, 0, 0, 1], 80)));
    for (header, appended) in [
        (ForwardedHeader::XForwardedFor, CLIENT.to_owned()),
        (ForwardedHeader::Forwarded, format!("for=\"{CLIENT}\";by=\"[::1]\"")),
    ] {
        let rules =
            ProxyRules { trusted: vec!["10.0.0.0/8".parse().expect("a network")], header, ..ProxyRules::default() };
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        let client = forwarded::client(proxy, lines.iter().copied(), &rules);
        assert!(client == proxy || client.addr().is_some_and(|addr| !addr.ip().is_unspecified()));
        assert_eq!(forwarded::client(client, std::iter::empty(), &rules), client);

        let one_line = [bytes, b",", appended.as_bytes()].concat();
        let own_line = [bytes, appended.as_bytes()];
        for told in [vec![&one_line[..]], own_line.to_vec()] {
            assert_eq!(forwarded::client(proxy, told.into_iter(), &rules).to_string(), CLIENT);
        }
    }
});

fn read_in_pieces(bytes: &[u8]) {
    let whole = proxy_header::read(bytes);
    for cut in [1, 8, 14, 15, 16, 28, 52, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let early = proxy_header::read(&bytes[..cut.min(bytes.len())]);
        assert!(early == Ok(None) || early == whole, "cut at {cut}");
    }
    if let Ok(Some(header)) = whole {
        assert!(header.bytes <= bytes.len().min(MAX_HEADER_BYTES));
        assert_eq!(proxy_header::read(&bytes[..header.bytes]), whole);
        assert_eq!(proxy_header::read(&bytes[..header.bytes - 1]), Ok(None));
    }
}
