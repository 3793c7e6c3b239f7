//! What a record looks like in a ring: who published it, what it is, on which channel, and what it holds.

use crate::data::record::{Record, RecordKind};

/// What stands before the channel and the payload.
pub const HEAD_BYTES: usize = 7;

/// Writes what stands before a record's payload. The channel's name has
/// [`MAX_CHANNEL_BYTES`](crate::data::record::MAX_CHANNEL_BYTES) at most.
pub fn write_head(generation: u32, kind: RecordKind, channel: &[u8], head: &mut Vec<u8>) {
    head.clear();
    head.push(kind as u8);
    head.extend_from_slice(&(channel.len() as u16).to_le_bytes());
    head.extend_from_slice(&generation.to_le_bytes());
    head.extend_from_slice(channel);
}

/// Reads a record, and which of the slot's owners published it; `None` for one that is not understood.
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
            let mut record = Vec::new();
            let kind = RecordKind::from_byte(kind).expect("a kind");
            write_head(generation, kind, &channel, &mut record);
            record.extend_from_slice(&payload);
            let want = Record { kind, channel: &channel, payload: &payload };
            prop_assert_eq!(read(&record), Some((generation, want)));
        }

        #[test]
        fn no_bytes_make_it_panic(record in vec(any::<u8>(), 0..40)) {
            let _ = read(&record);
        }
    }
}
