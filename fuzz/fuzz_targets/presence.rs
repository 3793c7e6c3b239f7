//! Any bytes as the file with a participant's list: what is read of it is a list that says the same when it is read again, and
//! a mirror takes it, before and after other things that were told.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::bus::list::{header, read};
use percore::{Participant, Presence, Records};

fuzz_target!(|bytes: &[u8]| {
    let (one, two) = (Participant { slot: 0, generation: 1 }, Participant { slot: 1, generation: 1 });
    let _ = read(bytes.to_vec(), one);
    let Some(list) = read([&header(1), bytes].concat(), one) else { return };
    let mut presence = Presence::default();
    let (mut entered, mut left) = (0u64, 0u64);
    presence.replace(one, &list, |change| {
        assert!(change.entered);
        entered += 1;
    });
    for record in Records::from_bytes(bytes.to_vec()).iter() {
        presence.apply(two, record, |_| {});
    }
    let again = presence.list(one);
    presence.replace(one, &again, |change| panic!("{change:?} is no news"));
    // Both heard the same, one of them bit by bit.
    assert_eq!(presence.list(two).bytes().len(), list.bytes().len());
    let members: u64 = presence.channels().map(|channel| presence.members(channel).count() as u64).sum();
    assert_eq!(members, 2 * entered);
    presence.remove(two, |_| {});
    presence.remove(one, |change| {
        assert!(!change.entered);
        left += 1;
    });
    assert_eq!((left, presence.channels().count()), (entered, 0));
});
