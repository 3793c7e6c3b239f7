//! `serve channels` and hostile clients: the memory and work that each can cost are bounded, and others notice nothing.

use crate::common::channels::{Hub, SECRET, token};
use crate::common::client::upgrade_request;
use crate::common::{Client, TempDir, eventually, process};
use serde_json::json;
use std::fmt::Write;

/// A client that wants ten thousand subscriptions gets as many as there may be.
#[test]
fn subscriptions_are_bounded() {
    let hub = Hub::start(&["--rate-messages", "0", "--history-size", "10"]);
    let mut bad = hub.client();
    let mut granted = 0;
    for number in 0..10_000 {
        bad.order(&json!({"subscribe": {"channel": format!("{number:0>255}")}}));
    }
    for _ in 0..10_000 {
        let reply = bad.hear();
        match reply["error"]["code"].as_u64() {
            None => granted += 1,
            code => assert_eq!(code, Some(106), "{reply}"),
        }
    }
    assert_eq!(granted, 128);
    // More commands than anybody has to give at once.
    let mut worse = hub.client();
    let mut text = String::new();
    for number in 1..=1000 {
        let _ = writeln!(text, "{{\"id\":{number},\"presence_stats\":{{\"channel\":\"a\"}}}}");
    }
    worse.say(&text);
    assert_eq!(worse.ended().0, 3501);
}

#[test]
fn deep_json_is_not_passed_on() {
    let hub = Hub::start(&[]);
    let mut ann = hub.client();
    ann.subscribe("a", &json!({}));
    let mut bad = hub.client();
    for depth in [129, 20_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        bad.say(&format!("{{\"id\":9,\"publish\":{{\"channel\":\"a\",\"data\":{deep}}}}}"));
        assert_eq!(bad.hear()["error"]["code"], 107);
        bad.say(&format!("{{\"id\":9,\"x\":{deep},\"rpc\":{{}}}}"));
        assert_eq!(bad.hear()["error"]["code"], 108);
    }
    bad.order(&json!({"publish": {"channel": "a", "data": [[[1]]]}}));
    assert_eq!(ann.push("pub", "a")["data"], json!([[[1]]]));
}

/// Commands beyond the rate are refused, and those of others are not.
#[test]
fn floods_are_refused() {
    let hub = Hub::start(&["--rate-messages", "20"]);
    let (mut ann, mut bad) = (hub.client(), hub.client());
    let mut text = String::new();
    for number in 1..=100 {
        let _ = writeln!(text, "{{\"id\":{number},\"publish\":{{\"channel\":\"a\",\"data\":1}}}}");
    }
    bad.say(&text);
    let replies: Vec<_> = (0..100).map(|_| bad.hear()).collect();
    let refused = replies.iter().filter(|reply| reply["error"]["code"] == 111 && reply["error"]["temporary"] == true);
    assert!((50..=70).contains(&refused.count()), "{replies:?}");
    assert_eq!(ann.ask(&json!({"publish": {"channel": "a", "data": 1}}))["publish"], json!({}));
}

/// Long answers to short questions are not piled up.
#[test]
fn answers_are_bounded() {
    let hub = Hub::start(&["--rate-messages", "0", "--history-size", "300", "--max-backlog", "64M"]);
    for _ in 0..100 {
        hub.result("publish", &json!({"channel": "a", "data": "x".repeat(10_000)}));
    }
    let mut bad = hub.client();
    let mut text = String::new();
    for number in 1..=60 {
        let _ = writeln!(text, "{{\"id\":{number},\"history\":{{\"channel\":\"a\",\"limit\":-1}}}}");
    }
    bad.say(&text);
    let replies: Vec<_> = (0..60).map(|_| bad.hear()).collect();
    let refused = replies.iter().filter(|reply| reply["error"]["code"] == 111).count();
    assert!(refused >= 58, "{refused}");
    let size: u64 =
        process::status(hub.server.child().id(), "VmHWM").trim_end_matches(" kB").trim().parse().expect("kB");
    assert!(size < 200_000, "{size} kB");
}

/// Channels that are only looked at take space within the bound of all histories.
#[test]
fn idle_channels_are_bounded() {
    let hub = Hub::start(&[
        "--rate-messages",
        "0",
        "--history-size",
        "10",
        "--history-bytes",
        "64K",
        "--admin",
        "127.0.0.1:0",
    ]);
    let mut bad = hub.client();
    for number in 0..1000 {
        let channel = format!("{number:0>200}");
        bad.subscribe(&channel, &json!({}));
        bad.ask(&json!({"unsubscribe": {"channel": channel}}));
    }
    assert!(hub.server.metric("percore_channels_history_bytes") <= 64 << 10);
    assert!(hub.server.metric("percore_channels_evicted_total") > 500);
}

