//! Tokens of `serve channels`: the identity of a client, its channels, and its expiry.

use crate::common::TempDir;
use crate::common::channels::{Hub, SECRET, command, seconds_from_now, token};
use serde_json::json;

/// A server where tokens are asked for, and what is expired ends at once.
fn hub(config: &str) -> (Hub, TempDir) {
    let folder = TempDir::new();
    let (secret, file) = (folder.path("secret"), folder.path("channels.toml"));
    std::fs::write(&secret, SECRET).expect("written");
    std::fs::write(&file, config).expect("written");
    let flags = ["--jwt-secret-file", secret.to_str().expect("text"), "--config", file.to_str().expect("text")];
    (Hub::launch(command(&flags)), folder)
}

#[test]
fn a_bad_token_is_the_end_and_an_expired_one_is_not() {
    let (hub, _folder) = hub("");
    let good = token(&json!({"sub": "ann"}));
    let mut forged = good.clone();
    forged.truncate(good.len() - 3);
    for bad in ["", "x", &forged, &token(&json!({"sub": "ann", "channel": "a"})), &"a.".repeat(20_000)] {
        let mut speaker = hub.speaker();
        speaker.order(&json!({"connect": {"token": bad}}));
        assert_eq!(speaker.ended(), (3500, "invalid token".into()), "{bad}");
    }
    let mut speaker = hub.speaker();
    let expired = token(&json!({"sub": "ann", "exp": seconds_from_now(-60)}));
    assert_eq!(speaker.error(&json!({"connect": {"token": expired}})), 109);
    let reply = speaker.ask(&json!({"connect": {"token": good}}));
    assert!(reply["connect"].get("expires").is_none(), "{reply}");
}

#[test]
fn what_a_token_says_is_told() {
    let (hub, _folder) = hub("[channels]\npresence = true\nhistory_size = 5\nallow_presence_for_subscriber = true\n");
    hub.result("publish", &json!({"channel": "mail", "data": 1}));
    let subs = json!({"mail": {"info": {"box": 3}}, "news": {}});
    let claims = json!({"sub": "ann", "info": {"name": "Ann"}, "subs": subs, "exp": seconds_from_now(100)});
    let mut ann = hub.speaker();
    let connect = ann.ask(&json!({"connect": {"token": token(&claims)}}))["connect"].clone();
    assert!(
        connect["expires"] == true && (90..=100).contains(&connect["ttl"].as_u64().expect("a number")),
        "{connect}"
    );
    assert_eq!((&connect["subs"]["mail"]["offset"], &connect["subs"]["news"]["offset"]), (&json!(1), &json!(0)));
    let name = connect["client"].as_str().expect("a name");
    let presence = ann.ask(&json!({"presence": {"channel": "mail"}}))["presence"]["presence"][name].clone();
    let want = json!({"client": name, "user": "ann", "conn_info": {"name": "Ann"}, "chan_info": {"box": 3}});
    assert_eq!(presence, want);
    hub.result("publish", &json!({"channel": "mail", "data": 2}));
    assert_eq!(ann.push("pub", "mail")["offset"], 2);
    // It comes back with what it has, and is put on its channels again.
    let position = json!({"recover": true, "offset": 1, "epoch": connect["subs"]["mail"]["epoch"]});
    let mut again = hub.speaker();
    let reply = again.ask(&json!({"connect": {"token": token(&claims), "subs": {"mail": position}}}));
    let mail = &reply["connect"]["subs"]["mail"];
    assert_eq!((&mail["recovered"], &mail["publications"][0]["data"]), (&json!(true), &json!(2)), "{reply}");
}

#[test]
fn a_channel_may_want_a_token_of_its_own() {
    let (hub, _folder) = hub("[channels]\nallow_subscribe_for_client = true\n");
    let mut ann = hub.client_by(&token(&json!({"sub": "ann"})));
    let mut subscribe = |channel: &str, token: &str| {
        ann.ask(&json!({"subscribe": {"channel": channel, "token": token}}))["error"]["code"].as_u64()
    };
    assert_eq!(subscribe("open", ""), None);
    assert_eq!(subscribe("inbox#ann", ""), None);
    assert_eq!(subscribe("inbox#ben", ""), Some(103));
    assert_eq!(subscribe("$a", ""), Some(103));
    assert_eq!(subscribe("$a", "x"), Some(103));
    assert_eq!(subscribe("$a", &token(&json!({"sub": "ann", "channel": "$b"}))), Some(103));
    assert_eq!(subscribe("$a", &token(&json!({"sub": "ben", "channel": "$a"}))), Some(103));
    assert_eq!(subscribe("$a", &token(&json!({"sub": "ann", "channel": "$a", "exp": 1}))), Some(109));
    assert_eq!(subscribe("$a", &token(&json!({"sub": "ann", "channel": "$a"}))), None);
    assert_eq!(subscribe("inbox#ben", &token(&json!({"sub": "ann", "channel": "inbox#ben"}))), None);
}

#[test]
fn what_expires_ends_unless_it_is_refreshed() {
    let (hub, _folder) =
        hub("[channels]\nallow_subscribe_for_client = true\n[client]\nexpiry_grace = \"0\"\nping = \"0\"\n");
    let until = |seconds| json!({"sub": "ann", "exp": seconds_from_now(seconds)});
    let of_channel = |seconds| token(&json!({"sub": "ann", "channel": "a", "exp": seconds_from_now(seconds)}));
    let mut ann = hub.client_by(&token(&until(2)));
    let mut ben = hub.client_by(&token(&until(2)));
    let long = token(&until(1000));
    let refreshed = ann.ask(&json!({"refresh": {"token": long}}))["refresh"].clone();
    assert!(refreshed["ttl"].as_u64().is_some_and(|ttl| ttl > 900) && refreshed["client"] == ann.name, "{refreshed}");
    assert!(ann.subscribe("a", &json!({"token": of_channel(3)}))["ttl"].is_number());
    assert_eq!(ben.ended(), (3005, "connection expired".into()));
    let refreshed = ann.ask(&json!({"sub_refresh": {"channel": "a", "token": of_channel(2)}}));
    assert_eq!(refreshed["sub_refresh"]["expires"], true, "{refreshed}");
    assert_eq!(ann.error(&json!({"sub_refresh": {"channel": "a", "token": of_channel(-60)}})), 109);
    assert_eq!(ann.error(&json!({"sub_refresh": {"channel": "b", "token": of_channel(60)}})), 103);
    assert_eq!(ann.push("unsubscribe", "a"), json!({"code": 2501, "reason": "subscription expired"}));
    for (bad, code) in [(token(&until(-60)), 3005), ("x".to_owned(), 3500), (token(&json!({"sub": "ben"})), 3500)] {
        let mut cid = hub.client_by(&long);
        cid.order(&json!({"refresh": {"token": bad}}));
        assert_eq!(cid.ended().0, code);
    }
}
