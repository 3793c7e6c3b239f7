//! `percore serve gateway` with real clients and real origins.

use crate::common::client::{TEXT, close_frame, frame};
use crate::common::origin::{Event, Gateway, Heard, Origin, outgoing, post, request};
use crate::common::{Client, TempDir, eventually, percore, run};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const BINARY: u8 = 0x82;

/// An application that sends back what it hears, by `/sr`.
fn echoing(service: &Arc<OnceLock<SocketAddr>>) -> Origin {
    let service = Arc::clone(service);
    Origin::start(move |heard| {
        let (id, text) = match heard.event() {
            Event::Text(id, text) => (id, text),
            _ => return 200,
        };
        let service = *service.get().expect("known by now");
        assert_eq!(post(service, "/sr", "", &outgoing(&[&id], &format!("you said {text}"))).status, 200);
        200
    })
}

/// Whether each connection begins once, ends once, and nothing follows its end.
fn assert_whole(events: &[Event]) {
    let mut ended: HashMap<&str, bool> = HashMap::new();
    for event in events {
        let before = match event {
            Event::Opened(id, _) => ended.insert(id, false),
            Event::Closed(id) => ended.insert(id, true).filter(|ended| *ended),
            Event::Text(id, _) | Event::Binary(id, _) => ended.get(id.as_str()).copied().filter(|ended| *ended),
            Event::KeepAlive(_) => None,
        };
        assert_eq!(before, None, "{event:?} in {events:#?}");
    }
    assert!(ended.values().all(|ended| *ended), "some have no end: {events:#?}");
}

#[test]
fn an_application_talks_to_its_clients_over_http() {
    let service = Arc::new(OnceLock::new());
    let origin = echoing(&service);
    let gateway = Gateway::start(&origin, &["--forward-header", "X-User"]);
    service.set(gateway.service).expect("set once");
    let mut client = gateway.server.connect();
    client.send(crate::common::client::upgrade_request("/chat/room?a=b", "X-User: ann\r\n"));
    assert_eq!(client.head_response().status, 101);
    assert_eq!(client.echo("hello"), "you said hello");
    assert_eq!(client.echo("<ü>"), "you said <ü>");
    client.send(close_frame(1000, "bye"));
    assert_eq!(client.closed().0, 1000);
    origin.wait_for_closed(1);
    let heard = origin.heard();
    let id = origin.first_id();
    assert_eq!(
        origin.events(),
        [
            Event::Opened(id.clone(), String::new()),
            Event::Text(id.clone(), "hello".into()),
            Event::Text(id.clone(), "<ü>".into()),
            Event::Closed(id)
        ]
    );
    let [first, .., last] = &heard[..] else { panic!("{heard:?}") };
    for (name, value) in [
        ("content-type", "application/json"),
        ("percore-path", "/chat/room"),
        ("percore-query", "a=b"),
        ("percore-client", &client.addr().to_string()),
        ("x-user", "ann"),
    ] {
        assert_eq!(first.header(name), Some(value), "{name}");
    }
    assert_eq!((last.header("percore-close-code"), last.header("percore-close-reason")), (Some("1000"), Some("bye")));
    assert_eq!(first.path, "/events");
    let ids: Vec<_> = heard.iter().map(|heard| heard.header("webhook-id")).collect();
    assert!(ids.iter().all(|id| id.is_some() && ids.iter().filter(|other| *other == id).count() == 1), "{ids:?}");
    let (code, log) = gateway.server.stop();
    assert_eq!(code, Some(0), "{log:#?}");
}

#[test]
fn an_application_refuses() {
    let origin = Origin::start(|heard: &Heard| match heard.event() {
        Event::Opened(..) => 403,
        Event::Text(..) => panic!("of a refused connection nothing is told"),
        _ => 200,
    });
    // Without --authorize it is open by then, and is closed.
    let gateway = Gateway::start(&origin, &[]);
    assert_eq!(gateway.server.open().closed().0, 1011);
    origin.wait_for_closed(1);
    assert_whole(&origin.events());
    // With it, the client gets the status, and there never was a connection.
    let gateway = Gateway::start(&origin, &["--authorize"]);
    let mut client = gateway.server.connect();
    assert_eq!(client.get("/healthz").status, 200);
    client.send(crate::common::client::upgrade_request("/ws", ""));
    assert_eq!(client.response().status, 403);
    let (code, _) = gateway.server.stop();
    assert_eq!(code, Some(0));
    assert_eq!(origin.events().iter().filter(|event| matches!(event, Event::Closed(_))).count(), 1);
}

