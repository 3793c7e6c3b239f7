//! The opening handshake: the server's half with the headers of a browser behind a proxy, and the client's half.

use criterion::{Criterion, criterion_group, criterion_main};
use percore::internal::protocol::client::{ClientHandshake, Offer};
use percore::internal::protocol::http::{self, MAX_HEADERS};
use percore::internal::protocol::upgrade;
use percore::{Deflate, DeflateMode, Peer, UpgradeRules};
use std::hint::black_box;
use std::time::Duration;

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: example.org\r\nX-Forwarded-For: 192.0.2.7\r\n\
    X-Forwarded-Proto: https\r\nConnection: upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nOrigin: https://example.org\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

/// From the request's bytes to those of the answer.
fn answer(request: &[u8], rules: &UpgradeRules) -> Vec<u8> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let end = http::head_end(request, 0).expect("a whole head");
    let request = http::parse(&request[..end], &mut headers, Peer::UNIX).expect("a request");
    assert!(upgrade::is_asked(&request));
    upgrade::accept(&request, rules, &Deflate::default()).expect("an upgrade").encode()
}

fn server(c: &mut Criterion) {
    let rules = UpgradeRules::default();
    c.bench_function("upgrade/server", |b| b.iter(|| answer(black_box(REQUEST), &rules)));
}

fn client(c: &mut Criterion) {
    let offer = Offer {
        target: "/ws".into(),
        host: "example.org".into(),
        subprotocols: Vec::new(),
        deflate: DeflateMode::NoTakeover,
        headers: Vec::new(),
    };
    c.bench_function("upgrade/client_request", |b| {
        b.iter(|| ClientHandshake::new(black_box(&offer).clone(), [7; 16]).request());
    });
    let handshake = ClientHandshake::new(offer, [7; 16]);
    let answer = answer(&handshake.request(), &UpgradeRules::default());
    c.bench_function("upgrade/client_read", |b| {
        b.iter(|| handshake.read(black_box(&answer), 0).expect("an answer"));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = server, client
}
criterion_main!(benches);
