//! The events, field by field, and the answers of functions.

use super::*;
use crate::net::id::Peer;

fn codec() -> Aws {
    let mut codec = Aws { stage: "prod".into(), ..Aws::default() };
    codec.place("127.0.0.1:9465/sr");
    codec
}

fn subject() -> Subject {
    Subject {
        name: "AB+/CD==".into(),
        peer: Peer::from(std::net::SocketAddr::from(([192, 0, 2, 7], 4711))),
        agent: Some("curl/8".into()),
        claims: None,
        opened: Duration::from_millis(1_707_502_303_419),
        now: Duration::from_millis(1_707_502_303_500),
        event_id: "e1".into(),
    }
}

fn told(event: &Event) -> Value {
    serde_json::from_slice(&codec().write(event, &subject()).body).expect("JSON")
}

#[test]
fn a_message() {
    let event = told(&Event::Message(Kind::Text, br#"{"action":"send"}"#.to_vec()));
    let want = json!({
        "requestContext": {
            "routeKey": "send",
            "messageId": "e1",
            "eventType": "MESSAGE",
            "extendedRequestId": "e1",
            "requestTime": "09/Feb/2024:18:11:43 +0000",
            "messageDirection": "IN",
            "stage": "prod",
            "connectedAt": 1_707_502_303_419u64,
            "requestTimeEpoch": 1_707_502_303_500u64,
            "identity": {"sourceIp": "192.0.2.7", "userAgent": "curl/8"},
            "requestId": "e1",
            "domainName": "127.0.0.1:9465",
            "connectionId": "AB-_CD",
            "apiId": "percore",
        },
        "body": r#"{"action":"send"}"#,
        "isBase64Encoded": false,
    });
    assert_eq!(event, want);
    let event = told(&Event::Message(Kind::Binary, vec![0xff]));
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("/w=="), &json!(true)));
    assert_eq!(event["requestContext"]["routeKey"], "$default");
}

#[test]
fn claims_are_the_context_of_an_authorizer() {
    let claims = Some(r#"{"sub":"ann","admin":true,"exp":1800000000,"groups":["a"]}"#.into());
    let subject = Subject { claims, ..subject() };
    let body = codec().write(&Event::Message(Kind::Text, Vec::new()), &subject).body;
    let event: Value = serde_json::from_slice(&body).expect("JSON");
    let want = json!({"principalId": "ann", "sub": "ann", "admin": "true", "exp": "1800000000", "groups": "[\"a\"]"});
    assert_eq!(event["requestContext"]["authorizer"], want);
}

#[test]
fn a_connection_comes_and_goes() {
    let opening = Opening {
        query: Some("a=1&a=2&b=x%20y+z".into()),
        headers: vec![("Host".into(), "h".into())],
        ..Opening::default()
    };
    let event = told(&Event::Connect(Box::new(opening)));
    assert_eq!(event["requestContext"]["eventType"], "CONNECT");
    assert_eq!(event["queryStringParameters"], json!({"a": "2", "b": "x y z"}));
    assert_eq!(event["multiValueQueryStringParameters"], json!({"a": ["1", "2"], "b": ["x y z"]}));
    assert_eq!(event["headers"], json!({"Host": "h", "X-Forwarded-For": "192.0.2.7"}));
    assert!(event["requestContext"].get("messageId").is_none());
    let event = told(&Event::Connect(Box::default()));
    assert!(event.get("queryStringParameters").is_none(), "absent when empty");
    let ending = Ending { code: 1005, reason: String::new(), lasted: Duration::ZERO };
    let event = told(&Event::Closed(ending));
    let context = &event["requestContext"];
    assert_eq!((&context["routeKey"], &context["eventType"]), (&json!("$disconnect"), &json!("DISCONNECT")));
    assert_eq!(context["disconnectStatusCode"], 1005);
    assert_eq!(context["disconnectReason"], "Client-side close frame status not set");
}

#[test]
fn answers_of_functions() {
    let codec = Aws { route_response: true, ..codec() };
    let read = |event: &Event, status, body: &str| {
        codec.read(event, &Reply { status, body: body.into(), ..Reply::default() }, &subject())
    };
    let connect = Event::Connect(Box::default());
    for (status, body, refused) in [
        (200, r#"{"statusCode":200}"#, None),
        (204, "", None),
        (200, "null", None),
        (200, r#"{"statusCode":401}"#, Some(401)),
        (200, r#"{"statusCode":"403"}"#, Some(403)),
        (200, r#"{"errorMessage":"x","errorType":"y"}"#, Some(502)),
        (500, "", Some(500)),
    ] {
        let got = match read(&connect, status, body) {
            Answer::Taken(_) => None,
            Answer::Refused(refusal) => Some(refusal.status),
        };
        assert_eq!(got, refused, "{status} {body}");
    }
    let chosen = read(&connect, 200, r#"{"statusCode":200,"headers":{"Sec-WebSocket-Protocol":"a"}}"#);
    assert!(matches!(chosen, Answer::Taken(effects) if effects.subprotocol.as_deref() == Some("a")));
    let message = Event::Message(Kind::Text, Vec::new());
    let sent = |body: &str, status| match read(&message, status, body) {
        Answer::Taken(effects) => effects.messages,
        Answer::Refused(refusal) => panic!("{refusal:?}"),
    };
    assert_eq!(sent(r#"{"statusCode":200,"body":"hi"}"#, 200), [(Kind::Text, b"hi".to_vec())]);
    assert_eq!(sent(r#"{"statusCode":200,"body":"AAE=","isBase64Encoded":true}"#, 200), [(Kind::Binary, vec![0, 1])]);
    assert!(sent(r#"{"statusCode":200}"#, 200).is_empty());
    let apology = sent(r#"{"errorMessage":"x"}"#, 200);
    let text: Value = serde_json::from_slice(&apology[0].1).expect("JSON");
    assert_eq!((&text["message"], &text["connectionId"]), (&json!("Internal server error"), &json!("AB-_CD")));
    assert_eq!(codec.failed(&message, &subject()).map(|effects| effects.messages.len()), Some(1));
    assert_eq!(codec.failed(&connect, &subject()), None);
}
