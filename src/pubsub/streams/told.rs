//! Streams that are not alone: what they learn from a log, and what they give to one.

use super::{Epoch, Keep, Kept, Position, Streams};
use std::rc::Rc;
use std::time::Duration;

/// All of a stream.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// Its position.
    pub top: Position,
    /// How much history it keeps.
    pub keep: Keep,
    /// The time of its last use.
    pub used: Duration,
    /// The kept publications, each with its time.
    pub publications: Vec<(Duration, &'a Rc<str>)>,
}

impl Streams {
    /// The position of a channel, if it has a stream.
    pub fn position(&self, channel: &str) -> Option<Position> {
        self.by_name.get(channel).map(super::Stream::position)
    }

    /// The names of all streams.
    pub fn names(&self) -> impl Iterator<Item = &Rc<str>> {
        self.by_name.keys()
    }

    /// Adds a numbered publication. A known one is skipped; after a gap the stream begins anew.
    pub fn put(
        &mut self,
        channel: &str,
        Position { offset, epoch }: Position,
        text: Rc<str>,
        keep: Keep,
        (at, now): (Duration, Duration),
    ) {
        let name = match self.position(channel) {
            Some(top) if top.epoch == epoch && offset <= top.offset => return,
            Some(top) if top.epoch == epoch && offset == top.offset + 1 => {
                Rc::clone(&self.turns[&self.by_name[channel].turn])
            }
            _ => {
                self.end(channel);
                self.begin(channel, Position { offset: offset.saturating_sub(1), epoch }, keep, at)
            }
        };
        if let Some(stream) = self.by_name.get_mut(&name) {
            stream.keep = keep;
            stream.used = stream.used.max(at);
        }
        self.add(&name, Kept { at, text }, now);
    }

    /// Marks a channel as used: it has a stream from then on, with that epoch if it has none yet.
    pub fn touch(&mut self, channel: &str, epoch: Epoch, keep: Keep, at: Duration) {
        let name = match self.by_name.get_mut(channel) {
            Some(stream) => {
                (stream.keep, stream.used) = (keep, stream.used.max(at));
                self.bytes -= stream.trim(at);
                Rc::clone(&self.turns[&stream.turn])
            }
            None => self.begin(channel, Position { offset: 0, epoch }, keep, at),
        };
        self.schedule(&name);
        self.make_room(&name);
        self.check_invariants();
    }

    /// Restores the state of a stream, in place of any other. Its publications follow in [`Streams::restore_more`].
    pub fn restore(&mut self, channel: &str, top: Position, keep: Keep, used: Duration) {
        if self.position(channel) != Some(top) {
            self.end(channel);
            self.begin(channel, top, keep, used);
            self.check_invariants();
        }
    }

    /// Restores publications from that offset on, if the last one directly precedes the oldest present.
    pub fn restore_more(&mut self, channel: &str, first: u64, publications: Vec<(Duration, Rc<str>)>) {
        let Some(stream) = self.by_name.get_mut(channel) else { return };
        if first == 0 || first.checked_add(publications.len() as u64) != stream.floor().checked_add(1) {
            return;
        }
        let name = Rc::clone(&self.turns[&stream.turn]);
        for (at, text) in publications.into_iter().rev() {
            if stream.kept.len() >= stream.keep.size {
                break;
            }
            let kept = Kept { at, text };
            self.bytes += kept.bytes();
            stream.kept.push_front(kept);
        }
        // In order of the last publication, as far as it is known.
        self.serial += 1;
        let turn = super::PUBLISHED + self.serial;
        self.turns.remove(&std::mem::replace(&mut stream.turn, turn));
        self.turns.insert(turn, Rc::clone(&name));
        self.schedule(&name);
        self.check_invariants();
    }

    /// Gives a stream another epoch, and keeps its contents.
    pub fn renew(&mut self, channel: &str, epoch: Epoch) {
        if let Some(stream) = self.by_name.get_mut(channel) {
            stream.epoch = epoch;
        }
    }

    /// Drops a stream without announcing it.
    pub fn end(&mut self, channel: &str) {
        if let Some(stream) = self.by_name.get(channel) {
            let name = Rc::clone(&self.turns[&stream.turn]);
            self.drop_stream(&name);
        }
    }

    /// Returns the streams dropped since the last call.
    pub fn take_dropped(&mut self) -> Vec<Rc<str>> {
        std::mem::take(&mut self.dropped)
    }

    /// All of a stream.
    pub fn snapshot(&self, channel: &str) -> Option<Snapshot<'_>> {
        let stream = self.by_name.get(channel)?;
        let publications = stream.kept.iter().map(|kept| (kept.at, &kept.text)).collect();
        Some(Snapshot { top: stream.position(), keep: stream.keep, used: stream.used, publications })
    }
}

impl Streams {
    /// Begins to decide which streams are dropped.
    pub fn lead(&mut self, max_bytes: usize, now: Duration) {
        (self.part, self.max_bytes) = (super::Part::Leads, max_bytes);
        let names: Vec<Rc<str>> = self.names().cloned().collect();
        names.iter().for_each(|name| self.schedule(name));
        self.expire(now);
        self.make_room(&"".into());
    }
}