/// The replies to a batch end where they would be too long, and what cannot be read is not done in part.
#[test]
fn batches_are_bounded() {
    let hub = Hub::start(&["--history-size", "300"]);
    for _ in 0..100 {
        hub.result("publish", &json!({"channel": "a", "data": "x".repeat(6_000)}));
    }
    let history = json!({"history": {"channel": "a", "limit": -1}});
    let replies = hub.result("batch", &json!({"commands": vec![history; 1000]}))["replies"].clone();
    let replies = replies.as_array().expect("a list");
    assert_eq!(replies.len(), 1000);
    assert_eq!(replies[0]["history"]["publications"].as_array().map(Vec::len), Some(100));
    let refused = replies.iter().filter(|reply| reply["error"]["code"] == 106).count();
    assert_eq!(refused, 998, "two are a mebibyte and more");
    // One after the other they are longer than a backlog may be.
    let hub = Hub::start(&["--history-size", "300", "--max-backlog", "64K"]);
    for _ in 0..100 {
        hub.result("publish", &json!({"channel": "a", "data": "x".repeat(6_000)}));
    }
    let all = hub.result("history", &json!({"channel": "a", "limit": -1}));
    assert_eq!(all["publications"].as_array().map(Vec::len), Some(100));
    let (_, answer) = hub.call("batch", &json!({"commands": [{"publish": {"channel": "b", "data": 1}}, {}]}));
    assert_eq!(answer["error"]["code"], 107);
    assert_eq!(hub.result("history", &json!({"channel": "b", "limit": -1}))["offset"], json!(0));
}

/// Content is read from backends only that have the key.
#[test]
fn the_key_comes_before_the_content() {
    let folder = TempDir::new();
    let key = folder.path("key");
    std::fs::write(&key, "secret").expect("a file");
    let hub = Hub::start(&["--api-key-file", key.to_str().expect("text")]);
    for (key, status) in [("wrong", 401), ("secret", 200)] {
        let mut backend = Client::connect(hub.service);
        let length = if status == 200 { 2 } else { 1 << 20 };
        backend.send(format!(
            "POST /api/info HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Length: {length}\r\n\r\n"
        ));
        if status == 200 {
            backend.send("{}");
        }
        assert_eq!(backend.response().status, status);
    }
}

/// A page that was led to this machine by its DNS has no business here.
#[test]
fn names_of_others_are_not_served_without_tokens() {
    let hub = Hub::start(&[]);
    let upgrade = |host: &str| {
        let mut client = Client::connect(hub.server.addr());
        let request = upgrade_request("/connection/websocket", &format!("Origin: http://{host}\r\n"));
        client.send(request.replace("test.example", host));
        client.head_response().status
    };
    assert_eq!(["evil.example", "localhost", "127.0.0.1:8000"].map(upgrade), [403, 101, 101]);
}

/// A question that costs much counts as many.
#[test]
fn counting_clients_has_its_price() {
    let hub = Hub::start(&["--rate-messages", "5", "--presence"]);
    let crowd: Vec<_> = (0..200)
        .map(|_| {
            let mut client = hub.client();
            client.subscribe("a", &json!({}));
            client
        })
        .collect();
    let mut bad = hub.client();
    let mut text = String::new();
    for number in 1..=9 {
        let _ = writeln!(text, "{{\"id\":{number},\"presence_stats\":{{\"channel\":\"a\"}}}}");
    }
    bad.say(&text);
    let replies: Vec<_> = (0..9).map(|_| bad.hear()).collect();
    assert_eq!(replies[0]["presence_stats"]["num_clients"], 200);
    assert!(replies.iter().filter(|reply| reply["error"]["code"] == 111).count() >= 6, "{replies:?}");
    drop(crowd);
}

/// A client whose token puts it on many channels gets so much at once; of the rest it is told that it missed some.
#[test]
fn recovery_at_the_connection_is_bounded() {
    let folder = TempDir::new();
    let secret = folder.path("secret");
    std::fs::write(&secret, SECRET).expect("a file");
    let hub = Hub::start(&["--history-size", "300", "--jwt-secret-file", secret.to_str().expect("text")]);
    let channels: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
    for channel in &channels {
        for _ in 0..10 {
            hub.result("publish", &json!({"channel": channel, "data": "x".repeat(50_000)}));
        }
    }
    let subs: serde_json::Map<_, _> =
        channels.iter().map(|name| (name.clone(), json!({"recover": true, "offset": 0, "epoch": ""}))).collect();
    let claims = json!({"sub": "ann", "channels": channels});
    let reply = hub.speaker().ask(&json!({"connect": {"token": token(&claims), "subs": subs}}));
    let subs = reply["connect"]["subs"].as_object().expect("subscriptions").clone();
    assert_eq!(subs.len(), 8);
    assert!(subs.values().all(|sub| sub["was_recovering"] == true));
    let whole = subs
        .values()
        .filter(|sub| sub["recovered"] == true && sub["publications"].as_array().is_some_and(|all| all.len() == 10));
    let nothing = subs.values().filter(|sub| sub.get("recovered").is_none() && sub.get("publications").is_none());
    assert_eq!((whole.count(), nothing.count()), (3, 5));
}

