//! The layout of the memory that the participants of a bus share.
//!
//! ```text
//! header   64 words   magic, version, slots, bytes of a ring; and how often a slot's entry has changed
//! slots    32 words each, four cache lines: what its writer publishes; who it is, where its records begin, and what it
//!          reserved; whether it sleeps; what it counts
//! cursors  a word for each pair: up to where the one has read the other's ring, for `percore bus status`
//! rings    from a page boundary on
//! ```
//!
//! The content is not trusted: any participant can write anywhere in it.

use super::atomic::{AtomicU64, Ordering, fence};
use super::ring::Ring;
use std::fmt;

/// "percore\0" in a file on a little-endian machine.
const MAGIC: u64 = u64::from_le_bytes(*b"percore\0");
/// Changes with the layout, and with the format of records.
pub const LAYOUT_VERSION: u64 = 3;
/// Maximum number of participants.
pub const MAX_SLOTS: usize = 256;
/// Minimum and maximum length of a ring, in bytes.
pub const RING_BYTES: std::ops::RangeInclusive<usize> = 4096..=1 << 30;

const HEADER_WORDS: usize = 64;
const SLOT_WORDS: usize = 32;
const PAGE_WORDS: usize = 512;
const WORD: usize = size_of::<u64>();

/// Words of the header.
const IN_HEADER: [&str; 4] = ["magic", "layout version", "slots", "ring size"];
/// Counts changes of entries, so that one read detects them.
const CHANGES: usize = 8;
/// Words of a slot: each group is on a cache line of its own.
const HEAD: usize = 0;
const CHECKPOINT: usize = 1;
const PLACE: usize = 2;
const GENERATION: usize = 8;
const PID: usize = 9;
/// Changes less often than the published words, so that readers find it in their caches.
const RESERVED: usize = 10;
/// Position and number of the owner's first record, and a checksum of the whole entry.
const START_POSITION: usize = 11;
const START_NUMBER: usize = 12;
const CHECK: usize = 13;
const PARKED: usize = 16;
const PUBLISHED: usize = 24;
const LOST: usize = 25;

/// The size of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// The number of slots.
    pub slots: usize,
    /// The length of each ring: a power of two.
    pub ring_bytes: usize,
}

/// Why memory is not a region that we can use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadRegion(pub String);

impl fmt::Display for BadRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRegion {}

impl Geometry {
    /// A geometry, if it is within the limits.
    ///
    /// # Errors
    /// When it is not.
    pub fn new(slots: usize, ring_bytes: usize) -> Result<Geometry, BadRegion> {
        if !(1..=MAX_SLOTS).contains(&slots) {
            return Err(BadRegion(format!("{slots} slots: there can be 1 to {MAX_SLOTS}")));
        }
        if !RING_BYTES.contains(&ring_bytes) || !ring_bytes.is_power_of_two() {
            let (least, most) = (RING_BYTES.start(), RING_BYTES.end());
            return Err(BadRegion(format!("a ring of {ring_bytes} bytes: give a power of two from {least} to {most}")));
        }
        Ok(Geometry { slots, ring_bytes })
    }

    fn ring_words(self) -> usize {
        self.ring_bytes / WORD
    }

    fn cursors(self) -> usize {
        HEADER_WORDS + self.slots * SLOT_WORDS
    }

    fn rings(self) -> usize {
        (self.cursors() + self.slots * self.slots).next_multiple_of(PAGE_WORDS)
    }

    /// Words of the whole region.
    pub fn words(self) -> usize {
        self.rings() + self.slots * self.ring_words()
    }

    /// Bytes before the first ring.
    pub fn head_bytes(self) -> usize {
        self.rings() * WORD
    }

    /// Offset of a slot's ring, in bytes.
    pub fn ring_offset(self, slot: usize) -> usize {
        (self.rings() + slot * self.ring_words()) * WORD
    }

    /// Writes the header of a new region, whose words are all zero.
    pub fn write(self, words: &[AtomicU64]) {
        for (word, value) in words.iter().zip(self.header()).skip(1) {
            word.store(value, Ordering::Relaxed);
        }
        words[0].store(MAGIC, Ordering::Release);
    }

    fn header(self) -> [u64; IN_HEADER.len()] {
        [MAGIC, LAYOUT_VERSION, self.slots as u64, self.ring_bytes as u64]
    }

