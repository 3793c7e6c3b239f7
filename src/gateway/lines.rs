//! A line: the events of one connection that the origin has not taken, first to last. A connection of which nothing waits has
//! has no line.

use super::event::{Event, Subject};
use crate::net::id::{ConnectionId, Peer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The record of a connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its number, which is part of its public name.
    pub serial: u64,
    /// Its id in the sessions; `None` while its handshake waits for the origin.
    pub id: Option<ConnectionId>,
    /// The client.
    pub peer: Peer,
    /// The client's User-Agent, if the codec wants it.
    pub agent: Option<Box<str>>,
    /// The claims of its token, likewise.
    pub claims: Option<Arc<str>>,
    /// When it opened, since the start.
    pub opened: Duration,
    /// When the client last sent a message, likewise.
    pub heard: Duration,
    /// When a message was last sent to it, if that counts.
    pub reached: Duration,
    /// Whether we have begun to close it.
    pub closing: bool,
}

/// A waiting event.
#[derive(Debug)]
pub struct Waiting {
    pub event: Event,
    pub event_id: String,
}

/// The state of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Its first event is sent as soon as an origin is free.
    Ready,
    /// Its first event is under way.
    UnderWay,
    /// Its first event is tried again at this time.
    Later(Duration),
}

/// The line of a connection; there is always a first event.
#[derive(Debug)]
pub struct Line {
    pub events: VecDeque<Waiting>,
    pub state: State,
    /// Messages among the events, and their bytes.
    pub messages: usize,
    pub bytes: usize,
    /// When the first event first failed.
    pub since: Option<Duration>,
    /// How often it failed.
    pub attempts: u32,
    /// Whether reading from the connection is paused because of what waits here.
    pub paused: bool,
    /// The connection, once closed.
    pub gone: Option<Connection>,
}

impl Line {
    /// An empty one.
    pub fn boxed() -> Box<Line> {
        Box::new(Line {
            events: VecDeque::new(),
            state: State::Ready,
            messages: 0,
            bytes: 0,
            since: None,
            attempts: 0,
            paused: false,
            gone: None,
        })
    }

    pub fn push(&mut self, event: Event, event_id: String) {
        self.messages += usize::from(matches!(event, Event::Message(..)));
        self.bytes += event.bytes();
        self.events.push_back(Waiting { event, event_id });
    }

    /// Removes the first event, which is finished. Returns its bytes.
    pub fn pop(&mut self) -> usize {
        (self.since, self.attempts) = (None, 0);
        let Some(Waiting { event, .. }) = self.events.pop_front() else { return 0 };
        self.messages -= usize::from(matches!(event, Event::Message(..)));
        self.bytes -= event.bytes();
        event.bytes()
    }

    /// Keeps only the news that the connection is closed. Returns the number of events and bytes dropped.
    pub fn keep_ending(&mut self) -> (usize, usize) {
        let (events, bytes) = (self.events.len(), self.bytes);
        self.events.retain(|waiting| matches!(waiting.event, Event::Closed(_)));
        (self.messages, self.bytes, self.since, self.attempts) = (0, 0, None, 0);
        (events - self.events.len(), bytes)
    }

    /// How long to wait before the first event is tried again.
    pub fn back_off(&mut self) -> Duration {
        let wait = Duration::from_millis(50) * (1 << self.attempts.min(5));
        self.attempts += 1;
        wait.min(Duration::from_secs(1))
    }
}

impl Connection {
    /// Bytes that it keeps outside its own size.
    pub fn kept_bytes(&self) -> usize {
        let claims = self.claims.as_ref().map_or(0, |claims| claims.len());
        claims + self.agent.as_ref().map_or(0, |agent| agent.len())
    }

    /// The subject of an event, for a codec.
    pub fn subject(&self, name: String, event_id: String, epoch: Duration, now: Duration) -> Subject {
        let (peer, agent, claims) = (self.peer, self.agent.clone(), self.claims.clone());
        Subject { name, peer, agent, claims, opened: epoch + self.opened, now: epoch + now, event_id }
    }
}
