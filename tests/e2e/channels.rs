//! `serve channels` as its clients see it, line by line.

use crate::common::channels::{Hub, PATH, Speaker, command, token};
use crate::common::client::upgrade_request;
use crate::common::{Client, TempDir, eventually, percore, run};
use serde_json::{Value, json};
use std::time::Duration;

const HISTORY: [&str; 2] = ["--history-size", "10"];

#[test]
fn a_publication_reaches_subscribers_and_is_kept() {
    let hub = Hub::start(&HISTORY);
    let mut ann = hub.client();
    let first = ann.subscribe("news", &json!({}));
    assert_eq!(
        (&first["recoverable"], &first["positioned"], &first["offset"]),
        (&json!(true), &json!(true), &json!(0))
    );
    let result = hub.result("publish", &json!({"channel": "news", "data": {"a": [1, "x"]}, "tags": {"t": "u"}}));
    assert_eq!(result, json!({"offset": 1, "epoch": first["epoch"]}));
    let publication = json!({"data": {"a": [1, "x"]}, "tags": {"t": "u"}, "offset": 1});
    assert_eq!(ann.push("pub", "news"), publication);
    let history = ann.ask(&json!({"history": {"channel": "news", "limit": -1}}));
    let want = json!({"publications": [publication], "offset": 1, "epoch": first["epoch"]});
    assert_eq!(history["history"], want);
    assert_eq!(hub.result("history", &json!({"channel": "news", "limit": 10})), want);
    let top = hub.result("history", &json!({"channel": "news"}));
    assert_eq!(top, json!({"publications": [], "offset": 1, "epoch": first["epoch"]}));
}

/// The first message of an SDK: connect and everything else at once, answered in one.
#[test]
fn commands_of_one_message_are_answered_in_one() {
    let hub = Hub::start(&HISTORY);
    let mut ann = hub.speaker();
    ann.say("{\"id\":1,\"connect\":{\"name\":\"js\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"flag\":3}}\n{\"id\":3,\"unsubscribe\":{\"channel\":\"a\"}}\n");
    let text = ann.client.text();
    let lines: Vec<Value> = text.split('\n').map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.iter().map(|line| &line["id"]).collect::<Vec<_>>(), [1, 2, 3]);
    let connect = &lines[0]["connect"];
    assert_eq!((&connect["ping"], &connect["pong"]), (&json!(25), &json!(true)));
    assert!(connect["client"].as_str().is_some_and(|name| name.len() == 36) && connect["version"].is_string());
    assert_eq!(lines[2], json!({"id": 3, "unsubscribe": {}}));
}

/// What a client subscribes to and publishes in one message comes to it in that order.
#[test]
fn a_client_hears_itself_after_its_subscription() {
    let hub = Hub::start(&["--presence"]);
    let mut ann = hub.speaker();
    ann.say("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"join_leave\":true}}\n{\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":1}}");
    assert_eq!([ann.hear(), ann.hear()].map(|line| line["id"].clone()), [1, 2]);
    assert!(ann.push("join", "a")["info"]["client"].is_string());
    let publication = ann.push("pub", "a");
    assert_eq!((&publication["data"], publication["info"]["client"].is_string()), (&json!(1), true));
    assert_eq!(ann.hear(), json!({"id": 3, "publish": {}}));
}

