//! Large buffers kept for the next large message, which then needs no new pages from the kernel.

/// Allocating a buffer below this size is cheaper than keeping it.
const SMALLEST_BYTES: usize = 64 * 1024;
/// Limit on the total size of the pool.
const LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// Buffers, initialised to their full length. The last one returned, and so the warmest, is taken first.
#[derive(Default)]
pub struct Pool {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Takes a buffer; an empty one if the pool is empty.
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.len();
        buffer
    }

    /// Keeps a buffer, or frees it if it is small or the pool is full.
    pub fn give(&mut self, buffer: Vec<u8>) {
        if buffer.len() >= SMALLEST_BYTES && self.bytes + buffer.len() <= LIMIT_BYTES {
            self.bytes += buffer.len();
            self.buffers.push(buffer);
        }
    }

    /// Total bytes of the kept buffers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frees the kept buffers.
    pub fn clear(&mut self) {
        *self = Pool::default();
    }
}
