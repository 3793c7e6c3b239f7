//! The keeper's decisions: what is written to the log, and what is not. It touches no file; what it is to write comes out as a payload,
//! and holds once it comes back by [`Keeper::apply`].
//!
//! Of each worker it takes what is asked in the order of the numbers: one that was taken is answered as before when it comes again, and
//! one that comes too early, because others were lost, is for the worker to ask again.

use super::ask::{Ask, Head};
use super::entry::{By, Entry, stream_payloads};
use super::ledger::Ledger;
use crate::pubsub::idempotency::Results;
use crate::pubsub::streams::{Epoch, Part, Position, numbered};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// What is older when it comes is refused: the worker has told its client, or is about to.
pub const OLDEST: Duration = Duration::from_secs(1);
/// What was taken last of a worker is known for so long after.
const ORIGINS_KEPT: Duration = Duration::from_secs(60);
/// What became of a question is known for so long after: longer than any may be asked again.
pub const RECENT: Duration = Duration::from_secs(3);
/// Streams that were given up of which it is known when.
const REMOVALS_KEPT: usize = 4096;
/// Results by idempotency key.
const KEYS: usize = 100_000;

/// What becomes of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing: it is not its turn.
    Pass,
    /// It is too old, or was refused before.
    Refuse(By),
    /// The same is there already, or was asked before.
    Known(By, Position),
    /// This is to be written.
    Write(Vec<u8>, By),
    /// It is to be told where the log ends.
    Greet,
}

/// When something comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// By the monotonic clock of the host.
    pub monotonic: Duration,
    /// For what is kept: Unix time, but for steps of the clock.
    pub kept: Duration,
}

/// See the module.
pub struct Keeper {
    ledger: Ledger,
    host: u64,
    /// What was taken last of each worker, and when.
    origins: HashMap<u64, (u64, Duration)>,
    /// What became of the last questions; `None` where they were refused.
    recent: HashMap<By, Option<Position>>,
    recent_ends: VecDeque<(Duration, By)>,
    results: Results,
    /// Streams that were given up lately, each with what the count of these came to.
    removed: HashMap<Rc<str>, u64>,
    removals: VecDeque<(u64, Rc<str>)>,
    /// Where each stream is whole in the log, from there on.
    bases: BTreeMap<u64, Rc<str>>,
    base_of: HashMap<Rc<str>, u64>,
    /// A stream that is being read as it was written anew: its name, oldest offset, and where it begins.
    written_anew: Option<(Rc<str>, u64, u64)>,
    /// Entries that tell of streams that are given up already.
    unwritten: VecDeque<Vec<u8>>,
}

impl Keeper {
    /// A keeper of a host, which begins to read a log, or to write one.
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

    /// What the log comes to.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// All of what was read is of that log, which goes on.
    pub fn follow(&mut self, log: u64) {
        self.ledger.log = log;
    }

    /// Another log goes on with the same publications, which have other epochs in it: some may be missing.
    pub fn begin_log(&mut self, log: u64) {
        self.ledger.log = log;
        let names: Vec<Rc<str>> = self.ledger.streams.names().cloned().collect();
        for name in names {
            self.ledger.streams.renew(&name, Epoch::derived(log, self.ledger.removals, &name));
        }
        // So that no stream to come has an epoch that one of these has now.
        self.ledger.removals += 1;
        (self.bases, self.base_of) = (BTreeMap::new(), HashMap::new());
        self.results = Results::new(KEYS);
    }

    /// All of the log is read: decides from now on. Streams take at most `max_bytes`.
    pub fn lead(&mut self, max_bytes: usize, now: Duration) {
        self.ledger.streams.lead(max_bytes, now);
        self.tell_dropped();
    }

    /// An entry is in the log, at a position.
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
        // A stream that was written anew is whole there once its oldest publication has come.
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

    /// A stream was written anew, from there on.
    pub fn moved(&mut self, channel: &str, begin: u64) {
        self.set_base(channel, begin);
    }

    /// A stream is whole in the log from a position on, if it is there.
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

    /// Streams were given up: that is to be written.
    fn tell_dropped(&mut self) {
        for name in self.ledger.streams.take_dropped() {
            self.unwritten.push_back(Entry::Removed { channel: &name }.payload());
        }
    }

    /// The next entry that is to be written before anything else.
    pub fn unwritten(&self) -> Option<&[u8]> {
        self.unwritten.front().map(Vec::as_slice)
    }

    /// It is written.
    pub fn wrote(&mut self, begin: u64, now: Duration) {
        if let Some(payload) = self.unwritten.pop_front() {
            self.apply(&payload, begin, now);
        }
    }

    /// Gives up what has become too old.
    pub fn expire(&mut self, now: Duration) {
        self.ledger.streams.expire(now);
        self.origins.retain(|_, (_, at)| *at + ORIGINS_KEPT > now);
        self.tell_dropped();
    }

    /// What becomes of a question. What is to be written is given to [`Keeper::apply`] once it is.
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
            // Of another host, or of a worker that is about to read this log.
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

    /// Why something is not done: it is not its turn, was asked before, or is too old.
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

    /// Whether an epoch that was told for a channel is not that of a stream that it had before.
    fn may_be(&self, channel: &str, epoch: Epoch, removals: u64) -> bool {
        let known_from = match self.removals.front() {
            Some((count, _)) => count - 1,
            None => self.ledger.removals,
        };
        (known_from..=self.ledger.removals).contains(&removals)
            && self.removed.get(channel).is_none_or(|count| removals >= *count)
            && epoch == Epoch::derived(self.ledger.log, removals, channel)
    }

    /// Whether it is the next of its worker. What comes from other hosts may have lost others on its way.
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

    /// It could not be written, and is not asked for again.
    pub fn refused(&mut self, by: By, now: Duration) {
        self.took(by, now);
        self.remember(by, None, (now, now));
    }

    /// What a file of the log begins with.
    pub fn head(&self) -> Vec<u8> {
        let origins = self.origins.iter().map(|(&origin, &(sequence, _))| By { origin, sequence }).collect();
        Entry::Head { removals: self.ledger.removals, origins }.payload()
    }

    /// The payloads of a stream that is whole in the log only with what stands before a position.
    pub fn stream_before(&self, position: u64) -> Option<(Rc<str>, Vec<Vec<u8>>)> {
        let (_, name) = self.bases.first_key_value().filter(|(base, _)| **base < position)?;
        Some((Rc::clone(name), self.payloads_of(name)))
    }

    /// The names of all streams.
    pub fn names(&self) -> Vec<Rc<str>> {
        self.ledger.streams.names().cloned().collect()
    }

    /// The payloads of a stream; none if there is none.
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
