//! The HTTP API for backends: `/apps/ID/..` on the service listener, signed with the app's secret.

use super::conversation::{channel_of, events_of, users_on};
use super::sign::{is_signed, md5};
use super::{MAX_NAME_BYTES, Pusher, PusherApp, is_channel, is_presence};
use crate::outbox::Outbox;
use crate::protocol::http::{Request, Response};
use crate::protocol::percent::form_text;
use crate::pubsub::app::Channels;
use crate::pubsub::json::string as quoted;
use crate::text::fields::{self, string};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tungstenite::protocol::frame::coding::CloseCode;

/// The most that a request's time may differ from our clock, in seconds.
const MAX_AGE: u64 = 600;
/// The most channels of an event, events of a batch, and bytes of an event's data.
const MAX_CHANNELS: usize = 100;
const MAX_BATCH: usize = 10;
const MAX_DATA_BYTES: usize = 10 << 10;

/// A refusal: status and words.
type Refusal = (u16, &'static str);

impl Channels {
    /// Whether the app's backend has signed a request, judging by its head.
    pub(in crate::pubsub) fn is_signed(&self, request: &Request<'_>) -> bool {
        let is_signed = |pusher: &Pusher| check_signature(&pusher.app, request, &query_of(request)).is_ok();
        self.pusher.as_ref().is_some_and(is_signed)
    }

    /// Answers a request of the app's backend; `None` for an unknown path.
    pub(in crate::pubsub) fn serve_pusher(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let pusher = self.pusher.as_ref()?;
        let path = request.path().strip_prefix("/apps/")?;
        let (id, path) = path.split_once('/')?;
        if id != pusher.app.id {
            return Some(Response::text(404, "There is no such app."));
        }
        out.stats.channels_api_requests += 1;
        let query = query_of(request);
        if let Err((status, words)) = check(&pusher.app, request, &query, out.unix_time().as_secs()) {
            out.stats.channels_errors += 1;
            return Some(Response::text(status, words));
        }
        let text = simdutf8::basic::from_utf8(request.content()).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let done = match (request.method(), &parts[..]) {
            ("POST", ["events"]) => self.events(text, out),
            ("POST", ["batch_events"]) => self.batch_events(text, out),
            ("GET", ["channels"]) => Ok(self.list(&query, out)),
            ("GET", ["channels", channel]) => Ok(describe(channel, &query, out)),
            ("GET", ["channels", channel, "users"]) if is_presence(channel) => {
                let users: Vec<String> =
                    users_on(channel, out).keys().map(|user| format!("{{\"id\":{}}}", quoted(user))).collect();
                Ok(format!("{{\"users\":[{}]}}", users.join(",")))
            }
            ("GET", ["channels", _, "users"]) => Err((400, "Only presence channels have users.")),
            ("POST", ["users", user, "terminate_connections"]) => {
                let params = format!("{{\"user\":{}}}", quoted(user));
                self.terminate_here(user, out);
                self.tell_others("pusher_terminate", &params, out);
                Ok("{}".to_owned())
            }
            _ => Err((404, "Nothing is here.")),
        };
        self.engine.show(out);
        Some(match done {
            Ok(body) => Response::new(200).content("application/json", body),
            Err((status, words)) => {
                out.stats.channels_errors += 1;
                Response::text(status, words)
            }
        })
    }

    /// Publishes an event on one or more channels.
    fn events(&mut self, text: &str, out: &mut Outbox) -> Result<String, Refusal> {
        let names = ["name", "data", "channel", "channels", "socket_id", "info"];
        let [name, data, channel, channels, socket, info] = fields::read(text, names).map_err(|_| BAD_JSON)?;
        let channels: Vec<String> = match (channels, string(channel)) {
            (Some(list), _) => serde_json::from_str(list.get()).map_err(|_| BAD_JSON)?,
            (None, Some(one)) => vec![one],
            (None, None) => return Err((400, "Give channels, or a channel.")),
        };
        if !(1..=MAX_CHANNELS).contains(&channels.len()) {
            return Err((400, "Give 1 to 100 channels."));
        }
        self.publish_events(&channels, name, data, socket, out)?;
        let info = string(info).unwrap_or_default();
        if info.is_empty() {
            return Ok("{}".to_owned());
        }
        let query = BTreeMap::from([("info".to_owned(), info)]);
        let each = channels.iter().map(|channel| format!("{}:{}", quoted(channel), describe(channel, &query, out)));
        Ok(format!("{{\"channels\":{{{}}}}}", each.collect::<Vec<_>>().join(",")))
    }

    fn batch_events(&mut self, text: &str, out: &mut Outbox) -> Result<String, Refusal> {
        let [batch] = fields::read(text, ["batch"]).map_err(|_| BAD_JSON)?;
        let batch: Vec<&RawValue> = serde_json::from_str(batch.map_or("[]", RawValue::get)).map_err(|_| BAD_JSON)?;
        if batch.len() > MAX_BATCH {
            return Err((400, "A batch has at most 10 events."));
        }
        for one in batch {
            let names = ["name", "data", "channel", "socket_id"];
            let [name, data, channel, socket] = fields::read(one.get(), names).map_err(|_| BAD_JSON)?;
            let channel = string(channel).ok_or((400, "Give a channel."))?;
            self.publish_events(&[channel], name, data, socket, out)?;
        }
        Ok("{\"batch\":[]}".to_owned())
    }

    fn publish_events(
        &mut self,
        channels: &[String],
        name: Option<&RawValue>,
        data: Option<&RawValue>,
        socket: Option<&RawValue>,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let name = string(name).filter(|name| (1..=MAX_NAME_BYTES).contains(&name.len()));
        let (name, data) = (
            name.ok_or((400, "Give a name of 1 to 200 bytes."))?,
            string(data).ok_or((400, "Give data as a string."))?,
        );
        if data.len() > MAX_DATA_BYTES {
            return Err((413, "The data of an event has at most 10 KiB."));
        }
        if !channels.iter().all(|channel| is_channel(channel)) {
            return Err((400, "No channel has such a name."));
        }
        let socket = string(socket).filter(|socket| !socket.is_empty());
        for channel in channels {
            self.publish_event(channel, &name, &data, socket.as_deref(), out);
        }
        Ok(())
    }

    /// Lists the channels that have subscribers.
    fn list(&self, query: &BTreeMap<String, String>, out: &Outbox) -> String {
        let prefix = query.get("filter_by_prefix").map_or("", String::as_str);
        let mut names: Vec<_> = out.channels().filter_map(channel_of).filter(|name| name.starts_with(prefix)).collect();
        names.sort_unstable();
        names.dedup();
        let occupied = names.iter().filter(|name| out.subscribers(&events_of(name)) > 0);
        let each = occupied.map(|name| {
            let users = match wants(query, "user_count") && is_presence(name) {
                true => format!("\"user_count\":{}", users_on(name, out).len()),
                false => String::new(),
            };
            format!("{}:{{{users}}}", quoted(name))
        });
        format!("{{\"channels\":{{{}}}}}", each.collect::<Vec<_>>().join(","))
    }

    /// Ends the connections of a user in this worker.
    pub(in crate::pubsub) fn terminate_here(&self, user: &str, out: &mut Outbox) {
        let clients = self.pusher.iter().flat_map(|pusher| pusher.clients.values());
        for client in clients.filter(|client| client.user.as_deref() == Some(user)) {
            out.stats.channels_disconnects += 1;
            out.close(client.id, CloseCode::from(4009), "You got disconnected by the app");
        }
    }
}

const BAD_JSON: Refusal = (400, "The content is not JSON of the form that this path takes.");

fn wants(query: &BTreeMap<String, String>, what: &str) -> bool {
    query.get("info").is_some_and(|info| info.split(',').any(|one| one == what))
}

/// The attributes of a channel.
fn describe(channel: &str, query: &BTreeMap<String, String>, out: &Outbox) -> String {
    let subscribers = out.subscribers(&events_of(channel));
    let mut fields = vec![format!("\"occupied\":{}", subscribers > 0)];
    if wants(query, "user_count") && is_presence(channel) {
        fields.push(format!("\"user_count\":{}", users_on(channel, out).len()));
    }
    if wants(query, "subscription_count") {
        fields.push(format!("\"subscription_count\":{subscribers}"));
    }
    format!("{{{}}}", fields.join(","))
}

/// The query, decoded.
fn query_of(request: &Request<'_>) -> BTreeMap<String, String> {
    let pairs = request.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_ascii_lowercase(), form_text(value).into_owned())).collect()
}

