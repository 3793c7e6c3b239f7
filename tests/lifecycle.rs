//! What the log says of a connection's life, and how the server ends.

mod common;

use common::client::{BINARY, TEXT, close_frame, frame, upgrade_request};
use common::{Client, Server, TempDir, eventually, percore, process};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

/// A line of the text format without its time, of which the shape is checked.
fn without_time(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no time: {line}"));
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{line}");
    rest
}

/// One connection that says hello and goes properly, and one that just goes. Gives their addresses and the log.
fn two_lives(flags: &[&str]) -> (String, String, Vec<String>) {
    let server = Server::start(flags);
    let mut polite = server.open();
    assert_eq!(polite.echo("hello\n"), "hello\n");
    polite.send(frame(BINARY, &[0, 255]));
    assert_eq!(polite.frame().payload, [0, 255]);
    polite.send(close_frame(1000, "done"));
    assert_eq!(polite.closed().0, 1000);
    let polite = polite.addr().to_string();
    server.wait_for_log("connection closed");
    let rude = server.open();
    let addr = rude.addr().to_string();
    drop(rude);
    server.wait_for_log("WebSocket error");
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    (polite, addr, log)
}

#[test]
fn one_line_for_each_event() {
    let (polite, rude, log) = two_lives(&["--log-messages"]);
    let lines: Vec<&str> = log.iter().map(|line| without_time(line)).collect();
    let listen = lines[0].strip_prefix("INFO Starting server on 127.0.0.1:");
    assert!(listen.is_some_and(|rest| rest.ends_with("...")), "{}", lines[0]);
    let want = [
        format!("INFO WebSocket connection opened: {polite}"),
        format!("INFO Received message from {polite}: hello"),
        format!("INFO Received message from {polite}: 2 bytes, binary"),
        format!("INFO WebSocket connection closed: {polite}"),
        format!("INFO WebSocket connection opened: {rude}"),
        format!("WARN WebSocket error from {rude}: stream ended without a Close frame"),
        format!("INFO WebSocket connection closed: {rude}"),
        "INFO stopping: 0 connections are told to go".to_owned(),
        "INFO stopped; 2 connections, 2 messages in, 2 out, 1 unclean closes".to_owned(),
    ];
    assert_eq!(lines[1..], want);
}

#[test]
fn messages_have_no_line_unless_asked_for() {
    let (_, _, log) = two_lives(&[]);
    assert!(log.iter().all(|line| !line.contains("Received message")), "{log:?}");
    assert_eq!(log.len(), 8, "all other lines are there: {log:?}");
}

#[test]
fn json_has_the_same_events_with_their_fields() {
    let (polite, rude, log) = two_lives(&["--log-messages", "--log-format", "json"]);
    let field = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":\"")).unwrap_or_else(|| panic!("no {name}: {line}"));
        rest.split('"').next().map(str::to_owned).unwrap_or_default()
    };
    let events: Vec<String> = log.iter().map(|line| field(line, "event")).collect();
    assert_eq!(
        events,
        ["start", "open", "message", "message", "close", "open", "error", "close", "drain", "stop"],
        "{log:?}"
    );
    for (index, peer) in [(1, &polite), (2, &polite), (3, &polite), (4, &polite), (5, &rude), (6, &rude), (7, &rude)] {
        assert_eq!(&field(&log[index], "peer"), peer);
    }
    let ids: Vec<String> = log[1..8].iter().map(|line| field(line, "id")).collect();
    assert!(ids[..4].iter().all(|id| *id == ids[0]) && ids[4..].iter().all(|id| *id == ids[4]) && ids[0] != ids[4]);
    assert_eq!((field(&log[1], "path"), field(&log[1], "level")), ("/ws".to_owned(), "info".to_owned()));
    assert_eq!(
        (field(&log[2], "message"), field(&log[2], "bytes")),
        (format!("Received message from {polite}: hello"), "6".to_owned())
    );
    assert_eq!((field(&log[4], "code"), field(&log[4], "reason")), ("1000".to_owned(), "done".to_owned()));
    assert_eq!((field(&log[7], "code"), field(&log[6], "level")), ("1006".to_owned(), "warn".to_owned()));
    assert_eq!(field(&log[9], "upgrades"), "2");
}

