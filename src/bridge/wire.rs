//! The messages of bridges on Redis: `percore:<host>:<letter>:<payload>`. The host is 16 hexadecimal digits, which each
//! bridge chooses at random when it starts, to recognise its own messages; the letter is the kind of the payload.

use crate::channel::record::{RecordKind, Records};
use std::fmt;
use std::io::Write;

/// The Redis channel on which bridges exchange presence.
pub const PRESENCE_CHANNEL: &[u8] = b"percore-presence";
/// Returns whether a bus's channel stays on its host: the workers of a service use it among themselves.
pub fn is_of_host(channel: &[u8]) -> bool {
    channel.starts_with(b"percore.")
}

/// Bytes before the payload.
pub const HEAD_BYTES: usize = PREFIX.len() + DIGITS + 3;
/// Most bytes of records in a presence message; a longer list takes several.
pub const PART_BYTES: usize = 64 << 10;

const PREFIX: &[u8] = b"percore:";
const DIGITS: usize = 16;

/// The id of a bridge, and so of its host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostId(pub u64);

impl HostId {
    /// Reads 16 hexadecimal digits.
    pub fn read(digits: &[u8]) -> Option<HostId> {
        let digits = std::str::from_utf8(digits).ok().filter(|text| text.len() == DIGITS)?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| is_plain).map(HostId)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The kind of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A text message for the subscribers of the channel.
    Text = b't',
    /// A binary message for them.
    Binary = b'b',
    /// This bridge is new on Redis: all others send it their members.
    Hello = b'h',
    /// Asks one host for its list: the payload is its id.
    Ask = b'q',
    /// A list begins: the payload is its first records.
    ListBegins = b'l',
    /// The list goes on.
    ListGoesOn = b'm',
    /// The list is complete: it has all members of the host.
    ListEnds = b'e',
    /// Members joined or left.
    Changes = b'c',
    /// A sign of life.
    Alive = b'a',
    /// The bridge is leaving.
    Goodbye = b'g',
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Text,
        Kind::Binary,
        Kind::Hello,
        Kind::Ask,
        Kind::ListBegins,
        Kind::ListGoesOn,
        Kind::ListEnds,
        Kind::Changes,
        Kind::Alive,
        Kind::Goodbye,
    ];

    /// The kind that a record is sent as, if it is a message.
    pub fn of(kind: RecordKind) -> Option<Kind> {
        match kind {
            RecordKind::Text => Some(Kind::Text),
            RecordKind::Binary => Some(Kind::Binary),
            RecordKind::Count | RecordKind::Enter | RecordKind::Leave => None,
        }
    }
}

/// Returns the head that precedes a payload.
pub fn head(host: HostId, kind: Kind) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    // Always fits.
    let _ = write!(&mut bytes[..], "percore:{host}:{}:", char::from(kind as u8));
    bytes
}

/// A message received on a channel of Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// From a bridge. The kind is `None` if the letter is unknown.
    Bridge(HostId, Option<Kind>, &'a [u8]),
    /// From any other client.
    Plain(&'a [u8]),
}

/// Reads a message.
pub fn read(bytes: &[u8]) -> Incoming<'_> {
    let told = bytes.split_at_checked(HEAD_BYTES).and_then(|(head, payload)| {
        let (digits, rest) = head.strip_prefix(PREFIX)?.split_at_checked(DIGITS)?;
        let &[b':', letter, b':'] = rest else { return None };
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == letter);
        Some(Incoming::Bridge(HostId::read(digits)?, kind, payload))
    });
    told.unwrap_or(Incoming::Plain(bytes))
}

/// The kind of record for clients: text only if the payload is valid UTF-8.
pub fn record_kind(claimed: Option<Kind>, payload: &[u8]) -> RecordKind {
    let is_text = claimed != Some(Kind::Binary) && std::str::from_utf8(payload).is_ok();
    if is_text { RecordKind::Text } else { RecordKind::Binary }
}

/// Splits records into parts of [`PART_BYTES`], handing each to `each` before making the next; returns the rest.
pub fn in_parts<'a>(
    records: impl Iterator<Item = (RecordKind, &'a [u8], &'a [u8])>,
    mut each: impl FnMut(&Records),
) -> Records {
    let mut part = Records::new();
    for (kind, channel, member) in records {
        if part.bytes().len() >= PART_BYTES {
            each(&part);
            part.clear();
        }
        part.push(kind, channel, &[member]);
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_said_is_understood(host in any::<u64>(), kind in 0..Kind::ALL.len(), payload in vec(any::<u8>(), 0..50)) {
            let (host, kind) = (HostId(host), Kind::ALL[kind]);
            let mut bytes = head(host, kind).to_vec();
            bytes.extend_from_slice(&payload);
            prop_assert_eq!(read(&bytes), Incoming::Bridge(host, Some(kind), &payload));
        }

        #[test]
        fn a_list_in_parts_is_the_list(names in vec("[a-z]{1,2000}", 0..200)) {
            let (mut parts, mut back) = (Vec::new(), Vec::new());
            let records = names.iter().map(|name| (RecordKind::Enter, &b"room"[..], name.as_bytes()));
            let last = in_parts(records, |part| parts.push(part.clone()));
            parts.push(last);
            for part in &parts {
                prop_assert!(part.bytes().len() < PART_BYTES + 3000);
                back.extend(part.iter().map(|record| String::from_utf8_lossy(record.payload).into_owned()));
            }
            prop_assert_eq!(back, names);
        }
    }

    #[test]
    fn what_bridges_did_not_say_is_plain() {
        for text in
            ["", "hello", "percore:", "percore:12:t:x", "percore:+123456789abcdef:t:x", "percore:0123456789abcdef.t:x"]
        {
            assert_eq!(read(text.as_bytes()), Incoming::Plain(text.as_bytes()));
        }
        let unknown = read(b"percore:0123456789abcdef:?:x");
        assert_eq!(unknown, Incoming::Bridge(HostId(0x0123_4567_89ab_cdef), None, b"x"));
        assert_eq!(record_kind(None, b"text"), RecordKind::Text);
        assert_eq!(record_kind(None, b"\xff"), RecordKind::Binary);
        assert_eq!(record_kind(Some(Kind::Text), b"\xff"), RecordKind::Binary);
        assert_eq!(record_kind(Some(Kind::Binary), b"text"), RecordKind::Binary);
    }
}
