//! The metrics of `percore serve gateway`, each made to say something.

use crate::common::client::{TEXT, frame};
use crate::common::origin::{Event, Gateway, Heard, Origin, outgoing, request};
use crate::common::{Client, eventually, nginx};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

/// The metrics of origins and the gateway, by name and the labels but that of the worker.
fn metrics(gateway: &Gateway) -> HashMap<String, f64> {
    let text = Client::connect(gateway.server.admin()).get("/metrics").body;
    let lines = text.lines().filter(|line| line.starts_with("percore_origin") || line.starts_with("percore_gateway"));
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let name = name.replace("worker=\"0\",", "").replace("{worker=\"0\"}", "");
        (name.trim_start_matches("percore_").to_owned(), value.parse().expect("a number"))
    };
    lines.map(value).collect()
}

/// Waits until metrics have these values.
fn until(gateway: &Gateway, wanted: &[(&str, f64)]) {
    let mut have = HashMap::new();
    let holds = |have: &HashMap<String, f64>| wanted.iter().all(|(name, value)| have.get(*name) == Some(value));
    eventually(&format!("{wanted:?}"), || {
        have = metrics(gateway);
        holds(&have)
    });
}

#[test]
fn calls_are_counted_by_what_became_of_them() {
    let holds = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&holds);
    let origin = Origin::start(move |heard: &Heard| match heard.event() {
        Event::Text(_, text) if text == "wait" => {
            eventually("its release", || !held.load(Ordering::SeqCst));
            200
        }
        Event::Text(_, text) if text == "refuse" => 404,
        _ => 200,
    });
    let gateway = Gateway::start(&origin, &[&ADMIN[..], &["--origin-calls", "1"]].concat());
    let mut client = gateway.server.open();
    until(&gateway, &[("origin_calls_total{outcome=\"taken\"}", 1.0), ("origin_calls_in_flight", 0.0)]);
    client.send(frame(TEXT, b"wait"));
    client.send(frame(TEXT, b"refuse"));
    let waiting = [("gateway_events_waiting", 2.0), ("gateway_event_bytes_waiting", 10.0)];
    until(&gateway, &[&waiting[..], &[("origin_calls_in_flight", 1.0)]].concat());
    holds.store(false, Ordering::SeqCst);
    assert_eq!(client.closed().0, 1011);
    drop(client);
    let calls = [("origin_calls_total{outcome=\"taken\"}", 3.0), ("origin_calls_total{outcome=\"refused\"}", 1.0)];
    let rest =
        [("gateway_events_waiting", 0.0), ("gateway_event_bytes_waiting", 0.0), ("gateway_events_dropped_total", 1.0)];
    until(&gateway, &[&calls[..], &rest].concat());
    // The four calls, of which one took a while.
    let all = metrics(&gateway);
    assert_eq!(all["origin_call_seconds_count"], 4.0);
    assert!(all["origin_call_seconds_sum"] > 0.0);
    assert_eq!(all["origin_call_seconds_bucket{le=\"+Inf\"}"], 4.0);
}

#[test]
fn what_an_origin_that_is_away_costs_is_counted() {
    let addr = nginx::free_addr();
    let origin = Origin::start_at(addr, |_| 200);
    let patience = ["--origin-patience", "60s", "--closed-retry", "1s"];
    let gateway = Gateway::start(&origin, &[&ADMIN[..], &patience].concat());
    let (mut stays, leaves) = (gateway.server.open(), gateway.server.open());
    eventually("both are known", || origin.events().len() == 2);
    drop(origin);
    drop(leaves);
    until(&gateway, &[("gateway_closed_pending", 1.0), ("origins_out", 1.0)]);
    let all = metrics(&gateway);
    assert!(all["origin_retries_total"] > 0.0 && all["origin_calls_total{outcome=\"unsent\"}"] > 0.0, "{all:?}");
    until(&gateway, &[("gateway_closed_given_up_total", 1.0), ("gateway_closed_pending", 0.0)]);
    stays.send(frame(TEXT, b"later"));
    until(&gateway, &[("gateway_events_waiting", 1.0)]);
    let _origin = Origin::start_at(addr, |_| 200);
    until(&gateway, &[("origins_out", 0.0), ("gateway_events_waiting", 0.0)]);
}

#[test]
fn deliveries_are_counted_by_what_became_of_them() {
    let origin = Origin::start(|_| 200);
    let slow = ["--slow-consumer", "drop", "--max-backlog", "100K"];
    let gateway = Gateway::start(&origin, &[&ADMIN[..], &slow].concat());
    let (client, reads_nothing) = (gateway.server.open(), gateway.server.open());
    eventually("both are known", || origin.events().len() == 2);
    let (first, second) = (origin.events()[0].id().to_owned(), origin.events()[1].id().to_owned());
    let mut forged = first.clone();
    forged.replace_range(forged.len() - 6..forged.len() - 4, "xx");
    let send = |id: &str, text: &str| gateway.post("/sr", "", &outgoing(&[id], text)).status;
    assert_eq!([send(&first, "a"), send(&second, "b"), send(&forged, "c")], [200; 3]);
    until(
        &gateway,
        &[("gateway_deliveries_total{outcome=\"queued\"}", 2.0), ("gateway_deliveries_total{outcome=\"forged\"}", 1.0)],
    );
    drop(client);
    origin.wait_for_closed(1);
    let closed = origin.wait_for("its end", |event| matches!(event, Event::Closed(_))).id().to_owned();
    let other = if closed == first { &second } else { &first };
    assert_eq!(send(&closed, "d"), 200);
    until(&gateway, &[("gateway_deliveries_total{outcome=\"gone\"}", 1.0)]);
    let long = "x".repeat(50_000);
    eventually("its backlog is full", || {
        assert_eq!(send(other, &long), 200);
        metrics(&gateway)["gateway_deliveries_total{outcome=\"dropped\"}"] > 0.0
    });
    // A worker that is no more, of a host that has one only, is gone; a node that is no more cannot be reached.
    let path = format!("/connections/{}", closed.replace('/', "%2F").replace('+', "%2B"));
    assert_eq!(request(gateway.service, "GET", &path, "", "").status, 404);
    drop(reads_nothing);
}

#[test]
fn a_node_that_is_away_is_counted() {
    let folder = crate::common::TempDir::new();
    std::fs::write(folder.path("key"), "0123456789abcdef0123456789abcdef").expect("written");
    let key = folder.path("key").to_str().expect("text").to_owned();
    let origin = Origin::start(|_| 200);
    let [away, here] = [0, 1].map(|_| Gateway::start(&origin, &[&ADMIN[..], &["--cluster-key-file", &key]].concat()));
    let client = away.server.open();
    let id = origin.first_id();
    drop((away, client));
    assert_eq!(here.post("/sr", "", &outgoing(&[&id], "x")).status, 200);
    until(&here, &[("gateway_deliveries_total{outcome=\"unreachable\"}", 1.0)]);
}
