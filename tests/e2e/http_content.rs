//! Requests with content, deferred answers, pauses and the service listener, over real sockets.

use crate::common::client::{TEXT, close_frame, frame, upgrade_request};
use crate::common::desk::{Desk, Local};
use crate::common::{Client, eventually};
use percore::{Response, Server, Settings, Upgrade};
use std::io::Write;
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::time::Duration;

fn post(path: &str, content: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{content}", content.len())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// Ends a connection by a reset, as a client that crashes.
fn reset(client: Client) {
    let socket = socket2::Socket::from(client.stream);
    socket.set_linger(Some(Duration::ZERO)).expect("an option");
}

#[test]
fn large_content_goes_there_and_back() {
    let local = Local::start(Settings::default());
    let content = "0123456789abcdef".repeat(1 << 16);
    let mut client = local.connect();
    for _ in 0..3 {
        client.send(post("/echo", &content));
        let got = client.response();
        assert_eq!((got.status, got.body == content), (200, true));
    }
    let mut chunks = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for chunk in content.as_bytes().chunks(10_000) {
        chunks += &format!("{:x};n=\"1\"\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).expect("ASCII"));
    }
    client.send(chunks + "0\r\nTrailer: x\r\n\r\n");
    assert!(client.response().body == content);
    client.send(post("/echo", &(content + "x")));
    assert_eq!((client.response().status, client.rest().len()), (413, 0));
}

#[test]
fn pipelined_requests_with_content_are_answered_in_order() {
    let local = Local::start(Settings::default());
    let mut client = local.connect();
    let mut requests = String::new();
    for number in 0..500 {
        requests += &post("/echo", &format!("number {number}"));
    }
    client.send(requests);
    for number in 0..500 {
        assert_eq!(client.response().body, format!("number {number}"));
    }
}

#[test]
fn content_in_pieces_of_one_byte() {
    let local = Local::start(Settings::default());
    let mut client = local.connect();
    let request =
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\n\r\n";
    for byte in request.bytes() {
        client.send([byte]);
        // Its answer shows that the loop has been through a pass.
        local.ask(|_, _| ());
    }
    assert_eq!(client.response().body, "hi!");
}

#[test]
fn a_client_that_is_too_slow_is_told_so() {
    let settings = Settings {
        handshake_timeout: Duration::from_millis(300),
        http_lifetime: Duration::ZERO,
        ..Settings::default()
    };
    let local = Local::start(settings);
    let mut client = local.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n");
    client.stream.set_nonblocking(true).expect("an option");
    eventually("the answer to slow content", || {
        let _ = client.stream.write(b"x");
        client.stream.peek(&mut [0; 1]).is_ok()
    });
    client.stream.set_nonblocking(false).expect("an option");
    assert_eq!(client.response().status, 408);
}

/// Skipped where there is no curl.
#[test]
fn curl_waits_for_a_100_and_is_told() {
    let local = Local::start(Settings { max_content: 2 << 20, ..Settings::default() });
    let curl = |headers: &[&str], path: &str, content: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-v", "--max-time", "30", "--data-binary", "@-", "-o", "-"]);
        headers.iter().for_each(|header| {
            command.args(["-H", header]);
        });
        command.arg(format!("http://{}{path}", local.addr));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
        child.stdin.take().expect("piped").write_all(content.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        Some((output.stdout, String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let content = "x".repeat(2 << 20);
    let Some((body, said)) = curl(&["Expect: 100-continue"], "/echo", &content) else {
        return eprintln!("not tested: there is no curl");
    };
    assert!(said.contains("< HTTP/1.1 100 Continue") && said.contains("< HTTP/1.1 200 OK"), "{said}");
    assert_eq!(body.len(), content.len());
    let chunked = &["Expect: 100-continue", "Transfer-Encoding: chunked"];
    let (body, said) = curl(chunked, "/echo", &content).expect("curl");
    assert!(said.contains("< HTTP/1.1 100 Continue") && body.len() == content.len(), "{said}");
    let (_, said) = curl(&["Expect: 100-continue"], "/short", &content).expect("curl");
    assert!(said.contains("< HTTP/1.1 413 ") && !said.contains("< HTTP/1.1 100 "), "{said}");
}

#[test]
fn an_answer_comes_later_and_those_behind_it_wait() {
    let local = Local::start(Settings::default());
    let (mut client, mut other) = (local.connect(), local.connect());
    client.send(get("/later") + &post("/echo", "behind") + &get("/later") + &get("/healthz"));
    let first = local.tickets(1)[0];
    // Everybody else is served meanwhile.
    assert_eq!(other.get("/healthz").status, 200);
    assert!(local.ask(move |_, out| out.answer(first, Response::text(202, "now"))));
    assert_eq!((client.response().status, client.response().body.as_str()), (202, "behind"));
    let second = local.tickets(2)[1];
    // What comes while it waits is for later as well.
    client.send(post("/echo", "last"));
    assert!(local.ask(move |_, out| out.answer(second, Response::text(203, "then"))));
    assert_eq!([client.response().status, client.response().status], [203, 200]);
    assert_eq!(client.response().body, "last");
}

#[test]
fn a_client_that_shuts_its_side_hears_an_answer_that_comes_later() {
    let local = Local::start(Settings::default());
    let mut client = local.connect();
    client.send(get("/later"));
    client.stream.shutdown(Shutdown::Write).expect("connected");
    let ticket = local.tickets(1)[0];
    assert!(local.ask(move |_, out| out.answer(ticket, Response::new(204))));
    assert_eq!(client.response().status, 204);
    client.ends();
}

#[test]
fn nobody_waits_for_an_answer_once_the_client_has_left() {
    let local = Local::start(Settings { answer_timeout: Duration::from_secs(3600), ..Settings::default() });
    let dead = |index: usize| {
        eventually("the end of a ticket", || local.ask(move |desk, out| !out.awaits(desk.tickets[index])));
        local.ask(move |desk, out| {
            let ticket = desk.tickets[index];
            out.answer(ticket, Response::new(200)) || out.accept_upgrade(ticket, Upgrade::new())
        })
    };
    // A reset, with a request behind that was not read; of an upgrade, the end of the stream as well, whenever it comes.
    let mut client = local.connect();
    client.send(get("/later") + &get("/healthz"));
    local.tickets(1);
    reset(client);
    assert!(!dead(0));
    let mut client = local.connect();
    client.send(upgrade_request("/ws?later", ""));
    local.tickets(2);
    drop(client);
    assert!(!dead(1));
    let mut client = local.connect();
    client.send([upgrade_request("/ws?later", "").as_bytes(), &frame(TEXT, b"ahead")].concat());
    client.stream.shutdown(Shutdown::Write).expect("connected");
    local.tickets(3);
    assert!(!dead(2));
    assert!(local.ask(|desk, _| desk.opened.is_empty()));
}

#[test]
fn an_upgrade_is_accepted_later() {
    let local = Local::start(Settings::default());
    let mut client = local.connect();
    client.send([upgrade_request("/ws?later", "").as_bytes(), &frame(TEXT, b"ahead")].concat());
    let ticket = local.tickets(1)[0];
    let upgrade = Upgrade::new().tag(42).header("X-Node", "7").expect("a header");
    assert!(local.ask(move |_, out| out.accept_upgrade(ticket, upgrade)));
    let answer = client.head_response();
    assert_eq!((answer.status, answer.header("x-node")), (101, Some("7")));
    assert_eq!((client.text().as_str(), client.echo("hello").as_str()), ("ahead", "hello"));
    assert_eq!(local.ask(|desk, _| desk.opened.clone()), [(42, None)]);
}

#[test]
fn a_paused_connection_is_not_read_from() {
    let local = Local::start(Settings::default());
    let mut client = local.connect();
    client.upgrade("");
    let texts = ["pause", "one", "two"].map(|text| frame(TEXT, text.as_bytes()));
    client.send(texts.concat());
    assert_eq!(client.text(), "pause");
    client.send(frame(TEXT, b"three"));
    let mut other = local.connect();
    other.upgrade("");
    assert_eq!(other.echo("meanwhile"), "meanwhile");
    assert_eq!(local.ask(|desk, _| desk.messages.clone()), ["pause", "meanwhile"]);
    // It can be sent to.
    local.ask(|desk, out| out.send_text(desk.open[0], "still here"));
    assert_eq!(client.text(), "still here");
    local.ask(|desk, out| out.resume(desk.open[0]));
    assert_eq!([client.text(), client.text(), client.text()], ["one", "two", "three"]);
    client.send([frame(TEXT, b"pause"), close_frame(1000, "bye")].concat());
    assert_eq!(client.text(), "pause");
    local.ask(|desk, out| out.resume(desk.open[0]));
    assert_eq!(client.closed().0, 1000);
}

#[test]
fn a_client_that_floods_a_paused_connection_fills_its_own_socket() {
    let local = Local::start(Settings { max_message: 1 << 20, ..Settings::default() });
    let mut client = local.connect();
    client.upgrade("");
    client.send(frame(TEXT, b"pause"));
    assert_eq!(client.text(), "pause");
    client.stream.set_nonblocking(true).expect("an option");
    let message = frame(TEXT, &[b'x'; 60_000]);
    let mut sent = 0;
    // Loopback sockets take some megabytes, and no more.
    while client.stream.write_all(&message).is_ok() {
        sent += message.len();
        assert!(sent < 256 << 20, "the server reads on");
    }
    assert_eq!(local.ask(|desk, _| desk.messages.len()), 1);
}

#[test]
fn a_drain_waits_for_an_answer() {
    let local = Local::start(Settings::default());
    let mut client = local.connect();
    client.send(get("/later"));
    let ticket = local.tickets(1)[0];
    local.ask(|_, out| out.stop());
    eventually("the drain", || local.ask(|_, out| out.stats().draining == 1));
    assert!(local.ask(move |_, out| out.answer(ticket, Response::text(200, "at last"))));
    let got = client.response();
    assert_eq!((got.body.as_str(), got.header("connection")), ("at last\n", Some("close")));
    client.ends();
}

#[test]
fn the_service_listener_is_for_the_service() {
    let local = Local::start(Settings { service_token: Some("secret".into()), ..Settings::default() });
    let mut service = Client::connect(local.service);
    let ask = |service: &mut Client, path: &str, token: &str| {
        service.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{token}\r\n"));
        service.response().status
    };
    let token = "Authorization: Bearer secret\r\n";
    assert_eq!(ask(&mut service, "/api", token), 200);
    assert_eq!(ask(&mut service, "/ws", token), 404);
    assert_eq!(ask(&mut service, "/readyz", ""), 200);
    service.send(upgrade_request("/ws", token));
    let refused = service.response();
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("WebSockets are opened on the public one"), "{}", refused.body);
    assert_eq!(ask(&mut service, "/api", token), 200);
    let mut other = Client::connect(local.service);
    assert_eq!(ask(&mut other, "/api", ""), 401);
    other.ends();
    let mut public = local.connect();
    assert_eq!(ask(&mut public, "/api", token), 404);
    assert_eq!(ask(&mut public, "/readyz", token), 404);
    assert_eq!(local.connect().upgrade("").status, 101);
}

#[test]
fn a_service_that_anybody_could_reach_is_refused_at_the_start() {
    let server = || Server::new(Desk::default()).listen_service("0.0.0.0:0").expect("a port");
    let said = server().run().expect_err("refused").to_string();
    assert!(said.contains("0.0.0.0:") && said.contains("--service-token-file"), "{said}");
}
