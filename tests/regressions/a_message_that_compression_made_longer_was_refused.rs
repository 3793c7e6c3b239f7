//! Noise grows by a few bytes when it is compressed. A message just within the limit was refused with 1009, because its
//! compressed form was held against a limit that is meant for what it decompresses to.

use percore::internal::protocol::receiver::{Event, Receiver, Rules, Scratch};
use percore::internal::queue::pool::Pool;
use percore::{Role, Violation};

const LIMIT: usize = 100;

/// A frame that holds `length` bytes in one stored block, five bytes longer than they are, and a last empty one.
fn stored(length: u8) -> Vec<u8> {
    let mut payload = vec![0, length, 0, !length, 0xff];
    payload.extend(vec![7; usize::from(length)]);
    payload.push(0);
    [&[0xc2, payload.len() as u8][..], &payload].concat()
}

fn received(mut bytes: Vec<u8>, cut: usize) -> Result<usize, Violation> {
    let rules = Rules { role: Role::Client, max_message: LIMIT, max_frame: usize::MAX, pieces_from: None };
    let (mut receiver, mut scratch, mut pool) = (Receiver::with_deflate(None), Scratch::default(), Pool::default());
    let (first, second) = bytes.split_at_mut(cut);
    receiver.next(first, &rules, &mut scratch, &mut pool)?;
    match receiver.next(second, &rules, &mut scratch, &mut pool)? {
        (_, Some(Event::Message(message))) => Ok(message.len()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_limit_is_on_what_it_decompresses_to() {
    for cut in [0, 1, 50] {
        assert_eq!(received(stored(LIMIT as u8), cut), Ok(LIMIT), "cut after {cut} bytes");
        assert_eq!(received(stored(LIMIT as u8 + 1), cut), Err(Violation::TooBig { limit: LIMIT }));
    }
}
