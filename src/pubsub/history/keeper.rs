//! The keeper's decisions: what goes into the log and what does not. It touches no file: it returns a payload to
//! write, which takes effect once it comes back through [`Keeper::apply`].
//!
//! It accepts each worker's questions in the order of their numbers. A repeated question gets the same answer as
//! before; one that arrives early, because others were lost, is left for the worker to repeat.

use super::ask::{Ask, Head};
use super::entry::{By, Entry, stream_payloads};
use super::ledger::Ledger;
use crate::pubsub::idempotency::Results;
use crate::pubsub::streams::{Epoch, Part, Position, numbered};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// A question older than this on arrival is refused: the worker has told its client, or is about to.
pub const OLDEST: Duration = Duration::from_secs(1);
/// How long the last accepted question of a worker is remembered.
const ORIGINS_KEPT: Duration = Duration::from_secs(60);
/// How long the result of a question is remembered: longer than a worker may repeat it.
pub const RECENT: Duration = Duration::from_secs(3);
/// The number of dropped streams whose time of removal is remembered.
const REMOVALS_KEPT: usize = 4096;
/// The number of results kept by idempotency key.
const KEYS: usize = 100_000;

/// The outcome of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Ignored: out of turn.
    Pass,
    /// Too old, or refused before.
    Refuse(By),
    /// Already in the log, or asked before.
    Known(By, Position),
    /// Write this payload.
    Write(Vec<u8>, By),
    /// Announce where the log ends.
    Greet,
}

/// A moment on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// By the monotonic clock of the host.
    pub monotonic: Duration,
    /// The clock for history: Unix time without its steps.
    pub kept: Duration,
}

/// See the module.
pub struct Keeper {
    ledger: Ledger,
    host: u64,
    /// The last accepted number of each worker, and when.
    origins: HashMap<u64, (u64, Duration)>,
    /// The results of recent questions; `None` for a refusal.
    recent: HashMap<By, Option<Position>>,
    recent_ends: VecDeque<(Duration, By)>,
    results: Results,
    /// Recently dropped streams, each with the removal count at that point.
    removed: HashMap<Rc<str>, u64>,
    removals: VecDeque<(u64, Rc<str>)>,
    /// The position from which each stream is complete in the log.
    bases: BTreeMap<u64, Rc<str>>,
    base_of: HashMap<Rc<str>, u64>,
    /// A rewritten stream that is being read: its name, oldest offset and first position.
    written_anew: Option<(Rc<str>, u64, u64)>,
    /// Entries that announce dropped streams.
    unwritten: VecDeque<Vec<u8>>,
}

impl Keeper {
    /// A keeper for a host, about to read or write a log.
    pub fn new(host: u64) -> Keeper {
        Keeper {
            ledger: Ledger::new(Part::Follows, usize::MAX / 2),
            host,
            origins: HashMap::new(),
            recent: HashMap::new(),
            recent_ends: VecDeque::new(),
            results: Results::new(KEYS),
            removed: HashMap::new(),
            removals: VecDeque::new(),
            bases: BTreeMap::new(),
            base_of: HashMap::new(),
            written_anew: None,
            unwritten: VecDeque::new(),
        }
    }

    /// The state that the log adds up to.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Everything read belongs to that log, which continues.
    pub fn follow(&mut self, log: u64) {
        self.ledger.log = log;
    }

    /// Another log continues with the same publications under new epochs, as some may be missing.
    pub fn begin_log(&mut self, log: u64) {
        self.ledger.log = log;
        let names: Vec<Rc<str>> = self.ledger.streams.names().cloned().collect();
        for name in names {
            self.ledger.streams.renew(&name, Epoch::derived(log, self.ledger.removals, &name));
        }
        // Keeps later streams from getting a current epoch.
        self.ledger.removals += 1;
        (self.bases, self.base_of) = (BTreeMap::new(), HashMap::new());
        self.results = Results::new(KEYS);
    }

    /// The whole log is read: makes decisions from now on. Streams take at most `max_bytes`.
    pub fn lead(&mut self, max_bytes: usize, now: Duration) {
        self.ledger.streams.lead(max_bytes, now);
        self.tell_dropped();
    }

