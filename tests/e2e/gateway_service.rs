//! The interfaces of `percore serve gateway` besides `/sr`, and its formats besides the JSON of websocket-service, with
//! the libraries of AWS and Standard Webhooks at the other end.

use crate::common::client::{TEXT, close_frame, frame};
use crate::common::origin::{Gateway, Heard, Origin, Reply, request};
use crate::common::{Client, TempDir, eventually, tool};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// What a Python script of `tests/clients` prints, with `input` to read.
pub fn python(script: &str, args: &[&str], input: &str) -> String {
    let path = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(path).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The status and the JSON of a request to the service.
fn ask(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let response = request(to, method, path, headers, body);
    (response.status, serde_json::from_str(&response.body).unwrap_or(Value::Null))
}

/// `/`, `+` and `=` as they stand in a path.
fn escaped(id: &str) -> String {
    id.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D")
}

#[test]
fn connections_and_channels_by_rest() {
    let origin = Origin::start(|_| 200);
    // Whoever is asked, one of the workers has each connection.
    let gateway = Gateway::start(&origin, &["--workers", "2", "--admin", "127.0.0.1:0"]);
    let mut clients: Vec<Client> = (0..8).map(|_| gateway.server.open()).collect();
    eventually("all are known", || origin.events().len() == 8);
    let ids: Vec<String> = origin.events().iter().map(|event| event.id().to_owned()).collect();
    let service = gateway.service;
    let path = |id: &str| format!("/connections/{}", escaped(id));
    eventually("every worker answers for all", || {
        ids.iter().all(|id| ask(service, "POST", &path(id), "", "one").0 == 200)
    });
    for id in &ids {
        let (status, told) = ask(service, "GET", &path(id), "", "");
        assert_eq!(status, 200, "{told}");
        let client = told["client"].as_str().expect("an address");
        assert!(clients.iter().any(|known| known.addr().to_string() == client), "{told}");
    }
    let batch = json!({"ids": ids, "message": {"text": "two"}}).to_string();
    let (status, told) = ask(service, "POST", "/connections:batch", "", &batch);
    let results = told["results"].as_array().expect("a list");
    assert!(status == 200 && results.len() == 8 && results.iter().all(|one| one["result"] == "queued"), "{told}");
    for id in &ids[..3] {
        let member = format!("/channels/news%20of%20today{}", path(id));
        assert_eq!(ask(service, "PUT", &member, "", ""), (200, json!({"result": "queued"})));
    }
    eventually("all of them are on the channel", || {
        ask(service, "POST", "/channels/news%20of%20today", "", "three").1["subscribers"] == 3
    });
    let until = |client: &mut Client, last: &str| loop {
        let text = client.text();
        if text == last {
            break;
        }
        assert!(["one", "two", "three"].contains(&text.as_str()), "{text}");
    };
    clients.iter_mut().for_each(|client| until(client, "two"));
    assert_eq!(ask(service, "DELETE", &format!("{}?code=4001&reason=go+away", path(&ids[0])), "", "").0, 200);
    let mut closed = 0;
    for client in &mut clients {
        let addr = client.addr().to_string();
        let is_first = origin
            .heard()
            .iter()
            .any(|heard| heard.header("percore-client") == Some(&addr) && heard.event().id() == ids[0]);
        if is_first {
            assert_eq!(client.closed(), (4001, "go away".to_owned()));
            client.send(close_frame(4001, ""));
            closed += 1;
        }
    }
    assert_eq!(closed, 1);
    eventually("it is gone", || ask(service, "GET", &path(&ids[0]), "", "").0 == 404);
    for (method, path, status) in [
        ("POST", path(&ids[0]), 404),
        ("POST", path("AAAA"), 404),
        ("PATCH", path(&ids[1]), 405),
        ("DELETE", format!("{}?code=999", path(&ids[1])), 400),
        ("POST", "/connections:batch".into(), 400),
        ("GET", "/connections:batch".into(), 405),
        ("POST", "/channels/percore.gateway%2F0".into(), 400),
    ] {
        let (got, told) = ask(service, method, &path, "", "");
        assert!(got == status && told["error"]["code"].is_string(), "{method} {path}: {got} {told}");
    }
}

/// All pages of the connections with a label, and how many there were.
fn with_label(service: SocketAddr, query: &str) -> (Vec<String>, usize) {
    let (mut all, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let (status, page) = ask(service, "GET", &format!("/connections?{query}{after}"), "", "");
        assert_eq!(status, 200, "{page}");
        let ids = page["ids"].as_array().expect("a list").iter().map(|id| id.as_str().expect("text").to_owned());
        all.extend(ids);
        pages += 1;
        let Some(next) = page["next"].as_str() else { return (all, pages) };
        after = format!("&after={}", escaped(next));
    }
}

#[test]
fn connections_are_found_by_their_labels() {
    let origin = Origin::start(|_| Reply {
        headers: vec![("percore-labels", "new, of today".into()), ("percore-channels", "all,percore.gateway/0".into())],
        ..Reply::from(200)
    });
    for flags in [&["--authorize"][..], &["--workers", "2", "--admin", "127.0.0.1:0"]] {
        let gateway = Gateway::start(&origin, flags);
        let (service, before) = (gateway.service, origin.heard().len());
        let mut clients: Vec<Client> = (0..9).map(|_| gateway.server.open()).collect();
        eventually("all are known", || origin.heard().len() == before + clients.len());
        let mut ids: Vec<String> = origin.events()[before..].iter().map(|event| event.id().to_owned()).collect();
        ids.sort();
        let sorted = |query: &str| {
            let (mut all, pages) = with_label(service, query);
            all.sort();
            (all, pages)
        };
        eventually("the origin's labels", || sorted("label=of+today").0 == ids);
        assert_eq!(sorted("label=new&limit=2"), (ids.clone(), 5));
        assert_eq!(
            sorted("label=new&limit=9"),
            (ids.clone(), 2),
            "a page that is full does not know that it is the last"
        );
        assert_eq!(sorted("label=nobody"), (Vec::new(), 1));
        let path = |id: &str, label: &str| format!("/connections/{}/labels/{label}", escaped(id));
        for id in &ids[..3] {
            assert_eq!(ask(service, "PUT", &path(id, "room%2F7"), "", ""), (200, json!({"result": "queued"})));
            assert_eq!(ask(service, "PUT", &path(id, "room%2F7"), "", "").0, 200, "twice is once");
        }
        assert_eq!(sorted("label=room%2F7").0, ids[..3]);
        let (_, told) = ask(service, "GET", &format!("/connections/{}", escaped(&ids[0])), "", "");
        assert_eq!(told["labels"], json!(["new", "of today", "room/7"]));
        assert_eq!(ask(service, "DELETE", &path(&ids[0], "room%2F7"), "", "").0, 200);
        assert_eq!(sorted("label=room%2F7").0, ids[1..3]);
        for n in 0..14 {
            assert_eq!(ask(service, "PUT", &path(&ids[0], &format!("own{n}")), "", "").0, 200);
        }
        let (status, told) = ask(service, "PUT", &path(&ids[0], "own14"), "", "");
        assert_eq!((status, &told["error"]["code"]), (409, &json!("too_many_labels")));
        eventually("the origin's channel", || {
            ask(service, "POST", "/channels/all", "", "hello").1["subscribers"] == clients.len()
        });
        assert!(clients.iter_mut().all(|client| client.text() == "hello"));
        for (method, path, status) in [
            ("GET", "/connections".to_owned(), 400),
            ("GET", "/connections?label=a&limit=x".to_owned(), 400),
            ("GET", "/connections?label=a&limit=0".to_owned(), 400),
            ("GET", "/connections?label=a&after=AAAA".to_owned(), 404),
            ("GET", format!("/connections?label={}", "x".repeat(129)), 400),
            ("POST", "/connections?label=a".to_owned(), 405),
            ("PUT", path(&ids[0], &"x".repeat(129)), 400),
            ("PUT", path("AAAA", "a"), 404),
            ("GET", path(&ids[0], "a"), 405),
        ] {
            let (got, told) = ask(service, method, &path, "", "");
            assert!(got == status && told["error"]["code"].is_string(), "{method} {path}: {got} {told}");
        }
        drop(clients);
        eventually("labels end with their connections", || sorted("label=new").0.is_empty());
    }
}

#[test]
fn the_sdk_of_aws_talks_to_connections() {
    let origin = Origin::start(|_| 200);
    let flags = ["--events", "aws", "--max-message", "64K", "--max-backlog", "1K", "--slow-consumer", "drop"];
    let gateway = Gateway::start(&origin, &flags);
    let mut clients: Vec<Client> = (0..3).map(|_| gateway.server.open_with("User-Agent: tester/1\r\n")).collect();
    eventually("all are known", || origin.heard().len() == 3);
    let id_of = |client: &Client| {
        // In the order in which they came, as each waits for its answer.
        let place = clients.iter().position(|other| other.addr() == client.addr()).expect("one of them");
        let heard = origin.heard()[place].json();
        heard["requestContext"]["connectionId"].as_str().expect("an id").to_owned()
    };
    let ids: Vec<String> = clients.iter().map(id_of).collect();
    let endpoint = format!("http://{}", gateway.service);
    let said = python("connections.py", &[&endpoint, &ids[0], &ids[1], &ids[2]], "");
    assert_eq!(said.trim(), "good");
    for _ in 0..2 {
        assert_eq!(clients[0].text(), "text");
        assert_eq!(clients[0].frame().payload, [0xff, 0x00]);
    }
    assert_eq!(clients[1].closed().0, 1000);
    clients[1].send(close_frame(1000, ""));
    eventually("the function is told of it", || {
        origin.heard().iter().any(|heard| heard.json()["requestContext"]["disconnectStatusCode"] == 1000)
    });
}

#[test]
fn events_are_those_of_aws() {
    let origin = Origin::start(|heard: &Heard| {
        let event = heard.json();
        let body = match event["requestContext"]["routeKey"].as_str() {
            Some("$connect") if event["queryStringParameters"]["token"] != "good" => json!({"statusCode": 401}),
            Some("$connect") => json!({"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "b"}}),
            Some("fail") => json!({"errorMessage": "x", "errorType": "y"}),
            _ => json!({"statusCode": 200, "body": format!("heard {}", event["body"])}),
        };
        Reply { status: 200, headers: Vec::new(), body: body.to_string().into_bytes() }
    });
    let gateway = Gateway::start(&origin, &["--events", "aws", "--aws-route-response"]);
    let mut refused = gateway.server.connect();
    refused.send(crate::common::client::upgrade_request("/", ""));
    assert_eq!(refused.response().status, 401);
    let mut client = gateway.server.connect();
    client.send(crate::common::client::upgrade_request("/?token=good", "Sec-WebSocket-Protocol: a, b\r\n"));
    let response = client.head_response();
    assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, Some("b")));
    client.send(frame(TEXT, b"{\"action\":\"send\"}"));
    assert_eq!(client.text(), r#"heard "{\"action\":\"send\"}""#);
    client.send(frame(TEXT, b"{\"action\":\"fail\"}"));
    let told: Value = serde_json::from_str(&client.text()).expect("JSON");
    assert_eq!(told["message"], "Internal server error");
    client.send(frame(TEXT, b"still there"));
    assert_eq!(client.text(), r#"heard "still there""#);
    client.send(close_frame(1000, "bye"));
    client.closed();
    eventually("the end", || origin.heard().len() == 6);
    let lines: String = origin.heard().iter().map(|heard| format!("{}\n", heard.json())).collect();
    let kinds = python("events.py", &[], &lines);
    let kinds: Vec<&str> = kinds.lines().collect();
    assert_eq!(kinds, ["CONNECT", "CONNECT", "MESSAGE", "MESSAGE", "MESSAGE", "DISCONNECT"]);
    let routes: Vec<Value> =
        origin.heard().iter().map(|heard| heard.json()["requestContext"]["routeKey"].clone()).collect();
    assert_eq!(routes, ["$connect", "$connect", "send", "fail", "$default", "$disconnect"]);
}

#[test]
fn requests_are_signed_as_standard_webhooks_has_it() {
    let folder = TempDir::new();
    let file = folder.path("secret");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    std::fs::write(&file, format!("{secret}\n")).expect("written");
    let origin = Origin::start(|_| 200);
    let gateway = Gateway::start(&origin, &["--origin-secret-file", file.to_str().expect("text")]);
    let mut client = gateway.server.open();
    client.send(frame(TEXT, "grün".as_bytes()));
    drop(client);
    origin.wait_for_closed(1);
    let lines = origin.heard().into_iter().map(|heard| {
        let body = String::from_utf8(heard.body.clone()).expect("text");
        format!("{}\n", json!({"headers": heard.headers, "body": body}))
    });
    let lines: String = lines.collect();
    assert_eq!(python("webhook.py", &[secret], &lines), "good\n".repeat(3));
}

/// Whichever node is asked about a connection, the one that has it answers.
#[test]
fn a_request_about_a_connection_of_another_node_is_made_there() {
    let folder = TempDir::new();
    let key = folder.path("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef").expect("written");
    let flags = ["--cluster-key-file", key.to_str().expect("text")];
    let origins = [Origin::start(|_| 200), Origin::start(|_| 200)];
    let [first, second] = origins.each_ref().map(|origin| Gateway::start(origin, &flags));
    let mut client = first.server.open();
    let path = format!("/connections/{}", escaped(&origins[0].first_id()));
    let service = second.service;
    assert_eq!(ask(service, "POST", &path, "", "hi").0, 200);
    assert_eq!(client.text(), "hi");
    let (status, told) = ask(service, "GET", &path, "", "");
    assert_eq!((status, told["client"].as_str()), (200, Some(client.addr().to_string().as_str())));
    assert_eq!(ask(service, "PUT", &format!("/channels/c{path}"), "", "").0, 200);
    assert_eq!(ask(service, "PUT", &format!("{path}/labels/l"), "", "").0, 200);
    assert_eq!((with_label(first.service, "label=l").0.len(), with_label(service, "label=l").0.len()), (1, 0));
    assert_eq!(ask(first.service, "POST", "/channels/c", "", "to all"), (200, json!({"subscribers": 1})));
    assert_eq!(client.text(), "to all");
    let hops = "percore-hops: 1\r\n";
    assert_eq!(ask(service, "GET", &path, hops, "").0, 503, "what was passed on is not passed on again");
    assert_eq!(ask(service, "DELETE", &format!("{path}?code=4000"), "", "").0, 200);
    assert_eq!(client.closed().0, 4000);
    client.send(close_frame(4000, ""));
    origins[0].wait_for_closed(1);
    let aws = path.replace("/connections", "/prod/@connections");
    let response = request(service, "POST", &aws, "", "late");
    assert_eq!((response.status, response.header("x-amzn-errortype")), (410, Some("GoneException")));
    drop(first);
    assert_eq!(ask(service, "GET", &path, "", "").0, 503);
}
