//! The contents of the log: a sequence of entries, each with its length and a checksum.
//!
//! ```text
//! length (4) | checksum (4) | log (8) | payload: kind (1), fields
//! ```
//!
//! The length is the payload's. The checksum (CRC-32) covers the entry's position in the log, the log's number and the
//! payload, so a leftover of another log, or an entry at the wrong position, is rejected. Input is never trusted, and
//! no allocation exceeds the bytes present.

use super::fields::{Reader, Writer};
use crate::pubsub::streams::{Keep, Position, Snapshot};
use std::time::Duration;
use zlib_rs::crc32::crc32;

/// Bytes of an entry before its payload.
pub const HEAD_BYTES: usize = 16;
/// The approximate bytes of publications in one entry of a stream.
const PART_BYTES: usize = 256 << 10;

/// Identifies a publication of a worker. Zero means none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct By {
    /// The worker's number, chosen at random.
    pub origin: u64,
    /// Counts up.
    pub sequence: u64,
}

/// An entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry<'a> {
    /// The first entry of each file.
    Head {
        /// Streams dropped so far.
        removals: u64,
        /// The last question accepted from each worker of the last minute.
        origins: Vec<By>,
    },
    /// A numbered publication.
    Published {
        /// The channel.
        channel: &'a str,
        /// Its position.
        position: Position,
        /// The time of publication.
        at: Duration,
        /// The sender.
        by: By,
        /// How much history the channel keeps.
        keep: Keep,
        /// The idempotency key, empty for none.
        key: &'a str,
        /// The whole object.
        text: &'a str,
    },
    /// A channel is in use, and takes this epoch if it has none.
    Opened {
        /// The channel.
        channel: &'a str,
        /// Where its stream begins.
        position: Position,
        /// The time of use.
        at: Duration,
        /// How much history to keep.
        keep: Keep,
    },
    /// The publications of a channel were dropped.
    Emptied {
        /// The channel.
        channel: &'a str,
        /// The time.
        at: Duration,
        /// The sender.
        by: By,
    },
    /// A stream was dropped.
    Removed {
        /// The channel.
        channel: &'a str,
    },
    /// The state of a stream. Its publications follow, the newest part first.
    Stream {
        /// The channel.
        channel: &'a str,
        /// The offset of the oldest kept publication, or of the next one if none is kept.
        first: u64,
        /// The current position.
        top: Position,
        /// The time of last use.
        used: Duration,
        /// How much history to keep.
        keep: Keep,
    },
    /// Publications of such a stream, from the oldest to the newest, each with its time.
    More {
        /// The channel.
        channel: &'a str,
        /// The offset of the first.
        first: u64,
        /// The publications.
        publications: Vec<(Duration, &'a str)>,
    },
    /// A keeper began to write.
    Started {
        /// The boot of the machine.
        boot: u64,
        /// Whether each entry reached the disk before it was announced.
        syncs: bool,
    },
    /// A keeper ended, with everything on the disk.
    Closed,
}

const HEAD: u8 = 1;
const PUBLISHED: u8 = 2;
const OPENED: u8 = 3;
const EMPTIED: u8 = 4;
const REMOVED: u8 = 5;
const STREAM: u8 = 6;
const MORE: u8 = 7;
const STARTED: u8 = 8;
const CLOSED: u8 = 9;