#[test]
fn text_from_a_client_stays_on_its_line() {
    let server = Server::start(&["--log-messages"]);
    let forged = "x\nINFO WebSocket connection closed: 1.2.3.4:5\x1b[31m";
    assert_eq!(server.open().echo(forged), forged);
    let line = server.wait_for_log("Received message");
    assert!(line.ends_with("x\\nINFO WebSocket connection closed: 1.2.3.4:5\\u{1b}[31m"), "{line}");
}

#[test]
fn levels_leave_out_what_lies_below() {
    for (level, want) in [
        ("off", &[][..]),
        ("error", &[]),
        ("warn", &["WARN WebSocket error from unix: stream ended without a Close frame"]),
    ] {
        let log = two_lives_below(level);
        let lines: Vec<&str> = log.iter().map(|line| without_time(line)).collect();
        assert_eq!(lines, want, "{level}");
    }
}

/// As [`two_lives`], where the log is too quiet to say where the server listens.
fn two_lives_below(level: &str) -> Vec<String> {
    let folder = TempDir::new();
    let path = folder.path("s");
    let listen = format!("unix:{}", path.display());
    let args = ["serve", "echo", "--listen", &listen, "--log-messages", "--log-level", level];
    let server = Server::launch(percore(&args), 0);
    common::eventually("the server", || UnixStream::connect(&path).is_ok());
    let open = || {
        let mut client = Client::over(UnixStream::connect(&path).expect("the server accepts"));
        client.upgrade("");
        client
    };
    let (mut polite, rude) = (open(), open());
    assert_eq!(polite.echo("hello"), "hello");
    drop(rude);
    // Its answer shows that the server has seen the end of the other.
    assert_eq!(polite.echo("hello"), "hello");
    polite.send(close_frame(1000, ""));
    assert_eq!(polite.closed().0, 1000);
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    log
}

#[test]
fn a_signal_tells_everyone_and_ends_well() {
    for signal in ["TERM", "INT"] {
        let server = Server::start(&[]);
        let mut clients: Vec<Client> = (0..3).map(|_| server.open()).collect();
        assert_eq!(clients[0].echo("still here"), "still here");
        let mut idle = server.connect();
        assert_eq!(idle.get("/healthz").status, 200);
        server.signal(signal);
        for client in &mut clients {
            assert_eq!(client.closed(), (1001, "server is going away".to_owned()));
            client.send(close_frame(1001, ""));
            client.ends();
        }
        idle.ends();
        let (code, log) = server.wait();
        assert_eq!(code, Some(0), "SIG{signal}");
        let said = |text: &str| log.iter().filter(|line| line.contains(text)).count();
        assert_eq!((said("stopping: 3 connections"), said("connection closed"), said("WebSocket error")), (1, 3, 0));
        assert!(log.last().is_some_and(|line| line.contains("INFO stopped; 3 connections")), "{log:?}");
    }
}

#[test]
fn what_is_queued_is_still_sent_before_the_end() {
    let server = Server::start(&[]);
    let mut client = server.open();
    // Far more than socket buffers hold, so that much of it waits in the server when the signal comes.
    let payload = vec![b'x'; 15 << 20];
    client.send(frame(BINARY, &payload));
    client.send(frame(TEXT, b"last"));
    let first = client.frame();
    server.signal("TERM");
    assert!(first.payload == payload);
    assert_eq!(client.text(), "last");
    assert_eq!(client.closed().0, 1001);
    client.send(close_frame(1001, ""));
    client.ends();
    assert_eq!(server.wait().0, Some(0));
}

