//! What a record on the bus holds: who published it, on which channel, and what.

/// The longest name of a channel, in bytes.
pub const MAX_CHANNEL_BYTES: usize = u16::MAX as usize;
/// What stands before the channel and the payload.
pub const HEAD_BYTES: usize = 7;

/// The first byte of a record, should there ever be others.
const MESSAGE: u8 = 1;

/// A message on a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope<'a> {
    /// Which of the slot's owners published it.
    pub generation: u32,
    /// The channel's name.
    pub channel: &'a [u8],
    /// Any bytes.
    pub payload: &'a [u8],
}

/// Writes what stands before a message's payload. The channel's name has [`MAX_CHANNEL_BYTES`] at most.
pub fn write_head(generation: u32, channel: &[u8], head: &mut Vec<u8>) {
    head.clear();
    head.push(MESSAGE);
    head.extend_from_slice(&(channel.len() as u16).to_le_bytes());
    head.extend_from_slice(&generation.to_le_bytes());
    head.extend_from_slice(channel);
}

impl Envelope<'_> {
    /// Reads a record; `None` for one that is not understood.
    #[inline]
    pub fn read(record: &[u8]) -> Option<Envelope<'_>> {
        let (&[MESSAGE, low, high, a, b, c, d], rest) = record.split_first_chunk::<HEAD_BYTES>()? else { return None };
        let (channel, payload) = rest.split_at_checked(u16::from_le_bytes([low, high]).into())?;
        Some(Envelope { generation: u32::from_le_bytes([a, b, c, d]), channel, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            generation in any::<u32>(), channel in vec(any::<u8>(), 0..300), payload in vec(any::<u8>(), 0..300)
        ) {
            let mut record = Vec::new();
            write_head(generation, &channel, &mut record);
            record.extend_from_slice(&payload);
            let want = Envelope { generation, channel: &channel, payload: &payload };
            prop_assert_eq!(Envelope::read(&record), Some(want));
        }

        #[test]
        fn no_bytes_make_it_panic(record in vec(any::<u8>(), 0..40)) {
            let _ = Envelope::read(&record);
        }
    }
}
