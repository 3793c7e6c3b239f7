//! A worker's copy of a shared history: it holds all streams, built from the keeper's announcements or from the files,
//! and sends the keeper what the worker publishes.
//!
//! An announcement that continues the known log is applied; one that is already known is skipped. After a gap, because
//! the ring was lapped or the keeper was replaced, the missing part comes from the files. The files hold everything
//! that is announced, so there is no third case, unless the log is another one or its beginning is gone: then it is
//! read anew.
//!
//! The worker sends no more at a time than the keeper can receive without being lapped; the rest waits its turn.
//!
//! Invariants: `pending` holds the questions whose outcome is unknown. Each of them ends: in the log, by a refusal, or
//! by a timeout. Those before `unsent` have been sent.

use super::ask::{self, ASKS, Ask, Head};
use super::entry::{self, By, Entry, Found};
use super::keeper::OLDEST;
use super::ledger::Ledger;
use super::word::Word;
use crate::pubsub::codes::Error;
use crate::pubsub::streams::{Keep, Part, Position};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// How long the keeper may need to announce what it accepted at the last moment.
const GRACE: Duration = Duration::from_millis(150);
/// The most bytes of waiting questions.
const MOST_PENDING: usize = 16 << 20;
/// The most bytes read from the files at a time, and in a pass.
const READ_BYTES: usize = 1 << 20;
const PASS_BYTES: usize = 8 << 20;
/// How often to look for a log that was missing.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often to try to read the log from its beginning.
const ATTEMPTS: usize = 3;
/// The number of channels remembered as announced to the keeper.
const MOST_OPENED: usize = 100_000;

/// Reads the log's files at a position, or at their beginning: returns that position and at most this many bytes, none
/// at the end. `None` when the position is gone.
pub type Read = Box<dyn FnMut(Option<u64>, usize) -> io::Result<Option<(u64, Vec<u8>)>>>;

/// A replica's access to the outside world.
pub struct Outside {
    /// Reads the files.
    pub read: Read,
    /// The monotonic clock of the host.
    pub monotonic: Box<dyn Fn() -> Duration>,
    /// The difference between that clock and the clock for history: Unix time without its steps.
    pub offset: Duration,
    /// The host.
    pub host: u64,
    /// This worker's number, chosen at random.
    pub origin: u64,
}

/// An event for the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// A publication got its number.
    Numbered(Rc<str>, Position, Rc<str>),
    /// A channel that has a stream is now at this position.
    Stands(Rc<str>, Position),
    /// The outcome of a question.
    Settled(u64, Result<Position, Error>),
    /// Any stream may have changed.
    Reloaded,
}

struct Pending {
    ask: Vec<u8>,
    since: Duration,
    /// Whether it was repeated. Then a refusal may come from an earlier keeper, and another may accept it: only the
    /// timeout ends it.
    is_repeated: bool,
}

/// See the module.
pub struct Replica {
    outside: Outside,
    ledger: Ledger,
    max_bytes: usize,
    is_loaded: bool,
    /// The known end of the log.
    told: u64,
    sequence: u64,
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    /// The first question not sent yet, and the bytes of those sent.
    unsent: u64,
    sent_bytes: usize,
    /// When the keeper last heard that a channel is in use.
    opened: HashMap<Rc<str>, Duration>,
    look_at: Duration,
    /// The difference between the process clock and the clock for history.
    began: Duration,
    /// The number of reads from the files.
    pub refills: u64,
    /// The number of questions that failed.
    pub failed: u64,
}

impl Replica {
    /// An empty replica. A single stream takes at most about `max_bytes`; the keeper bounds all of them together.
    pub fn new(outside: Outside, max_bytes: usize) -> Replica {
        Replica {
            outside,
            ledger: Ledger::new(Part::Follows, max_bytes),
            max_bytes,
            is_loaded: false,
            told: 0,
            sequence: 1,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            unsent: 1,
            sent_bytes: 0,
            opened: HashMap::new(),
            look_at: Duration::ZERO,
            began: Duration::ZERO,
            refills: 0,
            failed: 0,
        }
    }

    /// The streams, as far as they are known.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// The same, if there is a log.
    ///
    /// # Errors
    /// When there is no log, or it is not read yet: a short-lived state.
    pub fn known(&mut self) -> Result<&mut Ledger, Error> {
        if self.is_loaded { Ok(&mut self.ledger) } else { Err(Error::Unavailable) }
    }

    /// The time on the clock for history.
    pub fn now(&self) -> Duration {
        (self.outside.monotonic)() + self.outside.offset
    }

    /// Drops whatever has expired at a time of the process.
    pub fn expire(&mut self, now: Duration) {
        let kept = self.now();
        self.began = kept.saturating_sub(now);
        self.ledger.streams.expire(kept);
    }

    /// The time of the next expiry, by the clock of the process.
    pub fn too_old_at(&self) -> Option<Duration> {
        let at = self.ledger.streams.next_deadline().filter(|at| *at < Duration::MAX)?;
        Some(at.saturating_sub(self.began))
    }

