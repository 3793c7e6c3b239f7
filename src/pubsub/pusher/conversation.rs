//! Messages of this front's clients, and how they are handled.

use super::frames::{error, event};
use super::sign::is_signed;
use super::webhooks::Kind as Told;
use super::{
    Client, EVENTS, LEAVE_HOLD, MAX_NAME_BYTES, MEMBERS, NAMESPACE, Pusher, is_channel, is_presence, is_private,
    member_head,
};
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::outbox::shared::Shared;
use crate::protocol::message::Kind;
use crate::pubsub::app::Channels;
use crate::pubsub::engine::{Post, Published};
use crate::pubsub::holds::Leave;
use crate::pubsub::json::{in_one_line, string as quoted};
use crate::text::fields::{self, string};
use rand::Rng;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// After this long without a message a client checks whether the server is there.
const ACTIVITY_TIMEOUT_SECONDS: u32 = 120;
/// The largest event of a client, and the largest description of a user.
const MAX_CLIENT_EVENT_BYTES: usize = 10 << 10;
const MAX_USER_BYTES: usize = 4 << 10;
/// The most connections of users on a presence channel: each hears of all, and all hear of each.
const MAX_MEMBERS: usize = 1000;

/// An error for a client: a code and words.
type Refusal = (u16, &'static str);

const NOT_JSON: Refusal = (4200, "Not an event: send JSON with event and data");
const BAD_CHANNEL: Refusal = (4009, "No channel has such a name");

impl Channels {
    /// Handles a new client.
    pub(in crate::pubsub) fn open_pusher(&mut self, id: ConnectionId, out: &mut Outbox) {
        let socket = format!("{}.{}", id.index, self.random.next_u32());
        let data = format!("{{\"socket_id\":\"{socket}\",\"activity_timeout\":{ACTIVITY_TIMEOUT_SECONDS}}}");
        out.send_text(id, &event("pusher:connection_established", None, &data, None));
        if let Some(pusher) = &mut self.pusher {
            pusher.clients.insert(id.index, Client { id, socket, user: None, channels: BTreeMap::new() });
        }
    }

    /// Handles a message.
    pub(in crate::pubsub) fn hear_pusher(&mut self, id: ConnectionId, text: &str, out: &mut Outbox) {
        out.stats.channels_commands += 1;
        if let Err((code, message)) = self.obey_pusher(id, text, out) {
            out.stats.channels_errors += 1;
            out.send_text(id, &error(code, message));
        }
    }

    fn obey_pusher(&mut self, id: ConnectionId, text: &str, out: &mut Outbox) -> Result<(), Refusal> {
        let [name, channel, data] = fields::read(text, ["event", "channel", "data"]).map_err(|_| NOT_JSON)?;
        let name = string(name).ok_or(NOT_JSON)?;
        // Some clients send data as a string of JSON.
        let inner = string(data);
        let data_text = inner.as_deref().or(data.map(RawValue::get)).unwrap_or("{}");
        match name.as_str() {
            "pusher:ping" => drop(out.send_text(id, &event("pusher:pong", None, "{}", None))),
            "pusher:pong" => {}
            "pusher:subscribe" => {
                let [channel, auth, user] =
                    fields::read(data_text, ["channel", "auth", "channel_data"]).map_err(|_| NOT_JSON)?;
                let (channel, auth) = (string(channel).ok_or(BAD_CHANNEL)?, string(auth).unwrap_or_default());
                self.subscribe_pusher(id, &channel, &auth, string(user).as_deref(), out)?;
            }
            "pusher:unsubscribe" => {
                let [channel] = fields::read(data_text, ["channel"]).map_err(|_| NOT_JSON)?;
                let channel = string(channel).ok_or(BAD_CHANNEL)?;
                let Some(pusher) = &mut self.pusher else { return Err(BAD_CHANNEL) };
                let client = pusher.clients.get_mut(&id.index);
                if client.is_some_and(|client| client.channels.remove(&*channel).is_some()) {
                    if let Some(webhooks) = &mut pusher.webhooks {
                        webhooks.left(&channel, out);
                    }
                    out.unsubscribe(id, &format!("{MEMBERS}{channel}"));
                    out.unsubscribe(id, &format!("{EVENTS}{channel}"));
                }
            }
            "pusher:signin" => {
                let [auth, user] = fields::read(data_text, ["auth", "user_data"]).map_err(|_| NOT_JSON)?;
                self.sign_in(id, &string(auth).unwrap_or_default(), &string(user).unwrap_or_default(), out)?;
            }
            name if name.starts_with("client-") => {
                let channel = string(channel).ok_or(BAD_CHANNEL)?;
                self.client_event(id, name, &channel, data, out)?;
            }
            _ => return Err((4200, "There is no such event")),
        }
        Ok(())
    }

    fn subscribe_pusher(
        &mut self,
        id: ConnectionId,
        channel: &str,
        auth: &str,
        user: Option<&str>,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let most = self.engine.rules.limits.client_channels;
        let Some(pusher) = &mut self.pusher else { return Err(BAD_CHANNEL) };
        let (app, Some(client)) = (&pusher.app, pusher.clients.get_mut(&id.index)) else { return Err(BAD_CHANNEL) };
        if !is_channel(channel) {
            return Err(BAD_CHANNEL);
        }
        if client.channels.contains_key(channel) {
            return Err((4200, "Already subscribed to this channel"));
        }
        if client.channels.len() >= most {
            return Err((4200, "On too many channels"));
        }
        if is_private(channel) {
            let text = match user.filter(|_| is_presence(channel)) {
                Some(user) => format!("{}:{channel}:{user}", client.socket),
                None => format!("{}:{channel}", client.socket),
            };
            let signature = auth.split_once(':').filter(|(key, _)| *key == app.key).map(|(_, signature)| signature);
            if !signature.is_some_and(|signature| is_signed(&app.secret, &text, signature)) {
                let data = "{\"type\":\"AuthError\",\"error\":\"The signature is wrong\",\"status\":401}";
                out.send_text(id, &event("pusher:subscription_error", Some(channel), data, None));
                return Ok(());
            }
        }
        if is_presence(channel) && out.members(&format!("{EVENTS}{channel}")).count() >= MAX_MEMBERS {
            let data = "{\"type\":\"LimitReached\",\"error\":\"The channel is full\",\"status\":4301}";
            out.send_text(id, &event("pusher:subscription_error", Some(channel), data, None));
            return Ok(());
        }
        let member = match is_presence(channel) {
            true => Some(read_user(user.unwrap_or_default()).ok_or((4200, "Without a user_id in channel_data"))?),
            false => None,
        };
        client.channels.insert(channel.into(), member.as_ref().map(|(user, _)| user.clone()));
        if let Some(webhooks) = &mut pusher.webhooks {
            webhooks.came(channel, out);
        }
        let events = format!("{EVENTS}{channel}");
        let Some((_, member)) = member else {
            out.subscribe(id, &events);
            out.send_text(id, &event("pusher_internal:subscription_succeeded", Some(channel), "{}", None));
            return Ok(());
        };
        out.subscribe_as(id, &events, &member);
        // The others hear of earlier joins and leaves before this one subscribes.
        self.tell_news(out);
        out.subscribe(id, &format!("{MEMBERS}{channel}"));
        let data = list_users(channel, out);
        out.send_text(id, &event("pusher_internal:subscription_succeeded", Some(channel), &data, None));
        Ok(())
    }

    fn sign_in(&mut self, id: ConnectionId, auth: &str, user: &str, out: &mut Outbox) -> Result<(), Refusal> {
        let Some(pusher) = &mut self.pusher else { return Err(NOT_JSON) };
        let (app, Some(client)) = (&pusher.app, pusher.clients.get_mut(&id.index)) else { return Err(NOT_JSON) };
        let text = format!("{}::user::{user}", client.socket);
        let signature = auth.split_once(':').filter(|(key, _)| *key == app.key).map(|(_, signature)| signature);
        let is_good = signature.is_some_and(|signature| is_signed(&app.secret, &text, signature));
        let name = fields::read(user, ["id"]).ok().and_then(|[id]| string(id)).filter(|name| !name.is_empty());
        let Some(name) = name.filter(|_| is_good && user.len() <= MAX_USER_BYTES) else {
            out.send_text(id, &error(4009, "The signature is wrong"));
            out.close(id, CloseCode::from(4009), "Unauthorized");
            return Ok(());
        };
        client.user = Some(name);
        let data = format!("{{\"user_data\":{}}}", quoted(user));
        out.send_text(id, &event("pusher:signin_success", None, &data, None));
        Ok(())
    }

    /// A client sends an event to the others on a channel.
    fn client_event(
        &mut self,
        id: ConnectionId,
        name: &str,
        channel: &str,
        data: Option<&RawValue>,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let Some(pusher) = &mut self.pusher else { return Err(BAD_CHANNEL) };
        let Some(client) = pusher.clients.get(&id.index) else { return Err(BAD_CHANNEL) };
        if !pusher.app.client_events || name.len() > MAX_NAME_BYTES {
            return Err((4301, "Clients may not send events here"));
        }
        let Some(user) = client.channels.get(channel).filter(|_| is_private(channel)) else {
            return Err((4301, "Events of clients are for private and presence channels that they are on"));
        };
        let text = string(data);
        let data = match (&text, data.map(in_one_line)) {
            (Some(text), _) => text.as_str().to_owned(),
            (None, Some(Ok(line))) => line.into_owned(),
            (None, Some(Err(_))) => return Err((4301, "The data goes too deep")),
            (None, None) => "{}".to_owned(),
        };
        if data.len() > MAX_CLIENT_EVENT_BYTES {
            return Err((4301, "The event is too long"));
        }
        let (socket, user) = (client.socket.clone(), user.clone());
        let frame = event(name, Some(channel), &data, user.as_deref());
        let mut fields = vec![("event", name), ("data", &*data), ("socket_id", &*socket)];
        fields.extend(user.as_deref().map(|user| ("user_id", user)));
        pusher.tell(Told::ClientEvent, channel, &fields, out);
        self.send_except(channel, &frame, &socket, out);
        Ok(())
    }

    /// Publishes an event on a channel, and on its channel of the other front.
    pub(super) fn publish_event(
        &mut self,
        channel: &str,
        name: &str,
        data: &str,
        except: Option<&str>,
        out: &mut Outbox,
    ) {
        let frame = event(name, Some(channel), data, None);
        match except {
            Some(socket) => self.send_except(channel, &frame, socket, out),
            // It is far shorter than the largest record of a bus.
            None => drop(out.publish(&format!("{EVENTS}{channel}"), Kind::Text, &[frame.as_bytes()])),
        }
        let other = format!("{NAMESPACE}{channel}");
        if let Ok(rules) = self.engine.rules.of(&other).copied() {
            let data = format!("{{\"event\":{},\"data\":{}}}", quoted(name), quoted(data));
            // If the other front refuses it, this one has still received it.
            let _ = self.engine.publish(&other, rules, Post { data: &data, ..Post::default() }, out);
        }
    }

    /// Handles a publication of the other front: shows it here once it is known to be published.
    pub(in crate::pubsub) fn published(&mut self, channel: &str, data: &str, published: Published, out: &mut Outbox) {
        match published {
            Published::Now(_) => self.pass_on_to_pusher(channel, data, out),
            Published::Later(sequence) if self.pusher.is_some() && channel.starts_with(NAMESPACE) => {
                self.waiting_answers.pass_on(sequence, channel, data);
            }
            Published::Later(_) => {}
        }
    }

    /// Shows a publication of the other front here as an event.
    pub(in crate::pubsub) fn pass_on_to_pusher(&self, channel: &str, data: &str, out: &mut Outbox) {
        if self.pusher.is_some()
            && let Some(channel) = channel.strip_prefix(NAMESPACE)
        {
            let frame = event("message", Some(channel), data, None);
            let _ = out.publish(&format!("{EVENTS}{channel}"), Kind::Text, &[frame.as_bytes()]);
        }
    }

    /// Sends a frame to all but one on a channel, in all workers.
    fn send_except(&mut self, channel: &str, frame: &str, socket: &str, out: &mut Outbox) {
        self.send_here_except(channel, frame, socket, out);
        let params =
            format!("{{\"channel\":{},\"frame\":{},\"socket\":{}}}", quoted(channel), quoted(frame), quoted(socket));
        self.tell_others("pusher", &params, out);
    }

    /// The same in this worker.
    pub(in crate::pubsub) fn send_here_except(&self, channel: &str, frame: &str, socket: &str, out: &mut Outbox) {
        let Some(pusher) = &self.pusher else { return };
        let name = format!("{EVENTS}{channel}");
        let mut shared = Shared::default();
        for index in out.subscribers_here(&name) {
            if let Some(client) = pusher.clients.get(&index).filter(|client| client.socket != socket) {
                out.send_shared(client.id, Kind::Text, frame.as_bytes(), &mut shared);
            }
        }
    }

    /// A member joined or left a channel of the outbox: counts users, and holds leaves back.
    pub(in crate::pubsub) fn pusher_presence(&mut self, channel: &str, member: &str, entered: bool, out: &mut Outbox) {
        let (Some(pusher), Some(channel)) = (&mut self.pusher, channel.strip_prefix(EVENTS)) else { return };
        if !is_presence(channel) {
            return;
        }
        if !entered {
            let due = out.now() + LEAVE_HOLD;
            match pusher.holds.put(Leave { channel: channel.into(), description: member.into() }, due) {
                Some(leave) => pusher.tell_removed(&leave, out),
                None => out.tick_by(due),
            }
            return;
        }
        if !pusher.holds.cancel(channel, member)
            && let Some(user) = user_of(member)
            && count_of(channel, &user, out) == 1
        {
            let frame = event("pusher_internal:member_added", Some(channel), member, None);
            out.publish_here(&format!("{MEMBERS}{channel}"), Kind::Text, &[frame.as_bytes()]);
            pusher.tell(Told::MemberAdded, channel, &[("user_id", &user)], out);
        }
    }

    /// Announces the leaves that are due, and calls the backend.
    pub(in crate::pubsub) fn expire_pusher(&mut self, now: Duration, out: &mut Outbox) {
        let Some(pusher) = &mut self.pusher else { return };
        while let Some(leave) = pusher.holds.next(now) {
            pusher.tell_removed(&leave, out);
        }
        if let Some(webhooks) = &mut pusher.webhooks {
            webhooks.expire(out);
        }
    }
}

impl Pusher {
    fn tell_removed(&mut self, leave: &Leave, out: &mut Outbox) {
        let user = user_of(&leave.description).filter(|user| count_of(&leave.channel, user, out) == 0);
        let Some(user) = user else { return };
        let data = format!("{{\"user_id\":{}}}", quoted(&user));
        let frame = event("pusher_internal:member_removed", Some(&leave.channel), &data, None);
        out.publish_here(&format!("{MEMBERS}{}", leave.channel), Kind::Text, &[frame.as_bytes()]);
        self.tell(Told::MemberRemoved, &leave.channel, &[("user_id", &user)], out);
    }
}

/// The user of a presence channel, and the entry in its list of members.
fn read_user(data: &str) -> Option<(String, String)> {
    if data.len() > MAX_USER_BYTES {
        return None;
    }
    let [id, info] = fields::read(data, ["user_id", "user_info"]).ok()?;
    let user =
        string(id).or_else(|| id.map(|id| id.get().to_owned()).filter(|id| id.bytes().all(|b| b.is_ascii_digit())))?;
    let info = match info.map(in_one_line) {
        Some(line) => line.ok()?.into_owned(),
        None => "{}".to_owned(),
    };
    let member = format!("{}\"user_info\":{info}}}", member_head(&user));
    (!user.is_empty()).then_some((user, member))
}

fn user_of(member: &str) -> Option<String> {
    let [user] = fields::read(member, ["user_id"]).ok()?;
    string(user)
}

/// The number of connections of a user on a channel.
fn count_of(channel: &str, user: &str, out: &Outbox) -> usize {
    let head = member_head(user);
    out.members(&format!("{EVENTS}{channel}")).filter(|member| member.starts_with(&head)).count()
}

/// The users on a presence channel, each once.
pub(super) fn users_on(channel: &str, out: &Outbox) -> BTreeMap<String, String> {
    let name = events_of(channel);
    let members = out.members(&name).filter_map(|member| {
        let [user, info] = fields::read(member, ["user_id", "user_info"]).ok()?;
        Some((string(user)?, info.map_or("{}", RawValue::get).to_owned()))
    });
    members.collect()
}

fn list_users(channel: &str, out: &Outbox) -> String {
    let users = users_on(channel, out);
    let ids: Vec<String> = users.keys().map(|user| quoted(user)).collect();
    let hash: Vec<String> = users.iter().map(|(user, info)| format!("{}:{info}", quoted(user))).collect();
    let (count, ids, hash) = (users.len(), ids.join(","), hash.join(","));
    format!("{{\"presence\":{{\"count\":{count},\"ids\":[{ids}],\"hash\":{{{hash}}}}}}}")
}

/// The channel of this front with that outbox name.
pub(super) fn channel_of(name: &[u8]) -> Option<Rc<str>> {
    std::str::from_utf8(name).ok()?.strip_prefix(EVENTS).map(Rc::from)
}

/// The outbox name of a channel of this front.
pub(super) fn events_of(channel: &str) -> String {
    format!("{EVENTS}{channel}")
}
