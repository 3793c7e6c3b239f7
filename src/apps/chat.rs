//! `serve chat`: broadcast to everyone, rooms with their members, and pings by HTTP, across all processes on the bus.
//!
//! Messages in both directions are envelopes: `{"channel":..,"message":{"type":..,"contents":..}}`. An invalid message
//! gets an envelope on the channel `error`; the connection stays open.
//!
//! Each connection, message and ping gets a line in the log, of bounded length.

use super::demo::Demo;
use crate::app::App;
use crate::channel::presence::Change;
use crate::channel::record::{PublishError, Record};
use crate::net::id::{ConnectionId, Participant};
use crate::outbox::Outbox;
use crate::protocol::close::CloseReason;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::{Kind, Message};
use crate::telemetry::log::Level;
use crate::text::fields::{self, string};
use crate::time::calendar::Utc;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// The path that accepts upgrades.
pub const PATH: &str = "/websockets";
/// Channels of the bus that every client is on: those of the pings, by number, and that of the chat.
const PINGS: [&str; 2] = ["ping1", "ping2"];
const CHAT: &str = "websockets-chat-relay";
/// Prefix of a room's name in its channel's name.
const ROOM: &str = "chat-room-";
/// The longest name of a room, in bytes.
pub const MAX_ROOM_BYTES: usize = 128;
/// Rooms that a client may be in.
pub const MAX_ROOMS: usize = 64;
/// The longest message, in bytes: it goes to everyone.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;
/// The longest envelope that goes to others, in bytes: control characters take six each in JSON.
const MAX_PUBLISHED_BYTES: usize = 2 * MAX_TEXT_BYTES;
/// The longest envelope, with every character of its message escaped; a longer one is not read.
const MAX_ENVELOPE_BYTES: usize = 6 * (MAX_TEXT_BYTES + MAX_ROOM_BYTES) + 1024;

/// The most clients in a line of the log, and the most characters of a message.
const LOGGED_CLIENTS: usize = 8;
const LOGGED_CHARACTERS: usize = 256;

/// A page to try it, with its own client.
const PAGE: &str = include_str!("../../examples/chat.html");

/// The chat.
pub struct Chat {
    random: StdRng,
    demo: Option<Demo>,
    clients: BTreeMap<ConnectionId, Rc<str>>,
}

/// A client, as others see it.
pub struct Client {
    user: Rc<str>,
}

/// A new client and the connected ones, for the log.
struct Newcomer<'a> {
    user: &'a str,
    clients: &'a BTreeMap<ConnectionId, Rc<str>>,
}

impl fmt::Display for Newcomer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "New connection {}; connected clients: ", self.user)?;
        for (place, user) in self.clients.values().take(LOGGED_CLIENTS).enumerate() {
            write!(f, "{}{user}", if place == 0 { "" } else { ", " })?;
        }
        match self.clients.len().saturating_sub(LOGGED_CLIENTS) {
            0 => Ok(()),
            others => write!(f, " and {others} more"),
        }
    }
}

/// What a client may send.
#[derive(PartialEq, Eq, Debug)]
enum Wish {
    Submit(String),
    Join(String),
    Leave(String),
    Send { room: String, message: String },
}

impl fmt::Display for Wish {
    /// For the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Submit(text) => write!(f, "SubmitMessage {:?}", beginning(text, LOGGED_CHARACTERS)),
            Wish::Join(room) => write!(f, "JoinRoom {:?}", beginning(room, LOGGED_CHARACTERS)),
            Wish::Leave(room) => write!(f, "LeaveRoom {:?}", beginning(room, LOGGED_CHARACTERS)),
            Wish::Send { room, message } => {
                let (room, message) = (beginning(room, LOGGED_CHARACTERS), beginning(message, LOGGED_CHARACTERS));
                write!(f, "SendMessage to {room:?}: {message:?}")
            }
        }
    }
}

