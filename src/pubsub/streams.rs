//! History: the last publications of each channel, by dense offsets, so that a client that was away gets all that it missed, or
//! is told that this is not possible.
//!
//! A stream is the history of one channel. Its epoch is a random word that tells it from any other that the channel had before;
//! its offsets begin with 1 and have no holes. It exists from the first time that anybody asks where the channel stands, so that
//! a client of an idle channel has a position to come back to.
//!
//! Where a [keeper](super::history) numbers, its streams tell which of them they give up, and those of a worker follow: they give up
//! what has become too old, but a stream only on the keeper's word.
//!
//! Invariants: what is kept of a stream is its newest publications without a hole up to the top; all streams together take at
//! most the bound of bytes, for which those that were published on least recently go first.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Letters of an epoch.
pub const EPOCH_BYTES: usize = 8;
/// About what a stream takes besides its name and publications, and a publication besides its text.
const STREAM_BYTES: usize = 320;
const PUBLICATION_BYTES: usize = 64;

/// Tells a stream from those that its channel had before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch([u8; EPOCH_BYTES]);

impl Epoch {
    /// The epoch of a stream that nothing was published on yet. All who know the same log come to the same word; the number of
    /// streams that were given up in it tells a stream from those that its channel had before.
    pub fn derived(log: u64, removals: u64, channel: &str) -> Epoch {
        let mut hash = Sha1::new();
        hash.update(log.to_le_bytes());
        hash.update(removals.to_le_bytes());
        hash.update(channel.as_bytes());
        let hash = hash.finalize();
        let mut bytes = [0; EPOCH_BYTES];
        bytes.iter_mut().zip(hash.iter()).for_each(|(byte, hashed)| *byte = b'a' + hashed % 26);
        Epoch(bytes)
    }

    /// An epoch that was written by its bytes; `None` when these are not of one.
    pub fn from_bytes(bytes: [u8; EPOCH_BYTES]) -> Option<Epoch> {
        bytes.iter().all(u8::is_ascii_lowercase).then_some(Epoch(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> [u8; EPOCH_BYTES] {
        self.0
    }

    fn random(random: &mut StdRng) -> Epoch {
        let mut bytes = [0; EPOCH_BYTES];
        random.fill_bytes(&mut bytes);
        Epoch(bytes.map(|byte| b'a' + byte % 26))
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A place in a stream: after the publication with this offset, 0 for the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Of the last publication before it.
    pub offset: u64,
    /// Of which stream.
    pub epoch: Epoch,
}

/// How much of a channel is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Publications.
    pub size: usize,
    /// How long each.
    pub ttl: Duration,
    /// How long the epoch and the top are kept after the stream was last used.
    pub meta_ttl: Duration,
}

/// What a client that comes back is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missed {
    /// Where the channel stands.
    pub top: Position,
    /// All that was published after the client's position; `None` when not all of it is there.
    pub publications: Option<Vec<Rc<str>>>,
}

/// How much one answer may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Most {
    /// Publications.
    pub publications: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Which part of a history is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter {
    /// The offset beyond which it begins.
    pub since: Option<u64>,
    /// From the newest to the oldest.
    pub reverse: bool,
}

/// Turns of streams that were published on begin here.
const PUBLISHED: u64 = 1 << 63;
/// Room for so many publications is not given back.
const LEAST_CAPACITY: usize = 4;

struct Kept {
    at: Duration,
    text: Rc<str>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.text.len() + PUBLICATION_BYTES
    }
}

struct Stream {
    epoch: Epoch,
    top: u64,
    kept: VecDeque<Kept>,
    keep: Keep,
    used: Duration,
    /// Its place among those that may have to go.
    turn: u64,
    /// When it is to be looked at, and which of those it is.
    due: (Duration, u64),
}

impl Stream {
    fn position(&self) -> Position {
        Position { offset: self.top, epoch: self.epoch }
    }