/// Closing a listener resets whoever waits to be accepted.
#[test]
fn requests_in_the_backlog_are_answered_before_the_end() {
    for workers in ["1", "2"] {
        let server = Server::start(&["--workers", workers, "--admin", "off", "--drain-timeout", "60s"]);
        let mut client = server.open();
        assert_eq!(client.echo("all serve"), "all serve");
        let mut all = process::children(server.child().id());
        all.push(server.child().id());
        all.iter().for_each(|pid| process::signal(*pid, "STOP"));
        let mut waiting: Vec<Client> = (0..200).map(|_| server.connect()).collect();
        let (plain, upgrades) = waiting.split_at_mut(100);
        plain.iter_mut().for_each(|client| client.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"));
        upgrades.iter_mut().for_each(|client| client.send(upgrade_request("/ws", "")));
        server.signal("TERM");
        all.iter().for_each(|pid| process::signal(*pid, "CONT"));
        for client in plain {
            assert_eq!(client.response().status, 200);
            client.ends();
        }
        for client in upgrades {
            assert_eq!(client.head_response().status, 101);
            assert_eq!(client.closed().0, 1001);
            client.send(close_frame(1001, ""));
        }
        assert_eq!(client.closed().0, 1001);
        client.send(close_frame(1001, ""));
        drop((client, waiting));
        assert_eq!(server.wait().0, Some(0), "{workers}");
    }
}

#[test]
fn nobody_new_is_let_in_while_draining() {
    let server = Server::start(&["--drain-timeout", "60s", "--close-timeout", "60s"]);
    let (mut client, mut asking) = (server.open(), server.connect());
    let request = upgrade_request("/ws", "");
    let (first, second) = request.split_at(40);
    asking.send(first);
    // Its answer shows that the server has read the half request before.
    assert_eq!(client.echo("x"), "x");
    server.signal("TERM");
    assert_eq!(client.closed().0, 1001);
    server.wait_for_log("stopping: 1 connections");
    let refused = TcpStream::connect(server.addr());
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused), "the listener is closed");
    asking.send(second);
    let got = asking.response();
    assert_eq!((got.status, got.header("connection")), (503, Some("close")));
    asking.ends();
    drop(asking);
    client.send(close_frame(1001, ""));
    client.ends();
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn the_drain_timeout_cuts_off_who_does_not_answer() {
    let server = Server::start(&["--drain-timeout", "300ms", "--close-timeout", "60s"]);
    let (mut silent, half) = (server.open(), server.connect());
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    let last = log.last().expect("a last line");
    assert!(last.contains("WARN stopped: 1 connections were cut off by --drain-timeout"), "{last}");
    assert_eq!(silent.closed().0, 1001);
    silent.ends();
    drop(half);
}

#[test]
fn the_close_timeout_ends_who_does_not_answer() {
    let server = Server::start(&["--drain-timeout", "60s", "--close-timeout", "200ms"]);
    let mut silent = server.open();
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    assert!(log.iter().any(|line| line.contains("Close frame not answered in time")), "{log:?}");
    assert!(log.last().is_some_and(|line| line.contains("INFO stopped; ")), "{log:?}");
    assert_eq!(silent.closed().0, 1001);
    silent.ends();
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let server = Server::start(&["--drain-timeout", "1h", "--close-timeout", "1h"]);
        let _silent = server.open();
        server.signal(first);
        server.wait_for_log("stopping: 1 connections");
        server.signal(second);
        let (code, log) = server.wait();
        assert_eq!(code, Some(1), "SIG{first}, SIG{second}");
        assert!(log.iter().any(|line| line.contains("stopped by a second signal with 1 connections open")), "{log:?}");
    }
}

#[test]
fn a_signal_right_after_the_start_drains_as_well() {
    for _ in 0..20 {
        assert_eq!(Server::start(&[]).stop().0, Some(0));
    }
}

#[test]
fn a_large_message_has_its_line_too() {
    let server = Server::start(&["--log-messages"]);
    let mut client = server.open();
    client.send(frame(BINARY, &[7; 300_000]));
    assert_eq!(client.frame().payload.len(), 300_000);
    server.wait_for_log("300000 bytes, binary");
}

#[test]
fn looks_out_before_sleeping_as_long_as_it_is_told() {
    let server = Server::start(&["--busy-poll", "1000000"]);
    let pid = server.child().id();
    let mut client = server.open();
    assert_eq!(client.echo("soon"), "soon");
    let before = process::ticks(pid);
    eventually("looking out", || process::ticks(pid) >= before + 10);
    assert_eq!(client.echo("soon"), "soon");
    eventually("sleep, with nothing to do", || process::status(pid, "State").starts_with('S'));
}
