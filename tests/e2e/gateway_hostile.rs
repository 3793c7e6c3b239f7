//! `percore serve gateway` before an origin that answers what it should not: that ends the connection which it was about, and
//! no other, and costs no memory.

use crate::common::client::{TEXT, close_frame, frame};
use crate::common::origin::{Event, Gateway, Heard, Origin, Reply, most_resident, open_many, resident};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Barrier};

/// What it answers to a message that names it.
fn answer(heard: &Heard) -> Reply {
    let Event::Text(_, text) = heard.event() else { return 200.into() };
    let with = |headers| Reply { status: 200, headers, body: Vec::new() };
    match text.as_str() {
        "a long header" => with(vec![("X-Long", "x".repeat(3 << 20))]),
        "many headers" => with((0..1000).map(|number| ("X-Many", number.to_string())).collect()),
        "two lengths" => with(vec![("Content-Length", "5".to_owned())]),
        "a broken header" => with(vec![("X Broken", "y".to_owned())]),
        "a long body" => Reply { status: 200, headers: Vec::new(), body: vec![b'x'; 3 << 20] },
        "no status" => 7.into(),
        "switched" => 101.into(),
        "moved" => Reply { status: 302, headers: vec![("Location", "http://127.0.0.1:1/".into())], body: Vec::new() },
        _ => 200.into(),
    }
}

const BAD: [&str; 8] = [
    "a long header",
    "many headers",
    "two lengths",
    "a broken header",
    "a long body",
    "no status",
    "switched",
    "moved",
];

#[test]
fn bad_answers_end_the_connection_that_they_are_about() {
    let origin = Origin::start(answer);
    let gateway = Gateway::start(&origin, &["--admin", "127.0.0.1:0"]);
    let mut good = gateway.server.open();
    for (number, bad) in BAD.into_iter().enumerate() {
        let mut client = gateway.server.open();
        client.send(frame(TEXT, bad.as_bytes()));
        assert_eq!(client.closed().0, 1011, "{bad}");
        client.send(close_frame(1011, ""));
        client.ends();
        good.send(frame(TEXT, format!("good {number}").as_bytes()));
        origin.wait_for(
            &format!("others after {bad}"),
            |event| matches!(event, Event::Text(_, text) if *text == format!("good {number}")),
        );
    }
    origin.wait_for_closed(BAD.len());
    assert_eq!(gateway.server.metric("percore_gateway_events_dropped_total"), BAD.len() as u64);
}

/// Many answers at a time whose heads have no end.
#[test]
fn heads_without_end_cost_little() {
    const NUMBER: usize = 100;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let all_have_asked = Arc::new(Barrier::new(NUMBER));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let all_have_asked = Arc::clone(&all_have_asked);
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                all_have_asked.wait();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ");
                let _ = stream.write_all(&vec![b'x'; 300_000]);
                // And then nothing.
                let _ = stream.read(&mut [0; 4096]);
            });
        }
    });
    let args = ["serve", "gateway", "--origin-url", &url, "--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0"];
    let gateway = Gateway::launch(&args);
    let before = resident(&gateway);
    for mut client in open_many(gateway.server.addr(), NUMBER) {
        assert_eq!(client.closed().0, 1011);
    }
    let most = most_resident(&gateway);
    assert!(most < before + (20 << 20), "{before} bytes became {most}");
}

/// A body that comes byte by byte is waited for no longer than a call may take.
#[test]
fn a_body_that_trickles_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
                while stream.write_all(b"x").is_ok() {
                    std::thread::yield_now();
                }
            });
        }
    });
    let args = ["serve", "gateway", "--origin-url", &url, "--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0"];
    let gateway = Gateway::launch(&[&args[..], &["--origin-timeout", "300ms"]].concat());
    let mut client = gateway.server.open();
    assert_eq!(client.closed().0, 1011);
}

/// A close has its reason also where that is not ASCII.
#[test]
fn the_reason_of_a_close_arrives() {
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &[]);
    let mut client = gateway.server.open();
    origin.first_id();
    client.send(close_frame(4000, "tschüß"));
    origin.wait_for_closed(1);
    let heard = origin.heard();
    let closed = heard.iter().find(|heard| matches!(heard.event(), Event::Closed(_))).expect("just found");
    assert_eq!(closed.header("percore-close-reason"), Some("tschüß"));
    assert_eq!(closed.header("percore-close-code"), Some("4000"));
}
