//! Clients of `percore serve gateway` with valid and invalid tokens made by PyJWT.

use crate::common::client::{Response, TEXT, frame, upgrade_request};
use crate::common::origin::{Gateway, Origin};
use crate::common::{Client, TempDir, eventually};
use crate::gateway_service::python;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;

/// Keys in files, and tokens by name.
fn made(folder: &TempDir) -> HashMap<String, String> {
    let path = folder.path("secret");
    let folder = path.parent().expect("a folder").to_str().expect("text");
    serde_json::from_str(&python("tokens.py", &[folder], "")).expect("tokens")
}

/// A gateway that wants tokens of those keys.
fn start(origin: &Origin, folder: &TempDir, flags: &[&str]) -> Gateway {
    let (secret, jwks) = (folder.path("secret"), folder.path("jwks.json"));
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let (secret, jwks) = (text(&secret), text(&jwks));
    let keys = ["--jwt-secret-file", &secret, "--jwks-file", &jwks];
    let claims = ["--jwt-audience", "percore", "--jwt-issuer", "https://issuer.example"];
    Gateway::start(origin, &[&keys[..], &claims, flags].concat())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn ask(gateway: &Gateway, target: &str, headers: &str) -> (Client, Response) {
    let mut client = gateway.server.connect();
    client.send(upgrade_request(target, headers));
    let head = client.head_response();
    (client, head)
}

#[test]
fn a_good_token_lets_in_and_its_claims_go_to_the_origin() {
    let (origin, folder) = (Origin::start(|_| 200), TempDir::new());
    let tokens = made(&folder);
    for flags in [&[][..], &["--authorize"][..]] {
        let gateway =
            start(&origin, &folder, &[flags, &["--jwt-parameter", "token", "--jwt-cookie", "session"]].concat());
        let before = origin.heard().len();
        let mut clients = Vec::new();
        for name in ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256"] {
            let (client, response) = ask(&gateway, "/", &bearer(&tokens[name]));
            assert_eq!(response.status, 101, "{name}");
            clients.push(client);
        }
        let token = &tokens["ES256"];
        for (target, headers) in [
            (format!("/?a=b&token={token}"), String::new()),
            ("/".to_owned(), format!("Cookie: a=b; session={token}\r\n")),
        ] {
            let (client, response) = ask(&gateway, &target, &headers);
            assert_eq!(response.status, 101, "{target} {headers}");
            clients.push(client);
        }
        eventually("all are known", || origin.heard().len() == before + clients.len());
        for heard in &origin.heard()[before..] {
            let claims: Value = serde_json::from_str(heard.header("percore-claims").expect("claims")).expect("JSON");
            assert_eq!((&claims["sub"], &claims["name"]), (&json!("ann"), &json!("Zoë")));
        }
        drop(clients);
        eventually("all have gone", || origin.heard().len() == before + 20);
    }
}

#[test]
fn a_bad_token_is_refused_with_the_reason() {
    let (origin, folder) = (Origin::start(|_| 200), TempDir::new());
    let tokens = made(&folder);
    let gateway = start(&origin, &folder, &["--admin", "127.0.0.1:0"]);
    for (name, reason) in [
        ("expired", "the token expired 60 s ago"),
        ("early", "the token is not valid for another"),
        ("audience", "the token is meant for another audience"),
        ("issuer", "the token is from another issuer"),
        ("forged", "the signature of the token is wrong"),
        ("none", "the token is not signed with an accepted algorithm"),
        ("kid", "there is no key for the token"),
    ] {
        let mut client = gateway.server.connect();
        client.send(upgrade_request("/", &bearer(&tokens[name])));
        let response = client.response();
        let challenge = response.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Bearer realm=\"percore\", error=\"invalid_token\", "), "{challenge}");
        let reason = reason.trim_end_matches("60 s ago");
        assert!(challenge.contains(reason) && response.body.contains(reason), "{name}: {challenge} {}", response.body);
        assert_eq!(response.status, 401, "{name}");
    }
    for (target, headers) in [
        ("/", String::new()),
        ("/", "Authorization: Basic YTpi\r\n".to_owned()),
        // Where nobody looks.
        (&format!("/?token={}", tokens["HS256"]), format!("Cookie: session={}\r\n", tokens["HS256"])),
    ] {
        let (_, response) = ask(&gateway, target, &headers);
        assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer realm=\"percore\"")));
    }
    assert!(origin.heard().is_empty(), "the origin heard of somebody");
    eventually("they are counted", || gateway.server.metric("percore_gateway_tokens_refused_total") == 10);
}

/// The keys are changed without a restart; a file that is damaged leaves those that there were.
#[test]
fn keys_are_read_again_when_they_change() {
    let (origin, folder) = (Origin::start(|_| 200), TempDir::new());
    let tokens = made(&folder);
    let gateway = start(&origin, &folder, &[]);
    let status = |name: &str| ask(&gateway, "/", &bearer(&tokens[name])).1.status;
    assert_eq!((status("HS256"), status("later")), (101, 401));
    fs::write(folder.path("secret"), "short\n").expect("written");
    eventually("the damage is noticed", || {
        assert_eq!((status("HS256"), status("later")), (101, 401));
        gateway.server.count_log("keys stay as they were: --jwt-secret-file") > 0
    });
    fs::write(folder.path("secret"), "the secret that is used later, of at least thirty-two bytes\n").expect("written");
    eventually("the new secret counts", || status("later") == 101);
    assert_eq!((status("HS256"), status("RS256")), (401, 101));
}

#[test]
fn a_function_gets_the_claims_with_each_event() {
    let (origin, folder) = (Origin::start(|_| 200), TempDir::new());
    let tokens = made(&folder);
    let gateway = start(&origin, &folder, &["--events", "aws"]);
    let (mut client, response) = ask(&gateway, "/", &bearer(&tokens["RS256"]));
    assert_eq!(response.status, 101);
    client.send(frame(TEXT, b"hello"));
    drop(client);
    eventually("three events", || origin.heard().len() == 3);
    for heard in origin.heard() {
        let authorizer = &heard.json()["requestContext"]["authorizer"];
        assert_eq!((&authorizer["principalId"], &authorizer["iss"]), (&json!("ann"), &json!("https://issuer.example")));
    }
}
