//! `--events json`: the JSON of websocket-service, byte for byte. What it has no room for stands in headers.

use super::{Codec, Post};
use crate::gateway::event::{Answer, Effects, Event, Opening, Refusal, Reply, Subject};
use crate::net::id::Peer;
use crate::protocol::message::Kind;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const MEDIA_TYPE: &str = "application/json";

/// The format.
#[derive(Clone, Copy, Default, Debug)]
pub struct Json;

impl Codec for Json {
    fn tells(&self, _: &Event) -> bool {
        true
    }

    fn write(&self, event: &Event, subject: &Subject) -> Post {
        let mut body = String::with_capacity(256 + 2 * event.bytes());
        body.push_str(r#"{"WebSocketEvent":{"ConnectionId":""#);
        body.push_str(&subject.name);
        body.push_str(r#"","ConnectionEstablished":"#);
        match event {
            Event::Connect(opening) | Event::Connected(opening) => {
                body.push_str(r#"{"Subprotocol":"#);
                write_string(&mut body, &opening.subprotocol);
                body.push_str(r#"},"ConnectionClosed":null,"MessageReceived":null"#);
            }
            Event::Closed(_) => body.push_str(r#"null,"ConnectionClosed":{},"MessageReceived":null"#),
            Event::Message(kind, payload) => {
                body.push_str(r#"null,"ConnectionClosed":null,"MessageReceived":"#);
                write_message(&mut body, *kind, payload);
            }
        }
        body.push_str(r#"},"WebSocketKeepAlives":null}"#);
        Post { media_type: MEDIA_TYPE, headers: headers(event, subject), body: body.into_bytes() }
    }

    fn write_keep_alive(&self, names: &[String]) -> Option<Post> {
        let mut body = String::with_capacity(64 + names.iter().map(|name| name.len() + 21).sum::<usize>());
        body.push_str(r#"{"WebSocketEvent":null,"WebSocketKeepAlives":["#);
        for (place, name) in names.iter().enumerate() {
            body.push_str(if place == 0 { r#"{"ConnectionId":""# } else { r#",{"ConnectionId":""# });
            body.push_str(name);
            body.push_str(r#""}"#);
        }
        body.push_str("]}");
        Some(Post { media_type: MEDIA_TYPE, headers: Vec::new(), body: body.into_bytes() })
    }

    fn reads_headers(&self) -> Option<&'static str> {
        Some("percore-")
    }

    fn read(&self, event: &Event, reply: &Reply, _: &Subject) -> Answer {
        match reply.is_success() {
            true if event.is_opening() => Answer::Taken(Effects {
                labels: list(reply, "percore-labels"),
                channels: list(reply, "percore-channels"),
                ..Effects::default()
            }),
            true => Answer::Taken(Effects::default()),
            false => Answer::Refused(Refusal {
                status: reply.status,
                reason: format!("the origin answered {}", reply.status),
            }),
        }
    }
}

/// The words of a header, which commas divide.
fn list(reply: &Reply, name: &str) -> Vec<String> {
    let words = reply.header(name).unwrap_or_default().split(',').map(str::trim);
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What the JSON of an event has no room for.
fn headers(event: &Event, subject: &Subject) -> Vec<(String, String)> {
    match event {
        Event::Connect(opening) | Event::Connected(opening) => opening_headers(opening, subject.peer),
        Event::Closed(ending) => vec![
            ("percore-close-code".into(), ending.code.to_string()),
            ("percore-close-reason".into(), ending.reason.clone()),
            ("percore-duration".into(), format!("{:.3}", ending.lasted.as_secs_f64())),
        ],
        Event::Message(..) => Vec::new(),
    }
}

fn opening_headers(opening: &Opening, peer: Peer) -> Vec<(String, String)> {
    let mut headers = opening.headers.clone();
    headers.push(("percore-path".into(), opening.path.clone()));
    headers.extend(opening.query.iter().map(|query| ("percore-query".into(), query.clone())));
    headers.extend(peer.addr().map(|addr| ("percore-client".into(), addr.to_string())));
    headers.extend(opening.claims.iter().map(|claims| ("percore-claims".into(), claims.to_string())));
    headers
}

/// `{"Binary":…,"Text":…}` of a message.
pub fn write_message(out: &mut String, kind: Kind, payload: &[u8]) {
    match kind {
        Kind::Binary => {
            out.push_str(r#"{"Binary":""#);
            STANDARD.encode_string(payload, out);
            out.push_str(r#"","Text":null}"#);
        }
        Kind::Text => {
            out.push_str(r#"{"Binary":null,"Text":"#);
            // Text messages were found to be UTF-8 when they came.
            write_string(out, &String::from_utf8_lossy(payload));
            out.push('}');
        }
    }
}

/// A string as Go's encoding/json writes one, which keeps it safe within HTML.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        let escape = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escape);
        if escape.is_empty() {
            out.push_str("\\u");
            let digit = |shift: u32| char::from_digit(u32::from(character) >> shift & 0xf, 16).unwrap_or('0');
            out.extend([digit(12), digit(8), digit(4), digit(0)]);
        }
        plain = at + character.len_utf8();
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::event::Ending;
    use std::time::Duration;

    const NAME: &str = "ADEyNy4wLjAuMTo5NDY1L3NyAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn subject() -> Subject {
        Subject {
            name: NAME.into(),
            peer: Peer::from(std::net::SocketAddr::from(([192, 0, 2, 7], 4711))),
            agent: None,
            claims: None,
            opened: Duration::ZERO,
            now: Duration::ZERO,
            event_id: "1".into(),
        }
    }

    fn written(event: &Event) -> (String, Vec<(String, String)>) {
        let post = Json.write(event, &subject());
        assert_eq!(post.media_type, "application/json");
        (String::from_utf8(post.body).expect("text").replace(NAME, "ID"), post.headers)
    }

    #[test]
    fn the_bodies_of_websocket_service() {
        let headers = vec![("cookie".to_owned(), "c".to_owned())];
        let claims = Some(r#"{"sub":"ann"}"#.into());
        let opening = Opening { path: "/a".into(), query: Some("b=1".into()), headers, claims, ..Opening::default() };
        let (body, headers) = written(&Event::Connected(Box::new(opening)));
        assert_eq!(
            body,
            r#"{"WebSocketEvent":{"ConnectionId":"ID","ConnectionEstablished":{"Subprotocol":""},"ConnectionClosed":null,"MessageReceived":null},"WebSocketKeepAlives":null}"#
        );
        let told: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let client = ("percore-client", "192.0.2.7:4711");
        let claims = ("percore-claims", r#"{"sub":"ann"}"#);
        assert_eq!(told, [("cookie", "c"), ("percore-path", "/a"), ("percore-query", "b=1"), client, claims]);
        let ending = Ending { code: 1000, reason: "bye".into(), lasted: Duration::from_millis(1500) };
        let (body, headers) = written(&Event::Closed(ending));
        assert_eq!(
            body,
            r#"{"WebSocketEvent":{"ConnectionId":"ID","ConnectionEstablished":null,"ConnectionClosed":{},"MessageReceived":null},"WebSocketKeepAlives":null}"#
        );
        assert!(headers.contains(&("percore-close-code".into(), "1000".into())), "{headers:?}");
        assert!(headers.contains(&("percore-duration".into(), "1.500".into())), "{headers:?}");
    }

    #[test]
    fn messages_as_go_writes_them() {
        for (kind, payload, want) in [
            (Kind::Text, &b"hello"[..], r#"{"Binary":null,"Text":"hello"}"#),
            (Kind::Text, b"", r#"{"Binary":null,"Text":""}"#),
            (Kind::Text, b"<a & \"b\">\\", r#"{"Binary":null,"Text":"\u003ca \u0026 \"b\"\u003e\\"}"#),
            (
                Kind::Text,
                "\n\r\t\u{1}\u{7f}\u{2028}ü".as_bytes(),
                "{\"Binary\":null,\"Text\":\"\\n\\r\\t\\u0001\u{7f}\\u2028ü\"}",
            ),
            (Kind::Binary, b"\xff\xfe\xfd\xfc", r#"{"Binary":"//79/A==","Text":null}"#),
            (Kind::Binary, b"", r#"{"Binary":"","Text":null}"#),
        ] {
            let (body, headers) = written(&Event::Message(kind, payload.to_vec()));
            let rest = body.strip_prefix(
                r#"{"WebSocketEvent":{"ConnectionId":"ID","ConnectionEstablished":null,"ConnectionClosed":null,"MessageReceived":"#,
            );
            assert_eq!(rest.and_then(|rest| rest.strip_suffix(r#"},"WebSocketKeepAlives":null}"#)), Some(want));
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn keep_alives_are_objects() {
        let body = |names: &[String]| Json.write_keep_alive(names).map(|post| String::from_utf8(post.body));
        assert_eq!(
            body(&["a".into(), "b".into()]),
            Some(Ok(
                r#"{"WebSocketEvent":null,"WebSocketKeepAlives":[{"ConnectionId":"a"},{"ConnectionId":"b"}]}"#.into()
            ))
        );
    }

    #[test]
    fn labels_and_channels_of_a_new_connection() {
        let headers = [("percore-labels", "a, b c,,"), ("percore-channels", "news")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let reply = Reply { status: 204, headers, body: Vec::new() };
        let read = |event: &Event| Json.read(event, &reply, &subject());
        let effects =
            Effects { labels: vec!["a".into(), "b c".into()], channels: vec!["news".into()], ..Effects::default() };
        assert_eq!(read(&Event::Connect(Box::default())), Answer::Taken(effects.clone()));
        assert_eq!(read(&Event::Connected(Box::default())), Answer::Taken(effects));
        assert_eq!(read(&Event::Message(Kind::Text, Vec::new())), Answer::Taken(Effects::default()));
    }

    #[test]
    fn any_status_of_success_is_one() {
        let read = |status| {
            Json.read(&Event::Message(Kind::Text, Vec::new()), &Reply { status, ..Reply::default() }, &subject())
        };
        for status in [200, 201, 204, 299] {
            assert_eq!(read(status), Answer::Taken(Effects::default()));
        }
        for status in [199, 300, 404, 500] {
            assert!(matches!(read(status), Answer::Refused(refusal) if refusal.status == status));
        }
    }
}
