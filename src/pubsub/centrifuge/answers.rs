//! Long answers: an answer that is the same for several clients is stored once for all, and each pass of the loop
//! sends a limited amount, so that a storm of returning clients leaves time for new publications.
//!
//! A client whose long answer must wait is not read from until then, and the rest of its message waits too, so that
//! its commands are answered in order.

use super::costs::COMMAND_BYTES;
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::outbox::shared::Shared;
use crate::protocol::message::Kind;
use crate::pubsub::app::Channels;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// The bytes of long answers after which a pass sends no more.
const PASS_BYTES: usize = 1 << 20;

/// Commands that wait for a later pass.
struct Waiting {
    id: ConnectionId,
    /// The lines, and the number of lines of the same message before them.
    lines: Box<str>,
    number: usize,
}

/// The long answers of a pass, and those that wait for the next.
#[derive(Default)]
pub struct LongAnswers {
    pass: Duration,
    /// The bytes of answers in this pass, counted once per client.
    given: usize,
    /// The shared parts of this pass.
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

    /// Whether this pass has sent enough.
    fn is_over(&mut self, now: Duration) -> bool {
        self.begin_pass(now);
        self.given >= PASS_BYTES
    }

    /// The bytes of waiting commands.
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
    /// Whether a command with a long answer must wait: this pass has sent enough, or others wait already.
    pub(super) fn is_to_wait(&mut self, is_new: bool, now: Duration) -> bool {
        self.answers.is_over(now) || (is_new && !self.answers.waiting.is_empty())
    }

    /// Makes lines of a client wait, at the end of the queue or, if they waited already, in their place.
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

    /// Continues with those that wait.
    pub(in crate::pubsub) fn give_answers(&mut self, out: &mut Outbox) {
        while !self.answers.waiting.is_empty() {
            if self.answers.is_over(out.now()) {
                return out.tick_by(out.now());
            }
            let Some(Waiting { id, lines, number }) = self.answers.take_next() else { return };
            let client = self.engine.clients.get(id.index).map(|client| client.id);
            let newcomer = self.waiting.get(&id.index).map(|newcomer| newcomer.id);
            // The client may be gone by now.
            if client.or(newcomer) == Some(id) {
                out.resume(id);
                out.act_for(Some(id));
                self.hear_lines(id, &lines, number, false, out);
                out.act_for(None);
            }
        }
    }

    /// Charges a long answer to the client as further commands, and to this pass.
    pub(super) fn charge_answer(&mut self, id: ConnectionId, bytes: usize, out: &Outbox) {
        self.answers.begin_pass(out.now());
        self.answers.given += bytes;
        self.charge(id, bytes / COMMAND_BYTES, out);
    }

    /// Sends an answer that begins with the client's own part. The rest is the same for all with this key in this
    /// pass, and is stored once. Returns the length.
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