impl Entry<'_> {
    /// Encodes the payload.
    pub fn payload(&self) -> Vec<u8> {
        let writer = match self {
            Entry::Head { removals, origins } => {
                let head = Writer::of_kind(HEAD).number(*removals);
                origins.iter().fold(head, |writer, by| writer.number(by.origin).number(by.sequence))
            }
            Entry::Published { channel, position, at, by, keep, key, text } => Writer::of_kind(PUBLISHED)
                .position(*position)
                .time(*at)
                .number(by.origin)
                .number(by.sequence)
                .keep(*keep)
                .text(channel)
                .text(key)
                .text(text),
            Entry::Opened { channel, position, at, keep } => {
                Writer::of_kind(OPENED).position(*position).time(*at).keep(*keep).text(channel)
            }
            Entry::Emptied { channel, at, by } => {
                Writer::of_kind(EMPTIED).time(*at).number(by.origin).number(by.sequence).text(channel)
            }
            Entry::Removed { channel } => Writer::of_kind(REMOVED).text(channel),
            Entry::Stream { channel, first, top, used, keep } => {
                Writer::of_kind(STREAM).number(*first).position(*top).time(*used).keep(*keep).text(channel)
            }
            Entry::More { channel, first, publications } => {
                let writer = Writer::of_kind(MORE).number(*first).text(channel);
                publications.iter().fold(writer, |writer, (at, text)| writer.time(*at).text(text))
            }
            Entry::Started { boot, syncs } => Writer::of_kind(STARTED).number(*boot).number((*syncs).into()),
            Entry::Closed => Writer::of_kind(CLOSED),
        };
        writer.0
    }

    /// Decodes a payload; `None` for invalid bytes.
    pub fn read(payload: &[u8]) -> Option<Entry<'_>> {
        let mut from = Reader(payload);
        let entry = match from.kind()? {
            HEAD => {
                let (removals, mut origins) = (from.count()?, Vec::new());
                while !from.0.is_empty() {
                    origins.push(read_by(&mut from)?);
                }
                Entry::Head { removals, origins }
            }
            PUBLISHED => {
                let (position, at, by) = (from.position()?, from.time()?, read_by(&mut from)?);
                let keep = from.keep()?;
                Entry::Published {
                    position,
                    at,
                    by,
                    keep,
                    channel: from.text()?,
                    key: from.text()?,
                    text: from.text()?,
                }
            }
            OPENED => {
                let (position, at, keep) = (from.position()?, from.time()?, from.keep()?);
                Entry::Opened { channel: from.text()?, position, at, keep }
            }
            EMPTIED => {
                let (at, by) = (from.time()?, read_by(&mut from)?);
                Entry::Emptied { channel: from.text()?, at, by }
            }
            REMOVED => Entry::Removed { channel: from.text()? },
            STREAM => {
                let (first, top, used) = (from.count()?, from.position()?, from.time()?);
                let keep = from.keep()?;
                Entry::Stream { channel: from.text()?, first, top, used, keep }
            }
            MORE => {
                let (first, channel, mut publications) = (from.count()?, from.text()?, Vec::new());
                while !from.0.is_empty() {
                    publications.push((from.time()?, from.text()?));
                }
                Entry::More { channel, first, publications }
            }
            STARTED => Entry::Started { boot: from.number()?, syncs: from.number()? != 0 },
            CLOSED => Entry::Closed,
            _ => return None,
        };
        from.end()?;
        Some(entry)
    }
}

fn read_by(from: &mut Reader<'_>) -> Option<By> {
    Some(By { origin: from.number()?, sequence: from.count()? })
}

/// Encodes a stream as payloads: its state, then its publications, newest first, so that any prefix holds the newest
/// part.
pub fn stream_payloads(channel: &str, snapshot: &Snapshot<'_>) -> Vec<Vec<u8>> {
    let &Snapshot { top, used, keep, ref publications } = snapshot;
    let mut first = (top.offset + 1).saturating_sub(publications.len() as u64);
    let mut payloads = vec![Entry::Stream { channel, first, top, used, keep }.payload()];
    first = top.offset + 1;
    let (mut end, mut bytes) = (publications.len(), 0);
    for start in (0..publications.len()).rev() {
        bytes += publications[start].1.len();
        if bytes >= PART_BYTES || start == 0 {
            let part: Vec<_> = publications[start..end].iter().map(|(at, text)| (*at, &***text)).collect();
            first -= part.len() as u64;
            payloads.push(Entry::More { channel, first, publications: part }.payload());
            (end, bytes) = (start, 0);
        }
    }
    payloads
}

