//! Any bytes to the decompressor: it keeps to the limit, and forgets everything when it is reset. Any messages through
//! the compressor: they come back, with and without context takeover, for every window and level.
//!
//! The first three bytes of the input choose window, level, takeover and the limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::Violation;
use percore::internal::protocol::deflate::{Deflater, Inflater, Output};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[mode, level, limit], bytes)) = bytes.split_first_chunk::<3>() else { return };
    inflate(bytes, usize::from(limit) * usize::from(limit));
    there_and_back(9 + mode % 7, mode & 0x80 != 0, 1 + u32::from(level) % 9, bytes);
});

fn inflate(bytes: &[u8], limit: usize) {
    let mut inflater = Inflater::new();
    let mut out = Output::new();
    let first = inflater.inflate(bytes, &mut out, limit);
    match first {
        Ok(()) => assert!(out.len() <= limit),
        Err(Violation::TooBig { limit: told }) => assert!(told == limit && out.len() == limit + 1),
        Err(violation) => assert_eq!(violation, Violation::BadDeflate),
    }
    assert!(out.held_bytes() <= limit + 1, "{} bytes held for {limit}", out.held_bytes());
    assert!(inflater.steps() <= 257 + out.len() / 512, "{} steps for {} bytes", inflater.steps(), out.len());
    inflater.reset();
    let mut again = Output::new();
    assert_eq!(inflater.inflate(bytes, &mut again, limit), first);
    assert_eq!(again[..], out[..]);
}

/// The bytes as messages: each begins with its length.
fn there_and_back(window_bits: u8, takeover: bool, level: u32, mut bytes: &[u8]) {
    let (mut deflater, mut inflater) = (Deflater::new(level, window_bits, takeover), Inflater::new());
    while let Some((&length, rest)) = bytes.split_first() {
        let (message, rest) = rest.split_at(rest.len().min(usize::from(length)));
        bytes = rest;
        // Long enough to leave a small window behind, and to fill more than one output buffer.
        let message = message.repeat(1 + usize::from(length) % 16);
        let (first, second) = message.split_at(message.len() / 2);
        let mut small = Output::new();
        deflater.deflate(&[first, second], &mut small);
        if !takeover {
            inflater.reset();
        }
        let mut back = Output::new();
        assert_eq!(inflater.inflate(&small, &mut back, message.len()), Ok(()), "{:02x?}", &small[..]);
        assert_eq!(back[..], message[..]);
    }
}
