//! `serve channels` and clients that mean harm: what each may have the server hold and do is bounded, and others notice nothing.

use crate::common::channels::Hub;
use crate::common::process;
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
