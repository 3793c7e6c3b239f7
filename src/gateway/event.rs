//! What the gateway reports to the origin, and what the origin answers. Every codec writes the one and reads the other.

use crate::net::id::Peer;
use crate::protocol::message::Kind;
use std::sync::Arc;
use std::time::Duration;

/// What happened to a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A client asks for a connection; its handshake waits for the answer.
    Connect(Box<Opening>),
    /// A connection is open.
    Connected(Box<Opening>),
    /// A message came.
    Message(Kind, Vec<u8>),
    /// A connection ended.
    Closed(Ending),
}

impl Event {
    /// The client's request, for an event that begins a connection.
    pub fn opening(&self) -> Option<&Opening> {
        match self {
            Event::Connect(opening) | Event::Connected(opening) => Some(opening),
            Event::Message(..) | Event::Closed(_) => None,
        }
    }

    /// Whether it begins a connection, so that an answer may refuse it.
    pub fn is_opening(&self) -> bool {
        self.opening().is_some()
    }

    /// Bytes that it holds beyond its own size.
    pub fn bytes(&self) -> usize {
        match self {
            Event::Message(_, payload) => payload.len(),
            Event::Connect(opening) | Event::Connected(opening) => opening.bytes(),
            Event::Closed(ending) => ending.reason.len(),
        }
    }
}

/// The contents of the request for a connection.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Opening {
    /// The path, as it was sent.
    pub path: String,
    /// The part after the first `?`.
    pub query: Option<String>,
    /// `HOST` or `HOST:PORT`.
    pub host: String,
    /// Headers to pass on: all, or the configured ones.
    pub headers: Vec<(String, String)>,
    /// The subprotocols that the client offers.
    pub offered: Vec<String>,
    /// The agreed one; empty for none.
    pub subprotocol: String,
    /// The claims of the client's token: JSON in one line of ASCII.
    pub claims: Option<Arc<str>>,
}

impl Opening {
    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let offered: usize = self.offered.iter().map(String::len).sum();
        let query = self.query.as_ref().map_or(0, String::len);
        let claims = self.claims.as_ref().map_or(0, |claims| claims.len());
        self.path.len() + query + self.host.len() + headers + offered + self.subprotocol.len() + claims
    }
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    /// The close code: 1005 when the Close frame had none, 1006 when none came.
    pub code: u16,
    /// The reason in it.
    pub reason: String,
    /// How long the connection was open.
    pub lasted: Duration,
}

/// The subject of an event.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The connection's public name.
    pub name: String,
    /// The client.
    pub peer: Peer,
    /// The client's User-Agent, if the codec wants it ([`Codec::keeps_client`](super::codec::Codec::keeps_client)).
    pub agent: Option<Box<str>>,
    /// The claims of its token, likewise.
    pub claims: Option<Arc<str>>,
    /// When it was opened, since 1970-01-01 00:00 UTC.
    pub opened: Duration,
    /// Now, likewise.
    pub now: Duration,
    /// Identifies the event; the same each time it is sent.
    pub event_id: String,
}

/// An HTTP response to an event.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers, with names in lower case; empty unless the codec wants them.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl Reply {
    /// Whether the status means success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

/// The origin's answer to an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The origin takes it, with these consequences.
    Taken(Effects),
    /// The origin refuses it, which ends the connection.
    Refused(Refusal),
}

/// The consequences of an event that was taken.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Effects {
    /// The subprotocol, in the answer to [`Event::Connect`].
    pub subprotocol: Option<String>,
    /// The user of the connection.
    pub user: Option<String>,
    /// Labels to give it.
    pub labels: Vec<String>,
    /// Channels to put it on.
    pub channels: Vec<String>,
    /// Messages for it, in order.
    pub messages: Vec<(Kind, Vec<u8>)>,
}

/// Why an event was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The HTTP status for a client whose handshake waits.
    pub status: u16,
    /// A human-readable line.
    pub reason: String,
}