/// Why a message is refused.
#[derive(PartialEq, Eq, Debug)]
enum Refusal {
    NotText,
    NotJson(String),
    NoEnvelope,
    UnknownChannel(String),
    UnknownType(String, String),
    BadContents(&'static str),
    BadRoom,
    TooManyRooms,
    TooLong,
    /// It was refused by the bus.
    Unpublished(PublishError),
    NotMember(String),
}

impl Refusal {
    /// Returns a code for programs.
    fn code(&self) -> &'static str {
        match self {
            Refusal::NotText => "not-text",
            Refusal::NotJson(_) => "not-json",
            Refusal::NoEnvelope => "no-envelope",
            Refusal::UnknownChannel(_) => "unknown-channel",
            Refusal::UnknownType(..) => "unknown-type",
            Refusal::BadContents(_) => "bad-contents",
            Refusal::BadRoom => "bad-room",
            Refusal::TooManyRooms => "too-many-rooms",
            Refusal::TooLong | Refusal::Unpublished(_) => "too-long",
            Refusal::NotMember(_) => "not-a-member",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotText => f.write_str("not UTF-8: send JSON"),
            Refusal::NotJson(error) => write!(f, "not JSON: {error}"),
            Refusal::NoEnvelope => {
                f.write_str(r#"not an envelope: send {"channel":..,"message":{"type":..,"contents":..}}"#)
            }
            Refusal::UnknownChannel(channel) => write!(f, "unknown channel '{channel}': use chat or chat-room"),
            Refusal::UnknownType(channel, kind) => write!(f, "unknown type '{kind}' on the channel {channel}"),
            Refusal::BadContents(want) => write!(f, "invalid contents: give {want}"),
            Refusal::BadRoom => write!(f, "invalid room name: give 1 to {MAX_ROOM_BYTES} bytes"),
            Refusal::TooManyRooms => write!(f, "already in {MAX_ROOMS} rooms: leave one first"),
            Refusal::TooLong => {
                write!(f, "too long: a message has at most {MAX_TEXT_BYTES} bytes, and twice that as JSON")
            }
            Refusal::Unpublished(error) => write!(f, "too long as JSON: {error}"),
            Refusal::NotMember(room) => write!(f, "not in the room '{room}': join it first"),
        }
    }
}

impl Chat {
    /// Makes a chat whose clients get their names from `seed`.
    pub fn new(seed: [u8; 32]) -> Chat {
        Chat { random: StdRng::from_seed(seed), demo: None, clients: BTreeMap::new() }
    }

    /// Sets whether it serves a page to try it, at `/`.
    pub fn demo(self, demo: bool) -> Chat {
        Chat { demo: demo.then(|| Demo::new(PAGE)), ..self }
    }

    fn obey(&mut self, id: ConnectionId, client: &Client, wish: Wish, out: &mut Outbox) -> Result<(), Refusal> {
        match wish {
            Wish::Submit(content) => {
                let now = out.unix_time();
                let posted_at = Utc::from_unix(now.as_secs()).rfc3339_nanos(now.subsec_nanos());
                let contents = json!({"content": content, "postedAt": posted_at});
                publish(out, CHAT, &envelope("chat", "NewMessageReceived", &contents))
            }
            Wish::Join(room) => {
                let channel = channel(&room)?;
                if !out.is_subscribed(id, &channel) {
                    // Every client is also on the channels of pings and chat.
                    if out.subscriptions(id).saturating_sub(PINGS.len()) > MAX_ROOMS {
                        return Err(Refusal::TooManyRooms);
                    }
                    out.subscribe_as(id, &channel, &client.user);
                }
                let users: Vec<&str> = out.members(&channel).collect();
                let list = envelope("chat-room", "MemberList", &json!({"room": room, "users": users}));
                out.send_text(id, &list);
                Ok(())
            }
            Wish::Leave(room) => match out.unsubscribe(id, &channel(&room)?) {
                true => Ok(()),
                false => Err(Refusal::NotMember(room)),
            },
            Wish::Send { room, message } => {
                let channel = channel(&room)?;
                if !out.is_subscribed(id, &channel) {
                    return Err(Refusal::NotMember(room));
                }
                let contents = json!({"room": room, "user": &*client.user, "message": message});
                publish(out, &channel, &envelope("chat-room", "NewMessage", &contents))
            }
        }
    }
}

impl App for Chat {
    type State = Client;

    fn on_request(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let asks_for_upgrade = request.has_token("upgrade", "websocket");
        match (request.path(), request.method()) {
            (PATH, _) if !asks_for_upgrade => {
                Some(Response::new(400).content("text/plain", "Expected a WebSockets request."))
            }
            ("/ping1" | "/ping2", "GET" | "HEAD") => {
                let number = if request.path() == "/ping1" { 1 } else { 2 };
                if request.method() == "GET" {
                    let ping = envelope("ping", "Ping", &json!(number));
                    // Far shorter than the bus's limit.
                    let _ = publish(out, PINGS[number - 1], &ping);
                    log_ping(PINGS[number - 1], out);
                }
                Some(Response::new(200))
            }
            ("/ping1" | "/ping2", _) => Some(Response::text(405, "Use GET.").header("Allow", "GET, HEAD")),
            _ => self.demo.as_ref()?.answer(request),
        }
    }

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) -> Client {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        for channel in PINGS.into_iter().chain([CHAT]) {
            out.subscribe(id, channel);
        }
        let user: Rc<str> = uuid::Builder::from_random_bytes(bytes).into_uuid().to_string().into();
        self.clients.insert(id, Rc::clone(&user));
        out.log(Level::Info, "client", id, Newcomer { user: &user, clients: &self.clients });
        Client { user }
    }

