//! History: the last publications of each channel, by dense offsets, so that a client that was away recovers all that
//! it missed, or learns that this is impossible.
//!
//! A stream is the history of one channel. Its epoch is a random word that tells it from earlier streams of the
//! channel; its offsets begin with 1 and have no gaps. It exists from the first time that its position is asked for,
//! so that a client of an idle channel has a position to come back to.
//!
//! Where a [keeper](super::history) numbers, its streams announce which of them are dropped, and a worker's streams
//! follow: they drop expired publications, but a stream only on the keeper's word.
//!
//! Invariants: a stream keeps its newest publications without a gap up to the top; all streams together stay within
//! the bound of bytes, for which the least recently published go first.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// The length of an epoch, in bytes.
pub const EPOCH_BYTES: usize = 8;
/// The approximate bytes of a stream besides its name and publications, and of a publication besides its text.
const STREAM_BYTES: usize = 320;
const PUBLICATION_BYTES: usize = 64;

/// Tells a stream from earlier streams of its channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch([u8; EPOCH_BYTES]);

impl Epoch {
    /// The epoch of a stream without publications. All readers of a log derive the same word; the number of streams
    /// dropped in it tells a stream from earlier ones of its channel.
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

    /// An epoch from its bytes; `None` if they are invalid.
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
    /// The offset of the last publication before it.
    pub offset: u64,
    /// The epoch of the stream.
    pub epoch: Epoch,
}

/// How much history a channel keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// The number of publications.
    pub size: usize,
    /// How long each is kept.
    pub ttl: Duration,
    /// How long the epoch and the top are kept after the stream was last used.
    pub meta_ttl: Duration,
}

/// What a recovering client gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missed {
    /// The position of the channel.
    pub top: Position,
    /// All publications after the client's position; `None` if part of them is gone.
    pub publications: Option<Vec<Rc<str>>>,
}

/// The most that one answer may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Most {
    /// The most publications.
    pub publications: usize,
    /// The most bytes of them.
    pub bytes: usize,
}

/// The part of a history to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter {
    /// The offset after which it begins.
    pub since: Option<u64>,
    /// From the newest to the oldest.
    pub reverse: bool,
}

/// The turns of streams with publications begin here.
const PUBLISHED: u64 = 1 << 63;
/// Capacity for this many publications is never released.
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
    /// Its place in the order of eviction.
    turn: u64,
    /// When it expires next, and a serial number that keeps equal times apart.
    due: (Duration, u64),
}

impl Stream {
    fn position(&self) -> Position {
        Position { offset: self.top, epoch: self.epoch }
    }

    /// Drops what is too old or too much. Returns the bytes freed.
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

    /// When something of it expires.
    fn next_due(&self, part: Part) -> Duration {
        match self.kept.front() {
            Some(first) => first.at + self.keep.ttl,
            None if part == Part::Follows => Duration::MAX,
            None => self.used + self.keep.meta_ttl,
        }
    }

    /// The offset before the oldest kept publication.
    fn floor(&self) -> u64 {
        self.top - self.kept.len() as u64
    }
}

/// The counters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Streams dropped for want of space.
    pub evicted: u64,
}

/// Who decides on the numbers and the ends of streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// These streams, which inform no others.
    Alone,
    /// These streams, which announce it.
    Leads,
    /// Other streams.
    Follows,
}

/// The histories of all channels.
pub struct Streams {
    part: Part,
    /// Dropped streams that are not announced yet.
    dropped: Vec<Rc<str>>,
    by_name: HashMap<Rc<str>, Stream>,
    /// By turn: streams without publications first, oldest first, then the least recently published. So asking for
    /// unused channels cannot evict anyone's history.
    turns: BTreeMap<u64, Rc<str>>,
    due: BTreeMap<(Duration, u64), Rc<str>>,
    serial: u64,
    bytes: usize,
    max_bytes: usize,
    random: StdRng,
    counts: Counts,
}

impl Streams {
    /// No streams yet. They will take at most `max_bytes`; epochs derive from the seed.
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

    /// The same for a given part.
    pub fn for_part(self, part: Part) -> Streams {
        Streams { part, ..self }
    }

    /// Adds a publication, given as a JSON object without its last brace. Returns its position and the whole object
    /// with the offset.
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

    /// The position of a channel. Its stream exists from then on.
    pub fn top(&mut self, channel: &str, keep: Keep, now: Duration) -> Position {
        let name = self.open(channel, keep, now);
        let position = self.by_name[&name].position();
        self.make_room(&name);
        self.check_invariants();
        position
    }

    /// All publications after a position, or none of them. An empty epoch matches any.
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

    /// The same for a channel at a known position.
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

    /// A part of a channel's history, within `most`.
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

    /// The same for a channel at a known position.
    pub fn part_of(&self, top: Position, channel: &str, filter: Filter, most: Most) -> Vec<Rc<str>> {
        let Some(stream) = self.by_name.get(channel) else { return Vec::new() };
        let (floor, end) = (stream.floor(), stream.kept.len());
        let since = filter.since.map(|since| since.saturating_sub(floor).min(end as u64) as usize);
        // The publication at the offset `since` itself is left out, in either direction.
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

    /// Drops the publications of a channel. Its position stays: a client that has them all misses nothing.
    pub fn remove(&mut self, channel: &str, now: Duration) {
        // An expired stream must not come back to life.
        self.expire(now);
        let Some(stream) = self.by_name.get_mut(channel) else { return };
        stream.used = now;
        self.bytes -= std::mem::take(&mut stream.kept).iter().map(Kept::bytes).sum::<usize>();
        let name = Rc::clone(&self.turns[&stream.turn]);
        self.schedule(&name);
        self.check_invariants();
    }

    /// Drops whatever has expired.
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

    /// The number of streams, and the bytes they take.
    pub fn held(&self) -> (usize, usize) {
        (self.by_name.len(), self.bytes)
    }

    /// The counters.
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

    /// A new stream without publications.
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

    /// Schedules the next expiry of a stream.
    fn schedule(&mut self, name: &Rc<str>) {
        let Some(stream) = self.by_name.get_mut(name) else { return };
        let at = stream.next_due(self.part);
        if at != stream.due.0 {
            self.due.remove(&stream.due);
            stream.due.0 = at;
            self.due.insert(stream.due, Rc::clone(name));
        }
    }

    /// Drops a stream, and announces it.
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

    /// Keeps to the bound: drops the least recently published stream first; if the one at hand is the only one, its
    /// oldest publications.
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

/// A publication with its number, from a JSON object without its last brace.
pub fn numbered(body: &str, offset: u64) -> String {
    format!("{body},\"offset\":{offset}}}")
}

mod told;
pub use told::Snapshot;

impl Streams {
    /// Asserts the module's invariants, in test builds.
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
