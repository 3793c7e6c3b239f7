//! permessage-deflate's compression (RFC 7692, section 7.2): raw DEFLATE, each message ended by a sync flush whose
//! last four bytes are left out on the wire.

use super::close::Violation;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a sync flush ends with, and what a message ends without.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
const FIRST_OUTPUT_BYTES: usize = 4096;

/// Decompresses messages.
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new()
    }
}

impl Inflater {
    /// An empty window of 32 KiB, which serves every smaller one as well.
    pub fn new() -> Inflater {
        Inflater(Decompress::new(false))
    }

    /// Forgets the window, for the next message of a peer without context takeover.
    pub fn reset(&mut self) {
        self.0.reset(false);
    }

    /// Decompresses a whole message to the end of `out`.
    ///
    /// # Errors
    /// `TooBig` as soon as `out` would be longer than `limit` bytes, `BadDeflate` for anything else.
    pub fn inflate(&mut self, payload: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Violation> {
        self.feed(payload, out, limit)?;
        self.feed(&TAIL, out, limit)
    }

    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Violation> {
        loop {
            if out.len() == out.capacity() {
                // One byte more than allowed tells a message at the limit from one beyond.
                let room =
                    out.len().max(FIRST_OUTPUT_BYTES).min(limit.saturating_add(1).saturating_sub(out.len())).max(1);
                out.reserve_exact(room);
            }
            let before = self.0.total_in();
            let status = self.0.decompress_vec(input, out, FlushDecompress::Sync).map_err(|_| Violation::BadDeflate)?;
            let taken = (self.0.total_in() - before) as usize;
            input = &input[taken..];
            if out.len() > limit {
                return Err(Violation::TooBig { limit });
            }
            match status {
                // A final block ends the stream, not the message (section 7.2.3.4).
                Status::StreamEnd => self.0.reset(false),
                Status::BufError if taken == 0 && !input.is_empty() && out.len() < out.capacity() => {
                    return Err(Violation::BadDeflate);
                }
                Status::Ok | Status::BufError => {}
            }
            if input.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

/// Compresses messages.
pub struct Deflater {
    stream: Compress,
    takeover: bool,
}

impl Deflater {
    /// A compressor with a window of 2 to the power of `window_bits` bytes (9 to 15). `level` is 1 (fast) to 9 (small).
    /// With `takeover` its window lives on from one message to the next.
    pub fn new(level: u32, window_bits: u8, takeover: bool) -> Deflater {
        let stream = Compress::new_with_window_bits(Compression::new(level), false, window_bits.clamp(9, 15));
        Deflater { stream, takeover }
    }

    /// Compresses a message to the end of `out`.
    pub fn deflate(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) {
        if !self.takeover {
            self.stream.reset();
        }
        for part in parts {
            self.feed(part, FlushCompress::None, out);
        }
        self.feed(&[], FlushCompress::Sync, out);
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
    }

    fn feed(&mut self, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
        loop {
            if out.len() == out.capacity() {
                out.reserve(out.len().max(FIRST_OUTPUT_BYTES));
            }
            let before = self.stream.total_in();
            let result = self.stream.compress_vec(input, out, flush);
            debug_assert!(result.is_ok(), "deflate fails only when misused");
            input = &input[(self.stream.total_in() - before) as usize..];
            if input.is_empty() && out.len() < out.capacity() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn deflate_then_inflate_is_identity(
            messages in prop::collection::vec(prop::collection::vec(prop::sample::select(b"abcd\0\xff".to_vec()), 1..5000), 1..6),
            takeover: bool, bits in 9u8..=15, level in 1u32..=9
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(level, bits, takeover), Inflater::new());
            for message in messages {
                let (mut small, mut back) = (Vec::new(), Vec::new());
                let (first, second) = message.split_at(message.len() / 3);
                deflater.deflate(&[first, second], &mut small);
                if !takeover {
                    inflater.reset();
                }
                inflater.inflate(&small, &mut back, message.len()).expect("our own output");
                prop_assert_eq!(&back, &message);
            }
        }

        #[test]
        fn noise_never_panics_and_never_passes_the_limit(noise in prop::collection::vec(any::<u8>(), 0..300), limit in 0usize..2000) {
            let mut out = Vec::new();
            let _ = Inflater::new().inflate(&noise, &mut out, limit);
            prop_assert!(out.len() <= limit + 1);
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut small = Vec::new();
        Deflater::new(9, 15, false).deflate(&[&vec![0; 50_000_000]], &mut small);
        assert!(small.len() < 100_000);
        let mut out = Vec::new();
        let limit = 1_000_000;
        assert_eq!(Inflater::new().inflate(&small, &mut out, limit), Err(Violation::TooBig { limit }));
        assert!(out.capacity() <= 2 * limit);
        out.clear();
        assert_eq!(Inflater::new().inflate(&small, &mut out, 50_000_000), Ok(()));
    }

    /// RFC 7692, section 7.2.3: its examples of "Hello".
    #[test]
    fn the_examples_of_the_rfc() {
        let mut inflater = Inflater::new();
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            let mut out = Vec::new();
            inflater.inflate(payload, &mut out, 100).expect("an example");
            assert_eq!(out, b"Hello", "{payload:02x?}");
        }
        assert_eq!(inflater.inflate(&[0xff; 9], &mut Vec::new(), 100), Err(Violation::BadDeflate));
    }
}
