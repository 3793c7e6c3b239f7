//! What the gateway tells the origin, and what the origin answers. Every codec writes the one and reads the other.

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
    /// A connection is over.
    Closed(Ending),
}

impl Event {
    /// What the request said, of an event that begins a connection.
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

    /// Bytes that it holds beyond its own.
    pub fn bytes(&self) -> usize {
        match self {
            Event::Message(_, payload) => payload.len(),
            Event::Connect(opening) | Event::Connected(opening) => opening.bytes(),
            Event::Closed(ending) => ending.reason.len(),
        }
    }
}

/// What the request for a connection said.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Opening {
    /// The path, as it was sent.
    pub path: String,
    /// What follows the first `?`.
    pub query: Option<String>,
    /// `HOST` or `HOST:PORT`.
    pub host: String,
    /// Headers that are passed on: all, or those that were named.
    pub headers: Vec<(String, String)>,
    /// The subprotocols that the client offers.
    pub offered: Vec<String>,
    /// The one that was agreed on; empty for none.
    pub subprotocol: String,
    /// What the client's token claims: JSON in one line of ASCII.
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
    /// The text beside it.
    pub reason: String,
    /// How long it was open.
    pub lasted: Duration,
}

/// Whom an event is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The connection's public name.
    pub name: String,
    /// The client.
    pub peer: Peer,
    /// What the client calls itself, where the codec wants it ([`Codec::keeps_client`](super::codec::Codec::keeps_client)).
    pub agent: Option<Box<str>>,
    /// What its token claims, likewise.
    pub claims: Option<Arc<str>>,
    /// When it was opened, since 1970-01-01 00:00 UTC.
    pub opened: Duration,
    /// Now, likewise.
    pub now: Duration,
    /// Names the event, the same each time it is sent.
    pub event_id: String,
}

/// An HTTP response to an event.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers, names in small letters; empty unless the codec wants them.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl Reply {
    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of a header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

/// What the origin answers to an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is taken, with what follows from it.
    Taken(Effects),
    /// It is refused, which ends the connection.
    Refused(Refusal),
}

/// What follows from an event that was taken.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Effects {
    /// The subprotocol, in the answer to [`Event::Connect`].
    pub subprotocol: Option<String>,
    /// Whose connection it is.
    pub user: Option<String>,
    /// Labels that it gets.
    pub labels: Vec<String>,
    /// Channels that it is put on.
    pub channels: Vec<String>,
    /// Messages for it, in order.
    pub messages: Vec<(Kind, Vec<u8>)>,
}

/// Why an event was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The HTTP status for a client whose handshake waits.
    pub status: u16,
    /// A line for people.
    pub reason: String,
}
