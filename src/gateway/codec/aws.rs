//! `--events aws`: the events that AWS's API Gateway gives to Lambda functions behind a WebSocket API, as one POST each, to an
//! HTTP server or to the invocation path of a Lambda container.

use super::route::Selection;
use super::{Codec, Post};
use crate::gateway::event::{Answer, Effects, Ending, Event, Opening, Refusal, Reply, Subject};
use crate::protocol::message::Kind;
use crate::protocol::percent::form_text;
use crate::time::calendar::Utc;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
        let mut told = Map::new();
        match event {
            Event::Connect(opening) | Event::Connected(opening) => {
                add_request(&mut told, opening, subject);
                told.insert("requestContext".into(), self.context("$connect", "CONNECT", subject, Map::new()));
            }
            Event::Message(kind, payload) => {
                let route = self.selection.route(*kind, payload);
                let mut more = Map::new();
                more.insert("messageId".into(), subject.event_id.clone().into());
                told.insert("requestContext".into(), self.context(&route, "MESSAGE", subject, more));
                told.insert(
                    "body".into(),
                    match kind {
                        Kind::Text => String::from_utf8_lossy(payload).into_owned().into(),
                        Kind::Binary => STANDARD.encode(payload).into(),
                    },
                );
                told.insert("isBase64Encoded".into(), (*kind == Kind::Binary).into());
                return post(told);
            }
            Event::Closed(Ending { code, reason, .. }) => {
                let headers = json!({"Host": self.domain, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""});
                told.insert("multiValueHeaders".into(), many(&headers));
                told.insert("headers".into(), headers);
                let mut more = Map::new();
                more.insert("disconnectStatusCode".into(), (*code).into());
                let reason = match (reason.as_str(), code) {
                    ("", 1005) => "Client-side close frame status not set",
                    ("", 1001) => "Going away",
                    ("", 1000) => "Connection Closed Normally",
                    (reason, _) => reason,
                };
                more.insert("disconnectReason".into(), reason.into());
                told.insert("requestContext".into(), self.context("$disconnect", "DISCONNECT", subject, more));
            }
        }
        told.insert("isBase64Encoded".into(), false.into());
        post(told)
    }

    fn write_keep_alive(&self, _: &[String]) -> Option<Post> {
        None
    }

    fn read(&self, event: &Event, reply: &Reply, subject: &Subject) -> Answer {
        let body = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
        let has_failed = reply.header("x-amz-function-error").is_some()
            || (body.get("errorMessage").is_some() && body.get("statusCode").is_none());
        let status = match body.get("statusCode") {
            _ if has_failed || !reply.is_success() => {
                if has_failed {
                    502
                } else {
                    reply.status
                }
            }
            // Some give it as text.
            Some(status) => {
                status.as_u64().or_else(|| status.as_str()?.parse().ok()).map_or(502, |status| status as u16)
            }
            None => reply.status,
        };
        let is_success = (200..300).contains(&status);
        match event {
            Event::Message(..) if has_failed || !reply.is_success() => Answer::Taken(self.apology(subject)),
            // Whatever status a message has, its connection stays.
            Event::Message(..) => Answer::Taken(self.response_to_message(&body)),
            _ if is_success => Answer::Taken(Effects { subprotocol: subprotocol(&body), ..Effects::default() }),
            _ => Answer::Refused(Refusal { status, reason: format!("the function answered {status}") }),
        }
    }

    fn failed(&self, event: &Event, subject: &Subject) -> Option<Effects> {
        matches!(event, Event::Message(..)).then(|| self.apology(subject))
    }
}

impl Aws {
    fn context(&self, route: &str, event_type: &str, subject: &Subject, more: Map<String, Value>) -> Value {
        let identity = match &subject.agent {
            Some(agent) => json!({"sourceIp": ip(subject), "userAgent": agent}),
            None => json!({"sourceIp": ip(subject)}),
        };
        let mut context = json!({
            "routeKey": route,
            "eventType": event_type,
            "extendedRequestId": subject.event_id,
            "requestTime": request_time(subject.now),
            "messageDirection": "IN",
            "stage": self.stage,
            "connectedAt": milliseconds(subject.opened),
            "requestTimeEpoch": milliseconds(subject.now),
            "identity": identity,
            "requestId": subject.event_id,
            "domainName": self.domain,
            "connectionId": connection_id(&subject.name),
            "apiId": API_ID,
        });
        if let Some(context) = context.as_object_mut() {
            context.extend(more);
            context.extend(subject.claims.as_deref().map(|claims| ("authorizer".to_owned(), authorizer(claims))));
        }
        context
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

    fn response_to_message(&self, body: &Value) -> Effects {
        let text = body.get("body").filter(|_| self.route_response).and_then(Value::as_str);
        let is_encoded = body.get("isBase64Encoded").and_then(Value::as_bool) == Some(true);
        let message = text.and_then(|text| match is_encoded {
            true => STANDARD.decode(text).ok().map(|bytes| (Kind::Binary, bytes)),
            false => Some((Kind::Text, text.as_bytes().to_vec())),
        });
        Effects { messages: message.into_iter().collect(), ..Effects::default() }
    }
}

fn post(told: Map<String, Value>) -> Post {
    let body = Value::Object(told).to_string().into_bytes();
    Post { media_type: "application/json", headers: Vec::new(), body }
}

/// What the request of a `$connect` says.
fn add_request(told: &mut Map<String, Value>, opening: &Opening, subject: &Subject) {
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
            told.insert(name.into(), last.into());
            told.insert(all.into(), lists.into());
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

/// The subprotocol that a function chose for a `$connect`.
fn subprotocol(body: &Value) -> Option<String> {
    let headers = body.get("headers")?.as_object()?;
    let chosen = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
    chosen?.1.as_str().map(str::to_owned)
}

/// A name that stands in a path as it is.
fn connection_id(name: &str) -> String {
    name.trim_end_matches('=').replace('+', "-").replace('/', "_")
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
