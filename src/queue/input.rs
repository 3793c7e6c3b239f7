//! The read buffer of a process. What is read into it may stay there until it is written: a large payload that goes back
//! to its sender is unmasked where it lies, and the out queue refers to it instead of holding a copy.

use std::ops::Range;

/// Its size: what is read and what waits there to be written stay within the cache of a core.
const INPUT_BYTES: usize = 512 * 1024;

/// The buffer, while it is with its owner. It is lent to whoever reads, and no byte of it is looked at meanwhile.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    /// Bytes at the beginning that wait to be written.
    kept: usize,
    /// Where the lent space began in memory, only to tell which part of it a slice is.
    address: usize,
    /// Whether part of the lent space is to be kept.
    keeps: bool,
}

/// The buffer while it is lent.
pub struct Lent {
    bytes: Vec<u8>,
    kept: usize,
}

impl Lent {
    /// Space to read into; none when nothing was written for too long.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.kept..]
    }

    /// Where in the buffer the space begins.
    #[inline]
    pub fn start(&self) -> usize {
        self.kept
    }

    /// What was read before and not worked on yet.
    #[inline]
    pub fn unread(&mut self, place: Range<usize>) -> &mut [u8] {
        debug_assert!(place.start >= self.kept);
        &mut self.bytes[place]
    }
}

impl Input {
    /// Lends the buffer.
    #[inline]
    pub fn lend(&mut self) -> Lent {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            bytes = vec![0; INPUT_BYTES];
        }
        self.address = bytes.as_ptr().addr();
        Lent { bytes, kept: self.kept }
    }

    /// Takes the buffer back, of whose space the first `used` bytes were worked on.
    #[inline]
    pub fn take_back(&mut self, lent: Lent, used: usize) {
        self.bytes = lent.bytes;
        self.address = 0;
        if std::mem::take(&mut self.keeps) {
            self.kept += used;
        }
    }

    /// Where `slice` begins in the buffer, `None` when it does not lie in the space that is lent now. It is then kept.
    #[inline]
    pub fn keep(&mut self, slice: &[u8]) -> Option<usize> {
        let start = slice.as_ptr().addr().wrapping_sub(self.address);
        let lies_here = self.address != 0 && start >= self.kept && slice.len() <= INPUT_BYTES.saturating_sub(start);
        self.keeps |= lies_here;
        lies_here.then_some(start)
    }

    /// What is kept at a place that [`Input::keep`] told.
    pub fn kept(&self, start: usize, end: usize) -> &[u8] {
        &self.bytes[start..end]
    }

    /// Bytes kept, with gaps.
    pub fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// Memory of the buffer.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Keeps nothing any more.
    pub fn clear(&mut self) {
        self.kept = 0;
    }
}