    /// Gives up what is too old or too much. Returns how many bytes that were.
    fn trim(&mut self, now: Duration) -> usize {
        let mut bytes = 0;
        while let Some(first) = self.kept.front()
            && (self.kept.len() > self.keep.size || first.at + self.keep.ttl <= now)
        {
            bytes += first.bytes();
            self.kept.pop_front();
        }
        if self.kept.capacity() > LEAST_CAPACITY && self.kept.len() < self.kept.capacity() / 4 {
            self.kept.shrink_to(2 * self.kept.len());
        }
        bytes
    }

    /// When something of it will be too old.
    fn next_due(&self, part: Part) -> Duration {
        match self.kept.front() {
            Some(first) => first.at + self.keep.ttl,
            None if part == Part::Follows => Duration::MAX,
            None => self.used + self.keep.meta_ttl,
        }
    }

    /// The offset before the oldest publication that is kept.
    fn floor(&self) -> u64 {
        self.top - self.kept.len() as u64
    }
}

/// What was counted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Streams that were given up for want of space.
    pub evicted: u64,
}

/// Who decides on numbers and ends of streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// We do, and nobody else has to know.
    Alone,
    /// We do, and tell.
    Leads,
    /// Others do.
    Follows,
}

/// The histories of all channels.
pub struct Streams {
    part: Part,
    /// Streams that were given up and not told of yet.
    dropped: Vec<Rc<str>>,
    by_name: HashMap<Rc<str>, Stream>,
    /// By turn: those first on which nothing was published yet, the oldest first, and then the one that was published on least
    /// recently. So nobody has histories given up by asking for channels that nobody uses.
    turns: BTreeMap<u64, Rc<str>>,
    due: BTreeMap<(Duration, u64), Rc<str>>,
    serial: u64,
    bytes: usize,
    max_bytes: usize,
    random: StdRng,
    counts: Counts,
}

impl Streams {
    /// None yet. They will take at most `max_bytes`; epochs follow from the seed.
    pub fn new(max_bytes: usize, seed: [u8; 32]) -> Streams {
        Streams {
            part: Part::Alone,
            dropped: Vec::new(),
            by_name: HashMap::new(),
            turns: BTreeMap::new(),
            due: BTreeMap::new(),
            serial: 0,
            bytes: 0,
            max_bytes,
            random: StdRng::from_seed(seed),
            counts: Counts::default(),
        }
    }

    /// The same for a part that is not alone.
    pub fn for_part(self, part: Part) -> Streams {
        Streams { part, ..self }
    }

    /// Adds a publication, given as a JSON object without its last brace. Returns its position and the whole object, which has
    /// the offset.
    pub fn append(&mut self, channel: &str, body: &str, keep: Keep, now: Duration) -> (Position, Rc<str>) {
        let name = self.open(channel, keep, now);
        let stream = &self.by_name[&name];
        let position = Position { offset: stream.top + 1, epoch: stream.epoch };
        let text: Rc<str> = numbered(body, position.offset).into();
        self.add(&name, Kept { at: now, text: Rc::clone(&text) }, now);
        (position, text)
    }

    fn add(&mut self, name: &Rc<str>, kept: Kept, now: Duration) {
        self.serial += 1;
        let Some(stream) = self.by_name.get_mut(name) else { return };
        stream.top += 1;
        self.bytes += kept.bytes();
        stream.kept.push_back(kept);
        self.bytes -= stream.trim(now);
        let turn = PUBLISHED + self.serial;
        self.turns.remove(&std::mem::replace(&mut stream.turn, turn));
        self.turns.insert(turn, Rc::clone(name));
        self.schedule(name);
        self.make_room(name);
        self.check_invariants();
    }

    /// Where a channel stands. Its stream exists from then on.
    pub fn top(&mut self, channel: &str, keep: Keep, now: Duration) -> Position {
        let name = self.open(channel, keep, now);
        let position = self.by_name[&name].position();
        self.make_room(&name);
        self.check_invariants();
        position
    }

