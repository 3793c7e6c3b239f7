//! Any bytes as a frame: our two ways to read a header agree with each other and with tungstenite, what is written is
//! read back, and masking is what RFC 6455, section 5.3, says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::protocol::frame::{self, Head, MAX_HEADER_BYTES};
use percore::internal::protocol::mask;
use std::io::Cursor;
use tungstenite::protocol::frame::FrameHeader;

fuzz_target!(|bytes: &[u8]| {
    let head = frame::decode(bytes);
    let mut cursor = Cursor::new(bytes);
    let theirs = FrameHeader::parse(&mut cursor);
    match &head {
        Ok(Some(head)) => {
            assert_eq!(theirs.expect("valid"), Some((head.header.clone(), head.payload_bytes)));
            assert_eq!(cursor.position(), head.header_bytes as u64);
            assert_eq!(frame::header_bytes_wanted(bytes), head.header_bytes);
            for cut in 0..head.header_bytes {
                assert_eq!(frame::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
                assert!(frame::header_bytes_wanted(&bytes[..cut]) > cut);
            }
            write_back(head, bytes);
        }
        Ok(None) => {
            assert!(matches!(theirs, Ok(None)));
            assert!(frame::header_bytes_wanted(bytes) > bytes.len());
        }
        // Stricter than tungstenite only in the form of a length.
        Err(_) => assert!(theirs.is_err() || matches!(bytes[1] & 0x7f, 126 | 127)),
    }
    for masked in [false, true] {
        let short = if masked { frame::decode_short::<true>(bytes) } else { frame::decode_short::<false>(bytes) };
        let Some(short) = short else { continue };
        let head = head.clone().expect("valid").expect("whole");
        assert_eq!((head.header_bytes, head.payload_bytes), (short.start, (short.end - short.start) as u64));
        assert_eq!(head.header.mask, masked.then_some(short.mask));
        assert!(head.header.is_final && !head.header.rsv1 && !head.header.rsv2 && !head.header.rsv3);
        assert_eq!(short.first & 0x0f, u8::from(head.header.opcode));
        unmask(&bytes[short.start..short.end], short.mask);
    }
});

/// The header is in its shortest form, so writing it gives the same bytes.
fn write_back(head: &Head, bytes: &[u8]) {
    let header = &head.header;
    let Ok(length) = usize::try_from(head.payload_bytes) else { return };
    if !header.is_final || header.rsv2 || header.rsv3 {
        return;
    }
    let mut ours = [0; MAX_HEADER_BYTES];
    let written = frame::encode(&mut ours, header.opcode, header.rsv1, length, header.mask);
    assert_eq!(&ours[..written], &bytes[..head.header_bytes]);
}

fn unmask(payload: &[u8], key: [u8; 4]) {
    let want: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let mut copied = vec![0; payload.len()];
    mask::copy(payload, &mut copied, key);
    assert_eq!(copied, want);
    let mut pieces = payload.to_vec();
    let cut = payload.len() / 3;
    mask::apply(&mut pieces[..cut], key);
    mask::apply(&mut pieces[cut..], mask::rotate(key, cut));
    assert_eq!(pieces, want);
}