/// Refuses a request that the app's backend has not signed, or not for this content or this time.
fn check(app: &PusherApp, request: &Request<'_>, query: &BTreeMap<String, String>, now: u64) -> Result<(), Refusal> {
    let given = |name: &str| query.get(name).map_or("", String::as_str);
    check_signature(app, request, query)?;
    if given("auth_timestamp").parse::<u64>().is_ok_and(|at| at.abs_diff(now) <= MAX_AGE) {
        let is_same = request.content().is_empty() || given("body_md5") == md5(request.content());
        return if is_same { Ok(()) } else { Err((401, "The body_md5 is wrong.")) };
    }
    Err((401, "The auth_timestamp is more than 600 seconds off."))
}

/// The same, with only the head of a request. The content's digest is part of what is signed.
fn check_signature(app: &PusherApp, request: &Request<'_>, query: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let given = |name: &str| query.get(name).map_or("", String::as_str);
    if given("auth_key") != app.key {
        return Err((401, "The auth_key is not that of the app."));
    }
    let signed: Vec<String> = query
        .iter()
        .filter(|(name, _)| *name != "auth_signature")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let text = format!("{}\n{}\n{}", request.method(), request.path(), signed.join("&"));
    match is_signed(&app.secret, &text, given("auth_signature")) {
        true => Ok(()),
        false => Err((401, "The auth_signature is wrong.")),
    }
}
