//! Bytes for many connections: stored once, however many of these must wait for them.
//!
//! Common bytes of a pass lie in one buffer. If some connections did not take their part, the buffer is kept until the
//! last of them has. So a flood of messages to many slow readers needs memory for the messages, not for messages times
//! readers.

use slab::Slab;

/// A buffer larger than this is freed after the pass.
const KEEP_BYTES: usize = 2 * 1024 * 1024;
/// A connection that waits for less than this fraction of a buffer gets a copy, and does not keep the whole.
const LEAST_PART: usize = 2;

struct Kept {
    bytes: Vec<u8>,
    /// The number of chunks that lie in it.
    users: usize,
}

/// See the module comment.
#[derive(Default)]
pub(super) struct Common {
    /// The bytes of this pass.
    bytes: Vec<u8>,
    /// The number of passes so far.
    passes: u64,
    /// The name under which this pass's buffer is kept, once a connection waits for part of it.
    name: Option<u32>,
    kept: Slab<Kept>,
    /// Total bytes of the kept buffers.
    kept_bytes: usize,
}

impl Common {
    /// The number of bytes of this pass.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends bytes.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes of this pass.
    #[inline]
    pub fn slice(&self, start: usize, end: usize) -> &[u8] {
        &self.bytes[start..end]
    }

    /// Whether this many bytes of this pass are worth keeping all of it.
    pub fn is_worth_keeping(&self, bytes: usize) -> bool {
        bytes.saturating_mul(LEAST_PART) >= self.bytes.len()
    }

    /// Keeps this pass's bytes for one more chunk. Returns the name to find them by later.
    pub fn keep(&mut self) -> u32 {
        let name = match self.name {
            Some(name) => name,
            None => self.kept.insert(Kept { bytes: Vec::new(), users: 0 }) as u32,
        };
        self.name = Some(name);
        self.kept[name as usize].users += 1;
        name
    }

    /// Returns kept bytes.
    pub fn kept(&self, name: u32, start: usize, end: usize) -> &[u8] {
        match self.name {
            Some(current) if current == name => self.slice(start, end),
            _ => &self.kept[name as usize].bytes[start..end],
        }
    }

    /// Releases one chunk's use of kept bytes.
    pub fn give_back(&mut self, name: u32) {
        let kept = &mut self.kept[name as usize];
        kept.users -= 1;
        if kept.users == 0 && self.name != Some(name) {
            self.kept_bytes -= self.kept.remove(name as usize).bytes.len();
        }
    }

    /// Ends the pass: bytes that no connection waits for are dropped.
    #[inline(always)]
    pub fn end_flush(&mut self) {
        if !self.bytes.is_empty() {
            self.forget();
        }
    }

    #[inline(never)]
    fn forget(&mut self) {
        if let Some(name) = self.name.take() {
            if self.kept[name as usize].users > 0 {
                self.kept_bytes += self.bytes.len();
                self.kept[name as usize].bytes = self.bytes.as_slice().to_vec();
            } else {
                self.kept.remove(name as usize);
            }
        }
        self.passes += 1;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// The number of passes with common bytes.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// Bytes that are kept for waiting connections.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Memory for the bytes of a pass.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
