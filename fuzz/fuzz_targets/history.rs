//! Any bytes as the file of a history, and as what is said of it over the bus: nothing panics, what is read is written as it was, and
//! what the entries come to keeps to its promises.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::pubsub::history::ask::Ask;
use percore::internal::pubsub::history::entry::{self, Entry, Found};
use percore::internal::pubsub::history::keeper::Keeper;
use percore::internal::pubsub::history::word::Word;
use std::time::Duration;

const LOG: u64 = 7;

fuzz_target!(|bytes: &[u8]| {
    let _ = (entry::find(bytes, 0), Ask::read(bytes), Word::read(bytes));
    // Payloads of a length that their first byte says, framed, so that the checksums are right.
    let (mut rest, mut file) = (bytes, Vec::new());
    while let Some((length, tail)) = rest.split_first() {
        let (payload, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        if let Some(entry) = Entry::read(payload) {
            assert_eq!(Entry::read(&entry.payload()), Some(entry));
        }
        if !payload.is_empty() {
            file.extend(entry::frame(LOG, file.len() as u64, payload));
        }
        rest = tail;
    }
    let (mut keeper, mut at) = (Keeper::new(1), 0);
    while let Found::Whole { log, payload } = entry::find(&file[at..], at as u64) {
        assert_eq!(log, LOG);
        keeper.apply(payload, at as u64, Duration::from_secs(1));
        at += entry::HEAD_BYTES + payload.len();
    }
    assert_eq!(at, file.len());
    keeper.follow(LOG);
    keeper.lead(1000, Duration::from_secs(2));
    while keeper.unwritten().is_some() {
        keeper.wrote(at as u64, Duration::from_secs(2));
        at += 1;
    }
    // What is written anew comes to the same.
    let mut again = Keeper::new(1);
    for name in keeper.names() {
        for payload in keeper.payloads_of(&name) {
            again.apply(&payload, at as u64, Duration::from_secs(2));
            at += payload.len() + entry::HEAD_BYTES;
        }
        assert_eq!(again.ledger().streams.position(&name), keeper.ledger().streams.position(&name));
    }
});
