//! Centrifugo's HTTP API, for backends: `POST /api/METHOD` on the service listener.
//!
//! The answer is 200 with `{"result":..}` or `{"error":..}`, unless the backend asks for errors as statuses; 400 for what is not JSON,
//! 401 without the key. What is about connections is done here and, by the bus, in every other worker.

mod methods;
mod publishing;

use super::app::Channels;
use super::centrifuge::command::Malformed;
use super::codes::Error;
use crate::data::fields;
use crate::data::record::Record;
use crate::outbox::Outbox;
use crate::protocol::bearer::{credentials, is_same};
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Kind;

/// The channel of the outbox on which workers tell each other what backends ask.
const CONTROL: &str = "percore.channels";

/// Why a request comes to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Error(Error),
    /// It is not JSON, or its fields are of other types.
    Malformed,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Error(error)
    }
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Fault {
        Fault::Malformed
    }
}

impl From<serde_json::Error> for Fault {
    fn from(_: serde_json::Error) -> Fault {
        Fault::Malformed
    }
}

impl Channels {
    /// Answers a request on the service listener; `None` when nothing is there.
    pub(super) fn serve(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let method = request.path().strip_prefix("/api/")?;
        if !self.is_allowed(request) {
            let line = "Give the key of this API: X-API-Key: KEY.";
            return Some(Response::text(401, line).header("WWW-Authenticate", "apikey realm=\"percore\""));
        }
        if request.method() != "POST" {
            return Some(Response::text(405, "This path takes POST.").header("Allow", "POST"));
        }
        out.stats.channels_api_requests += 1;
        let params = match simdutf8::basic::from_utf8(request.content()) {
            Ok("") => "{}",
            Ok(params) => params,
            Err(_) => return Some(malformed()),
        };
        let done = self.call(method, params, out);
        self.engine.show(out);
        let (status, body) = match done {
            // These results are no results but answers by themselves.
            Ok(result) if method == "batch" => (200, result),
            Ok(result) => (200, ["{\"result\":", &result, "}"].concat()),
            Err(Fault::Malformed) => return Some(malformed()),
            Err(Fault::Error(error)) => {
                out.stats.channels_errors += 1;
                let by_status = request.header("x-centrifugo-error-mode") == Some("transport");
                (if by_status { error.status() } else { 200 }, format!("{{\"error\":{}}}", describe(error)))
            }
        };
        Some(Response::new(status).content("application/json", body))
    }

    /// Whether the content of a request is read at all: whoever has not the key makes us hold nothing. What Pusher's backends
    /// sign covers the content, which is short.
    pub(super) fn may_send_content(&self, request: &Request<'_>) -> bool {
        match request.path().starts_with("/apps/") {
            true => self.is_signed(request),
            false => self.is_allowed(request),
        }
    }

    /// Whether a backend has given the key, if there is one.
    fn is_allowed(&self, request: &Request<'_>) -> bool {
        let Some(key) = &self.api_key else { return true };
        let in_authorization = request.header("authorization").and_then(|value| credentials(value, "apikey"));
        let given = [request.header("x-api-key"), in_authorization, request.query_value("api_key")];
        given.into_iter().flatten().any(|given| is_same(given.as_bytes(), key.as_bytes()))
    }

    /// Calls a method, here and where else it has to be. Returns its result, as JSON.
    fn call(&mut self, method: &str, params: &str, out: &mut Outbox) -> Result<String, Fault> {
        if matches!(method, "subscribe" | "unsubscribe" | "disconnect" | "refresh") {
            self.act(method, params, out)?;
            return match self.tell_others(method, params, out) {
                true => Ok("{}".to_owned()),
                false => Err(Error::LimitExceeded.into()),
            };
        }
        match method {
            "publish" => self.publish_one(params, out),
            "broadcast" => self.broadcast(params, out),
            "batch" => self.batch(params, out),
            "presence" => self.presence(params, out),
            "presence_stats" => self.presence_stats(params, out),
            "history" => self.history_of(params, out),
            "history_remove" => self.remove_history(params, out),
            "channels" => self.list_channels(params, out),
            "info" => Ok(self.describe_nodes(out)),
            _ => Err(Error::MethodNotFound.into()),
        }
    }

    /// Tells other workers, if there are any, what was asked here. Returns whether it could be told.
    pub(super) fn tell_others(&mut self, method: &str, params: &str, out: &mut Outbox) -> bool {
        let parts = [method.as_bytes(), b" ", params.as_bytes()];
        out.participant().is_none() || out.publish(CONTROL, Kind::Binary, &parts).is_ok()
    }

    /// Has the other workers tell us what backends ask them.
    pub(super) fn listen_to_others(&mut self, out: &mut Outbox) {
        if !self.listens && out.participant().is_some() {
            out.listen(CONTROL, true);
            self.listens = true;
        }
    }

    /// Another worker tells what a backend asked it. It was answered already.
    pub(super) fn take_record(&mut self, record: Record<'_>, out: &mut Outbox) {
        if record.channel != CONTROL.as_bytes() {
            return;
        }
        let text = std::str::from_utf8(record.payload).unwrap_or_default();
        match text.split_once(' ') {
            Some(("pusher", params)) => {
                let [channel, frame, socket] =
                    fields::read(params, ["channel", "frame", "socket"]).unwrap_or_default().map(fields::string);
                if let (Some(channel), Some(frame), Some(socket)) = (channel, frame, socket) {
                    self.send_here_except(&channel, &frame, &socket, out);
                }
            }
            Some(("pusher_terminate", params)) => {
                let [user] = fields::read(params, ["user"]).unwrap_or_default();
                self.terminate_here(&fields::string(user).unwrap_or_default(), out);
            }
            Some((method, params)) => drop(self.act(method, params, out)),
            None => {}
        }
    }
}

/// An error, as JSON.
fn describe(error: Error) -> String {
    format!("{{\"code\":{},\"message\":\"{}\"}}", error.code(), error.message())
}

fn malformed() -> Response {
    Response::text(400, "The content is not JSON of the form that this method takes.")
}
