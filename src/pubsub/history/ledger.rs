//! What the entries of a log come to, whoever reads them: streams, and how many were given up.

use super::entry::Entry;
use crate::pubsub::streams::{Epoch, Part, Position, Streams};
use std::rc::Rc;
use std::time::Duration;

/// The streams of a log up to a position.
pub struct Ledger {
    /// Which log; 0 before any is known.
    pub log: u64,
    /// Up to where it is read.
    pub end: u64,
    /// Streams that were given up.
    pub removals: u64,
    /// The others.
    pub streams: Streams,
}

impl Ledger {
    /// Before any log. Streams of one that leads take at most `max_bytes`; of one that follows, a single stream does.
    pub fn new(part: Part, max_bytes: usize) -> Ledger {
        // What follows hears a little later which stream has to go.
        let bytes = if part == Part::Follows { max_bytes + max_bytes / 8 } else { max_bytes };
        Ledger { log: 0, end: 0, removals: 0, streams: Streams::new(bytes, [0; 32]).for_part(part) }
    }

    /// Where a channel stands, whether it has a stream or not.
    pub fn position(&self, channel: &str) -> Position {
        let untouched = || Position { offset: 0, epoch: Epoch::derived(self.log, self.removals, channel) };
        self.streams.position(channel).unwrap_or_else(untouched)
    }

    /// Takes an entry.
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