    /// What was published after a position: all of it, or nothing. An empty epoch stands for any.
    pub fn since(
        &mut self,
        channel: &str,
        (offset, epoch): (u64, &str),
        most: Most,
        keep: Keep,
        now: Duration,
    ) -> Missed {
        let top = self.top(channel, keep, now);
        self.since_top(top, channel, (offset, epoch), most)
    }

    /// The same of a channel that stands there.
    pub fn since_top(&self, top: Position, channel: &str, (offset, epoch): (u64, &str), most: Most) -> Missed {
        let is_same = epoch.is_empty() || epoch == top.epoch.as_str();
        let publications = match self.by_name.get(channel) {
            _ if !is_same || offset > top.offset => None,
            Some(stream) if offset >= stream.floor() => {
                let missed = stream.kept.range((offset - stream.floor()) as usize..);
                let bytes: usize = missed.clone().map(|kept| kept.text.len()).sum();
                let fits = missed.len() <= most.publications && bytes <= most.bytes;
                fits.then(|| missed.map(|kept| Rc::clone(&kept.text)).collect())
            }
            // It had to make room for others at once.
            None if offset == top.offset => Some(Vec::new()),
            _ => None,
        };
        Missed { top, publications }
    }

    /// A part of what is kept of a channel, within `most`.
    pub fn read(
        &mut self,
        channel: &str,
        filter: Filter,
        most: Most,
        keep: Keep,
        now: Duration,
    ) -> (Position, Vec<Rc<str>>) {
        let top = self.top(channel, keep, now);
        (top, self.part_of(top, channel, filter, most))
    }

    /// The same of a channel that stands there.
    pub fn part_of(&self, top: Position, channel: &str, filter: Filter, most: Most) -> Vec<Rc<str>> {
        let Some(stream) = self.by_name.get(channel) else { return Vec::new() };
        let (floor, end) = (stream.floor(), stream.kept.len());
        let since = filter.since.map(|since| since.saturating_sub(floor).min(end as u64) as usize);
        // The publication with the offset `since` itself is left out, in either direction.
        let range = match (since, filter.reverse) {
            (None, _) => 0..end,
            (Some(since), false) => since..end,
            (Some(since), true) => {
                0..since.saturating_sub(usize::from(filter.since.is_some_and(|at| at <= top.offset)))
            }
        };
        let mut bytes = 0;
        let mut take = |kept: &Kept| {
            bytes += kept.text.len();
            (bytes <= most.bytes).then(|| Rc::clone(&kept.text))
        };
        let part = stream.kept.range(range);
        match filter.reverse {
            true => part.rev().take(most.publications).map_while(&mut take).collect(),
            false => part.take(most.publications).map_while(&mut take).collect(),
        }
    }

    /// Gives up the publications of a channel. Its position stays: a client that has them all misses nothing.
    pub fn remove(&mut self, channel: &str, now: Duration) {
        // One that is too old is not to be had again by that.
        self.expire(now);
        let Some(stream) = self.by_name.get_mut(channel) else { return };
        stream.used = now;
        self.bytes -= std::mem::take(&mut stream.kept).iter().map(Kept::bytes).sum::<usize>();
        let name = Rc::clone(&self.turns[&stream.turn]);
        self.schedule(&name);
        self.check_invariants();
    }

    /// Gives up what has become too old.
    pub fn expire(&mut self, now: Duration) {
        while let Some((&(at, _), name)) = self.due.first_key_value()
            && at <= now
        {
            let name = Rc::clone(name);
            let Some(stream) = self.by_name.get_mut(&name) else { return };
            self.bytes -= stream.trim(now);
            match stream.next_due(self.part) <= now {
                true => self.give_up(&name),
                false => self.schedule(&name),
            }
        }
        self.check_invariants();
    }

