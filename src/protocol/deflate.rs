//! Compression for permessage-deflate (RFC 7692, section 7.2): raw DEFLATE, each message ended by a sync flush whose
//! last four bytes are not sent.
//!
//! The cost of a message is bounded by its length and by that of the output, whatever its bytes are: no call touches
//! more of a buffer than it fills, and an [`Inflater`] refuses messages that consist of little but blocks.

use super::close::Violation;
use std::ops::Deref;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

/// The end of a sync flush, left out of each message.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The initial length of an [`Output`].
const FIRST_OUTPUT_BYTES: usize = 4096;
/// Final blocks allowed per message. A sender uses one at its end, or none; each makes the decompressor start again.
const MAX_STREAM_ENDS: usize = 64;
/// Calls of the decompressor allowed per message, one for each block, whatever the output.
const MIN_STEPS: usize = 256;
/// Bytes of output that allow a message one more call. A block may take ten bytes and cost a microsecond, as much as a
/// kilobyte of text, and contain nothing.
const BYTES_PER_STEP: usize = 512;

/// A buffer for one message after another. Bytes once written stay initialised, so that a short message after a long
/// one costs no more than before.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    filled: usize,
}

impl Output {
    /// An empty buffer.
    pub fn new() -> Output {
        Output::default()
    }

    /// Memory that it holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Space for more output, up to `most` bytes in total. Empty only when these are full.
    fn room(&mut self, most: usize) -> &mut [u8] {
        if self.filled == self.bytes.len() {
            let length = (2 * self.filled).max(FIRST_OUTPUT_BYTES).min(most.max(self.filled));
            self.bytes.reserve_exact(length - self.filled);
            self.bytes.resize(length, 0);
        }
        let end = self.bytes.len().min(most);
        &mut self.bytes[self.filled..end]
    }
}

impl Deref for Output {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// Decompresses messages.
pub struct Inflater {
    stream: Inflate,
    steps: usize,
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new()
    }
}

impl Inflater {
    /// An empty window of 32 KiB, which also serves every smaller one.
    pub fn new() -> Inflater {
        Inflater { stream: Inflate::new(false, 15), steps: 0 }
    }

    /// Clears the window, for the next message of a peer without context takeover.
    pub fn reset(&mut self) {
        self.stream.reset(false);
    }

    /// Calls of the decompressor that the last message took.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Decompresses a whole message to `out`, replacing its content.
    ///
    /// # Errors
    /// `TooBig` as soon as `out` would exceed `limit` bytes, `BadDeflate` for any other error: also for a message with
    /// more blocks than a sender would use for its content.
    pub fn inflate(&mut self, payload: &[u8], out: &mut Output, limit: usize) -> Result<(), Violation> {
        out.filled = 0;
        self.steps = 0;
        let mut stream_ends = 0;
        self.feed(payload, out, limit, &mut stream_ends)?;
        self.feed(&TAIL, out, limit, &mut stream_ends)
    }

    fn feed(
        &mut self,
        mut input: &[u8],
        out: &mut Output,
        limit: usize,
        stream_ends: &mut usize,
    ) -> Result<(), Violation> {
        loop {
            // One byte more than allowed distinguishes a message at the limit from one beyond it.
            let room = out.room(limit.saturating_add(1));
            let (taken, made) = (self.stream.total_in(), self.stream.total_out());
            // A call ends with a block, so that blocks are counted.
            let status = self.stream.decompress(input, room, InflateFlush::Block).map_err(|_| Violation::BadDeflate)?;
            let (taken, made) = (self.stream.total_in() - taken, (self.stream.total_out() - made) as usize);
            let is_full = made == room.len();
            input = &input[taken as usize..];
            out.filled += made;
            self.steps += 1;
            if out.len() > limit {
                return Err(Violation::TooBig { limit });
            }
            if status == Status::StreamEnd {
                // A final block ends the stream, not the message (section 7.2.3.4).
                self.stream.reset(false);
                *stream_ends += 1;
            }
            if *stream_ends > MAX_STREAM_ENDS || self.steps > MIN_STEPS + out.len() / BYTES_PER_STEP {
                return Err(Violation::BadDeflate);
            }
            if input.is_empty() && !is_full {
                return Ok(());
            }
        }
    }
}

/// Compresses messages.
pub struct Deflater {
    stream: Deflate,
    takeover: bool,
}

impl Deflater {
    /// A compressor with a window of 2 to the power of `window_bits` bytes (9 to 15). `level` is 1 (fast) to 9 (small).
    /// With `takeover` it keeps its window from one message to the next.
    pub fn new(level: u32, window_bits: u8, takeover: bool) -> Deflater {
        let stream = Deflate::new(level.clamp(1, 9) as i32, false, window_bits.clamp(9, 15));
        Deflater { stream, takeover }
    }

    /// Compresses a message to `out`, replacing its content.
    pub fn deflate(&mut self, parts: &[&[u8]], out: &mut Output) {
        out.filled = 0;
        if !self.takeover {
            self.stream.reset();
        }
        for part in parts {
            self.feed(part, DeflateFlush::NoFlush, out);
        }
        self.feed(&[], DeflateFlush::SyncFlush, out);
        if out.ends_with(&TAIL) {
            out.filled -= TAIL.len();
        }
    }

