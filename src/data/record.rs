//! What processes tell each other over a bus: messages and notices on channels, and who is on them.

use std::fmt;

/// The longest name of a channel, in bytes.
pub const MAX_CHANNEL_BYTES: usize = u16::MAX as usize;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// A text message for the subscribers of the channel, wherever they are connected.
    Text = 1,
    /// A binary message for them.
    Binary = 2,
    /// Bytes for the apps of the other processes: [`App::on_bus`](crate::App::on_bus).
    Notice = 3,
    /// How many subscribers the sender has on the channel: eight bytes, least significant first.
    Count = 4,
    /// A member of that name came to the sender's part of the channel.
    Enter = 5,
    /// It left.
    Leave = 6,
}

impl RecordKind {
    const ALL: [RecordKind; 6] = [
        RecordKind::Text,
        RecordKind::Binary,
        RecordKind::Notice,
        RecordKind::Count,
        RecordKind::Enter,
        RecordKind::Leave,
    ];

    /// The kind of which this is the number.
    #[inline]
    pub fn from_byte(byte: u8) -> Option<RecordKind> {
        RecordKind::ALL.get(usize::from(byte).wrapping_sub(1)).copied()
    }

    /// Whether it tells who is on a channel, so that it is part of the sender's list.
    #[inline]
    pub fn is_presence(self) -> bool {
        matches!(self, RecordKind::Count | RecordKind::Enter | RecordKind::Leave)
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The channel's name, of [`MAX_CHANNEL_BYTES`] at most.
    pub channel: &'a [u8],
    /// A message, a notice, a number or a member's name.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// A text message.
    pub fn text(channel: &'a str, message: &'a str) -> Record<'a> {
        Record { kind: RecordKind::Text, channel: channel.as_bytes(), payload: message.as_bytes() }
    }

    /// A binary message.
    pub fn binary(channel: &'a str, message: &'a [u8]) -> Record<'a> {
        Record { kind: RecordKind::Binary, channel: channel.as_bytes(), payload: message }
    }

    /// The number that a [`RecordKind::Count`] tells.
    pub fn count(&self) -> Option<u64> {
        let bytes: [u8; 8] = self.payload.try_into().ok()?;
        (self.kind == RecordKind::Count).then(|| u64::from_le_bytes(bytes))
    }
}

/// Why something cannot be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishError {
    /// The record is longer than a quarter of the ring (`--bus-size`).
    TooLong {
        /// The longest there can be, channel and payload together, in bytes.
        limit: usize,
    },
    /// The channel's name is longer than 65,535 bytes.
    ChannelTooLong,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::TooLong { limit } => {
                write!(f, "message longer than the {limit} bytes that a ring takes at a time (--bus-size)")
            }
            PublishError::ChannelTooLong => write!(f, "name of a channel longer than {MAX_CHANNEL_BYTES} bytes"),
        }
    }
}

impl std::error::Error for PublishError {}

/// Bytes before the channel of each record in [`Records`]: the kind, and how long channel and payload are.
const HEAD_BYTES: usize = 7;

/// Records in a row, as bytes: what waits to be published, and the list of who is on which channel.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Records(Vec<u8>);

impl Records {
    /// No records.
    pub const fn new() -> Records {
        Records(Vec::new())
    }

    /// Records in the form of [`Records::bytes`]. Nothing about them is trusted: what is cut off or not understood is left out.
    pub fn from_bytes(bytes: Vec<u8>) -> Records {
        Records(bytes)
    }

    /// Adds a record. The channel's name has [`MAX_CHANNEL_BYTES`] at most, and the parts of the payload 4 GiB.
    pub fn push(&mut self, kind: RecordKind, channel: &[u8], parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        debug_assert!(channel.len() <= MAX_CHANNEL_BYTES && u32::try_from(length).is_ok());
        self.0.push(kind as u8);
        self.0.extend_from_slice(&(channel.len() as u16).to_le_bytes());
        self.0.extend_from_slice(&(length as u32).to_le_bytes());
        self.0.extend_from_slice(channel);
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets them, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Their bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The records, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (&[kind, low, high, a, b, c, d], tail) = rest.split_first_chunk::<HEAD_BYTES>()?;
            let (channel, tail) = tail.split_at_checked(u16::from_le_bytes([low, high]).into())?;
            let (payload, tail) = tail.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize)?;
            rest = tail;
            Some(RecordKind::from_byte(kind).map(|kind| Record { kind, channel, payload }))
        })
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_pushed_comes_back(
            all in vec((1u8..=6, vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40)), 0..10), cut in any::<prop::sample::Index>()
        ) {
            let mut records = Records::new();
            let mut ends = Vec::new();
            for (kind, channel, payload) in &all {
                let kind = RecordKind::from_byte(*kind).expect("a kind");
                let (front, back) = payload.split_at(payload.len() / 2);
                records.push(kind, channel, &[front, back]);
                ends.push(records.bytes().len());
            }
            let back: Vec<_> = records.iter().map(|r| (r.kind as u8, r.channel.to_vec(), r.payload.to_vec())).collect();
            prop_assert_eq!(&back, &all);
            // Of bytes that are cut off, the whole records are left.
            let cut = cut.index(records.bytes().len() + 1);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            prop_assert_eq!(Records::from_bytes(records.bytes()[..cut].to_vec()).iter().count(), whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..100)) {
            Records::from_bytes(bytes).iter().for_each(|record| { let _ = record.count(); });
        }
    }
}