/// Encodes an entry for a position of a log.
pub fn frame(log: u64, position: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum(log, position, payload).to_le_bytes());
    bytes.extend_from_slice(&log.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn checksum(log: u64, position: u64, payload: &[u8]) -> u32 {
    [&position.to_le_bytes()[..], &log.to_le_bytes(), payload].iter().fold(0, |sum, bytes| crc32(sum, bytes))
}

/// What stands at a position of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<'a> {
    /// A whole entry.
    Whole {
        /// The log it belongs to.
        log: u64,
        /// Its payload.
        payload: &'a [u8],
    },
    /// The beginning of an entry with this many bytes in all, or 0 if the length is still unknown.
    Part(usize),
    /// Not an entry.
    Damaged,
}

/// Examines the bytes at a position.
pub fn find(bytes: &[u8], position: u64) -> Found<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Found::Part(0) };
    let word = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let (length, sum) = (word(0) as usize, word(4));
    let log = u64::from(word(8)) | u64::from(word(12)) << 32;
    match rest.get(..length) {
        Some(payload) if length > 0 && checksum(log, position, payload) == sum => Found::Whole { log, payload },
        None if length > 0 => Found::Part(HEAD_BYTES + length),
        _ => Found::Damaged,
    }
}

/// The length of the entry with this payload, in bytes.
pub fn length(payload: &[u8]) -> u64 {
    (HEAD_BYTES + payload.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::streams::Epoch;
    use proptest::prelude::*;

    fn position() -> impl Strategy<Value = Position> {
        ("[a-z]{8}", 0u64..1 << 62).prop_map(|(word, offset)| {
            let epoch = word.as_bytes().first_chunk().and_then(|bytes| Epoch::from_bytes(*bytes)).expect("letters");
            Position { offset, epoch }
        })
    }

    fn time() -> impl Strategy<Value = Duration> {
        (0u64..1 << 50).prop_map(Duration::from_millis)
    }

    fn keep() -> impl Strategy<Value = Keep> {
        (any::<usize>(), time(), time()).prop_map(|(size, ttl, meta_ttl)| Keep { size, ttl, meta_ttl })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            channel: String, key: String, text: String, position in position(), at in time(), keep in keep(),
            numbers in [0u64..1 << 62, 0..1 << 62, 0..1 << 62], texts in prop::collection::vec((time(), any::<String>()), 0..4), which in 0usize..9,
            place: u64
        ) {
            let by = By { origin: numbers[0], sequence: numbers[1] };
            let channel = &*channel;
            let entry = match which {
                0 => Entry::Head { removals: numbers[2], origins: vec![by; texts.len()] },
                1 => Entry::Published { channel, position, at, by, keep, key: &key, text: &text },
                2 => Entry::Opened { channel, position, at, keep },
                3 => Entry::Emptied { channel, at, by },
                4 => Entry::Removed { channel },
                5 => Entry::Stream { channel, first: numbers[0], top: position, used: at, keep },
                6 => {
                    let publications = texts.iter().map(|(at, text)| (*at, &**text)).collect();
                    Entry::More { channel, first: numbers[0], publications }
                }
                7 => Entry::Started { boot: numbers[2], syncs: numbers[0] % 2 == 0 },
                _ => Entry::Closed,
            };
            let payload = entry.payload();
            prop_assert_eq!(Entry::read(&payload), Some(entry));
            let framed = frame(numbers[0], place, &payload);
            prop_assert_eq!(find(&framed, place), Found::Whole { log: numbers[0], payload: &payload });
            prop_assert_eq!(length(&payload), framed.len() as u64);
            prop_assert_eq!(find(&framed, place.wrapping_add(1)), Found::Damaged);
            for cut in 0..framed.len() {
                let want = if cut < HEAD_BYTES { 0 } else { framed.len() };
                prop_assert_eq!(find(&framed[..cut], place), Found::Part(want));
            }
        }

        #[test]
        fn a_byte_that_is_another_is_found(text: String, at: prop::sample::Index, change in 1u8..) {
            let framed = frame(7, 100, &Entry::Removed { channel: &text }.payload());
            let mut damaged = framed.clone();
            let at = at.index(damaged.len());
            damaged[at] ^= change;
            let is_whole = matches!(find(&damaged, 100), Found::Whole { .. });
            prop_assert!(!is_whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), position: u64) {
            let _ = (find(&bytes, position), Entry::read(&bytes));
        }
    }
}
