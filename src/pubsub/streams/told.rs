//! Streams of those that are not alone: what a log tells of them, and what is told to a log.

use super::{Epoch, Keep, Kept, Position, Streams};
use std::rc::Rc;
use std::time::Duration;

/// All of a stream.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// Where it stands.
    pub top: Position,
    /// How much of it is kept.
    pub keep: Keep,
    /// When it was used last.
    pub used: Duration,
    /// What is kept, each with its time.
    pub publications: Vec<(Duration, &'a Rc<str>)>,
}

impl Streams {
    /// Where a channel stands, if it has a stream.
    pub fn position(&self, channel: &str) -> Option<Position> {
        self.by_name.get(channel).map(super::Stream::position)
    }

    /// The names of all streams.
    pub fn names(&self) -> impl Iterator<Item = &Rc<str>> {
        self.by_name.keys()
    }

    /// Takes a publication that has its number. One that is there already is passed over; one that does not follow upon what is there
    /// begins anew.
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

    /// A channel is used: it has a stream from then on, with that epoch if it has none yet.
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

    /// Takes a stream as it stands, in place of one that stands elsewhere. Nothing of it is kept until [`Streams::restore_more`].
    pub fn restore(&mut self, channel: &str, top: Position, keep: Keep, used: Duration) {
        if self.position(channel) != Some(top) {
            self.end(channel);
            self.begin(channel, top, keep, used);
            self.check_invariants();
        }
    }

    /// Takes publications of a stream, of which the first has that offset, if the last is the one before the oldest that is there.
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
        // In order of their last publication, as far as that is known.
        self.serial += 1;
        let turn = super::PUBLISHED + self.serial;
        self.turns.remove(&std::mem::replace(&mut stream.turn, turn));
        self.turns.insert(turn, Rc::clone(&name));
        self.schedule(&name);
        self.check_invariants();
    }

    /// Another epoch for a stream, which keeps what it has.
    pub fn renew(&mut self, channel: &str, epoch: Epoch) {
        if let Some(stream) = self.by_name.get_mut(channel) {
            stream.epoch = epoch;
        }
    }

    /// Ends a stream, without a word.
    pub fn end(&mut self, channel: &str) {
        if let Some(stream) = self.by_name.get(channel) {
            let name = Rc::clone(&self.turns[&stream.turn]);
            self.drop_stream(&name);
        }
    }

    /// The streams that were given up since this was called last.
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
    /// Begins to decide which streams are given up.
    pub fn lead(&mut self, max_bytes: usize, now: Duration) {
        (self.part, self.max_bytes) = (super::Part::Leads, max_bytes);
        let names: Vec<Rc<str>> = self.names().cloned().collect();
        names.iter().for_each(|name| self.schedule(name));
        self.expire(now);
        self.make_room(&"".into());
    }
}
