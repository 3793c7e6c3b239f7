//! Long answers: what several clients are told alike is stored once for all of them, and a pass of the loop gives so much of
//! them and no more, so that a storm of clients that come back leaves time for what is published meanwhile.
//!
//! A client whose long answer has to wait is not read from until then, and what else its message has waits with it, so that its
//! commands are answered in their order.

use super::costs::COMMAND_BYTES;
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::outbox::shared::Shared;
use crate::protocol::message::Kind;
use crate::pubsub::app::Channels;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Bytes of long answers after which a pass gives no more.
const PASS_BYTES: usize = 1 << 20;

/// Commands that wait for a later pass.
struct Waiting {
    id: ConnectionId,
    /// The lines, and how many of the same message came before.
    lines: Box<str>,
    number: usize,
}

/// The long answers of a pass, and what waits for the next.
#[derive(Default)]
pub struct LongAnswers {
    pass: Duration,
    /// Bytes of answers in this pass, each counted for each client.
    given: usize,
    /// What is the same for several clients, in this pass.
    by_key: HashMap<String, (Rc<str>, Shared)>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

impl LongAnswers {
    fn begin_pass(&mut self, now: Duration) {
        if self.pass != now {
            self.pass = now;
            self.given = 0;
            self.by_key.clear();
        }
    }

    /// Whether this pass has given enough.
    fn is_over(&mut self, now: Duration) -> bool {
        self.begin_pass(now);
        self.given >= PASS_BYTES
    }

    /// Bytes of the commands that wait.
    pub fn memory(&self) -> usize {
        self.waiting_bytes
    }

    fn take_next(&mut self) -> Option<Waiting> {
        let next = self.waiting.pop_front()?;
        self.waiting_bytes -= next.lines.len();
        Some(next)
    }
}

impl Channels {
    /// Whether a command with a long answer has to wait: this pass has given enough, or others wait already.
    pub(super) fn is_to_wait(&mut self, is_new: bool, now: Duration) -> bool {
        self.answers.is_over(now) || (is_new && !self.answers.waiting.is_empty())
    }

    /// Has lines of a client wait, at the end or, if they waited already, in their place.
    pub(super) fn put_off(&mut self, id: ConnectionId, lines: &str, number: usize, is_new: bool, out: &mut Outbox) {
        let waiting = Waiting { id, lines: lines.into(), number };
        self.answers.waiting_bytes += lines.len();
        match is_new {
            true => self.answers.waiting.push_back(waiting),
            false => self.answers.waiting.push_front(waiting),
        }
        out.pause(id);
        out.tick_by(out.now());
    }

    /// Goes on with those that wait.
    pub(in crate::pubsub) fn give_answers(&mut self, out: &mut Outbox) {
        while !self.answers.waiting.is_empty() {
            if self.answers.is_over(out.now()) {
                return out.tick_by(out.now());
            }
            let Some(Waiting { id, lines, number }) = self.answers.take_next() else { return };
            let client = self.engine.clients.get(id.index).map(|client| client.id);
            let newcomer = self.waiting.get(&id.index).map(|newcomer| newcomer.id);
            // It may have gone meanwhile.
            if client.or(newcomer) == Some(id) {
                out.resume(id);
                out.act_for(Some(id));
                self.hear_lines(id, &lines, number, false, out);
                out.act_for(None);
            }
        }
    }

    /// Counts a long answer: as further commands of the client, and as a part of what this pass gives.
    pub(super) fn charge_answer(&mut self, id: ConnectionId, bytes: usize, out: &Outbox) {
        self.answers.begin_pass(out.now());
        self.answers.given += bytes;
        self.charge(id, bytes / COMMAND_BYTES, out);
    }

    /// Sends an answer of which the client's own part comes first. What follows is the same for all of this key in this pass, and
    /// is stored once. Returns the length.
    pub(super) fn share(
        &mut self,
        id: ConnectionId,
        key: String,
        own: &str,
        common: [&str; 3],
        out: &mut Outbox,
    ) -> usize {
        self.answers.begin_pass(out.now());
        let (text, shared) =
            self.answers.by_key.entry(key).or_insert_with(|| (common.concat().into(), Shared::default()));
        out.send_headed(id, Kind::Text, own.as_bytes(), text.as_bytes(), shared);
        own.len() + text.len()
    }
}