#[test]
fn a_handshake_that_waits_is_completed_by_the_origins_word() {
    let origin = Origin::start(|_| 204);
    let gateway = Gateway::start(&origin, &["--authorize", "--subprotocols", "b,a"]);
    let mut client = gateway.server.connect();
    let response = client.upgrade("Sec-WebSocket-Protocol: a, b\r\n");
    assert_eq!(response.header("sec-websocket-protocol"), Some("b"), "our order decides");
    client.send(frame(TEXT, b"one"));
    let id = origin.first_id();
    origin.wait_for("the message", |event| *event == Event::Text(id.clone(), "one".into()));
    gateway.send(&id, "two");
    assert_eq!(client.text(), "two");
    drop(client);
    origin.wait_for_closed(1);
    assert_eq!(origin.events()[0], Event::Opened(id, "b".into()));
    assert_whole(&origin.events());
}

#[test]
fn bytes_are_base64_and_an_empty_message_is_one() {
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &[]);
    let mut client = gateway.server.open();
    client.send(frame(BINARY, &[0xff, 0xfe]));
    client.send(frame(BINARY, b""));
    client.send(frame(TEXT, b""));
    let id = origin.first_id();
    origin.wait_for("the text", |event| matches!(event, Event::Text(..)));
    let said: Vec<Event> = origin.events().into_iter().skip(1).collect();
    let binary = |text: &str| Event::Binary(id.clone(), text.into());
    assert_eq!(said, [binary("//4="), binary(""), Event::Text(id.clone(), String::new())]);
    for (message, want) in [(r#"{"Binary":"AAE="}"#, vec![0, 1]), (r#"{"Binary":""}"#, vec![])] {
        let body = format!(r#"{{"OutgoingWebSocketMessages":[{{"ConnectionIds":["{id}"],"Message":{message}}}]}}"#);
        assert_eq!(gateway.post("/sr", "", &body).status, 200);
        let got = client.frame();
        assert_eq!((got.first, got.payload), (BINARY, want));
    }
}

#[test]
fn results_are_told_to_who_accepts_json() {
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &[]);
    let mut client = gateway.server.open();
    let id = origin.first_id();
    let forged = format!("{}{}", &id[..id.len() - 4], if id.ends_with("AAA=") { "BBB=" } else { "AAA=" });
    let body = outgoing(&[&id, &forged, "AAAA"], "hi");
    let response = gateway.post("/sr", "Accept: application/json\r\n", &body);
    let told: serde_json::Value = serde_json::from_str(&response.body).expect("JSON");
    let results: Vec<_> = (0..3).map(|place| told["results"][place]["result"].as_str()).collect();
    assert_eq!(results, [Some("queued"), Some("forged"), Some("forged")], "{told}");
    assert_eq!(told["results"][0]["id"].as_str(), Some(id.as_str()));
    assert_eq!(client.text(), "hi");
    client.send(close_frame(1000, ""));
    client.closed();
    origin.wait_for_closed(1);
    let response = gateway.post("/sr", "Accept: application/json\r\n", &outgoing(&[&id], "hi"));
    assert!(response.body.contains("gone"), "{}", response.body);
    for (content, status) in [("null", 400), ("{", 400), ("", 400), ("{}", 200)] {
        assert_eq!(gateway.post("/sr", "", content).status, status, "{content}");
    }
    assert_eq!(request(gateway.service, "GET", "/sr", "", "").status, 405);
    assert_eq!(request(gateway.service, "POST", "/elsewhere", "", "").status, 404);
}

/// The flags of websocket-service, as its AWS template gives them, and the statuses by which its load balancer tells who is well.
#[test]
fn the_flags_of_websocket_service_work_alone() {
    let origin = Origin::start(|_| 200);
    let url = origin.url();
    let mut args =
        vec!["serve", "gateway", "--origin-url", &url, "--websocket-port", "0", "--service-request-port", "0"];
    args.extend(["--debug-port", "0", "--keep-alive-interval", "50ms", "--subprotocols", "", "--subprotocol", ""]);
    let gateway = Gateway::launch(&args);
    for addr in [gateway.server.addr(), gateway.service, gateway.server.admin()] {
        assert!(addr.ip().is_loopback(), "{addr}");
    }
    assert_eq!(gateway.server.connect().get("/").status, 400);
    assert_eq!(request(gateway.service, "GET", "/sr", "", "").status, 405);
    let clients = [gateway.server.open(), gateway.server.open()];
    let both = |event: &Event| matches!(event, Event::KeepAlive(ids) if ids.len() == 2);
    origin.wait_for("a keep-alive", both);
    eventually("another one", || origin.events().iter().filter(|event| both(event)).count() > 1);
    drop(clients);
    origin.wait_for_closed(2);
    let ids: Vec<String> = origin
        .events()
        .iter()
        .filter(|event| both(event))
        .flat_map(|event| match event {
            Event::KeepAlive(ids) => ids.clone(),
            _ => Vec::new(),
        })
        .collect();
    assert!(ids.contains(&origin.first_id()));
}

