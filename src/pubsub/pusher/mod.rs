//! The second front: Pusher Channels, protocol 7, for its SDKs on both sides, unchanged.
//!
//! What is the channel `NAME` here is `pusher:NAME` to clients of the Centrifuge protocol and to the API, and one publish reaches both.
//! In the outbox it is two as well: `p:NAME` carries events, and its members are the users of a presence channel; `m:NAME` is who
//! comes and goes, so that nobody is told of himself.

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
/// What stands before a channel's name in those of the outbox.
const EVENTS: &str = "p:";
const MEMBERS: &str = "m:";
/// How long it is kept back that a user left.
const LEAVE_HOLD: Duration = Duration::from_secs(3);
/// The longest name of a channel, and of an event.
const MAX_NAME_BYTES: usize = 200;

/// The app, as Pusher calls what clients and backends name by a key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PusherApp {
    /// Stands in the paths that backends ask.
    pub id: String,
    /// By which clients name it.
    pub key: String,
    /// Signs what backends ask, and what they let clients do.
    pub secret: String,
    /// Whether clients may send events to each other.
    pub client_events: bool,
    /// The URL of the backend that is told what happens.
    pub webhook: Option<String>,
    /// Of what it is told.
    pub webhook_events: Vec<Kind>,
}

/// A client of this front.
struct Client {
    id: ConnectionId,
    /// By which backends know it.
    socket: String,
    /// Who it is, once a backend has said so.
    user: Option<String>,
    /// Its channels, and of presence channels the user.
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
    /// With nobody connected.
    pub fn new(app: PusherApp) -> Pusher {
        Pusher { app, clients: HashMap::new(), holds: Holds::default(), webhooks: None }
    }

    /// Where clients connect.
    pub fn path(app: &PusherApp) -> String {
        format!("/app/{}", app.key)
    }

    /// Whether that is the path of a request.
    pub fn is_path(&self, path: &str) -> bool {
        path.strip_prefix("/app/").is_some_and(|key| key == self.app.key)
    }

    /// Tells the backend what happens.
    pub fn set_webhooks(&mut self, call: impl FnMut(Call) + 'static) {
        self.webhooks = Some(Webhooks::new(&self.app, call));
    }

    /// A connection is over.
    pub fn closed(&mut self, index: u32, out: &mut Outbox) {
        let Some(client) = self.clients.remove(&index) else { return };
        if let Some(webhooks) = &mut self.webhooks {
            client.channels.keys().for_each(|channel| webhooks.left(channel, out));
        }
    }

    /// When something that was kept back is to be told.
    pub fn next_deadline(&self) -> Option<Duration> {
        let webhooks = self.webhooks.as_ref().and_then(Webhooks::next_deadline);
        self.holds.next_deadline().into_iter().chain(webhooks).min()
    }

    /// A call of a webhook is over.
    pub fn returned(&mut self, returned: Returned, dice: f64, out: &mut Outbox) {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.returned(returned, dice, out);
        }
    }

    /// The process is about to end: the backend is told of all that was kept back.
    pub fn drain(&mut self, out: &mut Outbox) {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.end(out);
        }
    }

    /// Whether the backend was told all there is.
    pub fn is_finished(&self) -> bool {
        let told = |webhooks: &Webhooks| webhooks.is_finished() && self.holds.next_deadline().is_none();
        self.webhooks.as_ref().is_none_or(told)
    }

    /// There is no more time to tell it.
    pub fn abandon(&mut self, out: &mut Outbox) {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.abandon(out);
        }
    }

    /// Something happened of which the backend may want to know.
    fn tell(&mut self, kind: Kind, channel: &str, fields: &[(&str, &str)], out: &mut Outbox) {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.tell(kind, channel, fields, out);
        }
    }
}

/// Whether a channel has such a name.
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

/// What a member of the outbox's channel begins with that is a user.
fn member_head(user: &str) -> String {
    format!("{{\"user_id\":{},", super::json::string(user))
}