    fn feed(&mut self, mut input: &[u8], flush: DeflateFlush, out: &mut Output) {
        loop {
            let room = out.room(usize::MAX);
            let (taken, made) = (self.stream.total_in(), self.stream.total_out());
            let result = self.stream.compress(input, room, flush);
            debug_assert!(result.is_ok(), "deflate fails only when misused");
            let (taken, made) = (self.stream.total_in() - taken, (self.stream.total_out() - made) as usize);
            let is_full = made == room.len();
            input = &input[taken as usize..];
            out.filled += made;
            if result.is_err() || (input.is_empty() && !is_full) {
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
                let (mut small, mut back) = (Output::new(), Output::new());
                let (first, second) = message.split_at(message.len() / 3);
                deflater.deflate(&[first, second], &mut small);
                if !takeover {
                    inflater.reset();
                }
                inflater.inflate(&small, &mut back, message.len()).expect("our own output");
                prop_assert_eq!(&back[..], &message);
            }
        }

        #[test]
        fn noise_never_panics_and_never_passes_the_limit(noise in prop::collection::vec(any::<u8>(), 0..300), limit in 0usize..2000) {
            let mut out = Output::new();
            let _ = Inflater::new().inflate(&noise, &mut out, limit);
            prop_assert!(out.len() <= limit + 1);
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut small = Output::new();
        Deflater::new(9, 15, false).deflate(&[&vec![0; 50_000_000]], &mut small);
        assert!(small.len() < 100_000);
        let mut out = Output::new();
        let limit = 1_000_000;
        assert_eq!(Inflater::new().inflate(&small, &mut out, limit), Err(Violation::TooBig { limit }));
        assert!(out.held_bytes() <= limit + 1);
        assert_eq!(Inflater::new().inflate(&small, &mut out, 50_000_000), Ok(()));
    }

    /// Clearing the space would make every short message cost what the longest one did.
    #[test]
    fn a_long_message_leaves_nothing_to_clear_for_short_ones() {
        let (mut deflater, mut inflater) = (Deflater::new(1, 15, false), Inflater::new());
        let (mut small, mut long, mut out) = (Output::new(), Output::new(), Output::new());
        deflater.deflate(&[b"short"], &mut small);
        deflater.deflate(&[&[b'x'; 1_000_000]], &mut long);
        inflater.inflate(&long, &mut out, 1_000_000).expect("our own output");
        inflater.reset();
        inflater.inflate(&small, &mut out, 1_000_000).expect("our own output");
        // The decompressor may write some bytes beyond its output.
        assert!(&out[..] == b"short" && out.bytes[1000..1_000_000].iter().all(|byte| *byte == b'x'));
        let (noise, mut packed) =
            (Vec::from_iter((0..200_000u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8)), small);
        deflater.deflate(&[&noise], &mut packed);
        let before = packed.to_vec();
        deflater.deflate(&[b"short"], &mut packed);
        assert!(packed.bytes[1000..before.len()] == before[1000..]);
    }

    #[test]
    fn final_blocks_are_counted() {
        let (ends, hello) = (|count: usize| [3, 0].repeat(count), [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        let (mut inflater, mut out) = (Inflater::new(), Output::new());
        for count in [1, 2, MAX_STREAM_ENDS] {
            let payload = [&ends(count)[..], &hello].concat();
            assert_eq!(inflater.inflate(&payload, &mut out, 100), Ok(()), "{count} final blocks");
            assert_eq!(&out[..], b"Hello");
        }
        for count in [MAX_STREAM_ENDS + 1, 100_000] {
            inflater.reset();
            let payload = [&ends(count)[..], &hello].concat();
            assert_eq!(inflater.inflate(&payload, &mut out, 100), Err(Violation::BadDeflate), "{count} final blocks");
            assert!(inflater.steps() <= 2 * MAX_STREAM_ENDS + 2);
        }
    }

    #[test]
    fn blocks_are_counted() {
        let (mut inflater, mut out) = (Inflater::new(), Output::new());
        let empty = [0, 0, 0, 0xff, 0xff];
        assert_eq!(inflater.inflate(&[&empty.repeat(200)[..], &[0]].concat(), &mut out, 100), Ok(()));
        // Empty blocks, stored and of fixed codes.
        for payload in [empty.repeat(1 << 18), [0x02, 0x08, 0x20, 0x80, 0].repeat(1 << 18)] {
            inflater.reset();
            assert_eq!(inflater.inflate(&payload, &mut out, 1 << 20), Err(Violation::BadDeflate));
            assert_eq!((inflater.steps(), out.len()), (MIN_STEPS + 1, 0));
        }
        // A sender that flushes every kilobyte is accepted, however long its message.
        let mut stream = Deflate::new(6, false, 15);
        let (text, mut flushed) = (b"to be or not to be, that is the question; ".repeat(25_000), Vec::new());
        let mut part = [0; 2048];
        for kilobyte in text.chunks(1024) {
            let before = stream.total_out();
            stream.compress(kilobyte, &mut part, DeflateFlush::SyncFlush).expect("room");
            flushed.extend_from_slice(&part[..(stream.total_out() - before) as usize]);
        }
        inflater.reset();
        assert_eq!(inflater.inflate(&flushed, &mut out, text.len()), Ok(()));
        assert!(out[..] == text[..]);
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
            let mut out = Output::new();
            inflater.inflate(payload, &mut out, 100).expect("an example");
            assert_eq!(&out[..], b"Hello", "{payload:02x?}");
        }
        assert_eq!(inflater.inflate(&[0xff; 9], &mut Output::new(), 100), Err(Violation::BadDeflate));
    }
}