    fn on_message(&mut self, id: ConnectionId, client: &mut Client, mut message: Message<'_>, out: &mut Outbox) {
        // Binary frames are accepted as well.
        let text = simdutf8::basic::from_utf8(message.payload());
        let wish = text.map_err(|_| Refusal::NotText).and_then(read);
        if let Ok(wish) = &wish {
            out.log(Level::Info, "message", id, format_args!("Received from {}: {wish}", client.user));
        }
        if let Err(refusal) = wish.and_then(|wish| self.obey(id, client, wish, out)) {
            let contents = json!({"code": refusal.code(), "error": refusal.to_string()});
            out.send_text(id, &envelope("error", "Error", &contents));
        }
    }

    /// Every process logs a ping, whichever process received it.
    fn on_bus(&mut self, _: Participant, record: Record<'_>, out: &mut Outbox) {
        if let Some(ping) = PINGS.iter().find(|ping| ping.as_bytes() == record.channel) {
            log_ping(ping, out);
        }
    }

    /// Each process notifies its own clients of changes in their rooms, wherever and however they happened.
    fn on_presence(&mut self, change: Change<'_>, out: &mut Outbox) {
        let Some(room) = change.channel.strip_prefix(ROOM) else { return };
        let name = if change.entered { "JoinedRoom" } else { "LeftRoom" };
        let text = envelope("chat-room", name, &json!({"room": room, "user": change.member}));
        out.publish_here(change.channel, Kind::Text, &[text.as_bytes()]);
    }

    /// Subscribes the process to pings and chat, even without clients.
    fn on_tick(&mut self, _: std::time::Duration, out: &mut Outbox) -> Option<std::time::Duration> {
        for channel in PINGS.into_iter().chain([CHAT]) {
            out.listen(channel, true);
        }
        None
    }

    fn on_close(&mut self, id: ConnectionId, _: Client, _: &CloseReason, _: &mut Outbox) {
        self.clients.remove(&id);
    }
}

fn log_ping(channel: &str, out: &mut Outbox) {
    out.log(Level::Info, "ping", None, format_args!("Received {channel}"));
}

fn publish(out: &mut Outbox, channel: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_PUBLISHED_BYTES {
        return Err(Refusal::TooLong);
    }
    out.publish(channel, Kind::Text, &[text.as_bytes()]).map(|_| ()).map_err(Refusal::Unpublished)
}

/// Returns a room's channel on the bus.
fn channel(room: &str) -> Result<String, Refusal> {
    if !(1..=MAX_ROOM_BYTES).contains(&room.len()) {
        return Err(Refusal::BadRoom);
    }
    Ok(format!("{ROOM}{room}"))
}

fn envelope(channel: &str, kind: &str, contents: &Value) -> String {
    json!({"channel": channel, "message": {"type": kind, "contents": contents}}).to_string()
}

/// Reads a message.
fn read(text: &str) -> Result<Wish, Refusal> {
    if text.len() > MAX_ENVELOPE_BYTES {
        return Err(Refusal::TooLong);
    }
    let [channel, message] = fields::read(text, ["channel", "message"]).map_err(|error| match error.is_data() {
        true => Refusal::NoEnvelope,
        false => Refusal::NotJson(error.to_string()),
    })?;
    let message = message.and_then(|message| fields::read(message.get(), ["type", "contents"]).ok());
    let [kind, contents] = message.ok_or(Refusal::NoEnvelope)?;
    let (Some(channel), Some(kind)) = (string(channel), string(kind)) else {
        return Err(Refusal::NoEnvelope);
    };
    let object = contents.and_then(|contents| fields::read(contents.get(), ["room", "message"]).ok());
    let [room, message] = object.unwrap_or_default();
    let field = |value, want| string(value).ok_or(Refusal::BadContents(want));
    let wish = match (&channel[..], &kind[..]) {
        ("chat", "SubmitMessage") => Wish::Submit(field(contents, "a string")?),
        ("chat-room", "JoinRoom") => Wish::Join(field(room, r#"{"room":..}"#)?),
        ("chat-room", "LeaveRoom") => Wish::Leave(field(room, r#"{"room":..}"#)?),
        ("chat-room", "SendMessage") => {
            let want = r#"{"room":..,"message":..}"#;
            Wish::Send { room: field(room, want)?, message: field(message, want)? }
        }
        ("chat" | "chat-room", _) => return Err(Refusal::UnknownType(channel, shown(&kind))),
        _ => return Err(Refusal::UnknownChannel(shown(&channel))),
    };
    match &wish {
        Wish::Submit(text) | Wish::Send { message: text, .. } if text.len() > MAX_TEXT_BYTES => Err(Refusal::TooLong),
        _ => Ok(wish),
    }
}

/// Returns the beginning of a name, which may be long.
fn shown(name: &str) -> String {
    beginning(name, 64).to_owned()
}

/// Returns at most this many characters.
fn beginning(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}
