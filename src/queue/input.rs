//! The read buffer of a process. Input may stay in it until it is written: a large payload that is echoed is unmasked
//! in place, and the out queue refers to it instead of holding a copy.

use std::ops::Range;

/// Its size: input, and what waits there to be written, fit in the cache of a core.
const INPUT_BYTES: usize = 512 * 1024;

/// The buffer while its owner has it. It is lent to the reader, and the owner reads no byte of it meanwhile.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    /// Bytes at the start that wait to be written.
    kept: usize,
    /// The address at which the lent space began, only used to find a slice's offset in it.
    address: usize,
    /// Whether part of the lent space must be kept.
    keeps: bool,
}

/// The buffer while it is lent.
pub struct Lent {
    bytes: Vec<u8>,
    kept: usize,
}

impl Lent {
    /// Space to read into; empty if nothing was written for too long.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.kept..]
    }

    /// Offset of the space in the buffer.
    #[inline]
    pub fn start(&self) -> usize {
        self.kept
    }

    /// Bytes that were read but not processed yet.
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

    /// Takes the buffer back; the first `used` bytes of its space were processed.
    #[inline]
    pub fn take_back(&mut self, lent: Lent, used: usize) {
        self.bytes = lent.bytes;
        self.address = 0;
        if std::mem::take(&mut self.keeps) {
            self.kept += used;
        }
    }

    /// Keeps `slice`, if it lies in the space that is lent now. Returns its offset in the buffer, or `None`.
    #[inline]
    pub fn keep(&mut self, slice: &[u8]) -> Option<usize> {
        let start = slice.as_ptr().addr().wrapping_sub(self.address);
        let lies_here = self.address != 0 && start >= self.kept && slice.len() <= INPUT_BYTES.saturating_sub(start);
        self.keeps |= lies_here;
        lies_here.then_some(start)
    }

    /// The kept bytes at an offset that [`Input::keep`] returned.
    pub fn kept(&self, start: usize, end: usize) -> &[u8] {
        &self.bytes[start..end]
    }

    /// Kept bytes, including gaps.
    pub fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// Memory of the buffer.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Releases everything kept.
    pub fn clear(&mut self) {
        self.kept = 0;
    }
}
