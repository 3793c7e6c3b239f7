//! Bytes that many connections are sent: stored once, whoever has to wait for them.
//!
//! What is queued in a pass lies in one buffer. If some connection did not take its part, the buffer is kept, for all who
//! did not, until the last of them has. So a flood of messages to many slow readers needs memory for the messages, not for
//! messages times readers.

use slab::Slab;

/// A buffer larger than this is given back after the pass.
const KEEP_BYTES: usize = 2 * 1024 * 1024;
/// A connection that waits for less than this part of a buffer gets a copy, and does not keep the whole.
const LEAST_PART: usize = 2;

struct Kept {
    bytes: Vec<u8>,
    /// Chunks that lie in it.
    users: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Common {
    /// Of this pass.
    bytes: Vec<u8>,
    /// How many passes there were.
    passes: u64,
    /// Bytes of all of them.
    past_bytes: u64,
    /// Under which name it is kept, once somebody waits for some of it.
    name: Option<u32>,
    kept: Slab<Kept>,
    /// Bytes of all that are kept.
    kept_bytes: usize,
}

impl Common {
    /// Bytes of this pass.
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

    /// Whether so many bytes of this pass are worth keeping all of it.
    pub fn is_worth_keeping(&self, bytes: usize) -> bool {
        bytes.saturating_mul(LEAST_PART) >= self.bytes.len()
    }

    /// One more waits for bytes of this pass: by which name it finds them later.
    pub fn keep(&mut self) -> u32 {
        let name = match self.name {
            Some(name) => name,
            None => self.kept.insert(Kept { bytes: Vec::new(), users: 0 }) as u32,
        };
        self.name = Some(name);
        self.kept[name as usize].users += 1;
        name
    }

    /// Bytes that are kept.
    pub fn kept(&self, name: u32, start: usize, end: usize) -> &[u8] {
        match self.name {
            Some(current) if current == name => self.slice(start, end),
            _ => &self.kept[name as usize].bytes[start..end],
        }
    }

    /// One of those that wait is done.
    pub fn give_back(&mut self, name: u32) {
        let kept = &mut self.kept[name as usize];
        kept.users -= 1;
        if kept.users == 0 && self.name != Some(name) {
            self.kept_bytes -= self.kept.remove(name as usize).bytes.len();
        }
    }

    /// The pass is over: what nobody waits for is forgotten.
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
        self.past_bytes += self.bytes.len() as u64;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Passes in which there were such bytes.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// Bytes of this pass and of all before it.
    pub fn total_bytes(&self) -> u64 {
        self.past_bytes + self.bytes.len() as u64
    }

    /// Bytes that are kept for those who wait.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Memory for the bytes of a pass.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