    /// Applies an entry of the log at a position.
    pub fn apply(&mut self, payload: &[u8], begin: u64, now: Duration) {
        let Some(entry) = Entry::read(payload) else { return };
        let before = channel_of(&entry).and_then(|channel| self.ledger.streams.position(channel));
        match &entry {
            Entry::Head { origins, .. } => origins.iter().for_each(|by| self.took(*by, now)),
            Entry::Published { channel, position, by, key, at, .. } => {
                self.took(*by, *at);
                self.remember(*by, Some(*position), (*at, now));
                if !key.is_empty() {
                    self.results.keep(channel, key, Some(*position), *at);
                }
            }
            Entry::Emptied { channel, by, at } => {
                self.took(*by, *at);
                self.remember(*by, Some(self.ledger.position(channel)), (*at, now));
            }
            Entry::Removed { channel } => self.note_removed(channel),
            _ => {}
        }
        self.ledger.apply(&entry, now);
        self.ledger.end = begin + super::entry::length(payload);
        if let Some(channel) = channel_of(&entry)
            && before.map(|before| before.epoch) != self.ledger.streams.position(channel).map(|now| now.epoch)
        {
            self.set_base(channel, begin);
        }
        // A rewritten stream is complete there once its oldest publication has arrived.
        match entry {
            Entry::Stream { channel, first, top, .. } if first > top.offset => self.set_base(channel, begin),
            Entry::Stream { channel, first, .. } => self.written_anew = Some((channel.into(), first, begin)),
            Entry::More { channel, first, .. } => {
                let is_whole = |(name, oldest, _): &mut (Rc<str>, u64, u64)| **name == *channel && *oldest == first;
                if let Some((name, _, base)) = self.written_anew.take_if(is_whole) {
                    self.set_base(&name, base);
                }
            }
            _ => {}
        }
        self.tell_dropped();
    }

    /// A stream was rewritten from this position on.
    pub fn moved(&mut self, channel: &str, begin: u64) {
        self.set_base(channel, begin);
    }

    /// Notes the position from which a stream, if it exists, is complete in the log.
    fn set_base(&mut self, channel: &str, base: u64) {
        if let Some(before) = self.base_of.remove(channel) {
            self.bases.remove(&before);
        }
        if self.ledger.streams.position(channel).is_some() {
            let name: Rc<str> = channel.into();
            self.base_of.insert(Rc::clone(&name), base);
            self.bases.insert(base, name);
        }
    }

    fn took(&mut self, By { origin, sequence }: By, at: Duration) {
        if origin != 0 {
            let last = self.origins.entry(origin).or_insert((sequence, at));
            *last = (last.0.max(sequence), last.1.max(at));
        }
    }

    fn remember(&mut self, by: By, result: Option<Position>, (at, now): (Duration, Duration)) {
        if by.origin != 0 && at + RECENT > now && self.recent.insert(by, result).is_none() {
            self.recent_ends.push_back((now + RECENT, by));
        }
        while let Some((end, by)) = self.recent_ends.front().copied()
            && end <= now
        {
            self.recent_ends.pop_front();
            self.recent.remove(&by);
        }
    }

    fn note_removed(&mut self, channel: &str) {
        let (name, count): (Rc<str>, u64) = (channel.into(), self.ledger.removals + 1);
        self.removed.insert(Rc::clone(&name), count);
        self.removals.push_back((count, name));
        if self.removals.len() > REMOVALS_KEPT
            && let Some((count, name)) = self.removals.pop_front()
            && self.removed.get(&name) == Some(&count)
        {
            self.removed.remove(&name);
        }
    }

    /// Queues entries for dropped streams.
    fn tell_dropped(&mut self) {
        for name in self.ledger.streams.take_dropped() {
            self.unwritten.push_back(Entry::Removed { channel: &name }.payload());
        }
    }

    /// The next entry to write before anything else.
    pub fn unwritten(&self) -> Option<&[u8]> {
        self.unwritten.front().map(Vec::as_slice)
    }

    /// That entry is written.
    pub fn wrote(&mut self, begin: u64, now: Duration) {
        if let Some(payload) = self.unwritten.pop_front() {
            self.apply(&payload, begin, now);
        }
    }

    /// Drops whatever has expired.
    pub fn expire(&mut self, now: Duration) {
        self.ledger.streams.expire(now);
        self.origins.retain(|_, (_, at)| *at + ORIGINS_KEPT > now);
        self.tell_dropped();
    }

