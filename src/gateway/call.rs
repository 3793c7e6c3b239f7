//! Calls: what the core hands to whoever speaks HTTP, and what comes back.

use super::codec::Post;
use super::event::Reply;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Whom to call.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Callee {
    /// One of the origins, counted from 0 in the order in which they were given.
    Origin(usize),
    /// Another node, at `HOST:PORT/PATH`, that has our key.
    Node(String),
    /// A node that has it not, and is not told our token.
    Peer(String),
}

/// A request to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Names it among those under way.
    pub key: u64,
    /// Whom to call.
    pub to: Callee,
    /// Another method than POST, and another path than that of the callee's address.
    pub aim: Option<(String, String)>,
    /// Names what is told, the same each time it is sent.
    pub event_id: String,
    /// What is sent.
    pub post: Post,
}

/// What became of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was answered.
    Answered(Reply),
    /// Nothing was sent: no connection came about. With the reason.
    Unsent(String),
    /// It was sent, at least in part, and no answer came, or not in time. With the reason.
    Failed(String),
}

/// A call that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Returned {
    /// Which.
    pub key: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// Calls that are over, on their way back to the loop. There are never more than calls under way.
#[derive(Default, Debug)]
pub struct Returns(Mutex<Vec<Returned>>);

impl Returns {
    /// Adds one. Returns whether it is the first, so that the loop is to be woken.
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
