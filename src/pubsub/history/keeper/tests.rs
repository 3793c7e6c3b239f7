//! Entries in any order, as only a damaged or foreign log could hold them: their state keeps its invariants, and
//! survives a rewrite unchanged.

use super::*;
use crate::pubsub::history::entry::length;
use crate::pubsub::streams::Keep;
use proptest::prelude::*;

fn epoch(number: u8) -> Epoch {
    Epoch::from_bytes([b'a' + number % 3; 8]).expect("letters")
}

/// A payload: an encoded entry, or arbitrary bytes.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (0u8..9, 0u8..3, 0u64..8, 0u64..8, 0u64..4, 0usize..5);
    (numbers, prop::collection::vec(any::<u8>(), 0..60)).prop_map(|((kind, name, offset, first, at, size), noise)| {
        let (channel, text) = (["a", "b", "c"][usize::from(name)], "{\"data\":1}");
        let position = Position { offset, epoch: epoch(name.wrapping_add(at as u8)) };
        let (at, keep) =
            (Duration::from_secs(at), Keep { size, ttl: Duration::from_secs(3), meta_ttl: Duration::from_secs(5) });
        let by = By { origin: first, sequence: offset };
        match kind {
            0 => Entry::Head { removals: first, origins: vec![by] }.payload(),
            1 | 2 => Entry::Published { channel, position, at, by, keep, key: "k", text }.payload(),
            3 => Entry::Opened { channel, position, at, keep }.payload(),
            4 => Entry::Emptied { channel, at, by }.payload(),
            5 => Entry::Removed { channel }.payload(),
            6 => Entry::Stream { channel, first, top: position, used: at, keep }.payload(),
            7 => Entry::More { channel, first, publications: vec![(at, text); size] }.payload(),
            _ => noise,
        }
    })
}

proptest! {
    #[test]
    fn any_entries_come_to_streams_that_can_be_written_anew(
        payloads in prop::collection::vec(payload(), 0..60), max_bytes in 0usize..3000
    ) {
        let (mut keeper, mut end, now) = (Keeper::new(1), 0, Duration::from_secs(4));
        for payload in &payloads {
            keeper.apply(payload, end, now);
            end += length(payload);
        }
        keeper.follow(7);
        keeper.lead(max_bytes, now);
        let removals = keeper.ledger().removals;
        let mut removed = 0;
        while let Some(payload) = keeper.unwritten() {
            let next = end + length(payload);
            keeper.wrote(end, now);
            (end, removed) = (next, removed + 1);
        }
        prop_assert_eq!(keeper.ledger().removals, removals + removed);
        prop_assert!(keeper.ledger().streams.held().1 <= max_bytes.max(400));
        let mut again = Keeper::new(1);
        let first_end = end;
        while let Some((name, parts)) = keeper.stream_before(first_end) {
            let begin = end;
            for payload in &parts {
                again.apply(payload, end, now);
                end += length(payload);
            }
            keeper.moved(&name, begin);
            let (one, other) = (keeper.payloads_of(&name), again.payloads_of(&name));
            prop_assert_eq!(one, other, "{}", name);
        }
        prop_assert_eq!(again.names().len(), keeper.names().len());
    }
}
