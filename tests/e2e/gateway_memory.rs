//! What `percore serve gateway` keeps, and how long: waiting events, failing nodes, unused connections.

use crate::common::client::{TEXT, frame};
use crate::common::origin::{Event, Gateway, Origin, request};
use crate::common::{Client, PATIENCE, Server, TempDir, eventually, nginx};
use std::io::{Read, Write};
use std::net::TcpListener;

/// Bytes that the app holds, as the metrics have it.
fn held(server: &Server) -> u64 {
    let text = Client::connect(server.admin()).get("/metrics").body;
    let lines = text.lines().filter(|line| line.starts_with("percore_memory_bytes{") && line.contains("kind=\"app\""));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[test]
fn what_waits_for_the_origin_is_in_the_account() {
    let addr = nginx::free_addr();
    let url = format!("http://{addr}/");
    let args = ["serve", "gateway", "--origin-url", &url, "--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0"];
    let gateway = Gateway::launch(&[&args[..], &["--admin", "127.0.0.1:0", "--origin-patience", "1h2m3.5s"]].concat());
    let before = held(&gateway.server);
    let mut client = gateway.server.open();
    for _ in 0..50 {
        client.send(frame(TEXT, &[b'x'; 10_000]));
    }
    eventually("they are counted", || held(&gateway.server) >= before + 500_000);
    let origin = Origin::start_at(addr, |_| 200);
    origin.wait_for("all messages", |_| {
        origin.events().iter().filter(|event| matches!(event, Event::Text(..))).count() == 50
    });
    eventually("they are not any more", || held(&gateway.server) < before + 100_000);
}

#[test]
fn a_node_that_does_not_answer_is_left_alone() {
    let folder = TempDir::new();
    let key = folder.path("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef").expect("written");
    let flags = ["--cluster-key-file", key.to_str().expect("text"), "--admin", "127.0.0.1:0"];
    let origin = Origin::start(|_| 200);
    let [first, second] = [0, 1].map(|_| Gateway::start(&origin, &flags));
    let _client = first.server.open();
    let id = origin.first_id().replace('/', "%2F").replace('+', "%2B");
    let ask = || request(second.service, "GET", &format!("/connections/{id}"), "", "").status;
    assert_eq!(ask(), 200);
    assert_eq!(second.server.metric("percore_gateway_nodes_out"), 0);
    drop(first);
    eventually("it is left out", || {
        assert_eq!(ask(), 503);
        second.server.metric("percore_gateway_nodes_out") == 1
    });
}

/// Servers end connections that wait for too long, so percore does before; without a further call, too.
#[test]
fn a_connection_to_the_origin_that_nobody_uses_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let args = ["serve", "gateway", "--origin-url", &url, "--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0"];
    let gateway = Gateway::launch(&args);
    let _client = gateway.server.open();
    let (mut stream, _) = listener.accept().expect("a call");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    while !heard.ends_with("\"WebSocketKeepAlives\":null}") {
        let bytes = stream.read(&mut buffer).expect("the call");
        heard.push_str(std::str::from_utf8(&buffer[..bytes]).expect("text"));
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("the answer is taken");
    assert_eq!(stream.read(&mut buffer).expect("its end"), 0);
}
