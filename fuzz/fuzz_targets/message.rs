//! Any bytes to the receiving half of a connection, in one piece, byte by byte, and in other pieces: the same events and
//! the same violation come out, whether large messages are put together or given out in parts, and no message is longer
//! than the limit.
//!
//! The first three bytes of the input choose role and compression, the limit, and the pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::queue::pool::Pool;
use percore::internal::protocol::deflate::Inflater;
use percore::internal::protocol::mask;
use percore::internal::protocol::receiver::{Event, Piece, Receiver, Rules, Scratch};
use percore::{Kind, Message, Role, Violation};

#[derive(PartialEq, Debug)]
enum Seen {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Violated(Violation),
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[mode, limit, pieces], stream)) = bytes.split_first_chunk::<3>() else { return };
    let role = if mode & 1 == 0 { Role::Server } else { Role::Client };
    // 0 to 65,025, with many small ones.
    let rules = Rules { role, max_message: usize::from(limit) * usize::from(limit), max_frame: usize::MAX, pieces_from: None };
    let in_parts = Rules { pieces_from: Some(usize::from(pieces).max(1)), ..rules };
    let whole = receive(mode, &rules, stream, |rest| rest);
    assert_eq!(whole, receive(mode, &in_parts, stream, |rest| rest), "large messages in parts");
    assert_eq!(whole, receive(mode, &rules, stream, |_| 1), "byte by byte");
    assert_eq!(whole, receive(mode, &in_parts, stream, |_| 1), "byte by byte, large messages in parts");
    let mut state = u32::from(pieces) + 1;
    let some = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 24) as usize % (1 + usize::from(pieces))
    };
    assert_eq!(whole, receive(mode, &rules, stream, some), "in pieces");
});

/// What comes out of `stream`, cut as `piece` says of the bytes that are left.
fn receive(mode: u8, rules: &Rules, stream: &[u8], mut piece: impl FnMut(usize) -> usize) -> Vec<Seen> {
    let mut receiver = match mode >> 1 & 3 {
        0 => Receiver::new(),
        1 => Receiver::with_deflate(None),
        _ => Receiver::with_deflate(Some(Box::new(Inflater::new()))),
    };
    let (mut scratch, mut pool, mut seen) = (Scratch::default(), Pool::default(), Vec::new());
    let mut parts = Parts::default();
    let mut stream = stream.to_vec();
    let mut rest = &mut stream[..];
    while !rest.is_empty() {
        let length = piece(rest.len()).min(rest.len());
        let (mut input, after) = rest.split_at_mut(length);
        rest = after;
        while !input.is_empty() {
            // As sessions do it: the short way first.
            let used = if let Some((used, message)) = receiver.next_short(input, rules) {
                seen.push(of(message, rules));
                used
            } else {
                match receiver.next(input, rules, &mut scratch, &mut pool) {
                    Ok((used, event)) => {
                        seen.extend(event.and_then(|event| match event {
                            Event::Message(message) => Some(of(message, rules)),
                            Event::Piece(piece) => parts.take(&piece, rules),
                            Event::Ping(payload) => Some(Seen::Ping(payload.to_vec())),
                            Event::Pong(payload) => Some(Seen::Pong(payload.to_vec())),
                            Event::Close(payload) => {
                                Some(Seen::Close(payload.map(|(code, why)| (code.into(), why.into()))))
                            }
                        }));
                        used
                    }
                    Err(violation) => {
                        seen.push(Seen::Violated(violation));
                        return seen;
                    }
                }
            };
            if matches!(seen.last(), Some(Seen::Close(_))) {
                return seen;
            }
            assert!(used > 0, "bytes are taken");
            input = &mut input[used..];
        }
    }
    seen
}

/// A message that comes in parts.
#[derive(Default)]
struct Parts {
    announced: Option<usize>,
    payload: Vec<u8>,
}

impl Parts {
    /// The message, with its last part.
    fn take(&mut self, piece: &Piece<'_>, rules: &Rules) -> Option<Seen> {
        assert_eq!(piece.begins.is_some(), self.announced.is_none(), "a message begins once");
        assert!(!piece.payload.is_empty());
        let announced = piece.begins.or(self.announced)?;
        assert!(announced <= rules.max_message && rules.pieces_from.is_some_and(|from| from <= announced));
        let start = self.payload.len();
        self.payload.extend_from_slice(piece.payload);
        mask::apply(&mut self.payload[start..], piece.mask);
        assert_eq!(piece.ends, self.payload.len() == announced);
        self.announced = (!piece.ends).then_some(announced);
        piece.ends.then(|| Seen::Message(Kind::Binary, std::mem::take(&mut self.payload)))
    }
}

fn of(mut message: Message<'_>, rules: &Rules) -> Seen {
    assert!(message.len() <= rules.max_message);
    assert_eq!(message.is_text(), message.text().is_some());
    let (kind, length) = (message.kind(), message.len());
    let payload = message.payload().to_vec();
    assert_eq!(payload.len(), length);
    Seen::Message(kind, payload)
}
