//! Any bytes as content in chunks, after a byte that says where they are cut.
//!
//! Nothing panics; any pieces give the same content, or the same refusal; what was taken is within the limit and no more
//! than came; and a length takes so many bytes as they are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::protocol::content::{Content, Framing};

const LIMIT: usize = 500;
const OVERHEAD: usize = 60;

/// Content, how many bytes it took up, and whether it is whole; or the status that refuses it.
type Taken = Result<(Vec<u8>, usize, bool), u16>;

fn take<'a>(framing: Framing, pieces: impl Iterator<Item = &'a [u8]>) -> Taken {
    let mut content = Content::new(framing, LIMIT, OVERHEAD).map_err(|bad| bad.0)?;
    let (mut out, mut used, mut is_whole) = (Vec::new(), 0, false);
    for piece in pieces {
        let (bytes, ends) = content.take(piece, &mut out).map_err(|bad| bad.0)?;
        assert!(ends || bytes == piece.len());
        assert!(!is_whole || bytes == 0, "nothing is taken after the end");
        (used, is_whole) = (used + bytes, ends);
        assert!(out.len() <= LIMIT && out.len() == content.taken());
        assert!(out.capacity() <= 2 * used.max(8), "{} bytes held for {used}", out.capacity());
    }
    Ok((out, used, is_whole))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let whole = take(Framing::Chunked, std::iter::once(bytes));
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(take(Framing::Chunked, [first, second].into_iter()), whole);
    assert_eq!(take(Framing::Chunked, bytes.chunks(1)), whole);
    if let Ok((out, used, _)) = &whole {
        assert!(out.len() <= *used);
    }
    let length = usize::from(cut);
    let plain = take(Framing::Length(length as u64), bytes.chunks(3));
    let taken = length.min(bytes.len());
    assert_eq!(plain, Ok((bytes[..taken].to_vec(), taken, taken == length && !bytes.is_empty())));
});
