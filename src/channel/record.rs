//! Records that processes exchange over a bus: messages on channels, and channel membership.

use std::fmt;

/// The longest name of a channel, in bytes.
pub const MAX_CHANNEL_BYTES: usize = u16::MAX as usize;

/// The kind of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum RecordKind {
    /// A text message for all subscribers of the channel, in any process.
    Text = 1,
    /// A binary message for all subscribers.
    Binary = 2,
    /// How many subscribers the sender has on the channel, and whether its app listens to it: an [`Interest`].
    Count = 3,
    /// A member with this name joined the sender's part of the channel.
    Enter = 4,
    /// The member left.
    Leave = 5,
}

impl RecordKind {
    const ALL: [RecordKind; 5] =
        [RecordKind::Text, RecordKind::Binary, RecordKind::Count, RecordKind::Enter, RecordKind::Leave];

    /// The kind with this number.
    #[inline]
    pub fn from_byte(byte: u8) -> Option<RecordKind> {
        RecordKind::ALL.get(usize::from(byte).wrapping_sub(1)).copied()
    }

    /// Returns whether it reports channel membership, and so is part of the sender's list.
    #[inline]
    pub fn is_presence(self) -> bool {
        matches!(self, RecordKind::Count | RecordKind::Enter | RecordKind::Leave)
    }
}

/// A process's interest in a channel. Every channel begins with none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Interest {
    /// The number of subscribed connections.
    pub subscribers: u32,
    /// Whether the app itself listens to the channel: [`Outbox::listen`](crate::Outbox::listen).
    pub listens: bool,
}

impl Interest {
    /// Encodes it as the payload of a [`RecordKind::Count`].
    pub fn bytes(self) -> [u8; 5] {
        let [a, b, c, d] = self.subscribers.to_le_bytes();
        [a, b, c, d, u8::from(self.listens)]
    }

    /// Returns whether there is any interest.
    pub fn is_some(self) -> bool {
        self != Interest::default()
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// The kind.
    pub kind: RecordKind,
    /// The channel's name, at most [`MAX_CHANNEL_BYTES`] long.
    pub channel: &'a [u8],
    /// A message, an [`Interest`] or a member's name.
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

    /// The content of a [`RecordKind::Count`].
    pub fn interest(&self) -> Option<Interest> {
        let &[a, b, c, d, listens] = self.payload else { return None };
        (self.kind == RecordKind::Count)
            .then(|| Interest { subscribers: u32::from_le_bytes([a, b, c, d]), listens: listens != 0 })
    }
}

/// Why a record cannot be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The record is longer than a quarter of the ring (`--bus-size`).
    TooLong {
        /// The longest possible record, channel and payload together, in bytes.
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

/// Bytes before the channel of each record in [`Records`]: the kind, and the lengths of channel and payload.
const HEAD_BYTES: usize = 7;

/// A sequence of records, as bytes: records to publish, or a list of channel members.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Records(Vec<u8>);

impl Records {
    /// No records.
    pub const fn new() -> Records {
        Records(Vec::new())
    }

    /// Records in the form of [`Records::bytes`]. The bytes need not be valid: truncated or unknown records are
    /// skipped.
    pub fn from_bytes(bytes: Vec<u8>) -> Records {
        Records(bytes)
    }

    /// Adds a record. It is skipped if its channel is longer than [`MAX_CHANNEL_BYTES`], or its payload has 4 GiB or
    /// more: a length that does not fit would turn what follows into other records. Callers that may have such records
    /// count them first.
    pub fn push(&mut self, kind: RecordKind, channel: &[u8], parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let (Ok(channel_bytes), Ok(payload_bytes)) = (u16::try_from(channel.len()), u32::try_from(length)) else {
            return;
        };
        self.0.push(kind as u8);
        self.0.extend_from_slice(&channel_bytes.to_le_bytes());
        self.0.extend_from_slice(&payload_bytes.to_le_bytes());
        self.0.extend_from_slice(channel);
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all records, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The records as bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Iterates over the records in order.
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
            all in vec((1u8..=5, vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40)), 0..10), cut in any::<prop::sample::Index>()
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
            // Of truncated bytes, the whole records remain.
            let cut = cut.index(records.bytes().len() + 1);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            prop_assert_eq!(Records::from_bytes(records.bytes()[..cut].to_vec()).iter().count(), whole);
        }

        #[test]
        fn what_has_no_room_for_its_length_is_not_pushed(more in 1usize..100_000, smuggled in vec(any::<u8>(), 0..50)) {
            // Bytes after a length truncated to 16 bits would be read as the next record.
            let mut channel = smuggled;
            channel.resize(MAX_CHANNEL_BYTES + more, 0);
            let mut records = Records::new();
            records.push(RecordKind::Text, &channel, &[b"payload"]);
            prop_assert!(records.is_empty());
            records.push(RecordKind::Text, &channel[..MAX_CHANNEL_BYTES], &[b"payload"]);
            let back: Vec<_> = records.iter().collect();
            prop_assert_eq!(back.len(), 1);
            prop_assert!(back[0].channel == &channel[..MAX_CHANNEL_BYTES] && back[0].payload == b"payload");
        }

        #[test]
        fn an_interest_comes_back(subscribers in any::<u32>(), listens in any::<bool>()) {
            let interest = Interest { subscribers, listens };
            let record = Record { kind: RecordKind::Count, channel: b"c", payload: &interest.bytes() };
            prop_assert_eq!(record.interest(), Some(interest));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..100)) {
            Records::from_bytes(bytes).iter().for_each(|record| { let _ = record.interest(); });
        }
    }
}
