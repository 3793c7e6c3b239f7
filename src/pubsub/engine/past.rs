//! The kept history of channels, for any reader: from the engine's own streams, or from shared ones.

use super::{Engine, Position};
use crate::outbox::Outbox;
use crate::pubsub::codes::Error;
use crate::pubsub::rules::Namespace;
use crate::pubsub::streams::{Filter, Missed, Most};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// The most bytes of answers kept for other clients that recover in the same pass.
const ANSWERS_BYTES: usize = 8 << 20;

/// The position of the channel, and what was published since, if it is complete.
type Answer = (Position, Option<Rc<str>>);

/// The answers to clients that recovered in this pass, by channel and offset.
#[derive(Default)]
pub(super) struct Answers {
    pass: Duration,
    by_position: HashMap<(Rc<str>, u64), Answer>,
    bytes: usize,
    /// When the files were last searched for a position that is unknown here.
    looked: Option<Duration>,
}

impl Engine {
    /// The position of a channel with history. It has a stream from then on.
    ///
    /// # Errors
    /// When the history is unavailable now.
    pub fn top(&mut self, channel: &str, rules: Namespace, out: &mut Outbox) -> Result<Position, Error> {
        let Some(replica) = &mut self.replica else { return Ok(self.streams.top(channel, rules.keep, out.now())) };
        let now = replica.now();
        let ledger = replica.known()?;
        ledger.streams.expire(now);
        let position = ledger.position(channel);
        self.open(channel, rules, out);
        Ok(position)
    }

    /// What a recovering client missed, shared by all that recover from there in one pass.
    pub(super) fn missed(
        &mut self,
        channel: &str,
        (offset, epoch): (u64, &str),
        rules: Namespace,
        out: &mut Outbox,
    ) -> Result<Answer, Error> {
        let mut top = self.top(channel, rules, out)?;
        let is_same = |top: Position| epoch.is_empty() || epoch == top.epoch.as_str();
        if (!is_same(top) || offset > top.offset) && self.answers.looked != Some(out.now()) {
            // Another process may have announced it already.
            self.answers.looked = Some(out.now());
            self.look(out);
            top = self.top(channel, rules, out)?;
        }
        if !is_same(top) {
            return Ok((top, None));
        }
        let now = out.now();
        if self.answers.pass != now || self.answers.bytes > ANSWERS_BYTES {
            self.answers = Answers { pass: now, looked: self.answers.looked, ..Answers::default() };
        }
        let key = (channel.into(), offset);
        if let Some((_, publications)) = self.answers.by_position.get(&key).filter(|(position, _)| *position == top) {
            return Ok((top, publications.clone()));
        }
        let most = self.rules.limits.recovery;
        let Missed { top, publications } = match &mut self.replica {
            Some(replica) => replica.known()?.streams.since_top(top, channel, (offset, epoch), most),
            None => self.streams.since(channel, (offset, epoch), most, rules.keep, now),
        };
        let joined: Option<Rc<str>> = publications.map(|publications| publications.join(",").into());
        self.answers.bytes += key.0.len() + joined.as_ref().map_or(0, |joined| joined.len());
        self.answers.by_position.insert(key, (top, joined.clone()));
        Ok((top, joined))
    }

    /// A part of a channel's history.
    ///
    /// # Errors
    /// When it begins at a position that the channel never had, or the history is unavailable now.
    pub fn history(
        &mut self,
        channel: &str,
        rules: Namespace,
        since: Option<(u64, &str)>,
        (reverse, publications): (bool, usize),
        out: &mut Outbox,
    ) -> Result<(Position, Vec<Rc<str>>), Error> {
        let top = self.top(channel, rules, out)?;
        if since.is_some_and(|(offset, epoch)| {
            (!epoch.is_empty() && epoch != top.epoch.as_str()) || (offset > top.offset && !reverse)
        }) {
            return Err(Error::UnrecoverablePosition);
        }
        let filter = Filter { since: since.map(|(offset, _)| offset), reverse };
        let most = Most { publications, bytes: self.rules.limits.recovery.bytes };
        match &mut self.replica {
            Some(replica) => Ok((top, replica.known()?.streams.part_of(top, channel, filter, most))),
            None => Ok(self.streams.read(channel, filter, most, rules.keep, out.now())),
        }
    }

    /// Drops expired history, and continues to read what is missing.
    pub(super) fn expire_streams(&mut self, now: Duration, out: &mut Outbox) {
        match &mut self.replica {
            Some(replica) => {
                replica.expire(now);
                self.catch_up(out);
                self.give_up(now, out);
                self.tell_losses(now, out);
            }
            None => self.streams.expire(now),
        }
    }

    /// When [`Engine::expire_streams`] has something to do.
    pub(super) fn streams_due(&self) -> Option<Duration> {
        match &self.replica {
            Some(replica) => [replica.next_deadline(), replica.too_old_at()].into_iter().flatten().min(),
            None => self.streams.next_deadline(),
        }
    }
}
