//! The HTTP API of `serve channels`, as backends see it.

use crate::common::channels::{Hub, command, token};
use crate::common::{Client, TempDir, eventually, process};
use serde_json::{Value, json};
use std::net::SocketAddr;

#[test]
fn the_key_is_asked_for() {
    let folder = TempDir::new();
    let file = folder.path("key");
    std::fs::write(&file, "abc\n").expect("written");
    let hub = Hub::start(&["--api-key-file", file.to_str().expect("text")]);
    for bad in ["", "X-API-Key: ab\r\n", "Authorization: apikey abd\r\n", "Authorization: Bearer abc\r\n"] {
        assert_eq!(hub.call_with("info", &json!({}), bad).0, 401, "{bad}");
    }
    for good in
        ["X-API-Key: abc\r\n", "Authorization: apikey abc\r\n", "X-API-Key: abc\r\nOrigin: https://example.org\r\n"]
    {
        assert_eq!(hub.call_with("info", &json!({}), good).0, 200, "{good}");
    }
    assert_eq!(hub.call("info?api_key=abc", &json!({})).0, 200);
    assert_eq!(hub.call("info?api_key=ab", &json!({})).0, 401);
}

#[test]
fn errors_are_answers_or_statuses() {
    let hub = Hub::start(&[]);
    let error = |code: u64, message: &str| json!({"error": {"code": code, "message": message}});
    for (method, params, want, status) in [
        ("publish", json!({"channel": "a"}), error(107, "bad request"), 400),
        ("publish", json!({"data": 1}), error(107, "bad request"), 400),
        ("publish", json!({"channel": "no:a", "data": 1}), error(102, "unknown channel"), 404),
        ("publish", json!({"channel": "a", "data": 1, "version": 3}), error(108, "not available"), 501),
        ("history", json!({"channel": "a"}), error(108, "not available"), 501),
        ("presence", json!({"channel": "a"}), error(108, "not available"), 501),
        ("rpc", json!({"method": "x"}), error(104, "method not found"), 404),
        ("broadcast", json!({"channels": [], "data": 1}), error(107, "bad request"), 400),
        ("disconnect", json!({"user": "a", "disconnect": {"code": 1000}}), error(107, "bad request"), 400),
        ("unsubscribe", json!({"user": "a", "session": "x"}), error(108, "not available"), 501),
    ] {
        assert_eq!(hub.call(method, &params), (200, want.clone()), "{method} {params}");
        let by_status = hub.call_with(method, &params, "X-Centrifugo-Error-Mode: transport\r\n");
        assert_eq!(by_status, (status, want), "{method} {params}");
    }
    for params in [json!([]), json!({"channel": 1, "data": 1}), json!("x")] {
        assert_eq!(hub.call("publish", &params).0, 400, "{params}");
    }
    let mut client = Client::connect(hub.service);
    for (request, status) in [("GET /api/info", 405), ("POST /other", 404)] {
        client.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.response().status, status, "{request}");
    }
}

#[test]
fn an_idempotent_publication_is_published_once() {
    let hub = Hub::start(&["--history-size", "10"]);
    let publish = |key: &str| hub.result("publish", &json!({"channel": "a", "data": 1, "idempotency_key": key}));
    let first = publish("k");
    assert_eq!((publish("k"), publish("other")["offset"].clone()), (first, json!(2)));
    let again = hub.result("broadcast", &json!({"channels": ["a", "b"], "data": 1, "idempotency_key": "k"}));
    let offset = |place: usize| again["responses"][place]["result"]["offset"].clone();
    assert_eq!((offset(0), offset(1)), (json!(1), json!(1)));
    assert_eq!(hub.result("history", &json!({"channel": "a"}))["offset"], 2);
}

