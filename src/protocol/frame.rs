//! Frame headers (RFC 6455, section 5.2), as tungstenite's `FrameHeader`, read from and written to slices.

use super::close::Violation;
use super::mask::Mask;
use std::io::Cursor;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// The longest header: two bytes, eight of length, four of mask.
pub const MAX_HEADER_BYTES: usize = 14;
/// The longest header without a mask.
pub const MAX_UNMASKED_HEADER_BYTES: usize = 10;
/// The longest payload of a control frame (section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// First byte of an unfragmented text frame, without reserved bits.
pub const FINAL_TEXT: u8 = 0x81;
/// First byte of an unfragmented binary frame, without reserved bits.
pub const FINAL_BINARY: u8 = 0x82;

/// A parsed header and the lengths that locate its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The header's fields.
    pub header: FrameHeader,
    /// Length of the header itself.
    pub header_bytes: usize,
    /// Length of the payload.
    pub payload_bytes: u64,
}

/// Parses the header at the start of `bytes`; `None` if it is incomplete.
///
/// # Errors
/// When the opcode is not defined, or the length is not in its shortest form or above 2^63.
pub fn decode(bytes: &[u8]) -> Result<Option<Head>, Violation> {
    let mut cursor = Cursor::new(bytes);
    let Some((header, payload_bytes)) =
        FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol("frame with a reserved opcode"))?
    else {
        return Ok(None);
    };
    let shortest = match bytes[1] & 0x7f {
        126 => payload_bytes > 125,
        127 => payload_bytes > 0xffff,
        _ => true,
    };
    if !shortest {
        return Err(Violation::Protocol("frame length that is not in its shortest form"));
    }
    if payload_bytes >> 63 != 0 {
        return Err(Violation::Protocol("frame length with its highest bit set"));
    }
    Ok(Some(Head { header, header_bytes: cursor.position() as usize, payload_bytes }))
}

/// How many bytes of a header are needed to parse it, as far as its start in `bytes` tells.
pub fn header_bytes_wanted(bytes: &[u8]) -> usize {
    let Some(second) = bytes.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 != 0 { 4 } else { 0 }
}

/// A complete text or binary frame within the given bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// `FINAL_TEXT` or `FINAL_BINARY`.
    pub first: u8,
    /// Start of the payload.
    pub start: usize,
    /// End of the payload, and so of the frame.
    pub end: usize,
    /// The key; zero if the frame is not masked.
    pub mask: Mask,
}

/// The hot path of nearly all frames: a complete unfragmented text or binary message below 64 KiB, masked or not as
/// `MASKED` says. On `None` the caller uses [`decode`], which handles every frame.
#[inline(always)]
pub fn decode_short<const MASKED: bool>(bytes: &[u8]) -> Option<Short> {
    let mask_bytes = if MASKED { 4 } else { 0 };
    let &[first, second] = bytes.first_chunk::<2>()?;
    if first != FINAL_TEXT && first != FINAL_BINARY {
        return None;
    }
    // If the mask bit is right, this is the length; otherwise it is above 127.
    let length = second ^ if MASKED { 0x80 } else { 0 };
    let (start, length) = if length < 126 {
        (2 + mask_bytes, usize::from(length))
    } else {
        let &[_, _, high, low] = bytes.first_chunk::<4>()?;
        let extended = usize::from(u16::from_be_bytes([high, low]));
        if length != 126 || extended < 126 {
            return None;
        }
        (4 + mask_bytes, extended)
    };
    let end = start + length;
    if end > bytes.len() {
        return None;
    }
    let mask = if MASKED { *bytes[start - 4..].first_chunk::<4>()? } else { [0; 4] };
    Some(Short { first, start, end, mask })
}

/// Writes the header of an unfragmented frame to the start of `out`. Returns its length.
///
/// # Panics
/// When `out` is shorter than the header.
#[inline(always)]
pub fn encode(out: &mut [u8], opcode: OpCode, compressed: bool, payload_bytes: usize, mask: Option<Mask>) -> usize {
    if payload_bytes < 126 && !compressed {
        let (first, length) = (0x80 | u8::from(opcode), payload_bytes as u8);
        match mask {
            None => {
                out[..2].copy_from_slice(&[first, length]);
                return 2;
            }
            Some([a, b, c, d]) => {
                out[..6].copy_from_slice(&[first, 0x80 | length, a, b, c, d]);
                return 6;
            }
        }
    }
    encode_any(out, opcode, compressed, payload_bytes, mask)
}

fn encode_any(out: &mut [u8], opcode: OpCode, compressed: bool, payload_bytes: usize, mask: Option<Mask>) -> usize {
    let header = FrameHeader { is_final: true, rsv1: compressed, rsv2: false, rsv3: false, opcode, mask };
    let mut left = &mut out[..header.len(payload_bytes as u64)];
    let written = left.len();
    header.format(payload_bytes as u64, &mut left).expect("the slice is as long as the header");
    written
}

/// Whether this is the start or a later part of a message, not a control frame.
pub fn is_data(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Data(Data::Continue | Data::Text | Data::Binary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_header()(fin: bool, rsv1: bool, code in prop::sample::select(vec![0u8, 1, 2, 8, 9, 10]), mask: Option<Mask>) -> FrameHeader {
            FrameHeader { is_final: fin, rsv1, rsv2: false, rsv3: false, opcode: OpCode::from(code), mask }
        }
    }

    fn any_length() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..300, 65_000u64..66_000, any::<u64>().prop_map(|n| n >> 1)]
    }

    proptest! {
        #[test]
        fn encode_then_decode_is_identity(header in any_header(), length in any_length()) {
            let mut bytes = Vec::new();
            header.format(length, &mut bytes).expect("a Vec takes all");
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut]), Ok(None));
                prop_assert!(header_bytes_wanted(&bytes[..cut]) > cut);
            }
            prop_assert_eq!(header_bytes_wanted(&bytes), bytes.len());
            let head = Head { header: header.clone(), header_bytes: bytes.len(), payload_bytes: length };
            prop_assert_eq!(decode(&bytes), Ok(Some(head)));
            if header.is_final && length < 1 << 40 {
                let mut ours = [0; MAX_HEADER_BYTES];
                let written = encode(&mut ours, header.opcode, header.rsv1, length as usize, header.mask);
                prop_assert_eq!(&ours[..written], &bytes[..]);
            }
        }

        #[test]
        fn the_short_way_agrees_with_the_general_one(bytes in prop::collection::vec(any::<u8>(), 0..400), text: bool, masked: bool) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if text { FINAL_TEXT } else { FINAL_BINARY };
            }
            if let Some(short) = if masked { decode_short::<true>(&bytes) } else { decode_short::<false>(&bytes) } {
                let head = decode(&bytes).expect("valid").expect("whole");
                prop_assert_eq!(head.header_bytes, short.start);
                prop_assert_eq!(head.payload_bytes as usize, short.end - short.start);
                prop_assert_eq!(head.header.mask, masked.then_some(short.mask));
                prop_assert!(head.header.is_final && !head.header.rsv1 && is_data(head.header.opcode));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn lengths_in_a_longer_form_are_refused() {
        for bytes in
            [&[0x82, 126, 0, 125][..], &[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], &[0x82, 127, 128, 0, 0, 0, 0, 1, 0, 0]]
        {
            assert!(decode(bytes).is_err(), "{bytes:?}");
            assert_eq!(decode_short::<false>(bytes), None);
        }
    }
}
