//! `--events aws`: the events that AWS's API Gateway gives to Lambda functions behind a WebSocket API, as one POST each, to an
//! HTTP server or to the invocation path of a Lambda container.

mod said;

use super::route::Selection;
use super::{Codec, Post};
use crate::gateway::event::{Answer, Effects, Ending, Event, Opening, Refusal, Reply, Subject};
use crate::protocol::message::Kind;
use crate::protocol::percent::form_text;
use crate::time::calendar::Utc;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use said::Said;
use serde_core::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What stands for the number of an API.
const API_ID: &str = "percore";
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The format, and what an API has besides.
#[derive(Clone, Default, Debug)]
pub struct Aws {
    /// The stage.
    pub stage: String,
    /// Where `https://{domainName}/{stage}` leads; empty for the address of the service.
    pub domain: String,
    /// How a message's route is found.
    pub selection: Selection,
    /// Whether the body of an answer to a message goes to the client.
    pub route_response: bool,
}

impl Codec for Aws {
    fn tells(&self, _: &Event) -> bool {
        true
    }

    fn keeps_client(&self) -> bool {
        true
    }

    fn wants_all_headers(&self) -> bool {
        true
    }

    fn reads_headers(&self) -> Option<&'static str> {
        Some("x-amz-")
    }

    fn place(&mut self, address: &str) {
        if self.domain.is_empty() {
            self.domain = address.split('/').next().unwrap_or_default().to_owned();
        }
    }

    fn write(&self, event: &Event, subject: &Subject) -> Post {
        let mut out = Vec::with_capacity(768 + event.bytes());
        out.push(b'{');
        let is_encoded = matches!(event, Event::Message(Kind::Binary, _));
        match event {
            Event::Connect(opening) | Event::Connected(opening) => {
                add_request(&mut out, opening, subject);
                self.add_context(&mut out, "$connect", "CONNECT", subject, |_| {});
            }
            Event::Message(kind, payload) => {
                let route = self.selection.route(*kind, payload);
                self.add_context(&mut out, &route, "MESSAGE", subject, |out| {
                    add(out, "messageId", &subject.event_id);
                });
                match kind {
                    Kind::Text => add(&mut out, "body", &String::from_utf8_lossy(payload)),
                    Kind::Binary => add(&mut out, "body", &STANDARD.encode(payload)),
                }
            }
            Event::Closed(Ending { code, reason, .. }) => {
                let headers = json!({"Host": self.domain, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""});
                add(&mut out, "multiValueHeaders", &many(&headers));
                add(&mut out, "headers", &headers);
                let reason = match (reason.as_str(), code) {
                    ("", 1005) => "Client-side close frame status not set",
                    ("", 1001) => "Going away",
                    ("", 1000) => "Connection Closed Normally",
                    (reason, _) => reason,
                };
                self.add_context(&mut out, "$disconnect", "DISCONNECT", subject, |out| {
                    add(out, "disconnectStatusCode", code);
                    add(out, "disconnectReason", reason);
                });
            }
        }
        add(&mut out, "isBase64Encoded", &is_encoded);
        end_object(&mut out);
        Post { media_type: "application/json", headers: Vec::new(), body: out }
    }

    fn write_keep_alive(&self, _: &[String]) -> Option<Post> {
        None
    }

    fn read(&self, event: &Event, reply: &Reply, subject: &Subject) -> Answer {
        let said = Said::read(&reply.body);
        let has_failed = reply.header("x-amz-function-error").is_some() || said.is_error();
        let status = match said.status {
            _ if has_failed => 502,
            Some(status) if reply.is_success() => status.as_number().unwrap_or(502),
            _ => reply.status,
        };
        let is_success = (200..300).contains(&status);
        match event {
            Event::Message(..) if has_failed || !reply.is_success() => Answer::Taken(self.apology(subject)),
            // Whatever status a message has, its connection stays.
            Event::Message(..) if !self.route_response => Answer::Taken(Effects::default()),
            Event::Message(..) => {
                Answer::Taken(Effects { messages: said.message().into_iter().collect(), ..Effects::default() })
            }
            _ if is_success => Answer::Taken(Effects { subprotocol: said.subprotocol(), ..Effects::default() }),
            _ => Answer::Refused(Refusal { status, reason: format!("the function answered {status}") }),
        }
    }

    fn failed(&self, event: &Event, subject: &Subject) -> Option<Effects> {
        matches!(event, Event::Message(..)).then(|| self.apology(subject))
    }
}

