//! The log lines of a connection's life, and how the server ends.

use crate::common::client::{BINARY, TEXT, close_frame, frame, upgrade_request};
use crate::common::{Client, Server, TempDir, eventually, percore, process};
use serde_json::{Value, json};
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
    let id = |line: &str| line.split_once("id=").expect("an id").1[..24].to_owned();
    let ids = [id(lines[1]), id(lines[5])];
    assert_ne!(ids[0], ids[1]);
    let after = |line: &str| {
        let time = line.split_once(" after=").and_then(|(_, rest)| rest.split_once("s ")).expect("a time").0;
        assert!(time.parse::<f64>().is_ok_and(|time| time < 60.0) && time.rsplit('.').next().map(str::len) == Some(1));
        time.to_owned()
    };
    let (open, eof) = (" path=/ws", "stream ended without a Close frame");
    let [polite_id, rude_id] = &ids;
    let want = [
        format!("INFO WebSocket connection opened: {polite} id={polite_id}{open}"),
        format!("INFO Received message from {polite}: hello id={polite_id}"),
        format!("INFO Received message from {polite}: 2 bytes, binary id={polite_id}"),
        format!(
            "INFO WebSocket connection closed: {polite} id={polite_id} code=1000 reason=\"done\" after={}s in=2",
            after(lines[4])
        ),
        format!("INFO WebSocket connection opened: {rude} id={rude_id}{open}"),
        // Clients vanish all the time.
        format!("INFO WebSocket error from {rude}: {eof} id={rude_id}"),
        format!(
            "INFO WebSocket connection closed: {rude} id={rude_id} code=1006 reason=\"{eof}\" after={}s in=0",
            after(lines[7])
        ),
        "INFO stopping: telling 0 connections to go".to_owned(),
        "INFO stopped; 2 connections, 2 messages in, 2 out, 1 unclean close".to_owned(),
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
    let objects: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_else(|| panic!("{name}: {line}")).to_owned();
    let log = objects;
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
    let message = format!("Received message from {polite}: hello id={}", ids[0]);
    assert_eq!((field(&log[2], "message"), &log[2]["bytes"]), (message, &json!(6)));
    assert_eq!(
        (&log[4]["code"], field(&log[4], "reason"), &log[4]["in"]),
        (&json!(1000), "done".to_owned(), &json!(2))
    );
    assert!(log[4]["after"].as_f64().is_some_and(|seconds| seconds < 60.0), "{}", log[4]);
    assert_eq!((&log[7]["code"], field(&log[6], "level")), (&json!(1006), "info".to_owned()));
    assert_eq!((&log[9]["upgrades"], &log[9]["received"], &log[9]["sent"]), (&json!(2), &json!(2), &json!(2)));
    for not_kept in ["passes", "message_latency", "bus_published", "bus_participants", "worker"] {
        assert_eq!(log[9].get(not_kept), None, "{}", log[9]);
    }
}

#[test]
fn text_from_a_client_stays_on_its_line() {
    let server = Server::start(&["--log-messages"]);
    let forged = "x\nINFO WebSocket connection closed: 1.2.3.4:5\x1b[31m";
    assert_eq!(server.open().echo(forged), forged);
    let line = server.wait_for_log("Received message");
    assert!(line.contains(": x\\nINFO WebSocket connection closed: 1.2.3.4:5\\u{1b}[31m id="), "{line}");
}

#[test]
fn levels_leave_out_what_lies_below() {
    for (level, want) in [("off", 0), ("error", 0), ("warn", 1)] {
        let log = two_lives_below(level);
        assert_eq!(log.len(), want, "{level}: {log:?}");
        assert!(log.iter().all(|line| without_time(line).starts_with("WARN WebSocket error from unix: ")), "{log:?}");
    }
}

/// As [`two_lives`], where the log is too quiet to say where the server listens; and a third that breaks the protocol.
fn two_lives_below(level: &str) -> Vec<String> {
    let folder = TempDir::new();
    let path = folder.path("s");
    let listen = format!("unix:{}", path.display());
    let args = ["serve", "echo", "--listen", &listen, "--log-messages", "--log-level", level];
    let server = Server::launch(percore(&args), 0);
    crate::common::eventually("the server", || UnixStream::connect(&path).is_ok());
    let open = || {
        let mut client = Client::over(UnixStream::connect(&path).expect("the server accepts"));
        client.upgrade("");
        client
    };
    let (mut polite, rude, mut broken) = (open(), open(), open());
    assert_eq!(polite.echo("hello"), "hello");
    drop(rude);
    // A frame without a mask.
    broken.send([0x81, 0]);
    assert_eq!(broken.closed().0, 1002);
    // Its answer shows that the server has seen the end of the others.
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
        assert_eq!(
            (said("stopping: telling 3 connections to go"), said("connection closed"), said("WebSocket error")),
            (1, 3, 0)
        );
        assert!(log.last().is_some_and(|line| line.contains("INFO stopped; 3 connections")), "{log:?}");
    }
}

#[test]
fn what_is_queued_is_still_sent_before_the_end() {
    let server = Server::start(&["--max-message", "16M", "--max-backlog", "16M"]);
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
    server.wait_for_log("stopping: telling 1 connection to go");
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
    assert!(last.contains("WARN stopped: --drain-timeout cut off 1 connection;"), "{last}");
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
        server.wait_for_log("stopping: telling 1 connection to go");
        server.signal(second);
        let (code, log) = server.wait();
        assert_eq!(code, Some(1), "SIG{first}, SIG{second}");
        assert!(log.iter().any(|line| line.contains("stopped by a second signal with 1 connection open")), "{log:?}");
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
