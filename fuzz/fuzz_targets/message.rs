//! Any bytes to the receiving half of a connection, in one piece, byte by byte, and in other pieces: the same events and
//! the same violation come out, no message is longer than the limit, and nothing is held between messages.
//!
//! The first three bytes of the input choose role and compression, the limit, and the pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::data::pool::Pool;
use percore::protocol::deflate::Inflater;
use percore::protocol::receiver::{Event, Receiver, Rules, Scratch};
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
    let rules = Rules { role, max_message: usize::from(limit) * usize::from(limit), pieces_from: None };
    let whole = receive(mode, &rules, stream, |rest| rest);
    assert_eq!(whole, receive(mode, &rules, stream, |_| 1), "byte by byte");
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
                        seen.extend(event.map(|event| match event {
                            Event::Message(message) => of(message, rules),
                            Event::Piece(piece) => unreachable!("{piece:?} was not asked for"),
                            Event::Ping(payload) => Seen::Ping(payload.to_vec()),
                            Event::Pong(payload) => Seen::Pong(payload.to_vec()),
                            Event::Close(payload) => Seen::Close(payload.map(|(code, why)| (code.into(), why.into()))),
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

fn of(mut message: Message<'_>, rules: &Rules) -> Seen {
    assert!(message.len() <= rules.max_message);
    assert_eq!(message.is_text(), message.text().is_some());
    let (kind, length) = (message.kind(), message.len());
    let payload = message.payload().to_vec();
    assert_eq!(payload.len(), length);
    Seen::Message(kind, payload)
}