    /// The number of waiting questions.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The bytes of waiting questions.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Asks for a publication. Returns the number of the question.
    ///
    /// # Errors
    /// When it is longer than `limit`, or too many wait.
    pub fn publish(
        &mut self,
        channel: &str,
        keep: Keep,
        (key, body): (&str, &str),
        (now, limit): (Duration, usize),
    ) -> Result<u64, Error> {
        self.ask((now, limit), |head| Ask::Publish { head, channel, keep, key, body }.bytes())
    }

    /// Asks to drop the publications of a channel.
    ///
    /// # Errors
    /// When too many wait.
    pub fn empty(&mut self, channel: &str, at: (Duration, usize)) -> Result<u64, Error> {
        self.ask(at, |head| Ask::Empty { head, channel }.bytes())
    }

    fn ask(&mut self, (now, limit): (Duration, usize), ask: impl FnOnce(Head) -> Vec<u8>) -> Result<u64, Error> {
        if self.pending_bytes > MOST_PENDING {
            return Err(Error::Unavailable);
        }
        let sequence = self.sequence;
        let (host, at, by) =
            (self.outside.host, (self.outside.monotonic)(), By { origin: self.outside.origin, sequence });
        let ask = ask(Head { host, at, by, base: sequence });
        if ask.len() + ASKS.len() > limit {
            return Err(Error::LimitExceeded);
        }
        self.sequence += 1;
        self.pending_bytes += ask.len();
        self.pending.insert(sequence, Pending { ask, since: now, is_repeated: false });
        Ok(sequence)
    }

    /// The next question to send, with about `most` bytes in flight at once.
    pub fn next_ask(&mut self, most: usize) -> Option<&[u8]> {
        let base = *self.pending.first_key_value()?.0;
        if self.sent_bytes > 0 && self.sent_bytes >= most {
            return None;
        }
        let (&sequence, pending) = self.pending.range_mut(self.unsent..).next()?;
        self.unsent = sequence + 1;
        self.sent_bytes += pending.ask.len();
        ask::rebase(&mut pending.ask, base);
        Some(&pending.ask)
    }

    fn forget(&mut self, sequence: u64) -> bool {
        let Some(pending) = self.pending.remove(&sequence) else { return false };
        self.pending_bytes -= pending.ask.len();
        if sequence < self.unsent {
            self.sent_bytes -= pending.ask.len();
        }
        true
    }

    /// A channel is in use: returns the message for the keeper, unless it heard the same recently.
    pub fn open(&mut self, channel: &str, keep: Keep) -> Option<Vec<u8>> {
        let now = self.now();
        let is_known = self.ledger.streams.position(channel).is_some();
        // An unconfirmed message may have been lost.
        let again = if is_known { keep.meta_ttl / 8 } else { OLDEST };
        if self.opened.get(channel).is_some_and(|at| *at + again > now) {
            return None;
        }
        if self.opened.len() >= MOST_OPENED {
            self.opened.clear();
        }
        self.opened.insert(channel.into(), now);
        let Ledger { log, removals, .. } = self.ledger;
        let position = self.ledger.position(channel);
        Some(Ask::Open { channel, position, removals, log, keep }.bytes())
    }

    /// Sends all sent questions again.
    pub fn ask_again(&mut self) {
        for pending in self.pending.range_mut(..self.unsent).map(|(_, pending)| pending) {
            pending.is_repeated = true;
        }
        (self.unsent, self.sent_bytes) = (0, 0);
    }

    /// The deadline of the first question.
    pub fn next_deadline(&self) -> Option<Duration> {
        let due = self.pending.values().next().map(|pending| pending.since + OLDEST + GRACE);
        let look = (!self.is_loaded).then_some(self.look_at);
        [due, look].into_iter().flatten().min()
    }

    /// Whether a question has timed out: its outcome may still be in the files.
    pub fn is_overdue(&self, now: Duration) -> bool {
        self.pending.values().next().is_some_and(|pending| pending.since + OLDEST + GRACE <= now)
    }

    /// Gives up questions that have timed out.
    pub fn give_up(&mut self, now: Duration, news: &mut Vec<News>) {
        while self.is_overdue(now)
            && let Some((&sequence, _)) = self.pending.first_key_value()
        {
            self.settle(sequence, Err(Error::Unavailable), news);
        }
    }

    fn settle(&mut self, sequence: u64, result: Result<Position, Error>, news: &mut Vec<News>) {
        if self.forget(sequence) {
            self.failed += u64::from(result.is_err());
            news.push(News::Settled(sequence, result));
        }
    }

