//! Large buffers kept warm for the next large message, so that it neither asks the kernel for pages nor clears them.

/// A buffer below this size is cheaper made than kept.
const SMALLEST_BYTES: usize = 64 * 1024;
/// What the pool holds at most, in all.
const LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// Buffers, each initialised as far as it is long. The one given last, and so the warmest, is taken first.
#[derive(Default)]
pub struct Pool {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// A buffer, empty when the pool is.
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.len();
        buffer
    }

    /// Keeps a buffer, or frees it when it is small or the pool is full.
    pub fn give(&mut self, buffer: Vec<u8>) {
        if buffer.len() >= SMALLEST_BYTES && self.bytes + buffer.len() <= LIMIT_BYTES {
            self.bytes += buffer.len();
            self.buffers.push(buffer);
        }
    }

    /// Bytes of the buffers that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frees the buffers that are kept.
    pub fn clear(&mut self) {
        *self = Pool::default();
    }
}
