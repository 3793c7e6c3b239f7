//! The format of a record in a ring: its publisher, kind, channel and payload.

use crate::channel::record::{Record, RecordKind};

/// Bytes before the channel and the payload.
pub const HEAD_BYTES: usize = 7;

/// The head of a record, before its channel and payload. The channel's name has at most
/// [`MAX_CHANNEL_BYTES`](crate::channel::record::MAX_CHANNEL_BYTES).
#[inline]
pub fn head(generation: u32, kind: RecordKind, channel: &[u8]) -> [u8; HEAD_BYTES] {
    let [low, high] = (channel.len() as u16).to_le_bytes();
    let [a, b, c, d] = generation.to_le_bytes();
    [kind as u8, low, high, a, b, c, d]
}

/// Reads a record, and the generation of the slot owner that published it; `None` for an unknown record.
#[inline]
pub fn read(bytes: &[u8]) -> Option<(u32, Record<'_>)> {
    let (&[kind, low, high, a, b, c, d], rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (channel, payload) = rest.split_at_checked(u16::from_le_bytes([low, high]).into())?;
    Some((u32::from_le_bytes([a, b, c, d]), Record { kind: RecordKind::from_byte(kind)?, channel, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            generation in any::<u32>(), kind in 1u8..=5, channel in vec(any::<u8>(), 0..300), payload in vec(any::<u8>(), 0..300)
        ) {
            let kind = RecordKind::from_byte(kind).expect("a kind");
            let record = [head(generation, kind, &channel).as_slice(), &channel, &payload].concat();
            let want = Record { kind, channel: &channel, payload: &payload };
            prop_assert_eq!(read(&record), Some((generation, want)));
        }

        #[test]
        fn no_bytes_make_it_panic(record in vec(any::<u8>(), 0..40)) {
            let _ = read(&record);
        }
    }
}