    /// Decides a question. A payload to write goes to [`Keeper::apply`] once it is written.
    pub fn consider(&mut self, ask: &Ask<'_>, now: Moment) -> Verdict {
        match *ask {
            Ask::Publish { head, channel, keep, key, body } => {
                if let Some(verdict) = self.turn_down(&head, now) {
                    return verdict;
                }
                if !key.is_empty()
                    && let Some(Some(position)) = self.results.find(channel, key, now.kept)
                {
                    self.took(head.by, now.kept);
                    self.remember(head.by, Some(position), (now.kept, now.kept));
                    return Verdict::Known(head.by, position);
                }
                let top = self.ledger.position(channel);
                let position = Position { offset: top.offset + 1, ..top };
                let text = numbered(body, position.offset);
                let entry = Entry::Published { channel, position, at: now.kept, by: head.by, keep, key, text: &text };
                Verdict::Write(entry.payload(), head.by)
            }
            Ask::Empty { head, channel } => {
                if let Some(verdict) = self.turn_down(&head, now) {
                    return verdict;
                }
                Verdict::Write(Entry::Emptied { channel, at: now.kept, by: head.by }.payload(), head.by)
            }
            // From another host, or from a worker that is about to read this log.
            Ask::Open { log, .. } if log != self.ledger.log => Verdict::Pass,
            Ask::Open { channel, position, removals, keep, .. } => {
                let position = match self.ledger.streams.position(channel) {
                    Some(top) => top,
                    None if self.may_be(channel, position.epoch, removals) => Position { offset: 0, ..position },
                    None => self.ledger.position(channel),
                };
                Verdict::Write(Entry::Opened { channel, position, at: now.kept, keep }.payload(), By::default())
            }
            Ask::Greet => Verdict::Greet,
        }
    }

    /// Why a question is not carried out: it is out of turn, a repeat or too old.
    fn turn_down(&mut self, head: &Head, now: Moment) -> Option<Verdict> {
        if !self.is_next(head) {
            return Some(match self.recent.get(&head.by) {
                Some(Some(position)) => Verdict::Known(head.by, *position),
                Some(None) => Verdict::Refuse(head.by),
                None => Verdict::Pass,
            });
        }
        self.is_too_old(head, now).then(|| {
            self.refused(head.by, now.kept);
            Verdict::Refuse(head.by)
        })
    }

    /// Whether an epoch announced for a channel cannot belong to an earlier stream of it.
    fn may_be(&self, channel: &str, epoch: Epoch, removals: u64) -> bool {
        let known_from = match self.removals.front() {
            Some((count, _)) => count - 1,
            None => self.ledger.removals,
        };
        (known_from..=self.ledger.removals).contains(&removals)
            && self.removed.get(channel).is_none_or(|count| removals >= *count)
            && epoch == Epoch::derived(self.ledger.log, removals, channel)
    }

    /// Whether this is the worker's next question. Questions from other hosts may have lost others on the way.
    fn is_next(&self, head: &Head) -> bool {
        let By { origin, sequence } = head.by;
        let last = self.origins.get(&origin).map(|(last, _)| *last);
        if head.host != self.host {
            return last.is_none_or(|last| sequence > last);
        }
        let next = last.map_or(0, |last| last + 1).max(head.base);
        sequence == next
    }

    fn is_too_old(&self, head: &Head, now: Moment) -> bool {
        head.host == self.host && now.monotonic > head.at + OLDEST
    }

    /// The write failed, and the question will not be repeated.
    pub fn refused(&mut self, by: By, now: Duration) {
        self.took(by, now);
        self.remember(by, None, (now, now));
    }

    /// The first entry of a log file.
    pub fn head(&self) -> Vec<u8> {
        let origins = self.origins.iter().map(|(&origin, &(sequence, _))| By { origin, sequence }).collect();
        Entry::Head { removals: self.ledger.removals, origins }.payload()
    }

    /// The payloads of a stream that needs the log before a position to be complete.
    pub fn stream_before(&self, position: u64) -> Option<(Rc<str>, Vec<Vec<u8>>)> {
        let (_, name) = self.bases.first_key_value().filter(|(base, _)| **base < position)?;
        Some((Rc::clone(name), self.payloads_of(name)))
    }

    /// The names of all streams.
    pub fn names(&self) -> Vec<Rc<str>> {
        self.ledger.streams.names().cloned().collect()
    }

    /// The payloads of a stream; none if it does not exist.
    pub fn payloads_of(&self, channel: &str) -> Vec<Vec<u8>> {
        self.ledger.streams.snapshot(channel).map_or(Vec::new(), |snapshot| stream_payloads(channel, &snapshot))
    }
}

/// The channel whose stream an entry may begin or end.
fn channel_of<'a>(entry: &Entry<'a>) -> Option<&'a str> {
    match entry {
        Entry::Published { channel, .. }
        | Entry::Opened { channel, .. }
        | Entry::Removed { channel }
        | Entry::Stream { channel, .. } => Some(channel),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
