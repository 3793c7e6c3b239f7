//! Any bytes as the head of a request, and as a server's answer to one of ours.
//!
//! Nothing panics; a head ends at the same place in one piece and in two, and httparse sees it end there too; content
//! and origins do not hide behind values that are no text; and our client takes every upgrade that our server grants.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use percore::internal::protocol::client::{ClientHandshake, Offer};
use percore::internal::protocol::extension::{Deflate, DeflateMode};
use percore::internal::protocol::http::{self, HeadLimits, MAX_HEADERS};
use percore::internal::protocol::upgrade::{self, UpgradeRules};
use percore::{Peer, Request};

const ORIGIN: &str = "https://a.example";

fuzz_target!(|bytes: &[u8]| {
    read_answer(bytes);
    let end = http::head_end(bytes, 0);
    for cut in [bytes.len() / 2, bytes.len().saturating_sub(1), bytes.len().saturating_sub(2)] {
        let (first, both) = (http::head_end(&bytes[..cut], 0), http::head_end(bytes, cut));
        assert_eq!(first.or(both), end, "cut at {cut}");
    }
    for limits in [
        HeadLimits { request_line_bytes: 20, head_bytes: 60 },
        HeadLimits { request_line_bytes: 8192, head_bytes: 16384 },
    ] {
        let whole = http::check_beginning(bytes, 0, &limits);
        let half = bytes.len() / 2;
        let beginning = http::check_beginning(&bytes[..half], 0, &limits);
        assert!(whole.is_err() || beginning.is_ok(), "what is good has a good beginning");
        if beginning.is_ok() {
            assert_eq!(http::check_beginning(bytes, half, &limits), whole, "the same in two pieces");
        }
    }
    let Some(end) = end else { return };
    let head = &bytes[..end];
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    if let Ok(request) = http::parse(head, &mut headers, Peer::UNIX) {
        let mut again = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let seen = httparse::Request::new(&mut again).parse(head);
        // Of a later version than it knows, httparse does not say where the head ends.
        let is_later = seen == Err(httparse::Error::Version);
        assert!(is_later || seen == Ok(httparse::Status::Complete(end)), "the head ends where it was found to end");
        look(&request);
        for deflate in [DeflateMode::Off, DeflateMode::NoTakeover, DeflateMode::Takeover] {
            answer(&request, deflate);
        }
    }
});

fn look(request: &Request<'_>) {
    assert!(!request.path().contains('?'));
    let _ = (request.query_value("q"), request.keeps_alive(), upgrade::is_asked(request));
    let named = |name: &str| request.all_headers().any(|(header, _)| header.eq_ignore_ascii_case(name));
    if named("transfer-encoding") {
        assert_ne!(request.has_content(), Ok(false));
    } else if named("content-length") {
        let zeros = |value: &[u8]| value.iter().all(|byte| b"0, \t".contains(byte));
        let mut lengths = request.all_headers().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        assert!(request.has_content() != Ok(false) || lengths.all(|(_, value)| zeros(value)));
    }
}

fn answer(request: &Request<'_>, deflate: DeflateMode) {
    let rules = UpgradeRules {
        origins: vec![ORIGIN.into()],
        subprotocols: vec!["a".into(), "b".into()],
        ..UpgradeRules::default()
    };
    let accepted = match upgrade::accept(request, &rules, &Deflate { mode: deflate, window_bits: 12, ..Deflate::default() }) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            assert!(refusal.status() >= 400);
            return;
        }
    };
    let mut origins = request.all_headers().filter(|(name, _)| name.eq_ignore_ascii_case("origin"));
    assert!(origins.all(|(_, value)| value.eq_ignore_ascii_case(ORIGIN.as_bytes())));
    if accepted.deflate.is_some() {
        // Our client offers in one way only; requests may offer in any.
        return;
    }
    let key = request.header("sec-websocket-key").expect("accepted");
    let nonce = STANDARD.decode(key).expect("accepted").try_into().expect("16 bytes");
    let subprotocols: Vec<String> = request.subprotocols().map(str::to_owned).collect();
    let encoded = accepted.encode();
    let opened = client(nonce, subprotocols).read(&encoded, 0).expect("valid").expect("whole");
    assert_eq!(opened.head_bytes, encoded.len());
    assert_eq!(opened.subprotocol.as_deref(), accepted.subprotocol);
}

fn client(nonce: [u8; 16], subprotocols: Vec<String>) -> ClientHandshake {
    let offer = Offer {
        target: "/".into(),
        host: "h".into(),
        subprotocols,
        deflate: DeflateMode::Takeover,
        headers: Vec::new(),
    };
    ClientHandshake::new(offer, nonce)
}

/// The seeds hold the answer to this key.
fn read_answer(bytes: &[u8]) {
    let client = client(*b"the sample nonce", vec!["a".into(), "b".into()]);
    if let Ok(Some(opened)) = client.read(bytes, 0) {
        assert!(opened.head_bytes <= bytes.len());
        assert_eq!(client.read(&bytes[..opened.head_bytes - 1], 0), Ok(None));
    }
}