    /// Reads the geometry in the header of a region.
    ///
    /// # Errors
    /// When the version differs, or the values are invalid.
    pub fn read(header: &[u64]) -> Result<Geometry, BadRegion> {
        let &[magic, version, slots, ring_bytes] = header else {
            return Err(BadRegion("it is too short to be a bus".into()));
        };
        if magic != MAGIC {
            return Err(BadRegion("it is no bus of percore".into()));
        }
        if version != LAYOUT_VERSION {
            let text = format!("it has layout version {version}, and this percore speaks {LAYOUT_VERSION}");
            return Err(BadRegion(text));
        }
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Geometry::new(size(slots), size(ring_bytes))
    }
}

/// The entry of a slot: its present or last owner.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Entry {
    /// Counts the owners of the slot; 0 for none.
    pub generation: u32,
    /// Position and number of its first record, where its former owner's records end.
    pub start: (u64, u32),
}

impl Entry {
    /// The checksum of an entry, to detect one that is half written or damaged. It is 0 for no entry in new memory.
    fn check(self, slot: usize) -> u64 {
        if self == Entry::default() {
            return 0;
        }
        let mix = |hash: u64, word: u64| {
            let mixed = (hash ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 29)
        };
        [slot as u64, self.generation.into(), self.start.0, self.start.1.into()].into_iter().fold(MAGIC, mix)
    }
}

/// Whether one owner of a slot is later than another.
#[inline]
pub fn is_newer(one: u32, other: u32) -> bool {
    (1..=u32::MAX / 2).contains(&one.wrapping_sub(other))
}

/// The generation after another: never 0, which means none.
pub fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

/// Bytes of the header that [`Geometry::read`] needs.
pub const HEADER_BYTES: usize = IN_HEADER.len() * WORD;

/// A region in memory.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    words: &'a [AtomicU64],
    geometry: Geometry,
}

/// The words of a slot, without its ring.
#[derive(Clone, Copy)]
pub struct Slot<'a>(&'a [AtomicU64]);

impl<'a> Region<'a> {
    /// A region over its words.
    ///
    /// # Panics
    /// When there are fewer words than the geometry requires.
    pub fn new(words: &'a [AtomicU64], geometry: Geometry) -> Region<'a> {
        assert!(words.len() >= geometry.words(), "the region is as large as its geometry");
        Region { words, geometry }
    }

    /// The number of slots.
    pub fn slots(self) -> usize {
        self.geometry.slots
    }

    /// A slot's words. `slot` is below [`Geometry::slots`].
    #[inline]
    pub fn slot(self, slot: usize) -> Slot<'a> {
        let start = HEADER_WORDS + slot * SLOT_WORDS;
        Slot(&self.words[start..start + SLOT_WORDS])
    }

    /// The present or last owner of a slot; `None` if the entry is damaged, or being changed.
    pub fn entry(self, slot: usize) -> Option<Entry> {
        let words = self.slot(slot).0;
        let word = |word: usize| words[word].load(Ordering::Acquire);
        let (generation, number) = (word(GENERATION).try_into().ok()?, word(START_NUMBER).try_into().ok()?);
        let entry = Entry { generation, start: (word(START_POSITION), number) };
        (entry.check(slot) == word(CHECK)).then_some(entry)
    }

    /// Publishes a slot's entry; for its owner to call.
    pub fn announce(self, slot: usize, entry: Entry) {
        let words = self.slot(slot).0;
        let values = [
            (START_POSITION, entry.start.0),
            (START_NUMBER, entry.start.1.into()),
            (CHECK, entry.check(slot)),
            (GENERATION, entry.generation.into()),
        ];
        for (word, value) in values {
            words[word].store(value, Ordering::Release);
        }
        self.words[CHANGES].fetch_add(1, Ordering::SeqCst);
        // If two join at once, at least one sees the other.
        fence(Ordering::SeqCst);
    }

    /// A number that changes with each change of an entry.
    #[inline]
    pub fn changes(self) -> u64 {
        self.words[CHANGES].load(Ordering::Acquire)
    }

    /// A slot's ring.
    #[inline]
    pub fn ring(self, slot: usize) -> Ring<'a> {
        let (own, start) = (self.slot(slot).0, self.geometry.rings() + slot * self.geometry.ring_words());
        let words = &self.words[start..start + self.geometry.ring_words()];
        Ring { head: &own[HEAD], reserved: &own[RESERVED], checkpoint: &own[CHECKPOINT], place: &own[PLACE], words }
    }

    /// How far `reader` has read the ring of `writer`.
    #[inline]
    pub fn cursor(self, reader: usize, writer: usize) -> &'a AtomicU64 {
        &self.words[self.geometry.cursors() + reader * self.geometry.slots + writer]
    }
}

