//! Centrifugo's HTTP API, for backends: `POST /api/METHOD` on the service listener.
//!
//! The status is 200 with `{"result":..}` or `{"error":..}`, unless the backend asks for errors as statuses; 400 for
//! invalid JSON, 401 without the key. Methods about connections run here and, over the bus, in every other worker.

mod methods;
mod publishing;

use super::app::Channels;
use super::centrifuge::command::Malformed;
use super::codes::Error;
use super::history::word::WORDS;
use super::waiting::{Reply, Value};
use crate::channel::record::Record;
use crate::outbox::Outbox;
use crate::protocol::bearer::{credentials, is_same};
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Kind;
use crate::text::fields;

/// The outbox channel on which workers forward requests of backends to each other.
const CONTROL: &str = "percore.channels";

/// Why a request fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Error(Error),
    /// It is invalid JSON, or a field has the wrong type.
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
    /// Answers a request on the service listener; `None` for an unknown path.
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
        let mut reply = Reply::default();
        let by_status = request.header("x-centrifugo-error-mode") == Some("transport");
        let (status, body) = match done {
            Ok(value) => {
                let is_one = matches!(value, Value::Later(_));
                match (value, method) {
                    // The results of a batch are complete answers themselves.
                    (Value::Parts(parts), "batch") => reply = parts,
                    (value, _) => {
                        reply.push("{");
                        reply.field("result", value);
                        reply.push("}");
                    }
                }
                return self.waiting_answers.answer(reply, is_one && by_status, || out.defer(request));
            }
            Err(Fault::Malformed) => return Some(malformed()),
            Err(Fault::Error(error)) => {
                out.stats.channels_errors += 1;
                (if by_status { error.status() } else { 200 }, format!("{{\"error\":{}}}", describe(error)))
            }
        };
        Some(Response::new(status).content("application/json", body))
    }

    /// Whether to read the content of a request at all: a client without the key makes us hold nothing. Pusher
    /// backends sign their content, which is short.
    pub(super) fn may_send_content(&self, request: &Request<'_>) -> bool {
        match request.path().starts_with("/apps/") {
            true => self.is_signed(request),
            false => self.is_allowed(request),
        }
    }

    /// Whether the backend has given the key, if one is set.
    fn is_allowed(&self, request: &Request<'_>) -> bool {
        let Some(key) = &self.api_key else { return true };
        let in_authorization = request.header("authorization").and_then(|value| credentials(value, "apikey"));
        let in_query = request.query_value("api_key");
        let given = [request.header("x-api-key"), in_authorization, in_query.as_deref()];
        given.into_iter().flatten().any(|given| is_same(given.as_bytes(), key.as_bytes()))
    }

    /// Calls a method, here and in other workers as needed. Returns its result, as JSON.
    fn call(&mut self, method: &str, params: &str, out: &mut Outbox) -> Result<Value, Fault> {
        if matches!(method, "subscribe" | "unsubscribe" | "disconnect" | "refresh") {
            self.act(method, params, out)?;
            return match self.tell_others(method, params, out) {
                true => Ok("{}".to_owned().into()),
                false => Err(Error::LimitExceeded.into()),
            };
        }
        match method {
            "publish" => self.publish_one(params, out),
            "broadcast" => self.broadcast(params, out),
            "batch" => self.batch(params, out),
            "presence" => self.presence(params, out).map(Value::Now),
            "presence_stats" => self.presence_stats(params, out).map(Value::Now),
            "history" => self.history_of(params, out).map(Value::Now),
            "history_remove" => self.remove_history(params, out),
            "channels" => self.list_channels(params, out).map(Value::Now),
            "info" => Ok(self.describe_nodes(out).into()),
            _ => Err(Error::MethodNotFound.into()),
        }
    }

    /// Forwards a request to the other workers, if any. Returns whether it could be sent.
    pub(super) fn tell_others(&mut self, method: &str, params: &str, out: &mut Outbox) -> bool {
        let parts = [method.as_bytes(), b" ", params.as_bytes()];
        out.participant().is_none() || out.publish(CONTROL, Kind::Binary, &parts).is_ok()
    }

    /// Subscribes to the requests that other workers forward.
    pub(super) fn listen_to_others(&mut self, out: &mut Outbox) {
        if !self.listens && out.participant().is_some() {
            out.listen(CONTROL, true);
            out.listen(WORDS, self.engine.shares_history());
            // Messages sent before we listened.
            self.engine.missed_words(out);
            self.listens = true;
        }
    }

    /// Handles a request that another worker forwards, and has answered already.
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
pub(super) fn describe(error: Error) -> String {
    format!("{{\"code\":{},\"message\":\"{}\"}}", error.code(), error.message())
}

fn malformed() -> Response {
    Response::text(400, "The content is not JSON of the form that this method takes.")
}
