//! The second front of `serve channels`: Pusher's protocol, with its SDKs unchanged, and by hand. `tests/run` installs them.

use crate::common::channels::{Hub, Speaker};
use crate::common::program::Program;
use crate::common::{Client, TempDir, tool};
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

/// A client of this front, by hand.
struct Ann(Speaker);

impl Ann {
    fn to(hub: &Hub) -> Ann {
        let mut ann = Ann(Speaker::to(hub.server.addr(), "/app/app-key?protocol=7&client=js&version=8.6.0"));
        let hello = ann.hears();
        assert_eq!(hello["event"], "pusher:connection_established");
        let data: Value = serde_json::from_str(hello["data"].as_str().expect("JSON in a string")).expect("JSON");
        assert_eq!(data["activity_timeout"], 120);
        ann
    }

    fn says(&mut self, event: &Value) {
        self.0.say(&event.to_string());
    }

    fn hears(&mut self) -> Value {
        self.0.hear()
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