    /// Handles a message of the keeper. Returns whether the keeper may have missed something, so that waiting
    /// questions have to be repeated.
    pub fn hear(&mut self, word: &Word<'_>, news: &mut Vec<News>) -> bool {
        if let Some((log, end)) = word.end() {
            if log != self.ledger.log {
                (self.is_loaded, self.look_at) = (false, Duration::ZERO);
                return matches!(word, Word::Hello { .. });
            }
            self.told = self.told.max(end);
        }
        let of_us = |by: &By| by.origin == self.outside.origin;
        match word {
            Word::Entry { begin, payload, .. } if self.is_loaded && *begin == self.ledger.end => {
                self.apply(payload, true, news);
            }
            Word::Skip { begin, end, .. } if self.is_loaded && (*begin..*end).contains(&self.ledger.end) => {
                self.ledger.end = *end;
            }
            Word::Refused(by) if of_us(by) && self.pending.get(&by.sequence).is_some_and(|of| !of.is_repeated) => {
                self.settle(by.sequence, Err(Error::Unavailable), news);
            }
            Word::Known(by, position) if of_us(by) => self.settle(by.sequence, Ok(*position), news),
            _ => {}
        }
        matches!(word, Word::Hello { .. })
    }

    /// Whether the files need to be read.
    pub fn is_behind(&self, now: Duration) -> bool {
        (self.is_loaded && self.ledger.end < self.told) || (!self.is_loaded && self.look_at <= now)
    }

    fn apply(&mut self, payload: &[u8], shows: bool, news: &mut Vec<News>) {
        let end = self.ledger.end + entry::length(payload);
        let now = self.now();
        if let Some(entry) = Entry::read(payload) {
            let is_new = match &entry {
                Entry::Opened { channel, .. } => self.ledger.streams.position(channel).is_none(),
                _ => false,
            };
            self.ledger.apply(&entry, now);
            let settled = match &entry {
                Entry::Published { channel, position, by, text, .. } => {
                    if shows {
                        news.push(News::Numbered(Rc::from(*channel), *position, Rc::from(*text)));
                    }
                    Some((by, *position))
                }
                Entry::Emptied { channel, by, .. } => Some((by, self.ledger.position(channel))),
                Entry::Opened { channel, position, .. } if is_new && shows => {
                    news.push(News::Stands(Rc::from(*channel), *position));
                    None
                }
                _ => None,
            };
            if let Some((by, position)) = settled.filter(|(by, _)| by.origin == self.outside.origin) {
                self.settle(by.sequence, Ok(position), news);
            }
        }
        self.ledger.end = end;
    }

    /// Reads what is missing from the files: one part, or everything with `is_all`. Returns whether there is more.
    pub fn refill(&mut self, is_all: bool, now: Duration, news: &mut Vec<News>) -> bool {
        if !self.is_loaded {
            self.load(now, news);
            return false;
        }
        self.refills += u64::from(self.ledger.end < self.told);
        let begin = self.ledger.end;
        while is_all || self.ledger.end < self.told {
            match self.read_on(true, news) {
                Ok(Some(true)) if self.ledger.end - begin >= PASS_BYTES as u64 => return true,
                Ok(Some(true)) => {}
                Ok(Some(false)) if self.ledger.end >= self.told => return false,
                // The announced part is absent: the log is another one by now, or the position is gone.
                _ => {
                    (self.is_loaded, self.look_at) = (false, now);
                    self.load(now, news);
                    return false;
                }
            }
        }
        false
    }

    /// Reads the log from its beginning.
    fn load(&mut self, now: Duration, news: &mut Vec<News>) {
        self.look_at = now + LOOK_AGAIN;
        // Its first file may just have been removed.
        if (0..ATTEMPTS).any(|_| self.try_to_load(news)) {
            self.is_loaded = true;
            self.opened.clear();
            self.refills += 1;
            news.push(News::Reloaded);
        }
    }

    fn try_to_load(&mut self, news: &mut Vec<News>) -> bool {
        let before = self.ledger.log;
        self.ledger = Ledger::new(Part::Follows, self.max_bytes);
        let Ok(Some((begin, bytes))) = (self.outside.read)(None, READ_BYTES) else { return false };
        let Found::Whole { log, .. } = entry::find(&bytes, begin) else { return false };
        if log != before {
            self.told = 0;
        }
        (self.ledger.log, self.ledger.end) = (log, begin);
        loop {
            match self.read_on(false, news) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return self.ledger.end >= self.told,
                _ => return false,
            }
        }
    }

    /// Reads a part of the files. Returns whether there was anything; `None` when the position is gone.
    fn read_on(&mut self, shows: bool, news: &mut Vec<News>) -> io::Result<Option<bool>> {
        let mut most = READ_BYTES;
        loop {
            let begin = self.ledger.end;
            let Some((_, bytes)) = (self.outside.read)(Some(begin), most)? else { return Ok(None) };
            let mut at = 0;
            loop {
                match entry::find(&bytes[at..], begin + at as u64) {
                    Found::Whole { log, payload } if log == self.ledger.log => {
                        self.apply(payload, shows, news);
                        at += entry::HEAD_BYTES + payload.len();
                    }
                    Found::Whole { .. } => return Ok(None),
                    // Longer than one read.
                    Found::Part(length) if at == 0 && bytes.len() == most && length > most => {
                        most = length;
                        break;
                    }
                    _ => return Ok(Some(at > 0)),
                }
            }
        }
    }
}