#[test]
fn base64_skipped_history_and_removal() {
    let hub = Hub::start(&["--history-size", "10"]);
    let mut ann = hub.client();
    ann.subscribe("a", &json!({}));
    assert_eq!(hub.result("publish", &json!({"channel": "a", "b64data": "eyJhIjoxfQ=="}))["offset"], 1);
    assert_eq!(ann.push("pub", "a"), json!({"data": {"a": 1}, "offset": 1}));
    assert_eq!(hub.call("publish", &json!({"channel": "a", "b64data": "eA=="})).1["error"]["code"], 107);
    assert_eq!(hub.result("publish", &json!({"channel": "a", "data": 2, "skip_history": true})), json!({}));
    assert_eq!(ann.push("pub", "a"), json!({"data": 2}));
    assert_eq!(hub.result("history_remove", &json!({"channel": "a"})), json!({}));
    let history = hub.result("history", &json!({"channel": "a", "limit": 10}));
    assert_eq!((&history["publications"], &history["offset"]), (&json!([]), &json!(1)));
    hub.result("publish", &json!({"channel": "a", "data": 3}));
    assert_eq!(ann.push("pub", "a")["offset"], 2);
}

#[test]
fn a_batch_does_all_it_can() {
    let hub = Hub::start(&["--history-size", "10"]);
    let commands = json!([
        {"publish": {"channel": "a", "data": 1}}, {"publish": {"channel": "no:a", "data": 1}}, {"dance": {}},
        {"batch": {"commands": []}}, {"history": {"channel": "a", "limit": 1, "reverse": true}}, {"info": {}},
    ]);
    let replies = hub.result("batch", &json!({"commands": commands, "parallel": true}))["replies"].clone();
    assert_eq!(replies[0]["publish"]["offset"], 1);
    let errors = [1, 2, 3].map(|place| replies[place]["error"]["code"].clone());
    assert_eq!(errors, [json!(102), json!(104), json!(104)]);
    assert_eq!(replies[4]["history"]["publications"][0]["data"], 1);
    assert_eq!(replies[5]["info"]["nodes"].as_array().map(Vec::len), Some(1));
}

/// A server where tokens name users, and clients of two of them.
fn hub_of_users(flags: &[&str]) -> (Hub, TempDir) {
    let folder = TempDir::new();
    let (secret, config) = (folder.path("secret"), folder.path("channels.toml"));
    std::fs::write(&secret, crate::common::channels::SECRET).expect("written");
    std::fs::write(&config, "[channels]\npresence = true\nallow_subscribe_for_client = true\n").expect("written");
    let own = ["--jwt-secret-file", secret.to_str().expect("text"), "--config", config.to_str().expect("text")];
    (Hub::launch(command(&[&own, flags].concat())), folder)
}

#[test]
fn backends_act_on_users() {
    let (hub, _folder) = hub_of_users(&[]);
    let mut ann = hub.client_by(&token(&json!({"sub": "ann"})));
    let mut other = hub.client_by(&token(&json!({"sub": "ann"})));
    let mut ben = hub.client_by(&token(&json!({"sub": "ben"})));
    assert_eq!(hub.result("info", &json!({}))["nodes"][0]["num_users"], 2);
    let subscribe = json!({"user": "ann", "client": ann.name, "channel": "a", "data": {"why": 1}, "info": {"x": 2}});
    hub.result("subscribe", &subscribe);
    assert_eq!(ann.push("subscribe", "a"), json!({"data": {"why": 1}}));
    let presence = hub.result("presence", &json!({"channel": "a"}))["presence"][&ann.name].clone();
    assert_eq!(presence, json!({"client": ann.name, "user": "ann", "chan_info": {"x": 2}}));
    ben.subscribe("a", &json!({}));
    ben.subscribe("ab", &json!({}));
    let channels = hub.result("channels", &json!({"pattern": "a"}));
    assert_eq!(channels, json!({"channels": {"a": {"num_clients": 2}}}));
    assert_eq!(hub.result("channels", &json!({"pattern": "a*"}))["channels"]["ab"]["num_clients"], 1);
    hub.result("unsubscribe", &json!({"user": "ann", "channel": "a"}));
    assert_eq!(ann.push("unsubscribe", "a"), json!({"code": 2000, "reason": "server unsubscribe"}));
    hub.result("unsubscribe", &json!({"user": "ben", "channel": ""}));
    for channel in ["a", "ab"] {
        assert_eq!(ben.push("unsubscribe", channel)["code"], 2000);
    }
    hub.result("disconnect", &json!({"user": "ann", "whitelist": [ann.name]}));
    assert_eq!(other.ended(), (3503, "force disconnect".into()));
    hub.result("disconnect", &json!({"user": "ann", "disconnect": {"code": 4500, "reason": "bye"}}));
    assert_eq!(ann.ended(), (4500, "bye".into()));
    hub.result("refresh", &json!({"user": "ben", "expired": true}));
    assert_eq!(ben.ended().0, 3005);
}

