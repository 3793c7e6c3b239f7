//! Calls: what the core hands to the HTTP client, and what comes back.

use super::codec::Post;
use super::event::Reply;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The server to call.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Callee {
    /// One of the origins, counted from 0 in the order given.
    Origin(usize),
    /// Another node, at `HOST:PORT/PATH`, that has our key.
    Node(String),
    /// A node without our key, which does not get our token.
    Peer(String),
}

/// A request to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Identifies it among the calls under way.
    pub key: u64,
    /// The server to call.
    pub to: Callee,
    /// A method other than POST, and a path other than that of the callee's address.
    pub aim: Option<(String, String)>,
    /// Identifies the event; the same each time it is sent.
    pub event_id: String,
    /// The content to send.
    pub post: Post,
}

/// The outcome of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The server answered.
    Answered(Reply),
    /// Nothing was sent: the connection failed, for this reason.
    Unsent(String),
    /// At least part of it was sent, but no answer came in time. With the reason.
    Failed(String),
}

/// A finished call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Returned {
    /// Its id.
    pub key: u64,
    /// Its outcome.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// Finished calls on their way back to the loop; never more than there are calls under way.
#[derive(Default, Debug)]
pub struct Returns(Mutex<Vec<Returned>>);

impl Returns {
    /// Adds one. Returns whether it is the first, so that the loop must be woken.
    pub fn put(&self, returned: Returned) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(returned);
        waiting.len() == 1
    }

    /// Takes all.
    pub fn take(&self) -> Vec<Returned> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