/// A storm of clients that come back, each by a number of its own: each has its answers in order.
#[test]
fn a_storm_of_different_numbers_is_answered_in_order() {
    const CLIENTS: u32 = 300;
    let hub = Hub::start(&["--history-size", "300", "--rate-messages", "0"]);
    let mut ann = hub.client();
    ann.subscribe("live", &json!({}));
    for _ in 0..100 {
        hub.result("publish", &json!({"channel": "a", "data": "x".repeat(10_000)}));
    }
    let mut crowd: Vec<_> = (0..CLIENTS).map(|_| hub.client()).collect();
    // They come while the server does nothing, and so all at once.
    hub.server.signal("STOP");
    for (number, client) in (10..).zip(&mut crowd) {
        client.say(&format!(
            "{{\"id\":{number},\"subscribe\":{{\"channel\":\"a\",\"recover\":true}}}}\n{{\"id\":{},\"unsubscribe\":{{\"channel\":\"a\"}}}}",
            number + 1
        ));
    }
    hub.server.signal("CONT");
    hub.result("publish", &json!({"channel": "live", "data": 1}));
    assert_eq!(ann.push("pub", "live")["data"], 1);
    for (number, client) in (10..).zip(&mut crowd) {
        let reply = client.hear();
        assert_eq!((&reply["id"], &reply["subscribe"]["recovered"]), (&json!(number), &json!(true)));
        assert_eq!(reply["subscribe"]["publications"].as_array().map(Vec::len), Some(100));
        assert_eq!(client.hear(), json!({"id": number + 1, "unsubscribe": {}}), "in order");
    }
}

/// Those that come and go in a loop cost the others no more than publications may.
#[test]
fn joins_and_leaves_have_a_rate() {
    let hub = Hub::start(&["--presence", "--rate-messages", "0", "--rate-channel", "10K"]);
    let mut ann = hub.client();
    ann.subscribe("a", &json!({"join_leave": true}));
    ann.push("join", "a");
    let mut bad = hub.client();
    let mut came = 0;
    for _ in 0..500 {
        let reply = bad.ask(&json!({"subscribe": {"channel": "a"}}));
        match reply["error"]["code"].as_u64() {
            None => came += 1,
            code => assert_eq!((code, &reply["error"]["temporary"]), (Some(111), &json!(true)), "{reply}"),
        }
        bad.ask(&json!({"unsubscribe": {"channel": "a"}}));
    }
    assert!((1..250).contains(&came), "{came} of 500");
    for _ in 0..came {
        ann.push("join", "a");
        ann.push("leave", "a");
    }
    // Where nobody is told, nothing is counted.
    for _ in 0..500 {
        bad.subscribe("b#", &json!({}));
        bad.ask(&json!({"unsubscribe": {"channel": "b#"}}));
    }
}

/// What is too old goes, also where no client and no request calls for it.
#[test]
fn a_history_ends_in_time_by_itself() {
    let hub = Hub::start(&["--history-size", "10", "--history-ttl", "300ms", "--admin", "127.0.0.1:0"]);
    let result = hub.result("publish", &json!({"channel": "a", "data": "x".repeat(10_000)}));
    assert_eq!(result["offset"], 1);
    let is_over = || {
        let [streams, bytes] =
            ["streams", "history_bytes"].map(|name| hub.server.metric(&format!("percore_channels_{name}")));
        streams == 1 && bytes < 1_000
    };
    eventually("the end of the publication", is_over);
}

/// A token with more channels than a client may be on is refused as a whole, and that is logged.
#[test]
fn a_token_with_too_many_channels_is_refused() {
    let folder = TempDir::new();
    let secret = folder.path("secret");
    std::fs::write(&secret, SECRET).expect("a file");
    let hub = Hub::start(&["--jwt-secret-file", secret.to_str().expect("text"), "--max-channels", "4"]);
    let connect = |channels: &[&str]| {
        let claims = json!({"sub": "ann", "channels": channels, "subs": {"a": {}}});
        hub.speaker().ask(&json!({"connect": {"token": token(&claims)}}))
    };
    let reply = connect(&["a", "b", "c", "d"]);
    assert_eq!(reply["connect"]["subs"].as_object().map(serde_json::Map::len), Some(4), "{reply}");
    let reply = connect(&["a", "b", "c", "d", "e"]);
    assert_eq!(reply["error"], json!({"code": 106, "message": "limit exceeded"}));
    hub.server.wait_for_log("the token of user 'ann' has 5 channels");
}
