//! The second front of `serve channels`: Pusher's protocol, with its SDKs unchanged, and by hand. `tests/run` installs them.

use crate::common::channels::{Hub, Speaker, command};
use crate::common::program::Program;
use crate::common::{Client, TempDir, eventually, run, tool};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

const CONFIG: &str = "[pusher]\napp_id = \"7\"\nkey = \"app-key\"\nsecret = \"app-secret\"\nclient_events = true\n\
                      [namespaces.pusher]\nhistory_size = 10\n";

/// A server with both fronts.
fn hub(flags: &[&str]) -> (Hub, TempDir) {
    let folder = TempDir::new();
    let file = folder.path("channels.toml");
    std::fs::write(&file, CONFIG).expect("written");
    (Hub::start(&[&["--config", file.to_str().expect("text")], flags].concat()), folder)
}

fn printed(program: PathBuf, name: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new(program);
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)).args(arguments);
    let (code, out, err) = Program::start(command).ends();
    assert_eq!(code, Some(0), "{out:#?}\n{err:#?}");
    out
}

#[test]
fn javascript_on_both_sides() {
    tool("node_modules/pusher-js/package.json");
    let (hub, _folder) = hub(&[]);
    let ports = [hub.server.addr().port(), hub.service.port()].map(|port| port.to_string());
    let want = [
        "connected true",
        r#"event {"text":"one\n\"two\""}"#,
        "except 2",
        r#"members 1 ann {"name":"ann"}"#,
        "added ben 2",
        r#"client event {"hand":"left"}"#,
        r#"info {"occupied":true,"user_count":2}"#,
        "users ann,ben",
        "channels presence-room",
        "removed ben",
        "forbidden 401",
        "signed in ann",
        "terminated",
        "refused 401",
    ];
    assert_eq!(printed("node".into(), "pusher.js", &[&ports[0], &ports[1]]), want);
}

#[test]
fn laravel_echo() {
    tool("node_modules/laravel-echo/package.json");
    let (hub, _folder) = hub(&[]);
    let ports = [hub.server.addr().port(), hub.service.port()].map(|port| port.to_string());
    let want = [
        r#"event {"order":7} true"#,
        r#"notification {"text":"hi"}"#,
        r#"here [{"name":"ann"}]"#,
        r#"here ["ann","ben"]"#,
        "joining ben",
        r#"whisper {"name":"ben"}"#,
        "leaving ben",
    ];
    assert_eq!(printed("node".into(), "laravel_echo.js", &[&ports[0], &ports[1]]), want);
}

#[test]
fn a_backend_in_python() {
    let (hub, _folder) = hub(&[]);
    let mut ann = Ann::to(&hub);
    ann.says(&json!({"event": "pusher:subscribe", "data": {"channel": "news"}}));
    assert_eq!(ann.hears()["event"], "pusher_internal:subscription_succeeded");
    let out = printed(tool("venv/bin/python"), "pusher_api.py", &[&hub.service.port().to_string()]);
    let want = [
        "trigger {}",
        "batch {'batch': []}",
        "channels {'channels': {'news': {}}}",
        "channel {'occupied': True, 'subscription_count': 1}",
        "users {'users': []}",
    ];
    assert_eq!(out, want);
    for number in [1, 2] {
        let data = format!("{{\"x\": {number}}}");
        assert_eq!(ann.hears(), json!({"event": "greeting", "channel": "news", "data": data}));
    }
}

/// A client of this front, by hand, and the name of its socket.
struct Ann(Speaker, String);

impl Ann {
    fn to(hub: &Hub) -> Ann {
        let mut ann =
            Ann(Speaker::to(hub.server.addr(), "/app/app-key?protocol=7&client=js&version=8.6.0"), String::new());
        let hello = ann.hears();
        assert_eq!(hello["event"], "pusher:connection_established");
        let data: Value = serde_json::from_str(hello["data"].as_str().expect("JSON in a string")).expect("JSON");
        assert_eq!(data["activity_timeout"], 120);
        ann.1 = data["socket_id"].as_str().expect("a text").to_owned();
        ann
    }

    fn says(&mut self, event: &Value) {
        self.0.say(&event.to_string());
    }

    fn hears(&mut self) -> Value {
        self.0.hear()
    }
}

/// What a client gives as `auth`.
fn signed(text: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"app-secret");
    let signature = ring::hmac::sign(&key, text.as_bytes());
    let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("app-key:{hex}")
}

