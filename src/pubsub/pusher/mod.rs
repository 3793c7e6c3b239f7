//! The second front: Pusher Channels, protocol 7, for its SDKs on both sides, unchanged.
//!
//! A channel `NAME` here is `pusher:NAME` for clients of the Centrifuge protocol and for the API, and one publish
//! reaches both. The outbox has two channels for it: `p:NAME` carries events, and its members are the users of a
//! presence channel; `m:NAME` carries joins and leaves, so that no user hears of its own.

mod api;
mod conversation;
mod frames;
mod sign;
pub mod webhooks;

use super::holds::Holds;
use crate::gateway::call::{Call, Returned};
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;
use webhooks::{Kind, Webhooks};

/// The namespace of these channels on the other front.
pub const NAMESPACE: &str = "pusher:";
/// The prefixes of a channel's names in the outbox.
const EVENTS: &str = "p:";
const MEMBERS: &str = "m:";
/// How long a user's leave is held back.
const LEAVE_HOLD: Duration = Duration::from_secs(3);
/// The longest name of a channel or an event.
const MAX_NAME_BYTES: usize = 200;

/// The app: Pusher's term for what clients and backends name by a key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PusherApp {
    /// Part of the paths that backends request.
    pub id: String,
    /// The key by which clients name the app.
    pub key: String,
    /// Signs requests of backends, and the permissions they give to clients.
    pub secret: String,
    /// Whether clients may send events to each other.
    pub client_events: bool,
    /// The URL of the backend that receives webhooks.
    pub webhook: Option<String>,
    /// The events that it receives.
    pub webhook_events: Vec<Kind>,
}

/// A client of this front.
struct Client {
    id: ConnectionId,
    /// The id by which backends know it.
    socket: String,
    /// Its user, once a backend has authenticated it.
    user: Option<String>,
    /// Its channels, with the user on presence channels.
    channels: BTreeMap<Rc<str>, Option<String>>,
}

/// The front.
pub struct Pusher {
    app: PusherApp,
    /// By index of the connection.
    clients: HashMap<u32, Client>,
    holds: Holds,
    webhooks: Option<Webhooks>,
}

impl Pusher {
    /// A front without clients.
    pub fn new(app: PusherApp) -> Pusher {
        Pusher { app, clients: HashMap::new(), holds: Holds::default(), webhooks: None }
    }

    /// The path for clients.
    pub fn path(app: &PusherApp) -> String {
        format!("/app/{}", app.key)
    }

    /// Whether a request has that path.
    pub fn is_path(&self, path: &str) -> bool {
        path.strip_prefix("/app/").is_some_and(|key| key == self.app.key)
    }

    /// Enables webhooks to the backend.
    pub fn set_webhooks(&mut self, call: impl FnMut(Call) + 'static) {
        self.webhooks = Some(Webhooks::new(&self.app, call));
    }

    /// A connection has ended.
    pub fn closed(&mut self, index: u32, out: &mut Outbox) {
        let Some(client) = self.clients.remove(&index) else { return };
        if let Some(webhooks) = &mut self.webhooks {
            client.channels.keys().for_each(|channel| webhooks.left(channel, out));
        }
    }

    /// When a held leave or webhook is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        let webhooks = self.webhooks.as_ref().and_then(Webhooks::next_deadline);
        self.holds.next_deadline().into_iter().chain(webhooks).min()
    }

    /// A webhook call has ended.
    pub fn returned(&mut self, returned: Returned, dice: f64, out: &mut Outbox) {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.returned(returned, dice, out);
        }
    }

    /// The process is about to end: sends all held events to the backend.
    pub fn drain(&mut self, out: &mut Outbox) {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.end(out);
        }
    }

    /// Whether the backend has received everything.
    pub fn is_finished(&self) -> bool {
        let told = |webhooks: &Webhooks| webhooks.is_finished() && self.holds.next_deadline().is_none();
        self.webhooks.as_ref().is_none_or(told)
    }

    /// Gives up the rest: there is no time left to send it.
    pub fn abandon(&mut self, out: &mut Outbox) {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.abandon(out);
        }
    }

    /// Reports an event to the backend, if it wants it.
    fn tell(&mut self, kind: Kind, channel: &str, fields: &[(&str, &str)], out: &mut Outbox) {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.tell(kind, channel, fields, out);
        }
    }
}

/// Whether the name is valid for a channel.
fn is_channel(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_good)
}

fn is_presence(channel: &str) -> bool {
    channel.starts_with("presence-")
}

/// Whether a client needs a signature to subscribe.
fn is_private(channel: &str) -> bool {
    channel.starts_with("private-") || is_presence(channel)
}

/// The beginning of an outbox member that is a user.
fn member_head(user: &str) -> String {
    format!("{{\"user_id\":{},", super::json::string(user))
}
