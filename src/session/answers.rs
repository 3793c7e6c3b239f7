//! Requests whose answer the app has deferred: they wait here, with the bytes that follow them, until the answer is
//! given, the client is gone, or the deadline passes.
//!
//! Invariant: a waiting connection has a debt in the outbox, its lane is held, and `on_open` is called for each upgrade
//! for which `accept_upgrade` returned true.

use super::handshake::Answered;
use super::{Head, Phase, Sessions};
use crate::app::{App, Error};
use crate::outbox::answers::{Answer, Upgrade};
use crate::protocol::close::CloseReason;
use crate::protocol::http::{BadRequest, MAX_HEADERS, Response};
use crate::protocol::upgrade;

impl<A: App> Sessions<A> {
    /// Records that the app owes the answer to the request with this head. `has_unread`: its content is left unread.
    pub(super) fn owe(&mut self, key: u32, head: &[u8], has_unread: bool) -> Answered {
        self.put_head(key, Box::new(Head { bytes: head.to_vec(), has_unread, ..Head::default() }));
        let session = &mut self.slab[key as usize];
        session.phase = Phase::Awaiting;
        if self.outbox.debts.is_upgrade(key) {
            self.tally.reserve(session.place);
        }
        self.outbox.queue.lane_at(key).held = true;
        self.wheel.arm(key, self.now + self.settings.answer_timeout);
        Answered::Owed
    }

    /// Sends the answer that the app owed, if it has given one.
    pub(super) fn answered(&mut self, key: u32) {
        let is_awaiting = self.slab.get(key as usize).is_some_and(|session| session.phase == Phase::Awaiting);
        if is_awaiting && let Some(answer) = self.outbox.debts.take_answer(key) {
            self.pay(key, answer);
        }
    }

    /// The app did not answer in time.
    pub(super) fn answer_expired(&mut self, key: u32) {
        let given = self.outbox.debts.take_answer(key);
        self.outbox.debts.forget(key);
        let late = || Answer::Response(Response::text(504, "The answer did not come in time."));
        // The app may have answered just now, while another connection's deadline was handled.
        self.pay(key, given.unwrap_or_else(late));
    }

    /// The peer has shut down its sending side, seen although nothing is read; `is_gone` if it no longer reads either.
    pub fn peer_shut(&mut self, key: u32, is_gone: bool) {
        let is_awaiting = self.slab.get(key as usize).is_some_and(|session| session.phase == Phase::Awaiting);
        if is_awaiting && (is_gone || self.outbox.debts.is_upgrade(key)) {
            self.break_off(key, Error::UnexpectedEof);
        }
    }

    /// Acts on an answer.
    fn pay(&mut self, key: u32, answer: Answer) {
        let Some(head) = self.take_head(key) else { return };
        let session = &mut self.slab[key as usize];
        session.phase = Phase::Http;
        self.tally.release(session.place);
        let id = self.id(key);
        self.outbox.release_hold(id);
        let answered = self.give(key, &head, answer);
        // The driver reads or resumes what comes next in a turn of its own.
        match answered {
            Ok(Answered::Upgraded) => {}
            answered => {
                self.after_answer(key, answered);
            }
        }
    }

    fn give(&mut self, key: u32, head: &Head, answer: Answer) -> Result<Answered, BadRequest> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = self.read_head(key, &head.bytes, &mut headers)?;
        let Upgrade { tag, subprotocol, headers: own } = match answer {
            Answer::Response(response) => return Ok(self.finish(key, &response, &request, head.has_unread)),
            Answer::Upgrade(upgrade) => upgrade,
        };
        // The same rules accepted it before.
        let mut accepted = match upgrade::accept(&request, &self.settings.upgrade, &self.settings.deflate) {
            Ok(accepted) => accepted,
            Err(response) => return Ok(self.finish(key, &response, &request, head.has_unread)),
        };
        if let Some(name) = subprotocol {
            accepted.subprotocol = request.subprotocols().find(|offered| *offered == name);
        }
        (request.subprotocol, request.tag) = (accepted.subprotocol, tag);
        let encoded = accepted.encode_with(&own);
        self.open(key, &request, &encoded, accepted.deflate);
        // The drain closed only the connections that were open when it began.
        if self.draining {
            self.send_away(key);
        }
        Ok(Answered::Upgraded)
    }

    /// Ends a connection that the app owes an answer. An upgrade that was already accepted opens and closes.
    pub(super) fn cancel_debt(&mut self, key: u32) {
        if self.outbox.debts.is_accepted(key) {
            self.answered(key);
        }
        self.outbox.debts.forget(key);
        if self.slab[key as usize].state.is_some() {
            self.closed(key, CloseReason::abnormal("the client left before its upgrade was answered"));
        }
    }
}