#[test]
fn an_origin_that_is_killed_and_comes_back_costs_no_end() {
    let origin = Origin::start(|_| 200);
    let addr = origin.addr;
    let gateway = Gateway::start(&origin, &["--admin", "127.0.0.1:0", "--origin-patience", "200ms"]);
    let mut clients: Vec<Client> = (0..20).map(|_| gateway.server.open()).collect();
    eventually("all are known", || origin.events().len() == 20);
    let before = origin.events();
    drop(origin);
    // What they say now reaches nobody: they are closed, and no other is.
    clients[..10].iter_mut().for_each(|client| client.send(frame(TEXT, b"anybody there?")));
    clients[..10].iter_mut().for_each(|client| assert_eq!(client.closed().0, 1011));
    drop(clients.drain(..10));
    eventually("ten ends wait", || gateway.server.metric("percore_gateway_closed_pending") == 10);
    assert!(gateway.server.metric("percore_origins_out") == 1);
    let origin = Origin::start_at(addr, |_| 200);
    origin.wait_for_closed(10);
    for client in &mut clients {
        client.send(frame(TEXT, b"and now?"));
    }
    eventually("they are heard", || {
        origin.events().iter().filter(|event| matches!(event, Event::Text(..))).count() == 10
    });
    drop(clients);
    origin.wait_for_closed(20);
    let all: Vec<Event> = before.into_iter().chain(origin.events()).collect();
    assert_whole(&all);
    assert_eq!(gateway.server.metric("percore_gateway_closed_given_up_total"), 0);
}

/// A client of which the origin takes a long time keeps nobody else from being served, and is not read from beyond its bound.
#[test]
fn a_slow_answer_holds_up_its_own_connection_only() {
    let (holds, release) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (held, told) = (Arc::clone(&holds), Arc::clone(&release));
    let origin = Origin::start(move |heard: &Heard| {
        if matches!(heard.event(), Event::Text(_, text) if text.starts_with("slow")) {
            eventually("its release", || !held.load(Ordering::SeqCst));
            told.fetch_add(1, Ordering::SeqCst);
        }
        200
    });
    let flags = ["--admin", "127.0.0.1:0", "--queue-messages", "5", "--origin-timeout", "60s"];
    let gateway = Gateway::start(&origin, &flags);
    let mut slow = gateway.server.open();
    for number in 0..50 {
        slow.send(frame(TEXT, format!("slow {number}").as_bytes()));
    }
    eventually("it is not read from", || gateway.server.metric("percore_gateway_pauses_total") == 1);
    let began = Instant::now();
    let mut quick = gateway.server.open();
    quick.send(frame(TEXT, b"quick"));
    origin.wait_for("the quick one", |event| matches!(event, Event::Text(_, text) if text == "quick"));
    assert!(began.elapsed() < Duration::from_secs(10));
    let waiting = gateway.server.metric("percore_gateway_events_waiting");
    assert!(waiting <= 7, "{waiting} wait");
    holds.store(false, Ordering::SeqCst);
    eventually("all of them in the end", || release.load(Ordering::SeqCst) == 50);
    let texts: Vec<String> = origin
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Text(_, text) if text.starts_with("slow") => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(texts, (0..50).map(|number| format!("slow {number}")).collect::<Vec<_>>());
}

#[test]
fn order_is_kept_and_nothing_is_lost_under_load() {
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &["--origin-calls", "8"]);
    let threads: Vec<_> = (0..20)
        .map(|number| {
            let mut client = gateway.server.open();
            std::thread::spawn(move || {
                for count in 0..100 {
                    client.send(frame(TEXT, format!("{number} {count:03}").as_bytes()));
                }
                client.send(close_frame(1000, ""));
                client.closed();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    origin.wait_for_closed(20);
    let events = origin.events();
    assert_whole(&events);
    let mut said: HashMap<&str, Vec<&str>> = HashMap::new();
    for event in &events {
        if let Event::Text(id, text) = event {
            said.entry(id).or_default().push(text);
        }
    }
    assert_eq!(said.len(), 20);
    for texts in said.values() {
        let number = texts[0].split(' ').next().expect("a number");
        assert_eq!(*texts, (0..100).map(|count| format!("{number} {count:03}")).collect::<Vec<_>>());
    }
}

#[test]
fn a_signal_tells_everybody_and_the_origin_of_each() {
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &[]);
    let mut clients: Vec<Client> = (0..10).map(|_| gateway.server.open()).collect();
    eventually("all are known", || origin.events().len() == 10);
    gateway.server.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.closed().0, 1001);
        client.send(close_frame(1001, ""));
    }
    let (code, log) = gateway.server.wait();
    assert_eq!(code, Some(0), "{log:#?}");
    assert_eq!(origin.events().iter().filter(|event| matches!(event, Event::Closed(_))).count(), 10);
    assert_whole(&origin.events());
}

