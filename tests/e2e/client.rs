//! `percore client` with tickers: its output, and its reconnects when a server stalls or goes, or it was itself stopped.

use crate::common::nginx::free_addr;
use crate::common::program::Program;
use crate::common::{Server, eventually, percore};
use percore::internal::apps::ticker::wire::{Request as TickerRequest, Wire};
use percore::{App, Client, CloseReason, ConnectError, ConnectionId, Message, Outbox, Outcome, Target};
use std::collections::HashSet;
use std::net::TcpListener;
use std::time::Duration;
use tungstenite::protocol::CloseFrame;

/// Stalls are noticed soon, and what is lost is tried again soon.
const QUICK: [&str; 6] = ["--ping", "200ms", "--retry", "50ms", "--connect-timeout", "300ms"];

fn feed_at(addr: &str, flags: &[&str]) -> Server {
    let mut args = vec!["serve", "ticker", "--listen", addr, "--log-format", "json"];
    if !flags.contains(&"--tick") {
        args.extend(["--tick", "20ms"]);
    }
    args.extend_from_slice(flags);
    Server::launch(percore(&args), 1)
}

fn feed(flags: &[&str]) -> Server {
    feed_at("127.0.0.1:0", flags)
}

fn client(url: &str, args: &[&str]) -> Program {
    Program::start(percore(&[&["client", url], args].concat()))
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// A client that is interrupted: it has ended well, and what it showed.
fn interrupted(client: Program) -> Vec<String> {
    client.signal("INT");
    let (code, out, err) = client.ends();
    assert_eq!(code, Some(0), "{err:?}");
    out
}

#[test]
fn prices_and_latency_and_a_summary() {
    let server = feed(&[]);
    let client = client(&server.url("/"), &["AAPL", "SPY", "--ping", "50ms"]);
    client.says("percore: connected to ws://127.0.0.1:", 1);
    client.shows("Z AAPL 1", 5);
    client.shows("Z SPY ", 5);
    client.shows("ping answered after ", 3);
    let out = interrupted(client);
    let summary = out.last().expect("a summary");
    let numbers: Vec<f64> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [count, min, median, max] = numbers[..] else { panic!("{summary}") };
    let form = format!("{count} pings answered after min {min:.3} ms, median {median:.3} ms, max {max:.3} ms");
    assert_eq!(*summary, form);
    assert_eq!(count as usize, out.iter().filter(|line| line.starts_with("ping answered")).count());
    assert!(0.0 < min && min <= median && median <= max, "{summary}");
    let closed = server.wait_for_log(r#""event":"close""#);
    assert_eq!(json(&closed)["code"], 1000, "{closed}");
}

#[test]
fn lines_for_machines() {
    let server = feed(&[]);
    let client = client(&server.url("/"), &["AAPL", "CSL.AX", "--ping", "50ms", "--json", "--id", "machine"]);
    client.shows(r#""latency""#, 3);
    client.shows(r#""price""#, 10);
    let out: Vec<_> = interrupted(client).iter().map(|line| json(line)).collect();
    let of = |kind: &str| out.iter().filter(|line| line["type"] == kind).cloned().collect::<Vec<_>>();
    let symbols: HashSet<_> =
        of("price").iter().map(|price| price["symbol"].as_str().expect("text").to_owned()).collect();
    assert_eq!(symbols, ["AAPL", "CSL.AX"].map(str::to_owned).into());
    assert!(of("price").iter().all(|price| price["price"].as_f64() > Some(0.0)));
    assert!(of("price").iter().all(|price| price["time"].as_u64() > Some(1_700_000_000)));
    let (latencies, summary) = (of("latency"), &of("summary")[0]);
    assert_eq!(summary["pings"].as_u64(), Some(latencies.len() as u64));
    let [min, median, max] = ["min", "median", "max"].map(|name| summary[name].as_f64().expect("seconds"));
    assert!(0.0 < min && min <= median && median <= max && max < 60.0, "{summary}");
    assert_eq!(out.last(), Some(summary));
    // Nothing to sum up is said as well.
    let nobody = free_addr();
    let client = self::client(&format!("ws://{nobody}/"), &["AAPL", "--json"]);
    client.says("Connection refused; next attempt in ", 1);
    let out = interrupted(client);
    assert_eq!(out, [r#"{"type":"summary","pings":0,"min":null,"median":null,"max":null}"#]);
}

#[test]
fn a_server_that_stalls_is_given_up_and_found_again() {
    let server = feed(&[]);
    let client = client(&server.url("/"), &[&["AAPL"], &QUICK[..]].concat());
    client.shows("AAPL", 3);
    server.signal("STOP");
    client.says("no data from the server for 0.4 s; next attempt in ", 1);
    // The kernel takes connections for the server; it answers none.
    client.says("handshake not answered in time; next attempt in ", 1);
    let before = client.out().len();
    server.signal("CONT");
    client.says("percore: connected to ", 2);
    eventually("prices again", || client.out().iter().skip(before).any(|line| line.contains("AAPL")));
    interrupted(client);
}

#[test]
fn a_client_that_is_stopped_is_released_and_comes_back() {
    let server = feed(&["--ping", "200ms", "--close-timeout", "300ms"]);
    let client = client(&server.url("/"), &[&["AAPL"], &QUICK[..]].concat());
    client.shows("AAPL", 3);
    client.signal("STOP");
    let line = server.wait_for_log(r#""event":"close""#);
    assert!(matches!(json(&line)["code"].as_u64(), Some(1006 | 1008)), "{line}");
    client.signal("CONT");
    client.says("percore: connected to ", 2);
    let before = client.out().len();
    eventually("prices again", || client.out().iter().skip(before).any(|line| line.contains("AAPL")));
    interrupted(client);
}

#[test]
fn a_server_that_is_restarted_is_found_again() {
    let addr = free_addr().to_string();
    let server = feed_at(&addr, &[]);
    let client = client(&format!("ws://{addr}"), &[&["AAPL"], &QUICK[..]].concat());
    client.shows("AAPL", 3);
    // A server that goes in peace is come back to like any other.
    assert_eq!(server.stop().0, Some(0));
    client.says("closed with 1001: server is going away; next attempt in ", 1);
    client.says("Connection refused; next attempt in ", 1);
    let server = feed_at(&addr, &[]);
    client.says("percore: connected to ", 2);
    let before = client.out().len();
    eventually("prices again", || client.out().iter().skip(before).any(|line| line.contains("AAPL")));
    drop(server);
    client.says("next attempt in ", 3);
    client.signal("TERM");
    assert_eq!(client.ends().0, Some(0));
}

#[test]
fn each_attempt_comes_after_the_same_wait() {
    let nobody = free_addr();
    let client = client(&format!("ws://{nobody}/"), &["AAPL", "--retry", "200ms"]);
    client.says("Connection refused; next attempt in 0.2 s", 4);
    client.signal("INT");
    let (_, _, err) = client.ends();
    assert!(err.iter().all(|line| line.ends_with("next attempt in 0.2 s")), "{err:?}");
}

#[test]
fn without_retry_what_is_lost_is_the_end() {
    let server = feed(&[]);
    let client = client(&server.url("/"), &["AAPL", "--retry", "0"]);
    client.shows("AAPL", 1);
    drop(server);
    let (code, out, err) = client.ends();
    assert_eq!(code, Some(1));
    assert!(out.last().is_some_and(|line| line.starts_with("1 ping answered after min ")), "{out:?}");
    let last = err.last().expect("why");
    assert!(last.starts_with("percore: ws://127.0.0.1:") && !last.contains("next attempt"), "{last}");
}

#[test]
fn how_a_feed_ends_is_the_exit_code() {
    for (code, exit) in [(1000, 0), (1001, 0), (1011, 1)] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = client(&format!("ws://{}/", listener.local_addr().expect("bound")), &["AAPL", "--retry", "0"]);
        let mut socket = tungstenite::accept(listener.accept().expect("a client").0).expect("an upgrade");
        socket.close(Some(CloseFrame { code: code.into(), reason: "enough".into() })).expect("closed");
        while socket.read().is_ok() {}
        drop(socket);
        let (got, _, err) = client.ends();
        assert_eq!(got, Some(exit), "{err:?}");
        assert!(err.last().is_some_and(|line| line.ends_with(&format!("closed with {code}: enough"))), "{err:?}");
    }
}

#[test]
fn a_name_is_tried_at_all_its_addresses() {
    // On a usual machine localhost is ::1 first.
    let server = feed(&[]);
    let client = client(&format!("ws://localhost:{}/", server.addr().port()), &["AAPL", "--retry", "0"]);
    client.shows("AAPL", 1);
    interrupted(client);
    let client = self::client("ws://no.such.host.invalid/", &["AAPL", "--retry", "0"]);
    let (code, _, err) = client.ends();
    assert_eq!(code, Some(1));
    assert!(err[0].contains("cannot find 'no.such.host.invalid'"), "{err:?}");
}

/// Very many clients, each with a subscription of its own kind. Ends when each has had prices.
struct Crowd {
    size: usize,
    opened: usize,
    /// Who has had prices, and how many messages came.
    served: HashSet<ConnectionId>,
    messages: u64,
}

impl App for Crowd {
    type State = Vec<String>;

    fn on_tick(&mut self, _: Duration, out: &mut Outbox) -> Option<Duration> {
        (0..self.size).for_each(|tag| out.connect(0, tag as u64));
        None
    }

    fn on_open(&mut self, id: ConnectionId, request: &percore::Request<'_>, out: &mut Outbox) -> Vec<String> {
        self.opened += 1;
        let tickers = vec!["AAPL".to_owned(), format!("S{}", request.tag() % 50)];
        let wish = TickerRequest { id: format!("client {}", request.tag()), tickers: tickers.clone() };
        out.send_text(id, &Wire::TickerRequest(wish).write());
        tickers
    }

    fn on_message(&mut self, id: ConnectionId, tickers: &mut Vec<String>, mut message: Message<'_>, out: &mut Outbox) {
        match Wire::read(message.text().expect("text")).expect("a message") {
            Wire::TickerChange(changes) => {
                let symbols: Vec<&String> = changes.0.iter().map(|change| &change.symbol).collect();
                // All at first, and then what has changed.
                if self.served.contains(&id) {
                    assert!(
                        !symbols.is_empty() && symbols.iter().all(|symbol| tickers.contains(symbol)),
                        "{symbols:?}"
                    );
                } else {
                    assert_eq!(symbols, tickers.iter().collect::<Vec<_>>());
                }
                self.messages += 1;
                self.served.insert(id);
            }
            Wire::Ping(beat) => {
                out.send_text(id, &Wire::Pong(beat).write());
            }
            other => panic!("{other:?}"),
        }
        if self.served.len() == self.size && self.messages >= 3 * self.size as u64 {
            out.stop();
        }
    }

    fn on_connect_failed(&mut self, _: u64, error: &ConnectError, _: &mut Outbox) {
        panic!("{error}");
    }

    fn on_close(&mut self, _: ConnectionId, _: Vec<String>, reason: &CloseReason, _: &mut Outbox) {
        assert!(reason.clean, "{reason:?}");
    }
}

#[test]
fn thousands_of_clients() {
    percore::internal::os::descriptors::raise_descriptor_limit();
    let server = feed(&["--tick", "500ms", "--ping", "1s"]);
    let size = 2000;
    let target = Target::parse(&server.url("/")).expect("a URL");
    let crowd = Crowd { size, opened: 0, served: HashSet::new(), messages: 0 };
    let (outcome, crowd) = Client::new(crowd).target(target).run().expect("the loop runs");
    assert!(matches!(outcome, Outcome::Drained(_)), "{outcome:?}");
    assert_eq!((crowd.opened, crowd.served.len()), (size, size));
    assert_eq!(server.count_log(r#""event":"error""#), 0, "{:?}", server.log());
}
