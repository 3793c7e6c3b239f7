//! Numbers and texts as bytes: little-endian, a text after its length.

use crate::pubsub::streams::{EPOCH_BYTES, Epoch, Keep, Position};
use std::time::Duration;

/// Appends fields to bytes.
#[derive(Default, Debug)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Begins with a byte that names what follows.
    pub fn of_kind(kind: u8) -> Writer {
        Writer(vec![kind])
    }

    /// Appends a number.
    pub fn number(mut self, number: u64) -> Writer {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    /// Appends a text.
    pub fn text(self, text: &str) -> Writer {
        self.bytes(text.as_bytes())
    }

    /// Appends bytes.
    pub fn bytes(mut self, bytes: &[u8]) -> Writer {
        self.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a position.
    pub fn position(mut self, Position { offset, epoch }: Position) -> Writer {
        self.0.extend_from_slice(&epoch.bytes());
        self.number(offset)
    }

    /// Appends how much history to keep.
    pub fn keep(self, Keep { size, ttl, meta_ttl }: Keep) -> Writer {
        self.number(size as u64).number(milliseconds(ttl)).number(milliseconds(meta_ttl))
    }

    /// Appends a time.
    pub fn time(self, time: Duration) -> Writer {
        self.number(milliseconds(time))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The longest time accepted, so that sums of times do not overflow.
const LONGEST_MILLISECONDS: u64 = 1 << 50;
/// The highest count accepted.
const MOST: u64 = 1 << 62;

/// Takes fields from the front of bytes; `None` for a missing or invalid field.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the first byte.
    pub fn kind(&mut self) -> Option<u8> {
        let (kind, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*kind)
    }

    /// Takes a number.
    pub fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    /// Takes a count.
    pub fn count(&mut self) -> Option<u64> {
        self.number().filter(|count| *count <= MOST)
    }

    /// Takes bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Takes a text.
    pub fn text(&mut self) -> Option<&'a str> {
        simdutf8::basic::from_utf8(self.bytes()?).ok()
    }

    /// Takes a position.
    pub fn position(&mut self) -> Option<Position> {
        let (bytes, rest) = self.0.split_first_chunk::<EPOCH_BYTES>()?;
        self.0 = rest;
        Some(Position { epoch: Epoch::from_bytes(*bytes)?, offset: self.count()? })
    }

    /// Takes how much history to keep.
    pub fn keep(&mut self) -> Option<Keep> {
        let size = usize::try_from(self.number()?).ok()?;
        Some(Keep { size, ttl: self.time()?, meta_ttl: self.time()? })
    }

    /// Takes a time.
    pub fn time(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(self.number()?.min(LONGEST_MILLISECONDS)))
    }

    /// Checks that nothing is left.
    pub fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