/// Messages that come in at any worker reach the connections of all, also where they are many.
#[test]
fn workers_pass_messages_on() {
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &["--workers", "3", "--admin", "127.0.0.1:0"]);
    let mut clients: Vec<Client> = (0..30).map(|_| gateway.server.open()).collect();
    eventually("all are known", || origin.events().len() == 30);
    let ids: Vec<String> = origin.events().iter().map(|event| event.id().to_owned()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    eventually("every worker takes part", || {
        let response = gateway.post("/sr", "Accept: application/json\r\n", &outgoing(&ids, "hello all"));
        response.status == 200 && response.body.matches("queued").count() == 30
    });
    for client in &mut clients {
        assert_eq!(client.text(), "hello all");
    }
    for (number, id) in ids.iter().enumerate() {
        gateway.send(id, &format!("hello {number}"));
    }
    let mut told: Vec<String> = clients
        .iter_mut()
        .map(|client| {
            loop {
                let text = client.text();
                if text != "hello all" {
                    break text;
                }
            }
        })
        .collect();
    told.sort();
    let mut want: Vec<String> = (0..30).map(|number| format!("hello {number}")).collect();
    want.sort();
    assert_eq!(told, want);
    drop(clients);
    origin.wait_for_closed(30);
    assert_whole(&origin.events());
}

/// A worker that is killed tells nobody of its connections: those that are left do.
#[test]
fn the_ends_of_a_killed_workers_connections_are_told() {
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &["--workers", "2", "--admin", "127.0.0.1:0"]);
    for round in 1..=5 {
        let clients: Vec<Client> = (0..20).map(|_| gateway.server.open()).collect();
        eventually("all are known", || {
            origin.events().iter().filter(|event| matches!(event, Event::Opened(..))).count() == 20 * round
        });
        let workers = crate::common::process::children(gateway.server.child().id());
        crate::common::process::signal(workers[round % workers.len()], "KILL");
        eventually("a successor", || {
            let now = crate::common::process::children(gateway.server.child().id());
            now.len() == 2 && now != workers && Client::connect(gateway.server.admin()).get("/readyz").status == 200
        });
        drop(clients);
        origin.wait_for_closed(20 * round);
    }
    assert_whole(&origin.events());
    let closed = origin.heard().into_iter().filter(|heard| matches!(heard.event(), Event::Closed(_)));
    assert!(closed.into_iter().any(|heard| heard.header("percore-close-reason") == Some("its worker ended")));
    let (code, log) = gateway.server.stop();
    assert_eq!(code, Some(0), "{log:#?}");
}

