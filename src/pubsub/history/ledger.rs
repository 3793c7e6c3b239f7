//! The state that a log's entries add up to, for any reader: the streams, and the number of dropped ones.

use super::entry::Entry;
use crate::pubsub::streams::{Epoch, Part, Position, Streams};
use std::rc::Rc;
use std::time::Duration;

/// The streams of a log up to a position.
pub struct Ledger {
    /// The log; 0 while none is known.
    pub log: u64,
    /// The position read so far.
    pub end: u64,
    /// The number of dropped streams.
    pub removals: u64,
    /// The streams that remain.
    pub streams: Streams,
}

impl Ledger {
    /// An empty ledger. A leader's streams take at most `max_bytes` together; a follower applies that bound to each
    /// stream.
    pub fn new(part: Part, max_bytes: usize) -> Ledger {
        // A follower learns a little later which stream to drop.
        let bytes = if part == Part::Follows { max_bytes + max_bytes / 8 } else { max_bytes };
        Ledger { log: 0, end: 0, removals: 0, streams: Streams::new(bytes, [0; 32]).for_part(part) }
    }

    /// The position of a channel, whether it has a stream or not.
    pub fn position(&self, channel: &str) -> Position {
        let untouched = || Position { offset: 0, epoch: Epoch::derived(self.log, self.removals, channel) };
        self.streams.position(channel).unwrap_or_else(untouched)
    }

    /// Applies an entry.
    pub fn apply(&mut self, entry: &Entry<'_>, now: Duration) {
        match entry {
            Entry::Head { removals, .. } => self.removals = *removals,
            Entry::Published { channel, position, at, keep, text, .. } => {
                self.streams.put(channel, *position, Rc::from(*text), *keep, (*at, now));
            }
            Entry::Opened { channel, position, at, keep } => {
                self.streams.touch(channel, position.epoch, *keep, *at);
            }
            Entry::Emptied { channel, at, .. } => self.streams.remove(channel, *at),
            Entry::Removed { channel } => {
                self.streams.end(channel);
                self.removals += 1;
            }
            Entry::Stream { channel, top, used, keep, .. } => self.streams.restore(channel, *top, *keep, *used),
            Entry::More { channel, first, publications } => {
                let publications = publications.iter().map(|(at, text)| (*at, Rc::from(*text))).collect();
                self.streams.restore_more(channel, *first, publications);
            }
            Entry::Started { .. } | Entry::Closed => {}
        }
    }
}