#[test]
fn line_breaks_in_what_is_published_do_not_break_lines() {
    let hub = Hub::start(&[]);
    let mut ann = hub.client();
    ann.subscribe("a", &json!({}));
    let mut backend = Client::connect(hub.service);
    let body = "{\"channel\":\"a\",\r\n\"data\":{\n\"text\":\"two\\nlines\"\r\n}}";
    backend.send(format!("POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(backend.response().status, 403, "a name that is not this machine's may be a page's");
    let mut backend = Client::connect(hub.service);
    backend
        .send(format!("POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(backend.response().body, "{\"result\":{}}");
    let text = ann.client.text();
    assert!(!text.contains(['\n', '\r']), "{text:?}");
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON")["push"]["pub"]["data"],
        json!({"text": "two\nlines"})
    );
}

#[test]
fn a_client_that_comes_back_gets_all_or_nothing() {
    let hub = Hub::start(&["--history-size", "3"]);
    let mut ann = hub.client();
    let epoch = ann.subscribe("a", &json!({}))["epoch"].clone();
    for number in 1..=5 {
        hub.result("publish", &json!({"channel": "a", "data": number}));
    }
    let come_back = |offset: u64, epoch: &Value| {
        hub.client().subscribe("a", &json!({"recover": true, "offset": offset, "epoch": epoch}))
    };
    let data = |result: &Value| -> Vec<Value> {
        result["publications"].as_array().into_iter().flatten().map(|one| one["data"].clone()).collect()
    };
    for (offset, from, epoch) in [(2, 3, &epoch), (4, 5, &epoch), (5, 6, &epoch), (3, 4, &json!(""))] {
        let result = come_back(offset, epoch);
        assert_eq!((&result["recovered"], &result["was_recovering"]), (&json!(true), &json!(true)), "{result}");
        assert_eq!(result["offset"], offset);
        assert_eq!(data(&result), (from..=5).map(Value::from).collect::<Vec<_>>());
    }
    for (offset, epoch) in [(1, &epoch), (6, &epoch), (4, &json!("another1"))] {
        let result = come_back(offset, epoch);
        assert_eq!((result.get("recovered"), &result["was_recovering"]), (None, &json!(true)), "{result}");
        assert_eq!((&result["offset"], result.get("publications")), (&json!(5), None));
    }
    // Without a history that reaches back far enough an idle channel has a position all the same.
    let idle = hub.client().subscribe("idle", &json!({}));
    let back = hub.client().subscribe("idle", &json!({"recover": true, "offset": 0, "epoch": idle["epoch"]}));
    assert_eq!((&back["recovered"], &back["publications"]), (&json!(true), &json!([])));
}

/// Many that come back from the same place at once get the same.
#[test]
fn a_storm_of_clients_gets_what_it_missed() {
    let hub = Hub::start(&["--history-size", "100"]);
    let epoch = hub.client().subscribe("a", &json!({}))["epoch"].clone();
    for number in 0..100 {
        hub.result("publish", &json!({"channel": "a", "data": {"number": number, "text": "x".repeat(100)}}));
    }
    let mut all: Vec<Speaker> = (0..50).map(|_| hub.speaker()).collect();
    for speaker in &mut all {
        let subscribe = json!({"id": 2, "subscribe": {"channel": "a", "recover": true, "epoch": epoch}});
        speaker.say(&format!("{{\"id\":1,\"connect\":{{}}}}\n{subscribe}"));
    }
    hub.result("publish", &json!({"channel": "a", "data": "live"}));
    for speaker in &mut all {
        assert_eq!(speaker.hear()["id"], 1);
        let reply = speaker.hear();
        assert_eq!((&reply["id"], &reply["subscribe"]["recovered"]), (&json!(2), &json!(true)), "{reply}");
        let publications = reply["subscribe"]["publications"].as_array().expect("a list").clone();
        let mut offsets: Vec<u64> = publications.iter().filter_map(|one| one["offset"].as_u64()).collect();
        if offsets.len() == 100 {
            offsets.extend(speaker.push("pub", "a")["offset"].as_u64());
        }
        assert_eq!(offsets, (1..=101).collect::<Vec<_>>());
    }
}

/// A history that had to make room for others is another one from then on: who was there is told to subscribe anew.
#[test]
fn a_hole_is_told() {
    let hub = Hub::start(&["--history-size", "10", "--history-bytes", "2K"]);
    let mut ann = hub.client();
    let first = ann.subscribe("a", &json!({}));
    for channel in ["b", "c", "d"] {
        hub.result("publish", &json!({"channel": channel, "data": "x".repeat(400)}));
    }
    hub.result("publish", &json!({"channel": "a", "data": 1}));
    let told = ann.push("unsubscribe", "a");
    assert_eq!(told, json!({"code": 2500, "reason": "insufficient state"}));
    let again = ann.subscribe("a", &json!({"recover": true, "offset": 0, "epoch": first["epoch"]}));
    assert_eq!((again.get("recovered"), &again["offset"]), (None, &json!(1)));
    assert_ne!(again["epoch"], first["epoch"]);
    hub.result("publish", &json!({"channel": "a", "data": 2}));
    assert_eq!(ann.push("pub", "a")["offset"], 2);
}

#[test]
fn who_is_there_is_told() {
    let hub = Hub::start(&["--presence"]);
    let mut ann = hub.client();
    ann.subscribe("room", &json!({"join_leave": true}));
    assert_eq!(ann.push("join", "room"), json!({"info": {"client": ann.name, "user": ""}}));
    let mut ben = hub.client();
    ben.subscribe("room", &json!({}));
    assert_eq!(ann.push("join", "room")["info"]["client"], ben.name);
    let reply = ben.ask(&json!({"presence": {"channel": "room"}}));
    let presence = &reply["presence"]["presence"];
    assert_eq!(presence.as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(presence[&ann.name], json!({"client": ann.name, "user": ""}));
    assert_eq!(hub.result("presence", &json!({"channel": "room"}))["presence"], *presence);
    let stats = ben.ask(&json!({"presence_stats": {"channel": "room"}}));
    assert_eq!(stats["presence_stats"], json!({"num_clients": 2, "num_users": 1}));
    let name = ben.name.clone();
    drop(ben);
    assert_eq!(ann.push("leave", "room")["info"]["client"], name);
    ann.ask(&json!({"unsubscribe": {"channel": "room"}}));
    assert_eq!(hub.result("presence", &json!({"channel": "room"})), json!({"presence": {}}));
}

/// A user whose connection breaks and comes back does not flicker.
#[test]
fn a_leave_is_kept_back() {
    let folder = TempDir::new();
    let config = folder.path("channels.toml");
    let (secret, text) = (folder.path("secret"), crate::common::channels::SECRET);
    std::fs::write(&secret, text).expect("written");
    let text = "[channels]\njoin_leave = true\nleave_hold = \"1s\"\nallow_subscribe_for_client = true\n";
    std::fs::write(&config, text).expect("written");
    let [secret, config] = [&secret, &config].map(|path| path.to_str().expect("text"));
    let hub = Hub::start(&["--jwt-secret-file", secret, "--config", config]);
    let user = |name: &str| token(&json!({"sub": name}));
    let mut ann = hub.client_by(&user("ann"));
    ann.subscribe("room", &json!({"join_leave": true}));
    ann.push("join", "room");
    let mut ben = hub.client_by(&user("ben"));
    ben.subscribe("room", &json!({}));
    assert_eq!(ann.push("join", "room")["info"]["user"], "ben");
    drop(ben);
    let is_alone = || hub.result("channels", &json!({}))["channels"]["room"]["num_clients"] == 1;
    eventually("the end of a connection", is_alone);
    let mut back = hub.client_by(&user("ben"));
    back.subscribe("room", &json!({}));
    let mut cid = hub.client_by(&user("cid"));
    cid.subscribe("room", &json!({}));
    assert_eq!(ann.push("join", "room")["info"]["user"], "cid");
    drop(back);
    assert_eq!(ann.push("leave", "room")["info"]["user"], "ben");
}

#[test]
fn commands_have_their_errors() {
    let hub = Hub::start(&["--max-channels", "2"]);
    let mut ann = hub.client();
    let subscribe = |channel: &str| json!({"subscribe": {"channel": channel}});
    ann.subscribe("a", &json!({}));
    for (command, code) in [
        (subscribe("a"), 105),
        (subscribe("other:a"), 102),
        (subscribe(&"a".repeat(256)), 107),
        (subscribe("\u{e4}"), 107),
        (json!({"rpc": {"method": "x"}}), 108),
        (json!({"presence": {"channel": "a"}}), 108),
        (json!({"history": {"channel": "a"}}), 108),
        (json!({"publish": {"channel": "a"}}), 107),
        (json!({"publish": {"channel": "a", "data": "x".repeat(65 << 10)}}), 106),
    ] {
        assert_eq!(ann.error(&command), code, "{command}");
    }
    ann.subscribe("b", &json!({}));
    assert_eq!(ann.error(&subscribe("c")), 106);
    let error = ann.ask(&subscribe("c"))["error"].clone();
    assert_eq!(error, json!({"code": 106, "message": "limit exceeded"}));
    // A command without an answer, and the answer to nothing.
    ann.say("{\"send\":{\"data\":1}}");
    assert_eq!(ann.ask(&json!({"unsubscribe": {"channel": "never"}}))["unsubscribe"], json!({}));
}

#[test]
fn who_breaks_the_protocol_is_sent_away_for_good() {
    let hub = Hub::start(&[]);
    for said in [
        "{\"id\":1,\"subscribe\":{\"channel\":\"a\"}}",
        "{}",
        "{\"id\":1,\"dance\":{}}",
        "not JSON",
        "",
        "{\"id\":0,\"connect\":{}}",
        "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"connect\":{}}",
        "{\"id\":1,\"connect\":{}}\n{}",
        "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{}}",
    ] {
        let mut speaker = hub.speaker();
        speaker.say(said);
        assert_eq!(speaker.ended(), (3501, "bad request".into()), "{said}");
    }
}

#[test]
fn pings_are_answered_or_else() {
    let folder = TempDir::new();
    let config = folder.path("channels.toml");
    std::fs::write(&config, "[client]\nping = \"1s\"\npong_timeout = \"300ms\"\nconnect_timeout = \"300ms\"\n")
        .expect("written");
    let hub = Hub::start(&["--config", config.to_str().expect("text")]);
    assert_eq!(hub.speaker().ended(), (3502, "stale".into()));
    let mut ann = hub.client();
    for _ in 0..2 {
        assert_eq!(ann.hear(), json!({}));
        ann.say("{}");
    }
    assert_eq!(ann.ended(), (3012, "no pong".into()));
    // By WebSocket's own pings there are none of the protocol.
    let mut ben = Speaker::to(hub.server.addr(), &format!("{PATH}?cf_ws_frame_ping_pong=true"));
    let reply = ben.ask(&json!({"connect": {}}));
    assert!(reply["connect"].get("ping").is_none(), "{reply}");
    assert!(ben.client.frame_within(Duration::from_millis(1500)).is_none());
}

#[test]
fn protobuf_is_refused_by_a_sentence() {
    let hub = Hub::start(&["--insecure"]);
    let protobuf = ("", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n");
    for (query, headers) in [("?format=protobuf", ""), ("?cf_protocol=protobuf", ""), protobuf] {
        let mut client = Client::connect(hub.server.addr());
        client.send(upgrade_request(&format!("{PATH}{query}"), headers));
        let response = client.response();
        assert!(response.status == 400 && response.body.contains("JSON"), "{query}{headers}: {response:?}");
    }
    let mut client = Client::connect(hub.server.addr());
    client.send(upgrade_request(PATH, "Sec-WebSocket-Protocol: centrifuge-json\r\n"));
    assert_eq!(client.head_response().header("sec-websocket-protocol"), Some("centrifuge-json"));
}

#[test]
fn namespaces_have_rules_of_their_own() {
    let folder = TempDir::new();
    let config = folder.path("channels.toml");
    let text = "[client]\nallow_anonymous = true\n[namespaces.open]\nallow_subscribe_for_client = true\n\
                allow_subscribe_for_anonymous = true\nallow_publish_for_subscriber = true\nallow_publish_for_anonymous = true\n";
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("text");
    let hub = Hub::start(&["--config", config]);
    let mut ann = hub.client();
    let publish = json!({"publish": {"channel": "open:a", "data": 1}});
    assert_eq!(ann.error(&json!({"subscribe": {"channel": "a"}})), 103);
    assert_eq!(ann.error(&json!({"subscribe": {"channel": "$open:a"}})), 103);
    assert_eq!(ann.error(&publish), 103);
    ann.subscribe("open:a", &json!({}));
    ann.order(&publish);
    assert_eq!(ann.push("pub", "open:a")["data"], 1);
    assert!(ann.hear().get("publish").is_some());
    let (code, out, _) = run(percore(&["config", "check", config]));
    assert!(code == 0 && out.contains("1 namespace"), "{out}");
    std::fs::write(config, "[channels]\nhistory_size = 5\nhistory_tl = \"1m\"\n").expect("written");
    for command in [percore(&["config", "check", config]), command(&["--config", config])] {
        let (code, _, error) = run(command);
        assert!(code == 2 && error.contains("line 3: unknown key 'history_tl'"), "{error}");
    }
}

#[test]
fn what_cannot_be_is_refused_at_the_start() {
    for (flags, hint) in [
        (&["--history-size", "1", "--slow-consumer", "drop"][..], "would leave holes"),
        (&["--listen", "0.0.0.0:0"], "--insecure"),
        (&["--service-listen", "0.0.0.0:0"], "--api-key-file"),
        (&["--jwt-secret-file", "/nowhere"], "/nowhere"),
        (&["--jwt-audience", "a"], "--jwt-secret-file"),
    ] {
        let (code, _, error) = run(command(flags));
        assert!(code == 2 && error.contains(hint), "{flags:?}: {error}");
    }
}