/// Two nodes with one key: what comes in at either reaches the clients of both. A node with another key is told nothing.
#[test]
fn nodes_pass_messages_on() {
    let folder = TempDir::new();
    let key = folder.path("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef").expect("written");
    let flags = ["--cluster-key-file", key.to_str().expect("text")];
    let origins: Vec<Origin> = (0..3).map(|_| Origin::start(|_| 200)).collect();
    let nodes =
        [Gateway::start(&origins[0], &flags), Gateway::start(&origins[1], &flags), Gateway::start(&origins[2], &[])];
    let mut clients: Vec<Client> = nodes.iter().map(|node| node.server.open()).collect();
    let ids: Vec<String> = origins.iter().map(Origin::first_id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for (node, results) in [(0, ["queued", "queued", "forged"]), (2, ["forged", "forged", "queued"])] {
        let response = nodes[node].post("/sr", "Accept: application/json\r\n", &outgoing(&ids, "over"));
        let told: serde_json::Value = serde_json::from_str(&response.body).expect("JSON");
        let got: Vec<_> = (0..3).filter_map(|place| told["results"][place]["result"].as_str()).collect();
        assert_eq!(got, results, "at node {node}");
    }
    nodes[1].send(ids[0], "back");
    assert_eq!([clients[0].text(), clients[0].text()], ["over", "back"]);
    assert_eq!([clients[1].text(), clients[2].text()], ["over", "over"]);
    // What was passed on once is not passed on again.
    let response = nodes[0].post("/sr", "Accept: application/json\r\npercore-hops: 1\r\n", &outgoing(&ids[1..2], "x"));
    assert!(response.body.contains("unreachable"), "{}", response.body);
    let [first, second, _] = nodes;
    drop(second);
    let response = first.post("/sr", "Accept: application/json\r\n", &outgoing(&ids[1..2], "x"));
    assert!(response.body.contains("unreachable"), "{}", response.body);
}

/// A node of websocket-service has no key: it is sent messages only where it is named as a peer, as it sends them itself.
#[test]
fn a_node_of_websocket_service_is_a_peer() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let origin = Origin::start(|_| 200);
    let old = Origin::start(|_| 200);
    let id = STANDARD.encode([&b"\0"[..], old.addr.to_string().as_bytes(), b"/sr", &[7; 20]].concat());
    for (flags, number) in [(&[][..], 0), (&["--peer", "127.0.0.0/8"][..], 1)] {
        let gateway = Gateway::start(&origin, flags);
        gateway.send(&id, "to an old node");
        eventually("it is told, or not", || old.heard().len() == number);
    }
    let heard = &old.heard()[0];
    assert_eq!((heard.path.as_str(), heard.header("percore-hops")), ("/sr", Some("1")));
    assert_eq!(String::from_utf8_lossy(&heard.body), outgoing_as_go(&id, "to an old node"));
}

fn outgoing_as_go(id: &str, text: &str) -> String {
    format!(
        r#"{{"OutgoingWebSocketMessages":[{{"ConnectionIds":["{id}"],"Message":{{"Binary":null,"Text":"{text}"}}}}]}}"#
    )
}

#[test]
fn what_is_wrong_on_the_command_line_is_said() {
    let refused = |flags: &[&str], hint: &str| {
        let (code, _, stderr) = run(percore(&[&["serve", "gateway"], flags].concat()));
        assert!(code == 2 && stderr.contains(hint), "{flags:?}: {code} {stderr}");
    };
    refused(&[], "--origin-url");
    let with = |more: &[&'static str]| [&["--origin-url", "http://127.0.0.1:1/"][..], more].concat();
    refused(&["--origin-url", "ftp://x/"], "ftp");
    refused(&with(&["--forward-header", "Host"]), "Host");
    refused(&with(&["--service-listen", "0.0.0.0:0"]), "--service-token-file");
    refused(&with(&["--origin-secret-file", "/nowhere"]), "/nowhere");
    refused(&with(&["--advertise", "http://x"]), "--advertise");
    refused(&with(&["--origin-timeout", "0"]), "--origin-timeout");
    refused(&with(&["--jwks-file", "/nowhere"]), "--jwks-file /nowhere: No such file");
    refused(&with(&["--jwt-secret-file", "/dev/null"]), "openssl rand -hex 32");
    refused(&with(&["--aws-credentials-file", "/dev/null"]), "aws_access_key_id");
    refused(&with(&["--jwt-audience", "a"]), "--jwks-file");
    refused(&with(&["--jwt-cookie", "a"]), "--jwks-file");
}

#[test]
fn every_flag_has_a_variable() {
    let (code, help, _) = run(percore(&["serve", "gateway", "--help"]));
    assert_eq!(code, 0);
    let flags = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .map(|rest| rest.split([' ', '[', '=']).next().unwrap_or_default().to_owned());
    for flag in flags.filter(|flag| !["help", "version"].contains(&flag.as_str())) {
        let variable = format!("[env: PERCORE_{}=", flag.to_uppercase().replace('-', "_"));
        assert!(help.contains(&variable), "no {variable}");
    }
}

/// It has nothing to do, and does nothing: no deadline that is past keeps the loop awake.
#[test]
fn a_gateway_without_events_sleeps() {
    let origin = Origin::start(|_| 200);
    for flags in [&[][..], &["--bus", "off"][..], &["--keep-alive-interval", "1h"][..]] {
        let gateway = Gateway::start(&origin, flags);
        let _client = gateway.server.open();
        let pid = gateway.server.child().id();
        let mut rests = (Instant::now(), crate::common::process::ticks(pid));
        eventually("it rests", || {
            let ticks = crate::common::process::ticks(pid);
            if ticks != rests.1 {
                rests = (Instant::now(), ticks);
            }
            rests.0.elapsed() > Duration::from_millis(500)
        });
    }
}
