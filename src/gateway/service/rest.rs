//! REST of our own: connections and channels. Every answer is JSON; an error is `{"error":{"code","message"}}`.
//!
//! | request | |
//! |---|---|
//! | `GET /connections/{id}` | what is known of a connection |
//! | `POST /connections/{id}` | sends it the content: text, or bytes where the type is `application/octet-stream` |
//! | `DELETE /connections/{id}?code=&reason=` | closes it |
//! | `POST /connections:batch` | sends one message to many: `{"ids":[..],"message":{"text":..}}` or `{"binary":..}` |
//! | `PUT`, `DELETE /connections/{id}/labels/{label}` | gives it a label, takes it away |
//! | `GET /connections?label=&limit=&after=` | the ids of connections with a label |
//! | `POST /channels/{name}` | sends the content to all on a channel |
//! | `PUT`, `DELETE /channels/{name}/connections/{id}` | puts a connection on a channel, takes it off |

use super::aws::timestamp;
use super::deliver::{Sorted, hops};
use super::describe::Facts;
use super::record::Deed;
use super::{Delivered, Gateway, Job, PATIENCE, Shape, decoded, outgoing, sr, too_many};
use crate::gateway::labels::is_label;
use crate::gateway::name;
use crate::gateway::rules::is_channel;
use crate::outbox::Outbox;
use crate::protocol::close::may_be_sent;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Kind;
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;

impl Gateway {
    pub(super) fn serve_rest(&mut self, path: &str, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let parts: Vec<String> = path.strip_prefix('/')?.split('/').map(decoded).collect::<Option<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (&parts[..], request.method()) {
            (["connections:batch"], "POST") => self.serve_batch(request, out),
            (["connections"], "GET") => self.serve_list(request, out),
            (["connections", id, "labels", label], "PUT" | "DELETE") => {
                if !is_label(label) {
                    return Some(error(400, "bad_label", "a label is text of 128 characters at most"));
                }
                let deed = if request.method() == "PUT" { Deed::Label(label) } else { Deed::Unlabel(label) };
                self.act_on_one(id, &deed, Shape::Rest, request, out)
            }
            (["connections", id], "GET") => self.describe(id, Shape::RestFacts, request, out),
            (["connections", id], "POST") => {
                let message = message(request);
                self.act_on_one(id, &Deed::Send(message, request.content()), Shape::Rest, request, out)
            }
            (["connections", id], "DELETE") => self.serve_close(id, request, out),
            (["channels", channel], "POST") => Some(publish(channel, request, out)),
            (["channels", channel, "connections", id], "PUT" | "DELETE") => {
                if let Some(refusal) = refuse_channel(channel) {
                    return Some(refusal);
                }
                let deed = if request.method() == "PUT" { Deed::Join(channel) } else { Deed::Leave(channel) };
                self.act_on_one(id, &deed, Shape::Rest, request, out)
            }
            (["connections:batch"] | ["channels", _], _) => Some(wrong_method("POST")),
            (["connections", _], _) => Some(wrong_method("GET, POST, DELETE")),
            (["connections"], _) => Some(wrong_method("GET")),
            (["connections", _, "labels", _], _) => Some(wrong_method("PUT, DELETE")),
            (["channels", _, "connections", _], _) => Some(wrong_method("PUT, DELETE")),
            _ => None,
        }
    }

    fn serve_close(&mut self, id: &str, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let code = request.query_value("code").map_or(Some(1000), |code| code.parse::<u16>().ok());
        let reason = request.query_value("reason").unwrap_or_default();
        match code.filter(|code| may_be_sent(CloseCode::from(*code))) {
            Some(code) => self.act_on_one(id, &Deed::Close(code, reason.as_bytes()), Shape::Rest, request, out),
            None => Some(error(400, "bad_request", "code is not a close code, such as 1000 or 4000")),
        }
    }

    fn serve_batch(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let Some((names, kind, payload)) = outgoing::read_batch(request.content()) else {
            let form = "give {\"ids\":[..],\"message\":{\"text\":..}}, or \"binary\" with base64";
            return Some(error(400, "bad_request", form));
        };
        let deed = Deed::Send(kind, &payload);
        let mut sorted = Sorted::default();
        for name in &names {
            // What is not base64 is nobody's name.
            let id = name::decode(name).unwrap_or_default();
            self.sort((0, &id), &deed, hops(request), &mut sorted, out);
        }
        let left = sorted.missing();
        if left == 0 {
            let results = sorted.known.into_iter().map(|known| known.unwrap_or(Delivered::Unreachable));
            return Some(sr::list(names.iter().map(String::as_str).zip(results)));
        }
        let (ticket, deadline) = (out.defer(request), out.now() + PATIENCE);
        let results = sorted.known.clone();
        let Some(job) = self.begin_job(Job { ticket, shape: Shape::List, names, results, left, deadline }) else {
            return Some(too_many());
        };
        self.send_on(sorted, &[deed], Some(job), out);
        None
    }
}

/// Sends the content to all on a channel.
fn publish(channel: &str, request: &Request<'_>, out: &mut Outbox) -> Response {
    if let Some(refusal) = refuse_channel(channel) {
        return refusal;
    }
    let subscribers = out.subscribers(channel);
    match out.publish(channel, message(request), &[request.content()]) {
        Ok(_) => json_of(200, &json!({"subscribers": subscribers})),
        Err(too_long) => error(413, "too_large", &too_long.to_string()),
    }
}

fn refuse_channel(channel: &str) -> Option<Response> {
    (!is_channel(channel)).then(|| {
        error(400, "bad_channel", "a channel has a name of 255 characters at most that does not begin with percore.")
    })
}

/// What kind of message the content is.
fn message(request: &Request<'_>) -> Kind {
    let is_binary = request.header("content-type").is_some_and(|kind| kind.starts_with("application/octet-stream"));
    let is_text = !is_binary && simdutf8::basic::from_utf8(request.content()).is_ok();
    if is_text { Kind::Text } else { Kind::Binary }
}

/// The answer to a request about one connection.
pub(super) fn answer(delivered: Delivered) -> Response {
    match delivered {
        Delivered::Queued => json_of(200, &json!({"result": delivered.word()})),
        Delivered::Gone | Delivered::Forged => error(404, "gone", "there is no such connection, or no more"),
        Delivered::Full => error(409, "too_many_labels", "the connection has as many labels as it may have, 16"),
        Delivered::Dropped => error(429, "dropped", "the connection reads too slowly, and its backlog is full"),
        Delivered::Unreachable => {
            error(503, "unreachable", "the node that has the connection has to be asked, or does not answer")
        }
    }
}

/// The answer with what is known of a connection.
pub(super) fn describe(facts: &Facts) -> Response {
    let mut body = json!({"connectedAt": timestamp(facts.opened), "lastActiveAt": timestamp(facts.heard)});
    if !facts.client.is_empty() {
        body["client"] = facts.client.as_str().into();
    }
    if !facts.labels.is_empty() {
        body["labels"] = facts.labels.clone().into();
    }
    json_of(200, &body)
}

fn wrong_method(allowed: &'static str) -> Response {
    error(405, "method_not_allowed", &format!("this path takes {allowed}")).header("Allow", allowed)
}

pub(super) fn error(status: u16, code: &str, message: &str) -> Response {
    json_of(status, &json!({"error": {"code": code, "message": message}}))
}

pub(super) fn json_of(status: u16, body: &Value) -> Response {
    Response::new(status).content("application/json", body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path() {
        assert_eq!(decoded("a%2Fb%3d"), Some("a/b=".into()));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
