//! `serve channels` and the SDKs of Centrifugo, unchanged. `tests/run` installs them.

use crate::common::channels::{Hub, PATH, SECRET};
use crate::common::program::Program;
use crate::common::relay::Relay;
use crate::common::{TempDir, eventually, tool};
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;

fn script(program: PathBuf, name: &str, arguments: &[&str]) -> Program {
    let mut command = Command::new(program);
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)).args(arguments);
    Program::start(command)
}

fn node(scenario: &str, url: &str, rest: &[&str]) -> Program {
    tool("node_modules/centrifuge/package.json");
    script("node".into(), "centrifuge.js", &[&[scenario, url], rest].concat())
}

/// What a script prints, which is to end well.
fn printed(program: Program) -> Vec<String> {
    let (code, out, err) = program.ends();
    assert_eq!(code, Some(0), "{out:#?}\n{err:#?}");
    out
}

#[test]
fn javascript_does_everything() {
    let hub = Hub::start(&["--history-size", "10", "--presence"]);
    let out = printed(node("everything", &hub.server.url(PATH), &[]));
    let want = [
        "connected 36 websocket",
        "subscribed true true 0",
        r#"publication {"text":"one\ntwo"} 1 true"#,
        "presence 2 2 1",
        "history 1,2 2",
        "since from outside",
        "joins 2 true",
        "rpc 108",
        "unsubscribed 102",
    ];
    assert_eq!(out, want);
}

#[test]
fn python_does_everything() {
    let hub = Hub::start(&["--history-size", "10", "--presence"]);
    let out = printed(script(tool("venv/bin/python"), "centrifuge_client.py", &[&hub.server.url(PATH)]));
    let want = [
        "subscribed True 0",
        "join 36",
        r"publication {'text': 'a\nb'} 1",
        "presence 1",
        "stats 1 1",
        r"history [{'text': 'a\nb'}] 1",
        "rpc 108",
    ];
    assert_eq!(out, want);
}

#[test]
fn a_backend_in_python() {
    let folder = TempDir::new();
    let key = folder.path("key");
    std::fs::write(&key, "abc").expect("written");
    let hub = Hub::start(&["--history-size", "10", "--presence", "--api-key-file", key.to_str().expect("text")]);
    let url = format!("http://{}/api", hub.service);
    let out = printed(script(tool("venv/bin/python"), "cent_api.py", &[&url, "abc"]));
    let want = [
        "publish 1 8 1",
        "broadcast [2, 1]",
        "history [{'x': 1}, 2] 2",
        "presence {}",
        "presence_stats 0 0",
        "channels {}",
        "info [('percore', 0)]",
        "batch [3, 1]",
        "error 102 unknown channel",
        "unauthorized",
    ];
    assert_eq!(out, want);
}

/// In the middle of traffic all connections are cut a hundred times: every client hears every number once and in order.
#[test]
fn a_hundred_cuts_lose_nothing() {
    cut_a_hundred_times(&[]);
}

#[test]
fn a_hundred_cuts_lose_nothing_with_workers() {
    cut_a_hundred_times(&["--workers", "2", "--admin", "127.0.0.1:0"]);
}

fn cut_a_hundred_times(flags: &[&str]) {
    const CLIENTS: u64 = 4;
    let folder = TempDir::new();
    let file = folder.path("channels.toml");
    std::fs::write(&file, "[limits]\nrecovery_publications = 10000\n").expect("written");
    let file = file.to_str().expect("text");
    let all = [&["--history-size", "20000", "--rate-messages", "0", "--config", file], flags].concat();
    let hub = Hub::start(&all);
    let relay = Relay::to(hub.server.addr());
    let url = format!("ws://{}{PATH}", relay.addr);
    let last = 1_000_000_000;
    let clients = node("numbers", &url, &["numbers", &CLIENTS.to_string(), &last.to_string()]);
    let are_there = || hub.result("channels", &json!({}))["channels"]["numbers"]["num_clients"] == CLIENTS;
    let mut number = 0;
    let publish = |number: &mut u64| {
        *number += 1;
        hub.result("publish", &json!({"channel": "numbers", "data": *number}));
    };
    eventually("all clients to subscribe", are_there);
    for round in 0..100 {
        for _ in 0..=round % 7 {
            publish(&mut number);
        }
        let before = relay.accepted();
        relay.cut();
        for _ in 0..3 {
            publish(&mut number);
        }
        eventually("all clients to come back", || {
            publish(&mut number);
            relay.accepted() >= before + CLIENTS && are_there()
        });
    }
    assert_eq!(hub.result("publish", &json!({"channel": "numbers", "data": last}))["offset"], number + 1);
    let out = printed(clients);
    let seen: Vec<&String> = out.iter().filter(|line| line.starts_with("seen ")).collect();
    assert_eq!(seen.len() as u64, CLIENTS, "{out:#?}");
    for line in seen {
        let counts: Vec<u64> = line.split(' ').skip(1).map(|count| count.parse().expect("a number")).collect();
        // A client may be cut off before it is back. The last number does not follow on the one before.
        assert!(counts[0] >= 50 && counts[1..] == [0, 1], "{out:#?}");
    }
}

fn hub_with_tokens(config: &str) -> (Hub, TempDir) {
    let folder = TempDir::new();
    let (secret, file) = (folder.path("secret"), folder.path("channels.toml"));
    std::fs::write(&secret, SECRET).expect("written");
    std::fs::write(&file, config).expect("written");
    let flags = ["--jwt-secret-file", secret.to_str().expect("text"), "--config", file.to_str().expect("text")];
    (Hub::start(&flags), folder)
}

#[test]
fn tokens_that_expire_are_replaced() {
    let (hub, _folder) = hub_with_tokens("");
    let out = printed(node("tokens", &hub.server.url(PATH), &[SECRET]));
    let out: Vec<&str> = out.iter().map(String::as_str).filter(|line| !line.starts_with("error ")).collect();
    assert_eq!(
        out,
        ["connected 36", "state connected subscribed", "refused 3500", "unsubscribed 103", "disconnected 0"]
    );
}

#[test]
fn backends_order_a_client_about() {
    let config = "[channels]\nhistory_size = 10\nallow_subscribe_for_client = true\n[limits]\nhistory_bytes = \"4K\"\n";
    let (hub, _folder) = hub_with_tokens(config);
    let ann = node("ordered", &hub.server.url(PATH), &[SECRET]);
    ann.shows("subscribed own", 1);
    ann.shows("subscribed mail", 1);
    ann.shows("subscribed news", 1);
    hub.result("publish", &json!({"channel": "mail", "data": 7}));
    ann.shows("publication mail 7", 1);
    hub.result("subscribe", &json!({"user": "ann", "channel": "more"}));
    ann.shows("subscribed more", 1);
    hub.result("unsubscribe", &json!({"user": "ann", "channel": "more"}));
    ann.shows("unsubscribed more", 1);
    // The channel's history makes room for others, and is another one from then on.
    for channel in ["b", "c", "d", "e", "f"] {
        hub.result("publish", &json!({"channel": channel, "data": "x".repeat(800)}));
    }
    hub.result("publish", &json!({"channel": "own", "data": 1}));
    ann.shows("subscribing 2500", 1);
    ann.shows("subscribed own", 2);
    hub.result("disconnect", &json!({"user": "ann"}));
    assert!(printed(ann).contains(&"disconnected 3503".to_owned()));
}
