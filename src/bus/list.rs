//! The format of a participant's list of channel members, in a file of its own.
//!
//! ```text
//! 8 bytes   "presence"
//! 4 bytes   layout version, little-endian
//! 4 bytes   which of the slot's owners wrote it, little-endian
//! then      Count, Enter and Leave records, one after another: what was told, in its order
//! ```
//!
//! A record is its kind (1 byte), the lengths of channel (2 bytes) and payload (4 bytes), little-endian, and then both.
//! Only the last record of a member or a count is valid. The content is not trusted.

use super::region::is_newer;
use crate::channel::presence::Presence;
use crate::channel::record::Records;
use crate::net::id::Participant;

const MAGIC: [u8; 8] = *b"presence";
/// Changes with the format of the list, and with that of its records.
const LAYOUT_VERSION: u32 = 1;
/// Bytes before the records.
pub const HEADER_BYTES: usize = 16;
/// Maximum length of a list: a million members with long names fit. A longer file cannot be a list.
pub const MAX_LIST_BYTES: usize = 64 << 20;

/// The header of the list of a slot's owner.
pub fn header(generation: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
    header[12..].copy_from_slice(&generation.to_le_bytes());
    header
}

/// The valid records of a list, as Counts and Enters: none if the list is a later owner's; the whole records if it is
/// truncated. `None` if it is not a list of this format, or too long.
pub fn read(mut bytes: Vec<u8>, owner: Participant) -> Option<Records> {
    let is_list = bytes.len() <= MAX_LIST_BYTES && bytes.starts_with(&header(owner.generation)[..12]);
    if !is_list || bytes.len() < HEADER_BYTES {
        return None;
    }
    let generation = bytes[12..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if generation != owner.generation {
        return is_newer(generation, owner.generation).then(Records::new);
    }
    bytes.drain(..HEADER_BYTES);
    let mut told = Presence::default();
    told.replace(owner, &Records::from_bytes(bytes), |_| {});
    Some(told.list(owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::record::{Interest, RecordKind};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const OWNER: Participant = Participant { slot: 3, generation: 7 };

    fn log() -> Vec<u8> {
        let count = |subscribers| Interest { subscribers, listens: false }.bytes();
        let mut records = Records::new();
        records.push(RecordKind::Count, b"a", &[&count(1)]);
        records.push(RecordKind::Enter, b"a", &[b"x"]);
        records.push(RecordKind::Enter, b"a", &[b"y"]);
        records.push(RecordKind::Count, b"b", &[&count(5)]);
        records.push(RecordKind::Leave, b"a", &[b"x"]);
        records.push(RecordKind::Count, b"b", &[&count(0)]);
        [&header(OWNER.generation), records.bytes()].concat()
    }

    #[test]
    fn what_still_holds_is_read() {
        let mut want = Records::new();
        want.push(RecordKind::Count, b"a", &[&Interest { subscribers: 1, listens: false }.bytes()]);
        want.push(RecordKind::Enter, b"a", &[b"y"]);
        assert_eq!(read(log(), OWNER), Some(want));
        let owner = |generation| Participant { generation, ..OWNER };
        assert_eq!(read(log(), owner(6)), Some(Records::new()), "a later owner's");
        assert_eq!(read(log(), owner(8)), None, "a former owner's");
        for (byte, name) in [(0, "magic"), (8, "version")] {
            let mut other = log();
            other[byte] ^= 1;
            assert_eq!(read(other, OWNER), None, "{name}");
        }
        assert_eq!(read(header(7).to_vec(), OWNER), Some(Records::new()));
        assert_eq!(read(header(7)[..HEADER_BYTES - 1].to_vec(), OWNER), None, "cut off");
    }

    #[test]
    fn a_list_that_is_too_long_is_none() {
        let mut long = log();
        long.resize(MAX_LIST_BYTES + 1, 0);
        assert_eq!(read(long, OWNER), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200), cut in 0usize..100) {
            read(bytes.clone(), OWNER);
            let mut log = log();
            log.truncate(cut);
            log.extend(bytes);
            read(log, OWNER);
        }
    }
}
