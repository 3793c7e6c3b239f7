//! AWS's `@connections`: what every AWS SDK sends to an API Gateway of WebSockets, whatever stands before it in the path.

use super::describe::Facts;
use super::record::Deed;
use super::{Delivered, Gateway, Shape};
use crate::gateway::sigv4::{self, Denied};
use crate::outbox::Outbox;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Kind;
use crate::time::calendar::Utc;
use serde_json::json;
use std::time::Duration;

/// The code that a connection is closed with.
const NORMAL: u16 = 1000;

/// The connection's name in a path that ends in `/@connections/NAME`, not decoded.
pub fn connection_in(path: &str) -> Option<&str> {
    let (before, name) = path.rsplit_once('/')?;
    let is_connections = before.ends_with("/@connections") || before.to_ascii_lowercase().ends_with("/%40connections");
    is_connections.then_some(name)
}

impl Gateway {
    pub(super) fn serve_aws(&mut self, name: &str, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        if let Err(denied) = self.check_signature(request, out) {
            let (kind, message) = denied.error();
            return Some(error(403, kind, message));
        }
        let Some(name) = super::decoded(name) else {
            return Some(error(400, "BadRequestException", "Invalid connectionId"));
        };
        match request.method() {
            "POST" => {
                let content = request.content();
                if content.len() > self.manner.max_message {
                    return Some(error(413, "PayloadTooLargeException", "The message is too long."));
                }
                let kind = if simdutf8::basic::from_utf8(content).is_ok() { Kind::Text } else { Kind::Binary };
                self.act_on_one(&name, &Deed::Send(kind, content), Shape::AwsPost, request, out)
            }
            "DELETE" => self.act_on_one(&name, &Deed::Close(NORMAL, b""), Shape::AwsDelete, request, out),
            "GET" => self.describe(&name, Shape::AwsFacts, request, out),
            _ => Some(
                error(405, "MethodNotAllowedException", "GET, POST or DELETE").header("Allow", "GET, POST, DELETE"),
            ),
        }
    }

    /// Whoever has no signature was let in by the token, as other nodes are.
    fn check_signature(&self, request: &Request<'_>, out: &Outbox) -> Result<(), Denied> {
        match &self.manner.access_keys {
            Some(keys) if is_signed(request) || !self.manner.has_token => keys.verify(request, out.unix_time()),
            _ => Ok(()),
        }
    }
}

/// Whether a request has a signature, which is to be checked in place of a token.
pub fn is_signed(request: &Request<'_>) -> bool {
    connection_in(request.path()).is_some() && request.headers("authorization").any(sigv4::is_signature)
}

/// The answer to a POST or DELETE.
pub(super) fn answer(shape: Shape, delivered: Delivered) -> Response {
    match (delivered, shape) {
        (Delivered::Queued, Shape::AwsDelete) => Response::new(204),
        (Delivered::Queued, _) => Response::new(200),
        (Delivered::Dropped, _) => error(429, "LimitExceededException", "The client's buffer is full."),
        (Delivered::Unreachable, _) => {
            error(503, "ServiceUnavailableException", "The node of the connection does not answer.")
        }
        (Delivered::Gone | Delivered::Forged | Delivered::Full, _) => gone(),
    }
}

/// The answer to a GET.
pub(super) fn describe(facts: &Facts) -> Response {
    let body = json!({
        "connectedAt": timestamp(facts.opened),
        "identity": {"sourceIp": facts.ip(), "userAgent": facts.agent},
        "lastActiveAt": timestamp(facts.heard),
    });
    Response::new(200).content("application/json", body.to_string())
}

fn gone() -> Response {
    error(410, "GoneException", "The connection is no more.")
}

/// An error as SDKs know it, by header and body.
fn error(status: u16, kind: &str, message: &str) -> Response {
    let body = json!({"message": message, "__type": kind}).to_string();
    Response::new(status).header("x-amzn-ErrorType", kind).content("application/json", body)
}

/// As in `2020-04-30T20:10:33.236Z`.
pub(in crate::gateway) fn timestamp(time: Duration) -> String {
    Utc::from_unix(time.as_secs()).rfc3339(time.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_sdks() {
        for (path, name) in [
            ("/@connections/L0SM9cOFvHcCIhw%3D", Some("L0SM9cOFvHcCIhw%3D")),
            ("/prod/@connections/a", Some("a")),
            ("/a/b/%40connections/a", Some("a")),
            ("/@connections", None),
            ("/x@connections/a", None),
            ("/@connections/a/b", None),
        ] {
            assert_eq!(connection_in(path), name, "{path}");
        }
        assert_eq!(timestamp(Duration::from_millis(1_588_277_433_236)), "2020-04-30T20:10:33.236Z");
    }
}
