//! `percore serve gateway` under load, while what it is made of fails: workers, and the origin.

use crate::common::client::{TEXT, frame};
use crate::common::origin::{Event, Gateway, Heard, Origin, open_many, outgoing, resident};
use crate::common::stories::{Stories, Talkers, untold};
use crate::common::{Client, eventually, nginx, process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

/// Of every connection that a client had, the origin is told one end, whoever was killed; and all that it was told is in order.
#[test]
fn fifty_workers_are_killed_and_every_connection_has_one_end() {
    let stories = Stories::default();
    let told = stories.clone();
    let origin = Origin::start(move |heard: &Heard| {
        told.add(heard);
        200
    });
    let gateway = Gateway::start(&origin, &[&ADMIN[..], &["--workers", "8"]].concat());
    let talkers = Talkers::start(gateway.server.addr(), 8);
    let mut killed = Vec::new();
    while killed.len() < 50 {
        let (before, _) = stories.count();
        let mut others = Vec::new();
        eventually("a worker", || {
            others = process::children(gateway.server.child().id());
            others.retain(|pid| !killed.contains(pid));
            !others.is_empty()
        });
        let next = others[killed.len() % others.len()];
        process::signal(next, "KILL");
        killed.push(next);
        eventually("others are served", || stories.count().0 >= before + 4);
    }
    let accepted = talkers.stop();
    eventually("all ends are told", || {
        let (begun, ended) = stories.count();
        begun == ended && begun >= accepted && gateway.server.metric("percore_gateway_closed_pending") == 0
    });
    assert_eq!(gateway.server.metric("percore_gateway_closed_given_up_total"), 0);
    assert_eq!(gateway.server.metric("percore_worker_restarts_total"), 50);
    let all = stories.assert_whole();
    assert_eq!(untold(&all), 0);
    let ended_by = |code: &str| all.iter().filter(|story| story.ends[0].1 == code).count();
    assert!(ended_by("1000") > 0 && ended_by("1006") > 0, "{} connections", all.len());
    let (code, log) = gateway.server.stop();
    assert_eq!(code, Some(0), "{log:#?}");
}

/// The origin is killed and comes back, over and over, with requests under way.
#[test]
fn an_origin_that_is_killed_under_traffic() {
    let (addr, stories) = (nginx::free_addr(), Stories::default());
    let begin = || {
        let told = stories.clone();
        Origin::start_at(addr, move |heard: &Heard| {
            told.add(heard);
            200
        })
    };
    let mut origin = begin();
    let gateway = Gateway::start(&origin, &[&ADMIN[..], &["--origin-patience", "60s"]].concat());
    let talkers = Talkers::start(gateway.server.addr(), 8);
    for _ in 0..5 {
        let (before, _) = stories.count();
        eventually("traffic", || stories.count().0 >= before + 20);
        drop(origin);
        eventually("it is left out", || gateway.server.metric("percore_origins_out") == 1);
        origin = begin();
        eventually("it is called again", || gateway.server.metric("percore_origins_out") == 0);
    }
    let accepted = talkers.stop();
    eventually("all ends are told", || {
        let (begun, ended) = stories.count();
        begun == ended && begun >= accepted && gateway.server.metric("percore_gateway_closed_pending") == 0
    });
    assert!(gateway.server.metric("percore_origin_retries_total") > 0);
    assert_eq!(gateway.server.metric("percore_gateway_closed_given_up_total"), 0);
    // What an origin that had it did not answer is not sent again, nor is what came behind it; that is counted.
    let untold = untold(&stories.assert_whole());
    assert!(untold == 0 || gateway.server.metric("percore_gateway_events_dropped_total") > 0, "{untold} messages");
    drop(origin);
}

/// An origin that takes its time with the messages of some clients costs neither others' time nor memory, however much these
/// clients send.
#[test]
fn a_slow_origin_is_felt_by_nobody_else() {
    let (holds, released) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (held, told) = (Arc::clone(&holds), Arc::clone(&released));
    let quick = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&quick);
    let origin = Origin::start(move |heard: &Heard| {
        match heard.event() {
            Event::Text(_, text) if text.starts_with("slow") => {
                eventually("its release", || !held.load(Ordering::SeqCst));
                told.fetch_add(1, Ordering::SeqCst);
            }
            Event::Text(..) => drop(counted.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
        200
    });
    let gateway =
        Gateway::start(&origin, &[&ADMIN[..], &["--queue-messages", "4", "--origin-timeout", "60s"]].concat());
    let message = format!("slow {}", "x".repeat(10_000));
    let mut slow: Vec<Client> = (0..20).map(|_| gateway.server.open()).collect();
    for client in &mut slow {
        client.send(frame(TEXT, message.as_bytes()).repeat(5));
    }
    eventually("none of them is read from", || gateway.server.metric("percore_gateway_pauses_total") == 20);
    let before = resident(&gateway);
    let more: Vec<_> = slow
        .into_iter()
        .map(|mut client| {
            let block = frame(TEXT, message.as_bytes()).repeat(15);
            std::thread::spawn(move || {
                client.send(block);
                client
            })
        })
        .collect();
    let mut client = gateway.server.open();
    for number in 1..=200 {
        client.send(frame(TEXT, b"quick"));
        eventually("its message", || quick.load(Ordering::SeqCst) == number);
    }
    let (events, after) = (gateway.server.metric("percore_gateway_events_waiting"), resident(&gateway));
    assert_eq!(events, 20 * 4);
    assert!(after < before + (2 << 20), "{before} bytes became {after}");
    assert_eq!(released.load(Ordering::SeqCst), 0);
    holds.store(false, Ordering::SeqCst);
    eventually("all of them in the end", || released.load(Ordering::SeqCst) == 20 * 20);
    more.into_iter().for_each(|thread| drop(thread.join().expect("it has sent all")));
}

#[test]
fn ten_thousand_connections() {
    const NUMBER: usize = 10_000;
    let stories = Stories::default();
    let told = stories.clone();
    let origin = Origin::start(move |heard: &Heard| {
        told.add(heard);
        200
    });
    let gateway = Gateway::start(&origin, &[&ADMIN[..], &["--max-connections", "11000"]].concat());
    let mut clients = open_many(gateway.server.addr(), NUMBER);
    eventually("all are known", || stories.count() == (NUMBER, 0));
    let ids = stories.ids();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    gateway.send(ids[0], "one");
    gateway.post("/sr", "", &outgoing(&ids, "all"));
    for client in &mut clients {
        match client.text().as_str() {
            "one" => assert_eq!(client.text(), "all"),
            text => assert_eq!(text, "all"),
        }
    }
    drop(clients);
    eventually("all ends are told", || stories.count() == (NUMBER, NUMBER));
    stories.assert_whole();
    assert_eq!(gateway.server.metric("percore_gateway_deliveries_total"), NUMBER as u64 + 1);
}