/// A backend is told what happens: signed, in order, again where it was not taken, and not what lasts a moment only.
#[test]
fn webhooks() {
    let mut node = Command::new("node");
    node.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/pusher_webhook.js"));
    let backend = Program::start(node);
    backend.shows("listening", 1);
    let port = backend.out()[0].split(' ').nth(1).expect("a port").to_owned();
    let folder = TempDir::new();
    let file = folder.path("channels.toml");
    let hook = format!("webhook_url = \"http://127.0.0.1:{port}/hook?a=b\"\n");
    std::fs::write(&file, CONFIG.replace("client_events", &(hook + "client_events"))).expect("written");
    let hub = Hub::start(&["--config", file.to_str().expect("text"), "--admin", "127.0.0.1:0"]);
    let join = |ann: &mut Ann, channel: &str, user: &str| {
        let data = format!("{{\"user_id\":\"{user}\"}}");
        let auth = signed(&format!("{}:{channel}:{data}", ann.1));
        ann.says(
            &json!({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth, "channel_data": data}}),
        );
        // What others do comes in between.
        while ann.hears()["event"] != "pusher_internal:subscription_succeeded" {}
    };
    let (mut ann, mut ben) = (Ann::to(&hub), Ann::to(&hub));
    join(&mut ann, "presence-room", "ann");
    backend.shows("refused 2", 1);
    backend.shows("again", 1);
    backend.shows("channel_occupied presence-room []", 1);
    backend.shows("member_added presence-room [\"ann\"]", 1);
    join(&mut ben, "presence-room", "ben");
    backend.shows("member_added presence-room [\"ben\"]", 1);
    ben.says(&json!({"event": "client-wave", "channel": "presence-room", "data": {"hand": "left"}}));
    backend.shows(r#"client_event presence-room ["client-wave","{\"hand\":\"left\"}","ben"]"#, 1);
    // A client that is back at once was never away.
    ann.says(&json!({"event": "pusher:unsubscribe", "data": {"channel": "presence-room"}}));
    join(&mut ann, "presence-room", "ann");
    drop(ben);
    backend.shows("member_removed presence-room [\"ben\"]", 1);
    drop(ann);
    backend.shows("member_removed presence-room [\"ann\"]", 1);
    backend.shows("channel_vacated presence-room []", 1);
    eventually("the last answer", || hub.server.metric("percore_channels_webhook_events_total") == 7);
    assert_eq!(hub.server.metric("percore_channels_webhook_events_lost_total"), 0);
    // What is kept back when the server ends is told before.
    let mut cid = Ann::to(&hub);
    join(&mut cid, "presence-hall", "cid");
    backend.shows("member_added presence-hall [\"cid\"]", 1);
    assert_eq!(hub.server.stop().0, Some(0));
    backend.shows("channel_vacated presence-hall []", 1);
    let lines = backend.out();
    assert!(!lines.iter().any(|line| line.starts_with("bad")), "{lines:#?}");
}

#[test]
fn webhooks_are_sent_by_one_process() {
    let folder = TempDir::new();
    let file = folder.path("channels.toml");
    let config = CONFIG.replace("history_size = 10", "history_size = 0");
    let config = config.replace("client_events", "webhook_url = \"http://localhost/\"\nclient_events");
    std::fs::write(&file, config).expect("written");
    let (flags, bus) = (["--config", file.to_str().expect("text"), "--insecure"], folder.path("bus"));
    for more in [["--workers", "2"], ["--bus", bus.to_str().expect("text")]] {
        let (code, _, error) = run(command(&[&flags[..], &more].concat()));
        assert!(code == 2 && error.contains("webhooks are sent by one process"), "{more:?}: {error}");
    }
}

/// One publish reaches both fronts, whichever it comes from.
#[test]
fn one_publish_reaches_both_fronts() {
    let (hub, _folder) = hub(&["--insecure"]);
    let mut ann = Ann::to(&hub);
    ann.says(&json!({"event": "pusher:subscribe", "data": {"channel": "news"}}));
    ann.hears();
    let mut ben = hub.client();
    ben.subscribe("pusher:news", &json!({}));
    hub.result("publish", &json!({"channel": "pusher:news", "data": {"a": 1}}));
    assert_eq!(ann.hears(), json!({"event": "message", "channel": "news", "data": "{\"a\":1}"}));
    assert_eq!(ben.push("pub", "pusher:news"), json!({"data": {"a": 1}, "offset": 1}));
    ben.order(&json!({"publish": {"channel": "pusher:news", "data": 2}}));
    assert_eq!(ann.hears()["data"], "2");
    assert_eq!(ben.push("pub", "pusher:news")["offset"], 2);
    ben.hear();
    printed(tool("venv/bin/python"), "pusher_api.py", &[&hub.service.port().to_string()]);
    assert_eq!(ann.hears()["event"], "greeting");
    let data = ben.push("pub", "pusher:news")["data"].clone();
    assert_eq!(data, json!({"event": "greeting", "data": "{\"x\": 1}"}));
}

#[test]
fn what_is_wrong_is_told() {
    let (hub, _folder) = hub(&[]);
    let mut ann = Ann::to(&hub);
    ann.says(&json!({"event": "pusher:ping", "data": {}}));
    assert_eq!(ann.hears()["event"], "pusher:pong");
    for (event, code) in [
        (json!([]), 4200),
        (json!({"event": "pusher:dance"}), 4200),
        (json!({"event": "pusher:subscribe", "data": {"channel": "a:b"}}), 4009),
        (json!({"event": "client-x", "channel": "news", "data": 1}), 4301),
        (json!({"event": "client-x", "channel": "private-x", "data": 1}), 4301),
    ] {
        ann.says(&event);
        let told = ann.hears();
        assert_eq!((&told["event"], &told["data"]["code"]), (&json!("pusher:error"), &json!(code)), "{event}");
    }
    ann.says(&json!({"event": "pusher:subscribe", "data": {"channel": "presence-x", "auth": "app-key:00", "channel_data": "{}"}}));
    assert_eq!(ann.hears()["event"], "pusher:subscription_error");
    ann.says(&json!({"event": "pusher:signin", "data": {"auth": "app-key:00", "user_data": "{\"id\":\"1\"}"}}));
    assert_eq!(ann.0.ended().0, 4009);
    let mut client = Client::connect(hub.server.addr());
    assert_eq!(client.get("/app/another-key").status, 404);
    for target in ["/apps/7/channels", "/apps/8/channels", "/apps/7/channels?auth_key=app-key&auth_timestamp=1"] {
        let mut client = Client::connect(hub.service);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert!([401, 404].contains(&client.response().status), "{target}");
    }
}