    /// When [`Streams::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many streams there are, and what they take.
    pub fn held(&self) -> (usize, usize) {
        (self.by_name.len(), self.bytes)
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The stream of a channel as of now, a new one if there is none.
    fn open(&mut self, channel: &str, keep: Keep, now: Duration) -> Rc<str> {
        if let Some(stream) = self.by_name.get_mut(channel) {
            let name = Rc::clone(&self.turns[&stream.turn]);
            self.bytes -= {
                stream.keep = keep;
                stream.trim(now)
            };
            if stream.next_due(self.part) > now {
                stream.used = now;
                self.schedule(&name);
                return name;
            }
            self.give_up(&name);
        }
        let epoch = Epoch::random(&mut self.random);
        self.begin(channel, Position { offset: 0, epoch }, keep, now)
    }

    /// A new stream, of which nothing is kept yet.
    fn begin(&mut self, channel: &str, Position { offset, epoch }: Position, keep: Keep, now: Duration) -> Rc<str> {
        let name: Rc<str> = channel.into();
        self.serial += 1;
        let mut stream = Stream {
            epoch,
            top: offset,
            kept: VecDeque::new(),
            keep,
            used: now,
            turn: self.serial,
            due: (Duration::ZERO, self.serial),
        };
        stream.due.0 = stream.next_due(self.part);
        self.bytes += STREAM_BYTES + 2 * name.len();
        self.turns.insert(stream.turn, Rc::clone(&name));
        self.due.insert(stream.due, Rc::clone(&name));
        self.by_name.insert(Rc::clone(&name), stream);
        name
    }

    /// Has a stream looked at when something of it will be too old.
    fn schedule(&mut self, name: &Rc<str>) {
        let Some(stream) = self.by_name.get_mut(name) else { return };
        let at = stream.next_due(self.part);
        if at != stream.due.0 {
            self.due.remove(&stream.due);
            stream.due.0 = at;
            self.due.insert(stream.due, Rc::clone(name));
        }
    }

    /// Gives a stream up, and tells.
    fn give_up(&mut self, name: &Rc<str>) {
        if self.part == Part::Leads {
            self.dropped.push(Rc::clone(name));
        }
        self.drop_stream(name);
    }

    fn drop_stream(&mut self, name: &Rc<str>) {
        let Some(stream) = self.by_name.remove(name) else { return };
        self.bytes -= STREAM_BYTES + 2 * name.len() + stream.kept.iter().map(Kept::bytes).sum::<usize>();
        self.turns.remove(&stream.turn);
        self.due.remove(&stream.due);
    }

    /// Keeps to the bound: the stream that was published on least recently goes first; of the one at hand, when it is the only one,
    /// its oldest publications.
    fn make_room(&mut self, at_hand: &Rc<str>) {
        while self.bytes > self.max_bytes && self.part != Part::Follows {
            let Some(oldest) = self.turns.values().find(|name| *name != at_hand).cloned() else { break };
            self.give_up(&oldest);
            self.counts.evicted += 1;
        }
        let Some(stream) = self.by_name.get_mut(at_hand) else { return };
        while self.bytes > self.max_bytes
            && let Some(first) = stream.kept.pop_front()
        {
            self.bytes -= first.bytes();
        }
        self.schedule(at_hand);
    }
}

/// A publication, given as a JSON object without its last brace, with its number.
pub fn numbered(body: &str, offset: u64) -> String {
    format!("{body},\"offset\":{offset}}}")
}

mod told;
pub use told::Snapshot;

impl Streams {
    /// Asserts, in builds for tests, what the module promises.
    fn check_invariants(&self) {
        #[cfg(debug_assertions)]
        {
            assert_eq!(self.by_name.len(), self.turns.len());
            assert_eq!(self.by_name.len(), self.due.len());
            let one = |(name, stream): (&Rc<str>, &Stream)| {
                assert!(stream.kept.len() as u64 <= stream.top && stream.kept.len() <= stream.keep.size);
                assert_eq!((self.turns.get(&stream.turn), self.due.get(&stream.due)), (Some(name), Some(name)));
                STREAM_BYTES + 2 * name.len() + stream.kept.iter().map(Kept::bytes).sum::<usize>()
            };
            if self.by_name.len() < 64 {
                assert_eq!(self.by_name.iter().map(one).sum::<usize>(), self.bytes);
            }
        }
    }
}
