//! Any bytes as what Redis sends: they are read to an end or an error, to the same one however they are split, and what is kept
//! of them is bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::bridge::resp::Replies;
use percore::internal::bridge::wire;

const LIMIT: usize = 256;

/// The replies, as text, and the error at their end.
fn read(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut parser, mut all) = (Replies::new(LIMIT), Vec::new());
    for piece in pieces {
        parser.feed(piece);
        loop {
            match parser.next_reply() {
                Ok(Some(reply)) => all.push(format!("{reply:?}")),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let whole = read(&[bytes]);
    assert_eq!(whole, read(&[front, back]));
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(whole, read(&single));
    let _ = wire::read(bytes);
});