impl<'a> Slot<'a> {
    /// Counts the owners of this slot.
    pub fn generation(self) -> &'a AtomicU64 {
        &self.0[GENERATION]
    }

    /// The owner's process number, in its own namespace.
    pub fn pid(self) -> &'a AtomicU64 {
        &self.0[PID]
    }

    /// Whether the owner sleeps; see [`super::parking`].
    #[inline]
    pub fn parked(self) -> &'a AtomicU64 {
        &self.0[PARKED]
    }

    /// The number of records that the owner published.
    pub fn published(self) -> &'a AtomicU64 {
        &self.0[PUBLISHED]
    }

    /// The number of records that the owner lost by being lapped.
    pub fn lost(self) -> &'a AtomicU64 {
        &self.0[LOST]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(geometry: Geometry) -> Vec<AtomicU64> {
        (0..geometry.words()).map(|_| AtomicU64::new(0)).collect()
    }

    fn header(words: &[AtomicU64]) -> Vec<u64> {
        words[..HEADER_BYTES / WORD].iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn a_header_says_how_large_the_region_is() {
        let geometry = Geometry::new(64, 1 << 16).expect("within bounds");
        let words = memory(geometry);
        assert!(Geometry::read(&header(&words)).is_err(), "not before it is written");
        geometry.write(&words);
        assert_eq!(Geometry::read(&header(&words)), Ok(geometry));
    }

    #[test]
    fn a_header_is_not_trusted() {
        let good = Geometry { slots: 4, ring_bytes: 4096 }.header();
        for (word, value, said) in [
            (0, 0, "no bus"),
            (1, 1, "layout version 1"),
            (2, 0, "0 slots"),
            (2, u64::MAX, "slots"),
            (3, 4097, "4097 bytes"),
            (3, u64::MAX, "power of two"),
            (3, 1 << 40, "power of two"),
        ] {
            let mut header = good;
            header[word] = value;
            let BadRegion(text) = Geometry::read(&header).expect_err("it is bad");
            assert!(text.contains(said), "{text}");
        }
        assert!(Geometry::read(&good[..3]).is_err());
    }

    #[test]
    fn nothing_overlaps() {
        let geometry = Geometry::new(5, 4096).expect("within bounds");
        let words = memory(geometry);
        let region = Region::new(&words, geometry);
        let mut all: Vec<*const AtomicU64> = words[..HEADER_BYTES / WORD].iter().map(std::ptr::from_ref).collect();
        all.push(&raw const words[CHANGES]);
        for slot in 0..5 {
            let (ring, own) = (region.ring(slot), region.slot(slot));
            all.extend(ring.words.iter().map(std::ptr::from_ref));
            all.extend([ring.head, ring.reserved, ring.checkpoint, ring.place].map(std::ptr::from_ref));
            all.extend([START_POSITION, START_NUMBER, CHECK].map(|word| std::ptr::from_ref(&own.0[word])));
            let rest = [own.generation(), own.pid(), own.parked(), own.published(), own.lost()];
            all.extend(rest.map(std::ptr::from_ref));
            all.extend((0..5).map(|writer| std::ptr::from_ref(region.cursor(slot, writer))));
            assert_eq!(geometry.ring_offset(slot) % 4096, 0);
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn an_entry_that_is_damaged_is_none() {
        let geometry = Geometry::new(3, 4096).expect("within bounds");
        let words = memory(geometry);
        let region = Region::new(&words, geometry);
        assert_eq!(region.entry(2), Some(Entry::default()), "nobody was there yet");
        let entry = Entry { generation: 7, start: (1000, 50) };
        region.announce(2, entry);
        assert_eq!((region.entry(2), region.changes()), (Some(entry), 1));
        for word in [GENERATION, START_POSITION, START_NUMBER, CHECK] {
            let word = &region.slot(2).0[word];
            let good = word.load(Ordering::Relaxed);
            for bad in [0, 1, good + 1, good ^ 1 << 63, u64::MAX] {
                word.store(bad, Ordering::Relaxed);
                assert_eq!(region.entry(2), None, "{bad}");
            }
            word.store(good, Ordering::Relaxed);
        }
        assert_eq!(region.entry(2), Some(entry));
    }

    #[test]
    fn owners_follow_each_other() {
        assert!(is_newer(2, 1) && !is_newer(1, 2) && !is_newer(3, 3) && is_newer(1, u32::MAX));
        assert_eq!([0, 1, u32::MAX].map(next_generation), [1, 2, 1]);
    }
}