/// How many clients each worker has, in the order of the workers.
fn clients_of_workers(admin: SocketAddr) -> Vec<u64> {
    let text = Client::connect(admin).get("/metrics").body;
    let lines = text.lines().filter(|line| line.starts_with("percore_channels_clients{"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect()
}

/// Clients of a worker that is killed are told to be gone, by all others.
#[test]
fn a_killed_worker_takes_its_clients_along() {
    let (hub, _folder) = hub_of_users(&["--workers", "2", "--admin", "127.0.0.1:0", "--presence"]);
    let admin = hub.server.admin();
    let place = |clients: Vec<u64>| clients.iter().position(|count| *count > 0);
    let token = token(&json!({"sub": "ann"}));
    let mut ann = hub.client_by(&token);
    let mut own = None;
    eventually("the worker of the first client", || {
        own = place(clients_of_workers(admin));
        own.is_some()
    });
    ann.subscribe("room", &json!({"join_leave": true}));
    let mut others = Vec::new();
    eventually("a client on the other worker", || {
        let mut speaker = hub.client_by(&token);
        speaker.subscribe("room", &json!({}));
        others.push(speaker);
        clients_of_workers(admin).iter().all(|count| *count > 0)
    });
    let there = others.last().expect("one at least").name.clone();
    let workers = process::children(hub.server.child().id());
    process::signal(workers[1 - own.expect("just found")], "KILL");
    loop {
        let told = ann.hear();
        if told["push"]["leave"]["info"]["client"] == there {
            break;
        }
        assert!(told["push"].get("join").is_some(), "{told}");
    }
    let presence = hub.result("presence", &json!({"channel": "room"}));
    assert!(presence["presence"].get(&there).is_none() && presence["presence"].get(&ann.name).is_some(), "{presence}");
}

/// Without a history several workers are one service.
#[test]
fn workers_are_one_service() {
    let flags = ["--workers", "2", "--admin", "127.0.0.1:0"];
    let (hub, _folder) = hub_of_users(&flags);
    let admin = hub.server.admin();
    let clients = || clients_of_workers(admin);
    let ann = token(&json!({"sub": "ann"}));
    let mut all = Vec::new();
    eventually("clients on both workers", || {
        let mut speaker = hub.client_by(&ann);
        speaker.subscribe("a", &json!({}));
        all.push(speaker);
        clients().iter().filter(|count| **count > 0).count() == 2
    });
    eventually("each worker to know of the others", || {
        let told = hub.result("presence_stats", &json!({"channel": "a"}));
        told == json!({"num_clients": all.len(), "num_users": 1})
    });
    let reached: Vec<Value> = (0..10).map(|number| json!({"number": number})).collect();
    for data in &reached {
        hub.result("publish", &json!({"channel": "a", "data": data}));
        for speaker in &mut all {
            assert_eq!(speaker.push("pub", "a")["data"], *data);
        }
    }
    eventually("all channels", || {
        hub.result("channels", &json!({})) == json!({"channels": {"a": {"num_clients": all.len()}}})
    });
    hub.result("unsubscribe", &json!({"user": "ann", "channel": "a"}));
    for speaker in &mut all {
        assert_eq!(speaker.push("unsubscribe", "a")["code"], 2000);
    }
    hub.result("disconnect", &json!({"user": "ann"}));
    for speaker in &mut all {
        assert_eq!(speaker.ended().0, 3503);
    }
}