impl Aws {
    /// The member `requestContext`, with further members that `more` adds.
    fn add_context(
        &self,
        out: &mut Vec<u8>,
        route: &str,
        event_type: &str,
        subject: &Subject,
        more: impl FnOnce(&mut Vec<u8>),
    ) {
        out.extend_from_slice(b"\"requestContext\":{");
        add(out, "routeKey", route);
        add(out, "eventType", event_type);
        add(out, "extendedRequestId", &subject.event_id);
        add(out, "requestTime", &request_time(subject.now));
        add(out, "messageDirection", "IN");
        add(out, "stage", &self.stage);
        add(out, "connectedAt", &milliseconds(subject.opened));
        add(out, "requestTimeEpoch", &milliseconds(subject.now));
        out.extend_from_slice(b"\"identity\":{");
        add(out, "sourceIp", &ip(subject));
        subject.agent.iter().for_each(|agent| add(out, "userAgent", agent));
        end_object(out);
        out.push(b',');
        add(out, "requestId", &subject.event_id);
        add(out, "domainName", &self.domain);
        add(out, "connectionId", &connection_id(&subject.name));
        add(out, "apiId", API_ID);
        more(out);
        subject.claims.iter().for_each(|claims| add(out, "authorizer", &authorizer(claims)));
        end_object(out);
        out.push(b',');
    }

    /// What a client is told whose message the function could not take.
    fn apology(&self, subject: &Subject) -> Effects {
        let text = json!({
            "message": "Internal server error",
            "connectionId": connection_id(&subject.name),
            "requestId": subject.event_id,
        });
        Effects { messages: vec![(Kind::Text, text.to_string().into_bytes())], ..Effects::default() }
    }
}

/// Adds a member to an object that is being written.
fn add<T: Serialize + ?Sized>(out: &mut Vec<u8>, name: &str, value: &T) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    // Writing to a Vec cannot fail, and neither can what is written here.
    let _ = serde_json::to_writer(&mut *out, value);
    out.push(b',');
}

/// Ends an object, of which each member ends with a comma.
fn end_object(out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b'}');
}

/// What the request of a `$connect` says.
fn add_request(out: &mut Vec<u8>, opening: &Opening, subject: &Subject) {
    let mut headers: Vec<(String, String)> = opening.headers.clone();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for")) {
        headers.push(("X-Forwarded-For".into(), ip(subject)));
    }
    let query = opening.query.as_deref().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_text(name).into_owned(), form_text(value).into_owned())
    });
    for (name, all, pairs) in [
        ("headers", "multiValueHeaders", headers),
        ("queryStringParameters", "multiValueQueryStringParameters", pairs.collect()),
    ] {
        let (mut last, mut lists) = (Map::new(), Map::new());
        for (name, value) in pairs {
            let list = lists.entry(name.clone()).or_insert_with(|| json!([]));
            list.as_array_mut().into_iter().for_each(|list| list.push(value.clone().into()));
            last.insert(name, value.into());
        }
        if !last.is_empty() {
            add(out, name, &last);
            add(out, all, &lists);
        }
    }
}

/// What AWS gives of an authorizer: its context, all of it text, and whom the token is about.
fn authorizer(claims: &str) -> Value {
    let claims: Map<String, Value> = serde_json::from_str(claims).unwrap_or_default();
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut context: Map<_, _> = claims.into_iter().map(|(name, value)| (name, text(value).into())).collect();
    if let Some(subject) = context.get("sub").cloned() {
        context.insert("principalId".into(), subject);
    }
    context.into()
}

/// Each value as a list of one.
fn many(headers: &Value) -> Value {
    let headers = headers.as_object().into_iter().flatten();
    headers.map(|(name, value)| (name.clone(), json!([value]))).collect::<Map<_, _>>().into()
}

/// A name that stands in a path as it is.
fn connection_id(name: &str) -> String {
    let safe = |character| match character {
        '+' => '-',
        '/' => '_',
        other => other,
    };
    name.trim_end_matches('=').chars().map(safe).collect()
}

fn ip(subject: &Subject) -> String {
    subject.peer.addr().map(|addr| addr.ip().to_string()).unwrap_or_default()
}

fn milliseconds(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// As in `09/Feb/2024:18:11:43 +0000`.
fn request_time(time: Duration) -> String {
    let date = Utc::from_unix(time.as_secs()).rfc3339(0);
    let (year, month, day, clock) = (&date[..4], &date[5..7], &date[8..10], &date[11..19]);
    let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1))).unwrap_or(&"Jan");
    format!("{day}/{month}/{year}:{clock} +0000")
}

#[cfg(test)]
mod tests;
